"""Slides are the notebook's own cells, cut at headings, figures and tables, in pages that work
without a network.
"""

import nbformat
import pytest
from bs4 import BeautifulSoup

from tools import slides
from tools.run_course import find_notebooks


@pytest.fixture
def reveal(tmp_path):
    """A folder laid out as a package of reveal.js is, with a word of its own in each file that
    slides need.
    """
    for name in (*slides.STYLES, *slides.SCRIPTS):
        file = tmp_path / "package" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (
            f'"{name} is here", "</script>"'
            if name.endswith(".js")
            else f"@import url(https://fonts);\n/* {name} is here */"
        )
        file.write_text(text, encoding="utf-8")
    return tmp_path / "package"


@pytest.mark.parametrize("number", ["03", "04", "a2"])
def test_every_heading_begins_a_slide_and_nothing_is_lost(number):
    [file] = find_notebooks(only=[number])
    notebook = nbformat.read(file, as_version=4)
    cells = slides.as_slides(notebook).cells
    types = [cell.metadata["slideshow"]["slide_type"] for cell in cells]
    assert types[0] == "slide" and types.count("skip") == 1
    shown = [
        cell
        for cell, kind in zip(cells, types, strict=True)
        if cell.cell_type == "markdown" and kind != "notes"
    ]
    assert all(
        kind == "slide"
        for cell, kind in zip(cells, types, strict=True)
        if cell in shown and cell.source.startswith("## ")
    )
    texts = "".join("".join(cell.source.split()) for cell in cells)
    assert texts == "".join("".join(cell.source.split()) for cell in notebook.cells)
    outputs = [
        [output for cell in some if cell.cell_type == "code" for output in cell.outputs]
        for some in (cells, notebook.cells)
    ]
    assert len(outputs[0]) == len(outputs[1])


def test_a_figure_or_table_has_a_slide_to_itself():
    notebook = nbformat.read(find_notebooks(only=["04"])[0], as_version=4)
    cells = [
        cell
        for cell in slides.as_slides(notebook).cells
        if cell.cell_type == "code" and any(map(slides.is_shown, cell.outputs))
    ]
    assert len(cells) >= 6
    assert all(not cell.source and len(cell.outputs) == 1 for cell in cells)
    assert {cell.metadata["slideshow"]["slide_type"] for cell in cells} == {"subslide"}


def test_the_page_holds_them_and_the_solutions_are_notes(tmp_path, capsys):
    assert slides.main(["04", "--folder", str(tmp_path)]) == 0
    page = BeautifulSoup(
        (tmp_path / "04_evaluate.slides.html").read_text(encoding="utf-8"), "html.parser"
    )
    assert len(page.select(".slides > section")) >= 8
    assert any("Solution" in note.get_text() for note in page.select("aside.notes"))
    assert page.select(".slides img") and all(
        len(image["alt"]) > 20 for image in page.select(".slides img")
    )
    assert "COLAB_RELEASE_TAG" not in page.select_one(".slides").get_text()
    fetched = [tag.get("src") or tag["href"] for tag in page.select("script[src], link[href]")]
    assert sorted(address.partition("/reveal.js@4.0.2/")[2] for address in fetched) == sorted(
        slides.STYLES + slides.SCRIPTS
    )
    assert "04_evaluate.slides.html" in capsys.readouterr().out


def test_with_a_copy_of_reveal_js_nothing_is_fetched(tmp_path, reveal):
    assert slides.main(["a2", "--folder", str(tmp_path), "--reveal", str(reveal)]) == 0
    text = (tmp_path / "a2_will_it_fit.slides.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert not page.select("script[src], link[href]") and "@import" not in text
    assert all(
        any(f"{name} is here" in style.get_text() for style in page.select("style"))
        for name in slides.STYLES
    )
    scripts = [script.get_text() for script in page.select("script")]
    assert [sum(f"{name} is here" in script for script in scripts) for name in slides.SCRIPTS] == [
        1,
        1,
    ]
    assert "Reveal.initialize" in scripts[-1]


def test_a_folder_without_reveal_js_is_told(tmp_path, capsys):
    assert slides.main(["a2", "--folder", str(tmp_path / "out"), "--reveal", str(tmp_path)]) == 2
    assert (
        "reveal.css: --reveal wants the folder that `npm pack reveal.js@4.0.2` unpacks to"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_an_unknown_number_is_named(tmp_path, capsys):
    assert slides.main(["99", "--folder", str(tmp_path)]) == 2
    assert "no notebook starts with '99'" in capsys.readouterr().err
