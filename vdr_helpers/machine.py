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
from dataclasses import replace
from pathlib import Path

from vdr_helpers.cache import cached
from vdr_helpers.gpu import BYTES, GIB, fit_to_gpu, present_gpu, use_first_gpu
from vdr_helpers.profiles import Profile, assets_folder, load_profile
from vdr_helpers.published import read_asset

# assumed share of its raw size that a page keeps as PNG; notebook 02 estimates again from the first
# pages
PNG_SHARE = 0.35
PACKAGE = "vdr-course"


def start(name: str | None = None) -> Profile:
    """The profile ``name`` (else ``$VDR_PROFILE``, else ``tiny``), fitted to this machine; prints
    why, and where the notebook runs.

    Raises what :func:`vdr_helpers.profiles.load_profile` and :func:`vdr_helpers.gpu.use_first_gpu`
    raise.
    """
    check_loaded_packages()
    quiet_progress_bars()
    profile = load_profile(name)
    use_first_gpu()
    profile = fit_to_gpu(with_random_weights(profile))
    versions = (
        (library, importlib.metadata.version(library))
        for library in ("sentence-transformers", "torch")
    )
    libraries = " | ".join(
        f"{library} {version.partition('+')[0]}" for library, version in versions
    )
    print(f"profile {profile.name} | {present_gpu().name.partition(',')[0]} | {libraries}")
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
                f"{package} {loaded} is loaded and {installed} is installed: restart the session (menu Runtime or Run), "
                "then run this cell first"
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
    model = read_asset("gpu_memory.json")["models"][str(profile.matryoshka_dims[0])]
    whole = model["parameters"] * BYTES[profile.model_kwargs["dtype"]]
    trained = model["lora_parameters"] * 4 if profile.adapters else whole
    from_hub = not (
        profile.model_folder or profile.random_weights or profile.model_name.startswith("assets/")
    )
    kinds = {
        "downloaded models": from_hub
        * 2
        * 2
        * model["parameters"],  # base and published tuned model, two bytes a weight
        "pages": (2 * profile.train_rows + 5 * profile.eval_rows)
        * PNG_SHARE
        * 3
        * profile.max_pixels,
        "checkpoints": 2 * 3 * trained,  # two, each of the trained weights and two moments for them
        "tuned model": trained,
        "published model": whole,
        "embeddings": 2
        * 6
        * profile.eval_rows
        * profile.matryoshka_dims[0]
        * 4,  # of base and tuned model, notebooks 04 and 05
    }
    return {kind: needed / GIB for kind, needed in kinds.items()}


def check_disk(profile: Profile, folder: Path) -> str | None:
    """``None`` if ``folder`` can be written and has the room that all notebooks need; what this
    profile has there already counts.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"outputs folder cannot be written ({error.strerror}): set VDR_OUTPUTS to a folder of yours"
    free, needs = shutil.disk_usage(folder).free / GIB, disk_needs(profile)
    there = (
        sum(file.stat().st_size for file in profile.output_dir.rglob("*") if file.is_file()) / GIB
    )
    if free >= (needed := max(0.0, sum(needs.values()) - there)):
        return None
    largest = ", ".join(
        f"{kind} {gib:.1f}"
        for kind, gib in sorted(needs.items(), key=lambda item: -item[1])
        if gib >= 0.1
    )
    return (
        f"{free:.1f} GiB free, {needed:.1f} GiB needed ({largest}): free some, set VDR_OUTPUTS to another disk (and HF_HOME for the "
        "downloads), or take fewer rows (VDR_ROWS)"
    )


def check_packages() -> dict[str, str | None]:
    """What ``pyproject.toml`` asks for, read from the installed course's metadata: a problem per
    package, or one line for all.

    ``pip check`` would do it as well, but names every other package of the machine too, and not
    every environment has pip.
    """
    from packaging.requirements import Requirement
    from transformers.utils.versions import require_version

    try:
        asked = [Requirement(line) for line in importlib.metadata.requires(PACKAGE)]
    except importlib.metadata.PackageNotFoundError:
        return {
            PACKAGE: f"{PACKAGE} is not installed: in the clone, pip install -e . (README), then restart the kernel"
        }
    asked, problems = (
        [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})],
        {},
    )
    for one in asked:
        try:
            require_version(f"{one.name}{one.specifier}")
        except ImportError as error:
            problems[str(one)] = (
                f"{error.args[0].strip()} Do: pip install -U '{one}', then restart the kernel"
            )
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
        return f"torchvision does not match torch ({type(error).__name__}): install both from one line, as requirements.txt pins them"
    return None


def check_model(profile: Profile) -> str | None:
    """``None`` if the base model is a hub id or its shipped folder is whole."""
    folder = Path(profile.base_model)
    if (
        not profile.model_name.startswith("assets/")
        or (folder / "modules.json").exists()
        and list(folder.glob("*.safetensors"))
    ):
        return None
    return "the shipped base model is missing: reinstall the course, or make it with make pretrain"


def examine(profile: Profile) -> bool:
    """Print every check as a line and return whether all passed (notebook 00)."""
    python = (
        None
        if sys.version_info >= (3, 11)
        else "install Python 3.11 and start again from the README"
    )
    checks = {"Python 3.11 or newer": python} | check_packages()
    checks["torchvision matches torch"] = check_torchvision()
    checks["base model of this profile"] = check_model(profile)
    checks["outputs folder: writable, enough disk"] = check_disk(profile, profile.outputs)
    for label, problem in checks.items():
        print(f"[OK]   {label}" if problem is None else f"[FAIL] {label}: {problem}")
    return not any(checks.values())
