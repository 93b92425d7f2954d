"""The setup cell of every notebook: the profile, fitted to the machine at hand, and the doctor of notebook 00.

What fits which card is not worked out here: ``python -m tools.sizing`` computes ``assets/sizing.json`` and this module looks it up.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vdr_helpers.cache import cached
from vdr_helpers.profiles import Profile, assets_folder, load_profile
from vdr_helpers.published import read_asset

GIB = 2**30
AMPERE = (8, 0)  # first compute capability with bfloat16 units, and the lowest that FlashAttention 2 runs on
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARED_MEMORY = Path("/dev/shm")  # where worker processes hand over their batches; not on macOS and Windows
PREFETCH = 2  # batches that each worker process holds ready, the default of PyTorch's DataLoader
PNG_SHARE = 0.35  # assumed share of its raw size that a page keeps as PNG; notebook 02 estimates again from the first pages
PACKAGE = "vdr-course"


def start(name: str | None = None) -> Profile:
    """The profile ``name`` (else ``$VDR_PROFILE``, else ``tiny``), fitted to this machine; prints why, and where the notebook runs.

    Raises what :func:`vdr_helpers.profiles.load_profile` and :func:`use_first_card` raise.
    """
    quiet_progress_bars()
    profile = load_profile(name)
    use_first_card()
    profile = fit_to_card(with_random_weights(profile))
    versions = ((library, importlib.metadata.version(library)) for library in ("sentence-transformers", "torch"))
    libraries = " | ".join(f"{library} {version.partition('+')[0]}" for library, version in versions)
    print(f"profile {profile.name} | {present_card().name.partition(',')[0]} | {libraries}")
    return profile


def quiet_progress_bars() -> None:
    """Turn off progress bars, which as widgets leave pages that a code host cannot show, but not those of downloads, which take minutes."""
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
    """The profile with the folder of its random weights, built on first use (2B: 4.3 GB); others come back as they are."""
    if not profile.random_weights:
        return profile
    from tiny_vdr.model import SIZES, save_random_model

    def build(folder: Path) -> None:
        print(f"building the {profile.random_weights} architecture with random weights, once")
        save_random_model(folder, SIZES[profile.random_weights], like=assets_folder() / "tiny-base", seed=profile.seed)

    settings = {"version": 3, "model": profile.random_weights, "seed": profile.seed}
    return replace(profile, model_folder=str(cached(profile.output_dir, "random-weights", settings, build)))


@dataclass(frozen=True)
class Card:
    """A GPU as the decision sees it. ``capability`` and ``memory_gib`` are ``None`` where there is no CUDA card."""

    name: str
    capability: tuple[int, int] | None = None
    memory_gib: float | None = None


def use_first_card() -> None:
    """Hide all CUDA cards but the first from this process: the trainer would split every batch, which cuts patches from their pages.

    Does nothing under ``torchrun`` or ``accelerate``, which give each process its card. Raises ``RuntimeError`` where it is too late.
    """
    import torch

    if "LOCAL_RANK" in os.environ or (count := torch.cuda.device_count()) < 2:
        return
    if not torch.cuda.is_initialized():
        os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").split(",")[0].strip()
    if torch.cuda.device_count() > 1:
        raise RuntimeError(f"{count} CUDA cards are in use and the course trains on one: restart the kernel, run this cell first")
    print(f"{count} CUDA cards: the course uses the first ({VISIBLE}={os.environ[VISIBLE]})")


def present_card() -> Card:
    """The first CUDA card of this machine, ``Card("Apple GPU")`` or ``Card("CPU, 2 cores")``: the same words in every record of a run."""
    import torch

    if not torch.cuda.is_available():
        return Card("Apple GPU" if torch.backends.mps.is_available() else f"CPU, {os.cpu_count()} cores")
    properties = torch.cuda.get_device_properties(0)
    return Card(properties.name, (properties.major, properties.minor), properties.total_memory / GIB)


def sizing() -> dict:
    """``assets/sizing.json``: cards, models in numbers and settings by generation of card, as ``python -m tools.sizing`` wrote them."""
    return read_asset("sizing.json")


def generation(capability: Iterable[int]) -> str:
    """The 16-bit format that cards of this CUDA compute capability compute in; it names their settings in ``assets/sizing.json``."""
    return "bfloat16" if tuple(capability) >= AMPERE else "float16"


def card_choice(capability: tuple[int, int], memory_gib: float) -> dict:
    """The first setting of ``full`` that a card has room for, all weights before LoRA and many pages per pass before few.

    ``capability``: CUDA compute capability; ``memory_gib``: as CUDA reports it. Returns ``lora``, ``dtype``, ``mini_batch_num_tokens``, ``pages`` (per pass), ``gib`` needed, ``source`` of that figure, and ``fits``: false for the
    smallest setting where none has room. A setting that was not measured must leave a tenth of the card free.
    """
    settings = sizing()["settings"][generation(capability)]
    chosen = next((one for one in settings if one["gib"] <= memory_gib * one["share"]), None)
    return (chosen or settings[-1]) | {"fits": chosen is not None}


def choice_reasons(choice: dict, card: Card) -> list[str]:
    """Why :func:`card_choice` chose what it did, a line each; what holds for a generation of cards is written in ``assets/sizing.json``."""
    why = sizing()["why"][generation(card.capability)]
    pages = f"{choice['pages']} page{'s' if choice['pages'] > 1 else ''}"
    needed = f"{choice['gib']:.1f} of {card.memory_gib:.1f} GiB ({choice['source']})"
    return [
        f"{card.name}: compute capability {'.'.join(map(str, card.capability))}, {card.memory_gib:.0f} GiB",
        why["format"],
        *(why["lora"] if choice["lora"] else ()),
        f"{choice['mini_batch_num_tokens']:,} tokens ({pages}) per pass: {needed}",
        *(() if choice["fits"] else ("even that may not fit: take a larger card",)),
    ]


def worker_count(profile: Profile, dtype: str) -> tuple[int, str]:
    """``(dataloader_num_workers, reason)``: the profile's, as far as processor cores and the shared memory for their batches go.

    A batch is a page and a hard negative per row; each pixel is six numbers (three colours, two frames) in ``dtype``.
    """
    batch = 2 * profile.per_device_train_batch_size * profile.max_pixels * 6 * BYTES[dtype]
    limits = {"the profile's": profile.dataloader_num_workers, "processor cores": os.cpu_count() or 1}
    if SHARED_MEMORY.is_dir():
        limits["by shared memory"] = int(shutil.disk_usage(SHARED_MEMORY).free // (PREFETCH * batch))
    workers, listed = min(limits.values()), ", ".join(f"{name} {limit}" for name, limit in limits.items())
    return workers, f"{workers} processes open pages ahead ({listed}; each holds {PREFETCH} batches of {batch / 1e9:.2f} GB)"


def fit_to_card(profile: Profile, card: Card | None = None) -> Profile:
    """``profile`` with what this machine decides: number formats, attention, adapters and their learning rate, token budget, workers.

    ``tiny`` is returned as it is; else every reason is printed. Attention is PyTorch's own (SDPA), or what ``VDR_ATTENTION`` names: compiled
    code of the hub runs only when it is asked for. Where that cannot run, ``transformers`` says so as the model is loaded.
    """
    if not profile.fitted_to_gpu:
        return profile
    card = card or present_card()
    attention = profile.attention
    autocast = card.capability and generation(card.capability)
    if card.capability is None:
        choice = {"lora": False, "dtype": "float32", "mini_batch_num_tokens": profile.mini_batch_num_tokens}
        reasons = [f"{card.name}: no CUDA card, so float32 weights and no autocast"]
    else:
        choice = card_choice(card.capability, card.memory_gib)
        reasons = choice_reasons(choice, card)
    workers, why = worker_count(profile, choice["dtype"])
    print("\n".join([*reasons, f"attention: {attention}", why]))
    return replace(
        profile,
        model_kwargs=profile.model_kwargs | {"dtype": choice["dtype"], "attn_implementation": attention},
        adapters=(sizing()["lora"],) if choice["lora"] else (),
        learning_rate=profile.adapter_learning_rate if choice["lora"] else profile.learning_rate,
        mini_batch_num_tokens=choice["mini_batch_num_tokens"],
        dataloader_num_workers=workers,
        bf16=autocast == "bfloat16",
        fp16=autocast == "float16",
    )


def disk_needs(profile: Profile) -> dict[str, float]:
    """What the notebooks leave on the disk at most, in GiB by kind. The dataset itself is read over the network and not kept."""
    model = sizing()["models"][str(profile.matryoshka_dims[0])]
    whole = model["parameters"] * BYTES[profile.model_kwargs["dtype"]]
    trained = model["lora_parameters"] * 4 if profile.adapters else whole
    from_hub = not (profile.model_folder or profile.random_weights or profile.model_name.startswith("assets/"))
    kinds = {
        "downloaded models": from_hub * 2 * 2 * model["parameters"],  # base and published tuned model, two bytes a weight
        "pages": (2 * profile.train_rows + 5 * profile.eval_rows) * PNG_SHARE * 3 * profile.max_pixels,
        "checkpoints": 2 * 3 * trained,  # two, each of the trained weights and two moments for them
        "tuned model": trained,
        "published model": whole,
        "embeddings": 2 * 6 * profile.eval_rows * profile.matryoshka_dims[0] * 4,  # of base and tuned model, notebooks 04 and 05
    }
    return {kind: needed / GIB for kind, needed in kinds.items()}


def check_disk(profile: Profile, folder: Path) -> str | None:
    """``None`` if ``folder`` can be written and has the room that all notebooks need; what this profile has there already counts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"outputs folder cannot be written ({error.strerror}): set VDR_OUTPUTS to a folder of yours"
    free, needs = shutil.disk_usage(folder).free / GIB, disk_needs(profile)
    there = sum(file.stat().st_size for file in profile.output_dir.rglob("*") if file.is_file()) / GIB
    if free >= (needed := max(0.0, sum(needs.values()) - there)):
        return None
    largest = ", ".join(f"{kind} {gib:.1f}" for kind, gib in sorted(needs.items(), key=lambda item: -item[1]) if gib >= 0.1)
    return (
        f"{free:.1f} GiB free, {needed:.1f} GiB needed ({largest}): free some, set VDR_OUTPUTS to another disk (and HF_HOME for the "
        "downloads), or take fewer rows (VDR_ROWS)"
    )


def check_packages() -> dict[str, str | None]:
    """What ``pyproject.toml`` asks for, read from the installed course's metadata: a problem per package, or one line for all.

    ``pip check`` would do it as well, but names every other package of the machine too, and not every environment has pip.
    """
    from packaging.requirements import Requirement
    from transformers.utils.versions import require_version

    try:
        asked = [Requirement(line) for line in importlib.metadata.requires(PACKAGE)]
    except importlib.metadata.PackageNotFoundError:
        return {PACKAGE: f"{PACKAGE} is not installed: in the clone, pip install -e . (README), then restart the kernel"}
    asked, problems = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})], {}
    for one in asked:
        try:
            require_version(f"{one.name}{one.specifier}")
        except ImportError as error:
            problems[str(one)] = f"{error.args[0].strip()} Do: pip install -U '{one}', then restart the kernel"
    return problems or {f"{len(asked)} packages, each recent enough": None}


def check_torchvision() -> str | None:
    """Import torchvision and call one of its compiled operators: a build that does not match torch fails here, not in the middle."""
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
    if not profile.model_name.startswith("assets/") or (folder / "modules.json").exists() and list(folder.glob("*.safetensors")):
        return None
    return "the shipped base model is missing: reinstall the course, or make it with make pretrain"


def examine(profile: Profile) -> bool:
    """Print every check as a line and return whether all passed (notebook 00)."""
    python = None if sys.version_info >= (3, 11) else "install Python 3.11 and start again from the README"
    checks = {"Python 3.11 or newer": python} | check_packages()
    checks["torchvision matches torch"] = check_torchvision()
    checks["base model of this profile"] = check_model(profile)
    checks["outputs folder: writable, enough disk"] = check_disk(profile, profile.outputs)
    for label, problem in checks.items():
        print(f"[OK]   {label}" if problem is None else f"[FAIL] {label}: {problem}")
    return not any(checks.values())
