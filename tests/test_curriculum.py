"""What the course says about its notebooks is what ``notebooks/curriculum.toml`` and the stored run
say.
"""

from dataclasses import replace

import nbformat
import pytest
from notebook_checks import in_order

from tools import curriculum
from tools.badges import badges
from tools.tables import README
from vdr_helpers.published import measured


def test_the_file_names_every_notebook_in_order():
    named = [f"{lesson.file}.ipynb" for lesson in curriculum.lessons().values()]
    assert named == [file.name for file in in_order(curriculum.NOTEBOOKS.glob("*.ipynb"))]
    assert all(lesson.file.startswith(number) for number, lesson in curriculum.lessons().items())


@pytest.mark.parametrize("number", curriculum.lessons())
def test_every_card_says_what_the_file_says(number):
    lesson = curriculum.lessons()[number]
    source = (
        nbformat.read(curriculum.NOTEBOOKS / f"{lesson.file}.ipynb", as_version=4).cells[0].source
    )
    assert curriculum.with_card(source, lesson) == source, "run python -m tools.curriculum"


def test_readme_and_notebook_00_show_its_tables():
    start = nbformat.read(curriculum.NOTEBOOKS / "00_start_here.ipynb", as_version=4)
    before = [cell.source for cell in start.cells]
    readme, notebooks = curriculum.written(README.read_text(encoding="utf-8"), {"00": start})
    assert readme == README.read_text(encoding="utf-8"), "run python -m tools.curriculum"
    assert [cell.source for cell in notebooks["00"].cells] == before, (
        "run python -m tools.curriculum"
    )
    assert sum("<!-- curriculum: start -->" in source for source in before) == 1


def test_the_teachers_plans_are_those_of_their_file():
    text = curriculum.TEACHING.read_text(encoding="utf-8")
    assert curriculum.with_plans(text) == text, "run python -m tools.curriculum"


def test_every_notebook_has_minutes_of_the_stored_run():
    assert {lesson.file for lesson in curriculum.lessons().values()} <= measured("tiny_run")[
        "minutes"
    ].keys()


def test_a_changed_word_or_minute_is_noticed():
    lesson = curriculum.lessons()["05"]
    card = curriculum.card(lesson)
    for changed in (
        replace(lesson, will="learn."),
        replace(lesson, gpu="no"),
        replace(lesson, title="Other"),
    ):
        assert curriculum.with_card(card, changed) != card
    assert (
        curriculum.with_card(card.replace(" on two CPU cores", "s on two CPU cores"), lesson)
        == card
    )


def test_badges_and_what_follows_the_card_stay():
    lesson = curriculum.lessons()["a1"]
    title, _, body = curriculum.card(lesson).partition("\n\n")
    shown = badges("https://github.com/owner/name", "v1", "a1.ipynb")
    source = f"{title}\n\n{shown}\n\n{body}\n\nThe published script runs as it stands."
    assert curriculum.with_card(source, lesson) == source


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0.3, "under a minute"), (1.0, "about 1 minutes"), (1.2, "about 2 minutes")],
)
def test_minutes_are_rounded_up(minutes, words):
    assert curriculum.in_words(minutes) == words.replace("1 minutes", "1 minute")


def test_the_parts_are_those_of_the_file():
    assert (
        curriculum.part_of("00_start_here")
        == curriculum.part_of("a4_look_closer")
        == curriculum.part_of("99_unknown")
        == 1
    )
