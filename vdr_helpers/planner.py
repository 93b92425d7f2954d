"""Will it fit, and how long will it take? Memory and minutes of a training run on a card (notebook 00 prints the table).

Every term says whether it is **computed** (arithmetic on the model's widths), **measured** (from a receipt, see ``receipts``) or
**assumed**. What a card can be trusted with follows from these terms: ``presets.preset`` asks the planner, not folklore.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache

from vdr_helpers.architecture import image_tokens
from vdr_helpers.computer import disk_problem, disk_terms, ram_terms
from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.receipts import interpolate, load_receipts, training_runs
from vdr_helpers.terms import (
    BYTES,
    GIB,
    PAGE_SIZE,
    PAGE_TEXT_TOKENS,
    Term,
    activation_bytes,
    architecture_of,
    in_short,
    state_terms,
    step_flops,
    total,
)

ALLOWANCE_GIB = 1.0  # assumed: CUDA context, work buffers of the kernels, fragmentation
EFFICIENCY, EFFICIENCY_RANGE = 0.35, (0.2, 0.5)  # assumed share of the published peak, used until a receipt measures it
EVALUATIONS = 11  # before training and after each tenth


@dataclass(frozen=True)
class Plan:
    """What a training run needs on a card; ``minutes_low`` and ``minutes_high`` are the same number when the time was measured."""

    card: str
    terms: tuple[Term, ...]
    limit_gib: float
    minutes: float
    minutes_low: float
    minutes_high: float
    time_source: str
    time_how: str
    warnings: tuple[str, ...]
    pages_per_pass: int
    ram: tuple[Term, ...]
    disk: tuple[Term, ...]

    @property
    def gib(self) -> float:
        """Peak memory of the card, in GiB."""
        return total(self.terms)

    @property
    def fits(self) -> bool:
        return self.gib <= self.limit_gib

    @property
    def source(self) -> str:
        """``"computed, not measured"`` or what the receipts say."""
        measured = [term for term in self.terms if term.source == "measured"]
        return "computed, not measured" if not measured else "activations measured, the rest computed"

    def explain(self) -> str:
        """Every term on a line, then the time and the warnings."""
        lines = [f"{term.gib:6.1f} GiB  {term.name} ({term.source}): {term.how}" for term in self.terms]
        verdict = "fits" if self.fits else "does not fit"
        lines.append(f"{self.gib:6.1f} GiB  together, of {self.limit_gib:.1f}: {verdict} ({self.source})")
        for terms, where in ((self.ram, "of the computer's memory"), (self.disk, "on the disk")):
            lines.append(f"{total(terms):6.1f} GiB  {where} (computed and assumed): {in_short(terms)}")
        lines.append(f"{self.minutes:6.0f} min  {self.time_source}: {self.time_how}")
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


@cache
def cards() -> dict:
    """The cards of ``assets/cards.json``: name, total memory in MiB, compute capability, published dense peak in TFLOPS, sources."""
    return json.loads((assets_folder() / "cards.json").read_text(encoding="utf-8"))["cards"]


def find_card(key: str | dict) -> dict:
    """A card by its key, such as ``"T4"``, or a description of one as it is. Raises ``ValueError`` that lists the keys."""
    if isinstance(key, dict):
        return key
    if key not in cards():
        raise ValueError(f"unknown card {key!r}: choose one of {', '.join(cards())}, or add it to assets/cards.json")
    return cards()[key]


def describe_card(name: str, memory_gib: float, capability: tuple[int, int]) -> str | dict:
    """What :func:`plan` is asked about a card at hand: the key of one that :func:`cards` lists, else what torch says of it.

    ``memory_gib``: as CUDA reports it. A listed name with less than 95 % of the listed memory is a part of a card, not the card.
    """
    for key, card in cards().items():
        if name in card["device_names"] and memory_gib > 0.95 * card["memory_mib"] / 1024:
            return key
    return {"name": name, "memory_mib": memory_gib * 1024, "capability": list(capability), "peak_tflops": float("nan")}


def plan(
    card: str | dict,
    profile: Profile,
    max_pixels: int | None = None,
    batch: int | None = None,
    mini_batch_num_tokens: int | None = None,
    lora: bool = False,
    weights: str | None = None,
    receipts: list[dict] | None = None,
    free_disk_gib: float | None = None,
) -> Plan:
    """Memory in GiB and minutes of the profile's training on ``card`` (see :func:`describe_card`), every term explained.

    What is left out comes from the profile: ``max_pixels`` per page, ``batch`` rows per step, ``mini_batch_num_tokens`` per forward
    pass, ``weights`` (number format of the loaded weights: 16 bits as published, float32 where a card has no bfloat16 and all
    weights are trained). ``receipts``: measurements, :func:`load_receipts` by default. Minutes are the GPU's work, evaluations
    included; time that the processor spends on the pages comes on top when nothing was measured. Raises ``ValueError`` for an
    unknown card or number format, and for sizes below one.
    """
    found, model = find_card(card), architecture_of(profile)
    modern = tuple(found["capability"]) >= (8, 0)
    max_pixels, batch = max_pixels or profile.max_pixels, batch or profile.per_device_train_batch_size
    weights = weights or ("bfloat16" if modern else "float16" if lora else "float32")
    if weights not in BYTES or min(max_pixels, batch, mini_batch_num_tokens or 1) < 1:
        raise ValueError(f"weights must be one of {', '.join(BYTES)}, and pixels, batch and tokens at least 1")
    if weights == "float16" and not lora:
        raise ValueError("all weights cannot be trained in float16, the gradient scaler refuses them: load float32, or use LoRA")
    tokens = image_tokens(*PAGE_SIZE, max_pixels)
    page_tokens = tokens + PAGE_TEXT_TOKENS
    budget = mini_batch_num_tokens or profile.mini_batch_num_tokens or profile.mini_batch_size * page_tokens
    pages = min(max(1, budget // page_tokens), batch)
    runs = training_runs(load_receipts() if receipts is None else receipts, model.parameters, "lora" if lora else "full", weights)

    terms = state_terms(model, batch, tokens, lora, weights)
    per_page = activation_bytes(model, tokens, lora, weights)
    points = []
    for run in runs:
        held = sum(term.gib for term in state_terms(model, run["batch"], run["image_tokens"], lora, weights))
        points.append((run["pages_per_pass"] * run["image_tokens"], run["peak_gib"] - held))
    if points:
        value, how = interpolate(points, pages * tokens)
        origin = ", ".join(sorted({run["hardware"]["device"] for run in runs}))
        terms.append(Term("activations", value, "measured", f"{how} image tokens per pass, receipts of {origin}"))
    else:
        how = f"{pages} pages of {tokens} image tokens per pass, {per_page / 2**20:.0f} MiB each"
        terms.append(Term("activations", pages * per_page / GIB, "computed", how))
    terms.append(Term("allowance", ALLOWANCE_GIB, "assumed", "CUDA context, work buffers, fragmentation"))

    steps = math.ceil(profile.train_rows / batch) * profile.num_train_epochs
    training = steps * step_flops(model, batch, tokens, lora)
    forward = model.language_flops(page_tokens) + model.vision_flops(4 * tokens)
    evaluation = EVALUATIONS * 5 * profile.monitor_rows * forward  # five pages per query; the queries themselves are negligible
    peak = found["peak_tflops"] * 1e12
    ceiling = (training + evaluation) / peak / 60
    timed = [run for run in runs if run["hardware"].get("card") in cards()]
    here = [run for run in timed if cards()[run["hardware"]["card"]] == found]
    if timed:
        used = here or timed
        shares = [(run["pages_per_pass"] * run["image_tokens"], run_efficiency(run)) for run in used]
        share, how = interpolate(shares, pages * tokens)
        share = min(max(share, min(y for _, y in shares)), max(y for _, y in shares))  # never beyond what was seen
        where = ", ".join(sorted({run["hardware"]["device"] for run in used}))
        time_source = "measured on this card" if here else "efficiency measured on another card, not on this one"
        time_how = f"{share:.0%} of the published peak, {how} image tokens per pass on {where}"
        low = high = ceiling / share
    else:
        share, (lowest, highest) = EFFICIENCY, EFFICIENCY_RANGE
        low, high = ceiling / highest, ceiling / lowest
        time_source = "computed, not measured"
        time_how = (
            f"{(training + evaluation) / 1e15:,.0f} x 10^15 operations at {share:.0%} of {found['peak_tflops']} TFLOPS, assumed "
            f"({low:.0f} to {high:.0f} min at {highest:.0%} to {lowest:.0%}); the processor's work on the pages is not in it"
        )
    disk = disk_terms(profile, lora, weights)
    warning = disk_problem(profile, disk, profile.output_dir, free_disk_gib)
    limit = found["memory_mib"] / 1024
    warnings = tuple(text for text in (warning,) if text)
    return Plan(found["name"], tuple(terms), limit, ceiling / share, low, high, time_source, time_how, warnings, pages,
                ram_terms(profile, weights), disk)  # fmt: skip


def run_efficiency(run: dict) -> float:
    """Share of the published peak that a measured run reached: its operations per second over the card's dense peak."""
    return run["flops_per_step"] / run["seconds_per_step"] / (cards()[run["hardware"]["card"]]["peak_tflops"] * 1e12)
