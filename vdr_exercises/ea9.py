"""The checks of the exercises of appendix 9."""

from __future__ import annotations

import numpy

from vdr_exercises import asks_for_a_function, asks_for_a_number


def cosines(students, teachers):
    lengths = numpy.linalg.norm(students, axis=1) * numpy.linalg.norm(teachers, axis=1)
    return (students * teachers).sum(axis=1) / lengths


def pairs_of_vectors() -> list[tuple]:
    """Inputs of exercise a9.1: vectors of student and teacher, of various lengths."""
    rng = numpy.random.default_rng(0)
    return [(3 * rng.normal(size=(rows, 8)), rng.normal(size=(rows, 8))) for rows in (1, 4, 7)]


def one_by_one(students, teachers) -> float:
    """The same loss without arrays of cosines."""
    losses = []
    for student, teacher in zip(students, teachers, strict=True):
        student = student / numpy.linalg.norm(student)
        losses.append(1 - float(student @ (teacher / numpy.linalg.norm(teacher))))
    return sum(losses) / len(losses)


@asks_for_a_function(
    "a9.1",
    inputs=pairs_of_vectors(),
    mistakes={
        "that is the mean cosine, which grows as the student gets better; a loss falls": (
            lambda students, teachers: cosines(students, teachers).mean()
        ),
        "these are dot products, which grow with a vector's length; divide by both lengths": (
            lambda students, teachers: 1 - (students * teachers).sum(axis=1).mean()
        ),
        "take the mean over the queries, not the sum": (
            lambda students, teachers: (1 - cosines(students, teachers)).sum()
        ),
    },
    otherwise="expected {expected}: the mean of 1 minus the cosine of each row with its own row",
    another=one_by_one,
)
def distillation_loss(students, teachers):
    """The mean of 1 minus the cosine of each student's vector with its teacher's.

    ``students`` and ``teachers``: (queries, dimensions), a query in the same row of both. The
    vectors are not of length 1.
    """
    return (1 - cosines(students, teachers)).mean()


@asks_for_a_number(
    "a9.2",
    mistakes={
        "that is the number of values; each of them takes four bytes": 151_936 * 2048 / 1e9,
        "that is for values of two bytes; float32 takes four": 151_936 * 2048 * 2 / 1e9,
        "that is in megabytes; a gigabyte has a thousand of them": 151_936 * 2048 * 4 / 1e6,
    },
    otherwise="tokens x dimensions x bytes of a value, divided by 1e9",
    another=1.244659712,
    tolerance=0.006,
)
def gigabytes_of_a_table():
    """The real tokenizer's 151,936 tokens at the real width of 2,048, in float32."""
    return 151_936 * 2048 * 4 / 1e9


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of appendix 9."""
    return {"numpy": numpy}
