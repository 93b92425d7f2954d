"""Exercises of notebook 12: a check written by the reader stops on one bug, and neither on the sound run nor on any other bug."""

from __future__ import annotations

from collections.abc import Callable

from vdr_exercises import NotAnswered, exercise

SOUND = 0  # its number among the runs


def stops_on(check: Callable, runs: dict) -> dict[int, bool]:
    """``{number of a run: whether check(run) stops there}``; only an ``AssertionError`` counts, another error is raised with its run named."""
    stops = {}
    for number, run in runs.items():
        try:
            check(run)
            stops[number] = False
        except AssertionError:
            stops[number] = True
        except NotAnswered:
            raise
        except Exception as error:
            raise RuntimeError(
                f"on {named(number)} there is no assertion that fails, but {type(error).__name__}: {error}"
            ) from error
    return stops


def named(number: int) -> str:
    return "the sound run" if number == SOUND else f"case {number}"


def hint(check: Callable, case: int, runs: dict) -> str:
    """What is wrong with ``check`` for ``runs[case]`` in one sentence, or "" when it stops there and nowhere else."""
    if not callable(check):
        return "write a function with the parameter run, which holds an assert"
    stops = stops_on(check, runs)
    others = [named(number) for number, stopped in stops.items() if stopped and number not in (SOUND, case)]
    if stops[SOUND] and stops[case]:
        return "it stops on the sound run too, so it would stop every run: what differs between the two?"
    if stops[SOUND]:
        return "it stops on the sound run and passes on the bug: turn it round"
    if not stops[case]:
        return "it passes on the bug" + (
            f", but stops on {' and '.join(others)}" if others else ": what differs from the sound run?"
        )
    if others:
        return f"it also stops on {' and '.join(others)}: ask for what only this bug breaks"
    return ""


def judge(check: Callable, case: int, runs: dict) -> None:
    """Print what :func:`hint` says of the reader's ``check``; ``runs``: the sound run under 0, and each case made so far under its number."""
    exercise(f"12.{case}")(hint)(check, case, runs)
