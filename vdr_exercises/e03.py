"""Exercises of notebook 03: the candidates of a contrastive loss, its seven lengths, and the steps of a run."""

from __future__ import annotations

import math

import torch

from vdr_exercises import a_number, exercise, returned, two


@exercise("3.1")
def loss_of_guessing(answer, rows: int) -> str:
    """The contrastive loss of a model that gives every page the same score, in a batch of ``rows`` with one hard negative each."""
    loss = a_number(answer)

    def near(value):
        return math.isclose(loss, value, abs_tol=0.006)

    if near(math.log(2 * rows)):
        return ""
    if near(math.log(rows)):
        return f"that counts {rows} candidates: the hard negative of every row is a candidate too"
    if near(math.log(1 + rows)):
        return "that counts one hard negative; those of the other rows are in the batch as well, for every query"
    if near(math.log2(2 * rows)):
        return "cross-entropy takes the natural logarithm, `math.log`"
    if near(1 / (2 * rows)):
        return "that is the probability of the right page; the loss is minus its logarithm"
    if near(7 * math.log(2 * rows)):
        return "that is the sum of seven lengths, which comes in the next section; one loss is asked for"
    return "how many pages does a query choose from? The loss is the logarithm of that number"


@exercise("3.2")
def candidates_of_a_batch(answer) -> str:
    """``answer(rows, hard_negatives)``: pages that each query chooses from, ``rows * (1 + hard_negatives)``."""
    for rows, negatives in ((4, 2), (64, 1), (64, 4), (16, 0)):
        found = a_number(returned(answer, rows, negatives))
        if found == rows * (1 + negatives):
            continue
        here = f"{rows} rows with {negatives} hard negatives each give {found:g}"
        if found == rows + negatives:
            return f"{here}: each query sees the hard negatives of all rows, not only its own"
        if found == rows:
            return f"{here}: the hard negatives are candidates too"
        if found == rows * negatives:
            return f"{here}: the positives are candidates too, one a row"
        if found == rows * (1 + negatives) - 1:
            return f"{here}: its own page is one of those to choose from"
        return f"{here}: each row brings one positive and its hard negatives, and every query chooses from all of them"
    return ""


def _contrastive(queries: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
    """The loss of the notebook's first cell, for a positive per query."""
    logits = 20 * torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(pages, dim=1).T
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(queries)))


@exercise("3.3")
def matryoshka_sum(answer) -> str:
    """``answer(queries, pages, dims, contrastive)``: the sum of ``contrastive`` over the first ``dim`` columns of both, for each dim."""
    queries, noise = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1)).unbind()
    pages, dims = queries + noise, (32, 24, 8)

    def at(columns):
        return _contrastive(queries[:, columns], pages[:, columns]).item()

    found = a_number(returned(answer, queries.clone(), pages.clone(), list(dims), _contrastive))
    losses = [at(slice(dim)) for dim in dims]

    def near(value):
        return math.isclose(found, value, rel_tol=1e-3)

    if near(sum(losses)):
        return ""
    if near(sum(losses) / len(losses)):
        return "that is the mean; the losses of all lengths are added"
    if near(len(dims) * losses[0]):
        return "every term is that of the whole vector: cut the columns, `[:, :dim]`, not the rows"
    if near(sum(at(slice(-dim, None)) for dim in dims)):
        return "these are the last numbers; a vector is cut to its first ones"
    if near(at(slice(0, 8)) + at(slice(8, 24)) + at(slice(24, 32))):
        return "these are separate blocks; every length starts at the first number"
    if near(losses[0]) or near(losses[-1]):
        return "that is the loss at one length; is the `return` inside the loop, or the sum begun anew in it?"
    if near(sum(losses[1:])):
        return "the whole vector is one of the lengths"
    return f"{found:.2f} is not the sum of {', '.join(f'{loss:.2f} at {dim}' for loss, dim in zip(losses, dims, strict=True))}"


@exercise("3.4")
def steps_of_a_run(answer) -> str:
    """``answer(rows, rows_per_step, epochs, warmup)``: steps of the run, and steps of its warm-up, as the trainer counts them."""
    for rows, per_step, epochs, share in ((2048, 64, 1, 0.1), (10_000, 64, 1, 0.1), (100, 32, 3, 0.25), (65, 32, 2, 0.1)):
        steps, warmup = map(a_number, two(returned(answer, rows, per_step, epochs, share), "the steps, then the warm-up steps"))
        in_epoch = math.ceil(rows / per_step)
        here = f"{rows:,} rows, {per_step} a step, {epochs} epochs: {steps:g} steps"
        if steps != epochs * in_epoch:
            if steps == epochs * (rows // per_step):
                return f"{here}: what is left at the end of an epoch is a step too, a smaller one"
            if steps == epochs * rows / per_step:
                return f"{here}: there are only whole steps; the last one of an epoch is smaller"
            if steps == in_epoch:
                return f"{here}: that is one epoch"
            if steps == math.ceil(epochs * rows / per_step):
                return f"{here}: every epoch ends with a step of its own, so round up before you multiply"
            return f"{here}: an epoch goes once through all rows"
        if warmup != math.ceil(steps * share):
            here = f"{here}, {warmup:g} for the warm-up of {share:g}"
            if math.isclose(warmup, steps * share) or warmup in (math.floor(steps * share), round(steps * share)):
                return f"{here}: the trainer rounds up"
            if warmup == math.ceil(rows * share):
                return f"{here}: the share is one of the steps, not of the rows"
            return f"{here}: a share below 1 is that part of all steps"
    return ""
