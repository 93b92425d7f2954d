"""Pages as the model will see them, fetched once and kept under ``outputs/``: an interrupted download goes on where it stopped.

One PNG file per page, and one small JSON file per row group that is written last: a page counts only when its JSON names it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vdr_helpers.dataset import read_page
from vdr_helpers.files import write_whole
from vdr_helpers.source import Source

READ_AHEAD = 3  # row groups on their way while another is shrunk, if they are small
BYTES_AHEAD = 256 * 2**20  # stored bytes of the row groups on their way; one is always allowed
PNG_END = b"IEND\xaeB`\x82"  # the last bytes of every whole PNG file
COPIES = 3  # a page lies in the store, in train or eval, and in full
PROGRESS_PAGES = 1000


class PageStore:
    """A folder of presized pages. ``fingerprints``: ``{page number: SHA-1 of the original's pixels, None where it does not open}``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fingerprints: dict[int, str | None] = {}
        self.problems: dict[int, str] = {}  # page number: why it was skipped
        for file in sorted(folder.glob("group-*.json")):
            try:
                self._take(json.loads(file.read_text(encoding="utf-8")))
            except ValueError:
                print(f"{folder.name}/{file.name} is damaged: its pages are fetched again")
                file.unlink()
        damaged = [number for number in self.fingerprints if not self._is_whole(number)]
        for number in damaged:
            del self.fingerprints[number]
        if damaged:
            print(f"{len(damaged)} page files of {folder.name} are damaged or gone, {damaged[0]:06d}.png first: fetched again")

    def _is_whole(self, number: int) -> bool:
        """Whether a page's file is there to its last byte; true for a page that was skipped."""
        if self.fingerprints[number] is None:
            return True
        try:
            with Path(self.path(number)).open("rb") as file:
                file.seek(-len(PNG_END), os.SEEK_END)
                return file.read() == PNG_END
        except OSError:  # not there, or shorter than that
            return False

    def path(self, number: int) -> str | None:
        """The page's PNG file, for ``datasets.Image``; ``None`` where the page does not open. ``KeyError`` if it was not fetched."""
        return None if self.fingerprints[number] is None else str(self.folder / f"{number:06d}.png")

    def add(self, group: int, pages: dict[int, tuple[str | None, bytes | str]]) -> None:
        """Keep a row group's pages: ``{number: (fingerprint, PNG bytes)}``, or ``(None, reason)`` for a page that was skipped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, (fingerprint, content) in pages.items():
            if fingerprint is not None:
                write_whole(self.folder / f"{number:06d}.png", content)
        index = self.folder / f"group-{group:05d}.json"
        entries = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
        entries |= {str(number): [f, None if f else content] for number, (f, content) in pages.items()}
        write_whole(index, json.dumps(entries).encode())
        self._take(entries)

    def _take(self, entries: dict[str, list]) -> None:
        for number, (fingerprint, problem) in entries.items():
            self.fingerprints[int(number)] = fingerprint
            if fingerprint is None:
                self.problems[int(number)] = problem

    def mean_bytes(self) -> float:
        """Mean size of the pages kept so far; 0 when there are none."""
        sizes = [Path(self.path(number)).stat().st_size for number in list(self.fingerprints)[:500] if self.fingerprints[number]]
        return sum(sizes) / len(sizes) if sizes else 0.0


def check_free_disk(folder: Path, needed: float) -> None:
    """Raise ``OSError`` with both figures and the way out when ``needed`` bytes do not fit on the disk of ``folder``."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OSError(
            f"the pages need about {needed / 1e9:.1f} GB more under outputs, {free / 1e9:.1f} GB are free: make room, set VDR_OUTPUTS "
            "to a folder on a larger disk, or try fewer rows first (VDR_ROWS=1000:100)"
        )


def bar(done: int, total: int) -> str:
    """A line of progress: ``[####----] 1,000 of 2,000 pages``."""
    filled = 20 * done // max(total, 1)
    return f"[{'#' * filled}{'-' * (20 - filled)}] {done:,} of {total:,} pages"


def fits_ahead(source: Source, columns: tuple[str, ...], groups: list) -> bool:
    """Whether these row groups may be in memory at once: few enough, and not too large."""
    return len(groups) <= READ_AHEAD and source.bytes_of(columns, [group for group, _ in groups]) <= BYTES_AHEAD


def fetch_pages(
    source: Source, numbers: Iterable[int], store: PageStore, processor, columns: tuple[str, ...] = ("image",), progress=print
) -> None:
    """Fetch these pages, shrink them to what the model sees, and keep them in ``store``; those that it holds are not fetched again.

    A page's number is ``source row * len(columns) + column``; with the one column ``image`` it is the row's own number. A line of
    progress is printed every 1,000 pages. After the first row group the size of the rest is estimated from the pages at hand, and
    ``OSError`` stops the run if the disk is too small for it. A page that does not open is kept as such and listed in ``problems``.
    """
    wanted = sorted(set(numbers))
    missing = [number for number in wanted if number not in store.fingerprints]
    by_row: dict[int, list[int]] = {}
    for number in missing:
        by_row.setdefault(number // len(columns), []).append(number)
    groups = list(source.groups_of(by_row).items())
    done = len(wanted) - len(missing)
    for mark in range(PROGRESS_PAGES, done + 1, PROGRESS_PAGES):
        progress(bar(mark, len(wanted)))
    checked = False
    with ThreadPoolExecutor(READ_AHEAD) as readers, ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as shrinkers:
        waiting: deque = deque()
        started = 0
        try:
            for i, (group, rows) in enumerate(groups):
                if not checked and store.mean_bytes():
                    check_free_disk(store.folder, (len(wanted) - done) * store.mean_bytes() * COPIES)
                    checked = True
                while started < len(groups) and (started == i or fits_ahead(source, columns, groups[i : started + 1])):
                    waiting.append(readers.submit(source.read_rows, *groups[started], columns))
                    started += 1
                records = waiting.popleft().result()
                here = [number for row in rows for number in by_row[row]]
                images = [
                    record[columns[n % len(columns)]] for row, record in zip(rows, records, strict=True) for n in by_row[row]
                ]
                pages = list(shrinkers.map(lambda image: read_page(image, processor), images))
                store.add(group, dict(zip(here, pages, strict=True)))
                for mark in range(done // PROGRESS_PAGES + 1, (done + len(here)) // PROGRESS_PAGES + 1):
                    progress(bar(mark * PROGRESS_PAGES, len(wanted)))
                done += len(here)
        finally:
            for future in waiting:
                future.cancel()
