"""Make a folder from which a laptop without network installs and runs the course: ``python -m
tools.offline_kit FOLDER``.

The folder holds ``vdr-course/`` (what git tracks at the last commit, with both tiny models and the
drawn pages), ``wheels/`` (every pinned package for one platform and Python, and what builds the
course), ``pages/`` (the notebooks with their outputs as web pages, for a laptop on which nothing
installs), ``slides/`` where ``--reveal`` names a copy of reveal.js (``tools/slides.py`` says how to
get one), and ``START.txt``. Run it where there is a network, once for each kind of laptop in the
room, for example ``--platform win_amd64 --python-version 3.12``; what follows ``--`` goes to ``pip
download`` as it is.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from types import SimpleNamespace

from tools import slides
from tools.run_course import find_notebooks
from tools.run_pages import write_html, write_index
from tools.tables import ROOT
from vdr_helpers.extras import needs
from vdr_helpers.profiles import load_profile
from vdr_helpers.published import measured
from vdr_helpers.source import source_path

START = """\
The course without a network
============================

You need Python {python} ({platform}). In a terminal, in this folder:

Linux, macOS    cd vdr-course
                python3 -m venv .venv
                .venv/bin/python -m pip install --no-index --find-links ../wheels -r requirements.txt -e .
                .venv/bin/python -m tools.run_course         runs Part I and prints what fine-tuning gained
                .venv/bin/jupyter lab notebooks              opens the notebooks

Windows         cd vdr-course
                py -m venv .venv
                .venv\\Scripts\\python -m pip install --no-index --find-links ..\\wheels -r requirements.txt -e .
                .venv\\Scripts\\python -m tools.run_course
                .venv\\Scripts\\jupyter lab notebooks

Nothing installs? Open pages/index.html: every notebook with its outputs.
"""


def copy_repository(target: Path) -> None:
    """The files of the last commit in ``target``. Raises ``CalledProcessError`` outside a git
    clone.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "course.tar"
        subprocess.run(["git", "archive", "--output", str(archive), "HEAD"], cwd=ROOT, check=True)
        with tarfile.open(archive) as files:
            files.extractall(target, filter="data")


def copy_drawn_pages(target: Path) -> None:
    """The drawn source of ``tiny`` where the notebooks look for it; it is drawn first where it has
    not been yet.
    """
    profile = load_profile("tiny")
    source = Path(source_path(profile))
    shutil.copytree(source, target / "outputs" / "tiny" / source.name)


def write_pages(target: Path) -> Path:
    """Every notebook with its stored outputs as a web page, and the page that links them, which is
    returned.
    """
    import nbformat

    (target / "notebooks").mkdir(parents=True)
    for file in find_notebooks():
        write_html(
            nbformat.read(file, as_version=4),
            file.parent,
            target / "notebooks" / f"{file.stem}.html",
        )
    return write_index(
        SimpleNamespace(name="tiny", output_dir=target), measured("tiny_run") | {"failed": {}}
    )


def fetch_wheels(target: Path, options: list[str]) -> None:
    """Every pinned package and the course's build backend, as wheels in ``target``; ``options`` are
    those of ``pip download``.
    """
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"][
        "requires"
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--only-binary",
        ":all:",
        "--dest",
        str(target),
    ]
    subprocess.run(
        [*command, "-r", str(ROOT / "requirements.txt"), *build, "editables", *options], check=True
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 when the folder is there already or something could not be
    fetched.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.offline_kit", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="a new folder; about 4 GB on Linux, where PyTorch brings CUDA along",
    )
    parser.add_argument(
        "--platform",
        help="another kind of laptop than this one, as in the names of wheels: win_amd64",
    )
    parser.add_argument("--python-version", help="another Python than this one: 3.12")
    parser.add_argument(
        "--reveal",
        type=Path,
        metavar="FOLDER",
        help="an unpacked reveal.js 4: adds slides of every notebook",
    )
    parser.add_argument(
        "--no-wheels", action="store_true", help="where the packages are installed already"
    )
    given = sys.argv[1:] if arguments is None else arguments
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:end])
    needs("run")
    if options.folder.exists():
        print(
            f"{options.folder} is there already: name a new folder, or remove it first",
            file=sys.stderr,
        )
        return 2
    pip_options = given[end + 1 :]
    for name in ("platform", "python_version"):
        value = getattr(options, name)
        pip_options += [f"--{name.replace('_', '-')}", value] if value else []
    try:
        copy_repository(options.folder / "vdr-course")
        copy_drawn_pages(options.folder / "vdr-course")
        write_pages(options.folder / "pages")
        if options.reveal and slides.main(
            ["--reveal", str(options.reveal), "--folder", str(options.folder / "slides")]
        ):
            print(
                f"the kit in {options.folder} is not whole: remove it and try again",
                file=sys.stderr,
            )
            return 2
        if not options.no_wheels:
            fetch_wheels(options.folder / "wheels", pip_options)
    except subprocess.CalledProcessError as problem:
        print(
            f"{problem.cmd[0]} failed; the kit in {options.folder} is not whole: remove it and try again",
            file=sys.stderr,
        )
        return 2
    python = options.python_version or ".".join(map(str, sys.version_info[:2]))
    text = START.format(python=python, platform=options.platform or sys.platform)
    (options.folder / "START.txt").write_text(text, encoding="utf-8")
    print(f"the kit is in {options.folder}; give it on as it is, START.txt says how to begin")
    return 0


if __name__ == "__main__":
    sys.exit(main())
