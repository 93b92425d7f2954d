"""Notebook 03's training, written once for everything that repeats it: the table of seeds, the
choices, both recipes, the rehearsal.
"""

from __future__ import annotations

import tempfile
import time

import torch
from peft import LoraConfig
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
)

from vdr_helpers.evaluation import retrieval_inputs
from vdr_helpers.profiles import Profile
from vdr_helpers.training import use_matrix_product


def load_base(profile: Profile, folder: str | None = None) -> SentenceTransformer:
    """The base model (or the one in ``folder``), as every notebook loads it."""
    return SentenceTransformer(
        folder or profile.base_model,
        revision=None if folder else profile.model_revision,
        model_kwargs=profile.model_kwargs,
        processor_kwargs=profile.processor_kwargs,
    )


def load_to_train(profile: Profile) -> SentenceTransformer:
    """The base as notebook 03 has it before training: patches by a matrix product, and LoRA in
    float32 where the profile has adapters.
    """
    model = load_base(profile)
    use_matrix_product(model)
    for adapter in profile.adapters:
        model.add_adapter(LoraConfig(**adapter))
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    return model


def contrastive_loss(
    profile: Profile, model: SentenceTransformer, **cut
) -> CachedMultipleNegativesRankingLoss:
    """The loss inside; ``cut`` replaces the profile's ``mini_batch_size`` and
    ``mini_batch_num_tokens``.
    """
    usual = {
        "mini_batch_size": profile.mini_batch_size,
        "mini_batch_num_tokens": profile.mini_batch_num_tokens,
    }
    return CachedMultipleNegativesRankingLoss(model, **(cut or usual))


def matryoshka(profile: Profile, model: SentenceTransformer, inner, **settings) -> MatryoshkaLoss:
    """The published wrapping of the contrastive loss; ``settings`` go to ``MatryoshkaLoss``."""
    dims = list(profile.matryoshka_dims)
    return MatryoshkaLoss(
        model, inner, matryoshka_dims=dims, matryoshka_weights=[1] * len(dims), **settings
    )


def build_trainer(
    profile: Profile,
    model,
    train_dataset,
    loss,
    folder: str,
    *,
    parts: dict | None = None,
    **changes,
):
    """Notebook 03's trainer. It saves no checkpoints and evaluates nothing, unless ``changes``
    (training arguments) ask for it.

    ``parts``: further parts of the trainer by their own names, such as ``evaluator`` or
    ``callbacks``.
    """
    arguments = {
        "num_train_epochs": profile.num_train_epochs,
        "per_device_train_batch_size": profile.per_device_train_batch_size,
        "learning_rate": profile.learning_rate,
        "warmup_steps": profile.warmup_steps,
        "bf16": profile.bf16,
        "fp16": profile.fp16,
        "batch_sampler": "no_duplicates",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": profile.dataloader_num_workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": profile.seed,
    }
    model.model_card_data.generate_widget_examples = False
    args = SentenceTransformerTrainingArguments(output_dir=folder, **(arguments | changes))
    return SentenceTransformerTrainer(
        model=model, args=args, train_dataset=train_dataset, loss=loss, **(parts or {})
    )


def train(
    profile: Profile, train_dataset, seed: int, wrap=matryoshka, **changes
) -> tuple[SentenceTransformer, float]:
    """One training run without evaluations; ``wrap`` builds the loss around the contrastive one,
    ``changes`` are training arguments. Returns the model and its seconds.
    """
    model = load_to_train(profile)
    loss = wrap(profile, model, contrastive_loss(profile, model))
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(profile, model, train_dataset, loss, folder, seed=seed, **changes)
        started = time.perf_counter()
        trainer.train()
        return model, time.perf_counter() - started


def score(model: SentenceTransformer, profile: Profile, eval_dataset) -> dict[int, float]:
    """NDCG@10 at every dimension, from one encoding of the pages, as notebook 05 scores."""
    queries, corpus, relevant_docs, _ = retrieval_inputs(eval_dataset)
    pages = model.encode_document(
        list(corpus.values()), batch_size=profile.encode_batch_size, convert_to_tensor=True
    )
    scores = {}
    for dim in profile.matryoshka_dims:
        evaluator = InformationRetrievalEvaluator(
            queries, corpus, relevant_docs, truncate_dim=dim, name="eval", write_csv=False
        )
        scores[dim] = evaluator(model, corpus_embeddings=pages[:, :dim])["eval_cosine_ndcg@10"]
    return scores
