"""The setup cell of every notebook: the profile, fitted to the machine at hand, and the doctor of
notebook 00.

What fits which GPU is looked up in :mod:`vdr_helpers.gpu`.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vdr_helpers.cache import cached
from vdr_helpers.extras import PACKAGE, how_to_install, needs, requirements, wrong_packages
from vdr_helpers.gpu import BYTES, GIB, fit_to_gpu, present_gpu, use_first_gpu
from vdr_helpers.profiles import Profile, assets_folder, load_profile
from vdr_helpers.published import read_asset

PNG_SHARE = 0.35  # assumed share of its raw size that a page keeps as PNG


def start(name: str | None = None) -> Profile:
    """The profile ``name`` (else ``$VDR_PROFILE``, else ``tiny``), fitted to this machine; prints
    why, and where the notebook runs.

    Raises ``ImportError`` for a package that is missing or too old, and what
    :func:`vdr_helpers.profiles.load_profile` and :func:`vdr_helpers.gpu.use_first_gpu` raise.
    """
    with suppress(importlib.metadata.PackageNotFoundError):  # the doctor says how to install it
        needs()
    check_loaded_packages()
    quiet_progress_bars()
    profile = load_profile(name)
    use_first_gpu()
    profile = fit_to_gpu(with_random_weights(profile))
    libraries = ""
    for library in ("sentence-transformers", "torch"):
        libraries += f" | {library} {importlib.metadata.version(library).partition('+')[0]}"
    print(f"profile {profile.name} | {present_gpu().name.partition(',')[0]}{libraries}")
    return profile


def check_loaded_packages() -> None:
    """Raise ``RuntimeError`` where a package was replaced after this kernel had loaded it, as an
    install on Colab can do.
    """
    for package in ("numpy", "torch", "torchvision", "transformers", "sentence-transformers"):
        loaded = getattr(sys.modules.get(package.replace("-", "_")), "__version__", None)
        installed = importlib.metadata.version(package)
        if loaded and loaded.partition("+")[0] != installed.partition("+")[0]:
            raise RuntimeError(
                f"{package} {loaded} is loaded and {installed} is installed: restart the session "
                "(menu Runtime or Run), then run this cell first"
            )


def quiet_progress_bars() -> None:
    """Turn off progress bars, which as widgets leave pages that a code host cannot show, but not
    those of downloads, which take minutes.
    """
    import datasets
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    datasets.disable_progress_bars()
    disable_progress_bar()  # turns the hub's off too
    if os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") is None:
        enable_progress_bars()
    # This one says at every page that torchvision's decoder gives way to torchcodec's.
    logging.getLogger("transformers.image_utils").setLevel(logging.ERROR)


def with_random_weights(profile: Profile) -> Profile:
    """The profile with the folder of its random weights, built on first use (2B: 4.3 GB); others
    come back as they are.
    """
    if not profile.random_weights:
        return profile
    from tiny_vdr.model import SIZES, save_random_model

    def build(folder: Path) -> None:
        print(f"building the {profile.random_weights} architecture with random weights, once")
        save_random_model(
            folder,
            SIZES[profile.random_weights],
            like=assets_folder() / "tiny-base",
            seed=profile.seed,
        )

    settings = {"version": 3, "model": profile.random_weights, "seed": profile.seed}
    return replace(
        profile, model_folder=str(cached(profile.output_dir, "random-weights", settings, build))
    )


def disk_needs(profile: Profile) -> dict[str, float]:
    """What the notebooks leave on the disk at most, in GiB by kind. The dataset itself is read over
    the network and not kept.
    """
    width = profile.matryoshka_dims[0]
    model = read_asset("gpu_memory.json")["models"][str(width)]
    whole = model["parameters"] * BYTES[profile.model_kwargs["dtype"]]
    trained = 4 * model["lora_parameters"] if profile.adapters else whole
    pages = 2 * profile.train_rows + 5 * profile.eval_rows
    needs = {
        "downloaded models": 0,
        "pages": pages * 3 * profile.max_pixels * PNG_SHARE,
        "checkpoints": 2 * 3 * trained,  # two, each of the trained weights and two moments for them
        "tuned model": trained,
        "published model": whole,
        "embeddings": 2 * 6 * profile.eval_rows * width * 4,  # base and tuned, queries and pages
    }
    shipped = profile.model_name.startswith("assets/")
    if not (shipped or profile.model_folder or profile.random_weights):
        # base and published tuned model, two bytes a weight
        needs["downloaded models"] = 2 * 2 * model["parameters"]
    return {kind: needed / GIB for kind, needed in needs.items()}


def check_disk(profile: Profile, folder: Path) -> str | None:
    """``None`` if ``folder`` can be written and has the room that all notebooks need; what this
    profile has there already counts.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = f"outputs folder cannot be written ({error.strerror})"
        return f"{problem}: set VDR_OUTPUTS to a folder of yours"
    free, needs = shutil.disk_usage(folder).free / GIB, disk_needs(profile)
    files = [file for file in profile.output_dir.rglob("*") if file.is_file()]
    there = sum(file.stat().st_size for file in files) / GIB
    needed = max(0.0, sum(needs.values()) - there)
    if free >= needed:
        return None
    largest_first = sorted(needs.items(), key=lambda kind_and_gib: -kind_and_gib[1])
    largest = ", ".join(f"{kind} {gib:.1f}" for kind, gib in largest_first if gib >= 0.1)
    return (
        f"{free:.1f} GiB free, {needed:.1f} GiB needed ({largest}): free some, set VDR_OUTPUTS to "
        "another disk (and HF_HOME for the downloads), or take fewer rows (VDR_ROWS)"
    )


def check_packages() -> dict[str, str | None]:
    """What ``pyproject.toml`` asks for, read from the installed course's metadata: a problem per
    package, or one line for all.

    ``pip check`` would do it as well, but names every other package of the machine too, and not
    every environment has pip.
    """
    try:
        asked, wrong = requirements(), wrong_packages()
    except importlib.metadata.PackageNotFoundError:
        problem = f"{PACKAGE} is not installed: in the clone, pip install -e . (README)"
        return {PACKAGE: f"{problem}, then restart the kernel"}
    problems = {one: f"{said}. {how_to_install([one])}" for one, said in wrong.items()}
    return problems or {f"{len(asked)} packages, each recent enough": None}


def check_torchvision() -> str | None:
    """Import torchvision and call one of its compiled operators: a build that does not match torch
    fails here, not in the middle.
    """
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        problem = f"torchvision does not match torch ({type(error).__name__})"
        return f"{problem}: install both from one line, as requirements.txt pins them"
    return None


def check_model(profile: Profile) -> str | None:
    """``None`` if the base model is a hub id or its shipped folder is whole."""
    folder = Path(profile.base_model)
    whole = (folder / "modules.json").exists() and list(folder.glob("*.safetensors"))
    if whole or not profile.model_name.startswith("assets/"):
        return None
    return "the shipped base model is missing: reinstall the course, or make it with make pretrain"


def examine(profile: Profile) -> bool:
    """Print every check as a line and return whether all passed (notebook 00)."""
    new_enough = sys.version_info >= (3, 11)
    python = None if new_enough else "install Python 3.11 and start again from the README"
    checks = {"Python 3.11 or newer": python} | check_packages()
    checks["torchvision matches torch"] = check_torchvision()
    checks["base model of this profile"] = check_model(profile)
    checks["outputs folder: writable, enough disk"] = check_disk(profile, profile.outputs)
    for label, problem in checks.items():
        print(f"[OK]   {label}" if problem is None else f"[FAIL] {label}: {problem}")
    return not any(checks.values())
