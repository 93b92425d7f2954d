"""Notebooks 03 to 06 as three cards would run them, cell by cell: nothing is refused, and no cell needs more than the planner counts.

``fit_to_card`` decides for the real model on a card that is only pretended; then model and pages are small (``on_card.SMALL``), and the
planner's own terms are asked about what is really there.
"""

from pathlib import Path

import pytest
from cells import edited_sources
from on_card import SMALL, run_course

from tools.sizing import GIB, PAGE_SIZE, PAGE_TEXT_TOKENS, TINY, activation_bytes, image_tokens, state_terms

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
        ["02", *numbers], outputs, CARDS[card][0], **settings,
        VDR_PROFILE="full", VDR_MODEL=str(BASE), VDR_DATASET=str(source), VDR_ROWS=f"{ROWS}:2",
    )  # fmt: skip


@pytest.fixture(scope="module", params=CARDS)
def course(request, source, tmp_path_factory):
    """``(card, one row per cell that ran)``."""
    return request.param, run(request.param, source, tmp_path_factory.mktemp("card"), CARDS[request.param][3])


def planned(card: str) -> dict[str, float]:
    """The planner's terms in bytes, for the tiny architecture and the pages at hand."""
    _, lora, weights, _ = CARDS[card]
    terms = {term.name: term.gib * GIB for term in state_terms(TINY, ROWS, TOKENS, lora, weights)}
    pages = max(1, SMALL["mini_batch_num_tokens"] // (TOKENS + PAGE_TEXT_TOKENS))
    return terms | {"activations": pages * activation_bytes(TINY, TOKENS, lora, weights)}


def beyond(rows: list[dict], what: str, limit: float) -> list[str]:
    return [f"{row['notebook']}, code cell {row['cell']}: {row[what] / limit:.2f}" for row in rows if row[what] > limit]


def test_every_cell_runs(course):
    card, rows = course
    assert not [row["error"] for row in rows if row["error"]]
    assert len(rows) == sum(len(edited_sources(number)) for number in ("02", *CARDS[card][3]))


def test_the_card_trains_what_the_planner_says(course):
    """Adam's two moments lie on the card after training, for all weights or for the adapters, in the format of what is trained."""
    card, rows = course
    terms = planned(card)
    [after] = [row["kept"] for row in rows if "trainer.train(" in row["source"]]
    expected = terms["weights"] + terms.get("adapters", 0) + terms["Adam states"]
    assert after == pytest.approx(expected, rel=0.05)


def test_no_cell_that_computes_a_gradient_needs_more_than_the_planner_counts(course):
    card, rows = course
    assert beyond([row for row in rows if row["notebook"] in ("03", "a1")], "peak", sum(planned(card).values())) == []


def test_one_model_is_kept_and_never_more_than_two_are_loaded(course):
    card, rows = course
    terms = planned(card)
    model, small = terms["weights"] + terms.get("adapters", 0), terms["pixels of a batch"]
    later = [row for row in rows if row["notebook"] in ("04", "05", "06", "a3")]
    assert beyond(later, "kept", model + small) == []
    assert beyond([row for row in later if row["notebook"] in ("04", "05", "a3")], "kept", small) == [], (
        "04, 05 and a3 keep no model"
    )


# What the notebook had before, and what it would cost: bytes that the planner does not count.
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
def test_a_copy_that_the_planner_does_not_count_is_found(source, tmp_path, copy):
    number, edits = COPIES[copy]
    rows = run("A100", source, tmp_path, [number], changes={number: {"edits": edits}})
    assert beyond(rows, "peak", sum(planned("A100").values()))
