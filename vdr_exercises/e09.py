"""Exercises of notebook 09: one query's ceiling, sorting again, adding scores, the k that pays."""

from __future__ import annotations

import math

import numpy
import torch

from vdr_exercises import asks_for_a_function, asks_for_a_number, exercise
from vdr_exercises.answers import NotYet, a_list, an_array


@asks_for_a_number(
    "9.1",
    mistakes={
        "sorting again brings a page to the front that is on the list; this one is not": 1,
        "it is not lost: what is not sorted again stays where it was": 0,
        "that is fifth place: the logarithm is of 1 + rank": 1 / math.log2(6),
    },
    otherwise="in which place is the page, when the five before it are sorted among themselves?",
    another=math.log(2) / math.log(7),
    tolerance=0.006,
)
def best_of_a_late_page():
    """The NDCG@10 of a query whose right page is sixth, when the first five are sorted again."""
    return 1 / math.log2(7)


@asks_for_a_function(
    "9.2",
    inputs=[
        (["a", "b", "c", "d", "e"], torch.tensor([0.1, 0.9, 0.5])),
        (["k", "l", "m", "n", "o", "p"], torch.tensor([-7.0, -3.5, -9.0, -1.2])),
        (["x", "y", "z"], torch.tensor([2.0, 0.5, 3.0])),
        (["u", "v"], torch.tensor([])),
    ],
    returns=a_list,
    mistakes={
        "what stood behind the sorted pages is gone; it stays where it was": (
            lambda page_ids, scores: [page_ids[i] for i in scores.argsort(descending=True)]
        ),
        "a high score is good, so the highest comes first": (
            lambda page_ids, scores: [
                *(page_ids[i] for i in scores.argsort()),
                *page_ids[len(scores) :],
            ]
        ),
        "these are the pages' places; `argsort` once says which page is in a place": (
            lambda page_ids, scores: [
                *(page_ids[i] for i in scores.argsort(descending=True).argsort()),
                *page_ids[len(scores) :],
            ]
        ),
    },
    otherwise="expected {expected}",
    another=lambda page_ids, scores: (
        *sorted(page_ids[: len(scores)], key=lambda page: -scores[page_ids.index(page)]),
        *page_ids[len(scores) :],
    ),
)
def sorted_again(page_ids, new_scores):
    """All ids: the first of them by falling ``new_scores``, a tensor, the others as they were."""
    best_first = [page_ids[i] for i in new_scores.argsort(descending=True)]
    return best_first + page_ids[len(new_scores) :]


def same_order(scores, others) -> bool:
    return bool((scores.argsort(dim=1, stable=True) == others.argsort(dim=1, stable=True)).all())


@exercise(
    "9.3",
    mistakes={
        "divide each by its spread": lambda first, second, weight: (
            (1 - weight) * first + weight * second
        ),
        "divide by the spread, not by the size": lambda first, second, weight: (
            (1 - weight) * first / first.abs().max() + weight * second / second.abs().max()
        ),
        "at weight 1": lambda first, second, weight: (
            (1 - weight) * first / first.mean() + weight * second / second.mean()
        ),
    },
    another=lambda first, second, weight: (
        (1 - weight) * first.argsort(dim=1).argsort(dim=1)
        + 1.01 * weight * second.argsort(dim=1).argsort(dim=1)
    ),
)
def add_two_scales(answer) -> str:
    """``answer(first, second, weight)``: scores (queries, k) that weigh both on any scales.

    Any way is right whose order is that of ``first`` at weight 0 and that of ``second`` at weight
    1, does not change when one of them is multiplied by a positive number or has one added, and
    puts a page in front that is better in both.
    """
    generator = torch.Generator().manual_seed(4)
    first = 0.7 + 0.05 * torch.randn(30, 8, generator=generator)
    second = -7 + 2 * torch.randn(30, 8, generator=generator)
    first[:, 0] += 0.2  # so that scores spread differently within and across queries

    def added(second, weight):
        scores = torch.from_numpy(an_array(answer(first.clone(), second.clone(), weight)))
        if scores.shape != first.shape:
            raise NotYet(f"the shape is {tuple(scores.shape)}, expected {tuple(first.shape)}")
        return scores

    for weight, scores in ((0, first), (1, second)):
        if not same_order(added(second, weight), scores):
            return (
                f"at weight {weight} the order is not that of the {'second' if weight else 'first'}"
                " scores: does each query have its own spread, and is it positive?"
            )
    between = added(second, 0.5)
    if not (same_order(added(1000 * second, 0.5), between)):
        return "with the second scores times 1,000 the order changes: divide each by its spread"
    if not same_order(added(second + 50, 0.5), between):
        return (
            "with 50 added to all second scores the order changes: "
            "divide by the spread, not by the size"
        )
    better = (first[:, :, None] > first[:, None]) & (second[:, :, None] > second[:, None])
    in_front = between[:, :, None] > between[:, None]
    if same_order(between, first) or same_order(between, second) or (better & ~in_front).any():
        return "at weight 0.5 both scores count, and a page that is better in both is in front"
    return ""


RISING = {
    2: (0.010, 0.002, 0.018, 31.0),
    3: (0.014, 0.003, 0.025, 45.0),
    5: (0.022, 0.006, 0.038, 74.0),
    10: (0.030, -0.004, 0.064, 150.0),
}
PEAK = {
    2: (0.020, 0.010, 0.030, 31.0),
    3: (0.018, 0.008, 0.028, 45.0),
    5: (0.012, 0.002, 0.022, 74.0),
}
LOSSES = {2: (-0.020, -0.030, -0.010, 31.0), 3: (-0.030, -0.050, -0.010, 45.0)}


def largest_gain(runs, usable) -> int:
    """The k with the largest gain among those whose run is ``usable(low, ms)``, else 0."""
    gains = {k: gain for k, (gain, low, _, ms) in runs.items() if usable(low, ms)}
    return max(gains, key=gains.get, default=0)


@asks_for_a_function(
    "9.4",
    inputs=[
        (RISING, 200.0),
        (RISING, 50.0),
        (RISING, 74.0),
        (PEAK, 100.0),
        (LOSSES, 100.0),
        (RISING, 10.0),
    ],
    case=lambda runs, budget: f"at most {budget:g} ms",
    mistakes={
        "its interval holds zero, so that it may be no gain": (
            lambda runs, budget: largest_gain(runs, lambda low, ms: ms <= budget)
        ),
        "it takes too long": lambda runs, budget: largest_gain(runs, lambda low, ms: low > 0),
        "a smaller k gains more": lambda runs, budget: max(
            [k for k, (_, low, _, ms) in runs.items() if low > 0 and ms <= budget], default=0
        ),
    },
    otherwise="expected {expected}: the budget itself is allowed, and where no k pays it is 0",
    another=lambda runs, budget: max(
        [(gain, k) for k, (gain, low, _, ms) in runs.items() if low > 0 and ms <= budget],
        default=(0, 0),
    )[1],
)
def k_that_pays(runs, budget):
    """The k with the largest gain among those more than noise and within ``budget`` ms, else 0.

    ``runs``: ``{k: (gain, low, high, ms)}``.
    """
    return largest_gain(runs, lambda low, ms: low > 0 and ms <= budget)


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 09."""
    from vdr_helpers import evaluation

    return {"math": math, "numpy": numpy, "torch": torch, "evaluation": evaluation}
