"""The command that proves the GPU path: its receipt, its time limits, and all of it on a CPU."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from benchmarks import gpu_steps, on_gpu
from tools import curriculum
from vdr_helpers.gpu import describe_receipts, measured_runs, read_receipts, settings_table
from vdr_helpers.profiles import load_profile
from vdr_helpers.published import read_asset

ROOT = Path(__file__).resolve().parent.parent
RUN = {
    "trains": "all weights",
    "dtype": "bfloat16",
    "autocast": "bfloat16",
    "mini_batch_num_tokens": 5600,
    "rows": 64,
    "max_pixels": 360_000,
    "outcome": "ok",
    "peak_gib": 50.123456,
    "seconds_per_step": 3.0,
}


@pytest.fixture
def results(tmp_path):
    return on_gpu.Results(tmp_path / "receipts")


def test_a_line_is_written_at_once_with_four_digits(results):
    results.note("course", **RUN)
    results.note("lora", outcome="out of time", path=Path("a"))
    [course, lora] = results.read()
    assert course["peak_gib"] == 50.12
    assert course["max_pixels"] == 360_000
    assert lora == {"part": "lora", "outcome": "out of time", "path": "a"}
    assert results.read("course") == [course]


def test_the_receipt_replaces_a_row_and_tells_ratio_and_floor(results, tmp_path):
    results.note("machine", gpu={"name": "NVIDIA H200", "capability": [9, 0], "memory_gib": 139.8})
    results.note("machine", matrix_tflops=500.0)
    results.note("course", recipe="course", **RUN)
    published = RUN | {"mini_batch_num_tokens": None, "seconds_per_step": 30.0}
    results.note("published", recipe="published", **published)
    results.write_receipt(load_profile("rehearsal"))
    [receipt] = read_receipts(tmp_path)
    assert receipt["summary"]["published over course"] == 10
    cost = read_asset("gpu_memory.json")["operations"]
    step = 64 * (8 * (cost["language"] + cost["vision"]) + 4 * cost["query"])
    assert receipt["summary"]["floor, seconds"] == round(step / 500e12, 3)
    changed = [
        row for row in settings_table("bfloat16", [receipt]) if row["source"].startswith("measured")
    ]
    assert [(row["pages"], row["gib"]) for row in changed] == [(15, 51.12)]
    assert changed[0]["source"] == "measured on NVIDIA H200"
    said = "Measured on NVIDIA H200: 3.0 s a step of 64 rows (all weights, bfloat16), 50.1 GiB"
    assert describe_receipts([receipt]) == [f"{said}, 10.0 times faster than the published script."]
    receipt["summary"]["evaluation, seconds"] = 20
    assert measured_runs([receipt])["NVIDIA H200"]["minutes"] == (157 * 3 + 11 * 20) / 60


def test_a_shipped_receipt_names_its_gpu_in_readme_and_notebook_00(results, monkeypatch):
    """``python -m tools.curriculum`` writes both from what lies in ``assets/receipts``."""
    results.note("machine", gpu={"name": "NVIDIA H200", "capability": [9, 0], "memory_gib": 139.8})
    results.note("course", recipe="course", **RUN)
    results.write_receipt(load_profile("rehearsal"))
    receipts = read_receipts(results.receipt.parents[1])
    monkeypatch.setattr("vdr_helpers.gpu.read_receipts", lambda: receipts)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    readme, notebooks = curriculum.written(readme, {"00": notebook})
    said = "Measured on NVIDIA H200: 3.0 s a step of 64 rows (all weights, bfloat16), 50.1 GiB."
    assert said in readme
    assert sum(said in cell.source for cell in notebooks["00"].cells) == 1


def sleep_in_a_grandchild(results, seconds, file):
    code = f"import time; time.sleep({seconds}); open({str(file)!r}, 'w')"
    on_gpu.os.setsid()
    subprocess.run([sys.executable, "-c", code])


@pytest.mark.skipif(sys.platform != "linux", reason="the command needs Linux")
def test_a_part_without_time_is_ended_with_all_that_it_started(results, tmp_path):
    file = tmp_path / "too late"
    context = on_gpu.get_context("fork")
    process = context.Process(target=sleep_in_a_grandchild, args=(results, 2, file))
    process.start()
    assert not on_gpu.finish(results, "slow", process, 0.5)
    assert results.read("slow")[-1]["outcome"] == "out of time"
    time.sleep(2.5)
    assert not file.exists()


def test_running_out_of_memory_is_a_result(monkeypatch):
    import torch

    def full_gpu(*given, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setenv("VDR_PROFILE", "rehearsal-small")
    monkeypatch.setattr(gpu_steps, "build", full_gpu)
    monkeypatch.setattr(gpu_steps, "batch", lambda kind: [])
    run = gpu_steps.measure({"trains": "LoRA"}, None)
    assert (run["trains"], run["outcome"], run["peak_gib"]) == ("LoRA", "out of memory", None)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the command needs Linux")
def test_every_part_runs_on_a_cpu_with_small_weights(tmp_path):
    """The same path as on a GPU; a CPU's receipt replaces no row."""
    command = [sys.executable, "-m", "benchmarks.on_gpu", "--patience", "10"]
    command += ["--out", str(tmp_path / "receipts")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    [receipt] = read_receipts(tmp_path)
    outcomes = {
        line["part"]: line["outcome"] for line in receipt["lines"] if "waited_seconds" in line
    }
    assert outcomes == dict.fromkeys(["machine", "weights", "data", *outcomes], "ok")
    assert set(outcomes) == {part[0] for part in on_gpu.PARTS} | {"data"}
    lines = {line["part"]: line for line in receipt["lines"] if "outcome" not in line}
    assert lines["resume"]["steps"] == [1, 2, 3]
    losses = [run["losses"] for run in receipt["runs"] if "recipe" in run]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert all(
        line["relative_difference"] < 1e-4
        for line in receipt["lines"]
        if "relative_difference" in line
    )
    assert settings_table("bfloat16", [receipt]) == settings_table("bfloat16", [])
    assert json.dumps(receipt).count(str(tmp_path)) == 0


def test_an_own_receipt_changes_the_tables_of_appendix_a2(results):
    results.note("machine", gpu={"name": "NVIDIA H200", "capability": [9, 0], "memory_gib": 139.8})
    results.note("course", recipe="course", **RUN)
    results.note("encoding", evaluation_seconds=20.0)
    results.write_receipt(load_profile("rehearsal"))
    outputs = results.receipt.parents[1]
    notebook = nbformat.read(ROOT / "notebooks" / "a2_will_it_fit.ipynb", as_version=4)
    space = {"profile": dataclasses.replace(load_profile("tiny"), outputs=outputs)}
    for cell in notebook.cells[2:]:
        exercise = "exercise" in cell.metadata.get("tags", [])
        if cell.cell_type == "code" and not exercise and "ipywidgets" not in cell.source:
            exec(cell.source, space)
    fits = space["fits"]
    assert fits.loc["H200", "memory"] == fits.loc["H100", "memory"] == "measured on NVIDIA H200"
    assert fits.loc["H200", "minutes"] == "12, measured"  # (157 x 3 + 11 x 20) s
    assert fits.loc["H100", "minutes"].endswith("computed")
    assert fits.loc["L4", "memory"].startswith("computed")
