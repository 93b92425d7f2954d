"""The three ways to install (make, conda, plain pip) give the same, pinned packages, and pyproject.toml agrees with them."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}
DECLARED = [
    Requirement(line) for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()] for line in group
]


def test_every_requirement_is_one_exact_version():
    assert LINES
    assert not [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert len(PINS) == len(LINES), "a package is pinned twice"


def test_the_pins_leave_cuda_to_torch_and_the_course_to_pip():
    assert not [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton", "vdr-"))]


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_every_declared_dependency_is_pinned_within_its_bounds(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])
    assert any(bound.operator == ">=" for bound in requirement.specifier), "declare the oldest version that works"


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
    assert rest == {"pip": ["-r requirements.txt", "-e ."]}
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


def test_the_wheel_carries_the_assets():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {"assets": "vdr_helpers/assets"}
    assert build["packages"] == ["tiny_vdr", "vdr_exercises", "vdr_helpers"]
