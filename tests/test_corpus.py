"""The generated source: the planted noise counted, what pre-training never shows, and the files that
are drawn. What is planned on its pages: test_plan.py.
"""

import random

import pytest

from tiny_vdr import batches, corpus, pages, vocabulary
from tiny_vdr.corpus import build_source
from tiny_vdr.plan import plan_rows

pytestmark = pytest.mark.slow

SIZES = (40, 90)  # families
SMALL = {"seed": 0, "train_families": 20, "eval_families": 85}


@pytest.fixture(scope="module")
def planned():
    return plan_rows(0, *SIZES)


def test_pre_training_asks_for_a_trend_only_where_a_chart_shows_one():
    for layout in (*pages.METRIC_LAYOUTS, *pages.ITEM_LAYOUTS):
        assert (vocabulary.CHART_QUERIES in batches.query_templates(layout)) == (
            layout in ("report", "slide", "dashboard")
        )
        assert (batches.query_templates(layout) == (vocabulary.ITEM_QUERIES,)) == (
            layout in ("invoice", "datasheet")
        )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_planted_noise_is_counted(seed):
    rows = plan_rows(seed)  # the size that the course uses
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
    late = [row.negatives[1] for row in first if row.query][521 * 4 :]
    assert sorted(id_ for id_ in late if id_ in early) == sorted(early)


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
