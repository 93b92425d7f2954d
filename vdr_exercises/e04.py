"""Exercises of notebook 04: scores of queries, and how sure a number is."""

from __future__ import annotations

import math

import numpy

from vdr_exercises import asks_for_a_function, asks_for_a_number
from vdr_exercises.answers import a_number, a_pair


def gain(rank):
    """What a right page at ``rank`` adds to NDCG@10."""
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


@asks_for_a_number(
    "4.1",
    mistakes={
        "1 / rank is MRR; NDCG divides by a logarithm, which grows more slowly": 1 / 4,
        "that is third place: the logarithm is of 1 + rank": 1 / math.log2(4),
        "NDCG takes the logarithm to base 2, `math.log2`": 1 / math.log(5),
    },
    otherwise="1 / log2(1 + rank), with the rank counted from 1",
    another=math.log(2) / math.log(5),
    tolerance=0.005,
)
def fourth_place():
    """What a query adds whose right page stands in fourth place."""
    return gain(4)


@asks_for_a_function(
    "4.2",
    inputs=[(1, 2), (1, 5), (4, 2), (3, 12), (11, 40)],
    tolerance=0.005,
    mistakes={
        "divide by the largest sum that two pages can have": (
            lambda first, second: gain(first) + gain(second)
        ),
        "two pages cannot both be first, so the largest sum is not 2": (
            lambda first, second: (gain(first) + gain(second)) / 2
        ),
        "beyond the tenth place a page adds nothing": (
            lambda first, second: (
                (1 / math.log2(1 + first) + 1 / math.log2(1 + second)) / (gain(1) + gain(2))
            )
        ),
    },
    otherwise="expected {expected}: add both gains and divide by the largest sum possible",
    another=lambda *ranks: (
        numpy.isin(numpy.arange(1, 11), ranks) @ (1 / numpy.log2(numpy.arange(2, 12))) / 1.63093
    ),
)
def two_right_pages(first_rank, second_rank):
    """NDCG@10 of a query with two right pages at these ranks."""
    return (gain(first_rank) + gain(second_rank)) / (gain(1) + gain(2))


@asks_for_a_number(
    "4.3",
    mistakes=lambda queries: {
        "so many cost a little less than 0.01: round up": (0.01 * queries / (1 - gain(2))) // 1,
        "a page in second place still gives 0.63": 0.01 * queries,
        "0.5 is what MRR loses; NDCG@10 loses 1 - 1 / log2(3)": math.ceil(0.01 * queries / 0.5),
    },
    otherwise="one slip costs (1 - 1 / log2(3)) / number of queries; how many of them make 0.01?",
    another=next(slips for slips in range(300) if slips * (1 - gain(2)) / 300 >= 0.01),
)
def must_slip(queries):
    """How many of ``queries`` must go from first to second place to cost the mean 0.01."""
    return math.ceil(0.01 * queries / (1 - gain(2)))


def interval(values, seed=1):
    """The 95 % bootstrap interval of the mean."""
    draws = numpy.random.default_rng(seed).integers(0, len(values), size=(5000, len(values)))
    return tuple(numpy.percentile(values[draws].mean(axis=1), [2.5, 97.5]))


def interval_of_separate_draws(first, second):
    rng = numpy.random.default_rng(1)
    ones, others = rng.integers(0, len(first), size=(2, 5000, len(first)))
    return tuple(
        numpy.percentile(second[others].mean(axis=1) - first[ones].mean(axis=1), [2.5, 97.5])
    )


def within_a_quarter_error(found, expected, first, second):
    """Both ends as near as two bootstraps are: a quarter of the expected interval's error."""
    error = (expected[1] - expected[0]) / (2 * 1.96)
    return numpy.abs(numpy.subtract(found, expected)).max() < error / 4


EASY = numpy.random.default_rng(0).random(300)  # of each query, so both scores vary with it
CHANGE = 0.05 + numpy.random.default_rng(2).normal(scale=0.1, size=300)


@asks_for_a_function(
    "4.4",
    inputs=lambda first, second: [
        (before, after)
        for before, after in [(EASY, EASY + CHANGE), (numpy.array(first), numpy.array(second))]
        if (after - before).std() > 0
    ],
    returns=a_pair(a_number, "the low end, then the high end"),
    alike=within_a_quarter_error,
    mistakes={
        "that is first minus second: a gain should be positive": (
            lambda first, second: interval(first - second)
        ),
        "these are percentiles of single queries: draw queries, take the mean of each draw": (
            lambda first, second: tuple(numpy.percentile(second - first, [2.5, 97.5]))
        ),
        "that draws other queries for each model: subtract first, then draw": (
            interval_of_separate_draws
        ),
    },
    otherwise="expected about {expected}, the 2.5 and 97.5 percentiles of drawn means",
    another=lambda first, second: (
        (second - first).mean()
        + numpy.array([-1.96, 1.96]) * (second - first).std() / len(first) ** 0.5
    ),
)
def interval_of_a_difference(first, second):
    """The 95 % interval of the mean of ``second - first``, scores of the same queries."""
    return interval(second - first)


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 04."""
    rng = numpy.random.default_rng(5)
    base_scores = rng.choice([0.0, 0.5, 0.63, 1.0], size=300)
    improved = rng.choice([0.0, 1.0], size=300, p=[0.7, 0.3])
    return {
        "math": math,
        "numpy": numpy,
        "ndcg_at_10": gain,
        "queries": range(300),
        "base_scores": base_scores,
        "tuned_scores": numpy.maximum(base_scores, improved),
    }
