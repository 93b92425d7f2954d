"""Receipts of rehearsals: what a card really needed, as JSON. The planner of notebook 00 reads them; ``rehearsal`` writes them.

One file per machine: ``{"schema": "vdr-receipt/1", "hardware", "versions", "model", "runs": [...]}``. ``hardware``: ``device`` (the
card's own name), ``card`` (its key in ``assets/cards.json`` or ``None``), ``memory_gib``, ``capability``. ``model``: ``name``,
``parameters``, ``weights`` (``"random"``). Each run has a ``kind`` and an ``outcome`` (``"ok"`` or ``"out of memory"``):

- ``train``: ``mode`` (``"full"`` or ``"lora"``), ``weights`` and ``autocast`` (number formats), ``batch`` (rows), ``max_pixels``,
  ``image_tokens`` (per page), ``mini_batch_num_tokens``, ``pages_per_pass``, ``flops_per_step``, ``seconds_per_step`` (the card's work),
  ``wall_seconds_per_step`` (with the wait for the next batch; both are medians without the first step), ``pages_per_second`` (by the
  wall clock), ``peak_gib`` (reserved by PyTorch, without the CUDA context), ``memory_cap_gib``,
  ``losses_finite``.
- ``encode``: ``batch``, ``pages_per_second``, ``peak_gib``.
- ``resume``: ``largest_difference`` (of embeddings, resumed against uninterrupted), ``reload_difference``, ``checkpoint_gib``.

Shipped receipts are ``assets/receipts/*.json``; yours is ``outputs/rehearsal/results/receipt.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

from vdr_helpers.files import write_whole
from vdr_helpers.profiles import assets_folder, outputs_folder

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
