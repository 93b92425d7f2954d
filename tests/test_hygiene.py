"""Every notebook is clean, and so is the repository around it. Each check is also shown to fail on
a notebook that is not.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_checks as checks
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns

from vdr_helpers.profiles import PROFILES

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_FILES = checks.in_order((ROOT / "notebooks").glob("*.ipynb"))
NUMBERS = [*(f"{i:02}" for i in range(13)), *(f"a{i}" for i in range(1, 12))]


@pytest.fixture(scope="module")
def course():
    """``{file name: notebook}`` of the whole course."""
    return {file.name: nbformat.read(file, as_version=4) for file in NOTEBOOK_FILES}


# The notebooks of the course


def test_the_course_has_its_notebooks_and_appendices():
    assert [file.name.partition("_")[0] for file in NOTEBOOK_FILES] == NUMBERS


@pytest.mark.parametrize("check", checks.NOTEBOOK_CHECKS, ids=lambda check: check.__name__)
def test_every_notebook(check, course):
    assert course, "no notebooks in notebooks/"
    complaints = [
        f"{name}: {complaint}" for name, notebook in course.items() for complaint in check(notebook)
    ]
    assert not complaints, "\n" + "\n".join(complaints)


def test_every_notebook_is_under_one_megabyte():
    assert NOTEBOOK_FILES
    assert not [file.name for file in NOTEBOOK_FILES if file.stat().st_size >= 1_000_000]


def test_the_setup_cell_is_the_same_everywhere(course):
    assert course
    setups = {name: checks.setup_cell(notebook) for name, notebook in course.items()}
    assert None not in setups.values(), (
        f"the second cell is not code in {[name for name in setups if setups[name] is None]}"
    )
    first = next(iter(setups.values()))
    assert not [name for name, source in setups.items() if source != first]


def test_four_fifths_of_the_outputs_are_compared(course):
    compared, stored = checks.compared_and_stored(course.values())
    assert stored, "no notebook stores an output"
    assert compared >= 0.8 * stored, f"nbval compares {compared} of {stored} code cells with output"


# Each check fails where it should


def good_notebook():
    """A notebook that every check passes."""
    figure = new_output(
        "display_data",
        {"image/png": "iVBORw0KGgo="},
        metadata={"image/png": {"alt": "Tuned keeps 95 % at width 16"}},
    )
    text = new_output("stream", name="stdout", text="300 queries\n")
    timed = {
        "tags": ["nbval-ignore-output"],
        "reason": "the order of these lines depends on the machine",
    }
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n\n![A page with three figures](page.png)"),
            new_code_cell("import math\nqueries = [math.pi]", execution_count=1),
            new_code_cell(
                "%matplotlib inline\nprint(len(queries))", execution_count=2, outputs=[text]
            ),
            new_code_cell(
                "def area(radius):\n    return later * radius\nlater = [n for n in queries]",
                execution_count=3,
                outputs=[figure],
            ),
            new_code_cell("print(queries)", execution_count=4, outputs=[text], metadata=timed),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )


def with_cell_metadata(i, **metadata):
    notebook = good_notebook()
    notebook.cells[i].metadata.clear()
    notebook.cells[i].metadata.update(metadata)
    return notebook


def with_source(index, source):
    notebook = good_notebook()
    notebook.cells[index].source = source
    return notebook


def with_output(output):
    notebook = good_notebook()
    notebook.cells[2].outputs = [output]
    return notebook


def with_metadata(**metadata):
    notebook = good_notebook()
    notebook.metadata.update(metadata)
    return notebook


def with_count(count):
    notebook = good_notebook()
    notebook.cells[3].execution_count = count
    return notebook


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def picture(alt=None):
    return new_output(
        "display_data",
        {"image/png": "iVBORw0KGgo="},
        metadata={"image/png": {"alt": alt}} if alt else {},
    )


def without_cell_type():
    notebook = good_notebook()
    notebook.cells[0]["outputs"] = []
    return notebook


BAD = [
    (checks.is_valid, without_cell_type()),
    (checks.was_run_once_from_the_top, with_count(7)),
    (checks.was_run_once_from_the_top, with_count(None)),
    (checks.was_run_once_from_the_top, new_notebook(cells=[new_markdown_cell("# Title")])),
    (
        checks.stores_no_errors_or_warnings,
        with_output(new_output("error", ename="KeyError", evalue="x", traceback=[])),
    ),
    (checks.stores_no_errors_or_warnings, with_output(stream("0%|", name="stderr"))),
    (checks.stores_no_errors_or_warnings, with_output(stream("UserWarning: slow"))),
    (checks.stores_no_widget_state, with_metadata(widgets={})),
    (checks.names_no_machine_paths, with_output(stream("saved in /home/ada/outputs"))),
    (checks.names_no_machine_paths, with_output(stream("saved in '/tmp/x'"))),
    (checks.names_no_machine_paths, with_output(stream(r"saved in C:\Users\Ada"))),
    (
        checks.names_no_machine_paths,
        with_output(new_output("display_data", {"text/html": "<a href='file:///root/x'>"})),
    ),
    (checks.describes_every_image, with_output(picture())),
    (checks.describes_every_image, with_output(picture(alt="a plot"))),
    (
        checks.describes_every_image,
        with_output(new_output("display_data", {"text/html": "<img src='x.png'>"})),
    ),
    (checks.describes_every_image, with_source(0, "# Title\n\n![](page.png)")),
    (checks.describes_every_image, with_source(0, '# Title\n\n<img src="page.png" alt="">')),
    (
        checks.names_its_kernel,
        with_metadata(kernelspec={"name": "venv", "display_name": "My environment"}),
    ),
    (checks.opens_with_a_title, with_source(0, "Welcome")),
    (checks.opens_with_a_title, new_notebook(cells=[new_code_cell("1")])),
    (checks.asks_no_profile, with_source(2, "if profile == 'tiny':\n    queries = []")),
    (checks.asks_no_profile, with_source(2, "size = 1 if profile.name == 'tiny' else 2")),
    (checks.asks_no_profile, with_source(2, "if TEST:\n    queries = []")),
    (
        checks.gives_a_reason_for_what_is_not_compared,
        with_cell_metadata(4, tags=["nbval-ignore-output"]),
    ),
    (
        checks.gives_a_reason_for_what_is_not_compared,
        with_cell_metadata(4, tags=["nbval-skip"], reason="slow"),
    ),
    (
        checks.gives_a_reason_for_what_is_not_compared,
        with_cell_metadata(4, reason="the order depends on the machine"),
    ),
    (
        checks.gives_a_reason_for_what_is_not_compared,
        with_source(4, "# NBVAL_IGNORE_OUTPUT\nprint(queries)"),
    ),
    (checks.binds_every_name_before_use, with_source(1, "import math")),
    (checks.binds_every_name_before_use, with_source(2, "print(later)")),
    (
        checks.binds_every_name_before_use,
        with_source(3, "def area(radius):\n    return missing * radius"),
    ),
    (checks.binds_every_name_before_use, with_source(3, "[width for page in queries]\nwidth = 1")),
    (checks.binds_every_name_before_use, with_source(3, "total += 1")),
    (checks.keeps_paragraphs_short, with_source(0, "# Title\n\n" + "A page is a picture. " * 40)),
]


@pytest.mark.parametrize("check", checks.NOTEBOOK_CHECKS, ids=lambda check: check.__name__)
def test_a_good_notebook_passes(check):
    assert check(good_notebook()) == []


@pytest.mark.parametrize(
    ("check", "notebook"), BAD, ids=[f"{i}-{check.__name__}" for i, (check, _) in enumerate(BAD)]
)
def test_a_bad_notebook_fails(check, notebook):
    assert check(notebook) != []


def test_every_check_has_a_bad_notebook():
    assert {check for check, _ in BAD} == set(checks.NOTEBOOK_CHECKS)


def test_comments_and_tags_both_take_a_cell_out_of_the_comparison():
    output = [stream("1")]
    cells = [
        new_code_cell("print(1)", outputs=output),
        new_code_cell("print(1)"),
        new_code_cell("# NBVAL_IGNORE_OUTPUT\nprint(1)", outputs=output),
        new_code_cell("print(1)", outputs=output, metadata={"tags": ["nbval-skip"]}),
        new_code_cell("print(1)", outputs=output, metadata={"tags": ["nbval-ignore-output"]}),
    ]
    assert checks.compared_and_stored([new_notebook(cells=cells)]) == (1, 4)


# What nbval does not compare


def sanitised(text):
    for pattern, replacement in get_sanitize_patterns(
        (ROOT / "tests" / "nbval_sanitize.cfg").read_text()
    ):
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    ("one_run", "another"),
    [
        ("took 41.3 s", "took 7 s"),
        ("about 3 minutes", "about 12 minutes"),
        ("<Styler at 0x7f52a01b2c50>", "<Styler at 0x7fa9c2d01f10>"),
        ('<td id="T_1a2b3_row0_col1">', '<td id="T_9f8e7_row0_col1">'),
        ("2026-11-22 23:30:15", "2027-01-02 03:04:05"),
        ("Python 3.11.7", "Python 3.13.1"),
        ("torch 2.15.0+cpu", "torch 2.15.0+cu130"),
        ("profile tiny | CPU | torch", "profile tiny | GPU | torch"),
    ],
)
def test_what_differs_between_machines_is_made_alike(one_run, another):
    assert sanitised(one_run) == sanitised(another)


@pytest.mark.parametrize(
    "text",
    [
        "NDCG@10 0.612",
        "300 queries",
        "(1500, 256)",
        "year 2024",
        "1,500 pages",
        "| 256 | 0.947 |",
        "ids 0x1f",
    ],
)
def test_what_a_reader_should_trust_stays(text):
    assert sanitised(text) == text


# The package


def test_importing_the_package_imports_nothing_heavy():
    program = "import json, sys; import vdr_helpers; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
    )
    assert "vdr_helpers" in loaded
    heavy = {
        "torch",
        "transformers",
        "sentence_transformers",
        "datasets",
        "matplotlib",
        "pandas",
        "numpy",
        "PIL",
        "IPython",
        "ipywidgets",
    }
    assert not heavy & set(loaded)


# The repository


def tracked_files():
    """Files that git knows or would add, so that a new file is looked at before its first
    commit.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# Written in halves, so that this file does not name them.
HOSTS = [
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("anaconda", ".org"),
    ("anaconda", ".com"),
    ("npm", "js.org"),
    ("download.py", "torch.org"),
]
FORBIDDEN = re.compile(
    "|".join(re.escape(first + second) for first, second in HOSTS) + "|/" + r"work/(main|shared)\b",
    re.IGNORECASE,
)


def test_no_file_names_a_package_registry_or_this_machine():
    assert FORBIDDEN.search("see https://" + "py" + "pi.org/simple")
    files = tracked_files()
    assert ROOT / "README.md" in files
    found = []
    for file in files:
        match = (
            FORBIDDEN.search(file.read_text(encoding="utf-8", errors="ignore"))
            if file.stat().st_size < 2_000_000
            else None
        )
        found += [f"{file.relative_to(ROOT)}: {match.group()}"] if match else []
    assert not found


def test_the_readme_lists_every_notebook_in_order():
    assert NOTEBOOK_FILES
    linked = re.findall(
        r"^\|.*\]\((notebooks/[^)]+\.ipynb)\)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert linked == [f"notebooks/{file.name}" for file in NOTEBOOK_FILES]


def test_the_table_of_profiles_names_every_profile_and_no_other():
    table = (
        (ROOT / "docs" / "profiles.md")
        .read_text()
        .partition("## Profiles")[2]
        .partition("\n## ")[0]
    )
    assert re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE) == list(PROFILES)


def test_local_links_of_the_readme_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text())
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]
