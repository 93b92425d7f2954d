"""What the machine at hand decides for a profile that asks: number format, attention, tokens per pass, LoRA, worker processes.

What fits a card is :func:`vdr_helpers.presets.preset`'s answer, the one that notebook 00 prints; :func:`fit_to_card` puts it into the
profile and prints every reason.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tools.sizing import (
    AMPERE,
    PREFETCH,
    batch_bytes,
    budgets,
    candidates,
    describe_card,
    disk_problem,
    disk_terms,
    preset,
    settings_for,
)
from vdr_helpers.profiles import Profile, outputs_folder

ATTENTION_VARIABLE = "VDR_ATTENTION"
FLASH_ATTENTION = "kernels-community/flash-attn2"  # the name under which transformers takes FlashAttention 2 from ``kernels``
VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARED_MEMORY = Path("/dev/shm")  # where worker processes hand over their batches; not on macOS and Windows


@dataclass(frozen=True)
class Card:
    """A GPU as the decision sees it. ``capability`` and ``memory_gib`` are ``None`` where there is no CUDA card."""

    name: str
    capability: tuple[int, int] | None = None
    memory_gib: float | None = None


def use_first_card() -> None:
    """Hide all CUDA cards but the first from this process. With several, the trainer would split every batch along the first dimension,
    which cuts patches from their pages. Does nothing under ``torchrun`` or ``accelerate``, which give each process its card.

    Raises ``RuntimeError`` where it is too late: a process that has used its cards keeps them.
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
    """The first CUDA card of this machine, ``Card("Apple GPU")`` or ``Card("CPU")``; imports torch."""
    import torch

    if not torch.cuda.is_available():
        return Card("Apple GPU" if torch.backends.mps.is_available() else "CPU")
    properties = torch.cuda.get_device_properties(0)
    return Card(properties.name, (properties.major, properties.minor), properties.total_memory / 2**30)


def chosen_attention(card: Card) -> tuple[str, str | None]:
    """``(attn_implementation, reason)``: SDPA, or what ``VDR_ATTENTION`` names. Compiled code of the hub runs only when it is asked for.

    Raises ``ValueError`` for FlashAttention on a card that cannot run it, or without the package that fetches it.
    """
    asked = os.environ.get(ATTENTION_VARIABLE)
    if not asked:
        return "sdpa", None
    if "flash" in asked and (card.capability or (0, 0)) < AMPERE:
        raise ValueError(f"{ATTENTION_VARIABLE}: FlashAttention needs a CUDA card of compute capability 8.0 or higher: unset it")
    if "/" in asked and importlib.util.find_spec("kernels") is None:
        raise ValueError(f"{ATTENTION_VARIABLE}={asked} needs the package kernels: pip install kernels, and restart the kernel")
    fetched = ", compiled code that the package kernels fetches from the hub" if "/" in asked else ""
    return asked, f"attention {asked}{fetched}: you asked for it ({ATTENTION_VARIABLE})"


def worker_count(profile, weights: str) -> tuple[int, str]:
    """``(dataloader_num_workers, reason)``: the profile's, as far as processor cores and the shared memory for their batches go."""
    limits = {"the profile's": profile.dataloader_num_workers, "processor cores": os.cpu_count() or 1}
    batch = batch_bytes(profile, weights)
    if SHARED_MEMORY.is_dir():
        limits["by shared memory"] = int(shutil.disk_usage(SHARED_MEMORY).free // (PREFETCH * batch))
    workers = min(limits.values())
    listed = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    return (
        workers,
        f"{workers} processes open pages ahead ({listed}; each holds {PREFETCH} batches of {batch / 1e9:.2f} GB)",
    )


def card_settings(card: Card, profile) -> tuple[dict, list[str]]:
    """:func:`vdr_helpers.presets.preset` for the card at hand; where nothing fits, the smallest setting, with a warning."""
    choice = preset(describe_card(card.name, card.memory_gib, card.capability), profile)
    if choice.settings:
        return choice.settings, list(choice.reasons)
    modern = card.capability >= AMPERE
    lora, weights = candidates(modern)[-1]
    smallest = settings_for(profile, modern, lora, weights, budgets(profile)[-1])
    return smallest, [*choice.reasons, "LoRA and one page per pass, and even that may not fit (computed): take a larger card"]


def fit_to_card(profile, card: Card | None = None):
    """``profile`` with what this machine decides: number formats, attention, adapters and their learning rate, token budget, workers.

    Hides all CUDA cards but the first (:func:`use_first_card`, with its ``RuntimeError``). A profile with ``model_from_card=False``
    (``tiny``) is returned as it is; else every reason is printed. Raises ``ValueError`` as :func:`chosen_attention` does.
    """
    use_first_card()
    if not profile.model_from_card:
        return profile
    card = card or present_card()
    attention, asked = chosen_attention(card)
    if card.capability is None:
        settings = settings_for(profile, False, False, "float32", profile.mini_batch_num_tokens)
        settings["training_arguments"]["fp16"] = False
        reasons = [f"{card.name}: no CUDA card, so float32 weights, no autocast, PyTorch's own attention (SDPA)"]
    else:
        settings, reasons = card_settings(card, profile)
        reasons.insert(0, f"{card.name}: compute capability {'.'.join(map(str, card.capability))}, {card.memory_gib:.0f} GiB")
    workers, why = worker_count(profile, settings["model_kwargs"]["dtype"])
    print("\n".join([*reasons, *([asked] if asked else []), why]))
    return replace(
        profile,
        model_kwargs=profile.model_kwargs | settings["model_kwargs"] | {"attn_implementation": attention},
        adapters=(settings["lora"],) if settings["lora"] else (),
        mini_batch_num_tokens=settings["loss"]["mini_batch_num_tokens"],
        dataloader_num_workers=workers,
        **{name: settings["training_arguments"][name] for name in ("bf16", "fp16", "learning_rate")},
    )


PACKAGE = "vdr-course"


def requirements() -> list:
    """What the installed course asks for, as ``packaging`` requirements, without its extras (``pyproject.toml`` is where they are set)."""
    from packaging.requirements import Requirement

    found = [Requirement(line) for line in importlib.metadata.requires(PACKAGE) or ()]
    return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]


def check_package(requirement) -> str | None:
    """``None`` if a ``packaging`` requirement is met by what is installed, else what to do."""
    name = requirement.name
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed: pip install '{requirement}', then restart the kernel"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{name} {found} is not {requirement.specifier}: pip install -U '{requirement}', then restart the kernel"
    return None


def check_torchvision() -> str | None:
    """Import torchvision and call one of its compiled operators: a build that does not match torch fails here, not in the middle."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        return f"torchvision does not match torch ({type(error).__name__}): install both from one line, as requirements.txt pins them"
    return None


def check_disk(profile: Profile, folder: Path) -> str | None:
    """``None`` if ``folder`` can be written and has the room that all notebooks need with this profile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".doctor"
        probe.write_text("ok")
        probe.unlink()
    except OSError as error:
        return f"outputs folder cannot be written ({error.strerror}): set VDR_OUTPUTS to a folder of yours"
    return disk_problem(profile, disk_terms(profile, bool(profile.adapters), profile.model_kwargs["dtype"]), folder)


def check_model(profile: Profile) -> str | None:
    """``None`` if the base model is a hub id or its shipped folder is whole."""
    folder = Path(profile.base_model)
    if not profile.model_name.startswith("assets/") or (
        (folder / "modules.json").exists() and list(folder.glob("*.safetensors"))
    ):
        return None
    return "the shipped base model is missing: reinstall the course, or make it with python -m vdr_helpers.pretrain"


def examine(profile: Profile) -> bool:
    """Print every check as a line and return whether all passed."""
    checks = {
        "Python 3.11 or newer": None if sys.version_info >= (3, 11) else "install Python 3.11 and start again from the README"
    }
    try:
        found = {str(requirement): check_package(requirement) for requirement in requirements()}
        checks |= {name: problem for name, problem in found.items() if problem} or {
            f"{len(found)} packages, each recent enough": None
        }
    except importlib.metadata.PackageNotFoundError:
        checks["the course's packages"] = (
            f"{PACKAGE} is not installed: in the clone, pip install -e . (README), then restart the kernel"
        )
    checks["torchvision matches torch"] = check_torchvision()
    checks["base model of this profile"] = check_model(profile)
    checks["outputs folder: writable, enough disk"] = check_disk(profile, outputs_folder())
    for label, problem in checks.items():
        print(f"[OK]   {label}" if problem is None else f"[FAIL] {label}: {problem}")
    return all(problem is None for problem in checks.values())
