"""Files, folders and vector stores that are whole or not there, and notes of what each was made from (notebooks 02 to 10).

Of the libraries at hand none keeps both: ``datasets`` fingerprints the calls that made a table, not the settings of a reader, and
``huggingface_hub`` knows the commit of what it fetched only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vdr_helpers.profiles import MIN_PIXELS, Profile

STAMP = "made_from.json"
BY_PUBLISHER = "by its publisher"  # instead of by the steps of notebook 02
OF_THE_SPLIT = (
    "dataset",
    "split",
    "negatives_per_train_row",
    "distinct_eval_pages",
)  # a publisher's split has its own
FOOTER = (
    2**16
)  # bytes at the end of a parquet file that are hashed: where each column lies, how long it is, its extremes
# An idle client's pings end in a complaint.
QUIET = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": 0}
CORPUS_VERSION = 8  # of tiny_vdr.corpus; a test holds the two together


def write_whole(file: Path, content: bytes | str) -> None:
    """Write beside the target, then rename: a killed process leaves the old file or the new one, never half. Text is UTF-8."""
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    partial.replace(file)


@contextmanager
def whole_folder(folder: Path, made_from: dict | None = None) -> Iterator[Path]:
    """A new folder beside ``folder`` to write into; it takes the name at the end, in place of what was there, or is left and unused.

    ``made_from``: settings to note in it, with the size of every file, for :func:`damaged_files`.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if made_from is not None:
        write_stamp(partial, made_from | {"files": file_sizes(partial)})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def file_sizes(folder: Path) -> dict[str, int]:
    """The bytes of every file in ``folder`` but its note, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STAMP)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def damaged_files(folder: Path) -> list[str]:
    """The files that do not have the size in the folder's note, or are gone; none where the note gives no sizes."""
    sizes = file_sizes(folder)
    return [
        name
        for name, size in (read_stamp(folder) or {}).get("files", {}).items()
        if sizes.get(name) != size
    ]


def make_once(folder: Path, settings: dict, make: Callable[[Path], object]) -> None:
    """Have ``make(a new folder)`` fill ``folder``, unless it was filled with these settings and every file of it is whole."""
    found = {name: value for name, value in (read_stamp(folder) or {}).items() if name != "files"}
    if found == settings and not damaged_files(folder):
        return
    if folder.exists():
        print(f"{folder.name} is damaged or was made with other settings: it is made anew")
    with whole_folder(folder, settings) as partial:
        make(partial)


def write_stamp(folder: Path, settings: dict) -> None:
    """Keep ``settings`` in ``folder``, whole or not at all."""
    write_whole(Path(folder) / STAMP, json.dumps(settings, indent=1, default=str) + "\n")


def read_json(file: Path) -> dict | None:
    """A JSON file's dictionary, or ``None`` where there is none or it cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_stamp(folder: str | Path) -> dict | None:
    """The settings that :func:`write_stamp` kept, or ``None`` where there are none or they cannot be read."""
    return read_json(Path(folder) / STAMP)


def differences(found: dict | None, wanted: dict, before: str = "") -> list[str]:
    """``["train_rows: 96 there, 2048 asked for"]``, nested keys dotted; what only ``found`` has is no difference. No note at all is one."""
    if found is None:
        return ["there is no note of what it was made from"]
    there, asked, said = (
        *(json.loads(json.dumps(settings, default=str)) for settings in (found, wanted)),
        [],
    )
    for key, value in asked.items():
        if isinstance(value, dict):
            inner = there.get(key)
            said += differences(inner if isinstance(inner, dict) else {}, value, f"{before}{key}.")
        elif there.get(key) != value:
            said.append(f"{before}{key}: {there.get(key, 'nothing')} there, {value} asked for")
    return said


def model_key(folder: str | Path) -> str:
    """A short key of a saved model's weights and settings; read in pieces, whatever the size of the weights.

    ``folder``: a folder, or the id of a model on the hub, which counts by its name.
    """
    there = Path(folder).is_dir()
    digest = hashlib.sha256(b"" if there else str(folder).encode())
    for path in sorted(Path(folder).rglob("*")) if there else ():
        name = path.relative_to(folder).as_posix()
        if (
            path.suffix in (".safetensors", ".json", ".jinja")
            and "checkpoint" not in name
            and path.name != STAMP
        ):
            with path.open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def resolved_revisions(profile: Profile) -> dict[str, dict[str, str]]:
    """``{"model": {"name", "revision"}, "dataset": {...}}``: the commit on the hub that each stands for now, or where it comes from.

    Never raises: a record with a gap, which says that the hub could not be asked, is better than a run that stops at its end.
    """
    from huggingface_hub import HfApi

    found = {}
    for role in ("model", "dataset"):
        name, revision, folder = (
            getattr(profile, f"{role}_{part}") for part in ("name", "revision", "folder")
        )
        if folder:
            where = "local folder"
        elif role == "model" and profile.random_weights:
            where = "random weights"
        elif name.startswith("assets/"):
            where = "shipped with the course"
        elif role == "dataset" and profile.corpus is not None:
            where = "generated by the course"
        elif re.fullmatch(r"[0-9a-f]{40}", revision or ""):
            where = revision
        else:
            try:
                where = HfApi().repo_info(name, repo_type=role, revision=revision).sha
            except Exception as error:  # no network, no such repository, offline mode: each library has its own class
                where = f"{revision or 'default branch'} (not resolved: {type(error).__name__})"
        found[role] = {"name": name, "revision": where}
    return found


def dataset_settings(profile: Profile) -> dict:
    """Which source: its name, config and revision; for a folder of yours the names, sizes and footers of its files as one hash."""
    settings = {
        "name": profile.dataset_name,
        "config": profile.dataset_config,
        "revision": profile.dataset_revision,
    }
    if profile.dataset_folder:
        folder, digest = Path(profile.dataset_folder), hashlib.sha256()
        for path in sorted(folder.rglob("*.parquet")):
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - FOOTER))
                digest.update(
                    f"{path.relative_to(folder).as_posix()} {size}".encode() + file.read()
                )
        settings["files"] = digest.hexdigest()[:16]
    elif profile.corpus is not None:
        settings |= {"version": CORPUS_VERSION, **profile.corpus}
    return settings


def data_settings(profile: Profile) -> dict:
    """What decides the splits of notebook 02: the source, how many rows, which negatives, and the size that pages are shrunk to."""
    return {
        "dataset": dataset_settings(profile),
        "split": "by notebook 02",
        "train_rows": profile.train_rows,
        "eval_rows": profile.eval_rows,
        "negatives_per_train_row": profile.negatives_per_train_row,
        "distinct_eval_pages": profile.distinct_eval_pages,
        "pixels": {"smallest": MIN_PIXELS, "largest": profile.max_pixels},
        "processor": {"name": profile.model_name, "revision": profile.model_revision},
    }


def data_differences(found: dict | None, profile: Profile) -> list[str]:
    """:func:`differences` of the splits' note from the profile; a publisher's split may stay while the profile's dataset is the same."""
    wanted = data_settings(profile)
    if found and found.get("split") == BY_PUBLISHER:
        wanted = {key: value for key, value in wanted.items() if key not in OF_THE_SPLIT} | {
            "instead_of": wanted["dataset"]
        }
    return differences(found, wanted)


def kept_data(profile: Profile) -> dict | None:
    """The note of the splits that are kept under ``outputs/``, or ``None`` where there are none that fit the profile."""
    found = read_stamp(profile.output_dir / "data")
    return None if data_differences(found, profile) else found


def used_revisions(profile: Profile) -> dict[str, dict[str, str]]:
    """``resolved_revisions`` with the dataset that the kept splits really came from, for ``results/run.json`` (notebook 02)."""
    kept = (kept_data(profile) or {}).get("resolved")
    return resolved_revisions(profile) | ({"dataset": kept} if kept else {})


def model_settings(profile: Profile) -> dict:
    """What a tuned model belongs to: the base (for a folder of yours, a key of its weights), and the splits that are kept now."""
    model = {"name": profile.model_name, "revision": profile.model_revision}
    if profile.model_folder:
        model["weights"] = model_key(profile.model_folder)
    return {"model": model, "data": kept_data(profile) or data_settings(profile)}


def model_differences(found: dict | None, profile: Profile) -> list[str]:
    """:func:`differences` of a tuned model's note from the profile's base and the kept splits; ``resolved`` is for the reader only."""
    wanted = model_settings(profile)
    data = {key: value for key, value in wanted["data"].items() if key != "resolved"}
    return differences(found, {"model": wanted["model"]}) + (
        differences(found.get("data"), data) if found else []
    )


def open_store(path: Path):
    """``MilvusClient(str(path))`` (notebook 06) for a client that may sit idle; ``path`` ends with ``.db``.

    A store whose files cannot be read is set aside as ``<name>-damaged.db``, with a printed line, and begun anew. Raises
    ``RuntimeError`` where another process, such as another notebook's kernel, has it open: an embedded store serves one at a time.
    ``MilvusClient`` tells neither from the other.
    """
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient
    from pymilvus.exceptions import ConnectionConfigException, MilvusException

    path.parent.mkdir(parents=True, exist_ok=True)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # both packages log a traceback before they raise
    try:
        client = MilvusClient(str(path), grpc_options=QUIET)
        for name in client.list_collections():
            client.describe_collection(name)  # reads the collection's files
    except ConnectionConfigException as error:
        raise RuntimeError(
            f"the store {path.name} is open in another process: shut that notebook's kernel down, then run this cell again "
            "(if none has it open: can its folder be written?)"
        ) from error
    except MilvusException as error:
        server_manager_instance.release_server(str(path))
        aside = path.with_name(f"{path.stem}-damaged.db")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        print(
            f"the store {path.name} cannot be read ({type(error).__name__}): it lies in {aside.name} now, a new one is begun"
        )
        client = MilvusClient(str(path), grpc_options=QUIET)
    finally:
        logging.disable(disabled)
    return client
