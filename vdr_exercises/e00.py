"""Exercises of notebook 00: a page's rank, a search that refuses, a profile for a purpose."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from vdr_exercises import asks_for_a_function, exercise
from vdr_exercises.answers import a_number_or_none, unlike

SCORES = torch.tensor([0.31, 0.82, 0.55, 0.74, 0.12, 0.68])


@asks_for_a_function(
    "0.1",
    inputs=[(SCORES, right) for right in (3, 1, 4, 2)],
    mistakes={
        "a rank is counted from 1, also for the best page": lambda scores, right: (
            scores > scores[right]
        ).sum(),
        "a high score is good, so count the pages that score higher": lambda scores, right: (
            scores <= scores[right]
        ).sum(),
        "`argsort` says which page is in a place, not in which place a page is": (
            lambda scores, right: scores.argsort(descending=True)[right]
        ),
    },
    otherwise="its rank is {expected}, one more than the number of pages that score higher",
    another=lambda scores, right: sorted(scores, reverse=True).index(scores[right]) + 1,
)
def rank_of_a_page(scores, right):
    """The rank of page number ``right``, 1 for the best; ``scores`` is a tensor, one per page."""
    return (scores > scores[right]).sum() + 1


FOUR_SCORES = torch.tensor([0.41, 0.66, 0.83, 0.52])


@asks_for_a_function(
    "0.2",
    inputs=lambda measured: [
        (FOUR_SCORES, 0.7),
        (FOUR_SCORES, 0.9),
        (FOUR_SCORES, 0.5),
        (measured, -1.0),
        (measured, 2.0),
    ],
    returns=a_number_or_none,
    mistakes={
        "even the best score is below what is allowed, so return `None`": (
            lambda scores, lowest: scores.argmax()
        ),
        "the best page is good enough, whatever the others are": (
            lambda scores, lowest: None if (scores < lowest).any() else scores.argmax()
        ),
        "that is the score, and the number of the page is asked for: `argmax`": (
            lambda scores, lowest: scores.max() if scores.max() >= lowest else None
        ),
    },
    otherwise="expected {expected}, the page with the best score, or `None` if that is too low",
    another=lambda scores, lowest: next(
        (page for page in scores.argsort(descending=True) if scores[page] > lowest), None
    ),
)
def answers_or_refuses(scores, lowest):
    """The number of the best page, ``None`` when even its score is below ``lowest``."""
    return scores.argmax() if scores.max() >= lowest else None


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 00."""
    return {
        "PROFILES": {"tiny": None, "full": None, "rehearsal": None},
        "scores": torch.linspace(0.2, 0.8, 20).roll(7),
    }


@exercise(
    "0.3",
    mistakes={
        "the real weights and pages, which have to be downloaded": "full",
        "it says nothing about the published size": "tiny",
        "is none of the profiles": "small",
    },
    another=SimpleNamespace(name="rehearsal"),
)
def profile_that_measures_a_gpu(answer, profiles) -> str:
    """The profile with the published size and no download; ``profiles`` are the names there are."""
    name = getattr(answer, "name", answer)
    if not isinstance(name, str):
        return unlike("the name of a profile", answer)
    if name not in profiles:
        return f"{name!r} is none of the profiles: {', '.join(profiles)}"
    if name == "full":
        return "`full` loads the real weights and pages, which have to be downloaded first"
    if not name.startswith("rehearsal"):
        return f"`{name}` fits nearly everywhere, so it says nothing about the published size"
    return "" if name == "rehearsal" else "find the profile with the published size, random weights"
