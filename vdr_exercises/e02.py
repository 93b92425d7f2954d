"""Exercises of notebook 02: usable negatives, copies of a positive, and a split by document."""

from __future__ import annotations

import random
from collections import Counter

from vdr_exercises import asks_for_a_function, exercise
from vdr_exercises.answers import a_pair, row_numbers


@asks_for_a_function(
    "2.1",
    inputs=[
        ("a3", "b7", {"c1"}),
        (None, "b7", {"c1"}),
        ("b7", "b7", {"c1"}),
        ("c1", "b7", {"c1", "d2"}),
        ("a3", "b7", set()),
    ],
    returns=bool,
    case=lambda page, own, taken: f"page {page!r}, own page {own!r}, taken {sorted(taken)}",
    mistakes={
        "`None` is the fingerprint of a page that does not open: it cannot be used": (
            lambda page, own, taken: page != own and page not in taken
        ),
        "a copy of the positive as its negative punishes the model for being right": (
            lambda page, own, taken: page is not None and page not in taken
        ),
        "a page that was taken already is not new": (
            lambda page, own, taken: page is not None and page != own
        ),
    },
    otherwise="a page is usable if it opens, is no copy of the own page and was not taken",
    another=lambda page, own, taken: page not in {None, own} | taken,
)
def three_conditions(page, own, taken):
    """Whether the page with this fingerprint may be a hard negative of the page ``own``."""
    return page is not None and page != own and page not in taken


ROWS = [
    ("a", ["b", "c"]),
    ("b", ["c", "b"]),  # a copy in second place
    (None, ["a", None]),  # two pages that do not open are not the same page
    ("d", []),
    ("e", ["e", "e"]),  # two copies, one row
    ("f", ["a", "b", None]),  # pages of other rows
]


@asks_for_a_function(
    "2.2",
    inputs=[(ROWS,)],
    returns=row_numbers,
    mistakes={
        "row 2 has `None` twice: two pages that do not open are not copies of each other": (
            lambda rows: [number for number, (own, others) in enumerate(rows) if own in others]
        ),
        "row 1 has its copy in second place: look at all negatives, not only at the first": (
            lambda rows: [number for number, (own, others) in enumerate(rows) if own in others[:1]]
        ),
    },
    otherwise="expected {expected}, each row once whose own page is among its negatives",
    another=lambda rows: {
        number
        for number, (own, others) in enumerate(rows)
        for other in others
        if own is not None and other == own
    },
)
def copies_among_negatives(rows):
    """The numbers of the rows, (own fingerprint, those of its negatives), that list a copy."""
    return [
        number for number, (own, others) in enumerate(rows) if own is not None and own in others
    ]


def cut_at_a_row(documents, share):
    cut = int((1 - share) * len(documents))
    return range(cut), range(cut, len(documents))


def documents_of_one_side(documents, share):
    chosen = sorted(set(documents))[: int(share * len(set(documents)))]
    return [], [number for number, name in enumerate(documents) if name in chosen]


def train_and_eval_exchanged(documents, share):
    train, evaluation = by_drawn_documents(documents, share)
    return evaluation, train


def by_drawn_documents(documents, share):
    names = sorted(set(documents))
    random.Random(3).shuffle(names)
    evaluation = []
    for name in names:
        rows = [number for number, other in enumerate(documents) if other == name]
        if len(evaluation) + len(rows) <= share * len(documents):
            evaluation += rows
    return [number for number in range(len(documents)) if number not in evaluation], evaluation


@exercise(
    "2.3",
    mistakes={
        "documents have pages on both sides": cut_at_a_row,
        "each row belongs to one side": documents_of_one_side,
        "train is returned first": train_and_eval_exchanged,
    },
    another=by_drawn_documents,
)
def split_that_keeps_documents_apart(answer) -> str:
    """``answer(documents, share)``: row numbers for train, then those for eval.

    No document is on both sides, and about ``share`` of the rows are in eval.
    """
    rng = random.Random(0)
    mixed = [f"report {number}" for number in range(30) for _ in range(rng.randint(1, 12))]
    rng.shuffle(mixed)  # the pages of a document do not stand together
    read = a_pair(row_numbers, "the row numbers of train, then those of eval")
    for documents, share in ((mixed, 0.2), (sorted(mixed), 0.1), (mixed, 0.4)):
        train, evaluation = read(answer(list(documents), share))
        if sorted(train + evaluation) != list(range(len(documents))):
            return (
                f"{len(documents)} rows, you return {len(train)} and {len(evaluation)} numbers: "
                "each row belongs to one side, and stands there once"
            )
        shared = {documents[row] for row in train} & {documents[row] for row in evaluation}
        if shared:
            return f"{len(shared)} documents have pages on both sides, {min(shared)!r} is one"
        largest = max(Counter(documents).values())
        if abs(len(evaluation) - share * len(documents)) > largest:
            return (
                f"eval has {len(evaluation)} of {len(documents)} rows, expected a share of "
                f"{share:g}, give or take one document; train is returned first, then eval"
            )
    return ""


def stand_ins() -> dict:
    """The exercises of notebook 02 read nothing of it."""
    return {}
