"""What fits which card, worked out once: ``python -m tools.sizing`` writes ``assets/sizing.json``, which the setup cell looks things up in.

Parameters, floating-point operations and stored bytes per token follow from the widths of a config; ``tests/test_planner.py`` compares
the parameters with the real class and the bytes with what PyTorch's autograd really keeps. Receipts of ``tools.rehearsal`` take the
place of computed figures where there are some. Notebook a2 does the sum again in a few lines, from the coefficients in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vdr_helpers.stamps import write_whole

from tiny_vdr import model
from tiny_vdr.model import Sizes
from vdr_helpers.machine import BYTES, GIB, PREFETCH, card_choice, disk_needs, sizing
from vdr_helpers.profiles import PROFILES, Profile, assets_folder, outputs_folder

PIXELS_PER_SIDE = 32  # one image token covers 32 x 32 pixels: patches of 16 pixels, merged 2 x 2
PATCHES_PER_TOKEN = 4
PATCH_VALUES = 3 * 2 * 16 * 16  # colours x two frames x patch: what the processor hands over per patch, as float32
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj", "gate_proj")  # as in the Qwen3-VL-Embedding report
LORA_RANK = 32  # the same report: rank 32, alpha 32
LORA = {"r": LORA_RANK, "lora_alpha": LORA_RANK, "target_modules": list(LORA_MODULES)}  # arguments of peft.LoraConfig


class Architecture(Sizes):
    """:class:`tiny_vdr.model.Sizes` with what follows from them."""

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        return self.key_value_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Weights of one language layer that take part in matrix products."""
        attention = self.hidden_size * (2 * self.query_width + 2 * self.key_value_width)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def language_parameters(self) -> int:
        """The language model without its token embeddings."""
        norms = 2 * self.hidden_size + 2 * self.head_dim
        return self.layers * (self.layer_matrices + norms) + self.hidden_size

    @property
    def merger_parameters(self) -> int:
        """All mergers (one at the end, one per deepstack level): they turn four patches into one image token."""
        merged = PATCHES_PER_TOKEN * self.vision_hidden
        linear = merged * merged + merged + merged * self.hidden_size + self.hidden_size
        return (1 + len(self.deepstack)) * linear + 2 * self.vision_hidden + len(self.deepstack) * 2 * merged

    @property
    def vision_parameters(self) -> int:
        """The vision tower with its mergers."""
        width, inner = self.vision_hidden, self.vision_intermediate
        block = 4 * width * width + 4 * width + 2 * width * inner + width + inner + 4 * width
        patches = (PATCH_VALUES + 1) * width + self.position_embeddings * width
        return self.vision_depth * block + patches + self.merger_parameters

    @property
    def parameters(self) -> int:
        """All weights: vision tower, token embeddings, language model."""
        return self.vision_parameters + self.vocabulary * self.hidden_size + self.language_parameters

    @property
    def lora_parameters(self) -> int:
        """Trainable weights of LoRA of rank :data:`LORA_RANK` on :data:`LORA_MODULES` of every language layer."""
        wide = 3 * (self.hidden_size + self.intermediate_size)
        attention = (self.hidden_size + self.query_width) + 2 * (self.hidden_size + self.key_value_width)
        return self.layers * LORA_RANK * (wide + attention)

    def stored_bytes_per_token(self, weight_bytes: int) -> int:
        """Bytes that autograd keeps per language token for the backward pass, all layers, with 16-bit products and SDPA.

        Per layer, with 16-bit weights: two RMSNorms keep their input in float32 and two 16-bit copies, the norms of queries and keys
        the same, attention keeps queries, keys, values and output, the MLP four tensors. ``weight_bytes`` 4 (float32 weights under
        autocast) keeps wider copies around the norms. LoRA keeps nearly the same: inputs of its matrices instead of the weights'.
        """
        norms = 16 if weight_bytes == 2 else 26
        attention = 14 * self.query_width + 6 * self.key_value_width  # keys and values repeated to all heads, as with padding
        small = 8 + 8 * self.heads + 4 * self.key_value_heads
        return self.layers * (norms * self.hidden_size + attention + 8 * self.intermediate_size + small)

    def stored_bytes_per_patch(self) -> int:
        """Bytes kept per vision patch, all vision layers; zero when the tower is frozen (LoRA on the language model)."""
        per_layer = 22 * self.vision_hidden + 4 * self.vision_intermediate + 16 + 4 * self.vision_heads
        return self.vision_depth * per_layer

    def stored_bytes_per_image_token(self) -> int:
        """Bytes kept around the mergers and at the two ends of the network, per image token: a few per cent of the whole."""
        merged = PATCHES_PER_TOKEN * self.vision_hidden
        return (1 + len(self.deepstack)) * 12 * merged + 2 * PATCHES_PER_TOKEN * PATCH_VALUES + 8 * self.hidden_size

    def language_flops(self, tokens: int) -> float:
        """Floating-point operations of one forward pass of ``tokens`` tokens of one text or page through the language model."""
        products = 2 * self.layers * self.layer_matrices * tokens
        return products + 2 * self.layers * self.query_width * tokens * tokens  # causal attention computes half of the square

    def vision_flops(self, patches: int) -> float:
        """Floating-point operations of one forward pass of one page of ``patches`` patches through tower and mergers."""
        width, inner = self.vision_hidden, self.vision_intermediate
        blocks = 2 * self.vision_depth * (4 * width * width + 2 * width * inner) * patches
        attention = 4 * self.vision_depth * width * patches * patches
        return blocks + attention + 2 * PATCH_VALUES * width * patches + 2 * self.merger_parameters * patches / PATCHES_PER_TOKEN


QWEN3_VL_2B, TINY, SMALL = (Architecture(**vars(sizes)) for sizes in (model.QWEN3_VL_2B, model.TINY, model.SMALL))


def image_tokens(width: int, height: int, max_pixels: int) -> int:
    """Image tokens of a page of ``width`` x ``height`` pixels after the processor's resize (notebook 01: multiples of 32, a ceiling)."""
    rows, columns = max(1, round(height / PIXELS_PER_SIDE)), max(1, round(width / PIXELS_PER_SIDE))
    if rows * columns * PIXELS_PER_SIDE**2 > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        rows = max(1, math.floor(height / shrink / PIXELS_PER_SIDE))
        columns = max(1, math.floor(width / shrink / PIXELS_PER_SIDE))
    return rows * columns


PAGE_SIZE = (1416, 1648)  # mean page of the published training data, in pixels (model card, dataset statistics)
QUERY_TOKENS = 36  # mean of the published card: 36.31 tokens
PAGE_TEXT_TOKENS = 21  # the chat template around a page, counted in notebook 01


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
    """The one of the three architectures that has the width of the profile's embeddings."""
    return next(model for model in (QWEN3_VL_2B, TINY, SMALL) if model.hidden_size == profile.matryoshka_dims[0])


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


RAM_ALLOWANCE_GIB = 4.0  # assumed


def disk_terms(profile: Profile, lora: bool, weights: str) -> tuple[Term, ...]:
    """:func:`vdr_helpers.machine.disk_needs` as terms, for all weights or LoRA in this number format."""
    asked = replace(profile, adapters=(LORA,) if lora else (), model_kwargs=profile.model_kwargs | {"dtype": weights})
    return tuple(Term(kind, gib, "assumed" if kind == "pages" else "computed", "") for kind, gib in disk_needs(asked).items())


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


SCHEMA = "vdr-receipt/1"
REQUIRED = ("schema", "hardware", "versions", "model", "runs")


def read_receipt(path: Path) -> dict:
    """One receipt. Raises ``ValueError`` for a file that is not one, with what is missing."""
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON ({error.msg}): delete it, or take the receipt again") from error
    missing = [name for name in REQUIRED if name not in receipt] if isinstance(receipt, dict) else list(REQUIRED)
    if missing or receipt["schema"] != SCHEMA:
        raise ValueError(f"{path.name} is not a receipt of schema {SCHEMA}: missing {', '.join(missing) or 'that schema'}")
    return receipt


def append_run(path: Path, header: dict, run: dict) -> dict:
    """Add ``run`` to the receipt at ``path`` and write it whole. Returns the receipt.

    ``header``: the receipt's other fields. A receipt of other hardware, versions or another model is set aside as ``<name>.old``
    first, so that one file never mixes two machines.
    """
    fresh = {"schema": SCHEMA, **header, "runs": []}
    receipt = fresh
    if path.exists():
        receipt = read_receipt(path)
        if any(receipt[name] != fresh[name] for name in ("hardware", "versions", "model")):
            path.replace(path.with_name(path.name + ".old"))
            receipt = fresh
    receipt["runs"].append(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(receipt, indent=1) + "\n")
    return receipt


def load_receipts() -> list[dict]:
    """The shipped receipts and your own, oldest first; an empty list where no card has been measured yet."""
    own = outputs_folder() / "rehearsal" / "results" / "receipt.json"
    paths = sorted((assets_folder() / "receipts").glob("*.json")) + ([own] if own.exists() else [])
    return [read_receipt(path) for path in paths]


def training_runs(receipts: list[dict], parameters: int, mode: str, weights: str) -> list[dict]:
    """Finished training runs of a model of this size in this way, each with its receipt's ``hardware`` added."""
    return [
        {**run, "hardware": receipt["hardware"]}
        for receipt in receipts
        for run in receipt["runs"]
        if (run["kind"], run["outcome"], run.get("mode"), run.get("weights")) == ("train", "ok", mode, weights)
        and receipt["model"]["parameters"] == parameters
        and receipt["hardware"].get("capability")  # a receipt from a CPU says nothing about a card
    ]


def interpolate(points: list[tuple[float, float]], at: float) -> tuple[float, str]:
    """``(value, how)`` at ``at`` on the line through the two nearest measured ``(x, y)``; ``how`` is a printable phrase.

    One point gives its own value. Outside the measured range the line is prolonged and ``how`` says so. Raises ``ValueError`` for
    no points.
    """
    if not points:
        raise ValueError("nothing was measured: no points to interpolate between")
    merged: dict[float, list[float]] = {}
    for x, y in points:
        merged.setdefault(x, []).append(y)
    line = sorted((x, sum(values) / len(values)) for x, values in merged.items())
    exact = [y for x, y in line if x == at]
    if exact:
        return exact[0], "measured at this size"
    if len(line) == 1:
        return line[0][1], f"taken over from the one measurement at {line[0][0]:,.0f}"
    inside = line[0][0] < at < line[-1][0]
    above = next((i for i, (x, _) in enumerate(line) if x > at), len(line) - 1)
    (x0, y0), (x1, y1) = line[max(above, 1) - 1], line[max(above, 1)]
    how = "interpolated between" if inside else "extrapolated from"
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0), f"{how} {x0:,.0f} and {x1:,.0f}"


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
    pages_per_pass: int

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
        """Every term on a line, then the time."""
        lines = [f"{term.gib:6.1f} GiB  {term.name} ({term.source}): {term.how}" for term in self.terms]
        verdict = "fits" if self.fits else "does not fit"
        lines.append(f"{self.gib:6.1f} GiB  together, of {self.limit_gib:.1f}: {verdict} ({self.source})")
        lines.append(f"{self.minutes:6.0f} min  {self.time_source}: {self.time_how}")
        return "\n".join(lines)


def cards() -> dict:
    """The cards of ``assets/sizing.json``: name, total memory in MiB, compute capability, published dense peak in TFLOPS, sources."""
    return sizing()["cards"]


def find_card(key: str | dict) -> dict:
    """A card by its key, such as ``"T4"``, or a description of one as it is. Raises ``ValueError`` that lists the keys."""
    if isinstance(key, dict):
        return key
    if key not in cards():
        raise ValueError(f"unknown card {key!r}: choose one of {', '.join(cards())}, or add it to assets/sizing.json")
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
    limit = found["memory_mib"] / 1024
    return Plan(found["name"], tuple(terms), limit, ceiling / share, low, high, time_source, time_how, pages)


def run_efficiency(run: dict) -> float:
    """Share of the published peak that a measured run reached: its operations per second over the card's dense peak."""
    return run["flops_per_step"] / run["seconds_per_step"] / (cards()[run["hardware"]["card"]]["peak_tflops"] * 1e12)


MARGIN = 0.9  # share of the card that a figure without a receipt may fill; assumed, an estimate can be a tenth off
CANDIDATES = {  # (LoRA, format of the weights) in the order in which a card is asked. A gradient scaler refuses float16 gradients.
    "bfloat16": [(False, "bfloat16"), (True, "bfloat16")],
    "float16": [(False, "float32"), (True, "float16")],
}


def budgets(profile: Profile) -> list[int]:
    """Tokens per forward pass in the order in which they are tried: the profile's, then whole mean pages down to one."""
    page = image_tokens(*PAGE_SIZE, profile.max_pixels) + PAGE_TEXT_TOKENS
    largest = profile.mini_batch_num_tokens or profile.mini_batch_size * page
    return [largest, *(pages * page for pages in range((largest - 1) // page, 0, -1))]


def settings_of(generation: str, profile: Profile, receipts: list[dict] | None = None) -> list[dict]:
    """The settings that :func:`vdr_helpers.machine.card_choice` looks through for cards with bfloat16 units (or without), in order."""
    card = {"name": generation, "memory_mib": 0, "capability": [8, 0] if generation == "bfloat16" else [7, 5], "peak_tflops": 1}
    found = []
    for lora, weights in CANDIDATES[generation]:
        for budget in budgets(profile):
            result = plan(card, profile, mini_batch_num_tokens=budget, lora=lora, weights=weights, receipts=receipts)
            measured = any(term.source == "measured" for term in result.terms)
            found.append(
                {"lora": lora, "dtype": weights, "mini_batch_num_tokens": budget, "pages": result.pages_per_pass}
                | {"gib": round(result.gib, 3), "share": 1.0 if measured else MARGIN, "source": result.source}
            )
    return found


def reasons_of(generation: str, settings: list[dict], profile: Profile) -> dict:
    """What the setup cell says of a generation of cards: of its number format, and of training LoRA where all weights do not fit."""
    formats = {
        "bfloat16": "bfloat16: it has units for bfloat16 (8.0 or higher has)",
        "float16": "float16 autocast: it has no units for bfloat16 (8.0 or higher has)",
    }
    least = min(one["gib"] for one in settings if not one["lora"])
    rate = f"{profile.adapter_learning_rate:g} instead of {profile.learning_rate:g}"
    lora = f"LoRA on the language model, in float32, at a learning rate of {rate}: adapters learn far less at the lower one"
    return {"format": formats[generation], "lora": [f"not all weights: {least:.1f} GiB at one page per pass", lora]}


def coefficients(model: Architecture, tokens: int) -> dict:
    """What notebook a2 needs to add up memory and operations of a model, for pages of ``tokens`` image tokens."""
    page, query = tokens + PAGE_TEXT_TOKENS, QUERY_TOKENS
    forward = {
        "language": model.language_flops(page),
        "vision": model.vision_flops(4 * tokens),
        "query": model.language_flops(query),
    }
    kept = {
        weights: {
            "language": page * model.stored_bytes_per_token(BYTES[weights]),
            "vision": round(activation_bytes(model, tokens, False, weights) - activation_bytes(model, tokens, True, weights)),
        }
        for weights in BYTES
    }
    copies = 2 * (model.layers * model.layer_matrices + model.vision_parameters)
    return {"bytes_kept_per_page": kept, "autocast_copies": copies, "operations": forward}


def build(receipts: list[dict] | None = None) -> dict:
    """The contents of ``assets/sizing.json``; ``cards`` and their sources are written by hand and stay, all else is computed."""
    full = PROFILES["full"]
    tokens = image_tokens(*PAGE_SIZE, full.max_pixels)
    settings = {generation: settings_of(generation, full, receipts) for generation in CANDIDATES}
    by_hand = {name: value for name, value in sizing().items() if name.endswith("_source") or name == "cards"}
    return by_hand | {
        "what": "written by python -m tools.sizing; memory in GiB of 2^30 bytes, the cards and their sources by hand",
        "page": {"width": PAGE_SIZE[0], "height": PAGE_SIZE[1], "image_tokens": tokens, "text_tokens": PAGE_TEXT_TOKENS},
        "allowance_gib": ALLOWANCE_GIB,
        "efficiency": [min(EFFICIENCY_RANGE), EFFICIENCY, max(EFFICIENCY_RANGE)],
        "lora": LORA,
        "models": {
            str(model.hidden_size): {"name": model.name, "parameters": model.parameters, "lora_parameters": model.lora_parameters}
            for model in (QWEN3_VL_2B, TINY, SMALL)
        },
        **coefficients(QWEN3_VL_2B, tokens),
        "settings": settings,
        "why": {generation: reasons_of(generation, found, full) for generation, found in settings.items()},
    }


def rows_table(card: str) -> str:
    """A markdown table for ``full`` on ``card`` at 1,000 and 10,000 training rows: what it trains and what it needs of the machine.

    With two processes that open pages ahead. Raises ``ValueError`` for an unknown card, and where nothing fits it.
    """
    found, choice = find_card(card), choice_for(card)
    if not choice["fits"]:
        raise ValueError(f"nothing fits {found['name']}: {choice['gib']:.1f} GiB at one page per pass with LoRA")
    columns = ("Rows", "Pages", "Trains", "Tokens per pass", "GPU minutes", "Card, GiB", "Computer's memory, GiB", "Disk, GiB")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for train_rows, eval_rows in ((1000, 100), (10_000, 300)):
        rows = {"train_rows": train_rows, "eval_rows": eval_rows, "monitor_rows": eval_rows}
        size = replace(PROFILES["full"], **rows, dataloader_num_workers=2)
        tokens, lora, weights = choice["mini_batch_num_tokens"], choice["lora"], choice["dtype"]
        result = plan(card, size, mini_batch_num_tokens=tokens, lora=lora, weights=weights)
        cells = [
            f"{train_rows:,} : {eval_rows}",
            f"{2 * train_rows + 5 * eval_rows:,}",
            "LoRA" if lora else "all weights",
            f"{tokens:,}",
        ]
        cells += [f"{result.minutes_low:,.0f} to {result.minutes_high:,.0f}", f"{result.gib:.1f} of {result.limit_gib:.1f}"]
        cells += [f"{total(terms):.1f}" for terms in (ram_terms(size, weights), disk_terms(size, lora, weights))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def choice_for(card: str) -> dict:
    """:func:`vdr_helpers.machine.card_choice` for a card of the list."""
    found = find_card(card)
    return card_choice(tuple(found["capability"]), found["memory_mib"] / 1024)


def hardware() -> dict:
    """What the receipt says about this machine: the card's own name, its key among the planner's cards, memory, capability."""
    import torch

    if not torch.cuda.is_available():
        return {"device": f"CPU ({platform.machine()})", "card": None, "memory_gib": None, "capability": None}
    properties = torch.cuda.get_device_properties(0)
    known = describe_card(properties.name, properties.total_memory / GIB, (properties.major, properties.minor))
    return {
        "device": properties.name,
        "card": known if isinstance(known, str) else None,
        "memory_gib": round(properties.total_memory / GIB, 2),
        "capability": [properties.major, properties.minor],
    }


def main(arguments: list[str] | None = None) -> None:
    """Write ``assets/sizing.json`` from the architecture and the shipped receipts; with ``--table CARD`` print a card's table instead."""
    parser = argparse.ArgumentParser(prog="python -m tools.sizing", description=main.__doc__)
    parser.add_argument("--table", metavar="CARD", help=f"one of {', '.join(cards())}")
    asked = parser.parse_args(arguments)
    if asked.table:
        print(rows_table(asked.table))
        return
    write_whole(assets_folder() / "sizing.json", json.dumps(build(), indent=1) + "\n")


if __name__ == "__main__":
    main()
