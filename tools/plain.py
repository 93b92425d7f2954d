"""Plain counterparts of the course's plumbing, for scripts that stand alone (``python -m tools.copy_out`` puts them in by source).

A notebook's cell calls a helper that checks stamps, keeps caches and falls back to what is shipped. A script that a reader takes away
calls the function of the same name below, which takes the same arguments and does the one thing that is left without the course. A test
holds the arguments together; nothing else imports this module.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import Path


def load_prepared(profile, split: str):
    """``(dataset, its folder)``: a split with columns query, image and negative_0, ..., as ``Dataset.save_to_disk`` left it."""
    from datasets import load_from_disk

    folder = Path(profile.data) / split
    return load_from_disk(str(folder)), str(folder)


def page_paths(dataset, folder):
    """The dataset with the path of a file in ``folder`` in place of every page: a corpus of paths costs no memory for pixels."""
    from datasets import Dataset, Image

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)

    def written(page: dict) -> str:
        path = folder / f"{hashlib.sha1(page['bytes']).hexdigest()}.png"
        if not path.exists():
            path.write_bytes(page["bytes"])
        return str(path)

    columns = {"query": dataset["query"][:]}
    for name in (name for name, feature in dataset.features.items() if isinstance(feature, Image)):
        pages = dataset.select_columns(name).cast_column(name, Image(decode=False))[name]
        columns[name] = [page and written(page) for page in pages]
    return Dataset.from_dict(columns)


def finetuned_model(profile):
    """``(folder or hub id of the tuned model, where it came from)``."""
    return profile.finetuned, "the one that the settings name"


def embed_once(model, queries, pages, profile):
    """``(query_embeddings, page_embeddings)``, float32 on the CPU. Keep them in a file if you need them again."""
    settings = {"batch_size": profile.encode_batch_size, "convert_to_tensor": True, "show_progress_bar": False}
    query_embeddings = model.encode_query(queries, **settings)
    return query_embeddings.float().cpu(), model.encode_document(pages, **settings).float().cpu()


@contextmanager
def whole_folder(folder: Path, made_from: dict | None = None):
    """A new folder beside ``folder`` that takes its place at the end, so that an interrupted save never leaves half a model."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_results(profile, name: str):
    """``results/<name>.json``, scores of this very model on these very pages (that they are is yours to know), or ``None``."""
    path = Path(profile.results) / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def open_store(path: Path):
    """A Milvus store in a file; one process at a time has it open."""
    from pymilvus import MilvusClient

    path.parent.mkdir(parents=True, exist_ok=True)
    return MilvusClient(str(path))
