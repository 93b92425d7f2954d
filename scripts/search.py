"""Search pages: keep their vectors in a store on disk, then ask.

    python search.py index --data data --model published --index index
    python search.py ask "How is the filter changed?" --index index

`index` embeds all pages of a folder that prepare.py or documents.py has made, and when called again
only those that are new; pages that are gone leave the index. `ask` prints the best pages, by file
and page number where documents.py has noted them. The store is Milvus in its embedded form, which
one process at a time has open.

Needs: pip install "sentence-transformers[image]" pymilvus milvus-lite
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

from pymilvus import DataType, MilvusClient
from sentence_transformers import SentenceTransformer

COLLECTION = "pages"
CHUNK = 500  # rows per insertion


def model_key(source):
    """A hash of a saved model's weights and settings; a model of the hub is its name."""
    digest = hashlib.sha256()
    for file in sorted(Path(source).rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16] if Path(source).is_dir() else source


def load_model(settings):
    size = {"shortest_edge": settings["min_pixels"], "longest_edge": settings["max_pixels"]}
    return SentenceTransformer(
        settings["model"],
        revision=settings["revision"],
        truncate_dim=settings["truncate_dim"],
        model_kwargs={"dtype": settings["dtype"]},
        processor_kwargs={"size": size},
    )


def page_names(data):
    """{page: where it is from}, as documents.py notes it; empty for other data."""
    names, file = {}, data / "pages.jsonl"
    if file.exists():
        for line in file.open(encoding="utf-8"):
            row = json.loads(line)
            names.setdefault(row["image"], []).append(f"{row['file']}, page {row['page']}")
    return names


def open_store(index, width):
    """The store of an index, with an empty collection if it is new."""
    client = MilvusClient(str(index / "pages.db"))
    if not client.has_collection(COLLECTION):
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("page", DataType.VARCHAR, max_length=100, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        params = client.prepare_index_params()
        params.add_index("vector", index_type="FLAT", metric_type="COSINE")  # exact
        client.create_collection(COLLECTION, schema=schema, index_params=params)
    client.load_collection(COLLECTION)
    return client


def check_settings(index, settings):
    """ValueError where `index` is no index, or one that was made with other settings."""
    note = index / "index.json"
    if not note.exists():
        if index.exists() and any(index.iterdir()):
            raise ValueError(f"{index} is not empty and holds no index: name another with --index")
        return
    there = json.loads(note.read_text(encoding="utf-8"))
    different = [name for name, value in settings.items() if there.get(name) != value]
    if different:
        different = ", ".join(different)
        raise ValueError(f"{index} was made with another {different}: name another with --index")


def build(args):
    """Make the index, or bring it up to date with the folder of pages."""
    if not (args.data / "manifest.json").exists():
        raise ValueError(
            f"{args.data} has no manifest.json: make it with prepare.py or documents.py"
        )
    manifest = json.loads((args.data / "manifest.json").read_text(encoding="utf-8"))
    settings = {name: manifest["settings"][name] for name in ("min_pixels", "max_pixels")}
    for name in ("model", "revision", "truncate_dim", "dtype"):
        settings[name] = getattr(args, name)
    settings["key"] = model_key(args.model)
    check_settings(args.index, settings)
    pages = {file.name: str(file) for file in sorted((args.data / "pages").glob("*.png"))}
    if not pages:
        raise ValueError(f"{args.data} holds no pages")

    model = load_model(settings)
    args.index.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, indent=1)
    (args.index / "index.json").write_text(text, encoding="utf-8")
    client = open_store(args.index, model.get_embedding_dimension())
    found = client.query(COLLECTION, filter='page != ""', output_fields=["page"])
    there = {row["page"] for row in found}
    new, gone = sorted(pages.keys() - there), sorted(there - pages.keys())
    if gone:
        client.delete(COLLECTION, ids=gone)
    for begin in range(0, len(new), CHUNK):
        chunk = new[begin : begin + CHUNK]
        paths = [pages[name] for name in chunk]
        vectors = model.encode_document(paths, batch_size=args.encode_batch_size)
        rows = zip(chunk, vectors.astype("float32"), strict=True)
        client.insert(COLLECTION, [{"page": page, "vector": vector} for page, vector in rows])
        print(f"{begin + len(chunk)} of {len(new)} new pages")
    (args.index / "names.json").write_text(json.dumps(page_names(args.data)), encoding="utf-8")
    print(f"{len(pages)} pages in {args.index}: {len(new)} new, {len(gone)} removed")


def ask(args):
    """Print the best pages for a query."""
    note = args.index / "index.json"
    if not note.exists():
        raise ValueError(f"no index in {args.index}: make one with `search.py index` first")
    for name in ("pages.db", "names.json"):
        if not (args.index / name).exists():
            raise ValueError(
                f"{args.index} has no {name}: bring it up to date with `search.py index`"
            )
    settings = json.loads(note.read_text(encoding="utf-8"))
    if model_key(settings["model"]) != settings["key"]:
        raise ValueError(
            f"{settings['model']} was changed since {args.index} was made: make it anew"
        )
    names = json.loads((args.index / "names.json").read_text(encoding="utf-8"))
    model = load_model(settings)
    client = open_store(args.index, model.get_embedding_dimension())
    vector = model.encode_query(args.query).astype("float32")
    [hits] = client.search(COLLECTION, [vector], limit=args.top, output_fields=["page"])
    for hit in hits:  # with COSINE, "distance" is the similarity
        where = names.get(hit["page"], [hit["page"]])
        print(f"{hit['distance']:.4f}  {'; '.join(where)}")


# The command


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def folder(text):
    return Path(os.path.expandvars(text)).expanduser()


def model_source(text):
    """A folder, with ~ and $HOME expanded, or the id of a model on the hub."""
    if folder(text).is_dir():
        return str(folder(text))
    if text.count("/") != 1 or text.startswith(("~", ".", "/")):
        raise argparse.ArgumentTypeError(f"no folder {text!r}, and no hub id such as owner/name")
    return text


def query(text):
    if not text.strip():
        raise argparse.ArgumentTypeError("the query is empty: type what the page should answer")
    address = text.startswith(("http://", "https://", "data:")) and " " not in text.strip()
    if address or os.path.isfile(text):  # the library would fetch or open it as an image
        raise argparse.ArgumentTypeError(f"{text!r} is an address or a file, not a question")
    return text


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("index", help="make or refresh the index")
    command.set_defaults(run=build)
    command.add_argument("--data", type=folder, default="data", help="default: data")
    command.add_argument(
        "--model", type=model_source, default="published", help="default: published"
    )
    command.add_argument("--revision", help="a commit, tag or branch of the hub")
    command.add_argument("--truncate-dim", type=positive, help="default: as the model was saved")
    command.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    command.add_argument("--encode-batch-size", type=positive, default=16, help="default: 16")
    command.add_argument("--index", type=folder, default="index", help="default: index")
    command = commands.add_parser("ask", help="ask the index")
    command.set_defaults(run=ask)
    command.add_argument("query", type=query, help="what the page should answer")
    command.add_argument("--top", type=positive, default=10, help="pages to print; default: 10")
    command.add_argument("--index", type=folder, default="index", help="default: index")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        arguments = read_arguments()
        arguments.run(arguments)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"search.py: {error}") from error
