"""Generate the tiny source dataset: page screenshots in the schema of
``llamaindex/vdr-multilingual-train``, noise included.

``id``, ``query`` (``None`` on pages kept only as hard negatives), ``image``, ``negatives`` (16 ids,
hardest first), ``language``. The folder loads with the call that loads the real one:
``load_dataset(path, "en", split="train")``. Notebook 02 takes it apart.
"""

from __future__ import annotations

import io
import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

from PIL.Image import Image, Resampling

from tiny_vdr import vocabulary
from tiny_vdr.pages import CHART_LAYOUTS, ITEM_LAYOUTS, METRIC_LAYOUTS, TABLE_LAYOUTS, draw_page
from tiny_vdr.sheet import Page

NEGATIVES_PER_ROW = 16  # as in the real dataset
VERSION = (
    8  # raise it when the same seed would give other pages, so that a cached corpus is built anew
)


@dataclass
class Row:
    """One row of the source before its page is drawn; ``asked`` is the subject that its query asks
    about.
    """

    id: str
    page: Page
    asked: str
    query: str | None
    negatives: list[str] = field(default_factory=list)
    language: str = "en"
    broken: bool = False
    kind: str | None = None  # of a query of tiny_vdr.reports


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


def facts(page: Page) -> set[tuple[str, str, int]]:
    """What a query could ask of this page; no two pages of the corpus share one, so that every
    query has one answer.
    """
    return {(page.organisation, subject, page.year) for subject in page.subjects}


def draw_up_page(rng: random.Random) -> Page:
    """A page from the course's vocabulary and layouts, shared and held out alike."""
    item = rng.random() < 0.35
    return Page(
        organisation=f"{rng.choice(vocabulary.FIRST_NAMES.course)} {rng.choice(vocabulary.SECOND_NAMES.course)}",
        subjects=tuple(rng.sample((vocabulary.ITEMS if item else vocabulary.METRICS).course, k=3)),
        year=rng.choice(vocabulary.YEARS),
        region=rng.choice(vocabulary.REGIONS.course),
        layout=rng.choice(ITEM_LAYOUTS if item else METRIC_LAYOUTS),
        seed=rng.randrange(2**31),
    )


def vary(page: Page, asked: str, change: str, rng: random.Random) -> Page:
    """A hard negative: the same page with one thing changed (``"year"``, ``"subject"``, ``"first"``
    or ``"second"`` name).

    Other figures and filler, the same layout. Only the asked row of a table changes. Raises
    ``ValueError`` for another ``change``.
    """
    page = replace(page, seed=rng.randrange(2**31))
    if change == "year":
        return replace(
            page, year=rng.choice([year for year in vocabulary.YEARS if year != page.year])
        )
    if change == "subject":
        words = (
            vocabulary.ITEMS.course if page.layout in ITEM_LAYOUTS else vocabulary.METRICS.course
        )
        other = rng.choice([word for word in words if word not in page.subjects])
        return replace(
            page,
            subjects=tuple(other if subject == asked else subject for subject in page.subjects),
        )
    first, second = page.organisation.split()
    if change == "first":
        first = rng.choice([name for name in vocabulary.FIRST_NAMES.course if name != first])
    elif change == "second":
        second = rng.choice([name for name in vocabulary.SECOND_NAMES.course if name != second])
    else:
        raise ValueError(f"change must be year, subject, first or second, not {change!r}")
    return replace(page, organisation=f"{first} {second}")


class SourceBuilder:
    """Plan all rows first (families of near-duplicates, negatives, noise), draw them afterwards."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rows: list[Row] = []
        self.used: set[tuple[str, str, int]] = set()

    def add(self, page: Page, asked: str, with_query: bool) -> Row:
        self.used |= facts(page)
        query = None
        if with_query:
            templates = [
                template for group in query_templates(page.layout) for template in group.course
            ]
            query = write_query(page, asked, self.rng.choice(templates))
        row = Row(f"page-{self.rng.getrandbits(40):010x}", page, asked, query)
        self.rows.append(row)
        return row

    def family(self, size: int, queries: int) -> None:
        """One page and ``size - 1`` near-duplicates; the first ``queries`` of them get a query."""
        page = draw_up_page(self.rng)
        while facts(page) & self.used:
            page = draw_up_page(self.rng)
        asked = self.rng.choice(page.subjects) if page.layout in TABLE_LAYOUTS else page.subjects[0]
        members = [self.add(page, asked, queries > 0)]
        changes = self.rng.sample(
            ("year", "year", "first", "second", "subject" if self.rng.random() < 0.25 else "year"),
            k=5,
        )
        while len(members) < size:
            sibling = vary(page, asked, changes[len(members) % 5], self.rng)
            if (
                not facts(sibling) & self.used
                or len(facts(sibling) & self.used) <= 2
                and changes[len(members) % 5] == "subject"
            ):
                asked_here = next((s for s in sibling.subjects if s not in page.subjects), asked)
                members.append(self.add(sibling, asked_here, len(members) < queries))
        for member in members:
            member.negatives = [other.id for other in members if other is not member]

    def fill_negatives(self) -> None:
        """Order siblings by how much they share with the page, then add pages of the same
        organisation, subject or year.
        """
        by_id = {row.id: row for row in self.rows}
        shelf: dict[object, list[Row]] = defaultdict(list)
        for row in self.rows:
            for key in (
                row.page.organisation,
                (row.asked, row.page.year),
                (row.page.organisation.split()[0], row.asked),
            ):
                shelf[key].append(row)
        for row in self.rows:
            page, near = row.page, {id_: by_id[id_] for id_ in row.negatives}
            for key in (
                page.organisation,
                (page.organisation.split()[0], row.asked),
                (row.asked, page.year),
            ):
                near |= {other.id: other for other in shelf[key] if other is not row}
            while len(near) < NEGATIVES_PER_ROW:
                other = self.rng.choice(self.rows)
                if other is not row:
                    near[other.id] = other
            ordered = sorted(near.values(), key=lambda other: -shared_facts(row, other))
            row.negatives = [other.id for other in ordered[:NEGATIVES_PER_ROW]]

    def soil(self) -> None:
        """Plant the noise that notebook 02 finds: each kind in a few rows, in the places where it
        does harm.
        """
        asked = [row for row in self.rows if row.query]
        silent = [row for row in self.rows if not row.query]
        for row in self.rng.sample(asked, k=40):
            row.language, row.query = (
                "de",
                write_query(row.page, row.asked, vocabulary.GERMAN_QUERY),
            )
        for row in self.rng.sample(asked, k=60):
            row.negatives[self.rng.randrange(4)] = f"page-missing-{self.rng.getrandbits(24):06x}"
        for row in self.rng.sample(silent, k=12):
            row.broken = True
        # the same page once more, offered as a hard negative of its own query
        for row in self.rng.sample(asked, k=30):
            copy = Row(
                f"page-{self.rng.getrandbits(40):010x}",
                row.page,
                row.asked,
                None,
                list(row.negatives),
            )
            self.rows.append(copy)
            row.negatives[0] = copy.id
        # a train page among eval's
        for early, late in zip(asked[:8], self.rng.sample(asked[-320:-20], k=8), strict=True):
            late.negatives[1] = early.id


def shared_facts(row: Row, other: Row) -> float:
    """How alike two pages are: half a point per shared name, one for year, one for the asked
    subject, a quarter for the layout.
    """
    names = sum(
        a == b
        for a, b in zip(row.page.organisation.split(), other.page.organisation.split(), strict=True)
    )
    same_subject = row.asked in other.page.subjects
    return (
        0.5 * names
        + (row.page.year == other.page.year)
        + same_subject
        + 0.25 * (row.page.layout == other.page.layout)
    )


def plan_rows(
    seed: int = 0,
    train_families: int = 521,
    eval_families: int = 375,
    mean_scale: float | None = None,
) -> list[Row]:
    """All rows of the source: ``train_families`` x 4 pages with queries, then ``eval_families`` x 6
    pages, one query each.

    The arguments are those of :func:`build_source`, so that a corpus can be planned again; the
    scale changes no row.
    """
    builder = SourceBuilder(seed)
    for _ in range(train_families):
        builder.family(size=4, queries=4)
    for _ in range(eval_families):
        builder.family(size=6, queries=1)
    builder.fill_negatives()
    builder.soil()
    return builder.rows


def query_kind(row: Row) -> str:
    """What a planned query asks for: ``"item"``, ``"trend"`` (of a chart), ``"table line"`` or
    ``"figure"``; on the corpus of reports the row's own kind.
    """
    if row.kind:
        return row.kind
    if row.page.layout in ITEM_LAYOUTS:
        return "item"
    if row.query in [
        write_query(row.page, row.asked, template) for template in vocabulary.CHART_QUERIES.course
    ]:
        return "trend"
    return "table line" if row.page.layout in TABLE_LAYOUTS else "figure"


def changed_facts(row: Row, other: Page) -> tuple[str, ...]:
    """What of a row's query is otherwise on ``other``: year, subject, first name, second name;
    nothing if it answers the query too.
    """
    names, there = row.page.organisation.split(), other.organisation.split()
    same = {"year": row.page.year == other.year, "subject": row.asked in other.subjects}
    same |= {"first name": names[0] == there[0], "second name": names[1] == there[1]}
    return tuple(fact for fact, kept in same.items() if not kept)


def enlarged_size(width: int, height: int, seed: int, mean_scale: float) -> tuple[int, int]:
    """A page's pixels at 0.7 to 1.3 times ``mean_scale``, chosen by ``seed``: sizes spread around
    the mean.
    """
    scale = mean_scale * random.Random(seed).uniform(0.7, 1.3)
    return round(width * scale), round(height * scale)


def enlarge(page: Image, seed: int, mean_scale: float) -> Image:
    """A drawn page at :func:`enlarged_size`."""
    return page.resize(enlarged_size(page.width, page.height, seed, mean_scale), Resampling.BICUBIC)


def encode_page(row: Row, mean_scale: float | None = None) -> bytes:
    """Draw a row's page as PNG bytes, enlarged if a scale is given; a broken row's file ends in the
    middle.
    """
    buffer = io.BytesIO()
    page = draw_page(row.page)[0]
    (enlarge(page, row.page.seed, mean_scale) if mean_scale else page).save(
        buffer, "PNG", compress_level=1
    )
    return buffer.getvalue()[:2000] if row.broken else buffer.getvalue()


def build_source(
    folder: Path,
    seed: int = 0,
    train_families: int = 521,
    eval_families: int = 375,
    workers: int | None = None,
    mean_scale: float | None = None,
    plan: Callable[..., list[Row]] = plan_rows,
) -> Path:
    """Draw the source dataset into ``folder`` (about 4,400 pages, under a minute on two cores);
    what was there is replaced. ``plan``: :func:`plan_rows`, or another with its first three
    arguments.

    ``mean_scale`` enlarges the pages, as the ``rehearsal`` profile does; ``workers``: processes
    that draw, by default one per core and eight at most. Written beside the target and moved into
    place at the end, so that an interrupted build is never whole. Returns ``folder``. Raises
    ``ValueError`` for too few families.
    """
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageColumn

    if train_families < 20 or eval_families < 85:
        raise ValueError(
            "build_source needs at least 20 train and 85 eval families to hold the noise that notebook 02 looks for"
        )
    rows = plan(seed, train_families, eval_families)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "en").mkdir(parents=True)
    features = Features(
        {"id": Value("string"), "query": Value("string"), "image": ImageColumn(decode=False), "negatives": List(Value("string")), "language": Value("string")}
    )  # fmt: skip
    half = (len(rows) + 1) // 2
    workers = workers or min(8, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # one file at a time: enlarged pages would fill the memory
        for i, part in enumerate((rows[:half], rows[half:])):
            columns = {
                name: [getattr(row, name) for row in part]
                for name in ("id", "query", "negatives", "language")
            }
            images = pool.map(encode_page, part, [mean_scale] * len(part), chunksize=32)
            columns["image"] = [
                {"bytes": data, "path": f"{row.id}.png"}
                for row, data in zip(part, images, strict=True)
            ]
            dataset = Dataset.from_dict(
                {name: columns[name] for name in features}, features=features
            )
            dataset.cast_column("image", ImageColumn()).to_parquet(
                partial / "en" / f"train-{i:05d}-of-00002.parquet", batch_size=100
            )
    (partial / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/train-*.parquet\n---\n"
        "Generated page screenshots in the schema of `llamaindex/vdr-multilingual-train`. Every name and figure is invented.\n"
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
