"""Read a dataset's parquet files piece by piece: some columns of every row, then the row groups
that hold chosen rows (notebook 02).

A parquet file ends with a footer that says where each **row group** (a block of rows) and each
column of it lies. So the small columns can be read without the pages, and a page without the rest
of its file: on a disk, or from the hub by range requests.

``pyarrow.dataset`` has fragments of row groups as well. It opens a file of the hub with the usual
read-ahead, which fetches megabytes of pages beside each small column, and does not name a damaged
file; hence :class:`Source`, on ``pyarrow.parquet``.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
from fsspec.core import url_to_fs

from vdr_helpers.cache import cached
from vdr_helpers.profiles import Profile

COLUMNS = ("id", "query", "image", "negatives", "language")
PIECE_BYTES = 32 * 2**20  # stored bytes of a row group that are unpacked at once
# stored bytes that are asked for at once: few requests over a network, little memory
BUFFER_BYTES = 8 * 2**20
# to_parquet alone would keep the paths of image files, not the files.
HOW_TO_SAVE = (
    'dataset.cast_column("image", datasets.Image()).with_format("arrow")'
    ".map(datasets.table.embed_table_storage, batched=True).to_parquet(...)"
)
THREADS = 8  # readers of files at once; over a network the waiting counts, not the processor


def check_columns(dataset, expected: Iterable[str] = COLUMNS) -> None:
    """Raise ``ValueError`` naming the columns that are missing; a dataset with other names would
    fail much later otherwise.
    """
    missing = [name for name in expected if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"the dataset has no column {', '.join(missing)}; it has {', '.join(dataset.column_names)}. "
            "Rename yours with dataset.rename_column(old, new)."
        )


def is_text(query) -> bool:
    """Whether a query is text for the model: not missing, not blank, and neither an address nor the
    name of a file, which Sentence Transformers would fetch or open as an image.
    """
    if not isinstance(query, str) or not query.strip():
        return False
    address = query.startswith(("http://", "https://", "data:")) and " " not in query.strip()
    return not address and not os.path.isfile(query)  # noqa: PTH113  Path raises for a long text


def check_image_columns(source: Source, columns: Iterable[str]) -> None:
    """Raise ``ValueError`` naming a column of ``source`` that is not stored as ``datasets.Image``
    stores images.
    """
    schema = source.footers[0].schema.to_arrow_schema()
    for name in columns:
        found = schema.field(name).type
        if not pyarrow.types.is_struct(found) or found.get_field_index("bytes") < 0:
            raise ValueError(
                f"column {name} holds {found}, expected images: save them with {HOW_TO_SAVE}"
            )


class RowGroup(NamedTuple):
    """Which file, which of its row groups, the source row that it starts with, and how many rows it
    has.
    """

    shard: int
    number: int
    first_row: int
    rows: int


class Source:
    """The parquet files of one split, in order; rows are numbered from 0 over all of them, as
    ``load_dataset`` numbers them.

    ``shards``: local paths or ``fsspec`` addresses such as
    ``hf://datasets/owner/name@commit/en/train-00000-of-00001.parquet``. Opening reads the footers
    only. Raises ``ValueError`` for a file that is damaged.
    """

    def __init__(self, shards: Iterable[str], path: str = "") -> None:
        self.path = path

        def footer_of(shard: str):
            with open_parquet(shard) as parquet:
                return parquet.metadata

        self.shards, self.groups, self.num_rows = list(shards), [], 0
        with ThreadPoolExecutor(THREADS) as pool:
            self.footers = list(pool.map(footer_of, self.shards))
        self.column_names = list(self.footers[0].schema.to_arrow_schema().names)
        for shard, footer in enumerate(self.footers):
            for number in range(footer.num_row_groups):
                self.groups.append(
                    RowGroup(shard, number, self.num_rows, footer.row_group(number).num_rows)
                )
                self.num_rows += self.groups[-1].rows

    def bytes_of(
        self, columns: Iterable[str] | None = None, groups: Iterable[int] | None = None
    ) -> int:
        """Stored bytes of ``columns`` of these row groups (indices into ``groups``), from the
        footers; ``None``: of all of them.
        """
        names, size = set(self.column_names if columns is None else columns), 0
        for block in self.groups if groups is None else [self.groups[i] for i in groups]:
            stored = self.footers[block.shard].row_group(block.number)
            parts = map(stored.column, range(stored.num_columns))
            size += sum(
                part.total_compressed_size
                for part in parts
                if part.path_in_schema.split(".")[0] in names
            )
        return size

    def groups_of(self, rows: Iterable[int]) -> dict[int, list[int]]:
        """``{row group: [source rows in it]}`` in order. Raises ``IndexError`` for a row that is
        not there.
        """
        starts, found = [group.first_row for group in self.groups], {}
        for row in sorted(set(rows)):
            if not 0 <= row < self.num_rows:
                raise IndexError(f"row {row} is not in this source of {self.num_rows} rows")
            found.setdefault(bisect_right(starts, row) - 1, []).append(row)
        return found

    def read_columns(self, columns: Iterable[str]):
        """These columns of every row as a ``datasets.Dataset``; pages stay where they are.
        ``ValueError`` names a missing column.
        """
        from datasets import Dataset

        names = list(columns)
        check_columns(self, names)

        def read(shard: int) -> pyarrow.Table:
            with open_parquet(
                self.shards[shard], metadata=self.footers[shard], pre_buffer=True
            ) as parquet:
                return parquet.read(columns=names)

        with ThreadPoolExecutor(THREADS) as pool:
            tables = list(pool.map(read, range(len(self.shards))))
        return Dataset(pyarrow.concat_tables(tables).replace_schema_metadata(None))

    def read_rows(self, rows: Iterable[int], columns: Iterable[str]) -> Iterator[dict]:
        """Chosen source rows as dictionaries in rising order; an image is ``{"bytes", "path"}``,
        not decoded.
        """
        for group, wanted in self.groups_of(rows).items():
            for piece in self.read_pieces(group, wanted, columns):
                yield from piece

    def read_pieces(
        self, group: int, rows: Iterable[int], columns: Iterable[str]
    ) -> Iterator[list[dict]]:
        """:meth:`read_rows` of one row group, some at a time: it can hold a gigabyte of pages, of
        which only a piece is in memory.
        """
        block, names = self.groups[group], list(columns)
        check_columns(self, names)
        wanted = sorted({row - block.first_row for row in rows})
        size = max(1, PIECE_BYTES * block.rows // max(1, self.bytes_of(names, [group])))
        settings = {
            "metadata": self.footers[block.shard],
            "pre_buffer": False,
            "buffer_size": BUFFER_BYTES,
        }
        with open_parquet(self.shards[block.shard], **settings) as parquet:
            first = 0
            for batch in parquet.iter_batches(size, row_groups=[block.number], columns=names):
                here = [row - first for row in wanted if first <= row < first + len(batch)]
                if here:
                    yield batch.take(pyarrow.array(here, pyarrow.int64())).to_pylist()
                first += len(batch)
                if not wanted or first > wanted[-1]:
                    break
        # else the memory of one row group after the other would be kept
        pyarrow.default_memory_pool().release_unused()


@contextmanager
def open_parquet(path: str, **settings) -> Iterator[pyarrow.parquet.ParquetFile]:
    """A parquet file of which only the bytes asked for are fetched; ``settings`` are those of
    ``ParquetFile``.

    The usual read-ahead would fetch megabytes of pages beside a column. ``ValueError`` names a
    damaged file, as pyarrow's error does not.
    """
    filesystem, address = url_to_fs(path)
    try:
        with filesystem.open(address, "rb", cache_type="none") as file:
            yield pyarrow.parquet.ParquetFile(file, **settings)
    except (pyarrow.ArrowException, OSError) as error:
        # the disk's or the network's own word
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
            raise
        name, why = path.rsplit("/", 1)[-1], " ".join(str(error).split())
        raise ValueError(
            f"{name} cannot be read to its end ({why}): delete it, fetch it again"
        ) from error


def corpus_settings(profile: Profile) -> dict:
    """What a generated dataset is made from: the version of its generator, and its arguments."""
    from tiny_vdr import corpus

    return {"version": corpus.VERSION, **profile.corpus}


def source_path(profile: Profile) -> str:
    """What ``load_dataset`` is given: a hub id, or a folder; a generated dataset is drawn on first
    use (a minute).
    """
    if profile.corpus is None:
        return profile.dataset_folder or profile.dataset_name
    from tiny_vdr.corpus import build_source

    def draw(folder) -> None:
        build_source(folder, **profile.corpus)

    return str(cached(profile.output_dir, "source", corpus_settings(profile), draw))


def open_source(profile: Profile) -> Source:
    """The files of the profile's dataset, opened but not read; its ``path`` is what
    ``load_dataset`` is given.

    Raises what :func:`open_files` raises, and ``ValueError`` for a column that is missing or holds
    no images.
    """
    source = open_files(source_path(profile), profile.dataset_config, profile.dataset_revision)
    check_columns(source)
    check_image_columns(source, ["image"])
    return source


def open_files(path: str, config: str, revision: str | None = None) -> Source:
    """The files that ``load_dataset(path, config, revision=revision, split="train")`` would
    download, not downloaded.

    ``path``: a folder or a hub id. Raises ``ValueError`` for an unknown ``config``, or when the
    split is not made of parquet files; ``datasets`` raises ``ConnectionError`` or
    ``DatasetNotFoundError`` when the hub does not answer with it.
    """
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(path, config, revision=revision)
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        raise ValueError(
            f"this dataset has no config {config!r} ({error}): name it so under configs in its README.md, with the parquet files of "
            "split train"
        ) from error
    files = builder.config.data_files or {}
    shards = [str(file) for file in files.get("train", ())]
    if not shards or not all(shard.endswith(".parquet") for shard in shards):
        raise ValueError(
            f"config {config!r} of this dataset has no parquet files for split 'train': save it with to_parquet first"
        )
    return Source(shards, path)
