"""The generated source: deterministic, hard negatives hard by construction, one page per query, and
the planted noise counted.
"""

import random
from collections import Counter

import pytest

from tiny_vdr import batches, corpus, pages, vocabulary
from tiny_vdr.corpus import SourceBuilder, build_source, plan_rows, shared_facts, vary
from tiny_vdr.sheet import Page

pytestmark = pytest.mark.slow

SIZES = (40, 90)  # families
SMALL = {"seed": 0, "train_families": 20, "eval_families": 85}


@pytest.fixture(scope="module")
def planned():
    return plan_rows(0, *SIZES)


@pytest.fixture(scope="module")
def clean():
    """The builder just before noise is planted."""
    builder = SourceBuilder(0)
    for _ in range(SIZES[0]):
        builder.family(size=4, queries=4)
    for _ in range(SIZES[1]):
        builder.family(size=6, queries=1)
    builder.fill_negatives()
    return builder


def without_copies(rows):
    """Rows whose page no earlier row has."""
    return list({row.page: row for row in reversed(rows)}.values())


def test_a_seed_gives_the_same_rows_and_another_seed_others(planned):
    assert plan_rows(0, *SIZES) == planned
    other = plan_rows(1, *SIZES)
    assert len(other) == len(planned) == 40 * 4 + 90 * 6 + 30
    assert not {row.id for row in other} & {row.id for row in planned}
    assert not {row.page for row in other} & {row.page for row in planned}


def test_sixteen_negatives_each_and_none_is_the_row_itself(planned):
    assert {len(row.negatives) for row in planned} == {16}
    assert not [row.id for row in planned if row.id in row.negatives]
    assert len({row.id for row in planned}) == len(planned)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_query_has_exactly_one_page(seed):
    rows = plan_rows(seed, *SIZES)
    shown = Counter(fact for row in without_copies(rows) for fact in corpus.facts(row.page))
    asked = [(row.page.organisation, row.asked, row.page.year) for row in rows if row.query]
    assert len(asked) == 40 * 4 + 90
    assert {shown[fact] for fact in asked} == {1}
    assert len(set(asked)) == len(asked)


def test_a_query_says_what_it_asks_and_its_page_shows_it(planned):
    for row in planned:
        if row.query:
            for fact in (row.page.organisation, str(row.page.year), row.asked.lower()):
                assert fact in row.query
            assert row.asked in (
                row.page.subjects
                if row.page.layout in pages.TABLE_LAYOUTS
                else row.page.subjects[:1]
            )


def test_a_trend_is_asked_only_where_a_chart_shows_one():
    for layout in (*pages.METRIC_LAYOUTS, *pages.ITEM_LAYOUTS):
        assert (vocabulary.CHART_QUERIES in corpus.query_templates(layout)) == (
            layout in ("report", "slide", "dashboard")
        )
        assert (corpus.query_templates(layout) == (vocabulary.ITEM_QUERIES,)) == (
            layout in ("invoice", "datasheet")
        )


def test_the_plan_tells_what_a_query_asks_for(planned):
    asked = [row for row in planned if row.query and row.language == "en"]
    kinds = {corpus.query_kind(row) for row in asked}
    assert kinds == {"figure", "trend", "table line", "item"}
    for row in asked:
        kind = corpus.query_kind(row)
        assert (kind == "item") == (row.page.layout in pages.ITEM_LAYOUTS)
        assert kind != "table line" or row.page.layout in pages.TABLE_LAYOUTS
        assert (
            kind != "trend"
            or row.page.layout in pages.CHART_LAYOUTS
            and any(
                word in row.query for word in ("rise", "chart", "quarter", "develop", "good year")
            )
        )


def test_negatives_are_ordered_by_hardness_before_noise_is_planted(clean):
    by_id = {row.id: row for row in clean.rows}
    for row in clean.rows:
        shared = [shared_facts(row, by_id[id_]) for id_ in row.negatives]
        assert shared == sorted(shared, reverse=True)
        assert shared[0] > shared[-1]
        assert shared[0] >= 2  # at least two of name, year and subject


def test_shared_facts_by_hand():
    def row(organisation, subjects, year, layout):
        return corpus.Row(
            "x", Page(organisation, subjects, year, "Oslo", layout, 0), subjects[0], None
        )

    mine = row("Alder Energy", ("Rent", "Staff", "Wages"), 2014, "report")
    assert shared_facts(mine, mine) == 0.5 + 0.5 + 1 + 1 + 0.25
    assert (
        shared_facts(mine, row("Alder Foods", ("Staff", "Rent", "Fuel cost"), 2015, "slide"))
        == 0.5 + 1
    )
    assert (
        shared_facts(mine, row("Birch Foods", ("Staff", "Orders", "Fuel cost"), 2014, "report"))
        == 1 + 0.25
    )
    assert (
        shared_facts(mine, row("Birch Foods", ("Staff", "Orders", "Fuel cost"), 2015, "slide")) == 0
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_planted_noise_is_counted(seed):
    rows = plan_rows(seed, 311, 330)  # the size that the course uses
    ids, first = {row.id for row in rows}, rows[:-30]
    assert sum(row.language == "de" for row in rows) == 40
    assert all(row.query.startswith("Wie hoch war") for row in rows if row.language == "de")
    assert sum(row.broken for row in rows) == 12
    assert not [row for row in rows if row.broken and row.query]
    missing = {id_ for row in rows for id_ in row.negatives if id_ not in ids}
    # a copy that takes the place of a missing id leaves that one on the copy's own list, so none of
    # the 60 is lost
    assert len(missing) == 60
    assert all(id_.startswith("page-missing-") for id_ in missing)
    assert len(rows) - len({row.page for row in rows}) == 30
    originals = {row.page: row for row in first}
    for copy in rows[-30:]:
        original = originals[copy.page]
        assert original.negatives[0] == copy.id
        assert copy.query is None
    # eight rows that will be in eval are offered a page that will be in train
    early = [row.id for row in first if row.query][:8]
    late = [row.negatives[1] for row in first if row.query][311 * 4 :]
    assert sorted(id_ for id_ in late if id_ in early) == sorted(early)


@pytest.mark.parametrize("layout", ["table", "invoice", "report"])
@pytest.mark.parametrize("change", ["year", "subject", "first", "second"])
def test_vary_changes_exactly_one_thing(layout, change):
    subjects = (
        ("Pumps", "Valves", "Cables") if layout == "invoice" else ("Revenue", "Water use", "Staff")
    )
    page = Page("Alder Energy", subjects, 2014, "Oslo", layout, 7)
    for seed in range(25):
        other = vary(page, subjects[1], change, random.Random(seed))
        changed = {
            "year": other.year != page.year,
            "subject": other.subjects != page.subjects,
            "first": other.organisation.split()[0] != "Alder",
            "second": other.organisation.split()[1] != "Energy",
        }
        assert [name for name, is_changed in changed.items() if is_changed] == [change]
        assert (other.layout, other.region) == (page.layout, page.region)
        assert other.seed != page.seed
        # only the asked row of a table
        assert (other.subjects[0], other.subjects[2]) == (subjects[0], subjects[2])
        assert len(set(other.subjects)) == 3


def test_vary_refuses_another_change():
    with pytest.raises(ValueError, match="year, subject, first or second, not 'colour'"):
        vary(
            Page("Alder Energy", ("Rent",), 2014, "Oslo", "report", 7),
            "Rent",
            "colour",
            random.Random(0),
        )


def test_what_pre_training_never_shows_is_in_the_course(planned, monkeypatch):
    templates = set()
    write = batches.write_query
    monkeypatch.setattr(
        batches,
        "write_query",
        lambda page, asked, template: templates.add(template) or write(page, asked, template),
    )
    rng = random.Random(0)
    seen, layouts = set(), set()
    for i in range(2000):
        page = batches.random_page(rng, flashcards=0.1)
        if i % 2:
            page = batches.near_duplicate(page, rng.choice(batches.CHANGES), rng)
        batches.random_query(page, rng)
        seen |= {*page.organisation.split(), *page.subjects, page.region}
        layouts.add(page.layout)
    groups = (
        vocabulary.FIRST_NAMES,
        vocabulary.SECOND_NAMES,
        vocabulary.METRICS,
        vocabulary.ITEMS,
        vocabulary.REGIONS,
    )
    held_out = {word for group in groups for word in group.held_out}
    assert not seen & held_out
    assert {word for group in groups for word in group.shared} <= seen
    assert not layouts & set(pages.HELD_OUT_LAYOUTS)
    assert layouts == {"report", "table", "slide", "invoice", "datasheet", "flashcard"}
    queries = (vocabulary.METRIC_QUERIES, vocabulary.CHART_QUERIES, vocabulary.ITEM_QUERIES)
    assert templates == {template for group in queries for template in group.shared}

    in_course = {
        word
        for row in planned
        for word in (*row.page.organisation.split(), *row.page.subjects, row.page.region)
    }
    assert held_out <= in_course
    assert set(pages.HELD_OUT_LAYOUTS) <= {row.page.layout for row in planned}
    text = " ".join(row.query for row in planned if row.query)
    assert "Which page gives" in text
    assert "how did" in text
    assert "What did" in text
    for group in (*groups, *queries):
        assert not set(group.shared) & set(group.held_out)


def test_the_source_loads_like_the_real_one(source):
    from datasets import Features, Image, List, Value, load_dataset

    dataset = load_dataset(str(source), "en", split="train")
    assert dataset.features == Features(
        {"id": Value("string"), "query": Value("string"), "image": Image(), "negatives": List(Value("string")), "language": Value("string")}
    )  # fmt: skip
    rows = plan_rows(**SMALL)
    assert dataset["id"] == [row.id for row in rows]
    assert dataset[3]["query"] == rows[3].query
    assert dataset[3]["negatives"] == rows[3].negatives
    assert (
        dataset[3]["image"].convert("RGB").tobytes() == pages.draw_page(rows[3].page)[0].tobytes()
    )
    broken = next(i for i, row in enumerate(rows) if row.broken)
    with pytest.raises(OSError, match="truncated"):
        dataset[broken]["image"].load()


class QuickPool:
    """In place of a pool of processes: draws nothing, the same small page for every row."""

    def __init__(self, workers, mp_context):
        import io

        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, "PNG")
        self.data = buffer.getvalue()

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        return False

    def map(self, function, rows, scales, chunksize):
        return [self.data for _ in rows]


def test_a_killed_build_is_never_taken_for_a_whole_one(tmp_path, monkeypatch):
    from datasets import Dataset, load_dataset

    monkeypatch.setattr(corpus, "ProcessPoolExecutor", QuickPool)
    folder, partial = tmp_path / "source", tmp_path / "source.partial"
    calls, to_parquet = [], Dataset.to_parquet

    def die_at_the_second_file(self, path, **settings):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return to_parquet(self, path, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Dataset, "to_parquet", die_at_the_second_file)
        build_source(folder, **SMALL)
    assert partial.exists()
    assert not folder.exists()
    (partial / "en" / "train-00007-of-00002.parquet").write_text("half a file")

    assert build_source(folder, **SMALL) == folder
    assert not partial.exists()
    assert sorted(path.name for path in (folder / "en").iterdir()) == [
        f"train-0000{i}-of-00002.parquet" for i in (0, 1)
    ]
    assert len(load_dataset(str(folder), "en", split="train")) == len(plan_rows(**SMALL))


def test_a_build_replaces_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "ProcessPoolExecutor", QuickPool)
    folder = build_source(tmp_path / "source", **SMALL)
    old = (folder / "en" / "train-00000-of-00002.parquet").read_bytes()
    (folder / "old").touch()
    build_source(folder, **SMALL | {"seed": 1})
    assert (folder / "en" / "train-00000-of-00002.parquet").read_bytes() != old
    assert not (folder / "old").exists()


@pytest.mark.parametrize("sizes", [(19, 85), (20, 84), (0, 0)])
def test_too_few_families_are_refused(tmp_path, sizes):
    with pytest.raises(ValueError, match="at least 20 train and 85 eval families"):
        build_source(tmp_path / "source", train_families=sizes[0], eval_families=sizes[1])
    assert not list(tmp_path.glob("source*"))


def test_a_broken_page_does_not_open_and_a_whole_one_does(planned):
    from vdr_helpers.pages import open_page

    broken = next(row for row in planned if row.broken)
    with pytest.raises(ValueError, match="does not open"):
        open_page(corpus.encode_page(broken))
    whole = corpus.encode_page(planned[0])
    assert open_page(whole).size[0] > 0
    assert whole == corpus.encode_page(planned[0])
