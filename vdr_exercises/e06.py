"""Exercises of notebook 06: what a model card leaves out, a revision that stays, small searches."""

from __future__ import annotations

import re

import torch

from vdr_exercises import asks_for_a_function
from vdr_exercises.answers import a_list, names

CARD = {
    "base": "a/b",
    "data": "",
    "licence": None,
    "languages": [],
    "seed": 0,
    "merged": False,
    "rows": 2048,
}


@asks_for_a_function(
    "6.1",
    inputs=lambda measured: [
        (CARD, [*CARD, "loss"]),
        (CARD, ["base", "rows"]),
        (measured, ["base", "data", "revision of nothing"]),
    ],
    returns=names,
    mistakes={
        "'data' is a key of the card, but nothing stands under it": (
            lambda facts, required: [name for name in required if name not in facts]
        ),
        "'seed' is there: an answer that is 0 or False is one": (
            lambda facts, required: [name for name in required if not facts.get(name)]
        ),
    },
    otherwise="expected {expected}",
    another=lambda facts, required: {
        name for name in required if str(facts.get(name)) in ("None", "", "[]")
    },
)
def what_a_card_leaves_out(facts, required):
    """The names of ``required`` that have no fact, or one that is ``None``, "" or []."""
    return [name for name in required if facts.get(name) in (None, "", [])]


COMMIT = "9f2f7e7b0c41d1a57f3e6f0a4c2d8b9e1f6a7c35"


@asks_for_a_function(
    "6.2",
    inputs=[
        (COMMIT,),
        ("main",),
        (None,),
        ("v1.0",),
        (COMMIT[:7],),
        ("the-branch-with-a-name-of-40-characters-",),
        ("",),
    ],
    returns=bool,
    mistakes={
        "a shortened commit may one day fit two": (
            lambda revision: bool(re.fullmatch("[0-9a-f]+", revision or ""))
        ),
        "it is a branch, though its name has 40 characters": (
            lambda revision: len(revision or "") == 40
        ),
        "a branch or a tag can name another commit tomorrow": lambda revision: revision is not None,
    },
    otherwise="only a whole commit, 40 hexadecimal digits, never names anything else",
    another=lambda revision: (
        revision is not None and len(revision) == 40 and set(revision) <= set("0123456789abcdef")
    ),
)
def revision_that_stays(revision):
    """Whether a revision, a text or ``None``, names one commit for ever."""
    return bool(re.fullmatch("[0-9a-f]{40}", revision or ""))


PAGES = torch.nn.functional.normalize(
    torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1
)
PAGE_IDS = [f"page-{letter}" for letter in "abcde"]


def searches(index, page_ids) -> list[tuple]:
    """Inputs of exercise 6.3; the notebook's own index where no two of its best pages tie."""
    cases = [
        (PAGES[2] + 0.3 * PAGES[0], PAGES, PAGE_IDS, 3),
        (PAGES[1], PAGES, PAGE_IDS, 10),
        (PAGES[0], PAGES[:0], [], 10),
    ]
    index = index.float()
    best = (index @ index[0]).topk(min(11, len(index))).values
    if (best[:-1] - best[1:]).min() > 1e-5:
        cases.append((index[0], index, list(page_ids), 10))
    return cases


@asks_for_a_function(
    "6.3",
    inputs=searches,
    returns=a_list,
    mistakes={
        "take no more than there are, `min(count, len(index))`": (
            lambda query, index, page_ids, count: [
                page_ids[place] for place in (index @ query).topk(count).indices
            ]
        ),
        "these are the worst pages; the largest similarity comes first": (
            lambda query, index, page_ids, count: [
                page_ids[place] for place in (index @ query).argsort()[:count]
            ]
        ),
        "these are page numbers; look them up in page_ids": (
            lambda query, index, page_ids, count: (
                (index @ query).argsort(descending=True)[:count].tolist()
            )
        ),
    },
    otherwise="expected {expected}",
    another=lambda query, index, page_ids, count: sorted(
        page_ids, key=lambda name: -float(index[page_ids.index(name)] @ query)
    )[:count],
)
def search_of_few_pages(query, index, page_ids, count):
    """Ids of the best pages, best first, at most ``count`` of them and at most those there are.

    ``query`` is a tensor (dimensions), ``index`` one of (pages, dimensions) that may have no row.
    """
    best = (index @ query).argsort(descending=True)[:count]
    return [page_ids[place] for place in best]


def stand_ins() -> dict:
    """What the exercises and their folded solutions read of notebook 06."""
    index = torch.randn(12, 16, generator=torch.Generator().manual_seed(3))
    return {
        "re": re,
        "facts": {"base": "assets/tiny-base", "data": "generated", "seed": "42"},
        "index": torch.nn.functional.normalize(index, dim=1),
        "page_ids": [f"q{number}-positive" for number in range(12)],
    }
