"""The two recipes that ``recipes.py`` compares, and their parts, each timed alone. Both are plain
Sentence Transformers calls.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import torch
from datasets import load_from_disk
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from sentence_transformers.util import batch_to_device

from benchmarks.recipe import build_trainer, contrastive_loss, load_base, matryoshka
from benchmarks.recipe_data import corpus_ram, peak_ram_gib
from vdr_helpers.profiles import Profile
from vdr_helpers.training import cosine_at, use_matrix_product

BUDGET_PAGES = (
    16  # pages per forward pass of the course's recipe where the profile names no token budget
)


def corpus_of(eval_dataset) -> tuple[dict, dict, dict]:
    """Queries, pages and relevant pages as the evaluator wants them; pages are what the dataset
    holds (images or paths).
    """
    queries, corpus, relevant = {}, {}, {}
    for i, row in enumerate(eval_dataset):
        queries[f"q{i}"], relevant[f"q{i}"] = row["query"], {f"q{i}-image"}
        corpus |= {
            f"q{i}-{name}": row[name] for name in eval_dataset.column_names if name != "query"
        }
    return queries, corpus, relevant


class Recipe:
    """What the two recipes share: the model, the rows, the loss's dimensions, the trainer's
    arguments, and the count of page encodes.
    """

    def __init__(self, profile: Profile, data: Path, batch_size: int, kind: str) -> None:
        self.profile, self.batch_size = profile, batch_size
        self.train, self.eval, self.epoch = (
            load_from_disk(str(data / kind / name)) for name in ("train", "eval", "epoch")
        )
        self.dims = list(profile.matryoshka_dims)
        self.page_encodes = 0
        self.model = load_base(profile)
        self.model[0].register_forward_pre_hook(self.count)

    def count(self, module, arguments) -> None:
        # the first module takes the features as its one positional argument
        grids = arguments[0].get("image_grid_thw")
        self.page_encodes += 0 if grids is None else len(grids)

    @cached_property
    def collection(self) -> tuple[dict, dict, dict]:
        return corpus_of(self.eval)

    def build_loss(self):
        return matryoshka(
            self.profile,
            self.model,
            contrastive_loss(self.profile, self.model, **self.mini_batches()),
        )

    def sampled(self) -> NoDuplicatesBatchSampler:
        return NoDuplicatesBatchSampler(
            self.epoch, self.batch_size, False, generator=torch.Generator().manual_seed(1), seed=1
        )

    def trainer(
        self, folder: str, parts: dict | None = None, **changes
    ) -> SentenceTransformerTrainer:
        evaluating = {
            "eval_strategy": "steps",
            "eval_steps": 0.1,
            "per_device_eval_batch_size": self.batch_size,
            "logging_steps": 1,
        }
        settings = {
            "num_train_epochs": 1,
            "per_device_train_batch_size": self.batch_size,
            "warmup_steps": 0.1,
            **evaluating,
        }
        settings |= {"batch_sampler": self.sampler(), **changes}
        parts = {"evaluator": self.evaluator(), **(parts or {})}
        return build_trainer(
            self.profile, self.model, self.train, self.build_loss(), folder, parts=parts, **settings
        )


class Published(Recipe):
    """The card's script: nothing shared, one page at a time, the library's own data collator."""

    def mini_batches(self) -> dict:
        return {"mini_batch_size": 1}

    def sampler(self):
        return BatchSamplers.NO_DUPLICATES

    def evaluator(self, dim: int | None = None):
        return InformationRetrievalEvaluator(
            *self.collection, truncate_dim=dim, batch_size=1, name="pages", write_csv=False
        )

    def full_width_only(self):
        return self.evaluator()

    def sweep(self) -> dict[str, float]:
        return {
            str(dim): self.evaluator(dim)(self.model)["pages_cosine_ndcg@10"] for dim in self.dims
        }

    def whole_run(self) -> tuple[list[dict], dict[str, float]]:
        self.evaluator()(self.model)
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(folder, parts={"eval_dataset": self.eval})
            trainer.train()
        self.evaluator()(self.model)
        return trainer.state.log_history, self.sweep()


class Course(Recipe):
    """Notebook 03: the changes that appendix a1 derives, on paths of presized pages, and no
    evaluation-loss pass.
    """

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        use_matrix_product(self.model)

    def mini_batches(self) -> dict:
        tokens = self.profile.mini_batch_num_tokens
        if tokens is None:
            page = self.model.preprocess([self.train[0]["image"]])
            tokens = BUDGET_PAGES * page["input_ids"].shape[1]
        return {"mini_batch_size": self.batch_size, "mini_batch_num_tokens": tokens}

    def sampler(self):
        return BatchSamplers.NO_DUPLICATES  # on paths of pages: none is opened

    def evaluator(self, dims: list[int] | None = None):
        return InformationRetrievalEvaluator(
            *self.collection,
            score_functions=cosine_at(dims or self.dims),
            main_score_function="cosine",
            name="pages",
            batch_size=self.profile.encode_batch_size,
            write_csv=False,
        )

    def full_width_only(self):
        return self.evaluator(self.dims[:1])

    def names(self) -> dict[int, str]:
        """The name that the evaluator gives to each dimension's metrics."""
        return {
            dim: f"pages_{name}" for dim, name in zip(self.dims, cosine_at(self.dims), strict=True)
        }

    def sweep(self) -> dict[str, float]:
        metrics = self.evaluator()(self.model)
        return {str(dim): metrics[f"{name}_ndcg@10"] for dim, name in self.names().items()}

    def whole_run(self) -> tuple[list[dict], dict[str, float]]:
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(folder, eval_on_start=True)
            trainer.train()
        last = [
            entry for entry in trainer.state.log_history if "eval_pages_cosine_ndcg@10" in entry
        ][-1]
        return trainer.state.log_history, {
            str(dim): last[f"eval_{name}_ndcg@10"] for dim, name in self.names().items()
        }


def timed(function, *arguments) -> tuple[float, object]:
    """``(seconds, result)``; waits for a GPU to finish."""
    started = time.perf_counter()
    result = function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def work(name: str, profile: Profile, data: Path, batch_size: int, whole: bool) -> dict:
    """What one worker process does: the parts of one recipe, each timed alone, then the whole run
    on a fresh model.
    """
    if name == "corpus":
        return corpus_ram(profile, data)
    kind, pages = (Published, "original") if name == "published" else (Course, "presized")
    recipe = kind(profile, data, batch_size, pages)
    seconds: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        trainer = recipe.trainer(folder)
        rows = range(batch_size)
        seconds["data path"], _ = timed(
            lambda: trainer.data_collator([recipe.train[i] for i in rows])
        )
        seconds["data path"], features = timed(
            lambda: trainer.data_collator([recipe.train[i] for i in rows])
        )
        sampler = recipe.sampled()
        seconds["sampler"] = min(timed(list, sampler)[0] for _ in range(2))
        features, labels = trainer.collect_features(batch_to_device(features, recipe.model.device))
        loss = recipe.build_loss()
        seconds["step"] = min(
            timed(lambda: loss([{**column} for column in features], labels).backward())[0]
            for _ in range(3)
        )
        one = recipe.full_width_only()
        seconds["one evaluation"] = min(timed(one, recipe.model)[0] for _ in range(2))
        seconds["seven dimensions"], scores = min(
            (timed(recipe.sweep) for _ in range(2)), key=itemgetter(0)
        )
        result = {"seconds": seconds, "ndcg_at_10": scores, "losses": [], "page_encodes": None}
        if whole:
            recipe = kind(profile, data, batch_size, pages)
            seconds["whole run"], (history, result["ndcg_at_10"]) = timed(recipe.whole_run)
            result["losses"] = [entry["loss"] for entry in history if "loss" in entry]
            result["page_encodes"] = recipe.page_encodes
    return result | {"peak_ram_gib": peak_ram_gib()}
