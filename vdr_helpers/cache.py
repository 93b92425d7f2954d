"""One cache: a folder ``<stage>-<key of its settings>`` with a manifest, written whole or not at
all.

A changed setting is another key and so another folder: nothing that was made with other settings
can be read by mistake, and nothing has to be compared or refused. ``python -m tools.outputs`` lists
the folders with their settings and sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

MANIFEST = "manifest.json"


def atomic_write(file: Path, content: bytes | str) -> None:
    """Write beside the target, then rename: a killed process leaves the old file or the new one.

    Text is written as UTF-8. Two processes may write the same file; the later one stays. Raises
    ``OSError`` where the disk is full or the folder cannot be written, and leaves nothing beside.
    """
    partial = partial_of(file)
    try:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder under the outputs, and those above it, unless it is there.

    Raises ``OSError`` that says what to do where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what_to_do = "make room there, or set VDR_OUTPUTS to a folder that you can write to"
        raise OSError(error.errno, f"{error.strerror}: {what_to_do}", str(folder)) from error


def partial_of(path: Path) -> Path:
    """What this process writes before it takes the name ``path``: ``<name>.<process
    id>.partial``.
    """
    return path.with_name(f"{path.name}.{os.getpid()}.partial")


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
    """The folder of ``stage`` with these settings; ``make(folder)`` fills it unless it is there,
    whole.

    ``make`` writes into a folder beside it, which takes the name at the end; a damaged folder is
    named and made anew. ``notes``: more for the manifest that is not part of the key. Two processes
    that ask at once both make it, each for itself. Raises what ``make`` raises.
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
    """Have ``make(a new folder)`` fill what then takes the place of ``folder``, with its manifest.

    What was there stays until the new one is whole. Raises what ``make`` raises, and leaves nothing
    half made then; only a killed process leaves a folder ``<name>.<process id>.partial``.
    """
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        make(partial)
        manifest = {"settings": settings, **(notes or {}), "files": file_sizes(partial)}
        atomic_write(partial / MANIFEST, json.dumps(manifest, indent=1, default=str) + "\n")
        take_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def take_place(partial: Path, folder: Path) -> None:
    """Rename ``partial`` to ``folder``; what was there, a folder or a file, is moved aside and
    deleted.
    """
    replaced = partial_of(folder.with_name(f"{folder.name}.replaced"))
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    if replaced.is_dir():
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        replaced.unlink(missing_ok=True)


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
    """What is wrong with a cached folder, such as ``train.jsonl has 5 bytes, expected 80``; else
    ``""``.

    Sizes are compared, not contents: what was overwritten by as many other bytes is not noticed.
    """
    files = (read_manifest(folder) or {}).get("files")
    if not isinstance(files, dict) or not all(isinstance(size, int) for size in files.values()):
        return f"its {MANIFEST} is gone or damaged"
    found = file_sizes(folder)
    for name, size in files.items():
        if name not in found:
            return f"{name} is gone"
        if found[name] != size:
            return f"{name} has {found[name]:,} bytes, expected {size:,}"
    return ""
