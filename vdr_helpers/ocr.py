"""The text of eval pages for appendix a5: pages at their own size, texts that are read once and
kept.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

from vdr_helpers.cache import MANIFEST, atomic_write, stage_folder
from vdr_helpers.pages import fingerprint, open_page, show_progress
from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.source import open_source
from vdr_helpers.splits import SPLIT_NEGATIVES, chosen_rows, splits_folder

KEY_DIGITS = 16  # of a page's fingerprint, under which its text is stored


def source_pages(profile: Profile, largest_fetch: float = 2e9) -> dict[str, bytes]:
    """``{"q0-positive": image file, "q0-negative_0": ...}`` of the eval pages as the source has
    them.

    Empty, with a printed reason, where more than ``largest_fetch`` bytes would be fetched, or where
    nobody noted which rows of the source the eval pages are.
    """
    rows = chosen_rows(profile, "eval")
    if not rows:
        print("pages as the model sees them: which rows of the source they are was not noted")
        return {}
    source = open_source(profile)
    numbers = sorted({number for row in rows for number in row})
    size = source.bytes_of(["image"], source.groups_of(numbers))
    if size > largest_fetch:
        print(f"pages as the model sees them: {size / 1e9:.1f} GB of the source hold the others")
        return {}
    files = {}
    for number, row in zip(numbers, source.read_rows(numbers, ["image"]), strict=True):
        files[number] = row["image"]["bytes"]
    kinds = ["positive", *(f"negative_{i}" for i in range(SPLIT_NEGATIVES["eval"]))]
    found = {}
    for i, row in enumerate(rows):
        found |= {f"q{i}-{kind}": files[n] for kind, n in zip(kinds, row, strict=False)}
    return found


def read_texts(
    profile: Profile,
    pages: dict[str, bytes],
    settings: dict,
    read_text: Callable | None,
    at_most: int = 200,
) -> dict[str, str]:
    """``{page id: text}`` of image files: stored with the course, kept from before, or read now.

    ``settings``: of the OCR; texts read with others do not count. ``read_text(page)`` reads a PIL
    image, ``None`` where there is no OCR. At most ``at_most`` pages are read, in the order of
    ``pages``, each kept as soon as it is read; pages without a text are left out.
    """
    file = assets_folder() / "measured" / "ocr_tiny.json.gz"
    asset = json.loads(gzip.decompress(file.read_bytes()))
    stored = asset["texts"] if asset["settings"] == settings else {}
    folder = stage_folder(profile.output_dir, "ocr", settings)
    texts, read = {}, 0
    for page_id, data in pages.items():
        page = open_page(data)
        key = fingerprint(page)[:KEY_DIGITS]
        kept = folder / f"{key}.txt"
        if key in stored:
            texts[page_id] = stored[key]
        elif kept.exists():
            texts[page_id] = kept.read_text(encoding="utf-8")
        elif read_text is not None and read < at_most:
            texts[page_id] = read_text(page)
            keep_text(profile, folder, settings, key, texts[page_id])
            read += 1
            show_progress(read - 1, read, min(at_most, len(pages)), 50)
    return texts


def keep_text(profile: Profile, folder, settings: dict, key: str, text: str) -> None:
    """Keep one page's text; the folder's manifest says with which settings and for which splits."""
    if not folder.exists():
        folder.mkdir(parents=True)
        manifest = {"settings": settings, "splits": splits_folder(profile).name, "files": {}}
        atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    atomic_write(folder / f"{key}.txt", text)


def skip_the_rest(reason: str) -> None:
    """Let every later cell print why it is left out instead of running, until the kernel restarts.

    For a notebook that cannot go on and has not failed. Outside IPython: ``RuntimeError``.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise RuntimeError(reason)
    print(reason)
    shell.input_transformers_cleanup.append(lambda lines: ["print('left out, see above')\n"])
