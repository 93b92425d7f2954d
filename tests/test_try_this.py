"""Every "Try this" does what its text says: the code that an item shows in backticks is made in the
cells, and they run.

An item that this file does not execute is a failure too; the few that need a person or a second
process are named with their reason.
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

from tiny_vdr.documents import draw_documents

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = [*(f"{i:02}" for i in range(13)), "a1", "a2", "a3", "a4", "a5"]
ELSEWHERE = {
    ("03", 3): "tests/test_resume.py kills a run and runs it again",
    ("11", 1): "tests/test_more_machines.py, without the minute of processes before and after it",
    ("11", 2): "tests/test_more_machines.py",
    ("12", 1): "tests/test_failure_lab.py changes the cell and runs it again",
}


def items_of(number: str) -> dict[int, str]:
    """``{number of the item: its text}`` of a notebook's section "Try this"."""
    last = next(
        cell.source
        for cell in nbformat.read(find_notebook(number), as_version=4).cells
        if "## Try this" in cell.source
    )
    section = last.partition("## Try this")[2].partition("**Next**")[0]
    return {
        int(n): text
        for n, text in re.findall(
            r"^(\d+)\. (.*?)(?=^\d+\. |^\S(?!\d*\. )|\Z)", section, re.MULTILINE | re.DOTALL
        )
    }


def block_of(text: str) -> str:
    """The code of an item's fenced block."""
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return re.sub(r"^   ", "", code, flags=re.MULTILINE)


# What each item asks for, in the words of its text: "edits" and "below" as in
# ``cells.edited_sources``; "block": its fenced block is run as a last cell; "typed": questions for
# the search box. "more" is this test's own last cell, which leaves ``found``.
PIXELS = 'processor_kwargs={"size": {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}}'
TRAINED = "from vdr_helpers.cache import read_manifest\nfound = read_manifest(folder)['trained']"
VARIATIONS: dict[tuple[str, int], dict] = {
    ("00", 1): {
        "below": [
            (
                "search_box(search, query",
                'search_box(search, "How much revenue did Larch Marine record in Porto in 1950?")',
            )
        ],
    },
    ("00", 2): {"typed": ["Larch Marine", "Larch Marine 2017", "Larch Marine 2017 revenue"]},
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
    ("02", 1): {
        "block": True,
        "more": "found = {'both': sum(row['negative_3'] is not None for row in tables['full'])}",
    },
    ("03", 1): {
        "edits": [
            (
                "train_dataset=train_dataset",
                'train_dataset=train_dataset.remove_columns("negative_0")',
            )
        ],
        "more": TRAINED,
    },
    ("03", 2): {
        "edits": [
            (
                "loss = losses.MatryoshkaLoss(model, loss, matryoshka_dims=matryoshka_dims)",
                "loss = loss",
            )
        ],
        "more": TRAINED,
    },
    ("03", 4): {
        "edits": [("learning_rate=learning_rate", "learning_rate=2 * learning_rate")],
        "more": TRAINED,
    },
    ("04", 1): {
        "below": [
            (
                "queries, corpus, relevant_docs, hard_negatives = retrieval_inputs",
                'corpus = {page_id: corpus[page_id] for page_id in corpus if page_id.endswith("positive")}',
            )
        ],
        "more": "found = {'pages': len(corpus), 'queries': len(queries)}",
    },
    ("04", 2): {
        "below": [("gains = tuned_scores", "with_interval((tuned_scores - base_scores)[:75])")],
        "more": "found = {'interval': with_interval((tuned_scores - base_scores)[:75])}",
    },
    ("a5", 1): {
        "edits": [('"stopwords": "english"', '"stopwords": None')],
        "more": "found = {'words': sorted(set().union(*query_words))}",
    },
    ("a5", 2): {
        "edits": [("k=60", "k=1")],
        "more": "found = {'first place': float(fused(similarities['base']).max())}",
    },
    ("a4", 1): {
        "below": [
            ("check of the check", "in_train = numpy.isin(pages, [*train_pages, *pages[:5]])")
        ],
        "more": "found = {'planted': int(audit['page also in train'].any(axis=0).sum()), 'lost': int(numpy.isnan(scores_without(audit['page also in train'])['base']).sum())}",
    },
    ("a4", 2): {
        "below": [
            (
                "facts.head(4)",
                'facts["names in the query"] = [str(sum(word[0].isupper() for word in text.split()[1:])) for text in texts]',
            )
        ],
        "more": "found = {'known': list(facts.columns)}",
    },
    ("05", 1): {
        "edits": [("default_rng(0)", "default_rng(1)")],
        "more": "found = {'first': order.tolist(), 'before': numpy.random.default_rng(0).permutation(len(order)).tolist()}",
    },
    ("05", 2): {
        "edits": [("dim = dims[-2]", "dim = dims[2]")],
        "more": "found = {'width': unit_pages.shape[1], 'third': dims[2]}",
    },
    ("06", 1): {
        "edits": [
            ("truncate_dim=profile.truncate_dim", "truncate_dim=profile.matryoshka_dims[-1]")
        ],
        "more": "found = {'width': index.shape[1]}",
    },
    ("06", 2): {
        "edits": [
            (
                "pages, page_ids = list(corpus.values()), list(corpus)",
                'corpus["mine"] = "my_page.png"\npages, page_ids = list(corpus.values()), list(corpus)',
            )
        ],
        "more": "found = {'indexed': len(index), 'pages': 5 * len(queries)}",
    },
    ("07", 1): {
        "edits": [("vectors[: len(vectors) // 5]", "vectors[:1]")],
        "more": "found = {'clipped': float((abs(page_vectors['tuned']) > largest['tuned']).mean())}",
    },
    ("07", 2): {
        "edits": [("lengths = (20, 100)", "lengths = (5, 20)")],
        "more": "found = {'columns': columns}",
    },
    ("09", 1): {
        "edits": [("(texts[number], pages[place])", "(pages[place], texts[number])")],
        "more": "found = {'right way': float(abs(reranker.predict([(texts[0], pages[stages[widths[0]][1][0, 0]])], activation_fn=torch.nn.Identity(), show_progress_bar=False)[0] - scores[widths[0]][0, 0]))}",
    },
    ("09", 2): {
        "edits": [("depth = min(10, len(pages))", "depth = min(3, len(pages))")],
        "more": "found = {'depths': depths, 'read': scores[widths[0]].numel()}",
    },
    ("09", 3): {
        "edits": [("profile.matryoshka_dims[-1]", "profile.matryoshka_dims[-3]")],
        "more": "found = {'widths': list(scores)}",
    },
    ("08", 1): {
        "edits": [("old_per_own = 0", "old_per_own = 1")],
        "more": "found = {'old': len(old_rows), 'own': len(own_rows)}",
    },
    ("08", 2): {
        "edits": [("relative_margin=0.05", "absolute_margin=0")],
        "more": "found = {'nearest': max(negative - positive for positive, negative in mined['scores'])}",
    },
    ("08", 3): {
        "edits": [("[*questions, *phrases, *written]", "[*phrases, *written]")],
        "more": "found = {'ways': sorted(set(queries['way'])), 'people': people}",
    },
    ("08", 4): {
        "edits": [("good_enough = 0.90", "good_enough = 0.50")],
        "more": "found = {'holds': against['holds'][1], 'text': by_text}",
    },
    ("a1", 1): {
        "edits": [("3 * columns[1]", "7 * columns[1]")],
        "more": "found = {'tokens': three_pages}",
    },
    ("a1", 2): {
        "edits": [('"batch_size": 16', '"batch_size": 64')],
        "more": "found = {'same': by_page == by_path}",
    },
    ("a2", 1): {
        "below": [
            ("columns = {", 'sum(memory(lora=True, dtype="bfloat16", pages=12).values())'),
        ],
        "more": "found = {'gib': sum(memory(lora=True, dtype='bfloat16', pages=12).values())}",
    },
    ("a2", 2): {"edits": [("rows=64", "rows=128")]},
    ("a2", 3): {
        "edits": [("18.5", "21.5")],
        "more": "found = {'trains': setting['trains']}",
    },
    ("a3", 1): {
        "edits": [('switched = "base"', 'switched = "tuned"')],
        "more": "found = {'switched': switched}",
    },
    ("10", 1): {
        "edits": [("factors = (1, 2, 3, 4, 8)", "factors = (1, 16, 32)")],
        "more": "found = {'left': [len(pooled[factor][0]) for factor in factors]}",
    },
    ("10", 2): {
        "edits": [
            (
                "profile.late_start, revision=profile.model_revision",
                "tuned_path, revision=profile.finetuned_revision",
            )
        ],
        "more": "found = {'origin': model_origin, 'steps': steps}",
    },
    ("10", 3): {"block": True, "more": "found = {'queries': len(added)}"},
    ("10", 4): {
        "block": True,
        "more": "found = {'map': heatmap.size, 'page': Image.open(page).size}",
    },
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
    written = [line for _, new in changes for line in new.splitlines()]
    for shown in [*written, *typed]:
        assert shown in text, f"the text does not show {shown!r}"


@pytest.fixture(scope="module")
def runs(source, tmp_path_factory):
    """``{(notebook, item): what it found}``: the course once, small, then every variation on a copy
    of what it left.
    """
    folder = tmp_path_factory.mktemp("try-this")
    small = {
        "VDR_DATASET": str(source),
        "VDR_ROWS": "24:8",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    small["VDR_DOCUMENTS"] = str(draw_documents(folder / "pdf", seed=5, count=8))

    def run(jobs):
        done = warm.run(
            [str(ROOT / "tests" / "cells.py")],
            input=json.dumps(jobs),
            env=os.environ | small,
            cwd=ROOT,
        )
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
    """What each variation left behind is what the item is about, not only a run without an
    error.
    """
    found = {key: answer["found"] for key, answer in runs.items()}
    assert "Find it." in found["01", 1]["first"]
    assert found["01", 2]["pixels"] == 96 * 96
    assert found["02", 1]["both"] > 0
    assert found["03", 1]["rows"].endswith("hard negatives per pair: 0")
    assert found["03", 2]["loss"] == "CachedMultipleNegativesRankingLoss"
    assert float(found["03", 4]["learning rate"]) == pytest.approx(
        2 * float(found["03", 1]["learning rate"])
    )
    assert found["05", 1]["first"] != found["05", 1]["before"]
    assert found["05", 2]["width"] == found["05", 2]["third"]
    assert found["a4", 1] == {"planted": 5, "lost": 1}  # of five pages one is a right page
    assert "names in the query" in found["a4", 2]["known"]
    assert found["04", 1]["pages"] == found["04", 1]["queries"]
    assert "(" in found["04", 2]["interval"]
    assert {"of", "in"} & set(found["a5", 1]["words"])
    assert found["a5", 2]["first place"] == 0.5
    assert found["a3", 1]["switched"] == "tuned" and found["a3", 2]["format"] == "torch.float16"
    assert found["06", 1]["width"] == 8
    assert found["07", 1]["clipped"] > 0 and "5 rescored" in found["07", 2]["columns"]
    whole, sixteenth, least = found["10", 1]["left"]
    assert (sixteenth, least) == (whole // 16, max(1, whole // 32))
    assert found["10", 2]["origin"].startswith("your own") and found["10", 2]["steps"] > 0
    assert found["10", 3]["queries"] == 8
    assert found["10", 4]["map"] == found["10", 4]["page"]
    assert found["09", 1]["right way"] > 0
    assert found["09", 2] == {"depths": [2, 3], "read": 24}
    assert found["09", 3]["widths"] == [256, 32]
    assert min(found["08", 1]["own"], 24) == found["08", 1]["old"]
    assert found["08", 2]["nearest"] <= 0
    assert found["08", 3] == {"ways": ["text layer"], "people": 0}
    assert found["08", 4]["holds"] == ("yes" if found["08", 4]["text"] >= 0.5 else "no")
    assert (
        found["a1", 1]["tokens"] > 0 and found["a1", 2]["same"] and 0 < found["a2", 1]["gib"] < 22
    )
    assert found["a2", 3]["trains"] == "LoRA"  # all weights no longer fit an L4
    assert found["06", 2]["indexed"] == found["06", 2]["pages"] + 1
