"""Settings for a card that follow from the planner: what fits is tried from the published setting downwards (notebook 00).

The order is: all weights with the largest token budget that fits, then smaller budgets down to one page per pass, then LoRA on the
language model in the same way. Every setting comes with the reason for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vdr_helpers.architecture import LORA
from vdr_helpers.device import AMPERE, candidates
from vdr_helpers.planner import Plan, cards, find_card, plan
from vdr_helpers.profiles import PROFILES, Profile

MARGIN = 0.9  # share of the card that a figure without a receipt may fill; assumed, an estimate can be a tenth off
BUDGETS = (5600, 2800, 1400, 400)  # tokens per forward pass; the last is one page of 600 x 600 pixels


@dataclass(frozen=True)
class Preset:
    """``settings`` is ``None`` where nothing fits; else arguments by where they go, in Sentence Transformers' and PEFT's own names."""

    card: str
    settings: dict | None
    plan: Plan  # of the settings, or of the smallest one tried
    reasons: tuple[str, ...]


def fits_safely(result: Plan) -> bool:
    """Whether a plan fits: with measured activations on the whole card, else with :data:`MARGIN` to spare."""
    measured = any(term.source == "measured" for term in result.terms)
    return result.gib <= result.limit_gib * (1.0 if measured else MARGIN)


def settings_for(lora: bool, weights: str, budget: int, batch: int) -> dict:
    """The arguments of one choice; ``lora`` holds ``peft.LoraConfig`` arguments or ``None``."""
    return {
        "model_kwargs": {"dtype": weights, "attn_implementation": "sdpa"},
        "training_arguments": {
            "bf16": weights == "bfloat16",
            "fp16": weights != "bfloat16",
            "per_device_train_batch_size": batch,
        },
        "loss": {"mini_batch_size": batch, "mini_batch_num_tokens": budget},
        "lora": dict(LORA) if lora else None,
    }


def preset(card: str, profile: Profile | None = None, receipts: list[dict] | None = None) -> Preset:
    """The first setting that the planner finds to fit on ``card``, and why; ``profile`` is ``full`` when left out.

    ``settings["lora"]``: the vision tower and the language model stay as they are, small float32 matrices beside them are trained.
    Raises ``ValueError`` for an unknown card.
    """
    profile = profile or PROFILES["full"]
    found, batch = find_card(card), profile.per_device_train_batch_size
    capability = ".".join(map(str, found["capability"]))
    modern = tuple(found["capability"]) >= AMPERE
    if modern:
        reasons = [f"bfloat16: {found['name']} has units for it (compute capability {capability}, 8.0 or higher)"]
    else:
        reasons = [f"float16 autocast: bfloat16 needs compute capability 8.0, {found['name']} has {capability}"]
    attention = "FlashAttention 2 would run too, through the package kernels" if modern else "FlashAttention 2 needs 8.0"
    reasons.append(f"SDPA attention: runs on every card; {attention}")
    for lora, weights in candidates(modern):
        budgets = {budget: plan(card, profile, mini_batch_num_tokens=budget, lora=lora, weights=weights, receipts=receipts)
                   for budget in BUDGETS}  # fmt: skip
        fitting = [budget for budget, result in budgets.items() if fits_safely(result)]
        if not fitting:
            smallest = budgets[BUDGETS[-1]]
            what = "LoRA" if lora else f"training all weights ({weights})"
            reasons.append(
                f"not {what}: {smallest.gib:.1f} GiB at one page per pass, {smallest.limit_gib:.1f} on the card ({smallest.source})"
            )
            continue
        chosen = budgets[fitting[0]]
        if lora:
            reasons.append("LoRA on the language model; trained weights in float32, a gradient scaler refuses float16 ones")
            reasons.append("the vision tower is frozen, so it keeps nothing for a backward pass")
        else:
            reasons.append(f"all weights, loaded and trained in {weights}, as the published script does")
        pages = f"{chosen.pages_per_pass} page{'s' if chosen.pages_per_pass > 1 else ''}"
        reasons.append(
            f"{fitting[0]:,} tokens ({pages}) per pass: {chosen.gib:.1f} of {chosen.limit_gib:.1f} GiB ({chosen.source})"
        )
        return Preset(card, settings_for(lora, weights, fitting[0], batch), chosen, tuple(reasons))
    return Preset(card, None, smallest, tuple(reasons))


def plan_table(profile: Profile | None = None, receipts: list[dict] | None = None):
    """A pandas table, one row per card: what its preset trains, GiB needed and there, minutes, and where the figures come from."""
    import pandas

    rows = []
    for card in cards():
        choice = preset(card, profile, receipts)
        result, settings = choice.plan, choice.settings
        trains = "nothing fits" if settings is None else "LoRA" if settings["lora"] else "all weights"
        low, high = f"{result.minutes_low:,.0f}", f"{result.minutes_high:,.0f}"
        rows.append(
            {
                "card": find_card(card)["name"],
                "trains": trains,
                "format": settings["model_kwargs"]["dtype"] if settings else "–",
                "pages per pass": result.pages_per_pass,
                "GiB needed": f"{result.gib:.1f}",
                "GiB there": f"{result.limit_gib:.1f}",
                "GPU minutes": low if low == high else f"{low} to {high}",
                "memory": result.source,
                "minutes": result.time_source,
            }
        )
    return pandas.DataFrame(rows).set_index("card")
