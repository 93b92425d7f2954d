"""Measure what each length of a vector costs, which step down is more than noise, and choose one.

    python truncate.py --data data --finetuned finetuned --dims 2048 1024 512 256

A vector that was trained with MatryoshkaLoss can be cut to its first dimensions. Queries and pages
are encoded once at full length, then scored at each. Intervals are bootstraps over queries; a step
is tested by permutation, adjusted for the number of steps. Written to --results/truncation.json.

Needs: pip install "sentence-transformers[image]>=6" pandas scipy
"""

import argparse
import gc
import hashlib
import json
import os
from itertools import pairwise, takewhile
from pathlib import Path

import numpy
import pandas
from scipy.stats import false_discovery_control, permutation_test
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

PINNED = {"Qwen/Qwen3-VL-Embedding-2B": "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"}
DRAWS = 2000  # of the bootstrap
LIMITS = (0.01, 0.03, 0.10)  # shares of NDCG@10 that one may be willing to lose


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


def mean_difference(before, after, axis):
    return (before - after).mean(axis=axis)


def interval(values, draws):
    """The mean of `values` and its 95 % interval."""
    low, high = numpy.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def steps_table(scores, draws):
    """For each step down: the change of NDCG@10 with its interval, and whether that is noise."""
    steps = list(pairwise(scores))
    kind = {"permutation_type": "samples", "vectorized": True, "rng": 0}
    p_values = [
        permutation_test((scores[wide], scores[narrow]), mean_difference, **kind).pvalue
        for wide, narrow in steps
    ]
    table = pandas.DataFrame(index=[f"{wide:,} to {narrow:,}" for wide, narrow in steps])
    table["change of NDCG@10"] = [interval(scores[b] - scores[a], draws) for a, b in steps]
    table["p, adjusted"] = [f"{p:.3f}" for p in false_discovery_control(p_values)]
    return table


def smallest_within(limit, losses):
    """The last length before the first that loses more than `limit`; the widest loses nothing."""
    widest, *dims = losses
    return [widest, *takewhile(lambda dim: losses[dim] <= limit, dims)][-1]


def choice_table(scores, draws):
    """For each limit, the smallest length that keeps it: by the mean, and with 95 % confidence."""
    widest = next(iter(scores.values()))
    means = {dim: 1 - values.mean() / widest.mean() for dim, values in scores.items()}
    drawn = {dim: values[draws].mean(axis=1) for dim, values in scores.items()}
    widest = next(iter(drawn.values()))
    at_most = {dim: numpy.percentile(1 - values / widest, 95) for dim, values in drawn.items()}
    table = pandas.DataFrame(index=pandas.Index([f"{x:.0%}" for x in LIMITS], name="lose at most"))
    table["by the mean"] = [smallest_within(limit, means) for limit in LIMITS]
    table["with 95 % confidence"] = [smallest_within(limit, at_most) for limit in LIMITS]
    return table


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
    dims = [2048, 1536, 1024, 512, 256, 128, 64]
    option("--dims", type=positive, nargs="+", default=dims, help="default: 2048 ... 64")
    option("--encode-batch-size", type=positive, default=16, help="default: 16")
    args = parser.parse_args()
    args.base_revision = args.base_revision or PINNED.get(args.base_model)
    args.dims = sorted(set(args.dims), reverse=True)
    if len(args.dims) < 2:
        parser.error("--dims needs two lengths at least")
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
            truncate_dim=args.dims[0],
            model_kwargs={"dtype": args.dtype},
            processor_kwargs={"size": size},
        )
        if model.get_embedding_dimension() < args.dims[0]:
            found = model.get_embedding_dimension()
            raise ValueError(f"--dims starts with {args.dims[0]}, {name} has {found} dimensions")
        embeddings = encode(model, queries, corpus, args.encode_batch_size)
        metrics[name], scores[name] = {}, {}
        for dim in args.dims:
            cut = [vectors[:, :dim] for vectors in embeddings]
            evaluator = InformationRetrievalEvaluator(
                queries, corpus, relevant_docs, truncate_dim=dim, name=f"{dim}d"
            )
            found = evaluator(model, corpus_embeddings=cut[1].to(model.device))
            metrics[name][dim] = found[f"{dim}d_cosine_ndcg@10"]
            scores[name][dim] = ndcg_per_query(*cut, right_pages)
        del model, evaluator  # one model in memory at a time; an evaluator holds on to the last one
        gc.collect()

    table = pandas.DataFrame(metrics).rename_axis("dimensions")
    draws = numpy.random.default_rng(0).integers(0, len(queries), size=(DRAWS, len(queries)))
    print("NDCG@10", table.round(3), "", steps_table(scores["finetuned"], draws), "", sep="\n")
    print(choice_table(scores["finetuned"], draws))
    results = metrics | {
        "queries": len(queries),
        "pages": len(corpus),
        "model": model_key(*sources["finetuned"]),
    }
    args.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (args.results / "truncation.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"truncate.py: {error}") from error
