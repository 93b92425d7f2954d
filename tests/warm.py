"""A Python that has imported everything heavy once: what would be a process of its own is a fork of it.

:func:`run` stands in for ``subprocess.run`` of ``python script``, ``python -m module`` and ``python -c code``: again a process with an
environment, a folder and an end of its own, without the ten seconds that importing PyTorch and the libraries on it takes each time.
Not for a test about a fresh interpreter or about a variable that a library reads while it is imported: ``HF_HUB_OFFLINE`` is set here.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

FLAGS = {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY | os.O_APPEND, "stderr": os.O_WRONLY | os.O_APPEND}


class Server:
    """The other end of :func:`serve`: ``ask`` sends a job and waits for its answer, ``end`` waits until its process is gone."""

    def __init__(self, requests, answers, wait) -> None:
        self.requests, self.answers, self.wait = requests, answers, wait

    def end(self) -> None:
        self.requests.close()
        self.wait()

    def ask(self, job: dict):
        self.requests.write(json.dumps(job) + "\n")
        self.requests.flush()
        answer = self.answers.readline()
        if not answer:
            raise RuntimeError("the process that has everything imported has ended: its message stands above")
        return json.loads(answer)


def run(
    arguments: list[str], *, env: dict, cwd: Path | str | None = None, input: str = "", children: bool = False
) -> subprocess.CompletedProcess:
    """``python *arguments`` in a fork; what it prints comes back as text, as ``subprocess.run(..., capture_output=True)`` gives it.

    ``children``: what it starts itself is forked too, where it is Python, by ``subprocess.run`` or as the kernel of a notebook.
    """
    if not hasattr(os, "fork"):
        return subprocess.run([sys.executable, *arguments], env=env, cwd=cwd, input=input, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: Path(folder, name) for name in FLAGS}
        for name, file in streams.items():
            file.write_text(input if name == "stdin" else "", encoding="utf-8")
        job = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd()), "wait": True, "children": children}
        try:
            status = server().ask(job | {name: str(file) for name, file in streams.items()})
        except BaseException:  # a time limit: the server still waits for this job, so the next one gets another server
            STARTED.clear()
            raise
        said = [streams[name].read_text(encoding="utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(arguments, status, *said)


STARTED: list[Server] = []


def server() -> Server:
    """The one of this test run, started when it is first asked for."""
    if not STARTED:
        one_thread = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # a forked thread pool would hang
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, __file__], env=os.environ | one_thread | {"HF_HUB_OFFLINE": "1"}, **pipes)
        STARTED.append(Server(process.stdin, process.stdout, lambda: end_of(process)))
        atexit.register(STARTED[0].end)
    return STARTED[0]


def end_of(process: subprocess.Popen) -> None:
    """Wait for a server that has been told to end; one that waits for a job which never does is killed after a minute."""
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def fork_server() -> Server:
    """A server that is a fork of this process, for a process that has everything imported itself."""
    there, requests = os.pipe()
    answers, back = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(requests)
        os.close(answers)
        serve(os.fdopen(there), os.fdopen(back, "w"))
        os._exit(0)
    os.close(there)
    os.close(back)
    return Server(os.fdopen(requests, "w"), os.fdopen(answers), lambda: os.waitpid(process, 0))


class Process:
    """``python -m module`` in a fork that is not waited for: as much of ``subprocess.Popen`` as ``jupyter_client`` asks of a kernel.

    ``children``: as for :func:`run`. ``output``: a file that is there and to which it writes.
    """

    stdin = stdout = stderr = returncode = None

    def __init__(
        self, command: list[str], env: dict | None = None, cwd: str | None = None, children: bool = False, output=os.devnull, **_
    ) -> None:
        job = {"arguments": command[command.index("-m") :], "env": dict(env or os.environ), "cwd": str(cwd or Path.cwd())}
        streams = {"stdin": os.devnull, "stdout": str(output), "stderr": str(output)}
        self.pid = server().ask(job | streams | {"wait": False, "children": children})

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = server().ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout=None) -> int:
        while self.poll() is None:
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_children() -> None:
    """From here on, what this process starts as ``sys.executable`` is a fork."""
    from jupyter_client.provisioning import local_provisioner

    plain = subprocess.run
    STARTED[:] = [fork_server()]

    def run_child(command, **options):
        if command[0] != sys.executable:
            return plain(command, **options)
        return run(command[1:], env=options.get("env") or os.environ, cwd=options.get("cwd"))

    subprocess.run, local_provisioner.launch_kernel = run_child, Process


def become(job: dict) -> int:
    """Be ``python *arguments`` from here on; returns its exit status, after a message on stderr if need be. Called in a fork."""
    os.environ.clear()
    os.environ.update(job["env"])
    for number, (name, flags) in enumerate(FLAGS.items()):
        os.dup2(os.open(job[name], flags), number)
    for number, name in enumerate(FLAGS):  # closefd: the stream that is replaced here may stand on the same number
        errors = "backslashreplace" if name == "stderr" else "strict"
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", errors=errors, closefd=False))  # noqa: SIM115
    kind, *rest = job["arguments"]
    try:
        os.chdir(job["cwd"])
        if job["children"]:
            fork_children()
        if kind in ("-m", "-c"):
            sys.path.insert(0, job["cwd"])
            sys.argv = rest if kind == "-m" else ["-c", *rest[1:]]
            if kind == "-m":
                runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            else:
                exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path.insert(0, str(Path(kind).parent))
            sys.argv = [kind, *rest]
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        if job["children"] and STARTED:
            STARTED.pop().end()
    return 0


def serve(requests, answers) -> None:
    """Answer one JSON line for each: the exit status of a job that is waited for, else its process; ``{"poll": process}`` its status."""
    for line in requests:
        job = json.loads(line)
        if "poll" in job:
            process, status = os.waitpid(job["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if process else None
        elif (process := os.fork()) == 0:
            status = 1
            try:
                if not job["wait"]:
                    os.setpgid(0, 0)
                status = become(job)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        elif job["wait"]:
            answer = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        else:
            os.setpgid(process, process)  # here too: whoever asks for the group next must not find the old one
            answer = process
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def import_everything() -> None:
    """What notebooks and the tests' scripts import, and what the libraries would import when a model is first loaded or trained."""
    import datasets
    import IPython
    import ipywidgets
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import nbformat
    import pandas
    import peft
    import scipy.stats
    import sentence_transformers.sentence_transformer.evaluation
    import sentence_transformers.sentence_transformer.losses
    import torchvision
    import transformers.models.qwen3_vl.modeling_qwen3_vl
    import transformers.models.qwen3_vl.processing_qwen3_vl
    from sentence_transformers import SentenceTransformerTrainer


if __name__ == "__main__":
    import_everything()
    gc.freeze()  # a fork's garbage collector leaves alone what was there before it, which took a third of a second each time
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    serve(requests, answers)
