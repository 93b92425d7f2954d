"""Packages that some notebooks need and others do not: the extras of ``pyproject.toml``."""

from __future__ import annotations

import importlib.metadata

PACKAGE = "vdr-course"


def missing(*extras: str) -> list[str]:
    """What these extras ask for and is not installed, such as ``["pymilvus<4,>=3.0"]``.

    Raises ``importlib.metadata.PackageNotFoundError`` where the course itself is not installed.
    """
    from packaging.requirements import Requirement

    absent = []
    for requirement in map(Requirement, importlib.metadata.requires(PACKAGE) or []):
        marker = requirement.marker
        if marker is None or not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            requirement.marker = None
            absent.append(str(requirement))
    return absent


def needs(*extras: str) -> None:
    """Return when everything of these extras is installed, else raise ``ModuleNotFoundError``: one
    line that names them.
    """
    absent = missing(*extras)
    if absent:
        packages = " ".join(f"'{requirement}'" for requirement in absent)
        named = " and ".join(extra for extra in extras if missing(extra))
        raise ModuleNotFoundError(
            f"not installed: the extra {named}. Do: pip install {packages}, then start again"
        )
