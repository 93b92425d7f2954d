"""Exercises of notebook 05: cut vectors, their lengths, and the width to keep."""

from __future__ import annotations

import math

import numpy

from vdr_exercises import NotYet, a_number, exercise, returned


@exercise("5.1")
def times_encoded(answer, models: int, widths: int) -> str:
    """How often the pages are encoded to score ``models`` models at ``widths`` widths each: once per model."""
    count = a_number(answer)
    if count == models:
        return ""
    if count == models * widths:
        return "a shorter vector is the head of the long one: slice it, and nothing has to be encoded again"
    if count == 1:
        return "two models give two different vectors for a page: each has to read it"
    if count == widths:
        return "every width is a slice of one encoding; what is it that cannot be sliced out of another's vectors?"
    return "how often must a page go through a network, when all widths of one model are slices of the same vector?"


def _array(found) -> numpy.ndarray:
    """A learner's vectors, from numpy or torch, as float64."""
    try:
        return numpy.asarray(found, dtype=float)
    except (TypeError, ValueError):
        raise NotYet(f"vectors are asked for, one a row, and the type of yours is {type(found).__name__}") from None


@exercise("5.2")
def cut_for_dot_products(answer, vectors) -> str:
    """``answer(vectors, width)``: the first ``width`` numbers of each row, with length 1. ``vectors`` (rows, numbers) is a torch tensor."""
    for dim in (vectors.shape[1] // 2, vectors.shape[1] // 16, 1):
        head = vectors[:, :dim].double().numpy()
        lengths = numpy.linalg.norm(head, axis=1, keepdims=True)
        found = _array(returned(answer, vectors.clone(), dim))
        if found.shape != head.shape:
            turned = " (rows were cut, not columns: `[:, :width]`)" if found.shape == vectors[:dim].shape else ""
            return f"{len(head)} vectors of {dim} numbers are asked for; the shape is {found.shape}{turned}"
        if numpy.allclose(found, head / lengths, atol=1e-3):
            continue
        whole = numpy.linalg.norm(vectors.double().numpy(), axis=1, keepdims=True)
        if numpy.allclose(found, head, atol=1e-4) or numpy.allclose(found, head / whole, atol=1e-3):
            return f"cut, but not of length 1: the first page has {numpy.linalg.norm(found[0]):.2f}. Slice first, then normalise"
        if numpy.allclose(found, head / lengths**2, rtol=1e-2):
            return "divide by the length, not by its square: the root of the sum of squares"
        if numpy.allclose(found, head / numpy.linalg.norm(head, axis=0), atol=1e-3):
            return "each column got length 1; it is the pages that need it, so take the norm along `dim=1`"
        if numpy.allclose(found, head / numpy.linalg.norm(head), atol=1e-3):
            return "all pages were divided by one number; each has a length of its own: norm along `dim=1`, with `keepdim=True`"
        return f"the first page should be its first {dim} numbers through {lengths[0, 0]:.3f}, their length"
    return ""


def _narrowest(curve: dict, share: float) -> int:
    widths = sorted(curve, reverse=True)
    chosen = widths[0]
    for dim in widths[1:]:
        if curve[dim] < share * curve[widths[0]]:
            break
        chosen = dim
    return chosen


@exercise("5.3")
def narrowest_that_keeps(answer, measured: dict) -> str:
    """``answer(curve, share)``: going down from the full width, the last one before a score below ``share`` of the full width's."""
    high = {256: 0.98, 128: 0.97, 64: 0.95, 32: 0.94, 16: 0.90}
    falls = {256: 0.80, 128: 0.79, 64: 0.77, 32: 0.70, 16: 0.60}
    dips = {256: 0.90, 128: 0.80, 64: 0.88, 32: 0.50}
    rises = dict(sorted(falls.items()))  # the narrowest first
    for curve, share in (
        (high, 0.95),
        (falls, 0.95),
        (falls, 0.85),
        (rises, 0.95),
        (dips, 0.95),
        (falls, 0.999),
        (dict(measured), 0.95),
    ):
        found, expected = a_number(returned(answer, dict(curve), share)), _narrowest(curve, share)
        if found == expected:
            continue
        scores = ", ".join(f"{dim}: {score:.2f}" for dim, score in curve.items())
        here = f"for {{{scores}}} and {share:.1%} you say {found:g}"
        full = curve[max(curve)]
        if found not in curve:
            return f"{here}: that is none of the widths; the width is asked for, not its score"
        if curve is dips and found == 64:
            return f"{here}: it passes, but 128 above it does not, and so a lucky width wins: stop at the first that fails"
        if found == max((dim for dim, score in curve.items() if score < share * full), default=math.nan):
            return f"{here}: that is the first width that fails; the last one before it is asked for"
        if found == min((dim for dim, score in curve.items() if score >= share), default=math.nan):
            return f"{here}: the share is one of the score at full width, {full:.2f}, not of 1"
        if found == max(curve):
            return f"{here}: the full width keeps everything, but a narrower one keeps enough"
        return f"{here}: the full width has {full:.2f}, so at least {share * full:.3f} is asked for"
    return ""
