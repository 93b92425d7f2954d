"""Files that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path


def write_whole(file: Path, content: bytes | str) -> None:
    """Write beside the target, then rename: a killed process leaves the old file or the new one, never half. Text is UTF-8."""
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    partial.replace(file)


def file_sizes(folder: Path, index: str) -> dict[str, int]:
    """The bytes of every file in ``folder`` but ``index``, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != index)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def write_index(folder: Path, index: str, settings: dict) -> None:
    """Keep ``settings`` in a finished folder, with the size of every file in it, so that one that is cut or deleted is noticed."""
    write_whole(folder / index, json.dumps(settings | {"files": file_sizes(folder, index)}))


def is_as_written(folder: Path, index: str, settings: dict) -> bool:
    """Whether ``folder`` was finished with these settings and every file of it is there at its size (an index without sizes: is there)."""
    try:
        found = json.loads((folder / index).read_text(encoding="utf-8"))
        files = found.pop("files", {})
    except (OSError, ValueError):
        return False
    return found == settings and files.items() <= file_sizes(folder, index).items()
