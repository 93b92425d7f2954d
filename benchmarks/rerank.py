"""Does a reranker of the tiny size pay, and behind which first stage? ``python -m benchmarks.rerank
[ROWS:SEED:START ...]``.

Runs the cells of notebook 09 themselves, down to their scores, with other numbers of train rows,
other seeds of the training and another start than the profile's, on its tuned model and data; a row
is five pairs of query and page, read once. START: ``pretrained``, the profile's reranker, or
``base``, the base with a new last layer. Writes what they find to ``assets/measured/rerank.json``
after every run and keeps the runs that are there already (with another profile, its name behind
that); delete the file after a change of base, reranker or corpus. 1,536 rows take about seven
minutes of one core.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

from benchmarks.notebook_cells import code_cells, first_with, run_silently
from benchmarks.where import measured_file, where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.profiles import Profile, load_profile

FIRST = "def start_reranker("  # from this cell on the reranker is made and trained
LAST = "per_query = {}"  # the cell after which everything is known that is kept
DEFAULT = (
    "240:0:pretrained",
    "240:1:pretrained",
    "240:2:pretrained",
    "1024:0:pretrained",
    "1536:0:base",
)
# a new last layer learns faster than a reranker that is trained already can be changed
BASE_LEARNING_RATE = 5e-4


def profile_of(start: str, rows: int) -> Profile:
    """The profile of the environment with ``rows`` train rows for the reranker, from ``start``."""
    profile = replace(load_profile(), reranker_rows=rows)
    if start == "pretrained" and profile.reranker_start:
        return profile
    if start != "base":
        raise SystemExit(f"the start is base, or pretrained where the profile has one: {start}")
    without = {"reranker_name": None, "reranker_folder": None}
    return replace(profile, **without, reranker_learning_rate=BASE_LEARNING_RATE)


def measure(rows: int, seed: int, start: str) -> dict:
    """One run of the notebook's cells with ``rows`` train rows: NDCG@10 of each way at the deepest
    k, over all eval queries, behind each first stage.
    """
    quiet_progress_bars()
    profile, cells, started = profile_of(start, rows), code_cells("09"), time.perf_counter()
    first, last = (first_with(cells, text) for text in (FIRST, LAST))
    # the setup cell would load the profile as it is
    space = {"profile": profile, "__name__": "__main__"}
    run_silently(cells[1:first], space)
    # only now: the tuned model and its embeddings have a seed of their own
    space["profile"] = replace(profile, seed=seed)
    run_silently(cells[first : last + 1], space)
    return {
        "start": start,
        "rows": space["trained_rows"],
        "pairs": space["pairs_read"],
        "seed": seed,
        "learning_rate": profile.reranker_learning_rate,
        "loss": space["losses"][-1],
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "first_stages": {str(width): first_stage(space, width) for width in space["widths"]},
    }


def first_stage(space: dict, width: int) -> dict:
    """What the cells found behind the first stage of ``width`` dimensions."""
    per_query, deepest = space["per_query"], space["depths"][-1]
    alone, reranker, both = (
        per_query[width, way, k] for way, k in (("sum", 0), ("reranker", deepest), ("sum", deepest))
    )
    low, high = space["evaluation"].interval(both - alone)
    return {
        "embedding": alone.mean(),
        "reranker": reranker.mean(),
        "weight": space["chosen"][width][0],
        "sum": both.mean(),
        "sum_minus_embedding": (both - alone).mean(),
        "low": low,
        "high": high,
    }


def key(run: dict) -> tuple:
    return run["start"] != "pretrained", run["rows"], run["seed"]


def main(asked: list[str]) -> None:
    profile = load_profile()
    file = measured_file("rerank", profile)
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else []
    for one in asked or DEFAULT:
        rows, seed, start = one.split(":")
        found = measure(int(rows), int(seed), start)
        print(found, flush=True)
        runs = sorted([run for run in runs if key(run) != key(found)] + [found], key=key)
        what = f"{profile.name} profile, notebook 09's cells, first ten pages reranked, "
        what += "all eval queries"
        atomic_write(
            file, json.dumps({"what": what, **where_measured(), "runs": runs}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
