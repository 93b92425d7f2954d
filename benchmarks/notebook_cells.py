"""A notebook's own cells, run by a measurement with other settings than the profile's: what is
measured is what a reader runs.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def code_cells(number: str) -> list[str]:
    """The sources of the code cells of the notebook whose name begins with ``number``, such as
    ``"09"``; the setup cell is the first.
    """
    [file] = NOTEBOOKS.glob(f"{number}_*.ipynb")
    return [
        cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"
    ]


def run_silently(sources: list[str], space: dict) -> None:
    """Run cells one after the other in ``space``, without what they print or display."""
    space.setdefault("display", lambda *shown, **settings: None)
    for source in map(TransformerManager().transform_cell, sources):  # %pip is no Python
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, "a notebook's cell", "exec"), space)


def first_with(sources: list[str], text: str) -> int:
    """The place of the first cell that holds ``text``. Raises ``StopIteration`` where none does:
    the notebook has changed.
    """
    return next(i for i, source in enumerate(sources) if text in source)
