"""Measure training steps of the 2B architecture on this GPU, with random weights.

``VDR_PROFILE=rehearsal python -m tools.rehearsal --all 5600 361 --lora-fp16 2166`` downloads
nothing and writes a receipt to ``outputs/receipts``, which the setup cell reads
(:mod:`vdr_helpers.gpu`).
Memory and seconds follow from the widths of a model, not from what its weights say; scores mean
nothing. Only the course's own way of training is measured, not the published script's.
``VDR_PROFILE=rehearsal-small`` tries the same path on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import tempfile
import time
from dataclasses import replace

import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoProcessor, TrainerCallback

from benchmarks.recipe import build_trainer, contrastive_loss, load_to_train, matryoshka
from benchmarks.where import package_versions
from tiny_vdr.corpus import enlarge, plan_rows
from tiny_vdr.pages import draw_page
from vdr_helpers.cache import atomic_write
from vdr_helpers.gpu import GIB, compute_dtype, present_gpu, use_first_gpu, with_setting
from vdr_helpers.machine import with_random_weights
from vdr_helpers.pages import presize
from vdr_helpers.profiles import Profile, load_profile, outputs_folder
from vdr_helpers.published import read_asset

STEPS = 4


class Clock(TrainerCallback):
    """``seconds`` between the ends of two steps, so that waiting for pages counts."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [end - begin for begin, end in zip(self.ends[:-1], self.ends[1:], strict=True)]


def rows(profile: Profile) -> Dataset:
    """One batch of distinct rows (query, page, hard negative), its pages resized as in notebook
    02.
    """
    batch, scale = profile.per_device_train_batch_size, profile.corpus.get("mean_scale", 1.0)
    processor = AutoProcessor.from_pretrained(profile.base_model, **profile.processor_kwargs)
    families = max(20, math.ceil(batch / 4))

    def pages(planned) -> list:
        return [
            presize(enlarge(draw_page(row.page)[0], row.page.seed, scale), processor)
            for row in planned
        ]

    asked = [row for row in plan_rows(0, families, 85) if row.query][:batch]
    columns = {"query": [row.query for row in asked], "image": pages(asked)}
    return Dataset.from_dict(columns | {"negative_0": pages(plan_rows(1, families, 85)[:batch])})


def measure(profile: Profile, dataset: Dataset, cap_gib: float | None) -> dict:
    """Peak GiB that PyTorch reserves, and the median seconds of a step; running out is a result.

    ``cap_gib``: the most that PyTorch may reserve, to stand in for a smaller GPU.
    """
    cuda, clock, peak = torch.cuda.is_available(), Clock(), None
    gc.collect()
    if cuda:
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (cap_gib or total) / total))
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = load_to_train(profile)
            loss = matryoshka(profile, model, contrastive_loss(profile, model))
            data, parts = concatenate_datasets([dataset] * STEPS), {"callbacks": [clock]}
            build_trainer(profile, model, data, loss, folder, parts=parts).train()
    except torch.OutOfMemoryError:
        return {"outcome": "out of memory", "peak_gib": None, "seconds_per_step": None}
    if cuda:
        peak = round(torch.cuda.max_memory_reserved() / GIB, 2)
    return {
        "outcome": "ok",
        "peak_gib": peak,
        "seconds_per_step": round(statistics.median(clock.seconds), 3),
    }


def main(arguments: list[str] | None = None) -> None:
    """Take a receipt; it is written after each setting, so an interrupted run keeps what it has."""
    parser = argparse.ArgumentParser(prog="python -m tools.rehearsal", description=main.__doc__)
    for way in ("all", "lora", "lora-fp16"):
        said = f"token budgets to train {way} with (fp16: as a GPU without bfloat16 does)"
        parser.add_argument(
            f"--{way}", type=int, nargs="+", default=[], metavar="TOKENS", help=said
        )
    parser.add_argument("--cap-gib", type=float, help="the most that PyTorch may reserve")
    parser.add_argument("--batch", type=int, default=64, help="only receipts of 64 rows count")
    asked = vars(parser.parse_args(arguments))
    use_first_gpu()
    profile = load_profile()
    if not profile.random_weights:
        raise SystemExit("set VDR_PROFILE=rehearsal, or rehearsal-small on a CPU")
    profile = with_random_weights(profile)
    batch = asked["batch"]
    profile = replace(profile, per_device_train_batch_size=batch, mini_batch_size=batch)
    dataset, gpu = rows(profile), present_gpu()
    native = gpu.capability and compute_dtype(gpu.capability)
    model = read_asset("gpu_memory.json")["models"][str(profile.matryoshka_dims[0])]
    receipt = {"gpu": vars(gpu), "versions": package_versions(), "model": model, "runs": []}
    name = gpu.name.lower().replace(" ", "-").replace(",", "")
    path = outputs_folder() / "receipts" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for way in ("all", "lora", "lora_fp16"):
        autocast = "float16" if native and way == "lora_fp16" else native
        dtype = autocast or "float32"
        if way == "all" and dtype == "float16":
            dtype = "float32"  # the gradient scaler refuses 16-bit gradients
        trains = "all weights" if way == "all" else "LoRA"
        for tokens in asked[way]:
            run = {"trains": trains, "dtype": dtype, "mini_batch_num_tokens": tokens}
            fitted = with_setting(profile, run, autocast)
            run |= {"autocast": autocast, "rows": batch, "max_pixels": profile.max_pixels}
            run |= measure(fitted, dataset, asked["cap_gib"])
            receipt["runs"].append(run)
            atomic_write(path, json.dumps(receipt, indent=1) + "\n")
            print(run)
    print(f"receipt: {path.name} in {path.parent.name}")


if __name__ == "__main__":
    main()
