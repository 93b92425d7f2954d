"""Exercises of notebook 01: the vector of an input, the tokens of a page, and the cosine."""

from __future__ import annotations

import math

import numpy

from vdr_exercises import asks_for_a_function
from vdr_exercises.answers import an_array

VECTORS = numpy.random.default_rng(0).normal(size=(3, 6, 4)).round(2)
PADDED_RIGHT = numpy.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]])
PADDED_LEFT = PADDED_RIGHT[:, ::-1]


@asks_for_a_function(
    "1.1",
    inputs=[(VECTORS, PADDED_RIGHT), (VECTORS, PADDED_LEFT)],
    returns=an_array,
    mistakes={
        "the last place holds padding: find the last place whose mask is 1": (
            lambda vectors, mask: vectors[:, -1]
        ),
        "how many tokens a text has does not say where its last one stands": (
            lambda vectors, mask: vectors[range(len(vectors)), mask.sum(axis=1) - 1]
        ),
    },
    otherwise="expected {expected}, the vectors of the last places whose mask is 1",
    another=lambda vectors, mask: [
        text[real.nonzero()[0].max()] for text, real in zip(vectors, mask, strict=True)
    ],
)
def last_real_token(vectors, mask):
    """The vector of each text's last token that is no padding, (texts, dimensions).

    ``vectors``: (texts, tokens, dimensions); ``mask``: (texts, tokens), 1 for a token of the text
    and 0 for padding, on either side.
    """
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    return vectors[range(len(vectors)), last]


@asks_for_a_function(
    "1.2",
    inputs=[(320, 448), (410, 570), (384, 200), (1000, 1403)],
    mistakes={
        "these are patches of 16 pixels, and four of them are merged into one token": (
            lambda width, height: round(width / 16) * round(height / 16)
        ),
        "each side is rounded by itself, so that there are whole rows and columns": (
            lambda width, height: width * height / 32**2
        ),
        "a side is rounded to the nearest multiple of 32, not down": (
            lambda width, height: (width // 32) * (height // 32)
        ),
    },
    otherwise="expected {expected}: columns of 32 pixels times rows of 32 pixels",
    another=lambda width, height: ((width + 16) // 32) * ((height + 16) // 32),
)
def tokens_of_a_page(width, height):
    """Image tokens of a page that need not be shrunk; sides round to multiples of 32 pixels."""
    return round(width / 32) * round(height / 32)


PAIRS = [([1, 0], [0, 2]), ([3, 4], [3, 4]), ([1, 2, 2], [-2, -4, -4]), ([2, 1, 2], [1, 2, 2])]


@asks_for_a_function(
    "1.3",
    inputs=lambda query, page: [
        (numpy.array(first, dtype=float), numpy.array(second, dtype=float))
        for first, second in [*PAIRS, (query, page)]
    ],
    tolerance=1e-3,
    mistakes={
        "that is the dot product: divide it by both lengths": lambda first, second: first @ second,
        "a length is the square root of the sum of squares": (
            lambda first, second: (first @ second) / (first @ first) / (second @ second)
        ),
    },
    otherwise="expected {expected}, the dot product divided by the product of both lengths",
    another=lambda first, second: sum(
        (first / numpy.linalg.norm(first)) * (second / numpy.linalg.norm(second))
    ),
)
def cosine_by_hand(first, second):
    """The cosine of two numpy vectors; the cell hands in one of a query and one of a page."""
    return first @ second / math.sqrt((first @ first) * (second @ second))


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 01."""
    query_embeddings, page_embeddings = numpy.random.default_rng(0).normal(size=(2, 3, 16))
    return {"query_embeddings": query_embeddings, "page_embeddings": page_embeddings}
