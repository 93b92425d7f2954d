"""A killed run goes on from its last whole checkpoint and ends where an undisturbed one ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vdr_helpers import checkpoints

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def runs(source, tmp_path_factory):
    """One JSON line per run: undisturbed, and killed at three moments and run again."""
    folder = tmp_path_factory.mktemp("runs")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # a forked thread pool would hang
    environment.pop("VDR_PROFILE", None)
    script = [sys.executable, str(ROOT / "tests" / "interrupted_run.py"), str(source), str(folder)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, cwd=ROOT)
    logs = "\n".join(log.read_text()[-2000:] for log in folder.glob("*/log.txt"))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    lines = {line["moment"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert all(line["status"] == 0 for line in lines.values()), logs
    return lines


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("moment", ["in a step", "in a checkpoint", "in the last save"])
def test_a_killed_run_ends_like_an_undisturbed_one(runs, moment):
    killed, undisturbed = runs[moment], runs[None]
    assert killed["killed"] == -9
    assert killed["left"], "there was a checkpoint to go on from"
    assert not killed["finetuned_before"], "half a model is never taken for a whole one"
    assert undisturbed["steps_logged"] == killed["steps_logged"] == [1, 2, 3, 4, 5, 6]
    assert killed["weights"] == undisturbed["weights"]
    assert killed["scores"] == undisturbed["scores"]


def write_checkpoint(folder, step, state=True, weights=True):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    if weights:
        (checkpoint / "model.safetensors").write_bytes(b"weights")
    if state:
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}) if state is True else state)
    return str(checkpoint)


def test_the_last_whole_checkpoint_is_chosen_by_number(tmp_path):
    assert checkpoints.last_checkpoint(tmp_path / "none") is None
    assert checkpoints.last_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 9)
    whole = write_checkpoint(tmp_path, 10)
    write_checkpoint(tmp_path, 11, state=False)  # killed before the state was written
    write_checkpoint(tmp_path, 12, state='{"global_st')  # killed while it was written
    write_checkpoint(tmp_path, 13, weights=False)
    (tmp_path / "checkpoint-old").mkdir()
    assert checkpoints.last_checkpoint(tmp_path) == whole


def test_other_settings_have_another_folder(tmp_path):
    one = checkpoints.run_folder(tmp_path, learning_rate=1e-3, seed=1)
    assert one.parent == tmp_path
    assert one == checkpoints.run_folder(tmp_path, seed=1, learning_rate=1e-3)
    assert one != checkpoints.run_folder(tmp_path, seed=2, learning_rate=1e-3)


def test_a_model_is_saved_whole_or_not_at_all(tmp_path):
    class Model:
        def __init__(self, words):
            self.words = words

        def save_pretrained(self, folder, create_model_card):
            Path(folder).mkdir()
            for i, word in enumerate(self.words):
                if word is None:
                    raise OSError("no space left")
                Path(folder, str(i)).write_text(word)

    folder = tmp_path / "model"
    checkpoints.save_model_whole(Model(["old", "old"]), folder)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save_model_whole(Model(["new", None]), folder)
    assert [(folder / name).read_text() for name in "01"] == ["old", "old"]
    checkpoints.save_model_whole(Model(["new"]), folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "model"]
