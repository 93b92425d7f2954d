"""Generate the tiny source dataset: page screenshots in the schema of
``llamaindex/vdr-multilingual-train``, noise included.

``id``, ``query`` (``None`` on pages kept only as hard negatives), ``image``, ``negatives`` (16 ids,
hardest first), ``language``. The folder loads with the call that loads the real one:
``load_dataset(path, "en", split="train")``. Notebook 02 takes it apart.
"""

from __future__ import annotations

import io
import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL.Image import Image, Resampling

from tiny_vdr.pages import draw_page
from tiny_vdr.plan import Row, plan_rows

# Raise it when the same seed would give other pages, so that a cached corpus is built anew.
VERSION = 9


def enlarged_size(width: int, height: int, seed: int, mean_scale: float) -> tuple[int, int]:
    """A page's pixels at 0.7 to 1.3 times ``mean_scale``, chosen by ``seed``: sizes spread around
    the mean.
    """
    scale = mean_scale * random.Random(seed).uniform(0.7, 1.3)
    return round(width * scale), round(height * scale)


def enlarge(page: Image, seed: int, mean_scale: float) -> Image:
    """A drawn page at :func:`enlarged_size`."""
    return page.resize(enlarged_size(page.width, page.height, seed, mean_scale), Resampling.BICUBIC)


def encode_page(row: Row, mean_scale: float | None = None) -> bytes:
    """Draw a row's page as PNG bytes, enlarged if a scale is given; a broken row's file ends in the
    middle.
    """
    buffer = io.BytesIO()
    page = draw_page(row.page)[0]
    (enlarge(page, row.page.seed, mean_scale) if mean_scale else page).save(
        buffer, "PNG", compress_level=1
    )
    return buffer.getvalue()[:2000] if row.broken else buffer.getvalue()


def build_source(
    folder: Path,
    seed: int = 0,
    train_families: int = 521,
    eval_families: int = 375,
    workers: int | None = None,
    mean_scale: float | None = None,
) -> Path:
    """Draw the source dataset into ``folder`` (about 5,400 pages, under a minute on two cores);
    what was there is replaced.

    ``mean_scale`` enlarges the pages, as the ``rehearsal`` profile does; ``workers``: processes
    that draw, by default one per core and eight at most. Written beside the target and moved into
    place at the end, so that an interrupted build is never whole. Returns ``folder``. Raises
    ``ValueError`` for too few families.
    """
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageColumn

    if train_families < 20 or eval_families < 85:
        raise ValueError(
            "build_source needs at least 20 train and 85 eval families to hold the noise that notebook 02 looks for"
        )
    rows = plan_rows(seed, train_families, eval_families)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "en").mkdir(parents=True)
    features = Features(
        {"id": Value("string"), "query": Value("string"), "image": ImageColumn(decode=False), "negatives": List(Value("string")), "language": Value("string")}
    )  # fmt: skip
    half = (len(rows) + 1) // 2
    workers = workers or min(8, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # one file at a time: enlarged pages would fill the memory
        for i, part in enumerate((rows[:half], rows[half:])):
            columns = {
                name: [getattr(row, name) for row in part]
                for name in ("id", "query", "negatives", "language")
            }
            images = pool.map(encode_page, part, [mean_scale] * len(part), chunksize=32)
            columns["image"] = [
                {"bytes": data, "path": f"{row.id}.png"}
                for row, data in zip(part, images, strict=True)
            ]
            dataset = Dataset.from_dict(
                {name: columns[name] for name in features}, features=features
            )
            dataset.cast_column("image", ImageColumn()).to_parquet(
                partial / "en" / f"train-{i:05d}-of-00002.parquet", batch_size=100
            )
    (partial / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/train-*.parquet\n---\n"
        "Generated page screenshots in the schema of `llamaindex/vdr-multilingual-train`. Every name and figure is invented.\n"
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
