"""Golden vectors: a few queries and pages with the vectors that are right, to check any server by.

    python golden.py make --model finetuned --queries queries.txt --pages data/pages --out golden.json
    python golden.py check golden.json --url http://127.0.0.1:8000                # serve.py, TEI
    python golden.py check golden.json --url http://127.0.0.1:8000 --as messages  # vLLM, pages too

`make` encodes the lines of a text file and the first PNG files of a folder with Sentence
Transformers, in 32 bits. `check` asks a server of OpenAI's embeddings interface for the same and
prints, for each, cosine similarity, length and dimensions; it ends with an error where one is off.

Needs: pip install numpy; for make also "sentence-transformers[image]"
"""

import argparse
import base64
import json
import os
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import numpy

# what is usually wrong, by what is seen
HINTS = """A cosine similarity of .3 to .9: the text was not sent through the model's chat template,
or without the generation prompt, or another token is pooled. Nearly 1, but off: another dtype, or
pages of another size. Length not 1: the vector was cut and not normalised again."""


def make(args):
    """Write queries and pages with their vectors as JSON."""
    from sentence_transformers import SentenceTransformer

    lines = args.queries.read_text(encoding="utf-8").splitlines()
    queries = [line.strip() for line in lines if line.strip()]
    files = sorted(args.pages.glob("*.png"))[: args.most_pages] if args.pages else []
    if not queries:
        raise ValueError(f"{args.queries} holds no query: write one a line")
    model = SentenceTransformer(
        args.model, truncate_dim=args.truncate_dim, model_kwargs={"dtype": "float32"}
    )
    # one by one, so that padding has no part in it; {"text": ...} is text whatever stands in it
    query_vectors = [model.encode_query({"text": x}, normalize_embeddings=True) for x in queries]
    page_vectors = [model.encode_document(str(x), normalize_embeddings=True) for x in files]
    pairs = zip(queries, query_vectors, strict=True)
    pages = zip(files, page_vectors, strict=True)
    names = ("sentence-transformers", "transformers", "torch")
    golden = {
        "model": args.model,
        "made_with": {"dtype": "float32"} | {name: version(name) for name in names},
        "queries": [{"text": text, "vector": rounded(vector)} for text, vector in pairs],
        "pages": [
            {"png": base64.b64encode(file.read_bytes()).decode(), "vector": rounded(vector)}
            for file, vector in pages
        ],
    }
    args.out.write_text(json.dumps(golden) + "\n", encoding="utf-8")
    print(f"{len(queries)} queries and {len(files)} pages in {args.out}")


def rounded(vector):
    return [round(value, 7) for value in vector.tolist()]


def ask(url, body):
    """The vector that a server answers; ValueError with its own words where it refuses."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/embeddings",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return numpy.array(json.load(answer)["data"][0]["embedding"], dtype="float32")
    except urllib.error.HTTPError as error:
        told = error.read().decode("utf-8", "replace")
        raise ValueError(f"the server refuses ({error.code}): {told}") from error
    except OSError as error:
        raise ValueError(f"no answer from {url}: {error}") from error


def as_message(part, instruction):
    """A request by which vLLM applies the chat template, with the end that the model pools."""
    messages = [{"role": "user", "content": [part]}]
    if instruction:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": instruction}]})
    return {"messages": messages, "add_generation_prompt": True}


def requests(golden, kind, instruction):
    """(name, body of the request, right vector) of everything that is checked."""
    for item in golden["queries"]:
        part = {"type": "text", "text": item["text"]}
        body = {"input": item["text"]} if kind == "input" else as_message(part, instruction)
        yield item["text"][:50], body, item["vector"]
    for number, item in enumerate(golden["pages"] if kind == "messages" else [], start=1):
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{item['png']}"}}
        yield f"page {number}", as_message(part, instruction), item["vector"]


def check(args):
    """Compare a server's vectors with the golden ones; ValueError where one is off."""
    golden, off = json.loads(args.golden.read_text(encoding="utf-8")), 0
    for name, body, right in requests(golden, args.kind, args.instruction):
        found = ask(args.url, body | {"model": args.model or golden["model"]})
        right = numpy.array(right)
        length = numpy.linalg.norm(found)
        if found.shape != right.shape:
            off += 1
            print(f"OFF  {name}: {found.size} dimensions, expected {right.size}")
            continue
        cosine = found @ right / (length * numpy.linalg.norm(right))
        good = cosine > 1 - args.tolerance and abs(length - 1) < 1e-3
        off += not good
        print(f"{'ok ' if good else 'OFF'}  {name}: cosine {cosine:.7f}, length {length:.4f}")
    if off:
        raise ValueError(f"{off} vectors are off.\n{HINTS}")


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
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make", help="write golden vectors")
    command.set_defaults(run=make)
    command.add_argument("--model", required=True, help="a folder, or an id of the hub")
    command.add_argument("--queries", type=folder, required=True, help="a text file, one a line")
    command.add_argument("--pages", type=folder, help="a folder of PNG files; default: none")
    command.add_argument("--most-pages", type=positive, default=3, help="default: 3")
    command.add_argument("--truncate-dim", type=positive, help="default: as the model was saved")
    command.add_argument("--out", type=folder, default="golden.json", help="default: golden.json")
    command = commands.add_parser("check", help="compare a server with them")
    command.set_defaults(run=check)
    command.add_argument("golden", type=folder, help="what make has written")
    command.add_argument("--url", default="http://127.0.0.1:8000", help="default: port 8000 here")
    command.add_argument("--model", help="the server's name of the model; default: the file's")
    command.add_argument("--instruction", help="a system message; default: the template's own")
    command.add_argument(
        "--tolerance", type=float, default=1e-5, help="of 1 - cosine; 1e-3 in bf16"
    )
    kinds = ("input", "messages")
    command.add_argument("--as", dest="kind", choices=kinds, default="input", help="default: input")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        arguments = read_arguments()
        arguments.run(arguments)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"golden.py: {error}") from error
