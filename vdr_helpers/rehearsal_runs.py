"""The measurements of a rehearsal: encode, train, and save, reload, resume; each becomes one run of a receipt (see ``receipts``).

The training code is notebook 03's: the cached loss inside the Matryoshka loss, batches without duplicates from keys, patches by a matrix
product, pixels in the model's number format, ``SentenceTransformerTrainer``, the published settings.
"""

from __future__ import annotations

import gc
import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from vdr_helpers.architecture import LORA, Architecture, image_tokens
from vdr_helpers.batches import PixelsInFormat, page_keys
from vdr_helpers.device import worker_count
from vdr_helpers.hardware import hardware
from vdr_helpers.patch_embedding import use_matrix_product
from vdr_helpers.profiles import Profile
from vdr_helpers.receipts import append_run
from vdr_helpers.run_course import package_versions
from vdr_helpers.terms import GIB, PAGE_TEXT_TOKENS, step_flops


def lora_adapter(model) -> None:
    """LoRA on the language model as notebook 03 attaches it: adapters in float32, everything else frozen."""
    from peft import LoraConfig

    model.add_adapter(LoraConfig(**LORA))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # the library leaves adapters in the weights' format; a scaler needs float32


def no_duplicates_by_key(dataset, **settings):
    """Notebook 03's batch sampler. A function with a name, because checkpoints save the arguments."""
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    return NoDuplicatesBatchSampler(page_keys(dataset), **settings)


class Rehearsal:
    """Measures one architecture on this machine; every method appends one run to ``receipt`` and prints it."""

    def __init__(
        self, profile: Profile, model: Architecture, base: Path, receipt: Path | None, batch: int, steps: int, fp16: bool = False
    ) -> None:
        import torch

        self.profile, self.architecture, self.base, self.batch, self.steps = profile, model, base, batch, max(steps, 2)
        self.receipt = receipt or profile.output_dir / "results" / "receipt.json"
        self.cuda = torch.cuda.is_available()
        machine = hardware()
        self.modern = self.cuda and tuple(machine["capability"]) >= (8, 0) and not fp16
        description = {"name": model.name, "parameters": model.parameters, "weights": "random"}
        self.header = {"hardware": machine, "versions": package_versions(), "model": description}
        self.dataset = None

    def load(self, weights: str, folder: Path | None = None):
        """The base (or another folder) with its weights in this number format, SDPA attention and the profile's pixels."""
        from sentence_transformers import SentenceTransformer

        kwargs = {"dtype": weights, "attn_implementation": "sdpa"}
        return SentenceTransformer(str(folder or self.base), model_kwargs=kwargs, processor_kwargs=self.profile.processor_kwargs)

    def rows(self, model):
        """One batch of distinct rows (query, page, hard negative), pages resized as notebook 02 does; drawn once."""
        from datasets import Dataset

        from vdr_helpers.corpus import enlarge, plan_rows
        from vdr_helpers.dataset import presize
        from vdr_helpers.pages import draw_page
        from vdr_helpers.rehearsal import MEAN_SCALE

        if self.dataset is None:
            asked = [row for row in plan_rows(0, max(20, -(-self.batch // 4)), 85) if row.query][: self.batch]
            spare = plan_rows(1, max(20, -(-self.batch // 4)), 85)
            pages = [[], []]
            for column, source in zip(pages, (asked, spare), strict=True):
                for row in source[: self.batch]:
                    column.append(presize(enlarge(draw_page(row.page)[0], row.page.seed, MEAN_SCALE), model.processor))
            columns = {"query": [row.query for row in asked], "image": pages[0], "negative_0": pages[1]}
            self.dataset = Dataset.from_dict(columns)
        return self.dataset

    def start(self, cap_gib: float | None) -> None:
        """Empty the card, forget its peak and set the most that PyTorch may reserve."""
        import torch

        gc.collect()
        if not self.cuda:
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib / total) if cap_gib else 1.0)

    def peak(self) -> float | None:
        import torch

        return round(torch.cuda.max_memory_reserved() / GIB, 2) if self.cuda else None

    def record(self, run: dict) -> dict:
        append_run(self.receipt, self.header, run)
        print(" | ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in run.items()))
        return run

    def encode(self) -> dict:
        """Pages per second of ``encode_document`` at the profile's batch, on the second pass over one batch of training pages."""
        self.start(None)
        model = self.load("bfloat16" if self.modern else "float16" if self.cuda else "float32")
        pages = list(self.rows(model)["image"])
        for _ in range(2):  # the first pass pays for kernels being loaded
            started = time.perf_counter()
            model.encode_document(pages, batch_size=self.profile.encode_batch_size)
            seconds = time.perf_counter() - started
        run = {
            "kind": "encode",
            "outcome": "ok",
            "batch": self.profile.encode_batch_size,
            "pages_per_second": len(pages) / seconds,
        }
        return self.record(run | {"peak_gib": self.peak()})

    def trainer(self, model, budget: int, folder: str, save_steps: int | None = None, lora: bool = False):
        """Notebook 03's trainer for ``steps`` steps; ``save_steps`` adds checkpoints. Returns it with its steps' (begin, end) times."""
        import torch
        from datasets import concatenate_datasets
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MatryoshkaLoss
        from transformers import TrainerCallback

        use_matrix_product(model)
        inner = CachedMultipleNegativesRankingLoss(model, mini_batch_size=self.batch, mini_batch_num_tokens=budget)
        loss = MatryoshkaLoss(model, inner, matryoshka_dims=list(self.profile.matryoshka_dims))
        args = SentenceTransformerTrainingArguments(
            output_dir=folder, max_steps=self.steps, per_device_train_batch_size=self.batch,
            learning_rate=self.profile.adapter_learning_rate if lora else self.profile.learning_rate,
            warmup_steps=self.profile.warmup_steps, batch_sampler=no_duplicates_by_key, bf16=self.modern, fp16=self.cuda and not self.modern, seed=self.profile.seed, logging_steps=1, report_to="none",
            save_strategy="steps" if save_steps else "no", save_steps=save_steps or 1, disable_tqdm=True,
            dataloader_num_workers=worker_count(self.profile, str(model.dtype).removeprefix("torch."))[0] if self.cuda else 0,
            dataloader_pin_memory=self.cuda,
        )  # fmt: skip
        times: list[list[float]] = []
        finish = torch.cuda.synchronize if self.cuda else lambda: None

        class Clock(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                times.append([time.perf_counter()])

            def on_step_end(self, args, state, control, **kwargs):
                finish()
                times[-1].append(time.perf_counter())

        model.model_card_data.generate_widget_examples = False
        dataset = concatenate_datasets([self.rows(model)] * self.steps)
        trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=dataset, loss=loss, callbacks=[Clock()])
        trainer.data_collator = PixelsInFormat(trainer.data_collator, model.dtype)
        return trainer, times

    def train(self, budget: int, lora: bool = False, cap_gib: float | None = None) -> dict:
        """``steps`` steps with this token budget, all weights or LoRA, under a cap on what PyTorch may reserve; "out of memory" is a result."""
        import torch

        weights = "bfloat16" if self.modern else "float16" if self.cuda and lora else "float32"
        tokens = self.tokens_per_page()
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
                model = self.load(weights)
                if lora:
                    lora_adapter(model)
                trainer, times = self.trainer(model, budget, folder, lora=lora)
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
        sizes = [page.size for page in self.rows(self.load_processor())["image"]]
        return round(sum(image_tokens(*size, self.profile.max_pixels) for size in sizes) / len(sizes))

    def load_processor(self):
        """An object with a ``processor``, so that pages can be drawn before any model is on the card."""
        from types import SimpleNamespace

        from transformers import AutoProcessor

        return SimpleNamespace(processor=AutoProcessor.from_pretrained(str(self.base), **self.profile.processor_kwargs))

    def resume(self, budget: int = 1400) -> dict:
        """Train to the end with a checkpoint half way, resume a second model from it, reload the first from disk; compare embeddings."""
        self.start(None)
        weights = "bfloat16" if self.modern else "float32"
        texts = list(self.rows(self.load_processor())["query"][:8])
        half = self.steps // 2
        with tempfile.TemporaryDirectory() as folder:
            model = self.load(weights)
            trainer, _ = self.trainer(model, budget, folder, save_steps=half)
            trainer.train()
            whole = model.encode_query(texts)
            model.save_pretrained(f"{folder}/saved", create_model_card=False)
            model = trainer = None
            self.start(None)
            reloaded = self.load(weights, Path(folder) / "saved").encode_query(texts)
            checkpoint = Path(folder) / f"checkpoint-{half}"
            size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()) / GIB
            shutil.rmtree(Path(folder) / "saved")
            self.start(None)
            model = self.load(weights)
            trainer, _ = self.trainer(model, budget, folder, save_steps=half)
            trainer.train(resume_from_checkpoint=str(checkpoint))
            resumed = model.encode_query(texts)
            model = trainer = None
        run = {"kind": "resume", "outcome": "ok", "weights": weights, "checkpoint_gib": round(size, 3), "peak_gib": self.peak()}
        differences = {
            "largest_difference": float(abs(resumed - whole).max()),
            "reload_difference": float(abs(reloaded - whole).max()),
        }
        return self.record(run | differences)
