"""Resolving, cleaning, splitting and presizing, by hand and on the small generated source."""

import copy
import dataclasses
import io
import random
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from vdr_helpers import dataset as steps
from vdr_helpers import selection
from vdr_helpers.profiles import load_profile
from vdr_helpers.stamps import data_settings, write_stamp


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def as_bytes(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The first bytes of a PNG that claims this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# fingerprints


def test_equal_pixels_share_a_fingerprint_whatever_the_encoding():
    page = noise(40, 56)
    fingerprint = steps.page_fingerprint(as_bytes(page, compress_level=0))
    assert len(fingerprint) == 40
    assert steps.page_fingerprint(as_bytes(page, compress_level=9)) == fingerprint
    assert steps.page_fingerprint(as_bytes(page, "BMP")) == fingerprint
    assert as_bytes(page, compress_level=0) != as_bytes(page, compress_level=9)


def test_one_other_pixel_or_another_shape_is_another_page():
    page = noise(40, 56)
    other = page.copy()
    other.putpixel((39, 55), tuple(255 - value for value in page.getpixel((39, 55))))
    blank, turned = Image.new("RGB", (40, 56)), Image.new("RGB", (56, 40))  # the same bytes, another shape
    prints = [steps.page_fingerprint(as_bytes(image)) for image in (page, other, blank, turned)]
    assert len(set(prints)) == 4


@pytest.mark.parametrize("data", [b"", b"not an image", as_bytes(noise(400, 560))[:2000], as_bytes(noise(9, 9))[:20]])
def test_what_does_not_open_has_no_fingerprint(data):
    assert steps.page_fingerprint(data) is None


@pytest.mark.parametrize("size", [(8_000, 8_000), (30_000, 30_000)])
def test_a_decompression_bomb_is_not_unpacked(size):
    assert steps.page_fingerprint(png_header(*size)) is None


def test_what_is_transparent_becomes_white_paper_as_the_model_sees_it(processor):
    page = noise(96, 160).convert("RGBA")
    page.putalpha(Image.linear_gradient("L").resize(page.size))
    opened = steps.open_page(as_bytes(page))
    as_given = processor.image_processor(page, return_tensors="pt")["pixel_values"]
    assert (processor.image_processor(opened, return_tensors="pt")["pixel_values"] - as_given).abs().max() < 0.01
    black = processor.image_processor(page.convert("RGB"), return_tensors="pt")["pixel_values"]
    assert (black - as_given).abs().max() > 0.5, "the plain conversion shows what lies under the transparency"
    palette = page.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert steps.open_page(as_bytes(palette)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photographed_page_stands_upright_as_datasets_reads_it(orientation):
    from datasets import Image as ImageFeature

    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    noise(90, 60).save(buffer, "JPEG", exif=exif, quality=95)
    opened = steps.open_page(buffer.getvalue())
    assert opened.tobytes() == ImageFeature().decode_example({"bytes": buffer.getvalue(), "path": None}).convert("RGB").tobytes()
    assert opened.size == ((60, 90) if orientation > 4 else (90, 60))


def test_a_row_without_negatives_is_passed_over():
    rows = [{"id": "a", "query": "q", "negatives": None, "language": "en"}]
    dirt = Counter()
    assert selection.choose_negatives(rows[0], {"a": 0}, ["print"], 1, set(), dirt) == []


def test_a_damaged_file_never_stops_the_reading():
    rng, whole = random.Random(0), as_bytes(noise(40, 56))
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(60)] = rng.randrange(256)
        result = steps.page_fingerprint(bytes(damaged))
        assert result is None or len(result) == 40


# columns, negatives, split


def table(rows: list[tuple]):
    """A source without images: ``(id, query, negatives, language)``."""
    from datasets import Dataset

    return Dataset.from_list([{"id": i, "query": q, "negatives": n, "language": lang} for i, q, n, lang in rows])


def test_missing_columns_are_named_with_the_way_out():
    rows = table([("a", "q", [], "en")])
    with pytest.raises(ValueError, match=r"no column image; it has id, query, negatives, language\. Rename"):
        steps.check_columns(rows)
    with pytest.raises(ValueError, match="no column text, score"):
        steps.check_columns(rows, ("id", "text", "score"))
    assert steps.check_columns(rows, ("id", "query")) is None


def test_choose_negatives_skips_and_counts_each_kind_of_dirt():
    #                 0    1    2     3      4    5    6    7
    fingerprints = ["P", "A", None, "P", "TAKEN", "B", "A", "C"]
    row_of_id = {"me": 0, "a": 1, "broken": 2, "copy": 3, "taken": 4, "b": 5, "a-again": 6, "c": 7}
    row = {"id": "me", "negatives": ["gone", "broken", "a", "copy", "taken", "a-again", "b", "gone too", "c"]}
    dirt = Counter()
    assert selection.choose_negatives(row, row_of_id, fingerprints, 2, {"TAKEN"}, dirt) == [1, 5]
    assert dirt == {
        "negative id resolves to nothing": 1,  # "gone too" comes after the second negative was found
        "negative image does not open": 1,
        "negative is a copy of its own positive": 1,
        "page already used (train or another eval row)": 1,
    }
    assert selection.choose_negatives(row, row_of_id, fingerprints, 4, set(), Counter()) == [1, 4, 5, 7]
    assert selection.choose_negatives(row, row_of_id, fingerprints, 9, set(), Counter()) == [1, 4, 5, 7]  # no more than there are


def split_source():
    """Six rows with queries, then dirt of each kind and silent pages; every page its own unless said otherwise."""
    silent = [(f"s{i}", None, [], "en") for i in range(12)]
    asked = [
        ("t0", "q0", ["s0", "s1"], "en"),
        ("de", "q", ["s1"], "de"),
        ("t1", "q1", ["t0", "s1", "s9"], "en"),  # a train page may be another's negative
        ("shut", "q", ["s1"], "en"),  # its image does not open
        ("empty", "", ["s1"], "en"),
        ("e0", "q2", ["s0", "s2", "s3", "s4", "s5"], "en"),  # s0 is in train: skipped
        ("twin", "q3", ["s6", "s7", "s8", "s9"], "en"),  # its page is e0's
        ("poor", "q4", ["s2", "s6", "s7", "s8"], "en"),  # s2 is e0's: three negatives are left
        ("e1", "q5", ["s1", "s6", "s7", "s8"], "en"),  # s1 is t1's second: never used in train
        ("e2", "q6", ["s9", "s10", "s11", "t1"], "en"),
    ]
    rows = table(asked + silent)
    fingerprints = list(rows["id"])
    fingerprints[3], fingerprints[6] = None, "e0"
    return rows, fingerprints


def test_the_split_rule_by_hand():
    rows, fingerprints = split_source()
    number = {row_id: i for i, row_id in enumerate(rows["id"])}
    dirt = Counter()
    train, evaluation = selection.choose_rows(rows, fingerprints, 2, 2, dirt)

    assert [row["number"] for row in train] == [number["t0"], number["t1"]]
    assert train[0]["negatives"] == [number["s0"], number["s1"]]
    assert train[1]["negatives"] == [number["t0"], number["s1"], number["s9"]]
    assert [row["number"] for row in evaluation] == [number["e0"], number["e1"]]
    assert evaluation[0]["negatives"] == [number[name] for name in ("s2", "s3", "s4", "s5")]
    assert evaluation[1]["negatives"] == [number[name] for name in ("s1", "s6", "s7", "s8")]
    assert dirt["row without a query (kept as a page)"] == 13
    assert dirt["row in another language"] == 1
    assert dirt["positive image does not open"] == 1
    assert dirt["eval row dropped: a page of it is in train"] == 2  # twin and poor
    pages = [page for row in evaluation for page in (row["number"], *row["negatives"])]
    assert len({fingerprints[page] for page in pages}) == 5 * 2


@pytest.mark.parametrize(("train_rows", "eval_rows"), [(8, 1), (2, 3)])
def test_a_source_that_is_too_small_says_by_how_much(train_rows, eval_rows):
    rows, fingerprints = split_source()
    with pytest.raises(ValueError, match=f"asks for {train_rows} and {eval_rows}: lower train_rows or eval_rows"):
        selection.choose_rows(rows, fingerprints, train_rows, eval_rows, Counter())


def test_the_published_rule_keeps_and_counts_rows_that_share_a_page():
    rows, fingerprints = split_source()
    number = {row_id: i for i, row_id in enumerate(rows["id"])}
    dirt = Counter()
    train, evaluation = selection.choose_rows(rows, fingerprints, 2, 3, dirt, 1, distinct_eval_pages=False)
    assert [row["number"] for row in train] == [number["t0"], number["t1"]]
    assert [row["negatives"] for row in train] == [[number["s0"]], [number["t0"]]]  # one hard negative per training row
    assert [row["number"] for row in evaluation] == [number["e0"], number["twin"], number["poor"]]  # simply the next three
    assert evaluation[0]["negatives"] == [number[name] for name in ("s0", "s2", "s3", "s4")]
    assert dirt["eval row that shares a page with train or another eval row (kept, as published)"] == 3


def test_choosing_before_fetching_ends_in_the_same_choice():
    """Choose, fetch what was looked at, choose again: equal to the choice with every fingerprint, on 30 random sources."""
    for seed in range(30):
        rng = random.Random(seed)
        names = [f"p{i}" for i in range(120)]
        source = table(
            [
                (
                    name,
                    f"q {name}" if rng.random() < 0.6 else None,
                    rng.sample([*names, "gone"], k=8),
                    rng.choice(["en", "en", "de"]),
                )
                for name in names
            ]
        )
        everything = [rng.choice([None, f"f{rng.randrange(90)}", name, name]) for name in names]
        for distinct in (True, False):
            settings = {
                "train_rows": 8,
                "eval_rows": 3,
                "negatives_per_train_row": rng.choice([1, 4]),
                "distinct_eval_pages": distinct,
            }
            dirt = Counter()
            expected = selection.choose_rows(source, everything, dirt=dirt, **settings)
            known, rounds = {}, 0
            while True:
                fetched, counted = selection.Fetched(known), Counter()
                chosen = selection.choose_rows(source, fetched, dirt=counted, **settings)
                if not fetched.unknown:
                    break
                known |= {number: everything[number] for number in fetched.unknown}
                rounds += 1
            assert chosen == expected
            assert counted == dirt
            assert rounds >= 1
            assert len(known) < len(names), "pages that no choice looks at are never fetched"


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
    *((random.Random(i).randrange(20, 900), random.Random(-i - 1).randrange(20, 900)) for i in range(30)),
]


@pytest.mark.parametrize("max_pixels", [200 * 200, 600 * 600])
def test_presizing_changes_nothing_that_the_model_receives(processor, max_pixels):
    processor = copy.deepcopy(processor)
    settings = processor.image_processor
    settings.size = {"shortest_edge": settings.size["shortest_edge"], "longest_edge": max_pixels}
    for i, size in enumerate(SIZES):
        page = noise(*size, seed=i)
        small = steps.presize(page, processor)
        before, after = (settings([image], return_tensors="pt") for image in (page, small))
        assert before["image_grid_thw"].tolist() == after["image_grid_thw"].tolist(), size
        assert torch.equal(before["pixel_values"], after["pixel_values"]), size
        _, rows, columns = before["image_grid_thw"][0].tolist()
        assert after["pixel_values"].shape == (rows * columns, 3 * 2 * 16 * 16)
        if max(size) < 30 * min(size):  # of thinner pages no multiple of 32 fits, they are left as they are
            assert small.size == (columns * 16, rows * 16)
            assert small.width * small.height <= max_pixels
            assert rows * columns // 4 == small.width // 32 * (small.height // 32)


def test_presizing_gives_rgb_and_the_course_pages_their_35_tokens(processor):
    for mode in ("RGBA", "L", "P", "CMYK"):
        assert steps.presize(noise(400, 560).convert("RGB").convert(mode), processor).mode == "RGB"
    assert steps.presize(noise(400, 560), processor).size == (160, 224)
    assert steps.presize(noise(560, 400), processor).size == (224, 160)


# statistics, saving, loading


def test_statistics_by_hand(processor):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    queries = ["Rent 2014", "Rent", "What was the Rent of Alder Energy in 2014?"]
    sizes = [(40, 60), (100, 30), (10, 20)]
    features = Features({"query": Value("string"), "image": ImageFeature()})
    pages = Dataset.from_dict({"query": queries, "image": [Image.new("RGB", size) for size in sizes]}, features=features)
    text, image = steps.statistics(pages, processor)
    around = len("<|im_start|>system|Represent|the|user's|input.<|im_end|>".split("|"))  # the template adds at least as many
    words = [len(processor.tokenizer.tokenize(query)) for query in queries]
    counts = [int(first.split()[0]) for first in (steps.statistics(pages.select([i]), processor)[0]["min"] for i in range(3))]
    assert all(count > word + around for count, word in zip(counts, words, strict=True))
    assert counts[1] < counts[0] < counts[2]
    assert counts[0] - counts[1] >= 4  # one token per digit
    assert text == {
        "column": "query",
        "type": "string",
        "min": f"{counts[1]} tokens",
        "mean": f"{sum(counts) / 3:.1f} tokens",
        "max": f"{counts[2]} tokens",
    }
    assert image == {"column": "image", "type": "image", "min": "10x20 px", "mean": "50x37 px", "max": "100x30 px"}


def test_saving_replaces_the_old_and_leaves_nothing_half(tmp_path, monkeypatch):
    from datasets import Dataset, load_from_disk

    folder, partial = tmp_path / "data" / "train", tmp_path / "data" / "train.partial"
    partial.mkdir(parents=True)
    (partial / "left over").touch()
    steps.save_whole(Dataset.from_dict({"a": [1, 2]}), folder)
    assert load_from_disk(str(folder))["a"] == [1, 2]
    assert not partial.exists()
    assert not (folder / "left over").exists()

    class DiesWhileSaving:
        def save_to_disk(self, path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.save_whole(DiesWhileSaving(), folder)
    assert load_from_disk(str(folder))["a"] == [1, 2]
    (folder / "of the first").touch()
    steps.save_whole(Dataset.from_dict({"a": [3]}), folder)
    assert load_from_disk(str(folder))["a"] == [3]
    assert not (folder / "of the first").exists()


def test_load_prepared_refuses_an_unknown_split_and_data_that_cannot_be_made():
    with pytest.raises(ValueError, match="split must be 'train', 'eval' or 'full', not 'test'"):
        steps.load_prepared(load_profile("tiny"), "test")
    with pytest.raises(FileNotFoundError, match=r"run notebooks/02_dataset\.ipynb.*vdr_helpers\.prepare --preprocessed"):
        steps.load_prepared(load_profile("full"), "eval")


def test_load_prepared_says_whose_data_it_is():
    from datasets import Dataset

    profile = load_profile("tiny")
    steps.save_whole(Dataset.from_dict({"query": ["mine"]}), profile.output_dir / "data" / "eval")
    write_stamp(profile.output_dir / "data", data_settings(profile))
    loaded, origin = steps.load_prepared(profile, "eval")
    assert loaded["query"] == ["mine"]
    assert origin == "your own notebook 02"


def test_source_path_builds_the_generated_source_and_passes_a_hub_id_on(monkeypatch):
    from vdr_helpers import corpus

    monkeypatch.setattr(corpus, "build_source", lambda folder: folder)
    tiny, full = load_profile("tiny"), load_profile("full")
    assert steps.source_path(tiny) == str(tiny.output_dir / f"source-v{corpus.VERSION}")
    assert steps.source_path(full) == "llamaindex/vdr-multilingual-train"


# the steps of notebook 02 together


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """``(profile, dirt, {split: dataset})`` of the small source."""
    from datasets import load_from_disk

    from vdr_helpers.splits import prepare

    profile = dataclasses.replace(load_profile("tiny"), dataset_name=str(source), train_rows=30, eval_rows=20)
    folder = tmp_path_factory.mktemp("prepared")
    dirt = prepare(profile, folder)
    return profile, dirt, {name: load_from_disk(str(folder / name)) for name in ("train", "eval", "full")}


def fingerprints_of(split) -> dict[str, list[str]]:
    return {name: [steps.page_fingerprint(as_bytes(page)) for page in split[name]] for name in split.column_names[1:]}


def test_prepare_gives_the_published_columns_and_counts(prepared):
    _, _, splits = prepared
    negatives = [f"negative_{i}" for i in range(4)]
    assert splits["train"].column_names == ["query", "image", "negative_0"]
    assert splits["eval"].column_names == splits["full"].column_names == ["query", "image", *negatives]
    assert {name: len(split) for name, split in splits.items()} == {"train": 30, "eval": 20, "full": 50}
    assert list(splits["full"]["query"]) == [*splits["train"]["query"], *splits["eval"]["query"]]
    assert {page.size for page in splits["eval"]["image"]} == {(160, 224), (224, 160)}


def test_no_eval_page_is_in_train_and_all_eval_pages_are_distinct(prepared):
    _, _, splits = prepared
    train = {page for pages in fingerprints_of(splits["train"]).values() for page in pages}
    evaluation = [page for pages in fingerprints_of(splits["eval"]).values() for page in pages]
    assert len(set(evaluation)) == len(evaluation) == 5 * 20
    assert not train & set(evaluation)


def test_prepare_matches_the_rule_on_the_source_rows(prepared, processor):
    """Each saved page is the presized page of the row that the split rule names."""
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    profile, dirt, splits = prepared
    source = load_dataset(profile.dataset_name, "en", split="train")
    raw = [page["bytes"] for page in source.cast_column("image", ImageFeature(decode=False))["image"]]
    expected = Counter()
    prints = [steps.page_fingerprint(data) for data in raw]
    train, evaluation = selection.choose_rows(source.remove_columns("image"), prints, 30, 20, expected)
    assert dirt == expected
    assert dirt["row in another language"] > 0
    for name, rows in (("train", train), ("eval", evaluation)):
        for i in (0, len(rows) - 1):
            number, negative = rows[i]["number"], rows[i]["negatives"][0]
            assert splits[name][i]["query"] == source[number]["query"]
            for column, page in (("image", number), ("negative_0", negative)):
                want = steps.presize(Image.open(io.BytesIO(raw[page])), processor)
                assert splits[name][i][column].tobytes() == want.tobytes()


def test_load_prepared_makes_what_is_missing(small_profile, monkeypatch):
    monkeypatch.setattr(steps, "source_path", lambda profile: small_profile.dataset_name)
    profile = dataclasses.replace(small_profile, dataset_name="generated", eval_rows=5)
    loaded, origin = steps.load_prepared(profile, "eval")
    assert len(loaded) == 5
    assert origin == "prepared now, in the steps of notebook 02"
    assert steps.load_prepared(profile, "train")[1] == "your own notebook 02"  # kept for the next call
