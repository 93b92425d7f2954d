"""The splits ``train``, ``eval`` and ``full``: small tables of queries and page files, made by
notebook 02 and read by later ones.

``assets/tiny_split.json`` keeps the rows that notebook 02 chooses on ``tiny``, so that a reader who
opens a later notebook first gets the same splits; ``python -m tools.tiny_split`` writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from vdr_helpers.cache import (
    MANIFEST,
    atomic_write,
    damage,
    make_folder,
    read_manifest,
    replace_folder,
    settings_key,
    stage_folder,
)
from vdr_helpers.pages import PageStore, fetch_pages
from vdr_helpers.profiles import MIN_PIXELS, Profile, assets_folder
from vdr_helpers.source import Source, corpus_settings, is_text, open_source

# hard negatives per row of each split, as published
SPLIT_NEGATIVES = {"train": 1, "eval": 4, "full": 4}
PUBLISHED = "published"  # profile.split of a dataset that its publisher split
# bytes at the end of a parquet file: where each column lies, how long it is, its extremes
FOOTER = 2**16
# What decides which rows are chosen; the stored choice belongs to these.
CHOICE = ("dataset", "train_rows", "eval_rows", "negatives_per_train_row", "distinct_eval_pages")


def group_by_query(queries: Iterable[str]) -> dict[str, list[int]]:
    """``{query: its rows}``; a query that stands in several rows has several right pages."""
    found: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        found.setdefault(query, []).append(number)
    return found


def choose_rows(
    profile: Profile, rows, row_of_id: dict, asked: list[int], why_refused, fingerprint_of
) -> tuple[list[list[int]], list[list[int]], Counter]:
    """``(train, eval, noise)``: the first usable rows of ``asked`` for training and the next ones
    for evaluation, each as ``[row, its hard negatives...]``, and a count of what was refused.

    ``row_of_id``: the row of each id. ``asked``: the rows with a query, in order.
    ``why_refused(page, own, right, avoided)`` is that of notebook 02; ``fingerprint_of(number)``: a
    page's fingerprint, ``None`` where it does not open. Raises ``ValueError`` where no row has a
    query, or too few are usable.
    """
    if not asked:
        languages = sorted(map(str, set(rows["language"])))
        raise ValueError(f"found no query in English, but in {languages[:5]}")
    rows_of_query = group_by_query(rows["query"])
    used: set[str] = set()  # the pages of the chosen rows
    candidates, noise = iter(asked), Counter()  # eval goes on where train stops

    def usable(split: str, avoided: set[str], noted: int, needed: int) -> Iterator[list[int]]:
        """The next usable rows; up to ``noted`` negatives are kept, ``needed`` must be there."""
        for number in candidates:
            row = rows[number]
            if not is_text(row["query"]):
                noise["query is blank, an address or a file"] += 1
                continue
            own = fingerprint_of(number)
            if own is None:
                noise["positive image does not open"] += 1
                continue
            right = {fingerprint_of(other) for other in rows_of_query[row["query"]]} - {None}
            listed = [row_of_id.get(negative) for negative in row["negatives"] or ()]
            refusal = partial(why_refused, own=own, right=right, avoided=avoided)
            negatives = choose_negatives(listed, refusal, fingerprint_of, noted, noise)
            if right & avoided or len(negatives) < needed:
                noise[f"{split} row dropped: not enough usable pages"] += 1
                continue
            used.update(right, map(fingerprint_of, negatives[:needed]))
            yield [number, *negatives]

    # the split `full` holds up to four negatives of each row
    of_train = usable("train", set(), profile.negatives_per_train_row, 1)
    of_eval = usable("eval", used if profile.distinct_eval_pages else set(), 4, 4)
    train = first_rows(of_train, profile.train_rows, "train")
    return train, first_rows(of_eval, profile.eval_rows, "eval"), noise


def choose_negatives(
    listed: list[int | None], refusal, fingerprint_of, count: int, noise: Counter
) -> list[int]:
    """The first ``count`` of the ``listed`` rows whose pages can be hard negatives, each page once.

    ``listed``: ``None`` for an id that resolves to nothing. ``refusal(page)``: why a page cannot be
    one, else ``None``; what is refused is counted in ``noise``.
    """
    chosen: dict[str, int] = {}  # fingerprint to row
    for number in listed:
        page = None if number is None else fingerprint_of(number)
        reason = "negative id resolves to nothing" if number is None else refusal(page)
        if reason:
            noise[reason] += 1
        else:
            chosen.setdefault(page, number)
        if len(chosen) == count:
            break
    return list(chosen.values())


def first_rows(usable: Iterator[list[int]], count: int, split: str) -> list[list[int]]:
    """The first ``count`` rows; ``ValueError`` if there are fewer."""
    chosen = list(islice(usable, count))
    if len(chosen) < count:
        found = f"found {len(chosen)} usable {split} rows, expected {count}"
        raise ValueError(f"{found}: ask for fewer, such as VDR_ROWS=1000:100")
    return chosen


def page_store(profile: Profile, source: Source, processor, column: str = "image") -> PageStore:
    """The pages of this source's column at this size; another source, size or column has another
    folder.
    """
    image = processor.image_processor
    settings = {
        "files": settings_key(
            {"footers": [shard_identity(source, i) for i in range(len(source.shards))]}
        ),
        "pixels": {"smallest": image.size["shortest_edge"], "largest": image.size["longest_edge"]},
        "patch": [image.patch_size, image.merge_size],
        "column": column,
    }
    folder = stage_folder(profile.output_dir, "pages", settings)
    if read_manifest(folder) is None:
        make_folder(folder)
        manifest = json.dumps({"settings": settings, "files": {}}, indent=1) + "\n"
        atomic_write(folder / MANIFEST, manifest)
    return PageStore(folder)


def shard_identity(source: Source, shard: int) -> list:
    """A parquet file's name and footer, which says where every column lies, how long it is, and its
    extremes.
    """
    return [source.shards[shard].rsplit("/", 1)[-1], source.footers[shard].to_dict()]


def dataset_settings(profile: Profile) -> dict:
    """Which source: its name, config and revision; for a folder of yours, a hash of its files'
    names, sizes and footers.
    """
    settings = {
        "name": profile.dataset_name,
        "config": profile.dataset_config,
        "revision": profile.dataset_revision,
    }
    if profile.dataset_folder:
        settings["files"] = folder_hash(Path(profile.dataset_folder))
    elif profile.corpus is not None:
        settings |= corpus_settings(profile)
    return settings


def folder_hash(folder: Path) -> str:
    """16 digits for the parquet files of a folder: their names, sizes and footers."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - FOOTER))
            digest.update(f"{path.relative_to(folder).as_posix()} {size}".encode() + file.read())
    return digest.hexdigest()[:16]


def split_settings(profile: Profile) -> dict:
    """What decides the splits: the source, how many rows, which negatives, and the size that pages
    are presized to.
    """
    settings = {"dataset": dataset_settings(profile), "split": profile.split}
    settings |= {name: getattr(profile, name) for name in CHOICE[1:]}
    settings["pixels"] = {"smallest": MIN_PIXELS, "largest": profile.max_pixels}
    settings["processor"] = {"name": profile.model_name, "revision": profile.model_revision}
    return settings


def splits_folder(profile: Profile) -> Path:
    """Where the splits of these settings are kept, whether they are there or not."""
    return stage_folder(profile.output_dir, "splits", split_settings(profile))


def save_splits(
    profile: Profile, splits: dict, rows: dict | None = None, dataset: dict | None = None
) -> Path:
    """Keep ``{"train": Dataset, "eval": ..., "full": ...}`` as tables of queries and page files
    (notebook 02); returns their folder.

    ``rows``: ``{"train": [[source row, its negatives' rows...]], "eval": ...}``, kept beside them;
    ``dataset``: its name and commit for the model card, :func:`resolve_revision`'s if left out.
    Raises ``ValueError`` for an empty split, and for a query that is blank, an address or a file.
    """
    for name, split in splits.items():
        check_queries(name, list(split["query"]))

    def relative(name: str, value: str | None) -> str | None:
        if name == "query" or value is None:
            return value
        return Path(value).relative_to(profile.output_dir).as_posix()

    def write(folder: Path) -> None:
        for name, split in splits.items():
            rows_here = ({key: relative(key, value) for key, value in row.items()} for row in split)
            lines = [json.dumps(row, ensure_ascii=False) for row in rows_here]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if rows:
            (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")

    notes = {"dataset": dataset or resolve_revision(profile, "dataset")}
    return replace_folder(splits_folder(profile), split_settings(profile), write, notes)


def check_queries(split: str, queries: list[str]) -> None:
    """Raise ``ValueError`` where a split is empty or a query would be opened as an image."""
    if not queries:
        raise ValueError(f"{split} is empty: no row of the dataset can be used for it")
    for number, query in enumerate(queries):
        if not is_text(query):
            raise ValueError(
                f"row {number} of {split} has {query!r} as its query: blank, an address or a file. "
                "Leave such rows out, the library would open an address or a file as an image"
            )


def load_split(profile: Profile, split: str):
    """``(dataset, where it came from)``: ``train``, ``eval`` or ``full`` with columns query, image,
    negative_0 ...

    Pages are paths of PNG files, ``None`` where a row of ``full`` has fewer negatives. Where the
    splits of these settings are not there, ``tiny`` as it is shipped gets them from the stored
    choice of rows (a minute). Else raises ``FileNotFoundError`` when there are none, ``ValueError``
    that names what is damaged, and ``ValueError`` for another split.
    """
    if split not in SPLIT_NEGATIVES:
        raise ValueError(f"split must be 'train', 'eval' or 'full', not {split!r}")
    folder = splits_folder(profile)
    if not folder.exists():
        problem = "there are none"
    else:
        problem = damage(folder) or missing_pages(profile, folder)
        if not problem:
            return read_split(profile, folder, split), origin_of(profile, folder)
    if chosen := stored_choice(profile):
        build_chosen(profile, chosen)
        because = (
            "you have not run notebook 02"
            if problem == "there are none"
            else f"what was there is damaged: {problem}"
        )
        return read_split(
            profile, folder, split
        ), f"the rows that notebook 02 chooses, read now (because {because})"
    if problem == "there are none":
        raise FileNotFoundError(no_splits(profile))
    raise ValueError(
        f"{folder.name} cannot be used ({problem}): run notebooks/02_dataset.ipynb again, it fetches only what is missing"
    )


def write_files(profile: Profile) -> tuple[str, str]:
    """Write all rows of train and the first ``profile.monitor_rows`` of eval as files of JSON lines
    for ``load_dataset("json", ...)``; returns their paths (notebook 03).

    Each row has a query and the paths of its pages.
    """
    train_file, eval_file = (
        str(profile.output_dir / f"experiment-{split}.jsonl") for split in ("train", "eval")
    )
    load_split(profile, "train")[0].to_json(train_file)
    load_split(profile, "eval")[0].select(range(profile.monitor_rows)).to_json(eval_file)
    return train_file, eval_file


def no_splits(profile: Profile) -> str:
    """What to do where there are no splits of these settings."""
    if profile.split == PUBLISHED:
        return f"no published split was fetched for profile {profile.name!r}: run python -m tools.prepare in a clone first"
    others = len(list(profile.output_dir.glob("splits-*")))
    found = f" ({others} of other settings found)" if others else ""
    return f"no splits with these settings for profile {profile.name!r}{found}: run notebooks/02_dataset.ipynb with it first"


def read_split(profile: Profile, folder: Path, split: str):
    """One table as a ``datasets.Dataset`` whose pages are absolute paths."""
    from datasets import Dataset, Features, Value

    rows = read_table(folder, split)
    names = ["query", "image", *(f"negative_{i}" for i in range(SPLIT_NEGATIVES[split]))]
    columns = {"query": [row["query"] for row in rows]}
    for name in names[1:]:
        columns[name] = [row[name] and str(profile.output_dir / row[name]) for row in rows]
    return Dataset.from_dict(columns, features=Features({name: Value("string") for name in names}))


def read_table(folder: Path, split: str) -> list[dict]:
    """The rows of one table as they are kept: a query, and page files relative to the outputs.

    Raises ``ValueError`` that names the table where it is not what was written.
    """
    file = folder / f"{split}.jsonl"
    try:
        # str.splitlines would also cut at U+2028 and U+0085, which a query can hold.
        lines = file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise ValueError(
            f"{folder.name}/{file.name} is damaged ({error}): delete {folder.name} and run notebooks/02_dataset.ipynb again"
        ) from error


def page_files(folder: Path) -> set[str]:
    """The page files that the splits in ``folder`` name, relative to the profile's outputs."""
    files = set()
    for row in read_table(folder, "full"):
        files |= {page for name, page in row.items() if name != "query" and page}
    return files


def pages_folders(folder: Path) -> set[str]:
    """The names of the folders in which the pages of the splits in ``folder`` lie."""
    return {str(Path(page).parent) for page in page_files(folder)}


def missing_pages(profile: Profile, folder: Path) -> str:
    """Which of the splits' pages are gone or damaged, such as ``2 of 340 pages are damaged or
    gone``; else ``""``.
    """
    wanted, there = page_files(folder), set()
    for name in pages_folders(folder):
        there |= {f"{name}/{page}.png" for page in PageStore(profile.output_dir / name).sizes}
    gone = wanted - there
    return f"{len(gone)} of {len(wanted)} pages are damaged or gone" if gone else ""


def origin_of(profile: Profile, folder: Path) -> str:
    """Where the splits in ``folder`` came from, as the later notebooks print it."""
    if profile.split == PUBLISHED:
        return f"{read_manifest(folder)['dataset']['name']}, as its publisher split it"
    return "your own notebook 02"


def stored_choice(profile: Profile) -> dict | None:
    """``{"train": [[source row, its negatives' rows...]], "eval": ...}`` as shipped, if the profile
    asks for what was stored.
    """
    if profile.corpus or profile.split == PUBLISHED:
        return None
    stored = json.loads((assets_folder() / "tiny_split.json").read_text(encoding="utf-8"))
    asked = {name: split_settings(profile)[name] for name in CHOICE}
    return stored["rows"] if settings_key(asked) == settings_key(stored["made_from"]) else None


def build_chosen(profile: Profile, chosen: dict[str, list[list[int]]]) -> None:
    """Fetch the pages of these rows and save the splits, in the last steps of notebook 02."""
    from transformers import AutoProcessor

    source = open_source(profile)
    queries = source.read_columns(["query"])["query"][:]
    processor = AutoProcessor.from_pretrained(
        profile.base_model, revision=profile.model_revision, **profile.processor_kwargs
    )
    store = page_store(profile, source, processor)
    fetch_pages(
        source,
        {number for rows in chosen.values() for row in rows for number in row},
        store,
        processor,
    )
    rows = {}
    for name, some in chosen.items():
        rows[name] = [(queries[row[0]], [store.path(number) for number in row]) for row in some]
    save_splits(profile, build_splits(rows), chosen)


def build_splits(rows: dict[str, list[tuple[str, list]]]) -> dict:
    """``{"train": Dataset, "eval": ..., "full": ...}`` with columns query, image, negative_0, ...,
    as notebook 02 builds them.

    ``rows``: for ``train`` and ``eval``, each row's query and its page files, the positive's first.
    """
    from datasets import Dataset

    splits = {}
    for split, chosen in {**rows, "full": rows["train"] + rows["eval"]}.items():
        columns: dict[str, list] = {"query": [query for query, _ in chosen]}
        for i, name in enumerate(
            ["image", *(f"negative_{i}" for i in range(SPLIT_NEGATIVES[split]))]
        ):
            columns[name] = [files[i] if i < len(files) else None for _, files in chosen]
        splits[split] = Dataset.from_dict(columns)
    return splits


def chosen_rows(profile: Profile, split: str) -> list[list[int]] | None:
    """``[[source row, its negatives' rows...], ...]`` of ``train`` or ``eval``, as notebook 02
    chose them.

    ``None`` for a split by its publisher, and where nobody noted them.
    """
    noted = splits_folder(profile) / "rows.json"
    if noted.exists():
        return json.loads(noted.read_text(encoding="utf-8"))[split]
    return (stored_choice(profile) or {}).get(split)


def resolve_revision(profile: Profile, role: str) -> dict[str, str]:
    """``{"name", "revision"}`` of the profile's ``model`` or ``dataset``: the commit on the hub, or
    where it comes from.

    Never raises: where the hub cannot be asked, ``revision`` says so.
    """
    from huggingface_hub import HfApi

    name, revision = getattr(profile, f"{role}_name"), getattr(profile, f"{role}_revision")
    if role == "model" and profile.random_weights:
        found = "random weights"
    elif getattr(profile, f"{role}_folder"):
        found = "local folder"
    elif name.startswith("assets/"):
        found = "shipped with the course"
    elif role == "dataset" and profile.corpus is not None:
        found = "generated by the course"
    elif re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        found = revision
    else:
        try:
            found = HfApi().repo_info(name, repo_type=role, revision=revision).sha
        except (
            Exception
        ) as error:  # no network, no such repository, offline mode: each library has its own class
            found = f"{revision or 'default branch'} (not resolved: {type(error).__name__})"
    return {"name": name, "revision": found}
