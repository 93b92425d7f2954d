"""The splits ``train``, ``eval`` and ``full``: what notebook 02 builds and saves, and how the later notebooks get them.

Which rows are chosen is notebook 02's own code. ``assets/tiny_split.json`` keeps the rows that it chose on ``tiny``, so that a reader
who opens a later notebook first gets the same splits; ``python -m tools.tiny_split`` writes it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vdr_helpers import stamps
from vdr_helpers.pages import PageStore, fetch_pages
from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.source import Source, open_source, source_path

SPLIT_NEGATIVES = {"train": 1, "eval": 4, "full": 4}  # hard negatives per row of each split, as published


def open_store(folder: Path, source: Source, processor, column: str = "image") -> PageStore:
    """The page store of this column at this page size, under ``folder``; another source, size or column gets another store."""
    settings = processor.image_processor
    size = [settings.size["shortest_edge"], settings.size["longest_edge"], settings.patch_size, settings.merge_size]
    files = [[shard.rsplit("/", 1)[-1], footer.to_dict()] for shard, footer in zip(source.shards, source.footers, strict=True)]
    key = hashlib.sha256(json.dumps([files, size, [column]], default=str).encode()).hexdigest()[:10]
    return PageStore(folder / f"pages-{key}")


def build_splits(rows: dict[str, list[tuple[str, list]]]) -> dict:
    """``{"train": Dataset, "eval": ..., "full": ...}`` with columns query, image, negative_0, ..., as notebook 02 builds them.

    ``rows``: for ``train`` and ``eval``, each row's query and its PNG files, the positive's first; a file that is missing is ``None``.
    """
    from datasets import Dataset, Features, Image, Value

    splits = {}
    for split, chosen in {**rows, "full": rows["train"] + rows["eval"]}.items():
        columns: dict[str, list] = {"query": [query for query, _ in chosen]}
        for i, name in enumerate(["image", *(f"negative_{i}" for i in range(SPLIT_NEGATIVES[split]))]):
            columns[name] = [files[i] if i < len(files) else None for _, files in chosen]
        features = Features({name: Value("string") if name == "query" else Image() for name in columns})
        splits[split] = Dataset.from_dict(columns, features=features)
    return splits


def save_splits(splits: dict, folder: Path, settings: dict) -> None:
    """Save ``{"train": Dataset, "eval": ..., "full": ...}`` under ``folder`` (notebook 02), each whole or not at all.

    ``settings``: what they were made from; the note of it goes first and is written last, so that half a change never looks whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / stamps.STAMP).unlink(missing_ok=True)
    for name, split in splits.items():
        with stamps.whole_folder(folder / name) as partial:
            split.save_to_disk(str(partial))
    stamps.write_stamp(folder, settings)


def load_prepared(profile: Profile, split: str):
    """``(dataset, where it came from)``: ``train``, ``eval`` or ``full`` as notebook 02 saved them.

    Where there are none that fit, ``tiny`` as it is shipped gets them from the stored choice of rows (a minute). Else
    ``FileNotFoundError`` when there are none, and ``ValueError`` that names the differences or the damage when there are; ``ValueError``
    for another split.
    """
    from datasets import load_from_disk

    if split not in SPLIT_NEGATIVES:
        raise ValueError(f"split must be 'train', 'eval' or 'full', not {split!r}")
    folder, problem = profile.output_dir / "data", None
    if (folder / split).exists():
        stamp = stamps.read_stamp(folder)
        problem = "; ".join(stamps.data_differences(stamp, profile))
        if not problem:
            by_publisher = stamp["split"] == stamps.BY_PUBLISHER
            origin = f"{stamp['dataset']['name']}, as its publisher split it" if by_publisher else "your own notebook 02"
            try:
                return load_from_disk(str(folder / split)), origin
            except Exception as error:  # for each kind of damage another one, of datasets or pyarrow; few name the file
                problem = f"{split} is damaged, {type(error).__name__}"
    if chosen := stored_choice(profile):
        build_chosen(profile, chosen)
        because = f"because what was there did not fit: {problem}" if problem else "you have not run notebook 02"
        return load_from_disk(str(folder / split)), f"the rows that notebook 02 chooses, read now ({because})"
    if problem:
        raise ValueError(
            f"the data in outputs/{profile.name}/data cannot be used ({problem}): run notebooks/02_dataset.ipynb again, put the "
            "settings back, or set VDR_OUTPUTS to another folder, and restart the kernel"
        )
    raise FileNotFoundError(
        f"no prepared data for profile {profile.name!r}: run notebooks/02_dataset.ipynb with it first, or, for the dataset that "
        "others split, python -m tools.prepare in a clone"
    )


def stored_choice(profile: Profile) -> dict | None:
    """``{"train": [[row, its negatives...]], "eval": ...}`` in source row numbers, if the profile asks for what was stored; else ``None``."""
    stored = json.loads((assets_folder() / "tiny_split.json").read_text(encoding="utf-8"))
    return None if profile.corpus or stamps.differences(stamps.data_settings(profile), stored["made_from"]) else stored["rows"]


def build_chosen(profile: Profile, chosen: dict[str, list[list[int]]]) -> None:
    """Fetch the pages of these rows and save the splits, in the last steps of notebook 02."""
    from transformers import AutoProcessor

    source = open_source(source_path(profile), profile.dataset_config, profile.dataset_revision)
    queries = source.read_columns(["query"])["query"][:]
    processor = AutoProcessor.from_pretrained(profile.base_model, revision=profile.model_revision, **profile.processor_kwargs)
    store = open_store(profile.output_dir / "data", source, processor)
    fetch_pages(source, {number for rows in chosen.values() for row in rows for number in row}, store, processor)
    rows = {name: [(queries[row[0]], [store.path(number) for number in row]) for row in some] for name, some in chosen.items()}
    made_from = stamps.data_settings(profile) | {"resolved": stamps.resolved_revisions(profile)["dataset"]}
    save_splits(build_splits(rows), profile.output_dir / "data", made_from)


def chosen_rows(profile: Profile, split: str) -> list[list[int]] | None:
    """``[[row, its negatives...], ...]`` of ``train`` or ``eval`` in source row numbers, as notebook 02 noted them (``results/rows.json``).

    Else the shipped choice of ``tiny``; ``None`` for a split by its publisher, or where nobody noted them.
    """
    if (stamps.read_stamp(profile.output_dir / "data") or {}).get("split") == stamps.BY_PUBLISHER:
        return None
    # Where it is not there, on tiny the shipped choice is the same.
    noted = stamps.read_json(profile.output_dir / "results" / "rows.json")
    if noted and not stamps.differences(noted["made_from"]["data"], stamps.data_settings(profile)):
        return noted[split]
    return (stored_choice(profile) or {}).get(split)
