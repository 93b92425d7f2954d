"""Exercises of notebook 12: a check of the reader's stops on one bug, and on no other run."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from vdr_exercises import Exercise, NotAnswered

SOUND = 0  # its number among the runs


def run_with(steps: list[Callable], start: SimpleNamespace, **replaced: Callable):
    """A copy of the run ``start`` in which ``steps`` are repeated, from the first replaced one on.

    ``replaced``: a function under the name of the step whose place it takes. What lies before it
    stays as it is in ``start``. ``ValueError`` for a name that no step has.
    """
    names = [step.__name__ for step in steps]
    for name in replaced:
        if name not in names:
            raise ValueError(f"no step is called {name!r}: name one of {', '.join(names)}")
    run = SimpleNamespace(**vars(start))
    first = min((names.index(name) for name in replaced), default=0)
    for step in steps[first:]:
        replaced.get(step.__name__, step)(run)
    return run


def add_part(steps: list[Callable], runs: dict) -> SimpleNamespace:
    """Run ``steps`` on the sound run and return it; the broken runs, whose bug lies in another
    part, get the same results beside their own.
    """
    sound = run_with(steps, runs.get(SOUND, SimpleNamespace()))
    for number, run in runs.items():
        runs[number] = SimpleNamespace(**vars(sound) | vars(run))
    runs[SOUND] = sound
    return sound


def compare(runs: dict, case: int, name: str, label: str) -> dict:
    """Draw the number ``name`` of the sound run and of ``runs[case]`` as two bars; return both as a
    row of the overview.
    """
    from vdr_helpers.figures import NEGATIVE, POSITIVE, new_figure, show

    sound, broken = float(getattr(runs[SOUND], name)), float(getattr(runs[case], name))
    figure, axis = new_figure(height=1.3)
    bars = axis.barh(["broken", "sound"], [broken, sound], color=[NEGATIVE, POSITIVE])
    axis.bar_label(bars, fmt=" %.3f")
    axis.set(xlabel=label, xlim=(0, 1.15 * max(1, sound, broken)))
    axis.grid(False)
    show(
        figure,
        alt=f"Case {case}, {label}: {sound:.3f} in the sound run, {broken:.3f} in the broken one.",
    )
    return {"case": case, "number": label, "sound": sound, "broken": broken}


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
