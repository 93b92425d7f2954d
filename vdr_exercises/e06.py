"""Exercises of notebook 06: what a card leaves out, a revision that stays, and a search over few pages or none."""

from __future__ import annotations

import torch

from vdr_exercises import NotAnswered, NotYet, exercise, returned


@exercise("6.1")
def what_a_card_leaves_out(answer, measured: dict) -> str:
    """``answer(facts, required)``: those names of ``required`` that are no key of ``facts`` or have nothing under it; 0 is something."""
    card = {"base": "a/b", "data": "", "licence": None, "languages": [], "seed": 0, "merged": False, "rows": 2048}
    asked = ["base", "data", "licence", "languages", "seed", "merged", "rows", "loss"]
    for facts, required in ((card, asked), (card, ["base", "rows"]), (dict(measured), ["base", "data", "revision of nothing"])):
        expected = [name for name in required if facts.get(name) in (None, "", [])]
        found = returned(answer, dict(facts), list(required))
        if isinstance(found, (str, bytes, bool, int, float)):
            return f"the names that are missing are asked for, in a list, and the type of yours is {type(found).__name__}"
        found = set(found)
        if found == set(expected):
            continue
        zeros = [name for name in required if name in found and facts.get(name) in (0, False) and name in facts]
        if zeros and facts[zeros[0]] not in (None, "", []):
            return f"{zeros[0]!r} is there, with the value {facts[zeros[0]]!r}: an answer that is 0 or False is one"
        if "loss" in found and not found & {"data", "licence", "languages"}:
            return "'data' is a key of the card, but nothing stands under it: a stranger learns as little as without it"
        if found == set(required) - set(expected) or found == set(facts):
            return "these are the names that are there; what is missing is asked for"
        return f"missing of {required} are {expected}, you found {sorted(map(str, found))}"
    return ""


@exercise("6.2")
def revision_that_stays(answer) -> str:
    """``answer(revision)``: whether it names one commit for ever, 40 hexadecimal digits; branches, tags and short forms may move."""
    commit = "9f2f7e7b0c41d1a57f3e6f0a4c2d8b9e1f6a7c35"
    cases = [
        (commit, True, "a whole commit never names anything else"),
        ("main", False, "a branch names another commit after the next push"),
        (None, False, "without a revision the default branch is loaded, as it is that day"),
        ("v1.0", False, "a tag can be deleted and set anew"),
        (commit[:7], False, "a shortened commit may one day fit two"),
        ("the-branch-with-a-name-of-40-characters-x", False, "it is a branch, however long its name"),
        ("the-branch-with-a-name-of-40-characters-", False, "it is a branch, though its name has 40 characters"),
        ("", False, "an empty text names nothing"),
    ]
    for revision, expected, why in cases:
        found = answer(revision) if callable(answer) else returned(answer)
        if bool(found) != expected:
            return f"{revision!r}: {why}"
    return ""


def _ids(answer, query, index, page_ids, count, what) -> list[str]:
    """What the learner's search returns, as a list; a failure is told with the case that it failed on."""
    try:
        found = returned(answer, query.clone(), index.clone(), list(page_ids), count)
        return list(found)
    except (NotYet, NotAnswered):
        raise
    except Exception as error:  # whatever the learner's code raises
        raise NotYet(f"{what}: this stops with {type(error).__name__}: {error}") from None


@exercise("6.3")
def search_of_few_pages(answer, index, page_ids) -> str:
    """``answer(query, index, page_ids, count)``: ids of the best pages, best first, at most ``count`` of them and at most those there are.

    ``query`` is a tensor (numbers), ``index`` one of (pages, numbers), whose rows have length 1; ``index`` may have no row.
    """
    made_up = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    names = [f"page-{letter}" for letter in "abcde"]
    cases = [
        (made_up[2] + 0.3 * made_up[0], made_up, names, 3, "five pages, three asked for"),
        (made_up[1], made_up, names, 10, "five pages, ten asked for"),
        (made_up[0], made_up[:0], [], 10, "an index without pages"),
        (index[0].float(), index.float(), page_ids, 10, "the index of this notebook"),
    ]
    for query, pages, ids, count, what in cases:
        found = _ids(answer, query, pages, ids, count, what)
        scores = dict(zip(ids, (pages @ query).tolist(), strict=True))
        expected = sorted(ids, key=scores.get, reverse=True)[:count]
        if ids and any(page not in scores for page in found):
            return f"{what}: {found[0]!r} is none of the ids; look the numbers of the best pages up in page_ids"
        if len(found) != len(expected) or len(set(found)) != len(found):
            return f"{what}: {len(expected)} ids are asked for, you return {len(found)}"
        if all(abs(scores[one] - scores[other]) < 1e-5 for one, other in zip(found, expected, strict=True)):
            continue
        if found == sorted(ids, key=scores.get)[:count]:
            return f"{what}: these are the worst pages; sort with the largest similarity first"
        if set(found) == set(expected):
            return f"{what}: the right pages, but the best one should come first, and so on"
        apart = [abs(scores[one] - scores[other]) for one, other in zip(found, expected, strict=True)]
        place = next(i for i, difference in enumerate(apart) if difference >= 1e-5)
        return f"{what}: place {place + 1} should have {expected[place]!r}, yours is {found[place]!r}"
    return ""
