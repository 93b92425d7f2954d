"""Exercises of appendix 1: gradients apart, mini-batches by tokens, batches, a matrix product."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy
import torch

from vdr_exercises import asks_for_a_function, exercise
from vdr_exercises.answers import a_list, an_array

GENERATOR = torch.Generator().manual_seed(0)
LARGE, OTHER = torch.randn(2, 20, 30, generator=GENERATOR).unbind()
SMALL = 0.01 * torch.randn(40, generator=GENERATOR)
EXPECTED = {"patches": LARGE, "norm": SMALL}


def norms_of_differences(gradients, expected) -> list[float]:
    return [(gradients[name] - expected[name]).norm().item() for name in expected]


def norms(gradients) -> list[float]:
    return [tensor.norm().item() for tensor in gradients.values()]


@asks_for_a_function(
    "a1.1",
    inputs=[
        ({"patches": LARGE + 0.1 * OTHER, "norm": -SMALL}, EXPECTED),
        ({"patches": 3 * LARGE, "norm": 3 * SMALL}, EXPECTED),
        ({"norm": SMALL, "patches": LARGE}, EXPECTED),  # the same, in another order
    ],
    tolerance=1e-4,
    mistakes={
        "a mean over weights lets a small tensor count as much as a large one": (
            lambda gradients, expected: numpy.mean(
                numpy.divide(norms_of_differences(gradients, expected), norms(expected))
            )
        ),
        "what is small depends on the gradient, so divide by its length": (
            lambda gradients, expected: math.hypot(*norms_of_differences(gradients, expected))
        ),
        "that is the square; take the root": lambda gradients, expected: (
            (math.hypot(*norms_of_differences(gradients, expected)) / math.hypot(*norms(expected)))
            ** 2
        ),
    },
    otherwise="expected {expected}: the length of the difference through that of `expected`",
    another=lambda gradients, expected: (
        math.hypot(*norms_of_differences(gradients, expected)) / math.hypot(*norms(expected))
    ),
)
def apart_of_gradients(gradients, expected):
    """The length of the difference through that of ``expected``, all weights in one vector.

    Both are dictionaries, name of a weight to its gradient, a tensor.
    """
    first, second = (
        torch.cat([side[name].flatten() for name in expected]) for side in (gradients, expected)
    )
    return (first - second).norm() / second.norm()


def filled(lengths, fits) -> list[int]:
    """Sizes of mini-batches, each of which takes items while ``fits(tokens)``."""
    sizes, tokens = [0], 0
    for length in lengths:
        if sizes[-1] and not fits(tokens + length):
            sizes.append(0)
            tokens = 0
        sizes[-1] += 1
        tokens += length
    return sizes


def in_order_and_as_few(sizes, lengths, budget) -> bool:
    """Whether these mini-batches take all items, none above the budget, and there are no fewer."""
    try:
        ends = numpy.cumsum([0, *map(int, sizes)])
    except (TypeError, ValueError):
        return False
    tokens = [sum(lengths[begin:end]) for begin, end in itertools.pairwise(ends)]
    fewest = len(filled(lengths, lambda tokens: tokens <= budget))
    complete = ends[-1] == len(lengths) and min(sizes) > 0
    return bool(complete and max(tokens) <= budget and len(sizes) == fewest)


LENGTHS = [24, 31, 35, 200, 40, 210, 205, 22]


@asks_for_a_function(
    "a1.2",
    inputs=lambda measured, measured_budget: [
        (LENGTHS, 420),
        (LENGTHS, 210),
        ([50, 50, 50, 50], 200),
        (measured, measured_budget),
    ],
    returns=a_list,
    is_right=in_order_and_as_few,
    mistakes={
        "what is begun when the lengths end is a mini-batch too": (
            lambda lengths, budget: filled(lengths, lambda tokens: tokens <= budget)[:-1]
        ),
        "the budget itself may be reached": (
            lambda lengths, budget: filled(lengths, lambda tokens: tokens < budget)
        ),
        "equal numbers of items leave short ones alone; go on while the next one fits": (
            lambda lengths, budget: [
                len(lengths[begin : begin + budget // max(lengths)])
                for begin in range(0, len(lengths), budget // max(lengths))
            ]
        ),
    },
    otherwise="expected {expected}, or another way to cut with as few mini-batches",
    another=lambda lengths, budget: filled(lengths[::-1], lambda tokens: tokens <= budget)[::-1],
)
def mini_batches_by_tokens(lengths, budget):
    """How many items each mini-batch takes, in their order, so that there are as few as possible.

    ``lengths``: tokens of each item, none above ``budget``, the most that a mini-batch may hold.
    Padding does not count.
    """
    return filled(lengths, lambda tokens: tokens <= budget)


def in_each_column(rows, size):
    chosen = []
    for number, row in enumerate(rows):
        if all(row[name] != rows[other][name] for other in chosen for name in row):
            chosen.append(number)
    return chosen[:size]


def until_one_does_not_fit(rows, size):
    chosen, seen = [], set()
    for number, row in enumerate(rows):
        if seen & set(row.values()):
            break
        chosen.append(number)
        seen |= set(row.values())
    return chosen[:size]


def from_the_end(rows, size):
    chosen, seen = [], set()
    for number in reversed(range(len(rows))):
        if len(chosen) < size and not seen & set(rows[number].values()):
            chosen.append(number)
            seen |= set(rows[number].values())
    return chosen


def row(query: str, image: str, negative: str) -> dict:
    return {"query": query, "image": image, "negative_0": negative}


TRAIN_ROWS = [
    row("q0", "a", "b"),
    row("q1", "c", "a"),  # its negative is the page of row 0
    row("q2", "a", "d"),  # the page of row 0
    row("q3", "e", "b"),  # the negative of row 0
    row("q4", "f", "g"),
    row("q4", "h", "i"),  # the query of row 4
    row("q6", "j", "k"),
    row("q7", "l", "m"),
]


@exercise(
    "a1.3",
    mistakes={
        "the same query": lambda rows, size: list(range(4, 4 + size)),
        "compare values of all columns": in_each_column,
        "go on after a row that does not fit": until_one_does_not_fit,
    },
    another=from_the_end,
)
def batch_without_duplicates(answer, measured) -> str:
    """``answer(rows, size)``: the numbers of ``size`` rows of which no two share a value.

    ``rows``: dictionaries, column to text or name of a page. Any such choice is right.
    """
    measured = [dict(row) for row in measured]
    possible = len(from_the_end(measured, 16))  # a run with few rows may not have sixteen
    for rows, size in ((TRAIN_ROWS, 4), (TRAIN_ROWS, 2), (measured, (possible + 1) // 2)):
        chosen = list(map(int, a_list(answer([dict(row) for row in rows], size))))
        if not set(chosen) <= set(range(len(rows))) or len(set(chosen)) != len(chosen):
            return f"expected different row numbers below {len(rows)}, found {chosen}"
        first_with: dict[str, tuple[int, str]] = {}
        for number in chosen:
            for column, value in rows[number].items():
                other, other_column = first_with.setdefault(value, (number, column))
                if other == number:
                    continue
                if column == other_column:
                    return f"rows {other} and {number} have the same {column}"
                return (
                    f"{other_column} of row {other} is {column} of row {number}: "
                    "compare values of all columns"
                )
        if len(chosen) != size:
            return (
                f"expected {size} rows, found {len(chosen)}: go on after a row that does not fit, "
                "and stop when there are enough"
            )
    return ""


def nearly_equal(found, expected, *inputs) -> bool:
    return numpy.allclose(found, expected, rtol=1e-3, atol=1e-3 * numpy.abs(expected).mean())


def patches_and_weights(pixel_values, convolution) -> list[tuple]:
    """The notebook's patches, and its convolution with a bias that is never near zero."""
    weight = convolution.weight.detach().float().cpu()
    bias = weight.abs().mean() * torch.linspace(1, 3, len(weight))
    return [(pixel_values[:40].detach().float().cpu(), weight, bias)]


@asks_for_a_function(
    "a1.4",
    inputs=patches_and_weights,
    returns=an_array,
    alike=nearly_equal,
    mistakes={
        "the bias is missing: a convolution adds it to every output": (
            lambda patches, weight, bias: patches @ weight.flatten(1).T
        ),
        "`reshape` does not turn a matrix: make a row per output, then transpose with `.T`": (
            lambda patches, weight, bias: patches @ weight.reshape(-1, len(weight)) + bias
        ),
    },
    otherwise="every output is the sum of a patch's values times its own weights, plus its bias",
    another=lambda patches, weight, bias: torch.nn.functional.linear(
        patches, weight.flatten(1), bias
    ),
)
def patches_by_product(patches, weight, bias):
    """What the convolution makes of patches, (patches, out).

    ``patches``: (patches, values of a patch); ``weight``: (out, channels, frames, height, width),
    as large as a patch; ``bias``: (out).
    """
    patches = patches.view(-1, *weight.shape[1:])
    return torch.nn.functional.conv3d(patches, weight, bias, stride=weight.shape[2:]).flatten(1)


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of appendix 1."""
    weight = torch.randn(8, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return {
        "torch": torch,
        "columns": [None, {"attention_mask": torch.ones(4, 42, dtype=torch.int64)}],
        "three_pages": 3 * 42,
        "few_rows": [
            row(f"q{number}", f"p{number // 2}", f"p{number + 1}") for number in range(96)
        ],
        "page_keys": list,
        "pixel_values": torch.randn(12, 96, generator=torch.Generator().manual_seed(0)),
        "patch_embedding": SimpleNamespace(proj=SimpleNamespace(weight=weight)),
    }
