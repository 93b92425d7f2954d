"""Tables and the README's figure are those of the stored results."""

import pytest

from tools import tables
from vdr_helpers.profiles import PROFILES


@pytest.mark.parametrize("file", tables.TABLES, ids=lambda file: file.name)
def test_a_text_shows_what_is_stored(file):
    text = file.read_text(encoding="utf-8")
    assert tables.with_tables(file, text) == text, "run python -m tools.tables"


def test_the_readme_shows_the_figure_of_notebook_05():
    assert tables.FIGURE.read_bytes() == tables.curve_of_notebook_05(), "run python -m tools.tables"
    assert f"](assets/{tables.FIGURE.name})" in tables.README.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", tables.TABLES, ids=lambda file: file.name)
def test_a_changed_number_is_noticed(file):
    text = file.read_text(encoding="utf-8")
    if file == tables.PHENOMENA:
        own = f"{tables.measured('phenomena')['base']['ndcg_at_10']['shape']:.3f}"
    else:
        own = f"{tables.measured('tiny_run')['ndcg_at_10']['finetuned']['8']:.3f}"
    assert own in text
    assert tables.with_tables(file, text.replace(own, "0.999")) == text


@pytest.mark.parametrize("mark", ["<!-- tiny: start -->", "<!-- choices: end -->"])
def test_a_table_without_its_marks_is_named(mark):
    text = tables.BENCHMARKS.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=mark):
        tables.with_tables(tables.BENCHMARKS, text.replace(mark, ""))


def test_the_four_conditions_hold_for_every_seed():
    """What the course promises of ``tiny``: room above the base, a gain, and a tuned model that
    keeps what the base loses. Every seed lies in the bands that the notebooks check.
    """
    seeds, bands = tables.measured("tiny_seeds"), PROFILES["tiny"].bands
    base, tuned = seeds["base_ndcg_at_10"], [run["ndcg_at_10"] for run in seeds["runs"]]
    widest, *_, narrowest = base
    base_kept = base[narrowest] / base[widest]
    assert len(tuned) >= 3
    for scores in tuned:
        kept = scores[narrowest] / scores[widest]
        found = {
            "base": base[widest],
            "finetuned": scores[widest],
            "gain": scores[widest] - base[widest],
            "kept_finetuned": kept,
            "kept_difference": kept - base_kept,
        }
        for name, value in found.items():
            low, high = bands[name]
            assert low <= value <= high, name
    for name in ("gain", "kept_difference"):
        assert bands[name][0] > 0
