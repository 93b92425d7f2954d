"""Ask an index that index.py has made: the pages that answer a question, best first.

    python search.py "How is the filter changed?" --index index
    python search.py "Wie wird der Filter gewechselt?" --index index --by text --top 3

Two searches are made where the index has page vectors: by the words of the question (BM25), and by
the model. They are fused by rank: a page scores the sum of 1 / (60 + its rank) in both. Printed are
rank, score, file and page, and the picture of the page. A question is text and nothing else: an
address or a path in it is never opened.

Needs: pip install bm25s numpy; with page vectors also "sentence-transformers[image]"
"""

import argparse
import hashlib
import json
import os
import re
import sys
import unicodedata
import zipfile
from pathlib import Path

import bm25s
import numpy
from bm25s.stopwords import STOPWORDS_EN_PLUS, STOPWORDS_GERMAN

FORMAT = 1  # of the index
STOP_WORDS = {*STOPWORDS_EN_PLUS, *STOPWORDS_GERMAN}
K = 60  # of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)


# The index


def read_index(index):
    """(settings, rows of pages) of an index; ValueError where it is missing, stopped or damaged."""
    note, lines = index / "index.json", index / "pages.jsonl"
    if not note.exists():
        raise ValueError(f"no index in {index}: make one with index.py first")
    if not lines.exists():
        raise ValueError(f"{index} is not finished: run index.py again")
    try:
        settings = json.loads(note.read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in lines.open(encoding="utf-8")]
        whole = all({"file", "page", "image", "title", "text"} <= row.keys() for row in rows)
        if settings["format"] != FORMAT or not whole or not rows:
            raise ValueError("another format")
        return settings, rows
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged: delete it and run index.py again") from error


def read_vectors(index, images):
    """The vectors of these images [images, dimensions], in their order."""
    try:
        with numpy.load(index / "vectors.npz") as kept:
            column = {image: i for i, image in enumerate(kept["images"].tolist())}
            return kept["vectors"][[column[image] for image in images]]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{index} has not all page vectors: run index.py again") from error


def by_image(rows):
    """{image: rows of its pages}: equal pages have one picture, and are one answer."""
    found = {}
    for row in rows:
        found.setdefault(row["image"], []).append(row)
    return found


# The two searches, each a score for every image


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


def text_scores(query, pages):
    """BM25 of the query's words in text, title and file name of each image; 0 where none is."""
    texts = [
        words(" ".join(dict.fromkeys(f"{x['title']} {x['file']} {x['text']}" for x in rows)))
        for rows in pages.values()
    ]
    asked, known = words(query), set().union(*texts)
    if missing := [word for word in dict.fromkeys(asked) if word not in known]:
        print("on no page:", ", ".join(missing), file=sys.stderr)
    if not known.intersection(set(asked) - STOP_WORDS or asked):
        return numpy.zeros(len(texts))  # all that is found are words like "the"
    retriever = bm25s.BM25()
    retriever.index(texts, show_progress=False)
    return retriever.get_scores([word for word in asked if word in known])


def model_key(source, revision):
    """A hash of a saved model's weights and settings; a model of the hub is its name."""
    digest = hashlib.sha256()
    for file in sorted(Path(source).rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16] if Path(source).is_dir() else f"{source}@{revision or 'main'}"


def page_scores(query, index, settings, images):
    """Cosine similarity of the query's vector to each image's."""
    from sentence_transformers import SentenceTransformer  # takes seconds, text search needs it not

    vectors = read_vectors(index, images)
    chosen, pages = settings["model"], settings["pages"]
    if model_key(chosen["source"], chosen["revision"]) != chosen["key"]:
        raise ValueError(f"{chosen['source']} is not what {index} was made with: make it anew")
    model = SentenceTransformer(
        chosen["source"],
        revision=chosen["revision"],
        truncate_dim=chosen["truncate_dim"],
        model_kwargs={"dtype": chosen["dtype"]},
        processor_kwargs={
            "size": {"shortest_edge": pages["min_pixels"], "longest_edge": pages["max_pixels"]}
        },
    )
    first = model[0].sub_modules["query"][0] if hasattr(model[0], "sub_modules") else model[0]
    for token in getattr(model.tokenizer, "all_special_tokens", ()):
        if token in query:
            raise ValueError(f"{token} is a token of the model, not text: leave it out")
    if "image" in first.modalities:  # a bare address or path would be opened as an image
        query = {"text": query}
    return vectors @ model.encode_query(query, normalize_embeddings=True).astype("float32")


def fuse(rankings):
    """Scores by reciprocal rank fusion of score lists; a score of minus infinity has no rank."""
    fused = numpy.zeros(len(rankings[0]))
    for scores in rankings:
        order = numpy.argsort(-scores, kind="stable")
        order = order[numpy.isfinite(scores[order])]
        fused[order] += 1 / (K + 1 + numpy.arange(len(order)))
    return fused


def search(query, index, by=None, top=10):
    """The best images, as a list of (score, rows of the pages that look so)."""
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"expected a question in words, found {query!r}")
    settings, rows = read_index(index)
    if by in (None, "both") and not settings["model"]:
        print("by text only: the index has no page vectors", file=sys.stderr)
    if by == "pages" and not settings["model"]:
        raise ValueError(f"{index} has no page vectors: run index.py with --model")
    pages = by_image(rows)
    rankings = []
    if by != "pages":
        scores = text_scores(query, pages)
        rankings.append(numpy.where(scores > 0, scores, -numpy.inf))
    if by != "text" and settings["model"]:
        rankings.append(page_scores(query, index, settings, list(pages)))
    scores = fuse(rankings) if len(rankings) == 2 else rankings[0]
    best = numpy.argsort(-scores, kind="stable")[:top]
    images = list(pages.values())
    return [(scores[i], images[i]) for i in best if numpy.isfinite(scores[i])]


# The command


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def folder(text):
    return Path(os.path.expandvars(text)).expanduser()


def clean(text):
    """Text without bytes that are no UTF-8, which a terminal hands on as halves of letters."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("query", type=clean, help="what the page should answer")
    option("--index", type=folder, default="index", help="of index.py; default: index")
    option("--by", choices=("both", "text", "pages"), help="default: both, where both are there")
    option("--top", type=positive, default=10, help="pages to print; default: 10")
    return parser.parse_args()


def main():
    args = read_arguments()
    found = search(args.query, args.index, args.by, args.top)
    if not found:
        raise ValueError("no page has a word of the question: ask in the documents' own words")
    for rank, (score, rows) in enumerate(found, start=1):
        places = "; ".join(f"{row['file']}, page {row['page']}" for row in rows)
        print(f"{rank:>3}  {score:.4f}  {places}  {args.index / 'pages' / rows[0]['image']}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"search.py: {error}") from error
