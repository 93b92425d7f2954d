"""``train`` and ``eval`` as their publisher split them: ``VDR_PROFILE=full python -m
tools.prepare``.

They are kept like the splits of notebook 02; set ``VDR_SPLIT=published`` to use them in the later
notebooks. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from transformers import AutoProcessor

from vdr_helpers.pages import fetch_pages
from vdr_helpers.profiles import Profile, load_profile
from vdr_helpers.source import HOW_TO_SAVE, check_columns, is_text, open_files
from vdr_helpers.splits import (
    PUBLISHED,
    SPLIT_NEGATIVES,
    build_splits,
    load_split,
    page_store,
    resolve_revision,
    save_splits,
)


def read_rows(profile: Profile, name: str, split: str, count: int, processor) -> list[tuple]:
    """``(query, [page files])`` of the first rows of one split, the positive's first.

    ``None`` stands for a page that does not open.
    """
    source = open_files(name, split)
    columns = ("image", *(f"negative_{i}" for i in range(SPLIT_NEGATIVES[split])))
    check_columns(source, ("query", *columns))
    queries = list(source.read_columns(("query",))["query"])[:count]
    stores = [page_store(profile, source, processor, column) for column in columns]
    for column, store in zip(columns, stores, strict=True):
        fetch_pages(source, range(len(queries)), store, processor, column)
    return [(query, [store.path(i) for store in stores]) for i, query in enumerate(queries)]


def prepare_published(profile: Profile, name: str | None = None) -> Counter:
    """Fetch, presize and keep a dataset that is split already; returns the dropped rows by kind.

    ``name``: a hub id or a folder with the configs ``train`` and ``eval``, each with columns query,
    image, negative_0 ... negative_3. Of ``train`` only the positive and the first negative are
    fetched. A row whose query is no text, or whose page does not open, is dropped and counted. Raises
    ``ValueError`` where the profile has no such dataset, a column is missing, or a split would be
    empty.
    """
    name = name or profile.preprocessed_name
    if not name:
        raise ValueError(f"profile {profile.name!r} has no preprocessed dataset: run notebook 02")
    processor = AutoProcessor.from_pretrained(
        profile.base_model, revision=profile.model_revision, **profile.processor_kwargs
    )
    noise, chosen = Counter(), {}
    for split, count in (("train", profile.train_rows), ("eval", profile.eval_rows)):
        rows = read_rows(profile, name, split, count, processor)
        chosen[split] = [row for row in rows if is_usable(*row)]
        if not chosen[split]:
            raise ValueError(
                f"{split} would be empty: none of its {len(rows)} rows has a query and pages that "
                "open. Do the image columns hold paths instead of images? Save them first with "
                f"{HOW_TO_SAVE}"
            )
        dropped = len(rows) - len(chosen[split])
        noise[f"{split} row without a query or with a page that does not open"] = dropped
    save_splits(profile, build_splits(chosen), dataset=published_dataset(profile, name))
    return +noise


def is_usable(query: str | None, pages: list[str | None]) -> bool:
    """Whether a row has a query that is text, and only pages that open."""
    return is_text(query) and None not in pages


def published_dataset(profile: Profile, name: str) -> dict[str, str]:
    """Name and commit of a dataset that is split already, for the manifest."""
    if Path(name).is_dir():
        return {"name": f"local folder {Path(name).name}", "revision": "local folder"}
    named = replace(profile, dataset_name=name, dataset_revision=None, dataset_folder=None)
    return resolve_revision(replace(named, corpus=None), "dataset")


def main(arguments: list[str] | None = None) -> None:
    """Prepare the profile's splits from a dataset that is split already."""
    parser = argparse.ArgumentParser(prog="python -m tools.prepare", description=main.__doc__)
    parser.add_argument(
        "name", nargs="?", help="a hub id or a folder; the profile's own if left out"
    )
    name = parser.parse_args(arguments).name
    try:
        profile = replace(load_profile(), split=PUBLISHED)
        dropped = prepare_published(profile, name)
    except (ValueError, OSError) as error:  # a hub that does not answer is an OSError too
        raise SystemExit(f"tools.prepare: {error}") from error
    for kind, count in dropped.most_common():
        print(f"{count:>6}  {kind}")
    for split in ("train", "eval"):
        print(f"{split}: {len(load_split(profile, split)[0]):,} rows")
    print("train, eval and full are kept: set VDR_SPLIT=published to use them in the notebooks")


if __name__ == "__main__":
    main()
