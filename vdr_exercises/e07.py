"""Exercises of notebook 07: numbers in one byte, bytes of an index, the length of a shortlist, and recall."""

from __future__ import annotations

import math

import numpy

from vdr_exercises import NotYet, a_number, exercise, returned


@exercise("7.1")
def int8_and_back(answer, vectors, largest: float) -> str:
    """``answer(vectors, largest)``: int8 codes (``largest`` is 127, what is beyond it is clipped), turned back into floats.

    ``vectors``: (pages, numbers) as floats. Right is what lies within half a step, ``largest / 127 / 2``, of the clipped numbers.
    """
    some = numpy.array(vectors[:100], dtype=numpy.float32)
    for top in (float(largest), 0.4 * float(numpy.abs(some).max())):  # the second one clips
        step, clipped = top / 127, some.clip(-top, top)
        try:
            found = numpy.asarray(returned(answer, some.copy(), top), dtype=float)
        except (TypeError, ValueError) as error:
            raise NotYet(f"floats of the shape {some.shape} are asked for ({error})") from None
        if found.shape != some.shape:
            return f"floats of the shape {some.shape} are asked for, these have {found.shape}"
        apart = numpy.abs(found - clipped)
        if apart.max() <= 0.51 * step:
            continue
        beyond = numpy.abs(some) > top + step
        if beyond.any() and (found * some)[beyond].min() < 0:
            return "a number beyond the largest one came back with the other sign: clip to -127 and 127 before `astype`"
        if numpy.abs(found - clipped / step).max() <= 1:
            return "these are the codes; multiply them by largest / 127 to get numbers again"
        if numpy.abs(found - clipped / top).max() <= 1 / 127:
            return "these lie between -1 and 1; multiply by largest too"
        if numpy.array_equal(found, some):
            return "nothing was rounded: these are the numbers as they came"
        if apart.max() <= 1.01 * step:
            return f"off by {apart.max() / step:.1f} steps; `astype` cuts the fraction off, so round before it (half a step is the most)"
        return f"off by {apart.max() / step:.1f} steps of {step:.4f}; half a step is the most that rounding can do"
    return ""


@exercise("7.2")
def bytes_of_an_index(answer) -> str:
    """``answer(pages, width, bits)``: bytes of the vectors alone, ``pages * width * bits / 8``."""
    for pages, width, bits in ((3_000_000, 128, 8), (3_000_000, 128, 32), (3_000_000, 256, 1), (10_000, 2048, 16)):
        found, expected = a_number(returned(answer, pages, width, bits)), pages * width * bits / 8
        if math.isclose(found, expected):
            continue
        here = f"{pages:,} pages of {width:,} numbers in {bits} bits: you say {found:,.6g}"
        if math.isclose(found, 8 * expected):
            return f"{here}, which are bits; eight of them are a byte"
        if math.isclose(found, pages * width * 4):
            return f"{here}: four bytes a number hold for float32 alone, use bits"
        if math.isclose(found, pages * width):
            return f"{here}: one byte a number holds for int8 alone, use bits"
        if any(math.isclose(found, expected / unit, rel_tol=1e-3) for unit in (2**30, 1e9, 2**20, 1e6)):
            return f"{here}: bytes are asked for, without a unit"
        if math.isclose(found, expected / pages):
            return f"{here}: that is one page"
        return f"{here}, and {expected:,.0f} bytes are needed: pages times numbers times bits, through eight"
    return ""


@exercise("7.3")
def shortlist_that_reaches(answer, measured) -> str:
    """``answer(ranks, share)``: the shortest list that holds at least ``share`` of the right pages, whose places are ``ranks``."""
    skewed = [1] * 12 + [2, 3, 5, 8, 20, 40, 90, 400]
    for ranks, share in ((skewed, 0.9), (skewed, 0.5), (skewed, 1.0), (list(measured), 0.9), ([7, 3, 5, 1], 0.75)):
        found, places = a_number(returned(answer, numpy.array(ranks), share)), sorted(ranks)
        expected = next(place for i, place in enumerate(places, start=1) if i / len(places) >= share - 1e-9)
        if found == expected:
            continue
        holds = sum(place <= found for place in places) / len(places)
        here = f"a list of {found:g} holds {holds:.0%} of the right pages, {share:.0%} are asked for"
        if found == places[-1] or math.isclose(found, share * places[-1]):
            return f"{here}: one far page decides your length; count how many ranks a length reaches"
        if math.isclose(found, numpy.mean(ranks)):
            return f"{here}: the mean rank says nothing about a share, a few far pages pull it up"
        if found != int(found):
            return f"{here}: a length is a whole number, one that reaches the share"
        return f"{here}: {'a shorter list would do' if holds >= share else 'it is too short'}"
    return ""


@exercise("7.4")
def recall_of_rankings(answer) -> str:
    """``answer(true, found)``: for each query a row of ids, best first; the mean share of the true ten among the first ten found."""
    ten = list(range(10))
    cases = [
        ([ten], [ten[::-1]], "the order among the ten does not count"),
        ([ten], [[*range(5), *range(50, 55)]], "five of ten were found"),
        ([ten, list(range(10, 20))], [list(range(10, 20)), ten], "each query is compared with its own row"),
        ([ten], [[*range(50, 58), 0, 1, 2, 3]], "only the first ten of what was found count"),
        ([ten, ten], [ten, list(range(50, 60))], "the mean over queries is asked for"),
    ]
    for true, found, why in cases:
        share = a_number(returned(answer, [list(row) for row in true], [list(row) for row in found]))
        expected = sum(len(set(best) & set(row[:10])) / 10 for best, row in zip(true, found, strict=True)) / len(true)
        if math.isclose(share, expected, abs_tol=1e-6):
            continue
        if expected and math.isclose(share, 100 * expected):
            return "that is in percent; a share lies between 0 and 1"
        if expected and math.isclose(share, 10 * expected):
            return "that counts pages; divide by the ten that could be found"
        return f"you say {share:.2f} where it is {expected:.2f}: {why}"
    return ""
