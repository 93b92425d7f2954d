"""Choices that change the maths, measured on tiny: ``python -m benchmarks.choices`` (about twenty
minutes on two cores).

Each is one training run of notebook 03 with one thing changed, same seed and same rows, scored as
notebook 05 does. One seed tells large effects from none; differences of the size of
``tiny_seeds.json``'s spread say nothing. Writes ``assets/measured/choices.json`` after every run,
so that an interrupted command keeps what it has. ``python -m benchmarks.choices NAME ...`` measures
these choices anew and keeps the others. The model of ``SHIPPED`` also leaves its embeddings of the
eval split in ``assets/measured``, for notebook 05.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial

from safetensors.torch import save

from benchmarks.recipe import load_base, matryoshka, score, train
from benchmarks.where import where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.evaluation import CONTROL, control_settings, retrieval_inputs
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.profiles import Profile, assets_folder, load_profile
from vdr_helpers.published import read_asset
from vdr_helpers.splits import load_split

LORA = read_asset("gpu_memory.json")["lora"]
# name: (fields of the profile that differ, columns left out, how the contrastive loss is wrapped)
CHOICES = {
    "as notebook 03 trains": ({}, (), matryoshka),
    "without the hard negative": ({}, ("negative_0",), matryoshka),
    "without MatryoshkaLoss": ({}, (), lambda profile, model, inner: inner),
    "two of the seven dimensions per step": ({}, (), partial(matryoshka, n_dims_per_step=2)),
    "LoRA on the language model": ({"adapters": (LORA,)}, (), matryoshka),
    "LoRA, ten times the learning rate": (
        {"adapters": (LORA,), "learning_rate": 7e-3},
        (),
        matryoshka,
    ),
    "half the batch (twice the steps)": ({"per_device_train_batch_size": 32}, (), matryoshka),
    "pages of 160 x 160 pixels": ({"max_pixels": 160 * 160}, (), matryoshka),
}
SHIPPED = "without MatryoshkaLoss"  # the third curve of notebook 05


def keep_embeddings(model, profile: Profile, rows, evaluation) -> None:
    """Queries and pages of the eval split as ``model`` encodes them, in float16, with their
    settings.
    """
    queries, corpus, *_ = retrieval_inputs(evaluation)
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
    atomic_write(
        assets_folder() / CONTROL, save(halves, metadata={"settings": json.dumps(made_with)})
    )


def measure(profile: Profile, name: str) -> dict:
    """Train and score one choice; returns its seconds, its scores, and the base's scores where the
    change touches the base too.
    """
    changes, left_out, wrap = CHOICES[name]
    changed = replace(profile, **changes)
    rows = load_split(profile, "train")[0].remove_columns(list(left_out))
    evaluation = load_split(profile, "eval")[0]
    model, seconds = train(changed, rows, profile.seed, wrap)
    result = {"train_seconds": round(seconds, 1), "ndcg_at_10": score(model, changed, evaluation)}
    if name == SHIPPED:
        keep_embeddings(model, changed, rows, evaluation)
    if changed.max_pixels != profile.max_pixels:
        result["base_ndcg_at_10"] = score(load_base(changed), changed, evaluation)
    return result


def main(names: list[str]) -> None:
    unknown = set(names) - set(CHOICES)
    if unknown:
        raise SystemExit(
            f"unknown choice {', '.join(sorted(unknown))}: there are {', '.join(CHOICES)}"
        )
    quiet_progress_bars()
    profile = load_profile("tiny")
    file = assets_folder() / "measured" / "choices.json"
    result = {
        "what": f"tiny profile, seed {profile.seed}, one thing changed at a time, trained without intermediate evaluations",
        **where_measured(),
        "choices": json.loads(file.read_text(encoding="utf-8"))["choices"] if names else {},
    }
    for name in names or CHOICES:
        result["choices"][name] = measure(profile, name)
        atomic_write(file, json.dumps(result, indent=1) + "\n")
        scores = result["choices"][name]["ndcg_at_10"]
        print(f"{name:<40}", {dim: round(value, 3) for dim, value in scores.items()}, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
