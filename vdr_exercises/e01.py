"""Exercises of notebook 01: the vector that stands for an input, the tokens of a page, and the cosine."""

from __future__ import annotations

import math

import numpy

from vdr_exercises import NotYet, a_number, exercise, returned


@exercise("1.1")
def last_real_token(answer) -> str:
    """``answer(vectors, mask)``: the vector of each text's last token that is no filling, (texts, numbers).

    ``vectors``: (texts, tokens, numbers); ``mask``: (texts, tokens), 1 for a token of the text and 0 for filling, on either side.
    """
    vectors = numpy.random.default_rng(0).normal(size=(3, 6, 4)).round(2)
    filled_right = numpy.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]])
    for mask, side in ((filled_right, "right"), (filled_right[:, ::-1].copy(), "left")):
        expected = numpy.stack([row[real.nonzero()[0].max()] for row, real in zip(vectors, mask, strict=True)])
        try:
            found = numpy.asarray(returned(answer, vectors.copy(), mask.copy()), dtype=float)
        except (TypeError, ValueError) as error:
            raise NotYet(f"one vector a text is asked for, {expected.shape} in all ({error})") from None
        if found.shape != expected.shape:
            return f"one vector a text is asked for, {expected.shape} in all; the shape is {found.shape}"
        if numpy.allclose(found, expected):
            continue
        here = f"where short texts are filled on the {side}"
        if numpy.allclose(found, vectors[:, -1]):
            return f"{here}, the last place holds filling: find the last place whose mask is 1"
        if numpy.allclose(found, vectors[range(3), mask.sum(axis=1) - 1]):
            return f"{here}, the number of tokens does not say where the last one stands: find the last place whose mask is 1"
        if numpy.allclose(found, vectors[range(3), mask.argmax(axis=1)]) or numpy.allclose(found, vectors[:, 0]):
            return f"{here}: that is the first token, which has seen nothing but itself"
        if numpy.allclose(found, (vectors * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)):
            return "that is the mean over tokens, another way to pool; this model takes the last token"
        return f"{here}, the first text should have {expected[0].tolist()}, and has {found[0].round(2).tolist()}"
    return ""


@exercise("1.2")
def tokens_of_a_page(answer) -> str:
    """``answer(width, height)``: image tokens of a page that is small enough, each side rounded to the nearest multiple of 32 pixels."""
    for width, height in ((320, 448), (410, 570), (384, 200), (1000, 1403)):
        columns, rows = round(width / 32), round(height / 32)
        found = a_number(returned(answer, width, height))
        if found == columns * rows:
            continue
        here = f"{width} x {height} pixels: you say {found:g} tokens"
        if found in (round(width / 16) * round(height / 16), 4 * columns * rows):
            return f"{here}; these are patches of 16 pixels, and four of them are merged into one token"
        if found == columns + rows:
            return f"{here}; rows times columns, not their sum"
        if math.isclose(found, width * height / 32**2) or found == width * height // 32**2:
            return f"{here}; each side is rounded by itself, so that there are whole rows and columns"
        if found == (width // 32) * (height // 32):
            return f"{here}; a side is rounded to the nearest multiple of 32, not down"
        if found == math.ceil(width / 32) * math.ceil(height / 32):
            return f"{here}; a side is rounded to the nearest multiple of 32, not up"
        if found == width * height:
            return f"{here}; these are pixels, and 32 x 32 of them make a token"
        return f"{here}; it is {columns} columns of 32 pixels and {rows} rows, so {columns * rows}"
    return ""


@exercise("1.3")
def cosine_by_hand(answer, query, page) -> str:
    """``answer(first, second)``: the cosine of two numpy vectors of any length; ``query`` and ``page`` are two of the model's."""
    pairs = [([1, 0], [0, 2]), ([3, 4], [3, 4]), ([1, 2, 2], [-2, -4, -4]), ([2, 1, 2], [1, 2, 2]), (query, page)]
    for first, second in ((numpy.array(a, dtype=float), numpy.array(b, dtype=float)) for a, b in pairs):
        found, dot = a_number(returned(answer, first.copy(), second.copy())), float(first @ second)
        lengths = math.sqrt(first @ first), math.sqrt(second @ second)
        expected = dot / (lengths[0] * lengths[1])
        if math.isclose(found, expected, abs_tol=1e-3):
            continue
        here = (
            f"{first.tolist()} and {second.tolist()} give {found:.2f}" if len(first) < 4 else f"query and page give {found:.2f}"
        )
        if math.isclose(found, dot):
            return f"{here}, their dot product: divide by both lengths"
        if math.isclose(found, dot / (lengths[0] * lengths[1]) ** 2):
            return f"{here}: a length is the square root of the sum of squares"
        if math.isclose(found, 1 - expected):
            return f"{here}: that is a distance, 1 minus the cosine; equal directions have the cosine 1"
        if math.isclose(found, dot / lengths[0]) or math.isclose(found, dot / lengths[1]):
            return f"{here}: divide by the lengths of both"
        if math.isclose(found, math.sqrt(((first - second) ** 2).sum())):
            return f"{here}: that is how far apart the points lie; the cosine compares directions"
        if math.isclose(found, abs(expected)):
            return f"{here}: opposite directions have a negative cosine"
        return f"{here}, and their cosine is {expected:.2f}: the dot product through the product of both lengths"
    return ""
