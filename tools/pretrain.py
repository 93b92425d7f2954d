"""Make the base model of the ``tiny`` profile from random weights: ``make pretrain``, at most two
hours on two cores. ``python -m tools.pretrain --profile reports`` makes that profile's from it, in
about an hour of one core.

Runs :func:`tiny_vdr.pretrain.pretrain`, scores the result on the profile's 300 queries and 1,500
pages, and writes its card. A run that was stopped goes on where it was. ``--ship`` puts the result
into ``assets``; CONTRIBUTING.md says what follows from it. The splits of a profile are notebook
02's: run it first.
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

PARTS = {"tiny": (READING,), "reports": (REPORTS, TWINS)}
CARD = """# The tiny base model

`Qwen3VLModel` with `Qwen3VLProcessor` behind `Transformer`, `Pooling(lasttoken)` and `Normalize`: the classes of
`Qwen/Qwen3-VL-Embedding-2B` with {weights:,} weights instead of two billion, {width} dimensions per embedding, stored in half precision.

- **For**: learning how fine-tuning works on two CPU cores. It reads generated pages only and is of no use on real documents.
- **Made by** `make pretrain` from random weights: {steps:,} batches of 32 pages, seed {seed}, {minutes:.0f} minutes on {machine}, which
  other work shared. The schedule is in `tiny_vdr/pretrain.py`, the log of the losses in `pretrain_log.json`; at the end the model
  found the right page among 32, most of them near-duplicates, in {accuracy:.0%} of the cases.
- **Trained on** pages drawn by `tiny_vdr/batches.py`: five layouts, shared and invented words. Two layouts, and the words and phrasings
  marked `held_out` in `tiny_vdr/vocabulary.py`, were never shown.
- **Loss**: contrastive between queries and pages, of the whole vector and of its first dimensions (`Qwen3-VL-Embedding` was trained with
  Matryoshka dimensions as well), and two that teach reading: which words a page or query names, which characters an image token shows.
- **NDCG@10** on the course's {queries} queries and {pages:,} pages, measured by the command that made it:

| dimensions | {dims} |
|---|{rule}|
| NDCG@10 | {scores} |

- No data of people or organisations: every name and figure is invented. Licence: Apache-2.0.
"""
REPORTS_CARD = """# The base model of the profile `reports`

The tiny base model (`assets/tiny-base`), trained further on a corpus where the text of a page is not enough: {weights:,} weights,
{width} dimensions per embedding, stored in half precision.

- **For**: the profile `reports` (docs/phenomena.md). It reads generated pages only and is of no use on real documents.
- **Made by** `python -m tools.pretrain --profile reports` from the tiny base, in two parts: {steps:,} batches of 32 pages in all, seed
  {seed}, {minutes:.0f} minutes on {machine}, which other work shared. In the second part every family of pages stands in a batch twice,
  at two organisations, and more weight lies on the first 8 dimensions. At the end the model found the right page among 32, three
  siblings of it and their four twins among them, in {accuracy:.0%} of the cases.
- **Trained on** pages and queries of `tiny_vdr/report_batches.py`: synonyms, shapes of charts and German words beside the words of the
  pages. A second synonym of every other subject, every other German word, a phrasing of each shape, one layout and the words marked
  `held_out` in `tiny_vdr/vocabulary.py` were never shown.
- **Loss**: as the tiny base's; the caption loss names the shape of a chart too.
- **NDCG@10** on the profile's {queries} queries and {pages:,} pages, measured by the command that made it:

| dimensions | {dims} |
|---|{rule}|
| NDCG@10 | {scores} |

- No data of people or organisations: every name and figure is invented. Licence: Apache-2.0.
"""
CARDS = {"tiny": CARD, "reports": REPORTS_CARD}


def score(folder: Path, name: str) -> tuple[dict[int, float], int, int, int]:
    """``({dimension: NDCG@10}, queries, pages, weights)`` of the model in ``folder`` on the eval
    split of the profile ``name``.
    """
    profile = replace(load_profile(name), model_folder=str(folder))
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


def made_in(name: str) -> list[Path]:
    """The folders of a profile's parts of pre-training, the last one's model being the base."""
    last = outputs_folder() / ("pretrain" if name == "tiny" else f"pretrain-{name}")
    before = range(1, len(PARTS[name]))
    return [last.with_name(f"{last.name}-{number}") for number in before] + [last]


def run_parts(name: str, steps: int | None, seed: int) -> Path:
    """Run the parts of pre-training that have not run; returns the folder of the base, whose log
    holds all parts.
    """
    start, whole = None if name == "tiny" else assets_folder() / "tiny-base", []
    for number, (part, folder) in enumerate(zip(PARTS[name], made_in(name), strict=True), start=1):
        file = folder / "pretrain_log.json"
        if file.exists():
            log = json.loads(file.read_text(encoding="utf-8"))
        else:
            log = pretrain(folder, steps, seed=seed, part=part, start=start)
        whole += [{"part": number} | row for row in log if row.get("part", number) == number]
        start = folder
    file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return folder


def write_card(folder: Path, name: str, seed: int, machine: str) -> None:
    """Score the model in ``folder`` and write its ``README.md`` from the scores and the log."""
    log = json.loads((folder / "pretrain_log.json").read_text(encoding="utf-8"))
    scores, queries, pages, weights = score(folder, name)
    ends = {row["part"]: row for row in log}.values()  # the last row of each part
    card = CARDS[name].format(
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
    parser.add_argument("--profile", choices=PARTS, default="tiny")
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
    name = options.profile
    folder = made_in(name)[-1]
    if not (folder / "README.md").exists():
        run_parts(name, options.steps, options.seed)
        write_card(folder, name, options.seed, options.machine)
    if options.ship:
        shipped = assets_folder() / f"{name}-base"
        shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(folder, shipped)
        print(f"assets/{shipped.name} is this model now; CONTRIBUTING.md lists what to make anew")


if __name__ == "__main__":
    main()
