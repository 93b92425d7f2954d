"""Does a reranker of the tiny size pay when it trains longer? ``python -m benchmarks.rerank
[ROWS:SEED:NEGATIVES ...]``.

Runs the cells of notebook 09 themselves, down to its table, with other numbers of train rows and
other seeds than the profile's, on its tuned model and data; a row is five pairs of query and page,
read once. NEGATIVES: ``stored`` or ``mined``. Writes what they find to
``assets/measured/rerank.json`` after every run and keeps the runs that are there already (with
another profile, its name behind that); delete the file after a change of base or corpus. 1,536 rows
take about six minutes of one core.
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
from vdr_helpers.profiles import load_profile

LAST = "def with_interval("  # the cell after which everything is known that is kept
DEFAULT = ("240:0:stored", "240:0:mined", "1536:0:stored")


def measure(rows: int, seed: int, negatives: str) -> dict:
    """One run of the notebook's cells with ``rows`` train rows: NDCG@10 of each way at the deepest
    k, over all eval queries.
    """
    if negatives not in ("stored", "mined"):
        raise SystemExit(f"negatives are stored or mined, not {negatives}")
    quiet_progress_bars()
    profile = replace(load_profile(), reranker_rows=rows, seed=seed)
    cells = code_cells("09")
    cells = [
        source.replace('"negative": stored', f'"negative": {negatives}')
        for source in cells[1 : first_with(cells, LAST) + 1]
    ]
    # the setup cell would load the profile as it is
    space, started = ({"profile": profile, "__name__": "__main__"}, time.perf_counter())
    run_silently(cells, space)
    deepest, alone = space["depths"][-1], space["alone"]
    after = {way: space["per_query"][way, deepest] for way in ("reranker", "sum")}
    low, high = space["interval"](after["sum"] - alone)
    return {
        "pairs": space["pairs_read"],
        "seed": seed,
        "negatives": negatives,
        "loss": space["losses"][-1],
        "embedding": alone.mean(),
        "reranker": after["reranker"].mean(),
        "weight": space["weight"],
        "sum": after["sum"].mean(),
        "sum_minus_embedding": (after["sum"] - alone).mean(),
        "low": low,
        "high": high,
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }


def key(run: dict) -> tuple:
    return run["negatives"] == "stored", run["pairs"], run["seed"]


def main(asked: list[str]) -> None:
    profile = load_profile()
    file = measured_file("rerank", profile)
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else []
    for one in asked or DEFAULT:
        rows, seed, negatives = one.split(":")
        found = measure(int(rows), int(seed), negatives)
        print(found, flush=True)
        runs = sorted([run for run in runs if key(run) != key(found)] + [found], key=key)
        what = f"{profile.name} profile, notebook 09's cells with more train rows, "
        what += "first ten pages reranked, all eval queries"
        atomic_write(
            file, json.dumps({"what": what, **where_measured(), "runs": runs}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
