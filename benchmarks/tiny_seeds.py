"""What the tiny profile shows, over several training seeds: ``python benchmarks/tiny_seeds.py`` (about ten minutes on two cores).

Trains as notebook 03 does, without the evaluations in between, scores base and tuned model as notebook 05 does, and writes
``assets/measured/tiny_seeds.json`` with versions and processor. The README's table and the notebooks' bands come from that file.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from peft import LoraConfig
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MatryoshkaLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from tools.run_course import package_versions
from vdr_helpers.evaluation import retrieval_inputs
from vdr_helpers.profiles import Profile, load_profile, quiet_progress_bars
from vdr_helpers.splits import load_prepared
from vdr_helpers.training import use_matrix_product

RESULT = Path(__file__).resolve().parent.parent / "assets" / "measured" / "tiny_seeds.json"


def load_base(profile: Profile) -> SentenceTransformer:
    """The base model, as every notebook loads it."""
    return SentenceTransformer(profile.base_model, model_kwargs=profile.model_kwargs, processor_kwargs=profile.processor_kwargs)


def matryoshka(profile: Profile, model: SentenceTransformer, inner, **settings):
    """The published wrapping of the contrastive loss; ``settings`` go to ``MatryoshkaLoss``."""
    return MatryoshkaLoss(model, inner, matryoshka_dims=list(profile.matryoshka_dims), **settings)


def train(profile: Profile, train_dataset, seed: int, wrap=matryoshka) -> tuple[SentenceTransformer, float]:
    """One training run of notebook 03; ``wrap`` builds the loss around the contrastive one. Returns the model and its seconds."""
    model = load_base(profile)
    use_matrix_product(model)
    for adapter in profile.adapters:
        model.add_adapter(LoraConfig(**adapter))
    loss = wrap(profile, model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=profile.mini_batch_size))
    model.model_card_data.generate_widget_examples = False
    with tempfile.TemporaryDirectory() as folder:
        args = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=profile.num_train_epochs,
            per_device_train_batch_size=profile.per_device_train_batch_size,
            learning_rate=profile.learning_rate,
            warmup_steps=profile.warmup_steps,
            bf16=profile.bf16,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=train_dataset, loss=loss)
        started = time.perf_counter()
        trainer.train()
        return model, time.perf_counter() - started


def score(model: SentenceTransformer, profile: Profile, eval_dataset) -> dict[int, float]:
    """NDCG@10 at every dimension, from one encoding of the pages."""
    queries, corpus, relevant_docs = retrieval_inputs(eval_dataset)
    pages = model.encode_document(list(corpus.values()), batch_size=profile.encode_batch_size, convert_to_tensor=True)
    scores = {}
    for dim in profile.matryoshka_dims:
        evaluator = InformationRetrievalEvaluator(queries, corpus, relevant_docs, truncate_dim=dim, name="eval", write_csv=False)
        scores[dim] = evaluator(model, corpus_embeddings=pages[:, :dim])["eval_cosine_ndcg@10"]
    return scores


def main(seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    quiet_progress_bars()
    profile = load_profile("tiny")
    train_dataset, _ = load_prepared(profile, "train")
    eval_dataset, _ = load_prepared(profile, "eval")
    base = score(load_base(profile), profile, eval_dataset)
    widest, narrowest = profile.matryoshka_dims[0], profile.matryoshka_dims[-1]
    print("base", {dim: round(value, 4) for dim, value in base.items()}, flush=True)
    runs = []
    for seed in seeds:
        model, seconds = train(profile, train_dataset, seed)
        scores = score(model, profile, eval_dataset)
        runs.append({"seed": seed, "train_seconds": round(seconds, 1), "ndcg_at_10": scores})
        print(seed, f"{seconds:.0f} s", {dim: round(value, 4) for dim, value in scores.items()}, flush=True)
    kept = [run["ndcg_at_10"][narrowest] / run["ndcg_at_10"][widest] for run in runs]
    full = [run["ndcg_at_10"][widest] for run in runs]
    result = {
        "what": "tiny profile, training seeds as listed; trained without intermediate evaluations",
        "versions": package_versions(),
        "device": f"CPU, {os.cpu_count()} cores, {platform.machine()}",
        "base_ndcg_at_10": base,
        "base_kept_at_smallest": base[narrowest] / base[widest],
        "runs": runs,
        "tuned_mean": statistics.mean(full),
        "tuned_spread": max(full) - min(full),
        "gain_smallest": min(full) - base[widest],
        "kept_at_smallest": kept,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("written", RESULT.name)


if __name__ == "__main__":
    main()
