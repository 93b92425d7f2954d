"""Milliseconds per query against the number of vectors: ``python -m benchmarks.latency`` (some
minutes, 3 GiB; appendix a7 shows it).

Brute force in numpy, and an inverted-file index of FAISS with 8 bits per number (``IVF…,SQ8``) with
its recall. Vectors are made up from the tuned model's pages of ``tiny``, see :func:`made_up`;
queries are the course's. Writes ``assets/measured/latency.json`` after every size. One thread each,
so that the two can be compared; a time is the fastest of 30 queries, because other work may
disturb.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import faiss
import numpy
from sentence_transformers import SentenceTransformer

from benchmarks.where import where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.evaluation import embed_once, retrieval_inputs
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.models import finetuned_model
from vdr_helpers.profiles import Profile, assets_folder, load_profile
from vdr_helpers.splits import load_split

SIZES = (1_500, 10_000, 100_000, 300_000, 1_000_000)
TIMED = 30  # queries of which the fastest counts


def made_up(page_vectors: numpy.ndarray, count: int, seed: int = 0) -> numpy.ndarray:
    """``count`` vectors of length 1, each between two of ``page_vectors`` (pages, width), as
    notebook 07 makes them.
    """
    rng = numpy.random.default_rng(seed)
    first, second = rng.integers(0, len(page_vectors), size=(2, count))
    share = rng.random((count, 1), dtype=numpy.float32)
    mixed = share * page_vectors[first] + (1 - share) * page_vectors[second]
    return mixed / numpy.linalg.norm(mixed, axis=1, keepdims=True)


def brute_force(query: numpy.ndarray, vectors: numpy.ndarray, best: int = 10) -> numpy.ndarray:
    """The numbers of the ``best`` vectors, not in order."""
    return numpy.argpartition(vectors @ query, -best)[-best:]


def milliseconds(search, queries: numpy.ndarray) -> float:
    """The fastest of :data:`TIMED` queries, one at a time."""
    spent = []
    for query in queries[:TIMED]:
        started = time.perf_counter()
        search(query)
        spent.append(1000 * (time.perf_counter() - started))
    return min(spent)


def measure(queries: numpy.ndarray, vectors: numpy.ndarray) -> dict:
    """Times, build seconds and recall@10 of both searches over ``vectors`` (n, width)."""
    # FAISS asks for 39 vectors per list to learn from
    lists = min(round(4 * math.sqrt(len(vectors))), len(vectors) // 40)
    started = time.perf_counter()
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[: 40 * lists])
    index.add(vectors)
    built = time.perf_counter() - started
    index.nprobe = max(1, lists // 32)
    _, found = index.search(queries, 10)
    true = [set(brute_force(query, vectors).tolist()) for query in queries]
    recall = sum(len(best & set(row)) for best, row in zip(true, found.tolist(), strict=True)) / (
        10 * len(queries)
    )
    return {
        "vectors": len(vectors),
        "numpy_ms": round(milliseconds(lambda query: brute_force(query, vectors), queries), 4),
        "ivf_ms": round(milliseconds(lambda query: index.search(query[None], 10), queries), 4),
        "ivf_recall_at_10": round(recall, 4),
        "ivf_build_seconds": round(built, 1),
        "lists": lists,
        "lists_searched": index.nprobe,
    }


def tuned_vectors(profile: Profile) -> tuple[numpy.ndarray, numpy.ndarray]:
    """``(queries, pages)`` of the tuned model, cut to ``profile.truncate_dim`` and of length 1, as
    notebook 07 has them.
    """
    queries, corpus, *_ = retrieval_inputs(load_split(profile, "eval")[0])
    settings = {"model_kwargs": profile.model_kwargs, "processor_kwargs": profile.processor_kwargs}
    model = SentenceTransformer(
        finetuned_model(profile)[0], truncate_dim=profile.matryoshka_dims[0], **settings
    )
    embeddings = embed_once(model, list(queries.values()), list(corpus.values()), profile)
    cut = [vectors[:, : profile.truncate_dim].numpy() for vectors in embeddings]
    queries, pages = (
        vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True) for vectors in cut
    )
    return queries, pages


def main() -> None:
    quiet_progress_bars()
    faiss.omp_set_num_threads(1)
    profile = load_profile("tiny")
    queries, pages = tuned_vectors(profile)
    what = f"milliseconds per query, vectors of {pages.shape[1]} dimensions between two pages of the tuned tiny model, one thread, one run"
    result = {"what": what, **where_measured(), "faiss": faiss.__version__, "rows": []}
    for size in SIZES:
        result["rows"].append(measure(queries, made_up(pages, size)))
        atomic_write(
            assets_folder() / "measured" / "latency.json", json.dumps(result, indent=1) + "\n"
        )
        print(result["rows"][-1], flush=True)


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m benchmarks.latency").parse_args()
    main()
