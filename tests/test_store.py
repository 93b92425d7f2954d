"""The vector store of appendix a7: numpy's answers, a store that is in use, a killed process, a
server.
"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from pymilvus import DataType, MilvusClient

ROOT = Path(__file__).resolve().parent.parent
CLIENT = "import sys\nfrom pymilvus import MilvusClient\nclient = MilvusClient(sys.argv[1])\n"


@pytest.fixture(scope="module")
def vectors():
    made = numpy.random.default_rng(0).normal(size=(400, 16)).astype(numpy.float32)
    return made / numpy.linalg.norm(made, axis=1, keepdims=True)


def fill(client, vectors):
    """A collection as the notebooks make it: names, a field to filter by, two vectors, exact
    search.
    """
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("page_id", DataType.VARCHAR, max_length=100, is_primary=True)
    schema.add_field("document", DataType.VARCHAR, max_length=100)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=16)
    index_params = client.prepare_index_params()
    index_params.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("pages", schema=schema, index_params=index_params)
    rows = [
        {"page_id": f"p{i}", "document": f"d{i // 4}", "vector": vector}
        for i, vector in enumerate(vectors)
    ]
    client.insert("pages", rows)
    return rows


def ten_best(client, queries, **options):
    found = client.search("pages", list(queries), limit=10, output_fields=["page_id"], **options)
    return [[hit["page_id"] for hit in hits] for hits in found]


def numpys(queries, vectors):
    return [
        [f"p{i}" for i in row[:10]]
        for row in numpy.argsort(-(queries @ vectors.T), axis=1, kind="stable")
    ]


def in_another_process(path, code):
    """What ``code`` prints in a process that has opened the store at ``path`` as ``client``."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT + code, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory, vectors):
    """A store that another process has filled and left."""
    path = tmp_path_factory.mktemp("store") / "pages.db"
    client = MilvusClient(str(path))
    fill(client, vectors)
    client.flush("pages")
    return path, client


def test_the_ten_best_are_numpys_whole_cut_and_filtered(filled, vectors):
    client = filled[1]
    assert ten_best(client, vectors[:50]) == numpys(vectors[:50], vectors)
    assert ten_best(client, vectors[:5] + 0.3) != numpys(vectors[:5], vectors), (
        "other queries have other answers"
    )
    [only] = ten_best(client, vectors[:1], filter='document in ["d3", "d9"]')
    allowed = [12, 13, 14, 15, 36, 37, 38, 39]
    assert only == [f"p{allowed[i]}" for i in numpy.argsort(-(vectors[allowed] @ vectors[0]))]


def test_a_page_is_replaced_and_a_document_taken_out(tmp_path, vectors):
    client = MilvusClient(str(tmp_path / "other.db"))
    rows = fill(client, vectors)
    client.upsert("pages", [rows[0] | {"vector": vectors[7]}])
    assert set(ten_best(client, vectors[7:8])[0][:2]) == {"p0", "p7"}
    client.delete("pages", filter='document == "d0"')
    assert not {f"p{i}" for i in range(4)} & {
        page for best in ten_best(client, vectors[:20]) for page in best
    }
    assert (
        client.query("pages", filter="", output_fields=["count(*)"])[0]["count(*)"]
        == len(vectors) - 4
    )


def test_a_store_in_use_elsewhere_is_refused_in_the_words_of_the_appendix(filled):
    _, error = in_another_process(filled[0], "")
    last = error.strip().splitlines()[-1]
    assert "ConnectionConfigException" in last and "Open local milvus failed" in last
    assert filled[1].get_collection_stats("pages")["row_count"] == 400, (
        "the one that has it is not disturbed"
    )
    text = (ROOT / "notebooks" / "a7_store.ipynb").read_text(encoding="utf-8")
    assert "`ConnectionConfigException: Open local milvus failed`" in text


def test_what_was_inserted_outlives_a_kill(tmp_path):
    path = tmp_path / "killed.db"
    code = CLIENT + (
        "client.create_collection('pages', dimension=4)\n"
        "for i in range(1000):\n"
        "    client.insert('pages', [{'id': i, 'vector': [1.0, 0.0, 0.0, float(i)]}])\n"
        "    print(i, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    inserted = next(int(line) for line in child.stdout if line.strip() == "50")
    child.send_signal(signal.SIGKILL)
    child.wait()
    client = MilvusClient(str(path))
    client.load_collection("pages")
    there = client.query("pages", filter="id >= 0", output_fields=["id"], limit=2000)
    assert {row["id"] for row in there} >= set(range(inserted + 1))


def test_the_same_client_on_a_server(tmp_path, vectors):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "milvus_lite",
        "server",
        "--data-dir",
        str(tmp_path),
        "--host",
        "127.0.0.1",
    ]
    server = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with socket.socket() as knock:
                if not knock.connect_ex(("127.0.0.1", port)):
                    break
            assert server.poll() is None
            time.sleep(0.1)
        client = MilvusClient(f"http://127.0.0.1:{port}")
        fill(client, vectors)
        assert client.get_server_version().startswith("milvus_lite")
        assert ten_best(client, vectors[:50]) == numpys(vectors[:50], vectors)
        client.close()
    finally:
        server.kill()
        server.wait()


def test_the_arithmetic_of_docs_store():
    """Pages per machine, as docs/store.md computes them."""
    lines = [
        line
        for line in (ROOT / "docs" / "store.md").read_text().splitlines()
        if line.startswith(("| 1024", "| 2048", "| 256"))
    ]
    assert len(lines) == 5
    for line in lines:
        numbers, size, *millions = (float(cell) for cell in line.strip("|").split("|"))
        computed = [0.7 * gib * 2**30 / (numbers * size + 8) / 1e6 for gib in (16, 64, 256)]
        assert millions == pytest.approx(computed, abs=0.051)
