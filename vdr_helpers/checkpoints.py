"""Checkpoints that survive a killed kernel: find the last whole one, and save a model whole or not at all (notebook 03)."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path


def run_folder(root: str | Path, **settings) -> Path:
    """``root/<key>``: one folder per combination of settings, so that a run with other settings never resumes this one's checkpoints.

    ``settings``: whatever decides the run (model, data fingerprint, batch, learning rate, seed); anything that ``json`` can write.
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return Path(root) / key


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end. The Trainer writes ``trainer_state.json`` last, so that file must be readable."""
    try:
        step = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError):
        return False
    return checkpoint.name == f"checkpoint-{step}" and any(checkpoint.rglob("*.safetensors"))


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint in ``folder``, or ``None``: what ``trainer.train(resume_from_checkpoint=...)`` is given.

    A half-written checkpoint (a killed kernel, a full disk) is passed over; the Trainer writes over it when it gets there again.
    """
    numbered = [
        (int(path.name.rpartition("-")[2]), path) for path in Path(folder).glob("checkpoint-*") if path.name[11:].isdigit()
    ]
    return next((str(path) for _, path in sorted(numbered, reverse=True) if is_whole(path)), None)


def save_model_whole(model, folder: str | Path) -> None:
    """``save_pretrained`` beside the target, then move: ``folder`` holds the whole old model or the whole new one, never a half."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), create_model_card=False)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
