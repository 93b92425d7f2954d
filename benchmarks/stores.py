"""Two embedded vector stores on the same vectors: ``python -m benchmarks.stores`` (about two
minutes; appendix a7 shows it).

Milvus Lite and the local mode of Qdrant, 20,000 vectors between two pages of the tuned ``tiny``
model (``benchmarks.latency.made_up``): seconds to fill, milliseconds per query, whether the ten
best are numpy's, and bytes on disk. Qdrant is not a dependency of the course: ``pip install
qdrant-client==1.20.0`` first. Writes ``assets/measured/stores.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

from benchmarks.latency import brute_force, made_up, milliseconds, tuned_vectors
from benchmarks.where import where_measured
from vdr_helpers.cache import atomic_write
from vdr_helpers.machine import quiet_progress_bars
from vdr_helpers.profiles import assets_folder, load_profile

COUNT, BATCH = 20_000, 1_000

# else an idle client's pings end in messages
QUIET = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": 0}


class Milvus:
    package = "milvus-lite"

    def __init__(self, folder: Path, width: int) -> None:
        self.client = MilvusClient(str(folder / "pages.db"), grpc_options=QUIET)
        if not self.client.has_collection("pages"):
            schema = MilvusClient.create_schema(auto_id=False)
            schema.add_field("page", DataType.INT64, is_primary=True)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
            index = self.client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="COSINE")
            self.client.create_collection("pages", schema=schema, index_params=index)

    def add(self, begin: int, vectors: numpy.ndarray) -> None:
        self.client.insert(
            "pages", [{"page": begin + i, "vector": vector} for i, vector in enumerate(vectors)]
        )

    def finish(self) -> None:
        self.client.flush("pages")

    def search(self, query: numpy.ndarray) -> list[int]:
        [hits] = self.client.search("pages", [query], limit=10, output_fields=["page"])
        return [hit["page"] for hit in hits]


class Qdrant:
    package = "qdrant-client"

    def __init__(self, folder: Path, width: int) -> None:
        self.client = QdrantClient(path=str(folder))
        if not self.client.collection_exists("pages"):
            vectors = models.VectorParams(size=width, distance=models.Distance.COSINE)
            self.client.create_collection("pages", vectors_config=vectors)

    def add(self, begin: int, vectors: numpy.ndarray) -> None:
        points = [
            models.PointStruct(id=begin + i, vector=vector.tolist())
            for i, vector in enumerate(vectors)
        ]
        self.client.upsert("pages", points)

    def finish(self) -> None:
        self.client.close()

    def search(self, query: numpy.ndarray) -> list[int]:
        return [
            point.id
            for point in self.client.query_points("pages", query=query.tolist(), limit=10).points
        ]


def measure(kind, queries: numpy.ndarray, vectors: numpy.ndarray) -> dict:
    """Fill one store, close it, and search it with a new client."""
    with tempfile.TemporaryDirectory() as name:
        folder, started = Path(name), time.perf_counter()
        store = kind(folder, vectors.shape[1])
        for begin in range(0, len(vectors), BATCH):
            store.add(begin, vectors[begin : begin + BATCH])
        store.finish()
        filled = time.perf_counter() - started
        store = kind(folder, vectors.shape[1])
        right = [set(brute_force(query, vectors).tolist()) for query in queries[:50]]
        return {
            "version": version(kind.package),
            "fill_seconds": round(filled, 1),
            "query_ms": round(milliseconds(store.search, queries), 1),
            "queries_with_numpys_ten_best": sum(
                set(store.search(query)) == best
                for query, best in zip(queries[:50], right, strict=True)
            ),
            "queries_compared": len(right),
            "disk_mb": round(
                sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 1
            ),
        }


def main() -> None:
    quiet_progress_bars()
    queries, pages = tuned_vectors(load_profile("tiny"))
    vectors = made_up(pages, COUNT)
    what = f"{COUNT:,} vectors of {vectors.shape[1]} dimensions, cosine, exact search, times of one run"
    result = {"what": what, **where_measured(), "stores": {}}
    for name, kind in (("Milvus Lite", Milvus), ("Qdrant, local mode", Qdrant)):
        result["stores"][name] = measure(kind, queries, vectors)
        print(name, result["stores"][name], flush=True)
    atomic_write(assets_folder() / "measured" / "stores.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m benchmarks.stores").parse_args()
    main()
