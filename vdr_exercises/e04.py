"""Exercises of notebook 04: scores of queries, and how sure a number is."""

from __future__ import annotations

import math

from vdr_exercises import exercise


@exercise("4.1")
def third_place(answer) -> str:
    """What a query adds to the mean whose right page stands in third place: ``1 / log2(1 + 3)``."""
    if math.isclose(answer, 1 / 2**2, abs_tol=0.005) or math.isclose(answer, 1 / 3, abs_tol=0.005):
        return "1 / rank is MRR; NDCG divides by a logarithm, which falls more slowly"
    if math.isclose(answer, 1 / math.log2(3), abs_tol=0.005):
        return "that is second place: the logarithm is of 1 + rank, and the rank is 3"
    return "" if math.isclose(answer, 1 / math.log2(1 + 3), abs_tol=0.005) else "1 / log2(1 + rank), with the rank counted from 1"
