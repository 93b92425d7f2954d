"""Read a dataset's parquet files piece by piece: some columns of every row, then the row groups that hold chosen rows (notebook 02).

A parquet file ends with a footer that says where each **row group** (a block of rows) and each column of it lies. So the small columns
can be read without the pages, and a page without the rest of its file: on a disk, or from the hub by range requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow
import pyarrow.parquet

PIECE = 64  # rows of a row group that are unpacked at once
THREADS = 8  # readers of files at once; over a network the waiting counts, not the processor


@dataclass(frozen=True)
class RowGroup:
    """One row group: which file and which of its groups, the source row it starts with, its rows, and each column's stored bytes."""

    shard: int
    number: int
    first_row: int
    rows: int
    column_bytes: dict[str, int]


class Source:
    """The parquet files of one split, in order; rows are numbered from 0 over all of them, as ``load_dataset`` numbers them.

    ``shards``: local paths or ``fsspec`` addresses such as ``hf://datasets/owner/name@commit/en/train-00000-of-00001.parquet``.
    Opening reads the footers only. Raises ``ValueError`` for a file that is not parquet.
    """

    def __init__(self, shards: Iterable[str]) -> None:
        self.shards = list(shards)
        with ThreadPoolExecutor(THREADS) as pool:
            self.footers = list(pool.map(self._footer, self.shards))
        self.column_names = list(self.footers[0].schema.to_arrow_schema().names)
        self.groups: list[RowGroup] = []
        for shard, footer in enumerate(self.footers):
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                sizes: dict[str, int] = defaultdict(int)
                for i in range(group.num_columns):
                    column = group.column(i)
                    sizes[column.path_in_schema.split(".")[0]] += column.total_compressed_size
                self.groups.append(RowGroup(shard, number, self.num_rows, group.num_rows, dict(sizes)))

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return self.groups[-1].first_row + self.groups[-1].rows if self.groups else 0

    @property
    def total_bytes(self) -> int:
        """Stored bytes of all columns of all files, from the footers; the files themselves are a little larger."""
        return self.bytes_of(self.column_names, range(len(self.groups)))

    def bytes_of(self, columns: Iterable[str], groups: Iterable[int]) -> int:
        """What reading ``columns`` of these row groups (indices into ``groups``) fetches, in bytes, from the footers."""
        names = tuple(columns)
        return sum(self.groups[i].column_bytes.get(name, 0) for i in groups for name in names)

    def groups_of(self, rows: Iterable[int]) -> dict[int, list[int]]:
        """``{row group: [source rows in it]}`` in order. Raises ``IndexError`` for a row that is not there."""
        found: dict[int, list[int]] = {}
        group = 0
        for row in sorted(set(rows)):
            if not 0 <= row < self.num_rows:
                raise IndexError(f"row {row} is not in this source of {self.num_rows} rows")
            while row >= self.groups[group].first_row + self.groups[group].rows:
                group += 1
            found.setdefault(group, []).append(row)
        return found

    def read_columns(self, columns: Iterable[str]):
        """These columns of every row as a ``datasets.Dataset``; pages stay where they are. ``ValueError`` names a missing column."""
        from datasets import Dataset

        names = self._known(columns)
        with ThreadPoolExecutor(THREADS) as pool:
            tables = list(pool.map(lambda shard: self._read(shard, names), range(len(self.shards))))
        return Dataset(pyarrow.concat_tables(tables).replace_schema_metadata(None))

    def read_rows(self, group: int, rows: Iterable[int], columns: Iterable[str]) -> list[dict]:
        """Chosen source rows of one row group, as dictionaries in rising order; an image is ``{"bytes", "path"}``, not decoded.

        The group is unpacked in small pieces, of which only the chosen rows stay: a group can hold a gigabyte of pages.
        """
        block, names, found = self.groups[group], self._known(columns), []
        wanted = sorted({row - block.first_row for row in rows})
        with self._opened(block.shard) as parquet:
            first = 0
            for batch in parquet.iter_batches(PIECE, row_groups=[block.number], columns=names):
                here = [row - first for row in wanted if first <= row < first + len(batch)]
                found += batch.take(pyarrow.array(here, pyarrow.int64())).to_pylist() if here else []
                first += len(batch)
        return found

    def _known(self, columns: Iterable[str]) -> list[str]:
        names = list(columns)
        missing = [name for name in names if name not in self.column_names]
        if missing:
            raise ValueError(f"the dataset has no column {', '.join(missing)}; it has {', '.join(self.column_names)}")
        return names

    def _footer(self, shard: str):
        with open_exact(shard) as file:
            try:
                return pyarrow.parquet.read_metadata(file)
            except pyarrow.ArrowInvalid as error:
                name = shard.rsplit("/", 1)[-1]
                raise ValueError(f"{name} is not a whole parquet file: delete it and fetch it again") from error

    def _read(self, shard: int, columns: list[str]):
        with self._opened(shard) as parquet:
            return parquet.read(columns=columns)

    @contextmanager
    def _opened(self, shard: int):
        """A file ready to read. A damaged one is named: ``ValueError`` instead of pyarrow's error, which says no name."""
        try:
            with open_exact(self.shards[shard]) as file:
                yield pyarrow.parquet.ParquetFile(file, metadata=self.footers[shard], pre_buffer=True)
        except (pyarrow.ArrowException, OSError) as error:
            name = self.shards[shard].rsplit("/", 1)[-1]
            if isinstance(error, OSError) and error.errno is not None:  # the disk's or the network's own word
                raise
            raise ValueError(f"{name} cannot be read to its end ({' '.join(str(error).split())}): delete it, fetch it again") from error


def open_exact(path: str):
    """A file opened so that only the bytes asked for are fetched; the usual read-ahead would fetch megabytes of pages beside a column."""
    from fsspec.core import url_to_fs

    filesystem, address = url_to_fs(path)
    return filesystem.open(address, "rb", cache_type="none")


def open_source(name: str, config: str, revision: str | None = None) -> Source:
    """The files that ``load_dataset(name, config, revision=revision, split="train")`` would download, opened but not downloaded.

    ``name``: a folder or a hub id. Raises ``ValueError`` when the split is not made of parquet files; ``datasets`` raises
    ``ValueError`` for an unknown ``config`` and ``ConnectionError`` or ``DatasetNotFoundError`` when the hub does not answer with it.
    """
    from datasets import load_dataset_builder

    files = load_dataset_builder(name, config, revision=revision).config.data_files or {}
    shards = [str(file) for file in files.get("train", ())]
    if not shards or not all(shard.endswith(".parquet") for shard in shards):
        raise ValueError(
            f"config {config!r} of this dataset has no parquet files for split 'train': save it with to_parquet first"
        )
    return Source(shards)
