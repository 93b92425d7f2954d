"""Exercises of appendix 2: bytes of a weight, LoRA's memory, pages that fit, and the share of its speed that a card reaches."""

from __future__ import annotations

import math

from vdr_exercises import a_number, exercise, returned

GIB = 2**30


@exercise("a2.1")
def bytes_of_a_weight(answer) -> str:
    """The bytes that one trained ``bfloat16`` weight takes with its gradient and Adam's two moments, all in that format: 8."""
    found = a_number(answer)
    named = {
        2: "that is the weight itself; its gradient and Adam's moments lie there too",
        4: "that is the weight and its gradient; Adam keeps two moments beside them",
        6: "one of the four is missing: Adam keeps two moments, and the weight itself counts",
        16: "that is float32, four bytes for each of the four numbers; a number in bfloat16 has two",
        12: "a number in bfloat16 has two bytes; how many numbers belong to a weight?",
        64: "these are bits; eight of them are a byte",
    }
    if found == 8:
        return ""
    return named.get(
        int(found) if math.isfinite(found) else 0, "count the numbers that belong to one weight, times the bytes of each"
    )


@exercise("a2.2")
def gib_with_lora(answer, parameters: int, lora_parameters: int) -> str:
    """``answer(frozen, trained)``: GiB of weights, gradients and moments; ``frozen`` weights in 16 bits, ``trained`` ones in float32."""
    for frozen, trained in ((parameters, lora_parameters), (8_000_000_000, 100_000_000), (0, 1_000_000_000)):
        found = a_number(returned(answer, frozen, trained))

        def near(size, found=found):
            return math.isclose(found, size, rel_tol=2e-3)

        right = (2 * frozen + 16 * trained) / GIB
        if near(right):
            continue
        here = f"{frozen:,} frozen and {trained:,} trained weights: you say {found:,.4g} GiB"
        if near(right * GIB):
            return f"{here}, which are bytes; a GiB has 2**30 of them"
        if near(right * GIB / 1e9):
            return f"{here}: that is GB; a GiB has 2**30 bytes, 7 % more than 10**9"
        if near((8 * frozen + 16 * trained) / GIB) or near(16 * (frozen + trained) / GIB):
            return f"{here}: a frozen weight has neither gradient nor moments"
        if near((2 * frozen + 8 * trained) / GIB):
            return f"{here}: what LoRA trains is kept in float32, four bytes a number"
        if near((2 * frozen + 12 * trained) / GIB):
            return f"{here}: for a trained weight four numbers are kept: itself, its gradient and two moments"
        if near(16 * trained / GIB):
            return f"{here}: the frozen weights lie on the card too, in two bytes each"
        if near(2 * (frozen + trained) / GIB) or near((2 * frozen + 4 * trained) / GIB):
            return f"{here}: these are the weights; trained ones have a gradient and two moments as well"
        return f"{here}, and it is {right:,.4g}: two bytes for a frozen one, four numbers of four bytes for a trained one"
    return ""


def _most(card_gib: float, needs) -> int:
    pages = 0
    while needs(pages + 1) <= 0.9 * card_gib:
        pages += 1
    return pages


@exercise("a2.3")
def pages_that_fit(answer, memory) -> str:
    """``answer(card_gib, needs)``: the most pages per pass with a tenth of the card free, 0 when one is too many.

    ``needs(pages)`` are the GiB of a setting; ``memory`` is the notebook's own sum, which is one of the cases.
    """

    def of_notebook(lora, dtype):
        return lambda pages: sum(memory(lora=lora, dtype=dtype, pages=pages).values())

    cases = [
        (24.0, lambda pages: 5 + 0.7 * pages, "5 GiB and 0.7 a page"),
        (15.0, lambda pages: 14.2 + 0.3 * pages, "14.2 GiB and 0.3 a page"),
        (15.0, of_notebook(False, "float32"), "all weights in float32"),
        (22.0, of_notebook(False, "bfloat16"), "all weights in bfloat16"),
        (15.0, of_notebook(True, "float16"), "LoRA in float16"),
    ]
    for card, needs, what in cases:
        found, right = a_number(returned(answer, card, needs)), _most(card, needs)
        if found == right:
            continue
        here = f"a card of {card:g} GiB, {what}: you say {found:g}"
        if found == _most(card / 0.9, needs):
            return f"{here}, and that fills the card; leave a tenth of it free"
        if right == 0:
            return f"{here}: a single page needs {needs(1):.1f} GiB, so that the answer is 0"
        if found == right + 1:
            return f"{here}, which needs {needs(right + 1):.1f} GiB, more than {0.9 * card:.1f}; the last number that fits is asked for"
        if found % 1 and found > 0 and math.floor(found) in (right, _most(card / 0.9, needs)):
            return f"{here}: whole pages pass through the model, round down"
        if found < right:
            return f"{here}: {right} pages need {needs(right):.1f} GiB, and {0.9 * card:.1f} may be used"
        return f"{here}, which needs {needs(found):.1f} GiB, and {0.9 * card:.1f} may be used"
    return ""


@exercise("a2.4")
def share_of_its_speed(answer) -> str:
    """``answer(operations, seconds, peak_tflops)``: operations per second through what the data sheet promises, as a share of 1."""
    for operations, seconds, peak in ((1.5e15, 40.0, 125), (4.2e16, 600.0, 312), (9e14, 60.0, 65)):
        found, right = a_number(returned(answer, operations, seconds, peak)), operations / seconds / (peak * 1e12)

        def near(value, found=found):
            return math.isclose(found, value, rel_tol=1e-3)

        if near(right):
            continue
        here = f"{operations:.2g} operations in {seconds:g} s on a card of {peak} TFLOPS: you say {found:.3g}"
        if near(1 / right):
            return f"{here}: that is the other way round, promised through reached"
        if near(right * 1e12) or near(right * 1e3) or near(right * 1e6):
            return f"{here}: a TFLOPS is 10**12 operations per second"
        if near(100 * right):
            return f"{here}: that is in percent; a share of 1 is asked for"
        if near(operations / (peak * 1e12)):
            return f"{here}: these are the seconds at full speed; compare them with the seconds it took"
        if near(right * 60) or near(right / 60):
            return f"{here}: TFLOPS are per second, and so is the time"
        if near(operations / seconds) or near(operations / seconds / 1e12):
            return f"{here}: that is the speed it reached; divide by the promised one"
        return f"{here}, and it is {right:.3g}: operations per second through 10**12 times the peak"
    return ""
