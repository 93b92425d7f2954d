"""Exercises of notebook 10: MaxSim, its padding, pooled vectors, bytes, and a second stage."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch.nn.functional import normalize

from vdr_exercises import asks_for_a_function, exercise
from vdr_exercises.answers import a_list, an_array


def unit_vectors(count: int, seed: int, dimensions: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dimensions, generator=generator), dim=1)


def maxsim(query, page):
    return (query @ page.T).max(dim=1).values.sum()


OPPOSITE = unit_vectors(1, seed=3)
FAR = normalize(0.2 * unit_vectors(9, seed=4) - OPPOSITE, dim=1)  # every similarity is negative


@asks_for_a_function(
    "10.1",
    inputs=lambda queries, pages: [
        (unit_vectors(4, seed=1), unit_vectors(9, seed=2)),
        (OPPOSITE, FAR),
        *zip(queries, pages, strict=True),
    ],
    tolerance=1e-3,
    mistakes={
        "each vector of the query looks for its best one of the page, not the other way round": (
            lambda query, page: (query @ page.T).max(dim=0).values.sum()
        ),
        "with `dim`, `max` returns values and places: take `.values`": (
            lambda query, page: (query @ page.T).max(dim=1).sum()
        ),
        "that is the mean; the best similarities are added": (
            lambda query, page: (query @ page.T).max(dim=1).values.mean()
        ),
    },
    otherwise="expected {expected}: for each vector of the query its best similarity, added",
    another=lambda query, page: sum(max(one @ other for other in page) for one in query),
)
def maxsim_of_two(query, page):
    """MaxSim of two tensors with a vector per row, all of length 1."""
    return maxsim(query, page)


QUERY = unit_vectors(4, seed=1)
PADDED = torch.cat([unit_vectors(6, seed=2), QUERY[:3]])  # padding that would be found
FAR_PADDED = torch.cat([FAR[:6], torch.zeros(3, 16)])
COUNTS = torch.arange(9) < 6


@asks_for_a_function(
    "10.2",
    inputs=[
        (QUERY, PADDED, COUNTS),
        (OPPOSITE, FAR_PADDED, COUNTS),
        (QUERY, FAR, torch.ones(9, dtype=torch.bool)),
        (QUERY, PADDED.flip(0), COUNTS.flip(0)),
    ],
    tolerance=1e-3,
    mistakes={
        "padding set to 0 wins where all others are negative: leave it out": (
            lambda query, page, counts: maxsim(query, page * counts[:, None])
        ),
        "the padding can stand on the left too, so ask `counts`, not how many": (
            lambda query, page, counts: maxsim(query, page[: counts.sum()])
        ),
        "the padding took part": lambda query, page, counts: maxsim(query, page),
    },
    otherwise="expected {expected}: for each vector of the query the best one that counts, added",
    another=lambda query, page, counts: (query @ page[counts].T).amax(dim=1).sum(),
)
def maxsim_without_padding(query, page, counts):
    """MaxSim over the rows of ``page`` at which ``counts`` is true; the others are padding."""
    return maxsim(query, page[counts])


@asks_for_a_function(
    "10.3",
    inputs=lambda page: [
        (unit_vectors(12, seed=5), 3),
        (unit_vectors(10, seed=6), 4),
        (unit_vectors(3, seed=7), 5),
        (page, 3),
    ],
    returns=an_array,
    tolerance=1e-3,
    mistakes={
        "a mean is shorter than what it was made of: normalise it": lambda vectors, factor: (
            torch.stack([group.mean(dim=0) for group in vectors.split(factor)])
        ),
        "what is left at the end makes a smaller group of its own": lambda vectors, factor: (
            normalize(vectors.unfold(0, factor, factor).mean(dim=2), dim=1)
        ),
    },
    otherwise="row 1 is the mean of the first rows side by side, normalised",
    another=lambda vectors, factor: [
        group.sum(dim=0) / group.sum(dim=0).norm() for group in vectors.split(factor)
    ],
)
def pooled_neighbours(vectors, factor):
    """The mean of each ``factor`` neighbouring rows, of length 1; the rest is a group too."""
    return normalize(torch.stack([group.mean(dim=0) for group in vectors.split(factor)]), dim=1)


@asks_for_a_function(
    "10.4",
    inputs=[
        (56, 128, 16, 3584),
        (56, 128, 16, 4000),
        (750, 128, 8, 8192),
        (56, 128, 1, 256),
        (750, 128, 32, 40_960),
        (56, 128, 8, 20_000),
    ],
    mistakes={
        "eight bits are a byte": lambda vectors, dimensions, bits, budget: max(
            1, math.ceil(vectors * dimensions * bits / budget)
        ),
        "the page still takes more bytes: round up": lambda vectors, dimensions, bits, budget: max(
            1, math.floor(vectors * dimensions * bits / 8 / budget)
        ),
    },
    otherwise="expected {expected}, a whole number; a page that fits as it is has a factor of 1",
    another=lambda vectors, dimensions, bits, budget: next(
        factor for factor in range(1, 999) if vectors * dimensions * bits <= 8 * budget * factor
    ),
)
def factor_within_bytes(vectors, dimensions, bits, budget):
    """The smallest whole pool factor with which a page takes at most ``budget`` bytes."""
    return math.ceil(vectors * dimensions * bits / 8 / budget)


def places_on_the_shortlist(first, rescore, k):
    return rescore(first.topk(k).indices).argsort(descending=True).tolist()


def all_pages_scored(first, rescore, k):
    return rescore(range(len(first))).topk(k).indices.tolist()


def order_of_the_first_stage(first, rescore, k):
    return first.topk(k).indices.tolist()


def one_page_at_a_time(first, rescore, k):
    shortlist = sorted(range(len(first)), key=lambda page: -first[page])[:k]
    return sorted(shortlist, key=lambda page: -rescore([page]))


@exercise(
    "10.5",
    mistakes={
        "look up which pages stand there": places_on_the_shortlist,
        "only the first k of the first stage are": all_pages_scored,
        "that is still the order of the first stage": order_of_the_first_stage,
    },
    another=one_page_at_a_time,
)
def shortlist_rescored(answer, first_stage, second_stage) -> str:
    """``answer(first, rescore, k)``: the ``k`` best pages of ``first``, in ``rescore``'s order.

    ``first`` holds the first stage's score of every page (a tensor); ``rescore(numbers)`` computes
    MaxSim for the pages of these numbers. ``first_stage`` and ``second_stage``: measured scores,
    a row per query.
    """
    made_up = (*(unit_vectors(1, seed, dimensions=40)[0] for seed in (8, 9)), 6)
    measured = zip(first_stage[:3], second_stage[:3], [10] * 3, strict=False)
    for first, late, k in (made_up, *measured):
        if len(first.unique()) < len(first) or len(late.unique()) < len(late):
            continue  # equal scores: more than one order is right
        scored: list[int] = []

        def rescore(numbers, late=late, scored=scored):
            places = torch.as_tensor(numbers, dtype=torch.long).flatten()
            scored.extend(places.tolist())
            return late[places]

        k = min(k, len(first))
        found = list(map(int, a_list(answer(first.clone(), rescore, k))))
        shortlist = first.topk(k).indices
        order = late[shortlist].argsort(descending=True)
        if len(scored) > k:
            return f"{len(scored)} pages were re-scored: only the first k of the first stage are"
        if found == shortlist.tolist():
            return "that is still the order of the first stage: sort by what `rescore` returns"
        if found == order.tolist():
            return "these are places on the shortlist; look up which pages stand there"
        if found != shortlist[order].tolist():
            return (
                f"{len(first)} pages, k = {k}: your first pages are {found[:3]}, "
                f"expected {shortlist[order][:3].tolist()}"
            )
    return ""


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 10."""
    singles = torch.randn(3, 30, 16, generator=torch.Generator().manual_seed(1))
    query_single, page_single, others = singles.unbind()
    return {
        "math": math,
        "torch": torch,
        "util": SimpleNamespace(
            cos_sim=lambda first, second: normalize(first, dim=1) @ normalize(second, dim=1).T
        ),
        "four_queries": [unit_vectors(count, seed=count) for count in (5, 7, 6, 4)],
        "four_pages": [unit_vectors(count, seed=count) for count in (20, 21, 22, 23)],
        "page_vectors": [unit_vectors(25, seed=25)],
        "query_single": query_single,
        "page_single": page_single,
        "similarities": others @ page_single.T,
    }
