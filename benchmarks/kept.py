"""What notebooks 04 and 05 read of :mod:`benchmarks.phenomena`, which writes it: scores by
dimensions of each training seed and of each choice, and the embeddings of the model that was
trained without ``MatryoshkaLoss``.
"""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset
from safetensors.torch import save

from vdr_helpers.cache import atomic_write
from vdr_helpers.evaluation import CONTROL, control_settings, retrieval_inputs
from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.splits import load_split

USUAL = "as notebook 03"
TRAINED = "trained without intermediate evaluations"
NOT_A_CHOICE = ("the page's text instead of its picture", "false negatives planted")


def by_dimensions(run: dict) -> dict:
    """Seconds of training, and NDCG@10 by dimensions."""
    return {"train_seconds": run["train_seconds"], "ndcg_at_10": run["by_dimensions"]}


def keep_scores(found: dict) -> None:
    """Write ``tiny_seeds.json`` and ``choices.json`` from the result of
    :mod:`benchmarks.phenomena`.
    """
    where = {name: found[name] for name in ("versions", "device")}
    runs, base = found["runs"], found["base"]["by_dimensions"]
    seeds = [{"seed": int(seed), **by_dimensions(run)} for seed, run in runs[USUAL].items()]
    widest = next(iter(base))
    full = [run["ndcg_at_10"][widest] for run in seeds]
    write(
        "tiny_seeds",
        {
            "what": f"tiny profile, training seeds as listed; {TRAINED}",
            **where,
            "base_ndcg_at_10": base,
            "runs": seeds,
            "tuned_spread": max(full) - min(full),
        },
    )
    write(
        "choices",
        {
            "what": f"tiny profile, seed 0, one thing changed at a time, {TRAINED}",
            **where,
            "choices": {
                name: by_dimensions(run["0"])
                for name, run in runs.items()
                if name not in NOT_A_CHOICE and "0" in run
            },
        },
    )


def write(name: str, result: dict) -> None:
    file = assets_folder() / "measured" / f"{name}.json"
    atomic_write(file, json.dumps(result, indent=1) + "\n")


def keep_embeddings(model, profile: Profile, rows: Dataset) -> Path:
    """Queries and pages of the eval split as ``model`` encodes them, in float16, with their
    settings: the third curve of notebook 05. Returns the file.
    """
    queries, corpus, *_ = retrieval_inputs(load_split(profile, "eval")[0])
    settings = {"batch_size": profile.encode_batch_size, "convert_to_tensor": True}
    made = {
        "queries": model.encode_query(list(queries.values()), **settings),
        "pages": model.encode_document(list(corpus.values()), **settings),
    }
    halves = {name: vectors.half().cpu().contiguous() for name, vectors in made.items()}
    negatives = [name for name in rows.column_names if name.startswith("negative_")]
    trained = {  # in the words of a tuned model's manifest (vdr_helpers.models.training_facts)
        "rows": f"{len(rows):,} pairs of query and page, hard negatives per pair: {len(negatives)}",
        "largest page": f"{profile.max_pixels:,} pixels",
        "trained": "LoRA, later added to the weights" if profile.adapters else "all weights",
        "number format": str(model.dtype).removeprefix("torch."),
        "learning rate": f"{profile.learning_rate:g}",
        "epochs": f"{profile.num_train_epochs:g}",
        "rows per step": str(profile.per_device_train_batch_size),
        "seed": str(profile.seed),
    }
    made_with = control_settings(profile, trained, queries, corpus)
    file = assets_folder() / CONTROL
    atomic_write(file, save(halves, metadata={"settings": json.dumps(made_with)}))
    return file
