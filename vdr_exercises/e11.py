"""Exercises of notebook 11: steps of several ranks, what a query sees, shares, and resuming."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy

from vdr_exercises import asks_for_a_function, exercise
from vdr_exercises.answers import a_list, a_number, a_pair, an_array, names


@asks_for_a_function(
    "11.1",
    inputs=[
        (2048, 64, 4, False),
        (2048, 64, 4, True),
        (10_000, 64, 8, False),
        (10_000, 64, 8, True),
        (500, 32, 1, False),
    ],
    returns=a_pair(a_number, "the rows of a step, then the steps of an epoch"),
    mistakes={
        "with `split_batches` one batch is cut, so that a step has its rows": (
            lambda rows, size, ranks, split: (size * ranks, rows // (size * ranks))
        ),
        "without `split_batches` every rank draws a batch of its own for the same step": (
            lambda rows, size, ranks, split: (size, rows // size)
        ),
        "the last step is not full, and is dropped": lambda rows, size, ranks, split: (
            size if split else size * ranks,
            math.ceil(rows / (size if split else size * ranks)),
        ),
    },
    otherwise="expected {expected}: the rows of all ranks together, and only full steps",
    another=lambda rows, size, ranks, split: [
        size * ranks ** (not split),
        len(range(0, rows + 1 - size * ranks ** (not split), size * ranks ** (not split))),
    ],
)
def epoch_on_ranks(rows, batch_size, ranks, split_batches):
    """The rows of one step, all ranks together, and the full steps of an epoch.

    With ``split_batches`` a batch is drawn once and cut; without, every rank draws one.
    """
    per_step = batch_size if split_batches else batch_size * ranks
    return per_step, rows // per_step


def seen_on_one_rank(rows, ranks):
    """(rows, rows): true where a query and a page are of the same rank."""
    rank_of = numpy.arange(rows) // (rows // ranks)
    return rank_of[:, None] == rank_of


@asks_for_a_function(
    "11.2",
    inputs=[(8, 2), (12, 3), (16, 4), (6, 1)],
    returns=an_array,
    mistakes={
        "that is what gathering shows, every page to every query": (
            lambda rows, ranks: numpy.ones((rows, 2 * rows))
        ),
        "these are its own two pages; the other rows of its rank are seen too": (
            lambda rows, ranks: numpy.tile(numpy.eye(rows), 2)
        ),
        "the hard negatives are columns too, behind the positives": seen_on_one_rank,
    },
    otherwise="a query sees the positives, then the hard negatives, of its rank's rows",
    another=lambda rows, ranks: [
        [query * ranks // rows == page % rows * ranks // rows for page in range(2 * rows)]
        for query in range(rows)
    ],
)
def seen_without_gathering(rows, ranks):
    """(rows, 2 x rows): true where a query is compared with a page when nothing is gathered.

    Columns: the positives of all rows, then their hard negatives. ``rows``, those of the whole
    step, can be divided by ``ranks``.
    """
    return numpy.tile(seen_on_one_rank(rows, ranks), 2)


def without_the_rest(parts, worker, workers):
    size = len(parts) // workers
    return parts[worker * size : (worker + 1) * size]


def the_rest_to_the_last(parts, worker, workers):
    share = without_the_rest(parts, worker, workers)
    return share if worker < workers - 1 else parts[worker * (len(parts) // workers) :]


@exercise(
    "11.3",
    mistakes={
        "each part belongs to one worker": without_the_rest,
        "the others wait": the_rest_to_the_last,
        "return the parts themselves": lambda parts, worker, workers: range(
            worker, len(parts), workers
        ),
    },
    another=lambda parts, worker, workers: numpy.array_split(parts, workers)[worker],
)
def each_part_once(answer, measured) -> str:
    """``answer(parts, worker, workers)``: the parts of that worker, counted from 0.

    ``measured``: names of parts. Any way to deal them out is right that gives each part to one
    worker and in which no share is larger than it must be.
    """
    made_up = [f"{number:06d}" for number in range(11)]
    cases = [(made_up, 4), (made_up, 11), (made_up[:3], 5), (made_up[:8], 2), (made_up, 1)]
    for parts, workers in [*cases, (list(measured), 2)]:
        shares = [a_list(answer(list(parts), worker, workers)) for worker in range(workers)]
        here = f"{len(parts)} parts, {workers} workers"
        dealt = sorted(str(part) for share in shares for part in share)
        if strange := set(dealt) - set(parts):
            return f"{here}: {min(strange)!r} is no part; return the parts themselves"
        if dealt != sorted(parts):
            missing = len(set(parts) - set(dealt))
            return (
                f"{here}: {missing} are dealt to nobody, {len(dealt) + missing - len(parts)} too "
                "often: each part belongs to one worker"
            )
        largest = max(map(len, shares))
        if largest > math.ceil(len(parts) / workers):
            return (
                f"{here}: one worker has {largest} parts and the others wait, "
                f"expected at most {math.ceil(len(parts) / workers)}"
            )
    return ""


PARTS = [*(f"{number:06d}.parquet" for number in range(7)), "new.parquet"]
BESIDE = ["made_from.json", "encoded.txt", "000001.parquet.partial"]


@asks_for_a_function(
    "11.4",
    inputs=lambda part_files, vector_files: [
        (PARTS, ["000005.parquet", *BESIDE, "000000.parquet", "000003.parquet"]),
        (PARTS, BESIDE),
        (PARTS[:3], [*PARTS[:3], "killed"]),
        (part_files, vector_files),
    ],
    returns=names,
    case=lambda parts, files: f"{len(parts)} parts, whole are {sorted({*parts} & {*files})}",
    mistakes={
        "do not count: a later part can be whole before an earlier one": (
            lambda parts, files: sorted(parts)[len({*parts} & {*files}) :]
        ),
        "what lies before the last whole part need not be whole": lambda parts, files: [
            part for part in parts if part > max({*parts} & {*files}, default="")
        ],
        "a file that ends with `.partial` was being written when its worker died": (
            lambda parts, files: [part for part in parts if part not in " ".join(files)]
        ),
    },
    otherwise="expected {expected}, the parts without a file of the same name",
    another=lambda parts, files: (part for part in parts if part not in files),
)
def parts_to_do_again(parts, files):
    """The parts without a whole file of vectors; both are names of files in a folder, unsorted.

    A file of vectors has its part's name; what is being written ends with ``.partial``, and the
    folder holds a manifest and a list too.
    """
    return {*parts} - {*files}


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 11."""
    part_names = [f"{number:06d}.parquet" for number in (3, 0, 4, 1, 2)]
    vector_names = [*part_names[:2], "encoded.txt", "made_from.json", "killed"]
    return {
        "numpy": numpy,
        "parts": SimpleNamespace(iterdir=lambda: map(Path, part_names)),
        "vectors": SimpleNamespace(iterdir=lambda: map(Path, vector_names)),
    }
