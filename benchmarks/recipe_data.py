"""What ``recipes.py`` measures on: the model, drawn pages in both sizes, and the memory that a
corpus of them takes.
"""

from __future__ import annotations

import io
import resource
import sys
import time
from pathlib import Path

from datasets import Dataset, Features, Image, Value, load_from_disk
from PIL import Image as PillowImage

from benchmarks.recipe import load_base
from tiny_vdr.pages import draw_page
from tiny_vdr.plan import plan_rows
from vdr_helpers.pages import presize
from vdr_helpers.profiles import Profile

CORPUS_PAGES = 1500  # the published evaluation corpus
CARD_PAGE = (1416, 1648)  # mean page size of the published card, pixels


def as_png(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def make_data(profile: Profile, folder: Path, sizes: dict[str, int], page_size) -> float:
    """Draw pages once and save them as ``original`` splits with images, and as ``presized`` ones
    with paths of page files; returns the seconds that presizing took.

    ``sizes``: rows of ``train``, of ``eval``, and of ``epoch``, which has the columns of ``train``
    and is only drawn from.
    """
    processor = load_base(profile).processor
    families = max(20, max(sizes["train"], sizes["epoch"]) // 4 + 10)
    planned = {
        row.id: row
        for row in plan_rows(seed=1, train_families=families, eval_families=sizes["eval"] + 60)
    }
    asked = [row for row in planned.values() if row.query and row.language == "en"]
    seconds, pages = 0.0, {}

    def both_sizes(row_id: str) -> tuple[dict, str]:
        nonlocal seconds
        if row_id not in pages:
            image = draw_page(planned[row_id].page)[0]
            if page_size:
                wide = image.width > image.height
                image = image.resize(
                    tuple(page_size)[:: -1 if wide else 1], PillowImage.Resampling.LANCZOS
                )
            started = time.perf_counter()
            small = as_png(presize(image, processor))
            seconds += time.perf_counter() - started
            file = folder / "pages" / f"{row_id}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(small)
            pages[row_id] = ({"bytes": as_png(image), "path": None}, str(file))
        return pages[row_id]

    chosen_rows = {
        "train": asked[: sizes["train"]],
        "eval": asked[-sizes["eval"] :],
        "epoch": asked[: sizes["epoch"]],
    }
    for split, chosen in chosen_rows.items():
        negatives = 4 if split == "eval" else 1
        for place, kind in enumerate(("original", "presized")):
            columns = {
                "query": [row.query for row in chosen],
                "image": [both_sizes(row.id)[place] for row in chosen],
            }
            for i in range(negatives):
                known = [
                    [name for name in row.negatives if name in planned and name != row.id]
                    for row in chosen
                ]
                columns[f"negative_{i}"] = [both_sizes(names[i])[place] for names in known]
            page = Image() if kind == "original" else Value("string")
            features = Features(
                {name: Value("string") if name == "query" else page for name in columns}
            )
            Dataset.from_dict(columns, features=features).save_to_disk(folder / kind / split)
    return seconds


def peak_ram_gib() -> float:
    """Peak resident memory of this process, GiB (``ru_maxrss`` counts KiB on Linux and bytes on
    macOS).
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**30 if sys.platform == "darwin" else 2**20
    )


def corpus_ram(profile: Profile, folder: Path) -> dict:
    """Peak memory that a corpus of 1,500 pages of the card's mean size adds, as paths of presized
    pages; 48 of them are encoded.
    """
    model = load_base(profile)
    page = load_from_disk(str(folder / "original" / "eval"))[0]["image"].resize(CARD_PAGE)
    file = folder / "page.png"
    presize(page, model.processor).save(file)
    del page
    model.encode_document([str(file)] * 2)
    before = peak_ram_gib()
    corpus = {f"page-{i}": str(file) for i in range(CORPUS_PAGES)}
    model.encode_document(list(corpus.values())[:48], batch_size=profile.encode_batch_size)
    as_images = CORPUS_PAGES * CARD_PAGE[0] * CARD_PAGE[1] * 3 / 2**30
    return {"as_paths_gib": peak_ram_gib() - before, "as_decoded_originals_gib_computed": as_images}
