"""Notebook 02 by its own cells: hard negatives, the split, the statistics, and what is saved."""

import dataclasses
import io
import random
import shutil
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
from cells import chooser, definitions, edited_sources, prepare
from datasets import Dataset
from PIL import Image

from vdr_helpers.pages import PageStore, fetch_chosen, fingerprint, open_page, presize
from vdr_helpers.profiles import load_profile
from vdr_helpers.source import source_path
from vdr_helpers.splits import choose_negatives, load_split, stored_choice


def table(rows: list[tuple]) -> Dataset:
    """A source without images: ``(id, query, negatives, language)``."""
    return Dataset.from_list(
        [{"id": i, "query": q, "negatives": n, "language": lang} for i, q, n, lang in rows]
    )


# hard negatives


def chosen_of(count: int, avoided: set, noise: Counter) -> list[int]:
    """What ``choose_negatives`` takes of a list with each kind of noise, by the notebook's own
    ``why_refused``.
    """
    #                 0    1    2     3      4    5    6    7
    fingerprints = ["P", "A", None, "P", "TAKEN", "B", "A", "C"]
    listed = [None, 2, 1, 3, 4, 6, 5, None, 7]
    why_refused = definitions("02", "why_refused")["why_refused"]
    refusal = partial(why_refused, own="P", right={"P"}, avoided=avoided)
    return choose_negatives(listed, refusal, fingerprints.__getitem__, count, noise)


def test_each_kind_of_noise_is_skipped_and_counted():
    noise = Counter()
    assert chosen_of(2, {"TAKEN"}, noise) == [1, 5]
    assert noise == {
        "negative id resolves to nothing": 1,  # the second comes after two were found
        "negative image does not open": 1,
        "negative is a copy of its own positive": 1,
        "page already used (train or another eval row)": 1,
    }
    chosen = chosen_of(4, set(), Counter())
    assert chosen == [1, 4, 5, 7]
    assert chosen_of(9, set(), Counter()) == chosen, "no more than there are"


def test_a_row_without_negatives_is_passed_over():
    rows = table([("a", "q", None, "en"), ("b", "r", ["a"], "en")])
    choose_rows = chooser(rows, eval_rows=0)["choose_rows"]
    train, _, noise = choose_rows(["A", "B"].__getitem__)
    assert train == [[1, 0]]
    assert noise == {"train row dropped: not enough usable pages": 1}


def test_an_id_that_stands_in_two_rows_is_told(capsys):
    [cell] = [source for source in edited_sources("02") if "row_of_id = {" in source]
    rows = table([("a", "q", ["b"], "en"), ("b", "q", [], "en"), ("a", None, [], "en")])
    told = "1 ids stand in more than one row; the last of them counts\n"
    for some, is_told in ((rows.select([0, 1]), False), (rows, True)):
        source = SimpleNamespace(read_columns=lambda names, some=some: some.select_columns(names))
        exec(cell, {"source": source})
        assert (told in capsys.readouterr().out) == is_told


def test_a_page_that_answers_the_query_too_is_no_negative():
    rows = table(
        [("a", "same", ["b", "c"], "en"), ("b", "same", [], "en"), ("c", "other", [], "en")]
    )
    train, _, noise = chooser(rows, eval_rows=0)["choose_rows"](["A", "B", "C"].__getitem__)
    assert train == [[0, 2]]
    assert noise == {"negative answers the query too": 1}


# the split


def test_a_query_of_train_and_its_other_pages_are_not_evaluated():
    asked = [
        ("t", "same", ["s0"], "en"),
        ("t2", "same", ["s1"], "en"),  # answers the first row's query: another row of train
        ("e", "same", ["s2", "s3", "s4", "s5"], "en"),
        ("f", "other", ["s2", "s3", "s4", "s5"], "en"),
    ]
    rows = table(asked + [(f"s{i}", None, [], "en") for i in range(6)])
    choose_rows = chooser(rows, train_rows=2, eval_rows=1)["choose_rows"]
    _, evaluation, _ = choose_rows(rows["id"][:].__getitem__)
    assert evaluation == numbered(rows, [("f", "s2", "s3", "s4", "s5")])


def test_a_query_that_is_an_address_is_not_asked():
    rows = table([("a", "https://example.org/a.png", ["b"], "en"), ("b", "Which?", ["a"], "en")])
    train, _, noise = chooser(rows, eval_rows=0)["choose_rows"](["A", "B"].__getitem__)
    assert train == [[1, 0]]
    assert noise == {"query is blank, an address or a file": 1}


def test_a_source_without_a_query_in_english_says_which_languages_it_has():
    choose_rows = chooser(table([("a", "q", [], "de"), ("b", None, [], "fr")]))["choose_rows"]
    with pytest.raises(ValueError, match=r"no query in English, but in \['de', 'fr'\]"):
        choose_rows([].__getitem__)


def split_source():
    """``(rows, fingerprints)``: rows with queries, noise of each kind, and pages without a query;
    every page its own unless said otherwise.
    """
    silent = [(f"s{i}", None, [], "en") for i in range(12)]
    asked = [
        ("t0", "q0", ["s0", "s1"], "en"),
        ("de", "q", ["s1"], "de"),
        ("t1", "q1", ["t0", "s1", "s9"], "en"),  # a train page may be another's negative
        ("shut", "q", ["s1"], "en"),  # its image does not open
        ("empty", "", ["s1"], "en"),
        ("e0", "q2", ["s0", "s2", "s3", "s4", "s5"], "en"),  # s0 is in train: skipped
        ("twin", "q3", ["s6", "s7", "s8", "s9"], "en"),  # its page is e0's
        ("poor", "q4", ["s2", "s6", "s7", "s8"], "en"),  # s2 is e0's: three negatives are left
        ("e1", "q5", ["s1", "s6", "s7", "s8"], "en"),  # s1 is t1's second: never used in train
        ("e2", "q6", ["s9", "s10", "s11", "t1"], "en"),
    ]
    rows = table(asked + silent)
    fingerprints = list(rows["id"])
    fingerprints[3], fingerprints[6] = None, "e0"
    return rows, fingerprints


def numbered(rows, names: list[tuple]) -> list[list[int]]:
    number = {row_id: i for i, row_id in enumerate(rows["id"])}
    return [[number[name] for name in row] for row in names]


def test_the_split_rule_by_hand():
    rows, fingerprints = split_source()
    choose_rows = chooser(rows, train_rows=2, eval_rows=2)["choose_rows"]
    train, evaluation, noise = choose_rows(fingerprints.__getitem__)
    assert train == numbered(rows, [("t0", "s0", "s1"), ("t1", "t0", "s1", "s9")])
    found = [("e0", "s2", "s3", "s4", "s5"), ("e1", "s1", "s6", "s7", "s8")]
    assert evaluation == numbered(rows, found), "never German, never a row without a query"
    assert noise["positive image does not open"] == 1
    assert noise["eval row dropped: not enough usable pages"] == 2  # twin and poor
    pages = [page for row in evaluation for page in row]
    assert len({fingerprints[page] for page in pages}) == 5 * 2


@pytest.mark.parametrize(
    ("train_rows", "eval_rows", "told"),
    [
        (8, 1, r"found \d usable train rows, expected 8"),
        (2, 3, "found 2 usable eval rows, expected 3"),
    ],
)
def test_a_source_that_is_too_small_says_by_how_much(train_rows, eval_rows, told):
    rows, fingerprints = split_source()
    choose_rows = chooser(rows, train_rows=train_rows, eval_rows=eval_rows)["choose_rows"]
    with pytest.raises(ValueError, match=f"{told}: ask for fewer"):
        choose_rows(fingerprints.__getitem__)


def test_the_published_rule_keeps_rows_that_share_a_page():
    rows, fingerprints = split_source()
    settings = {"negatives_per_train_row": 1, "distinct_eval_pages": False}
    choose_rows = chooser(rows, train_rows=2, eval_rows=3, **settings)["choose_rows"]
    train, evaluation, _ = choose_rows(fingerprints.__getitem__)
    assert train == numbered(rows, [("t0", "s0"), ("t1", "t0")])  # one hard negative per row
    first = ("e0", "s0", "s2", "s3", "s4")
    assert evaluation[0] == numbered(rows, [first])[0]
    assert [row[0] for row in evaluation] == [
        row[0] for row in numbered(rows, [("e0",), ("twin",), ("poor",)])
    ]


def test_choosing_before_fetching_ends_in_the_same_choice(monkeypatch):
    """Choose, fetch what was looked at, choose again: equal to the choice with every fingerprint,
    on 30 random sources.
    """
    for seed in range(30):
        rng = random.Random(seed)
        names = [f"p{i}" for i in range(120)]
        rows = table(
            [
                (
                    name,
                    f"q {name}" if rng.random() < 0.6 else None,
                    rng.sample([*names, "gone"], k=8),
                    rng.choice(["en", "en", "de"]),
                )
                for name in names
            ]
        )
        everything = [rng.choice([None, f"f{rng.randrange(90)}", name, name]) for name in names]

        def fetch(source, wanted, store, processor, everything=everything) -> None:
            assert wanted, "a fetch of nothing would never end"
            store.fingerprints |= {row: everything[row] for row in wanted}

        monkeypatch.setattr("vdr_helpers.pages.fetch_pages", fetch)
        for distinct in (True, False):
            settings = {
                "negatives_per_train_row": rng.choice([1, 4]),
                "distinct_eval_pages": distinct,
            }
            choose_rows = chooser(rows, train_rows=8, eval_rows=3, **settings)["choose_rows"]
            store = SimpleNamespace(fingerprints={}, problems={}, sizes={})
            chosen = fetch_chosen(choose_rows, None, store, None)
            assert chosen == choose_rows(everything.__getitem__)
            fetched = len(store.fingerprints)
            assert fetched < len(names), "pages that no choice looks at are never fetched"


# the steps of the notebook together


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """``(profile, names of the cells, {split: dataset})`` of the small source."""
    patch = pytest.MonkeyPatch()
    patch.setenv("VDR_OUTPUTS", str(tmp_path_factory.mktemp("prepared")))
    small = {"corpus": None, "dataset_name": str(source), "train_rows": 30, "eval_rows": 20}
    profile = dataclasses.replace(load_profile("tiny"), dataset_folder=str(source), **small)
    cells = prepare(profile)
    splits = {name: load_split(profile, name)[0] for name in ("train", "eval", "full")}
    patch.undo()
    return profile, cells, splits


def test_the_columns_and_counts_are_the_published_ones(prepared):
    _, _, splits = prepared
    negatives = [f"negative_{i}" for i in range(4)]
    assert splits["train"].column_names == ["query", "image", "negative_0"]
    for name in ("eval", "full"):
        assert splits[name].column_names == ["query", "image", *negatives]
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 30,
        "eval": 20,
        "full": 50,
    }
    assert splits["full"]["query"][:] == splits["train"]["query"][:] + splits["eval"]["query"][:]
    sizes = {Image.open(file).size for file in splits["eval"]["image"]}
    assert sizes == {(160, 224), (224, 160)}


def pages_of(split) -> list[str]:
    return [page for name in split.column_names[1:] for page in split[name]]


def test_no_eval_page_is_in_train_and_all_eval_pages_are_distinct(prepared):
    _, _, splits = prepared
    evaluation = pages_of(splits["eval"])
    assert len(set(evaluation)) == len(evaluation) == 5 * 20
    assert not set(pages_of(splits["train"])) & set(evaluation)


def test_each_saved_page_is_the_presized_page_of_the_row_that_the_rule_names(prepared, processor):
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    profile, cells, splits = prepared
    source = load_dataset(source_path(profile), "en", split="train")
    raw = [
        page["bytes"] for page in source.cast_column("image", ImageFeature(decode=False))["image"]
    ]
    prints = []
    for data in raw:
        try:
            prints.append(fingerprint(open_page(data)))
        except ValueError:
            prints.append(None)
    choose_rows = chooser(source.remove_columns("image"), train_rows=30, eval_rows=20)[
        "choose_rows"
    ]
    train, evaluation, noise = choose_rows(prints.__getitem__)
    assert +noise and cells["noise"] == noise
    assert (cells["train_rows"], cells["eval_rows"]) == (train, evaluation)
    for name, rows in (("train", train), ("eval", evaluation)):
        for i in (0, len(rows) - 1):
            number, negative, *_ = rows[i]
            assert splits[name][i]["query"] == source[number]["query"]
            for column, page in (("image", number), ("negative_0", negative)):
                expected = presize(Image.open(io.BytesIO(raw[page])), processor)
                assert Image.open(splits[name][i][column]).tobytes() == expected.tobytes()


def test_whoever_starts_later_gets_the_rows_of_the_notebook(prepared, monkeypatch, tmp_path):
    from vdr_helpers import splits

    profile, cells, kept = prepared
    elsewhere = dataclasses.replace(profile, outputs=tmp_path)
    with pytest.raises(FileNotFoundError, match="run notebooks/02_dataset"):
        load_split(elsewhere, "eval")
    chosen = {"train": cells["train_rows"], "eval": cells["eval_rows"]}
    monkeypatch.setattr(splits, "stored_choice", lambda profile: chosen)
    loaded, origin = load_split(elsewhere, "eval")
    assert "read now (because you have not run notebook 02)" in origin
    assert loaded["query"][:] == kept["eval"]["query"][:]
    again, origin = load_split(elsewhere, "train")
    assert origin == "your own notebook 02"
    assert again["query"][:] == kept["train"]["query"][:]


def test_a_second_run_fetches_nothing_and_a_damaged_page_is_fetched_again(prepared, tmp_path):
    _, cells, _ = prepared
    copy = tmp_path / "pages"
    shutil.copytree(cells["store"].folder, copy)
    whole = PageStore(copy).fingerprints
    assert whole == cells["store"].fingerprints
    some_page = next(name for name in whole.values() if name)
    (copy / f"{some_page}.png").write_bytes(b"cut")
    rows = {row for row, name in whole.items() if name == some_page}
    assert whole.keys() - PageStore(copy).fingerprints.keys() == rows


def test_the_stored_choice_is_for_the_profile_as_it_is_shipped():
    tiny = load_profile("tiny")
    chosen = stored_choice(tiny)
    assert {name: len(rows) for name, rows in chosen.items()} == {"train": 2048, "eval": 300}
    assert len({number for row in chosen["eval"] for number in row}) == 5 * 300
    for change in (
        {"train_rows": 96},
        {"dataset_config": "fr"},
        {"dataset_name": "a/b", "corpus": None},
    ):
        assert stored_choice(dataclasses.replace(tiny, **change)) is None
