"""The course's widgets in a real JupyterLab, in a real browser, worked with the keyboard alone: what they show is looked at."""

import json
import os
import subprocess
import sys
import time

import nbformat
import pytest
from browser import headless_browser
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.slow
SECONDS = 300  # how long a step may take on a machine that does other work

CELLS = [
    # the search box of notebooks 00 and 06, on a search that takes no time
    """
from vdr_helpers.figures import new_figure
from vdr_helpers.widgets import live_box, search_box

def drawn(title):
    figure, axes = new_figure()
    axes.set_title(title)
    return figure

search_box(lambda text: (drawn(text), f"found {len(text.split())} words: {text}"), "old mill")
""",
    # a slider and buttons, as in notebooks 02 and 05 and in appendix a4
    """
import ipywidgets
slider = ipywidgets.SelectionSlider(options=[256, 64, 8], description="width", continuous_update=False)

def refuse(width):
    raise OSError("the disk is full")

buttons = {"keep": lambda width: (drawn(f"kept {width}"), f"kept {width} numbers"), "fail": refuse}
live_box(lambda width: (drawn(f"{width}"), f"showing {width} numbers"), slider, buttons=buttons)
""",
    # the curve of notebook 03, with the events of a training
    """
from types import SimpleNamespace
from vdr_helpers.training import LiveCurve
curve = LiveCurve()
display(curve.widget)
""",
    """
import time
state = SimpleNamespace(global_step=0, max_steps=4, log_history=[])
curve.on_train_begin(None, state, None)
for step in range(1, 5):
    time.sleep(1.5)
    state.global_step = step
    state.log_history += [{"step": step, "loss": 1 / step}, {"step": step, "eval_x_cosine_ndcg@10": 0.5 + step / 10}]
    curve.on_step_end(None, state, None)
    curve.on_evaluate(None, state, None)
print("trained")
""",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of this Python on a notebook of :data:`CELLS`, open in a browser: the ``selenium`` driver."""
    with headless_browser() as browser:
        folder = tmp_path_factory.mktemp("lab")
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source.strip()) for source in CELLS],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, folder / "widgets.ipynb")
        environment = os.environ | {
            name: str(folder / name) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")
        }
        settings = [
            "--no-browser",
            "--ServerApp.port=0",
            "--IdentityProvider.token=",
            f"--ServerApp.root_dir={folder}",
            "--allow-root",
        ]
        settings += [
            "--LabApp.workspaces_dir=" + str(folder / "workspaces"),
            "--LabApp.news_url=",
            "--LabApp.extension_manager=readonly",
        ]
        with (folder / "log.txt").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "jupyter", "lab", *settings], env=environment, stdout=log, stderr=log
            )
        try:
            browser.set_window_size(1200, 1600)
            browser.get(address_of(folder, server) + "lab/tree/widgets.ipynb")
            wait(browser, lambda: browser.find_elements("css selector", ".jp-Notebook .jp-CodeCell .cm-content"))
            wait(browser, lambda: browser.find_elements("css selector", ".jp-Notebook-ExecutionIndicator[data-status=idle]"))
            wait(browser, lambda: not browser.find_elements("css selector", ".jp-Spinner") and "jp-Cell" in focused(browser))
            yield browser
        finally:
            server.terminate()
            server.wait(30)


def address_of(folder, server) -> str:
    """Where the server listens, once it does. Raises ``AssertionError`` with its log when it has ended or takes too long."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        for file in folder.glob("JUPYTER_RUNTIME_DIR/jpserver-*.json"):
            try:
                return json.loads(file.read_text())["url"].replace("localhost", "127.0.0.1")
            except ValueError:
                pass
        time.sleep(0.2)
    raise AssertionError((folder / "log.txt").read_text())


def wait(browser, condition):
    """What ``condition()`` returns as soon as it is true."""
    return WebDriverWait(browser, SECONDS, ignored_exceptions=[StaleElementReferenceException]).until(lambda _: condition())


def press(browser, *keys) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser) -> str:
    """What the keyboard is in: tag, text, classes and title."""
    element = browser.switch_to.active_element
    return f"{element.tag_name} {element.text} {element.get_attribute('class')} {element.get_attribute('title')}"


def back_to(browser, words: str) -> None:
    """Shift and Tab from the cell below into a widget, until what has the focus is told by ``words``."""
    for _ in range(20):
        ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
        if words in focused(browser):
            return
    raise AssertionError(f"the keyboard does not reach {words!r}")


def output(browser, cell: int):
    return browser.find_elements("css selector", ".jp-Notebook .jp-CodeCell")[cell].find_element(
        "css selector", ".jp-Cell-outputWrapper"
    )


def sentence(browser, cell: int) -> str:
    return " ".join(element.text for element in output(browser, cell).find_elements("css selector", "[role=status]"))


def pictures(browser, cell: int) -> list[str]:
    return [
        image.get_attribute("src") for image in output(browser, cell).find_elements("css selector", "img") if image.is_displayed()
    ]


def run_cell(browser, cell: int) -> None:
    """Run the selected cell with Shift and Enter, which selects the next; ``cell``, counted from 0, is the one that is expected to run."""
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    prompts = browser.find_elements("css selector", ".jp-Notebook .jp-CodeCell .jp-InputPrompt")
    wait(browser, lambda: prompts[cell].text == f"[{cell + 1}]:")


def leave_for(browser, cell: int) -> None:
    """From a widget to a cell with the keyboard: Shift and Tab to the cell that holds the widget, then the arrow down."""
    back_to(browser, "jp-CodeCell")
    for _ in range(len(CELLS)):
        cells = browser.find_elements("css selector", ".jp-Notebook .jp-CodeCell")
        if "jp-mod-active" in cells[cell].get_attribute("class"):
            return
        press(browser, Keys.ARROW_DOWN)
    raise AssertionError(f"the keyboard does not reach cell {cell}")


def test_widgets_answer_to_the_keyboard(lab):
    """One test, since a notebook is worked from its top."""
    # The search box: type, Enter; then an empty query.
    run_cell(lab, 0)
    wait(lab, lambda: sentence(lab, 0) == "found 2 words: old mill")
    first = pictures(lab, 0)
    back_to(lab, "input")
    ActionChains(lab).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(
        "pallets in 2013", Keys.ENTER
    ).perform()
    wait(lab, lambda: sentence(lab, 0) == "found 3 words: pallets in 2013")
    wait(lab, lambda: len(pictures(lab, 0)) == len(first) == 1 and pictures(lab, 0) != first)
    ActionChains(lab).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(Keys.DELETE, Keys.ENTER).perform()
    wait(lab, lambda: "Type a query first" in sentence(lab, 0))

    # A slider with buttons: arrows change the width, Space presses, an error is told.
    leave_for(lab, 1)
    run_cell(lab, 1)
    wait(lab, lambda: sentence(lab, 1) == "showing 256 numbers")
    back_to(lab, "fail")
    press(lab, Keys.SPACE)
    wait(lab, lambda: "the disk is full" in sentence(lab, 1))
    back_to(lab, "keep")
    press(lab, Keys.SPACE)
    wait(lab, lambda: sentence(lab, 1) == "kept 256 numbers" and len(pictures(lab, 1)) == 2)
    back_to(lab, "noUi-handle")
    press(lab, Keys.ARROW_RIGHT)
    wait(lab, lambda: sentence(lab, 1) == "showing 64 numbers" and len(pictures(lab, 1)) == 1)

    # The live curve: the line and the picture change while it trains.
    leave_for(lab, 2)
    run_cell(lab, 2)
    wait(lab, lambda: pictures(lab, 2))
    seen = set(pictures(lab, 2))
    ActionChains(lab).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()

    def grown() -> bool:
        seen.update(pictures(lab, 2))
        return "trained" in output(lab, 3).text

    WebDriverWait(lab, SECONDS, poll_frequency=0.3, ignored_exceptions=[StaleElementReferenceException]).until(lambda _: grown())
    assert len(seen) >= 4, "the curve did not grow while it trained"
    assert "4/4" in output(lab, 2).text
