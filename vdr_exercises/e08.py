"""Exercises of notebook 08: queries of one page, a split by name, negatives, gain and loss."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import random

import numpy

from vdr_exercises import asks_for_a_function, exercise
from vdr_exercises.answers import NotYet, a_list, a_pair, a_truth_value, unlike


def query_page_pairs(value) -> list[tuple]:
    """Pairs of a query and a page in any order, each once; sorted."""
    try:
        return sorted({(query, page) for query, page in a_list(value)})
    except (TypeError, ValueError):
        raise NotYet(unlike("pairs such as [('Motor', 'winch#2')]", value)) from None


PAIRS = [
    ("Cleaning", "crane#2"),
    ("Cleaning", "crane#5"),
    ("Lamps", "crane#3"),
    ("Lamps", "crane#3"),
    ("Alarm codes", "oven#4"),
    ("ALARM CODES", "oven#7"),
    ("Motor", "winch#2"),
]


def pages_of(query, pairs, lower=str.lower) -> set[str]:
    return {page for other, page in pairs if lower(other) == lower(query)}


@asks_for_a_function(
    "8.1",
    inputs=lambda measured: [(PAIRS,), (measured,)],
    returns=query_page_pairs,
    mistakes={
        "'Lamps' stands on one page twice: count pages, not pairs": lambda pairs: [
            pair
            for pair in pairs
            if [query.lower() for query, _ in pairs].count(pair[0].lower()) == 1
        ],
        "'Alarm codes' and 'ALARM CODES' are one query to the person who types it": (
            lambda pairs: [pair for pair in pairs if len(pages_of(pair[0], pairs, str)) == 1]
        ),
        "'Cleaning' stands on two pages: leave the query out, not one of its pages": (
            lambda pairs: [pair for pair in pairs if pair[1] == min(pages_of(pair[0], pairs))]
        ),
    },
    otherwise="expected {expected}",
    another=lambda pairs: (pair for pair in pairs if len(pages_of(pair[0], pairs)) == 1),
)
def queries_of_one_page(pairs):
    """The (query, page) pairs whose query, in upper or lower case, stands on one page only."""
    pages: dict[str, set[str]] = {}
    for query, page in pairs:
        pages.setdefault(query.lower(), set()).add(page)
    return [(query, page) for query, page in pairs if len(pages[query.lower()]) == 1]


@contextlib.contextmanager
def another_start_of_python():
    """Inside, ``hash`` of a text is another number, as it is whenever Python starts anew."""
    usual = builtins.hash
    builtins.hash = lambda value: usual(("another start", value))
    try:
        yield
    finally:
        builtins.hash = usual


def is_third(document, share):
    number = int(hashlib.sha256(document.encode()).hexdigest(), 16)
    return "eval" if number % 3 == 0 else "train"


@exercise(
    "8.2",
    mistakes={
        "when Python starts anew": (
            lambda document, share: "eval" if hash(document) % 1000 < 1000 * share else "train"
        ),
        "when asked again": lambda document, share: "eval" if random.random() < share else "train",
        "spread evenly between 0 and 1": is_third,
    },
    another=lambda document, share: random.Random(document).choices(
        ["eval", "train"], weights=[share, 1 - share]
    )[0],
)
def side_that_stays(answer, documents) -> str:
    """``answer(document, share)``: "eval" for about ``share`` of all names, else "train".

    A name has its side for ever. ``documents`` are the reader's own names; the share is counted on
    2,000 made-up ones.
    """
    numbered = [f"manual_{number:04}.pdf" for number in range(2000)]
    for names, share in ((numbered, 1 / 3), (numbered, 0.1), (list(documents), 1 / 3)):
        sides = [answer(name, share) for name in names]
        for side in sides:
            if not isinstance(side, str) or side not in ("train", "eval"):
                return f"expected 'train' or 'eval', found {side!r}"
        if [answer(name, share) for name in reversed(names)] != sides[::-1]:
            return "documents change their side when asked again: only the name may decide"
        with another_start_of_python():
            if [answer(name, share) for name in names] != sides:
                return (
                    "documents change their side when Python starts anew: `hash` of a text "
                    "differs from start to start, `hashlib` does not"
                )
        found = sides.count("eval") / len(sides)
        if names is numbered and abs(found - share) > 0.05:
            return (
                f"{found:.0%} of 2,000 documents are in eval, expected {share:.0%}: make a number "
                "of the name that is spread evenly between 0 and 1, compare it with the share"
            )
    return ""


NEGATIVES = [
    (0.80, 0.60, False),
    (0.80, 0.78, False),
    (0.80, 0.75, False),
    (0.80, 0.90, False),
    (0.80, 0.60, True),
    (0.80, 0.90, True),
    (0.30, 0.27, False),
    (-0.20, -0.202, False),
    (-0.20, -0.25, False),
]


@asks_for_a_function(
    "8.3",
    inputs=lambda measured: [
        (float(positive), float(similarity), bool(same_document), 0.05)
        for positive, similarity, same_document in [*NEGATIVES, *measured]
        if abs(positive - 0.05 * abs(positive) - similarity) > 1e-6
    ],
    returns=a_truth_value,
    case=lambda positive, similarity, same_document, margin: (
        f"positive {positive:.3f}, negative {similarity:.3f} of "
        f"{'the same' if same_document else 'another'} document, margin {margin:.0%}"
    ),
    mistakes={
        "the margin is a share of the positive's similarity": (
            lambda positive, found, same, margin: found < positive - margin and not same
        ),
        "0.95 times a negative number lies above it: subtract the margin times its `abs`": (
            lambda positive, found, same, margin: found < (1 - margin) * positive and not same
        ),
        "a page of the same document may well answer too": (
            lambda positive, found, same, margin: found < positive - margin * abs(positive)
        ),
    },
    otherwise="expected {expected}: it may be used if it is clearly below and from elsewhere",
    another=lambda positive, found, same, margin: numpy.bool_(
        positive - found > margin * abs(positive) and not same
    ),
)
def negative_that_may_be_used(positive, similarity, same_document, margin):
    """Whether a mined negative may be trained on; ``measured`` are those of the notebook.

    It has to come from another document and to be less similar than the positive by more than
    ``margin`` times the magnitude of the positive's similarity.
    """
    return not same_document and similarity < positive - margin * abs(positive)


NEW, WRONG_SPLIT, OLD = "unseen documents", "wrong split", "old pages"


def interval(values) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean."""
    draws = numpy.random.default_rng(1).integers(0, len(values), size=(4000, len(values)))
    return tuple(numpy.percentile(values[draws].mean(axis=1), [2.5, 97.5]))


def made_gains(*tasks: tuple[float, float]) -> dict:
    """80 differences per task with just these means and standard deviations."""
    values = numpy.random.default_rng(0).normal(size=80)
    values = (values - values.mean()) / values.std()
    return {
        task: mean + spread * values
        for task, (mean, spread) in zip((NEW, WRONG_SPLIT, OLD), tasks, strict=True)
    }


GAINS = [
    made_gains((0.10, 0.02), (0.02, 0.3), (-0.05, 0.02)),
    made_gains((0.10, 0.30), (0.15, 0.3), (-0.03, 0.05)),
    made_gains((0.04, 0.35), (0.05, 0.35), (-0.01, 0.2)),
    made_gains((-0.10, 0.2), (0.10, 0.2), (0.05, 0.1)),
]


def is_clear(values) -> bool:
    """Whether no end of the interval is so near zero that another way to draw may cross it."""
    low, high = interval(values)
    return min(abs(low), abs(high)) > 0.1 * (high - low)


@asks_for_a_function(
    "8.4",
    inputs=lambda measured: [
        (gains,)
        for gains in [*GAINS, {task: numpy.array(values) for task, values in measured.items()}]
        if {NEW, OLD} <= set(gains) and is_clear(gains[NEW]) and is_clear(gains[OLD])
    ],
    returns=a_pair(a_truth_value, "whether there was a gain, then whether something was lost"),
    case=lambda gains: (
        f"unseen documents {gains[NEW].mean():+.3f} ± {gains[NEW].std():.2f}, "
        f"old pages {gains[OLD].mean():+.3f} ± {gains[OLD].std():.2f}"
    ),
    mistakes={
        "a mean above or below zero may be noise: look where its interval lies": (
            lambda gains: (gains[NEW].mean() > 0, gains[OLD].mean() < 0)
        ),
        "the gain that counts is on unseen documents, not on the wrong split": (
            lambda gains: (interval(gains[WRONG_SPLIT])[0] > 0, interval(gains[OLD])[1] < 0)
        ),
        "an interval of the mean is asked for; single queries vary far more": (
            lambda gains: (
                numpy.percentile(gains[NEW], 2.5) > 0,
                numpy.percentile(gains[OLD], 97.5) < 0,
            )
        ),
    },
    otherwise="expected {expected}: an interval above zero is a gain, one below zero a loss",
    another=lambda gains: [
        gains[NEW].mean() > 1.96 * gains[NEW].std() / len(gains[NEW]) ** 0.5,
        gains[OLD].mean() < -1.96 * gains[OLD].std() / len(gains[OLD]) ** 0.5,
    ],
)
def paid_and_forgot(gains):
    """Whether unseen documents gained and whether something was forgotten, both more than noise.

    ``gains``: ``{task: difference of each query}``. They gained where the interval of the mean over
    unseen documents lies above zero; the model forgot where that over old pages lies below.
    """
    return interval(gains[NEW])[0] > 0, interval(gains[OLD])[1] < 0


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 08."""
    from vdr_helpers import evaluation

    rng = numpy.random.default_rng(6)
    return {
        "hashlib": hashlib,
        "numpy": numpy,
        "evaluation": evaluation,
        "files": [f"{name}_crane.pdf" for name in ("alder", "basalt", "calder")],
        "phrases": [
            {"query": query, "id": f"crane#{page}"}
            for query, page in (("Lamps", 2), ("Code", 2), ("lamps", 3))
        ],
        "raw": {
            "positive": rng.uniform(-0.1, 0.8, 40),
            "similarity": rng.uniform(-0.1, 0.8, 40),
            "same document": rng.random(40) < 0.3,
        },
        "gains": {
            NEW: rng.normal(0.2, 0.2, 60),
            WRONG_SPLIT: rng.normal(0.3, 0.2, 60),
            OLD: rng.normal(-0.1, 0.2, 60),
        },
    }
