"""What stands on the pages of the generated source and what its queries ask: all rows are planned
before a page is drawn (:mod:`tiny_vdr.corpus`).

The text of a page is not enough to find it:

- the pages of a family share organisation and year and differ in the subject, or share organisation
  and subject and differ in the year and in what their chart shows;
- three families belong to one organisation, so that their pages are wrong answers to each other's
  queries, too;
- a query names the subject in the page's word or in another one, and an organisation now and then
  by half of its name;
- a query of the kind ``"shape"`` names no year: only the chart tells which page is meant.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from tiny_vdr import vocabulary
from tiny_vdr.pages import CHART_LAYOUTS, ITEM_LAYOUTS, METRIC_LAYOUTS, TABLE_LAYOUTS
from tiny_vdr.sheet import Page

NEGATIVES_PER_ROW = 16  # as in the real dataset
SHAPE_FAMILIES = 0.27  # the share of families in which the chart's shape is asked
ITEM_FAMILIES = 0.3  # of the others: invoices and data sheets
FAMILIES_OF_ORGANISATION = 3  # their pages are wrong answers to each other's queries, too
REPEATED = 0.1  # share of train families of charts with a page that answers the first query too
HELD_OUT_LAYOUT = "letter"  # the later parts of pre-training never draw it
SHORT_FORM = 0.2  # of the queries that may name an organisation by the first half of its name


@dataclass(frozen=True)
class Words:
    """The words and layouts that pages and queries are made of.

    ``other_words``: how else a query may call a subject; ``invented``: the share of invented names;
    ``invented_subjects``: of pages about something invented; ``course``: with the phrasings of the
    course instead of pre-training's.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    metrics: tuple[str, ...]
    items: tuple[str, ...]
    regions: tuple[str, ...]
    layouts: tuple[str, ...]
    other_words: dict[str, tuple[str, ...]]
    invented: float = 0.0
    invented_subjects: float = 0.0
    course: bool = False

    def organisation(self, rng: random.Random) -> str:
        first, second = rng.choice(self.first), rng.choice(self.second)
        if rng.random() < self.invented:
            first = vocabulary.invented_word(rng)
        if rng.random() < self.invented / 2:
            second = vocabulary.invented_word(rng)
        return f"{first} {second}"

    def subjects(self, layout: str) -> tuple[str, ...]:
        return self.items if layout in ITEM_LAYOUTS else self.metrics

    def layout(self, rng: random.Random, among: tuple[str, ...]) -> str:
        return rng.choice([layout for layout in among if layout in self.layouts])


COURSE = Words(
    first=vocabulary.FIRST_NAMES.course,
    second=vocabulary.SECOND_NAMES.course,
    metrics=vocabulary.METRICS.course,
    items=vocabulary.ITEMS.course,
    regions=vocabulary.REGIONS.course,
    layouts=METRIC_LAYOUTS + ITEM_LAYOUTS,
    other_words={subject: others[:2] for subject, others in vocabulary.OTHER_WORDS.items()},
    course=True,
)
PRETRAINING = Words(
    first=vocabulary.FIRST_NAMES.shared,
    second=vocabulary.SECOND_NAMES.shared,
    metrics=vocabulary.METRICS.shared,
    items=vocabulary.ITEMS.shared,
    regions=vocabulary.REGIONS.shared,
    layouts=tuple(x for x in METRIC_LAYOUTS + ITEM_LAYOUTS if x != HELD_OUT_LAYOUT),
    other_words={subject: others[:1] for subject, others in vocabulary.OTHER_WORDS.items()},
    invented=0.35,
    invented_subjects=0.15,
)
# The second thousand and a half batches: both other words of every second subject.
LATER = replace(
    PRETRAINING,
    other_words=PRETRAINING.other_words
    | {subject: others[:2] for subject, others in list(vocabulary.OTHER_WORDS.items())[1::2]},
    invented_subjects=0.3,
)


# Pages


def draw_up(rng: random.Random, words: Words, with_shape: bool) -> Page:
    """A page of these words; ``with_shape``: one with a chart."""
    if with_shape:
        among = CHART_LAYOUTS
    else:
        among = ITEM_LAYOUTS if rng.random() < ITEM_FAMILIES else METRIC_LAYOUTS
    layout = words.layout(rng, among)
    return Page(
        organisation=words.organisation(rng),
        subjects=tuple(rng.sample(words.subjects(layout), k=3)),
        year=rng.choice(vocabulary.YEARS),
        region=rng.choice(words.regions),
        layout=layout,
        seed=rng.randrange(2**31),
        shape=rng.choice(vocabulary.SHAPES),
    )


def shown_subjects(page: Page) -> tuple[str, ...]:
    """The subjects that are drawn: all lines of a table, elsewhere the headline."""
    return page.subjects if page.layout in TABLE_LAYOUTS else page.subjects[:1]


def other_year(rng: random.Random, pages: list[Page]) -> int:
    taken = {page.year for page in pages}
    return rng.choice([year for year in vocabulary.YEARS if year not in taken])


def sibling(rng: random.Random, words: Words, family: list[Page], change: str) -> Page:
    """A page that differs from the family's first in ``change``: ``"subject"``, ``"year"``,
    ``"name"`` or ``"shape"`` (and the year, which such a query leaves out).
    """
    page = replace(family[0], seed=rng.randrange(2**31), shape=rng.choice(vocabulary.SHAPES))
    if change == "subject":
        alike = ITEM_LAYOUTS if page.layout in ITEM_LAYOUTS else METRIC_LAYOUTS
        taken = {subject for other in family for subject in other.subjects}
        left = [subject for subject in words.subjects(page.layout) if subject not in taken]
        if len(left) < 3:
            left = [s for s in words.subjects(page.layout) if s not in page.subjects]
        layout = page.layout if rng.random() < 0.5 else words.layout(rng, alike)
        return replace(page, subjects=tuple(rng.sample(left, k=3)), layout=layout)
    if change == "year":
        return replace(page, year=other_year(rng, family))
    if change == "name":
        names, place = page.organisation.split(), rng.randrange(2)
        while " ".join(names) in {other.organisation for other in family}:
            names[place] = words.organisation(rng).split()[place]
        return replace(page, organisation=" ".join(names))
    shown = {other.shape for other in family}
    shapes = [shape for shape in vocabulary.SHAPES if shape not in shown]
    return replace(
        page,
        year=other_year(rng, family),
        shape=rng.choice(shapes),
        layout=words.layout(rng, CHART_LAYOUTS),
    )


def changes(rng: random.Random, with_shape: bool, count: int) -> list[str]:
    """How the other pages of a family differ from its first."""
    if with_shape:
        return ["shape"] * min(count, 4) + ["subject"] * (count - 4)
    chosen = ["subject", "subject", rng.choice(("year", "name")), "subject", "year"][:count]
    rng.shuffle(chosen)
    return chosen


# Queries


def subject_word(rng: random.Random, words: Words, asked: str, synonym: bool) -> str:
    """How a query calls a subject: in the page's word, or with ``synonym`` in another one."""
    others = words.other_words.get(asked)
    if not synonym or others is None:
        return asked.lower()
    return others[0] if len(others) == 1 else rng.choice(others)


def kind_of(rng: random.Random, page: Page, with_shape: bool) -> str:
    if with_shape:
        return "shape"
    if page.layout in TABLE_LAYOUTS:
        return "table cell"
    return "quoted" if rng.random() < 0.4 else "paraphrased"


def templates(words: Words, page: Page, kind: str) -> tuple[str, ...]:
    """The phrasings of a kind that make sense for a page."""
    if kind == "shape":
        group = vocabulary.SHAPE_QUERIES[page.shape]
    elif page.layout in ITEM_LAYOUTS:
        group = vocabulary.ITEM_QUERIES
    else:
        group = vocabulary.METRIC_QUERIES
    return group.course if words.course else group.shared


def write_query(
    rng: random.Random, words: Words, page: Page, asked: str, kind: str, short: bool = False
) -> str:
    """A query of ``kind`` that ``page`` answers; ``short``: half of the organisation's name."""
    share = {"quoted": 0.0, "paraphrased": 1.0, "shape": 0.5, "table cell": 0.7}[kind]
    name = page.organisation.split()[0] if short else page.organisation
    return rng.choice(templates(words, page, kind)).format(
        organisation=name,
        subject=subject_word(rng, words, asked, rng.random() < share),
        year=page.year,
        region=page.region,
    )


def write_german_query(rng: random.Random, page: Page, asked: str, known: bool) -> str:
    """The same question in German; pre-training knows the words of every other subject."""
    group = vocabulary.GERMAN_QUERIES
    others = vocabulary.OTHER_WORDS.get(asked)
    return rng.choice(group.shared if known else group.course).format(
        organisation=page.organisation, subject=others[2] if others else asked, year=page.year
    )


# The corpus


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
    kind: str | None = None  # of its query


def drawn_facts(page: Page) -> set[tuple[str, str, int]]:
    """What can be read off a page: (organisation, subject, year) of each subject it shows."""
    return {(page.organisation, subject, page.year) for subject in shown_subjects(page)}


class Builder:
    """Plan families of pages first, and the queries when all pages are known."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rows: list[Row] = []
        self.used: set[tuple[str, str, int]] = set()
        self.charted: set[tuple[str, str]] = set()  # asked by shape: no other page may show them
        self.pairs: set[tuple[str, str]] = set()
        self.organisation = ""

    def free(self, page: Page) -> bool:
        pairs = {fact[:2] for fact in drawn_facts(page)}
        return not drawn_facts(page) & self.used and not pairs & self.charted

    def take(self, page: Page, asked: str, kind: str | None) -> Row:
        self.used |= drawn_facts(page)
        self.pairs |= {fact[:2] for fact in drawn_facts(page)}
        row = Row(f"page-{self.rng.getrandbits(40):010x}", page, asked, None, kind=kind)
        self.rows.append(row)
        return row

    def first_page(self, with_shape: bool) -> Page:
        while True:
            page = draw_up(self.rng, COURSE, with_shape)
            if self.organisation:
                page = replace(page, organisation=self.organisation)
            if not self.free(page):
                continue
            if not with_shape or not {fact[:2] for fact in drawn_facts(page)} & self.pairs:
                return page

    def family(self, size: int, queries: int) -> None:
        """A page and ``size - 1`` others of its kind; ``queries`` of them are asked for, the first
        among them.
        """
        with_shape = self.rng.random() < SHAPE_FAMILIES
        pages = [self.first_page(with_shape)]
        self.organisation = pages[0].organisation
        for change in changes(self.rng, with_shape, size - 1):
            page = sibling(self.rng, COURSE, pages, change)
            while not self.free(page):
                page = sibling(self.rng, COURSE, pages, change)
            pages.append(page)
        if queries > 1 and with_shape and self.rng.random() < REPEATED:
            # a page nobody asks for shows what the first one shows, as a later report may
            pages[-1] = replace(
                pages[0], year=other_year(self.rng, pages), seed=self.rng.randrange(2**31)
            )
        members = []
        for number, page in enumerate(pages):
            shown = shown_subjects(page)
            kept = members and members[0].asked in shown
            asked = members[0].asked if kept else self.rng.choice(shown)
            by_shape = with_shape and page.subjects == pages[0].subjects
            kind = kind_of(self.rng, page, by_shape) if number < queries else None
            members.append(self.take(page, asked, kind))
        if with_shape:
            self.charted.add((pages[0].organisation, pages[0].subjects[0]))
        for member in members:
            others = [other.id for other in members if other is not member]
            self.rng.shuffle(others)
            member.negatives = others

    def fill_negatives(self) -> None:
        """Siblings first, as they are ordered, then pages of the same organisation or subject."""
        own = {row.id: list(row.negatives) for row in self.rows}
        self.rank_negatives()
        for row in self.rows:
            far = [id_ for id_ in row.negatives if id_ not in own[row.id]]
            row.negatives = (own[row.id] + far)[: len(row.negatives)]

    def rank_negatives(self) -> None:
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

    def write_queries(self) -> None:
        """Word every query; an organisation's short form only where it names one page."""
        by_first_name = Counter(
            (organisation.split()[0], subject, year)
            for row in self.rows
            for organisation, subject, year in drawn_facts(row.page)
        )
        for row in self.rows:
            if row.kind is None:
                continue
            fact = (row.page.organisation.split()[0], row.asked, row.page.year)
            short = (
                row.kind in ("paraphrased", "table cell")
                and by_first_name[fact] == 1
                and self.rng.random() < SHORT_FORM
            )
            row.query = write_query(self.rng, COURSE, row.page, row.asked, row.kind, short)

    def soil(self) -> None:
        """Plant the noise that notebook 02 finds: each kind in a few rows, in the places where it
        does harm.
        """
        asked = [row for row in self.rows if row.query]
        silent = [row for row in self.rows if not row.query]
        for row in self.rng.sample(asked, k=40):
            row.language = "de"
            row.query = vocabulary.GERMAN_QUERY.format(
                organisation=row.page.organisation, subject=row.asked.lower(), year=row.page.year
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


def changed_facts(row: Row, other: Page) -> tuple[str, ...]:
    """What of a row's query is otherwise on ``other``: year (or, of a query that asks for a chart's
    shape and names no year, shape), subject, first name, second name; nothing if it answers the
    query too.
    """
    names, there = row.page.organisation.split(), other.organisation.split()
    if row.kind == "shape":
        charted = other.layout in CHART_LAYOUTS
        same = {"shape": charted and row.page.shape == other.shape}
    else:
        same = {"year": row.page.year == other.year}
    same["subject"] = row.asked in other.subjects
    same |= {"first name": names[0] == there[0], "second name": names[1] == there[1]}
    return tuple(fact for fact, kept in same.items() if not kept)


def plan_rows(
    seed: int = 0,
    train_families: int = 521,
    eval_families: int = 375,
    mean_scale: float | None = None,
) -> list[Row]:
    """All rows of the source: families of six pages; four of them are asked for in each of
    ``train_families``, one in each of ``eval_families``.

    The arguments are those of :func:`tiny_vdr.corpus.build_source`, so that a corpus can be planned
    again; the scale changes no row.
    """
    builder = Builder(seed)
    for queries, families in ((4, train_families), (1, eval_families)):
        for number in range(families):
            if number % FAMILIES_OF_ORGANISATION == 0:
                builder.organisation = ""  # the next family draws another
            builder.family(size=6, queries=queries)
    builder.fill_negatives()
    builder.write_queries()
    builder.soil()
    return builder.rows
