"""Every exercise, done as a learner does it: in JupyterLab, in a real browser, with the folded
solution pasted into its cell.

It runs every notebook once more. What stubs, mistakes and other right answers are told stands in
``test_exercises.py`` and ``test_failure_lab.py``, without a browser.
"""

import re

import nbformat
import pytest
from cells import NOTEBOOKS
from selenium.webdriver.common.keys import Keys
from test_exercises import CELLS
from test_in_jupyterlab import OpenNotebook, lab  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.long]

PASTE = """
const pasted = new DataTransfer();
pasted.setData('text/plain', arguments[0]);
document.activeElement.dispatchEvent(new ClipboardEvent(
    'paste', {clipboardData: pasted, bubbles: true, cancelable: true}
));
"""


def solved(source: str, below: str) -> str:
    """An exercise's cell with what is folded below it in place of its stub.

    That is the solution, or notebook 12's measurement and assertion.
    """
    blocks = re.findall(r"```python\n(.*?)```", below, re.DOTALL)
    stub = "def my_check(run):\n    return ...  # write your assertion here\n"
    if stub in source:
        return source.replace(stub, "\n".join(blocks))
    [number] = re.findall(r"^# Exercise (\w+\.\d+)", source)
    return CELLS[number].with_answer(blocks[0])


def is_exercise(cell) -> bool:
    return bool({"exercise", "exercise-lab"} & set(cell.metadata.get("tags", [])))


def with_exercises() -> list[str]:
    """The notebooks that have any, such as ``"00"``."""
    found = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if any(is_exercise(cell) for cell in nbformat.read(path, as_version=4).cells):
            found.append(path.name.partition("_")[0])
    return found


@pytest.mark.parametrize("number", with_exercises())
def test_every_exercise_is_right_in_the_browser(lab, number):  # noqa: F811
    notebook, done = OpenNotebook(lab, number), 0
    for i, cell in enumerate(notebook.sources):
        if not is_exercise(cell):
            continue
        notebook.start(notebook.ids[i - 1])
        notebook.press(Keys.ENTER)
        notebook.press("a", held=Keys.CONTROL)
        notebook.browser.execute_script(PASTE, solved(cell.source, notebook.sources[i + 1].source))
        notebook.run(cell.id)
        said = notebook.output(cell.id).text
        assert re.search(r"Exercise \w+\.\d+ · right$", said, re.MULTILINE), said
        done += 1
    assert done
