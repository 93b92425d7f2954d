"""Reading parquet piece by piece, and keeping pages: what is fetched, what is kept, and what a kill
or a bad file cannot do.
"""

import io
import json
import random
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from PIL import Image

from vdr_helpers import pages
from vdr_helpers.cache import atomic_write
from vdr_helpers.pages import LARGEST_PAGE, PageStore, fetch_pages, open_page, read_page
from vdr_helpers.profiles import load_profile
from vdr_helpers.source import Source, open_files
from vdr_helpers.splits import page_store

ROWS = 23
USAGE = namedtuple("USAGE", "total used free")


def page(number: int, width: int = 40, height: int = 56) -> bytes:
    """A page whose red value tells its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (number, 7, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def image(number: int) -> dict:
    """The bytes of row ``number``, padded so that pages are most of the file; row 5 does not
    open.
    """
    data = (
        page(number)[:30]
        if number == 5
        else page(number) + random.Random(number).randbytes(100_000)
    )
    return {"bytes": data, "path": f"{number}.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The source's layout: 23 rows in files of 10, 10 and 3 rows, row groups of 4."""
    root = tmp_path_factory.mktemp("source")
    (root / "en").mkdir()
    for i, first in enumerate(range(0, ROWS, 10)):
        rows = range(first, min(first + 10, ROWS))
        table = pyarrow.table(
            {
                "id": [f"id{n}" for n in rows],
                "query": [None if n % 3 else f"query {n}" for n in rows],
                "image": [image(n) for n in rows],
                "negatives": [[f"id{n + 1}", f"id{n + 2}"] for n in rows],
                "language": ["en" for _ in rows],
            }
        )
        pyarrow.parquet.write_table(
            table, root / "en" / f"train-{i:05d}-of-00003.parquet", row_group_size=4
        )
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/train-*.parquet\n---\n"
    )
    return root


@pytest.fixture
def small_source(folder) -> Source:
    return Source(sorted(str(file) for file in (folder / "en").glob("*.parquet")))


# the files


def test_rows_are_numbered_over_all_files(small_source):
    assert small_source.num_rows == ROWS
    blocks = [
        (group.shard, group.number, group.first_row, group.rows) for group in small_source.groups
    ]
    assert blocks == [
        (0, 0, 0, 4),
        (0, 1, 4, 4),
        (0, 2, 8, 2),
        (1, 0, 10, 4),
        (1, 1, 14, 4),
        (1, 2, 18, 2),
        (2, 0, 20, 3),
    ]
    assert small_source.groups_of([22, 3, 4, 10, 9, 3]) == {
        0: [3],
        1: [4],
        2: [9],
        3: [10],
        6: [22],
    }
    assert small_source.groups_of([]) == {}
    for row in (-1, ROWS):
        with pytest.raises(IndexError, match=f"row {row} is not in this source of 23 rows"):
            small_source.groups_of([row])


def test_columns_and_rows_come_as_load_dataset_gives_them(folder, small_source):
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    loaded = load_dataset(str(folder), "en", split="train")
    # without the feature's metadata an image is a plain struct
    if isinstance(loaded.features["image"], dict):
        loaded = loaded.cast_column("image", ImageFeature(decode=False))
    text = small_source.read_columns(("id", "query", "negatives"))
    assert text.column_names == ["id", "query", "negatives"]
    for name in text.column_names:
        assert text[name][:] == loaded[name][:]
    rows = [0, 3, 9, 11, 22]
    for row, record in zip(rows, small_source.read_rows(rows, ("image", "id")), strict=True):
        assert record == {"image": image(row), "id": f"id{row}"}


def test_the_bytes_are_those_of_the_footers(folder, small_source):
    by_hand = {"id": 0, "query": 0, "image": 0, "negatives": 0, "language": 0}
    for file in (folder / "en").glob("*.parquet"):
        footer = pyarrow.parquet.read_metadata(file)
        for i in range(footer.num_row_groups):
            for k in range(footer.num_columns):
                column = footer.row_group(i).column(k)
                by_hand[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    everything = range(len(small_source.groups))
    for name, size in by_hand.items():
        assert small_source.bytes_of([name], everything) == size
    assert small_source.bytes_of() == sum(by_hand.values())
    text = small_source.bytes_of(["id", "query", "negatives", "language"], everything)
    assert text < small_source.bytes_of() / 10
    one = small_source.bytes_of(["image"], [0])
    assert 0 < one < small_source.bytes_of(["image"], [0, 1]) < small_source.bytes_of()


class CountedFile(AbstractBufferedFile):
    """A remote file: every range that is asked for is added up."""

    def _fetch_range(self, start, end):
        CountedFiles.fetched += end - start
        with Path(self.path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)


class CountedFiles(AbstractFileSystem):
    """Stands in for the hub's file system: the same base classes, the same way of fetching
    ranges.
    """

    protocol = "counted"
    fetched = 0

    def info(self, path, **settings):
        path = self._strip_protocol(path)
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def _open(self, path, mode="rb", block_size=5 * 2**20, **settings):
        return CountedFile(self, path, mode, block_size, size=self.info(path)["size"], **settings)


def test_only_what_is_needed_is_fetched(folder):
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    CountedFiles.fetched = 0
    remote = Source([f"counted://{file}" for file in sorted((folder / "en").glob("*.parquet"))])
    footers = CountedFiles.fetched
    assert footers < remote.bytes_of() / 4  # small files: the footer is found in the last block

    CountedFiles.fetched = 0
    remote.read_columns(("id", "query", "negatives", "language"))
    needed = remote.bytes_of(("id", "query", "negatives", "language"), range(len(remote.groups)))
    assert needed <= CountedFiles.fetched <= 1.5 * needed

    CountedFiles.fetched = 0
    records = list(remote.read_rows([4, 6], ("image",)))
    assert [record["image"]["path"] for record in records] == ["4.png", "6.png"]
    needed = remote.bytes_of(("image",), [1])
    assert needed <= CountedFiles.fetched <= 1.05 * needed


def test_a_missing_column_and_a_broken_file_are_named(tmp_path, folder, small_source):
    with pytest.raises(
        ValueError, match="no column text; it has id, query, image, negatives, language"
    ):
        small_source.read_columns(("id", "text"))
    with pytest.raises(ValueError, match="no column picture"):
        list(small_source.read_rows([0], ("picture",)))
    whole = (folder / "en" / "train-00000-of-00003.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"half\.parquet cannot be read to its end .*delete it, fetch it again"
    ):
        Source([str(tmp_path / "half.parquet")])


def test_open_source_finds_what_load_dataset_would_load(folder, tmp_path):
    found = open_files(str(folder), "en")
    assert [Path(shard).name for shard in found.shards] == [
        f"train-{i:05d}-of-00003.parquet" for i in range(3)
    ]
    assert found.num_rows == ROWS
    with pytest.raises(ValueError, match="en"):  # datasets' own message lists the configs
        open_files(str(folder), "fr")
    (tmp_path / "train.json").write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match="no parquet files for split 'train'"):
        open_files(str(tmp_path), "default")


# pages: opened, shrunk, kept


def test_a_page_is_kept_with_the_fingerprint_of_the_original(processor):
    fingerprint, small = read_page({"bytes": page(3, 400, 560), "path": None}, processor)
    assert len(fingerprint) == 40
    assert Image.open(io.BytesIO(small)).size == (160, 224)
    assert read_page({"bytes": page(3, 400, 560)}, processor)[0] == fingerprint
    assert read_page({"bytes": page(4, 400, 560)}, processor)[0] != fingerprint


def test_every_bad_page_gives_its_reason(processor):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    assert read_page(None, processor) == (None, "has no image")
    by_path = {"bytes": None, "path": "folder/x.png"}
    assert read_page(by_path, processor) == (None, "has no image, only a path: x.png")
    assert read_page({"bytes": b"nothing"}, processor) == (
        None,
        "does not open (UnidentifiedImageError)",
    )
    # Pillow would start another program for this one
    assert read_page({"bytes": postscript}, processor)[0] is None
    fingerprint, reason = read_page({"bytes": page(1)[:60]}, processor)
    assert fingerprint is None
    assert reason.startswith("does not open (")
    fingerprint, reason = read_page({"bytes": page(1, 2010, 5)}, processor)
    assert fingerprint is None
    assert "200" in reason  # the processor refuses a page this thin, now and in training


def test_the_pixel_limit_is_checked_before_the_pixels_are_unpacked(monkeypatch):
    class Huge:
        size = (10_000, LARGEST_PAGE // 10_000 + 1)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def convert(self, mode):
            raise AssertionError("unpacked")

    monkeypatch.setattr(Image, "open", lambda file, formats: Huge())
    with pytest.raises(ValueError, match="has 10000 x 5001 pixels, the limit is 50,000,000"):
        open_page(b"")


def reads_of(source: Source, monkeypatch) -> list:
    """The list that grows with every ``(group, rows)`` that is read."""
    reads, real = [], Source.read_pieces

    def counted(self, group, rows, columns):
        reads.append((group, list(rows)))
        return real(self, group, rows, columns)

    monkeypatch.setattr(Source, "read_pieces", counted)
    return reads


def test_pages_are_fetched_once_and_found_again(tmp_path, small_source, processor, monkeypatch):
    reads = reads_of(small_source, monkeypatch)
    store = PageStore(tmp_path / "pages")
    fetch_pages(small_source, [21, 4, 5, 0, 4], store, processor)
    assert sorted(reads) == [(0, [0]), (1, [4, 5]), (6, [21])]
    assert set(store.fingerprints) == {0, 4, 5, 21}
    assert list(store.problems) == [5]
    assert store.problems[5].startswith("does not open (")
    assert store.path(5) is None
    with Image.open(store.path(21)) as kept:
        assert kept.getpixel((0, 0)) == (21, 7, 9)
    with pytest.raises(KeyError):
        store.path(1)

    again = PageStore(tmp_path / "pages")
    assert again.fingerprints == store.fingerprints
    assert again.problems == store.problems
    reads.clear()
    fetch_pages(small_source, [0, 4, 5, 6, 21], again, processor)
    assert reads == [(1, [6])]  # the rest was there
    assert PageStore(tmp_path / "pages").fingerprints.keys() == {0, 4, 5, 6, 21}  # the index grows


def test_a_killed_fetch_goes_on_where_it_stopped(tmp_path, small_source, processor, monkeypatch):
    real = PageStore.add

    def dies_at_row_10(self, number, fingerprint, content):
        if number == 10:  # killed between the page and the line that makes it count
            atomic_write(self.folder / f"{fingerprint}.png", content)
            (self.folder / "0123.png.partial").write_bytes(b"half a file")
            with (self.folder / "index.jsonl").open("a") as index:
                index.write('\n[10, "ab')
        if number >= 10:
            raise KeyboardInterrupt
        real(self, number, fingerprint, content)

    monkeypatch.setattr(PageStore, "add", dies_at_row_10)
    monkeypatch.setattr(pages, "READERS", 1)  # in order, so that it is known what was kept
    with pytest.raises(KeyboardInterrupt):
        fetch_pages(small_source, range(ROWS), PageStore(tmp_path), processor)
    monkeypatch.setattr(PageStore, "add", real)

    store = PageStore(tmp_path)
    assert set(store.fingerprints) == set(range(10))  # row 10's half page does not count
    reads = reads_of(small_source, monkeypatch)
    fetch_pages(small_source, range(ROWS), store, processor)
    assert sorted(group for group, _ in reads) == [3, 4, 5, 6]
    assert set(store.fingerprints) == set(PageStore(tmp_path).fingerprints) == set(range(ROWS))
    for number in set(range(ROWS)) - {5}:
        with Image.open(store.path(number)) as kept:
            assert kept.getpixel((0, 0)) == (number, 7, 9)


def test_an_index_names_only_pages_that_are_on_the_disk(
    tmp_path, small_source, processor, monkeypatch
):
    there, real = [], pages.atomic_write

    def written(file, content):
        index = tmp_path / "index.jsonl"
        there.append((file.name, index.read_text().count("\n") if index.exists() else 0))
        real(file, content)

    monkeypatch.setattr(pages, "atomic_write", written)
    store = PageStore(tmp_path)
    fetch_pages(small_source, [0, 1], store, processor)
    names = [Path(store.path(row)).name for row in (0, 1)]
    assert there == [(names[0], 0), (names[1], 1)]
    assert [
        json.loads(line)[0] for line in (tmp_path / "index.jsonl").read_text().splitlines()[1:]
    ] == [0, 1]
    assert not list(tmp_path.glob("*.partial"))


def test_another_column_of_images_is_fetched_on_its_own(tmp_path, processor):
    rows = [
        {"query": f"q{n}", "image": image(10 * n + 1), "negative_0": image(10 * n + 2)}
        for n in range(6)
    ]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet", row_group_size=2
    )
    two = Source([str(tmp_path / "train.parquet")])
    for column, more in (("image", 1), ("negative_0", 2)):
        profile = replace(load_profile("tiny"), outputs=tmp_path)
        store = page_store(profile, two, processor, column)
        fetch_pages(two, [1, 5], store, processor, column)
        assert set(store.fingerprints) == {1, 5}
        for number in (1, 5):
            with Image.open(store.path(number)) as kept:
                assert kept.getpixel((0, 0))[0] == 10 * number + more
    assert len(list(tmp_path.glob("tiny/pages-*"))) == 2


def test_a_disk_that_is_too_small_stops_the_fetch_before_most_of_it(
    tmp_path, small_source, processor, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: USAGE(10**12, 0, 100))
    reads = reads_of(small_source, monkeypatch)
    store = PageStore(tmp_path / "pages")
    with pytest.raises(
        OSError,
        match=r"the pages need about .* GB more under outputs, 0\.0 GB are free: .*VDR_OUTPUTS",
    ):
        fetch_pages(small_source, range(ROWS), store, processor)
    # the first row group, from which the rest was estimated
    assert set(store.fingerprints) == {0, 1, 2, 3}
    assert len(reads) < len(small_source.groups)
    reads.clear()
    # now the size is known before anything is read
    with pytest.raises(OSError, match="GB are free"):
        fetch_pages(small_source, range(ROWS), store, processor)
    assert set(store.fingerprints) == {0, 1, 2, 3}


def test_progress_is_the_same_after_an_interruption(
    tmp_path, small_source, processor, monkeypatch, capsys
):
    def printed(numbers, folder):
        capsys.readouterr()
        fetch_pages(small_source, numbers, PageStore(tmp_path / folder), processor)
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr(pages, "PROGRESS_PAGES", 10)
    whole = printed(range(ROWS), "a")
    assert whole == [
        "[########------------] 10 of 23 pages",
        "[#################---] 20 of 23 pages",
    ]
    assert printed(range(13), "b") == ["[###############-----] 10 of 13 pages"]
    assert printed(range(ROWS), "b") == whole


@pytest.mark.parametrize(("limit", "at_once"), [(2**40, 3), (1000, 1)])
def test_large_row_groups_are_read_one_at_a_time(
    tmp_path, small_source, processor, monkeypatch, limit, at_once
):
    open_now, most, real = set(), [], Source.read_pieces
    together = threading.Barrier(at_once)

    def counted(self, group, rows, columns):
        open_now.add(group)
        most.append(len(open_now))
        # the first group is read alone; these three wait for each other where they may
        if group in (1, 2, 3):
            together.wait(timeout=30)
        yield from real(self, group, rows, columns)
        open_now.discard(group)

    monkeypatch.setattr(Source, "read_pieces", counted)
    monkeypatch.setattr(pages, "BYTES_AT_ONCE", limit)
    fetch_pages(small_source, range(ROWS), PageStore(tmp_path), processor)
    assert max(most) == at_once


FETCH_AND_TELL = """
import resource, sys
from pathlib import Path
from vdr_helpers import pages
from vdr_helpers.cache import atomic_write
from vdr_helpers import source
pages.read_page = lambda image, processor: (str(len(image["bytes"])), b"a small page")
pages.BYTES_AT_ONCE, source.PIECE_BYTES = 2**20, 4 * 2**20
opened = source.Source([sys.argv[1]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pages.fetch_pages(opened, range(opened.num_rows), pages.PageStore(Path(sys.argv[2])), None)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_the_memory_does_not_grow_with_the_file(tmp_path):
    """Eight row groups of 40 MiB: what one of them needs may be in memory, not what all need."""
    rows = [
        {"image": {"bytes": random.Random(n).randbytes(2**20), "path": None}} for n in range(40)
    ]
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.parquet.ParquetWriter(
        tmp_path / "big.parquet", table.schema, use_dictionary=False
    ) as writer:
        for _ in range(8):
            writer.write_table(table)
    run = subprocess.run(
        [sys.executable, "-c", FETCH_AND_TELL, str(tmp_path / "big.parquet"), str(tmp_path / "pages")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    # about 180; 460 to 520 with the next groups on their way
    assert float(run.stdout.split()[-1]) < 300, "MiB"


def test_a_row_group_is_read_in_pieces(source, monkeypatch):
    """The chosen rows are the same whatever the size of a piece."""
    from vdr_helpers import source as module

    opened = open_files(str(source), "en")
    group = max(range(len(opened.groups)), key=lambda i: opened.groups[i].rows)
    first, rows = opened.groups[group].first_row, opened.groups[group].rows
    chosen = [first, first + rows // 2, first + rows - 1]
    whole = list(opened.read_rows(chosen, ["id", "image"]))
    monkeypatch.setattr(module, "PIECE_BYTES", 7)
    assert list(opened.read_rows(chosen, ["id", "image"])) == whole
    assert [len(piece) for piece in opened.read_pieces(group, chosen, ["id", "image"])] == [1, 1, 1]
    assert [row["id"] for row in whole] == [
        opened.read_columns(["id"])[row]["id"] for row in chosen
    ]
