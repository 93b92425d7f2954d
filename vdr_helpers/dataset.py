"""Pages and splits as notebook 02 makes them in the open; other notebooks call these to enter cold.

``vdr_helpers/selection.py`` chooses the rows, ``vdr_helpers/prepare.py`` puts the steps together.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from vdr_helpers.profiles import Profile
from vdr_helpers.stamps import BY_PUBLISHER, STAMP, data_differences, read_stamp

SOURCE_COLUMNS = ("id", "query", "image", "negatives", "language")
LARGEST_PAGE = 50_000_000  # pixels; a larger image in a dataset is a mistake or a decompression bomb
PAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # Pillow knows more; some of them start other programs


def source_path(profile: Profile) -> str:
    """What ``load_dataset`` is given: the hub id, or the folder of the generated source, built on first use (a minute)."""
    if profile.dataset_folder or profile.dataset_name != "generated":
        return profile.dataset_folder or profile.dataset_name
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
    try:
        return fingerprint(open_page(data))
    except ValueError:
        return None


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
    """Min, mean and max of tokens (text columns) and pixels (image columns), as the published card tables them.

    Tokens are those that the model receives for a query, with the chat template around it (notebook 01).
    """

    def tokens(text: str) -> int:
        turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        return len(
            processor.apply_chat_template(turn, tokenize=True, add_generation_prompt=True, return_dict=True)["input_ids"][0]
        )

    table = []
    for name in dataset.column_names:
        values = list(dataset[name])
        if isinstance(values[0], str):
            counts = [tokens(text) for text in values]
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
    """``train``, ``eval`` or ``full`` as notebook 02 saved them; where they are missing, made with other settings or damaged, its steps
    run here (tiny: a minute).

    Returns ``(dataset, where it came from)``. Raises ``ValueError`` for another split. On a profile whose data would have to be fetched
    from the hub nothing is made here, because that is long and is started on purpose: ``FileNotFoundError`` when there are none,
    ``ValueError`` that names the differences or the damage when there are.
    """
    from datasets import load_from_disk

    if split not in ("train", "eval", "full"):
        raise ValueError(f"split must be 'train', 'eval' or 'full', not {split!r}")
    folder, problem = profile.output_dir / "data", None
    if (folder / split).exists():
        stamp = read_stamp(folder)
        problem = "; ".join(data_differences(stamp, profile))
        try:
            kept = None if problem else load_from_disk(str(folder / split))
        except Exception as error:  # datasets and pyarrow have an error of their own for each kind of damage, few name the file
            problem = f"{split} is damaged, {type(error).__name__}"
        else:
            if kept is not None:
                by_publisher = stamp["split"] == BY_PUBLISHER
                return kept, f"{stamp['dataset']['name']}, as its publisher split it" if by_publisher else "your own notebook 02"
    if profile.dataset_name != "generated" and not profile.dataset_folder:
        if problem:
            raise ValueError(
                f"the data in outputs/{profile.name}/data cannot be used ({problem}): run notebooks/02_dataset.ipynb again, put the "
                "settings back, or set VDR_OUTPUTS to another folder, and restart the kernel"
            )
        raise FileNotFoundError(
            f"no prepared data for profile {profile.name!r}: run notebooks/02_dataset.ipynb with it first, or fetch the split "
            "that others prepared: python -m vdr_helpers.prepare --preprocessed"
        )
    from vdr_helpers.prepare import prepare

    prepare(profile, folder)
    origin = "prepared now, in the steps of notebook 02"
    return load_from_disk(str(folder / split)), origin + (f", because what was there did not fit: {problem}" if problem else "")


def save_whole(dataset, folder: Path) -> None:
    """``save_to_disk`` beside the target, then move: a killed kernel never leaves half a dataset under the final name.

    The note of what the splits beside it were made from goes first (``write_stamp`` writes it last): half a change is no whole one.
    """
    import shutil

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    dataset.save_to_disk(str(partial))
    folder.with_name(STAMP).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
