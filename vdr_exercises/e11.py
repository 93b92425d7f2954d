"""Exercises of notebook 11: the steps of several ranks, what a rank's queries see, shares of workers, and what a kill leaves to do."""

from __future__ import annotations

import math

import numpy

from vdr_exercises import NotYet, a_number, exercise, returned, two


@exercise("11.1")
def epoch_on_ranks(answer) -> str:
    """``answer(rows, batch_size, ranks, split_batches)``: the rows of one step, all ranks together, and the steps of an epoch.

    With ``split_batches`` a batch is drawn once and cut; without, every rank draws one. A step that is not full is dropped.
    """
    cases = ((2048, 64, 4, False), (2048, 64, 4, True), (10_000, 64, 8, False), (10_000, 64, 8, True), (500, 32, 1, False))
    for rows, size, ranks, split in cases:
        per_step, steps = map(a_number, two(returned(answer, rows, size, ranks, split), "the rows of a step, then the steps"))
        right = size if split else size * ranks
        drawn = f"{ranks} rank{'s' * (ranks > 1)}, {'one batch of' if split else 'a batch each of'} {size}"
        if per_step != right:
            here = f"{drawn}: {per_step:g} rows a step"
            if per_step == size * ranks:
                return f"{here}: with `split_batches` one batch is cut, so that a step has its rows, whatever the number of ranks"
            if math.isclose(per_step, size / ranks):
                return f"{here}: that is the share of one rank; the rows of all ranks together make the step"
            if per_step == size:
                return f"{here}: without `split_batches` every rank draws a batch of its own for the same step"
            return f"{here}, and it has {right}"
        if steps != rows // right:
            here = f"{drawn}, {rows:,} rows: {steps:g} steps"
            if steps == math.ceil(rows / right):
                return f"{here}: the last step is not full, and is dropped: every rank needs as many rows as the others"
            if math.isclose(steps, rows / right):
                return f"{here}: only whole steps count, the rest is dropped"
            if steps in (rows // size, math.ceil(rows / size)):
                return f"{here}: a step takes {right} rows here, so that an epoch has fewer of them"
            return f"{here}: how many times do {right} rows fit into {rows:,}?"
    return ""


def _seen(rows: int, ranks: int) -> numpy.ndarray:
    rank_of = numpy.arange(rows) // (rows // ranks)
    return rank_of[:, None] == numpy.tile(rank_of, 2)


@exercise("11.2")
def seen_without_gathering(answer) -> str:
    """``answer(rows, ranks)``: a matrix (rows, 2 x rows), true where a query is compared with a page when nothing is gathered.

    Columns: the positives of all rows, then their hard negatives. ``rows``, the whole step's, can be divided by ``ranks``.
    """
    for rows, ranks in ((8, 2), (12, 3), (16, 4), (6, 1)):
        found = returned(answer, rows, ranks)
        try:
            found = numpy.asarray(found, dtype=float)
        except (TypeError, ValueError):
            raise NotYet(f"a matrix of the shape {(rows, 2 * rows)} is asked for, true or false per query and page") from None
        here, right = f"{rows} rows on {ranks} rank{'s' * (ranks > 1)}", _seen(rows, ranks)
        if found.shape == (rows, rows):
            return f"{here}: a page of every row is missing: the hard negatives are columns too, behind the positives"
        if found.shape != right.shape:
            return f"{here}: the shape is {found.shape}, and {right.shape} is asked for: a row per query, a column per page"
        if numpy.array_equal(found, right):
            continue
        own, rank_of = numpy.arange(rows), numpy.arange(rows) // (rows // ranks)
        if (found == 1).all():
            return f"{here}: that is what gathering shows, every page to every query"
        if numpy.array_equal(found, right & (numpy.arange(2 * rows) < rows)):
            return f"{here}: the hard negatives of its rank are compared with a query too"
        if numpy.array_equal(found, own[:, None] == numpy.tile(own, 2)):
            return f"{here}: these are its own two pages; the pages of the other rows of its rank are its negatives"
        if numpy.array_equal(found, (own % ranks)[:, None] == numpy.tile(own % ranks, 2)):
            return f"{here}: a batch is cut into shares: rank 0 has the first {rows // ranks} rows, which stand one after another"
        if numpy.array_equal(found, rank_of[:, None] == numpy.repeat(rank_of, 2)):
            return f"{here}: the columns are all positives first, then all hard negatives: each rank has two blocks"
        if numpy.array_equal(found, ~right):
            return f"{here}: that is what a query does not see"
        wrong = int((found != right).any(axis=1).argmax())
        return f"{here}: query {wrong} sees {found[wrong].sum():g} pages, or the wrong ones; its rank has {2 * rows // ranks}"
    return ""


@exercise("11.3")
def each_part_once(answer, measured) -> str:
    """``answer(parts, worker, workers)``: what that worker (counted from 0) does, so that each part is done once, and none waits long.

    ``measured``: names of parts. Any way to deal them out is right in which no share is larger than it must be.
    """
    made_up = [f"{number:06d}" for number in range(11)]
    for parts, workers in ((made_up, 4), (made_up, 11), (made_up[:3], 5), (made_up[:8], 2), (list(measured), 2), (made_up, 1)):
        shares = []
        for worker in range(workers):
            share = returned(answer, list(parts), worker, workers)
            if isinstance(share, str) or not hasattr(share, "__iter__"):
                return f"the parts of one worker are asked for, and the type of yours is {type(share).__name__}"
            shares.append(list(share))
        here, given = f"{len(parts)} parts, {workers} worker{'s' * (workers > 1)}", [part for share in shares for part in share]
        if any(part not in parts for part in given):
            strange = next(part for part in given if part not in parts)
            return f"{here}: {strange!r} is no part; return the parts themselves, not their numbers"
        if shares != [parts] and shares == [parts[worker - 1 :: workers] for worker in range(workers)]:
            return f"{here}: workers are counted from 0, so that worker 0 starts with the first part"
        owners = {part: [worker for worker, share in enumerate(shares) if part in share] for part in parts}
        if nobody := [part for part, own in owners.items() if not own]:
            rest = f": {len(parts)} divided by {workers} leaves a rest" if len(nobody) == len(parts) % workers else ""
            return f"{here}: nobody does {nobody[0]}{f' and {len(nobody) - 1} more' * (len(nobody) > 1)}{rest}"
        if twice := [(part, own) for part, own in owners.items() if len(own) > 1]:
            part, own = twice[0]
            return f"{here}: workers {own[0]} and {own[1]} both do {part}; each part belongs to one"
        if len(given) > len(parts):
            return f"{here}: a worker has a part twice"
        longest = math.ceil(len(parts) / workers)
        if max(map(len, shares)) > longest:
            slow = max(range(workers), key=lambda worker: len(shares[worker]))
            return f"{here}: worker {slow} has {len(shares[slow])} of them, and all wait for it; {longest} are enough"
    return ""


@exercise("11.4")
def parts_to_do_again(answer, part_files, vector_files) -> str:
    """``answer(part_files, vector_files)``: the parts without a whole file of vectors; both are names of the files in a folder, unsorted.

    A file of vectors has its part's name; what is being written ends with ``.partial``, and the folder holds a note and a log too.
    """
    made_up = [*(f"{number:06d}.parquet" for number in range(7)), "new.parquet"]
    beside = ["made_from.json", "encoded.txt", "000001.parquet.partial"]
    killed = ["000005.parquet", *beside, "000000.parquet", "000003.parquet"]
    cases = [
        (made_up, killed),
        (made_up, beside),
        (made_up[:3], [*made_up[:3], "killed"]),
        (list(part_files), list(vector_files)),
    ]
    for parts, files in cases:
        found = returned(answer, list(parts), list(files))
        if isinstance(found, str) or not hasattr(found, "__iter__"):
            return f"names of parts are asked for, and the type of yours is {type(found).__name__}"
        found, whole = {str(name) for name in found}, set(files)
        right = set(parts) - whole
        if found == right:
            continue
        here, ordered = f"{len(parts)} parts, whole are {', '.join(sorted(whole & set(parts))) or 'none'}", sorted(parts)
        if found == set(ordered[len(whole & set(parts)) :]):
            return f"{here}: do not count; parts end in any order, and a later one can be whole before an earlier one"
        if found == {part for part in parts if part > max(whole & set(parts), default="")}:
            return f"{here}: what lies before the last whole part need not be whole; look for each one's file"
        if found == set(parts):
            return f"{here}: a part whose file is whole stays"
        if found == whole & set(parts):
            return f"{here}: these are done; those without a file are asked for"
        if found == {part for part in right if f"{part}.partial" not in whole}:
            return (
                f"{here}: a file that ends with `.partial` was being written when its worker died: that part is to be done again"
            )
        if strange := sorted(found - set(parts)):
            return f"{here}: {strange[0]!r} is no part; look for each part's name among the files of vectors, not the other way round"
        if missing := sorted(right - found):
            return f"{here}: {missing[0]} has no file of vectors, and you leave it out"
        return f"{here}: {min(found - right)} has a whole file, and you do it again"
    return ""
