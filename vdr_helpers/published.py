"""The published experiment's figures and what was measured here and stored, two things that
are never mixed.

``assets/published.json`` (its ``source`` field names the model card) and ``assets/measured/``.
"""

from __future__ import annotations

import json
from functools import cache

from vdr_helpers.profiles import assets_folder


@cache
def read_asset(name: str) -> dict:
    """A JSON file under ``assets/``, such as ``models.json``, which says how the twenty models load
    (``python -m tools.registry``).
    """
    return json.loads((assets_folder() / name).read_text(encoding="utf-8"))


def published() -> dict:
    """The model card whole, under the names of its parts, such as ``architecture``, ``usage``,
    ``models`` (20) or ``training_log``.

    ``tests/test_published.py`` names the notebook that shows each part beside what was measured
    here.
    """
    return read_asset("published.json")


def measured(name: str) -> dict:
    """What was measured once and is kept: ``assets/measured/<name>.json``; its ``what`` says
    on which profile and seeds.

    ``python -m benchmarks.phenomena`` writes ``choices`` and ``tiny_seeds`` too, with NDCG@10 by
    dimension; JSON makes the dimensions strings. Raises ``FileNotFoundError`` for another name.
    """
    return read_asset(f"measured/{name}.json")
