"""Splits."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from vdr_helpers import dataset as steps
from vdr_helpers.evaluation import save_results
from vdr_helpers.pages import PageStore, fetch_pages
from vdr_helpers.profiles import Profile, load_profile, resolved_revisions
from vdr_helpers.source import Source, open_source
from vdr_helpers.stamps import (
    BY_PUBLISHER,
    STAMP,
    data_differences,
    data_settings,
    publisher_settings,
    read_stamp,
    used_revisions,
    write_stamp,
)

SOURCE_COLUMNS = ("id", "query", "image", "negatives", "language")


def source_path(profile: Profile) -> str:
    """What ``load_dataset`` is given: the hub id, or the folder of the generated source, built on first use (a minute)."""
    if profile.dataset_folder or profile.dataset_name != "generated":
        return profile.dataset_folder or profile.dataset_name
    from tiny_vdr.corpus import VERSION, build_source

    # The version is in the folder's name because load_dataset caches by name: a corpus drawn anew must not meet an old cache.
    return str(build_source(profile.output_dir / f"source-v{VERSION}"))


def check_columns(dataset, expected: tuple[str, ...] = SOURCE_COLUMNS) -> None:
    """Raise ``ValueError`` naming the columns that are missing; a dataset with other names would fail much later otherwise."""
    missing = [name for name in expected if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"the dataset has no column {', '.join(missing)}; it has {', '.join(dataset.column_names)}. "
            "Rename yours with dataset.rename_column(old, new)."
        )


def statistics(dataset, processor) -> list[dict]:
    """Min, mean and max of tokens (text columns) and pixels (image columns), as the published card tables them.

    Tokens are those that the model receives for a query, with the chat template around it (notebook 01).
    """

    def tokens(text: str) -> int:
        turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        return len(
            processor.apply_chat_template(turn, tokenize=True, add_generation_prompt=True, return_dict=True)["input_ids"][0]
        )

    table = []
    for name in dataset.column_names:
        values = list(dataset[name])
        if isinstance(values[0], str):
            counts = [tokens(text) for text in values]
            cells = [f"{min(counts)} tokens", f"{sum(counts) / len(counts):.1f} tokens", f"{max(counts)} tokens"]
        else:
            sizes = sorted((image.size for image in values if image is not None), key=lambda size: size[0] * size[1])
            mean = [round(sum(size[axis] for size in sizes) / len(sizes)) for axis in (0, 1)]
            cells = ["{}x{} px".format(*size) for size in (sizes[0], mean, sizes[-1])]
        table.append(
            {"column": name, "type": "string" if isinstance(values[0], str) else "image"}
            | dict(zip(("min", "mean", "max"), cells, strict=True))
        )
    return table


def load_prepared(profile: Profile, split: str):
    """``train``, ``eval`` or ``full`` as notebook 02 saved them; where they are missing, made with other settings or damaged, its steps
    run here (tiny: a minute).

    Returns ``(dataset, where it came from)``. Raises ``ValueError`` for another split. On a profile whose data would have to be fetched
    from the hub nothing is made here, because that is long and is started on purpose: ``FileNotFoundError`` when there are none,
    ``ValueError`` that names the differences or the damage when there are.
    """
    from datasets import load_from_disk

    if split not in ("train", "eval", "full"):
        raise ValueError(f"split must be 'train', 'eval' or 'full', not {split!r}")
    folder, problem = profile.output_dir / "data", None
    if (folder / split).exists():
        stamp = read_stamp(folder)
        problem = "; ".join(data_differences(stamp, profile))
        try:
            kept = None if problem else load_from_disk(str(folder / split))
        except Exception as error:  # datasets and pyarrow have an error of their own for each kind of damage, few name the file
            problem = f"{split} is damaged, {type(error).__name__}"
        else:
            if kept is not None:
                by_publisher = stamp["split"] == BY_PUBLISHER
                return kept, f"{stamp['dataset']['name']}, as its publisher split it" if by_publisher else "your own notebook 02"
    if profile.dataset_name != "generated" and not profile.dataset_folder:
        if problem:
            raise ValueError(
                f"the data in outputs/{profile.name}/data cannot be used ({problem}): run notebooks/02_dataset.ipynb again, put the "
                "settings back, or set VDR_OUTPUTS to another folder, and restart the kernel"
            )
        raise FileNotFoundError(
            f"no prepared data for profile {profile.name!r}: run notebooks/02_dataset.ipynb with it first, or fetch the split "
            "that others prepared: python -m vdr_helpers.prepare --preprocessed"
        )
    prepare(profile, folder)
    origin = "prepared now, in the steps of notebook 02"
    return load_from_disk(str(folder / split)), origin + (f", because what was there did not fit: {problem}" if problem else "")


def save_whole(dataset, folder: Path) -> None:
    """``save_to_disk`` beside the target, then move: a killed kernel never leaves half a dataset under the final name.

    The note of what the splits beside it were made from goes first (``write_stamp`` writes it last): half a change is no whole one.
    """
    import shutil

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    dataset.save_to_disk(str(partial))
    folder.with_name(STAMP).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


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


NEGATIVES_PER_EVAL_ROW = 4  # published: 300 queries x (1 positive + 4 hard negatives) = 1,500 pages


class Fetched(dict):
    """Fingerprints of fetched pages. A page not fetched yet counts as good and unlike all others, and is noted in ``unknown``.

    So the rows can be chosen before a page is read: choose, fetch ``unknown``, choose again, until nothing is unknown. The last
    choice is the one that all fingerprints would give, because it looked at no page that is not known.
    """

    def __init__(self, fingerprints: dict[int, str | None]) -> None:
        super().__init__(fingerprints)
        self.unknown: set[int] = set()

    def __missing__(self, number: int) -> str:
        self.unknown.add(number)
        return f"page {number}, not fetched yet"


def choose_negatives(
    row: dict, row_of_id: dict[str, int], fingerprints: list, count: int, taken: set, dirt: Counter
) -> list[int]:
    """The first ``count`` usable hard negatives of a row, as row numbers of the source, in its order.

    Skipped and counted in ``dirt``: ids that resolve to nothing, images that do not open, a copy of the row's own page (it would be
    punished for being right), and pages whose fingerprint is in ``taken``. May return fewer than ``count``.
    """
    own = fingerprints[row_of_id[row["id"]]]
    chosen, seen = [], {own}
    for negative_id in row["negatives"] or ():  # the last rows of the real source have none
        if len(chosen) == count:
            break
        number = row_of_id.get(negative_id)
        fingerprint = None if number is None else fingerprints[number]
        if number is None:
            dirt["negative id resolves to nothing"] += 1
        elif fingerprint is None:
            dirt["negative image does not open"] += 1
        elif fingerprint == own:
            dirt["negative is a copy of its own positive"] += 1
        elif fingerprint in taken:
            dirt["page already used (train or another eval row)"] += 1
        elif fingerprint not in seen:
            chosen.append(number)
            seen.add(fingerprint)
    return chosen


def choose_rows(
    rows,
    fingerprints,
    train_rows: int,
    eval_rows: int,
    dirt: Counter,
    negatives_per_train_row: int = 4,
    distinct_eval_pages: bool = True,
) -> tuple[list[dict], list[dict]]:
    """Split like the published dataset: the first ``train_rows`` usable rows with a query, then the next ``eval_rows``.

    ``rows``: the source without its image column; ``fingerprints``: one per row, ``None`` where the image does not open (a list, or
    :class:`Fetched`). Each chosen row is ``{"number": source row, "negatives": [source rows]}``. With ``distinct_eval_pages`` an
    eval row is dropped when a page of it is in train or in another eval row, so that ``eval_rows`` queries make ``5 * eval_rows``
    distinct pages; without, it is kept and counted, as published. Raises ``ValueError`` when the source is too small.
    """
    row_of_id = {row_id: number for number, row_id in enumerate(rows["id"])}
    train, evaluation, taken = [], [], set()
    for number, row in enumerate(rows):
        if not row["query"]:
            dirt["row without a query (kept as a page)"] += 1
        elif row["language"] != "en":
            dirt["row in another language"] += 1
        elif len(train) == train_rows and len(evaluation) == eval_rows:
            continue
        elif fingerprints[number] is None:
            dirt["positive image does not open"] += 1
        elif len(train) < train_rows:
            negatives = choose_negatives(row, row_of_id, fingerprints, negatives_per_train_row, set(), dirt)
            if negatives:
                train.append({"number": number, "negatives": negatives})
                taken |= {fingerprints[number], fingerprints[negatives[0]]}
            else:
                dirt["row without a usable negative"] += 1
        else:
            avoided = taken if distinct_eval_pages else set()
            negatives = choose_negatives(row, row_of_id, fingerprints, NEGATIVES_PER_EVAL_ROW, avoided, dirt)
            pages = {fingerprints[number], *(fingerprints[negative] for negative in negatives)}
            if len(negatives) < NEGATIVES_PER_EVAL_ROW or fingerprints[number] in avoided:
                dirt["eval row dropped: a page of it is in train" if distinct_eval_pages else "eval row with too few pages"] += 1
                continue
            if pages & taken:
                dirt["eval row that shares a page with train or another eval row (kept, as published)"] += 1
            evaluation.append({"number": number, "negatives": negatives})
            taken |= pages
    if len(train) < train_rows or len(evaluation) < eval_rows:
        raise ValueError(
            f"the source has {len(train)} clean train rows and {len(evaluation)} clean eval rows, but the profile asks for "
            f"{train_rows} and {eval_rows}: lower train_rows or eval_rows, or give a larger source"
        )
    return train, evaluation
