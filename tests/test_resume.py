"""A killed run goes on from its last whole checkpoint and ends where an undisturbed one ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm
from sentence_transformers import SentenceTransformerTrainingArguments

from vdr_helpers import training
from vdr_helpers.cache import settings_key

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def runs(source, tmp_path_factory):
    """What ``interrupted_run.py`` prints, by the name of the run."""
    folder = tmp_path_factory.mktemp("runs")
    # a forked thread pool would hang
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("VDR_PROFILE", None)
    done = warm.run(
        [str(ROOT / "tests" / "interrupted_run.py"), str(source), str(folder)],
        env=environment,
        cwd=ROOT,
    )
    logs = "\n".join(log.read_text()[-2000:] for log in folder.glob("*/log.txt"))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    lines = {line["run"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert lines["undisturbed"]["status"] == lines["to the end"]["status"] == 0, logs
    return lines


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

# what each process does: the first is killed in the checkpoint of step 3, so the second goes on
# from that of step 2
STEPS = {
    "undisturbed": [1, 2, 3, 4, 5, 6],
    "in a checkpoint": [1, 2, 3],
    "in a step": [3, 4],
    "in the last save": [5, 6],
    "to the end": [],
}


@needs_fork
@pytest.mark.parametrize("moment", ["in a checkpoint", "in a step", "in the last save"])
def test_a_kill_leaves_a_checkpoint_and_never_half_a_model(runs, moment):
    killed = runs[moment]
    assert killed["status"] == -9
    assert killed["left"], "there is a checkpoint to go on from"
    assert not killed["finetuned"], "half a model is never taken for a whole one"


@needs_fork
@pytest.mark.parametrize("name", STEPS)
def test_a_run_goes_on_from_the_last_whole_checkpoint(runs, name):
    assert runs[name]["steps"] == STEPS[name]


@needs_fork
def test_a_run_that_was_killed_at_every_moment_ends_like_an_undisturbed_one(runs):
    killed, undisturbed = runs["to the end"], runs["undisturbed"]
    assert undisturbed["steps_logged"] == killed["steps_logged"] == [1, 2, 3, 4, 5, 6]
    assert killed["weights"] == undisturbed["weights"]
    assert killed["scores"] == undisturbed["scores"]
    assert killed["finetuned"] and undisturbed["finetuned"]


def write_checkpoint(folder, step, state=True):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    if state:
        (checkpoint / "trainer_state.json").write_text(
            json.dumps({"global_step": step}) if state is True else state
        )
    return str(checkpoint)


def test_the_last_whole_checkpoint_is_chosen_by_number(tmp_path):
    assert training.last_checkpoint(tmp_path / "none") is None
    assert training.last_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 9)
    whole = write_checkpoint(tmp_path, 10)
    write_checkpoint(tmp_path, 11, state=False)  # killed before the state was written
    write_checkpoint(tmp_path, 12, state='{"global_st')  # killed while it was written
    (tmp_path / "checkpoint-old").mkdir()
    assert training.last_checkpoint(tmp_path) == whole


@pytest.fixture
def start(random_model, tmp_path):
    """``start(rows=..., inner=..., dims=..., **arguments)``: a trainer as notebook 03 builds it,
    about to train.
    """
    from datasets import Dataset
    from PIL import Image
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MatryoshkaLoss,
    )

    folder = tmp_path / "run"
    random_model.model_card_data.generate_widget_examples = False

    def build(shades=(10, 20, 30), dims=(256, 8), inner=None, wrapped=True, **arguments):
        pages = [str(tmp_path / f"{shade}.png") for shade in shades]
        for page, shade in zip(pages, shades, strict=True):
            Image.new("RGB", (64, 64), (shade, 0, 0)).save(page)
        rows = Dataset.from_dict({"query": [f"shade {shade}" for shade in shades], "image": pages})
        loss = CachedMultipleNegativesRankingLoss(random_model, **(inner or {}))
        loss = MatryoshkaLoss(random_model, loss, matryoshka_dims=list(dims)) if wrapped else loss
        settings = {
            "output_dir": str(folder),
            "learning_rate": 1e-3,
            "batch_sampler": "no_duplicates",
            "report_to": "none",
        } | arguments
        args = SentenceTransformerTrainingArguments(use_cpu=True, **settings)
        return SentenceTransformerTrainer(
            model=random_model, args=args, train_dataset=rows, loss=loss
        )

    return build


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 2e-3},
        {"weight_decay": 0.1},
        {"seed": 1},
        {"bf16": True},
        {"dims": (256, 16)},
        {"inner": {"scale": 10.0}},
        {"wrapped": False},
        {"shades": (10, 20, 31)},
        {"weights": 1e-3},
    ],
    ids=str,
)
def test_a_changed_run_has_another_folder(start, tmp_path, change):
    usual = folder_of(start(), tmp_path)
    changed = start(**{name: value for name, value in change.items() if name != "weights"})
    if "weights" in change:  # another base
        with torch.no_grad():
            next(changed.model.parameters()).view(-1)[0] += change["weights"]
    assert folder_of(changed, tmp_path) != usual


def folder_of(trainer, root):
    """The folder that :func:`training.resume_point` gives to a run."""
    training.resume_point(trainer, root)
    return Path(trainer.args.output_dir)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"logging_steps": 7},
        {"eval_on_start": True},
        {"output_dir": "elsewhere"},
        {"inner": {"mini_batch_size": 1}},
    ],
    ids=str,
)
def test_a_run_that_only_looks_or_waits_differently_goes_on(start, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(start(**change), tmp_path)
    assert folder.parent == tmp_path
    assert folder == folder_of(start(), tmp_path)


def test_a_checkpoint_of_this_run_is_found_and_one_of_another_run_is_not(start, tmp_path):
    assert training.resume_point(start(), tmp_path) is None
    checkpoint = write_checkpoint(folder_of(start(), tmp_path), 3)
    assert training.resume_point(start(), tmp_path) == checkpoint
    assert training.resume_point(start(seed=5), tmp_path) is None


def key_of_a_run() -> str:
    """The key of training arguments, as :func:`training.run_settings` reads them."""
    args = SentenceTransformerTrainingArguments(
        "run", use_cpu=True, report_to="none", batch_sampler="no_duplicates"
    )
    kept = {
        name: value
        for name, value in args.to_dict().items()
        if not name.startswith(training.NOT_THE_RESULT)
    }
    return settings_key(kept)


def test_a_run_is_the_same_in_another_process():
    """Python's hashes have another seed in every process; the key does not depend on them."""
    program = "from test_resume import key_of_a_run; print(key_of_a_run())"
    environment = os.environ | {
        "PYTHONHASHSEED": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    there = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.split()[-1] == key_of_a_run()
