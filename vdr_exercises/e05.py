"""Exercises of notebook 05: truncated vectors, their lengths, and the width to keep."""

from __future__ import annotations

from itertools import takewhile

import torch

from vdr_exercises import asks_for_a_function, asks_for_a_number
from vdr_exercises.answers import an_array


@asks_for_a_number(
    "5.1",
    mistakes=lambda models, widths: {
        "a shorter vector is the head of the long one: slice it": models * widths,
        "two models give two different vectors for a page: each has to read it": 1,
        "every width of one model is a slice; what cannot be sliced out of another's?": widths,
    },
    otherwise="how often does a page go through a network, when all widths are slices?",
    another=2,
)
def times_encoded(models, widths):
    """How often a page is encoded to score ``models`` models at ``widths`` widths each."""
    return models


@asks_for_a_function(
    "5.2",
    inputs=lambda vectors: [
        (vectors, width) for width in (vectors.shape[1] // 2, vectors.shape[1] // 16, 1)
    ],
    returns=an_array,
    tolerance=1e-3,
    mistakes={
        "truncated, but not of length 1: slice first, then normalise": (
            lambda vectors, width: vectors[:, :width]
        ),
        "each column got length 1; it is the pages that need it: norm along `dim=1`": (
            lambda vectors, width: vectors[:, :width] / vectors[:, :width].norm(dim=0)
        ),
        "all pages were divided by one number; take the norm along `dim=1`, `keepdim=True`": (
            lambda vectors, width: vectors[:, :width] / vectors[:, :width].norm()
        ),
    },
    otherwise="each row is its first dimensions, divided by their length",
    another=lambda vectors, width: torch.nn.functional.normalize(vectors[:, :width]).numpy(),
)
def cut_for_dot_products(vectors, width):
    """The first ``width`` dimensions of each row of a tensor, with length 1."""
    return vectors[:, :width] / vectors[:, :width].norm(dim=1, keepdim=True)


CURVE = {256: 0.98, 128: 0.97, 64: 0.95, 32: 0.94, 16: 0.90}
FALLING = {256: 0.80, 128: 0.79, 64: 0.77, 32: 0.70, 16: 0.60}
NARROW_FIRST = dict(sorted(FALLING.items()))
DIPPING = {256: 0.90, 128: 0.80, 64: 0.88, 32: 0.50}


@asks_for_a_function(
    "5.3",
    inputs=lambda measured: [
        (CURVE, 0.95),
        (FALLING, 0.95),
        (FALLING, 0.85),
        (NARROW_FIRST, 0.95),
        (DIPPING, 0.95),
        (FALLING, 0.999),
        (measured, 0.95),
    ],
    case=lambda curve, share: (
        f"scores {', '.join(f'{width}: {score:.2f}' for width, score in curve.items())}, "
        f"{share:.1%} to keep"
    ),
    mistakes={
        "a width above it falls short, so stop there: a lucky width may pass by chance": (
            lambda curve, share: min(
                width for width in curve if curve[width] >= share * curve[max(curve)]
            )
        ),
        "the share is one of the score at full width, not of 1": (
            lambda curve, share: min(
                [width for width in curve if curve[width] >= share], default=max(curve)
            )
        ),
        "that is the first width that falls short; the last one before it is asked for": (
            lambda curve, share: max(
                [width for width in curve if curve[width] < share * curve[max(curve)]], default=0
            )
        ),
    },
    otherwise="expected {expected}, the last width before a score is too low",
    another=lambda curve, share: min(
        width
        for width in curve
        if all(curve[w] >= share * curve[max(curve)] for w in curve if w >= width)
    ),
)
def narrowest_that_keeps(curve, share):
    """Going down from full width, the last one before a score below ``share`` of the full one."""
    widths = sorted(curve, reverse=True)
    return list(takewhile(lambda width: curve[width] >= share * curve[widths[0]], widths))[-1]


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 05."""
    vectors = torch.randn(20, 256, generator=torch.Generator().manual_seed(0))
    return {
        "takewhile": takewhile,
        "dims": [256, 192, 128, 64, 32, 16, 8],
        "embeddings": dict.fromkeys(
            ("base", "tuned"), (None, torch.nn.functional.normalize(vectors))
        ),
        "means": {"tuned": {256: 0.94, 192: 0.941, 128: 0.938, 64: 0.93, 32: 0.92, 16: 0.89}},
    }
