"""Exercises of appendix 3: a rank among fewer pages, what to encode again, ties and chance."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from vdr_exercises import asks_for_a_function, exercise
from vdr_exercises.answers import NotYet, a_number, a_pair, unlike

SCORES = torch.tensor([0.52, 0.81, 0.47, 0.66, 0.90, 0.33, 0.71, 0.58, 0.95, 0.20])


def parts_of_a_corpus(measured) -> list[tuple]:
    """Inputs of exercise a3.1; of the notebook's scores a page with others before and behind it."""
    measured = torch.as_tensor(measured).detach().float().cpu()
    middle = int(measured.argsort()[len(measured) // 2])
    return [
        (SCORES, 3, [0, 2, 3, 8, 9, 6]),
        (SCORES, 7, [1, 7, 9]),
        (SCORES, 5, list(range(10))),
        (measured, middle, sorted({*range(0, len(measured), 3), middle})),
    ]


@asks_for_a_function(
    "a3.1",
    inputs=parts_of_a_corpus,
    mistakes={
        "after the cut its number means another page: take the right page's score before": (
            lambda scores, right, kept: (scores[kept] > scores[kept][right]).sum() + 1
        ),
        "that is its rank among all pages; count only those that are kept": (
            lambda scores, right, kept: (scores > scores[right]).sum() + 1
        ),
        "a rank is counted from 1": lambda scores, right, kept: (
            scores[kept] > scores[right]
        ).sum(),
    },
    otherwise="expected {expected}, one more than the kept pages with a higher score",
    another=lambda scores, right, kept: (
        sorted(kept, key=scores.__getitem__, reverse=True).index(right) + 1
    ),
)
def rank_in_a_part(scores, right_page, kept):
    """The rank of ``right_page`` when only the pages ``kept`` are searched, itself one of them.

    ``scores``: a tensor, one score per page of the whole corpus; ``kept``: page numbers.
    """
    return (scores[kept] > scores[right_page]).sum() + 1


BOTH = {"queries", "pages"}
SIDES = {"queries": {"queries"}, "pages": {"pages"}, "both": BOTH, "nothing": set()}
SETTINGS = {
    "pages": ({"pages"}, "pages of another size are another input, and the queries stay"),
    "number format": (BOTH, "other weights make other vectors of queries and of pages"),
    "prompt": ({"queries"}, "the prompt stands in front of a query; no page has it"),
    "truncation": (set(), "a shorter vector is the beginning of one that is there"),
    "ties": (set(), "they are a matter of comparing vectors, which stay as they are"),
}
RIGHT = {setting: sides for setting, (sides, _) in SETTINGS.items()}


@exercise(
    "a3.2",
    mistakes={
        "of queries and of pages": RIGHT | {"number format": "pages"},
        "no page has it": RIGHT | {"prompt": "both"},
        "the beginning of one that is there": RIGHT | {"truncation": "both"},
    },
    another=RIGHT | {"number format": ("pages", "queries"), "ties": None},
)
def what_to_encode_again(answer) -> str:
    """A dictionary, each of `SETTINGS` to "queries", "pages", "both" or "nothing".

    A list or set of the two is taken too, and ``None`` for nothing.
    """
    if not isinstance(answer, Mapping):
        raise NotYet(unlike("a dictionary", answer))
    for setting, (right, why) in SETTINGS.items():
        if setting not in answer:
            return f"expected the keys {', '.join(SETTINGS)}, found {', '.join(map(str, answer))}"
        said = answer[setting]
        found = SIDES.get(said) if isinstance(said, str) else set(said or ())
        if found is None or not found <= BOTH:
            return f'{setting}: expected "queries", "pages", "both" or "nothing", found {said!r}'
        if found != right:
            return f"{setting}, you say {said!r}: {why}"
    return ""


TIED = torch.tensor([0.75, 0.50, 0.75, 0.25, 0.875, 0.75, 0.50])


@asks_for_a_function(
    "a3.3",
    inputs=lambda measured, right_page: [
        (TIED, 2),
        (TIED, 6),
        (TIED, 4),
        (torch.as_tensor(measured).detach().float().cpu(), right_page),
    ],
    returns=a_pair(a_number, "the rank with equal pages behind, then with them in front"),
    mistakes={
        "the rank with equal pages behind comes first, and is the better one": (
            lambda scores, right: (
                (scores >= scores[right]).sum(),
                (scores > scores[right]).sum() + 1,
            )
        ),
        "`>=` counts the right page itself too, so that there is nothing to add": (
            lambda scores, right: (
                (scores > scores[right]).sum() + 1,
                (scores >= scores[right]).sum() + 1,
            )
        ),
        "both are the same; where do the equal pages count?": lambda scores, right: (
            [(scores > scores[right]).sum() + 1] * 2
        ),
    },
    otherwise="expected {expected}",
    another=lambda scores, right: torch.stack(
        [(scores > scores[right]).sum() + 1, len(scores) - (scores < scores[right]).sum()]
    ),
)
def ranks_with_ties(scores, right_page):
    """The rank of page ``right_page`` with equal pages behind it, then with them in front of it."""
    return (scores > scores[right_page]).sum() + 1, (scores >= scores[right_page]).sum()


def gain(rank):
    """What a right page at ``rank`` adds to NDCG@10."""
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


@asks_for_a_function(
    "a3.4",
    inputs=[(1, 2), (1, 5), (4, 4), (8, 13), (11, 20)],
    tolerance=1e-4,
    mistakes={
        "that is the gain of the mean rank; take the mean of the gains": (
            lambda best, worst: gain((best + worst) / 2)
        ),
        "that is the mean of both ends; every place between them is as likely": (
            lambda best, worst: (gain(best) + gain(worst)) / 2
        ),
        "beyond the tenth place a page adds nothing": (
            lambda best, worst: mean(1 / math.log2(1 + rank) for rank in range(best, worst + 1))
        ),
    },
    otherwise="expected {expected}, the mean of the gains of all places, both ends included",
    another=lambda best, worst: sum(
        gain(rank) / (worst - best + 1) for rank in range(best, worst + 1)
    ),
)
def gain_left_to_chance(best, worst):
    """What a query adds to NDCG@10 on average, its rank any from ``best`` to ``worst``."""
    return mean(map(gain, range(best, worst + 1)))


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of appendix 3."""
    similarities = torch.rand(5, 40, generator=torch.Generator().manual_seed(0))
    return {
        "math": math,
        "similarities": {"base": similarities},
        "inexact": similarities.bfloat16(),
        "right_pages": [11, 12, 13, 14, 15],
    }
