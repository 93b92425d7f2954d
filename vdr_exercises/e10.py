"""Exercises of notebook 10: MaxSim, padding in it, pooled neighbours, the bytes of a page, and a second stage."""

from __future__ import annotations

import math

import numpy
import torch

from vdr_exercises import NotYet, a_number, exercise, returned


def _unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _maxsim(query, page) -> float:
    return float((query @ page.T).max(dim=1).values.sum())


def _near(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-3, abs_tol=1e-3)


def _score(answer, *inputs) -> float:
    """The one number that the learner's MaxSim returns; `NotYet` with the usual slips of `max` named."""
    try:
        found = returned(answer, *inputs)
    except (AttributeError, TypeError) as error:
        if "return_types.max" in str(error):
            raise NotYet("with `dim`, `max` of torch returns values and places: take `.values`") from None
        raise
    if getattr(found, "shape", None) == inputs[0].shape[:1]:
        raise NotYet("that is the best similarity of each vector of the query: add them")
    return a_number(found)


@exercise("10.1")
def maxsim_of_two(answer, queries, pages) -> str:
    """``answer(query, page)``: MaxSim of two torch tensors with a vector a row, all of length 1."""
    opposite = _unit(1, 16, seed=3)
    far = torch.nn.functional.normalize(0.2 * _unit(6, 16, seed=4) - opposite, dim=1)  # every similarity is negative
    cases = [(_unit(4, 16, seed=1), _unit(9, 16, seed=2)), (opposite, far), *zip(queries, pages, strict=True)]
    for query, page in cases:
        similarities = query @ page.T
        found, expected = _score(answer, query.clone(), page.clone()), _maxsim(query, page)
        if _near(found, expected):
            continue
        here = f"{len(query)} vectors of a query and {len(page)} of a page give {found:.2f}"
        if _near(found, float(similarities.max(dim=0).values.sum())):
            return f"{here}: each vector of the page looked for the query's; it is the query's that look for the page's"
        if _near(found, expected / len(query)):
            return f"{here}: that is the mean; the best similarities are added"
        if _near(found, float(similarities.sum())):
            return f"{here}: all similarities were added; each vector of the query keeps its best one only"
        if _near(found, float(similarities.max())):
            return f"{here}: that is the best pair of all; each vector of the query has a best one"
        if _near(found, float(query.mean(dim=0) @ page.mean(dim=0))):
            return f"{here}: that is one vector a side again, the mean of each"
        if expected < 0 <= found:
            return f"{here}: the best similarity can be negative, here it is {expected:.2f}"
        return f"{here}, and it should be {expected:.2f}: for each vector of the query the best similarity with any of the page, added"
    return ""


@exercise("10.2")
def maxsim_without_padding(answer) -> str:
    """``answer(query, page, counts)``: MaxSim over the rows of ``page`` where ``counts`` (a boolean tensor) is true; the others are padding."""
    query, page, opposite = _unit(4, 16, seed=1), _unit(9, 16, seed=2), _unit(3, 16, seed=3)
    page[0] = torch.nn.functional.normalize(query[3] + 0.3 * page[0], dim=0)
    noisy = torch.cat([page[:6], query[:3]])  # three of the query's vectors find their best in the filling
    away = torch.nn.functional.normalize(0.2 * _unit(9, 16, seed=4) - opposite.mean(dim=0), dim=1)
    away[6:] = 0.0
    counts = torch.arange(9) < 6
    cases = [(query, noisy, counts), (opposite, away, counts), (query, page, torch.ones(9, dtype=torch.bool))]
    cases.append((query, noisy.flip(0), counts.flip(0)))  # filled on the left
    for one, other, keep in cases:
        found, expected = _score(answer, one.clone(), other.clone(), keep.clone()), _maxsim(one, other[keep])
        if _near(found, expected):
            continue
        here = f"{int(keep.sum())} vectors of {len(other)} count: you say {found:.2f}, and it is {expected:.2f}"
        if _near(found, float(((one @ other.T) * keep).max(dim=1).values.sum())):
            return (
                f"{here}: padding that was set to 0 wins where all others are negative: put minus infinity there, or leave it out"
            )
        if not keep[0] and _near(found, _maxsim(one, other[: int(keep.sum())])):
            return f"{here}: the padding can stand on the left too, so ask `counts`, not how many"
        if not keep.all() and _near(found, _maxsim(one, other[~keep])):
            return f"{here}: that is the padding alone; `counts` is true where a vector counts"
        if _near(found, _maxsim(one, other)):
            return f"{here}: the padding took part"
        return f"{here}: for each vector of the query the best similarity with a vector that counts, added"
    return ""


@exercise("10.3")
def pooled_neighbours(answer, page) -> str:
    """``answer(vectors, factor)``: the mean of each ``factor`` neighbouring rows, of length 1; what is left at the end is a group too."""
    for vectors, factor in ((_unit(12, 8, seed=5), 3), (_unit(10, 8, seed=6), 4), (_unit(3, 8, seed=7), 5), (page, 3)):
        groups = [vectors[start : start + factor] for start in range(0, len(vectors), factor)]
        means = torch.stack([group.mean(dim=0) for group in groups])
        expected = torch.nn.functional.normalize(means, dim=1)
        here = f"{len(vectors)} vectors, factor {factor}"
        try:
            given = returned(answer, vectors.clone(), factor)
            if isinstance(given, (list, tuple)) and given and all(isinstance(row, torch.Tensor) for row in given):
                given = torch.stack(list(given))
            found = torch.as_tensor(numpy.asarray(given, dtype=float))
        except (RuntimeError, TypeError, ValueError) as error:
            rest = f"{len(vectors) % factor} are left at the end, and are a group too; " if len(vectors) % factor else ""
            return f"{here}: {rest}this stops with {type(error).__name__}: {str(error).splitlines()[0]}"
        if found.shape != expected.shape:
            if len(found.shape) == 2 and len(found) == len(vectors) // factor != len(expected):
                return (
                    f"{here}: what is left at the end is gone; {len(vectors) % factor} vectors make a smaller group of their own"
                )
            return f"{here}: the shape {tuple(expected.shape)} is asked for, yours is {tuple(found.shape)}"
        found = found.to(expected.dtype)

        def near(other, found=found):
            return other.shape == found.shape and torch.allclose(found, other, atol=1e-3)

        if near(expected):
            continue
        if near(means) or near(torch.stack([group.sum(dim=0) for group in groups])):
            return f"{here}: the first has length {found[0].norm():.2f}; a mean is shorter than what it was made of, normalise it"
        if near(vectors[::factor]):
            return f"{here}: that keeps one vector of each group; the mean keeps something of all"
        apart = torch.stack([vectors[start :: len(expected)].mean(dim=0) for start in range(len(expected))])
        if near(apart) or near(torch.nn.functional.normalize(apart, dim=1)):
            return f"{here}: these groups lie scattered over the page; rows that stand side by side make a group"
        if near(torch.cat([expected[:-1], means[-1:]])) or near(torch.cat([expected[:-1], vectors[-1:]])):
            return f"{here}: the last group is not like the others: its mean, of length 1"
        return f"{here}: row 1 should be the mean of the first {len(groups[0])} vectors, normalised"
    return ""


@exercise("10.4")
def factor_within_bytes(answer) -> str:
    """``answer(vectors, numbers, bits, budget)``: the smallest whole pool factor with which a page takes at most ``budget`` bytes."""
    cases = ((56, 128, 16, 3584), (56, 128, 16, 4000), (750, 128, 8, 8192), (56, 128, 1, 256), (750, 128, 32, 40_960))
    for vectors, numbers, bits, budget in (*cases, (56, 128, 8, 20_000)):
        found, exact = a_number(returned(answer, vectors, numbers, bits, budget)), vectors * numbers * bits / 8 / budget
        if found == max(1, math.ceil(exact)):
            continue
        here = f"{vectors} vectors of {numbers} numbers in {bits} bits are {vectors * numbers * bits // 8:,} bytes, {budget:,} are allowed: you say {found:g}"
        if exact < 1:
            return f"{here}; the page fits as it is, and a factor is 1 or more"
        if found == math.ceil(8 * exact):
            return f"{here}; eight bits are a byte"
        if bits != 8 and found in (max(1, math.ceil(exact * 8 / bits)), max(1, math.ceil(exact * 32 / bits))):
            return f"{here}; a number takes {bits} bits here, whatever it takes elsewhere"
        if _near(found, exact):
            return f"{here}; a factor is a whole number here"
        if found == max(1, math.floor(exact)) or found == max(1, round(exact)):
            return f"{here}, and {vectors / found:.0f} vectors still take more: round up"
        if found == max(1, math.ceil(exact * 8 / bits / vectors)) or found == max(1, math.ceil(exact / vectors)):
            return f"{here}; that is one vector, a page has {vectors}"
        if found > exact:
            return f"{here}; {math.ceil(exact)} would do"
        return f"{here}, and with {math.ceil(exact)} it fits"
    return ""


@exercise("10.5")
def shortlist_rescored(answer, first_stage, second_stage) -> str:
    """``answer(first, rescore, k)``: page numbers, best first: the ``k`` best of ``first``, in the order of ``rescore(those numbers)``.

    ``first`` holds the first stage's score of every page (a torch tensor); ``rescore(numbers)`` computes MaxSim for the pages of these
    numbers. ``first_stage``, ``second_stage``: measured scores, a row per query.
    """
    made_up = [_unit(1, 40, seed=seed)[0] for seed in (8, 9)]
    for first, late, k in ((*made_up, 6), (*made_up, 40), *zip(first_stage[:3], second_stage[:3], [10] * 3, strict=False)):
        k = min(k, len(first))
        if len(set(first.tolist())) < len(first) or len(set(late.tolist())) < len(late):
            continue  # equal scores: more than one order is right
        read: list[int] = []

        def rescore(numbers, late=late, read=read):
            places = torch.as_tensor(numbers, dtype=torch.long).flatten()
            read.extend(places.tolist())
            return late[places]

        given = returned(answer, first.clone(), rescore, k)
        try:
            found = [int(number) for number in given]
        except (TypeError, ValueError):
            return f"a list of page numbers is asked for, and the type of yours is {type(given).__name__}"
        shortlist = first.topk(k).indices.tolist()
        order = sorted(range(k), key=lambda place, late=late, shortlist=shortlist: -float(late[shortlist[place]]))
        expected = [shortlist[place] for place in order]
        here = f"{len(first)} pages, k = {k}"
        if len(read) > k:
            return f"{here}: you had {len(read)} pages re-scored; only the first k of the first stage are, that is what it is for"
        if not read:
            return f"{here}: no page was re-scored: call `rescore` with the numbers of the shortlist"
        if found == expected:
            continue
        if found == shortlist:
            return f"{here}: that is still the order of the first stage"
        if found == order:
            return f"{here}: these are places on the shortlist; look up which pages stand there"
        if found == expected[::-1]:
            return f"{here}: a high score is good, so the highest comes first"
        if set(read) != set(shortlist):
            return f"{here}: the pages that you had re-scored are not the {k} best of the first stage"
        if len(found) != k:
            return f"{here}: you return {len(found)} pages; what is not among the first k is not found"
        return f"{here}: you begin with the pages {found[:3]}, and {expected[:3]} come first"
    return ""
