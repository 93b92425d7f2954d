"""A course on the device of ``off_cpu.py``: notebooks' cells one by one, with what each raised and the bytes that it left on the card.

``python tests/on_card.py '<job as JSON>'`` prints one JSON line per cell; :func:`run_course` calls it. Python's own garbage collector is
off: what only it would let go counts as kept, unless a cell collects.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import cells
import IPython.display
import warm

from vdr_helpers.profiles import PROFILES

# What is made small in a profile after fit_to_gpu has decided for the real one: widths of the tiny model, pages of nine tokens.
SMALL = {name: getattr(PROFILES["tiny"], name) for name in ("matryoshka_dims", "truncate_dim")}
SMALL |= {"max_pixels": 96 * 96, "mini_batch_num_tokens": 120, "dataloader_num_workers": 0}


def run_course(
    numbers: list[str], outputs: Path, card: list | None = None, changes: dict | None = None, **environment
) -> list[dict]:
    """Run notebooks in order; returns a dictionary for every cell that ran: ``notebook``, ``cell`` (code cells from 1), ``source``,
    ``error`` (empty, or its last lines), ``kept`` and ``peak`` in bytes on the card, ``seconds``.

    ``card``: name, compute capability and GiB of the card that ``fit_to_gpu`` finds; :data:`SMALL` makes the profile small after it has
    decided. ``changes``: see ``cells.edited_sources``, by
    notebook. A notebook ends at its first error, the course goes on. Raises ``RuntimeError`` when the process itself fails.
    """
    job = {"numbers": numbers, "outputs": str(outputs), "card": card, "changes": changes or {}}
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VDR_OUTPUTS": str(outputs)} | environment
    run = warm.run([__file__, json.dumps(job)], env=os.environ | settings)
    if run.returncode:
        raise RuntimeError(run.stderr[-3000:])
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def run_notebook(number: str, changes: dict, card, report) -> None:
    """Execute one notebook's cells in ``__main__``, as a kernel does; ``report`` is a file that gets a JSON line per cell."""
    space = vars(sys.modules["__main__"])
    IPython.display.display = space["display"] = lambda *shown, **settings: None
    for i, source in enumerate(cells.edited_sources(number, **changes), start=1):
        card.bytes_peak, started, error = card.bytes_now, time.monotonic(), ""
        try:
            exec(compile(source, f"notebook {number}, code cell {i}", "exec"), space)
        except Exception:
            error = traceback.format_exc()[-1500:]
        row = {"notebook": number, "cell": i, "source": source, "error": error}
        row |= {"kept": card.bytes_now, "peak": card.bytes_peak, "seconds": round(time.monotonic() - started, 1)}
        print(json.dumps(row), file=report, flush=True)
        if error:
            return


def main() -> None:
    from off_cpu import insert_card

    from vdr_helpers import gpu, machine

    cells.go_quickly()
    job, card = json.loads(sys.argv[1]), insert_card()
    if job["card"]:
        name, capability, memory_gib = job["card"]
        found = gpu.Gpu(name, tuple(capability), memory_gib)
        machine.fit_to_gpu = lambda profile: replace(gpu.fit_to_gpu(profile, found), **SMALL)
    outputs = Path(job["outputs"])
    outputs.mkdir(parents=True, exist_ok=True)
    os.chdir(outputs)
    report = sys.stdout
    gc.disable()
    for number in job["numbers"]:

        def work(number=number) -> None:
            with (outputs / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                run_notebook(number, job["changes"].get(number, {}), card, report)

        if cells.fork(outputs, work):
            raise SystemExit((outputs / "log.txt").read_text()[-3000:])


if __name__ == "__main__":
    import sentence_transformers  # noqa: F401  (imported here once, so that no fork has to)
    import torchvision  # noqa: F401
    from sentence_transformers import SentenceTransformerTrainer  # noqa: F401

    main()
