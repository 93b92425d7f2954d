"""Notebook 03 in processes that are killed: run by ``test_resume.py`` with one thread, prints one
JSON line per run.

``python interrupted_run.py SOURCE FOLDER``. One run is left in peace. Another is killed at every
one of :data:`MOMENTS`, each time in the process that goes on from the kill before, until one comes
to the end. Every run is a fork of this process, so that a kill takes the run and nothing else.
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
from vdr_helpers.cache import damage

# Killed between the weights and the optimizer of a checkpoint, in a training step, or while the
# result is saved.
MOMENTS = {
    "in a checkpoint": ("_save_optimizer_and_scheduler", 3),
    "in a step": ("training_step", 4),
    "in the last save": None,
}


def die(*arguments, **settings) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Make this process kill itself at ``moment``; called after :func:`note_steps`, so that a step
    that is not done is not noted.
    """
    if MOMENTS[moment] is None:
        save = SentenceTransformer.save_pretrained

        def half(model, path, **settings):
            if not (Path(path).name.startswith("tuned-") and path.endswith(".partial")):
                return save(model, path, **settings)
            (Path(path) / "modules.json").write_text("[]")
            die()

        SentenceTransformer.save_pretrained = half
        return
    name, step = MOMENTS[moment]
    original = getattr(SentenceTransformerTrainer, name)

    def deadly(trainer, *arguments, **settings):
        return (die if trainer.state.global_step == step else original)(
            trainer, *arguments, **settings
        )

    setattr(SentenceTransformerTrainer, name, deadly)


def note_steps(file: Path) -> None:
    """Write the number of every training step that this process begins into ``file``, a line
    each.
    """
    original = SentenceTransformerTrainer.training_step

    def noted(trainer, *arguments, **settings):
        with file.open("a") as lines:
            print(trainer.state.global_step + 1, file=lines)
        return original(trainer, *arguments, **settings)

    SentenceTransformerTrainer.training_step = noted


def run(outputs: Path, steps: Path, moment: str | None = None) -> None:
    """Notebook 03, killed at ``moment`` if there is one; leaves ``result.json`` in its outputs, and
    the steps that it began.
    """
    steps.touch()
    note_steps(steps)
    if moment:
        arm(moment)
    space = run_cells("03", outputs)
    history = space["log_history"]
    result = {
        "weights": hashlib.sha1(
            b"".join(w.detach().numpy().tobytes() for w in space["reloaded"].parameters())
        ).hexdigest(),
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
        train_rows=24,
        eval_rows=4,
        monitor_rows=4,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        mini_batch_size=4,
    )
    prepared, killed = folder / "undisturbed", folder / "killed"
    fork(prepared, partial(run_cells, "02", prepared))
    shutil.copytree(prepared, killed)
    runs = (
        {"undisturbed": (prepared, None)}
        | {moment: (killed, moment) for moment in MOMENTS}
        | {"to the end": (killed, None)}
    )
    for name, (outputs, moment) in runs.items():
        steps = folder / f"steps {name}"
        line = {"run": name, "status": fork(outputs, partial(run, outputs, steps, moment))}
        line["steps"] = [int(step) for step in steps.read_text().split()]
        line["left"] = sorted(path.name for path in outputs.glob("tiny/checkpoints-*/checkpoint-*"))
        line["finetuned"] = any(damage(path) == "" for path in outputs.glob("tiny/tuned-*"))
        line |= json.loads((outputs / "result.json").read_text()) if line["status"] == 0 else {}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
