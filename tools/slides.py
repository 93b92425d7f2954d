"""Slides of notebooks, for the wall: ``python -m tools.slides 03 04`` writes ``outputs/slides/03_finetune.slides.html``.

nbconvert makes them, with reveal.js, from the notebook and its stored outputs; nothing is written by hand. A heading begins a slide, a code
cell with an output a slide below it, code without output goes on with what stands before; the setup cell is left out, and folded solutions
become notes for the speaker (press S). The pages load reveal.js from where nbconvert takes it; ``--reveal FOLDER`` names a copy of your own
for a room without network.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import nbformat

from tools.run_course import find_notebooks
from tools.run_pages import without_controls
from tools.tables import ROOT


def slide_type(number: int, cell) -> str:
    """What reveal.js makes of a cell: "slide", "subslide", "-" (goes on), "notes" or "skip"; ``number`` counts cells from 0."""
    if cell.cell_type == "markdown":
        if cell.source.startswith("<details>"):
            return "notes"
        return "slide" if cell.source.startswith("#") or "\n## " in cell.source else "-"
    if number == 1:
        return "skip"  # the setup cell, the same in every notebook
    return "subslide" if cell.outputs else "-"


def as_slides(notebook):
    """A copy of the notebook in which every cell says what it is on the wall, cut where a heading stands inside a cell."""
    cells = []
    for number, cell in enumerate(without_controls(notebook).cells):
        before, mark, after = cell.source.partition("\n## ") if cell.cell_type == "markdown" else (cell.source, "", "")
        parts = [before, f"## {after}"] if mark and before.strip() and not cell.source.startswith("<details>") else [cell.source]
        for i, source in enumerate(parts):
            part = copy.deepcopy(cell)
            part.source, part.id = source, f"{cell.id}-{i}"
            part.metadata["slideshow"] = {"slide_type": slide_type(number, part)}
            cells.append(part)
    slides = copy.deepcopy(notebook)
    slides.cells = cells
    return slides


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 for a number that fits no notebook."""
    from nbconvert import SlidesExporter

    parser = argparse.ArgumentParser(prog="python -m tools.slides", description=__doc__.partition("\n")[0])
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="which notebooks; all of them without one")
    parser.add_argument("--reveal", help="where reveal.js lies, if not where nbconvert takes it from")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "slides")
    options = parser.parse_args(arguments)
    try:
        files = find_notebooks(only=options.numbers or None)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    exporter = SlidesExporter(**({"reveal_url_prefix": options.reveal} if options.reveal else {}))
    options.folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        page, _ = exporter.from_notebook_node(as_slides(nbformat.read(file, as_version=4)))
        target = options.folder / f"{file.stem}.slides.html"
        target.write_text(page, encoding="utf-8")
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
