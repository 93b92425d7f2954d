"""Exercises of notebook 03: candidates of a contrastive loss, Matryoshka, and steps of a run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

from vdr_exercises import asks_for_a_function, asks_for_a_number
from vdr_exercises.answers import a_number, a_pair


@asks_for_a_number(
    "3.1",
    mistakes=lambda rows: {
        "the hard negative of every row is a candidate too": math.log(rows),
        "the hard negatives of the other rows are candidates too": math.log(rows + 1),
        "cross-entropy takes the natural logarithm, `math.log`": math.log2(2 * rows),
    },
    otherwise="from how many pages does a query choose? The loss is the logarithm of that number",
    another=-math.log2(1 / 128) * math.log(2),
    tolerance=0.006,
)
def loss_of_guessing(rows):
    """The loss where every page has the same score, in a batch with one hard negative per row."""
    return math.log(2 * rows)


@asks_for_a_function(
    "3.2",
    inputs=[(4, 2), (64, 1), (64, 4), (16, 0)],
    mistakes={
        "each query sees the hard negatives of all rows, not only its own": (
            lambda rows, negatives: rows + negatives
        ),
        "the hard negatives are candidates too": lambda rows, negatives: rows,
        "the positives are candidates too, one per row": lambda rows, negatives: rows * negatives,
    },
    otherwise="expected {expected}: every query chooses from all pages of all rows",
    another=lambda rows, negatives: sum(1 + negatives for _ in range(rows)),
)
def candidates_of_a_batch(rows, hard_negatives):
    """The number of pages that each query chooses from."""
    return rows * (1 + hard_negatives)


def contrastive_loss(queries, pages):
    """The loss of the notebook's first cell, for one positive per query."""
    queries, pages = (torch.nn.functional.normalize(side, dim=1) for side in (queries, pages))
    return torch.nn.functional.cross_entropy(20 * queries @ pages.T, torch.arange(len(queries)))


QUERIES, NOISE = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1)).unbind()


@asks_for_a_function(
    "3.3",
    inputs=[(QUERIES, QUERIES + NOISE, [32, 24, 8], contrastive_loss)],
    tolerance=1e-3,
    mistakes={
        "that is the mean; the losses of all lengths are added": (
            lambda queries, pages, dims, loss: (
                sum(loss(queries[:, :dim], pages[:, :dim]) for dim in dims) / len(dims)
            )
        ),
        "cut the columns, `[:, :dim]`, not the rows": (
            lambda queries, pages, dims, loss: sum(loss(queries[:dim], pages[:dim]) for dim in dims)
        ),
        "that is the loss of one length; is the `return` inside the loop?": (
            lambda queries, pages, dims, loss: loss(queries[:, : dims[0]], pages[:, : dims[0]])
        ),
    },
    otherwise="expected {expected}, the sum of the losses of the first `dim` columns",
    another=lambda queries, pages, dims, loss: torch.stack(
        [loss(queries.narrow(1, 0, dim), pages.narrow(1, 0, dim)) for dim in dims]
    ).sum(),
)
def matryoshka_sum(queries, pages, dims, loss):
    """The sum of ``loss`` over the first ``dim`` dimensions of both, for each of ``dims``."""
    return sum(loss(queries[:, :dim], pages[:, :dim]) for dim in dims)


def with_warmup(steps, share):
    return steps, math.ceil(share * steps)


@asks_for_a_function(
    "3.4",
    inputs=[(2048, 64, 1, 0.1), (10_000, 64, 1, 0.1), (100, 32, 3, 0.25), (65, 32, 2, 0.1)],
    returns=a_pair(a_number, "the steps, then the warm-up steps"),
    mistakes={
        "what is left at the end of an epoch is a step too, a smaller one": (
            lambda rows, per_step, epochs, share: with_warmup(epochs * (rows // per_step), share)
        ),
        "every epoch ends with a step of its own, so round up before you multiply": (
            lambda rows, per_step, epochs, share: with_warmup(
                math.ceil(epochs * rows / per_step), share
            )
        ),
        "the trainer rounds the warm-up up": (
            lambda rows, per_step, epochs, share: (
                epochs * math.ceil(rows / per_step),
                int(share * epochs * math.ceil(rows / per_step)),
            )
        ),
    },
    otherwise="expected {expected}: an epoch goes once through all rows, both are rounded up",
    another=lambda rows, per_step, epochs, share: with_warmup(
        sum(len(range(0, rows, per_step)) for _ in range(epochs)), share
    ),
)
def steps_of_a_run(rows, rows_per_step, epochs, warmup):
    """The steps of a run and those of its warm-up, as the trainer counts them."""
    return with_warmup(epochs * math.ceil(rows / rows_per_step), warmup)


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 03."""
    return {"math": math, "profile": SimpleNamespace(per_device_train_batch_size=64)}
