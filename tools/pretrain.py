"""Make the base model of the ``tiny`` profile from random weights: ``make pretrain``, at most three
hours on two cores.

Runs the three parts of :mod:`tiny_vdr.pretrain` one after the other, scores the result on the
profile's 300 queries and 1,500 pages, and writes its card. A run that was stopped goes on where it
was. ``--ship`` puts the result into ``assets``; CONTRIBUTING.md says what follows from it. The
splits are notebook 02's: run it first.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from tiny_vdr.pretrain import READING, REPORTS, TWINS, pretrain
from vdr_helpers.evaluation import retrieval_inputs
from vdr_helpers.profiles import assets_folder, load_profile, outputs_folder
from vdr_helpers.splits import load_split
from vdr_helpers.training import cosine_at

PARTS = (READING, REPORTS, TWINS)
CARD = """# The tiny base model

`Qwen3VLModel` with `Qwen3VLProcessor` behind `Transformer`, `Pooling(lasttoken)` and `Normalize`: the classes of
`Qwen/Qwen3-VL-Embedding-2B` with {weights:,} weights instead of two billion, {width} dimensions per embedding, stored in half precision.

- **For**: learning how fine-tuning works on two CPU cores. It reads generated pages only and is of no use on real documents.
- **Made by** `make pretrain` from random weights in three parts: {steps:,} batches of 32 pages in all, seed {seed}, {minutes:.0f} minutes
  on {machine}, which other work shared. The schedule is in `tiny_vdr/pretrain.py`, the log of the losses in `pretrain_log.json`.
- **Trained on** generated pages: first to read them (`tiny_vdr/batches.py`), then to tell the pages of one report and charts of one subject
  apart, with synonyms, shapes of charts and German words in the queries (`tiny_vdr/report_batches.py`). In the last part every family of
  pages stands in a batch twice, at two organisations, and more weight lies on the first 8 dimensions.
- **Never shown**: the words, names and phrasings marked `held_out` in `tiny_vdr/vocabulary.py`, a second synonym of every other subject,
  every other German word, a phrasing of each shape; two layouts in the first part, one in the others.
- **Loss**: contrastive between queries and pages, of the whole vector and of its first dimensions (`Qwen3-VL-Embedding` was trained with
  Matryoshka dimensions as well), and two that teach reading: which words and which shape of a chart a page or query names, which
  characters an image token shows.
- **At the end** it found the right page among 32, three siblings of it and their four twins among them, in {accuracy:.0%} of the cases.
- **NDCG@10** on the course's {queries} queries and {pages:,} pages, measured by the command that made it:

| dimensions | {dims} |
|---|{rule}|
| NDCG@10 | {scores} |

- No data of people or organisations: every name and figure is invented. Licence: Apache-2.0.
"""


def score(folder: Path) -> tuple[dict[int, float], int, int, int]:
    """``({dimension: NDCG@10}, queries, pages, weights)`` of the model in ``folder`` on the eval
    split.
    """
    profile = replace(load_profile("tiny"), model_folder=str(folder))
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=profile.model_kwargs)
    queries, corpus, relevant_docs, _ = retrieval_inputs(load_split(profile, "eval")[0])
    dims = profile.matryoshka_dims
    by_width = cosine_at(dims)
    evaluator = InformationRetrievalEvaluator(
        queries,
        corpus,
        relevant_docs,
        score_functions=by_width,
        batch_size=profile.encode_batch_size,
    )
    found = evaluator(model)
    scores = {dim: found[f"{name}_ndcg@10"] for dim, name in zip(dims, by_width, strict=True)}
    return scores, len(queries), len(corpus), sum(weight.numel() for weight in model.parameters())


def made_in() -> list[Path]:
    """The folders of the parts of pre-training, the last one's model being the base."""
    last = outputs_folder() / "pretrain"
    return [last.with_name(f"pretrain-{part}") for part in range(1, len(PARTS))] + [last]


def run_parts(steps: int | None, seed: int) -> Path:
    """Run the parts of pre-training that have not run; returns the folder of the base, whose log
    holds all parts.
    """
    start, whole = None, []
    for number, (part, folder) in enumerate(zip(PARTS, made_in(), strict=True), start=1):
        file = folder / "pretrain_log.json"
        if file.exists():
            log = json.loads(file.read_text(encoding="utf-8"))
        else:
            log = pretrain(folder, steps, seed=seed, part=part, start=start)
        whole += [{"part": number} | row for row in log if row.get("part", number) == number]
        start = folder
    file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return folder


def write_card(folder: Path, seed: int, machine: str) -> None:
    """Score the model in ``folder`` and write its ``README.md`` from the scores and the log."""
    log = json.loads((folder / "pretrain_log.json").read_text(encoding="utf-8"))
    scores, queries, pages, weights = score(folder)
    ends = {row["part"]: row for row in log}.values()  # the last row of each part
    card = CARD.format(
        weights=weights, width=max(scores), steps=sum(row["step"] for row in ends),
        minutes=sum(row["minutes"] for row in ends), machine=machine, seed=seed,
        accuracy=sum(row["accuracy"] for row in log[-10:]) / 10, queries=queries, pages=pages, dims=" | ".join(map(str, scores)),
        rule="---|" * (len(scores) - 1) + "---", scores=" | ".join(f"{value:.3f}" for value in scores.values()),
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(card)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.pretrain", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--steps", type=int, help="batches of 32 pages in each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--machine",
        default=f"two cores ({platform.machine()})",
        help="how the card names the machine",
    )
    parser.add_argument(
        "--ship", action="store_true", help="put the finished model into the assets"
    )
    options = parser.parse_args()
    folder = made_in()[-1]
    if not (folder / "README.md").exists():
        run_parts(options.steps, options.seed)
        write_card(folder, options.seed, options.machine)
    if options.ship:
        shipped = assets_folder() / "tiny-base"
        shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(folder, shipped)
        print(f"assets/{shipped.name} is this model now; CONTRIBUTING.md lists what to make anew")


if __name__ == "__main__":
    main()
