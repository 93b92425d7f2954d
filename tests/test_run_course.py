"""The headless run: order, progress, failure, and what it leaves behind, on notebooks of two
cells.
"""

import errno
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import run_course, run_pages
from vdr_helpers.cache import MANIFEST
from vdr_helpers.evaluation import save_results
from vdr_helpers.gpu import Gpu
from vdr_helpers.models import tuned_folder
from vdr_helpers.profiles import load_profile


def write_notebook(folder: Path, name: str, *sources: str) -> None:
    cells = [
        nbformat.v4.new_markdown_cell("# A title"),
        *(nbformat.v4.new_code_cell(source) for source in sources),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / name)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder for notebooks and a profile whose results 03 and 05 are there already."""
    profile = load_profile("tiny")
    scores = {"base": {"8": 0.21, "256": 0.614}, "finetuned": {"8": 0.72, "256": 0.75}}
    folder = tuned_folder(profile)
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"settings": {}, "files": {}, "train_seconds": 98.5}))
    save_results(profile, "truncation", scores)
    monkeypatch.setattr(run_course, "load_profile", lambda: profile)
    monkeypatch.setattr("benchmarks.where.present_gpu", lambda: Gpu("CPU, 2 cores"))
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    return notebooks, profile


def test_a_run_leaves_copies_pages_and_a_summary(course, capsys):
    notebooks, profile = course
    write_notebook(
        notebooks, "01_second.ipynb", "assert open('first.txt').read() == 'done'", "print('second')"
    )
    write_notebook(
        notebooks,
        "00_first.ipynb",
        "import os, sys; from pathlib import Path",
        "Path('first.txt').write_text('done'); print(sys.executable); print(os.environ['VDR_OUTPUTS'])",
    )
    source = (notebooks / "00_first.ipynb").read_text()

    assert run_course.main(["--notebooks", str(notebooks)]) == 0

    printed = capsys.readouterr().out
    assert printed.index("00_first") < printed.index("01_second")
    assert "    256    0.614       0.750" in printed
    assert printed.index("    256 ") < printed.index("      8 ")
    copy = nbformat.read(profile.output_dir / "notebooks" / "00_first.ipynb", as_version=4)
    executable, outputs = copy.cells[2].outputs[0].text.split()
    # this interpreter, whatever other kernels are installed
    assert Path(executable) == Path(sys.executable)
    assert Path(outputs) == profile.output_dir.parent
    assert (notebooks / "00_first.ipynb").read_text() == source
    summary = json.loads((profile.output_dir / "summary.json").read_text())
    assert {
        "profile",
        "versions",
        "device",
        "minutes",
        "ndcg_at_10",
        "train_seconds",
    } <= summary.keys()
    assert list(summary["minutes"]) == ["00_first", "01_second"]
    assert summary["ndcg_at_10"]["finetuned"]["8"] == 0.72
    assert summary["train_seconds"] == 98.5
    index = (profile.output_dir / "index.html").read_text()
    for name in ("notebooks/00_first.html", "notebooks/01_second.html"):
        assert f'href="{name}"' in index
        assert (profile.output_dir / name).exists()


def test_a_failure_names_notebook_cell_and_error_and_shows_no_scores(course, capsys):
    notebooks, profile = course
    write_notebook(
        notebooks, "00_first.ipynb", "print('before')", "# why\nwidth = 1 / 0", "print('after')"
    )
    write_notebook(notebooks, "01_second.ipynb", "print('second')")

    assert run_course.main(["--notebooks", str(notebooks)]) == 1

    printed = capsys.readouterr()
    assert "00_first.ipynb, code cell 2 of 3" in printed.err
    assert "ZeroDivisionError: division by zero" in printed.err
    assert "01_second" not in printed.out
    assert "0.614" not in printed.out  # the scores on disk belong to an earlier run
    copy = nbformat.read(profile.output_dir / "notebooks" / "00_first.ipynb", as_version=4)
    assert copy.cells[1].outputs[0].text == "before\n"
    assert (profile.output_dir / "notebooks" / "00_first.html").exists()
    summary = json.loads((profile.output_dir / "summary.json").read_text())
    assert "ZeroDivisionError" in summary["failed"]["00_first"]
    assert summary["ndcg_at_10"] == {"base": {}, "finetuned": {}}


def test_scores_of_other_settings_and_damaged_files_are_left_out(course, monkeypatch, capsys):
    notebooks, profile = course
    write_notebook(notebooks, "00_first.ipynb", "print()")
    monkeypatch.setattr(run_course, "load_profile", lambda: replace(profile, train_rows=96))
    (profile.output_dir / "summary.json").write_text('{"minutes": {"00_fi')
    assert run_course.main(["--notebooks", str(notebooks)]) == 0
    assert "No scores yet" in capsys.readouterr().out
    summary = json.loads((profile.output_dir / "summary.json").read_text())
    assert (summary["ndcg_at_10"]["base"], summary["train_seconds"]) == ({}, None)


def test_a_later_run_says_how_long_a_notebook_took_before(course, capsys):
    notebooks, profile = course
    write_notebook(notebooks, "00_first.ipynb", "print()")
    (profile.output_dir / "summary.json").write_text(json.dumps({"minutes": {"00_first": 3.91}}))
    assert run_course.main(["--notebooks", str(notebooks)]) == 0
    assert "00_first                 (took 3.9 min before) ok" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_ends_in_one_line(course, capsys, monkeypatch):
    notebooks, profile = course
    write_notebook(notebooks, "00_first.ipynb", "print()")
    shutil.rmtree(profile.output_dir)
    profile.output_dir.parent.rmdir()
    profile.output_dir.parent.write_text("a file where the folder should be")
    assert run_course.main(["--notebooks", str(notebooks)]) == 2
    said = capsys.readouterr().err.strip()
    assert (
        said
        == "the outputs folder cannot be written (Not a directory): set VDR_OUTPUTS to a folder of yours"
    )

    def write_bytes(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    profile.output_dir.parent.unlink()
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert run_course.main(["--notebooks", str(notebooks)]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            "(No space left on device): make room, or set VDR_OUTPUTS to a folder on another disk"
        )
    )


def test_a_disk_that_fills_on_the_way_ends_in_one_line_and_other_errors_are_shown(
    course, capsys, monkeypatch
):
    notebooks, _ = course
    write_notebook(notebooks, "00_first.ipynb", "print()")
    for number, status in ((errno.EROFS, 2), (errno.ECONNRESET, None)):

        def execute(*arguments, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(run_course, "execute", execute)
        if status is None:
            with pytest.raises(OSError):
                run_course.main(["--notebooks", str(notebooks)])
        else:
            assert run_course.main(["--notebooks", str(notebooks)]) == status
            assert "Traceback" not in capsys.readouterr().err


def test_only_picks_by_number_and_rejects_an_unknown_one(course, capsys):
    notebooks, _ = course
    for name in ("00_first.ipynb", "04_fifth.ipynb", "06_last.ipynb"):
        write_notebook(notebooks, name, "print()")
    found = run_course.find_notebooks(notebooks, only=["04", "00"])
    assert [notebook.name for notebook in found] == ["00_first.ipynb", "04_fifth.ipynb"]
    assert run_course.main(["--notebooks", str(notebooks), "--only", "07"]) == 2
    assert (
        "no notebook starts with '07'; there are 00_first, 04_fifth, 06_last"
        in capsys.readouterr().err
    )


def test_a_part_is_run_by_itself_and_keeps_the_minutes_of_the_other(course, monkeypatch):
    notebooks, profile = course
    for name in ("07_last.ipynb", "08_own.ipynb", "a1_appendix.ipynb"):
        write_notebook(notebooks, name, "print()")
    monkeypatch.setattr(run_course, "part_of", lambda stem: 2 if stem.startswith("08") else 1)
    monkeypatch.setattr(
        run_course, "execute", lambda notebook, folder: run_course.Result(notebook, 6.0, None)
    )
    for arguments, stems in (
        ([], ["07_last", "a1_appendix"]),
        (["--part", "2"], ["07_last", "08_own", "a1_appendix"]),
        (["--part", "1"], ["07_last", "a1_appendix"]),
        (["--part", "all"], ["07_last", "08_own", "a1_appendix"]),
    ):
        assert run_course.main(["--notebooks", str(notebooks), *arguments]) == 0
        assert (
            list(json.loads((profile.output_dir / "summary.json").read_text())["minutes"]) == stems
        )


def test_no_notebooks_says_where_it_looked(tmp_path, capsys):
    assert run_course.main(["--notebooks", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_what_is_printed_in_pieces_is_one_output_and_keeps_its_place():
    def printed(text):
        return new_output("stream", name="stdout", text=text)

    table = new_output("display_data", data={"text/plain": "a table"})
    outputs = [printed("first, "), printed("second\n"), table, printed("third\n")]
    notebook = new_notebook(cells=[new_code_cell("...", outputs=outputs)])
    stored = run_pages.without_controls(notebook).cells[0].outputs
    assert [output.get("text") for output in stored] == ["first, second\n", None, "third\n"]
    assert len(notebook.cells[0].outputs) == 4, "the notebook itself stays as it is"


def test_a_page_keeps_the_alt_text_of_its_figures(tmp_path):
    pixel = "iVBORw0KGgo=\n"
    output = nbformat.v4.new_output(
        "display_data",
        {"image/png": pixel, "text/plain": "x"},
        metadata={"image/png": {"alt": 'Tuned keeps "95 %"'}},
    )
    cells = [nbformat.v4.new_code_cell("draw()", outputs=[output])]
    run_pages.write_html(nbformat.v4.new_notebook(cells=cells), tmp_path, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Tuned keeps" in page
    assert "No description has been provided" not in page
