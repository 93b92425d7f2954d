"""Slides are the notebook's own cells, cut at headings."""

import nbformat
import pytest
from bs4 import BeautifulSoup

from tools import slides
from tools.run_course import find_notebooks


@pytest.mark.parametrize("number", ["03", "04", "a2"])
def test_every_heading_begins_a_slide_and_nothing_is_lost(number):
    [file] = find_notebooks(only=[number])
    notebook = nbformat.read(file, as_version=4)
    cells = slides.as_slides(notebook).cells
    types = [cell.metadata["slideshow"]["slide_type"] for cell in cells]
    assert types[0] == "slide" and types.count("skip") == 1
    shown = [cell for cell, kind in zip(cells, types, strict=True) if cell.cell_type == "markdown" and kind != "notes"]
    assert all(
        kind == "slide" for cell, kind in zip(cells, types, strict=True) if cell in shown and cell.source.startswith("## ")
    )
    texts = "".join("".join(cell.source.split()) for cell in cells)
    assert texts == "".join("".join(cell.source.split()) for cell in notebook.cells)


def test_the_page_holds_them_and_the_solutions_are_notes(tmp_path, capsys):
    assert slides.main(["04", "--folder", str(tmp_path), "--reveal", "reveal"]) == 0
    page = BeautifulSoup((tmp_path / "04_evaluate.slides.html").read_text(encoding="utf-8"), "html.parser")
    assert len(page.select(".slides > section")) >= 8
    assert any("Solution" in note.get_text() for note in page.select("aside.notes"))
    assert page.select(".slides img")
    assert "COLAB_RELEASE_TAG" not in page.select_one(".slides").get_text()
    assert "04_evaluate.slides.html" in capsys.readouterr().out


def test_an_unknown_number_is_named(tmp_path, capsys):
    assert slides.main(["99", "--folder", str(tmp_path)]) == 2
    assert "no notebook starts with '99'" in capsys.readouterr().err
