"""Notebooks 03 to 06 as three GPUs would run them, cell by cell: nothing is refused, and no cell needs more than the table counts.

``fit_to_gpu`` decides for the real model on a GPU that is only pretended; then model and pages are small (``on_card.SMALL``), and the
terms of ``tools.gpu_memory`` are compared with what is really there.
"""

import shutil
from functools import cache
from pathlib import Path

import pytest
from cells import edited_sources
from on_card import SMALL, run_course

from tiny_vdr.model import TINY
from tools.gpu_memory import PAGE_SIZE, TEXT_TOKENS, image_tokens, memory
from vdr_helpers.gpu import GIB

pytestmark = pytest.mark.slow

CARDS = {  # name, compute capability, GiB; what the planner lets it train, in which format; the notebooks that are run
    "A100": (("NVIDIA A100-SXM4-80GB", (8, 0), 79.0), False, "bfloat16", ("03", "04", "05", "06", "a1", "a3")),
    "T4": (("Tesla T4", (7, 5), 14.6), True, "float16", ("03", "04", "05", "06", "a3")),
    "RTX 8000": (("Quadro RTX 8000", (7, 5), 47.5), False, "float32", ("03", "a1")),
}
ROWS = 16
BASE = Path(__file__).parents[1] / "assets" / "tiny-base"
TOKENS = image_tokens(*PAGE_SIZE, SMALL["max_pixels"])


def run(card: str, source, outputs, numbers, **settings) -> list[dict]:
    return run_course(
        numbers, outputs, CARDS[card][0], **settings,
        VDR_PROFILE="full", VDR_MODEL=str(BASE), VDR_DATASET=str(source), VDR_ROWS=f"{ROWS}:2",
    )  # fmt: skip


@pytest.fixture(scope="module")
def courses(source, tmp_path_factory):
    """``courses(card)``: ``(outputs folder, one row per cell that ran)``; each card's course runs once, when it is first asked for."""

    @cache
    def course_of(card: str):
        outputs = tmp_path_factory.mktemp("card")
        return outputs, run(card, source, outputs, ["02", *CARDS[card][3]])

    return course_of


@pytest.fixture(params=CARDS)
def course(request, courses):
    """``(card, one row per cell that ran)``."""
    return request.param, courses(request.param)[1]


def planned(card: str) -> dict[str, float]:
    """The table's terms in bytes, for the tiny architecture and the pages at hand; CUDA's own share is left out."""
    _, lora, weights, _ = CARDS[card]
    pages = max(1, SMALL["mini_batch_num_tokens"] // (TOKENS + TEXT_TOKENS))
    terms = memory(TINY, "LoRA" if lora else "all weights", weights, pages, rows=ROWS, tokens=TOKENS)
    return {name: gib * GIB for name, gib in terms.items() if name != "CUDA (assumed)"}


def beyond(rows: list[dict], what: str, limit: float) -> list[str]:
    return [f"{row['notebook']}, code cell {row['cell']}: {row[what] / limit:.2f}" for row in rows if row[what] > limit]


def test_every_cell_runs(course):
    card, rows = course
    assert not [row["error"] for row in rows if row["error"]]
    assert len(rows) == sum(len(edited_sources(number)) for number in ("02", *CARDS[card][3]))


def test_the_gpu_trains_what_the_table_says(course):
    """Adam's two moments lie on the card after training, for all weights or for the adapters, in the format of what is trained."""
    card, rows = course
    terms = planned(card)
    [after] = [row["kept"] for row in rows if "trainer.train(" in row["source"]]
    expected = terms["weights"] + terms["Adam's two moments"]
    assert after == pytest.approx(expected, rel=0.05)


def test_no_cell_that_computes_a_gradient_needs_more_than_the_table_counts(course):
    card, rows = course
    assert beyond([row for row in rows if row["notebook"] in ("03", "a1")], "peak", sum(planned(card).values())) == []


def test_one_model_is_kept_and_never_more_than_two_are_loaded(course):
    card, rows = course
    terms = planned(card)
    model, small = terms["weights"], terms["pixels of a batch"]
    later = [row for row in rows if row["notebook"] in ("04", "05", "06", "a3")]
    assert beyond(later, "kept", model + small) == []
    assert beyond([row for row in later if row["notebook"] in ("04", "05", "a3")], "kept", small) == [], (
        "04, 05 and a3 keep no model"
    )


# What the notebook had before, and what it would cost: bytes that the table does not count.
COPIES = {
    "all weights before training": ("03", [('weight.detach().to("cpu", copy=True)', "weight.detach().clone()")]),
    "two gradients in float32": ("a1", [
        ("gradient.cpu() for", "gradient.float() for"),
        ("expected = one_by_one.pop(name).float()", "gradient = gradient.float(); expected = one_by_one[name]; kept.append(gradient)"),
        ("squares = torch.zeros(2", "kept = []; squares = torch.zeros(2"),
        ("torch.tensor([(gradient.cpu().float() - expected)", "torch.tensor([(gradient - expected)"),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_that_the_table_does_not_count_is_found(courses, source, tmp_path, copy):
    number, edits = COPIES[copy]
    shutil.copytree(courses("A100")[0] / "full" / "data", tmp_path / "full" / "data")
    rows = run("A100", source, tmp_path, [number], changes={number: {"edits": edits}})
    assert beyond(rows, "peak", sum(planned("A100").values()))
