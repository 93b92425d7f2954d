"""What the card decides: number format, attention and how many tokens pass through the model at once (notebook 00 prints why).

:func:`decide` is a pure function of a :class:`Card`, so that it can be asked about a card that is not at hand.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace

from vdr_helpers.architecture import LORA

FLASH_ATTENTION = "kernels-community/flash-attn2"  # the name under which transformers takes FlashAttention 2 from ``kernels``
VISIBLE = "CUDA_VISIBLE_DEVICES"
AMPERE = (8, 0)  # first compute capability with bfloat16 units, and the lowest that FlashAttention 2 runs on
SPARE_SHARE = 0.1  # of the card, for what an estimate leaves out
LARGEST_BUDGET = 5600  # a longer forward pass gains little: 15 pages already fill the card's units (an estimate, not measured)
BATCH = 64  # published rows per step; a batch's pixels lie on the card


@dataclass(frozen=True)
class Card:
    """A GPU as the decision sees it. ``capability`` and ``memory_gib`` are ``None`` where there is no CUDA card."""

    name: str
    capability: tuple[int, int] | None = None
    memory_gib: float | None = None


@dataclass(frozen=True)
class Decision:
    """What to load and train with; ``reasons`` holds one printable line per choice."""

    weights: str  # dtype of the loaded weights, "float32", "bfloat16" or "float16"
    autocast: str | None  # "bf16", "fp16" or None: the training argument of that name
    attention: str  # attn_implementation
    mini_batch_num_tokens: int | None  # one page where the estimate leaves no room; None where there is no card
    reasons: tuple[str, ...]
    lora: bool = False  # train adapters on the language model instead of all weights

    @property
    def model_kwargs(self) -> dict:
        """``SentenceTransformer(..., model_kwargs=...)``."""
        return {"dtype": self.weights, "attn_implementation": self.attention}


def page_tokens() -> int:
    """Tokens of one page of the published mean size at 600 x 600 pixels, with the chat template around it."""
    from vdr_helpers.planner import PAGE_SIZE, PAGE_TEXT_TOKENS, image_tokens

    return image_tokens(*PAGE_SIZE, 600 * 600) + PAGE_TEXT_TOKENS


def candidates(modern: bool) -> list[tuple[bool, str]]:
    """``(lora, dtype of the weights)`` in the order in which a card is asked: all weights first.

    Weights that are trained under float16 autocast stay float32, because the gradient scaler refuses float16 gradients.
    """
    return [(False, "bfloat16"), (True, "bfloat16")] if modern else [(False, "float32"), (True, "float16")]


def token_budget(memory_gib: float, lora: bool = False, weights: str = "bfloat16") -> int | None:
    """Tokens per forward pass in whole pages, at most :data:`LARGEST_BUDGET`; ``None`` if not one page fits.

    Computed with the planner's terms (weights, gradients, Adam's moments and activations of the 2B model), not measured.
    """
    from vdr_helpers import planner

    size = page_tokens() - planner.PAGE_TEXT_TOKENS
    fixed = sum(term.gib for term in planner.state_terms(planner.QWEN3_VL_2B, BATCH, size, lora=lora, weights=weights))
    per_page = planner.activation_bytes(planner.QWEN3_VL_2B, size, lora=lora, weights=weights) / planner.GIB
    pages = int((memory_gib * (1 - SPARE_SHARE) - fixed - planner.ALLOWANCE_GIB) / per_page)
    return min(pages * page_tokens(), LARGEST_BUDGET) if pages > 0 else None


def has_kernels() -> bool:
    """Whether the package ``kernels`` is installed; nothing is imported or fetched."""
    return importlib.util.find_spec("kernels") is not None


def decide(card: Card, kernels_installed: bool) -> Decision:
    """Number format, autocast, attention and token budget for a card, with a reason for each.

    ``torch.cuda.is_bf16_supported()`` is not asked: it answers yes on a T4, where bfloat16 is only emulated.
    """
    if card.capability is None:
        reasons = (f"{card.name}: no CUDA card, so float32 weights, no autocast, PyTorch's own attention (SDPA)",)
        return Decision("float32", None, "sdpa", None, reasons)
    number = ".".join(map(str, card.capability))
    reasons = [f"{card.name}: compute capability {number}, {card.memory_gib:.0f} GiB"]
    modern = card.capability >= AMPERE
    autocast = "bf16" if modern else "fp16"
    if modern:
        reasons.append(f"bfloat16: the card has units for it (compute capability {number}, 8.0 or higher)")
    else:
        reasons.append(
            f"float16 autocast: bfloat16 needs compute capability 8.0, this card has {number} and would only emulate it"
        )
    if modern and kernels_installed:
        attention = FLASH_ATTENTION
        reasons.append("FlashAttention 2 through the package kernels, which fetches compiled code from the hub: installed by you")
    else:
        attention = "sdpa"
        why = "the package kernels is not installed" if modern else "FlashAttention 2 needs compute capability 8.0"
        reasons.append(f"SDPA attention: {why}")
    for lora, weights in candidates(modern):
        budget = token_budget(card.memory_gib, lora, weights)
        if budget:
            break
    if lora:
        reasons.append(
            "LoRA: training all weights does not fit with room to spare (computed), so small float32 matrices beside the language "
            f"model's {weights} weights are trained and the vision tower stays as it is"
        )
    if budget:
        reasons.append(f"{budget:,} tokens per forward pass, {budget // page_tokens()} pages (computed from the card's memory)")
    else:
        reasons.append("one page per forward pass, and even that may not fit (computed): take a larger card")
        budget = page_tokens()
    return Decision(weights, autocast, attention, budget, tuple(reasons), lora)


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


def fit_to_card(profile, card: Card | None = None, kernels_installed: bool | None = None):
    """``profile`` with the card's decision in its number formats, attention, adapters and token budget; prints the reasons.

    Hides all CUDA cards but the first (:func:`use_first_card`, with its ``RuntimeError``). A profile with ``model_from_card=False``
    (``tiny``) is returned as it is and nothing is printed. A card larger than the profile's
    token budget needs does not raise the budget.
    """
    use_first_card()
    if not profile.model_from_card:
        return profile
    chosen = decide(card or present_card(), has_kernels() if kernels_installed is None else kernels_installed)
    print("\n".join(chosen.reasons))
    budgets = [budget for budget in (profile.mini_batch_num_tokens, chosen.mini_batch_num_tokens) if budget is not None]
    rate = profile.adapter_learning_rate if chosen.lora else profile.learning_rate
    if chosen.lora:
        print(f"learning rate {rate:g} for the adapters, ten times the one for all weights (measured on tiny only)")
    return replace(
        profile,
        learning_rate=rate,
        model_kwargs=profile.model_kwargs | chosen.model_kwargs,
        bf16=chosen.autocast == "bf16",
        fp16=chosen.autocast == "fp16",
        adapters=(LORA,) if chosen.lora else (),
        mini_batch_num_tokens=min(budgets, default=None),
    )
