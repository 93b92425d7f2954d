"""The search service: a real server in a process of its own, asked by a real client, one request or
hundreds at once; and the golden vectors by which any server is checked.
"""

import asyncio
import base64
import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy
import psutil
import pytest
from sentence_transformers import SentenceTransformer, util
from test_scripts import call, part

ROOT = Path(__file__).resolve().parents[1]
TUNED = str(ROOT / "assets" / "tiny-finetuned")
GOLDEN = json.loads((ROOT / "assets" / "golden_vectors.json").read_text(encoding="utf-8"))
PAGES = {f"{i}.png": base64.b64decode(page["png"]) for i, page in enumerate(GOLDEN["pages"])}
TEXTS = ["Staff at Rowan Steel, 2011", "Exports: Basalt Textiles", "Complaints at Hazel Energy"]
QUERY = GOLDEN["queries"][0]["text"]


def save_index(folder, model=None, **changes):
    """An index as index.py lays it out: the golden pages, the second of them in two files."""
    (folder / "pages").mkdir(parents=True)
    settings = {"format": 1, "folder": "pdf", "model": None}
    settings["pages"] = {"min_pixels": 4096, "max_pixels": 40_000, "patch": 32}
    rows = []
    for number, (image, text) in enumerate(zip(PAGES, TEXTS, strict=True), start=1):
        (folder / "pages" / image).write_bytes(PAGES[image])
        row = {"file": f"{image}.pdf", "page": number, "image": image, "title": "", "text": text}
        rows += [row, row | {"file": "copy.pdf"}] if number == 2 else [row]
    if model:
        settings["model"] = {"source": model, "revision": None, "truncate_dim": None}
        settings["model"] |= {"dtype": "float32", "key": part("serve", "model_key")(model, None)}
        vectors = numpy.array([page["vector"] for page in GOLDEN["pages"]], dtype="float32")
        numpy.savez(folder / "vectors.npz", images=list(PAGES), vectors=vectors)
    (folder / "index.json").write_text(json.dumps(settings | changes), encoding="utf-8")
    (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def serving(index, *options):
    """(a client of a server in a process of its own, the process)."""
    port = free_port()
    command = [sys.executable, "-I", str(ROOT / "scripts" / "serve.py"), "--index", str(index)]
    process = subprocess.Popen(
        [*command, "--port", str(port), *map(str, options)],
        cwd=index.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    client.get("/health")
                    break
                assert process.poll() is None, "".join(said)
                time.sleep(0.2)
            client.said = said
            yield client, process
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return save_index(tmp_path_factory.mktemp("served") / "index", TUNED)


@pytest.fixture(scope="module")
def server(index):
    with serving(index) as started:
        yield started


@pytest.fixture(scope="module")
def client(server):
    return server[0]


@pytest.fixture(scope="module")
def model():
    return SentenceTransformer(TUNED, model_kwargs={"dtype": "float32"})


# The command lines, and an index that cannot be served


@pytest.mark.parametrize("name", ["serve", "golden"])
def test_help_shows_an_example(name, tmp_path):
    done = call(name, "--help", folder=tmp_path)
    assert done.status == 0 and f"python {name}.py" in done.said
    assert "Needs: pip install" in done.said and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "pages.jsonl").unlink(), "make one with index.py first"),
        (lambda folder: (folder / "index.json").write_text('{"format": 2}'), "another format"),
        (lambda folder: (folder / "index.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "pages.jsonl").write_text('{"file"'), "is damaged"),
        (lambda folder: (folder / "pages.jsonl").write_text('{"image": "0.png"}'), "is damaged"),
        (lambda folder: (folder / "pages.jsonl").write_text(""), "is damaged"),
        (lambda folder: (folder / "vectors.npz").unlink(), "has not all page vectors"),
        (lambda folder: (folder / "vectors.npz").write_bytes(b"PK"), "has not all page vectors"),
    ],
)
def test_an_index_that_is_not_whole_is_refused(damage, message, tmp_path):
    damage(save_index(tmp_path / "index", TUNED))
    done = call("serve", "--index", "index", folder=tmp_path)
    assert done.status == 1 and done.said.startswith("serve.py: ") and message in done.said


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call("serve", "--index", "nowhere", "--port", port, folder=tmp_path)
    assert done.status == 1 and f"cannot listen on 127.0.0.1, port {port}" in done.said
    assert "name another --port" in done.said
    done = call("serve", "--index", "nowhere", "--port", 70_000, folder=tmp_path)
    assert done.status == 1 and "name another --port" in done.said


def test_words_like_the_alone_find_nothing_as_in_search(tmp_path):
    index = part("serve", "Index")(save_index(tmp_path / "index"))
    question = part("serve", "Question")
    assert index.search(question(query="Where at is the zebra?"))["results"] == []
    assert len(index.search(question(query="at"))["results"]) == 2, "nothing else was asked"


def test_a_client_that_hangs_up_leaves_no_traceback(tmp_path):
    with serving(save_index(tmp_path / "index")) as (client, _):
        port = client.base_url.port
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as half:
                half.sendall(b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert client.post("/search", json={"query": "staff"}).status_code == 200
        time.sleep(0.5)
        said = client.said
    assert "Traceback" not in "".join(said), said


def test_an_index_of_another_model_is_refused_by_name(tmp_path):
    folder = save_index(tmp_path / "index", TUNED)
    settings = json.loads((folder / "index.json").read_text())
    settings["model"]["key"] = "of another model"
    (folder / "index.json").write_text(json.dumps(settings))
    done = call("serve", "--index", "index", folder=tmp_path)
    assert done.status == 1 and f"{TUNED} is not what index was made with" in done.said


# A server without a model: text search, and the query log


@pytest.mark.slow
def test_text_search_needs_no_model_and_logs_only_where_a_file_is_named(tmp_path):
    index = save_index(tmp_path / "index")
    before = sorted(tmp_path.rglob("*"))
    with serving(index) as (client, _):
        found = client.post("/search", json={"query": "exports of BASALT"}).json()
        assert found["by"] == "text" and [hit["rank"] for hit in found["results"]] == [1]
        assert [place["file"] for place in found["results"][0]["pages"]] == [
            "1.png.pdf",
            "copy.pdf",
        ]
        assert client.post("/search", json={"query": "nothing like it"}).json()["results"] == []
        refused = client.post("/search", json={"query": "exports", "by": "pages"})
        assert refused.status_code == 422 and "no page vectors" in refused.json()["detail"]
        assert client.get("/health").json() == {"status": "ok", "pages": 3, "model": None}
    assert sorted(tmp_path.rglob("*")) == before
    with serving(index, "--log", tmp_path / "queries.log") as (client, _):
        client.post("/search", json={"query": "exports", "top": 1})
        client.post("/search", json={"query": ""})  # refused, and so not kept
    [line] = (tmp_path / "queries.log").read_text(encoding="utf-8").splitlines()
    kept = json.loads(line)
    assert (kept["query"], kept["top"]) == ("exports", 1)
    assert kept["best"] == {"file": "1.png.pdf", "page": 2} and kept["milliseconds"] >= 0


# A server with the tuned tiny model


@pytest.mark.slow
def test_health_says_what_is_served(client):
    assert client.get("/health").json() == {"status": "ok", "pages": 3, "model": TUNED}


@pytest.mark.slow
@pytest.mark.parametrize("query", [item["text"] for item in GOLDEN["queries"]])
def test_scores_are_those_of_the_library(client, model, query):
    found = client.post("/search", json={"query": query, "by": "pages"}).json()["results"]
    pages = numpy.array([page["vector"] for page in GOLDEN["pages"]])
    expected = model.similarity(model.encode_query(query), pages.astype("float32"))[0].tolist()
    scores = {hit["picture"].removeprefix("/pages/"): hit["score"] for hit in found}
    assert scores == pytest.approx(dict(zip(PAGES, expected, strict=True)), abs=1e-5)
    assert [hit["score"] for hit in found] == pytest.approx(sorted(expected)[::-1], abs=1e-5)


@pytest.mark.slow
def test_fused_scores_are_the_sum_over_both_rankings(client):
    def order(by):
        found = client.post("/search", json={"query": QUERY, "by": by}).json()
        return {hit["picture"]: hit for hit in found["results"]}

    text, pages, both = order("text"), order("pages"), order("both")
    assert text.keys() < pages.keys() == both.keys()  # not every page has a word of the query
    for picture, hit in both.items():
        ranks = [found[picture]["rank"] for found in (text, pages) if picture in found]
        assert hit["score"] == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert client.post("/search", json={"query": QUERY}).json()["by"] == "both"


@pytest.mark.slow
def test_a_picture_of_an_answer_is_served_and_no_other_file(client, index):
    for image, data in PAGES.items():
        assert client.get(f"/pages/{image}").content == data
    for name in ("..%2findex.json", "%2e%2e%2findex.json", "index.json", "3.png"):
        assert client.get(f"/pages/{name}").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"query", 422, "Invalid JSON"),
        (b"{}", 422, "query: Field required"),
        (b'{"query": "  "}', 422, "the query is empty"),
        (b'{"query": 3}', 422, "query: Input should be a valid string"),
        (b'{"query": "pump", "url": "x"}', 422, "url: Extra inputs are not permitted"),
        (b'{"query": "pump", "top": 0}', 422, "top: Input should be greater than or equal to 1"),
        (b'{"query": "pump", "top": 101}', 422, "top: Input should be less than or equal to 100"),
        (b'{"query": "pump", "by": "ocr"}', 422, "by: Input should be 'both', 'text' or 'pages'"),
        (b'{"query": "\\ud800"}', 422, "Invalid JSON"),
        (b'{"query": "\xff"}', 422, "Invalid JSON"),
        (b'{"query": "<|image_pad|>"}', 422, "<|image_pad|> is a token of the model"),
        (json.dumps({"query": "a" * 1001}).encode(), 422, "at most 1000 characters"),
        (json.dumps({"query": "a" * 100_000}).encode(), 413, "longer than 64,000 bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(client, body, status, message):
    answer = client.post("/search", content=body)
    assert answer.status_code == status and message in answer.json()["detail"]
    assert client.get("/health").status_code == 200


@pytest.mark.slow
def test_a_body_without_end_is_refused_before_it_is_read(client):
    sent = []

    def endless():
        for _ in range(2000):
            sent.append(1)
            yield b" " * 50_000

    try:
        assert client.post("/search", content=endless()).status_code == 413
    except httpx.TransportError:
        assert len(sent) < 2000  # the server has hung up while the client still sends
    assert client.get("/health").status_code == 200


@pytest.mark.slow
def test_an_address_or_a_path_in_a_query_is_text(client, model, index):
    asked = []

    class Counting(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGES["0.png"])

        def log_message(self, *arguments):
            pass

    counting = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=counting.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{counting.server_port}/page.png"
    inline = f"data:image/png;base64,{base64.b64encode(PAGES['0.png']).decode()[:900]}"
    for query in (address, str(index / "pages" / "0.png"), inline, f"{address}?x=.mp4"):
        body = {"query": query, "by": "pages"}
        scores = [hit["score"] for hit in client.post("/search", json=body).json()["results"]]
        vector = client.post("/v1/embeddings", json={"input": query}).json()["data"][0]["embedding"]
        as_text = model.encode_query({"text": query})
        assert vector == pytest.approx(as_text.tolist(), abs=1e-5)
        assert max(scores) < 0.99  # as an image, the page would find itself
    assert asked == []
    with contextlib.suppress(ValueError):  # what is guarded against: the library fetches it
        model.encode_query(address)
    assert asked == ["/page.png"]
    counting.shutdown()


@pytest.mark.slow
def test_hundreds_of_requests_at_once_are_all_answered_and_memory_stays_flat(server):
    client, process = server
    queries = [
        f"{GOLDEN['queries'][i % 3]['text']} {i} {'and more ' * (i % 40)}" for i in range(300)
    ]

    async def ask_all():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=client.base_url, limits=limits, timeout=300) as many:
            bodies = [{"query": query, "by": "pages", "top": 3} for query in queries]
            return await asyncio.gather(*(many.post("/search", json=body) for body in bodies))

    sizes = []
    for _ in range(3):
        answers = asyncio.run(ask_all())
        assert [answer.status_code for answer in answers] == [200] * 300
        sizes.append(psutil.Process(process.pid).memory_info().rss / 2**20)
    for i in (0, 7, 299):  # each has its own answer
        alone = client.post("/search", json={"query": queries[i], "by": "pages", "top": 3})
        assert alone.json() == answers[i].json()
    assert sizes[2] - sizes[0] < 30, f"memory grows: {sizes} MiB"


# Golden vectors


def test_golden_vectors_are_those_of_the_shipped_model(model):
    found = model.encode_query([item["text"] for item in GOLDEN["queries"]])
    assert found == pytest.approx(numpy.array([x["vector"] for x in GOLDEN["queries"]]), abs=1e-5)


def check_golden(url, *options, folder):
    file = ROOT / "assets" / "golden_vectors.json"
    return call("golden", "check", file, "--url", url, *options, folder=folder)


@pytest.mark.slow
def test_the_server_has_the_golden_vectors(client, tmp_path):
    done = check_golden(client.base_url, folder=tmp_path)
    assert done.status == 0 and done.said.count("ok ") == len(GOLDEN["queries"])


@contextlib.contextmanager
def another_server(encode):
    """The address of a server of embeddings, where ``encode(body)`` makes the vector."""

    class Embeddings(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"data": [{"embedding": encode(body).tolist()}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Embeddings)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def encode_messages(model, body, tmp_path):
    """What a server makes of a chat request: the text or the picture of its one message."""
    assert body["add_generation_prompt"] is True
    [*system, user] = body["messages"]
    assert [message["role"] for message in system] == ["system"]
    assert system[0]["content"] == [{"type": "text", "text": "Represent the user's input."}]
    [part] = user["content"]
    if part["type"] == "text":
        return model.encode_query({"text": part["text"]})
    file = tmp_path / "sent.png"
    file.write_bytes(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
    return model.encode_document(str(file))


def test_pages_are_checked_by_a_server_of_messages(model, tmp_path):
    with another_server(lambda body: encode_messages(model, body, tmp_path)) as url:
        options = ("--as", "messages", "--instruction", "Represent the user's input.")
        done = check_golden(url, *options, folder=tmp_path)
    assert done.status == 0 and done.said.count("ok ") == len(GOLDEN["queries"]) + len(PAGES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda vector: vector[:64], "64 dimensions, expected 256"),
        (lambda vector: 0.7 * vector, "length 0.7000"),
        (lambda vector: vector[::-1].copy(), "chat template"),
    ],
)
def test_a_server_that_differs_is_told_how(model, wrong, message, tmp_path):
    with another_server(lambda body: wrong(model.encode_query({"text": body["input"]}))) as url:
        done = check_golden(url, folder=tmp_path)
    assert done.status == 1 and message in done.said
    assert f"{len(GOLDEN['queries'])} vectors are off" in done.said


def test_no_server_is_told_in_one_line(tmp_path):
    done = check_golden(f"http://127.0.0.1:{free_port()}", folder=tmp_path)
    assert done.status == 1 and done.said.startswith("golden.py: no answer from http://127.0.0.1")


def test_own_golden_vectors_are_made_of_queries_and_pages(model, tmp_path):
    (tmp_path / "queries.txt").write_text("Which pump?\n\nhttp://127.0.0.1:9/a.png\n")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.png").write_bytes(PAGES["1.png"])
    options = (
        "--model",
        TUNED,
        "--queries",
        "queries.txt",
        "--pages",
        "pages",
        "--truncate-dim",
        64,
    )
    done = call("golden", "make", *options, folder=tmp_path)
    assert done.status == 0 and "2 queries and 1 pages in golden.json" in done.said
    made = json.loads((tmp_path / "golden.json").read_text())
    vectors = numpy.array([made["queries"][0]["vector"], made["pages"][0]["vector"]])
    assert vectors.shape == (2, 64)
    assert numpy.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)  # cut, then normalised
    whole = numpy.array(GOLDEN["pages"][1]["vector"][:64])
    assert util.cos_sim(whole, vectors[1]).item() == pytest.approx(1, abs=1e-5)
