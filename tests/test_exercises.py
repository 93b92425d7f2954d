"""Every exercise: its stub says "not answered yet", right answers are right, mistakes are named."""

import ast
import contextlib
import functools
import importlib
import io
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy
import pytest
from cells import as_python

from vdr_exercises import (
    Exercise,
    FunctionExercise,
    asks_for_a_function,
    beside,
    exercise,
    of_given,
)
from vdr_exercises.answers import an_array, row_numbers

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
NOT_ANSWERED = "not answered yet: write your answer in place of the three dots"


class Cell(NamedTuple):
    """An exercise's cell: imports, the stub of ``name``, the call of the check."""

    source: str
    solution: str
    head: str
    name: str
    call: str

    def with_answer(self, code: str) -> str:
        """The cell with ``code`` in place of its stub."""
        return f"{self.head}\n{code}\n\n{self.call}"

    @property
    def module(self):
        return importlib.import_module(re.search(r"^from (vdr_exercises\.\w+)", self.head, re.M)[1])

    @property
    def check(self) -> str:
        """The name under which the cell calls the exercise."""
        return self.call.partition("(")[0]

    @property
    def exercise(self) -> Exercise:
        return getattr(self.module, self.check)


def read_cell(source: str, below) -> Cell:
    pattern = (
        r"(?P<head>.*?^from vdr_exercises[^\n]*\n)\s*"
        r"(?:def )?(?P<name>\w+)(?:\([^\n]*\):\n    return| =) \.\.\.[^\n]*\n\s*"
        r"(?P<call>^\w+\(.*)\Z"
    )
    parts = re.match(pattern, source, re.DOTALL | re.MULTILINE)
    assert parts, f"not a comment, an import, a stub and a call:\n{source}"
    assert below is not None and below.source.startswith("<details>"), f"no solution:\n{source}"
    [solution] = re.findall(r"```python\n(.*?)```", below.source, re.DOTALL)
    return Cell(source, solution, **parts.groupdict())


def exercise_cells() -> dict[str, Cell]:
    """``{number: cell}`` of all notebooks, from the cells tagged ``exercise``."""
    found = {}
    for file in NOTEBOOKS:
        cells = nbformat.read(file, as_version=4).cells
        for cell, below in zip(cells, [*cells[1:], None], strict=True):
            if "exercise" in cell.metadata.get("tags", []):
                number = re.match(r"# Exercise (\w+\.\d+)", cell.source)[1]
                found[number] = read_cell(cell.source, below)
    return found


CELLS = exercise_cells()
FUNCTIONS = [n for n, cell in CELLS.items() if isinstance(cell.exercise, FunctionExercise)]
each_exercise = pytest.mark.parametrize("number", CELLS)


def printed_by(number: str, source: str) -> str:
    """What ``source`` prints with stand-ins in place of the notebook's variables."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(source, CELLS[number].module.stand_ins())
    return printed.getvalue().strip()


@functools.cache
def given(number: str) -> list:
    """What the exercise's cell hands to the check beside the answer, made of the stand-ins."""
    cell, received = CELLS[number], []
    names = {cell.name: None, cell.check: lambda answer, *given: received.extend(given)}
    exec(cell.call, cell.module.stand_ins() | names)
    return received


def verdict(number: str, answer) -> str:
    return CELLS[number].exercise.verdict(answer, *given(number))


def mistakes(number: str) -> dict:
    """``{words of the hint: wrong answer}``."""
    return of_given(CELLS[number].exercise.mistakes, given(number))


def test_there_are_sixty_three_exercises():
    assert len(CELLS) == 63
    assert all(cell.exercise.number == number for number, cell in CELLS.items())


@each_exercise
def test_a_stub_says_so_and_goes_on(number):
    assert printed_by(number, CELLS[number].source) == f"Exercise {number} · {NOT_ANSWERED}"


@each_exercise
def test_the_folded_solution_is_right(number):
    cell = CELLS[number]
    said = printed_by(number, cell.with_answer(cell.solution))
    assert said == f"Exercise {number} · right"


@each_exercise
def test_another_way_is_right_too(number):
    assert verdict(number, CELLS[number].exercise.another) == "right"


@pytest.mark.parametrize("number", FUNCTIONS)
def test_the_reference_is_right(number):
    assert verdict(number, CELLS[number].exercise.reference) == "right"


@each_exercise
def test_each_mistake_is_told_in_its_own_words(number):
    planted = mistakes(number)
    assert 1 <= len(planted) <= 3
    for words, wrong in planted.items():
        said = verdict(number, wrong)
        assert said.startswith("not yet: ")
        assert [hint for hint in planted if hint in said] == [words], said


@pytest.mark.parametrize("number", FUNCTIONS)
def test_every_mistake_can_be_compared_on_every_input(number):
    asked = CELLS[number].exercise
    for inputs in of_given(asked.inputs, given(number)):
        for wrong in asked.mistakes.values():
            asked.outcome(wrong, inputs)  # raises `NotYet` where it returns another kind of thing


NONSENSE = [None, -12345, float("nan"), "x", [], {}, (1, 2), [[1.0]], print, int]


@each_exercise
@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_nonsense_is_never_right(number, nonsense):
    for answer in (nonsense, lambda *inputs: nonsense):
        assert verdict(number, answer).startswith("not yet: ")


def names(source: str, top_level: bool = False) -> set[str]:
    """What a cell binds at its top level, or every name in it."""
    tree = ast.parse(as_python(source))
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_an_exercise_names_is_named_nowhere_else(file):
    cells = nbformat.read(file, as_version=4).cells
    cells = [cell for cell in cells if cell.cell_type == "code"]
    tagged = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    own = [name for source in tagged for name in names(source, top_level=True)]
    others = set().union(*(names(cell.source) for cell in cells if cell.source not in tagged))
    assert len(own) == len(set(own))
    assert not others & set(own)


# The classes behind the exercises


def doubled(inputs=((1,), (2,)), **settings) -> Exercise:
    settings = {"mistakes": {}, "otherwise": "expected {expected}", "another": None} | settings
    decorate = asks_for_a_function("0.0", inputs=list(inputs), **settings)
    return decorate(lambda value: value + value)


@pytest.mark.parametrize("answer", [..., lambda value: ..., lambda value: 2 if value == 1 else ...])
def test_three_dots_are_no_answer(answer):
    assert doubled().verdict(answer) == NOT_ANSWERED


def test_the_hint_is_that_of_the_mistake_on_the_first_input_that_fails():
    asked = doubled(
        [(2,), (3,)],
        mistakes={
            "not the square": lambda value: value**2,
            "not one more": lambda value: value + 1,
        },
        case=lambda value: f"value {value}",
    )
    assert asked.verdict(lambda value: value * value) == (
        "not yet: value 3: you return 9: not the square"
    )
    assert asked.verdict(lambda value: value + 1) == "not yet: value 2: you return 3: not one more"
    assert asked.verdict(lambda value: 0.5) == "not yet: value 2: you return 0.5: expected 4"


def test_an_error_is_told_with_its_input_and_its_mistake():
    asked = doubled(
        mistakes={"no division": lambda value: 1 / 0}, case=lambda value: f"value {value}"
    )
    assert asked.verdict(lambda value: 1 / 0) == (
        "not yet: value 1: this stops with ZeroDivisionError: division by zero: no division"
    )
    assert asked.verdict(lambda value: value.missing) == (
        "not yet: value 1: this stops with AttributeError: 'int' object has no attribute 'missing'"
    )


def test_an_array_of_another_shape_is_told_so():
    asked = doubled([([1.0, 2.0],)], returns=an_array)
    assert asked.verdict(lambda value: [1.0]) == (
        "not yet: value [1.0, 2.0]: the shape is (1,), expected (4,)"
    )


@pytest.mark.parametrize("value", [[True, False], numpy.array([True])])
def test_truth_values_are_no_row_numbers(value):
    asked = doubled([([0],)], returns=row_numbers)
    assert asked.verdict(lambda rows: value).startswith(
        "not yet: expected row numbers, found truth"
    )


def test_an_answer_that_alters_its_input_alters_a_copy():
    def answer(value):
        value.append(value[0])
        return value

    inputs = [([1],)]
    assert doubled(inputs, returns=an_array).verdict(answer) == "right"
    assert inputs == [([1],)]


def test_an_error_in_a_check_is_not_yet():
    asked = exercise("0.0", mistakes={}, another=None)(lambda answer: answer.missing)
    assert asked.verdict(1) == (
        "not yet: this stops with AttributeError: 'int' object has no attribute 'missing'"
    )


def test_a_guess_stands_beside_the_result():
    assert beside(0.9, "0.943") == "your guess 0.9 | measured here 0.943"
    assert beside(..., "0.943") == "measured here 0.943 (no guess was made)"
