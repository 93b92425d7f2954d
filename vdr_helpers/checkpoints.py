"""Checkpoints that survive a killed kernel: find the last whole one, and save a model whole or not at all (notebook 03)."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from vdr_helpers.batches import page_keys
from vdr_helpers.files import file_sizes
from vdr_helpers.stamps import STAMP, write_stamp

# Arguments that change what is shown, kept or waited for, but no number of the result; all others belong to the run.
NOT_THE_RESULT = ("output_dir", "run_name", "report_to", "project", "disable_tqdm", "push_to_hub", "do_eval", "use_cpu")
NOT_THE_RESULT += ("logging_", "log_", "eval_", "save_", "hub_", "dataloader_", "per_device_eval_", "trackio_")
MINI_BATCHES = ("mini_batch_size", "mini_batch_num_tokens")  # how a batch is cut: the gradient does not depend on it


def run_settings(trainer, **more) -> dict:
    """What decides a run's result, read from the trainer that is about to start: arguments, loss, rows, trained weights; and ``more``.

    Pages count by content, so that the same rows prepared again are the same run. Raises ``ValueError`` as
    :func:`vdr_helpers.batches.page_keys` does.
    """
    loss, model = trainer.loss, trainer.model
    losses = {
        name: getattr(part, "get_config_dict", dict)() for name, part in (("outer", loss), ("inner", getattr(loss, "loss", None)))
    }
    rows = page_keys(trainer.train_dataset).to_dict()
    return more | {
        "arguments": {name: value for name, value in trainer.args.to_dict().items() if not name.startswith(NOT_THE_RESULT)},
        "loss": {name: {key: value for key, value in found.items() if key not in MINI_BATCHES} for name, found in losses.items()},
        "kind of loss": type(loss).__name__,
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "trained weights": [
            [name, str(weight.dtype), *weight.shape] for name, weight in model.named_parameters() if weight.requires_grad
        ],
    }


def run_folder(root: str | Path, trainer, **more) -> Path:
    """``root/<key>``: one folder per :func:`run_settings`, so that a changed run never resumes another one's checkpoints.

    ``more``: what the trainer does not know, such as a key of the base model's weights; anything that ``json`` can write. Prints a line
    when ``root`` holds checkpoints of other runs, because each can be larger than the model.
    """

    def by_name(value) -> str:  # a function's own text holds its address, which is another one in every process
        return getattr(value, "__qualname__", None) or str(value)

    key = hashlib.sha256(json.dumps(run_settings(trainer, **more), sort_keys=True, default=by_name).encode()).hexdigest()[:12]
    folder = Path(root) / key
    others = [path for path in Path(root).glob("*/checkpoint-*") if path.parent != folder]
    if others:
        size = sum(file.stat().st_size for path in others for file in path.rglob("*") if file.is_file()) / 1e9
        print(
            f"checkpoints of other, unfinished runs lie in {Path(root).name}/ ({size:.1f} GB): delete what you do not want back"
        )
    return folder


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


def save_model_whole(model, folder: str | Path, made_from: dict) -> None:
    """``save_pretrained`` beside the target, then move: ``folder`` holds the whole old model or the whole new one, never a half.

    ``made_from``: the settings that the model came from (``vdr_helpers.stamps``), kept with it and with the length of every file.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), create_model_card=False)
    write_stamp(partial, made_from | {"files": file_sizes(partial, STAMP)})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
