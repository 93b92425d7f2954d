"""Evaluation inputs, cached embeddings and checkpoints; notebooks 03 and 04 show the code, later ones call it."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from vdr_helpers import stamps
from vdr_helpers.pages import show_progress
from vdr_helpers.profiles import PROFILES, Profile

ENCODED_AT_ONCE = 500  # pages between two lines of progress


def retrieval_inputs(eval_dataset) -> tuple[dict, dict, dict, dict]:
    """``(queries, corpus, relevant_docs, hard_negatives)`` of an eval split; the first three are what ``InformationRetrievalEvaluator`` takes.

    As notebook 03 builds them. ``queries``: ``{"q0": text}``; ``corpus``: ``{"q0-positive": page, "q0-negative_0": page, ...}``;
    ``relevant_docs``: ``{"q0": {"q0-positive"}}``; ``hard_negatives``: ``{"q0": {"q0-negative_0", ...}}``. Raises ``ValueError`` for an
    empty split, an empty query or a split without ``negative_0``.
    """
    names = [name for name in eval_dataset.column_names if name.startswith("negative_")]
    if not names:
        raise ValueError("this split has no column negative_0: pass the eval split of notebook 02")
    if len(eval_dataset) == 0:
        raise ValueError("the eval split is empty: run notebook 02 with eval_rows of at least 1")
    queries, corpus, relevant_docs, hard_negatives = {}, {}, {}, {}
    for i, row in enumerate(eval_dataset):
        if not row["query"] or not row["query"].strip():
            raise ValueError(f"row {i} has an empty query: filter it out, an empty query matches nothing")
        queries[f"q{i}"], relevant_docs[f"q{i}"] = row["query"], {f"q{i}-positive"}
        corpus[f"q{i}-positive"] = row["image"]
        negatives = {f"q{i}-{name}": row[name] for name in names}
        corpus |= negatives
        hard_negatives[f"q{i}"] = set(negatives)
    return queries, corpus, relevant_docs, hard_negatives


def ranks(similarities, right_pages: list[int], equal_in_front: bool = False):
    """The rank of each query's right page, 1 for the first place (notebook 04 takes it apart).

    ``similarities``: tensor of shape (queries, pages); ``right_pages``: the column of each query's right page. Pages exactly as similar
    as the right one count behind it, or in front of it with ``equal_in_front``.
    """
    own = similarities[range(len(right_pages)), right_pages][:, None]
    return (similarities >= own).sum(dim=1) if equal_in_front else (similarities > own).sum(dim=1) + 1


def embedding_key(model, queries: list[str], pages: list[str]) -> str:
    """A key of everything that decides the embeddings: weights and number format as they are in memory, modules and their settings, width,
    prompts, how text becomes tokens, how large a page may be, versions, and every text and page. Where the model lay is not in it.
    """
    import torch

    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    network = model[0].auto_model
    configs = [network.config, *getattr(network, "peft_config", {}).values()]
    settings = {
        "modules": str(model),
        "network and adapters": [
            {name: value for name, value in config.to_dict().items() if not name.endswith("name_or_path")} for config in configs
        ],
        "attention": network.config._attn_implementation,
        "width": model.get_embedding_dimension(),  # a truncate_dim of the full width changes nothing
        "prompts": [model.prompts, model.default_prompt_name, model.max_seq_length],
        "first query": model.preprocess(queries[:1], prompt=model.prompts.get("query"))["input_ids"].tolist(),
        "images": model.processor.image_processor.to_dict(),
        "versions": [version(name) for name in ("sentence-transformers", "transformers")],
        "queries": queries,
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for page in pages:
        with Path(page).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def embed_once(model, queries: list[str], pages: list[str], profile: Profile):
    """``(query_embeddings, page_embeddings)`` as float32 tensors of shape (n, dims) on the CPU, encoded once and kept under ``outputs/``.

    ``pages``: paths of image files. They are found again only for the same model, texts and pages (:func:`embedding_key`); change
    anything, and they are encoded anew, with a line of progress for every 500. A file that does not open is named and made anew.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    path = profile.output_dir / "embeddings" / f"{embedding_key(model, queries, pages)}.safetensors"
    if path.exists():
        try:
            kept = load_file(str(path))
            return kept["queries"], kept["pages"]
        except (SafetensorError, KeyError, OSError) as error:
            print(f"embeddings/{path.name} is damaged ({type(error).__name__}): encoding anew")
    settings = {"batch_size": profile.encode_batch_size, "convert_to_tensor": True, "show_progress_bar": False}
    made, parts = {"queries": model.encode_query(queries, **settings).float().cpu().contiguous()}, []
    for first in range(0, len(pages), ENCODED_AT_ONCE):
        some = pages[first : first + ENCODED_AT_ONCE]
        parts.append(model.encode_document(some, **settings).float().cpu())
        show_progress(first, first + len(some), len(pages), ENCODED_AT_ONCE)
    made["pages"] = torch.cat(parts).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    stamps.write_whole(path, save(made))
    return made["queries"], made["pages"]


def control_settings(profile: Profile, training: dict, queries: dict, corpus: dict) -> dict:
    """What the stored control of notebook 05 belongs to: the base's weights, the data, the training but its loss, the order of texts and pages."""
    return {
        "base": {"name": profile.model_name, "weights": stamps.model_key(profile.base_model)},
        "data": stamps.data_settings(profile),
        "training": {name: value for name, value in training.items() if name not in ("loss", "not the published setting")},
        "queries and pages": hashlib.sha256(json.dumps([queries, list(corpus)]).encode()).hexdigest()[:16],
    }


def is_named(profile: Profile) -> bool:
    """Whether ``VDR_FINETUNED`` names the tuned model."""
    usual = PROFILES[profile.name]
    return (profile.finetuned_name, profile.finetuned_revision) != (usual.finetuned_name, usual.finetuned_revision)


def finetuned_model(profile: Profile) -> tuple[str, str]:
    """``(path or hub id, where it came from)``: the one that ``VDR_FINETUNED`` names, else your own from notebook 03, else the shipped one.

    Raises ``ValueError`` that names what is damaged or differs from the profile; a folder without a note of ours differs.
    """
    own, again = profile.output_dir / "finetuned", "delete the folder and run notebook 03 again"
    if is_named(profile):
        return profile.finetuned_model, "the one that VDR_FINETUNED names"
    if not own.exists():
        return profile.finetuned_model, origin_of_shipped(profile, stamps.read_stamp(profile.finetuned_model))
    where = f"the tuned model in outputs/{profile.name}/{own.name}"
    if different := stamps.model_differences(stamps.read_stamp(own), profile):
        raise ValueError(
            f"{where} belongs to other settings than these ({'; '.join(different)}): run notebook 03 again, put the settings back, or "
            "set VDR_OUTPUTS to another folder, and restart the kernel"
        )
    if damaged := stamps.damaged_files(own):
        raise ValueError(f"{', '.join(damaged)} of {where} was cut, changed or deleted: {again}")
    return str(own), "your own, from notebook 03"


def origin_of_shipped(profile: Profile, stamp: dict | None) -> str:
    """Where :func:`finetuned_model` is from for a reader who has not run notebook 03, and on which rows it was trained if not on these."""
    origin, usual = "the shipped one (you have not run notebook 03)", PROFILES[profile.name].model_name
    if stamp is None:  # a model on the hub has no note
        return origin if profile.model_name == usual else f"{origin}, trained from {usual}, not from your base"
    if base := stamps.differences(stamp, {"model": stamps.model_settings(profile)["model"]}):
        raise ValueError(f"the shipped tuned model has another base than yours ({'; '.join(base)}): run notebook 03 first")
    if data := stamps.data_differences(stamp["data"], profile):
        return f"{origin}, trained on other data ({'; '.join(data)}): pages of this eval split may be among its training pages"
    return origin


def check_band(name: str, value: float, low: float, high: float, hint: str) -> None:
    """Print whether a measured value lies where this experiment usually ends, or what to look at if it does not; it never stops a notebook."""
    if low <= value <= high:
        print(f"[in band] {name} is between {low:g} and {high:g}")
    else:
        print(f"[out of band] {name} = {value:.3f}, expected {low:g} to {high:g}. {hint}")


def scored_model(profile: Profile) -> str:
    """A key of the tuned model that scores belong to: its weights, or its id on the hub."""
    own = profile.output_dir / "finetuned"
    return stamps.model_key(own if own.exists() and not is_named(profile) else profile.finetuned_model)


def save_results(profile: Profile, name: str, results: dict) -> None:
    """Keep ``results`` as ``results/<name>.json``, beside the base, the data and the tuned model at hand, which they belong to."""
    folder = profile.output_dir / "results"
    folder.mkdir(parents=True, exist_ok=True)
    made_from = stamps.model_settings(profile) | {"tuned": scored_model(profile)}
    stamps.write_whole(folder / f"{name}.json", json.dumps(results | {"made_from": made_from}, indent=1) + "\n")


def load_results(profile: Profile, name: str) -> dict | None:
    """What :func:`save_results` kept under ``name``, or ``None`` where there is nothing.

    A file that is damaged, or that belongs to another tuned model, base or data than those at hand, is named and counts as nothing.
    """
    path = profile.output_dir / "results" / f"{name}.json"
    if (results := stamps.read_json(path)) is None:
        if path.exists():
            print(f"results/{path.name} is damaged and left out: run the notebook that writes it again")
        return None
    made_from = results.pop("made_from", None)
    different = stamps.model_differences(made_from, profile)
    if not different and made_from.get("tuned") != scored_model(profile):
        different = ["another tuned model"]
    if different:
        print(
            f"results/{path.name} was measured with other settings ({'; '.join(different)}) and is left out: run its notebook again"
        )
        return None
    return results
