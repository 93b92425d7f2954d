"""Batches of the later parts of pre-training: pages and queries of :mod:`tiny_vdr.plan`."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from tiny_vdr import vocabulary
from tiny_vdr.batches import (
    EXTRA_QUERIES,
    KINDS,
    PAGE_SIZE,
    caption_targets,
    letter_targets,
    patches,
)
from tiny_vdr.pages import CHART_LAYOUTS, TABLE_LAYOUTS, draw_page
from tiny_vdr.plan import (
    LATER,
    PRETRAINING,
    SHORT_FORM,
    Words,
    changes,
    draw_up,
    kind_of,
    shown_subjects,
    sibling,
    write_german_query,
    write_query,
)
from tiny_vdr.sheet import Page

FAMILY = 4
SHAPES = 0.4  # share of the families in which the chart's shape is asked
GERMAN = 0.2  # share of the queries that could be German
Asked = tuple[Page, str, str, bool]  # page, subject asked, kind of query, short name allowed
GERMAN_SUBJECTS = (vocabulary.METRICS.shared + vocabulary.ITEMS.shared)[::2]


class ReportBatches(torch.utils.data.Dataset):
    """Batch number ``step`` of ``size`` pages, fixed by ``seed``, with the parts that
    :class:`tiny_vdr.batches.Batches` gives.
    """

    kinds = (*KINDS, vocabulary.SHAPES)
    name, words = "reports", PRETRAINING

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        words = [word.lower() for kind in self.kinds for word in kind]
        self.index = {word: i for i, word in enumerate(words)}

    def draw(self, rng: random.Random) -> list[Asked]:
        """Families that a batch is filled with."""
        return draw_family(rng, self.words, FAMILY)

    def __getitem__(self, step: int) -> dict:
        rng = random.Random(f"{self.name}-{self.seed}-{step}")
        asked: list[Asked] = []
        while len(asked) < self.size:
            asked += self.draw(rng)
        asked = asked[: self.size]
        images, letters = [], []
        for page, _, _, _ in asked:
            image, key_lines = draw_page(page)
            shrunk = PAGE_SIZE if image.height > image.width else PAGE_SIZE[::-1]
            letters.append(letter_targets(key_lines, image.size, shrunk))
            images.append(torch.from_numpy(np.array(image.resize(shrunk, Image.BICUBIC))))
        asking = list(asked)
        while len(asking) < self.size + EXTRA_QUERIES:
            asking += draw_family(rng, self.words, 1)
        queries, named = zip(*(word_query(rng, self.words, *row) for row in asking), strict=True)
        pixel_values, grids = patches(images)
        return {
            "pixel_values": pixel_values,
            "image_grid_thw": grids,
            "queries": list(queries),
            "letters": torch.from_numpy(np.stack(letters)),
            "page_words": caption_targets([page_words(row[0]) for row in asked], self.index),
            "query_words": caption_targets(list(named), self.index),
        }


class TwinBatches(ReportBatches):
    """Batches in which every family stands twice, the second time at another organisation, so that
    its name has to be read as well; more subjects are invented, more other words are used.
    """

    name, words = "twins", LATER

    def draw(self, rng: random.Random) -> list[Asked]:
        return with_twins(rng, self.words, draw_family(rng, self.words, FAMILY))


def draw_family(rng: random.Random, words: Words, size: int) -> list[Asked]:
    """``size`` pages of one family, each with the subject asked, the query's kind, and whether the
    organisation may be called by half of its name.
    """
    with_shape = rng.random() < SHAPES
    pages = [draw_up(rng, words, with_shape)]
    if rng.random() < words.invented_subjects and pages[0].layout not in TABLE_LAYOUTS:
        invented = (vocabulary.invented_word(rng), *pages[0].subjects[1:])
        pages = [replace(pages[0], subjects=invented)]
    kinds_of_change = changes(rng, with_shape, size - 1)
    for change in kinds_of_change:
        pages.append(sibling(rng, words, pages, change))
    family = []
    for page in pages:
        shown = shown_subjects(page)
        asked = family[0][1] if family and family[0][1] in shown else rng.choice(shown)
        short = "name" not in kinds_of_change and rng.random() < SHORT_FORM
        family.append((page, asked, kind_of(rng, page, with_shape), short))
    return family


def with_twins(rng: random.Random, words: Words, family: list[Asked]) -> list[Asked]:
    """The pages of a family, then the same ones with the first or second word of the organisation
    changed; where the first word stays, no query may use it alone.
    """
    place, renamed, twins = rng.randrange(2), {}, []
    for page, asked, kind, short in family:
        if page.organisation not in renamed:
            names = page.organisation.split()
            while (name := " ".join(names)) in {*renamed, *renamed.values(), page.organisation}:
                names[place] = words.organisation(rng).split()[place]
            renamed[page.organisation] = name
        twin = replace(page, organisation=renamed[page.organisation], seed=rng.randrange(2**31))
        twins.append((twin, asked, kind, short))
    return [
        (page, asked, kind, short and place == 0) for page, asked, kind, short in family + twins
    ]


def word_query(
    rng: random.Random, words: Words, page: Page, asked: str, kind: str, short: bool
) -> tuple[str, list[str]]:
    """A query with words of pre-training alone, and what it names."""
    names = page.organisation.split()
    if kind == "shape":
        query = write_query(rng, words, page, asked, kind)
        return query, [*names, asked, page.shape]
    if asked in GERMAN_SUBJECTS and rng.random() < GERMAN:
        return write_german_query(rng, page, asked, known=True), [*names, asked, str(page.year)]
    short = short and kind != "quoted"
    query = write_query(rng, words, page, asked, kind, short)
    named = [*names[: 1 if short else 2], asked, str(page.year)]
    if page.region in query:
        named.append(page.region)
    return query.lower() if rng.random() < 0.1 else query, named


def page_words(page: Page) -> list[str]:
    """What a page names: its large words, and what its chart shows."""
    words = [*page.organisation.split(), *shown_subjects(page), page.region, str(page.year)]
    return [*words, page.shape] if page.layout in CHART_LAYOUTS else words
