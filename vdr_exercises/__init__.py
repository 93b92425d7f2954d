"""The answers that exercises give: one module a notebook, ``e04`` for notebook 04, ``ea1`` for appendix 1; importing this
package imports nothing heavy.

A check computes with what the learner hands in, and names a typical mistake where it recognises one. It never stops *Run All*: an exercise
that nobody has answered says so, and code of the learner's that fails is a "not yet" with its error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable


class NotYet(Exception):
    """Raised inside a check: the hint, where returning it would take a detour."""


class NotAnswered(Exception):
    """Raised where an answer is still the three dots of its stub."""


def answered(answer):
    """``answer``, unless it is ``...``: then `NotAnswered`; a function is watched and raises it once it returns ``...``."""
    if answer is ...:
        raise NotAnswered
    if not callable(answer):
        return answer

    def watched(*inputs):
        value = answer(*inputs)
        if value is ...:
            raise NotAnswered
        return value

    return watched


def a_number(answer) -> float:
    """``answer`` as a float, whatever library its number is of; `NotYet` for anything that is no single number."""
    try:
        if isinstance(answer, (bool, str)):
            raise TypeError
        return float(answer)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"one number is asked for, and the type of yours is {type(answer).__name__}") from None


def returned(function, *inputs):
    """What the learner's function makes of ``inputs``; `NotYet` where it is no function, or returns nothing."""
    if not callable(function):
        raise NotYet(f"a function is asked for, and the type of yours is {type(function).__name__}")
    if (value := function(*inputs)) is None:
        raise NotYet("your function returns nothing: is there a `return` at its end?")
    return value


def two(found, what: str) -> tuple:
    """The two things that a learner's function returned; `NotYet`, which names ``what`` to return, where they are not two."""
    try:
        first, second = found
    except (TypeError, ValueError):
        raise NotYet(f"two things are asked for: return {what}") from None
    return first, second


def exercise(number: str) -> Callable:
    """Make an exercise of a check: ``check(answer, *given)`` returns "" when the answer is right, else a hint of one sentence.

    A check may raise `NotYet` with the hint, too. The made function prints "Exercise 4.1 · right", "· not yet: <hint>" or
    "· not answered yet"; its ``verdict`` returns the same words.
    """

    def make(check: Callable) -> Callable:
        @functools.wraps(check)
        def ask(answer, *given) -> None:
            print(f"Exercise {number} · {ask.verdict(answer, *given)}")

        def verdict(answer, *given) -> str:
            try:
                hint = check(answered(answer), *given)
            except NotAnswered:
                return "not answered yet: write your answer in place of the three dots"
            except NotYet as found:
                hint = str(found)
            except Exception as error:  # whatever the learner's code raises
                hint = f"this stops with {type(error).__name__}: {error}"
            return f"not yet: {hint}" if hint else "right"

        ask.verdict, ask.number = verdict, number
        return ask

    return make


def beside(guess, measured: str) -> str:
    """``measured`` with the learner's guess before it; only the result where no guess was made."""
    if guess is ...:
        return f"measured here {measured} (no guess was made)"
    return f"your guess {guess} | measured here {measured}"
