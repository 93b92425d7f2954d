"""What is known of real models, measured on the profile ``tiny``:
``python -m benchmarks.phenomena`` (about two hours of one core).

Notebook 02 has to have run, and ``tools.pretrain_late --ship``. Each training run is notebook 03's
with one thing changed, mostly over three seeds, scored on the 300 queries and 1,500 pages, by kind
of query. Writes ``assets/measured/phenomena.json`` after every run and measures only what is not
there, so that an interrupted command goes on where it was; with a new base or corpus, delete the
file first. ``python -m benchmarks.phenomena NAME ...`` measures these
runs anew. What notebooks 04 and 05 read of it is written beside it (:mod:`benchmarks.kept`).
``docs/phenomena.md`` holds the table, ``assets/phenomena.toml`` what is known and what is expected.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial

import bm25s
import numpy
from datasets import Dataset
from PIL.Image import Image, Resampling
from scipy.stats import rankdata

from benchmarks.kept import USUAL, keep_embeddings, keep_scores
from benchmarks.late_interaction import Collection, one_epoch
from benchmarks.recipe import load_base, matryoshka, train
from benchmarks.where import where_measured
from tiny_vdr.pages import draw_page
from tiny_vdr.plan import plan_rows, write_german_query
from tiny_vdr.sheet import Page
from vdr_helpers.cache import atomic_write
from vdr_helpers.evaluation import ndcg_at_10
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.profiles import PROFILES, Profile, assets_folder, load_profile
from vdr_helpers.published import read_asset
from vdr_helpers.splits import chosen_rows, load_split

SEEDS = (0, 1, 2)
LATE, PLAIN = "late interaction", "without MatryoshkaLoss"
SCANS = (0.15, 0.2, 0.25, 0.3, 0.4, 1.0)  # of a page's height and width; the processor keeps 0.4
# Share of the train rows whose hard negative shows the answer too. Of the best ranked passages that
# MS MARCO does not mark as right, about 70 % were found to be right (RocketQA, arXiv:2010.08191).
PLANTED = 0.5
FUSION_K = 60  # of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)
LORA = read_asset("gpu_memory.json")["lora"]  # rank 32, of the Qwen3-VL-Embedding report
# The same share of the model's width: 32 of 2,048 are 4 of 256.
SMALL_LORA = LORA | {"r": 4, "lora_alpha": 4}


def without_matryoshka(profile: Profile, model, inner):
    return inner


@dataclass(frozen=True)
class Run:
    """Notebook 03's training with one thing changed."""

    changes: dict = field(default_factory=dict)  # of the profile
    arguments: dict = field(default_factory=dict)  # of training, beside notebook 03's
    columns: str = "one hard negative"  # which pages a row has: see training_rows
    wrap: Callable = matryoshka
    seeds: tuple[int, ...] = SEEDS


RUNS = {
    USUAL: Run(),
    "without the hard negative": Run(columns="no hard negative"),
    "batches of 16": Run(changes={"per_device_train_batch_size": 16}),
    # as many rows a step as notebook 03, but a query meets the pages of 16 rows instead of 64
    "batches of 16, four a step": Run(
        changes={"per_device_train_batch_size": 16}, arguments={"gradient_accumulation_steps": 4}
    ),
    "without the hard negative, batches of 16, four a step": Run(
        changes={"per_device_train_batch_size": 16},
        arguments={"gradient_accumulation_steps": 4},
        columns="no hard negative",
    ),
    "false negatives planted": Run(columns="false negatives"),
    "the page's text instead of its picture": Run(columns="text", seeds=(0,)),
    "LoRA, ten times the learning rate": Run(
        changes={"adapters": (LORA,), "learning_rate": PROFILES["tiny"].adapter_learning_rate},
        seeds=(0,),
    ),
    "LoRA, the same learning rate": Run(changes={"adapters": (LORA,)}, seeds=(0,)),
    "LoRA of rank 4, ten times the learning rate": Run(
        changes={
            "adapters": (SMALL_LORA,),
            "learning_rate": PROFILES["tiny"].adapter_learning_rate,
        }
    ),
    PLAIN: Run(wrap=without_matryoshka, seeds=(0, 42)),
    "two of the seven dimensions per step": Run(
        wrap=partial(matryoshka, n_dims_per_step=2), seeds=(0,)
    ),
    "four hard negatives": Run(columns="four hard negatives", seeds=(0,)),
}


# The data


class Evaluation:
    """The eval split of the profile with what its plan knows: kinds of queries, exact texts."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.plan = plan_rows(**profile.corpus)
        self.chosen = chosen_rows(profile, "eval")
        rows = [self.plan[row[0]] for row in self.chosen]
        self.queries = [row.query for row in rows]
        self.kinds = numpy.array([row.kind for row in rows])
        self.pages = [self.plan[number].page for row in self.chosen for number in row[:5]]
        self.right = numpy.arange(len(rows)) * 5

    @cached_property
    def german(self) -> list[str | None]:
        """Each query that names a year once more, in German; ``None`` where a shape is asked."""
        rng = random.Random(0)
        rows = [self.plan[row[0]] for row in self.chosen]
        return [
            None if row.kind == "shape" else write_german_query(rng, row.page, row.asked, False)
            for row in rows
        ]

    @cached_property
    def files(self) -> list[str]:
        names = ["image", *(f"negative_{i}" for i in range(4))]
        return [row[name] for row in load_split(self.profile, "eval")[0] for name in names]

    @cached_property
    def texts(self) -> list[str]:
        return [text_of(page) for page in self.pages]

    @cached_property
    def by_text(self) -> numpy.ndarray:
        """BM25 of every query on every page's text: shape (queries, pages)."""
        settings = {"stopwords": None, "return_ids": False, "show_progress": False}
        retriever = bm25s.BM25()
        retriever.index(bm25s.tokenize(self.texts, **settings), show_progress=False)
        asked = [
            [word for word in words if word in retriever.vocab_dict]
            for words in bm25s.tokenize(self.queries, **settings)
        ]
        return numpy.stack([retriever.get_scores(words) for words in asked])


@cache
def text_of(page: Page) -> str:
    """The large type of a page, exactly: what an OCR program without errors would read."""
    return " ".join(line[0] for line in draw_page(page)[1])


def training_rows(profile: Profile, evaluation: Evaluation, columns: str) -> Dataset:
    """The train split with other pages in a row."""
    dataset = load_split(profile, "train")[0]
    chosen = chosen_rows(profile, "train")
    if columns == "no hard negative":
        return dataset.remove_columns(["negative_0"])
    if columns == "four hard negatives":
        full = load_split(profile, "full")[0].select(range(len(chosen)))
        return full.filter(lambda row: row["negative_3"] is not None)
    if columns == "text":
        pairs = [[text_of(evaluation.plan[number].page) for number in row[:2]] for row in chosen]
        right, wrong = zip(*pairs, strict=True)
        return Dataset.from_dict(
            {"query": dataset["query"], "text": list(right), "negative_0": list(wrong)}
        )
    if columns == "false negatives":
        return plant_false_negatives(profile, dataset, chosen, evaluation)
    return dataset


def plant_false_negatives(profile: Profile, dataset: Dataset, chosen, evaluation) -> Dataset:
    """The train split in which :data:`PLANTED` of the hard negatives show what is asked for, drawn
    anew.
    """
    rng, folder = random.Random(0), profile.output_dir / "phenomena"
    folder.mkdir(parents=True, exist_ok=True)
    negatives = list(dataset["negative_0"])
    for i in rng.sample(range(len(negatives)), k=round(PLANTED * len(negatives))):
        page = replace(evaluation.plan[chosen[i][0]].page, seed=rng.randrange(2**31))
        negatives[i] = str(folder / f"planted-{i}.png")
        draw_page(page)[0].save(negatives[i])
    return dataset.remove_columns(["negative_0"]).add_column("negative_0", negatives)


# Scores


def ndcg_of(similarities: numpy.ndarray, right: numpy.ndarray) -> numpy.ndarray:
    """NDCG@10 of each query with one right page; among pages of the same score, the mean over
    their order.
    """
    own = similarities[numpy.arange(len(right)), right][:, None]
    first = (similarities > own).sum(axis=1) + 1
    last = (similarities >= own).sum(axis=1)
    spans = zip(first, last, strict=True)
    return numpy.array([ndcg_at_10(numpy.arange(low, high + 1)).mean() for low, high in spans])


def by_kind(values: numpy.ndarray, kinds: numpy.ndarray) -> dict[str, float]:
    return {"all": mean(values)} | {
        str(kind): mean(values[kinds == kind]) for kind in sorted(set(kinds))
    }


def mean(values) -> float:
    return round(float(numpy.mean(values)), 4)


def fuse(*scores: numpy.ndarray) -> numpy.ndarray:
    """Reciprocal rank fusion of score matrices: equal scores share the mean of their ranks, a score
    of zero by BM25 has no rank.
    """
    fused = numpy.zeros(scores[0].shape)
    for matrix in scores:
        rank = rankdata(-matrix, method="average", axis=1)
        fused += numpy.where(matrix != 0, 1 / (FUSION_K + rank), 0)
    return fused


def unit(vectors: numpy.ndarray) -> numpy.ndarray:
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def score(model, evaluation: Evaluation, of_text: bool = False) -> dict:
    """Everything the table needs of one model: NDCG@10 by kind, by dimensions, in German,
    quantized, fused with text search.
    """
    profile, right = evaluation.profile, evaluation.right
    settings = {"batch_size": profile.encode_batch_size, "convert_to_numpy": True}
    queries = model.encode_query(evaluation.queries, **settings)
    pages = model.encode_document(evaluation.texts if of_text else evaluation.files, **settings)
    similarities = queries @ pages.T
    ndcg = ndcg_of(similarities, right)
    found = {"ndcg_at_10": by_kind(ndcg, evaluation.kinds)}
    rank = (similarities >= similarities[numpy.arange(len(right)), right][:, None]).sum(axis=1)
    found |= {"accuracy_at_1": mean(rank == 1), "recall_at_10": mean(rank <= 10)}
    found["by_dimensions"] = {
        str(dim): mean(ndcg_of(unit(queries[:, :dim]) @ unit(pages[:, :dim]).T, right))
        for dim in profile.matryoshka_dims
    }
    there = numpy.array([text is not None for text in evaluation.german])
    german = model.encode_query([text for text in evaluation.german if text], **settings)
    found["german"] = mean(ndcg_of(german @ pages.T, right[there]))
    found["the_same_in_english"] = mean(ndcg[there])
    signs = numpy.sign(queries) @ numpy.sign(pages).T
    found["binary"] = mean(ndcg_of(signs, right))
    largest = abs(pages).max()  # as notebook 07 does it: the pages alone, one scale for all
    codes = numpy.round(pages / largest * 127).astype(numpy.int8)
    found["int8"] = mean(ndcg_of(queries @ codes.T.astype(numpy.float32), right))
    found["fused_with_bm25"] = mean(ndcg_of(fuse(similarities, evaluation.by_text), right))
    return found


def resolution(model, evaluation: Evaluation) -> dict[str, float]:
    """NDCG@10 where pages were scanned at a share of their height and width, then brought back to
    the size that the model knows; queries as they are.
    """
    settings = {"batch_size": evaluation.profile.encode_batch_size, "convert_to_numpy": True}
    queries = model.encode_query(evaluation.queries, **settings)
    scores = {}
    for share in SCANS:
        pages = [scan(draw_page(page)[0], share) for page in evaluation.pages]
        similarities = queries @ model.encode_document(pages, **settings).T
        scores[str(share)] = mean(ndcg_of(similarities, evaluation.right))
    return scores


def scan(page: Image, share: float) -> Image:
    """A page with the detail of ``share`` of its height and width."""
    small = page.resize((round(page.width * share), round(page.height * share)), Resampling.BOX)
    return small.resize(page.size, Resampling.BICUBIC)


def text_search(evaluation: Evaluation) -> dict:
    """BM25 on the exact text of every page."""
    ndcg = ndcg_of(evaluation.by_text, evaluation.right)
    return {"ndcg_at_10": by_kind(ndcg, evaluation.kinds)}


def measure(profile: Profile, evaluation: Evaluation, run: Run, seed: int) -> dict:
    """Train and score one run with one seed."""
    changed = replace(profile, seed=seed, **run.changes)
    rows = training_rows(profile, evaluation, run.columns)
    model, seconds = train(changed, rows, seed, run.wrap, **run.arguments)
    found = score(model, evaluation, of_text=run.columns == "text")
    if run == RUNS[USUAL] and seed == SEEDS[0]:
        found["resolution"] = resolution(model, evaluation)
    if run == RUNS[PLAIN] and seed == profile.seed:
        keep_embeddings(model, changed, rows)
    return {"train_seconds": round(seconds, 1), **found}


def late_interaction(profile: Profile, start: str) -> dict:
    """One epoch of notebook 10's model from ``start``: NDCG@10 on all queries, and on the monitored
    ones by how many vectors of a page are pooled into one.
    """
    train_dataset, eval_dataset = (load_split(profile, name)[0] for name in ("train", "eval"))
    monitored = Collection(profile, eval_dataset.select(range(profile.monitor_rows)))
    everything = Collection(profile, eval_dataset)
    run = one_epoch(profile, "late", start, train_dataset, monitored, everything)
    pooled = {str(factor): round(kept["ndcg_at_10"], 4) for factor, kept in run["pooled"].items()}
    return {"seed": profile.seed, "ndcg_at_10": mean(run["per_query"]), "pooled": pooled}


# The command


def main(names: list[str]) -> None:
    unknown = set(names) - {*RUNS, LATE}
    if unknown:
        known = ", ".join([*RUNS, LATE])
        raise SystemExit(f"unknown run {', '.join(sorted(unknown))}: there are {known}")
    quiet_progress_bars()
    profile = load_profile("tiny")
    evaluation = Evaluation(profile)
    file = assets_folder() / "measured" / "phenomena.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"runs": {}}
    result |= {
        "what": "profile tiny, one thing changed at a time, trained without evaluations",
        **where_measured(),
    }
    for name in names:
        result["runs"].pop(name, None)  # measured anew
    if "base" not in result:
        base = load_base(profile)
        result["text_search"] = text_search(evaluation)
        result["base"] = score(base, evaluation)
        result["base"]["resolution"] = resolution(base, evaluation)
    for name in [name for name in names if name in RUNS] if names else RUNS:
        for seed in RUNS[name].seeds:
            done = result["runs"].setdefault(name, {})
            if str(seed) not in done:
                done[str(seed)] = measure(profile, evaluation, RUNS[name], seed)
                atomic_write(file, json.dumps(result, indent=1) + "\n")
            print(f"{name:<40} seed {seed}", done[str(seed)]["ndcg_at_10"], flush=True)
    if LATE in names or (not names and "late_interaction" not in result):
        result["late_interaction"] = late_interaction(profile, profile.late_start)
        atomic_write(file, json.dumps(result, indent=1) + "\n")
        print(LATE, result["late_interaction"], flush=True)
    keep_scores(result)


if __name__ == "__main__":
    main(sys.argv[1:])
