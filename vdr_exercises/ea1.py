"""Exercises of appendix 1: how far gradients are apart, mini-batches by tokens, a batch without duplicates, a matrix product."""

from __future__ import annotations

import math

import numpy
import torch

from vdr_exercises import NotYet, a_number, exercise, returned


def _length(tensors) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


@exercise("a1.1")
def apart_of_gradients(answer) -> str:
    """``answer(gradients, expected)``: the length of their difference through that of ``expected``, all weights in one vector.

    Both are dictionaries, name of a weight to its gradient, a tensor.
    """
    generator = torch.Generator().manual_seed(0)
    large, small = torch.randn(20, 30, generator=generator), 0.01 * torch.randn(40, generator=generator)
    expected = {"patches": large, "norm": small}
    cases = [
        ({"patches": 3 * large, "norm": 3 * small}, expected),
        ({"patches": large + 0.1 * torch.randn(20, 30, generator=generator), "norm": -small}, expected),
        ({"norm": small, "patches": large}, expected),  # the same, in another order
    ]
    for gradients, right in cases:
        given = [{name: tensor.clone() for name, tensor in side.items()} for side in (gradients, right)]
        found = a_number(returned(answer, *given))
        differences = {name: gradients[name] - right[name] for name in right}
        apart, whole = _length(differences.values()), _length(right.values())

        def near(value, found=found):
            return math.isclose(found, value, rel_tol=1e-3, abs_tol=1e-6)

        if near(apart / whole):
            continue
        each = [_length([differences[name]]) / _length([right[name]]) for name in right]
        here = f"you say {found:.4g}, and it is {apart / whole:.4g}"
        if near(sum(each) / len(each)):
            return f"{here}: a mean over weights lets a small tensor count as much as a large one; take all numbers together"
        if near(max(each)):
            return f"{here}: that is the weight that is furthest apart; take the numbers of all weights together"
        if near(apart):
            return f"{here}: that is the length of the difference; what is small depends on the gradient, so divide by its length"
        if near((apart / whole) ** 2):
            return f"{here}: that is the square; take the root"
        if near(apart / _length(gradients.values())):
            return f"{here}: divide by the length of the second, which is what was expected"
        if near(sum(_length([differences[name]]) for name in right) / sum(_length([right[name]]) for name in right)):
            return f"{here}: lengths of parts do not add up; add the squares, then take the root"
        if near(max(float(difference.abs().max()) for difference in differences.values())):
            return f"{here}: that is the largest single difference, in the gradient's own unit; a share is asked for"
        if near(0) and apart / whole > 1:
            return f"{here}: the first is three times the second: the same direction, and another gradient"
        return f"{here}: the length of the difference through the length of what was expected"
    return ""


def _greedy(lengths, fits) -> list[int]:
    """Sizes of mini-batches that are filled one after the other as long as ``fits(lengths in it)``."""
    sizes, held = [], []
    for length in lengths:
        if held and not fits([*held, length]):
            sizes.append(len(held))
            held = []
        held.append(length)
    return [*sizes, len(held)]


@exercise("a1.2")
def mini_batches_by_tokens(answer, measured, measured_budget: int) -> str:
    """``answer(lengths, budget)``: how many items each mini-batch takes, in their order, so that there are as few as possible.

    ``lengths``: tokens of each item, none above ``budget``, the most that a mini-batch may hold. Padding does not count.
    """
    mixed = [24, 31, 35, 200, 40, 210, 205, 22]
    cases = [(mixed, 420), (mixed, 210), ([50, 50, 50, 50], 200), (list(measured), measured_budget)]
    for lengths, budget in cases:
        found = returned(answer, list(lengths), budget)
        try:
            sizes = [int(a_number(size)) for size in found]
        except TypeError:
            raise NotYet(f"a list is asked for, and the type of yours is {type(found).__name__}") from None
        here, fewest = f"{lengths} with a budget of {budget}", _greedy(lengths, lambda held, budget=budget: sum(held) <= budget)
        if sum(sizes) != len(lengths) or min(sizes, default=0) < 1:
            if sizes == fewest[:-1]:
                return f"{here}: {sizes} leaves the last items out; what is begun when the lengths end is a mini-batch too"
            if sum(sizes) == sum(lengths):
                return f"{here}: {sizes} counts tokens; return how many items each mini-batch takes"
            if 0 in sizes:
                return f"{here}: {sizes} has a mini-batch without an item; an item may fill the budget to the last token"
            return f"{here}: {sizes} is {sum(sizes)} items, and there are {len(lengths)}"
        ends = numpy.cumsum(sizes)
        tokens = [sum(lengths[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
        if max(tokens) > budget:
            return f"{here}: {sizes} holds {max(tokens)} tokens in one mini-batch"
        if len(sizes) == len(fewest):
            continue
        here = f"{here}: {sizes} is {len(sizes)} mini-batches, and {len(fewest)} would do"
        if sizes == _greedy(lengths, lambda held, budget=budget: len(held) * max(held) <= budget):
            return f"{here}: that pads every item to the longest; the budget counts tokens without padding"
        if sizes == _greedy(lengths, lambda held, budget=budget: sum(held) < budget):
            return f"{here}: the budget itself may be reached"
        if set(sizes) == {1}:
            return f"{here}: one item at a time is what the published script does; go on while the next one fits"
        if len(set(sizes[:-1])) == 1:
            return f"{here}: equal numbers of items leave short ones alone; go on while the next one fits"
        return f"{here}: fill each mini-batch while the next item fits"
    return ""


@exercise("a1.3")
def batch_without_duplicates(answer, measured) -> str:
    """``answer(rows, size)``: the numbers of ``size`` rows of which no two share a value, in whichever column it stands.

    ``rows``: dictionaries, column to text or key. Any such choice is right.
    """
    made_up = [
        {"query": "q0", "image": "a", "negative_0": "b"},
        {"query": "q1", "image": "c", "negative_0": "a"},  # its negative is the page of row 0
        {"query": "q2", "image": "a", "negative_0": "d"},  # the same page
        {"query": "q3", "image": "e", "negative_0": "b"},  # the same negative
        {"query": "q4", "image": "f", "negative_0": "g"},
        {"query": "q4", "image": "h", "negative_0": "i"},  # the same query
        {"query": "q6", "image": "j", "negative_0": "k"},
        {"query": "q7", "image": "l", "negative_0": "m"},
    ]
    real, there, seen = [dict(row) for row in measured], 0, set()
    for row in real:  # a run with few rows may not have sixteen that go together
        if not seen & set(row.values()):
            there, seen = there + 1, seen | set(row.values())
    for rows, size in ((made_up, 4), (made_up, 2), (real, min(16, (there + 1) // 2))):
        found = returned(answer, [dict(row) for row in rows], size)
        try:
            chosen = [int(number) for number in found]
        except (TypeError, ValueError):
            raise NotYet(f"row numbers are asked for, such as [0, 3], and the type of yours is {type(found).__name__}") from None
        if not set(chosen) <= set(range(len(rows))):
            return f"{min(set(chosen) - set(range(len(rows))))} is no row number, there are {len(rows)} rows"
        if len(set(chosen)) < len(chosen):
            return "a row stands twice in the batch"
        for place, second in enumerate(chosen):
            for first in chosen[:place]:
                shared = {value for value in rows[first].values() if value is not None} & set(rows[second].values())
                if shared:
                    names = [next(name for name in row if row[name] in shared) for row in (rows[first], rows[second])]
                    if names[0] == names[1]:
                        return f"rows {first} and {second} stand in one batch with the same {names[0]}"
                    return f"rows {first} and {second} stand in one batch, and {names[0]} of one is {names[1]} of the other: compare values of all columns"
        if len(chosen) != size:
            return f"{size} rows are asked for, you return {len(chosen)}{': go on after a row that does not fit' if len(chosen) < size else ''}"
    return ""


@exercise("a1.4")
def patches_by_product(answer, pixel_values, convolution) -> str:
    """``answer(pixel_values, weight, bias)``: what the convolution makes of patches, as one matrix product.

    ``pixel_values``: (patches, numbers of a patch); ``weight``: (out, channels, frames, height, width), as large as a patch.
    """
    some, weight = pixel_values[:40].detach().float().cpu(), convolution.weight.detach().float().cpu()
    bias = torch.linspace(-1, 1, len(weight)) if convolution.bias is None else convolution.bias.detach().float().cpu()
    bias = bias + bias.abs().mean() + weight.abs().mean()  # never near zero, so that one that was forgotten is seen
    right = torch.nn.functional.conv3d(some.view(-1, *weight.shape[1:]), weight, bias, stride=weight.shape[2:]).flatten(1)
    found = returned(answer, some.clone(), weight.clone(), bias.clone())
    try:
        found = torch.as_tensor(found).detach().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotYet(f"a tensor of the shape {tuple(right.shape)} is asked for ({error})") from None
    if found.shape != right.shape:
        turned = ": a row per patch, a column per output" if found.shape == right.T.shape else ""
        return f"the shape is {tuple(found.shape)}, and {tuple(right.shape)} is asked for{turned}"

    def near(value):
        return torch.allclose(found, value, rtol=1e-3, atol=1e-3 * float(right.abs().mean()))

    if near(right):
        return ""
    if near(right - bias):
        return "the bias is missing: a convolution adds it to every output"
    if near(some @ weight.reshape(-1, len(weight)) + bias):
        return "`reshape` does not turn a matrix: make a row of each output's weights, (out, numbers of a patch), then transpose it with `.T`"
    apart = float((found - right).norm() / right.norm())
    return f"{apart:.0%} apart from the convolution: every output is the sum of a patch's numbers times its own weights, plus its bias"
