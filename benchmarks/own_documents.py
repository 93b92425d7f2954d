"""What fine-tuning on one's own documents gains and forgets, over seeds: ``python -m
benchmarks.own_documents`` (about 15 minutes on two cores).

Runs notebook 08's own cells on the ``tiny`` profile, up to the first results, once for each
training seed and for each number of old rows mixed in, and writes
``assets/measured/own_documents.json``. The documents, the queries, the split and the mined
negatives are the same in every run; the seed changes the order of the training rows. ``--resume``
keeps the runs of an interrupted one. The start is the tuned model that notebook 08 starts from.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

from benchmarks.notebook_cells import code_cells, first_with, run_silently
from benchmarks.where import where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.profiles import assets_folder, load_profile

FILE = assets_folder() / "measured" / "own_documents.json"
SEEDS = (0, 1, 2)
MIXED = (0, 1)  # old rows per own row
# what the first and the last cell of the training hold
SETTING, SCORES = ("old_per_own = 0", 'scores["tuned"] =')


def main() -> None:
    import IPython.display

    IPython.display.display = lambda *shown, **settings: None
    sources = code_cells("08")
    first, last = (first_with(sources, text) for text in (SETTING, SCORES))
    before, training = sources[:first], sources[first : last + 1]
    space: dict = {"__name__": "own_documents", "display": IPython.display.display}
    run_silently(before, space)
    start = space["scores"]["start"]
    result = {
        "what": "tiny profile, notebook 08's own cells, training seeds as listed; NDCG@10",
        **where_measured(),
    }
    result |= {
        "queries": {task: len(values) for task, values in start.items()},
        "own rows": len(space["own_rows"]),
    }
    result |= {
        "start": {task: round(float(values.mean()), 4) for task, values in start.items()},
        "runs": [],
    }
    found = (
        json.loads(FILE.read_text(encoding="utf-8"))
        if FILE.exists() and "--resume" in sys.argv
        else {}
    )
    # interrupted: the same versions, rows, queries and start
    if result | {"runs": 0} == found | {"runs": 0}:
        result["runs"] = found["runs"]
    there = [(run["old rows per own row"], run["seed"]) for run in result["runs"]]
    for mixed, seed in (
        (mixed, seed) for mixed in MIXED for seed in SEEDS if (mixed, seed) not in there
    ):
        space["profile"], started = replace(load_profile("tiny"), seed=seed), time.perf_counter()
        run_silently(
            [source.replace(SETTING, f"old_per_own = {mixed}") for source in training], space
        )
        tuned = {
            task: round(float(values.mean()), 4)
            for task, values in space["scores"]["tuned"].items()
        }
        run = {
            "old rows per own row": mixed,
            "seed": seed,
            "steps": space["trainer"].state.global_step,
            **tuned,
        }
        result["runs"].append(run)
        print(run, f"{time.perf_counter() - started:.0f} s", flush=True)
        atomic_write(FILE, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
