"""The full experiment rehearsed without its weights and without its data: the 2B architecture with random weights, drawn pages.

``VDR_PROFILE=rehearsal`` runs the notebooks that way; ``python -m vdr_helpers.rehearsal`` measures what a card needs and writes a
receipt for the planner. Memory and seconds are those of the real model, since they depend on its widths and not on what its weights
say; scores mean nothing. Two things differ from the real run: the tokenizer is the tiny model's (its vocabulary is padded to 151,936
rows of the embedding table, so queries are a few tokens longer), and the text on the pages is enlarged. ``VDR_REHEARSAL=small`` takes
a small architecture instead, to try the same path on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tiny_vdr.model import QWEN3_VL_2B, SMALL
from tools.run_course import package_versions
from tools.sizing import GIB, LORA, PAGE_TEXT_TOKENS, append_run, hardware, image_tokens, step_flops
from vdr_helpers.machine import use_first_card, worker_count
from vdr_helpers.profiles import PROFILES, Profile, assets_folder
from vdr_helpers.training import PixelsInFormat, page_keys, use_matrix_product

SIZE_VARIABLE = "VDR_REHEARSAL"
MEAN_SCALE = (
    3.2  # 400 x 560 pixels, a quarter of them turned, times 3.2: 1,413 x 1,659 on average; the card's mean is 1,416 x 1,648
)
TRAIN_FAMILIES, EVAL_FAMILIES = 70, 335  # families of near-duplicates; 4 queries each, then 1 each
VERSION = 2  # raise it when the same settings would give another model or other pages


def chosen_size() -> Sizes:
    """The 2B model's widths, or the small ones with ``VDR_REHEARSAL=small``. Raises ``ValueError`` for another value."""
    value = os.environ.get(SIZE_VARIABLE) or "true"
    if value not in ("true", "small"):
        raise ValueError(f"{SIZE_VARIABLE} must be 'true' (the 2B architecture) or 'small', not {value!r}: unset it for 'true'")
    return SMALL if value == "small" else QWEN3_VL_2B


def is_current(folder: Path, stamp: dict) -> bool:
    """Whether ``folder`` was finished with these settings; its stamp is written last."""
    file = folder / "rehearsal.json"
    return file.exists() and json.loads(file.read_text()) == stamp


def move_into_place(partial: Path, folder: Path, stamp: dict) -> Path:
    """Stamp a finished folder and give it its name: a killed kernel never leaves half of one."""
    (partial / "rehearsal.json").write_text(json.dumps(stamp))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def build_base(folder: Path, model: Sizes, seed: int = 0) -> Path:
    """A Sentence Transformers folder of this architecture with random weights (2B: 4.3 GB, bfloat16), unless it is there already.

    Weights are drawn on the GPU where there is one. Tokenizer, processor and chat template are the tiny base's. Returns ``folder``.
    """
    import torch
    from transformers import AutoTokenizer, Qwen3VLModel

    from tiny_vdr.model import build_config

    stamp = {"version": VERSION, "model": model.name, "parameters": model.parameters, "seed": seed}
    if is_current(folder, stamp):
        return folder
    print(f"building the {model.name} architecture with random weights ({2 * model.parameters / 1e9:.1f} GB), once")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tiny = assets_folder() / "tiny-base"
    not_its_own = shutil.ignore_patterns("*.safetensors", "config.json", "README.md", "pretrain_log.json")
    shutil.copytree(tiny, partial, ignore=lambda at, names: not_its_own(at, names) if Path(at) == tiny else set())
    pooling = json.loads((partial / "1_Pooling" / "config.json").read_text()) | {"embedding_dimension": model.hidden_size}
    (partial / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=1))
    before = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(seed)
        try:
            torch.set_default_dtype(torch.bfloat16)
            Qwen3VLModel(build_config(model, AutoTokenizer.from_pretrained(tiny))).save_pretrained(partial)
        finally:
            torch.set_default_dtype(before)
    return move_into_place(partial, folder, stamp)


def small_settings(profile: Profile) -> Profile:
    """The rehearsal profile cut down to a CPU: dimensions of the small architecture, small pages, few rows, no number formats."""
    dims = tuple(dim * SMALL.hidden_size // QWEN3_VL_2B.hidden_size for dim in profile.matryoshka_dims)
    return replace(
        profile, matryoshka_dims=dims, truncate_dim=SMALL.hidden_size // 2, max_pixels=96 * 96, train_rows=24, eval_rows=8,
        monitor_rows=4, per_device_train_batch_size=8, mini_batch_size=8, mini_batch_num_tokens=120, bf16=False,
        model_kwargs={"dtype": "float32"}, model_from_card=False,
    )  # fmt: skip


def make(profile: Profile) -> Profile:
    """``profile`` with its model and pages built under ``outputs/`` on first use; ``load_profile`` calls it."""
    from tiny_vdr.corpus import build_source

    use_first_card()
    model = chosen_size()
    folder = profile.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    small = model is SMALL
    profile = small_settings(profile) if small else profile
    base = build_base(folder / ("base-small" if small else "base"), model)
    families, scale = ((20, 85), 1.0) if small else ((TRAIN_FAMILIES, EVAL_FAMILIES), MEAN_SCALE)
    pages = folder / f"source-{'small-' if small else ''}v{VERSION}"
    source = build_source(pages, train_families=families[0], eval_families=families[1], mean_scale=scale)
    return replace(profile, model_folder=str(base), finetuned_folder=str(base), dataset_folder=str(source))


def main(arguments: list[str] | None = None) -> None:
    """Take the receipts that are asked for; each is written as soon as it is measured, so that an interrupted run keeps what it has."""
    parser = argparse.ArgumentParser(prog="python -m vdr_helpers.rehearsal", description=main.__doc__)
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
    profile = PROFILES["rehearsal"]
    model = chosen_size()
    profile = small_settings(profile) if model is SMALL else profile
    base = build_base(profile.output_dir / ("base-small" if model is SMALL else "base"), model)
    rehearsal = Rehearsal(profile, model, base, asked.receipt, asked.batch, asked.steps, asked.fp16)
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
        self, profile: Profile, model: Sizes, base: Path, receipt: Path | None, batch: int, steps: int, fp16: bool = False
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

        from tiny_vdr.corpus import enlarge, plan_rows
        from tiny_vdr.pages import draw_page
        from vdr_helpers.pages import presize

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
