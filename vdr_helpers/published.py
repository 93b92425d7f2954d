"""The published experiment's figures and this project's own stored measurements, two things that are never mixed.

``assets/published.json`` (its ``source`` field names the model card) and ``assets/measured/``.
"""

from __future__ import annotations

import json
from functools import cache

from vdr_helpers.profiles import PROFILES, Profile, assets_folder


@cache
def published() -> dict:
    """All published figures: ``models`` (20), ``dimensions`` (7), ``metrics``, ``training_log``, ``hyperparameters``, ``statistics``."""
    return json.loads((assets_folder() / "published.json").read_text(encoding="utf-8"))


@cache
def measured(name: str) -> dict:
    """What this project measured once and keeps: ``assets/measured/<name>.json``; its ``what`` says on which profile and seeds.

    ``"choices"``: one thing changed at a time (``python benchmarks/choices.py``). ``"tiny_seeds"``: three training seeds
    (``python benchmarks/tiny_seeds.py``). Scores are NDCG@10 by dimension; JSON makes the dimensions strings. Notebooks 04 and 05 show
    them as stored controls. Raises ``ValueError`` for another name.
    """
    file = assets_folder() / "measured" / f"{name}.json"
    if not file.exists():
        known = ", ".join(sorted(other.stem for other in file.parent.glob("*.json")))
        raise ValueError(f"nothing was measured under {name!r}: there are {known}")
    return json.loads(file.read_text(encoding="utf-8"))


def stored_controls(profile: Profile) -> dict[str, dict[int, float]]:
    """``{choice: {dimension: NDCG@10}}`` of ``measured("choices")`` if it was measured with this very profile, else ``{}`` (notebook 05).

    The first word of its ``what`` names the profile. With another model, other data or fewer rows the curves would not be comparable.
    """
    stored = measured("choices")
    if profile != PROFILES[stored["what"].split()[0]]:
        return {}
    return {name: {int(dim): score for dim, score in run["ndcg_at_10"].items()} for name, run in stored["choices"].items()}


def parameters_in_billions(text: str) -> float:
    """``"428M"`` -> 0.428, ``"2.1B"`` -> 2.1. Raises ``ValueError`` for another unit."""
    scale = {"M": 1e-3, "B": 1.0}.get(text[-1:])
    if scale is None:
        raise ValueError(f"expected a number of parameters such as '428M' or '2.1B', got {text!r}")
    return float(text[:-1]) * scale


def citations() -> str:
    """The three works that the published card cites, as a BibTeX block (``assets/citations.bib``)."""
    return "```bibtex\n" + (assets_folder() / "citations.bib").read_text(encoding="utf-8").strip() + "\n```"
