"""Reading and comparing what a learner's function returns, whatever library it comes from."""

from __future__ import annotations

from collections.abc import Callable

import numpy


class NotYet(Exception):
    """Raised in a check with the hint as its text."""


def unlike(expected: str, value) -> str:
    """The hint for an answer of another kind."""
    if value is None:
        return f"expected {expected}, found None (is a `return` missing?)"
    return f"expected {expected}, found {type(value).__name__}"


# Each of these reads one kind of answer, and raises `NotYet` for any other kind.


def a_number(value) -> float:
    """A single number."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(unlike("one number", value)) from None


def a_number_or_none(value) -> float | None:
    """A single number, or ``None``."""
    return None if value is None else a_number(value)


def a_truth_value(value) -> bool:
    """``True`` or ``False``."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, bool):
        raise NotYet(unlike("True or False", value))
    return value


def a_pair(read: Callable, what: str) -> Callable:
    """A reader of two things, each of them read by ``read``; ``what`` names both in the hint."""

    def read_pair(value) -> tuple:
        try:
            first, second = value
        except (TypeError, ValueError):
            raise NotYet(unlike(f"two things, {what}", value)) from None
        return read(first), read(second)

    return read_pair


def a_list(value) -> list:
    """The items of anything that has some, but for a text."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise NotYet(unlike("a list", value))
    return list(value)


def names(value) -> list[str]:
    """Names in any order, each once; returned in alphabetical order."""
    return sorted(set(map(str, a_list(value))))


def row_numbers(value) -> list[int]:
    """Row numbers in any order; returned in rising order."""
    numbers = a_list(value)
    if any(isinstance(number, (bool, numpy.bool_)) for number in numbers):
        raise NotYet("expected row numbers, found truth values: `numpy.flatnonzero` says where")
    try:
        return sorted(map(int, numbers))
    except (TypeError, ValueError):
        raise NotYet(unlike("row numbers such as [0, 3]", numbers[0])) from None


def an_array(value) -> numpy.ndarray:
    """An array of floats, made of a list, a numpy array or a tensor."""
    try:
        if value is None or isinstance(value, str):
            raise TypeError
        value = value.detach().cpu().double() if hasattr(value, "detach") else value
        return numpy.asarray(value, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(unlike("an array of numbers", value)) from None


def same(found, expected, tolerance: float = 1e-6) -> bool:
    """Whether both are equal: numbers up to ``tolerance``, arrays of one shape as well."""
    if found is None or expected is None:
        return found is expected
    if isinstance(found, Exception) or isinstance(expected, Exception):
        return type(found) is type(expected) and str(found) == str(expected)
    try:
        found, expected = numpy.asarray(found, dtype=float), numpy.asarray(expected, dtype=float)
    except (TypeError, ValueError):  # names, for instance
        return found == expected
    if found.shape != expected.shape:
        return False
    return numpy.allclose(found, expected, rtol=1e-6, atol=tolerance)


def shown(value) -> str:
    """``value`` as it stands in a hint: fractions with four digits, the items of a pair apart."""
    if isinstance(value, tuple):
        return " and ".join(map(shown, value))
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.4g}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,.0f}" if abs(value) < 1e10 else f"{value:.4g}"
    if hasattr(value, "tolist"):  # an array or a tensor
        return f"[{', '.join(map(shown, value.flatten().tolist()))}]"
    return repr(value)
