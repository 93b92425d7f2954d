"""What the machine at hand decides for a profile that asks: number format, attention, tokens per pass, LoRA, worker processes.

What fits a card is :func:`vdr_helpers.presets.preset`'s answer, the one that notebook 00 prints; :func:`fit_to_card` puts it into the
profile and prints every reason.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from vdr_helpers.computer import PREFETCH
from vdr_helpers.planner import describe_card
from vdr_helpers.presets import AMPERE, budgets, candidates, preset, settings_for
from vdr_helpers.terms import batch_bytes

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
