"""The published experiment's figures, from ``assets/published.json`` (its ``source`` field names the model card)."""

from __future__ import annotations

import json
from functools import cache

from vdr_helpers.profiles import assets_folder


@cache
def published() -> dict:
    """All published figures: ``models`` (20), ``dimensions`` (7), ``metrics``, ``training_log``, ``hyperparameters``, ``statistics``."""
    return json.loads((assets_folder() / "published.json").read_text(encoding="utf-8"))


def parameters_in_billions(text: str) -> float:
    """``"428M"`` -> 0.428, ``"2.1B"`` -> 2.1. Raises ``ValueError`` for another unit."""
    scale = {"M": 1e-3, "B": 1.0}.get(text[-1:])
    if scale is None:
        raise ValueError(f"expected a number of parameters such as '428M' or '2.1B', got {text!r}")
    return float(text[:-1]) * scale


def citations() -> str:
    """The three works that the published card cites, as a BibTeX block (``assets/citations.bib``)."""
    return "```bibtex\n" + (assets_folder() / "citations.bib").read_text(encoding="utf-8").strip() + "\n```"
