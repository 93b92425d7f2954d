"""The planner's arithmetic on the model's widths: what a card holds, and how much it computes. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vdr_helpers.architecture import LORA_MODULES, LORA_RANK, PATCH_VALUES, QWEN3_VL_2B, TINY, Architecture, image_tokens
from vdr_helpers.profiles import Profile

GIB = 2**30
PAGE_SIZE = (1416, 1648)  # mean page of the published training data, in pixels (model card, dataset statistics)
QUERY_TOKENS = 36  # mean of the published card: 36.31 tokens
PAGE_TEXT_TOKENS = 21  # the chat template around a page, counted in notebook 01
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Term:
    """One share of the memory: ``how`` is a printable sentence, ``source`` is computed, measured or assumed."""

    name: str
    gib: float
    source: str
    how: str


def total(terms: Iterable[Term]) -> float:
    """The sum of some terms, in GiB."""
    return sum(term.gib for term in terms)


def in_short(terms: Iterable[Term]) -> str:
    """``"checkpoints 23.8, pages 19.6"``, the largest first; what is below a tenth is left out."""
    return ", ".join(f"{term.name} {term.gib:.1f}" for term in sorted(terms, key=lambda term: -term.gib) if term.gib >= 0.1)


def architecture_of(profile: Profile) -> Architecture:
    """The model's widths: the 2B model's where the profile's embeddings have 2,048 numbers, else the tiny model's."""
    return QWEN3_VL_2B if profile.matryoshka_dims[0] == QWEN3_VL_2B.hidden_size else TINY


def step_flops(model: Architecture, batch: int, tokens_per_page: int, lora: bool) -> float:
    """Floating-point operations of one step of ``batch`` rows (a query and two pages each) with the cached loss.

    The cached loss runs forward twice; a backward pass costs two forwards, or one where the weights it passes are frozen (LoRA's
    language model; LoRA's frozen vision tower has none). So full fine-tuning costs four forwards, which is 8 x parameters x tokens.
    """
    language = model.language_flops(tokens_per_page + PAGE_TEXT_TOKENS)
    vision = model.vision_flops(4 * tokens_per_page)
    pages = 2 * batch * ((3 if lora else 4) * language + (2 if lora else 4) * vision)
    return pages + batch * (3 if lora else 4) * model.language_flops(QUERY_TOKENS)


def state_terms(model: Architecture, batch: int, tokens_per_page: int, lora: bool, weights: str) -> list[Term]:
    """What lies on the card whatever passes through it: weights, gradients, Adam's moments, a batch's pixels, embeddings."""
    size, count = BYTES[weights], model.parameters
    terms = [Term("weights", count * size / GIB, "computed", f"{count / 1e9:.2f} billion x {size} bytes ({weights})")]
    if lora:
        adapters = model.lora_parameters
        modules = f"rank {LORA_RANK} on {len(LORA_MODULES)} matrices of {model.layers} layers"
        terms += [
            Term("adapters", adapters * 4 / GIB, "computed", f"{adapters / 1e6:.0f} million x 4 bytes, {modules}"),
            Term("gradients", adapters * 4 / GIB, "computed", "adapters only, float32"),
            Term("Adam states", adapters * 8 / GIB, "computed", "two moments per adapter weight, float32"),
        ]
    else:
        terms += [
            Term("gradients", count * size / GIB, "computed", f"one per weight, {size} bytes"),
            Term("Adam states", 2 * count * size / GIB, "computed", f"two moments per weight, {size} bytes each"),
        ]
        if weights == "float32":
            copies = (model.layers * model.layer_matrices + model.vision_parameters) * 2
            terms.append(Term("autocast copies", copies / GIB, "computed", "16-bit copies of the matrices, kept for backward"))
    patches = 2 * batch * 4 * tokens_per_page
    terms.append(Term("pixels of a batch", patches * 1536 * size / GIB, "computed", f"{patches:,} patches x 1,536 {weights}"))
    embeddings = 2 * 3 * batch * model.hidden_size * 4  # a query and two pages per row; values and gradients
    terms.append(
        Term("stored embeddings", embeddings / GIB, "computed", f"{3 * batch} x {model.hidden_size} and their gradients")
    )
    return terms


def batch_bytes(profile: Profile, weights: str) -> int:
    """Bytes of the pixels of one training batch (a page and a hard negative per row) in the model's number format."""
    patches = 2 * profile.per_device_train_batch_size * 4 * image_tokens(*PAGE_SIZE, profile.max_pixels)
    return patches * PATCH_VALUES * BYTES[weights]


def activation_bytes(model: Architecture, tokens_per_page: int, lora: bool, weights: str) -> float:
    """Bytes kept for the backward pass per page in a forward pass; the vision tower keeps none when it is frozen."""
    language = (tokens_per_page + PAGE_TEXT_TOKENS) * model.stored_bytes_per_token(BYTES[weights])
    if lora:
        return language
    vision = 4 * tokens_per_page * model.stored_bytes_per_patch()
    return language + vision + tokens_per_page * model.stored_bytes_per_image_token()
