"""The environment doctor of notebook 00: one ``[OK]`` or ``[FAIL]`` line per thing that could stop you, with what to do."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from vdr_helpers.computer import disk_problem, disk_terms
from vdr_helpers.profiles import Profile, outputs_folder

PACKAGE = "vdr-course"


def requirements() -> list:
    """What the installed course asks for, as ``packaging`` requirements, without its extras (``pyproject.toml`` is where they are set)."""
    from packaging.requirements import Requirement

    found = [Requirement(line) for line in importlib.metadata.requires(PACKAGE) or ()]
    return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]


def check_package(requirement) -> str | None:
    """``None`` if a ``packaging`` requirement is met by what is installed, else what to do."""
    name = requirement.name
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed: pip install '{requirement}', then restart the kernel"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{name} {found} is not {requirement.specifier}: pip install -U '{requirement}', then restart the kernel"
    return None


def check_torchvision() -> str | None:
    """Import torchvision and call one of its compiled operators: a build that does not match torch fails here, not in the middle."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        return f"torchvision does not match torch ({type(error).__name__}): install both from one line, as requirements.txt pins them"
    return None


def check_disk(profile: Profile, folder: Path) -> str | None:
    """``None`` if ``folder`` can be written and has the room that all notebooks need with this profile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".doctor"
        probe.write_text("ok")
        probe.unlink()
    except OSError as error:
        return f"outputs folder cannot be written ({error.strerror}): set VDR_OUTPUTS to a folder of yours"
    return disk_problem(profile, disk_terms(profile, bool(profile.adapters), profile.model_kwargs["dtype"]), folder)


def check_model(profile: Profile) -> str | None:
    """``None`` if the base model is a hub id or its shipped folder is whole."""
    folder = Path(profile.base_model)
    if not profile.model_name.startswith("assets/") or (
        (folder / "modules.json").exists() and list(folder.glob("*.safetensors"))
    ):
        return None
    return "the shipped base model is missing: reinstall the course, or make it with python -m vdr_helpers.pretrain"


def examine(profile: Profile) -> bool:
    """Print every check as a line and return whether all passed."""
    checks = {
        "Python 3.11 or newer": None if sys.version_info >= (3, 11) else "install Python 3.11 and start again from the README"
    }
    try:
        found = {str(requirement): check_package(requirement) for requirement in requirements()}
        checks |= {name: problem for name, problem in found.items() if problem} or {
            f"{len(found)} packages, each recent enough": None
        }
    except importlib.metadata.PackageNotFoundError:
        checks["the course's packages"] = (
            f"{PACKAGE} is not installed: in the clone, pip install -e . (README), then restart the kernel"
        )
    checks["torchvision matches torch"] = check_torchvision()
    checks["base model of this profile"] = check_model(profile)
    checks["outputs folder: writable, enough disk"] = check_disk(profile, outputs_folder())
    for label, problem in checks.items():
        print(f"[OK]   {label}" if problem is None else f"[FAIL] {label}: {problem}")
    return all(problem is None for problem in checks.values())
