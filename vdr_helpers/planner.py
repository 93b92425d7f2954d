"""Will it fit, and how long will it take? Memory and minutes of a training run on a card (notebook 00 prints the table).

Every term says whether it is **computed** (arithmetic on the model's widths), **measured** (from a receipt, see ``receipts``) or
**assumed**. What a card can be trusted with follows from these terms: ``presets.preset`` asks the planner, not folklore.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vdr_helpers.architecture import LORA_MODULES, LORA_RANK, PATCH_VALUES, QWEN3_VL_2B, TINY, Architecture, image_tokens
from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.receipts import interpolate, load_receipts, training_runs

GIB = 2**30
ALLOWANCE_GIB = 1.0  # assumed: CUDA context, work buffers of the kernels, fragmentation
EFFICIENCY, EFFICIENCY_RANGE = 0.35, (0.2, 0.5)  # assumed share of the published peak, used until a receipt measures it
PAGE_SIZE = (1416, 1648)  # mean page of the published training data, in pixels (model card, dataset statistics)
QUERY_TOKENS = 36  # mean of the published card: 36.31 tokens
PAGE_TEXT_TOKENS = 21  # the chat template around a page, counted in notebook 01
EVALUATIONS = 11  # before training and after each tenth
PREFETCH = 2  # batches that each worker process holds ready, the default of PyTorch's DataLoader
PNG_SHARE = (
    0.35  # assumed share of its raw size that a page keeps as PNG (tiny: 0.23); notebook 02 estimates again from the first pages
)
RAM_ALLOWANCE_GIB = 4.0  # assumed
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Term:
    """One share of the memory: ``how`` is a printable sentence, ``source`` is computed, measured or assumed."""

    name: str
    gib: float
    source: str
    how: str


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


def trained_bytes(model: Architecture, lora: bool, weights: str) -> int:
    """Bytes of the weights that are trained: adapters in float32, or all weights in their own format."""
    return model.lora_parameters * 4 if lora else model.parameters * BYTES[weights]


def disk_terms(profile: Profile, lora: bool, weights: str) -> tuple[Term, ...]:
    """What the seven notebooks leave on the disk at most, in GiB. The dataset itself is read over the network and not kept.

    ``weights``: number format of the loaded weights. While a checkpoint is written, the one before it still lies there.
    """
    from vdr_helpers.page_store import COPIES

    model, size = architecture_of(profile), BYTES[weights]
    trained, whole = trained_bytes(model, lora, weights), model.parameters * size
    from_hub = 2 * 2 * model.parameters * (profile.model_folder is None and not profile.model_name.startswith("assets/"))
    pages, page = 2 * profile.train_rows + 5 * profile.eval_rows, 3 * image_tokens(*PAGE_SIZE, profile.max_pixels) * 32**2
    vectors = 2 * 6 * profile.eval_rows * model.hidden_size * 4
    return (
        Term("downloaded models", from_hub / GIB, "computed", "base and published tuned model, 2 bytes a weight"),
        Term("pages", pages * COPIES * PNG_SHARE * page / GIB, "assumed", f"{pages:,} x {COPIES} copies, {PNG_SHARE:.0%} of raw"),
        Term("checkpoints", 2 * 3 * trained / GIB, "computed", "two, each of the trained weights and two moments for them"),
        Term("tuned model", trained / GIB, "computed", "of notebook 03: the trained weights"),
        Term("published model", whole / GIB, "computed", "of notebook 06: all weights"),
        Term("embeddings", vectors / GIB, "computed", "of base and tuned model, notebooks 04 and 05"),
    )


def ram_terms(profile: Profile, weights: str) -> tuple[Term, ...]:
    """What notebook 03 needs of the computer's own memory beside a card, in GiB."""
    copy, batch = architecture_of(profile).parameters * BYTES[weights], batch_bytes(profile, weights)
    making = batch * 4 // BYTES[weights]
    ahead = profile.dataloader_num_workers * (PREFETCH * batch + making)
    how = f"{profile.dataloader_num_workers} processes, each {PREFETCH} batches ready and one in the making, in float32"
    return (
        Term(
            "weights or gradients",
            copy / GIB,
            "computed",
            "one at a time: while loading, first gradient, weights before training",
        ),
        Term("batches ahead", ahead / GIB, "computed", how),
        Term("allowance", RAM_ALLOWANCE_GIB, "assumed", "Python, PyTorch, CUDA's libraries, pages being opened"),
    )


def total(terms) -> float:
    """The sum of some terms, in GiB."""
    return sum(term.gib for term in terms)


def in_short(terms) -> str:
    """``"checkpoints 23.8, pages 19.6"``, the largest first; what is below a tenth is left out."""
    return ", ".join(f"{term.name} {term.gib:.1f}" for term in sorted(terms, key=lambda term: -term.gib) if term.gib >= 0.1)


def disk_problem(profile: Profile, terms: tuple[Term, ...], folder: Path, free_gib: float | None = None) -> str | None:
    """A line when :func:`disk_terms` do not fit on the disk of ``folder``; what this profile has there already counts as there.

    ``free_gib``: free space, measured at ``folder`` when left out.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / GIB if free_gib is None else free_gib
    there = sum(file.stat().st_size for file in profile.output_dir.rglob("*") if file.is_file()) / GIB
    need = max(0.0, total(terms) - there)
    if free >= need:
        return None
    return (
        f"{free:.1f} GiB free, {need:.1f} GiB needed ({in_short(terms)}): free some, set VDR_OUTPUTS to another disk (and HF_HOME "
        "for the downloads), or take fewer rows (VDR_ROWS)"
    )


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
