"""Pages as the model sees them: opened safely, presized, and kept once as files named by their
content (notebook 02).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from vdr_helpers.cache import atomic_write
from vdr_helpers.source import HOW_TO_SAVE, Source, check_image_columns

READERS = 3  # row groups that are read at once, if they are small
# stored bytes of the row groups that are read at once; a larger one is read alone
BYTES_AT_ONCE = 256 * 2**20
PROGRESS_PAGES = 1000
LARGEST_PAGE = (
    50_000_000  # pixels; a larger image in a dataset is a mistake or a decompression bomb
)
# Pillow knows more; some of them start other programs
PAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")


class PageError(ValueError):
    """Why an image cannot be a page, in words of this course."""


def open_page(data: bytes):
    """The decoded RGB page, upright and on white.

    Raises :class:`PageError` with the reason, and nothing else, whatever the bytes are. The size is
    checked before the pixels are unpacked, and only :data:`PAGE_FORMATS` are tried. A camera's note
    of how the page was held (EXIF) is followed, as ``datasets.Image`` does; what is transparent
    becomes white, as in the model's own image processor.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=PAGE_FORMATS) as image:
            width, height = image.size
            if width * height <= LARGEST_PAGE:
                return as_rgb(image)
    except PageError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise PageError(f"does not open ({type(error).__name__})") from error
    raise PageError(f"has {width} x {height} pixels, the limit is {LARGEST_PAGE:,}")


def as_rgb(image):
    """A PIL image of any mode as an upright RGB page on white; 16-bit and float grey levels are
    scaled to 8 bits. Raises :class:`PageError` for levels that are none.
    """
    import numpy
    from PIL import Image, ImageOps
    from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

    # a TIFF file may count from white; Pillow inverts such greys of up to 8 bits itself, no others
    white_is_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # convert("RGB") would clip these at 255
        levels = numpy.asarray(image, dtype=numpy.float64)
        low, high = levels.min(), levels.max()
        if not 0 <= low <= high <= 65_535:
            raise PageError(f"has grey levels from {low:g} to {high:g}, expected 0 to 65,535")
        # as scanners and numpy write them: up to 65,535, up to 255, or from 0 to 1
        white = 65_535 if high > 255 else 255 if high > 1 or image.mode != "F" else 1
        levels = white - levels if white_is_zero else levels
        image = Image.fromarray((levels * (255 / white)).round().astype(numpy.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def fingerprint(page) -> str:
    """SHA-1 of an RGB page's size and pixels, 40 hexadecimal digits: the name of its file, and so
    its only identity.
    """
    return hashlib.sha1(str(page.size).encode() + page.tobytes(), usedforsecurity=False).hexdigest()


def presize(image, processor):
    """The page at the size that the processor would make of it, so that its own resize becomes the
    identity.

    ``image``: a PIL page of any size; ``processor``: the model's. Returns an RGB PIL page. The
    processor's ``pixel_values`` are bit-identical before and after (notebook 02), and every later
    read decodes a small page. Raises ``ValueError`` for a page that is more than 200 times as long
    as wide.
    """
    from torchvision.transforms.v2 import functional
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    settings = processor.image_processor
    image = image.convert("RGB")
    height, width = smart_resize(
        image.height,
        image.width,
        factor=settings.patch_size * settings.merge_size,
        min_pixels=settings.size["shortest_edge"],
        max_pixels=settings.size["longest_edge"],
    )
    if height * width > settings.size["longest_edge"] or max(height, width) > 200 * min(
        height, width
    ):
        # so thin that no size in multiples of 32 fits: the processor's resize would not be the
        # identity on it
        return image
    pixels = functional.pil_to_tensor(image)
    resized = functional.resize(
        pixels, [height, width], interpolation=functional.InterpolationMode.BICUBIC, antialias=True
    )
    return functional.to_pil_image(resized)


def read_page(image: dict | None, processor) -> tuple[str | None, bytes | str]:
    """``(fingerprint, PNG bytes)`` of the presized page of an undecoded image, or ``(None, why it
    was skipped)``.

    ``image``: ``{"bytes", "path"}`` as ``datasets.Image(decode=False)`` gives it.
    """
    if not image or not image.get("bytes"):
        where = f", only a path: {Path(image['path']).name}" if image and image.get("path") else ""
        return None, f"has no image{where}"
    try:
        page = presize(open_page(image["bytes"]), processor)
    except ValueError as error:
        return None, str(error)
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=1)
    return fingerprint(page), buffer.getvalue()


class PageStore:
    """A folder of presized pages, each once, in a file named by its fingerprint.

    ``fingerprints``: ``{source row: fingerprint of its page, None where it does not open}``;
    ``problems``: why those do not. A page counts by its line in ``index.jsonl``, which is written
    after its file: a kill leaves no half page that counts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        self.fingerprints: dict[int, str | None] = {}
        self.problems: dict[int, str] = {}
        self.sizes: dict[str, int] = {}  # bytes of a page's file, by fingerprint
        self._read_index()
        self._forget_damaged()

    def _read_index(self) -> None:
        index = self.folder / "index.jsonl"
        lines = index.read_bytes().split(b"\n") if index.exists() else []
        for line in lines:
            # empty, or cut by a kill: its page is fetched again
            with suppress(ValueError, TypeError):
                row, name, size_or_problem = json.loads(line)
                if isinstance(row, int) and isinstance(name, str | None):
                    self._note(row, name, size_or_problem)

    def _forget_damaged(self) -> None:
        there = {file.stem: file.stat().st_size for file in self.folder.glob("*.png")}
        damaged = {name for name, size in self.sizes.items() if there.get(name) != size}
        if damaged:
            print(
                f"{len(damaged)} page files of {self.folder.name} are damaged or gone, {min(damaged)}.png first: fetched again"
            )
        for name in damaged:
            del self.sizes[name]
        for row in [row for row, name in self.fingerprints.items() if name in damaged]:
            del self.fingerprints[row]

    def path(self, row: int) -> str | None:
        """The PNG file of a source row's page; ``None`` where it does not open. ``KeyError`` if it
        was not fetched.
        """
        name = self.fingerprints[row]
        return None if name is None else str(self.folder / f"{name}.png")

    def add(self, row: int, fingerprint: str | None, content: bytes | str) -> None:
        """Keep a row's page: its fingerprint and PNG bytes, or ``None`` and the reason why it was
        skipped.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.lock:
            if fingerprint is None:
                entry = [row, None, content]
            else:
                entry = [row, fingerprint, self.sizes.get(fingerprint, len(content))]
                if fingerprint not in self.sizes:
                    atomic_write(self.folder / f"{fingerprint}.png", content)
            with (self.folder / "index.jsonl").open("a", encoding="utf-8") as index:
                # the new line first: after half a line of a killed run, this one is whole
                index.write("\n" + json.dumps(entry))
            self._note(*entry)

    def _note(self, row: int, fingerprint: str | None, size_or_problem: int | str) -> None:
        self.fingerprints[row] = fingerprint
        if fingerprint is None:
            self.problems[row] = size_or_problem
        else:
            self.sizes[fingerprint] = size_or_problem


def show_progress(before: int, done: int, total: int, every: int, what: str = "pages") -> None:
    """Print ``[####----] 1,000 of 2,000 pages`` for each multiple of ``every`` in ``before`` <
    multiple <= ``done``.

    ``tqdm``'s moving bar would leave other text in a stored notebook in every run.
    """
    for mark in range(every * (before // every + 1), done + 1, every):
        filled = 20 * mark // total
        print(f"[{'#' * filled}{'-' * (20 - filled)}] {mark:,} of {total:,} {what}")


def fetch_pages(
    source: Source, rows: Iterable[int], store: PageStore, processor, column: str = "image"
) -> None:
    """Fetch these source rows' pages, presize them and keep them in ``store``; what it holds is not
    fetched again.

    A line of progress is printed every 1,000 pages. After the first row group the size of the rest
    is estimated from the pages at hand, and ``OSError`` stops the run if the disk is too small for
    it. A page that does not open is kept as such and listed in ``problems``. Raises ``ValueError``
    for a column that does not hold images, and ``IndexError`` for a row that the source has not.
    """
    check_image_columns(source, [column])
    wanted = set(rows)
    missing = wanted - store.fingerprints.keys()
    groups = list(source.groups_of(missing).items())
    total, done = len(wanted), len(wanted) - len(missing)
    show_progress(0, done, total, PROGRESS_PAGES)
    largest = max((source.bytes_of([column], [group]) for group, _ in groups), default=0)
    threads = READERS if READERS * largest <= BYTES_AT_ONCE else 1

    def fetch_group(group_and_rows: tuple[int, list[int]]) -> int:
        """Read, presize and keep one row group's pages, some at a time so that a large group fits
        in memory.
        """
        group, rows_here = group_and_rows
        first = 0
        for records in source.read_pieces(group, rows_here, [column]):
            pages = presizers.map(lambda record: read_page(record[column], processor), records)
            for row, page in zip(rows_here[first : first + len(records)], pages, strict=True):
                store.add(row, *page)
            first += len(records)
        return len(rows_here)

    with (
        ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as presizers,
        ThreadPoolExecutor(threads) as readers,
    ):
        # from the first one's pages the size of the rest is estimated
        for some in (groups[:1], groups[1:]):
            check_room(store, total - done)
            for count in readers.map(fetch_group, some):
                show_progress(done, done + count, total, PROGRESS_PAGES)
                done += count


def fetch_chosen(choose: Callable, source: Source, store: PageStore, processor):
    """What ``choose(fingerprint_of)`` returns once every page that it looks at has been fetched.

    ``fingerprint_of(row)`` is a page's fingerprint, ``None`` where it does not open. One that was
    not fetched yet counts as good and unlike all others; it is fetched, and the choice is made
    again, until it rests on fetched pages alone (notebook 02). Raises ``ValueError`` with the first
    page's reason where none of the pages that were fetched opens, and what :func:`fetch_pages`
    raises.
    """
    while True:
        unknown: set[int] = set()

        def fingerprint_of(row: int, unknown: set[int] = unknown) -> str | None:
            if row in store.fingerprints:
                return store.fingerprints[row]
            unknown.add(row)
            return f"row {row}, not fetched yet"

        chosen = choose(fingerprint_of)
        if not unknown:
            return chosen
        fetch_pages(source, unknown, store, processor)
        if not any(store.fingerprints.values()):
            row = min(store.problems)
            raise ValueError(
                f"none of the {len(store.problems):,} pages that were read opens; that of row "
                f"{row} {store.problems[row]}. The images themselves must be in the dataset: save "
                f"them with {HOW_TO_SAVE}"
            )


def check_room(store: PageStore, pages: int) -> None:
    """``OSError`` unless the disk has room for so many more pages of the mean size of those that
    the store holds.
    """
    if not store.sizes:
        return
    needed = pages * sum(store.sizes.values()) / len(store.sizes)
    free = shutil.disk_usage(store.folder).free
    if needed > free:
        raise OSError(
            f"the pages need about {needed / 1e9:.1f} GB more under outputs, {free / 1e9:.1f} GB are free: make room, set "
            "VDR_OUTPUTS to a folder on a larger disk, or try fewer rows first (VDR_ROWS=1000:100)"
        )
