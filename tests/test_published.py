"""Every fact of the published model card is shown in a notebook, beside what was measured here."""

import html
import re

import nbformat
import pytest
from cells import find_notebook

from vdr_helpers.published import published

# Which cell shows a part of ``published.json``, by a path into it, and which cell shows what was
# measured here: (notebook, cell of the published fact, cell of its counterpart).
SHOWN = {
    "architecture": ("01", "01-03c", "01-03"),
    "card.max_seq_length": ("01", "01-06c", "01-06c"),
    "card.similarity": ("01", "01-06c", "01-06c"),
    "card.modalities": ("01", "01-06c", "01-06c"),
    "card.parameters": ("01", "01-06c", "01-06c"),
    "usage": ("01", "01-14c", "01-14c"),
    "queries": ("02", "02-x6", "02-25"),
    "pages": ("02", "02-x6", "02-25"),
    "splits": ("02", "02-23", "02-23"),
    "statistics": ("02", "02-23", "02-23"),
    "samples": ("02", "02-23c", "02-23c"),
    "base_model": ("03", "03-21f", "0d576201"),
    "loss": ("03", "03-21c", "03-21c"),
    "not_default": ("03", "03-21e", "03-21e"),
    "evaluator": ("03", "03-24", "03-24"),
    "training_log": ("03", "b07d3e54", "b07d3e54"),
}
# Of the 97 arguments a cell shows those that are not default, those worth knowing, and those in
# which the run differs from the card; the cell itself compares all of them.
COMPARED = {"arguments": ("03", "03-21e")}
# Kept for the code: each stands among the facts above or in those of other notebooks.
TWICE = {"source", "model", "hyperparameters"}
# Shown by notebooks 04, 05 and 06: their cells take their places above as they are written.
ELSEWHERE = {
    "models",
    "dimensions",
    "metrics",
    "base_ndcg_at_10",
    "versions",
    "citation",
    "card.title",
    "card.model_type",
    "card.dataset",
    "card.language",
    "card.license",
    "card.install",
}


def facts(value, path: str = "") -> dict:
    """``{path: value}`` of all leaves of a JSON value; ``None``, an empty place of a table, is
    none.
    """
    if isinstance(value, dict):
        named = value.items()
    elif isinstance(value, list):
        named = enumerate(value)
    else:
        return {} if value is None else {path: value}
    found = {}
    for name, inner in named:
        found |= facts(inner, f"{path}.{name}" if path else str(name))
    return found


def under(path: str, parts) -> str | None:
    """The one of ``parts`` that ``path`` is or lies under."""
    return next((part for part in parts if f"{path}.".startswith(f"{part}.")), None)


def text_of(number: str, cell_id: str) -> str:
    """What a cell shows: its source and its outputs, tables as text."""
    cells = nbformat.read(find_notebook(number), as_version=4).cells
    [cell] = [cell for cell in cells if cell.id == cell_id]
    parts = [cell.source]
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        parts += [output.get("text", ""), data.get("text/plain", "")]
        parts.append(html.unescape(re.sub(r"<[^>]*>", " ", data.get("text/html", ""))))
    return "\n".join(parts)


def forms(value) -> list[str]:
    """How a fact may be printed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [str(value)]
    return [str(value), f"{value:,}", f"{value:.4f}", f"{value:g}"]


def shows(text: str, value) -> bool:
    """Whether ``text`` holds the value, not as a part of a longer number or word."""
    return any(re.search(rf"(?<![\w.]){re.escape(form)}(?!\w)", text) for form in forms(value))


def test_every_part_of_the_card_has_its_place():
    places = [*SHOWN, *COMPARED, *TWICE, *ELSEWHERE]
    homeless = [path for path in facts(published()) if under(path, places) is None]
    assert not homeless
    unknown = [
        place for place in places if not any(under(path, [place]) for path in facts(published()))
    ]
    assert not unknown, "what is not in published.json needs no place"


@pytest.mark.parametrize("part", SHOWN)
def test_each_fact_stands_in_its_cell(part):
    number, cell, _ = SHOWN[part]
    text = text_of(number, cell)
    missing = {
        path: value
        for path, value in facts(published()).items()
        if under(path, [part]) and not shows(text, value)
    }
    assert not missing


@pytest.mark.parametrize("part", SHOWN)
def test_its_counterpart_was_measured_here(part):
    number, _, cell = SHOWN[part]
    cells = nbformat.read(find_notebook(number), as_version=4).cells
    [counterpart] = [each for each in cells if each.id == cell]
    assert counterpart.outputs, "the cell that shows what was measured here has no output"


def test_the_arguments_are_compared_whole():
    number, cell = COMPARED["arguments"]
    text = text_of(number, cell)
    assert not [name for name in published()["not_default"] if not shows(text, name)]
    assert len(published()["arguments"]) == 97


def test_a_fact_that_is_missing_is_noticed():
    assert shows("loss 9.0764 at step 8", 9.0764)
    assert not shows("loss 19.0764", 9.0764)
    assert not shows("loss 9.07645", 9.0764)
    assert shows("1,000 rows", 1000) and not shows("1,000 rows", 100)
    assert facts({"a": [1, {"b": None}], "c": {"d": "x"}}) == {"a.0": 1, "c.d": "x"}
