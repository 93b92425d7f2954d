"""The course as a site: `make site` gives the notebooks, README.md and docs/ as they stand to
Sphinx and MyST-NB.

Nothing is written here that is not in those files. Two things are added: the list of pages at the
left, in the order of notebooks/curriculum.toml, and the alt text of the figures, which the
notebooks store and MyST-NB does not read.
"""

import base64
import hashlib
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
LESSONS = tomllib.loads((ROOT / "notebooks" / "curriculum.toml").read_text(encoding="utf-8"))
DOCS = [
    "start",
    "profiles",
    "phenomena",
    "free_gpu",
    "status",
    "benchmarks",
    "teaching",
    "quiz",
    "handout",
]
DOCS += ["glossary", "feedback", "store", "serve", "models"]

project = "Visual document retrieval, a course"
html_title = project
copyright = "the course's authors, Apache-2.0"
language = "en"

extensions = ["myst_nb"]
root_doc = "README"
SHIPPED = ("tiny-base", "tiny-finetuned", "tiny-late", "tiny-reranker")
CARDS = [f"assets/{name}/README" for name in SHIPPED]
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "notebooks/*.ipynb",
    *(f"{card}.md" for card in CARDS),
]
nb_execution_mode = "off"  # the notebooks are stored executed
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in printed Markdown, as notebook 06 has them
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
html_theme = "furo"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
html_show_sourcelink = False


def toctree(caption: str, pages: list[str]) -> str:
    return "\n".join(
        ["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    )


def add_list_of_pages(app, name: str, source: list[str]) -> None:
    """The pages at the left: parts and appendices, then the documents."""
    if name in CARDS:  # example pages as HTML: Sphinx would not copy them
        source[0] = re.sub(
            r'<img src="([^"]+)"[^>]*>',
            r"![A page of the data that this model was trained on](\1)",
            source[0],
        )
    if name != root_doc:
        return
    parts = {"Part I": 1, "Part II": 2, "Appendices": None}
    for caption, part in parts.items():
        source[0] += toctree(
            caption,
            [
                f"notebooks/{lesson['file']}"
                for lesson in LESSONS.values()
                if lesson.get("part") == part
            ],
        )
    source[0] += toctree(
        "Beside the notebooks",
        [*(f"docs/{name}" for name in DOCS), *CARDS, "CONTRIBUTING", "CHANGELOG"],
    )


def describe(app, problem) -> None:
    """Put the alt text that a notebook stores with a figure beside its picture, and a level on the
    theme's headings at the left.
    """
    if problem:
        return
    described = {}
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(file, as_version=4).cells:
            for output in cell.get("outputs", []):
                alt = output.get("metadata", {}).get("image/png", {}).get("alt")
                if alt:
                    described["".join(output.data["image/png"].split())] = alt
    by_content = {
        hashlib.sha1(base64.b64decode(data)).hexdigest(): alt for data, alt in described.items()
    }
    for page in Path(app.outdir).rglob("*.html"):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        for image in soup.select("img[src]"):
            file = page.parent / image["src"]
            alt = file.is_file() and by_content.get(hashlib.sha1(file.read_bytes()).hexdigest())
            if alt:
                image["alt"] = alt
        for caption in soup.select("[role=heading]:not([aria-level])"):
            caption["aria-level"] = "2"
        page.write_text(str(soup), encoding="utf-8")
    shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app) -> None:
    app.connect("source-read", add_list_of_pages)
    app.connect("build-finished", describe)
