"""Batches for pre-training the tiny base model: invented pages, queries, and what each image token
and page names.
"""

from __future__ import annotations

import random
import string

import numpy as np
import torch
from PIL import Image

from tiny_vdr import vocabulary
from tiny_vdr.pages import (
    CHART_LAYOUTS,
    HELD_OUT_LAYOUTS,
    ITEM_LAYOUTS,
    METRIC_LAYOUTS,
    TABLE_LAYOUTS,
    draw_page,
)
from tiny_vdr.sheet import Page

CHARACTERS = string.ascii_lowercase + string.digits
KINDS = (  # what the caption loss asks for, one answer per kind
    vocabulary.FIRST_NAMES.shared,
    vocabulary.SECOND_NAMES.shared,
    vocabulary.METRICS.shared + vocabulary.ITEMS.shared,
    vocabulary.REGIONS.shared,
    tuple(str(year) for year in vocabulary.YEARS),
)
CAPTION_WORDS = tuple(word.lower() for kind in KINDS for word in kind)
CAPTION_INDEX = {word: i for i, word in enumerate(CAPTION_WORDS)}
EXTRA_QUERIES = 32  # per batch, for the caption loss alone: a query costs a tenth of a page
PAGE_SIZE = (160, 224)  # pixels after the processor's resize, portrait; landscape pages are turned
# the first half of a name has the most values and is learned last
CHANGES = ("first", "first", "year", "subject", "second")


def curriculum(step: int) -> tuple[float, int, int]:
    """``(share of flashcards, typefaces, near-duplicates per family)`` at a step: first few words
    in one typeface, then pages.
    """
    flashcards = min(1.0, max(0.05, 1.25 - step / 480))
    return (
        flashcards,
        1 + min(5, max(0, step - 150) // 90),
        1 if step < 250 else 2 if step < 600 else 4,
    )


def random_page(rng: random.Random, flashcards: float = 0.0) -> Page:
    """A page from the pre-training mix: shared words and layouts, a third invented names, 15 %
    invented subjects.
    """
    item = rng.random() < 0.4
    layouts = [
        layout
        for layout in (ITEM_LAYOUTS if item else METRIC_LAYOUTS)
        if layout not in HELD_OUT_LAYOUTS
    ]
    first, second = (
        rng.choice(vocabulary.FIRST_NAMES.shared),
        rng.choice(vocabulary.SECOND_NAMES.shared),
    )
    if rng.random() < 0.35:
        first = vocabulary.invented_word(rng)
    if rng.random() < 0.15:
        second = vocabulary.invented_word(rng)
    subjects = rng.sample((vocabulary.ITEMS if item else vocabulary.METRICS).shared, k=3)
    if rng.random() < 0.15:
        subjects[0] = vocabulary.invented_word(rng)
    plain = rng.random()
    return Page(
        organisation=f"{first} {second}",
        subjects=tuple(subjects),
        year=rng.choice(vocabulary.YEARS),
        region=rng.choice(vocabulary.REGIONS.shared),
        layout="flashcard" if plain < flashcards else rng.choice(layouts),
        seed=rng.randrange(2**31),
    )


def near_duplicate(page: Page, change: str, rng: random.Random) -> Page:
    """The same page with one thing changed: ``"year"``, ``"subject"``, or the ``"first"`` or
    ``"second"`` half of the name.
    """
    values = dict(page.__dict__, seed=rng.randrange(2**31))
    other = random_page(rng)
    if change == "year":
        values["year"] = rng.choice([year for year in vocabulary.YEARS if year != page.year])
    elif change == "subject":
        words = (
            vocabulary.ITEMS.shared if page.layout in ITEM_LAYOUTS else vocabulary.METRICS.shared
        )
        values["subjects"] = tuple(
            rng.sample([word for word in words if word not in page.subjects], k=3)
        )
    else:
        mine, theirs = page.organisation.split(), other.organisation.split()
        place = 0 if change == "first" else 1
        mine[place] = theirs[place]
        values["organisation"] = " ".join(mine)
    return Page(**values)


def query_templates(layout: str) -> tuple[vocabulary.WordList, ...]:
    """The phrasings that make sense for a layout: a trend is asked only where a chart shows one."""
    if layout in ITEM_LAYOUTS:
        return (vocabulary.ITEM_QUERIES,)
    return (
        (vocabulary.METRIC_QUERIES, vocabulary.CHART_QUERIES)
        if layout in CHART_LAYOUTS
        else (vocabulary.METRIC_QUERIES,)
    )


def write_query(page: Page, asked: str, template: str) -> str:
    """Fill one phrasing with what ``page`` says."""
    return template.format(
        organisation=page.organisation, subject=asked.lower(), year=page.year, region=page.region
    )


def random_query(page: Page, rng: random.Random) -> tuple[str, list[str]]:
    """A query that ``page`` answers and the words it names: a shared phrasing, now and then in
    lower case or as bare words.
    """
    asked = rng.choice(page.subjects) if page.layout in TABLE_LAYOUTS else page.subjects[0]
    query = write_query(
        page,
        asked,
        rng.choice(
            [template for group in query_templates(page.layout) for template in group.shared]
        ),
    )
    if rng.random() < 0.2:
        pieces = [page.organisation, asked.lower(), str(page.year)]
        rng.shuffle(pieces)
        query = " ".join(pieces)
    named = [*page.organisation.split(), asked, str(page.year)] + (
        [page.region] if page.region in query else []
    )
    return query.lower() if rng.random() < 0.15 else query, named


def caption_targets(named: list[list[str]], index: dict[str, int] = CAPTION_INDEX) -> torch.Tensor:
    """Which of the caption words each item names: 0/1 of shape (items, words); invented words have
    no place in it.
    """
    targets = torch.zeros(len(named), len(index))
    for row, words in zip(targets, named, strict=True):
        for word in words:
            if word.lower() in index:
                row[index[word.lower()]] = 1.0
    return targets


def letter_targets(key_lines: list, size: tuple[int, int], shrunk: tuple[int, int]) -> np.ndarray:
    """Which characters lie under which image token: 0/1 of shape (tokens, 36), in the order of
    the image tokens.
    """
    scale_x, scale_y = shrunk[0] / size[0], shrunk[1] / size[1]
    columns, rows = shrunk[0] // 32, shrunk[1] // 32
    targets = np.zeros((rows * columns, len(CHARACTERS)), dtype=np.float32)
    for text, x0, y0, x1, y1 in key_lines:
        row = min(rows - 1, int((y0 + y1) / 2 * scale_y // 32))
        for i, character in enumerate(text.lower()):
            column = int((x0 + (x1 - x0) * (i + 0.5) / len(text)) * scale_x // 32)
            if character in CHARACTERS and 0 <= column < columns:
                targets[row * columns + column, CHARACTERS.index(character)] = 1.0
    return targets


def patches(images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the processor makes of already resized pages: ``pixel_values`` (patches, 1536) and
    ``image_grid_thw`` (pages, 3).
    """
    values, grids = [], []
    for image in images:
        height, width = image.shape[0] // 16, image.shape[1] // 16
        pixels = (image.permute(2, 0, 1).float() / 255 - 1.0) / 0.35
        pixels = pixels.reshape(3, height // 2, 2, 16, width // 2, 2, 16).permute(
            1, 4, 2, 5, 0, 3, 6
        )
        pixels = pixels.reshape(height * width, 3, 1, 16, 16).expand(-1, -1, 2, -1, -1)
        values.append(pixels.reshape(height * width, -1))
        grids.append([1, height, width])
    return torch.cat(values), torch.tensor(grids)


class Batches(torch.utils.data.Dataset):
    """Batch number ``step`` of ``size`` pages, fixed by ``seed``: patches, one query each and some
    more, letters, words that each names.
    """

    kinds = KINDS

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __getitem__(self, step: int) -> dict:
        rng = random.Random(f"{self.seed}-{step}")
        flashcards, typefaces, family = curriculum(step)
        pages: list[Page] = []
        while len(pages) < self.size:
            page = random_page(rng, flashcards)
            change = rng.choice(CHANGES)  # one kind per family, so that every pair in it is hard
            pages += [page] + [near_duplicate(page, change, rng) for _ in range(family - 1)]
        pages = pages[: self.size]
        images, letters = [], []
        for page in pages:
            image, key_lines = draw_page(page, typefaces)
            shrunk = PAGE_SIZE if image.height > image.width else PAGE_SIZE[::-1]
            letters.append(letter_targets(key_lines, image.size, shrunk))
            images.append(torch.from_numpy(np.array(image.resize(shrunk, Image.BICUBIC))))
        asking = pages + [random_page(rng) for _ in range(EXTRA_QUERIES)]
        queries, named = zip(*(random_query(page, rng) for page in asking), strict=True)
        pixel_values, grids = patches(images)
        return {
            "pixel_values": pixel_values,
            "image_grid_thw": grids,
            "queries": list(queries),
            "letters": torch.from_numpy(np.stack(letters)),
            "page_words": caption_targets(
                [[*p.organisation.split(), *p.subjects, p.region, str(p.year)] for p in pages]
            ),
            "query_words": caption_targets(list(named)),
        }
