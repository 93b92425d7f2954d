"""The course's own widgets in JupyterLab, in a real browser: each is worked with the keyboard
alone, and what it shows is looked at.

A copy of each notebook that holds a widget is opened, without its stored outputs, and its cells are
run from the top to the widget's as they stand. Two things differ from a learner's run: the source
is the tests' small one with 24 training and 20 eval rows, and in notebook 03 a step has 8 rows, so
that there are three steps to draw. One JupyterLab, one browser and one outputs folder, filled by
notebook 02, serve all.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import nbformat
import pytest
import warm
from browser import headless_browser
from cells import definitions, find_notebook
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.slow, pytest.mark.long]
SECONDS = 300  # how long a step may take on a machine that does other work
SMALL = {
    "VDR_ROWS": "24:20",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
TRACKER = "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"

DRAWN = """
function drawn(image) {
  const canvas = Object.assign(document.createElement('canvas'), {width: image.naturalWidth, height: image.naturalHeight});
  canvas.getContext('2d').drawImage(image, 0, 0);
  return canvas.toDataURL();
}
"""
PICTURES = """
const whole = image => image.complete && image.naturalWidth && image.offsetParent;
return [...arguments[0].querySelectorAll('.jupyter-widgets img')].filter(whole).map(drawn);
"""
WATCH = """
window.seen = [];
document.addEventListener('load', event => {
  const cell = event.target.tagName === 'IMG' && event.target.closest('.jp-CodeCell');
  if (cell) window.seen.push([cell.querySelector('.jp-InputPrompt').textContent, drawn(event.target)]);
}, true);
"""


@pytest.fixture(scope="module")
def lab(source, tmp_path_factory):
    """A JupyterLab of this Python and a browser, as ``browser``, ``address``, ``folder`` and
    ``outputs``, where notebook 02 has been run.
    """
    with headless_browser() as browser:
        folder = tmp_path_factory.mktemp("lab")
        small = (
            os.environ
            | SMALL
            | {"VDR_DATASET": str(source), "VDR_OUTPUTS": str(folder / "outputs")}
        )
        jobs = json.dumps([{"number": "02", "outputs": str(folder / "outputs")}])
        done = warm.run(
            [str(find_notebook("02").parents[1] / "tests" / "cells.py")], input=jobs, env=small
        )
        assert '"status": 0' in done.stdout, done.stdout + done.stderr
        places = {
            name: str(folder / name)
            for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")
        }
        tracker = folder / "JUPYTER_CONFIG_DIR" / TRACKER
        tracker.parent.mkdir(parents=True)
        # else cells that are out of sight are out of the page
        tracker.write_text(json.dumps({"windowingMode": "none"}))
        settings = [
            "--no-browser",
            "--allow-root",
            "--ServerApp.port=0",
            "--IdentityProvider.token=",
            f"--ServerApp.root_dir={folder}",
        ]
        settings += [
            "--ServerApp.disable_check_xsrf=True",
            f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        ]
        settings += ["--LabApp.news_url=", "--LabApp.extension_manager=readonly"]
        command = [sys.executable, "-m", "jupyterlab", *settings]
        with (folder / "log.txt").open("w") as log:
            server = subprocess.Popen(
                command, env=small | places, cwd=folder, stdout=log, stderr=log
            )
        try:
            browser.set_window_size(1200, 1600)
            yield SimpleNamespace(
                browser=browser,
                address=address_of(folder, server),
                folder=folder,
                outputs=folder / "outputs",
            )
        finally:
            server.terminate()
            server.wait()


def address_of(folder, server) -> str:
    """Where the server listens, once it does. Raises ``AssertionError`` with its log when it has
    ended or takes too long.
    """
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        for file in folder.glob("JUPYTER_RUNTIME_DIR/jpserver-*.json"):
            try:
                return json.loads(file.read_text())["url"].replace("localhost", "127.0.0.1")
            except ValueError:
                pass
        time.sleep(0.2)
    raise AssertionError((folder / "log.txt").read_text())


class OpenNotebook:
    """A copy of a course notebook, open in the browser of ``lab``, run and worked with the
    keyboard; cells are named by their ids.

    ``edits``: pairs of what stands in one cell, once, and what is written there. The kernel of the
    notebook before it is ended.
    """

    def __init__(self, lab, number: str, *edits: tuple[str, str]) -> None:
        self.browser, name = lab.browser, find_notebook(number).name
        notebook = nbformat.read(find_notebook(number), as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell in code:
            cell.outputs, cell.execution_count = [], None
        for there, new in edits:
            [cell] = [cell for cell in code if there in cell.source]
            cell.source = cell.source.replace(there, new)
        nbformat.write(notebook, lab.folder / name)
        self.ids, self.code, self.sources = (
            [cell.id for cell in notebook.cells],
            [cell.id for cell in code],
            notebook.cells,
        )
        self.browser.get("about:blank")
        for session in json.load(urllib.request.urlopen(f"{lab.address}api/sessions")):
            ended = urllib.request.Request(
                f"{lab.address}api/sessions/{session['id']}", method="DELETE"
            )
            urllib.request.urlopen(ended).close()
        self.browser.get(f"{lab.address}lab/workspaces/{number}/tree/{name}")
        self.wait(lambda: len(self.find(".jp-Notebook .jp-Cell")) == len(self.ids))
        self.wait(
            lambda: (
                self.find(".jp-Notebook-ExecutionIndicator[data-status=idle]")
                and not self.find(".jp-Spinner")
            )
        )
        self.wait(lambda: self.active() == 0 and "jp-Cell" in self.focused())

    def find(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def wait(self, condition):
        """What ``condition()`` returns as soon as it is true. ``AssertionError`` with what an
        output or the time has to say against it.
        """

        def tried(_):
            # a cell's error, or no more than a warning
            for red in self.find("[data-mime-type$='stderr']"):
                if "Traceback (most recent call last)" in red.text:
                    raise AssertionError(red.text[-2000:])
            return condition()

        return WebDriverWait(self.browser, SECONDS, 0.1, [StaleElementReferenceException]).until(
            tried
        )

    def press(self, *pressed: str, held: str = "") -> None:
        """Press keys, one after the other, while ``held`` is down."""
        chain = ActionChains(self.browser)
        (
            chain.key_down(held).send_keys(*pressed).key_up(held)
            if held
            else chain.send_keys(*pressed)
        ).perform()

    def cell(self, cell: str):
        return self.find(".jp-Notebook .jp-Cell")[self.ids.index(cell)]

    def output(self, cell: str):
        return self.cell(cell).find_element("css selector", ".jp-Cell-outputWrapper")

    def sentence(self, cell: str) -> str:
        """What a widget of :mod:`vdr_helpers.widgets` says."""
        return " ".join(
            element.text
            for element in self.output(cell).find_elements("css selector", "[role=status]")
        )

    def pictures(self, cell: str) -> list[str]:
        """The pictures of the cell's widgets as they are drawn now, each as the text of a PNG
        file.
        """
        return self.browser.execute_script(DRAWN + PICTURES, self.output(cell))

    def focused(self) -> str:
        """What the keyboard is in: tag, text, classes and title."""
        element = self.browser.switch_to.active_element
        return f"{element.tag_name} {element.text} {element.get_attribute('class')} {element.get_attribute('title')}"

    def active(self) -> int:
        """Which cell is selected, counted from 0; -1 for none."""
        script = "return [...document.querySelectorAll('.jp-Notebook .jp-Cell')].findIndex(cell => cell.matches('.jp-mod-active'))"
        return self.browser.execute_script(script)

    def start(self, cell: str) -> None:
        """Shift and Enter, which runs a cell and selects the next, from the selected cell to this
        one.
        """
        for number in range(self.active(), self.ids.index(cell) + 1):
            self.press(Keys.ENTER, held=Keys.SHIFT)
            self.wait(lambda number=number: self.active() == number + 1)

    def run(self, cell: str) -> None:
        """:meth:`start`, and wait until the cell has run."""
        self.start(cell)
        self.wait(
            lambda: (
                self.cell(cell).find_element("css selector", ".jp-InputPrompt").text
                == f"[{self.code.index(cell) + 1}]:"
            )
        )

    def reach(self, words: str) -> None:
        """Shift and Tab, back from the cell below a widget or from its last control, until what has
        the focus is told by ``words``.
        """
        for _ in range(25):
            self.press(Keys.TAB, held=Keys.SHIFT)
            if words in self.focused():
                return
        raise AssertionError(f"the keyboard does not reach {words!r}")

    def leave(self, cell: str) -> None:
        """From the widget of a cell to the cell below it: :meth:`reach` to the cell itself, then
        the arrow.
        """
        self.reach("jp-CodeCell")
        self.press(Keys.ARROW_DOWN)
        self.wait(lambda: self.active() == self.ids.index(cell) + 1)

    def write(self, *text: str) -> None:
        """In the field that has the focus, in place of what stands there."""
        self.press("a", held=Keys.CONTROL)
        self.press(*text)


def test_notebook_00_answers_a_question_and_an_exercise(lab):
    notebook, box, exercise = OpenNotebook(lab, "00"), "9b94d564", "00-ex1"
    notebook.start(notebook.ids[notebook.ids.index(exercise) - 1])
    [source] = [cell.source for cell in notebook.sources if cell.id == exercise]
    notebook.press(Keys.ENTER)
    notebook.write(source.replace("...", '"rehearsal"'))
    notebook.run(exercise)
    notebook.wait(lambda: "Exercise 0.3 · right" in notebook.output(exercise).text)

    notebook.run(box)
    # by the cell above, without a widget
    told = dict(line.split(": ", 1) for line in notebook.output("00-13").text.splitlines())
    assert len(told) == 4
    first, known = list(told)[:2]
    notebook.wait(
        lambda: notebook.sentence(box) == told[first] and len(notebook.pictures(box)) == 1
    )
    before = notebook.pictures(box)
    notebook.reach("input")
    notebook.write(known, Keys.ENTER)
    notebook.wait(
        lambda: notebook.sentence(box) == told[known] and notebook.pictures(box) not in ([], before)
    )
    notebook.write("best pizza in town", Keys.TAB)  # leaving the field searches too
    notebook.wait(lambda: notebook.sentence(box) == told["best pizza in town"])
    notebook.reach("input")
    notebook.write(Keys.DELETE, Keys.ENTER)
    notebook.wait(lambda: "Type a query first" in notebook.sentence(box))


def test_notebook_03_draws_its_curve_while_it_trains(lab):
    usual = "batch_size = profile.per_device_train_batch_size"
    notebook = OpenNotebook(lab, "03", (usual, "batch_size = 8"))
    curve, experiment = "03-22f", "03-24"
    notebook.browser.execute_script(DRAWN + WATCH)
    notebook.run(experiment)
    assert "trained to step 3 of 3" in notebook.output(experiment).text
    notebook.wait(lambda: "3/3" in notebook.output(curve).text)
    code = [cell.id for cell in notebook.sources if cell.cell_type == "code"]
    prompt = f"[{code.index(curve) + 1}]:"
    seen = [
        picture
        for found, picture in notebook.browser.execute_script("return window.seen")
        if found == prompt
    ]
    assert len(set(seen)) >= 4, "empty axes, and a curve of its own after each of the three steps"


def test_notebook_05_cuts_a_query_s_vectors(lab):
    notebook, box = OpenNotebook(lab, "05"), "767ba1ea"
    notebook.run(box)
    told = "Tuned model at {} dimensions: the right page is at rank {}."
    notebook.wait(lambda: notebook.sentence(box) == told.format(256, 1) and notebook.pictures(box))
    before = notebook.pictures(box)
    notebook.reach("noUi-handle")
    notebook.press(Keys.ARROW_RIGHT)
    notebook.wait(lambda: notebook.sentence(box).startswith("Tuned model at 192 dimensions"))
    notebook.wait(lambda: notebook.pictures(box) not in ([], before))
    notebook.press(Keys.END)
    notebook.wait(lambda: notebook.sentence(box).startswith(told.format(8, "")[:-1]))
    assert notebook.sentence(box) != told.format(8, 1)


def test_notebook_06_searches_its_pages(lab):
    [file] = lab.outputs.glob("tiny/splits-*/eval.jsonl")
    queries = [json.loads(line)["query"] for line in file.read_text().splitlines()]
    notebook, box = OpenNotebook(lab, "06"), "06-18"
    notebook.run(box)
    place = r"Rank of the page that answers: \d+\."
    notebook.wait(
        lambda: (
            notebook.sentence(box) == notebook.output("7027818b").text.strip()
            and notebook.pictures(box)
        )
    )
    before = notebook.pictures(box)
    notebook.reach("input")
    notebook.write(queries[0], Keys.ENTER)
    notebook.wait(
        lambda: (
            re.fullmatch(place, notebook.sentence(box))
            and notebook.pictures(box) not in ([], before)
        )
    )
    notebook.write("pages about paper", Keys.ENTER)
    notebook.wait(
        lambda: notebook.sentence(box) == "Not a query of the eval split: no page is marked."
    )


def test_appendix_2_plans_a_training(lab):
    plan = definitions("a2", "facts", "model", "page", "memory")["memory"]

    def told(*choice) -> str:
        terms = plan(*choice)
        lines = [f"{gib:6.1f} GiB  {term}" for term, gib in terms.items()]
        return "\n".join(
            [*lines, f"{sum(terms.values()):6.1f} GiB  total (computed, not measured)"]
        )

    notebook, box = OpenNotebook(lab, "a2"), "51774342"

    def shows(*choice) -> None:
        """Wait until the sums of this choice stand below the controls."""
        notebook.wait(
            lambda: (
                notebook.output(box).find_element("css selector", "pre").text.strip()
                == told(*choice).strip()
            )
        )

    notebook.run(box)
    shows(False, "bfloat16", 32, 16)
    notebook.reach("noUi-handle")  # the last control
    notebook.press(Keys.ARROW_RIGHT)
    shows(False, "bfloat16", 32, 32)
    notebook.reach("noUi-handle")
    notebook.press(Keys.ARROW_LEFT)
    shows(False, "bfloat16", 31, 32)
    notebook.reach("noUi-handle")
    notebook.press(Keys.ARROW_RIGHT)
    shows(False, "float16", 31, 32)
    notebook.reach("input")
    notebook.press(Keys.SPACE)
    shows(True, "float16", 31, 32)


def test_appendix_4_keeps_marks_and_takes_a_query_apart(lab):
    both = "embeddings = embeddings_of_both(profile, queries, corpus)"
    twice = (both, f'{both}\nembeddings["tuned"] = embeddings["base"]')
    # on so few pages the tuned model puts nothing in front that could be marked
    notebook = OpenNotebook(lab, "a4", twice)
    review, microscope = "a4-au-16", "a4-mi-05b"
    marks = lab.outputs / "tiny" / "marks.json"
    unmarked = r"(NDCG@10 as marked: base (?P<base>[\d.]+) \(unmarked (?P=base)\), tuned (?P<tuned>[\d.]+) \(unmarked (?P=tuned)\))"
    notebook.run(review)
    found = notebook.wait(
        lambda: re.fullmatch(
            rf"Suspect 1 of (\d+), not marked\. {unmarked}", notebook.sentence(review)
        )
    )
    suspects, whole = int(found[1]), found[2]
    assert suspects >= 2 and not marks.exists()
    before = notebook.wait(lambda: notebook.pictures(review))
    notebook.reach("also an answer")
    notebook.press(Keys.SPACE)
    notebook.wait(
        lambda: (
            "Suspect 1 of" in notebook.sentence(review)
            and "marked: also an answer" in notebook.sentence(review)
        )
    )
    assert whole not in notebook.sentence(review), "a second right page changes the score"
    [[query, page, answers]] = json.loads(marks.read_text())
    assert answers is True and query in notebook.output("a4-au-13").text
    assert list(lab.outputs.glob(f"tiny/pages-*/{page}.png"))
    notebook.reach("noUi-handle")
    notebook.press(Keys.ARROW_RIGHT)
    notebook.wait(lambda: f"Suspect 2 of {suspects}, not marked" in notebook.sentence(review))
    notebook.wait(lambda: notebook.pictures(review) not in ([], before))
    notebook.press(Keys.ARROW_LEFT)
    notebook.wait(
        lambda: f"Suspect 1 of {suspects}, marked: also an answer" in notebook.sentence(review)
    )
    notebook.leave(review)
    notebook.reach("undo")
    notebook.press(Keys.SPACE)
    notebook.wait(
        lambda: notebook.sentence(review) == f"Suspect 1 of {suspects}, not marked. {whole}"
    )
    assert json.loads(marks.read_text()) == []
    notebook.reach("no answer")
    notebook.press(Keys.SPACE)
    notebook.wait(
        lambda: notebook.sentence(review) == f"Suspect 1 of {suspects}, marked: no answer. {whole}"
    )
    assert json.loads(marks.read_text()) == [[query, page, False]]

    notebook.leave(review)
    notebook.run(microscope)
    notebook.wait(lambda: "At 256 dimensions the right page of q" in notebook.sentence(microscope))
    before = notebook.wait(lambda: notebook.pictures(microscope))
    notebook.reach("noUi-handle")
    notebook.press(Keys.ARROW_RIGHT)
    notebook.wait(lambda: "At 192 dimensions the right page of q" in notebook.sentence(microscope))
    notebook.wait(lambda: notebook.pictures(microscope) not in ([], before))
    notebook.reach("input")
    notebook.write("3", Keys.TAB)
    notebook.wait(
        lambda: "At 192 dimensions the right page of q3 is" in notebook.sentence(microscope)
    )
    assert len(notebook.pictures(microscope)) == 1
    notebook.leave(microscope)
    notebook.reach("cover patch by patch")
    notebook.press(Keys.SPACE)
    told = r"Similarity to q3, and its largest fall when a patch is covered: right page, base .+ best other page, tuned .+ less"
    notebook.wait(lambda: re.fullmatch(told, notebook.sentence(microscope)))
    # the map stands below the pages
    notebook.wait(lambda: len(set(notebook.pictures(microscope))) == 2)
