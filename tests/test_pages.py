"""Pages: the same page always gives the same pixels, and what a query asks about is written large
on it.
"""

import dataclasses
import random

import pytest

from tiny_vdr import pages, vocabulary
from tiny_vdr.sheet import GRID, LONG, SHORT, Page

ALL_LAYOUTS = [*pages.PORTRAIT, *pages.LANDSCAPE]
COURSE_LAYOUTS = [*pages.METRIC_LAYOUTS, *pages.ITEM_LAYOUTS]


def make_page(layout: str, seed: int = 7, **changes) -> Page:
    subjects = (
        ("Pumps", "Valves", "Cables")
        if layout in pages.ITEM_LAYOUTS
        else ("Revenue", "Water use", "Staff")
    )
    page = Page("Alder Energy", subjects, 2014, "Oslo", layout, seed)
    return dataclasses.replace(page, **changes)


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_the_same_page_gives_the_same_bytes_and_another_seed_other_pixels(layout):
    first, lines = pages.draw_page(make_page(layout))
    again, lines_again = pages.draw_page(make_page(layout))
    other, _ = pages.draw_page(make_page(layout, seed=8))
    assert first.tobytes() == again.tobytes()
    assert lines == lines_again
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("layout", COURSE_LAYOUTS)
@pytest.mark.parametrize("seed", range(4))
def test_what_a_query_asks_about_is_written_large(layout, seed):
    page = make_page(layout, seed=seed)
    _, key_lines = pages.draw_page(page)
    written = [line[0] for line in key_lines]
    askable = page.subjects if layout in pages.TABLE_LAYOUTS else page.subjects[:1]
    for fact in (
        page.organisation,
        str(page.year),
        page.region if layout != "datasheet" else page.organisation,
        *askable,
    ):
        assert any(fact in line for line in written), f"{layout} does not show {fact!r}: {written}"


@pytest.mark.parametrize("fact", ["year", "organisation", "subjects"])
@pytest.mark.parametrize("layout", COURSE_LAYOUTS)
def test_changing_a_fact_changes_pixels_and_nothing_else_moves(layout, fact):
    page = make_page(layout)
    other = {
        "year": 2013,
        "organisation": "Birch Energy",
        "subjects": (page.subjects[1][::-1].title(), *page.subjects[1:]),
    }
    changed = dataclasses.replace(page, **{fact: other[fact]})
    (image, lines), (image_changed, lines_changed) = pages.draw_page(page), pages.draw_page(changed)
    assert image.tobytes() != image_changed.tobytes()
    # every line keeps its place
    assert [line[2] for line in lines] == [line[2] for line in lines_changed]


def test_landscape_pages_are_turned():
    sizes = {layout: pages.draw_page(make_page(layout))[0].size for layout in ALL_LAYOUTS}
    assert {layout for layout, size in sizes.items() if size == (560, 400)} == {
        "slide",
        "dashboard",
    }
    assert {size for layout, size in sizes.items() if layout not in pages.LANDSCAPE} == {(400, 560)}
    assert (SHORT, LONG) == (400, 560)


def test_an_unknown_layout_is_an_error():
    with pytest.raises(KeyError, match="brochure"):
        pages.draw_page(make_page("brochure"))


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_the_longest_words_stay_on_the_page_and_do_not_overlap(layout):
    words = (vocabulary.ITEMS if layout in pages.ITEM_LAYOUTS else vocabulary.METRICS).course
    longest = tuple(sorted(words, key=len)[-3:])
    names = (
        max(part.course, key=len) for part in (vocabulary.FIRST_NAMES, vocabulary.SECOND_NAMES)
    )
    organisation = " ".join(names)
    for seed in range(12):
        page = make_page(
            layout, seed=seed, organisation=organisation, subjects=longest, region="Tallinn"
        )
        image, key_lines = pages.draw_page(page)
        for text, x0, y0, x1, y1 in key_lines:
            assert 0 <= x0 < x1 <= image.width, f"{text!r} runs off the page"
            assert 0 <= y0 < y1 <= image.height
            assert y0 % GRID == 0
        for i, (text, x0, y0, x1, _) in enumerate(key_lines):
            for other, left, top, right, _ in key_lines[i + 1 :]:
                assert y0 != top or x1 <= left or right <= x0, f"{text!r} and {other!r} overlap"


def test_pre_training_can_keep_to_one_typeface():
    def headings(typefaces):
        return {
            pages.Sheet(make_page("report", seed=seed), False, typefaces).heading
            for seed in range(40)
        }

    assert headings(1) == {"DejaVuSans-Bold.ttf"}
    assert len(headings(6)) > 3


def test_colour_and_typeface_do_not_tell_the_year():
    """Two pages that differ in meaning but not in seed share everything that carries no meaning."""
    rng = random.Random(3)
    for _ in range(10):
        seed = rng.randrange(2**31)
        sheets = [
            pages.Sheet(make_page("slide", seed=seed, year=year), True, 6) for year in (2010, 2020)
        ]
        assert sheets[0].colour == sheets[1].colour
        assert sheets[0].heading == sheets[1].heading
