"""What the tiny profile shows, over several training seeds: ``python -m benchmarks.tiny_seeds``
(about ten minutes on two cores).

Trains as notebook 03 does, without the evaluations in between, scores base and tuned model as
notebook 05 does, and writes ``assets/measured/tiny_seeds.json`` with versions and device. The
README's table and the notebooks' bands come from that file.
"""

from __future__ import annotations

import json
import statistics

from benchmarks.recipe import load_base, score, train
from benchmarks.where import where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.profiles import assets_folder, load_profile
from vdr_helpers.splits import load_split

SEEDS = (0, 1, 2)


def main() -> None:
    quiet_progress_bars()
    profile = load_profile("tiny")
    train_dataset, _ = load_split(profile, "train")
    eval_dataset, _ = load_split(profile, "eval")
    base = score(load_base(profile), profile, eval_dataset)
    widest, narrowest = profile.matryoshka_dims[0], profile.matryoshka_dims[-1]
    print("base", {dim: round(value, 4) for dim, value in base.items()}, flush=True)
    runs = []
    for seed in SEEDS:
        model, seconds = train(profile, train_dataset, seed)
        scores = score(model, profile, eval_dataset)
        runs.append({"seed": seed, "train_seconds": round(seconds, 1), "ndcg_at_10": scores})
        print(
            seed,
            f"{seconds:.0f} s",
            {dim: round(value, 4) for dim, value in scores.items()},
            flush=True,
        )
    full = [run["ndcg_at_10"][widest] for run in runs]
    result = {
        "what": "tiny profile, training seeds as listed; trained without intermediate evaluations",
        **where_measured(),
    }
    result |= {
        "base_ndcg_at_10": base,
        "base_kept_at_smallest": base[narrowest] / base[widest],
        "runs": runs,
        "tuned_mean": statistics.mean(full),
        "tuned_spread": max(full) - min(full),
        "gain_smallest": min(full) - base[widest],
        "kept_at_smallest": [
            run["ndcg_at_10"][narrowest] / run["ndcg_at_10"][widest] for run in runs
        ],
    }
    atomic_write(
        assets_folder() / "measured" / "tiny_seeds.json", json.dumps(result, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
