"""What fine-tuning on one's own documents gains and forgets, over seeds: ``python -m
benchmarks.own_documents`` (about 15 minutes on two cores).

Runs notebook 08's own cells, up to the first results, once for each training seed and for each
number of old rows mixed in, and writes ``assets/measured/own_documents.json`` (with another
profile, its name behind that): a line for batches of several documents and one for batches of one.
The documents, the queries, the split and the mined negatives are the same in every run; the seed
changes the order of the training rows. ``--resume`` keeps the runs of an interrupted one. The start
is the tuned model that notebook 08 starts from.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

from benchmarks.notebook_cells import code_cells, first_with, run_silently
from benchmarks.where import measured_file, where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.profiles import load_profile

SEEDS = (0, 1, 2)
MIXED = (0, 1)  # old rows per own row
# what the first and the last cell of the training hold
SETTING, SCORES = ("old_per_own = 0", "results[plan] = all_scores(")


def means(found: dict) -> dict[str, float]:
    """``{task: mean NDCG@10 of the page vectors}`` of one model's results."""
    return {task: round(float(of["page vectors"].mean()), 4) for task, of in found.items()}


def main() -> None:
    import IPython.display

    IPython.display.display = lambda *shown, **settings: None
    profile = load_profile()
    file = measured_file("own_documents", profile)
    sources = code_cells("08")
    first, last = (first_with(sources, text) for text in (SETTING, SCORES))
    before, training = sources[:first], sources[first : last + 1]
    space: dict = {"__name__": "own_documents", "display": IPython.display.display}
    run_silently(before, space)
    result = {
        "what": f"{profile.name} profile, notebook 08's own cells",
        **where_measured(),
        "own rows": len(space["own_rows"]),
        "runs": [],
    }
    found = {}
    if file.exists() and "--resume" in sys.argv:
        found = json.loads(file.read_text(encoding="utf-8"))
    # interrupted: the same versions and rows
    if {name: found.get(name) for name in result if name != "runs"} == {
        name: value for name, value in result.items() if name != "runs"
    }:
        result = found
    done = {(run["old rows per own row"], run["seed"]) for run in result["runs"]}
    todo = [(mixed, seed) for mixed in MIXED for seed in SEEDS if (mixed, seed) not in done]
    for mixed, seed in todo:
        started = time.perf_counter()
        space |= {"profile": replace(profile, seed=seed)}
        space |= {"model": space["load_start"]()}
        run_silently(
            [source.replace(SETTING, f"old_per_own = {mixed}") for source in training], space
        )
        result["start"] = means(space["results"]["start"])
        for plan in space["plans"]:
            kind = {"batches of": plan, "old rows per own row": mixed, "seed": seed}
            result["runs"].append(kind | means(space["results"][plan]))
            print(result["runs"][-1], f"{time.perf_counter() - started:.0f} s", flush=True)
        atomic_write(file, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
