"""Serve an index that index.py has made: a question in, pages and their scores out, over HTTP.

    python serve.py --index index
    curl 127.0.0.1:8000/search --json '{"query": "How is the filter changed?", "top": 3}'

POST /search answers {"query", "top", "by"} with the best pages, GET /pages/NAME.png with a page's
picture, POST /v1/embeddings {"input"} with the model's vectors of queries, GET /health with what is
served. A query is text and nothing else: an address or a path in it is never opened. No query is
kept, unless --log names a file. The service knows neither users nor passwords: leave it on
127.0.0.1, behind a server that does. After index.py has run again, start it anew.

Needs: pip install fastapi uvicorn bm25s numpy; with page vectors also "sentence-transformers[image]"
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import socket
import time
import unicodedata
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import bm25s
import numpy
import uvicorn
from bm25s.stopwords import STOPWORDS_EN_PLUS, STOPWORDS_GERMAN
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

FORMAT = 1  # of the index
STOP_WORDS = {*STOPWORDS_EN_PLUS, *STOPWORDS_GERMAN}
K = 60  # of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)
LONGEST_QUERY = 1000  # characters
LONGEST_BODY = 64_000  # bytes of a request
MOST_PAGES = 100  # of an answer
MOST_QUERIES = 32  # of a request for vectors


# What is asked


def not_blank(text):
    if not text.strip():
        raise ValueError("the query is empty: send what the page should answer")
    return text


Query = Annotated[str, Field(max_length=LONGEST_QUERY), AfterValidator(not_blank)]


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")
    query: Query
    top: int = Field(10, ge=1, le=MOST_PAGES)
    by: Literal["both", "text", "pages"] | None = None  # both, where the index has page vectors


class Texts(BaseModel):
    """The part of OpenAI's embeddings request that is served here."""

    input: Query | Annotated[list[Query], Field(min_length=1, max_length=MOST_QUERIES)]
    model: str | None = None


def body_as(kind):
    """A dependency that reads a request's body as `kind`, and never more than LONGEST_BODY."""

    async def read(request: Request):
        body = b""
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > LONGEST_BODY:
                    raise HTTPException(413, f"the request is longer than {LONGEST_BODY:,} bytes")
        except ClientDisconnect as gone:
            raise HTTPException(400, "the request ended before its body did") from gone
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            told = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in found]
            raise HTTPException(422, "; ".join(told)) from error

    return read


# The index and its two searches, as search.py has them


# Chinese, Japanese and Korean, of which only the last has spaces, and endings on every word
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
RUN = re.compile(f"[{UNSPACED}]+|[^\\W_{UNSPACED}]+")


def words(text):
    """The words of a text: case, and how letters are written (é, ﬁ), make no difference.

    Where words have no spaces between them, every two neighbouring characters are one.
    """
    found = []
    for run in RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        pairs = [run[i : i + 2] for i in range(len(run) - 1)] if run[0] > "\u3000" else []
        found += pairs or [run]
    return found


def model_key(source, revision):
    """A hash of a saved model's weights and settings; a model of the hub is its name."""
    digest = hashlib.sha256()
    for file in sorted(Path(source).rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16] if Path(source).is_dir() else f"{source}@{revision or 'main'}"


def load_model(index, settings):
    """The model that made the index; ValueError where another one stands in its place."""
    from sentence_transformers import SentenceTransformer  # takes seconds, text search needs it not

    chosen, pages = settings["model"], settings["pages"]
    if model_key(chosen["source"], chosen["revision"]) != chosen["key"]:
        raise ValueError(f"{chosen['source']} is not what {index} was made with: make it anew")
    size = {"shortest_edge": pages["min_pixels"], "longest_edge": pages["max_pixels"]}
    return SentenceTransformer(
        chosen["source"],
        revision=chosen["revision"],
        truncate_dim=chosen["truncate_dim"],
        model_kwargs={"dtype": chosen["dtype"]},
        processor_kwargs={"size": size},
    )


def read_pages(index):
    """(settings, {image: rows of the pages that look so}) of an index; ValueError, as search.py."""
    note, lines = index / "index.json", index / "pages.jsonl"
    if not note.exists() or not lines.exists():
        raise ValueError(f"no finished index in {index}: make one with index.py first")
    pages = {}
    try:
        settings = json.loads(note.read_text(encoding="utf-8"))
        if settings["format"] != FORMAT:
            raise ValueError("another format")
        for line in lines.open(encoding="utf-8"):
            row = json.loads(line)
            if not {"file", "page", "title", "text"} <= row.keys():
                raise ValueError("half a row")
            pages.setdefault(row["image"], []).append(row)
        if not pages:
            raise ValueError("no page")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is damaged or has another format: delete it and run index.py again"
        ) from error
    return settings, pages


class Index:
    """An index in memory; ValueError where it is missing, stopped, damaged or another model's."""

    def __init__(self, folder):
        settings, self.pages = read_pages(folder)
        self.folder = folder
        texts = [
            words(" ".join(dict.fromkeys(f"{x['title']} {x['file']} {x['text']}" for x in rows)))
            for rows in self.pages.values()
        ]
        self.known = set().union(*texts)
        self.retriever = bm25s.BM25()
        self.retriever.index(texts, show_progress=False)
        self.model, self.name = None, None
        if settings["model"]:
            self.vectors = self.read_vectors()
            self.model, self.name = load_model(folder, settings), settings["model"]["source"]

    def read_vectors(self):
        try:
            with numpy.load(self.folder / "vectors.npz") as kept:
                column = {image: i for i, image in enumerate(kept["images"].tolist())}
                return kept["vectors"][[column[image] for image in self.pages]]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.folder} has not all page vectors: run index.py") from error

    def encode(self, queries):
        """Vectors of length 1 [queries, dimensions] of texts, whatever stands in them."""
        first = self.model[0]
        first = first.sub_modules["query"][0] if hasattr(first, "sub_modules") else first
        for token in getattr(self.model.tokenizer, "all_special_tokens", ()):
            if any(token in query for query in queries):
                raise HTTPException(422, f"{token} is a token of the model, not text: leave it out")
        if "image" in first.modalities:  # a bare address or path would be opened as an image
            queries = [{"text": query} for query in queries]
        return self.model.encode_query(queries, normalize_embeddings=True).astype("float32")

    def text_scores(self, query):
        asked = words(query)
        if not self.known.intersection(set(asked) - STOP_WORDS or asked):
            return numpy.full(len(self.pages), -numpy.inf)  # all that is found are words like "the"
        scores = self.retriever.get_scores([word for word in asked if word in self.known])
        return numpy.where(scores > 0, scores, -numpy.inf)

    def search(self, question):
        """The answer to a Question: by which search, and pages with their scores, best first."""
        by = question.by or ("both" if self.model else "text")
        if by != "text" and not self.model:
            raise HTTPException(422, 'the index has no page vectors: ask by "text"')
        rankings = [self.text_scores(question.query)] if by != "pages" else []
        if by != "text":
            rankings.append(self.vectors @ self.encode([question.query])[0])
        scores = fuse(rankings) if by == "both" else rankings[0]
        best = numpy.argsort(-scores, kind="stable")[: question.top]
        images, results = list(self.pages), []
        for i in best[numpy.isfinite(scores[best])].tolist():
            places = [{name: x[name] for name in ("file", "page")} for x in self.pages[images[i]]]
            found = {"score": float(scores[i]), "pages": places, "picture": f"/pages/{images[i]}"}
            results.append({"rank": len(results) + 1} | found)
        return {"by": by, "results": results}


def fuse(rankings):
    """Scores by reciprocal rank fusion of score lists; a score of minus infinity has no rank."""
    fused = numpy.zeros(len(rankings[0]))
    for scores in rankings:
        order = numpy.argsort(-scores, kind="stable")
        order = order[numpy.isfinite(scores[order])]
        fused[order] += 1 / (K + 1 + numpy.arange(len(order)))
    return fused


# The service


def make_app(index, log=None):
    """The service of an Index; `log`: a file, open for writing, that gets a line per query."""
    app = FastAPI(openapi_url=None)  # its page of documentation would load from elsewhere
    worker = ThreadPoolExecutor(
        max_workers=1
    )  # all requests wait in its queue, none computes twice

    def run(function, *arguments):
        return asyncio.get_running_loop().run_in_executor(worker, function, *arguments)

    def answer(question):
        begin = time.perf_counter()
        found = index.search(question)
        if log:
            spent = round(1000 * (time.perf_counter() - begin), 1)
            best = found["results"][0]["pages"][0] if found["results"] else None
            line = {"time": time.time(), "milliseconds": spent, "best": best}
            log.write(json.dumps(question.model_dump() | line) + "\n")
            log.flush()
        return found

    @app.post("/search")
    async def search(question: Annotated[Question, Depends(body_as(Question))]):
        return await run(answer, question)

    @app.post("/v1/embeddings")
    async def embeddings(texts: Annotated[Texts, Depends(body_as(Texts))]):
        if not index.model:
            raise HTTPException(422, "the index has no page vectors, and so no model")
        queries = [texts.input] if isinstance(texts.input, str) else texts.input
        vectors = await run(index.encode, queries)
        data = [{"index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]
        return {"object": "list", "model": index.name, "data": data}

    @app.get("/pages/{image}")
    def picture(image: str):
        file = index.folder / "pages" / image
        if image not in index.pages or not file.exists():
            raise HTTPException(404, "no page of the index has this picture")
        return FileResponse(file)

    @app.get("/health")
    async def health():
        return {"status": "ok", "pages": len(index.pages), "model": index.name}

    return app


# The command


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def folder(text):
    return Path(os.path.expandvars(text)).expanduser()


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--index", type=folder, default="index", help="of index.py; default: index")
    option("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    option("--port", type=positive, default=8000, help="default: 8000")
    option("--log", type=folder, help="a file that gets a line per query; default: none is kept")
    option("--waiting", type=positive, default=1000, help="requests, more get a 503; default: 1000")
    return parser.parse_args()


def check_port(host, port):
    """ValueError where nobody can be served there, which is known before a model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"cannot listen on {host}, port {port}: name another --port or --host ({error})"
        ) from error


def main():
    args = read_arguments()
    check_port(args.host, args.port)
    index = Index(args.index)
    log = args.log.open("a", encoding="utf-8") if args.log else None
    app = make_app(index, log)
    uvicorn.run(app, host=args.host, port=args.port, limit_concurrency=args.waiting)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"serve.py: {error}") from error
