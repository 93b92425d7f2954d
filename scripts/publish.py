"""Save a tuned model with the length of its vectors and its scores in the card; upload it.

    python publish.py --finetuned finetuned --output published
    python publish.py --truncate-dim 512 --upload-to your-name/your-model

The card is the one that train.py saved, with the scores of evaluate.py and truncate.py if they were
measured with this very model. LoRA adapters are added to the weights. Files that hold a path of
this machine, your user name or a token are listed, and nothing is uploaded while there are any.
An upload is private until you change that on its page; the token is that of `hf auth login`.

Needs: pip install "sentence-transformers[image]>=6"; for a model with adapters also peft
"""

import argparse
import gc
import getpass
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import snapshot_download
from sentence_transformers import SentenceTransformer

PINNED = {"Qwen/Qwen3-VL-Embedding-2B": "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"}
SCORES = ("ndcg@10", "mrr@10", "accuracy@1")
PLACEHOLDER = "sentence_transformers_model_id"  # in the library's cards, until there is a name


# The card


def model_key(source, revision):
    """A hash of a saved model's weights and settings; a model of the hub is its name."""
    digest = hashlib.sha256()
    for file in sorted(Path(source).rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16] if Path(source).is_dir() else f"{source}@{revision or 'main'}"


def load_results(folder, name, key):
    """What was measured with this very model, or None, with a word about what was left out."""
    file = folder / f"{name}.json"
    if not file.exists():
        print(f"{file} is not there: the card goes without")
        return None
    results = json.loads(file.read_text(encoding="utf-8"))
    if results.get("model") != key:
        print(f"{file} was measured with another model and is left out of the card")
        return None
    return results


def scores_section(width, evaluation, truncation):
    """Markdown: what the vectors' length is, and base against tuned."""
    lines = [
        "## Vector length",
        "",
        f"This model ships with `truncate_dim={width}`: its vectors have {width} dimensions.",
        "Pass another `truncate_dim` when loading it to override that.",
    ]
    if evaluation:
        asked = f"{evaluation['queries']} queries against {evaluation['pages']} pages"
        lines += ["", f"Base and tuned model, {evaluation['dimensions']} dimensions, {asked}:"]
        lines += ["", "| metric | base | tuned |", "|---|---|---|"]
        for name in SCORES:
            metric = f"vdr-eval-hard_cosine_{name}"
            base, tuned = evaluation["base"][metric], evaluation["finetuned"][metric]
            lines.append(f"| {name} | {base:.4f} | {tuned:.4f} |")
    if truncation:
        asked = f"{truncation['queries']} queries against {truncation['pages']} pages"
        lines += ["", f"NDCG@10 by dimensions, {asked}:"]
        lines += ["", "| dimensions | base | tuned |", "|---|---|---|"]
        for dim, tuned in truncation["finetuned"].items():
            lines.append(f"| {dim} | {truncation['base'][dim]:.4f} | {tuned:.4f} |")
    return "\n".join(lines) + "\n\n"


def finish_card(card, section, width, widest, name):
    """The card with its section of scores, and true to the length that the vectors now have."""
    card = card.replace(f"a {widest}-dimensional", f"a {width}-dimensional")
    card = card.replace(f"Dimensionality:** {widest} d", f"Dimensionality:** {width} d")
    example = (
        f'"{name}", truncate_dim={widest})'  # the numbers below it are those of all dimensions
    )
    card = card.replace(f'"{PLACEHOLDER}")', example)
    card = card.replace(
        "pip install -U sentence-transformers\n", 'pip install -U "sentence-transformers[image]"\n'
    )
    before, heading, after = card.partition("## Training Details")
    return before + section + heading + after


# What should not leave the machine

OPENING = r"(?:^|(?<=[\s\"'`(=,;:\[]))"  # before a path; so a URL, a tag and "query/page" are none
POSIX = re.compile(OPENING + r"(?:file://)?(?P<top>/[\w.@+~-]+)(?P<rest>/[\w.@+~-][^\s\"'`<>]*)?")
WINDOWS = re.compile(OPENING + r"(?:[A-Za-z]:[\\/]+[\w.~-]+|\\\\[\w.-]+\\\w|\\{4}[\w.-]+\\\\\w)")
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
NOBODY = {"root", "user", "jovyan", "colab", "kaggle"}  # account names that point to no person
VOCABULARIES = {"tokenizer.json", "vocab.json", "merges.txt"}  # any word can stand there
TEXTS = {".json", ".md", ".jinja", ".txt", ".yaml", ".yml", ".toml", ".cfg", ".py", ".csv", ".html"}


def names_a_path(line):
    found = POSIX.finditer(line)
    return bool(WINDOWS.search(line)) or any(
        path["rest"] or Path(path["top"]).exists() for path in found
    )


def private_details(folder):
    """What a saved model's files say of this machine or its user, a line each."""
    user, token = getpass.getuser(), os.environ.get("HF_TOKEN", "").strip()
    found = []
    for file in sorted(file for file in folder.rglob("*") if file.suffix in TEXTS):
        text, name = file.read_text(encoding="utf-8", errors="replace"), file.relative_to(folder)
        if file.name not in VOCABULARIES:
            lines = [i for i, line in enumerate(text.splitlines(), start=1) if names_a_path(line)]
            found += [f"{name}: a path of this machine (line {i})" for i in lines]
            if user not in NOBODY and re.search(rf"\b{re.escape(user)}\b", text):
                found.append(f"{name}: your user name")
        if TOKEN.search(text) or (token and token in text):
            found.append(f"{name}: a token")
    return found


# The model


def merge_adapters(model, args):
    """LoRA's matrices added to the base's weights; a model without adapters as it is."""
    if not getattr(model[0].auto_model, "peft_config", None):
        return model
    from peft.tuners.lora import LoraLayer

    merged = SentenceTransformer(
        args.base_model,
        revision=args.base_revision,
        truncate_dim=model.truncate_dim,
        model_kwargs={"dtype": args.dtype},
        processor_kwargs={"size": dict(model[0].processor.image_processor.size)},
    )
    for name, layer in model[0].auto_model.named_modules():
        if isinstance(layer, LoraLayer):
            weight = merged[0].auto_model.get_submodule(name).weight
            added = layer.get_delta_weight("default").to(weight.device).float()
            weight.data = (weight.data.float() + added).to(weight.dtype)
    return merged


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


def repository(text):
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text) or text == "your-name/your-model":
        raise argparse.ArgumentTypeError(f"expected a name of yours, owner/model, found {text!r}")
    return text


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--finetuned", type=model_source, default="finetuned", help="default: finetuned")
    option("--finetuned-revision", type=revision, help="a commit, tag or branch of the hub")
    option("--truncate-dim", type=positive, default=1024, help="default: 1024, as published")
    option("--results", type=folder, default="results", help="default: results")
    option("--output", type=folder, default="published", help="new folder; default: published")
    option("--upload-to", type=repository, metavar="OWNER/MODEL", help="default: no upload")
    option("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    option("--base-model", type=model_source, default="Qwen/Qwen3-VL-Embedding-2B")
    option("--base-revision", type=revision, help="default: for the published base, its commit")
    args = parser.parse_args()
    args.base_revision = args.base_revision or PINNED.get(args.base_model)
    if args.output.exists():
        parser.error(f"{args.output} is there already: name another folder with --output")
    return args


def files_of_card(source, revision):
    """The folder with the model's card and the pages it shows, of a saved model or of the hub."""
    if Path(source).is_dir():
        return Path(source)
    wanted = ["README.md", "assets/*"]
    return Path(snapshot_download(source, revision=revision, allow_patterns=wanted))


def save(model, args, results, widest, folder):
    """Write the model and its card into a new folder."""
    tuned = files_of_card(args.finetuned, args.finetuned_revision)
    has_card = (tuned / "README.md").exists()
    model = merge_adapters(model, args)
    model.save_pretrained(str(folder), create_model_card=not has_card)
    readme = tuned / "README.md" if has_card else folder / "README.md"
    card = readme.read_text(encoding="utf-8")
    section = scores_section(args.truncate_dim, *results)
    card = finish_card(card, section, args.truncate_dim, widest, args.upload_to or PLACEHOLDER)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if (tuned / "assets").is_dir():
        shutil.copytree(tuned / "assets", folder / "assets")


def main():
    args = read_arguments()
    key = model_key(args.finetuned, args.finetuned_revision)
    model = SentenceTransformer(
        args.finetuned, revision=args.finetuned_revision, model_kwargs={"dtype": args.dtype}
    )
    model.truncate_dim = None
    widest, model.truncate_dim = model.get_embedding_dimension(), args.truncate_dim
    if args.truncate_dim > widest:
        raise ValueError(f"--truncate-dim {args.truncate_dim}, the model has {widest} dimensions")
    results = [load_results(args.results, name, key) for name in ("evaluation", "truncation")]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent) as beside:
        save(model, args, results, widest, Path(beside, "model"))
        Path(beside, "model").rename(args.output)  # whole or not at all
    shown = len(list(args.output.glob("assets/*")))
    print(f"saved in {args.output}; pages of your data in the card: {shown}")
    found = private_details(args.output)
    print("paths, user names, tokens:", *(found or ["none"]), sep="\n  ")

    for truncate_dim in (None, widest):  # as a user would load it
        reloaded = SentenceTransformer(str(args.output), truncate_dim=truncate_dim)
        length = reloaded.encode_query("test").shape[0]
        print(f"loaded with truncate_dim={truncate_dim}: vectors of {length} dimensions")
        del reloaded
        gc.collect()
    if args.upload_to and found:
        raise ValueError("not uploaded: mend the files that are listed above first")
    if args.upload_to:
        folder_to_upload = str(args.output)
        url = model.push_to_hub(args.upload_to, private=True, local_model_path=folder_to_upload)
        print(f"uploaded: {url}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"publish.py: {error}") from error
