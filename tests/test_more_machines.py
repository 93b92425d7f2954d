"""Notebook 11: its scripts on one process, on two launchers, by ``accelerate launch``; a killed
rank; sharding; a page that kills every process. Appendix a10: the plan's arithmetic.

What the notebook itself shows, such as equal gradients, is compared where its stored outputs are.
"""

import atexit
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import psutil
import pytest
import warm
from cells import definitions, edited_sources, find_notebook
from datasets import Dataset
from PIL import Image as Page

from vdr_helpers.profiles import PROFILES
from vdr_helpers.training import last_checkpoint

ROOT = Path(__file__).resolve().parent.parent
PAGES = Path(tempfile.mkdtemp(prefix="vdr-pages-"))
atexit.register(shutil.rmtree, PAGES, ignore_errors=True)
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture(scope="module")
def notebook():
    """The notebook's scripts as text and its two functions about sharding."""
    return definitions(
        "11",
        "train_script",
        "check_script",
        "encode_script",
        "one_epoch",
        "describe",
        "ranks",
    )


def noise(seed: int) -> Page.Image:
    return Page.fromarray(
        numpy.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
    )


@cache
def file_of(seed: int) -> str:
    """A PNG file of noise, written once."""
    file = PAGES / f"{seed}.png"
    noise(seed).save(file)
    return str(file)


def rows_of_pages(count: int, shared_every: int = 0) -> Dataset:
    """Rows of small pages of noise; with ``shared_every`` every so many rows have the same
    positive.
    """
    numbers = [0 if shared_every and i % shared_every == 0 else i for i in range(count)]
    columns = {
        "query": [f"query {i}" for i in range(count)],
        "image": [file_of(number) for number in numbers],
        "negative_0": [file_of(10_000 + i) for i in range(count)],
    }
    return Dataset.from_dict(columns)


# The scripts as texts.


def test_the_training_script_is_short_and_plain(notebook):
    script = notebook["train_script"]
    of_the_course = [
        line for line in script.splitlines() if "vdr_helpers" in line or "tiny_vdr" in line
    ]
    assert of_the_course == ["from vdr_helpers.training import resume_point"]


@pytest.mark.parametrize("name", ["train_script", "check_script", "encode_script"])
def test_the_scripts_are_clean(notebook, name):
    for command in (["check"], ["format", "--check"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), "-"],
            input=notebook[name], capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr


# Which rows go where.


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_cut_batch_holds_each_page_once_and_rows_go_to_one_rank(notebook, ranks):
    rows = rows_of_pages(100, shared_every=10)
    space = notebook["one_epoch"].__globals__ | {}
    space |= {"ranks": ranks, "profile": SimpleNamespace(seed=42), "train_dataset": rows}
    one_epoch, describe = (
        type(function)(function.__code__, space)
        for function in (notebook["one_epoch"], notebook["describe"])
    )
    cut = describe(one_epoch(rows, 8, True), len(rows))
    own = describe(one_epoch(rows, 8 // ranks, False), len(rows))
    assert cut["rows per step"] == own["rows per step"] == 8
    assert (
        cut["steps with a page on several ranks"] == 0 < own["steps with a page on several ranks"]
    )
    assert cut["twice"] == 0 and cut["rows drawn once"] == 8 * cut["steps"] == 96
    for step in one_epoch(rows, 8, True):
        assert max(Counter(row for share in step for row in share).values()) == 1


def test_a_pass_that_comes_out_short_is_filled_up_with_rows_again(notebook):
    """What the text warns of: with a number of rows that is a multiple of the batch, waiting rows
    cost a batch, and others come twice.
    """
    rows = rows_of_pages(32, shared_every=4)
    space = notebook["one_epoch"].__globals__ | {
        "ranks": 2,
        "profile": SimpleNamespace(seed=42),
        "train_dataset": rows,
    }
    one_epoch, describe = (
        type(function)(function.__code__, space)
        for function in (notebook["one_epoch"], notebook["describe"])
    )
    full = describe(one_epoch(rows, 8, True), len(rows))
    assert full["twice"] == full["not drawn"] > 0


# The plan, and what the last section asks to try.


def run_plan(**edits) -> dict:
    """The cells of appendix a10's plan, with ``assumed`` changed by pairs of text; returns their
    names.
    """
    space = {"pages": [str(ROOT / "assets" / "readme_result.png")]}
    for source in edited_sources("a10", **edits):
        if '"pages": 100_000_000' in source or "vector = assumed[" in source:
            exec(compile(source, "appendix a10, plan", "exec"), space)
    return space


def test_the_plan_agrees_with_the_page_about_the_store():
    """docs/store.md: a node of 64 GiB holds 46.6 million pages of 1,024 dimensions of one byte."""
    found = run_plan()
    assert found["node"] / 1e6 == pytest.approx(46.6, abs=0.06)
    assert math.ceil(found["total"] / found["node"]) == 3


def test_another_plan_needs_other_nodes():
    found = run_plan(
        edits=[
            ('"GPUs": 16', '"GPUs": 64'),
            ('"bytes of a dimension": 1', '"bytes of a dimension": 4'),
        ]
    )
    assert found["assumed"]["GPUs"] == 64 and math.ceil(found["total"] / found["node"]) == 9


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        ("11", [("ranks = 2", "ranks = 4"), ('by_rank["1"].kill()', 'by_rank["0"].kill()')]),
        (
            "a10",
            [
                ('"GPUs": 16', '"GPUs": 64'),
                ('"bytes of a dimension": 1', '"bytes of a dimension": 4'),
            ],
        ),
    ],
)
def test_the_items_to_try_name_code_that_stands_in_one_cell(number, changes):
    cells = json.loads(find_notebook(number).read_text())["cells"]
    text = next("".join(c["source"]) for c in cells if "## Try this" in "".join(c["source"]))
    for there, new in changes:
        assert f"`{there}`" in text and f"`{new}`" in text
        assert any(new in source for source in edited_sources(number, edits=[(there, new)]))


# The scripts, run.


@pytest.fixture(scope="module")
def workplace(notebook, tmp_path_factory):
    """A folder with the scripts and settings for eight steps of four rows, a checkpoint after
    each.
    """
    folder = tmp_path_factory.mktemp("more-machines")
    rows_of_pages(34).save_to_disk(str(folder / "rows"))
    noise(1).save(folder / "a.png")
    noise(2).save(folder / "b.png")
    tiny = PROFILES["tiny"]
    settings = {
        "model": tiny.base_model,
        "loader": {
            "model_kwargs": tiny.model_kwargs,
            "processor_kwargs": {"size": {"shortest_edge": 4096, "longest_edge": 4096}},
        },
        "adapters": [],
        "rows": str(folder / "rows"),
        "evaluation": {
            "queries": {"q": "query"},
            "corpus": {"a": str(folder / "a.png"), "b": str(folder / "b.png")},
            "relevant_docs": {"q": ["a"]},
        },
        "dims": [256, 16],
        "gather": True,
        "mini_batches": {"mini_batch_size": 4},
        "rows_per_step": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-4,
        "eval_steps": 100,
        "save_steps": 1,
        "save_total_limit": 2,
        "seed": 1,
    }
    for name in ("train", "check"):
        (folder / f"{name}.py").write_text(notebook[f"{name}_script"])
    for name, runs in (("alone", "alone"), ("settings", "runs")):
        (folder / f"{name}.json").write_text(
            json.dumps(settings | {"output_dir": str(folder / runs)})
        )
    (folder / "check.json").write_text(
        json.dumps(settings | {"output_dir": str(folder / "check"), "max_steps": 1})
    )
    return folder


def losses_of(folder: Path) -> list[float]:
    [run] = [path for path in folder.iterdir() if path.name != "trained"]
    history = json.loads(Path(last_checkpoint(run), "trainer_state.json").read_text())[
        "log_history"
    ]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def alone(workplace):
    """The losses of ``python train.py``, one process."""
    done = warm.run(["train.py", "alone.json"], env=ENVIRONMENT, cwd=workplace)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (workplace / "alone" / "trained" / "modules.json").exists()
    return losses_of(workplace / "alone")


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_rank_0_is_named_and_two_launchers_end_where_one_process_does(
    workplace, alone, capsys
):
    """The notebook's own cell kills rank 0. Then two launchers, one rank each, stand in for two
    machines and go on.
    """
    space = definitions("11", "command") | {
        "work": workplace,
        "environment": ENVIRONMENT,
        "psutil": psutil,
        "subprocess": subprocess,
    }
    [cell] = [
        source
        for source in edited_sources("11", edits=[('by_rank["1"].kill()', 'by_rank["0"].kill()')])
        if "by_rank" in source
    ]
    exec(compile(cell, "notebook 11, a rank dies", "exec"), space)
    said = capsys.readouterr().out
    assert (
        "exit status: 1 | processes left: 0" in said
        and "root cause: rank : 0; exitcode : -9" in said
    )
    assert len(losses_of(workplace / "runs")) < len(alone) == 8

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    options = [
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={endpoint}",
        "--local-addr=127.0.0.1",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", *options, "train.py", "settings.json"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    launchers = [
        subprocess.Popen(launch, cwd=workplace, env=ENVIRONMENT, **quiet) for _ in range(2)
    ]
    try:
        assert [launcher.wait(timeout=300) for launcher in launchers] == [0, 0]
    finally:
        for launcher in launchers:
            launcher.terminate()
            launcher.wait(timeout=60)
    assert losses_of(workplace / "runs") == pytest.approx(alone, rel=1e-3)


@pytest.mark.slow
@pytest.mark.long
def test_accelerate_launch_starts_two_ranks_too(workplace, alone):
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes=2",
        "--main_process_port=0",
    ]
    captured = {"capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(
        [*command, "check.py", "check.json"], cwd=workplace, env=ENVIRONMENT, **captured
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((workplace / "ranks2-gather1-rank1.json").read_text())
    assert found["losses"][0] == pytest.approx(alone[0], rel=1e-4)
    assert (
        json.loads((workplace / "ranks2-gather0-rank1.json").read_text())["losses"][0]
        < 0.99 * alone[0]
    )


# Encoding in parts


@pytest.fixture
def to_encode(notebook, tmp_path):
    """A folder with ``encode.py``, two parts of two and three small pages, and settings of which
    ``b`` is the page that kills its process.
    """
    (tmp_path / "encode.py").write_text(notebook["encode_script"])
    for name in ("parts", "vectors"):
        (tmp_path / name).mkdir()
    for part, names in (("0", "ab"), ("1", "cde")):
        files = [file_of(ord(name)) for name in names]
        table = pandas.DataFrame({"page_id": list(names), "path": files})
        table.to_parquet(tmp_path / "parts" / f"{part}.parquet")
    settings = {
        "model": str(ROOT / PROFILES["tiny"].base_model),
        "loader": {"processor_kwargs": {"size": {"shortest_edge": 4096, "longest_edge": 4096}}},
        "options": {"show_progress_bar": False},
        "made_from": {"model": "this one"},
        "parts": "parts",
        "vectors": "vectors",
        "deadly": file_of(ord("b")),
    }
    (tmp_path / "encoding.json").write_text(json.dumps(settings))
    return tmp_path


def encode(folder: Path, worker: int = 0, workers: int = 1) -> subprocess.CompletedProcess:
    command = [sys.executable, "encode.py", "encoding.json", str(worker), str(workers)]
    captured = {"capture_output": True, "text": True, "timeout": 600}
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, **captured)


def test_vectors_of_two_models_never_share_a_folder(to_encode):
    (to_encode / "vectors" / "made_from.json").write_text(json.dumps({"model": "another"}))
    done = encode(to_encode)
    assert done.returncode != 0 and "another model or other settings" in done.stderr
    assert not list((to_encode / "vectors").glob("*.parquet*"))


@pytest.mark.slow
@pytest.mark.long
def test_a_page_that_kills_every_process_is_set_aside_and_the_others_are_encoded_once(to_encode):
    done = encode(to_encode)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "2 parts encoded\n"
    vectors = to_encode / "vectors"
    assert (vectors / "set_aside.txt").read_text() == "b\n"
    found = [pandas.read_parquet(vectors / f"{part}.parquet") for part in "01"]
    assert [list(table["page_id"]) for table in found] == [["a"], ["c", "d", "e"]]
    assert all(len(vector) == 256 for table in found for vector in table["embedding"])
    assert not list(vectors.glob("*.partial"))

    written = {file: file.stat().st_mtime_ns for file in vectors.iterdir()}
    again = encode(to_encode, worker=1, workers=2)
    assert again.stdout == "0 parts encoded\n", again.stderr[-3000:]
    assert {file: file.stat().st_mtime_ns for file in vectors.iterdir()} == written
