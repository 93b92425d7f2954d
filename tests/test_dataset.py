"""Resolving, cleaning, splitting and presizing, by hand and on the small generated source."""

import copy
import dataclasses
import io
import random
import shutil
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from cells import chooser, definitions, edited_sources, prepare
from PIL import Image
from vdr_helpers.stamps import (
    CORPUS_VERSION,
    damaged_files,
    data_settings,
    read_stamp,
    whole_folder,
)

from vdr_helpers.pages import open_page, page_fingerprint, presize
from vdr_helpers.profiles import load_profile
from vdr_helpers.source import check_columns, source_path
from vdr_helpers.splits import load_prepared, save_splits, stored_choice


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
    fingerprint = page_fingerprint(as_bytes(page, compress_level=0))
    assert len(fingerprint) == 40
    assert page_fingerprint(as_bytes(page, compress_level=9)) == fingerprint
    assert page_fingerprint(as_bytes(page, "BMP")) == fingerprint
    assert as_bytes(page, compress_level=0) != as_bytes(page, compress_level=9)


def test_one_other_pixel_or_another_shape_is_another_page():
    page = noise(40, 56)
    other = page.copy()
    other.putpixel((39, 55), tuple(255 - value for value in page.getpixel((39, 55))))
    blank, turned = Image.new("RGB", (40, 56)), Image.new("RGB", (56, 40))  # the same bytes, another shape
    prints = [page_fingerprint(as_bytes(image)) for image in (page, other, blank, turned)]
    assert len(set(prints)) == 4


@pytest.mark.parametrize("data", [b"", b"not an image", as_bytes(noise(400, 560))[:2000], as_bytes(noise(9, 9))[:20]])
def test_what_does_not_open_has_no_fingerprint(data):
    assert page_fingerprint(data) is None


@pytest.mark.parametrize("size", [(8_000, 8_000), (30_000, 30_000)])
def test_a_decompression_bomb_is_not_unpacked(size):
    assert page_fingerprint(png_header(*size)) is None


def test_what_is_transparent_becomes_white_paper_as_the_model_sees_it(processor):
    page = noise(96, 160).convert("RGBA")
    page.putalpha(Image.linear_gradient("L").resize(page.size))
    opened = open_page(as_bytes(page))
    as_given = processor.image_processor(page, return_tensors="pt")["pixel_values"]
    assert (processor.image_processor(opened, return_tensors="pt")["pixel_values"] - as_given).abs().max() < 0.01
    black = processor.image_processor(page.convert("RGB"), return_tensors="pt")["pixel_values"]
    assert (black - as_given).abs().max() > 0.5, "the plain conversion shows what lies under the transparency"
    palette = page.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert open_page(as_bytes(palette)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photographed_page_stands_upright_as_datasets_reads_it(orientation):
    from datasets import Image as ImageFeature

    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    noise(90, 60).save(buffer, "JPEG", exif=exif, quality=95)
    opened = open_page(buffer.getvalue())
    assert opened.tobytes() == ImageFeature().decode_example({"bytes": buffer.getvalue(), "path": None}).convert("RGB").tobytes()
    assert opened.size == ((60, 90) if orientation > 4 else (90, 60))


def test_a_row_without_negatives_is_passed_over():
    rows = table([("a", "q", None, "en")])
    assert chooser(rows)["choose_negatives"](rows[0], ["print"].__getitem__, 1, set(), Counter()) == []


def test_a_damaged_file_never_stops_the_reading():
    rng, whole = random.Random(0), as_bytes(noise(40, 56))
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(60)] = rng.randrange(256)
        result = page_fingerprint(bytes(damaged))
        assert result is None or len(result) == 40


# columns, negatives, split


def table(rows: list[tuple]):
    """A source without images: ``(id, query, negatives, language)``."""
    from datasets import Dataset

    return Dataset.from_list([{"id": i, "query": q, "negatives": n, "language": lang} for i, q, n, lang in rows])


def test_missing_columns_are_named_with_the_way_out():
    rows = table([("a", "q", [], "en")])
    with pytest.raises(ValueError, match=r"no column image; it has id, query, negatives, language\. Rename"):
        check_columns(rows)
    with pytest.raises(ValueError, match="no column text, score"):
        check_columns(rows, ("id", "text", "score"))
    assert check_columns(rows, ("id", "query")) is None


def test_choose_negatives_skips_and_counts_each_kind_of_dirt():
    #                 0    1    2     3      4    5    6    7
    fingerprints = ["P", "A", None, "P", "TAKEN", "B", "A", "C"]
    names = ["me", "a", "broken", "copy", "taken", "b", "a-again", "c"]
    row = {"id": "me", "negatives": ["gone", "broken", "a", "copy", "taken", "a-again", "b", "gone too", "c"]}
    choose_negatives = chooser(table([(name, "q", [], "en") for name in names]))["choose_negatives"]
    dirt = Counter()
    assert choose_negatives(row, fingerprints.__getitem__, 2, {"TAKEN"}, dirt) == [1, 5]
    assert dirt == {
        "negative id resolves to nothing": 1,  # "gone too" comes after the second negative was found
        "negative image does not open": 1,
        "negative is a copy of its own positive": 1,
        "page already used (train or another eval row)": 1,
    }
    assert choose_negatives(row, fingerprints.__getitem__, 4, set(), Counter()) == [1, 4, 5, 7]
    assert choose_negatives(row, fingerprints.__getitem__, 9, set(), Counter()) == [1, 4, 5, 7]  # no more than there are


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
    train, evaluation = chooser(rows, train_rows=2, eval_rows=2)["choose_rows"](fingerprints.__getitem__, dirt)

    assert train == [[number[name] for name in row] for row in (("t0", "s0", "s1"), ("t1", "t0", "s1", "s9"))]
    found = [("e0", "s2", "s3", "s4", "s5"), ("e1", "s1", "s6", "s7", "s8")]  # never "de" or one without a query
    assert evaluation == [[number[name] for name in row] for row in found]
    assert dirt["positive image does not open"] == 1
    assert dirt["eval row dropped: not enough pages of its own"] == 2  # twin and poor
    pages = [page for row in evaluation for page in row]
    assert len({fingerprints[page] for page in pages}) == 5 * 2


@pytest.mark.parametrize(("train_rows", "eval_rows"), [(8, 1), (2, 3)])
def test_a_source_that_is_too_small_says_by_how_much(train_rows, eval_rows):
    rows, fingerprints = split_source()
    choose_rows = chooser(rows, train_rows=train_rows, eval_rows=eval_rows)["choose_rows"]
    with pytest.raises(ValueError, match=f"asked for {train_rows} and {eval_rows}: ask for fewer"):
        choose_rows(fingerprints.__getitem__, Counter())


def test_the_published_rule_keeps_and_counts_rows_that_share_a_page():
    rows, fingerprints = split_source()
    number = {row_id: i for i, row_id in enumerate(rows["id"])}
    dirt = Counter()
    published = {"train_rows": 2, "eval_rows": 3, "negatives_per_train_row": 1, "distinct_eval_pages": False}
    train, evaluation = chooser(rows, **published)["choose_rows"](fingerprints.__getitem__, dirt)
    assert train == [[number["t0"], number["s0"]], [number["t1"], number["t0"]]]  # one hard negative per training row
    assert [row[0] for row in evaluation] == [number["e0"], number["twin"], number["poor"]]  # simply the next three
    assert evaluation[0][1:] == [number[name] for name in ("s0", "s2", "s3", "s4")]
    assert dirt["eval row that shares a page (kept, as published)"] == 3


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
            choose_rows = chooser(source, **settings)["choose_rows"]
            expected = choose_rows(everything.__getitem__, dirt)
            fingerprint_of, known, rounds = definitions("02", "fingerprint_of")["fingerprint_of"], {}, 0
            while True:
                fingerprint_of.__globals__.update(fingerprints=known, unknown=set())
                counted = Counter()
                chosen = choose_rows(fingerprint_of, counted)
                unknown = fingerprint_of.__globals__["unknown"]
                if not unknown:
                    break
                known |= {number: everything[number] for number in unknown}
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
        small = presize(page, processor)
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
        assert presize(noise(400, 560).convert("RGB").convert(mode), processor).mode == "RGB"
    assert presize(noise(400, 560), processor).size == (160, 224)
    assert presize(noise(560, 400), processor).size == (224, 160)


# statistics, saving, loading


def test_statistics_by_hand(processor):
    """Notebook 02's table of tokens and pixels, by its own cells."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    queries = ["Rent 2014", "Rent", "What was the Rent of Alder Energy in 2014?"]
    sizes = [(40, 60), (100, 30), (10, 20)]
    features = Features({"query": Value("string"), "image": ImageFeature()})
    pages = Dataset.from_dict({"query": queries, "image": [Image.new("RGB", size) for size in sizes]}, features=features)
    space = {
        "splits": {"train": pages},
        "processor": processor,
        "queries": queries,
        "train_rows": [[0]],
        "display": lambda table: None,
    }
    for source in edited_sources("02"):
        if "def count_tokens" in source or "count_tokens(query) for" in source:
            exec(source, space)
    counts = [space["count_tokens"](query) for query in queries]
    around = len("<|im_start|>system|Represent|the|user's|input.<|im_end|>".split("|"))  # the template adds at least as many
    words = [len(processor.tokenizer.tokenize(query)) for query in queries]
    assert all(count > word + around for count, word in zip(counts, words, strict=True))
    assert counts[1] < counts[0] < counts[2]
    assert counts[0] - counts[1] >= 4  # one token per digit
    mean = f"{sum(counts) / 3:.4g} tokens"
    assert space["here"].loc["query"].tolist() == [f"{counts[1]} tokens", mean, f"{counts[2]} tokens"]
    assert space["here"].loc["image"].tolist() == ["10x20 px", "50x37 px", "100x30 px"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder, partial = tmp_path / "data" / "train", tmp_path / "data" / "train.partial"
    partial.mkdir(parents=True)
    (partial / "left over").touch()
    with whole_folder(folder) as new:
        (new / "a").write_text("first")
    assert [path.name for path in folder.iterdir()] == ["a"] and not partial.exists()
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as new:
        (new / "a").write_text("half")
        raise KeyboardInterrupt
    assert (folder / "a").read_text() == "first"
    with whole_folder(folder) as new:
        (new / "b").touch()
    assert [path.name for path in folder.iterdir()] == ["b"], "nothing of the first is left"
    with whole_folder(folder, {"rows": 3}) as new:
        (new / "c").write_text("four")
    assert read_stamp(folder) == {"rows": 3, "files": {"c": 4}} and damaged_files(folder) == []
    (folder / "c").write_text("cut")
    assert damaged_files(folder) == ["c"]


def test_splits_that_are_half_replaced_have_no_note(tmp_path):
    from datasets import Dataset

    rows, made_from = Dataset.from_dict({"a": [1]}), {"train_rows": 1}

    class DiesWhileSaving:
        def save_to_disk(self, path):
            raise KeyboardInterrupt

    save_splits({"train": rows, "eval": rows}, tmp_path, made_from)
    assert (tmp_path / "made_from.json").exists()
    with pytest.raises(KeyboardInterrupt):
        save_splits({"train": rows, "eval": DiesWhileSaving()}, tmp_path, made_from)
    assert not (tmp_path / "made_from.json").exists()


def test_load_prepared_refuses_an_unknown_split_and_data_that_cannot_be_made():
    with pytest.raises(ValueError, match="split must be 'train', 'eval' or 'full', not 'test'"):
        load_prepared(load_profile("tiny"), "test")
    with pytest.raises(FileNotFoundError, match=r"run notebooks/02_dataset\.ipynb.*tools\.prepare"):
        load_prepared(load_profile("full"), "eval")


def test_load_prepared_says_whose_data_it_is():
    from datasets import Dataset

    profile = load_profile("tiny")
    save_splits({"eval": Dataset.from_dict({"query": ["mine"]})}, profile.output_dir / "data", data_settings(profile))
    loaded, origin = load_prepared(profile, "eval")
    assert loaded["query"] == ["mine"]
    assert origin == "your own notebook 02"


def test_source_path_draws_the_generated_source_once_and_passes_a_hub_id_on(monkeypatch, capsys):
    from tiny_vdr import corpus

    drawn = []

    def draw(folder, **settings):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "page").write_text("drawn")
        drawn.append(settings)
        return folder

    monkeypatch.setattr(corpus, "build_source", draw)
    tiny, full = load_profile("tiny"), load_profile("full")
    folder = tiny.output_dir / f"source-v{corpus.VERSION}"
    assert source_path(tiny) == source_path(tiny) == str(folder)
    assert drawn == [{}] and capsys.readouterr().out == ""
    (folder / "page").write_text("cut")
    assert source_path(tiny) == str(folder) and len(drawn) == 2
    assert "it is made anew" in capsys.readouterr().out
    assert source_path(dataclasses.replace(tiny, corpus={"seed": 1})) == str(folder) and drawn[-1] == {"seed": 1}
    assert source_path(full) == "llamaindex/vdr-multilingual-train"
    assert corpus.VERSION == CORPUS_VERSION


# the steps of notebook 02 together


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """``(profile, names of notebook 02's cells, {split: dataset})`` of the small source."""
    from datasets import load_from_disk

    patch = pytest.MonkeyPatch()
    patch.setenv("VDR_OUTPUTS", str(tmp_path_factory.mktemp("prepared")))
    profile = dataclasses.replace(load_profile("tiny"), corpus=None, dataset_name=str(source), train_rows=30, eval_rows=20)
    cells = prepare(profile)
    splits = {name: load_from_disk(str(profile.output_dir / "data" / name)) for name in ("train", "eval", "full")}
    patch.undo()
    return profile, cells, splits


def fingerprints_of(split) -> dict[str, list[str]]:
    return {name: [page_fingerprint(as_bytes(page)) for page in split[name]] for name in split.column_names[1:]}


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

    profile, cells, splits = prepared
    source = load_dataset(profile.dataset_name, "en", split="train")
    raw = [page["bytes"] for page in source.cast_column("image", ImageFeature(decode=False))["image"]]
    expected = Counter()
    prints = [page_fingerprint(data) for data in raw]
    train, evaluation = chooser(source.remove_columns("image"), train_rows=30, eval_rows=20)["choose_rows"](
        prints.__getitem__, expected
    )
    assert cells["dirt"] == expected and +expected
    assert (cells["train_rows"], cells["eval_rows"]) == (train, evaluation)
    for name, rows in (("train", train), ("eval", evaluation)):
        for i in (0, len(rows) - 1):
            number, negative, *_ = rows[i]
            assert splits[name][i]["query"] == source[number]["query"]
            for column, page in (("image", number), ("negative_0", negative)):
                want = presize(Image.open(io.BytesIO(raw[page])), processor)
                assert splits[name][i][column].tobytes() == want.tobytes()


def test_whoever_starts_later_gets_the_rows_of_notebook_02(small_profile, monkeypatch):
    from vdr_helpers import splits

    cells = prepare(small_profile)
    chosen = {"train": cells["train_rows"], "eval": cells["eval_rows"]}
    kept = {name: list(load_prepared(small_profile, name)[0]["query"]) for name in ("train", "eval", "full")}
    shutil.rmtree(small_profile.output_dir)
    with pytest.raises(FileNotFoundError, match="run notebooks/02_dataset"):
        load_prepared(small_profile, "eval")
    monkeypatch.setattr(splits, "stored_choice", lambda profile: chosen)
    loaded, origin = load_prepared(small_profile, "eval")
    assert origin == "the rows that notebook 02 chooses, read now (you have not run notebook 02)"
    assert list(loaded["query"]) == kept["eval"]
    for name in ("train", "full"):
        again, origin = load_prepared(small_profile, name)
        assert origin == "your own notebook 02" and list(again["query"]) == kept[name]


def test_the_stored_choice_is_for_the_profile_as_it_is_shipped():
    tiny = load_profile("tiny")
    chosen = stored_choice(tiny)
    assert {name: len(rows) for name, rows in chosen.items()} == {"train": 2048, "eval": 300}
    assert len({number for row in chosen["eval"] for number in row}) == 5 * 300
    for change in ({"train_rows": 96}, {"dataset_config": "fr"}, {"dataset_name": "owner/name", "corpus": None}):
        assert stored_choice(dataclasses.replace(tiny, **change)) is None
