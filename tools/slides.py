"""Slides of notebooks, for the wall: ``python -m tools.slides 03 04`` writes
``outputs/slides/03_finetune.slides.html``.

nbconvert makes them, with reveal.js, from the notebook and its stored outputs; nothing is written
by hand. A heading begins a slide, code a slide below it, and a figure or table one more; a few
lines of code without output go on with what stands before. The setup cell is left out, and folded
solutions become notes for the speaker (press S). What is taller than the screen scrolls.

A browser fetches reveal.js, and nothing else, from where nbconvert takes it. For a room without
network, fetch it once (``npm pack reveal.js@4.0.2``), unpack it and name the folder: ``--reveal
package`` writes it into the pages.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from pathlib import Path

from tools.run_course import find_notebooks
from tools.run_pages import image_descriptions, without_controls
from tools.tables import ROOT
from vdr_helpers.extras import needs

SHORT = 5  # lines of code that may stand below a text
STYLES, SCRIPTS = (
    ("dist/reveal.css", "dist/theme/white.css"),
    ("dist/reveal.js", "plugin/notes/notes.js"),
)
# nbconvert's page, without require.js, jQuery, Mermaid and MathJax: no notebook of the course needs
# them
TEMPLATE = """\
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block footer_js -%}{%- endblock -%}
"""
LOOK = """\
<style>
.reveal {font-size: 26px; --jp-content-font-size1: 24px; --jp-ui-font-size1: 17px; --jp-code-font-size: 18px; --jp-cell-prompt-width: 0}
.reveal h1, .reveal h2, .reveal h3 {text-transform: none; letter-spacing: 0}
.reveal .slides section:not(.stack) {overflow: hidden auto; max-height: 720px; padding: 0}
.reveal .jp-InputPrompt, .reveal .jp-OutputPrompt {display: none}
.reveal .highlight pre, .reveal .jp-OutputArea-output pre {white-space: pre-wrap; overflow-wrap: anywhere; max-height: none}
.reveal .celltag_alone .jp-Cell-inputWrapper {display: none}
.reveal .jp-OutputArea-output img {width: 1100px; height: auto; max-width: 100%; max-height: 640px; object-fit: contain; object-position: left}
</style>
"""
START = """\
<script>
Reveal.initialize({width: 1280, height: 720, margin: 0.04, controls: true, progress: true, history: true, slideNumber: true,
  plugins: [RevealNotes]});
</script>
"""


def slide_type(number: int, cell) -> str:
    """What reveal.js makes of a cell: "slide", "subslide", "-" (goes on), "notes" or "skip";
    ``number`` counts cells from 0.
    """
    if cell.cell_type == "markdown":
        if cell.source.startswith("<details>"):
            return "notes"
        return "slide" if cell.source.startswith("#") or "\n## " in cell.source else "-"
    if number == 1:
        return "skip"  # the setup cell, the same in every notebook
    return "subslide" if cell.outputs or cell.source.count("\n") >= SHORT else "-"


def is_shown(output) -> bool:
    """Whether an output is a figure or a table."""
    return bool({"image/png", "text/html"} & set(output.get("data", {})))


def parts_of(cell) -> list:
    """Copies of a cell for one slide each: a text is cut where a heading stands inside, code from
    each figure or table that it shows.
    """
    parts = [copy.deepcopy(cell)]
    if cell.cell_type == "markdown" and not cell.source.startswith("<details>"):
        before, *after = re.split(r"\n(?=## )", cell.source)
        sources = [source for source in (before, *after) if source.strip()]
        parts = [copy.deepcopy(cell) for _ in sources]
        for part, source in zip(parts, sources, strict=True):
            part.source = source
    elif cell.cell_type == "code" and any(map(is_shown, cell.outputs)):
        parts[0].outputs = [output for output in cell.outputs if not is_shown(output)]
        for output in filter(is_shown, cell.outputs):
            parts.append(copy.deepcopy(cell))
            parts[-1].source, parts[-1].outputs, parts[-1].metadata["tags"] = (
                "",
                [output],
                ["alone"],
            )
    return parts


def as_slides(notebook):
    """A copy of the notebook in which every cell says what it is on the wall."""
    cells = []
    for number, cell in enumerate(without_controls(notebook).cells):
        for i, part in enumerate(parts_of(cell)):
            part.id, kind = f"{cell.id}-{i}", slide_type(number, part)
            below_outputs = cells and cells[-1].get("outputs")  # they fill the screen
            part.metadata["slideshow"] = {
                "slide_type": "subslide" if kind == "-" and below_outputs else kind
            }
            cells.append(part)
    slides = copy.deepcopy(notebook)
    slides.cells = cells
    return slides


def written_in(page: str, reveal: Path) -> str:
    """The page with reveal.js inside, from the folder that a package of it unpacks to. Raises
    ``FileNotFoundError`` for another folder.
    """
    for name in STYLES:
        # fonts: the machine has its own
        style = re.sub(r"@import[^;]+;", "", (reveal / name).read_text(encoding="utf-8"))
        page = re.sub(
            rf'<link[^>]+{name}"[^>]*>', lambda _, style=style: f"<style>{style}</style>", page
        )
    for name in SCRIPTS:
        script = (reveal / name).read_text(encoding="utf-8").replace("</script", r"<\/script")
        page = re.sub(
            rf'<script src="[^"]+{name}"></script>',
            lambda _, script=script: f"<script>{script}</script>",
            page,
        )
    return page


def as_page(notebook, reveal: Path | None = None) -> str:
    """The slides of a notebook as one HTML page; ``reveal``: see :func:`written_in`."""
    from bs4 import BeautifulSoup
    from jinja2 import DictLoader
    from nbconvert import SlidesExporter

    loader = DictLoader({"course.html.j2": TEMPLATE})
    exporter = SlidesExporter(
        extra_loaders=[loader], template_file="course.html.j2", reveal_theme="white"
    )
    page, _ = exporter.from_notebook_node(as_slides(notebook))
    soup, descriptions = BeautifulSoup(page, "html.parser"), image_descriptions(notebook)
    for image in soup.select("img[src]"):
        image["alt"] = descriptions.get(
            "".join(image["src"].partition("base64,")[2].split()), image.get("alt", "")
        )
    scripts = "".join(
        f'<script src="{exporter.reveal_url_prefix}/{name}"></script>' for name in SCRIPTS
    )
    page = (
        str(soup)
        .replace("</head>", LOOK + "</head>", 1)
        .replace("</body>", scripts + START + "</body>", 1)
    )
    return written_in(page, reveal) if reveal else page


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 for a number that fits no notebook or a folder without
    reveal.js.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.slides", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "numbers", nargs="*", metavar="NUMBER", help="which notebooks; all of them without one"
    )
    parser.add_argument(
        "--reveal",
        type=Path,
        metavar="FOLDER",
        help="an unpacked reveal.js 4, which goes into the pages",
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "slides")
    options = parser.parse_args(arguments)
    needs("run")
    import nbformat

    try:
        files = find_notebooks(only=options.numbers or None)
        pages = {file: as_page(nbformat.read(file, as_version=4), options.reveal) for file in files}
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    except FileNotFoundError as problem:
        print(
            f"no {problem.filename}: --reveal wants the folder that `npm pack reveal.js@4.0.2` unpacks to",
            file=sys.stderr,
        )
        return 2
    options.folder.mkdir(parents=True, exist_ok=True)
    for file, page in pages.items():
        target = options.folder / f"{file.stem}.slides.html"
        target.write_text(page, encoding="utf-8")
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
