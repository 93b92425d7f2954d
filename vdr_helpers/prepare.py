"""The steps of notebook 02 in one function, for notebooks that are entered cold; and the published dataset that is already split.

``python -m vdr_helpers.prepare`` reads the source, ``python -m vdr_helpers.prepare --preprocessed`` takes the shortcut.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from vdr_helpers import dataset as steps
from vdr_helpers.evaluation import save_results
from vdr_helpers.overrides import resolved_revisions
from vdr_helpers.page_store import PageStore, fetch_pages
from vdr_helpers.profiles import Profile, load_profile
from vdr_helpers.selection import Fetched, choose_rows
from vdr_helpers.source import Source, open_source
from vdr_helpers.stamps import data_settings, publisher_settings, used_revisions, write_stamp

TEXT_COLUMNS = ("id", "query", "negatives", "language")
PAGE_COLUMNS = ("image", "negative_0", "negative_1", "negative_2", "negative_3")
SPLIT_NEGATIVES = {"train": 1, "eval": 4, "full": 4}  # hard negatives per row of each split, as published


def load_processor(profile: Profile):
    """The base model's processor with the profile's pixels per page; it says to what size a page is shrunk."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(profile.base_model, revision=profile.model_revision, **profile.processor_kwargs)


def open_store(folder: Path, source: Source, processor, columns: tuple[str, ...] = ("image",)) -> PageStore:
    """The page store of these columns at this page size, under ``folder``; another source, size or numbering gets another store."""
    files = [[shard.rsplit("/", 1)[-1], footer.to_dict()] for shard, footer in zip(source.shards, source.footers, strict=True)]
    settings = processor.image_processor
    size = [settings.size["shortest_edge"], settings.size["longest_edge"], settings.patch_size, settings.merge_size]
    key = hashlib.sha256(json.dumps([files, size, columns], default=str).encode()).hexdigest()[:10]
    return PageStore(folder / f"pages-{key}")


def build_split(queries: list[str], pages: list[list[str | None]]):
    """A ``Dataset`` with columns query, image, negative_0, ... from PNG files; ``pages``: per row the positive, then the negatives."""
    from datasets import Dataset, Features, Image, Value

    columns: dict[str, list] = {"query": queries}
    columns |= {name: [row[i] for row in pages] for i, name in enumerate(PAGE_COLUMNS[: len(pages[0])])}
    features = Features({name: Value("string") if name == "query" else Image() for name in columns})
    return Dataset.from_dict(columns, features=features)


def save_splits(train: list, evaluation: list, folder: Path, settings: dict) -> None:
    """Save ``train``, ``eval`` and ``full`` under ``folder``; each row is ``(query, [page files, positive first])``.

    ``settings``: what they were made from (``vdr_helpers.stamps``), written last, so that half a change never looks like a whole one.
    """
    for name, rows in (("train", train), ("eval", evaluation), ("full", train + evaluation)):
        width = 1 + SPLIT_NEGATIVES[name]
        pages = [(files + [None] * width)[:width] for _, files in rows]
        steps.save_whole(build_split([query for query, _ in rows], pages), folder / name)
    write_stamp(folder, settings)


def prepare(profile: Profile, folder: Path | None = None, progress=print) -> Counter:
    """Read the source, clean it, choose negatives, split and save ``train``, ``eval`` and ``full`` under ``folder``.

    Returns the dirt that was found, one count per kind. Raises ``ValueError`` when too few clean rows are left for the split or a
    column is missing, and ``OSError`` when the pages do not fit on the disk. Pages that an earlier call fetched are not fetched again.
    """
    folder = folder or profile.output_dir / "data"
    source = open_source(steps.source_path(profile), profile.dataset_config, profile.dataset_revision)
    steps.check_columns(source)
    rows = source.read_columns(TEXT_COLUMNS)
    processor = load_processor(profile)
    store = open_store(folder, source, processor)
    while True:
        fetched, dirt = Fetched(store.fingerprints), Counter()
        train, evaluation = choose_rows(
            rows,
            fetched,
            profile.train_rows,
            profile.eval_rows,
            dirt,
            profile.negatives_per_train_row,
            profile.distinct_eval_pages,
        )
        if not fetched.unknown:
            break
        fetch_pages(source, fetched.unknown, store, processor, progress=progress)
    queries = list(rows["query"])
    splits = [
        [(queries[row["number"]], [store.path(page) for page in (row["number"], *row["negatives"])]) for row in chosen]
        for chosen in (train, evaluation)
    ]
    save_splits(*splits, folder, data_settings(profile) | {"resolved": resolved_revisions(profile)["dataset"]})
    return dirt


def prepare_preprocessed(profile: Profile, name: str | None = None, folder: Path | None = None, progress=print) -> Counter:
    """The shortcut: ``train`` and ``eval`` as their publisher split them, saved like :func:`prepare` saves its own.

    ``name``: a hub id or a folder with the configs ``train`` and ``eval``, each with columns query, image, negative_0 ... negative_3.
    Of ``train`` only the positive and the first negative are fetched. A row whose page does not open is dropped and counted.
    """
    folder, name = folder or profile.output_dir / "data", name or profile.preprocessed_name
    if not name:
        raise ValueError(f"profile {profile.name!r} has no preprocessed dataset: run python -m vdr_helpers.prepare instead")
    processor, dirt, splits = load_processor(profile), Counter(), []
    for split, count in (("train", profile.train_rows), ("eval", profile.eval_rows)):
        source = open_source(name, split)
        columns = PAGE_COLUMNS[: 1 + SPLIT_NEGATIVES[split]]
        steps.check_columns(source, ("query", *columns))
        queries = list(source.read_columns(("query",))["query"])[:count]
        store = open_store(folder, source, processor, columns)
        width = len(columns)
        fetch_pages(source, range(width * len(queries)), store, processor, columns, progress)
        rows = []
        for i, query in enumerate(queries):
            pages = [store.path(width * i + k) for k in range(width)]
            if query and None not in pages:
                rows.append((query, pages))
            else:
                dirt[f"{split} row without a query or with a page that does not open"] += 1
        splits.append(rows)
    named = replace(profile, dataset_name=name, dataset_config="train and eval", dataset_revision=None, dataset_folder=None)
    if Path(name).is_dir():
        named = replace(named, dataset_name=f"local folder {Path(name).name}", dataset_folder=name)
    save_splits(*splits, folder, publisher_settings(profile, named) | {"resolved": resolved_revisions(named)["dataset"]})
    return dirt


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vdr_helpers.prepare", description="Prepare the profile's data without a browser."
    )
    parser.add_argument(
        "--preprocessed", nargs="?", const="", metavar="NAME", help="take a dataset that is split already; a hub id or a folder"
    )
    options = parser.parse_args(arguments)
    profile = load_profile()
    dirt = prepare(profile) if options.preprocessed is None else prepare_preprocessed(profile, options.preprocessed or None)
    for kind, count in dirt.most_common():
        print(f"{count:>6}  {kind}")
    save_results(profile, "run", {"revisions": used_revisions(profile)})
    print(f"train, eval and full are in {profile.output_dir.name}/data under your outputs folder")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
