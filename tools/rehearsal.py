"""Measure what a card needs for the 2B architecture with random weights: ``python -m tools.rehearsal`` writes a receipt.

Memory and seconds are those of the real model, since they depend on its widths and not on what its weights say; scores mean nothing.
Two things differ from the real run: the tokenizer is the tiny model's (its vocabulary is padded to 151,936 rows of the embedding table,
so queries are a few tokens longer), and the text on the pages is enlarged. ``VDR_PROFILE=rehearsal-small`` tries the same on a CPU.
``python -m tools.sizing`` reads the receipts that lie in ``assets/receipts``.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoProcessor, TrainerCallback

from benchmarks.recipe import build_trainer, contrastive_loss, load_base, load_to_train, matryoshka
from benchmarks.where import package_versions
from tiny_vdr.corpus import enlarge, plan_rows
from tiny_vdr.pages import draw_page
from tools.sizing import LORA, PAGE_TEXT_TOKENS, append_run, architecture_of, hardware, image_tokens, step_flops
from vdr_helpers.machine import AMPERE, GIB, build_random_weights, use_first_card
from vdr_helpers.pages import presize
from vdr_helpers.profiles import Profile, load_profile


class Rehearsal:
    """Measures one architecture on this machine; every method appends one run to ``receipt`` and prints it."""

    def __init__(self, profile: Profile, receipt: Path | None, batch: int, steps: int, fp16: bool = False) -> None:
        self.profile = replace(profile, per_device_train_batch_size=batch, mini_batch_size=batch)
        self.batch, self.steps, self.cuda = batch, max(steps, 2), torch.cuda.is_available()
        self.receipt = receipt or profile.output_dir / "results" / "receipt.json"
        machine = hardware()
        self.modern = self.cuda and tuple(machine["capability"]) >= AMPERE and not fp16
        self.architecture = architecture_of(profile)
        description = {"name": self.architecture.name, "parameters": self.architecture.parameters, "weights": "random"}
        self.header = {"hardware": machine, "versions": package_versions(), "model": description}
        self.processor = AutoProcessor.from_pretrained(profile.base_model, **profile.processor_kwargs)
        self.dataset = self.rows()

    def at(self, weights: str, lora: bool = False) -> Profile:
        """The profile with its weights in this number format, SDPA attention, and LoRA or not, as ``fit_to_card`` would set it."""
        return replace(
            self.profile,
            model_kwargs={"dtype": weights, "attn_implementation": "sdpa"},
            adapters=(LORA,) if lora else (),
            learning_rate=self.profile.adapter_learning_rate if lora else self.profile.learning_rate,
            bf16=self.modern,
            fp16=self.cuda and not self.modern,
            dataloader_num_workers=self.profile.dataloader_num_workers if self.cuda else 0,
        )

    def rows(self) -> Dataset:
        """One batch of distinct rows (query, page, hard negative), pages resized as notebook 02 does."""
        families, scale = max(20, -(-self.batch // 4)), self.profile.corpus.get("mean_scale", 1.0)
        asked = [row for row in plan_rows(0, families, 85) if row.query][: self.batch]
        columns = {"query": [row.query for row in asked]}
        for name, some in (("image", asked), ("negative_0", plan_rows(1, families, 85)[: self.batch])):
            drawn = (enlarge(draw_page(row.page)[0], row.page.seed, scale) for row in some)
            columns[name] = [presize(page, self.processor) for page in drawn]
        return Dataset.from_dict(columns)

    def start(self, cap_gib: float | None) -> None:
        """Empty the card, forget its peak and set the most that PyTorch may reserve."""
        gc.collect()
        if not self.cuda:
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib / total) if cap_gib else 1.0)

    def peak(self) -> float | None:
        return round(torch.cuda.max_memory_reserved() / GIB, 2) if self.cuda else None

    def record(self, run: dict) -> dict:
        append_run(self.receipt, self.header, run)
        print(" | ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in run.items()))
        return run

    def encode(self) -> dict:
        """Pages per second of ``encode_document`` at the profile's batch, on the second pass over one batch of training pages."""
        self.start(None)
        model = load_base(self.at("bfloat16" if self.modern else "float16" if self.cuda else "float32"))
        pages = list(self.dataset["image"])
        for _ in range(2):  # the first pass pays for kernels being loaded
            started = time.perf_counter()
            model.encode_document(pages, batch_size=self.profile.encode_batch_size)
            seconds = time.perf_counter() - started
        run = {"kind": "encode", "outcome": "ok", "batch": self.profile.encode_batch_size}
        return self.record(run | {"pages_per_second": len(pages) / seconds, "peak_gib": self.peak()})

    def trainer(self, profile: Profile, model, budget: int, folder: str, **changes):
        """Notebook 03's trainer for ``steps`` steps of the one batch. Returns it with its steps' (begin, end) times."""
        loss = matryoshka(
            profile, model, contrastive_loss(profile, model, mini_batch_size=self.batch, mini_batch_num_tokens=budget)
        )
        clock = Clock(torch.cuda.synchronize if self.cuda else lambda: None)
        changes = {"max_steps": self.steps, "logging_steps": 1, **changes}
        rows = concatenate_datasets([self.dataset] * self.steps)
        return build_trainer(profile, model, rows, loss, folder, parts={"callbacks": [clock]}, **changes), clock.times

    def train(self, budget: int, lora: bool = False, cap_gib: float | None = None) -> dict:
        """``steps`` steps with this token budget, all weights or LoRA, under a cap on what PyTorch may reserve; "out of memory" is a result."""
        weights = "bfloat16" if self.modern else "float16" if self.cuda and lora else "float32"
        profile, tokens = self.at(weights, lora), self.tokens_per_page()
        run = {
            "kind": "train", "outcome": "ok", "mode": "lora" if lora else "full", "weights": weights,
            "autocast": "bf16" if self.modern else "fp16" if self.cuda else None, "batch": self.batch,
            "max_pixels": self.profile.max_pixels, "image_tokens": tokens, "mini_batch_num_tokens": budget,
            "pages_per_pass": min(max(1, budget // (tokens + PAGE_TEXT_TOKENS)), self.batch),
            "flops_per_step": step_flops(self.architecture, self.batch, tokens, lora), "memory_cap_gib": cap_gib,
        }  # fmt: skip
        self.start(cap_gib)
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = load_to_train(profile)
                trainer, times = self.trainer(profile, model, budget, folder)
                trainer.train()
                losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
                wall = statistics.median(end - before for (_, before), (_, end) in itertools.pairwise(times))
                run |= {"seconds_per_step": statistics.median(end - begin for begin, end in times[1:])}
                run |= {"wall_seconds_per_step": wall, "pages_per_second": 2 * self.batch / wall}
                run |= {"losses_finite": all(loss == loss and abs(loss) != float("inf") for loss in losses)}
            except torch.cuda.OutOfMemoryError:
                run["outcome"] = "out of memory"
            run["peak_gib"] = self.peak()
            model = trainer = None
            self.start(None)
        return self.record(run)

    def tokens_per_page(self) -> int:
        """Mean image tokens of the pages as they are drawn and resized here; they need not be those of the published mean page."""
        sizes = [page.size for page in self.dataset["image"]]
        return round(sum(image_tokens(*size, self.profile.max_pixels) for size in sizes) / len(sizes))

    def resume(self, budget: int = 1400) -> dict:
        """Train to the end with a checkpoint half way, resume a second model from it, reload the first from disk; compare embeddings."""
        self.start(None)
        weights = "bfloat16" if self.modern else "float32"
        profile, texts, half = self.at(weights), self.dataset["query"][:8], self.steps // 2
        saving = {"save_strategy": "steps", "save_steps": half}
        with tempfile.TemporaryDirectory() as folder:
            model = load_to_train(profile)
            trainer, _ = self.trainer(profile, model, budget, folder, **saving)
            trainer.train()
            whole = model.encode_query(texts)
            model.save_pretrained(f"{folder}/saved", create_model_card=False)
            model = trainer = None
            self.start(None)
            reloaded = load_base(profile, f"{folder}/saved").encode_query(texts)
            checkpoint = Path(folder) / f"checkpoint-{half}"
            size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()) / GIB
            shutil.rmtree(Path(folder) / "saved")
            self.start(None)
            model = load_to_train(profile)
            trainer, _ = self.trainer(profile, model, budget, folder, **saving)
            trainer.train(resume_from_checkpoint=str(checkpoint))
            resumed = model.encode_query(texts)
            model = trainer = None
        run = {"kind": "resume", "outcome": "ok", "weights": weights, "checkpoint_gib": round(size, 3), "peak_gib": self.peak()}
        differences = {
            "largest_difference": float(abs(resumed - whole).max()),
            "reload_difference": float(abs(reloaded - whole).max()),
        }
        return self.record(run | differences)


class Clock(TrainerCallback):
    """``times``: ``[begin, end]`` of every step in seconds; ``finish`` waits for the device."""

    def __init__(self, finish) -> None:
        self.finish, self.times = finish, []

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.times.append([time.perf_counter()])

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.finish()
        self.times[-1].append(time.perf_counter())


def main(arguments: list[str] | None = None) -> None:
    """Take the receipts that are asked for; each is written as soon as it is measured, so that an interrupted run keeps what it has."""
    parser = argparse.ArgumentParser(prog="python -m tools.rehearsal", description=main.__doc__)
    parser.add_argument("--budgets", type=int, nargs="*", default=[], help="train all weights with these token budgets per pass")
    parser.add_argument("--lora", action="store_true", help="train LoRA on the language model under --memory-cap-gib")
    parser.add_argument("--lora-budgets", type=int, nargs="*", default=[400, 1400, 2800])
    parser.add_argument("--memory-cap-gib", type=float, default=15.0, help="of LoRA; PyTorch may not reserve more (default 15)")
    parser.add_argument(
        "--full-cap-gib", type=float, help="train all weights, one page per pass, under this cap (22: an L4 or A10)"
    )
    parser.add_argument("--resume", action="store_true", help="save, reload and resume once")
    parser.add_argument("--fp16", action="store_true", help="float16 on a card that has bfloat16, as a T4 would run")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--receipt", type=Path, help="default: outputs/rehearsal/results/receipt.json")
    asked = parser.parse_args(arguments)
    use_first_card()
    profile = load_profile()
    if not profile.random_weights:
        raise SystemExit("set VDR_PROFILE=rehearsal, or rehearsal-small on a CPU")
    build_random_weights(profile)
    rehearsal = Rehearsal(profile, asked.receipt, asked.batch, asked.steps, asked.fp16)
    rehearsal.encode()
    for budget in asked.budgets:
        rehearsal.train(budget)
    if asked.lora:
        for budget in asked.lora_budgets:
            rehearsal.train(budget, lora=True, cap_gib=asked.memory_cap_gib)
    if asked.full_cap_gib:
        rehearsal.train(400, cap_gib=asked.full_cap_gib)
    if asked.resume:
        rehearsal.resume()
    print("receipt:", rehearsal.receipt.name, "in", rehearsal.receipt.parent.name)


if __name__ == "__main__":
    main()
