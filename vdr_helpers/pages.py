"""Pages as the model sees them: opened safely, fingerprinted, presized, and kept as files (notebook 02)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from vdr_helpers.source import Source
from vdr_helpers.stamps import write_whole

READERS = 3  # row groups that are read at once, if they are small
BYTES_AT_ONCE = 256 * 2**20  # stored bytes of the row groups that are read at once; a larger one is read alone
COPIES = 3  # a page lies in the store, in train or eval, and in full
PROGRESS_PAGES = 1000
LARGEST_PAGE = 50_000_000  # pixels; a larger image in a dataset is a mistake or a decompression bomb
PAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # Pillow knows more; some of them start other programs


def open_page(data: bytes):
    """The decoded RGB page, upright and on white. Raises ``ValueError`` with the reason, and nothing else, whatever the bytes are.

    The size is checked before the pixels are unpacked, and only :data:`PAGE_FORMATS` are tried. A camera's note of how the page was held
    (EXIF) is followed, as ``datasets.Image`` does; what is transparent becomes white, as in the model's own image processor.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=PAGE_FORMATS) as image:
            width, height = image.size
            if width * height <= LARGEST_PAGE:
                image = ImageOps.exif_transpose(image)
                if not image.has_transparency_data:
                    return image.convert("RGB")
                paper = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder, and must not stop the run
        raise ValueError(f"does not open ({type(error).__name__})") from error
    raise ValueError(f"has {width} x {height} pixels, the limit is {LARGEST_PAGE:,}")


def fingerprint(page) -> str:
    """SHA-1 of an RGB page's size and pixels; equal pages under two ids share it."""
    return hashlib.sha1(str(page.size).encode() + page.tobytes(), usedforsecurity=False).hexdigest()


def page_fingerprint(data: bytes) -> str | None:
    """:func:`fingerprint` of an image file's bytes, or ``None`` if it does not open."""
    with suppress(ValueError):
        return fingerprint(open_page(data))


def read_page(image: dict | None, processor) -> tuple[str | None, bytes | str]:
    """``(fingerprint of the page, PNG bytes of the presized page)`` of an undecoded image, or ``(None, why it was skipped)``."""
    if not image or not image.get("bytes"):
        return None, "has no image"
    buffer = io.BytesIO()
    try:
        page = open_page(image["bytes"])
        presize(page, processor).save(buffer, "PNG", compress_level=1)
    except ValueError as error:  # smart_resize refuses a page that is more than 200 times as long as wide
        return None, str(error)
    return fingerprint(page), buffer.getvalue()


def presize(image, processor):
    """The page at the size that the processor would make of it, so that its own resize becomes the identity.

    ``image``: a PIL page of any size; ``processor``: the model's. Returns an RGB PIL page. The processor's ``pixel_values`` are
    bit-identical before and after (notebook 02), and every later read decodes a small page.
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
    if height * width > settings.size["longest_edge"] or max(height, width) > 200 * min(height, width):
        return image  # so thin that no size in multiples of 32 fits: the processor's resize would not be the identity on it
    pixels = functional.pil_to_tensor(image)
    resized = functional.resize(pixels, [height, width], interpolation=functional.InterpolationMode.BICUBIC, antialias=True)
    return functional.to_pil_image(resized)


class PageStore:
    """A folder of presized pages. ``fingerprints``: ``{page number: SHA-1 of the original's pixels, None where it does not open}``.

    A page counts by its line in ``index.jsonl``, which is written after its file: a kill leaves no half page that counts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        self.fingerprints: dict[int, str | None] = {}
        self.sizes: dict[int, int] = {}  # page number: bytes of its PNG file
        self.problems: dict[int, str] = {}  # page number: why it was skipped
        index = folder / "index.jsonl"
        for line in filter(None, index.read_bytes().split(b"\n") if index.exists() else ()):
            with suppress(ValueError, TypeError):  # a damaged line: its page is fetched again
                self._note(*json.loads(line))
        there = {file.name: file.stat().st_size for file in folder.glob("*.png")}
        damaged = [number for number, size in self.sizes.items() if there.get(f"{number:06d}.png") != size]
        for number in damaged:
            del self.fingerprints[number]
        if damaged:
            print(f"{len(damaged)} page files of {folder.name} are damaged or gone, {damaged[0]:06d}.png first: fetched again")

    def path(self, number: int) -> str | None:
        """The page's PNG file, for ``datasets.Image``; ``None`` where the page does not open. ``KeyError`` if it was not fetched."""
        return None if self.fingerprints[number] is None else str(self.folder / f"{number:06d}.png")

    def add(self, number: int, fingerprint: str | None, content: bytes | str) -> None:
        """Keep a page: its fingerprint and PNG bytes, or ``None`` and the reason why it was skipped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if fingerprint is not None:
            write_whole(self.folder / f"{number:06d}.png", content)
        entry = [number, fingerprint, content if fingerprint is None else len(content)]
        with self.lock, (self.folder / "index.jsonl").open("a", encoding="utf-8") as index:
            index.write("\n" + json.dumps(entry))  # the new line first: after half a line of a killed run, this one is whole
        self._note(*entry)

    def _note(self, number: int, fingerprint: str | None, size_or_problem: int | str) -> None:
        self.fingerprints[number] = fingerprint
        (self.problems if fingerprint is None else self.sizes)[number] = size_or_problem


def show_progress(before: int, done: int, total: int, every: int, what: str = "pages") -> None:
    """Print ``[####----] 1,000 of 2,000 pages`` for each multiple of ``every`` in ``before`` < multiple <= ``done``; ``tqdm``'s moving bar
    would leave other text in a stored notebook in every run.
    """
    for mark in range(every * (before // every + 1), done + 1, every):
        filled = 20 * mark // total
        print(f"[{'#' * filled}{'-' * (20 - filled)}] {mark:,} of {total:,} {what}")


def fetch_pages(source: Source, numbers: Iterable[int], store: PageStore, processor, column: str = "image") -> None:
    """Fetch these source rows' pages, shrink them to what the model sees, and keep them in ``store``; what it holds is not fetched again.

    A line of progress is printed every 1,000 pages. After the first row group the size of the rest is estimated from the pages at hand,
    and ``OSError`` stops the run if the disk is too small for it. A page that does not open is kept as such and listed in ``problems``.
    """
    wanted = set(numbers)
    groups = list(source.groups_of(wanted - store.fingerprints.keys()).items())
    total, done = len(wanted), len(wanted & store.fingerprints.keys())
    show_progress(0, done, total, PROGRESS_PAGES)
    largest = max((source.bytes_of([column], [group]) for group, _ in groups), default=0)
    threads = READERS if READERS * largest <= BYTES_AT_ONCE else 1

    def fetch_group(group: int, rows: list[int]) -> int:
        """Read, shrink and keep one row group's pages; returns their number. A piece at a time, so that a large group fits in memory."""
        rest = iter(rows)
        for records in source.read_pieces(group, rows, [column]):
            pages = shrinkers.map(lambda record: read_page(record[column], processor), records)
            for page, number in zip(pages, rest, strict=False):
                store.add(number, *page)
        return len(rows)

    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as shrinkers, ThreadPoolExecutor(threads) as readers:
        for some in (groups[:1], groups[1:]):  # from the first one's pages the size of the rest is estimated
            if store.sizes:
                needed = (total - done) * COPIES * sum(store.sizes.values()) / len(store.sizes)
                if needed > (free := shutil.disk_usage(store.folder).free):
                    raise OSError(
                        f"the pages need about {needed / 1e9:.1f} GB more under outputs, {free / 1e9:.1f} GB are free: make room, set "
                        "VDR_OUTPUTS to a folder on a larger disk, or try fewer rows first (VDR_ROWS=1000:100)"
                    )
            for count in readers.map(lambda group: fetch_group(*group), some):
                show_progress(done, done + count, total, PROGRESS_PAGES)
                done += count
