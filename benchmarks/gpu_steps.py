"""Parts of ``python -m benchmarks.on_gpu`` that train: seconds and memory of a step, gradients, a
run that is killed and resumed.
"""

from __future__ import annotations

import gc
import os
import signal
import statistics
import tempfile
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from datasets import concatenate_datasets
from sentence_transformers.util import batch_to_device
from transformers import TrainerCallback

from benchmarks.gpu_parts import Note, batch, patch_seconds, profile_at_hand, wait_for_gpu
from benchmarks.recipe import build_trainer, contrastive_loss, load_base, load_to_train, matryoshka
from vdr_helpers.gpu import GIB, compute_dtype, gpus, present_gpu, settings_table, with_setting
from vdr_helpers.published import read_asset
from vdr_helpers.training import last_checkpoint, use_matrix_product

STEPS = 3  # of every training run
SLOW = 0.02  # seconds for the patches of a page: a published step has four hundred such calls
GRADIENT_ROWS = 8


class Clock(TrainerCallback):
    """``seconds`` between the ends of two steps, so that waiting for pages counts."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        wait_for_gpu()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [end - begin for begin, end in zip(self.ends[:-1], self.ends[1:], strict=True)]


def build(setting: dict, autocast: str | None, rows, folder: str, callback, **changes):
    """The trainer of notebook 03 that takes :data:`STEPS` steps on the same ``rows``.

    ``setting``: a row of ``settings_table``, or one whose ``recipe`` is "published": one page per
    pass, and pages opened in the main process.
    """
    profile = with_setting(profile_at_hand(), setting, autocast)
    profile = replace(profile, per_device_train_batch_size=len(rows), mini_batch_size=len(rows))
    if setting.get("recipe") == "published":
        profile = replace(profile, mini_batch_size=1, dataloader_num_workers=0)
    model = load_to_train(profile)
    if setting.get("patches_by") == "convolution":
        del model[0].auto_model.visual.patch_embed.forward  # what load_to_train has set
    loss = matryoshka(profile, model, contrastive_loss(profile, model))
    changes = {"max_steps": STEPS, "logging_steps": 1} | changes
    parts, repeated = {"callbacks": [callback]}, concatenate_datasets([rows] * STEPS)
    return build_trainer(profile, model, repeated, loss, folder, parts=parts, **changes)


def measure(setting: dict, autocast: str | None, cap_gib: float | None = None) -> dict:
    """``setting`` with what a few steps took: peak GiB that PyTorch reserves, seconds, losses.

    ``cap_gib``: the most that PyTorch may reserve, to stand in for a smaller GPU. Running out of
    memory is a result.
    """
    cuda, clock = torch.cuda.is_available(), Clock()
    rows = batch("original" if setting.get("recipe") == "published" else "presized")
    max_pixels = profile_at_hand().max_pixels
    run = setting | {"autocast": autocast, "rows": len(rows), "max_pixels": max_pixels}
    gc.collect()
    if cuda:
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (cap_gib or total) / total))
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = build(setting, autocast, rows, folder, clock)
            trainer.train()
    except torch.OutOfMemoryError:
        return run | {"outcome": "out of memory", "peak_gib": None, "seconds_per_step": None}
    seconds = statistics.median(clock.seconds)
    peak = torch.cuda.max_memory_reserved() / GIB if cuda else None
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    run |= {"outcome": "ok", "peak_gib": peak, "seconds_per_step": seconds}
    return run | {"pages_per_second": 2 * len(rows) / seconds, "losses": losses}


def dtypes() -> tuple[str | None, str]:
    """What this machine computes in (``None`` on a CPU), and the dtype of weights that are all
    trained.
    """
    gpu = present_gpu()
    native = compute_dtype(gpu.capability) if gpu.capability else None
    return native, "bfloat16" if native == "bfloat16" else "float32"


def course(note: Note) -> None:
    """A step as notebook 03 trains."""
    native, dtype = dtypes()
    budget = profile_at_hand().mini_batch_num_tokens
    setting = {"trains": "all weights", "dtype": dtype, "mini_batch_num_tokens": budget}
    note(**measure({"recipe": "course"} | setting, native))


def published(note: Note) -> None:
    """A step of the published script; by the convolution, unless that alone would take all time."""
    native, dtype = dtypes()
    slow = patch_seconds(present_gpu())["convolution"] > SLOW
    setting = {"recipe": "published", "patches_by": "product" if slow else "convolution"}
    setting |= {"trains": "all weights", "dtype": dtype, "mini_batch_num_tokens": None}
    note(**measure(setting, native))


def lora(note: Note) -> None:
    """LoRA in float16 as on a T4, in no more memory than a T4 leaves to PyTorch."""
    native, _ = dtypes()
    facts, t4 = read_asset("gpu_memory.json"), gpus()["T4"]
    cap = t4["memory_gib"] - facts["cuda_gib"]
    chosen = {"trains": "LoRA", "dtype": "float16", "mini_batch_num_tokens": 2166}
    if native is None:
        chosen |= {"dtype": "float32", "mini_batch_num_tokens": 120}
    note(**measure(chosen, native and "float16", cap), cap_gib=cap)


def float32(note: Note) -> None:
    """All weights in float32 under float16 autocast, with the gradient scaler."""
    native, _ = dtypes()
    budget = profile_at_hand().mini_batch_num_tokens
    setting = {"trains": "all weights", "dtype": "float32", "mini_batch_num_tokens": budget}
    note(**measure(setting, native and "float16"))


def budgets(note: Note) -> None:
    """Peak memory of the table's rows for this GPU, the fewest pages and LoRA first."""
    native, _ = dtypes()
    if native is None:
        rows = [{"trains": "LoRA", "dtype": "float32", "mini_batch_num_tokens": 60}]
    else:
        table = settings_table(native, [])
        first = [row for row in table if row["pages"] in (1, 8)]
        rows = first + [row for row in table if row not in first]
    for row in rows:
        setting = {name: row[name] for name in ("trains", "dtype", "mini_batch_num_tokens")}
        note(**measure(setting, native))


def gradients(note: Note) -> None:
    """Relative difference of the gradients of both recipes on the same rows, float32 without TF32
    and in the compute dtype.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in dict.fromkeys(["float32", dtypes()[1]]):
        setting = {"trains": "all weights", "dtype": dtype, "mini_batch_num_tokens": None}
        profile = with_setting(profile_at_hand(), setting, None)
        model, budget = load_base(profile), profile_at_hand().mini_batch_num_tokens
        rows = batch("presized").select(range(GRADIENT_ROWS))
        columns = [model.preprocess(list(rows[name])) for name in rows.column_names]
        columns = [batch_to_device(column, model.device) for column in columns]

        def gradient(columns=columns, profile=profile, model=model, **cut) -> dict:
            model.zero_grad()
            loss = matryoshka(profile, model, contrastive_loss(profile, model, **cut))
            loss([dict(column) for column in columns], None).backward()
            weights = model.named_parameters()
            return {name: one.grad.clone() for name, one in weights if one.grad is not None}

        one_page = gradient(mini_batch_size=1)
        use_matrix_product(model)
        by_budget = gradient(mini_batch_size=GRADIENT_ROWS, mini_batch_num_tokens=budget)
        apart, size = 0.0, 0.0
        for name, expected in one_page.items():
            apart += (by_budget[name].double() - expected.double()).square().sum().item()
            size += expected.double().square().sum().item()
        note(dtype=dtype, relative_difference=(apart / size) ** 0.5, tensors=len(one_page))
        del model, one_page, by_budget
        gc.collect()


class Killed(TrainerCallback):
    """Ends its process without a word after the second step."""

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def train_with_checkpoints(folder: str, callback: TrainerCallback) -> list[int]:
    """Three steps with a checkpoint after each, from the last one there is; the steps logged."""
    native, dtype = dtypes()
    budget = profile_at_hand().mini_batch_num_tokens
    setting = {"trains": "all weights", "dtype": dtype, "mini_batch_num_tokens": budget}
    rows = batch("presized").select(range(GRADIENT_ROWS))
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    trainer = build(setting, native, rows, folder, callback, **saving)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return [entry["step"] for entry in trainer.state.log_history if "loss" in entry]


def resume(note: Note) -> None:
    """A run that is killed in its second step goes on from the checkpoint of its first."""
    with tempfile.TemporaryDirectory() as folder:
        process = get_context("fork").Process(
            target=train_with_checkpoints, args=(folder, Killed())
        )
        process.start()
        process.join()
        kept = Path(last_checkpoint(folder) or "no checkpoint").name
        note(exit_code=process.exitcode, kept=kept)
        if process.exitcode != -signal.SIGKILL or kept != "checkpoint-1":
            raise RuntimeError(f"found exit code {process.exitcode} and {kept}")
        note(steps=train_with_checkpoints(folder, Clock()))
