"""The environment doctor of notebook 00: one ``[OK]`` or ``[FAIL]`` line per thing that could stop you, with what to do."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path

from vdr_helpers.profiles import Profile, outputs_folder

REQUIRED = {"sentence-transformers": (6, 0), "transformers": (5, 0), "torch": (2, 6), "torchvision": (0, 21), "datasets": (4, 0)}
DISK_GIB = {"tiny": 1.0, "full": 60.0, "rehearsal": 40.0}  # estimates: weights, ten checkpoints or a few, pages; GiB


def version_of(name: str) -> tuple[int, ...] | None:
    """An installed package's version as numbers, ``(6, 2)`` for 6.2.0; ``None`` if it is not installed."""
    try:
        parts = [*importlib.metadata.version(name).split("+")[0].split("."), "0"]
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(re.match(r"\d*", part).group() or 0) for part in parts[:2])


def check_package(name: str, lowest: tuple[int, ...]) -> str | None:
    """``None`` if ``name`` is there and recent enough, else what to do."""
    found, wanted = version_of(name), ".".join(map(str, lowest))
    if found is None:
        return f"{name} is not installed: pip install '{name}>={wanted}', then restart the kernel"
    if found < lowest:
        return f"{name} {'.'.join(map(str, found))} is too old: pip install -U '{name}>={wanted}', then restart the kernel"
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
    """``None`` if ``folder`` can be written and has the room this profile needs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".doctor"
        probe.write_text("ok")
        probe.unlink()
    except OSError as error:
        return f"outputs folder cannot be written ({error.strerror}): set VDR_OUTPUTS to a folder of yours"
    free = shutil.disk_usage(folder).free / 2**30
    needed = DISK_GIB.get(profile.name, 1.0)
    return (
        None if free >= needed else f"{free:.1f} GiB free, {needed:g} GiB needed: free some, or set VDR_OUTPUTS to another disk"
    )


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
    for name, lowest in REQUIRED.items():
        checks[f"{name} {'.'.join(map(str, lowest))} or newer"] = check_package(name, lowest)
    checks["torchvision matches torch"] = check_torchvision()
    checks["base model of this profile"] = check_model(profile)
    checks["outputs folder: writable, enough disk"] = check_disk(profile, outputs_folder())
    for label, problem in checks.items():
        print(f"[OK]   {label}" if problem is None else f"[FAIL] {label}: {problem}")
    return all(problem is None for problem in checks.values())
