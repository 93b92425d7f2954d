"""Make the late-interaction start of the profile ``tiny``: ``python -m tools.pretrain_late``
(about seven minutes on one core, after its base: ``tools.pretrain``).

A model of one vector per page learns through its last token alone; a real late-interaction model
has learned with all of its tokens. So the base is trained further on pages and queries of
pre-training with Sentence Transformers' own loss over all vectors, the pages of a family side by
side. It is made in ``outputs/pretrain-late``; ``--ship`` puts it into ``assets/tiny-late``, from
where notebook 10 and ``benchmarks.phenomena`` start.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from PIL.Image import Resampling
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
)
from sentence_transformers.multi_vector_encoder.losses import (
    MultiVectorMultipleNegativesRankingLoss,
)
from torch.utils.data import BatchSampler, SequentialSampler

from tiny_vdr.batches import PAGE_SIZE
from tiny_vdr.pages import draw_page
from tiny_vdr.plan import LATER
from tiny_vdr.report_batches import FAMILY, draw_family, word_query
from vdr_helpers.profiles import assets_folder, load_profile, outputs_folder
from vdr_helpers.training import use_matrix_product

STEPS, BATCH = 250, 32
LEARNING_RATE = 5e-4
NEW_LAYER = {
    r"^(model\.)?1\.linear": 5e-3
}  # ten times as fast, as the published late-interaction run

CARD = """# The tiny late-interaction start

The base model `assets/tiny-base`, trained further with a vector for every token: the network, and a layer that makes each
token's vector {width} numbers long. Stored in half precision.

- **For**: notebook 10. It reads generated pages only and is of no use on real documents.
- **Made by** `python -m tools.pretrain_late`: {steps} batches of {batch} queries and pages of `tiny_vdr/report_batches.py`, the pages
  of a family side by side, with `MultiVectorMultipleNegativesRankingLoss`.
- No data of people or organisations: every name and figure is invented. Licence: Apache-2.0.
"""


def draw_rows(folder: Path, count: int, rng: random.Random, draw) -> dict[str, list]:
    """``count`` queries with their pages as files of ``folder``, as ``draw()`` gives them."""
    rows = {"query": [], "image": []}
    while len(rows["query"]) < count:
        for page, *asked in draw():
            image = draw_page(page)[0]
            size = PAGE_SIZE if image.height > image.width else PAGE_SIZE[::-1]
            file = folder / f"{len(rows['query'])}.png"
            image.resize(size, Resampling.BICUBIC).save(file, compress_level=1)
            rows["query"].append(word_query(rng, LATER, page, *asked)[0])
            rows["image"].append(str(file))
    return rows


def draw_pairs(folder: Path, count: int, seed: int = 0) -> Dataset:
    """``count`` queries with their pages, family after family."""
    rng = random.Random(f"late-{seed}")
    rows = draw_rows(folder, count, rng, lambda: draw_family(rng, LATER, FAMILY))
    return Dataset.from_dict(rows)


def in_order(dataset, batch_size: int, drop_last: bool, **settings) -> BatchSampler:
    """Batches as the rows come: the pages of a family meet."""
    return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)


def pretrain_late(
    output: Path, steps: int = STEPS, seed: int = 0, batch: int = BATCH
) -> list[float]:
    """Train for ``steps`` batches of ``batch`` pages and save the model; returns the losses, a mean
    of twenty steps each.
    """
    profile = load_profile("tiny")
    torch.manual_seed(seed)
    model = MultiVectorEncoder(
        profile.base_model,
        model_kwargs=profile.model_kwargs,
        processor_kwargs=profile.processor_kwargs,
    )
    use_matrix_product(model)
    model.model_card_data.generate_widget_examples = False
    with tempfile.TemporaryDirectory() as folder:
        args = MultiVectorEncoderTrainingArguments(
            output_dir=str(Path(folder) / "run"),
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=LEARNING_RATE,
            learning_rate_mapping=NEW_LAYER,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            max_grad_norm=30.0,  # as published
            batch_sampler=in_order,
            logging_steps=20,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=seed,
        )
        trainer = MultiVectorEncoderTrainer(
            model=model,
            args=args,
            train_dataset=draw_pairs(Path(folder), steps * batch, seed),
            loss=MultiVectorMultipleNegativesRankingLoss(model),
        )
        trainer.train()
    model.half().save_pretrained(str(output), create_model_card=False)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.pretrain_late", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="batches of 32 pages")
    parser.add_argument("--ship", action="store_true", help="put the model into the assets")
    options = parser.parse_args()
    folder = outputs_folder() / "pretrain-late"
    if not (folder / "README.md").exists():
        print(pretrain_late(folder, options.steps))
        width = MultiVectorEncoder(str(folder), device="cpu").get_embedding_dimension()
        card = CARD.format(width=width, steps=options.steps, batch=BATCH)
        (folder / "README.md").write_text(card, encoding="utf-8")
    if options.ship:
        shipped = assets_folder() / "tiny-late"
        shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(folder, shipped)


if __name__ == "__main__":
    main()
