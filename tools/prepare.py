"""``train`` and ``eval`` as their publisher split them, saved like notebook 02 saves its own: ``VDR_PROFILE=full python -m tools.prepare``.

Every later notebook takes either. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from transformers import AutoProcessor

from vdr_helpers.evaluation import save_results
from vdr_helpers.pages import fetch_pages
from vdr_helpers.profiles import Profile, load_profile
from vdr_helpers.source import check_columns, open_source
from vdr_helpers.splits import SPLIT_NEGATIVES, build_splits, open_store, save_splits
from vdr_helpers.stamps import BY_PUBLISHER, data_settings, dataset_settings, resolved_revisions, used_revisions


def publisher_settings(profile: Profile, named: Profile) -> dict:
    """The note of a dataset that its publisher split: ``named`` says which one, ``profile`` which one it stands for."""
    return data_settings(named) | {"split": BY_PUBLISHER, "instead_of": dataset_settings(profile)}


def prepare_preprocessed(profile: Profile, name: str | None = None, folder: Path | None = None) -> Counter:
    """Fetch, presize and save a dataset that is split already; returns the rows that were dropped, by kind.

    ``name``: a hub id or a folder with the configs ``train`` and ``eval``, each with columns query, image, negative_0 ... negative_3.
    Of ``train`` only the positive and the first negative are fetched. A row whose page does not open is dropped and counted. Raises
    ``ValueError`` where the profile has no such dataset or a column is missing.
    """
    folder, name = folder or profile.output_dir / "data", name or profile.preprocessed_name
    if not name:
        raise ValueError(f"profile {profile.name!r} has no preprocessed dataset: run notebook 02 instead")
    processor = AutoProcessor.from_pretrained(profile.base_model, revision=profile.model_revision, **profile.processor_kwargs)
    dirt, chosen = Counter(), {}
    for split, count in (("train", profile.train_rows), ("eval", profile.eval_rows)):
        source = open_source(name, split)
        columns = ("image", *(f"negative_{i}" for i in range(SPLIT_NEGATIVES[split])))
        check_columns(source, ("query", *columns))
        queries = list(source.read_columns(("query",))["query"])[:count]
        stores = [open_store(folder, source, processor, column) for column in columns]
        for column, store in zip(columns, stores, strict=True):
            fetch_pages(source, range(len(queries)), store, processor, column)
        rows = [(query, [store.path(i) for store in stores]) for i, query in enumerate(queries)]
        chosen[split] = [(query, pages) for query, pages in rows if query and None not in pages]
        dirt[f"{split} row without a query or with a page that does not open"] += len(rows) - len(chosen[split])
    named = replace(profile, dataset_name=name, dataset_config="train and eval", dataset_revision=None, dataset_folder=None)
    if Path(name).is_dir():
        named = replace(named, dataset_name=f"local folder {Path(name).name}", dataset_folder=name)
    save_splits(
        build_splits(chosen), folder, publisher_settings(profile, named) | {"resolved": resolved_revisions(named)["dataset"]}
    )
    return +dirt


def main(arguments: list[str] | None = None) -> None:
    """Prepare the profile's data from a dataset that is split already."""
    parser = argparse.ArgumentParser(prog="python -m tools.prepare", description=main.__doc__)
    parser.add_argument("name", nargs="?", help="a hub id or a folder; the profile's own if left out")
    profile = load_profile()
    for kind, count in prepare_preprocessed(profile, parser.parse_args(arguments).name).most_common():
        print(f"{count:>6}  {kind}")
    save_results(profile, "run", {"revisions": used_revisions(profile)})
    print(f"train, eval and full are in {profile.output_dir.name}/data under your outputs folder")


if __name__ == "__main__":
    main()
