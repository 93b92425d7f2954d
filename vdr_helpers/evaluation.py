"""Evaluation inputs, scores and intervals, embeddings that are kept, and results.

Notebook 03 shows how the inputs are built; notebook 04 shows :func:`ranks`, :func:`ndcg_at_10`,
:func:`interval` and :func:`paired_test` as they stand here.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy
from scipy import stats

from vdr_helpers.cache import (
    atomic_write,
    cached,
    make_folder,
    read_json,
    read_manifest,
    replace_folder,
    settings_key,
    stage_folder,
)
from vdr_helpers.models import (
    base_settings,
    finetuned_model,
    model_key,
    use_matrix_product,
    weights_hash,
)
from vdr_helpers.pages import show_progress
from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.source import is_text
from vdr_helpers.splits import split_settings, splits_folder

CONTROL = "measured/without_matryoshka.safetensors"  # under assets/, for notebook 05
ENCODED_AT_ONCE = 500  # pages between two lines of progress


def retrieval_inputs(eval_dataset) -> tuple[dict, dict, dict, dict]:
    """``(queries, corpus, relevant_docs, hard_negatives)`` of an eval split; the first three are
    what ``InformationRetrievalEvaluator`` takes.

    As notebook 03 builds them. ``queries``: ``{"q0": text}``; ``corpus``: ``{"q0-positive": page,
    "q0-negative_0": page, ...}``; ``relevant_docs``: ``{"q0": {"q0-positive"}}``;
    ``hard_negatives``: ``{"q0": {"q0-negative_0", ...}}``. Rows with the same query are one query
    with several right pages, and none of these is its negative. Raises ``ValueError`` for an empty
    split, a query that is no text, or a split without ``negative_0``.
    """
    names = [name for name in eval_dataset.column_names if name.startswith("negative_")]
    if not names:
        raise ValueError("this split has no column negative_0: pass the eval split of notebook 02")
    if len(eval_dataset) == 0:
        raise ValueError("the eval split is empty: run notebook 02 with eval_rows of at least 1")
    right_pages, id_of_query = {}, {}
    for i, row in enumerate(eval_dataset):
        check_query(row["query"], i)
        right_pages.setdefault(row["query"], []).append(row["image"])
    queries, corpus, relevant_docs, hard_negatives = {}, {}, {}, {}
    for i, row in enumerate(eval_dataset):
        query_id = id_of_query.setdefault(row["query"], f"q{i}")
        queries[query_id] = row["query"]
        corpus[f"q{i}-positive"] = row["image"]
        relevant_docs.setdefault(query_id, set()).add(f"q{i}-positive")
        wrong = [name for name in names if row[name] not in right_pages[row["query"]]]
        negatives = {f"q{i}-{name}": row[name] for name in wrong}
        corpus |= negatives
        hard_negatives.setdefault(query_id, set()).update(negatives)
    return queries, corpus, relevant_docs, hard_negatives


def check_query(query: str | None, row: int) -> None:
    """Raise ``ValueError`` naming the row of a query that is blank, an address or a file."""
    if is_text(query):
        return
    if not isinstance(query, str) or not query.strip():
        raise ValueError(
            f"row {row} has an empty query: filter it out, an empty query matches nothing"
        )
    raise ValueError(
        f"row {row} has an address or a file as its query, {query!r}: filter it out, the library "
        "would open it as an image"
    )


def page_kinds(query_id: str | None, page_ids: list, relevant_docs: dict, hard_negatives: dict):
    """How a figure labels each of ``page_ids`` for one query: ``"positive"``, ``"hard negative"``
    or ``"other page"``.

    ``relevant_docs`` and ``hard_negatives``: of :func:`retrieval_inputs`. For a query that is not
    among them, every page is ``"not judged"``.
    """
    if query_id not in relevant_docs:
        return ["not judged"] * len(page_ids)
    labels = dict.fromkeys(hard_negatives[query_id], "hard negative")
    labels |= dict.fromkeys(relevant_docs[query_id], "positive")
    return [labels.get(page_id, "other page") for page_id in page_ids]


def ranks(similarities, right_pages, equal_in_front=False):
    """The rank of each query's right page, 1 for the first place: a tensor of shape (queries,).

    `similarities`: a tensor of shape (queries, pages); `right_pages`: the column of each query's
    right page. Pages exactly as similar as the right one count behind it, or in front of it with
    `equal_in_front`.
    """
    right = similarities[range(len(right_pages)), right_pages][:, None]
    if equal_in_front:
        return (similarities >= right).sum(dim=1)
    return (similarities > right).sum(dim=1) + 1


def ndcg_at_10(rank):
    """NDCG@10 of each query from the rank of its one right page; `rank` may be an array."""
    rank = numpy.asarray(rank)
    return (rank <= 10) / numpy.log2(1 + rank)


def ndcg_per_query(similarities, corpus, relevant_docs):
    """NDCG@10 of each query that may have several right pages, as the library's evaluator has it.

    `similarities`: a tensor of shape (queries, pages), in the order of `relevant_docs` and
    `corpus`; returns an array of shape (queries,).
    """
    page_ids, scores = list(corpus), []
    best_ten = similarities.topk(min(10, len(page_ids)), dim=1).indices.tolist()
    for places, right in zip(best_ten, relevant_docs.values(), strict=True):
        found_at = [rank for rank, page in enumerate(places, start=1) if page_ids[page] in right]
        at_best = range(1, len(right) + 1)
        scores.append(ndcg_at_10(found_at).sum() / ndcg_at_10(at_best).sum())
    return numpy.array(scores)


def interval(values):
    """Low and high end of the 95 % bootstrap interval of the mean; `values`: one per query."""
    queries = len(values)
    draws = numpy.random.default_rng(0).integers(0, queries, size=(2000, queries))
    return numpy.percentile(values[draws].mean(axis=1), [2.5, 97.5])


def with_interval(values, sign=""):
    """The mean of `values` with its interval, as text; `sign="+"` for a difference."""
    low, high = interval(values)
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def paired_test(first, second):
    """p-value of the paired permutation test; both arrays hold one value per query."""
    swaps = {"permutation_type": "samples", "n_resamples": 9999, "rng": 0}
    return stats.permutation_test([first - second], numpy.mean, **swaps).pvalue


def embedding_settings(model, queries: list[str], pages: list[str]) -> dict:
    """Everything that decides the embeddings: the model as it is in memory, the texts, and the
    content of every page file.

    The model counts by its weights and compute dtype, modules, prompts, how text becomes tokens,
    and how large a page may be; where it lay does not count.
    """
    network = model[0].auto_model
    configs = [network.config, *getattr(network, "peft_config", {}).values()]
    return {
        "weights": weights_hash(model),
        "modules": str(model),
        "network and adapters": [deciding(config.to_dict()) for config in configs],
        "attention": network.config._attn_implementation,
        "dimensions": model.get_embedding_dimension(),
        "prompts": [model.prompts, model.default_prompt_name, model.max_seq_length],
        "first query": model.preprocess(queries[:1], prompt=model.prompts.get("query"))[
            "input_ids"
        ].tolist(),
        "images": model.processor.image_processor.to_dict(),
        "versions": [version(name) for name in ("sentence-transformers", "transformers")],
        "queries": hashlib.sha256(json.dumps(queries).encode()).hexdigest()[:16],
        "pages": files_hash(pages),
    }


def deciding(config: dict) -> dict:
    """A model's configuration without what decides no embedding: names of folders, and dimensions
    that a server may offer.
    """
    return {
        name: value
        for name, value in config.items()
        if not name.endswith("name_or_path") and name != "matryoshka_dimensions"
    }


def files_hash(files: list[str]) -> str:
    """16 digits for the content of these files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def embed_once(model, queries: list[str], pages: list[str], profile: Profile):
    """``(query_embeddings, page_embeddings)``: float32 tensors of shape (queries, dimensions) and
    (pages, dimensions) on the CPU.

    ``pages``: paths of image files. Embeddings are encoded once, at the model's full width, and
    kept; what is returned is cut to its ``truncate_dim``, as the library cuts. They are found again
    only for the same model, texts and pages (:func:`embedding_settings`). While pages are encoded,
    a line of progress is printed for every 500. Raises ``ValueError`` for a query that is no text.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for number, query in enumerate(queries):
        check_query(query, number)

    def make(folder: Path) -> None:
        encode_all(model, queries, pages, profile, folder / "embeddings.safetensors")

    notes = {"splits": splits_folder(profile).name}  # for tools.outputs
    with model.truncate_embeddings(None):
        settings = embedding_settings(model, queries, pages)
        folder = cached(profile.output_dir, "embeddings", settings, make, notes)
        try:
            kept = load_file(str(folder / "embeddings.safetensors"))
        except SafetensorError as error:
            print(f"{folder.name} is made anew: {type(error).__name__}")
            folder = replace_folder(folder, settings, make, notes)
            kept = load_file(str(folder / "embeddings.safetensors"))
    return kept["queries"][:, : model.truncate_dim], kept["pages"][:, : model.truncate_dim]


def embeddings_of_both(profile: Profile, queries: dict, corpus: dict) -> dict[str, tuple]:
    """``{"base": (query_embeddings, page_embeddings), "tuned": ...}`` at full width, as notebook 04
    makes them: found again where it has run, else encoded now.

    ``queries`` and ``corpus``: of :func:`retrieval_inputs`. The models are loaded one after the
    other, so that a GPU never holds two.
    """
    import gc

    from sentence_transformers import SentenceTransformer

    tuned_path, _ = finetuned_model(profile)
    sources = {
        "base": (profile.base_model, profile.model_revision),
        "tuned": (tuned_path, profile.finetuned_revision),
    }
    embeddings = {}
    for name, (source, revision) in sources.items():
        model = SentenceTransformer(
            source,
            revision=revision,
            model_kwargs=profile.model_kwargs,
            processor_kwargs=profile.processor_kwargs,
            truncate_dim=profile.matryoshka_dims[0],
        )
        texts, pages = list(queries.values()), list(corpus.values())
        embeddings[name] = embed_once(model, texts, pages, profile)
        del model
        gc.collect()
    return embeddings


def encode_all(model, queries: list[str], pages: list[str], profile: Profile, file: Path) -> None:
    """Encode queries and pages and write both as one safetensors file, with a line of progress for
    every 500 pages.
    """
    import torch
    from safetensors.torch import save_file

    settings = {
        "batch_size": profile.encode_batch_size,
        "convert_to_tensor": True,
        "show_progress_bar": False,
    }
    use_matrix_product(model)
    query_embeddings = model.encode_query(queries, **settings).float().cpu()
    parts = []
    for first in range(0, len(pages), ENCODED_AT_ONCE):
        some = pages[first : first + ENCODED_AT_ONCE]
        parts.append(model.encode_document(some, **settings).float().cpu())
        show_progress(first, first + len(some), len(pages), ENCODED_AT_ONCE)
    save_file(
        {"queries": query_embeddings.contiguous(), "pages": torch.cat(parts).contiguous()},
        str(file),
    )


def check_band(name: str, value: float, low: float, high: float, hint: str) -> None:
    """Print whether a measured value lies where this experiment usually ends, or what to look at if
    it does not; it never stops a notebook.
    """
    if low <= value <= high:
        print(f"[in band] {name} is between {low:g} and {high:g}")
    else:
        print(f"[out of band] {name} = {value:.3f}, expected {low:g} to {high:g}. {hint}")


def check_scores(profile: Profile, base: float, tuned: float) -> None:
    """:func:`check_band` for the NDCG@10 of both models and for the gain (notebook 04)."""
    hint = "Were both models loaded with the same settings, and did notebook 3's checks pass?"
    check_band("base NDCG@10", base, *profile.bands["base"], hint)
    check_band("tuned NDCG@10", tuned, *profile.bands["finetuned"], hint)
    check_band("gain", tuned - base, *profile.bands["gain"], hint)


def check_kept(profile: Profile, kept: dict[str, float]) -> None:
    """:func:`check_band` for the share of its score that each model keeps at the smallest width,
    ``{"base": share, "tuned": share}`` (notebook 05).
    """
    hint = "Did MatryoshkaLoss get all seven dimensions, and is the second model the tuned one?"
    bands, difference = profile.bands, kept["tuned"] - kept["base"]
    check_band("share kept by the tuned model", kept["tuned"], *bands["kept_finetuned"], hint)
    check_band("tuned minus base, share kept", difference, *bands["kept_difference"], hint)


def results_folder(profile: Profile) -> Path:
    """Where results are kept that belong to this base, these splits and the tuned model at hand."""
    settings = {
        "base": base_settings(profile),
        "splits": split_settings(profile),
        "tuned": model_key(finetuned_model(profile)[0]),
    }
    return stage_folder(profile.output_dir, "results", settings)


def save_results(profile: Profile, name: str, results: dict) -> None:
    """Keep ``results`` as ``<name>.json`` of the base, splits and tuned model at hand."""
    folder = results_folder(profile)
    make_folder(folder)
    atomic_write(folder / f"{name}.json", json.dumps(results, indent=1) + "\n")


def load_results(profile: Profile, name: str) -> dict | None:
    """What :func:`save_results` kept under ``name`` for the base, splits and tuned model at hand,
    or ``None``.

    A damaged file is named and counts as nothing.
    """
    path = results_folder(profile) / f"{name}.json"
    results = read_json(path)
    if results is None and path.exists():
        print(
            f"{path.parent.name}/{path.name} is damaged and left out: run the notebook that writes it again"
        )
    return results


def control_settings(profile: Profile, trained: dict, queries: dict, corpus: dict) -> dict:
    """What the stored embeddings of notebook 05's third curve belong to: all but the loss.

    ``trained``: what the tuned model's manifest says of its training; ``queries`` and ``corpus``
    count by texts, ids and order.
    """
    left_out = ("loss", "not the published setting")
    texts_and_ids = json.dumps([queries, list(corpus)]).encode()
    return {
        "base": base_settings(profile),
        "splits": split_settings(profile),
        "trained": {name: value for name, value in trained.items() if name not in left_out},
        "queries and pages": hashlib.sha256(texts_and_ids).hexdigest()[:16],
    }


def stored_control(profile: Profile, tuned: str, queries: dict, corpus: dict):
    """``(embeddings, where they are from)`` of the model tuned without ``MatryoshkaLoss`` (05).

    ``embeddings``: float32 tensors for queries and pages, made once by ``python -m
    benchmarks.phenomena``; ``None`` unless all but the loss was as it was for the model in the folder
    ``tuned``, and then the second value says what differs.
    """
    from safetensors import safe_open

    manifest = read_manifest(tuned) or {}
    if "trained" not in manifest:
        return None, "left out: the tuned model has no manifest that says how it was trained"
    asked = control_settings(profile, manifest["trained"], queries, corpus)
    with safe_open(str(assets_folder() / CONTROL), framework="pt") as file:
        found = json.loads(file.metadata()["settings"])
        embeddings = file.get_tensor("queries").float(), file.get_tensor("pages").float()
    different = [name for name in asked if settings_key(asked[name]) != settings_key(found[name])]
    if different:
        return None, f"left out: it was made with other settings ({', '.join(different)})"
    return embeddings, "stored, tuned once (python -m benchmarks.phenomena)"
