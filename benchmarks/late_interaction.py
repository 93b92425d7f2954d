"""What a whole epoch of late interaction gives on ``tiny``: ``python -m
benchmarks.late_interaction`` (about eight minutes on one core).

Trains notebook 10's model for one epoch, once from the base and once from the model that has
learned with all of its tokens (:mod:`tools.pretrain_late`), scores it along the way on the
monitored queries and at the end on all of them, and writes
``assets/measured/late_interaction.json``, which the notebook shows. The loss is not cached, which
takes a quarter less time for the same gradient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time

import numpy
import torch
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    util,
)
from sentence_transformers.multi_vector_encoder.interpretability import real_query_token_slice
from sentence_transformers.multi_vector_encoder.losses import (
    MultiVectorMultipleNegativesRankingLoss,
)
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling
from transformers import PrinterCallback, TrainerCallback

from benchmarks.where import where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.evaluation import embed_once, ranks, retrieval_inputs
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.models import finetuned_model
from vdr_helpers.profiles import Profile, assets_folder, load_profile
from vdr_helpers.splits import load_split
from vdr_helpers.training import use_matrix_product

EVERY, FACTORS = 8, (1, 2, 3, 4, 8)  # steps between two scores; pool factors


class Collection:
    """Queries, their pages, and the score of a matrix of similarities."""

    def __init__(self, profile: Profile, eval_dataset) -> None:
        queries, corpus, relevant_docs, _ = retrieval_inputs(eval_dataset)
        self.texts, self.pages, self.batch_size = (
            list(queries.values()),
            list(corpus.values()),
            profile.encode_batch_size,
        )
        names = list(corpus)
        self.right_pages = [names.index(page) for query in queries for page in relevant_docs[query]]

    def per_query(self, similarities) -> numpy.ndarray:
        """NDCG@10 of every query; ``similarities``: tensor of shape (queries, pages)."""
        found = ranks(similarities, self.right_pages)
        return torch.where(found <= 10, 1 / torch.log2(1 + found), 0).double().numpy()

    def encode(self, model: MultiVectorEncoder) -> tuple[list, list]:
        """Vectors of queries and pages, a tensor of shape (tokens, numbers) each."""
        return model.encode_query(self.texts), model.encode_document(
            self.pages, batch_size=self.batch_size
        )

    def score(self, model: MultiVectorEncoder) -> float:
        return float(self.per_query(model.similarity(*self.encode(model))).mean())


def interval(values: numpy.ndarray) -> dict[str, float]:
    """Mean and 95 % interval over queries, by the draws of notebook 10."""
    draws = numpy.random.default_rng(0).integers(0, len(values), size=(2000, len(values)))
    low, high = numpy.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def by_parts(
    model: MultiVectorEncoder, collection: Collection, query_vectors: list, page_vectors: list
) -> dict:
    """NDCG@10 of MaxSim between parts of query and page: ``{part of the query: {part of the page:
    score}}``.
    """
    words = [real_query_token_slice(model, text) for text in collection.texts]
    image_token = model.tokenizer.convert_tokens_to_ids(model.processor.image_token)
    first = (
        model.encode_document(collection.pages[:1], output_value=None)[0]["input_ids"]
        == image_token
    )
    page_masks = []
    for (
        vectors
    ) in page_vectors:  # the template has as many tokens before and after the patches on every page
        before, after = int(first.nonzero().min()), len(first) - 1 - int(first.nonzero().max())
        page_masks.append((before, len(vectors) - after))
    pages = {
        "patches": [
            vectors[start:end]
            for vectors, (start, end) in zip(page_vectors, page_masks, strict=True)
        ],
        "after the patches": [
            vectors[end:] for vectors, (_, end) in zip(page_vectors, page_masks, strict=True)
        ],
        "all": page_vectors,
    }
    queries = {
        "words": [vectors[part] for vectors, part in zip(query_vectors, words, strict=True)],
        "after the words": [
            vectors[part.stop :] for vectors, part in zip(query_vectors, words, strict=True)
        ],
        "all": query_vectors,
    }
    return {
        name: {
            kind: float(collection.per_query(model.similarity(some, kept)).mean())
            for kind, kept in pages.items()
        }
        for name, some in queries.items()
    }


class Curve(TrainerCallback):
    """Scores the model every few steps."""

    def __init__(self, model: MultiVectorEncoder, collection: Collection) -> None:
        self.model, self.collection, self.points, self.losses = model, collection, [], []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % EVERY == 0:
            self.points.append(
                {"step": state.global_step, "ndcg_at_10": self.collection.score(self.model)}
            )
            self.model.train()
            print(self.points[-1], flush=True)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        self.losses += [logs["loss"]] if "loss" in (logs or {}) else []


def one_epoch(
    profile: Profile,
    start: str,
    source: str,
    train_dataset,
    monitored: Collection,
    everything: Collection,
) -> dict:
    """Train from ``source``; the curve, the parts of the score before and after, pooling, and the
    score on all queries.
    """
    torch.manual_seed(profile.seed)
    settings = {"model_kwargs": profile.model_kwargs, "processor_kwargs": profile.processor_kwargs}
    model = MultiVectorEncoder(source, **settings)
    use_matrix_product(model)
    before = by_parts(model, monitored, *monitored.encode(model))
    curve = Curve(model, monitored)
    curve.points.append({"step": 0, "ndcg_at_10": before["all"]["all"]})
    changes = {
        name: value for name, value in profile.late_interaction.items() if name != "max_steps"
    }
    model.model_card_data.generate_widget_examples = False
    with tempfile.TemporaryDirectory() as folder:
        args = MultiVectorEncoderTrainingArguments(
            output_dir=folder,
            **{
                "num_train_epochs": 1,
                "per_device_train_batch_size": profile.per_device_train_batch_size,
                "learning_rate": profile.learning_rate,
                **changes,
            },
            warmup_steps=profile.warmup_steps,
            batch_sampler="no_duplicates",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=profile.seed,
        )
        loss = MultiVectorMultipleNegativesRankingLoss(model)
        trainer = MultiVectorEncoderTrainer(
            model=model, args=args, train_dataset=train_dataset, loss=loss, callbacks=[curve]
        )
        trainer.remove_callback(PrinterCallback)
        started = time.process_time()
        trainer.train()
        seconds = time.process_time() - started
    query_vectors, page_vectors = monitored.encode(model)
    pooled = {}
    for factor in FACTORS:
        kept = HierarchicalTokenPooling(factor, num_protected_tokens=0).pool(page_vectors)
        values = monitored.per_query(model.similarity(query_vectors, kept))
        pooled[factor] = {
            "vectors": statistics.mean(map(len, kept)),
            "ndcg_at_10": float(values.mean()),
        }
    return {
        "start": start,
        "core_seconds": round(seconds, 1),
        "curve": curve.points,
        "losses": curve.losses,
        "parts_before": before,
        "parts_after": by_parts(model, monitored, query_vectors, page_vectors),
        "pooled": pooled,
        "monitored": interval(monitored.per_query(model.similarity(query_vectors, page_vectors))),
        "per_query": everything.per_query(model.similarity(*everything.encode(model))),
    }


def main() -> None:
    quiet_progress_bars()
    profile = load_profile("tiny")
    train_dataset, _ = load_split(profile, "train")
    eval_dataset, _ = load_split(profile, "eval")
    monitored = Collection(profile, eval_dataset.select(range(profile.monitor_rows)))
    everything = Collection(profile, eval_dataset)
    tuned, _ = finetuned_model(profile)
    settings = {"model_kwargs": profile.model_kwargs, "processor_kwargs": profile.processor_kwargs}
    single = SentenceTransformer(tuned, truncate_dim=profile.matryoshka_dims[0], **settings)
    few = monitored.per_query(
        util.cos_sim(*embed_once(single, monitored.texts, monitored.pages, profile))
    )
    many = everything.per_query(
        util.cos_sim(*embed_once(single, everything.texts, everything.pages, profile))
    )
    result = {
        "what": f"tiny profile, one epoch of late interaction, seed {profile.seed}, one run from each start",
        **where_measured(),
        "queries_and_pages": {
            "monitored": [len(monitored.texts), len(monitored.pages)],
            "all": [len(everything.texts), len(everything.pages)],
        },
        "one_vector": {"monitored": interval(few), "all": interval(many)},
        "runs": [],
    }
    for start, source in (("base", profile.base_model), ("late-interaction", profile.late_start)):
        run = one_epoch(profile, start, source, train_dataset, monitored, everything)
        values = run.pop("per_query")
        result["runs"].append(
            run | {"all": interval(values), "all_minus_one_vector": interval(values - many)}
        )
        print(start, json.dumps(result["runs"][-1]), flush=True)
        atomic_write(
            assets_folder() / "measured" / "late_interaction.json",
            json.dumps(result, indent=1) + "\n",
        )


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m benchmarks.late_interaction").parse_args()
    main()
