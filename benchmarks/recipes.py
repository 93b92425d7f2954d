"""Two ways to run one experiment: ``python -m benchmarks.recipes`` (about thirteen minutes on two
CPU cores with the tiny profile).

**published**: the training script of the model card as its facts describe it: original pages, one
page per forward pass (``mini_batch_size=1``, evaluation ``batch_size=1``), ``NO_DUPLICATES`` on
decoded pages, an evaluation-loss pass beside the evaluator, seven evaluators at the end.
**course**: notebook 03: presized pages, token-budget mini-batches, keys, one encoding for seven
dimensions.

Model, rows, seed and steps are the same. Each run is a process of its own, the two kinds alternate,
and the losses and metrics must agree before a ratio is printed. Writes
``benchmarks/results/recipes_<profile>.json`` and a figure beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import recipe_data, recipe_runs
from benchmarks.where import where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.gpu import present_gpu
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.profiles import load_profile

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 5e-3  # of a loss or a metric: rounding may swap two pages of nearly equal score
PARTS = {
    "data path": "rows read, decoded and made into features, one batch",
    "sampler": "all batches of one epoch of --epoch-rows rows drawn",
    "step": "forward and backward pass of one batch, data ready",
    "one evaluation": "the evaluator once, at the full width",
    "seven dimensions": "NDCG@10 at all seven dimensions",
    "whole run": "base evaluation, training with its evaluations, seven dimensions",
}


def run_worker(recipe: str, options: argparse.Namespace, data: Path) -> dict:
    """One run of one recipe in a process of its own; its figures as a dictionary. Raises
    ``RuntimeError`` with its last lines.
    """
    command = [sys.executable, "-m", "benchmarks.recipes", "--worker", recipe, "--data", str(data)]
    command += ["--batch-size", str(options.batch_size), "--parts-only"][
        : 3 if options.parts_only else 2
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"the {recipe} run failed:\n" + done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def agreement(runs: dict[str, list[dict]]) -> dict[str, float]:
    """The largest difference of any training loss and of any metric between the two recipes, over
    all runs.

    Raises ``ValueError`` when one exceeds ``TOLERANCE`` (losses: relative): then the two did not
    run the same experiment.
    """
    worst = {"loss": 0.0, "metric": 0.0}
    reference = runs["published"][0]
    for run in runs["published"] + runs["course"]:
        if len(run["losses"]) != len(reference["losses"]):
            raise ValueError("the recipes logged different numbers of steps")
        for mine, other in zip(run["losses"], reference["losses"], strict=True):
            worst["loss"] = max(worst["loss"], abs(mine - other) / abs(other))
        for dim, score in run["ndcg_at_10"].items():
            worst["metric"] = max(worst["metric"], abs(score - reference["ndcg_at_10"][dim]))
    if max(worst.values()) > TOLERANCE:
        raise ValueError(f"the recipes disagree: {worst}, tolerance {TOLERANCE}")
    return worst


def table(runs: dict[str, list[dict]]) -> list[dict]:
    """One row per part: median seconds of each recipe, their ratio, and the range of the ratio over
    pairs of runs.
    """
    rows = []
    for part in PARTS:
        if any(part not in run["seconds"] for kind in runs.values() for run in kind):
            continue
        ratios = [
            a["seconds"][part] / b["seconds"][part]
            for a, b in zip(runs["published"], runs["course"], strict=True)
        ]
        seconds = {
            name: statistics.median(run["seconds"][part] for run in kind)
            for name, kind in runs.items()
        }
        rows.append(
            {
                "part": part,
                **seconds,
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        )
    return rows


def draw(rows: list[dict], device: str):
    """Bars of the ratios, one per part, with their values."""
    from vdr_helpers.figures import TUNED, new_figure

    figure, axis = new_figure(height=2.9)
    names, ratios = [row["part"] for row in rows][::-1], [row["ratio"] for row in rows][::-1]
    axis.barh(names, ratios, color=TUNED)
    for place, ratio in enumerate(ratios):
        axis.annotate(
            f"{ratio:.1f}x", (ratio, place), xytext=(4, -3), textcoords="offset points", fontsize=9
        )
    axis.set(
        xscale="log",
        xlim=(0.7, max(ratios) * 2.5),
        xlabel=f"times faster than the published recipe (log scale), {device}",
    )
    axis.grid(axis="x", color="#e6e8eb")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=96, help="training rows")
    parser.add_argument("--eval-rows", type=int, default=30, help="queries; five pages each")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--epoch-rows", type=int, default=1000, help="rows that the sampler draws batches from"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--page-size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="scale the generated pages to this",
    )
    parser.add_argument("--parts-only", action="store_true", help="leave the whole run out")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder of the JSON file and the figure"
    )
    parser.add_argument(
        "--worker", choices=("published", "course", "corpus"), help=argparse.SUPPRESS
    )
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_progress_bars()
    profile = load_profile()
    if options.worker:
        print(
            json.dumps(
                recipe_runs.work(
                    options.worker,
                    profile,
                    options.data,
                    options.batch_size,
                    not options.parts_only,
                )
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"train": options.rows, "eval": options.eval_rows, "epoch": options.epoch_rows}
        presize_seconds = recipe_data.make_data(profile, Path(folder), sizes, options.page_size)
        print(f"data ready; presizing took {presize_seconds:.1f} s, once", flush=True)
        runs: dict[str, list[dict]] = {"published": [], "course": []}
        for repeat in range(options.repeats):
            for name in runs:
                runs[name].append(run_worker(name, options, Path(folder)))
                print(
                    repeat + 1,
                    name,
                    {part: round(value, 2) for part, value in runs[name][-1]["seconds"].items()},
                    flush=True,
                )
        corpus_ram = run_worker("corpus", options, Path(folder))
    rows = table(runs)
    device = present_gpu().name
    result = {
        "what": "the published recipe and the course's, same model, rows, seed and steps; medians over alternating runs",
        "profile": profile.name,
        **where_measured(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "settings": {
            name: getattr(options, name)
            for name in ("rows", "eval_rows", "epoch_rows", "batch_size", "repeats", "page_size")
        },
        "largest_difference": agreement(runs) if not options.parts_only else None,
        "parts": rows,
        "seven_dimensions_over_one": {
            name: statistics.median(
                run["seconds"]["seven dimensions"] / run["seconds"]["one evaluation"]
                for run in kind
            )
            for name, kind in runs.items()
        },
        "page_encodes": {name: kind[0]["page_encodes"] for name, kind in runs.items()},
        "peak_ram_gib": {
            name: statistics.median(run["peak_ram_gib"] for run in kind)
            for name, kind in runs.items()
        },
        "corpus_ram": corpus_ram,
        "presize_seconds": presize_seconds,
    }
    options.output.mkdir(exist_ok=True)
    atomic_write(
        options.output / f"recipes_{profile.name}.json", json.dumps(result, indent=1) + "\n"
    )
    draw(rows, device).savefig(options.output / f"recipes_{profile.name}.png", facecolor="white")
    for row in rows:
        print(
            f"{row['part']:<18} {row['published']:>9.3f} s {row['course']:>9.3f} s "
            f"{row['ratio']:>8.1f}x ({row['lowest']:.1f} to {row['highest']:.1f})"
        )
    print(
        {
            name: result[name]
            for name in (
                "largest_difference",
                "seven_dimensions_over_one",
                "page_encodes",
                "peak_ram_gib",
                "corpus_ram",
            )
        }
    )


if __name__ == "__main__":
    main()
