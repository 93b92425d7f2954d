"""``VDR_PROFILE=full`` on stand-ins: a source in the real layout, a preprocessed dataset in its layout, a model as wide as the real one.

The model is the real architecture at the real width of 2,048 with one layer and random weights; the pages are generated. So every
step of ``full`` runs here except what needs the hub or a GPU, and no score means anything.
"""

import io
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import model_twins
import pyarrow
import pyarrow.parquet
import pytest
import warm
from cells import chooser, definitions, prepare, printable
from datasets import Dataset
from PIL import Image

from tiny_vdr.model import Sizes, save_random_model
from tools.prepare import prepare_preprocessed
from vdr_helpers.cache import stage_folder
from vdr_helpers.pages import PageStore, fingerprint, open_page
from vdr_helpers.profiles import assets_folder, load_profile
from vdr_helpers.source import Source, open_source
from vdr_helpers.splits import load_prepared

pytestmark = pytest.mark.slow

STAND_IN = Sizes(
    "stand-in of the real width",
    hidden_size=2048, intermediate_size=256, layers=1, heads=4, key_value_heads=2, head_dim=64, vocabulary=1536,
    vision_hidden=64, vision_intermediate=128, vision_depth=1, vision_heads=2, position_embeddings=256, deepstack=(0,),
)  # fmt: skip
TRAIN, EVAL = 24, 6
README = "---\nconfigs:\n{}---\n"
CONFIG = "- config_name: {0}\n  data_files:\n  - split: train\n    path: {0}/train-*.parquet\n"


def write_shards(table: pyarrow.Table, folder: Path, shards: int, group_rows: int) -> None:
    """``train-00000-of-0000N.parquet`` files with small row groups, as a dataset lies on the hub."""
    folder.mkdir(parents=True)
    size = -(-table.num_rows // shards)
    for i in range(shards):
        name = f"train-{i:05d}-of-{shards:05d}.parquet"
        pyarrow.parquet.write_table(table.slice(i * size, size), folder / name, row_group_size=group_rows)


@pytest.fixture(scope="module")
def table(source) -> pyarrow.Table:
    """All rows of the small generated source, dirt included."""
    return pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in sorted((source / "en").glob("*.parquet"))])


@pytest.fixture(scope="module")
def folders(table, tmp_path_factory) -> dict[str, Path]:
    """``source``, ``preprocessed``, ``model``, ``finetuned`` and ``reranker``: what the environment variables of ``full`` are set to."""
    root = tmp_path_factory.mktemp("stand-ins")
    write_shards(table, root / "vdr-source" / "en", shards=4, group_rows=40)
    (root / "vdr-source" / "README.md").write_text(README.format(CONFIG.format("en")))

    rows = table.drop_columns("image").to_pylist()
    images = table.column("image").to_pylist()
    prints = [page_fingerprint(image["bytes"]) for image in images]
    settings = {"train_rows": TRAIN, "eval_rows": EVAL, "distinct_eval_pages": False}
    chosen = chooser(Dataset.from_list(rows), **settings)["choose_rows"](prints.__getitem__, Counter())
    for number, name in enumerate(("stand-in-base", "stand-in-tuned")):
        save_random_model(root / name, STAND_IN, like=assets_folder() / "tiny-base", seed=number)
    for config, split in zip(("train", "eval"), chosen, strict=True):
        records = [
            {"query": rows[row[0]]["query"], "image": images[row[0]]}
            | {f"negative_{i - 1}": images[row[i]] if i < len(row) else None for i in range(1, 5)}
            for row in split
        ]
        write_shards(pyarrow.Table.from_pylist(records), root / "split-already" / config, shards=2, group_rows=5)
    (root / "split-already" / "README.md").write_text(README.format(CONFIG.format("train") + CONFIG.format("eval")))
    return {
        "source": root / "vdr-source",
        "preprocessed": root / "split-already",
        "model": root / "stand-in-base",
        "finetuned": root / "stand-in-tuned",
        "reranker": model_twins.save_reranker_twin(root / "reranker-parts"),
    }


@pytest.fixture
def full(folders, monkeypatch):
    """The profile ``full`` as a reader gets it whose environment names the stand-ins."""
    monkeypatch.setenv("VDR_PROFILE", "full")
    monkeypatch.setenv("VDR_MODEL", str(folders["model"]))
    monkeypatch.setenv("VDR_FINETUNED", str(folders["finetuned"]))
    monkeypatch.setenv("VDR_RERANKER", str(folders["reranker"]))
    monkeypatch.setenv("VDR_DATASET", str(folders["source"]))
    monkeypatch.setenv("VDR_ROWS", f"{TRAIN}:{EVAL}")
    return load_profile()


def load_splits(profile) -> dict:
    return {name: load_prepared(profile, name)[0] for name in ("train", "eval", "full")}


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
    opened = open_source(str(folders["source"]), "en")
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
    """The first rows with a query, then the next: written out once more, without the course's code."""
    prepare(full)
    splits = load_splits(full)
    ids, usable = set(table.column("id").to_pylist()), []
    for row in table.to_pylist():
        if row["query"] and row["language"] == "en" and page_fingerprint(row["image"]["bytes"]):
            assert sum(negative in ids for negative in row["negatives"]) >= 4
            usable.append(row["query"])
    assert list(splits["train"]["query"]) == usable[:TRAIN]
    assert list(splits["eval"]["query"]) == usable[TRAIN : TRAIN + EVAL]


def test_both_ways_end_in_the_same_data(full, folders):
    prepare(full)
    from_source = load_splits(full)
    features = {name: split.features for name, split in from_source.items()}
    pages = {
        name: [[page.tobytes() if page else None for page in split[column]] for column in split.column_names[1:]]
        for name, split in from_source.items()
    }
    queries = {name: list(split["query"]) for name, split in from_source.items()}

    dirt = prepare_preprocessed(full, str(folders["preprocessed"]))
    assert not dirt
    shortcut = load_splits(full)
    for name, split in shortcut.items():
        assert split.features == features[name]
        assert list(split["query"]) == queries[name]
        got = [[page.tobytes() if page else None for page in split[column]] for column in split.column_names[1:]]
        assert got == pages[name], name
    assert shortcut["train"].column_names == ["query", "image", "negative_0"]
    assert shortcut["eval"].column_names == ["query", "image", *(f"negative_{i}" for i in range(4))]
    assert len(shortcut["full"]) == TRAIN + EVAL


def test_the_shortcut_drops_and_counts_rows_that_do_not_open(full, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 96)).save(buffer, "PNG")
    good, bad = {"bytes": buffer.getvalue(), "path": None}, {"bytes": b"no image", "path": None}
    negatives = {f"negative_{i}": good for i in range(4)}
    rows = [
        {"query": f"query {i}", "image": bad if i == 3 else good, **negatives, **({"negative_0": bad} if i == 5 else {})}
        for i in range(TRAIN)
    ]
    for config in ("train", "eval"):
        write_shards(pyarrow.Table.from_pylist(rows), tmp_path / "other" / config, shards=1, group_rows=10)
    (tmp_path / "other" / "README.md").write_text(README.format(CONFIG.format("train") + CONFIG.format("eval")))
    dirt = prepare_preprocessed(full, str(tmp_path / "other"))
    assert dirt == {
        "train row without a query or with a page that does not open": 2,
        "eval row without a query or with a page that does not open": 2,
    }
    assert len(load_prepared(full, "train")[0]) == TRAIN - 2
    stores = [PageStore(folder) for folder in (full.output_dir / "data").glob("pages-*")]
    assert len(stores) == 5, "a store per column, kept beside the splits; here both splits are one file"
    assert sorted(len(store.problems) for store in stores) == [0, 0, 0, 1, 1]


def test_a_profile_without_a_preprocessed_dataset_says_so():
    with pytest.raises(ValueError, match="no preprocessed dataset: run notebook 02 instead"):
        prepare_preprocessed(load_profile("tiny"))


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
    tokens = model.preprocess([page])["input_ids"][0].tolist().count(model.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    assert 300 < tokens <= 600 * 600 // 32**2


def keep_texts(table: pyarrow.Table, outputs: Path) -> None:
    """A text for every page where appendix 5 keeps what OCR read before, so that it reads only its five pages here."""
    settings = definitions("a5", "ocr_settings")["ocr_settings"]
    folder = stage_folder(outputs, "ocr", settings)
    folder.mkdir(parents=True)
    for image in table.column("image").to_pylist():
        with suppress(ValueError):  # some pages do not open
            found = fingerprint(open_page(image["bytes"]))
            (folder / f"{found[:16]}.txt").write_text(f"page {found}")


def test_part_one_and_the_appendices_run_with_full_on_stand_ins(full, folders, table, tmp_path):
    """One short step of training: a few minutes."""
    keep_texts(table, tmp_path / "course" / "full")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VDR_OUTPUTS": str(tmp_path / "course")}
    run = warm.run(["-m", "tools.run_course", "--part", "1"], env=environment, cwd=Path(__file__).parent.parent, children=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    outputs = tmp_path / "course" / "full"
    summary = json.loads((outputs / "summary.json").read_text())
    assert summary["profile"] == "full"
    assert not summary["failed"]
    for scores in summary["ndcg_at_10"].values():
        assert [int(dim) for dim in scores] == list(full.matryoshka_dims)
        assert all(0 <= score <= 1 for score in scores.values())
    revisions = json.loads((outputs / "results" / "run.json").read_text())["revisions"]
    assert revisions["model"] == {"name": f"local folder {folders['model'].name}", "revision": "local folder"}
    assert revisions["dataset"] == {"name": f"local folder {folders['source'].name}", "revision": "local folder"}
    card = (outputs / "published" / "README.md").read_text()
    for private in (str(folders["model"].parent), str(tmp_path), str(Path.home())):
        assert private not in card
        assert private not in json.dumps(revisions)


LEFT = {  # what the last cell of a notebook of Part II leaves to be looked at
    "08": "found = {'pages': [[row['width'], row['height']] for row in rows], 'candidates': [row['way'] for row in candidates],"
    " 'from model': len(from_model), 'queries': len(kept), 'steps': trainer.state.global_step, 'start': origin,"
    " 'scores': {name: {task: list(some) for task, some in values.items()} for name, values in scores.items()}}",
    "09": "found = {'modules': [type(module).__name__ for module in reranker], 'losses': losses, 'shape': list(scores.shape),"
    " 'kept': json.loads((reranker_folder / 'made_from.json').read_text())['training']['start'], 'ways': sorted({w for w, _ in per_query})}",
    "10": "found = {'steps': steps, 'losses': losses, 'width': model.get_embedding_dimension(), 'late': list(late),"
    " 'rates': args.learning_rate_mapping, 'settings': len(grid)}",
}


def test_part_two_runs_with_full_on_stand_ins(full, folders, pdf_files, tmp_path):
    """Notebooks 08, 09 and 10 on a few rows and three small PDF files: half a minute to a minute each."""
    reply = '{"general": "Hoses", "specific": "Where are the hoses of the manual?"}'
    writer = model_twins.save_writer_twin(tmp_path / "writer", reply)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VDR_ROWS": "8:3", "OMP_NUM_THREADS": "1"}
    environment |= {"VDR_DOCUMENTS": str(pdf_files), "VDR_QUERY_MODEL": str(writer)}
    jobs = [
        {
            "number": number,
            "outputs": str(tmp_path / "course"),
            "changes": {"more": f"import json\n{LEFT[number]}"} if number in LEFT else {},
        }
        for number in ("02", *LEFT)
    ]
    done = warm.run([str(Path(__file__).parent / "cells.py")], input=json.dumps(jobs), env=environment, cwd=tmp_path)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [answer["status"] for answer in answers] == [0, 0, 0, 0], done.stderr[-3000:] + answers[-1]["log"]
    own, reranked, late = (answer["found"] for answer in answers[1:])
    assert len(own["pages"]) == 18 and all(
        0.8 * full.max_pixels < width * height <= full.max_pixels for width, height in own["pages"]
    )
    assert own["candidates"] == [str(writer)] * 18 and own["from model"] == 2, "of 18 pages the first two for one general query"
    assert own["start"] == "the one that VDR_FINETUNED names" and own["steps"] > 0
    assert {len(values["unseen documents"]) for values in own["scores"].values()} == {3}
    assert reranked["modules"] == ["Transformer", "LogitScore"] and reranked["shape"] == [3, 10] and reranked["losses"]
    assert reranked["ways"] == ["oracle", "random order", "reranker", "sum"]
    assert (
        late["steps"] == 1
        and late["losses"]
        and late["width"] == 128
        and late["rates"] == full.late_interaction["learning_rate_mapping"]
    )
    assert len(late["late"]) == 3 and all(0 <= score <= 1 for score in late["late"])
    for private in (str(folders["model"].parent), str(tmp_path)):
        assert private not in json.dumps(reranked)
