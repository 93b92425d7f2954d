"""What a clean notebook of this course is: checks that take a notebook object and return a list of
complaints, empty when all is well.

``test_hygiene.py`` applies them to the course and, to see that each can fail, to bad notebooks
built in memory.
"""

import json
import re
import subprocess
import sys

import nbformat
from nbval.plugin import find_comment_markers, find_metadata_tags

IMAGE_TYPES = ("image/png", "image/jpeg", "image/svg+xml")
MACHINE_PATH = re.compile(
    r"(?<![\w.:-])/(?:root|home|tmp|work|Users|private/var)(?=[/\s\"')\]]|$)|\b[A-Za-z]:\\+Users\b"
)
EMBEDDED_DATA = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")
WARNING = re.compile(r"\b\w*Warning\b\s*:")
PROFILE_TEST = re.compile(
    r"\bif .*profile(\.name)?\s*[=!]=|\bif .*profile(\.name)? (not )?in\b|\bif (not )?TEST\b|\bmatch profile"
)


def in_order(files):
    """Notebook files in the order of the course: 00 to 12, then a1 to a11."""
    return sorted(files, key=lambda file: (file.name[0], int(re.search(r"\d+", file.name)[0])))


def code_cells(notebook):
    """The code cells that hold something, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs_of(notebook):
    """``(number of the code cell from 1, output)`` for every stored output."""
    return [
        (i, output)
        for i, cell in enumerate(code_cells(notebook), start=1)
        for output in cell.outputs
    ]


def is_valid(notebook):
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as problem:
        return [f"not a valid notebook: {str(problem).splitlines()[0]}"]
    return []


def was_run_once_from_the_top(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    return (
        []
        if counts == list(range(1, len(counts) + 1)) and counts
        else [f"execution counts are {counts}, not 1 to {len(counts)}"]
    )


def stores_no_errors_or_warnings(notebook):
    complaints = []
    for i, output in outputs_of(notebook):
        if output.output_type == "error":
            complaints.append(f"code cell {i} stores an error: {output.ename}")
        elif output.output_type == "stream" and output.name == "stderr":
            complaints.append(f"code cell {i} stores stderr: {output.text[:80]!r}")
        elif WARNING.search(
            json.dumps(output.get("text", output.get("data", {}).get("text/plain", "")))
        ):
            complaints.append(f"code cell {i} stores a warning")
    return complaints


def stores_no_widget_state(notebook):
    return (
        ["metadata.widgets is stored, which keeps GitHub from showing the notebook"]
        if "widgets" in notebook.metadata
        else []
    )


def strings_of(value):
    """Every string in a notebook, without pictures."""
    if isinstance(value, str):
        yield EMBEDDED_DATA.sub("", value)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in IMAGE_TYPES[:2]:
                yield from strings_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)


def names_no_machine_paths(notebook):
    found = {
        match.group() for text in strings_of(notebook) for match in MACHINE_PATH.finditer(text)
    }
    return [f"machine path {path!r}" for path in sorted(found)]


def describes_every_image(notebook):
    complaints = []
    for i, output in outputs_of(notebook):
        for kind in IMAGE_TYPES:
            if kind in output.get("data", {}):
                alt = (
                    output.metadata.get(kind, {}).get("alt", "")
                    if isinstance(output.metadata.get(kind, {}), dict)
                    else ""
                )
                if len(alt.strip()) <= 20:
                    complaints.append(f"code cell {i}: {kind} with alt text {alt!r}")
        page = "".join(output.get("data", {}).get("text/html", ""))
        complaints += [
            f"code cell {i}: <img> without alt in its HTML"
            for tag in re.findall(r"<img\b[^>]*>", page)
            if not has_alt(tag)
        ]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            complaints += [
                f"image without alt text: {target}"
                for target in re.findall(r"!\[\s*\]\(([^)]*)\)", cell.source)
            ]
            complaints += [
                f"image without alt text: {tag}"
                for tag in re.findall(r"<img\b[^>]*>", cell.source)
                if not has_alt(tag)
            ]
    return complaints


def has_alt(tag):
    return re.search(r"\balt\s*=\s*(\"[^\"]+\"|'[^']+')", tag) is not None


def names_its_kernel(notebook):
    name = notebook.metadata.get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"kernel is {name!r}, not 'python3'"]


def opens_with_a_title(notebook):
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        return ["the first cell is not markdown that starts with a title"]
    return []


def asks_no_profile(notebook):
    return [
        f"a cell branches on the profile: {line.strip()}"
        for cell in code_cells(notebook)
        for line in cell.source.splitlines()
        if PROFILE_TEST.search(line)
    ]


def nbval_options(cell):
    """What nbval itself reads from a cell's comments and tags, such as ``{"check": False}``."""
    return dict(find_metadata_tags(cell.metadata)) | dict(find_comment_markers(cell.source))


def is_compared(cell):
    """Whether ``pytest --nbval`` compares this cell's stored output."""
    options = nbval_options(cell)
    return options.get("check", True) and not options.get("skip", False)


def gives_a_reason_for_what_is_not_compared(notebook):
    """nbval's markers are tags with a ``reason`` beside them in the cell's metadata, so that a
    reader's code stays free of them.
    """
    complaints = []
    for i, cell in enumerate(code_cells(notebook), start=1):
        if not is_compared(cell) and len(cell.metadata.get("reason", "").strip()) < 15:
            complaints.append(
                f"code cell {i} is not compared and its metadata has no 'reason' of at least 15 characters"
            )
        if is_compared(cell) and "reason" in cell.metadata:
            complaints.append(f"code cell {i} is compared: its metadata gives a reason for nothing")
        complaints += [
            f"code cell {i}: write {line.strip()!r} as a tag"
            for line in cell.source.splitlines()
            if "NBVAL_" in line
        ]
    return complaints


def compared_and_stored(notebooks):
    """``(cells whose output is compared, cells with output)`` over several notebooks."""
    cells = [cell for notebook in notebooks for cell in code_cells(notebook) if cell.outputs]
    return sum(is_compared(cell) for cell in cells), len(cells)


def setup_cell(notebook):
    """The source of the second cell, or ``None`` when that is not code."""
    second = notebook.cells[1] if len(notebook.cells) > 1 else None
    return second.source if second is not None and second.cell_type == "code" else None


def binds_every_name_before_use(notebook):
    """Names are bound by an earlier line at top level; inside a function, anywhere in the notebook.
    The judge is ruff's F821.
    """
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select=F821",
        "--output-format=json",
    ]
    command += ["--stdin-filename=notebook.ipynb", "-"]
    # without it ruff passes the notebook over
    python = notebook.metadata | {"language_info": {"name": "python"}}
    text = nbformat.writes(nbformat.from_dict({**notebook, "metadata": python}))
    run = subprocess.run(command, input=text, capture_output=True, text=True)
    return [f"cell {found['cell']}: {found['message']}" for found in json.loads(run.stdout)]


def keeps_paragraphs_short(notebook):
    """Six lines of a text column, about 110 letters each; what stands in a link's brackets does not
    count.
    """
    complaints = []
    for cell in notebook.cells:
        for paragraph in re.split(r"\n\s*\n", cell.source) if cell.cell_type == "markdown" else ():
            text = re.sub(r"\]\([^)]*\)", "]", paragraph)
            if len(text) > 660 and not re.match(r"\||```|[-*] |\d+\. |<", text):
                complaints.append(f"a paragraph of {len(text)} letters: {text[:60]!r}")
    return complaints


NOTEBOOK_CHECKS = (
    is_valid,
    was_run_once_from_the_top,
    stores_no_errors_or_warnings,
    stores_no_widget_state,
    names_no_machine_paths,
    describes_every_image,
    names_its_kernel,
    opens_with_a_title,
    asks_no_profile,
    gives_a_reason_for_what_is_not_compared,
    binds_every_name_before_use,
    keeps_paragraphs_short,
)
