"""From the source rows to train, eval and full, as notebook 02 does it in the open; other notebooks call these to enter cold."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from pathlib import Path

from vdr_helpers.profiles import Profile

NEGATIVES_PER_EVAL_ROW = 4  # published: 300 queries x (1 positive + 4 hard negatives) = 1,500 pages
SOURCE_COLUMNS = ("id", "query", "image", "negatives", "language")
LARGEST_PAGE = 50_000_000  # pixels; a larger image in a dataset is a mistake or a decompression bomb


def source_path(profile: Profile) -> str:
    """What ``load_dataset`` is given: the hub id, or the folder of the generated source, built on first use (a minute)."""
    if profile.dataset_name != "generated":
        return profile.dataset_name
    from vdr_helpers.corpus import VERSION, build_source

    # The version is in the folder's name because load_dataset caches by name: a corpus drawn anew must not meet an old cache.
    return str(build_source(profile.output_dir / f"source-v{VERSION}"))


def check_columns(dataset, expected: tuple[str, ...] = SOURCE_COLUMNS) -> None:
    """Raise ``ValueError`` naming the columns that are missing; a dataset with other names would fail much later otherwise."""
    missing = [name for name in expected if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"the dataset has no column {', '.join(missing)}; it has {', '.join(dataset.column_names)}. "
            "Rename yours with dataset.rename_column(old, new)."
        )


def page_fingerprint(data: bytes) -> str | None:
    """SHA-1 of a page's size and pixels, or ``None`` if the image does not open; equal pages under two ids share it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > LARGEST_PAGE:
                return None
            pixels = image.convert("RGB")
        return hashlib.sha1(str(pixels.size).encode() + pixels.tobytes(), usedforsecurity=False).hexdigest()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def choose_negatives(
    row: dict, row_of_id: dict[str, int], fingerprints: list, count: int, taken: set, dirt: Counter
) -> list[int]:
    """The first ``count`` usable hard negatives of a row, as row numbers of the source, hardest first.

    Skipped and counted in ``dirt``: ids that resolve to nothing, images that do not open, a copy of the row's own page (it would be
    punished for being right), and pages whose fingerprint is in ``taken``. May return fewer than ``count``.
    """
    own = fingerprints[row_of_id[row["id"]]]
    chosen, seen = [], {own}
    for negative_id in row["negatives"]:
        if len(chosen) == count:
            break
        number = row_of_id.get(negative_id)
        fingerprint = None if number is None else fingerprints[number]
        if number is None:
            dirt["negative id resolves to nothing"] += 1
        elif fingerprint is None:
            dirt["negative image does not open"] += 1
        elif fingerprint == own:
            dirt["negative is a copy of its own positive"] += 1
        elif fingerprint in taken:
            dirt["page already used (train or another eval row)"] += 1
        elif fingerprint not in seen:
            chosen.append(number)
            seen.add(fingerprint)
    return chosen


def choose_rows(rows, fingerprints: list, train_rows: int, eval_rows: int, dirt: Counter) -> tuple[list[dict], list[dict]]:
    """Split like the published dataset: the first ``train_rows`` clean rows with a query, then the next ``eval_rows``.

    ``rows``: the source without its image column; ``fingerprints``: one per row, ``None`` where the image does not open. Each chosen
    row is ``{"number": source row, "negatives": [source rows]}``. Every eval page is new: not in train, not in another eval row, so
    that ``eval_rows`` queries make ``5 * eval_rows`` distinct pages. Raises ``ValueError`` when the source is too small.
    """
    row_of_id = {row_id: number for number, row_id in enumerate(rows["id"])}
    train, evaluation, taken = [], [], set()
    for number, row in enumerate(rows):
        if not row["query"]:
            dirt["row without a query (kept as a page)"] += 1
        elif row["language"] != "en":
            dirt["row in another language"] += 1
        elif fingerprints[number] is None:
            dirt["positive image does not open"] += 1
        elif len(train) < train_rows:
            negatives = choose_negatives(row, row_of_id, fingerprints, 4, set(), dirt)
            if negatives:
                train.append({"number": number, "negatives": negatives})
                taken |= {fingerprints[number], fingerprints[negatives[0]]}
        elif len(evaluation) < eval_rows:
            negatives = choose_negatives(row, row_of_id, fingerprints, NEGATIVES_PER_EVAL_ROW, taken, dirt)
            if fingerprints[number] in taken or len(negatives) < NEGATIVES_PER_EVAL_ROW:
                dirt["eval row dropped: a page of it is in train"] += 1
                continue
            evaluation.append({"number": number, "negatives": negatives})
            taken |= {fingerprints[number], *(fingerprints[negative] for negative in negatives)}
    if len(train) < train_rows or len(evaluation) < eval_rows:
        raise ValueError(
            f"the source has {len(train)} clean train rows and {len(evaluation)} clean eval rows, but the profile asks for "
            f"{train_rows} and {eval_rows}: lower train_rows or eval_rows, or give a larger source"
        )
    return train, evaluation


def presize(image, processor):
    """The page at the size that the processor would make of it, so that its own resize becomes the identity.

    ``image``: a PIL page of any size; ``processor``: the model's (its ``image_processor`` holds ``max_pixels``). Returns an RGB PIL
    page. The processor's ``pixel_values`` are bit-identical before and after (``tests/test_dataset.py``); notebook 02 shows why it
    pays: every later read decodes a small page.
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


def statistics(dataset, processor) -> list[dict]:
    """Min, mean and max of tokens (text columns) and pixels (image columns), as the published card tables them."""
    table = []
    for name in dataset.column_names:
        values = dataset[:][name]
        if isinstance(values[0], str):
            counts = [len(ids) for ids in processor.tokenizer(list(values))["input_ids"]]
            cells = [f"{min(counts)} tokens", f"{sum(counts) / len(counts):.1f} tokens", f"{max(counts)} tokens"]
        else:
            sizes = sorted((image.size for image in values if image is not None), key=lambda size: size[0] * size[1])
            mean = [round(sum(size[axis] for size in sizes) / len(sizes)) for axis in (0, 1)]
            cells = ["{}x{} px".format(*size) for size in (sizes[0], mean, sizes[-1])]
        table.append(
            {"column": name, "type": "string" if isinstance(values[0], str) else "image"}
            | dict(zip(("min", "mean", "max"), cells, strict=True))
        )
    return table


def load_prepared(profile: Profile, split: str):
    """``train`` or ``eval`` as notebook 02 saved them; if it has not been run, the same steps are run here first (a minute).

    Returns ``(dataset, where it came from)``. Raises ``ValueError`` for another split and ``FileNotFoundError`` on a profile whose
    data cannot be generated.
    """
    from datasets import load_from_disk

    if split not in ("train", "eval", "full"):
        raise ValueError(f"split must be 'train', 'eval' or 'full', not {split!r}")
    folder = profile.output_dir / "data"
    origin = "your own notebook 02"
    if not (folder / split / "dataset_info.json").exists():
        if profile.dataset_name != "generated":
            raise FileNotFoundError(
                f"no prepared data for profile {profile.name!r}: run notebooks/02_dataset.ipynb with it first"
            )
        from vdr_helpers.prepare import prepare

        prepare(profile, folder)
        origin = "prepared now, in the steps of notebook 02"
    return load_from_disk(str(folder / split)), origin


def save_whole(dataset, folder: Path) -> None:
    """``save_to_disk`` beside the target, then move: a killed kernel never leaves half a dataset under the final name."""
    import shutil

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    dataset.save_to_disk(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
