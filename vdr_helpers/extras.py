"""What the course asks for, and what of it is missing or too old: its core, and the extras of
``pyproject.toml`` that some notebooks need.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

PACKAGE = "vdr-course"


def requirements(*extras: str) -> list:
    """What these extras ask for, or the core where none is named, as ``packaging`` requirements
    without their markers.

    Raises ``importlib.metadata.PackageNotFoundError`` where the course itself is not installed.
    """
    from packaging.requirements import Requirement

    asked = []
    for requirement in map(Requirement, importlib.metadata.requires(PACKAGE) or []):
        marker, requirement.marker = requirement.marker, None
        of_core = marker is None or marker.evaluate({"extra": ""})
        of_extras = marker and any(marker.evaluate({"extra": extra}) for extra in extras)
        if of_extras if extras else of_core:
            asked.append(requirement)
    return asked


def wrong_packages(*extras: str) -> dict[str, str]:
    """``{"peft>=0.18": "peft: found 0.17.0, needed >=0.18"}``: what of :func:`requirements` is
    missing or too old, or too new.
    """
    wrong = {}
    for requirement in requirements(*extras):
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if not found or not requirement.specifier.contains(found, prereleases=True):
            needed = str(requirement.specifier) or "any version"
            said = f"{requirement.name}: found {found or 'none'}, needed {needed}"
            wrong[str(requirement)] = said
    return wrong


def how_to_install(packages: Iterable[str]) -> str:
    """What to do about packages such as ``["peft>=0.18"]``; the line serves in a cell too."""
    quoted = " ".join(f"'{package}'" for package in packages)
    return f"Do: pip install {quoted}, then restart the kernel"


def needs(*extras: str) -> None:
    """Return when all that these extras ask for, or the core where none is named, is installed.

    Raises ``ImportError`` otherwise: one line with each package, what was found, what is needed and
    the command to run.
    """
    wrong = wrong_packages(*extras)
    if wrong:
        named = " and ".join(extra for extra in extras if wrong_packages(extra))
        whose = f"of the extra {named}, " if named else ""
        raise ImportError(f"{whose}{'; '.join(wrong.values())}. {how_to_install(wrong)}")
