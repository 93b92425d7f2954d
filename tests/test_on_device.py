"""``full`` on stand-ins and on a device that is not the CPU: every cell runs, on the device, and
keeps no more there than it needs.

One run of Part I and the appendices as an A100 would run them; as a T4 would, and Part II, in
``make test-all``. Not notebook 11: its subject is other processes, and they do not know a device
that was made in this one.
"""

import json
import math
import os
from pathlib import Path

import pytest
import warm
from cells import NOTEBOOKS, edited_sources
from on_device import run_course
from safetensors import safe_open
from stand_ins import variables

from vdr_helpers.profiles import PROFILES

pytestmark = pytest.mark.slow

PART_1 = sorted(path.name[:2] for path in NOTEBOOKS.glob("[0a][0-7]_*.ipynb"))
PART_2 = ["08", "09", "10", "12"]
WITHOUT_A_MODEL = {"02", "a2"}  # the first loads a processor only, the second adds up numbers


@pytest.fixture(scope="module")
def course(stand_ins, tmp_path_factory):
    """``(outputs folder, rows)``: Part I as an A100 runs it."""
    outputs = tmp_path_factory.mktemp("device")
    return outputs, run_course(PART_1, outputs, "A100", **variables(stand_ins, "24:6"))


@pytest.fixture(scope="module")
def rows(course):
    return course[1]


@pytest.fixture(scope="module")
def weights(stand_ins):
    """Bytes of the model's weights in bfloat16."""
    with safe_open(stand_ins["model"] / "model.safetensors", "pt") as file:
        return 2 * sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def assert_every_cell_ran(rows: list[dict], numbers: list[str]) -> None:
    for number in numbers:
        ran = [row for row in rows if row["notebook"] == number]
        failed = [
            f"notebook {number}, cell {row['cell']}: {row['error']}" for row in ran if row["error"]
        ]
        assert not failed, failed[0]
        assert len(ran) == len(edited_sources(number))


@pytest.mark.parametrize("number", PART_1)
def test_every_cell_runs_on_a_device_that_is_not_the_cpu(rows, number):
    assert_every_cell_ran(rows, [number])


@pytest.mark.parametrize("number", sorted(set(PART_1) - WITHOUT_A_MODEL))
def test_the_model_is_on_the_device(rows, weights, number):
    """Where nothing lay there, nothing was proven."""
    assert max(row["peak"] for row in rows if row["notebook"] == number) >= weights


def beyond(rows: list[dict], what: str, limit: float) -> list[str]:
    """The cells that keep, or need at their peak, more than ``limit`` bytes."""
    return [
        f"{row['notebook']}, code cell {row['cell']}: {row[what] / limit:.2f}"
        for row in rows
        if row[what] > limit
    ]


def test_a_cell_that_keeps_too_much_is_named():
    rows = [{"notebook": "03", "cell": 4, "kept": 150}, {"notebook": "03", "cell": 5, "kept": 100}]
    assert beyond(rows, "kept", 100) == ["03, code cell 4: 1.50"]


def test_training_leaves_weights_and_moments(rows, weights):
    """Adam keeps two numbers a weight, in the format of the weights."""
    [after] = [
        row["kept"] for row in rows if row["notebook"] == "03" and "trainer.train(" in row["source"]
    ]
    assert after == pytest.approx(3 * weights, rel=0.05)


def test_training_needs_weights_gradients_moments_and_a_batch(rows, weights):
    trains = [row for row in rows if row["notebook"] in ("03", "a1")]
    assert beyond(trains, "peak", 5 * weights) == []


@pytest.mark.parametrize("number", sorted(set(PART_1) - {"03"}))
def test_one_model_at_a_time_is_kept(rows, weights, number):
    assert beyond([row for row in rows if row["notebook"] == number], "kept", 1.5 * weights) == []


def test_the_published_settings_were_used(course):
    """The widths are the published ones, and nothing published names a folder of this machine."""
    outputs, _ = course
    [settings] = outputs.glob("full/published*/config_sentence_transformers.json")
    assert json.loads(settings.read_text())["truncate_dim"] == PROFILES["full"].truncate_dim
    texts = [file for file in settings.parent.rglob("*") if file.suffix in (".json", ".md")]
    private = (str(outputs.parent), str(Path.home()))
    assert not [file.name for file in texts if any(part in file.read_text() for part in private)]


@pytest.mark.long
def test_part_1_as_a_t4_runs_it(stand_ins, tmp_path):
    """LoRA in float16: gradients are scaled, adapters are merged."""
    rows = run_course(PART_1, tmp_path, "T4", **variables(stand_ins, "24:6"))
    assert_every_cell_ran(rows, PART_1)


@pytest.mark.long
def test_training_in_float32_with_scaled_gradients(stand_ins, tmp_path):
    numbers = ["02", "03", "a1"]
    rows = run_course(numbers, tmp_path, "RTX 8000", **variables(stand_ins, "24:6"))
    assert_every_cell_ran(rows, numbers)


@pytest.mark.long
def test_part_2(stand_ins, pdf_files, tmp_path):
    """Six small PDF files of six pages; the twin of the vision-language model writes the
    queries.
    """
    own = {"VDR_DOCUMENTS": str(pdf_files), "VDR_QUERY_MODEL": str(stand_ins["writer"])}
    rows = run_course(["02", *PART_2], tmp_path, "A100", **variables(stand_ins, "24:6"), **own)
    assert_every_cell_ran(rows, PART_2)


CHECKS = """
import torch
import sentence_transformers
from off_cpu import NAME, insert_device

device = insert_device()
there, here = torch.ones(3, 4).to(NAME), torch.ones(3, 4)


def refused(work):
    try:
        work()
    except (RuntimeError, TypeError):
        return True
    return False


assert there.device.type == NAME and (there * 2).device == there.device and not there.is_cpu
assert there.cpu().device.type == "cpu" and there.to("cpu").numpy().shape == (3, 4)
assert torch.zeros(2, device=NAME).device.type == NAME and torch.zeros_like(there).device.type == NAME
assert refused(lambda: there + here) and refused(lambda: there @ here.T) and refused(lambda: torch.cat([there, here]))
assert refused(lambda: there.numpy()) and refused(lambda: here[torch.tensor([0]).to(NAME)])
assert refused(lambda: there[torch.arange(3), torch.tensor([0, 1, 2]).to(NAME)] - torch.arange(3))
assert refused(lambda: torch.nn.functional.cross_entropy(there, torch.arange(3)))
assert not refused(lambda: there * torch.tensor(2.0)) and not refused(lambda: there[torch.tensor([0, 1])])
assert not refused(lambda: here.copy_(there))

layer = torch.nn.Linear(4, 2).to(NAME)
layer(there).sum().backward()
assert layer.weight.grad.device.type == NAME
optimizer = torch.optim.AdamW(layer.parameters())
optimizer.step()
assert optimizer.state[layer.weight]["exp_avg"].device.type == NAME

before = device.bytes_now
large = torch.ones(1000, 1000, device=NAME)
assert device.bytes_now - before == 4_000_000
copy = large.detach().clone()
assert device.bytes_now - before == 8_000_000
del large, copy
assert device.bytes_now == before and device.bytes_peak >= before + 8_000_000
"""


def test_the_device_refuses_what_a_gpu_refuses_and_counts_its_bytes():
    run = warm.run(["-c", CHECKS], env=os.environ, cwd=Path(__file__).parent)
    assert run.returncode == 0, run.stderr[-2000:]
