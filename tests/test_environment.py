"""make, conda and plain pip install the same pinned packages; every import is declared, and a
missing extra is named.
"""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import pytest
import yaml
from cells import as_python, edited_sources
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.badges import EXTRAS
from tools.curriculum import lessons
from vdr_helpers.extras import needs, wrong_packages

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [
    line
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PINS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}
GROUPS = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
DECLARED = [Requirement(line) for group in GROUPS.values() for line in group]
NAMES = {
    group: {canonicalize_name(Requirement(line).name) for line in lines}
    for group, lines in GROUPS.items()
}


def test_every_requirement_is_one_exact_version():
    assert LINES
    assert not [
        line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)
    ]
    assert len(PINS) == len(LINES), "a package is pinned twice"


def test_the_pins_leave_cuda_to_torch_and_the_course_to_pip():
    assert not [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton", "vdr-"))]


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_every_declared_dependency_is_pinned_within_its_bounds(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])
    assert any(bound.operator == ">=" for bound in requirement.specifier), (
        "declare the oldest version that works"
    )


@pytest.mark.parametrize("name", ["sentence-transformers", "transformers", "pymilvus"])
def test_the_next_major_version_is_not_installed(name):
    [requirement] = [requirement for requirement in DECLARED if requirement.name == name]
    major = int(PINS[name].partition(".")[0])
    assert not requirement.specifier.contains(f"{major + 1}.0")


def test_uv_is_pinned_for_the_makefile():
    assert "uv" in PINS


def test_what_is_installed_here_is_what_is_pinned():
    different = {}
    for name, pinned in PINS.items():
        try:
            installed = Version(version(name)).public  # without "+cpu"
        except PackageNotFoundError:
            installed = "missing"
        if installed != pinned:
            different[name] = f"pinned {pinned}, installed {installed}"
    assert not different


def test_conda_brings_python_and_pip_and_leaves_the_rest_to_the_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, rest = environment["dependencies"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert pip == "pip"
    pins, course = rest["pip"]
    assert pins == "-c requirements.txt"
    assert course.startswith("-e .[")
    assert set(re.findall(r"\w+", course)) >= {"lab", "run", *EXTRAS.split(",")}
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


def test_the_wheel_carries_the_assets():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]
    assert build["force-include"] == {"assets": "vdr_helpers/assets"}
    assert build["packages"] == ["tiny_vdr", "vdr_exercises", "vdr_helpers"]


# Imports

OWN = {"benchmarks", "tiny_vdr", "tools", "vdr_exercises", "vdr_helpers"}
# of a platform; of one benchmark, which names its pip line
OPTIONAL = {"kaggle_secrets", "google", "qdrant_client"}
DISTRIBUTIONS = packages_distributions()
LESSONS = {lesson.file: lesson for lesson in lessons().values()}


def imported(source: str) -> set[str]:
    """The distributions that ``source`` imports, in the spelling of :data:`NAMES`; a module that
    nothing installs counts by itself.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    modules = found - sys.stdlib_module_names - OWN - OPTIONAL
    return {canonicalize_name(DISTRIBUTIONS.get(module, [module])[0]) for module in modules}


@pytest.mark.parametrize("file", LESSONS)
def test_a_notebook_imports_the_core_and_its_extras(file):
    allowed = NAMES["core"].union(*(NAMES[extra] for extra in LESSONS[file].extras))
    allowed |= NAMES["ocr"]  # the appendix that reads pages goes on without
    code = "\n".join(as_python(source) for source in edited_sources(LESSONS[file].number))
    assert imported(code) <= allowed


@pytest.mark.parametrize("folder", ["vdr_helpers", "vdr_exercises"])
def test_the_package_imports_what_notebooks_install(folder):
    allowed = NAMES["core"] | NAMES["store"]
    found = {
        file.name: imported(file.read_text()) - allowed for file in (ROOT / folder).glob("*.py")
    }
    found = {name: names for name, names in found.items() if names}
    # the one module that an extra is for: notebook 08 asks for it before the import
    assert found == ({"documents.py": {"pypdfium2"}} if folder == "vdr_helpers" else {})


def brought_by(names: set[str]) -> set[str]:
    """These distributions and all that they require, themselves or further down."""
    found, new = set(), set(names)
    while new:
        name = new.pop()
        found.add(name)
        try:
            asked = [Requirement(line) for line in importlib.metadata.requires(name) or []]
        except PackageNotFoundError:  # of another system
            continue
        asked = [one for one in asked if not one.marker or one.marker.evaluate({"extra": ""})]
        new |= {canonicalize_name(one.name) for one in asked} - found
    return found


WITHOUT = """
import importlib, pkgutil, sys
from importlib.machinery import PathFinder


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {blocked!r}:
            return super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
for package in ("tiny_vdr", "vdr_helpers", "vdr_exercises"):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if (package, module.name) != ("vdr_helpers", "documents"):  # needs its extra
            importlib.import_module(f"{{package}}.{{module.name}}")
"""


@pytest.mark.slow
def test_every_module_imports_where_only_the_core_is_installed():
    extras = set.union(*(NAMES[group] for group in GROUPS if group != "core"))
    extras -= brought_by(NAMES["core"])
    blocked = sorted(
        module
        for module, distributions in DISTRIBUTIONS.items()
        if canonicalize_name(distributions[0]) in extras
    )
    assert {"faiss", "mteb", "pymilvus", "pypdfium2", "rapidocr", "reportlab"} <= set(blocked)
    code = WITHOUT.format(blocked=blocked)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_other_import_is_declared_somewhere():
    declared = set.union(*NAMES.values())
    files = [
        file
        for folder in ("tiny_vdr", "tools", "benchmarks", "site")
        for file in (ROOT / folder).glob("*.py")
    ]
    found = {
        f"{file.parent.name}/{file.name}": imported(file.read_text()) - declared for file in files
    }
    assert not {name: names for name, names in found.items() if names}


def test_an_undeclared_import_is_noticed():
    assert imported("import numpy.linalg\nfrom PIL import Image\nimport os, torch\nimport nowhere") == {
        "numpy", "pillow", "torch", "nowhere",
    }  # fmt: skip


# Who installs which extras


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (
            ["course"],
            {"run"}
            | {
                extra
                for lesson in lessons().values()
                if lesson.part != 2
                for extra in lesson.extras
            },
        ),
        (
            ["course", "PART=2"],
            {"run"} | {extra for lesson in lessons().values() for extra in lesson.extras},
        ),
        (["test"], set(GROUPS) - {"core"}),
    ],
)
def test_make_installs_what_its_notebooks_need(command, wanted):
    said = subprocess.run(
        ["make", "--dry-run", "--always-make", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installed = set(re.search(r"-c requirements.txt -e '\.\[([\w,]+)\]'", said).group(1).split(","))
    assert wanted <= installed
    if command == ["course"]:
        assert not installed & {"lab", "scale", "site", "test"}


def test_the_setup_cell_installs_what_the_notebooks_need():
    assert set(EXTRAS.split(",")) == {
        extra for lesson in lessons().values() for extra in lesson.extras
    }


@pytest.fixture
def course_asks(monkeypatch):
    """The installed course asks for numpy, for ``nowhere`` in the extra store, and for ``gone`` in
    the extra scale.
    """
    asked = [
        "numpy>=2.0",
        "nowhere<4,>=3.0; extra == 'store'",
        "pandas; extra == 'store'",
        "gone; extra == 'scale'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)


def test_a_missing_extra_is_one_line_that_names_it(course_asks):
    with pytest.raises(ImportError) as problem:
        needs("run", "store")
    assert str(problem.value) == (
        "of the extra store, nowhere: found none, needed <4,>=3.0. "
        "Do: pip install 'nowhere<4,>=3.0', then restart the kernel"
    )
    with pytest.raises(
        ImportError,
        match=r"of the extra scale and store, nowhere.*; gone: found none, needed any version\. "
        "Do: pip install 'nowhere<4,>=3.0' 'gone', then",
    ):
        needs("scale", "store")


def test_an_extra_that_is_too_old_or_too_new_is_named(course_asks, monkeypatch):
    for found in ("2.6.0", "4.1"):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, found=found: found)
        with pytest.raises(ImportError, match=f"nowhere: found {found}, needed <4,>=3.0"):
            needs("store")


def test_an_extra_that_is_there_is_passed_over(course_asks):
    assert wrong_packages("run", "audit") == {}
    needs("run")


@pytest.mark.parametrize("file", [file for file in LESSONS if LESSONS[file].extras])
def test_a_notebook_asks_for_its_extras(file):
    notebook = json.loads((ROOT / "notebooks" / f"{file}.ipynb").read_text(encoding="utf-8"))
    code = "".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    asked = ", ".join(f'"{extra}"' for extra in LESSONS[file].extras)
    assert f"\nneeds({asked})" in code
