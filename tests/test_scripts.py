"""The scripts: what each makes on a tiny set, what it refuses, and that its numbers are the
library's own.
"""

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import pyarrow.parquet
import pytest
import torch
import warm
from datasets import Dataset, Features, Image, List, Value, load_dataset
from model_twins import save_writer_twin
from PIL import Image as PillowImage
from reportlab.pdfgen.canvas import Canvas
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from transformers import AutoProcessor

from vdr_helpers.evaluation import ndcg_per_query

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
NAMES = (
    "prepare",
    "train",
    "evaluate",
    "truncate",
    "publish",
    "index",
    "search",
    "documents",
    "answer",
)
BASE, TUNED = (str(ROOT / "assets" / name) for name in ("tiny-base", "tiny-finetuned"))
FLOAT = ("--dtype", "float32", "--encode-batch-size", "50")
TINY = ("--base-model", BASE, "--max-pixels", "40000", "--distinct-eval-pages")
TRAIN = (
    "--base-model", BASE, "--no-bf16", "--matryoshka-dims", "256", "128", "64", "--learning-rate", "7e-4",
    "--per-device-train-batch-size", "8", "--mini-batch-size", "32", "--mini-batch-num-tokens", "none",
    "--dataloader-num-workers", "0", "--monitor-rows", "4", "--min-steps", "1",
)  # fmt: skip
SIZE, SMALL = ({"shortest_edge": 4096, "longest_edge": pixels} for pixels in (40_000, 16_384))


def call(name, *arguments, folder):
    """Run a script as `python <name>.py *arguments` does, in this process and in `folder`."""
    said, argv, status = io.StringIO(), sys.argv, 0
    sys.argv = [f"{name}.py", *map(str, arguments)]
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            said.write(end.code if isinstance(end.code, str) else "")
        finally:
            sys.argv = argv
    return SimpleNamespace(status=status or 0, said=" ".join(said.getvalue().split()))


def part(script, name):
    """A function of a script; what it calls can be replaced in its ``__globals__``."""
    return runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name=script)[name]


def read_lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """A folder with ``data`` of 24 train and 10 eval rows, as prepare.py makes them of the small
    source.
    """
    folder = tmp_path_factory.mktemp("scripts")
    done = call(
        "prepare", "--dataset", source, "--train-rows", 24, "--eval-rows", 10, *TINY, folder=folder
    )
    assert done.status == 0, done.said
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """A copy of ``made`` that a test may damage."""
    shutil.copytree(made / "data", tmp_path / "data")
    return tmp_path


# the command lines


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_an_example_and_every_option(name, tmp_path):
    done = call(name, "--help", folder=tmp_path)
    assert (
        done.status == 0 and f"python {name}.py" in done.said and "Needs: pip install" in done.said
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("prepare", ["--train-rows", "many"], "expected a whole number above 0, found 'many'"),
        ("prepare", ["--eval-rows", "0"], "expected a whole number above 0, found '0'"),
        ("prepare", ["--min-pixels", "500000"], "--min-pixels 500000 is above --max-pixels 360000"),
        (
            "prepare",
            ["--base-model", "no_such_folder"],
            "no folder 'no_such_folder', and no hub id",
        ),
        ("train", ["--learning-rate", "fast"], "invalid float value: 'fast'"),
        ("train", ["--dtype", "int4"], "invalid choice: 'int4'"),
        (
            "train",
            ["--mini-batch-num-tokens", "few"],
            "expected a whole number above 0, found 'few'",
        ),
        ("train", [], "no manifest.json in data: run prepare.py or documents.py to its end"),
        ("evaluate", [], "no folder 'finetuned', and no hub id such as owner/name"),
        ("evaluate", ["--finetuned", TUNED], "no manifest.json in data"),
        ("truncate", ["--finetuned", TUNED, "--dims", "64"], "--dims needs two lengths at least"),
        ("publish", ["--finetuned", TUNED, "--upload-to", "mine"], "expected a name of yours"),
        (
            "publish",
            ["--finetuned", TUNED, "--upload-to", "your-name/your-model"],
            "expected a name of yours",
        ),
        ("search", [""], "expected a question in words, found ''"),
        ("search", ["Which pump?"], "no index in index: make one with index.py first"),
        ("answer", [" "], "the question is empty: type what the pages should answer"),
        ("answer", ["What? <|im_end|>"], "leave out <| in"),
        ("answer", ["Which pump?"], "no model is named: --model Qwen/Qwen3-VL-2B-Instruct"),
        ("answer", ["Which pump?", "--show-prompt"], "no finished index in index"),
        ("index", ["no_such_folder"], "expected a folder of PDF files"),
        ("index", ["."], "no page of a PDF file could be read"),
        ("documents", ["--model", TUNED], "index is no whole index: make it with index.py"),
    ],
)
def test_what_cannot_be_used_is_named(name, arguments, message, tmp_path):
    done = call(name, *arguments, folder=tmp_path)
    assert done.status != 0 and message in done.said, done.said


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("prepare", []),
        ("train", []),
        ("evaluate", ["--finetuned", TUNED]),
        ("publish", ["--finetuned", TUNED]),
    ],
)
def test_a_pinned_commit_belongs_to_its_model_alone(name, arguments, monkeypatch):
    read_arguments = part(name, "read_arguments")
    for given, revision in (([], "9f2f7e71"), (["--base-model", "owner/model"], None)):
        monkeypatch.setattr(sys, "argv", [name, *arguments, *given])
        found = read_arguments().base_revision
        assert found.startswith(revision) if revision else found is None
    monkeypatch.setattr(
        sys, "argv", [name, *arguments, "--base-model", "owner/model", "--base-revision", "v2"]
    )
    assert read_arguments().base_revision == "v2"


@pytest.mark.parametrize("text", ["None", "none", "NONE", ""])
@pytest.mark.parametrize(
    ("name", "arguments", "option"),
    [
        ("prepare", [], "base_revision"),
        ("prepare", [], "dataset_revision"),
        ("train", [], "base_revision"),
        ("evaluate", ["--finetuned", TUNED], "base_revision"),
        ("evaluate", ["--finetuned", TUNED], "finetuned_revision"),
        ("truncate", ["--finetuned", TUNED], "base_revision"),
        ("truncate", ["--finetuned", TUNED], "finetuned_revision"),
        ("publish", ["--finetuned", TUNED], "base_revision"),
        ("publish", ["--finetuned", TUNED], "finetuned_revision"),
        ("documents", [], "revision"),
        ("index", ["."], "revision"),
        ("answer", ["How?"], "revision"),
    ],
)
def test_the_word_none_is_no_revision(name, arguments, option, text, monkeypatch):
    read_arguments, found = part(name, "read_arguments"), []
    given = f"--{option.replace('_', '-')}"
    for typed in ([], [given, text], [given, "v2"]):
        monkeypatch.setattr(sys, "argv", [name, *arguments, *typed])
        found.append(getattr(read_arguments(), option))
    assert found[1] == found[0] and found[1] != text, "as if the option were left out"
    assert found[2] == "v2"


def test_every_option_of_a_revision_is_read_in_the_same_way():
    for file in SCRIPTS.glob("*.py"):
        options = [
            line for line in file.read_text().splitlines() if re.search(r'"--.*revision"', line)
        ]
        assert all("type=revision" in line for line in options), file.name


def test_home_and_variables_in_a_path_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for name in NAMES:
        assert {str(part(name, "folder")(text)) for text in ("~/x", "$HOME/x")} == {"/home/ada/x"}


# prepare.py


def test_rows_are_the_first_usable_ones_and_pages_are_named_by_content(made, source):
    rows = load_dataset(str(source), "en", split="train").cast_column("image", Image(decode=False))
    processor = AutoProcessor.from_pretrained(BASE, size=SIZE)
    open_page, presize = part("prepare", "open_page"), part("prepare", "presize")

    @functools.cache
    def key_of(row):
        try:
            page = presize(open_page(rows[row]["image"], source), processor)
        except ValueError:
            return None
        return hashlib.sha1(str(page.size).encode() + page.tobytes()).hexdigest()

    numbers = {name: number for number, name in enumerate(rows["id"])}
    asked = [
        n
        for n, row in enumerate(rows.select_columns(["query", "language"]))
        if row["query"] and row["language"] == "en"
    ]
    expected = {"train": [], "eval": []}
    used = set()
    for number in asked:
        split, count = ("train", 1) if len(expected["train"]) < 24 else ("eval", 4)
        if len(expected["eval"]) == 10:
            break
        banned = {key_of(number), None} | (used if split == "eval" else set())
        listed = [key_of(numbers[name]) for name in rows[number]["negatives"] if name in numbers]
        negatives = list(dict.fromkeys(key for key in listed if key not in banned))[:count]
        if (
            key_of(number) is None
            or len(negatives) < count
            or (split == "eval" and key_of(number) in used)
        ):
            continue
        used |= {key_of(number), *negatives}
        names = ["image", *(f"negative_{i}" for i in range(count))]
        pages = {
            name: f"{key}.png"
            for name, key in zip(names, [key_of(number), *negatives], strict=True)
        }
        expected[split].append({"query": rows[number]["query"]} | pages)
    for split, some in expected.items():
        assert read_lines(made / "data" / f"{split}.jsonl") == some

    number = numbers[rows[asked[0]]["id"]]
    page = PillowImage.open(made / "data" / "pages" / f"{key_of(number)}.png")
    small, large = (
        processor.image_processor(image, return_tensors="pt")["pixel_values"]
        for image in (page, open_page(rows[number]["image"], source))
    )
    assert torch.equal(small, large), "the model sees the same pixels"
    manifest = json.loads((made / "data" / "manifest.json").read_text())
    assert (
        manifest["rows"] == {"train": 24, "eval": 10}
        and manifest["settings"]["max_pixels"] == 40_000
    )
    assert str(ROOT) not in (made / "data" / "manifest.json").read_text() and str(
        source
    ) not in str(manifest)


def png(page):
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def ramp(kind, top):
    return PillowImage.fromarray(numpy.linspace(0, top, 64 * 64).reshape(64, 64).astype(kind))


@pytest.mark.parametrize(
    ("page", "format"),
    [
        (ramp("uint16", 65_535), "PNG"),
        (ramp("float32", 1), "TIFF"),
        (ramp("float32", 255), "TIFF"),
        (ramp("int32", 255), "TIFF"),
    ],
)
def test_grey_levels_of_every_depth_keep_their_steps(page, format, tmp_path):
    page.save(tmp_path / "page", format)
    found = numpy.asarray(
        part("prepare", "open_page")(str(tmp_path / "page"), tmp_path).convert("L")
    )
    assert abs(found.astype(int) - numpy.asarray(ramp("uint8", 255))).max() <= 1


def test_a_tiff_file_whose_zero_is_white_is_not_inverted(tmp_path):
    ramp("uint16", 65_535).save(tmp_path / "page.tiff", tiffinfo={262: 0})
    found = numpy.asarray(part("prepare", "open_page")("page.tiff", tmp_path).convert("L"))
    assert abs(found.astype(int) - (255 - numpy.asarray(ramp("uint8", 255)).astype(int))).max() <= 1


def test_a_float_page_of_other_levels_is_refused(tmp_path):
    ramp("float32", 1e6).save(tmp_path / "page.tiff")
    with pytest.raises(ValueError, match=r"grey levels from 0 to 1e\+06, expected 0 to 65,535"):
        part("prepare", "open_page")("page.tiff", tmp_path)


def test_a_page_is_read_from_bytes_a_path_or_a_list_of_one(tmp_path):
    open_page, page = part("prepare", "open_page"), png(PillowImage.new("RGB", (40, 30), "red"))
    (tmp_path / "page.png").write_bytes(page)
    cells = [
        page,
        {"bytes": page, "path": None},
        {"bytes": None, "path": "page.png"},
        "page.png",
        str(tmp_path / "page.png"),
        [page],
    ]
    for cell in cells:
        assert open_page(cell, tmp_path).getpixel((3, 3)) == (255, 0, 0), type(cell)
    clear = png(PillowImage.new("RGBA", (40, 30), (0, 0, 0, 0)))
    assert open_page(clear, tmp_path).getpixel((3, 3)) == (255, 255, 255), (
        "what is transparent is paper"
    )
    bad = {"has no image": [None, {"bytes": None, "path": None}], "no file gone.png": ["gone.png"]}
    bad |= {
        "does not open": [page[:60], b"", b"no image"],
        "holds list": [[page, page]],
        "holds int": [7],
    }
    for message, some in bad.items():
        for cell in some:
            with pytest.raises(ValueError, match=message):
                open_page(cell, tmp_path)
    huge = part("prepare", "open_page")
    huge.__globals__["LARGEST_PAGE"] = 1_000
    with pytest.raises(ValueError, match="has 40 x 30 pixels, the limit is 1,000"):
        huge(page, tmp_path)


def small_source(folder, images, feature=None, **columns):
    """A dataset of six pages that answer a query each, with all the others as negatives, in
    ``folder``.
    """
    ids = [f"page-{i}" for i in range(6)]
    rows = {"id": ids, "query": [f"What is on page {i}?" for i in range(6)], "image": images}
    rows |= {
        "negatives": [[other for other in ids if other != one] for one in ids],
        "language": ["en"] * 6,
    } | columns
    features = Dataset.from_dict(
        {name: value for name, value in rows.items() if name != "image"}
    ).features
    features["image"] = feature or Image(decode=False)
    folder.mkdir(exist_ok=True)
    table = Dataset.from_dict(rows, features=Features(features)).data.table
    pyarrow.parquet.write_table(table, folder / "train.parquet")  # to_parquet would open the paths
    return folder


def colours():
    return [
        png(PillowImage.new("RGB", (64, 64), colour))
        for colour in ("red", "green", "blue", "black", "white", "grey")
    ]


def prepare_small(folder, *arguments):
    rows = ("--train-rows", 2, "--eval-rows", 1)
    return call(
        "prepare",
        "--dataset",
        "mine",
        *rows,
        "--base-model",
        BASE,
        "--max-pixels",
        4096,
        *arguments,
        folder=folder,
    )


@pytest.mark.parametrize("kind", ["bytes", "paths", "path and no bytes", "lists"])
def test_an_image_column_of_another_kind_is_read(kind, tmp_path):
    pages = colours()
    (tmp_path / "mine").mkdir()
    for i, page in enumerate(pages):
        (tmp_path / "mine" / f"{i}.png").write_bytes(page)
    names = [f"{i}.png" for i in range(6)]
    images, feature = {
        "bytes": (pages, Value("binary")),
        "paths": (names, Value("string")),
        "path and no bytes": ([{"bytes": None, "path": name} for name in names], None),
        "lists": ([[{"bytes": page, "path": None}] for page in pages], List(Image(decode=False))),
    }[kind]
    small_source(tmp_path / "mine", images, feature)
    done = prepare_small(tmp_path)
    assert done.status == 0, done.said
    assert [row["query"] for row in read_lines(tmp_path / "data" / "train.jsonl")] == [
        "What is on page 0?",
        "What is on page 1?",
    ]


def test_images_that_are_not_there_end_in_an_error_and_no_folder(tmp_path):
    small_source(tmp_path / "mine", [{"bytes": None, "path": f"{i}.png"} for i in range(6)])
    done = prepare_small(tmp_path)
    assert (
        done.status == 1
        and "is a path, and there is no file 0.png (5 such pages in all)" in done.said
    )
    assert "found 0 usable train rows and 0 usable eval rows, expected 2 and 1" in done.said
    assert not (tmp_path / "data").exists()


def test_a_query_that_is_blank_or_an_address_is_no_query(tmp_path):
    queries = [
        "   ",
        "https://example.org/page.png",
        str(tmp_path / "mine" / "train.parquet"),
        "Four?",
        "Five?",
        "Six?",
    ]
    small_source(tmp_path / "mine", colours(), query=queries)
    done = prepare_small(tmp_path)
    assert done.status == 0 and "3 query blank, an address or a file" in done.said
    assert [row["query"] for row in read_lines(tmp_path / "data" / "train.jsonl")] == [
        "Four?",
        "Five?",
    ]


def test_whether_a_query_is_text(tmp_path):
    (tmp_path / "page.png").touch()
    for name in ("prepare", "documents", "train", "evaluate", "truncate"):
        is_text = part(name, "is_text")
        texts = [
            "Which pump?",
            "https://example.org is what?",
            "word " * 300,
            "x" * 5000,
            "a\0b",
            "page.pngs",
        ]
        assert all(is_text(text) for text in texts)
        assert not any(
            is_text(text)
            for text in (
                None,
                7,
                b"Which pump?",
                "",
                " \n",
                "https://example.org/a.png",
                "data:image/png;base64,AAAA",
                str(tmp_path / "page.png"),
            )
        )


def test_what_the_dataset_lacks_is_named(tmp_path):
    small_source(tmp_path / "mine", colours(), language=["de"] * 6)
    done = prepare_small(tmp_path)
    assert (
        done.status == 1
        and "no query has the language 'en': set --language; found {'de': 6}" in done.said
    )
    assert prepare_small(tmp_path, "--language", "any").status == 0
    shutil.rmtree(tmp_path / "data")
    Dataset.from_dict({"text": ["a"], "image": [b"a"]}).to_parquet(
        tmp_path / "mine" / "train.parquet"
    )
    done = prepare_small(tmp_path)
    assert (
        done.status == 1
        and "has no column id, query, negatives, language; found text, image" in done.said
    )
    assert not (tmp_path / "data").exists()


def test_a_dataset_without_languages_is_read_when_asked(tmp_path):
    small_source(tmp_path / "mine", colours())
    table = pyarrow.parquet.read_table(tmp_path / "mine" / "train.parquet")
    pyarrow.parquet.write_table(
        table.drop_columns(["language"]).replace_schema_metadata(None),
        tmp_path / "mine" / "train.parquet",
    )
    done = prepare_small(tmp_path)
    assert done.status == 1 and "without a column language, set --language any" in done.said
    assert prepare_small(tmp_path, "--language", "any").status == 0


def test_pages_that_answer_one_query_are_not_its_negatives(tmp_path):
    queries = ["Which?", "Which?", "What is it?", "Where?", "How?", "Who?"]
    small_source(tmp_path / "mine", colours(), query=queries)
    done = prepare_small(tmp_path, "--train-rows", 5)
    assert done.status == 0 and "2 negative is a right page of its query" in done.said, done.said
    rows = read_lines(tmp_path / "data" / "train.jsonl")
    right = [row["image"] for row in rows if row["query"] == "Which?"]
    assert len(right) == 2 and not {rows[0]["negative_0"], rows[1]["negative_0"]} & set(right)
    assert rows[2]["negative_0"] == right[0], "a negative of another query"


def test_a_query_of_train_is_not_evaluated_where_pages_are_kept_apart(tmp_path):
    queries = ["Which?", "Where?", "Which?", "How?", "Who?", "When?"]
    ids = [f"page-{i}" for i in range(6)]
    negatives = [ids[5:], ids[5:], ids, ids, ids, ids]
    small_source(tmp_path / "mine", colours(), query=queries, negatives=negatives)
    choose = part("prepare", "choose_rows")
    texts = Dataset.from_parquet(str(tmp_path / "mine" / "train.parquet")).remove_columns("image")
    args = SimpleNamespace(train_rows=2, eval_rows=1, language="en", distinct_eval_pages=True)
    skipped = Counter()
    found = choose(texts.to_list(), lambda number: number, args, skipped)
    assert [row[0] for row in found["train"]] == [0, 1] and found["eval"] == []
    args.distinct_eval_pages = False
    assert choose(texts.to_list(), lambda number: number, args, skipped)["eval"][0][0] == 2


def test_the_hub_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    def unreachable(*arguments, **settings):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub")

    monkeypatch.setattr("datasets.get_dataset_config_names", unreachable)
    done = call("prepare", "--dataset", "owner/name", "--base-model", BASE, folder=tmp_path)
    assert done.status == 1
    assert done.said.endswith("prepare.py: Couldn't reach 'owner/name' on the Hub")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_reader_beside_the_data_stays(tmp_path):
    (tmp_path / "data.partial").mkdir()
    small_source(tmp_path / "mine", colours())
    assert prepare_small(tmp_path).status == 0
    assert {file.name for file in tmp_path.iterdir()} == {"data", "data.partial", "mine"}


def test_a_folder_that_is_there_is_left_alone(made, tmp_path):
    for name, folder in {"prepare": "data", "train": "finetuned", "publish": "published"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.txt").write_text("mine")
        arguments = ["--finetuned", TUNED] if name == "publish" else []
        done = call(name, *arguments, folder=tmp_path)
        assert done.status != 0 and f"{folder} is there already: name another folder" in done.said
        assert [file.name for file in (tmp_path / folder).iterdir()] == ["mine.txt"]


def test_a_dataset_that_is_split_already_keeps_its_split(tmp_path):
    pages = [{"bytes": page, "path": None} for page in colours()]
    columns = {"query": ["One?", "Two?", " "], "image": pages[:3]}
    columns |= {f"negative_{i}": [pages[2 + i]] * 3 for i in range(4)}
    features = Features(
        {name: Value("string") if name == "query" else Image(decode=False) for name in columns}
    )
    configs = ["---", "configs:"]
    for split in ("train", "eval"):
        (tmp_path / "mine" / split).mkdir(parents=True)
        Dataset.from_dict(columns, features=features).to_parquet(
            tmp_path / "mine" / split / "0.parquet"
        )
        configs += [f"- config_name: {split}", f"  data_files: {split}/*.parquet"]
    (tmp_path / "mine" / "README.md").write_text("\n".join([*configs, "---", ""]))
    done = prepare_small(tmp_path, "--train-rows", 9, "--eval-rows", 9)
    assert done.status == 0, done.said
    rows = {split: read_lines(tmp_path / "data" / f"{split}.jsonl") for split in ("train", "eval")}
    assert (
        [row["query"] for row in rows["train"]]
        == [row["query"] for row in rows["eval"]]
        == ["One?", "Two?"]
    )
    assert (
        set(rows["train"][0]) == {"query", "image", "negative_0"}
        and len(set(rows["eval"][0].values())) == 6
    )


# train.py


def test_too_few_steps_are_refused_with_the_way_out(made):
    few = [*TRAIN[: TRAIN.index("--per-device-train-batch-size")], "--output", "few"]
    done = call("train", "--data", "data", *few, folder=made)
    assert (
        done.status == 1
        and "24 rows in batches of 8 make 3 steps, expected at least 20" in done.said
    )
    assert "--num-train-epochs 7, or go on all the same with --min-steps 3" in done.said
    assert not (made / "few").exists()


@pytest.mark.parametrize(
    ("rows", "arguments", "found"),
    [
        (10_000, [], 64),
        (640, [], 32),  # twenty steps
        (40, [], 8),
        (40, ["--num-train-epochs", "16"], 32),
        (40, ["--per-device-train-batch-size", "20"], 20),
    ],
)
def test_a_batch_has_fewer_rows_where_there_are_few(rows, arguments, found, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    options = part("train", "read_arguments")()
    assert part("train", "rows_per_step")(rows, options) == found


def test_no_page_that_answers_a_query_is_its_negative_in_a_batch():
    rows = [("same", "A", "n0"), ("same", "B", "n1"), ("other", "B", "n2"), ("third", "C", "A")]
    rows += [(f"q{i}", f"P{i}", f"N{i}") for i in range(12)]
    dataset = Dataset.from_list(
        [dict(zip(("query", "image", "negative_0"), row, strict=True)) for row in rows]
    )
    right = {query: {page for other, page, _ in rows if other == query} for query, _, _ in rows}
    apart = part("train", "right_pages_apart")
    for seed in range(20):
        batches = apart(
            dataset,
            batch_size=4,
            drop_last=False,
            generator=torch.Generator().manual_seed(seed),
            seed=seed,
        )
        found = [[rows[i] for i in batch] for batch in batches]
        assert sorted(row for batch in found for row in batch) == sorted(rows)
        for batch in found:
            for query, page, _ in batch:
                pages = [other for row in batch for other in row[1:]]
                assert [other for other in pages if other in right[query]] == [page]


def test_only_a_whole_checkpoint_is_gone_on_with(tmp_path):
    newest = part("train", "newest_checkpoint")
    with pytest.raises(ValueError, match="holds no whole checkpoint: start without --resume"):
        newest(tmp_path)
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert newest(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(made, tmp_path):
    arguments = ["--data", str(made / "data"), *TRAIN, *FLOAT]
    command = [sys.executable, "-I", str(SCRIPTS / "train.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet)
    while not list(tmp_path.glob("*/checkpoint-*/trainer_state.json")):
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    run.kill()
    run.wait()
    assert not (tmp_path / "finetuned").exists()
    done = call("train", *arguments, "--resume", folder=tmp_path)
    assert done.status == 0 and "after 3 steps" in done.said, done.said
    assert not (tmp_path / "finetuned-checkpoints").exists()
    assert call("train", *arguments, "--output", "whole", folder=tmp_path).status == 0
    resumed, whole = (
        load_file(tmp_path / name / "model.safetensors") for name in ("finetuned", "whole")
    )
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_adapters_without_their_package_are_told_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = call("train", "--lora-rank", 4, folder=tmp_path)
    assert done.status != 0 and "needs the package peft: pip install peft" in done.said


@pytest.mark.parametrize(("text", "found"), [("none", None), ("None", None), ("5600", 5600)])
def test_no_token_limit_can_be_asked_for(text, found, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--mini-batch-num-tokens", text])
    assert part("train", "read_arguments")().mini_batch_num_tokens == found


def test_damaged_data_are_named_before_anything_is_loaded(copied):
    file = copied / "data" / "train.jsonl"
    rows = read_lines(file)
    page = copied / "data" / "pages" / rows[1]["image"]
    page.rename(page.with_suffix(".gone"))
    for changed, message in (
        (rows, "train.jsonl: no page"),
        ([rows[0] | {"query": "  "}], "line 1 of train.jsonl has no text"),
        ([], "data has no rows in train.jsonl"),
    ):
        file.write_text("".join(json.dumps(row) + "\n" for row in changed))
        done = call("train", *TRAIN, folder=copied)
        assert done.status == 1 and message in done.said, done.said
    (copied / "finetuned-checkpoints").mkdir()
    assert (
        "finetuned-checkpoints holds a run that was stopped: add --resume"
        in call("train", *TRAIN, folder=copied).said
    )


def plain_training(data, folder):
    """The same training with pages as images, as Sentence Transformers' own example has it; returns
    the saved model.
    """
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MatryoshkaLoss,
    )

    rows = [
        {
            name: value if name == "query" else str(data / "pages" / value)
            for name, value in row.items()
        }
        for row in read_lines(data / "train.jsonl")
    ]
    dataset = (
        Dataset.from_list(rows).cast_column("image", Image()).cast_column("negative_0", Image())
    )
    model = SentenceTransformer(
        BASE, model_kwargs={"dtype": "float32"}, processor_kwargs={"size": SIZE}
    )
    model.model_card_data.generate_widget_examples = False
    loss = MatryoshkaLoss(
        model,
        CachedMultipleNegativesRankingLoss(model, mini_batch_size=32),
        matryoshka_dims=[256, 128, 64],
    )
    args = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "plain"), per_device_train_batch_size=8, num_train_epochs=1, learning_rate=7e-4,
        warmup_steps=0.1, batch_sampler="no_duplicates", save_strategy="no", report_to="none", seed=42,
    )  # fmt: skip
    SentenceTransformerTrainer(model=model, args=args, train_dataset=dataset, loss=loss).train()
    model.save_pretrained(str(folder / "plain-model"), create_model_card=False)
    return folder / "plain-model"


@pytest.mark.slow
def test_training_on_paths_ends_with_the_weights_of_training_on_images(made, tmp_path):
    done = call("train", "--data", made / "data", *TRAIN, *FLOAT, folder=tmp_path)
    assert done.status == 0, done.said
    ours = load_file(tmp_path / "finetuned" / "model.safetensors")
    theirs = load_file(plain_training(made / "data", tmp_path) / "model.safetensors")
    base = load_file(Path(BASE) / "model.safetensors")
    assert ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
    assert sum(not torch.equal(ours[name], base[name].float()) for name in ours) > len(ours) / 2
    card = (tmp_path / "finetuned" / "README.md").read_text()
    assert "24 training samples" in card and "vdr-eval-hard" in card and str(tmp_path) not in card
    assert not (tmp_path / "finetuned" / "assets").exists(), (
        "pages of a local folder are nobody's business"
    )
    left = {file.name for file in tmp_path.iterdir()} - {"plain", "plain-model"}
    assert left == {"finetuned"}, "checkpoints, or a file of no use to the reader"


# evaluate.py and truncate.py


def retrieval(data):
    """Queries, corpus and relevant pages of the eval rows, written down once more."""
    rows = read_lines(data / "eval.jsonl")
    queries = {f"q{i}": row["query"] for i, row in enumerate(rows)}
    corpus = {
        name: str(data / "pages" / name)
        for row in rows
        for column, name in row.items()
        if column != "query"
    }
    return queries, corpus, {f"q{i}": {row["image"]} for i, row in enumerate(rows)}


@pytest.fixture(scope="module")
def vectors(made):
    """``{name: (query vectors, page vectors)}`` of both models, by plain encoding."""
    queries, corpus, _ = retrieval(made / "data")
    found = {}
    for name, source in {"base": BASE, "finetuned": TUNED}.items():
        model = SentenceTransformer(
            source, model_kwargs={"dtype": "float32"}, processor_kwargs={"size": SIZE}
        )
        model.truncate_dim = None
        found[name] = (
            model.encode_query(list(queries.values())),
            model.encode_document(list(corpus.values()), batch_size=50),
        )
    return found


def ndcg(made, query_vectors, page_vectors):
    """NDCG@10 of each query, one by one."""
    queries, corpus, relevant = retrieval(made / "data")
    similarities, names, found = util.cos_sim(query_vectors, page_vectors).numpy(), list(corpus), []
    for row, query in zip(similarities, queries, strict=True):
        [right] = relevant[query]
        rank = 1 + int((row > row[names.index(right)]).sum())
        found.append(1 / math.log2(1 + rank) if rank <= 10 else 0.0)
    return numpy.array(found)


@pytest.fixture(scope="module")
def measured(made):
    """``evaluation.json`` and ``truncation.json`` of base and tuned model, in the folder
    ``results``.
    """
    models = ("--base-model", BASE, "--finetuned", TUNED, *FLOAT)
    said = [
        call("evaluate", *models, folder=made),
        call("truncate", *models, "--dims", 8, 256, 4, folder=made),
    ]
    assert [done.status for done in said] == [0, 0], said
    return {
        name: json.loads((made / "results" / f"{name}.json").read_text())
        for name in ("evaluation", "truncation")
    }, said


def test_evaluate_finds_the_librarys_scores_and_the_interval_of_the_gain(made, vectors, measured):
    found, said = measured[0]["evaluation"], measured[1][0].said
    assert (found["queries"], found["pages"], found["dimensions"]) == (10, 50, 256)
    evaluator = InformationRetrievalEvaluator(
        *retrieval(made / "data"), name="vdr-eval-hard", batch_size=50
    )
    model = SentenceTransformer(
        TUNED, model_kwargs={"dtype": "float32"}, processor_kwargs={"size": SIZE}
    )
    model.truncate_dim = None
    assert found["finetuned"] == pytest.approx(evaluator(model), abs=1e-9)
    scores = {name: ndcg(made, *pair) for name, pair in vectors.items()}
    assert found["base"]["vdr-eval-hard_cosine_ndcg@10"] == pytest.approx(
        scores["base"].mean(), abs=1e-6
    )
    gain = scores["finetuned"] - scores["base"]
    draws = numpy.random.default_rng(0).integers(0, 10, size=(2000, 10))
    interval = numpy.percentile(gain[draws].mean(axis=1), [2.5, 97.5])
    assert found["gain"] == pytest.approx([gain.mean(), *interval], abs=1e-6)
    assert f"gain {gain.mean():.3f}, 95 % interval {interval[0]:.3f} to {interval[1]:.3f}" in said


def test_truncate_scores_the_first_dimensions(made, vectors, measured):
    found, said = measured[0]["truncation"], measured[1][1].said
    assert list(found["base"]) == ["256", "8", "4"], (
        "the widest first, in whatever order they were given"
    )
    for name, pair in vectors.items():
        for dim, score in found[name].items():
            expected = ndcg(made, *(vectors[:, : int(dim)] for vectors in pair)).mean()
            assert score == pytest.approx(expected, abs=1e-6), (name, dim)
    assert found["finetuned"]["4"] < found["finetuned"]["256"]
    assert "256 to 8" in said and "8 to 4" in said and "with 95 % confidence" in said


def test_the_smallest_length_within_a_limit():
    smallest_within = part("truncate", "smallest_within")
    losses = {256: 0.0, 128: 0.02, 64: 0.01, 32: 0.2}
    assert [smallest_within(limit, losses) for limit in (0.01, 0.03, 0.5)] == [256, 64, 32]
    assert smallest_within(0.1, {256: math.nan, 128: math.nan}) == 256, "a model that finds nothing"


def test_a_length_that_a_model_has_not_is_refused(made):
    done = call(
        "truncate",
        "--base-model",
        BASE,
        "--finetuned",
        TUNED,
        *FLOAT,
        "--dims",
        512,
        8,
        folder=made,
    )
    assert done.status == 1 and "--dims starts with 512, base has 256 dimensions" in done.said


def test_all_pages_of_the_evaluation_files_are_searched(copied):
    rows = read_lines(copied / "data" / "eval.jsonl")[:2]
    others = [file.name for file in (copied / "data" / "pages").iterdir()]
    named = {name for row in rows for column, name in row.items() if column != "query"}
    unnamed = sorted(set(others) - named)
    pages = [("eval.pdf", rows[0]["image"]), ("eval.pdf", unnamed[0]), ("train.pdf", unnamed[1])]
    (copied / "data" / "pages.jsonl").write_text(
        "".join(json.dumps({"file": file, "image": image}) + "\n" for file, image in pages)
    )
    (copied / "data" / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("evaluate", "truncate"):
        _, corpus, _, _ = part(name, "read_eval")(copied / "data")
        assert set(corpus) == named | {unnamed[0]}, "the mined pages, and the rest of eval.pdf"


@pytest.mark.parametrize("name", ["evaluate", "truncate"])
def test_ndcg_of_several_right_pages_is_that_of_the_notebooks(name):
    generator = torch.Generator().manual_seed(0)
    queries, pages = (torch.randn(rows, 8, generator=generator) for rows in (6, 30))
    right = [set(range(i, 30, 30 // (i + 1))) for i in range(6)]
    found = part(name, "ndcg_per_query")(queries, pages, right)
    corpus = {column: None for column in range(30)}
    expected = ndcg_per_query(util.cos_sim(queries, pages), corpus, dict(enumerate(right)))
    assert found == pytest.approx(expected) and 0 < found.mean() < 1


def test_a_page_of_several_rows_stands_once_in_the_corpus(copied):
    rows = read_lines(copied / "data" / "eval.jsonl")[:2]
    rows[1]["negative_0"] = rows[0]["image"]
    (copied / "data" / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("evaluate", "truncate"):
        queries, corpus, relevant, settings = part(name, "read_eval")(copied / "data")
        assert (len(queries), len(corpus)) == (2, 9) and relevant["q0"] == {rows[0]["image"]}
        assert settings["max_pixels"] == 40_000
    rows[1]["query"] = rows[0]["query"]
    (copied / "data" / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("evaluate", "truncate"):
        queries, corpus, relevant, _ = part(name, "read_eval")(copied / "data")
        assert queries == {"q0": rows[0]["query"]} and len(corpus) == 9
        assert relevant == {"q0": {rows[0]["image"], rows[1]["image"]}}
    Path(corpus[rows[0]["image"]]).unlink()
    with pytest.raises(ValueError, match="pages that are not there"):
        part("evaluate", "read_eval")(copied / "data")


# publish.py


@pytest.fixture(scope="module")
def published(made, measured):
    """The tuned model, published into the folder ``published``, with what was said."""
    done = call(
        "publish",
        "--base-model",
        BASE,
        "--finetuned",
        TUNED,
        "--truncate-dim",
        128,
        *FLOAT[:2],
        folder=made,
    )
    assert done.status == 0, done.said
    return made / "published", done.said


def test_what_is_published_has_its_length_and_the_measured_scores(published, measured):
    folder, said = published
    assert SentenceTransformer(str(folder)).encode_query("a").shape == (128,)
    assert (
        "loaded with truncate_dim=None: vectors of 128 dimensions" in said
        and "truncate_dim=256: vectors of 256" in said
    )
    card = (folder / "README.md").read_text()
    assert "ships with `truncate_dim=128`" in card and "10 queries against 50 pages" in card
    for which in ("base", "finetuned"):
        assert f"{measured[0]['evaluation'][which]['vdr-eval-hard_cosine_ndcg@10']:.4f}" in card
        assert f"{measured[0]['truncation'][which]['8']:.4f}" in card
    ours, theirs = (load_file(Path(place) / "model.safetensors") for place in (folder, TUNED))
    assert all(torch.equal(ours[name].float(), theirs[name].float()) for name in theirs)


def test_scores_of_another_model_stay_out_of_the_card(made, measured, tmp_path, capsys):
    load_results, key_of = part("publish", "load_results"), part("publish", "model_key")
    assert (
        load_results(made / "results", "evaluation", key_of(TUNED, None))
        == measured[0]["evaluation"]
    )
    shutil.copytree(TUNED, tmp_path / "other")
    assert key_of(tmp_path / "other", None) == key_of(TUNED, None), "a copy is the same model"
    (tmp_path / "other" / "config.json").write_text("{}")
    assert load_results(made / "results", "evaluation", key_of(tmp_path / "other", None)) is None
    assert load_results(made / "results", "truncation", key_of("owner/model", "v1")) is None
    assert capsys.readouterr().out.count("was measured with another model and is left out") == 2
    assert load_results(tmp_path, "evaluation", "any") is None


def test_the_card_says_what_the_shortened_vectors_have():
    card = "maps to a 256-dimensional space\n- **Output Dimensionality:** 256 dimensions\npip install -U sentence-transformers\n"
    card += (
        'model = SentenceTransformer("sentence_transformers_model_id")\n## Training Details\nLoss'
    )
    done = part("publish", "finish_card")(card, "SCORES\n\n", 128, 256, "me/model")
    assert "a 128-dimensional" in done and "Dimensionality:** 128 dimensions" in done
    assert (
        'SentenceTransformer("me/model", truncate_dim=256)' in done
        and '"sentence-transformers[image]"' in done
    )
    assert done.endswith("SCORES\n\n## Training Details\nLoss")


def test_what_should_not_leave_the_machine_stops_an_upload(made, tmp_path, monkeypatch):
    shutil.copytree(TUNED, tmp_path / "tuned")
    (tmp_path / "tuned" / "README.md").write_text(
        f"Made in {ROOT}/outputs with hf_{'S' * 34}.\nSee https://example.org/a/b\n"
    )
    pushed = []
    monkeypatch.setattr(
        SentenceTransformer, "push_to_hub", lambda *args, **settings: pushed.append(args)
    )
    arguments = (
        "--finetuned",
        tmp_path / "tuned",
        "--truncate-dim",
        64,
        *FLOAT[:2],
        "--upload-to",
        "me/model",
    )
    done = call("publish", *arguments, folder=tmp_path)
    assert (
        "README.md: a path of this machine (line 1)" in done.said
        and "README.md: a token" in done.said
    )
    assert (
        "(line 2)" not in done.said
        and done.status == 1
        and "not uploaded: mend the files" in done.said
        and not pushed
    )
    (tmp_path / "tuned" / "README.md").write_text("# A model\n")
    done = call("publish", *arguments, "--output", "clean", folder=tmp_path)
    assert done.status == 0 and [args[1] for args in pushed] == ["me/model"], done.said


# documents.py


@functools.cache
def names(wanted, count):
    """The first file names that are for evaluation, or for training."""
    side_of = part("documents", "side_of")
    return [name for name in (f"manual{i}.pdf" for i in range(60)) if side_of(name, []) == wanted][
        :count
    ]


def manual(file, parts, number=0, top=500):
    """A PDF file with a page for each part: a heading, and some table lines."""
    canvas = Canvas(str(file), pagesize=(400, 560))
    canvas.setTitle(file.stem)
    for page, title in enumerate(parts, start=1):
        canvas.setFont("Helvetica", 30)
        canvas.drawString(20, top, f"{title} {number}")
        canvas.setFont("Helvetica", 10)
        for line in range(page):
            canvas.drawString(20, 400 - 14 * line, f"Ring {title} {10 * number + line} mm")
        canvas.showPage()
    canvas.save()


PARTS = ("Filters", "Hoses", "Cables", "Storage", "Transport", "Cleaning")


@pytest.fixture
def manuals(tmp_path):
    """A folder ``pdf`` with one manual for evaluation and two for training, and questions about
    them.
    """
    (tmp_path / "pdf").mkdir()
    files = names("eval", 1) + names("train", 2)
    lines = ["file,page,query"]
    for number, name in enumerate(files):
        manual(tmp_path / "pdf" / name, PARTS, number)
        lines += [f"{name},{page},Where is part {page} of {name}?" for page in (2, 4, 5)]
    (tmp_path / "pdf" / "questions.csv").write_text("\n".join([*lines, "gone.pdf,1,Who?"]) + "\n")
    return tmp_path


def documents(folder, *arguments):
    """Bring the index of the folder ``pdf`` up to date, and make data of it."""
    read = call("index", "pdf", "--max-pixels", 16_384, "--no-ocr", folder=folder)
    if read.status:
        return read
    options = ("--model", TUNED, *FLOAT, "--query-models")
    return call("documents", *options, *arguments, folder=folder)


def test_a_folder_of_pdf_files_becomes_training_data(manuals):
    done = documents(manuals)
    assert done.status == 0, done.said
    for said in (
        "line 11 of questions.csv is left out: gone.pdf#1 is no page that was read",
        "18 pages of 3 files",
    ):
        assert said in done.said, said
    data = manuals / "data"
    pages = {row["image"]: row for row in read_lines(data / "pages.jsonl")}
    train, evaluation = (read_lines(data / f"{name}.jsonl") for name in ("train", "eval"))
    assert {file.name for file in (data / "pages").iterdir()} == set(pages) and len(pages) == 18
    assert [row["query"] for row in evaluation] == [
        f"Where is part {page} of {names('eval', 1)[0]}?" for page in (2, 4, 5)
    ]
    assert {
        pages[row[name]]["file"] for row in evaluation for name in row if name != "query"
    } == set(names("eval", 1))
    assert all(len(set(row.values())) == 6 for row in evaluation)
    assert len(train) > 3 and {row["query"] for row in train} & {
        f"Where is part 2 of {name}?" for name in names("train", 2)
    }
    assert all(pages[row["image"]]["file"] != pages[row["negative_0"]]["file"] for row in train)
    assert {pages[row[name]]["file"] for row in train for name in ("image", "negative_0")} <= set(
        names("train", 2)
    )

    model = SentenceTransformer(
        TUNED, model_kwargs={"dtype": "float32"}, processor_kwargs={"size": SMALL}
    )
    model.truncate_dim = None
    paths = [
        str(data / "pages" / row["image"])
        for row in pages.values()
        if row["file"] in names("eval", 1)
    ]
    for row in evaluation:
        order = model.similarity(model.encode_query(row["query"]), model.encode_document(paths))[
            0
        ].argsort(descending=True)
        others = [
            name for name in (Path(paths[i]).name for i in order.tolist()) if name != row["image"]
        ]
        assert [row[f"negative_{i}"] for i in range(4)] == others[:4]
    read_settings = part("train", "read_settings")
    assert read_settings(data) == {
        "dataset": "pdf",
        "hub": False,
        "min_pixels": 4096,
        "max_pixels": 16_384,
    }
    assert len(part("train", "read_split")(data, "train")) == len(train)


def test_a_second_run_keeps_the_marks_and_follows_the_folder(manuals):
    assert documents(manuals).status == 0
    file = manuals / "data" / "queries_to_check.csv"
    table = pandas.read_csv(file)
    first = {
        name: (manuals / "data" / f"{name}.jsonl").read_text()
        for name in ("train", "eval", "pages")
    }
    assert documents(manuals).status == 0
    assert first == {name: (manuals / "data" / f"{name}.jsonl").read_text() for name in first}, (
        "the same again"
    )
    asked = read_lines(manuals / "data" / "eval.jsonl")[0]["query"]
    table.loc[table["query"] == asked, "keep"] = "No "
    # as a spreadsheet may save it
    file.write_bytes(table.to_csv(index=False, sep=";").encode("utf-16"))
    (manuals / "pdf" / names("train", 2)[1]).unlink()
    manual(manuals / "pdf" / names("train", 3)[2], ("Pumps", "Belts"), 7)
    done = documents(manuals)
    assert done.status == 0 and "14 pages of 3 files" in done.said, done.said
    assert asked not in [row["query"] for row in read_lines(manuals / "data" / "eval.jsonl")]
    marks = pandas.read_csv(file).set_index("query")["keep"]
    assert marks[asked] == "no" and set(marks.drop(asked)) == {"yes"}
    lines = (manuals / "pdf" / "questions.csv").read_text().splitlines(keepends=True)
    (manuals / "pdf" / "questions.csv").write_text("".join(x for x in lines if asked not in x))
    assert documents(manuals).status == 0
    marks = pandas.read_csv(file).set_index("query")["keep"]
    assert marks[asked] == "no", "the mark of a query that is not made this time is kept"
    assert len(list((manuals / "data" / "pages").iterdir())) == 14, (
        "pages of a file that is gone are gone"
    )
    (manuals / "index" / "index.json").write_text(
        (manuals / "index" / "index.json").read_text().replace("4096", "5000")
    )
    done = call("documents", "--model", TUNED, "--query-models", folder=manuals)
    assert done.status == 1 and "data was made with other settings" in done.said
    shutil.rmtree(manuals / "index")
    (manuals / "other").mkdir()
    (manuals / "other" / "mine.txt").write_text("mine")
    done = documents(manuals, "--data", "other")
    assert done.status == 1 and "other is not empty and was not made here" in done.said
    assert [file.name for file in (manuals / "other").iterdir()] == ["mine.txt"]


def test_files_of_one_page_each_make_both_splits(tmp_path):
    (tmp_path / "pdf").mkdir()
    lines = ["file,page,query"]
    for number, name in enumerate(names("eval", 6) + names("train", 12)):
        manual(tmp_path / "pdf" / name, ["Pump"], number)
        lines.append(f"{name},1,Which sheet is about pump {number}?")
    (tmp_path / "pdf" / "questions.csv").write_text("\n".join(lines))
    done = documents(tmp_path)
    assert done.status == 0, done.said
    rows = {name: read_lines(tmp_path / "data" / f"{name}.jsonl") for name in ("train", "eval")}
    assert len(rows["train"]) == 12 and len(rows["eval"]) == 6
    assert all(row["image"] != row["negative_0"] for row in rows["train"])


def test_what_is_missing_for_a_split_is_named(tmp_path):
    (tmp_path / "pdf").mkdir()
    manual(tmp_path / "pdf" / names("train", 1)[0], PARTS)
    done = documents(tmp_path)
    assert (
        done.status == 1
        and "no query for eval: add files or questions, or name --eval-files" in done.said
    )
    manual(tmp_path / "pdf" / names("eval", 1)[0], PARTS[:3], 1)
    done = documents(tmp_path)
    assert (
        done.status == 1
        and "the files for evaluation have 3 different pages, expected 5 at least" in done.said
    )
    done = documents(tmp_path, "--eval-files", "gone.pdf")
    assert done.status == 1 and "--eval-files names what was not read: gone.pdf" in done.said
    assert not (tmp_path / "data" / "manifest.json").exists()
    assert "no manifest.json in data" in call("train", folder=tmp_path).said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "questions.csv has no column file, page, query; found ''"),
        (b"document,query\na.pdf,How?\n", "has no column file, page; found 'document,query'"),
        (b"file,page,query\na.pdf,2,\x81\x8d\n", "neither UTF-8 nor UTF-16 nor Windows-1252"),
    ],
)
def test_a_table_of_questions_that_cannot_be_read_is_named(content, message, tmp_path):
    (tmp_path / "questions.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        part("documents", "queries_from_table")(tmp_path / "questions.csv", {"a.pdf#2"})


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("file,page,query\na.pdf,2,Größe?\n", "utf-8"),
        ("file;page;query\na.pdf;2;Größe?\n", "cp1252"),
        ("File\tPage\tQuery\na.pdf\t02\tGröße?\n", "utf-16"),
        ("file,page,query\na.pdf,2.0,Größe?\n,,\n", "utf-8-sig"),
        ('file,page,query,note\na.pdf,2,"Größe?",mine\n', "utf-8"),
    ],
)
def test_a_table_of_questions_is_read_as_spreadsheets_save_it(text, encoding, tmp_path):
    (tmp_path / "questions.csv").write_bytes(text.encode(encoding))
    found = part("documents", "queries_from_table")(tmp_path / "questions.csv", {"a.pdf#2"})
    assert found == [{"query": "Größe?", "id": "a.pdf#2", "way": "table"}]


def test_a_line_of_the_table_is_left_out_alone(tmp_path, capsys):
    lines = [
        "file,page,query",
        "a.pdf,2,NA",
        "a.pdf,,Where?",
        "a.pdf,2,1984",
        "a.pdf,2,How, and why?",
        "a.pdf,2, ",
        "Pru\u0308f.pdf,1,null",
    ]
    (tmp_path / "questions.csv").write_text("\n".join(lines), encoding="utf-8")
    read = part("documents", "queries_from_table")
    found = read(tmp_path / "questions.csv", {"a.pdf#2", "Pr\u00fcf.pdf#1"})
    assert [row["query"] for row in found] == ["NA", "1984", "null"]
    said = capsys.readouterr().out
    assert (
        "line 3 of questions.csv is left out: a.pdf# is no page" in said
        and "line 6 of questions.csv is left out: asks nothing" in said
    )
    assert "line 5 of questions.csv is left out: quote a text with commas" in said


def asked_about(*questions):
    """A table of queries that people asked."""
    return pandas.DataFrame(
        [{"query": query, "id": page, "way": "table"} for query, page in questions]
    )


def test_a_question_with_several_right_pages_has_all_of_them(manuals):
    both = "Where are hoses and cables?"
    file, answers = manuals / "pdf" / "questions.csv", {}
    with file.open("a") as table:
        for name in (names("eval", 1)[0], names("train", 2)[0]):
            table.writelines(f"{name},{page},{both} {name}\n" for page in (2, 3))
    done = documents(manuals)
    assert done.status == 0, done.said
    image_of = {
        (row["file"], row["page"]): row["image"] for row in read_lines(manuals / "data/pages.jsonl")
    }
    for side, name in (("eval", names("eval", 1)[0]), ("train", names("train", 2)[0])):
        rows = read_lines(manuals / "data" / f"{side}.jsonl")
        answers = [row for row in rows if row["query"] == f"{both} {name}"]
        right = {image_of[name, 2], image_of[name, 3]}
        assert {row["image"] for row in answers} == right and len(answers) == 2
        for row in answers:
            assert not right & {value for column, value in row.items() if "negative" in column}


def test_no_page_and_no_question_stands_on_both_sides(capsys):
    rows = [
        {"id": f"{name}#{page}", "file": name, "document": name, "image": f"{name}{page}"}
        for name in ("a.pdf", "b.pdf")
        for page in (1, 2)
    ]
    split_by_file = part("documents", "split_by_file")
    kept = asked_about(("Where?", "a.pdf#2"), ("Where?", "b.pdf#2"), ("How?", "b.pdf#1"))
    split, corpus = split_by_file(rows, kept, ["a.pdf"])
    assert list(split["eval"]["query"]) == ["Where?"] and list(split["train"]["query"]) == ["How?"]
    assert set(corpus["eval"]) == {"a.pdf1", "a.pdf2"} and set(corpus["train"]) == {
        "b.pdf1",
        "b.pdf2",
    }
    rows[2]["image"] = rows[1]["image"]  # b.pdf#1 is the same page as a.pdf#2
    kept = asked_about(("Where?", "a.pdf#1"), ("How?", "b.pdf#1"), ("When?", "b.pdf#2"))
    split, corpus = split_by_file(rows, kept, ["a.pdf"])
    assert list(split["train"]["query"]) == ["When?"]
    assert set(corpus["eval"]) == {"a.pdf1"} and set(corpus["train"]) == {"b.pdf2"}
    assert "left out, its page stands in files of both sides: How?" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no query for train"):
        split_by_file(rows, kept[:2], ["a.pdf"])


def test_editions_of_one_document_are_on_one_side(manuals):
    first, other = names("eval", 1)[0], names("train", 3)[2]
    manual(manuals / "pdf" / other, (*PARTS, "Disposal"), top=480)  # and a page more
    with (manuals / "pdf" / "questions.csv").open("a") as table:
        table.write(f"{other},7,Where is the disposal?\n")
    done = documents(manuals)
    assert done.status == 0, done.said
    file, document = max(first, other), min(first, other)
    assert f"{file} has much of the text of {document}, or of its editions" in done.said
    file_of = {row["image"]: row["file"] for row in read_lines(manuals / "data" / "pages.jsonl")}
    files = {}
    for side in ("train", "eval"):
        rows = read_lines(manuals / "data" / f"{side}.jsonl")
        images = {value for row in rows for name, value in row.items() if name != "query"}
        files[side] = {file_of[image] for image in images}
    together = "eval" if part("documents", "side_of")(document, []) == "eval" else "train"
    assert {first, other} <= files[together] and not files["train"] & files["eval"]
    named = documents(manuals, "--eval-files", other)
    assert named.status == 0, named.said
    rows = read_lines(manuals / "data" / "train.jsonl")
    trained_on = {file_of[row[name]] for row in rows for name in ("image", "negative_0")}
    assert trained_on == set(names("train", 2)), "an edition of a file that was named is not"


def test_a_page_of_another_edition_is_no_hard_negative():
    rows = [
        {"file": name, "document": document, "image": f"{name}.png"}
        for name, document in (("a", "a"), ("b", "a"), ("c", "c"))
    ]
    mine_train = part("documents", "mine_train")
    mine_train.__globals__["mine"] = lambda *_, **__: [
        {"query": "How?", "image": "a.png", "negative": f"{name}.png"} for name in ("b", "c")
    ]
    table = asked_about(("How?", "a#1")).assign(image="a.png")
    corpus, args = {f"{name}.png": name for name in "abc"}, SimpleNamespace(relative_margin=0.05)
    [row] = mine_train(table, corpus, rows, None, args)
    assert row["negative_0"] == "c.png"
    with pytest.raises(ValueError, match="one document to train on"):
        mine_train(table, {"a.png": "a", "b.png": "b"}, rows, None, args)


def test_files_of_one_template_can_be_split_by_file():
    template = "We send you the following invoice and ask for payment within thirty days"
    rows = [{"file": f"{i}.pdf", "image": f"{i}.png", "text": template} for i in range(3)]
    documents_of = part("documents", "documents_of")
    with pytest.raises(ValueError, match=r"split by file with --edition-share 1\.1"):
        documents_of(rows, 0.3)
    assert documents_of(rows, 1.1) == {f"{i}.pdf": f"{i}.pdf" for i in range(3)}


def test_lines_that_say_nothing_are_no_phrases():
    is_phrase = part("documents", "is_phrase")
    good = ["Illegal frees", "M6 bolt", "Änderung der Größe", "Cyclic redundancy check (CRC)"]
    bad = [
        "Contents",
        "Table of Contents",
        "Index",
        "Chapter 1",
        "Appendix B",
        "IV",
        "12.3",
        "==",
        "zero bits to",
    ]
    bad += [
        "Inhaltsverzeichnis",
        "Overview . . . . . . 12",
        "rsa_sha1_sign(const",
        "CCM block size,",
        "Note",
    ]
    bad += ["OBJECT IDENTIFIER: the value must be a string with each number"]
    assert [x for x in good if not is_phrase(x)] == [x for x in bad if is_phrase(x)] == []


def test_a_table_of_contents_gives_no_phrases():
    lines = [f"{i}. Part {chr(64 + i) * 5} {7 * i}" for i in range(1, 12)]
    row = {"id": "a#1", "headings": ["Parts"], "text": "\n".join(lines), "title": "Manual"}
    phrases = part("documents", "phrases")
    assert phrases(row) == [] and phrases(row | {"text": lines[0]}) != []


def test_phrases_are_headings_captions_and_table_lines():
    text = "Kestrel Loom\n2 Bolts\nTable 2: Torque\nM6 bolt 217\nOuter ring 1,204 mm\nThe year 2014 was a good one"
    row = {"id": "a#1", "headings": ["2 Bolts", "Loom", "2"], "text": text, "title": "Kestrel loom"}
    assert list(part("documents", "phrases")(row)) == ["Bolts", "Torque", "M6 bolt", "Outer ring"]
    twice = [
        row | {"id": f"a#{i}", "headings": heading, "text": "", "title": "Manual"}
        for i, heading in enumerate((["Grease", "Cleaning"], ["Grease"]))
    ]
    assert part("documents", "queries_from_text")(twice) == [
        {"query": "Cleaning, Manual", "id": "a#0", "way": "text layer"}
    ]


def test_a_models_replies_are_read_or_left_out():
    read_reply, pair = (
        part("documents", "read_reply"),
        {"general": "pumps", "specific": "pumps of 2014"},
    )
    assert (
        read_reply(json.dumps(pair)) == pair
        and read_reply(f"Sure:\n```json\n{json.dumps(pair)}\n```") == pair
    )
    for reply in (
        "{}",
        '{"general": "", "specific": "a"}',
        '{"general": "pumps"',
        "}{",
        "[1, 2]",
        "no",
    ):
        assert read_reply(reply) is None


@pytest.mark.slow
def test_a_vision_language_model_is_asked_once_a_page(manuals, tmp_path_factory):
    writer = save_writer_twin(
        tmp_path_factory.mktemp("writer"),
        '{"general": "Hoses", "specific": "Where are the hoses?"}',
    )
    done = documents(manuals, "--query-models", writer)
    assert done.status == 0 and "0 of 18 replies not readable" in done.said, done.said
    ways = pandas.read_csv(manuals / "data" / "queries_to_check.csv")["way"].value_counts()
    assert ways[str(writer)] == 2, "of 18 pages the first two for the one general query"
    shutil.rmtree(writer)  # a folder that is gone cannot be asked again
    Path(writer).mkdir()
    assert documents(manuals, "--query-models", writer).status == 0


# the same rows in the notebooks

KEYS = """
import hashlib
from PIL import Image as Pillow
from vdr_helpers.splits import load_split

def key(file):
    page = Pillow.open(file).convert("RGB")
    return hashlib.sha1(str(page.size).encode() + page.tobytes()).hexdigest() + ".png"

found = {
    split: [[value if name == "query" else key(value) for name, value in row.items()]
            for row in load_split(profile, split)[0]]
    for split in ("train", "eval")
}
"""


@pytest.fixture(scope="module")
def notebooks(source, tmp_path_factory):
    """What the cells of notebooks 02 to 05 find with 24 train and 10 eval rows of the small source,
    and three steps of training; the trained model is in the folder ``trained``.
    """
    outputs = tmp_path_factory.mktemp("notebooks")
    save = f"model.save_pretrained({str(outputs / 'trained')!r}, create_model_card=False)"
    eight = ("batch_size = profile.per_device_train_batch_size", "batch_size = 8")
    changes = {
        "02": {"more": KEYS},
        "04": {"more": "found = metrics"},
        "05": {"more": "found = means"},
        "03": {"edits": [eight], "below": [("trainer.train(resume", save)]},
    }
    jobs = [{"number": n, "outputs": str(outputs), "changes": x} for n, x in changes.items()]
    small = {"VDR_DATASET": str(source), "VDR_ROWS": "24:10", "OMP_NUM_THREADS": "1"}
    small |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    program = [str(ROOT / "tests" / "cells.py")]
    done = warm.run(program, input=json.dumps(jobs), env=os.environ | small, cwd=ROOT)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == 4, done.stderr[-2000:]
    for answer in answers:
        assert answer["status"] == 0, answer["log"]
    return {n: answer["found"] for n, answer in zip(changes, answers, strict=True)} | {
        "trained": outputs / "trained"
    }


@pytest.mark.slow
def test_prepare_chooses_the_rows_of_notebook_02(made, notebooks):
    for split, rows in notebooks["02"].items():
        ours = [list(row.values()) for row in read_lines(made / "data" / f"{split}.jsonl")]
        assert ours == rows


@pytest.mark.slow
def test_train_ends_with_the_weights_of_notebook_03(made, notebooks, tmp_path):
    dims = ("--matryoshka-dims", *"256 192 128 64 32 16 8".split(), "--monitor-rows", "10")
    done = call("train", "--data", made / "data", *TRAIN, *FLOAT, *dims, folder=tmp_path)
    assert done.status == 0, done.said
    ours, theirs, base = (
        load_file(Path(folder) / "model.safetensors")
        for folder in (tmp_path / "finetuned", notebooks["trained"], BASE)
    )
    assert ours.keys() == theirs.keys()
    apart = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
    moved = max((ours[name] - base[name].float()).abs().max().item() for name in ours)
    assert apart < 0.05 * moved, f"{apart} apart where training moved weights by {moved}"


@pytest.mark.slow
def test_evaluate_and_truncate_find_the_scores_of_notebooks_04_and_05(made, notebooks, tmp_path):
    dims = ("--dims", *"256 192 128 64 32 16 8".split())
    models = ("--data", made / "data", "--base-model", BASE, "--finetuned", TUNED, *FLOAT)
    for name, more in (("evaluate", ()), ("truncate", dims)):
        assert call(name, *models, *more, folder=tmp_path).status == 0
    for name, number in {"evaluation": "04", "truncation": "05"}.items():
        ours = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        for mine, theirs in {"base": "base", "finetuned": "tuned"}.items():
            assert ours[mine] == pytest.approx(notebooks[number][theirs], abs=1e-9), (name, mine)


# all of them, without this repository

CHAIN = """
import json, os, runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("vdr_helpers", "tiny_vdr", "vdr_exercises", "tools", "benchmarks"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Refuse())
import bm25s, pandas, pypdfium2, scipy.stats, sentence_transformers.sentence_transformer.losses, torchvision
from sentence_transformers import SentenceTransformerTrainer
for script, *arguments in json.loads(sys.argv[1]):
    print("==", os.path.basename(script), *arguments, flush=True)
    if os.fork() == 0:
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        sys.stdout.flush()
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{script} failed")
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="forks one Python that has imported the libraries"
)
def test_all_scripts_in_a_chain_in_an_empty_folder_without_this_repository(manuals, source):
    tuned = ("--finetuned", "finetuned", "--base-model", BASE)
    lora = ("--lora-rank", "4", "--learning-rate", "7e-3", "--output", "lora", "--card-examples")
    jobs = [
        ("prepare", "--dataset", str(source), "--train-rows", "16", "--eval-rows", "6", *TINY),
        ("train", *TRAIN, *FLOAT),
        ("evaluate", *tuned, *FLOAT),
        ("truncate", *tuned, *FLOAT, "--dims", "256", "64"),
        ("publish", *tuned, "--truncate-dim", "64", "--dtype", "float32"),
        ("index", "data", "--index", "index-data", "--model", "finetuned", *FLOAT),
        ("search", "Which pump?", "--index", "index-data"),
        ("index", "pdf", "--max-pixels", "16384", "--no-ocr"),
        ("search", "hoses"),
        ("documents", "--data", "mine", "--model", "finetuned", *FLOAT, "--query-models"),
        ("train", "--data", "mine", *TRAIN, *FLOAT, *lora),
        ("publish", "--finetuned", "lora", "--base-model", BASE, "--truncate-dim", "64", "--dtype", "float32", "--output", "merged"),
    ]  # fmt: skip
    jobs = [(str(SCRIPTS / f"{name}.py"), *arguments) for name, *arguments in jobs]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("VDR_", "PYTHON"))
    }
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-I", "-c", CHAIN, json.dumps(jobs)]
    done = subprocess.run(command, cwd=manuals, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-3000:])
    card = (manuals / "published" / "README.md").read_text()
    assert (
        "Base and tuned model, 256 dimensions, 6 queries against 30 pages" in card
        and "| 64 |" in card
    )
    assert (
        "16 training samples" in card
        and str(manuals) not in card
        and "no manifest" not in done.stdout
    )
    assert "paths, user names, tokens: none" in " ".join(done.stdout.split())
    assert "18 pages of 3 files in index" in done.stdout

    single = {"model_kwargs": {"dtype": "float32"}}
    merged = SentenceTransformer(str(manuals / "merged"), truncate_dim=256, **single)
    adapted = SentenceTransformer(str(manuals / "lora"), truncate_dim=256, **single)
    base = SentenceTransformer(BASE, **single)
    assert (
        not (manuals / "merged" / "adapter_config.json").exists()
        and (manuals / "lora" / "adapter_config.json").exists()
    )
    vectors = [
        model.encode_query("Which pump?", convert_to_tensor=True).float()
        for model in (merged, adapted, base)
    ]
    apart, moved = ((vectors[0] - other).abs().max().item() for other in vectors[1:])
    assert apart < 0.01 * moved, f"{apart} apart where training moved the vector by {moved}"
    card = (manuals / "merged" / "README.md").read_text()
    assert "training samples" in card and list((manuals / "merged" / "assets").iterdir()), (
        "the card of the tuned model"
    )
