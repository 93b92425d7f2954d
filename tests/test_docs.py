"""What the documents say about the notebooks is true of them."""

import re
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROWS = re.findall(
    r"^\| ([^|]+) \| [^|]+ \| \[\w+\]\(([^)]+)\) \|$",
    (DOCS / "glossary.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def words_of(text: str) -> set[str]:
    """The words of a text without the ends that English puts on them."""
    return {
        re.sub(r"(ing|ed|es|s|d)$", "", word) for word in re.findall(r"[a-z0-9@]+", text.lower())
    }


@pytest.mark.parametrize(("word", "notebook"), ROWS, ids=[word for word, _ in ROWS])
def test_a_word_of_the_glossary_is_used_where_it_says(word, notebook):
    cells = nbformat.read(DOCS / notebook, as_version=4).cells
    assert words_of(word) <= words_of(
        " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    )


def test_the_glossary_is_in_order_and_has_every_row():
    words = [word.lower() for word, _ in ROWS]
    assert words == sorted(words)
    assert len(words) == (DOCS / "glossary.md").read_text(encoding="utf-8").count("\n| ") - 1 >= 40


@pytest.mark.parametrize("document", sorted(DOCS.glob("*.md")), ids=lambda file: file.name)
def test_local_links_lead_somewhere(document):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (document.parent / target).exists()]
