"""Every "Try this" does what its text says: the code that an item shows in backticks is made in the cells, and they run.

An item that this file does not execute is a failure too; the few that need a person or a second process are named with their reason.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from cells import find_notebook
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = [f"0{i}" for i in range(7)]
ELSEWHERE = {("03", 3): "tests/test_resume.py kills a run and runs it again"}


def items_of(number: str) -> dict[int, str]:
    """``{number of the item: its text}`` of a notebook's section "Try this"."""
    last = next(cell.source for cell in nbformat.read(find_notebook(number), as_version=4).cells if "## Try this" in cell.source)
    section = last.partition("## Try this")[2].partition("**Next**")[0]
    return {
        int(n): text for n, text in re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\S(?!\d*\. )|\Z)", section, re.MULTILINE | re.DOTALL)
    }


def block_of(text: str) -> str:
    """The code of an item's fenced block."""
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return re.sub(r"^   ", "", code, flags=re.MULTILINE)


# What each item asks for, in the words of its text: "edits" and "below" as in ``cells.edited_sources``; "block": its fenced block is run
# as a last cell. "more" is this test's own last cell, which leaves ``found``.
VARIATIONS: dict[tuple[str, int], dict] = {
    ("01", 1): {
        "edits": [
            (
                "features = model.preprocess([query])",
                'features = model.preprocess([query], prompt="Find the page that answers the question.")',
            )
        ],
    },
    ("01", 2): {
        "edits": [
            (
                "processor_kwargs=profile.processor_kwargs",
                'processor_kwargs={"size": {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}}',
            )
        ],
    },
    ("02", 1): {
        "edits": [('row["negatives"][i]', 'row["negatives"][-1 - i]')],
        "more": "found = {'eval': len(splits['eval'])}",
    },
    ("02", 2): {"block": True, "more": "found = {'copies': copies}"},
    ("03", 1): {
        "edits": [("train_dataset=train_dataset", 'train_dataset=train_dataset.remove_columns("negative_0")')],
        "more": "from vdr_helpers.stamps import read_stamp\nfound = read_stamp(folder)['training']",
    },
    ("03", 2): {
        "below": [
            (
                "loss = MatryoshkaLoss(",
                "loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=profile.mini_batch_size)",
            )
        ],
        "more": "from vdr_helpers.stamps import read_stamp\nfound = read_stamp(folder)['training']",
    },
    ("03", 4): {
        "edits": [("learning_rate=profile.learning_rate", "learning_rate=2 * profile.learning_rate")],
        "more": "from vdr_helpers.stamps import read_stamp\nfound = read_stamp(folder)['training']",
    },
    ("04", 1): {"edits": [('switched = "base"', 'switched = "tuned"')]},
}


def test_every_item_is_executed_here_or_elsewhere():
    there = {(number, item) for number in NUMBERS for item in items_of(number)}
    assert all(items_of(number) for number in NUMBERS)
    assert there == set(VARIATIONS) | set(ELSEWHERE)


@pytest.mark.parametrize(("number", "item"), VARIATIONS, ids=lambda part: str(part))
def test_what_is_executed_is_what_the_text_says(number, item):
    text, variation = items_of(number)[item], VARIATIONS[number, item]
    changes = [*variation.get("edits", ()), *variation.get("below", ())]
    assert changes or variation.get("block")
    for _, new in changes:
        assert new in text, f"the text does not show {new!r}"


@pytest.fixture(scope="module")
def runs(source, tmp_path_factory):
    """``{(notebook, item): what it found}``: the course once, small, then every variation on a copy of what it left."""
    folder = tmp_path_factory.mktemp("try-this")
    small = {"VDR_DATASET": str(source), "VDR_ROWS": "24:8", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

    def run(jobs):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "cells.py")],
            input=json.dumps(jobs), env=os.environ | small, capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    base = folder / "course"
    first = run([{"number": number, "outputs": str(base)} for number in ("02", "03", "04", "05")])
    assert all(answer["status"] == 0 for answer in first), first[-1]["log"]
    jobs = []
    for (number, item), variation in VARIATIONS.items():
        outputs = folder / f"{number}-{item}"
        shutil.copytree(base, outputs)
        Image.new("RGB", (400, 560), "white").save(outputs / "my_page.png")
        code = block_of(items_of(number)[item]) if variation.get("block") else ""
        changes = {name: variation[name] for name in ("edits", "below") if name in variation}
        changes["more"] = code + "\n" + variation.get("more", "")
        jobs.append({"number": number, "outputs": str(outputs), "changes": changes})
    return dict(zip(VARIATIONS, run(jobs), strict=True))


@pytest.mark.parametrize(("number", "item"), VARIATIONS, ids=str)
def test_it_runs(runs, number, item):
    assert runs[number, item]["status"] == 0, runs[number, item]["log"]


def test_training_without_the_hard_negative_trains_on_two_columns(runs):
    assert runs["03", 1]["found"]["columns"] == ["query", "image"]


def test_training_without_matryoshka_uses_the_plain_loss(runs):
    assert runs["03", 2]["found"]["loss"] == "CachedMultipleNegativesRankingLoss"


def test_twice_the_learning_rate_is_noted(runs):
    assert runs["03", 4]["found"]["learning_rate"] == pytest.approx(2 * runs["03", 1]["found"]["learning_rate"])


def test_copies_are_found_where_nobody_compares_pages(runs):
    assert runs["02", 2]["found"]["copies"] >= 0
