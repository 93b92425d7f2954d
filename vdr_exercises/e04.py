"""Exercises of notebook 04: scores of queries, and how sure a number is."""

from __future__ import annotations

import math

import numpy

from vdr_exercises import a_number, exercise, returned, two


def _gain(rank: int) -> float:
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


def _near(value: float, expected: float, apart: float = 0.005) -> bool:
    return math.isclose(value, expected, abs_tol=apart)


@exercise("4.1")
def fourth_place(answer) -> str:
    """What a query adds whose right page stands in fourth place: ``1 / log2(1 + 4)``."""
    gain = a_number(answer)
    if _near(gain, 1 / 4):
        return "1 / rank is MRR; NDCG divides by a logarithm, which grows more slowly"
    if _near(gain, 1 / math.log2(4)):
        return "that is third place: the logarithm is of 1 + rank, and the rank is 4"
    if _near(gain, 1 / math.log(5)):
        return "that is the natural logarithm; NDCG takes the one to base 2, `math.log2`"
    return "" if _near(gain, _gain(4)) else "1 / log2(1 + rank), with the rank counted from 1"


@exercise("4.2")
def two_right_pages(answer) -> str:
    """NDCG@10 of a query with two relevant pages at the given ranks: the sum of both gains through that of ranks 1 and 2."""
    best = _gain(1) + _gain(2)
    for ranks in ((1, 2), (1, 5), (4, 2), (3, 12), (11, 40)):
        value = a_number(returned(answer, *ranks))
        gains = [_gain(rank) for rank in ranks]
        if _near(value, sum(gains) / best):
            continue
        here = f"ranks {ranks[0]} and {ranks[1]} give {value:.2f}"
        if _near(value, sum(gains)):
            return f"{here}: divide by the largest sum that two pages can have, so that the best ranking has 1"
        if _near(value, sum(gains) / 2):
            return f"{here}: two pages cannot both be first, so the largest sum is 1 + 1 / log2(3), not 2"
        if _near(value, max(gains)):
            return f"{here}: that is the better page alone; both are relevant, so both add their gain"
        if _near(value, sum(1 / math.log2(1 + rank) for rank in ranks) / best):
            return f"{here}: beyond the tenth place a page adds nothing"
        return f"{here}, and should give {sum(gains) / best:.2f}: add both gains, divide by the largest sum possible"
    return ""


@exercise("4.3")
def must_slip(answer, queries: int) -> str:
    """How many of ``queries`` must go from first to second place until the mean has lost 0.01: a whole number."""
    count, each = a_number(answer), 1 - _gain(2)
    exact = 0.01 * queries / each
    if count == math.ceil(exact):
        return ""
    if _near(count, 0.01 / each):
        return f"that would be so for one query; the score is the mean of {queries}"
    if _near(count, 0.01 * queries):
        return "that many would have to drop out of the first ten; second place still gives 0.63"
    if count == math.ceil(0.01 * queries / 0.5):
        return "0.5 is what MRR loses; NDCG@10 loses 1 - 1 / log2(3)"
    if _near(count, exact, 0.05) or count == math.floor(exact):
        return f"{math.floor(exact)} queries cost {math.floor(exact) * each / queries:.4f}, still less than 0.01: round up"
    return "one slip costs the mean (1 - 1 / log2(3)) / number of queries; how many of those make 0.01?"


def _bootstrap(values, spread: float = 95) -> tuple[float, float]:
    draws = numpy.random.default_rng(1).integers(0, len(values), size=(10_000, len(values)))
    return tuple(numpy.percentile(values[draws].mean(axis=1), [50 - spread / 2, 50 + spread / 2]))


@exercise("4.4")
def interval_of_a_difference(answer, first, second) -> str:
    """The 95 % bootstrap interval of the mean of ``second - first``, whose entries belong to the same queries."""
    rng = numpy.random.default_rng(0)
    easy = rng.random(300)  # both models find the same queries easy, so each varies far more than their difference
    made_up = easy, easy + 0.05 + rng.normal(scale=0.1, size=300)
    for before, after in (made_up, (numpy.array(first, dtype=float), numpy.array(second, dtype=float))):
        low, high = map(a_number, two(returned(answer, before.copy(), after.copy()), "the low end, then the high end"))
        change = after - before
        error = change.std() / len(change) ** 0.5
        if error == 0:
            continue

        def is_like(ends, low=low, high=high, error=error):
            return abs(low - ends[0]) < 0.25 * error and abs(high - ends[1]) < 0.25 * error

        expected = _bootstrap(change)
        if is_like(expected):
            continue
        backwards = _bootstrap(-change)
        if is_like(backwards):
            return "that is first minus second: a gain should be positive"
        if is_like(backwards[::-1]) or is_like(expected[::-1]):
            return "the low end comes first"
        if is_like(_bootstrap(change, 90)):
            return "that holds 90 %: leave out 2.5 % at each end, not 5 %"
        if is_like(numpy.percentile(change, [2.5, 97.5])):
            return "these are percentiles of single queries: draw as many queries again and again, take the mean of each draw"
        apart = (before.var() / len(before) + after.var() / len(after)) ** 0.5
        if apart > 1.2 * error and abs((high - low) / (2 * 1.96 * apart) - 1) < 0.1:
            return (
                "that draws other queries for each model: subtract query by query first, then draw (the models saw the same ones)"
            )
        if high - low < 0.1 * error:
            return "the mean hardly moves: draw with replacement, as many queries as there are"
        return f"({low:.3f}, {high:.3f}) is not near ({expected[0]:.3f}, {expected[1]:.3f}), the 2.5 and 97.5 percentiles of drawn means"
    return ""
