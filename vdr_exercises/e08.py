"""Exercises of notebook 08: queries that name one page, a split by document, usable negatives, and whether tuning paid."""

from __future__ import annotations

import builtins
import contextlib
from collections import Counter

import numpy

from vdr_exercises import NotYet, exercise, returned, two


def _truth(found) -> bool:
    """``True`` or ``False``, whatever library it is of; `NotYet` for anything else."""
    value = found.item() if hasattr(found, "item") else found
    if not isinstance(value, bool):
        raise NotYet(f"`True` or `False` is asked for, and the type of yours is {type(found).__name__}")
    return value


def _pages_of(pairs) -> dict[str, set[str]]:
    """``{query in lower case: the pages it stands on}``."""
    pages: dict[str, set[str]] = {}
    for query, page in pairs:
        pages.setdefault(query.lower(), set()).add(page)
    return pages


@exercise("8.1")
def queries_of_one_page(answer, measured) -> str:
    """``answer(pairs)``: those of the ``(query, page)`` pairs whose query, in upper or lower case, stands on one page only."""
    made_up = [
        ("Cleaning", "crane#2"),
        ("Cleaning", "crane#5"),
        ("Lamps", "crane#3"),
        ("Lamps", "crane#3"),
        ("Alarm codes", "oven#4"),
        ("ALARM CODES", "oven#7"),
        ("Motor", "winch#2"),
    ]
    for pairs in (made_up, list(measured)):
        pages, found = _pages_of(pairs), returned(answer, list(pairs))
        try:
            kept = {(query, page) for query, page in found}
        except (TypeError, ValueError):
            return "pairs of a query and a page are asked for, such as [('Motor', 'winch#2')]"
        expected = {(query, page) for query, page in pairs if len(pages[query.lower()]) == 1}
        if kept == expected:
            continue
        if foreign := sorted(map(str, kept - set(pairs))):
            return f"{foreign[0]} is none of the pairs: return them as they came"
        times = Counter(pairs)
        if lost := sorted(expected - kept, key=times.get):
            if times[lost[0]] > 1:
                return f"{lost[0]} stands there twice, and is one page all the same: count pages, not pairs"
            return f"{lost[0]} is lost, and its query stands on no other page"
        spelled = Counter(query for query, _ in set(pairs))
        query, page = min(kept - expected, key=lambda pair: (spelled[pair[0]] == 1, pair))
        others = sorted(pages[query.lower()] - {page})
        if any((query, other) in kept for other in others):
            return f"{query!r} stands on {page} and on {others[0]}: as either would be right, it is no query"
        if any((query, other) in pairs for other in others):
            return (
                f"{query!r} was kept for {page} alone, and {others[0]} answers it too: leave the query out, not one of its pages"
            )
        return f"{query!r} stands on {others[0]} too, in other letters: to a person who types it that is one query"
    return ""


@contextlib.contextmanager
def _another_start_of_python():
    """Inside, ``hash`` gives other numbers for texts, as it does whenever Python starts anew."""
    usual = builtins.hash
    builtins.hash = lambda value: usual(("another start", value))
    try:
        yield
    finally:
        builtins.hash = usual


@exercise("8.2")
def side_that_stays(answer, documents) -> str:
    """``answer(document, share)``: "eval" for about ``share`` of all names, else "train"; a name has its side for ever.

    ``documents`` are the reader's own names; how many go where is counted on 2,000 made-up ones.
    """
    numbered = [f"manual_{number:04}.pdf" for number in range(2000)]
    for names, share in ((numbered, 1 / 3), (numbered, 0.1), (list(documents), 1 / 3)):
        sides = {name: returned(answer, name, share) for name in names}
        for name, side in sides.items():
            if not isinstance(side, str) or side not in ("train", "eval"):
                return f"{name}: {side!r} is neither 'train' nor 'eval'"
        part = sum(side == "eval" for side in sides.values()) / len(sides)
        here = f"of 2,000 names {part:.0%} went to eval, where {share:.0%} are asked for"
        if names is numbered and part in (0, 1):
            return f"{here}: what differs between 'manual_0001.pdf' and 'manual_0002.pdf' has to decide"
        if moved := [name for name in reversed(names) if answer(name, share) != sides[name]]:
            return (
                f"{moved[0]} was on one side and is on the other when asked again: only the name may decide, no chance, no order"
            )
        with _another_start_of_python():
            moved = [name for name in names if answer(name, share) != sides[name]]
        if moved:
            return f"{moved[0]} changes its side when Python starts anew: `hash` of a text differs from start to start, `hashlib` does not"
        if names is not numbered or abs(part - share) < 0.05:
            continue
        if abs(1 - part - share) < 0.05:
            return f"{here}: the share is that of eval"
        if abs(part - 1 / 3) < 0.05 or abs(part - 1 / 2) < 0.05:
            return f"{here}: your function takes no notice of `share`"
        return f"{here}: turn the name into a number that is spread evenly between 0 and 1, and compare it with the share"
    return ""


@exercise("8.3")
def negative_that_may_be_used(answer, measured) -> str:
    """``answer(positive, similarity, same_document, margin)``: may a negative of this ``similarity`` be trained on?

    Yes where it comes from another document and lies below the ``positive``'s similarity by more than ``margin`` times its magnitude.
    ``measured``: ``(positive, similarity, same document)`` of mined negatives.
    """
    cases = [
        (0.80, 0.60, False),
        (0.80, 0.78, False),
        (0.80, 0.75, False),
        (0.80, 0.90, False),
        (0.80, 0.60, True),
        (0.80, 0.90, True),
        (0.30, 0.27, False),
        (-0.20, -0.202, False),
        (-0.20, -0.25, False),
    ]
    for positive, similarity, same in [*cases, *measured]:
        margin = 0.05
        limit = positive - margin * abs(positive)
        if abs(similarity - limit) < 1e-6:
            continue
        found = _truth(returned(answer, float(positive), float(similarity), bool(same), margin))
        if found == (similarity < limit and not same):
            continue
        where = "the same document" if same else "another document"
        here = f"positive {positive:.3f}, negative {similarity:.3f}, {where}, margin {margin:.0%}"
        if (positive, similarity, same) == cases[0]:
            return f"{here}: you refuse it, and it is well below and from elsewhere: `True` says that it may be used"
        if found and same:
            return f"{here}: you use it, and a page of the same document may well answer too"
        if found and similarity >= positive:
            return f"{here}: you use it, and the model prefers it to the right page: it may be a second answer"
        if found and positive < 0:
            return f"{here}: you use it; 0.95 times a negative number lies above it, so subtract the margin times its magnitude, `abs`"
        if found:
            return f"{here}: you use it, and it is nearly as similar as the right page; below {limit:.3f} it may be used"
        if similarity < positive - margin:
            return f"{here}: you refuse it, and the limit is {limit:.3f}"
        return f"{here}: you refuse it; the margin is a share of the positive's similarity, so the limit is {limit:.3f}"
    return ""


def _interval(values) -> tuple[float, float]:
    draws = numpy.random.default_rng(1).integers(0, len(values), size=(4000, len(values)))
    return tuple(numpy.percentile(numpy.asarray(values, dtype=float)[draws].mean(axis=1), [2.5, 97.5]))


def _made(mean: float, spread: float, seed: int):
    """80 differences with just this mean and standard deviation."""
    values = numpy.random.default_rng(seed).normal(size=80)
    return mean + spread * (values - values.mean()) / values.std()


@exercise("8.4")
def paid_and_forgot(answer, measured) -> str:
    """``answer(gains)``: did tuning pay, and was something forgotten, both more than noise? ``gains``: ``{task: difference of each query}``.

    It paid where the 95 % interval of the mean over unseen documents lies above zero, and forgot where that over old pages lies below.
    """
    new, wrong, old = "unseen documents", "wrong split", "old pages"
    rows = [  # mean and spread of the three tasks
        ((0.10, 0.02), (0.02, 0.3), (-0.05, 0.02)),
        ((0.10, 0.3), (0.15, 0.3), (-0.03, 0.05)),
        ((0.04, 0.35), (0.05, 0.35), (-0.01, 0.2)),
        ((-0.10, 0.2), (0.10, 0.2), (0.05, 0.1)),
    ]
    cases = [{task: _made(*row[i], seed=i) for i, task in enumerate((new, wrong, old))} for row in rows]
    cases += [dict(measured)] if {new, wrong, old} <= set(measured) else []
    for gains in cases:
        (low, high), (lowest, highest) = _interval(gains[new]), _interval(gains[old])
        if gains is cases[-1] and len(cases) > len(rows):
            edges = [abs(edge) < 0.1 * max(width, 1e-9) for edge, width in ((low, high - low), (highest, highest - lowest))]
            if any(edges):
                continue  # another way of drawing may decide otherwise
        copies = {task: numpy.array(values, dtype=float) for task, values in gains.items()}
        paid, forgot = map(_truth, two(returned(answer, copies), "whether it paid, then whether something was forgotten"))
        expected = bool(low > 0), bool(highest < 0)
        if (paid, forgot) == expected:
            continue
        if (forgot, paid) == expected:
            return "whether it paid comes first, then whether something was forgotten"
        if paid != expected[0]:
            here = f"unseen documents gain {numpy.mean(gains[new]):+.3f} ({low:+.3f} to {high:+.3f})"
            if paid and high < 0:
                return f"{here}: that is a loss, and you say that it paid"
            if paid:
                return f"{here}: zero lies inside, so these queries did not show that it paid"
            if gains is cases[0]:
                return f"{here}: it paid. The row to report is that of unseen documents, not the wrong split"
            return f"{here}: it paid. An interval of the mean is asked for, not of single queries, which vary far more"
        here = f"old pages change by {numpy.mean(gains[old]):+.3f} ({lowest:+.3f} to {highest:+.3f})"
        if forgot and lowest > 0:
            return f"{here}: that is a gain, nothing was forgotten"
        return f"{here}: {'zero lies inside, so nothing was shown to be forgotten' if forgot else 'the whole interval lies below zero: something was forgotten'}"
    return ""
