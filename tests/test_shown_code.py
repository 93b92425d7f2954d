"""A helper that a notebook teaches stands there word for word: cells with ``"saves": "<module>"``
in their metadata.
"""

import ast
import importlib
import inspect
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def shown_functions() -> list[tuple[str, str, str, str]]:
    """``(notebook, module, name, source)`` of every function and class in a cell that says which
    module holds it too.
    """
    found = []
    for file in NOTEBOOKS:
        for cell in nbformat.read(file, as_version=4).cells:
            if module := cell.metadata.get("saves"):
                definitions = [
                    node
                    for node in ast.parse(cell.source).body
                    if isinstance(node, ast.FunctionDef | ast.ClassDef)
                ]
                assert definitions, f"{file.name}: a cell saves to {module} and defines nothing"
                found += [
                    (file.stem, module, node.name, ast.get_source_segment(cell.source, node))
                    for node in definitions
                ]
    return found


SHOWN = shown_functions()


def test_some_helpers_are_shown():
    assert SHOWN, "no notebook shows a helper"


@pytest.mark.parametrize(
    ("notebook", "module", "name", "source"),
    SHOWN,
    ids=lambda value: value if len(value) < 40 else "",
)
def test_a_shown_helper_is_the_same_in_notebook_and_module(notebook, module, name, source):
    helper = getattr(importlib.import_module(module), name)
    assert inspect.getsource(helper).strip() == source.strip(), (
        f"{name} differs between {notebook} and {module}"
    )


def test_a_difference_is_seen():
    source = inspect.getsource(shown_functions)
    changed = source.replace("found = []", "found = [1]")
    assert changed.strip() != source.strip()
