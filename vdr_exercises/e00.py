"""Exercises of notebook 00: a profile for a purpose, the rank of a page, and a search that may refuse."""

from __future__ import annotations

import torch

from vdr_exercises import NotYet, a_number, exercise, returned


@exercise("0.1")
def profile_that_measures_a_card(answer, profiles) -> str:
    """The name of the profile that has the published size and downloads no weights; ``profiles`` are the names there are."""
    name = getattr(answer, "name", answer)
    if not isinstance(name, str) or name not in profiles:
        return f"{name!r} is none of the profiles: {', '.join(profiles)}"
    if name == "full":
        return "`full` loads the real weights and pages, which have to be downloaded first"
    if name == "tiny":
        return "`tiny` fits nearly everywhere, so that it fits says nothing about the published size"
    return "" if name == "rehearsal" else "look for the profile with the published size and random weights"


@exercise("0.2")
def rank_of_a_page(answer) -> str:
    """``answer(scores, right)``: the place of page number ``right`` when pages are sorted by their scores (a tensor), 1 for the best."""
    scores = torch.tensor([0.31, 0.82, 0.55, 0.74, 0.12, 0.68])
    for right in (3, 1, 4, 2):
        better = int((scores > scores[right]).sum())
        found = a_number(returned(answer, scores.clone(), right))
        if found == better + 1:
            continue
        here = f"scores {[round(score, 2) for score in scores.tolist()]}, page {right}: you say {found:g}"
        if found == len(scores) - better:
            return f"{here}; a high score is good, so count the pages that score higher"
        if found == better:
            return f"{here}; a rank is counted from 1, for the best page too"
        if found == int(scores.argsort(descending=True)[right]):
            return f"{here}; `argsort` says which page stands in a place, you want the place of a page"
        return f"{here}; {better} pages score higher, so its rank is {better + 1}"
    return ""


@exercise("0.3")
def answers_or_refuses(answer, measured) -> str:
    """``answer(scores, lowest)``: the number of the best page, or ``None`` when even its score is below ``lowest``; ``scores`` is a tensor."""
    if not callable(answer):
        raise NotYet(f"a function is asked for, and the type of yours is {type(answer).__name__}")
    made_up = torch.tensor([0.41, 0.66, 0.83, 0.52])
    for scores, lowest in ((made_up, 0.7), (made_up, 0.9), (made_up, 0.5), (measured, -1.0), (measured, 2.0)):
        found, best = answer(scores.clone(), lowest), int(scores.argmax())
        here = f"best score {scores.max():.2f}, lowest allowed {lowest:g}"
        if scores.max() < lowest:
            if found is not None:
                return f"{here}: return `None`, not {found!r}"
        elif found is None:
            if bool((scores < lowest).any()):
                return f"{here}: refused, though the best page is good enough; it does not matter that others are not"
            return f"{here}: refused, and every page is good enough"
        elif (number := a_number(found)) == best:
            continue
        elif abs(number - float(scores.max())) < 1e-6:
            return f"{here}: {number:.2f} is the score; the number of the page is asked for, `argmax`"
        elif number in range(len(scores)) and scores[int(number)] >= lowest:
            return f"{here}: page {number:g} is good enough, and page {best} is better"
        else:
            return f"{here}: you say {found!r}, and page {best} has the best score"
    return ""
