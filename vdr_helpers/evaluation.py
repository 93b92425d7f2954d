"""Evaluation inputs, cached embeddings and checkpoints; notebooks 03 and 04 show the code, later ones call it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vdr_helpers.files import write_whole
from vdr_helpers.profiles import Profile


def retrieval_inputs(eval_dataset) -> tuple[dict, dict, dict]:
    """``(queries, corpus, relevant_docs)`` for ``InformationRetrievalEvaluator`` from an eval split (notebook 03 builds them).

    ``queries``: ``{"q0": text}``; ``corpus``: ``{"q0-positive": page, "q0-negative_0": page, ...}``; ``relevant_docs``:
    ``{"q0": {"q0-positive"}}``. Raises ``ValueError`` for an empty query or a split without ``negative_0``.
    """
    names = [name for name in eval_dataset.column_names if name.startswith("negative_")]
    if not names:
        raise ValueError("this split has no column negative_0: pass the eval split of notebook 02")
    queries, corpus, relevant_docs = {}, {}, {}
    for i, row in enumerate(eval_dataset):
        if not row["query"] or not row["query"].strip():
            raise ValueError(f"row {i} has an empty query: filter it out, an empty query matches nothing")
        queries[f"q{i}"] = row["query"]
        corpus[f"q{i}-positive"] = row["image"]
        relevant_docs[f"q{i}"] = {f"q{i}-positive"}
        for name in names:
            corpus[f"q{i}-{name}"] = row[name]
    return queries, corpus, relevant_docs


def model_key(folder: str | Path, *more: str) -> str:
    """A short key of a saved model's weights and settings and of ``more`` (a dataset's fingerprint, say)."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")) if Path(folder).is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".safetensors", ".json", ".jinja") and "checkpoint" not in name:
            digest.update(name.encode() + path.read_bytes())
    for text in more:
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def embed_once(model, model_folder: str, queries: list[str], pages: list, data_key: str, profile: Profile):
    """``(query_embeddings, page_embeddings)`` as float32 tensors of shape (n, dims), encoded once and kept under ``outputs/``.

    The key holds the model's weights and ``data_key``, so that a model trained anew is encoded anew. Hub models are keyed by id.
    """
    import torch
    from safetensors.torch import load_file, save_file

    name = "" if Path(model_folder).is_dir() else f"{model_folder}@{profile.model_revision}@{profile.finetuned_revision}"
    key = model_key(model_folder, name, data_key, str(model.get_embedding_dimension()))
    path = profile.output_dir / "embeddings" / f"{key}.safetensors"
    if path.exists():
        tensors = load_file(str(path))
        return tensors["queries"], tensors["pages"]
    settings = {"batch_size": profile.encode_batch_size, "convert_to_tensor": True, "show_progress_bar": False}
    tensors = {
        "queries": model.encode_query(queries, **settings).float().cpu().contiguous(),
        "pages": model.encode_document(pages, **settings).float().cpu().contiguous(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: torch.clone(tensor) for name, tensor in tensors.items()}, str(partial))
    partial.replace(path)
    return tensors["queries"], tensors["pages"]


def finetuned_model(profile: Profile) -> tuple[str, str]:
    """``(path or hub id, where it came from)`` of the tuned model: the learner's own from notebook 03, else the shipped one.

    Raises ``FileNotFoundError`` when a folder is there but is not a Sentence Transformers model.
    """
    own = profile.output_dir / "finetuned"
    if not own.exists():
        return profile.finetuned_model, "the shipped one (you have not run notebook 03)"
    if not (own / "modules.json").exists() or not list(own.rglob("*.safetensors")):
        raise FileNotFoundError(f"{own.name} holds no Sentence Transformers model: delete the folder and run notebook 03 again")
    return str(own), "your own, from notebook 03"


def check_dims(model, dims) -> None:
    """Raise ``ValueError`` if a dimension is below 1 or above the model's width; slicing would accept it in silence."""
    width = model.get_embedding_dimension()
    wrong = [dim for dim in dims if not 1 <= dim <= width]
    if wrong:
        raise ValueError(f"dimension {wrong[0]} does not fit: this model's embeddings have {width} numbers, choose 1 to {width}")


def check_band(name: str, value: float, low: float, high: float, hint: str) -> None:
    """Print whether a measured value lies where this experiment usually ends, or what to look at if it does not.

    ``low`` and ``high`` come from the README's table over three seeds. It never stops a notebook: a value out of band is
    something to understand, and the reader's setting may be meant to move it. Raises ``ValueError`` if ``low`` exceeds ``high``.
    """
    if low > high:
        raise ValueError(f"the band of {name} is upside down: {low} > {high}")
    if low <= value <= high:
        print(f"[in band] {name} is between {low:g} and {high:g}")
    else:
        print(f"[out of band] {name} = {value:.3f}, expected {low:g} to {high:g}. {hint}")


def save_results(profile: Profile, name: str, results: dict) -> None:
    """Keep ``results`` as ``results/<name>.json`` of this profile, whole or not at all, for later notebooks and the summary."""
    folder = profile.output_dir / "results"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.json", json.dumps(results, indent=1) + "\n")


def load_results(profile: Profile, name: str) -> dict | None:
    """What :func:`save_results` kept under ``name``, or ``None``."""
    path = profile.output_dir / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
