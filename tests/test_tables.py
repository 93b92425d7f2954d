"""The README's tables are those of the stored results."""

import pytest

from tools import tables


def test_the_readme_shows_what_is_stored():
    text = tables.README.read_text(encoding="utf-8")
    assert tables.with_tables(text) == text, "run python -m tools.tables"


def test_a_changed_number_is_noticed():
    text = tables.README.read_text(encoding="utf-8")
    own = f"{tables.measured('tiny_run')['ndcg_at_10']['finetuned']['8']:.3f}"
    assert tables.with_tables(text.replace(own, "0.999")) == text


@pytest.mark.parametrize("mark", ["<!-- tiny: start -->", "<!-- choices: end -->"])
def test_a_table_without_its_marks_is_named(mark):
    with pytest.raises(ValueError, match=mark):
        tables.with_tables(tables.README.read_text(encoding="utf-8").replace(mark, ""))
