"""Make the reranker that notebook 09 starts from on the profile ``tiny``: ``python -m
tools.pretrain_reranker`` (under two hours of one core, after ``tools.pretrain_late --ship``).

A reranker reads a query and a page in one input, which the base has never seen. So it is trained on
pages and queries of pre-training by Sentence Transformers' own loss: which of six pages is the
query's? It goes on from the late-interaction start, whose tokens have learned to meet each other.
In the first part four pages are of one family and two of others; in the second one page is a twin,
the same page of an organisation with another name. It is made in ``outputs/pretrain-reranker``;
``--ship`` puts it into ``assets/tiny-reranker``.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder, MultiVectorEncoder
from sentence_transformers.base.modules import Dense
from sentence_transformers.cross_encoder import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling

from tiny_vdr.plan import LATER
from tiny_vdr.report_batches import FAMILY, draw_family, with_twins
from tools.pretrain_late import draw_pairs, draw_rows
from vdr_helpers.profiles import assets_folder, load_profile, outputs_folder
from vdr_helpers.training import use_matrix_product

BATCH = 16  # queries, each with six pages
CARD = """# The tiny reranker

A `CrossEncoder` that reads a query and a page in one input and gives the pair one number: the network of `assets/tiny-late`, its last
token, and a layer. Stored in half precision.

- **For**: notebook 09. It reads generated pages only and is of no use on real documents.
- **Made by** `python -m tools.pretrain_reranker` in two parts, {first} and {second} batches of {batch} queries of
  `tiny_vdr/report_batches.py`, each with six pages, with `MultipleNegativesRankingLoss`: first its own, the {siblings} others of its
  family and two of other families; then its own, the {siblings} others, the same page of another organisation, and one of another family.
- No data of people or organisations: every name and figure is invented. Licence: Apache-2.0.
"""


def with_siblings(rows: dict[str, list]) -> dict[str, list]:
    """Columns of queries and pages, with the other pages of a row's family as ``sibling_1`` and so
    on; rows come family after family.
    """
    pages = rows["image"]
    columns = {"query": rows["query"], "page": pages}
    for k in range(1, FAMILY):
        columns[f"sibling_{k}"] = [
            pages[i - i % FAMILY + (i + k) % FAMILY] for i in range(len(pages))
        ]
    return columns


def family_rows(folder: Path, count: int, seed: int) -> Dataset:
    """``count`` queries with their page and its siblings."""
    return Dataset.from_dict(with_siblings(draw_pairs(folder, count, seed).to_dict()))


def twin_rows(folder: Path, count: int, seed: int) -> Dataset:
    """As :func:`family_rows`, every family followed by its twins; the page's own is one column
    more.
    """
    rng, both = random.Random(f"reranker-{seed}"), 2 * FAMILY
    rows = draw_rows(
        folder, count, rng, lambda: with_twins(rng, LATER, draw_family(rng, LATER, FAMILY))
    )
    pages = rows["image"]
    twins = [pages[i - i % both + (i + FAMILY) % both] for i in range(len(pages))]
    return Dataset.from_dict(with_siblings(rows) | {"twin": twins})


@dataclass(frozen=True)
class Part:
    """One part: how its rows are drawn, how many batches, how fast, and how many of the six pages
    are of other families.
    """

    draw: Callable[[Path, int, int], Dataset]
    steps: int
    learning_rate: float
    others: int


PARTS = (Part(family_rows, 800, 5e-4, others=2), Part(twin_rows, 1000, 4e-4, others=1))


def start_reranker(start: Path, seed: int = 0) -> CrossEncoder:
    """The network of the late-interaction model in ``start`` with a new layer that gives a pair one
    number.
    """
    settings = load_profile("tiny").model_kwargs
    network = MultiVectorEncoder(str(start), device="cpu", model_kwargs=settings)[0]
    torch.manual_seed(seed)
    width = network.get_embedding_dimension()
    names = {"module_input_name": "sentence_embedding", "module_output_name": "scores"}
    head = Dense(width, 1, activation_function=torch.nn.Identity(), **names)
    return CrossEncoder(modules=[network, Pooling(width, pooling_mode="lasttoken"), head])


def train_part(
    model: CrossEncoder, part: Part, output: Path, seed: int = 0, batch: int = BATCH
) -> list[float]:
    """Train ``model`` on ``part`` and save it in ``output``; returns the losses, a mean of twenty
    steps each.
    """
    use_matrix_product(model)
    model.model_card_data.generate_widget_examples = False
    loss = MultipleNegativesRankingLoss(
        model, num_negatives=part.others, scale=1.0, activation_fn=torch.nn.Identity()
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = part.draw(Path(folder), part.steps * batch, seed)
        args = CrossEncoderTrainingArguments(
            output_dir=str(Path(folder) / "run"),
            max_steps=part.steps,
            per_device_train_batch_size=batch,
            learning_rate=part.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            logging_steps=20,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=seed,
        )
        trainer = CrossEncoderTrainer(model=model, args=args, train_dataset=rows, loss=loss)
        trainer.train()
    model.half().save_pretrained(str(output), create_model_card=False)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def pretrain_reranker(output: Path) -> None:
    """Both parts, the first one's model beside ``output``; a part that is there is not repeated."""
    first = output.with_name(f"{output.name}-1")
    for part, folder, start in zip(PARTS, (first, output), (None, first), strict=True):
        if (folder / "modules.json").exists():
            continue
        if start is None:
            model = start_reranker(assets_folder() / "tiny-late")
        else:
            settings = load_profile("tiny").model_kwargs
            model = CrossEncoder(str(start), device="cpu", model_kwargs=settings)
        print(train_part(model, part, folder))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.pretrain_reranker", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--ship", action="store_true", help="put the model into the assets")
    options = parser.parse_args()
    folder = outputs_folder() / "pretrain-reranker"
    pretrain_reranker(folder)
    steps = [part.steps for part in PARTS]
    card = CARD.format(first=steps[0], second=steps[1], batch=BATCH, siblings=FAMILY - 1)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if options.ship:
        shipped = assets_folder() / "tiny-reranker"
        shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(folder, shipped)


if __name__ == "__main__":
    main()
