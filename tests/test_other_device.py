"""Every cell of every notebook on a device that is not the CPU (``off_cpu.py``), and the lines that would stop on a card, refused."""

import os
import shutil
from pathlib import Path

import pytest
import warm
from cells import NOTEBOOKS, edited_sources
from on_card import run_course

from tiny_vdr.documents import draw_documents
from tiny_vdr.model import TINY
from tools.gpu_memory import memory
from vdr_helpers.gpu import GIB

pytestmark = pytest.mark.slow
# Without 11: its subject is other processes, and they do not know a device that was made in this one.
NUMBERS = sorted({path.name[:2] for path in NOTEBOOKS.glob("*.ipynb")} - {"11"})
REFUSAL = "Expected all tensors to be on the same device"


SETTINGS = {"VDR_ROWS": "24:8"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Where ``course`` leaves what it makes."""
    return tmp_path_factory.mktemp("card")


@pytest.fixture(scope="module")
def course(source, outputs):
    """One row per cell that ran, of all notebooks on the tests' device: the tiny profile, 24 training rows."""
    documents = str(draw_documents(outputs / "pdf", seed=5, count=8))
    return run_course(NUMBERS, outputs, VDR_DATASET=str(source), VDR_DOCUMENTS=documents, **SETTINGS)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_cell_runs_on_a_device_that_is_not_the_cpu(course, number):
    rows = [row for row in course if row["notebook"] == number]
    failed = [f"cell {row['cell']}: {row['error']}" for row in rows if row["error"]]
    assert not failed, failed[0]
    assert len(rows) == len(edited_sources(number))


def test_the_models_were_on_that_device(course):
    """Where nothing lay on the card, nothing was proven."""
    for number in set(NUMBERS) - {"02", "a2"}:  # the first loads a processor only, the second adds up numbers
        assert max(row["peak"] for row in course if row["notebook"] == number) > 15e6, f"notebook {number} held no model there"


# What stood in notebook 03 before, and what stands there now: each old line stops the notebook on a card.
OLD_LINES = {
    "targets on the CPU": (
        "03",
        "own_page = torch.arange(len(batch), device=logits.device)",
        "own_page = torch.arange(len(batch))",
    ),
    "features on the CPU": (
        "03",
        '[batch_to_device(model.preprocess(list(batch[name])), model.device) for name in ("query", "image", "negative_0")]',
        '[model.preprocess(list(batch[name])) for name in ("query", "image", "negative_0")]',
    ),
    "pixels on the CPU": ("a1", 'pixel_values = columns[1]["pixel_values"]', 'pixel_values = columns[1]["pixel_values"].cpu()'),
}


@pytest.fixture(scope="module")
def edited(course, outputs, source, tmp_path_factory):
    """``edited(notebook, edits)``: one notebook on the tests' device, with the splits that the course's notebook 02 made there."""

    def run(number, edits):
        folder = tmp_path_factory.mktemp("edited")
        shutil.copytree(outputs / "tiny" / "data", folder / "tiny" / "data")
        return run_course([number], folder, changes={number: {"edits": edits}}, VDR_DATASET=str(source), **SETTINGS)

    return run


@pytest.mark.parametrize("what", OLD_LINES)
def test_a_line_that_stops_on_a_card_stops_here(edited, what):
    number, now, before = OLD_LINES[what]
    rows = edited(number, [(now, before)])
    assert REFUSAL in rows[-1]["error"]
    assert before in rows[-1]["source"] or not rows[-1]["source"].startswith("import os"), "it stops where the line stands"
    assert len(rows) < len(edited_sources(number))


# Memory: what a cell leaves on the card, held against the terms of tools.gpu_memory for the same architecture.


def planned(*names: str) -> float:
    """Bytes of these terms for the tiny architecture in float32, all weights trained."""
    terms = memory(TINY, "all weights", "float32", pages=1, rows=24, tokens=35)
    return sum(terms[name] for name in names) * GIB


def left_by(course, number: str, text: str) -> dict:
    """The row of the one cell of a notebook that holds ``text``."""
    [row] = [row for row in course if row["notebook"] == number and text in row["source"]]
    return row


def too_much(rows) -> list[str]:
    """Cells of notebook 03 that leave more on the card than training needs: the weights before it, Adam's moments beside them after it."""
    started, ended = (next(i for i, row in enumerate(rows) if text in row["source"]) for text in ("trainer.train(", "reloaded ="))
    small = 0.5 * planned("weights")  # eight pages' pixels and vectors, which the demonstrations keep
    limits = [planned("weights", "Adam's two moments") if started <= i < ended else planned("weights") for i in range(len(rows))]
    return [f"cell {row['cell']}" for row, limit in zip(rows, limits, strict=True) if row["kept"] > limit + small]


def test_training_leaves_what_is_counted(course):
    rows = [row for row in course if row["notebook"] == "03"]
    assert too_much(rows) == []
    after = left_by(course, "03", "trainer.train(")["kept"]
    assert after == pytest.approx(planned("weights", "Adam's two moments"), rel=0.03)
    assert left_by(course, "03", "reloaded =")["kept"] < 1.1 * planned("weights"), (
        "the trained model went before it was read again"
    )


def test_copies_on_the_card_would_be_noticed(edited):
    """The notebooks as they were: all weights before training, and the first gradient, are kept where they lie."""
    rows = edited("03", [('weight.detach().to("cpu", copy=True)', "weight.detach().clone()")])
    if not [row for row in rows if "reloaded =" in row["source"]]:
        rows.append(rows[-1] | {"source": "reloaded = None", "cell": 0, "kept": 0})  # it stopped where it compares the copies
    assert too_much(rows)
    edits = [
        ("{name: gradient.cpu() for", "{name: gradient.float() for"),
        ("one_by_one.pop(name).float()", "one_by_one[name].float().cpu()"),
    ]
    [row] = [row for row in edited("a1", edits) if "one_by_one" in row["source"]]
    assert row["kept"] > 1.5 * planned("weights")


@pytest.mark.parametrize("number", ["00", "01", "04", "05", "06", "07", "a3", "a4"])
def test_one_model_at_a_time_stays_on_the_card(course, number):
    """Python's collector is off here: what a cell does not let go itself counts."""
    kept = {row["cell"]: round(row["kept"] / planned("weights"), 2) for row in course if row["notebook"] == number}
    assert max(kept.values()) < 1.5, kept


CHECKS = """
import torch
import sentence_transformers
from off_cpu import NAME, insert_card

card = insert_card()
there, here = torch.ones(3, 4).to(NAME), torch.ones(3, 4)


def refused(work):
    try:
        work()
    except (RuntimeError, TypeError):
        return True
    return False


assert there.device.type == NAME and (there * 2).device == there.device and not there.is_cpu
assert there.cpu().device.type == "cpu" and there.to("cpu").numpy().shape == (3, 4)
assert torch.zeros(2, device=NAME).device.type == NAME and torch.zeros_like(there).device.type == NAME
assert refused(lambda: there + here) and refused(lambda: there @ here.T) and refused(lambda: torch.cat([there, here]))
assert refused(lambda: there.numpy()) and refused(lambda: here[torch.tensor([0]).to(NAME)])
assert not refused(lambda: there * torch.tensor(2.0)) and not refused(lambda: there[torch.tensor([0, 1])])
assert not refused(lambda: here.copy_(there))

layer = torch.nn.Linear(4, 2).to(NAME)
layer(there).sum().backward()
assert layer.weight.grad.device.type == NAME
optimizer = torch.optim.AdamW(layer.parameters())
optimizer.step()
assert optimizer.state[layer.weight]["exp_avg"].device.type == NAME

before = card.bytes_now
large = torch.ones(1000, 1000, device=NAME)
assert card.bytes_now - before == 4_000_000
del large
assert card.bytes_now == before and card.bytes_peak >= before + 4_000_000
"""


def test_the_device_refuses_what_a_card_refuses_and_counts_its_bytes():
    run = warm.run(["-c", CHECKS], env=os.environ, cwd=Path(__file__).parent)
    assert run.returncode == 0, run.stderr[-2000:]
