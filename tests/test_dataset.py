"""Fingerprints, columns, presizing, and where a source and its splits come from."""

import copy
import dataclasses
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin

from vdr_helpers.pages import fingerprint, open_page, presize
from vdr_helpers.profiles import load_profile
from vdr_helpers.source import check_columns, source_path
from vdr_helpers.splits import load_split


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def print_of(data: bytes) -> str | None:
    """The fingerprint of a page's file, ``None`` where it does not open."""
    try:
        return fingerprint(open_page(data))
    except ValueError:
        return None


def as_bytes(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The first bytes of a PNG that claims this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# fingerprints


def test_equal_pixels_share_a_fingerprint_whatever_the_encoding():
    page = noise(40, 56)
    fingerprint = print_of(as_bytes(page, compress_level=0))
    assert len(fingerprint) == 40
    assert print_of(as_bytes(page, compress_level=9)) == fingerprint
    assert print_of(as_bytes(page, "BMP")) == fingerprint
    assert as_bytes(page, compress_level=0) != as_bytes(page, compress_level=9)


def test_one_other_pixel_or_another_shape_is_another_page():
    page = noise(40, 56)
    other = page.copy()
    other.putpixel((39, 55), tuple(255 - value for value in page.getpixel((39, 55))))
    # the same bytes, another shape
    blank, turned = (Image.new("RGB", (40, 56)), Image.new("RGB", (56, 40)))
    prints = [print_of(as_bytes(image)) for image in (page, other, blank, turned)]
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    "data", [b"", b"not an image", as_bytes(noise(400, 560))[:2000], as_bytes(noise(9, 9))[:20]]
)
def test_what_does_not_open_has_no_fingerprint(data):
    assert print_of(data) is None


@pytest.mark.parametrize("size", [(8_000, 8_000), (30_000, 30_000)])
def test_a_decompression_bomb_is_not_unpacked(size):
    assert print_of(png_header(*size)) is None


def test_what_is_transparent_becomes_white_paper_as_the_model_sees_it(processor):
    page = noise(96, 160).convert("RGBA")
    page.putalpha(Image.linear_gradient("L").resize(page.size))
    opened = open_page(as_bytes(page))
    as_given = processor.image_processor(page, return_tensors="pt")["pixel_values"]
    assert (
        processor.image_processor(opened, return_tensors="pt")["pixel_values"] - as_given
    ).abs().max() < 0.01
    black = processor.image_processor(page.convert("RGB"), return_tensors="pt")["pixel_values"]
    assert (black - as_given).abs().max() > 0.5, (
        "the plain conversion shows what lies under the transparency"
    )
    palette = page.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert open_page(as_bytes(palette)).getpixel((0, 0)) == (255, 255, 255)


def ramp(kind, low, high):
    return Image.fromarray(np.linspace(low, high, 64 * 64).reshape(64, 64).astype(kind))


@pytest.mark.parametrize(
    ("page", "kind", "expected"),
    [
        (ramp("uint16", 0, 65_535), "PNG", (0, 255)),
        (ramp("uint16", 6_000, 59_000), "PNG", (23, 230)),
        (ramp("uint16", 0, 255), "PNG", (0, 255)),  # 8-bit levels in 16 bits
        (ramp("int32", 0, 65_535), "TIFF", (0, 255)),
        (ramp("float32", 0, 1), "TIFF", (0, 255)),
        (ramp("float32", 0, 255), "TIFF", (0, 255)),
        (ramp("uint8", 0, 255).convert("LA"), "PNG", (0, 255)),
    ],
)
def test_grey_levels_of_every_depth_keep_their_steps(page, kind, expected):
    found = np.asarray(open_page(as_bytes(page, kind)).convert("L"), dtype=int)
    assert abs(found - np.asarray(ramp("float32", *expected))).max() <= 1


@pytest.mark.parametrize("kind, white", [("uint8", 255), ("uint16", 65_535), ("float32", 1)])
def test_a_tiff_file_whose_zero_is_white_is_not_inverted(kind, white):
    page, file = ramp(kind, 0, white), io.BytesIO()
    stored = ImageOps.invert(page) if kind == "uint8" else page  # which Pillow inverts as it saves
    stored.save(file, "TIFF", tiffinfo={TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 0})
    found = np.asarray(open_page(file.getvalue()).convert("L"), dtype=int)
    assert abs(found - np.asarray(ramp("float32", 255, 0))).max() <= 1


@pytest.mark.parametrize("levels", [(0, 1e6), (-5, 100), (np.nan, np.nan)])
def test_grey_levels_that_are_none_are_named(levels):
    with pytest.raises(ValueError, match=r"has grey levels from .*, expected 0 to 65,535"):
        open_page(as_bytes(ramp("float32", *levels), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photographed_page_stands_upright_as_datasets_reads_it(orientation):
    from datasets import Image as ImageFeature

    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    noise(90, 60).save(buffer, "JPEG", exif=exif, quality=95)
    opened = open_page(buffer.getvalue())
    assert (
        opened.tobytes()
        == ImageFeature()
        .decode_example({"bytes": buffer.getvalue(), "path": None})
        .convert("RGB")
        .tobytes()
    )
    assert opened.size == ((60, 90) if orientation > 4 else (90, 60))


def test_a_damaged_file_never_stops_the_reading():
    rng, whole = random.Random(0), as_bytes(noise(40, 56))
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(60)] = rng.randrange(256)
        result = print_of(bytes(damaged))
        assert result is None or len(result) == 40


# columns


def table(rows: list[tuple]):
    """A source without images: ``(id, query, negatives, language)``."""
    from datasets import Dataset

    return Dataset.from_list(
        [{"id": i, "query": q, "negatives": n, "language": lang} for i, q, n, lang in rows]
    )


def test_missing_columns_are_named_with_the_way_out():
    rows = table([("a", "q", [], "en")])
    with pytest.raises(
        ValueError, match=r"no column image; it has id, query, negatives, language\. Rename"
    ):
        check_columns(rows)
    with pytest.raises(ValueError, match="no column text, score"):
        check_columns(rows, ("id", "text", "score"))
    assert check_columns(rows, ("id", "query")) is None


# presizing

SIZES = [
    *(
        (400, 560),
        (560, 400),
        (160, 224),
        (32, 32),
        (1, 1),
        (5, 7),
        (31, 33),
        (48, 2000),
        (2000, 48),
        (30, 2000),
        (3000, 20),
        (64, 8000),
    ),
    *(
        (random.Random(i).randrange(20, 900), random.Random(-i - 1).randrange(20, 900))
        for i in range(30)
    ),
]


@pytest.mark.parametrize("max_pixels", [200 * 200, 600 * 600])
def test_presizing_changes_nothing_that_the_model_receives(processor, max_pixels):
    processor = copy.deepcopy(processor)
    settings = processor.image_processor
    settings.size = {"shortest_edge": settings.size["shortest_edge"], "longest_edge": max_pixels}
    for i, size in enumerate(SIZES):
        page = noise(*size, seed=i)
        small = presize(page, processor)
        before, after = (settings([image], return_tensors="pt") for image in (page, small))
        assert before["image_grid_thw"].tolist() == after["image_grid_thw"].tolist(), size
        assert torch.equal(before["pixel_values"], after["pixel_values"]), size
        _, rows, columns = before["image_grid_thw"][0].tolist()
        assert after["pixel_values"].shape == (rows * columns, 3 * 2 * 16 * 16)
        # of thinner pages no multiple of 32 fits, they are left as they are
        if max(size) < 30 * min(size):
            assert small.size == (columns * 16, rows * 16)
            assert small.width * small.height <= max_pixels
            assert rows * columns // 4 == small.width // 32 * (small.height // 32)


def test_presizing_gives_rgb_and_the_course_pages_their_35_tokens(processor):
    for mode in ("RGBA", "L", "P", "CMYK"):
        assert presize(noise(400, 560).convert("RGB").convert(mode), processor).mode == "RGB"
    assert presize(noise(400, 560), processor).size == (160, 224)
    assert presize(noise(560, 400), processor).size == (224, 160)


# loading


def test_an_unknown_split_and_one_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="split must be 'train', 'eval' or 'full', not 'test'"):
        load_split(load_profile("tiny"), "test")
    with pytest.raises(FileNotFoundError, match=r"run notebooks/02_dataset\.ipynb"):
        load_split(load_profile("full"), "eval")


def test_a_generated_source_is_drawn_once_and_a_hub_id_passed_on(monkeypatch, capsys):
    from tiny_vdr import corpus

    drawn = []

    def draw(folder, **settings):
        (folder / "page").write_text("drawn")
        drawn.append(settings)

    monkeypatch.setattr(corpus, "build_source", draw)
    tiny, full = load_profile("tiny"), load_profile("full")
    folder = source_path(tiny)
    assert source_path(tiny) == folder and folder.startswith(str(tiny.output_dir))
    assert len(drawn) == 1 and capsys.readouterr().out == ""
    (Path(folder) / "page").write_text("cut")
    assert source_path(tiny) == folder and len(drawn) == 2
    assert "is made anew" in capsys.readouterr().out
    other = source_path(dataclasses.replace(tiny, corpus={"seed": 1}))
    assert other != folder and drawn[-1] == drawn[0] | {"seed": 1}
    assert source_path(full) == "llamaindex/vdr-multilingual-train"
