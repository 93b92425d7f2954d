"""Exercises of notebook 02: what makes a negative usable, copies of a positive, and a split that keeps documents apart."""

from __future__ import annotations

import random
from collections import Counter

from vdr_exercises import NotYet, exercise, returned, two


@exercise("2.1")
def three_conditions(answer) -> str:
    """``answer(page, own, taken)``: whether a page with that fingerprint may be a hard negative of the page ``own``.

    It must open (its fingerprint is not ``None``), be no copy of ``own``, and not stand in ``taken``.
    """
    cases = [
        ("a3", "b7", {"c1"}, True, "a page that opens, is no copy and was not taken is usable"),
        (None, "b7", {"c1"}, False, "`None` is the fingerprint of a page that does not open: it cannot be used"),
        ("b7", "b7", {"c1"}, False, "a copy of the positive as its negative punishes the model for being right"),
        ("c1", "b7", {"c1", "d2"}, False, "a page that was taken already is not new"),
        ("a3", "b7", set(), True, "where nothing was taken yet, a page that opens and is no copy is usable"),
    ]
    for page, own, taken, expected, why in cases:
        if bool(returned(answer, page, own, set(taken))) != expected:
            return f"page {page!r}, own page {own!r}, taken {sorted(taken)}: {why}"
    return ""


def _numbers(found) -> list[int]:
    """Row numbers from whatever holds them."""
    try:
        return [int(number) for number in found]
    except (TypeError, ValueError):
        raise NotYet(f"row numbers are asked for, such as [0, 3], and the type of yours is {type(found).__name__}") from None


@exercise("2.2")
def copies_among_negatives(answer) -> str:
    """``answer(rows)``: the numbers of the rows, each ``(own fingerprint, fingerprints of its negatives)``, that list a copy of their page."""
    rows = [
        ("a", ["b", "c"]),
        ("b", ["c", "b"]),  # a copy in second place
        (None, ["a", None]),  # two pages that do not open are not the same page
        ("d", []),
        ("e", ["e", "e"]),  # two copies, one row
        ("f", ["a", "b", None]),  # pages of other rows
    ]
    given = [(own, list(negatives)) for own, negatives in rows]
    found = _numbers(returned(answer, given))
    expected = [number for number, (own, negatives) in enumerate(rows) if own is not None and own in negatives]
    if sorted(found) == expected:
        return ""
    if found == [own in negatives for own, negatives in rows] or found == [number in expected for number in range(len(rows))]:
        return "that is one truth value a row; the numbers of the rows are asked for"
    if sorted(found) == [1, 2, 4]:
        return "row 2 has `None` on both sides: two pages that do not open are not copies of each other"
    if 1 not in found and 4 in found:
        return "row 1 has its copy in second place: look at all negatives, not only at the first"
    if sorted(found) == [1, 4, 4]:
        return "row 4 lists two copies, and is still one row"
    if 5 in found or 0 in found:
        return "a page of another row is a fine negative; compare with the row's own page"
    return f"rows {expected} list a copy of their own page, you found {found}"


@exercise("2.3")
def split_that_keeps_documents_apart(answer) -> str:
    """``answer(documents, share)``: row numbers for train and for eval; no document on both sides, about ``share`` of the rows in eval."""
    rng = random.Random(0)
    mixed = [f"report {number}" for number in range(30) for _ in range(rng.randint(1, 12))]
    rng.shuffle(mixed)  # the pages of a document do not stand together
    for documents, share in ((mixed, 0.2), (sorted(mixed), 0.1), (mixed, 0.4)):
        both = two(returned(answer, list(documents), share), "the row numbers of train, then those of eval")
        train, evaluation = map(_numbers, both)
        twice = set(train) & set(evaluation)
        missing = set(range(len(documents))) - set(train) - set(evaluation)
        if twice:
            return f"row {min(twice)} is on both sides"
        if missing:
            return f"{len(missing)} of {len(documents)} rows are on neither side, row {min(missing)} for one"
        if len(train) + len(evaluation) != len(documents):
            return "a row stands twice on one side, or there are more numbers than rows"
        shared = {documents[number] for number in train} & {documents[number] for number in evaluation}
        if shared:
            return f"{len(shared)} documents have pages on both sides, {min(shared)!r} for one: give a document to one side as a whole"
        if not train or not evaluation:
            return f"{'train' if not train else 'eval'} is empty"
        largest = max(Counter(documents).values())
        if abs(len(train) - share * len(documents)) <= largest < abs(len(evaluation) - share * len(documents)):
            return (
                f"eval has {len(evaluation)} of {len(documents)} rows, the share {share:g} went to train: train is returned first"
            )
        if abs(len(evaluation) - share * len(documents)) > largest:
            return f"eval has {len(evaluation)} of {len(documents)} rows; {share:g} of them, give or take one document, are asked for"
    return ""
