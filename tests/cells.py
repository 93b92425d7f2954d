"""A notebook's cells, run in forks of one process that has imported everything heavy once.

``run_cells`` executes a notebook's code as a kernel would, after changes that a reader might make.
``python tests/cells.py`` reads jobs as JSON from standard input and prints one JSON line for each.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import IPython.display
import nbformat
import numpy
from IPython.core.inputtransformer2 import TransformerManager

from vdr_helpers import figures
from vdr_helpers.splits import choose_rows

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def find_notebook(number: str) -> Path:
    """The file of the notebook that starts with ``number``, such as ``"03"``."""
    return next(NOTEBOOKS.glob(f"{number}_*.ipynb"))


def edited_sources(number: str, edits=(), below=(), more: str = "") -> list[str]:
    """The code cells after a reader's changes.

    ``edits``: pairs of what stands in one cell and what is written there; ``below``: pairs of what
    stands in one cell and a cell that is added below it; ``more``: a last cell. ``ValueError`` for
    a change that does not fit exactly one cell.
    """
    cells = nbformat.read(find_notebook(number), as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    for kind, changes in (("edit", edits), ("below", below)):
        for there, new in changes:
            at = [i for i, source in enumerate(sources) if there in source]
            if len(at) != 1:
                raise ValueError(
                    f"notebook {number}: {there!r} stands in {len(at)} cells, a change needs exactly one"
                )
            if kind == "edit":
                sources[at[0]] = sources[at[0]].replace(there, new)
            else:
                sources.insert(at[0] + 1, new)
    return [as_python(source) for source in [*sources, *([more] if more else [])]]


def as_python(source: str) -> str:
    """A cell's source with magics such as ``%pip`` in the form that plain Python reads."""
    return TransformerManager().transform_cell(source) if "%pip" in source else source


def printable(profile) -> dict:
    """The settings of a profile that may be printed and published: all but the folders that stand
    in for hub ids.
    """
    kept = {name: value for name, value in vars(profile).items() if name != "outputs"}
    return {name: value for name, value in kept.items() if not name.endswith("_folder")}


def definitions(number: str, *names: str, **given) -> dict:
    """The functions and constants called ``names`` as a notebook's cells define them, executed
    alone: ``{name: object}``.

    Imports at the top level of the cells are executed first; ``given``: what stands in other cells
    that the definitions read. ``ValueError`` for a name that no cell, or more than one, defines.
    """
    tree = ast.parse("\n".join(edited_sources(number)))
    defined = [made for node in tree.body for made in names_of(node)]
    for name in names:
        if defined.count(name) != 1:
            raise ValueError(
                f"notebook {number} defines {name!r} {defined.count(name)} times, not once"
            )
    wanted = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) or set(names_of(node)) & set(names)
    ]
    space = dict(given)
    exec(compile(ast.Module(wanted, []), f"notebook {number}", "exec"), space)
    return {name: space[name] for name in names}


def names_of(node: ast.stmt) -> list[str]:
    """What a top-level statement defines: a function, a class, or the plain names that are
    assigned.
    """
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [
        name.id
        for target in targets
        for name in getattr(target, "elts", [target])
        if isinstance(name, ast.Name)
    ]


def chooser(rows, **settings) -> dict:
    """``choose_rows`` with notebook 02's ``why_refused`` and ``asked`` for these rows;
    ``settings``: the profile's fields that it reads.

    ``choose_rows(fingerprint_of)`` returns ``(train, eval, noise)``: lists of ``[row, its hard
    negatives...]``, and a counter of what was refused. ``rows`` gives columns by name and rows by
    number.
    """
    usual = {
        "train_rows": 1,
        "eval_rows": 1,
        "negatives_per_train_row": 4,
        "distinct_eval_pages": True,
    }
    profile = SimpleNamespace(**(usual | settings))
    names = ("row_of_id", "asked", "why_refused")
    space = definitions("02", *names, rows=rows)
    own = (space[name] for name in names)
    return space | {"choose_rows": partial(choose_rows, profile, rows, *own)}


def prepare(profile) -> dict:
    """The splits of ``profile``, by the cells of notebook 02 themselves; returns their names:
    ``train_rows``, ``store`` and so on.

    All cells run but the first, which chooses the profile. What a cell raises is raised here.
    """
    space = {"profile": profile, "__name__": "__main__", "display": lambda *shown, **settings: None}
    for i, source in enumerate(edited_sources("02")[1:], start=2):
        exec(compile(source, f"notebook 02, code cell {i}", "exec"), space)
    return space


class QuickReader:
    """In the place of ``rapidocr.RapidOCR`` where a page's text is not the subject: reads one
    number, which is the page's own.

    Appendix a5 reads the few pages of a small corpus by OCR, more than a second each;
    ``test_baselines.py`` does so in earnest.
    """

    def __init__(self, params: dict) -> None:
        self.params = params

    def __call__(self, page: numpy.ndarray) -> SimpleNamespace:
        return SimpleNamespace(txts=[f"page {page.sum()}"])


def go_quickly() -> None:
    """From here on this process, and its forks, read pages with :class:`QuickReader`, draw figures
    with few pixels, and collect garbage among what they make themselves alone."""
    sys.modules["rapidocr"] = SimpleNamespace(RapidOCR=QuickReader)
    figures.DPI = 50
    gc.collect()
    gc.freeze()


def run_cells(number: str, outputs: Path, **changes) -> dict:
    """Run the cells in the namespace of ``__main__`` with ``outputs`` as the outputs folder;
    returns that namespace.

    ``changes``: see :func:`edited_sources`. What they print goes to ``outputs/log.txt``. Figures
    and widgets are made and shown to nobody.
    """
    os.environ["VDR_OUTPUTS"] = str(outputs)
    outputs.mkdir(parents=True, exist_ok=True)
    space = vars(sys.modules["__main__"])
    IPython.display.display = space["display"] = lambda *shown, **settings: None
    with (
        (outputs / "log.txt").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        for i, source in enumerate(edited_sources(number, **changes)):
            exec(compile(source, f"notebook {number}, code cell {i + 1}", "exec"), space)
    return space


def fork(outputs: Path, work) -> int:
    """Call ``work()`` in a fork of this process; returns its exit status, negative when a signal
    ended it.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            (outputs / "log.txt").open("a").write(traceback.format_exc())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Jobs: ``{"number", "outputs", "changes"}``. A job's last cell may leave a dictionary
    ``found``, which comes back.
    """
    go_quickly()
    for job in json.load(sys.stdin):
        outputs, answer = Path(job["outputs"]), Path(job["outputs"]) / "found.json"
        answer.unlink(missing_ok=True)

        def work(job=job, outputs=outputs, answer=answer) -> None:
            os.chdir(outputs)
            space = run_cells(job["number"], outputs, **job.get("changes", {}))
            answer.write_text(json.dumps(space.get("found", {})))

        status = fork(outputs, work)
        found = json.loads(answer.read_text()) if status == 0 else {}
        log = (outputs / "log.txt").read_text()[-3000:]
        print(json.dumps({"status": status, "found": found, "log": log}), flush=True)


if __name__ == "__main__":
    main()
