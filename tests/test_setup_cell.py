"""The setup cell that installs the course on Colab and Kaggle, and the command that writes the
course's address everywhere.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile
from pathlib import Path

import nbformat
import notebook_checks as checks
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from tools import badges
from vdr_helpers import machine

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = len(list((ROOT / "notebooks").glob("*.ipynb")))
ADDRESS = "https://github.com/ada/course"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
COURSE = f"vdr-course[audit,bench,documents,scale,store] @ git+{ADDRESS}@v{VERSION}"
HOSTED = ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"]


# The cell, run


@pytest.fixture
def installs(monkeypatch):
    """Every line that the cell would give to ``%pip``; the course's own modules are replaced, and
    neither platform is named.
    """
    lines = []
    monkeypatch.setattr("vdr_helpers.machine.start", lambda: print("profile tiny"))
    for name in HOSTED:
        monkeypatch.delenv(name, raising=False)
    return lines


class Shell:
    """In the place of IPython's shell: notes the magics of a cell, with ``{COURSE}`` filled in as
    IPython does.
    """

    def __init__(self, lines, space):
        self.lines, self.space = lines, space

    def run_line_magic(self, name, line):
        self.lines.append(f"{name} {line.format(**self.space)}")


def run_cell(lines, address=ADDRESS):
    space = {}
    space["get_ipython"] = lambda: Shell(lines, space)
    exec(TransformerManager().transform_cell(badges.setup_cell(address, f"v{VERSION}")), space)


@pytest.mark.parametrize("address", [None, ADDRESS])
def test_locally_it_prints_one_line_and_installs_nothing(installs, capsys, address):
    run_cell(installs, address)
    assert capsys.readouterr() == ("profile tiny\n", "")
    assert installs == []


@pytest.mark.parametrize("variable", HOSTED)
def test_hosted_it_installs_the_pinned_course(installs, monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "1")
    run_cell(installs)
    assert installs == [f'pip install -q "{COURSE}"']
    assert capsys.readouterr().out == "profile tiny\n"


@pytest.mark.parametrize("variable", HOSTED)
def test_hosted_without_an_address_it_says_what_to_do_and_goes_on(
    installs, monkeypatch, capsys, variable
):
    monkeypatch.setenv(variable, "1")
    run_cell(installs, None)
    first, second = capsys.readouterr().out.splitlines()
    assert "clone the repository" in first
    assert second == "profile tiny"
    assert installs == []


@pytest.mark.parametrize("package", ["sentence-transformers", "numpy", "torch"])
def test_a_package_replaced_under_a_running_kernel_is_named(monkeypatch, package):
    module = types.SimpleNamespace(__version__="1.2.3")
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), module)
    with pytest.raises(
        RuntimeError, match=f"{package} 1.2.3 is loaded and .* is installed: restart the session"
    ):
        machine.check_loaded_packages()


def test_what_is_installed_is_what_is_loaded():
    machine.check_loaded_packages()


def make_wheel(folder, name, number, requires=(), module=""):
    """A wheel of one module, written by hand."""
    info = f"{name}-{number}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name.replace('_', '-')}", f"Version: {number}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr(f"{name}.py", f"__version__ = {number!r}\n")
        if module:
            wheel.writestr("vdr_helpers/__init__.py", "")
            wheel.writestr("vdr_helpers/machine.py", module)


# IPython's %pip, for a plain interpreter.
PIP = """
import shlex
import subprocess
import sys


class Shell:
    def run_line_magic(self, name, line):
        arguments = shlex.split(line.format(COURSE=COURSE))
        subprocess.run([sys.executable, "-m", name, *arguments], check=True)


def get_ipython():
    return Shell()


"""
MACHINE = """
def start(): print("profile of the wheel")
"""


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    """``run(course)``: the cell with real pip, in an environment as a platform gives it, where
    newer wheels of torch lie about.
    """
    folder = tmp_path_factory.mktemp("hosted")
    wheels, shelf = folder / "installed", folder / "shelf"
    wheels.mkdir(), shelf.mkdir()
    for name in ("torch", "torchvision", "numpy"):
        make_wheel(wheels, name, "1.0+image")
        make_wheel(shelf, name, "3.0")
    make_wheel(wheels, "sentence_transformers", "5.7.0")
    make_wheel(shelf, "sentence_transformers", "6.2.0", ["numpy>=1.0"])
    make_wheel(
        shelf, "vdr_course", "0.1.0", ["torch>=1.0", "numpy", "sentence-transformers>=6.0"], MACHINE
    )
    make_wheel(shelf, "vdr_course", "0.2.0", ["torch>=2.0", "sentence-transformers>=6.0"], MACHINE)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    settings = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(shelf),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
    }
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in (*HOSTED, "PYTHONPATH", "PIP_EXTRA_INDEX_URL")
    }
    environment |= settings | {"COLAB_RELEASE_TAG": "release"}
    subprocess.run(
        [python, "-m", "pip", "install", "-q", *sorted(wheels.glob("*.whl"))],
        env=environment,
        check=True,
    )

    def run(number, before=""):
        wheel = (shelf / f"vdr_course-{number}-py3-none-any.whl").as_uri()
        cell = badges.setup_cell(None, "").replace(
            'COURSE = ""', f'COURSE = "vdr-course @ {wheel}"'
        )
        cell = PIP + TransformerManager().transform_cell(cell)
        after = "from importlib.metadata import version\n"
        after += 'print({n: version(n) for n in ("torch", "torchvision", "numpy", "sentence-transformers")})'
        (folder / "cell.py").write_text(f"{before}\n{cell}\n{after}\n")
        return subprocess.run(
            [python, folder / "cell.py"],
            env=environment,
            capture_output=True,
            text=True,
            cwd=folder,
        )

    return run


@pytest.mark.slow
def test_real_pip_installs_the_course_and_keeps_what_the_platform_has(hosted):
    for _ in range(2):  # a second run changes nothing
        fresh = hosted("0.1.0")
        assert fresh.returncode == 0, fresh.stderr
        *_, first, versions = fresh.stdout.splitlines()
        assert first == "profile of the wheel"
        image = dict.fromkeys(("torch", "torchvision", "numpy"), "1.0+image")
        assert versions == str(image | {"sentence-transformers": "6.2.0"})


# The course as it is


def test_every_notebook_and_the_readme_say_what_pyproject_says(tmp_path):
    copy = copied(tmp_path)
    assert badges.rewrite(copy) == [], "run python -m tools.badges"
    address, ref = badges.settings((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert checks.setup_cell(nbformat.read(file, as_version=4)) == badges.setup_cell(
            address, ref
        )


# The command


def copied(folder):
    """A copy of what the command touches."""
    copy = folder / "checkout"
    (copy / "notebooks").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "docs", copy / "docs")
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(file, copy / "notebooks" / file.name)
    return copy


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the course without an address, as the command's own checkout."""
    copy = copied(tmp_path)
    badges.rewrite(copy, change=True)
    monkeypatch.setattr(badges, "ROOT", copy)
    return copy


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def every_text(folder):
    return b"".join(contents(folder).values()).decode()


def test_an_address_is_written_everywhere(checkout, capsys):
    assert badges.main([ADDRESS + ".git"]) == 0
    assert (
        f'[project.urls]\nRepository = "{ADDRESS}"\n' in (checkout / "pyproject.toml").read_text()
    )
    for file in sorted((checkout / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        page = f"ada/course/blob/v{VERSION}/notebooks/{file.name}"
        title, blank, shown, after = notebook.cells[0].source.splitlines()[:4]
        assert title.startswith("# ") and blank == "" and after == ""
        assert re.findall(r"\[!\[(Open in \w+)\]\(https://[^)]+\.svg\)\]\(([^)]+)\)", shown) == [
            ("Open in Colab", f"https://colab.research.google.com/github/{page}"),
            ("Open in Kaggle", f"https://kaggle.com/kernels/welcome?src=https://github.com/{page}"),
        ]
        assert f'COURSE = "{COURSE}"\n' in checks.setup_cell(notebook)
        assert checks.describes_every_image(notebook) == []
    readme = (checkout / "README.md").read_text()
    assert f"git clone {ADDRESS} vdr-course" in readme
    assert readme.count("[![Open in Colab]") == NOTEBOOKS
    assert "git clone <" not in every_text(checkout)
    citation = yaml.safe_load((checkout / "CITATION.cff").read_text())
    assert (citation["version"], citation["repository-code"]) == (VERSION, ADDRESS)
    assert COURSE in capsys.readouterr().out


def test_twice_is_once(checkout, capsys):
    badges.main([ADDRESS])
    once = contents(checkout)
    assert badges.main([ADDRESS + "/"]) == 0
    assert contents(checkout) == once
    assert badges.main([]) == 0
    assert contents(checkout) == once
    assert capsys.readouterr().out.count("nothing to change") == 2


@pytest.mark.parametrize("ref", [None, "main"])
def test_unset_takes_everything_away(checkout, ref):
    before = contents(checkout)
    assert "colab-badge" not in every_text(checkout)
    assert badges.main([ADDRESS] + (["--ref", ref] if ref else [])) == 0
    assert contents(checkout) != before
    assert badges.main(["--unset"]) == 0
    assert contents(checkout) == before


def test_a_fork_leaves_no_trace_of_the_first_address(checkout):
    badges.main([ADDRESS])
    assert badges.main(["https://github.com/grace/fork", "--ref", "0a1b2c3"]) == 0
    text = every_text(checkout)
    assert "ada/course" not in text
    assert text.count("git+https://github.com/grace/fork@0a1b2c3") == NOTEBOOKS
    assert 'ref = "0a1b2c3"' in text
    assert badges.main(["https://github.com/grace/fork"]) == 0
    assert "0a1b2c3" not in every_text(checkout)


def test_a_new_version_is_a_new_tag(checkout):
    badges.main([ADDRESS])
    pyproject = checkout / "pyproject.toml"
    pyproject.write_text(
        re.sub(r'^version = ".*"', 'version = "9.8.7"', pyproject.read_text(), flags=re.MULTILINE)
    )
    assert badges.main([]) == 0
    assert every_text(checkout).count("git+https://github.com/ada/course@v9.8.7") == NOTEBOOKS
    assert f"/blob/v{VERSION}/" not in every_text(checkout)


def test_another_host_gets_the_install_line_and_no_badge(checkout, capsys):
    assert badges.main(["https://git.example.org/ada/course"]) == 0
    assert (
        every_text(checkout).count(f"git+https://git.example.org/ada/course@v{VERSION}")
        == NOTEBOOKS
    )
    assert "Open in" not in every_text(checkout)
    assert "no badge is shown" in capsys.readouterr().out


def test_only_the_first_two_cells_change(checkout):
    before = {
        path.name: json.loads(path.read_text()) for path in (checkout / "notebooks").glob("*.ipynb")
    }
    badges.main([ADDRESS])
    for name, old in before.items():
        new = json.loads((checkout / "notebooks" / name).read_text())
        assert new["cells"][2:] == old["cells"][2:]
        for i in (0, 1):
            assert {**new["cells"][i], "source": 0} == {**old["cells"][i], "source": 0}
        assert {**new, "cells": 0} == {**old, "cells": 0}


def test_the_readme_changes_only_in_its_rows_and_the_clone_line(checkout):
    before = (checkout / "README.md").read_text().splitlines()
    badges.main([ADDRESS])
    after = (checkout / "README.md").read_text().splitlines()
    assert len(before) == len(after)
    changed = [line for line, old in zip(after, before, strict=True) if line != old]
    assert len(changed) == NOTEBOOKS + 1
    assert sum(line.startswith("|") for line in changed) == NOTEBOOKS


def test_line_endings_of_windows_are_kept(checkout):
    for path in checkout.rglob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = contents(checkout)
    assert badges.main([ADDRESS]) == 0
    assert all(data.count(b"\n") == data.count(b"\r\n") for data in contents(checkout).values())
    assert badges.main(["--unset"]) == 0
    assert contents(checkout) == before


@pytest.mark.parametrize(
    "address",
    [
        "github.com/ada/course",
        "http://github.com/ada/course",
        "git@github.com:ada/course.git",
        "https://ada:secret@github.com/ada/course",
        "https://github.com/ada",
        "https://github.com/ada/course?tab=readme",
        'https://github.com/ada/course"',
        "https://github.com/ada/my course",
    ],
)
def test_a_wrong_address_changes_nothing(checkout, capsys, address):
    before = contents(checkout)
    assert badges.main([address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "write https://github.com/owner/name" in line
    assert "secret" not in line
    assert contents(checkout) == before


def first_notebook(checkout):
    return checkout / "notebooks" / "00_start_here.ipynb"


def spoil(path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (
            lambda folder: spoil(
                first_notebook(folder), lambda text: text.replace("profile = start()", "start()")
            ),
            "not the setup cell",
        ),
        (
            lambda folder: spoil(first_notebook(folder), lambda text: text.replace('": ', '":', 1)),
            "not laid out as Jupyter",
        ),
        (
            lambda folder: spoil(
                folder / "pyproject.toml", lambda text: text.replace("[project.urls]", "")
            ),
            "no line [project.urls]",
        ),
        (lambda folder: shutil.rmtree(folder / "notebooks"), "no checkout of the course"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_written(checkout, capsys, spoilt, said):
    spoilt(checkout)
    before = contents(checkout)
    assert badges.main([ADDRESS]) == 2
    assert said in capsys.readouterr().err
    assert contents(checkout) == before


def test_a_wrong_ref_is_refused(checkout, capsys):
    assert badges.main([ADDRESS, "--ref", "a b"]) == 2
    assert "not a git tag" in capsys.readouterr().err
