"""The data of ``VDR_PROFILE=full`` on the stand-ins of ``stand_ins.py``: read in pieces, chosen as
published, the same both ways.

The notebooks run on them in ``test_on_device.py``.
"""

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from cells import chooser, prepare, printable
from datasets import Dataset
from PIL import Image
from stand_ins import CONFIG, README, read_source, variables, write_shards

from tools.prepare import prepare_published
from vdr_helpers.pages import PageStore, fingerprint, open_page
from vdr_helpers.profiles import load_profile
from vdr_helpers.source import Source, open_source
from vdr_helpers.splits import load_split, write_files

pytestmark = pytest.mark.slow

TRAIN, EVAL = 24, 6


def fingerprint_of(image: dict) -> str | None:
    """The fingerprint of an image file's page, ``None`` where it does not open."""
    try:
        return fingerprint(open_page(image["bytes"]))
    except ValueError:
        return None


@pytest.fixture(scope="module")
def table(source) -> pyarrow.Table:
    return read_source(source)


@pytest.fixture(scope="module")
def folders(table, stand_ins, tmp_path_factory) -> dict[str, Path]:
    """The stand-ins, and ``preprocessed``: the same rows in the layout of the dataset that its
    publisher split.
    """
    folder = tmp_path_factory.mktemp("stand-ins") / "split-already"
    rows = table.drop_columns("image").to_pylist()
    images = table.column("image").to_pylist()
    prints = [fingerprint_of(image) for image in images]
    settings = {"train_rows": TRAIN, "eval_rows": EVAL, "distinct_eval_pages": False}
    choose_rows = chooser(Dataset.from_list(rows), **settings)["choose_rows"]
    chosen = choose_rows(prints.__getitem__)[:2]
    for config, split in zip(("train", "eval"), chosen, strict=True):
        records = [
            {"query": rows[row[0]]["query"], "image": images[row[0]]}
            | {f"negative_{i - 1}": images[row[i]] if i < len(row) else None for i in range(1, 5)}
            for row in split
        ]
        write_shards(pyarrow.Table.from_pylist(records), folder / config, shards=2, group_rows=5)
    (folder / "README.md").write_text(README.format(CONFIG.format("train") + CONFIG.format("eval")))
    return stand_ins | {"preprocessed": folder}


@pytest.fixture
def full(folders, monkeypatch):
    """The profile ``full`` as a reader gets it whose environment names the stand-ins."""
    for name, value in variables(folders, f"{TRAIN}:{EVAL}").items():
        monkeypatch.setenv(name, value)
    return load_profile()


def load_splits(profile) -> dict:
    return {name: load_split(profile, name)[0] for name in ("train", "eval", "full")}


def test_full_with_stand_ins_keeps_every_published_setting(full, folders):
    published = {
        "matryoshka_dims",
        "truncate_dim",
        "max_pixels",
        "per_device_train_batch_size",
        "learning_rate",
        "num_train_epochs",
    }
    published |= {"warmup_steps", "bf16", "seed", "mini_batch_num_tokens"}
    from vdr_helpers.profiles import PROFILES

    for name in published:
        assert getattr(full, name) == getattr(PROFILES["full"], name), name
    assert (full.train_rows, full.eval_rows, full.monitor_rows) == (TRAIN, EVAL, EVAL)
    assert full.base_model == str(folders["model"])
    assert full.comparable_score(0.94) is None
    assert str(folders["model"].parent) not in str(printable(full))


def test_the_source_is_read_in_pieces(full, folders, monkeypatch, table):
    read, real = [], Source.read_pieces

    def noted(self, group, rows, columns):
        read.append((group, tuple(columns)))
        return real(self, group, rows, columns)

    monkeypatch.setattr(Source, "read_pieces", noted)
    prepare(full)
    opened = open_source(full)
    assert len(opened.shards) == 4
    assert len(opened.groups) > 12
    groups = {group for group, _ in read}
    assert 0 < len(groups) < len(opened.groups), "row groups without a needed page are not read"
    assert {columns for _, columns in read} == {("image",)}
    assert opened.bytes_of(("image",), groups) < opened.bytes_of()

    read.clear()
    prepare(full)
    assert read == [], "a second run finds every page"


def test_train_and_eval_are_the_published_selection(full, table):
    """The first rows with a query, then the next: written out once more, without the course's
    code.
    """
    prepare(full)
    splits = load_splits(full)
    ids, usable = set(table.column("id").to_pylist()), []
    for row in table.to_pylist():
        if row["query"] and row["language"] == "en" and fingerprint_of(row["image"]):
            assert sum(negative in ids for negative in row["negatives"]) >= 4
            usable.append(row["query"])
    assert list(splits["train"]["query"]) == usable[:TRAIN]
    assert list(splits["eval"]["query"]) == usable[TRAIN : TRAIN + EVAL]


def fingerprints(split) -> list[dict]:
    """The rows of a split with a page's name in place of its path."""
    return [
        {
            name: Path(value).stem if value and name != "query" else value
            for name, value in row.items()
        }
        for row in split
    ]


def test_both_ways_end_in_the_same_data(full, folders):
    prepare(full)
    from_source = load_splits(full)
    published = replace(full, split="published")
    assert not prepare_published(published, str(folders["preprocessed"]))
    shortcut = load_splits(published)
    for name, split in shortcut.items():
        assert split.features == from_source[name].features
        assert fingerprints(split) == fingerprints(from_source[name]), name
    assert load_split(full, "train")[1] == "your own notebook 02", "both are kept side by side"
    assert (
        load_split(published, "train")[1] == "local folder split-already, as its publisher split it"
    )
    assert shortcut["train"].column_names == ["query", "image", "negative_0"]
    assert shortcut["eval"].column_names == ["query", "image", *(f"negative_{i}" for i in range(4))]
    assert len(shortcut["full"]) == TRAIN + EVAL


def test_the_files_of_the_experiment_hold_its_rows(full):
    prepare(full)
    fewer = replace(full, monitor_rows=3)
    files = {"train": TRAIN, "eval": 3}
    for file, (split, rows) in zip(write_files(fewer), files.items(), strict=True):
        written = [json.loads(line) for line in Path(file).read_text().splitlines()]
        assert written == load_split(full, split)[0].to_list()[:rows]


def test_the_shortcut_drops_and_counts_rows_that_do_not_open(full, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 96)).save(buffer, "PNG")
    good, bad = {"bytes": buffer.getvalue(), "path": None}, {"bytes": b"no image", "path": None}
    negatives = {f"negative_{i}": good for i in range(4)}
    rows = [
        {
            "query": f"query {i}",
            "image": bad if i == 3 else good,
            **negatives,
            **({"negative_0": bad} if i == 5 else {}),
        }
        for i in range(TRAIN)
    ]
    for config in ("train", "eval"):
        write_shards(
            pyarrow.Table.from_pylist(rows), tmp_path / "other" / config, shards=1, group_rows=10
        )
    (tmp_path / "other" / "README.md").write_text(
        README.format(CONFIG.format("train") + CONFIG.format("eval"))
    )
    published = replace(full, split="published")
    noise = prepare_published(published, str(tmp_path / "other"))
    assert noise == {
        "train row without a query or with a page that does not open": 2,
        "eval row without a query or with a page that does not open": 2,
    }
    assert len(load_split(published, "train")[0]) == TRAIN - 2
    stores = [PageStore(folder) for folder in full.output_dir.glob("pages-*")]
    assert len(stores) == 5, (
        "a store per column, kept beside the splits; here both splits are one file"
    )
    assert sorted(len(store.problems) for store in stores) == [0, 0, 0, 1, 1]


def test_a_split_that_would_be_empty_is_an_error(full, tmp_path):
    """Images kept as paths, without their bytes: nothing of the reader's is replaced in silence."""
    page = {"bytes": None, "path": "pages/1.png"}
    rows = [
        {"query": f"query {i}", "image": page} | {f"negative_{k}": page for k in range(4)}
        for i in range(TRAIN)
    ]
    schema = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    fields = {"query": pyarrow.string(), "image": schema} | {
        f"negative_{k}": schema for k in range(4)
    }
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields))
    for config in ("train", "eval"):
        write_shards(table, tmp_path / "paths" / config, shards=1, group_rows=10)
    (tmp_path / "paths" / "README.md").write_text(
        README.format(CONFIG.format("train") + CONFIG.format("eval"))
    )
    with pytest.raises(
        ValueError, match=r"train would be empty: none of its 24 rows .* paths instead of images"
    ):
        prepare_published(replace(full, split="published"), str(tmp_path / "paths"))


def test_a_profile_without_a_preprocessed_dataset_says_so():
    with pytest.raises(ValueError, match="no preprocessed dataset: run notebook 02"):
        prepare_published(load_profile("tiny"))


def test_the_stand_in_has_the_published_widths(full):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        full.base_model,
        revision=full.model_revision,
        device="cpu",
        model_kwargs={"dtype": "float32"},
        processor_kwargs=full.processor_kwargs,
    )
    page = Image.new("RGB", (1416, 1648), "white")
    assert model.encode_document([page]).shape == (1, 2048)
    assert model.encode_query(["What is on this page?"]).shape == (1, full.matryoshka_dims[0])
    tokens = (
        model.preprocess([page])["input_ids"][0]
        .tolist()
        .count(model.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    )
    assert 300 < tokens <= 600 * 600 // 32**2
