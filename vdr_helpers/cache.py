"""One cache: a folder ``<stage>-<key of its settings>`` with a manifest, written whole or not at all.

A changed setting is another key and so another folder: nothing that was made with other settings can be read by mistake, and
nothing has to be compared or refused. ``python -m tools.outputs`` lists the folders with their settings and sizes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

MANIFEST = "manifest.json"


def atomic_write(file: Path, content: bytes | str) -> None:
    """Write beside the target, then rename: a killed process leaves the old file or the new one.

    Text is written as UTF-8.
    """
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    partial.replace(file)


def settings_key(settings: dict) -> str:
    """Ten hexadecimal digits that stand for these settings; they must be printable as JSON."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def stage_folder(root: Path, stage: str, settings: dict) -> Path:
    """Where the results of ``stage`` with these settings are kept: ``root/<stage>-<key>``."""
    return Path(root) / f"{stage}-{settings_key(settings)}"


def cached(
    root: Path,
    stage: str,
    settings: dict,
    make: Callable[[Path], object],
    notes: dict | None = None,
) -> Path:
    """The folder of ``stage`` with these settings; ``make(folder)`` fills it unless it is there, whole.

    ``make`` writes into a folder beside it, which takes the name at the end; a damaged folder is
    named and made anew. ``notes``: more for the manifest that is not part of the key.
    """
    folder = stage_folder(root, stage, settings)
    if folder.exists():
        problem = damage(folder)
        if not problem:
            return folder
        print(f"{folder.name} is made anew: {problem}")
    return replace_folder(folder, settings, make, notes)


def replace_folder(
    folder: Path, settings: dict, make: Callable[[Path], object], notes: dict | None = None
) -> Path:
    """Have ``make(a new folder)`` fill what then takes the place of ``folder``, with its manifest."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    make(partial)
    manifest = {"settings": settings, **(notes or {}), "files": file_sizes(partial)}
    atomic_write(partial / MANIFEST, json.dumps(manifest, indent=1, default=str) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in ``folder`` but its manifest, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def read_manifest(folder: str | Path) -> dict | None:
    """The manifest of a folder; ``None`` where there is none or it cannot be read."""
    return read_json(Path(folder) / MANIFEST)


def read_json(file: Path) -> dict | None:
    """A JSON file's dictionary; ``None`` where there is none or it cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def damage(folder: Path) -> str:
    """What is wrong with a cached folder, such as ``train.jsonl has 5 bytes, expected 80``; else ``""``."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"its {MANIFEST} is gone or damaged"
    found = file_sizes(folder)
    for name, size in manifest["files"].items():
        if name not in found:
            return f"{name} is gone"
        if found[name] != size:
            return f"{name} has {found[name]:,} bytes, expected {size:,}"
    return ""
