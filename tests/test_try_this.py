"""Every "Try this" does what its text says: the code that an item shows in backticks is made in the cells, and they run.

An item that this file does not execute is a failure too; the few that need a person or a second process are named with their reason.
"""

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import warm
from cells import find_notebook
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = [*(f"0{i}" for i in range(8)), "12", "a1", "a2", "a3", "a4"]
ELSEWHERE = {
    ("03", 3): "tests/test_resume.py kills a run and runs it again",
    ("12", 1): "tests/test_failure_lab.py changes the cell and runs it again",
    ("12", 2): "tests/test_failure_lab.py changes the cell and runs it again",
}


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
# as a last cell; "typed": questions for the search box. "more" is this test's own last cell, which leaves ``found``.
PIXELS = 'processor_kwargs={"size": {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}}'
TRAINED = "from vdr_helpers.stamps import read_stamp\nfound = read_stamp(folder)['training']"
VARIATIONS: dict[tuple[str, int], dict] = {
    ("00", 1): {
        "below": [("search_box(search, query", 'search_box(search, "pallets sold by Umber Paper in Seville, 1950")')],
    },
    ("00", 2): {"typed": ["Umber Paper", "Umber Paper 2013", "Umber Paper 2013 pallets"]},
    ("00", 3): {
        "edits": [
            ("profile.finetuned_model", "profile.base_model"),
            ("profile.finetuned_revision", "profile.model_revision"),
        ],
    },
    ("01", 1): {
        "edits": [
            (
                "features = model.preprocess([query])",
                'features = model.preprocess([query], prompt="Find the page that answers the question.")',
            )
        ],
        "more": "found = {'first': model.tokenizer.decode(model.preprocess([query], prompt='Find it.')['input_ids'][0])}",
    },
    ("01", 2): {
        "edits": [("processor_kwargs=profile.processor_kwargs", PIXELS)],
        "more": "found = {'pixels': model.processor.image_processor.size['longest_edge']}",
    },
    ("02", 1): {"edits": [("row[i] if i < len(row) else None", "row[-i] if i < len(row) else None")], "block": True},
    ("02", 2): {"block": True, "more": "found = {'copies': copies}"},
    ("03", 1): {
        "edits": [("train_dataset=train_dataset", 'train_dataset=train_dataset.remove_columns("negative_0")')],
        "more": TRAINED,
    },
    ("03", 2): {
        "below": [
            (
                "matryoshka_weights=[1] * len(profile.matryoshka_dims)",
                "loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=profile.mini_batch_size)",
            )
        ],
        "more": TRAINED,
    },
    ("03", 4): {
        "edits": [("learning_rate=profile.learning_rate", "learning_rate=2 * profile.learning_rate")],
        "more": TRAINED,
    },
    ("04", 1): {
        "below": [
            (
                "queries, corpus, relevant_docs, hard_negatives = retrieval_inputs",
                "corpus = {page_id: corpus[page_id] for query_id in queries for page_id in relevant_docs[query_id]}",
            )
        ],
        "more": "found = {'pages': len(corpus), 'queries': len(queries)}",
    },
    ("04", 2): {
        "edits": [('"stopwords": "english"', '"stopwords": None')],
        "more": "found = {'words': sorted(set().union(*query_words))}",
    },
    ("04", 3): {"edits": [("k=60", "k=1")], "more": "found = {'first place': float(fused(similarities['base']).max())}"},
    ("a4", 1): {
        "below": [("check of the check", "in_train = numpy.isin(pages, [*train_pages, *pages[:5]])")],
        "more": "found = {'planted': int(audit['page also in train'].any(axis=0).sum()), 'lost': int(numpy.isnan(scores_without(audit['page also in train'])['base']).sum())}",
    },
    ("a4", 2): {
        "below": [
            (
                "import known_facts",
                'facts["names in the query"] = [str(sum(word[0].isupper() for word in text.split()[1:])) for text in texts]',
            )
        ],
        "more": "found = {'known': list(facts.columns)}",
    },
    ("05", 1): {
        "edits": [("queries_drawn = len(queries)", "queries_drawn = len(queries) // 4")],
        "more": "found = {'drawn': draws.shape[1], 'queries': len(queries)}",
    },
    ("05", 2): {
        "block": True,
        "more": "found = {'shared': len(set(train_pages) & set(pages)), 'seen': sorted(seen), 'widths': sorted(widths)}",
    },
    ("06", 1): {
        "edits": [("width = profile.truncate_dim", "width = profile.matryoshka_dims[-1]")],
        "more": "found = {'width': index.shape[1]}",
    },
    ("06", 2): {
        "edits": [
            (
                "pages, page_ids = list(corpus.values()), list(corpus)",
                'pages, page_ids = [*corpus.values(), "my_page.png"], [*corpus, "mine"]',
            )
        ],
        "more": "found = {'indexed': len(index), 'pages': len(corpus)}",
    },
    ("07", 1): {
        "edits": [("vectors[: len(vectors) // 5]", "vectors[:1]")],
        "more": "found = {'clipped': float((abs(page_vectors['tuned']) > largest['tuned']).mean())}",
    },
    ("07", 2): {"edits": [("lengths = (20, 100)", "lengths = (5, 20)")], "more": "found = {'columns': columns}"},
    ("a1", 1): {"edits": [("3 * columns[1]", "7 * columns[1]")], "more": "found = {'tokens': three_pages}"},
    ("a1", 2): {"edits": [('"batch_size": 16', '"batch_size": 64')], "more": "found = {'same': by_page == by_key}"},
    ("a2", 1): {
        "below": [
            ("columns = {", 'columns |= {"LoRA in bfloat16, 15 pages": memory(lora=True, dtype="bfloat16", pages=15),}'),
        ],
        "more": "found = {'columns': len(columns)}",
    },
    ("a2", 2): {"edits": [("rows=64", "rows=128")]},
    ("a3", 1): {"edits": [('switched = "base"', 'switched = "tuned"')], "more": "found = {'switched': switched}"},
    ("a3", 2): {
        "edits": [
            (
                "query_embeddings.bfloat16() @ page_embeddings.bfloat16().T",
                "query_embeddings.half() @ page_embeddings.half().T",
            )
        ],
        "more": "found = {'format': str(inexact.dtype)}",
    },
}


def test_every_item_is_executed_here_or_elsewhere():
    there = {(number, item) for number in NUMBERS for item in items_of(number)}
    assert all(items_of(number) for number in NUMBERS)
    assert there == set(VARIATIONS) | set(ELSEWHERE)


@pytest.mark.parametrize(("number", "item"), VARIATIONS, ids=str)
def test_what_is_executed_is_what_the_text_says(number, item):
    text, variation = items_of(number)[item], VARIATIONS[number, item]
    changes = [*variation.get("edits", ()), *variation.get("below", ())]
    typed = variation.get("typed", [])
    assert changes or typed or variation.get("block")
    for new in [*(new for _, new in changes), *typed]:
        assert new in text, f"the text does not show {new!r}"


@pytest.fixture(scope="module")
def runs(source, tmp_path_factory):
    """``{(notebook, item): what it found}``: the course once, small, then every variation on a copy of what it left."""
    folder = tmp_path_factory.mktemp("try-this")
    small = {"VDR_DATASET": str(source), "VDR_ROWS": "24:8", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

    def run(jobs):
        done = warm.run([str(ROOT / "tests" / "cells.py")], input=json.dumps(jobs), env=os.environ | small, cwd=ROOT)
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
        typed = "".join(f"search({question!r})\n" for question in variation.get("typed", []))
        changes["more"] = code + "\n" + typed + variation.get("more", "")
        jobs.append({"number": number, "outputs": str(outputs), "changes": changes})
    return dict(zip(VARIATIONS, run(jobs), strict=True))


@pytest.mark.parametrize(("number", "item"), VARIATIONS, ids=str)
def test_it_runs(runs, number, item):
    assert runs[number, item]["status"] == 0, runs[number, item]["log"]


def test_the_changes_took_hold(runs):
    """What each variation left behind is what the item is about, not only a run without an error."""
    found = {key: answer["found"] for key, answer in runs.items()}
    assert "Find it." in found["01", 1]["first"]
    assert found["01", 2]["pixels"] == 96 * 96
    assert found["02", 2]["copies"] >= 0
    assert found["03", 1]["rows"].endswith("hard negatives per pair: 0")
    assert found["03", 2]["loss"] == "CachedMultipleNegativesRankingLoss"
    assert float(found["03", 4]["learning rate"]) == pytest.approx(2 * float(found["03", 1]["learning rate"]))
    assert 0 < found["05", 1]["drawn"] == found["05", 1]["queries"] // 4
    assert found["05", 2]["shared"] == 0 and found["05", 2]["seen"] == found["05", 2]["widths"]
    assert found["a4", 1] == {"planted": 5, "lost": 1}  # of five pages one is a right page
    assert "names in the query" in found["a4", 2]["known"]
    assert found["04", 1]["pages"] == found["04", 1]["queries"]
    assert {"of", "in"} & set(found["04", 2]["words"])
    assert found["04", 3]["first place"] == 0.5
    assert found["a3", 1]["switched"] == "tuned" and found["a3", 2]["format"] == "torch.float16"
    assert found["06", 1]["width"] == 8
    assert found["07", 1]["clipped"] > 0 and "5 rescored" in found["07", 2]["columns"]
    assert found["a1", 1]["tokens"] > 0 and found["a1", 2]["same"] and found["a2", 1]["columns"] == 4
    assert found["06", 2]["indexed"] == found["06", 2]["pages"] + 1
