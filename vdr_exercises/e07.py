"""Exercises of notebook 07: int8 codes, bytes of an index, a shortlist's length, and recall."""

from __future__ import annotations

import numpy
import torch

from vdr_exercises import asks_for_a_function
from vdr_exercises.answers import an_array


def with_overflow(vectors, largest):
    with numpy.errstate(invalid="ignore"):
        return numpy.round(vectors / largest * 127).astype(numpy.int8) * largest / 127


def codes(vectors, largest):
    return numpy.clip(numpy.round(vectors / largest * 127), -127, 127)


def nearly_all_equal(found, expected, vectors, largest):
    """At most one of a hundred is a step away, where a number lies between two codes."""
    apart = numpy.abs(found - expected) * 127 / largest
    return apart.max() < 1.01 and (apart > 0.01).mean() <= 0.01


@asks_for_a_function(
    "7.1",
    inputs=lambda vectors, largest: [
        (vectors[:100], float(largest)),
        (vectors[:100], 0.4 * float(numpy.abs(vectors[:100]).max())),  # some are beyond it
    ],
    returns=an_array,
    alike=nearly_all_equal,
    mistakes={
        "a number beyond the largest came back with the other sign: clip before `astype`": (
            with_overflow
        ),
        "`astype` cuts the fraction off, so round before it": (
            lambda vectors, largest: (
                numpy.trunc(vectors.clip(-largest, largest) / largest * 127) * largest / 127
            )
        ),
        "these are the codes; multiply them by largest / 127": codes,
    },
    otherwise="each number is rounded to the nearest step of largest / 127, and clipped",
    another=lambda vectors, largest: [
        [
            max(-127, min(127, round(float(number) * 127 / largest))) * largest / 127
            for number in row
        ]
        for row in vectors
    ],
)
def int8_and_back(vectors, largest):
    """``vectors`` (pages, dimensions) as int8 codes, 127 for ``largest``, and back as floats."""
    return codes(vectors, largest) * largest / 127


@asks_for_a_function(
    "7.2",
    inputs=[(3_000_000, 128, 8), (3_000_000, 128, 32), (3_000_000, 256, 1), (10_000, 2048, 16)],
    mistakes={
        "these are bits; eight of them are a byte": lambda pages, width, bits: pages * width * bits,
        "four bytes hold for float32 alone, use bits": lambda pages, width, bits: pages * width * 4,
        "bytes are asked for, not GiB": lambda pages, width, bits: pages * width * bits / 8 / 2**30,
    },
    otherwise="expected {expected}: pages times dimensions times bits, divided by eight",
    another=lambda pages, width, bits: numpy.zeros(width * bits // 8, numpy.uint8).nbytes * pages,
)
def bytes_of_an_index(pages, width, bits):
    """The bytes that the vectors alone take."""
    return pages * width * bits / 8


SKEWED = [1] * 12 + [2, 3, 5, 8, 20, 40, 90, 400]


@asks_for_a_function(
    "7.3",
    inputs=lambda measured: [
        (numpy.array(SKEWED), 0.9),
        (numpy.array(SKEWED), 0.5),
        (numpy.array(SKEWED), 1.0),
        (numpy.array(measured), 0.9),
        (numpy.array([7, 3, 5, 1]), 0.75),
    ],
    mistakes={
        "one far page decides your length; count how many ranks a length reaches": (
            lambda ranks, share: ranks.max()
        ),
        "a few far pages pull the mean up, and it says nothing about a share": (
            lambda ranks, share: ranks.mean()
        ),
        "a length is one of the ranks, not a value between two": (
            lambda ranks, share: numpy.quantile(ranks, share)
        ),
    },
    otherwise="expected {expected}, the shortest list that holds this share",
    another=lambda ranks, share: min(
        length for length in ranks if (ranks <= length).mean() >= share
    ),
)
def shortlist_that_reaches(ranks, share):
    """The shortest list that holds at least ``share`` of the right pages, whose ranks these are."""
    return numpy.quantile(ranks, share, method="inverted_cdf")


TEN = list(range(10))
NEXT_TEN = list(range(10, 20))


@asks_for_a_function(
    "7.4",
    inputs=[
        ([TEN], [TEN[::-1]]),
        ([TEN], [[*range(5), *range(50, 55)]]),
        ([TEN, NEXT_TEN], [NEXT_TEN, TEN]),
        ([TEN], [[*range(50, 58), 0, 1, 2, 3]]),
        ([TEN, TEN], [TEN, list(range(50, 60))]),
    ],
    mistakes={
        "the order among the ten does not count": lambda true, found: numpy.mean(
            [numpy.equal(best, row[:10]) for best, row in zip(true, found, strict=True)]
        ),
        "each query is compared with its own row": lambda true, found: numpy.isin(
            true, [row[:10] for row in found]
        ).mean(),
        "only the first ten of what was found count": lambda true, found: numpy.mean(
            [len({*best} & {*row}) / 10 for best, row in zip(true, found, strict=True)]
        ),
    },
    otherwise="expected {expected}, the mean over queries of the share of the true ten",
    another=lambda true, found: numpy.mean(
        [numpy.isin(best, row[:10]).mean() for best, row in zip(true, found, strict=True)]
    ),
)
def recall_of_rankings(true, found):
    """Recall@10: the mean share of a query's true ten among the first ten found."""
    rows = zip(true, found, strict=True)
    return numpy.mean([len({*best[:10]} & {*row[:10]}) / 10 for best, row in rows])


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 07."""
    rng = numpy.random.default_rng(0)
    page_vectors = rng.normal(scale=0.06, size=(40, 128)).astype("float32")

    def to_int8(vectors, largest):
        return codes(vectors, largest).astype(numpy.int8)

    def ranks(similarities, right_pages):
        own = similarities[range(len(right_pages)), right_pages]
        return (similarities > own[:, None]).sum(dim=1) + 1

    return {
        "numpy": numpy,
        "torch": torch,
        "to_int8": to_int8,
        "ranks": ranks,
        "page_vectors": {"tuned": page_vectors},
        "largest": {"tuned": numpy.abs(page_vectors).max()},
        "short": rng.normal(size=(30, 50)),
        "right_pages": list(range(30)),
    }
