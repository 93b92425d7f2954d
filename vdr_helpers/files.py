"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path


def write_whole(file: Path, content: bytes | str) -> None:
    """Write beside the target, then rename: a killed process leaves the old file or the new one, never half. Text is UTF-8."""
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    partial.replace(file)
