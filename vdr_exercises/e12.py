"""Exercises of notebook 12: a check of the reader's stops on one bug, and on no other run."""

from __future__ import annotations

from collections.abc import Callable

from vdr_exercises import Exercise, NotAnswered

SOUND = 0  # its number among the runs


def stops_on(check: Callable, runs: dict) -> dict[int, bool]:
    """``{number of a run: whether an assertion of check(run) fails}``.

    Raises:
        RuntimeError: ``check`` raised another error; its text names the run.
    """
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
                f"on {named(number)} there is no assertion that fails, "
                f"but {type(error).__name__}: {error}"
            ) from error
    return stops


def named(number: int) -> str:
    return "the sound run" if number == SOUND else f"case {number}"


def hint(check: Callable, case: int, runs: dict) -> str:
    """What is wrong with ``check`` for ``runs[case]``, or "" when it stops there and only there."""
    if not callable(check):
        return "write a function with the parameter run, which holds an assert"
    stops = stops_on(check, runs)
    others = " and ".join(named(run) for run in stops if stops[run] and run not in (SOUND, case))
    if stops[SOUND] and stops[case]:
        return (
            "it stops on the sound run too, so it would stop every run: "
            "what differs between the two?"
        )
    if stops[SOUND]:
        return "it stops on the sound run and passes on the bug: turn it round"
    if not stops[case] and others:
        return f"it passes on the bug, but stops on {others}"
    if not stops[case]:
        return "it passes on the bug: what differs from the sound run?"
    if others:
        return f"it also stops on {others}: ask for what only this bug breaks"
    return ""


def judge(check: Callable, case: int, runs: dict) -> None:
    """Print whether ``check`` stops on the bug of ``case``, and nowhere else.

    ``runs``: the sound run under 0, and each case made so far under its number.
    """
    Exercise(number=f"12.{case}", check=hint)(check, case, runs)
