"""Exercises of appendix 2: bytes of a weight, LoRA's memory, pages that fit, and a GPU's speed."""

from __future__ import annotations

from vdr_exercises import asks_for_a_function, asks_for_a_number

GIB = 2**30


@asks_for_a_number(
    "a2.1",
    mistakes={
        "that is the weight and its gradient; Adam keeps two moments beside them": 4,
        "one of the four is missing: the weight, its gradient, two moments": 6,
        "that is float32, four bytes each; a number in bfloat16 has two": 16,
    },
    otherwise="count what is kept for one weight, times the bytes of each",
    another=2 + 2 + 2 * 2.0,
)
def bytes_of_a_weight():
    """One trained weight with its gradient and Adam's two moments, all in ``bfloat16``."""
    return 4 * 2


@asks_for_a_function(
    "a2.2",
    inputs=lambda parameters, lora_parameters: [
        (parameters, lora_parameters),
        (8_000_000_000, 100_000_000),
        (0, 1_000_000_000),
    ],
    tolerance=0.01,
    mistakes={
        "that is GB; a GiB has 2**30 bytes, 7 % more than 10**9": (
            lambda frozen, trained: (2 * frozen + 16 * trained) / 1e9
        ),
        "a frozen weight has neither gradient nor moments": (
            lambda frozen, trained: (8 * frozen + 16 * trained) / GIB
        ),
        "what LoRA trains is kept in float32, four bytes each": (
            lambda frozen, trained: (2 * frozen + 8 * trained) / GIB
        ),
    },
    otherwise="expected {expected} GiB: two bytes for a frozen weight, 4 x 4 for a trained one",
    another=lambda frozen, trained: frozen / 2**29 + trained / 2**26,
)
def gib_with_lora(frozen, trained):
    """GiB of weights, gradients and moments; frozen weights have 16 bits, trained ones 32."""
    return (2 * frozen + 16 * trained) / GIB


def most(gib, needs) -> int:
    """The most pages per pass that need at most ``gib``."""
    pages = 0
    while needs(pages + 1) <= gib:
        pages += 1
    return pages


def settings(memory) -> list[tuple]:
    """Inputs of exercise a2.3: two made-up settings, and three by the notebook's own sum."""

    def of_notebook(lora, dtype):
        return lambda pages: sum(memory(lora=lora, dtype=dtype, pages=pages).values())

    return [
        (24.0, lambda pages: 5 + 0.7 * pages),
        (15.0, lambda pages: 14.2 + 0.3 * pages),
        (15.0, of_notebook(False, "float32")),
        (22.0, of_notebook(False, "bfloat16")),
        (15.0, of_notebook(True, "float16")),
    ]


@asks_for_a_function(
    "a2.3",
    inputs=settings,
    case=lambda gib, needs: f"a GPU of {gib:g} GiB, one page needs {needs(1):.1f} GiB",
    mistakes={
        "that fills the GPU; leave a tenth of it free": most,
        "a single page is too much, so that the answer is 0": (
            lambda gib, needs: max(1, most(0.9 * gib, needs))
        ),
        "that is one too many; the last number that fits is asked for": (
            lambda gib, needs: most(0.9 * gib, needs) + 1
        ),
    },
    otherwise="expected {expected}",
    another=lambda gib, needs: max(
        [pages for pages in range(1, 200) if needs(pages) <= 0.9 * gib], default=0
    ),
)
def pages_that_fit(gib, needs):
    """The most pages per pass with a tenth of the GPU free, 0 when one is too many.

    ``needs(pages)`` are the GiB of a setting.
    """
    return most(0.9 * gib, needs)


@asks_for_a_function(
    "a2.4",
    inputs=[(1.5e15, 40.0, 125), (4.2e16, 600.0, 312), (9e14, 60.0, 65)],
    tolerance=1e-3,
    mistakes={
        "that is the other way round, promised through reached": (
            lambda operations, seconds, peak: peak * 1e12 * seconds / operations
        ),
        "a TFLOPS is 10**12 operations per second": (
            lambda operations, seconds, peak: operations / seconds / peak
        ),
        "these are the seconds at full speed; compare them with the seconds it took": (
            lambda operations, seconds, peak: operations / (peak * 1e12)
        ),
    },
    otherwise="expected {expected}: operations per second through 10**12 times the peak",
    another=lambda operations, seconds, peak: operations * 1e-12 / peak / seconds,
)
def share_of_its_speed(operations, seconds, peak_tflops):
    """Operations per second through what the data sheet promises, as a share of 1."""
    return operations / seconds / (peak_tflops * 1e12)


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of appendix 2."""
    bytes_of = {"float32": 4, "bfloat16": 2, "float16": 2}
    model = {"parameters": 2_127_532_032, "lora_parameters": 31_195_136}

    def memory(lora, dtype, pages):
        weights = model["parameters"] * bytes_of[dtype]
        trained = 16 * model["lora_parameters"] if lora else 3 * weights
        return {"weights": (weights + trained) / GIB, "activations": 0.41 * pages}

    return {"BYTES": bytes_of, "GIB": GIB, "model": model, "memory": memory}
