"""Exercises of appendix 4: pages that train and eval share, near copies and their limit, and what covering a patch costs."""

from __future__ import annotations

import numpy

from vdr_exercises import NotYet, a_number, exercise, returned, two


@exercise("a4.1")
def pages_in_both(answer) -> str:
    """``answer(eval_pages, train_rows)``: the numbers of the eval pages that stand anywhere in train.

    ``train_rows``: for each row its page and its hard negatives, a name per content; ``None`` for a page that does not open.
    """
    eval_pages = ["a", "b", "c", "d", "e", "f"]
    cases = [
        (eval_pages, [["x", "c", None], ["e", "y", "e"], ["z", "c", "w"]]),
        (eval_pages, [["x", "y"], ["z", None]]),
        (["p", "q", "p"], [["r", "p"]]),  # one page under two ids
    ]
    for pages, rows in cases:
        found = returned(answer, list(pages), [list(row) for row in rows])
        shared = {page for row in rows for page in row}
        right = [number for number, page in enumerate(pages) if page in shared]
        if isinstance(found, int | numpy.integer) and not isinstance(found, bool):
            return f"one number, {found}, says how many; the numbers of the pages are asked for"
        try:
            listed = list(found)
            if len(listed) == len(pages) and all(isinstance(one, bool | numpy.bool_) for one in listed):
                return "that is a truth value a page; `numpy.flatnonzero` makes numbers of it"
            if listed and set(map(str, listed)) <= {*pages, "None"}:
                return f"these are the pages, {listed}; their numbers in eval are asked for"
            numbers = [int(one) for one in listed]
        except (TypeError, ValueError):
            raise NotYet(f"page numbers are asked for, such as [0, 3], and the type of yours is {type(found).__name__}") from None
        if sorted(numbers) == right:
            continue
        here = f"eval has {', '.join(pages)}, train has {rows}: you say {numbers}"
        if len(set(numbers)) < len(numbers):
            return f"{here}: a page stands there twice"
        if numbers == [number for number, page in enumerate(pages) if page in {row[0] for row in rows}]:
            return f"{here}: the model has seen the hard negatives of train too, so look at all columns"
        if missing := [number for number in right if number not in numbers]:
            again = ", as another number does" if len(set(pages)) < len(pages) else ""
            return f"{here}: number {missing[0]} is {pages[missing[0]]!r}, which stands in train{again}"
        wrong = next(number for number in numbers if number not in right)
        return f"{here}: number {wrong} does not stand in train"
    return ""


@exercise("a4.2")
def pairs_of_copies(answer) -> str:
    """``answer(codes, limit)``: the pairs of pages whose codes differ in at most ``limit`` bits, each pair once.

    ``codes``: (pages, bits), zeros and ones as floats, as the notebook's ``hashes`` makes them.
    """
    rng = numpy.random.default_rng(0)
    codes = rng.integers(0, 2, size=(7, 64)).astype("float32")
    codes[6] = 1 - codes[2]  # agrees with page 2 in no bit
    for page, bits in ((4, 3), (5, 4)):  # page 4 is three bits from page 0, page 5 four from page 1
        codes[page] = codes[page - 4]
        codes[page, :bits] = 1 - codes[page, :bits]
    for limit, right in ((3, {(0, 4)}), (4, {(0, 4), (1, 5)}), (2, set())):
        found = returned(answer, codes.copy(), limit)
        try:
            pairs = [tuple(int(a_number(page)) for page in two(pair, "two pages a pair")) for pair in found]
        except (NotYet, TypeError):
            raise NotYet("pairs of page numbers are asked for, such as [(0, 3)]") from None
        if {tuple(sorted(pair)) for pair in pairs} == right and len(pairs) == len(right):
            continue
        here = f"limit {limit}, pairs found: {len(pairs)}"
        if any(first == second for first, second in pairs):
            return f"{here}; a page is no copy of itself"
        if len({tuple(sorted(pair)) for pair in pairs}) < len(pairs):
            return f"{here}; a pair is one pair, in whichever order"
        apart = [int((codes[first] != codes[second]).sum()) for first, second in pairs]
        if limit == 3 and not pairs:
            return f"{here}; pages that differ in exactly {limit} bits are near enough"
        if (2, 6) in map(tuple, map(sorted, pairs)):
            return f"{here}, one of which differs in all 64 bits; count bits that differ, not those that agree"
        if apart and max(apart) > limit:
            return f"{here}, one of which differs in {max(apart)} bits"
        missed = min(right - {tuple(sorted(pair)) for pair in pairs})
        return f"{here}; {missed} differ in {int((codes[missed[0]] != codes[missed[1]]).sum())} bits and are left out"
    return ""


@exercise("a4.3")
def limit_without_alarms(answer) -> str:
    """``answer(same, different)``: a limit that takes all altered copies for the same and no other pair, ``None`` where there is none.

    ``same``: bits between pages and their altered copies; ``different``: bits between different pages. A pair counts as the same when
    it differs in at most ``limit`` bits, so that every limit from the largest of ``same`` to below the smallest of ``different`` is right.
    """
    if not callable(answer):
        raise NotYet(f"a function is asked for, and the type of yours is {type(answer).__name__}")
    cases = [([0, 2, 4, 3, 6], [30, 12, 41, 26]), ([3, 1], [4, 9]), ([0, 2, 14], [38, 10, 12]), ([2, 5], [5, 20])]
    for same, different in cases:
        limit, possible = answer(numpy.array(same), numpy.array(different)), max(same) < min(different)
        here = f"same {same}, different {different}: you say {limit}"
        if limit is None:
            if possible:
                return f"{here}, and {max(same)} would do: it takes in all that is the same and nothing else"
            continue
        limit = a_number(limit)
        missed, alarms = sum(not bits <= limit for bits in same), sum(bits <= limit for bits in different)
        if not missed and not alarms:
            continue
        if not possible:
            return f"{here}; no limit does both here, some copy is further off than a different page: return `None`"
        if limit == min(different):
            return f"{here}: a pair that differs in exactly the limit counts as the same, so a different page is taken for a copy"
        if alarms:
            return f"{here}: {alarms} of {len(different)} different pairs would be taken for copies"
        return f"{here}: {missed} of {len(same)} copies would be missed; the furthest of them decides, not the usual one"
    return ""


def _cosine(first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
    return second @ first / numpy.linalg.norm(first) / numpy.linalg.norm(second, axis=-1)


@exercise("a4.4")
def falls_of_patches(answer) -> str:
    """``answer(query, whole, covered, columns)``: how much the cosine falls when a patch is covered, (rows of patches, ``columns``).

    ``query`` and ``whole`` are vectors, of the page with nothing covered; ``covered`` (patches, numbers) line by line from the top
    left. None of them has length 1.
    """
    rng = numpy.random.default_rng(0)
    for rows, columns in ((3, 2), (2, 5)):
        query = rng.normal(size=16)
        whole = 3 * (query + rng.normal(size=16))
        covered = whole + rng.normal(size=(rows * columns, 16))
        similarity, remain = _cosine(query, whole), _cosine(query, covered)
        right = (similarity - remain).reshape(rows, columns)
        found = returned(answer, query.copy(), whole.copy(), covered.copy(), columns)
        try:
            found = numpy.asarray(found, dtype=float)
        except (TypeError, ValueError):
            raise NotYet(f"a map of the shape {right.shape} is asked for, a number per patch") from None
        here = f"{rows * columns} patches in {columns} columns"
        if found.shape != right.shape:
            return f"{here}: the shape is {found.shape}, and {right.shape} is asked for, a row per line of patches"

        def near(value, found=found):
            return numpy.allclose(found, value, atol=1e-4)

        if near(right):
            continue
        if near(-right):
            return f"{here}: the sign is turned; a fall is what the whole page has more than the covered one"
        if near(remain.reshape(rows, columns)):
            return f"{here}: these are similarities of covered pages; take each from that of the whole page"
        if near((query @ whole - covered @ query).reshape(rows, columns)):
            return f"{here}: these are dot products, which grow with a vector's length; divide by both lengths"
        if near((similarity - remain).reshape(columns, rows).T):
            return f"{here}: the patches come line by line, not column by column: `reshape(-1, columns)`"
        if near((1 - remain).reshape(rows, columns)):
            return f"{here}: the whole page has no cosine of 1; take its own similarity to the query"
        if near((1 - _cosine(whole, covered)).reshape(rows, columns)):
            return f"{here}: that is how much the page changed; the query decides which change matters"
        if near(right / similarity):
            return f"{here}: that is a share of the similarity; the fall itself is asked for"
        return f"{here}: the first patch should have {right[0, 0]:+.3f}, and has {found[0, 0]:+.3f}"
    return ""
