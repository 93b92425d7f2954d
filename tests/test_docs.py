"""What the documents say about the notebooks is true of them."""

import csv
import json
import re
from pathlib import Path

import nbformat
import pytest

from vdr_helpers.documents import queries_from_table

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


COMMANDS = sorted(
    {
        (document.name, script, option)
        for document in DOCS.glob("*.md")
        for script, options in re.findall(
            r"scripts/(\w+)\.py((?: [^\n`#|]*)?)", document.read_text(encoding="utf-8")
        )
        for option in re.findall(r" (--[a-z][a-z-]*)", options)
    }
)


@pytest.mark.parametrize(("document", "script", "option"), COMMANDS)
def test_an_option_in_a_command_is_one_of_its_script(document, script, option):
    source = (DOCS.parent / "scripts" / f"{script}.py").read_text(encoding="utf-8")
    names = {option, option.replace("--no-", "--")}
    assert any(f'"{name}"' in source for name in names), (
        f"docs/{document}: scripts/{script}.py has no {option}"
    )


def test_a_sample_of_the_query_log_becomes_a_table_of_questions(tmp_path, monkeypatch):
    """The cell of docs/serve.md, run on a log as scripts/serve.py writes it."""
    asked = ["Where?", "Where?", "How,\nand why?", 'What is "F2"?']
    lines = [json.dumps({"query": query, "top": 10, "best": None}) + "\n" for query in asked]
    (tmp_path / "queries.log").write_text("".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "serve.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "serve.md", "exec"), {})
    file = tmp_path / "asked.csv"
    with file.open(encoding="utf-8-sig", newline="") as table:
        rows = list(csv.DictReader(table))
    assert {row["query"] for row in rows} == {"Where?", "How, and why?", 'What is "F2"?'}
    file.write_text(
        file.read_text(encoding="utf-8").replace("\n,,", "\na.pdf,1,"), encoding="utf-8"
    )
    assert len(queries_from_table(file, {"a.pdf#1"})) == len(rows) == 3
