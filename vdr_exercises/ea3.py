"""Exercises of appendix 3: a rank among fewer pages, what must be encoded again, ranks with ties, and what chance makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from vdr_exercises import NotYet, a_number, exercise, returned, two


@exercise("a3.1")
def rank_in_a_part(answer, measured) -> str:
    """``answer(scores, right, kept)``: the rank of page ``right`` when only the pages ``kept`` are searched; ``right`` is one of them.

    ``scores``: a tensor, one score a page of the whole corpus; ``kept``: page numbers.
    """
    made_up = torch.tensor([0.52, 0.81, 0.47, 0.66, 0.90, 0.33, 0.71, 0.58, 0.95, 0.20])
    real = torch.as_tensor(measured).detach().float().cpu()
    middle = int(real.argsort()[len(real) // 2])  # a page with others before and behind it, whatever the model
    cases = [
        (made_up, 3, [0, 2, 3, 8, 9, 6]),
        (made_up, 7, [1, 7, 9]),
        (made_up, 5, list(range(10))),
        (real, middle, sorted({*range(0, len(real), 3), middle})),
    ]
    for scores, right, kept in cases:
        try:
            found = a_number(returned(answer, scores.clone(), right, list(kept)))
        except IndexError:
            return f"pages {kept}, right page {right}: after the cut there is no page {right} any more; take its score before you cut"
        part, own = scores[kept], scores[right]
        if found == int((part > own).sum()) + 1:
            continue
        here = f"{len(kept)} of {len(scores)} pages, the right one has the number {right}: you say rank {found:g}"
        if right < len(kept) and found == int((part > part[right]).sum()) + 1:
            return f"{here}, the rank of page {kept[right]}, which is number {right} of those kept; take the score of the right page before you cut"
        if found == int((scores > own).sum()) + 1:
            return f"{here}, its rank among all pages; count only those that are kept"
        if found == int((part > own).sum()):
            return f"{here}: a rank is counted from 1"
        if found == int((part < own).sum()) + 1 or found == int((part <= own).sum()):
            return f"{here}: the page with the highest score has rank 1"
        return f"{here}: {int((part > own).sum())} kept pages have a higher score"
    return ""


AGAIN = {
    "pages": ({"pages"}, "pages of another size are another input, and the queries are as they were"),
    "number format": ({"queries", "pages"}, "other weights make other vectors of queries and of pages alike"),
    "prompt": ({"queries"}, "the prompt stands in front of a query; no page has it"),
    "truncation": (set(), "a shorter vector is the beginning of one that is there"),
    "ties": (set(), "they are a matter of comparing vectors, which stay as they are"),
}
WORDS = {"queries": {"queries"}, "pages": {"pages"}, "both": {"queries", "pages"}, "nothing": set()}


@exercise("a3.2")
def what_to_encode_again(answer) -> str:
    """A dictionary, one of `AGAIN`'s settings to "queries", "pages", "both" or "nothing"; a set or list of the two is taken too."""
    if not isinstance(answer, Mapping):
        raise NotYet(f"a dictionary is asked for, and the type of yours is {type(answer).__name__}")
    if missing := [setting for setting in AGAIN if setting not in answer]:
        return f"these settings are missing: {', '.join(missing)}"
    for setting, (right, why) in AGAIN.items():
        said = answer[setting]
        try:
            found = WORDS[said] if isinstance(said, str) else set(said or ())
        except (KeyError, TypeError):
            found = {"?"}
        if not found <= WORDS["both"]:
            return f'{setting}: "queries", "pages", "both" or "nothing" are the answers, not {said!r}'
        if found != right:
            return f"{setting}, you say {said!r}: {why}"
    return ""


@exercise("a3.3")
def ranks_with_ties(answer, measured, right_page: int) -> str:
    """``answer(scores, right)``: the rank of page ``right`` with pages that score exactly as high behind it, then in front of it."""
    made_up = torch.tensor([0.75, 0.50, 0.75, 0.25, 0.875, 0.75, 0.50])
    cases = [(made_up, 2), (made_up, 6), (made_up, 4), (torch.as_tensor(measured).detach().float().cpu(), right_page)]
    for scores, right in cases:
        found = two(returned(answer, scores.clone(), right), "the rank with equal pages behind, then with them in front")
        behind, in_front = map(a_number, found)
        best, worst = int((scores > scores[right]).sum()) + 1, int((scores >= scores[right]).sum())
        if (behind, in_front) == (best, worst):
            continue
        here = f"pages that score higher: {best - 1}, the same: {worst - best}; you say {behind:g} and {in_front:g}"
        if (behind, in_front) == (worst, best):
            return f"{here}: the rank with equal pages behind comes first, and is the better one"
        if (behind, in_front) == (best, worst + 1):
            return f"{here}: `>=` counts the right page itself too, so that there is nothing to add"
        if (behind, in_front) in ((best - 1, worst - 1), (best - 1, worst)):
            return f"{here}: a rank is counted from 1"
        if behind == in_front:
            return f"{here}: both are the same; where do the equal pages count?"
        return f"{here}: the ranks are {best} and {worst}"
    return ""


def _gain(rank: float) -> float:
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


@exercise("a3.4")
def gain_left_to_chance(answer) -> str:
    """``answer(best, worst)``: what a query adds to NDCG@10 on average when its rank is any from ``best`` to ``worst``, each as likely."""
    for best, worst in ((1, 2), (1, 5), (4, 4), (8, 13), (11, 20)):
        found, places = a_number(returned(answer, best, worst)), range(best, worst + 1)

        def near(value, found=found):
            return math.isclose(found, value, abs_tol=1e-4)

        right = sum(map(_gain, places)) / len(places)
        if near(right):
            continue
        here = f"ranks {best} to {worst}: you say {found:.3f}"
        if near(_gain((best + worst) / 2)):
            return f"{here}, the gain of the mean rank; the first places weigh more, so take the mean of the gains"
        if near((_gain(best) + _gain(worst)) / 2):
            return f"{here}, the mean of both ends; every place between them is as likely"
        if near(sum(1 / math.log2(1 + rank) for rank in places) / len(places)):
            return f"{here}: beyond the tenth place a page adds nothing"
        if near(sum(map(_gain, places))):
            return f"{here}, which is the sum; one of the {len(places)} places is taken, each as likely"
        if near(sum(map(_gain, places[:-1])) / max(1, len(places) - 1)) or near(sum(map(_gain, places[:-1])) / len(places)):
            return f"{here}: the worst rank is one of them"
        if near(sum(1 / rank for rank in places) / len(places)):
            return f"{here}: 1 / rank is MRR; NDCG divides by log2(1 + rank)"
        if near(_gain(best)) or near(_gain(worst)):
            return f"{here}, which is one end of what can happen"
        return f"{here}, and the mean of the {len(places)} gains is {right:.3f}"
    return ""
