"""A command of Python in a process of its own that finds the large libraries imported already, by
``multiprocessing``'s fork server.

Importing PyTorch and the libraries on it takes about ten seconds each time. Not for a test about a
fresh interpreter, nor about a variable that a library reads while it is imported:
``HF_HUB_OFFLINE`` is set here.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

LIBRARIES = [
    "datasets",
    "IPython",
    "ipywidgets",
    "matplotlib.backends.backend_agg",
    "nbformat",
    "pandas",
    "peft",
    "scipy.stats",
    "sentence_transformers.sentence_transformer.evaluation",
    "sentence_transformers.sentence_transformer.losses",
    "sentence_transformers.sentence_transformer.trainer",
    "torchvision",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "transformers.models.qwen3_vl.processing_qwen3_vl",
]
SERVER = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # a forked thread pool would hang
    "TOKENIZERS_PARALLELISM": "false",
}


def run(
    arguments: list[str], *, env: dict, cwd: Path | str | None = None, input: str = ""
) -> subprocess.CompletedProcess:
    """``python *arguments``: a script, ``-m module`` or ``-c code``, and what follows it; its
    output comes back as text.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=env, cwd=cwd, input=input, capture_output=True, text=True
        )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with mock.patch.dict(os.environ, SERVER):
        forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: Path(folder, name) for name in ("stdin", "stdout", "stderr")}
        streams["stdin"].write_text(input, encoding="utf-8")
        settings = (arguments, dict(env), str(cwd or Path.cwd()), streams)
        process = context.Process(target=become, args=settings)
        process.start()
        try:
            process.join()
        finally:
            process.kill()  # where a test's time limit ended the wait
        said = [streams[name].read_text(encoding="utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(arguments, process.exitcode, *said)


def become(arguments: list[str], env: dict, cwd: str, streams: dict[str, Path]) -> None:
    """Be ``python *arguments`` from here on; what this raises ends the process as it would end
    Python.
    """
    gc.freeze()  # the collector leaves alone what the server imported
    sys.stdin = streams["stdin"].open(encoding="utf-8")
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(streams[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    kind, *rest = arguments
    if kind == "-m":
        sys.path.insert(0, cwd)
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path.insert(0, cwd)
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(kind).resolve().parent))
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")
