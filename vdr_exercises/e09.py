"""Exercises of notebook 09: the ceiling of one query, a shortlist sorted again, two scores added, and the k that pays."""

from __future__ import annotations

import math

import numpy
import torch

from vdr_exercises import NotYet, a_number, exercise, returned


@exercise("9.1")
def best_of_a_late_page(answer) -> str:
    """The NDCG@10 that a query has at best whose right page stands in sixth place, when the first five pages are sorted again."""
    best = a_number(answer)

    def near(value):
        return math.isclose(best, value, abs_tol=0.006)

    if near(1 / math.log2(7)):
        return ""
    if near(1):
        return "an oracle brings a page to the front that it is given; this one is not among the five"
    if near(0):
        return "it is not lost: what is not sorted again stays where it was"
    if near(1 / math.log2(6)):
        return "that is fifth place: the logarithm is of 1 + rank"
    if near(1 / 6):
        return "1 / rank is MRR; NDCG divides by the logarithm to base 2 of 1 + rank"
    if near(1 / math.log(7)):
        return "that is the natural logarithm; NDCG takes the one to base 2"
    return "in which place can the page stand afterwards, when the five before it are sorted among themselves?"


@exercise("9.2")
def sorted_again(answer) -> str:
    """``answer(page_ids, new_scores)``: all ids, the first ``len(new_scores)`` of them by falling score, the rest as they were.

    ``new_scores`` is a torch tensor.
    """
    cases = [
        (["a", "b", "c", "d", "e"], [0.1, 0.9, 0.5]),
        (["k", "l", "m", "n", "o", "p"], [-7.0, -3.5, -9.0, -1.2]),
        (["x", "y", "z"], [2.0, 0.5, 3.0]),
        (["u", "v"], []),
    ]
    for ids, scores in cases:
        given = returned(answer, list(ids), torch.tensor(scores))
        if isinstance(given, str):
            return "a list of page ids is asked for, and yours is one text"
        try:
            found = list(given)
        except TypeError:
            return f"a list of page ids is asked for, and the type of yours is {type(given).__name__}"
        k = len(scores)
        places = sorted(range(k), key=lambda i, scores=scores: -scores[i])
        rest, here = ids[k:], f"pages {ids} with the scores {scores} give {found}"
        if found == [ids[i] for i in places] + rest:
            continue
        if found == [ids[i] for i in places]:
            return f"{here}: what stood behind the first {k} is gone; it stays where it was, behind them"
        if found == [ids[i] for i in reversed(places)] + rest:
            return f"{here}: a high score is good, so the highest comes first"
        if found == [ids[places.index(i)] for i in range(k)] + rest:
            return f"{here}: that takes the place of each page for the page of each place; `argsort` gives the second"
        if found == ids:
            return f"{here}: nothing moved"
        if not all(isinstance(page, str) for page in found):
            return f"{here}: ids are asked for, not places or scores"
        if sorted(found) != sorted(ids):
            return f"{here}: every page once is asked for, none lost and none twice"
        return f"{here}, and {[ids[i] for i in places] + rest} is asked for"
    return ""


def _orders(values) -> numpy.ndarray:
    return numpy.argsort(-numpy.asarray(values, dtype=float), axis=1, kind="stable")


@exercise("9.3")
def add_two_scales(answer) -> str:
    """``answer(first, second, weight)``: scores of shape (queries, k), as the inputs, whose order weighs both whatever their scales.

    Any way is right whose order is that of ``first`` at weight 0 and that of ``second`` at weight 1, does not change when one of them is
    multiplied by a positive number or has one added, puts a page in front that is better in both, and takes notice of both in between.
    """
    generator = torch.Generator().manual_seed(4)
    first = 0.7 + 0.05 * torch.randn(30, 8, generator=generator)
    second = -7 + 2 * torch.randn(30, 8, generator=generator)
    first[:, 0] += 0.2  # the first stage is surer of its first page, so columns do not spread alike

    def found(one, other, weight):
        try:
            scores = numpy.asarray(returned(answer, one.clone(), other.clone(), weight), dtype=float)
        except (TypeError, ValueError) as error:
            raise NotYet(f"scores of the shape {tuple(first.shape)} are asked for ({error})") from None
        if scores.shape != tuple(first.shape):
            raise NotYet(f"scores of the shape {tuple(first.shape)} are asked for, yours have {scores.shape}")
        if not numpy.isfinite(scores).all():
            raise NotYet("some scores are no finite numbers: was a negative one put into a logarithm or a root?")
        return scores

    def same(scores, values):
        return numpy.array_equal(_orders(scores), _orders(values))

    at_first, at_second, between = (found(first, second, weight) for weight in (0, 1, 0.5))
    if same(at_first, second) and same(at_second, first):
        return "the weight is that of the second scores: at 0 the order is that of the first"
    for name, weight, scores, values in (("first", 0, at_first, first), ("second", 1, at_second, second)):
        if same(scores, values):
            continue
        here = f"at weight {weight} the order should be that of the {name} scores"
        if same(scores, -values):
            return f"{here}, and it is turned round: were they divided by a negative number? A mean or a largest score can be negative"
        if same(scores, values / values.std(dim=0)) or same(scores, (values - values.mean(dim=0)) / values.std(dim=0)):
            return f"{here}: a spread is that within a shortlist, `dim=1`; yours goes across queries, one for each place"
        return here
    large, small = found(first, 1000 * second, 0.5), found(first, 0.001 * second, 0.5)
    if not (same(large, between) and same(small, between)):
        decides = "whichever has the larger numbers decides" if same(large, second) else "the order changes"
        return f"with the second scores times 1,000 or a thousandth {decides}: divide each by its spread first"
    if not same(found(first, second + 50, 0.5), between):
        return "with 50 added to all second scores the order changes, though no page gained on another: divide by the spread, not by the size"
    better = (first[:, :, None] > first[:, None, :]) & (second[:, :, None] > second[:, None, :])
    if (better.numpy() & (between[:, :, None] <= between[:, None, :])).any():
        return "a page that is better in both scores does not stand in front"
    if same(between, first) or same(between, second):
        return "at weight 0.5 one of the two scores decides alone"
    return ""


@exercise("9.4")
def k_that_pays(answer) -> str:
    """``answer(runs, budget)``: the k with the largest gain among those more than noise and within ``budget`` ms; 0 where there is none.

    ``runs``: ``{k: (gain, low, high, ms)}``.
    """
    rising = {2: (0.010, 0.002, 0.018, 31.0), 3: (0.014, 0.003, 0.025, 45.0), 5: (0.022, 0.006, 0.038, 74.0)}
    rising[10] = (0.030, -0.004, 0.064, 150.0)
    peak = {2: (0.020, 0.010, 0.030, 31.0), 3: (0.018, 0.008, 0.028, 45.0), 5: (0.012, 0.002, 0.022, 74.0)}
    losses = {2: (-0.020, -0.030, -0.010, 31.0), 3: (-0.030, -0.050, -0.010, 45.0)}
    for runs, budget in ((rising, 200.0), (rising, 50.0), (rising, 74.0), (peak, 100.0), (losses, 100.0), (rising, 10.0)):
        if not callable(answer):
            raise NotYet(f"a function is asked for, and the type of yours is {type(answer).__name__}")
        given = answer(dict(runs), budget)
        pays = {k: gain for k, (gain, low, _, ms) in runs.items() if low > 0 and ms <= budget}
        expected = max(pays, key=pays.get, default=0)
        here = f"at most {budget:g} ms"

        def told(k, runs=runs):
            gain, low, high, ms = runs[k]
            return f"k = {k} ({gain:+.3f}, {low:+.3f} to {high:+.3f}, {ms:g} ms)"

        if given is None:
            return f"{here}: you return nothing; where no k pays, return 0, else the k"
        found = a_number(given)
        if found == expected:
            continue
        if found not in (0, *runs):
            return f"{here}: you say {found:g}, and that is no k"
        if expected and runs[expected][3] == budget:
            return f"{here}: you say {found:g}, and {told(expected)} gains more: it takes just the budget, which is allowed"
        if found == 0:
            return f"{here}: you say 0, and {told(expected)} pays"
        chosen, (_, low, high, ms) = told(int(found)), runs[int(found)]
        if ms > budget:
            return f"{here}: {chosen} takes too long"
        if high < 0:
            return f"{here}: {chosen} loses; an interval without zero can lie below it"
        if low <= 0:
            return f"{here}: {chosen} may be no gain, its interval holds zero"
        return f"{here}: {chosen} pays, and {told(expected)} gains more"
    return ""
