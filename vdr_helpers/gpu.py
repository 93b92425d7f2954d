"""What the GPU at hand can train: the setup cell looks it up here and fits the profile to it.

``assets/gpu_memory.json`` holds the settings and the GiB that each needs, computed by
``python -m tools.gpu_memory``; notebook a2 does the sum. A receipt in ``assets/receipts`` or
``outputs/receipts``, written by ``python -m benchmarks.on_gpu``, replaces the computed figure of
its row.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.published import read_asset

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
AMPERE = (8, 0)  # the first compute capability with bfloat16 units
VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARED_MEMORY = Path("/dev/shm")  # where worker processes put their batches; not on macOS, Windows
PREFETCH = 2  # batches that each worker process holds ready, the default of PyTorch's DataLoader
MARGIN = 0.9  # share of the memory that a computed figure may fill: an estimate can be a tenth off
FEWEST_TOKENS = 200  # below this a page of the published size passes alone: nothing is left to cut
SETTING = ("trains", "dtype", "mini_batch_num_tokens")  # what a receipt's run and a row share
RECEIPT = {"gpu", "versions", "model", "runs"}


@dataclass(frozen=True)
class Gpu:
    """A GPU, or the CPU: then ``capability`` and ``memory_gib`` are ``None``."""

    name: str
    capability: tuple[int, int] | None = None
    memory_gib: float | None = None


def present_gpu() -> Gpu:
    """The first CUDA GPU of this machine, ``Gpu("Apple GPU")`` or ``Gpu("CPU, 2 cores")``."""
    import torch

    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return Gpu(found.name, (found.major, found.minor), found.total_memory / GIB)
    if torch.backends.mps.is_available():
        return Gpu("Apple GPU")
    return Gpu(f"CPU, {os.cpu_count()} cores")


def use_first_gpu() -> None:
    """Hide all GPUs but the first from this process.

    The trainer would split every batch over them, which cuts patches from their pages. Does nothing
    under ``torchrun`` or ``accelerate``, which give each process its GPU. Raises ``RuntimeError``
    where CUDA has started with several.
    """
    import torch

    count = torch.cuda.device_count()
    if "LOCAL_RANK" in os.environ or count < 2:
        return
    if not torch.cuda.is_initialized():
        os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").split(",")[0].strip()
    if torch.cuda.device_count() > 1:
        raise RuntimeError(
            f"found {count} GPUs in use, expected 1: restart the kernel and run this cell first"
        )
    print(f"{count} GPUs: the course uses the first ({VISIBLE}={os.environ[VISIBLE]})")


def gpus() -> dict[str, dict]:
    """``assets/gpus.toml``: memory, compute capability and data-sheet speed of some GPUs."""
    return tomllib.loads((assets_folder() / "gpus.toml").read_text(encoding="utf-8"))


def compute_dtype(capability: Iterable[int]) -> str:
    """The 16-bit dtype in which GPUs of this CUDA compute capability are fast.

    PyTorch's own ``is_bf16_supported`` says yes on a T4 as well, where bfloat16 is emulated.
    """
    return "bfloat16" if tuple(capability) >= AMPERE else "float16"


def read_receipts(outputs: Path | None = None) -> list[dict]:
    """The shipped receipts, then those in ``outputs``. Raises ``ValueError`` for a file that is not
    one.
    """
    found = []
    folders = [assets_folder()] + ([outputs] if outputs else [])
    for folder in folders:
        for path in sorted((folder / "receipts").glob("*.json")):
            try:
                receipt = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name} is not JSON: delete it or measure again") from error
            missing = RECEIPT - set(receipt)
            if missing:
                raise ValueError(
                    f"{path.name} has no {sorted(missing)}: delete it or measure again"
                )
            found.append(receipt)
    return found


def measured_runs(receipts: list[dict] | None = None) -> dict[str, dict]:
    """What receipts of the 2B model say of notebook 03's step, by the GPU's name: its run, with
    ``minutes`` of the published training (157 steps, eleven evaluations) and ``times_faster`` than
    the published script's step; each is ``None`` where it was not measured.
    """
    facts, found = read_asset("gpu_memory.json"), {}
    for receipt in read_receipts() if receipts is None else receipts:
        if receipt["model"]["parameters"] != facts["models"]["2048"]["parameters"]:
            continue
        summary = receipt.get("summary", {})
        for run in receipt["runs"]:
            if run.get("recipe") == "course" and run["outcome"] == "ok":
                minutes, evaluation = None, summary.get("evaluation, seconds")
                if evaluation:
                    minutes = (157 * run["seconds_per_step"] + 11 * evaluation) / 60
                more = {"minutes": minutes, "times_faster": summary.get("published over course")}
                found[receipt["gpu"]["name"]] = run | more
    return found


def describe_receipts(receipts: list[dict] | None = None) -> list[str]:
    """A sentence for each GPU of :func:`measured_runs`, or one that says that there is none."""
    sentences = []
    for name, run in measured_runs(receipts).items():
        said = f"Measured on {name}: {run['seconds_per_step']:.1f} s a step of {run['rows']} rows"
        said += f" ({run['trains']}, {run['dtype']}), {run['peak_gib']:.1f} GiB"
        if run["times_faster"]:
            said += f", {run['times_faster']:.1f} times faster than the published script"
        if run["minutes"]:
            said += f"; the published run would take {run['minutes']:.0f} minutes"
        sentences.append(said + ".")
    return sentences or ["Nothing has been measured on a GPU yet: such figures are computed."]


def settings_table(dtype: str, receipts: list[dict] | None = None) -> list[dict]:
    """Settings for GPUs that compute in ``dtype``, in the order in which they are tried.

    Each has ``trains``, ``dtype`` of the weights, ``mini_batch_num_tokens``, ``pages`` per pass,
    ``gib`` with CUDA's own share, ``limit`` (the share of a GPU that it may fill) and ``source``.
    The peak in a receipt replaces the computed figure of its row, whatever GPU it was taken on; a
    run that ran out of memory or was made on a CPU (``autocast`` none) replaces nothing.
    """
    facts = read_asset("gpu_memory.json")
    computed = {"limit": MARGIN, "source": "computed, not measured"}
    rows = [row | computed for row in facts["settings"][dtype]]
    expected = {"outcome": "ok", "autocast": dtype, "rows": facts["rows"]}
    expected |= {"max_pixels": facts["page"]["max_pixels"]}
    for receipt in read_receipts() if receipts is None else receipts:
        if receipt["model"]["parameters"] != facts["models"]["2048"]["parameters"]:
            continue
        for run in receipt["runs"]:
            for row in rows:
                same = expected | {name: row[name] for name in SETTING}
                if run | same == run:
                    row["gib"] = run["peak_gib"] + facts["cuda_gib"]
                    row |= {"limit": 1.0, "source": f"measured on {receipt['gpu']['name']}"}
    return rows


def settings_for(
    capability: Iterable[int], memory_gib: float, receipts: list[dict] | None = None
) -> dict:
    """The first setting that a GPU has room for, and ``fits``; the smallest where none has room.

    All weights come before LoRA, many pages per pass before few. ``capability``: CUDA compute
    capability; ``memory_gib``: as PyTorch finds it (``present_gpu``).
    """
    table = settings_table(compute_dtype(capability), receipts)
    for setting in table:
        if setting["gib"] <= setting["limit"] * memory_gib:
            return setting | {"fits": True}
    return table[-1] | {"fits": False}


def explain(setting: dict, gpu: Gpu, profile: Profile) -> list[str]:
    """Why a GPU was given a setting, a line each."""
    dtype = compute_dtype(gpu.capability)
    major, minor = gpu.capability
    lines = [f"{gpu.name}: compute capability {major}.{minor}, {gpu.memory_gib:.1f} GiB"]
    lines += [f"computes in {dtype} (from 8.0 on a GPU has units for bfloat16)"]
    if setting["trains"] == "LoRA":
        whole = [one["gib"] for one in settings_table(dtype) if one["trains"] == "all weights"]
        lines += [
            f"LoRA on the language model: all weights need {min(whole):.1f} GiB or more",
            f"learning rate {profile.adapter_learning_rate:g} instead of "
            f"{profile.learning_rate:g}: adapters learn far less at the lower one",
        ]
    lines += [
        f"{setting['mini_batch_num_tokens']:,} tokens per pass, pages: {setting['pages']}; "
        f"{setting['gib']:.1f} of {gpu.memory_gib:.1f} GiB ({setting['source']})"
    ]
    if not setting["fits"]:
        lines += ["even that may not fit: take a GPU with more memory"]
    return lines


def worker_count(profile: Profile, dtype: str) -> tuple[int, str]:
    """``(dataloader_num_workers, reason)``: the profile's, if cores and shared memory allow it.

    A batch is a page and a hard negative per row; a pixel is six values (three colours, two frames)
    in ``dtype``. In a container with 64 MB of shared memory, workers would be killed.
    """
    batch = 2 * profile.per_device_train_batch_size * profile.max_pixels * 6 * BYTES[dtype]
    limits = {"profile": profile.dataloader_num_workers, "processor cores": os.cpu_count() or 1}
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        limits["shared memory"] = int(free // (PREFETCH * batch))
    workers = min(limits.values())
    allowed = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    size = f"{PREFETCH} batches of {batch / 1e9:.2f} GB each"
    return workers, f"{workers} worker processes, {size} (at most: {allowed})"


def with_setting(profile: Profile, setting: dict, autocast: str | None) -> Profile:
    """``profile`` as it trains with a row of :func:`settings_table`, under this autocast."""
    lora = setting["trains"] == "LoRA"
    chosen = {"dtype": setting["dtype"], "attn_implementation": profile.attention}
    return replace(
        profile,
        model_kwargs=profile.model_kwargs | chosen,
        adapters=(read_asset("gpu_memory.json")["lora"],) if lora else (),
        learning_rate=profile.adapter_learning_rate if lora else profile.learning_rate,
        mini_batch_num_tokens=setting["mini_batch_num_tokens"],
        dataloader_num_workers=worker_count(profile, setting["dtype"])[0],
        bf16=autocast == "bfloat16",
        fp16=autocast == "float16",
    )


def fit_to_gpu(profile: Profile, gpu: Gpu | None = None) -> Profile:
    """``profile`` with what this machine decides, and a printed line for every reason.

    That is dtypes, attention, LoRA and its learning rate, token budget, worker processes. ``tiny``
    is returned as it is. Attention is PyTorch's own (SDPA), or what ``VDR_ATTENTION`` names:
    compiled code of the hub runs only when it is asked for.
    """
    if not profile.fitted_to_gpu:
        return profile
    gpu = gpu or present_gpu()
    if gpu.capability is None:
        autocast, lines = None, [f"{gpu.name}: no CUDA GPU, so float32 weights and no autocast"]
        budget = profile.mini_batch_num_tokens
        setting = {"trains": "all weights", "dtype": "float32", "mini_batch_num_tokens": budget}
    else:
        autocast = compute_dtype(gpu.capability)
        receipts = read_receipts(profile.outputs)
        setting = settings_for(gpu.capability, gpu.memory_gib, receipts)
        lines = explain(setting, gpu, profile)
    fitted = with_setting(profile, setting, autocast)
    lines += [f"attention: {fitted.model_kwargs['attn_implementation']}"]
    lines += [worker_count(profile, setting["dtype"])[1]]
    print("\n".join(lines))
    return fitted


def retry_when_out_of_memory(trainer) -> None:
    """Let ``trainer`` repeat a step that runs out of memory with half as many pages per pass.

    With a cached loss the gradient stays the same; with another one nothing is changed. Smaller
    passes are kept for the steps that follow. Raises ``ValueError`` where gradients are accumulated
    over steps; the step raises ``torch.OutOfMemoryError`` when nothing is left to halve.
    """
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    if trainer.args.gradient_accumulation_steps > 1:
        raise ValueError("gradient_accumulation_steps must be 1: a repeated step drops gradients")
    step, loss = trainer.training_step, trainer.loss
    if not hasattr(loss, "mini_batch_size"):
        loss = getattr(loss, "loss", None)  # of MatryoshkaLoss
    if not hasattr(loss, "mini_batch_size"):
        return  # not a cached loss: its step cannot be cut without another gradient
    name = "mini_batch_num_tokens" if loss.mini_batch_num_tokens else "mini_batch_size"
    least = FEWEST_TOKENS if loss.mini_batch_num_tokens else 1

    def training_step(model, inputs, *more):
        while True:
            try:
                return step(model, inputs, *more)
            except RuntimeError as error:
                if not should_reduce_batch_size(error) or getattr(loss, name) <= least:
                    raise
            setattr(loss, name, max(least, getattr(loss, name) // 2))
            model.zero_grad()
            clear_device_cache(garbage_collection=True)
            print(f"out of memory: {name} is now {getattr(loss, name)}; the gradient is the same")

    trainer.training_step = training_step
