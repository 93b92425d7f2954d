"""Exercises of appendix 4: pages in train and eval, near copies, their limit, covered patches."""

from __future__ import annotations

import numpy

from vdr_exercises import asks_for_a_function
from vdr_exercises.answers import NotYet, a_list, a_number_or_none, an_array, row_numbers, unlike

EVAL_PAGES = ["a", "b", "c", "d", "e", "f"]


@asks_for_a_function(
    "a4.1",
    inputs=[
        (EVAL_PAGES, [["x", "c", None], ["e", "y", "e"], ["z", "c", "w"]]),
        (EVAL_PAGES, [["x", "y"], ["z", None]]),
        (["p", "q", "p"], [["r", "p"]]),  # one page under two ids
    ],
    returns=row_numbers,
    mistakes={
        "the model has seen the hard negatives of train too, so look at all columns": (
            lambda eval_pages, train_rows: [
                number
                for number, page in enumerate(eval_pages)
                if page in [row[0] for row in train_rows]
            ]
        ),
        "a page stands there twice": lambda eval_pages, train_rows: [
            number for number, page in enumerate(eval_pages) for row in train_rows if page in row
        ],
    },
    otherwise="expected {expected}",
    another=lambda eval_pages, train_rows: numpy.flatnonzero(
        numpy.isin(eval_pages, [str(page) for row in train_rows for page in row])
    ),
)
def pages_in_both(eval_pages, train_rows):
    """The numbers of the eval pages that stand anywhere in train.

    ``train_rows``: for each row its page and its hard negatives, a name per content, ``None`` for a
    page that does not open.
    """
    trained_on = {page for row in train_rows for page in row}
    return [number for number, page in enumerate(eval_pages) if page in trained_on]


def bits_apart(some, others):
    return (some @ (1 - others).T + (1 - some) @ others.T).astype(int)


def page_pairs(value) -> list[tuple[int, int]]:
    """Pairs of page numbers, in any order; sorted."""
    try:
        return sorted(tuple(sorted((int(first), int(second)))) for first, second in a_list(value))
    except (TypeError, ValueError):
        raise NotYet(unlike("pairs of page numbers such as [(0, 3)]", value)) from None


def codes_with_copies():
    """Seven codes of 64 bits: 0 and 4 are three bits apart, 1 and 5 four."""
    codes = numpy.random.default_rng(0).integers(0, 2, size=(7, 64)).astype("float32")
    for page, copied, bits in ((4, 0, 3), (5, 1, 4)):
        codes[page] = codes[copied]
        codes[page, :bits] = 1 - codes[page, :bits]
    return codes


def as_pairs(is_near):
    return list(zip(*numpy.nonzero(is_near), strict=True))


@asks_for_a_function(
    "a4.2",
    inputs=[(codes_with_copies(), limit) for limit in (3, 4, 2)],
    returns=page_pairs,
    mistakes={
        "each pair is asked for once, and no page with itself": (
            lambda codes, limit: as_pairs(bits_apart(codes, codes) <= limit)
        ),
        "codes that differ in exactly this many bits are near enough": (
            lambda codes, limit: as_pairs(numpy.triu(bits_apart(codes, codes) < limit, 1))
        ),
    },
    otherwise="expected {expected}",
    another=lambda codes, limit: {
        (second, first)
        for second in range(len(codes))
        for first in range(second)
        if (codes[first] != codes[second]).sum() <= limit
    },
)
def pairs_of_copies(codes, limit):
    """The pairs of pages whose codes differ in at most ``limit`` bits, each pair once.

    ``codes``: (pages, bits), zeros and ones as floats, as the notebook's ``hashes`` makes them.
    """
    return as_pairs(numpy.triu(bits_apart(codes, codes) <= limit, 1))


def takes_all_copies_and_no_other(limit, same, different) -> bool:
    if limit is None:
        return max(same) >= min(different)
    return max(same) <= limit < min(different)


@asks_for_a_function(
    "a4.3",
    inputs=[
        (numpy.array([0, 2, 4, 3, 6]), numpy.array([30, 12, 41, 26])),
        (numpy.array([3, 1]), numpy.array([4, 9])),
        (numpy.array([0, 2, 14]), numpy.array([38, 10, 12])),
        (numpy.array([2, 5]), numpy.array([5, 20])),
    ],
    returns=a_number_or_none,
    is_right=takes_all_copies_and_no_other,
    mistakes={
        "a pair that differs in exactly the limit counts as the same": (
            lambda same, different: different.min()
        ),
        "no limit does both here, some copy is further off than a different page: return `None`": (
            lambda same, different: same.max()
        ),
        "the furthest of the copies decides, not the usual one": (
            lambda same, different: same.mean()
        ),
    },
    otherwise="expected {expected}, or another that takes all of same and none of different",
    another=lambda same, different: next(
        (limit for limit in range(256, -1, -1) if same.max() <= limit < different.min()), None
    ),
)
def limit_without_alarms(same, different):
    """A limit that takes all altered copies for the same and no other pair, else ``None``.

    ``same``: bits between pages and their altered copies; ``different``: bits between different
    pages. A pair counts as the same when it differs in at most ``limit`` bits.
    """
    return same.max() if same.max() < different.min() else None


def covered_pages() -> list[tuple]:
    """Inputs of exercise a4.4: query, whole page, covered pages, columns; of various lengths."""
    rng = numpy.random.default_rng(0)
    cases = []
    for rows, columns in ((3, 2), (2, 5)):
        query = rng.normal(size=16)
        whole = 3 * (query + rng.normal(size=16))
        cases.append((query, whole, whole + rng.normal(size=(rows * columns, 16)), columns))
    return cases


def cosine(query, vectors):
    return vectors @ query / numpy.linalg.norm(query) / numpy.linalg.norm(vectors, axis=-1)


@asks_for_a_function(
    "a4.4",
    inputs=covered_pages(),
    returns=an_array,
    tolerance=1e-4,
    mistakes={
        "the sign is turned; a fall is what the whole page has more than the covered one": (
            lambda query, whole, covered, columns: (
                cosine(query, covered) - cosine(query, whole)
            ).reshape(-1, columns)
        ),
        "these are similarities of covered pages; take each from that of the whole page": (
            lambda query, whole, covered, columns: cosine(query, covered).reshape(-1, columns)
        ),
        "these are dot products, which grow with a vector's length; divide by both lengths": (
            lambda query, whole, covered, columns: (query @ whole - covered @ query).reshape(
                -1, columns
            )
        ),
    },
    otherwise="take each covered page's cosine from that of the whole page, line by line",
    another=lambda query, whole, covered, columns: [
        [cosine(query, whole) - cosine(query, page) for page in covered[begin : begin + columns]]
        for begin in range(0, len(covered), columns)
    ],
)
def falls_of_patches(query, whole, covered, columns):
    """How much the cosine falls when a patch is covered, (rows of patches, ``columns``).

    ``query`` and ``whole`` are vectors, of the page with nothing covered; ``covered`` (patches,
    dimensions) line by line from the top left. None of them has length 1.
    """
    return (cosine(query, whole) - cosine(query, covered)).reshape(-1, columns)


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of appendix 4."""
    return {"numpy": numpy, "bits_apart": bits_apart}
