"""Exercise of appendix 11: what became of a reply that cites pages, or says that it cannot."""

from __future__ import annotations

from vdr_exercises import asks_for_a_function
from vdr_exercises.answers import NotYet, unlike

OUTCOMES = ("supported", "unsupported", "missed", "rightly silent")


def an_outcome(value) -> str:
    """One of the four outcomes."""
    if not isinstance(value, str):
        raise NotYet(unlike(f"one of {', '.join(OUTCOMES)}", value))
    if value not in OUTCOMES:
        raise NotYet(f"expected one of {', '.join(OUTCOMES)}, found {value!r}")
    return value


@asks_for_a_function(
    "a11.1",
    inputs=[
        (["winch#2"], ["winch#2", "oven#4"], ["winch#2"]),
        (["oven#4"], ["winch#2", "oven#4"], ["winch#2"]),
        ([], ["winch#2", "oven#4"], ["winch#2"]),
        ([], ["oven#4", "oven#5"], ["winch#2"]),
        ([], ["oven#4", "oven#5"], []),
        (["oven#4"], ["oven#4", "oven#5"], []),
        (["winch#2"], ["oven#4", "oven#5"], ["winch#2"]),
        (["oven#4", "winch#3"], ["winch#3", "oven#4"], ["winch#2", "winch#3"]),
    ],
    returns=an_outcome,
    mistakes={
        "a page that was not shown supports nothing, even if it is right": (
            lambda cited, shown, right: (
                ("missed" if {*shown} & {*right} else "rightly silent")
                if not cited
                else "supported"
                if {*cited} & {*right}
                else "unsupported"
            )
        ),
        "silence is a mistake where a right page was shown": lambda cited, shown, right: (
            "rightly silent" if not cited else "supported" if {*cited} & {*right} else "unsupported"
        ),
        "one of the cited pages has to be right, not all of them": lambda cited, shown, right: (
            ("missed" if {*shown} & {*right} else "rightly silent")
            if not cited
            else "supported"
            if {*cited} <= {*shown} & {*right}
            else "unsupported"
        ),
    },
    otherwise="expected {expected}",
    another=lambda cited, shown, right: (
        ("unsupported", "supported")[any(page in shown and page in right for page in cited)]
        if cited
        else ("rightly silent", "missed")[any(page in right for page in shown)]
    ),
)
def outcome_of_a_reply(cited, shown, right):
    """What became of one reply; all three are lists of page names.

    ``cited``: empty where the reader said that the pages do not hold the answer; ``right``: empty
    where no page of the folder does.
    """
    could_answer = set(shown) & set(right)
    if not cited:
        return "missed" if could_answer else "rightly silent"
    return "supported" if could_answer & set(cited) else "unsupported"


def stand_ins() -> dict:
    """What the exercise and its folded solution read of appendix 11."""
    return {}
