"""Score base and tuned model on the same queries and pages, with an interval for the gain.

    python evaluate.py --data data --finetuned finetuned
    python evaluate.py --finetuned tomaarsen/Qwen3-VL-Embedding-2B-vdr    # the published model

Both models search all pages of the eval side for every query of eval.jsonl: the pages that it
names and, of documents.py, all others of the same files. The scores are those of Sentence
Transformers' InformationRetrievalEvaluator, the interval is a bootstrap over queries. Written to --results/evaluation.json, from where publish.py takes the scores.

Needs: pip install "sentence-transformers[image]>=6"
"""

import argparse
import gc
import hashlib
import json
import os
from pathlib import Path

import numpy
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

PINNED = {"Qwen/Qwen3-VL-Embedding-2B": "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"}
DRAWS = 2000  # of the bootstrap


def is_text(query):
    """Whether a query is text: not missing, not blank, not what the library would open or fetch."""
    if not isinstance(query, str) or not query.strip():
        return False
    address = query.startswith(("http://", "https://", "data:")) and " " not in query.strip()
    return not address and not os.path.isfile(query)


def read_eval(data):
    """(queries, corpus, relevant pages, settings); the corpus holds each page once.

    Rows with the same query are one query with several right pages. Where documents.py has noted
    of which file each page is, all pages of the files that eval.jsonl names are searched.
    """
    if not (data / "manifest.json").exists():
        raise ValueError(f"no manifest.json in {data}: run prepare.py or documents.py to its end")
    settings = json.loads((data / "manifest.json").read_text(encoding="utf-8"))["settings"]
    right_pages, pages = {}, {}
    for i, line in enumerate((data / "eval.jsonl").open(encoding="utf-8")):
        row = json.loads(line)
        query = row.pop("query")
        if not is_text(query):
            raise ValueError(f"line {i + 1} of eval.jsonl has no text as its query: {query!r}")
        right_pages.setdefault(query, set()).add(row["image"])
        pages |= dict.fromkeys(row.values())
    if (data / "pages.jsonl").exists():
        known = [json.loads(line) for line in (data / "pages.jsonl").open(encoding="utf-8")]
        files = {page["file"] for page in known if page["image"] in pages}
        pages |= {page["image"]: None for page in known if page["file"] in files}
    queries = {f"q{i}": query for i, query in enumerate(right_pages)}
    relevant_docs = {f"q{i}": right for i, right in enumerate(right_pages.values())}
    corpus = {name: str(data / "pages" / name) for name in pages}
    missing = [name for name, path in corpus.items() if not Path(path).is_file()]
    if missing or not queries:
        raise ValueError(f"{data}: {len(queries)} queries; pages that are not there: {missing[:3]}")
    print(f"{len(queries)} queries, each searches {len(corpus)} pages")
    return queries, corpus, relevant_docs, settings


def model_key(source, revision):
    """A hash of a saved model's weights and settings; a model of the hub is its name."""
    digest = hashlib.sha256()
    for file in sorted(Path(source).rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16] if Path(source).is_dir() else f"{source}@{revision or 'main'}"


def encode(model, queries, corpus, batch_size):
    """Vectors of all queries and pages, float32 on the CPU."""
    options = {"batch_size": batch_size, "convert_to_tensor": True, "show_progress_bar": True}
    query_embeddings = model.encode_query(list(queries.values()), **options)
    page_embeddings = model.encode_document(list(corpus.values()), **options)
    return query_embeddings.float().cpu(), page_embeddings.float().cpu()


def ndcg_per_query(query_embeddings, page_embeddings, right_pages):
    """NDCG@10 of each query; `right_pages`: for each query, the columns of its right pages."""
    similarities = util.cos_sim(query_embeddings, page_embeddings)
    best_ten = similarities.topk(min(10, similarities.shape[1])).indices.tolist()
    gains, scores = 1 / numpy.log2(numpy.arange(2, 12)), []
    for places, right in zip(best_ten, right_pages, strict=True):
        found = [gain for gain, page in zip(gains, places, strict=False) if page in right]
        scores.append(sum(found) / gains[: len(right)].sum())
    return numpy.array(scores)


# The command


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def revision(text):
    """A commit, tag or branch of the hub; the word None, as programs print it, names none."""
    return None if text.lower() in ("", "none") else text


def folder(text):
    return Path(os.path.expandvars(text)).expanduser()


def model_source(text):
    """A folder, with ~ and $HOME expanded, or the id of a model on the hub."""
    if folder(text).is_dir():
        return str(folder(text))
    if text.count("/") != 1 or text.startswith(("~", ".", "/")):
        raise argparse.ArgumentTypeError(f"no folder {text!r}, and no hub id such as owner/name")
    return text


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", type=folder, default="data", help="of prepare.py or documents.py")
    option("--base-model", type=model_source, default="Qwen/Qwen3-VL-Embedding-2B")
    option("--base-revision", type=revision, help="default: for the published base, its commit")
    option("--finetuned", type=model_source, default="finetuned", help="default: finetuned")
    option("--finetuned-revision", type=revision, help="a commit, tag or branch of the hub")
    option("--results", type=folder, default="results", help="default: results")
    option("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    option("--truncate-dim", type=positive, help="score the first dimensions; default: all")
    option("--encode-batch-size", type=positive, default=16, help="default: 16")
    args = parser.parse_args()
    args.base_revision = args.base_revision or PINNED.get(args.base_model)
    return args


def main():
    args = read_arguments()
    queries, corpus, relevant_docs, settings = read_eval(args.data)
    size = {"shortest_edge": settings["min_pixels"], "longest_edge": settings["max_pixels"]}
    sources = {
        "base": (args.base_model, args.base_revision),
        "finetuned": (args.finetuned, args.finetuned_revision),
    }
    columns = {name: column for column, name in enumerate(corpus)}
    right_pages = [{columns[page] for page in pages} for pages in relevant_docs.values()]

    metrics, scores = {}, {}
    for name, (source, revision) in sources.items():
        model = SentenceTransformer(
            source,
            revision=revision,
            model_kwargs={"dtype": args.dtype},
            processor_kwargs={"size": size},
        )
        model.truncate_dim = args.truncate_dim  # a tuned model may have been saved with fewer
        embeddings = encode(model, queries, corpus, args.encode_batch_size)
        evaluator = InformationRetrievalEvaluator(
            queries, corpus, relevant_docs, batch_size=args.encode_batch_size, name="vdr-eval-hard"
        )
        metrics[name] = evaluator(model, corpus_embeddings=embeddings[1].to(model.device))
        scores[name] = ndcg_per_query(*embeddings, right_pages)
        dimensions = model.get_embedding_dimension()
        del model, evaluator  # one model in memory at a time; an evaluator holds on to the last one
        gc.collect()
        print(f"{name}: NDCG@10 {metrics[name]['vdr-eval-hard_cosine_ndcg@10']:.3f}")

    gain = scores["finetuned"] - scores["base"]
    draws = numpy.random.default_rng(0).integers(0, len(gain), size=(DRAWS, len(gain)))
    low, high = numpy.percentile(gain[draws].mean(axis=1), [2.5, 97.5])
    print(f"gain {gain.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}")
    results = metrics | {
        "gain": [gain.mean(), low, high],
        "queries": len(queries),
        "pages": len(corpus),
        "dimensions": dimensions,
        "model": model_key(*sources["finetuned"]),
    }
    args.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (args.results / "evaluation.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"evaluate.py: {error}") from error
