"""The checks of the exercises, one module per notebook: ``e04`` for notebook 04, ``ea1`` for
appendix 1.

An exercise stands in one place: what is right, the typical mistakes with their hints, and another
right answer. A mistake is a wrong answer written out: whoever answers as it does reads its hint,
and the tests hand it in to see that this is so. Each module ends with ``stand_ins()``: small
variables in place of the notebook's, for the tests.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy

from vdr_exercises.answers import NotYet, a_number, same, shown, unlike


class NotAnswered(Exception):
    """Raised where an answer is still the three dots of its stub."""


def answered(answer):
    """``answer``; `NotAnswered` if it is ``...``, or once it is called and returns ``...``."""
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


def stopped_with(error: Exception) -> str:
    return f"this stops with {type(error).__name__}: {error}"


@dataclass(kw_only=True)
class Exercise:
    """What an exercise's cell calls, with the answer and whatever else it needs of the notebook.

    It never stops *Run All*: an exercise that nobody has answered says so, and an answer that fails
    is a "not yet" with its error.

    Attributes:
        number: the exercise's, such as "4.1".
        check: ``check(answer, *given)`` returns a hint of one sentence, or "" when the answer is
            right. It may raise `NotYet` with the hint as well.
        mistakes: ``{words of the hint: wrong answer}``, or a function that makes it of ``given``.
        another: a right answer that differs from the one folded below the exercise.
    """

    number: str
    check: Callable
    mistakes: dict | Callable = field(default_factory=dict)
    another: object = None

    def __call__(self, answer, *given) -> None:
        """Print "Exercise 4.1 · right", "· not yet: <hint>" or "· not answered yet"."""
        print(f"Exercise {self.number} · {self.verdict(answer, *given)}")

    def verdict(self, answer, *given) -> str:
        """What is printed behind the number."""
        try:
            hint = self.check(answered(answer), *given)
        except NotAnswered:
            return "not answered yet: write your answer in place of the three dots"
        except NotYet as reason:
            hint = str(reason)
        except Exception as error:  # whatever the learner's code raises
            hint = stopped_with(error)
        return f"not yet: {hint}" if hint else "right"


def exercise(number: str, *, mistakes: dict, another) -> Callable:
    """Make an `Exercise` of the check below, ``check(answer, *given)``."""

    def decorate(check: Callable) -> Exercise:
        return Exercise(number=number, check=check, mistakes=mistakes, another=another)

    return decorate


def of_given(value, given: tuple):
    """``value``, or what it makes of the variables that the cell hands in."""
    return value(*given) if callable(value) else value


def asks_for_a_number(
    number: str, *, mistakes, otherwise: str, another: float, tolerance: float = 1e-6
) -> Callable:
    """Make an `Exercise` of the function below, which returns the right number.

    ``mistakes`` is ``{hint: wrong number}``, or a function that makes it of what the cell hands in;
    ``otherwise`` is the hint for any other number.
    """

    def decorate(right: Callable) -> Exercise:
        def check(answer, *given) -> str:
            found = a_number(answer)
            if same(found, right(*given), tolerance):
                return ""
            for hint, wrong in of_given(mistakes, given).items():
                if same(found, wrong, tolerance):
                    return hint
            return otherwise

        return Exercise(number=number, check=check, mistakes=mistakes, another=another)

    return decorate


def asks_for_a_function(number: str, **settings) -> Callable:
    """Make an `Exercise` of the function below: the learner's has to return what it returns.

    ``settings`` are those of `FunctionExercise`.
    """
    return lambda reference: FunctionExercise(number=number, reference=reference, **settings)


@dataclass(kw_only=True)
class FunctionExercise(Exercise):
    """Calls the learner's function on several inputs and compares it with ``reference``.

    Attributes:
        inputs: a list of tuples, the arguments of each call, or a function that makes it of the
            variables that the cell hands in.
        mistakes: ``{hint: wrong function}``. A hint is given where the learner's function returns
            what the wrong one does, or raises the same error, on the first input that it fails on.
            The first that fits is given, so a narrow mistake stands before a wide one.
        otherwise: the hint for all other answers; ``{expected}`` in it is what was expected.
        returns: reads what was returned, by the learner's function and by the others alike, and
            raises `NotYet` where it is of another kind.
        case: describes an input in a few words; by default the short arguments by name.
        alike: ``alike(found, expected, *input)``, where equal up to ``tolerance`` will not do.
        is_right: ``is_right(found, *input)``, where more than one answer is right.
    """

    reference: Callable
    inputs: list[tuple] | Callable
    otherwise: str
    returns: Callable = a_number
    case: Callable | None = None
    tolerance: float = 1e-6
    alike: Callable | None = None
    is_right: Callable | None = None
    check: Callable = field(init=False)

    def __post_init__(self):
        self.check = self.compare

    def compare(self, answer, *given) -> str:
        """The check: the hint for the first input that ``answer`` fails on, or ""."""
        if not callable(answer):
            raise NotYet(unlike("a function", answer))
        for values in of_given(self.inputs, given):
            found, expected = self.outcome(answer, values), self.outcome(self.reference, values)
            if not self.accepts(found, expected, values):
                return self.hint(found, expected, values)
        return ""

    def outcome(self, function: Callable, values: tuple):
        """What ``function`` returns for a copy of ``values``, or the error that it raises."""
        try:
            value = function(*copy.deepcopy(values))
        except NotAnswered:
            raise
        except Exception as error:
            return error
        return self.returns(value)

    def accepts(self, found, expected, values: tuple) -> bool:
        if self.is_right is None or isinstance(found, Exception):
            return self.equal(found, expected, values)
        return self.is_right(found, *values)

    def equal(self, found, expected, values: tuple) -> bool:
        errors = isinstance(found, Exception) or isinstance(expected, Exception)
        if self.alike is None or errors or numpy.shape(found) != numpy.shape(expected):
            return same(found, expected, self.tolerance)
        return bool(self.alike(found, expected, *values))

    def hint(self, found, expected, values: tuple) -> str:
        """What is wrong with ``found``: the input, what was returned, and the mistake's hint."""
        described = self.case(*values) if self.case else self.arguments(values)
        parts = [described] if described else []
        if isinstance(found, Exception):
            parts.append(stopped_with(found))
        elif not isinstance(found, numpy.ndarray):
            parts.append(f"you return {shown(found)}")
        for hint, wrong in self.mistakes.items():
            if self.equal(found, self.outcome(wrong, values), values):
                return ": ".join([*parts, hint])
        if not isinstance(found, Exception):
            parts.append(self.other_hint(found, expected))
        return ": ".join(parts)

    def arguments(self, values: tuple) -> str:
        """ "rows 4, hard_negatives 2": the arguments by name, but for functions and large ones."""
        named = zip(inspect.signature(self.reference).parameters, values, strict=True)
        texts = [f"{name} {shown(value)}" for name, value in named if not callable(value)]
        return ", ".join(text for text in texts if len(text) <= 120)

    def other_hint(self, found, expected) -> str:
        is_array = isinstance(found, numpy.ndarray) and isinstance(expected, numpy.ndarray)
        if is_array and found.shape != expected.shape:
            return f"the shape is {found.shape}, expected {expected.shape}"
        return self.otherwise.format(expected=shown(expected))


def beside(guess, measured: str) -> str:
    """``measured`` with the learner's guess before it; only the result where no guess was made."""
    if guess is ...:
        return f"measured here {measured} (no guess was made)"
    return f"your guess {guess} | measured here {measured}"
