"""Notebook 03 in processes that are killed: run by ``test_resume.py`` with one thread, prints one JSON line per kill.

``python interrupted_run.py SOURCE FOLDER``. Everything heavy is imported once; every run is a fork of this process, so that a kill
takes the run and nothing else.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import nbformat
from sentence_transformers import SentenceTransformerTrainer

from vdr_helpers import checkpoints, profiles

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "03_finetune.ipynb"
# Killed in a training step, between the weights and the optimizer of a checkpoint, or while the result is saved.
MOMENTS = {"in a step": ("training_step", 4), "in a checkpoint": ("_save_optimizer_and_scheduler", 3), "in the last save": None}


def die(*arguments, **settings) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Make this process kill itself at ``moment``."""
    if MOMENTS[moment] is None:
        checkpoints.save_model_whole = lambda model, folder: (Path(f"{folder}.partial").mkdir(), die())
        return
    name, step = MOMENTS[moment]
    original = getattr(SentenceTransformerTrainer, name)

    def deadly(trainer, *arguments, **settings):
        return (die if trainer.state.global_step == step else original)(trainer, *arguments, **settings)

    setattr(SentenceTransformerTrainer, name, deadly)


def run_cells(outputs: Path) -> None:
    """Every code cell of the notebook, in the namespace of ``__main__`` as in a kernel; leaves ``result.json``."""
    os.environ["VDR_OUTPUTS"] = str(outputs)
    space = vars(sys.modules["__main__"])
    space["display"] = lambda *shown: None
    with (outputs / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, str(NOTEBOOK), "exec"), space)
    history = space["trainer"].state.log_history
    result = {
        "weights": hashlib.sha1(b"".join(w.detach().numpy().tobytes() for w in space["model"].parameters())).hexdigest(),
        "scores": [entry for entry in history if "eval_vdr-eval-hard_cosine_ndcg@10" in entry][-1],
        "steps_logged": [entry["step"] for entry in history if "loss" in entry],
    }
    result["scores"] = {name: value for name, value in result["scores"].items() if "cosine" in name}
    (outputs / "result.json").write_text(json.dumps(result))


def fork(outputs: Path, moment: str | None = None) -> int:
    """Run the cells in a fork of this process; returns its exit status, negative when a signal ended it."""
    outputs.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if moment:
                arm(moment)
            run_cells(outputs)
            status = 0
        except BaseException:
            (outputs / "log.txt").open("a").write(traceback.format_exc())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(source: str, folder: Path) -> None:
    profiles.PROFILES["tiny"] = dataclasses.replace(
        profiles.PROFILES["tiny"],
        dataset_folder=source,
        train_rows=48,
        eval_rows=12,
        monitor_rows=12,
        num_train_epochs=1,
        per_device_train_batch_size=8,
        mini_batch_size=8,
    )
    for moment in [None, *MOMENTS]:
        outputs = folder / (moment or "undisturbed").replace(" ", "-")
        line = {"moment": moment, "killed": fork(outputs, moment) if moment else None}
        line["left"] = sorted(path.name for path in outputs.glob("tiny/checkpoints/*/checkpoint-*"))
        line["finetuned_before"] = (outputs / "tiny" / "finetuned").exists()
        line["status"] = fork(outputs)
        line |= json.loads((outputs / "result.json").read_text()) if line["status"] == 0 else {}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
