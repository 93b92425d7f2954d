"""Plain counterparts of the course's plumbing, for scripts that stand alone (``python -m tools.copy_out`` puts them in by source).

A notebook's cell calls a helper that checks stamps, keeps caches and falls back to what is shipped. A script that a reader takes away
calls the function of the same name below, which takes the same arguments and does the one thing that is left without the course. A test
holds the arguments together; nothing else imports this module.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

from sentence_transformers.util import cos_sim
from transformers import TrainerCallback


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


def retrieval_inputs(eval_dataset):
    """``(queries, corpus, relevant_docs, hard_negatives)`` of rows of page files; a page that stands in several rows counts once."""
    columns = ["image", *(name for name in eval_dataset.column_names if name.startswith("negative_"))]
    queries, corpus, relevant_docs, hard_negatives = {}, {}, {}, {}
    for i, row in enumerate(eval_dataset):
        if not row["query"].strip():
            raise ValueError(f"row {i} has an empty query, which matches nothing: leave it out")
        corpus |= {Path(row[name]).name: row[name] for name in columns}
        positive, *negatives = (Path(row[name]).name for name in columns)
        queries[f"q{i}"], relevant_docs[f"q{i}"], hard_negatives[f"q{i}"] = row["query"], {positive}, set(negatives)
    return queries, corpus, relevant_docs, hard_negatives


def ranks(similarities, right_pages, equal_in_front=False):
    """The rank of each query's right page, 1 for the first place; ``similarities``: a tensor of shape (queries, pages)."""
    own = similarities[range(len(right_pages)), right_pages][:, None]
    return (similarities >= own).sum(dim=1) if equal_in_front else (similarities > own).sum(dim=1) + 1


def embed_once(model, queries, pages, profile):
    """``(query_embeddings, page_embeddings)``, float32 on the CPU. Keep them in a file if you need them again."""
    settings = {"batch_size": profile.encode_batch_size, "convert_to_tensor": True, "show_progress_bar": False}
    query_embeddings = model.encode_query(queries, **settings)
    return query_embeddings.float().cpu(), model.encode_document(pages, **settings).float().cpu()


def cosine_at(dims):
    """``score_functions`` of an evaluator that scores the first numbers of its vectors at several widths; the first keeps the plain name."""

    def similarity(dim, queries, pages):
        return cos_sim(queries[:, :dim], pages[:, :dim])

    return {f"cosine-{dim}d" if i else "cosine": partial(similarity, dim) for i, dim in enumerate(dims)}


class LiveCurve(TrainerCallback):
    """A line at each evaluation: the step, the last loss, and NDCG@10 at the full width and at ``dim``."""

    def __init__(self, dim=None):
        self.dim = dim

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        losses = [f"{entry['loss']:.3f}" for entry in state.log_history if "loss" in entry]
        scores = {name: score for name, score in metrics.items() if name.endswith("_ndcg@10")}
        shown = [f"{score:.3f}" for name, score in scores.items() if name == next(iter(scores)) or f"-{self.dim}d_" in name]
        print(f"step {state.global_step} of {state.max_steps}: loss {(losses or ['-'])[-1]}, NDCG@10 {' and '.join(shown)}")


def model_key(folder):
    """A short key of a saved model's weights and settings; a model on the hub counts by its name."""
    digest = hashlib.sha256(str(folder).encode())
    for path in sorted(path for path in Path(folder).rglob("*") if path.suffix in (".safetensors", ".json")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def make_once(folder, settings, make):
    """Have ``make(folder)`` fill ``folder``, unless that was done with these settings; a note of them, written last, says so."""
    note, settings = folder / "made_from.json", json.dumps(settings, default=str)
    if not note.exists() or note.read_text(encoding="utf-8") != settings:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        note.write_text(settings, encoding="utf-8")


def save_results(profile, name, results):
    """``results`` with the name of the tuned model, as ``results/<name>.json`` below what is made."""
    path = profile.output_dir / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = results | {"made_from": str(Path(profile.finetuned).resolve())}
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def load_results(profile, name):
    """``<name>.json`` of the folder of results, or ``None`` where there is none or where it names another tuned model."""
    path = profile.results / f"{name}.json"
    if not path.exists():
        return None
    results = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(made_from := results.pop("made_from", None), str) and made_from != str(Path(profile.finetuned).resolve()):
        print(f"{path} was measured with {made_from} and is left out")
        return None
    return results


def open_store(path):
    """A Milvus store in a file; one process at a time has it open."""
    from pymilvus import MilvusClient

    path.parent.mkdir(parents=True, exist_ok=True)
    return MilvusClient(str(path))
