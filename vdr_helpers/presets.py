"""Settings for a card that follow from the planner: what fits is tried from the published setting downwards.

The order is: all weights with the profile's token budget, then fewer pages per pass down to one, then LoRA on the language model in
the same way. Every setting comes with the reason for it. Notebook 00 prints them; ``device.fit_to_card`` puts them into a profile.
``python -m vdr_helpers.presets T4`` prints the table of ``docs/free_card.md``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from vdr_helpers.architecture import LORA, image_tokens
from vdr_helpers.planner import Plan, cards, find_card, plan
from vdr_helpers.profiles import PROFILES, Profile
from vdr_helpers.receipts import load_receipts
from vdr_helpers.terms import PAGE_SIZE, PAGE_TEXT_TOKENS, total

AMPERE = (8, 0)  # first compute capability with bfloat16 units, and the lowest that FlashAttention 2 runs on
MARGIN = 0.9  # share of the card that a figure without a receipt may fill; assumed, an estimate can be a tenth off


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


def candidates(modern: bool) -> list[tuple[bool, str]]:
    """``(lora, dtype of the weights)`` in the order in which a card is asked: all weights first.

    Weights that are trained under float16 autocast stay float32, because the gradient scaler refuses float16 gradients.
    """
    return [(False, "bfloat16"), (True, "bfloat16")] if modern else [(False, "float32"), (True, "float16")]


def budgets(profile: Profile) -> list[int]:
    """Tokens per forward pass in the order in which they are tried: the profile's, then whole mean pages down to one."""
    page = image_tokens(*PAGE_SIZE, profile.max_pixels) + PAGE_TEXT_TOKENS
    largest = profile.mini_batch_num_tokens or profile.mini_batch_size * page
    return [largest, *(pages * page for pages in range((largest - 1) // page, 0, -1))]


def settings_for(profile: Profile, modern: bool, lora: bool, weights: str, budget: int) -> dict:
    """The arguments of one choice; ``lora`` holds ``peft.LoraConfig`` arguments or ``None``."""
    batch = profile.per_device_train_batch_size
    return {
        "model_kwargs": {"dtype": weights, "attn_implementation": "sdpa"},
        "training_arguments": {
            "bf16": modern,
            "fp16": not modern,
            "per_device_train_batch_size": batch,
            "learning_rate": profile.adapter_learning_rate if lora else profile.learning_rate,
        },
        "loss": {"mini_batch_size": batch, "mini_batch_num_tokens": budget},
        "lora": dict(LORA) if lora else None,
    }


def preset(card: str | dict, profile: Profile | None = None, receipts: list[dict] | None = None) -> Preset:
    """The first setting that the planner finds to fit on ``card`` (a key or a description), and why; ``profile``: ``full`` if left out.

    ``settings["lora"]``: the vision tower and the language model stay as they are, small float32 matrices beside them are trained.
    Raises ``ValueError`` for an unknown card.
    """
    profile = profile or PROFILES["full"]
    receipts = load_receipts() if receipts is None else receipts
    found = find_card(card)
    capability = ".".join(map(str, found["capability"]))
    modern = tuple(found["capability"]) >= AMPERE
    if modern:
        reasons = [f"bfloat16: {found['name']} has units for it (compute capability {capability}, 8.0 or higher)"]
    else:
        reasons = [f"float16 autocast: bfloat16 needs compute capability 8.0, {found['name']} has {capability}"]
    attention = "FlashAttention 2 would run too, when you ask for it" if modern else "FlashAttention 2 needs 8.0"
    reasons.append(f"SDPA attention, PyTorch's own: runs on every card; {attention}")
    for lora, weights in candidates(modern):
        for budget in budgets(profile):
            chosen = plan(card, profile, mini_batch_num_tokens=budget, lora=lora, weights=weights, receipts=receipts)
            if fits_safely(chosen):
                break
        else:
            what = "LoRA" if lora else f"training all weights ({weights})"
            reasons.append(
                f"not {what}: {chosen.gib:.1f} GiB at one page per pass, {chosen.limit_gib:.1f} on the card ({chosen.source})"
            )
            continue
        settings = settings_for(profile, modern, lora, weights, budget)
        if lora:
            rate = f"{settings['training_arguments']['learning_rate']:g} instead of {profile.learning_rate:g}"
            reasons.append(f"LoRA on the language model, at a learning rate of {rate}: adapters hardly learn at the lower one")
            reasons.append("trained weights in float32, a gradient scaler refuses float16 ones")
            reasons.append("the vision tower is frozen, so it keeps nothing for a backward pass")
        else:
            reasons.append(f"all weights, loaded and trained in {weights}, as the published script does")
        pages = f"{chosen.pages_per_pass} page{'s' if chosen.pages_per_pass > 1 else ''}"
        reasons.append(f"{budget:,} tokens ({pages}) per pass: {chosen.gib:.1f} of {chosen.limit_gib:.1f} GiB ({chosen.source})")
        return Preset(found["name"], settings, chosen, tuple(reasons))
    return Preset(found["name"], None, chosen, tuple(reasons))


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


def rows_table(card: str, receipts: list[dict] | None = None, workers: int = 2) -> str:
    """A markdown table for ``full`` on ``card`` at 1,000 and 10,000 training rows: what it trains and what it needs of the machine.

    ``workers``: processes that open pages ahead. Raises ``ValueError`` for an unknown card, and where nothing fits it.
    """
    columns = ("Rows", "Pages", "Trains", "Tokens per pass", "GPU minutes", "Card, GiB", "Computer's memory, GiB", "Disk, GiB")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for train_rows, eval_rows in ((1000, 100), (10_000, 300)):
        size = {"train_rows": train_rows, "eval_rows": eval_rows, "monitor_rows": eval_rows, "dataloader_num_workers": workers}
        choice = preset(card, replace(PROFILES["full"], **size), receipts)
        if choice.settings is None:
            raise ValueError(f"nothing fits {choice.card}: {choice.reasons[-1]}")
        result, pages = choice.plan, 2 * train_rows + 5 * eval_rows
        tokens = choice.settings["loss"]["mini_batch_num_tokens"]
        cells = [
            f"{train_rows:,} : {eval_rows}",
            f"{pages:,}",
            "LoRA" if choice.settings["lora"] else "all weights",
            f"{tokens:,}",
        ]
        cells += [f"{result.minutes_low:,.0f} to {result.minutes_high:,.0f}", f"{result.gib:.1f} of {result.limit_gib:.1f}"]
        lines.append(f"| {' | '.join([*cells, f'{total(result.ram):.1f}', f'{total(result.disk):.1f}'])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(rows_table(*sys.argv[1:2] or ["T4"], receipts=[]))
