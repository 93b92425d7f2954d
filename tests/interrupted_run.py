"""Notebook 03 in processes that are killed: run by ``test_resume.py`` with one thread, prints one JSON line per kill.

``python interrupted_run.py SOURCE FOLDER``. Everything heavy is imported once; every run is a fork of this process, so that a kill
takes the run and nothing else.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from cells import fork, run_cells
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

from vdr_helpers import profiles

# Killed in a training step, between the weights and the optimizer of a checkpoint, or while the result is saved.
MOMENTS = {"in a step": ("training_step", 4), "in a checkpoint": ("_save_optimizer_and_scheduler", 3), "in the last save": None}


def die(*arguments, **settings) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Make this process kill itself at ``moment``."""
    if MOMENTS[moment] is None:
        save = SentenceTransformer.save_pretrained

        def half(model, path, **settings):
            if not path.endswith("finetuned.partial"):
                return save(model, path, **settings)
            (Path(path) / "modules.json").write_text("[]")
            die()

        SentenceTransformer.save_pretrained = half
        return
    name, step = MOMENTS[moment]
    original = getattr(SentenceTransformerTrainer, name)

    def deadly(trainer, *arguments, **settings):
        return (die if trainer.state.global_step == step else original)(trainer, *arguments, **settings)

    setattr(SentenceTransformerTrainer, name, deadly)


def run(outputs: Path, moment: str | None = None) -> None:
    """Notebook 03, killed at ``moment`` if there is one; leaves ``result.json``."""
    if moment:
        arm(moment)
    space = run_cells("03", outputs)
    history = space["log_history"]
    result = {
        "weights": hashlib.sha1(b"".join(w.detach().numpy().tobytes() for w in space["reloaded"].parameters())).hexdigest(),
        "scores": [entry for entry in history if "eval_vdr-eval-hard_cosine_ndcg@10" in entry][-1],
        "steps_logged": [entry["step"] for entry in history if "loss" in entry],
    }
    result["scores"] = {name: value for name, value in result["scores"].items() if "cosine" in name}
    (outputs / "result.json").write_text(json.dumps(result))


def main(source: str, folder: Path) -> None:
    profiles.PROFILES["tiny"] = dataclasses.replace(
        profiles.PROFILES["tiny"],
        corpus=None,
        dataset_name=source,
        train_rows=48,
        eval_rows=12,
        monitor_rows=12,
        num_train_epochs=1,
        per_device_train_batch_size=8,
        mini_batch_size=8,
    )
    prepared = folder / "prepared"
    fork(prepared, partial(run_cells, "02", prepared))
    for moment in [None, *MOMENTS]:
        outputs = folder / (moment or "undisturbed").replace(" ", "-")
        shutil.copytree(prepared, outputs)
        line = {"moment": moment, "killed": fork(outputs, partial(run, outputs, moment)) if moment else None}
        line["left"] = sorted(path.name for path in outputs.glob("tiny/checkpoints/*/checkpoint-*"))
        line["finetuned_before"] = (outputs / "tiny" / "finetuned").exists()
        line["status"] = fork(outputs, partial(run, outputs))
        line |= json.loads((outputs / "result.json").read_text()) if line["status"] == 0 else {}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
