"""On what something was measured: the head of every stored result, of a run's summary and of a
receipt.
"""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

from vdr_helpers.gpu import present_gpu
from vdr_helpers.profiles import Profile, assets_folder

LIBRARIES = (
    "sentence-transformers",
    "transformers",
    "torch",
    "torchvision",
    "datasets",
    "accelerate",
    "numpy",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result."""
    return {"python": platform.python_version()} | {
        library: importlib.metadata.version(library) for library in LIBRARIES
    }


def where_measured() -> dict:
    """``{"versions": ..., "device": "CPU, 2 cores"}``."""
    return {"versions": package_versions(), "device": present_gpu().name}


def measured_file(name: str, profile: Profile) -> Path:
    """``assets/measured/<name>.json``; with another profile than ``tiny``, its name behind that."""
    of_profile = "" if profile.name == "tiny" else f"_{profile.name}"
    return assets_folder() / "measured" / f"{name}{of_profile}.json"
