"""The model in numbers: parameters, floating-point operations and stored bytes per token, from the widths of its config.

The planner (notebook 00) and the rehearsal use it. Nothing is imported from transformers; ``tests/test_planner.py`` compares the
parameters with the real class and the bytes with what PyTorch's autograd really keeps.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tiny_vdr import model
from tiny_vdr.model import Sizes
from vdr_helpers.pages import COPIES
from vdr_helpers.profiles import PROFILES, Profile, assets_folder, outputs_folder
from vdr_helpers.stamps import write_whole

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


def architecture_of(profile: Profile) -> Sizes:
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


PREFETCH = 2  # batches that each worker process holds ready, the default of PyTorch's DataLoader
PNG_SHARE = (
    0.35  # assumed share of its raw size that a page keeps as PNG (tiny: 0.23); notebook 02 estimates again from the first pages
)
RAM_ALLOWANCE_GIB = 4.0  # assumed


def trained_bytes(model: Architecture, lora: bool, weights: str) -> int:
    """Bytes of the weights that are trained: adapters in float32, or all weights in their own format."""
    return model.lora_parameters * 4 if lora else model.parameters * BYTES[weights]


def disk_terms(profile: Profile, lora: bool, weights: str) -> tuple[Term, ...]:
    """What the seven notebooks leave on the disk at most, in GiB. The dataset itself is read over the network and not kept.

    ``weights``: number format of the loaded weights. While a checkpoint is written, the one before it still lies there.
    """
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
