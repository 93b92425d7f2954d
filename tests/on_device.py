"""A course on the device of ``off_cpu.py``: notebooks' cells one by one, with what each raised and
the bytes that it left there.

``python tests/on_device.py '<job as JSON>'`` prints one JSON line per cell; :func:`run_course`
calls it. Python's own garbage collector is off: what only it would let go counts as kept, unless a
cell collects.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import cells
import IPython.display
import warm

# What is made small in a profile after the setup cell has decided for the real one: pages of nine
# tokens, several passes a batch.
SMALL = {"max_pixels": 96 * 96, "mini_batch_num_tokens": 240, "dataloader_num_workers": 0}
# Name, compute capability and GiB of the GPU that the setup cell finds: all weights in bfloat16,
# LoRA in float16, all weights in float32.
GPUS = {
    "A100": ("NVIDIA A100-SXM4-80GB", (8, 0), 79.0),
    "T4": ("Tesla T4", (7, 5), 14.6),
    "RTX 8000": ("Quadro RTX 8000", (7, 5), 47.5),
}


def run_course(numbers: list[str], outputs: Path, gpu: str, **environment: str) -> list[dict]:
    """Run notebooks in order; returns a dictionary for every cell that ran: ``notebook``, ``cell``
    (code cells from 1), ``source``, ``error`` (empty, or its last lines), ``kept`` and ``peak`` in
    bytes on the device.

    ``gpu``: a name in :data:`GPUS`. A notebook ends at its first error, the course goes on. Raises
    ``RuntimeError`` when the process itself fails.
    """
    job = {"numbers": numbers, "outputs": str(outputs), "gpu": GPUS[gpu]}
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VDR_OUTPUTS": str(outputs)}
    run = warm.run([__file__, json.dumps(job)], env=os.environ | settings | environment)
    if run.returncode:
        raise RuntimeError(run.stderr[-3000:])
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def pretend(name: str, capability: list[int], memory_gib: float) -> None:
    """Have the setup cell decide for this GPU, and make small what it decided."""
    from vdr_helpers import gpu, machine

    found, decide = gpu.Gpu(name, tuple(capability), memory_gib), machine.fit_to_gpu
    machine.fit_to_gpu = lambda profile: replace(decide(profile, found), **SMALL)


def run_notebook(number: str, device, report) -> None:
    """Execute one notebook's cells in ``__main__``, as a kernel does; ``report`` is a file that
    gets a JSON line per cell.
    """
    space = vars(sys.modules["__main__"])
    IPython.display.display = space["display"] = lambda *shown, **settings: None
    for i, source in enumerate(cells.edited_sources(number), start=1):
        device.bytes_peak, error = device.bytes_now, ""
        try:
            exec(
                compile(cells.as_python(source), f"notebook {number}, code cell {i}", "exec"), space
            )
        except Exception:
            error = traceback.format_exc()[-1500:]
        row = {"notebook": number, "cell": i, "source": source, "error": error}
        row |= {"kept": device.bytes_now, "peak": device.bytes_peak}
        print(json.dumps(row), file=report, flush=True)
        if error:
            return


def main() -> None:
    from off_cpu import insert_device

    cells.go_quickly()
    job, device = json.loads(sys.argv[1]), insert_device()
    pretend(*job["gpu"])
    outputs = Path(job["outputs"])
    outputs.mkdir(parents=True, exist_ok=True)
    os.chdir(outputs)
    report = sys.stdout
    gc.disable()
    for number in job["numbers"]:

        def work(number=number) -> None:
            log = (outputs / "log.txt").open("a")
            with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                run_notebook(number, device, report)

        if cells.fork(outputs, work):
            raise SystemExit((outputs / "log.txt").read_text()[-3000:])


if __name__ == "__main__":
    main()
