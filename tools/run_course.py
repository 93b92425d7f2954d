"""Run the course without a browser: ``python -m tools.run_course`` (what ``make course`` calls),
Part I unless ``--part`` says otherwise.

Executes the notebooks in order, one progress line each, and leaves in ``outputs/<profile>/``:
``notebooks/`` (the executed copies, as ``.ipynb`` and ``.html``), ``index.html`` that links them,
and ``summary.json``. The notebooks themselves are not changed. It stops at the first notebook that
fails, because the later ones would take its place from what the course ships and show numbers that
are not this run's.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.where import where_measured
from tools.curriculum import extras_of, part_of
from tools.run_pages import score_rows, store_outputs, write_html, write_index
from vdr_helpers.cache import read_manifest
from vdr_helpers.evaluation import load_results
from vdr_helpers.extras import needs
from vdr_helpers.models import tuned_folder
from vdr_helpers.profiles import OUTPUTS_VARIABLE, load_profile

# What to do about an outputs folder that cannot be written.
OTHER_FOLDER = "set VDR_OUTPUTS to a folder of yours"
NO_PLACE = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST), OTHER_FOLDER
)
NO_PLACE |= dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT), "make room, or set VDR_OUTPUTS to a folder on another disk"
)


@dataclass
class Result:
    """How one notebook went: its file, how long it took, and the error that stopped it (``None``
    when it ran through).
    """

    notebook: Path
    seconds: float
    error: str | None


def find_notebooks(
    folder: Path | None = None, only: list[str] | None = None, part: str = "all"
) -> list[Path]:
    """The course's notebooks in order: from ``folder``, else from ``notebooks/`` beside the package
    or in the current folder.

    ``part`` is "1" (with the appendices), "2" or "all". ``only``, which takes no notice of it,
    keeps those whose name starts with one of the given numbers, such as ``["00", "04"]``. Raises
    ``FileNotFoundError`` when there are none, ``ValueError`` when a number in ``only`` fits no
    notebook.
    """
    beside_package = Path(__file__).resolve().parent.parent / "notebooks"
    candidates = [folder] if folder else [beside_package, Path.cwd() / "notebooks", Path.cwd()]
    for candidate in candidates:
        notebooks = sorted(candidate.resolve().glob("[0-9a][0-9]*_*.ipynb"))
        if notebooks:
            break
    else:
        looked = ", ".join(str(candidate) for candidate in candidates)
        raise FileNotFoundError(
            f"no course notebooks in {looked}: run this in a clone, or name their folder with --notebooks"
        )
    known = ", ".join(notebook.stem for notebook in notebooks)
    for number in only or []:
        if not any(notebook.name.startswith(f"{number}_") for notebook in notebooks):
            raise ValueError(f"no notebook starts with {number!r}; there are {known}")
    if only:
        wanted = tuple(f"{number}_" for number in only)
        return [notebook for notebook in notebooks if notebook.name.startswith(wanted)]
    return [notebook for notebook in notebooks if part in ("all", str(part_of(notebook.stem)))]


def kernel_manager_class():
    """A kernel manager that always starts the interpreter which runs this script, whatever
    "python3" kernel is installed.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            # its notices would break the progress lines
            return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=40"]))

    return ThisInterpreter


def describe_error(notebook, error: Exception) -> str:
    """One line for a failed notebook: which cell (counted from 1 among code cells), how it starts,
    and the error.
    """
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for i, cell in enumerate(code_cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                first_line = next((line for line in cell.source.splitlines() if line.strip()), "")
                return f"code cell {i} of {len(code_cells)} ({first_line.strip()!r}): {output.ename}: {output.evalue}"
    return f"{type(error).__name__}: {error}"


def execute(notebook_file: Path, output_dir: Path) -> Result:
    """Execute one notebook where it lies and save the copy, whole or not, in ``output_dir /
    "notebooks"`` as ``.ipynb`` and ``.html``.

    The kernel gets ``$VDR_OUTPUTS`` as an absolute path, since it runs in another folder than this
    script.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    notebook = nbformat.read(notebook_file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(notebook_file.parent)}}
    )
    client.kernel_manager_class = kernel_manager_class()
    environment = {
        OUTPUTS_VARIABLE: str(output_dir.resolve().parent),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    folder, start, error = output_dir / "notebooks", time.perf_counter(), None
    try:
        client.execute(env=os.environ | environment)
    except (
        CellControlSignal,
        DeadKernelError,
    ) as problem:  # an exception in a cell, or a kernel that died under it
        error = describe_error(notebook, problem)
    finally:
        seconds = time.perf_counter() - start
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / notebook_file.name)
    write_html(notebook, notebook_file.parent, folder / f"{notebook_file.stem}.html")
    return Result(notebook_file, seconds, error)


def read_json(file: Path) -> dict:
    """The content of a JSON file, or ``{}`` when it is not there or damaged: this run writes it
    anew.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def summarise(profile, results: list[Result], keep_earlier: bool) -> dict:
    """What ``summary.json`` holds; with ``keep_earlier`` the minutes of notebooks that an earlier
    run executed are kept.

    The scores come from what notebooks 03 and 05 keep for these settings; they are left out when a
    notebook failed.
    """
    failed = {result.notebook.stem: result.error for result in results if result.error}
    minutes = (
        read_json(profile.output_dir / "summary.json").get("minutes", {}) if keep_earlier else {}
    )
    minutes |= {result.notebook.stem: round(result.seconds / 60, 2) for result in results}
    scores = {} if failed else load_results(profile, "truncation") or {}
    tuned = {} if failed else read_manifest(tuned_folder(profile)) or {}
    return {
        "profile": profile.name,
        **where_measured(),
        "minutes": dict(sorted(minutes.items())),
        "ndcg_at_10": {"base": scores.get("base", {}), "finetuned": scores.get("finetuned", {})},
        "train_seconds": tuned.get("train_seconds"),
        "failed": failed,
    }


def print_report(profile, summary: dict, index: Path) -> None:
    """Print base vs fine-tuned NDCG@10 per dimension, and where things are."""
    rows = score_rows(summary)
    if rows:
        print("\nNDCG@10     base  fine-tuned")
        for dimension, base, finetuned in rows:
            print(f"{dimension:>7}   {base:>6}  {finetuned:>10}")
    elif not summary["failed"]:
        print("\nNo scores yet: notebooks 03 and 05 write them.")
    print(f"\nExecuted notebooks   {index} (open it in a browser)")
    print(f"Numbers of this run  {profile.output_dir / 'summary.json'}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 when a notebook failed, 2 when there was
    nothing to run or no place to write.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.run_course", description="Run the course's notebooks in order."
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NUMBER",
        help="run only these notebooks, for example: --only 00 04",
    )
    parser.add_argument(
        "--part",
        choices=["1", "2", "all"],
        help="1: the published experiment and the appendices; 2: make it yours",
    )
    parser.add_argument(
        "--notebooks",
        type=Path,
        metavar="FOLDER",
        help="where the notebooks are, if not in the clone",
    )
    parser.add_argument(
        "--store",
        action="store_true",
        help="for maintainers: put the executed notebooks in place of the sources",
    )
    options = parser.parse_args(arguments)
    try:
        profile = load_profile()
        part = options.part or ("all" if options.store else "1")
        notebooks = find_notebooks(options.notebooks, options.only, part)
        needs(
            "run", *sorted({extra for notebook in notebooks for extra in extras_of(notebook.stem)})
        )
    except (FileNotFoundError, ValueError, ImportError) as problem:
        print(problem, file=sys.stderr)
        return 2
    try:
        return run(
            profile, notebooks, options.store, keep_earlier=bool(options.only) or part == "2"
        )
    except OSError as problem:
        if problem.errno not in NO_PLACE:
            raise
        print(
            f"\nthe outputs folder cannot be written ({problem.strerror}): {NO_PLACE[problem.errno]}",
            file=sys.stderr,
        )
        return 2


def run(profile, notebooks: list[Path], store: bool, keep_earlier: bool) -> int:
    """Run ``notebooks`` with a line each; returns 0, or 1 when one failed. A disk that cannot be
    written raises its ``OSError``.
    """
    (profile.output_dir / "notebooks").mkdir(parents=True, exist_ok=True)
    (profile.output_dir / "notebooks" / ".writable").write_bytes(bytes(2**20))
    (profile.output_dir / "notebooks" / ".writable").unlink()
    earlier = read_json(profile.output_dir / "summary.json").get("minutes", {})
    print(
        f"Running {len(notebooks)} notebooks with profile {profile.name}; results go to {profile.output_dir}",
        flush=True,
    )
    start, results = time.perf_counter(), []
    for i, notebook in enumerate(notebooks, start=1):
        expected = (
            f"(took {earlier[notebook.stem]:.1f} min before) " if notebook.stem in earlier else ""
        )
        print(f"[{i}/{len(notebooks)}] {notebook.stem:<24} {expected}", end="", flush=True)
        results.append(execute(notebook, profile.output_dir))
        elapsed = timedelta(seconds=round(time.perf_counter() - start))
        took = timedelta(seconds=round(results[-1].seconds))
        print(
            f"{'FAILED' if results[-1].error else 'ok':<6}  took {took}, {elapsed} since the start",
            flush=True,
        )
        if results[-1].error:
            print(f"\n{notebook.name}, {results[-1].error}", file=sys.stderr)
            print(
                f"What ran so far: {profile.output_dir / 'notebooks' / notebook.name}",
                file=sys.stderr,
            )
            break
    summary = summarise(profile, results, keep_earlier)
    (profile.output_dir / "summary.json").write_text(
        json.dumps(summary, indent=2) + "\n", encoding="utf-8"
    )
    print_report(profile, summary, write_index(profile, summary))
    if store and not summary["failed"]:
        for notebook in notebooks:
            store_outputs(profile.output_dir / "notebooks" / notebook.name, notebook)
    return int(any(result.error for result in results))


if __name__ == "__main__":
    sys.exit(main())
