"""Every exercise of the notebooks: the stub is "not answered yet", the folded solution and another way are right, mistakes are named."""

import ast
import contextlib
import io
import re
from pathlib import Path

import nbformat
import pytest
from exercises import CASES

from vdr_exercises import beside, exercise

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
CALL = re.compile(r"^(?:from vdr_exercises\.|# Exercise )", re.MULTILINE)


def exercises() -> dict[str, tuple[str, str]]:
    """``{number: (source of the exercise's cell, code of its folded solution)}`` of all notebooks, from the cells tagged ``exercise``."""
    found = {}
    for file in NOTEBOOKS:
        cells = nbformat.read(file, as_version=4).cells
        for cell, below in zip(cells, [*cells[1:], None], strict=True):
            if "exercise" in cell.metadata.get("tags", []):
                number = re.match(r"# Exercise (\w+\.\d+)", cell.source)[1]
                assert below is not None and below.source.startswith("<details>"), (
                    f"{file.name}: no folded solution below {number}"
                )
                [solution] = re.findall(r"```python\n(.*?)```", below.source, re.DOTALL)
                found[number] = (cell.source, solution)
    return found


EXERCISES = exercises()


def names(source: str, top_level: bool = False) -> set[str]:
    """What a cell binds at its top level, or every name in it."""
    tree = ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE))
    nodes = list(tree.body if top_level else ast.walk(tree))
    found = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    found |= {
        target.id for node in nodes if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)
    }
    found |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return found if top_level else found | {node.id for node in nodes if isinstance(node, ast.Name)}


def answered(number: str, answer: str) -> str:
    """The source of the exercise's cell with ``answer`` in place of its stub, between the import and the call."""
    source = EXERCISES[number][0]
    head, call = re.match(r"(.*?^from vdr_exercises[^\n]*\n).*?(^\w+\(.*)\Z", source, re.DOTALL | re.MULTILINE).groups()
    return f"{head}\n{answer}\n\n{call}"


def verdict(number: str, answer: str | None = None) -> str:
    """What the exercise's cell prints with ``answer`` in place of its stub, or as it stands."""
    names: dict = {}
    exec(CASES[number].get("given", ""), names)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(EXERCISES[number][0] if answer is None else answered(number, answer), names)
    return printed.getvalue().strip()


def test_every_exercise_has_its_cases_and_no_other():
    assert EXERCISES.keys() == CASES.keys()


@pytest.mark.parametrize("number", EXERCISES)
def test_a_stub_says_so_and_goes_on(number):
    assert verdict(number) == f"Exercise {number} · not answered yet: write your answer in place of the three dots"


@pytest.mark.parametrize("number", EXERCISES)
def test_the_folded_solution_is_right(number):
    assert verdict(number, EXERCISES[number][1]) == f"Exercise {number} · right"


@pytest.mark.parametrize("number", EXERCISES)
def test_another_way_is_right_too(number):
    another = CASES[number]["another"]
    assert another.strip() != EXERCISES[number][1].strip()
    assert verdict(number, another) == f"Exercise {number} · right"


@pytest.mark.parametrize(
    ("number", "mistake", "words"), [(number, *mistake) for number, case in CASES.items() for mistake in case["mistakes"]]
)
def test_a_mistake_is_named(number, mistake, words):
    said = verdict(number, mistake)
    assert said.startswith(f"Exercise {number} · not yet: ")
    assert words in said


NONSENSE = ["None", "-12345", "float('nan')", "'x'", "[]", "{}", "(1, 2)", "[[1.0]]", "print", "int"]


@pytest.mark.parametrize("number", EXERCISES)
def test_nonsense_is_never_right(number):
    stub = re.search(r"^(?:def )?(\w+)(?:\(.*\):\n    return| =) \.\.\.", EXERCISES[number][0], re.MULTILINE)[1]
    for nonsense in NONSENSE:
        for answer in (nonsense, f"lambda *given: {nonsense}"):
            said = verdict(number, f"{stub} = {answer}").splitlines()[-1]
            assert re.match(rf"Exercise {number} · not (yet: |answered yet: )", said), (answer, said)


@pytest.mark.parametrize("number", EXERCISES)
def test_every_exercise_knows_a_mistake(number):
    assert CASES[number]["mistakes"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_an_exercise_names_is_named_nowhere_else(file):
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    tagged = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    own = [name for source in tagged for name in names(source, top_level=True)]
    others = set().union(*(names(cell.source) for cell in cells if cell.source not in tagged))
    assert len(own) == len(set(own))
    assert not others & set(own)


def test_code_that_fails_is_not_yet():
    @exercise("0.0")
    def check(answer):
        return answer.missing

    assert check.verdict(1) == "not yet: this stops with AttributeError: 'int' object has no attribute 'missing'"


@pytest.mark.parametrize("answer", [..., lambda number: ..., lambda number: number or ...], ids=["value", "function", "half"])
def test_three_dots_are_no_answer(answer):
    @exercise("0.0")
    def check(answer):
        return "" if [answer(number) for number in (1, 0)] == [1, 0] else "wrong"

    assert check.verdict(answer) == "not answered yet: write your answer in place of the three dots"
    assert check.verdict(lambda number: number) == "right"


def test_a_guess_stands_beside_the_result():
    assert beside(0.9, "0.943") == "your guess 0.9 | measured here 0.943"
    assert beside(..., "0.943") == "measured here 0.943 (no guess was made)"
