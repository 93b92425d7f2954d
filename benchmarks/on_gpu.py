"""Prove the GPU path in at most nine minutes: ``python -m benchmarks.on_gpu``.

Nothing is downloaded: the 2B architecture gets random weights, pages of the published size are
drawn. The parts run in the order of their value, each in a process of its own with its own time
limit. Into ``outputs/receipts`` go a receipt, which takes the place of computed figures in the
setup cell, the README and notebooks 00 and a2; a line of JSON per result; and what was printed.
Where there is no GPU the same parts run with small weights, in two minutes, and replace nothing.
Needs Linux, 40 GB of free disk and the packages of Part I.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

# name, function of gpu_parts or gpu_steps, its arguments, its most seconds; in this order
PARTS = [
    ("machine", "machine", (), 60),
    ("weights", "weights", (), 90),
    ("notebook 01", "notebook", ("01",), 40),
    ("notebook 03", "notebook", ("03",), 150),
    ("notebook 05", "notebook", ("05",), 60),
    ("notebook 04", "notebook", ("04",), 60),
    ("course", "course", (), 60),
    ("published", "published", (), 120),
    ("lora", "lora", (), 45),
    ("gradients", "gradients", (), 60),
    ("encoding", "encoding", (), 60),
    ("float32", "float32", (), 45),
    ("resume", "resume", (), 90),
    ("budgets", "budgets", (), 120),
]
DATA = ("data", "data", (), 300)  # beside the first ones; the others wait for it
WITHOUT_DATA = ("weights", "notebook 01")
TOTAL = 540  # seconds; what is not begun by then is left out
LEAST = 10  # seconds: a part with fewer left is not begun
LIBRARIES = (
    "sentence-transformers transformers torch torchvision datasets accelerate peft numpy".split()
)


class Results:
    """The lines that the parts write, and the receipt made of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"on-gpu-{time.strftime('%Y%m%d-%H%M%S')}"
        self.lines, self.log = folder / f"{stem}.jsonl", folder / f"{stem}.log"
        self.receipt = folder / f"{stem}.json"
        self.lines.touch()

    def note(self, part: str, **found) -> None:
        """Add a line at once; floats keep four digits."""
        line = {"part": part} | found
        rounded = json.loads(
            json.dumps(line, default=str), parse_float=lambda x: float(f"{float(x):.4g}")
        )
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")

    def read(self, part: str | None = None) -> list[dict]:
        lines = map(json.loads, self.lines.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if part in (None, line["part"])]

    def write_receipt(self, profile) -> None:
        """What ``vdr_helpers.gpu.read_receipts`` takes, a summary, and every line beside it."""
        from vdr_helpers.cache import atomic_write
        from vdr_helpers.published import read_asset

        lines, facts = self.read(), read_asset("gpu_memory.json")
        model = facts["models"][str(profile.matryoshka_dims[0])]
        receipt = {"gpu": next(line["gpu"] for line in lines if "gpu" in line)}
        receipt |= {"date": time.strftime("%Y-%m-%d"), "versions": versions(), "model": model}
        receipt["runs"] = [line for line in lines if "trains" in line]
        receipt["summary"] = summary(lines, facts if model == facts["models"]["2048"] else None)
        atomic_write(self.receipt, json.dumps(receipt | {"lines": lines}, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version()} | found


def summary(lines: list[dict], facts: dict | None) -> dict:
    """Seconds of a step by both recipes, their ratio, and the floor: the operations of a step
    (``facts``: of the 2B model) at the speed of matrix products measured in the same run.
    """
    seconds = {line["recipe"]: line["seconds_per_step"] for line in lines if "recipe" in line}
    found = {f"{recipe} step, seconds": value for recipe, value in seconds.items() if value}
    if len(found) == 2:
        found["published over course"] = seconds["published"] / seconds["course"]
    speed = [line["matrix_tflops"] for line in lines if "matrix_tflops" in line]
    if facts and speed and seconds.get("course"):
        cost = facts["operations"]
        # of each row two pages and a query; forward twice, and backward, which costs two more
        row = 2 * 4 * (cost["language"] + cost["vision"]) + 4 * cost["query"]
        found["floor, seconds"] = facts["rows"] * row / (speed[0] * 1e12)
        found["course over floor"] = seconds["course"] / found["floor, seconds"]
    for line in lines:
        if "evaluation_seconds" in line:
            found["evaluation, seconds"] = line["evaluation_seconds"]
    return {name: round(value, 3) for name, value in found.items()}


def work(results: Results, part: str, function: str, arguments: tuple) -> None:
    """What a part's process does; it leads a process group, so that all of it can be ended."""
    os.setsid()
    with results.log.open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    from benchmarks import gpu_parts, gpu_steps

    if part == DATA[0]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    module = gpu_parts if hasattr(gpu_parts, function) else gpu_steps
    try:
        getattr(module, function)(*arguments, lambda **found: results.note(part, **found))
    except Exception as error:
        results.note(part, error=f"{type(error).__name__}: {error}"[:500])
        raise  # its place in the code stands in the log


def start(results: Results, part: tuple):
    """The process of a part."""
    process = get_context("fork").Process(target=work, args=(results, *part[:3]))
    process.start()
    return process


def finish(results: Results, part: str, process, seconds: float) -> bool:
    """Wait for a part, end it and all that it started when its time is over; says how it ended."""
    started = time.monotonic()
    process.join(max(0.0, seconds))
    outcome = {None: "out of time", 0: "ok"}.get(process.exitcode, "failed")
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    results.note(part, outcome=outcome, waited_seconds=time.monotonic() - started)
    print(f"{part}: {outcome}", *map(brief, results.read(part)), sep="\n  ", flush=True)
    return outcome == "ok"


def brief(line: dict) -> str:
    """A result on one line of the terminal."""
    return json.dumps({name: value for name, value in line.items() if name != "part"})[:300]


def run(results: Results, names: list[str], patience: float) -> None:
    """The parts of these names in order; the receipt grows with them.

    Raises ``SystemExit`` where the machine itself cannot be examined.
    """
    end = time.monotonic() + TOTAL * patience
    if not finish(results, "machine", start(results, PARTS[0]), PARTS[0][3] * patience):
        raise SystemExit(f"see {results.log}")
    small = next(line["gpu"] for line in results.read() if "gpu" in line)["capability"] is None
    os.environ["VDR_PROFILE"] = "rehearsal-small" if small else "rehearsal"
    from vdr_helpers.profiles import load_profile

    profile, making = load_profile(), start(results, DATA)
    try:
        for part in PARTS[1:]:
            name, seconds = part[0], part[3] * patience
            if name not in ("weights", *names):
                continue
            if making and name not in WITHOUT_DATA:
                finish(results, "data", making, min(DATA[3] * patience, end - time.monotonic()))
                making = None
            left = end - time.monotonic()
            if left < LEAST:
                results.note(name, outcome="left out", seconds_left=left)
            else:
                finish(results, name, start(results, part), min(seconds, left))
            results.write_receipt(profile)
    finally:
        if making and making.is_alive():
            os.killpg(making.pid, signal.SIGKILL)


def main(arguments: list[str] | None = None) -> None:
    names = [part[0] for part in PARTS[1:]]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.on_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder of the results, not outputs/receipts")
    slow = "times the nine minutes and every part's limit; default: 1"
    parser.add_argument("--patience", type=float, default=1.0, metavar="FACTOR", help=slow)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        metavar="PART",
        help=f"of: {', '.join(names)}",
    )
    asked = parser.parse_args(arguments)
    os.environ |= {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]  # a trainer would take them all
    from benchmarks import gpu_parts, gpu_steps  # noqa: F401  imported once, for all processes
    from vdr_helpers.machine import quiet_progress_bars
    from vdr_helpers.profiles import outputs_folder

    quiet_progress_bars()
    results = Results(asked.out or outputs_folder() / "receipts")
    outputs_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outputs_folder(), prefix="on-gpu-") as folder:
        os.environ["VDR_OUTPUTS"] = folder
        run(results, asked.only, asked.patience)
    print(f"receipt: {results.receipt}")


if __name__ == "__main__":
    main()
