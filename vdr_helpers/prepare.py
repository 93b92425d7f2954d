"""The steps of notebook 02 in one function, for notebooks that are entered cold."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

from vdr_helpers import dataset as steps
from vdr_helpers.profiles import Profile


def prepare(profile: Profile, folder: Path | None = None) -> Counter:
    """Read the source, clean it, choose negatives, split and save ``train``, ``eval`` and ``full`` under ``folder``.

    Returns the dirt that was found, one count per kind. Raises ``ValueError`` when too few clean rows are left for the split.
    """
    from datasets import Dataset, Features, Image, Value, load_dataset
    from PIL import Image as PillowImage
    from transformers import AutoProcessor

    folder = folder or profile.output_dir / "data"
    source = load_dataset(steps.source_path(profile), profile.dataset_config, split="train")
    steps.check_columns(source)
    processor = AutoProcessor.from_pretrained(profile.base_model, **profile.processor_kwargs)
    fingerprints, small_pages = [], []
    for image in source.cast_column("image", Image(decode=False))["image"]:
        fingerprints.append(steps.page_fingerprint(image["bytes"]))
        small_pages.append(None)
        if fingerprints[-1] is not None:
            buffer = io.BytesIO()
            steps.presize(PillowImage.open(io.BytesIO(image["bytes"])), processor).save(buffer, "PNG", compress_level=1)
            small_pages[-1] = {"bytes": buffer.getvalue(), "path": None}
    dirt: Counter = Counter()
    train, evaluation = steps.choose_rows(
        source.remove_columns("image"), fingerprints, profile.train_rows, profile.eval_rows, dirt
    )
    for name, rows, negatives in (("train", train, 1), ("eval", evaluation, 4), ("full", train + evaluation, 4)):
        columns = {"query": list(source.select([row["number"] for row in rows])["query"])}
        columns["image"] = [small_pages[row["number"]] for row in rows]
        for i in range(negatives):
            columns[f"negative_{i}"] = [small_pages[row["negatives"][i]] if i < len(row["negatives"]) else None for row in rows]
        features = Features({column: Value("string") if column == "query" else Image() for column in columns})
        steps.save_whole(Dataset.from_dict(columns, features=features), folder / name)
    return dirt
