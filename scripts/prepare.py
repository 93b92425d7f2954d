"""Make training data from a dataset of pages: every page a file, every split a small table.

    python prepare.py                                           # the published experiment
    python prepare.py --dataset my_pages --train-rows 1000 --eval-rows 100
    python prepare.py --dataset tomaarsen/llamaindex-vdr-en-train-preprocessed  # split already

The dataset has the columns id, query, image, negatives (ids of similar pages) and language, as
llamaindex/vdr-multilingual-train has, whose English part is a download of 19.7 GB; or it is split
already, with configurations train and eval and columns query, image, negative_0 to negative_3.

Written into the folder --data, which must not be there yet:

    pages/<key>.png    a page at the size at which the model sees it; key: SHA-1 of size and pixels
    train.jsonl        a row a line: query, image and one hard negative, negative_0
    eval.jsonl         the same with four hard negatives
    manifest.json      what all this was made from

Needs: pip install "sentence-transformers[image,train]>=6"
"""

import argparse
import hashlib
import io
import json
import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from datasets import get_dataset_config_names, load_dataset
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION
from torchvision.transforms.v2 import functional
from tqdm import tqdm
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

PINNED = {"Qwen/Qwen3-VL-Embedding-2B": "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"}
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # Pillow knows more; some start programs
LARGEST_PAGE = 50_000_000  # pixels; a larger picture is a mistake or a decompression bomb


# A page


def to_rgb(image):
    """An upright RGB picture on white; 16-bit and float greys, which Pillow clips, are scaled."""
    # a TIFF file may count from white; Pillow inverts such greys of up to 8 bits itself, no others
    white_is_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        levels = numpy.asarray(image, dtype="float64")
        low, high = levels.min(), levels.max()
        if not 0 <= low <= high <= 65_535:
            raise ValueError(f"has grey levels from {low:g} to {high:g}, expected 0 to 65,535")
        # as scanners and numpy write them: up to 65,535, up to 255, or from 0 to 1
        white = 65_535 if high > 255 else 255 if high > 1 or image.mode != "F" else 1
        levels = white - levels if white_is_zero else levels
        image = Image.fromarray((levels * (255 / white)).round().astype("uint8"))
    if not image.has_transparency_data:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def open_page(value, folder):
    """The page in a cell of a dataset: bytes, a path, a dictionary of both, or a list of one.

    A path is looked up in `folder`. Raises ValueError with the reason, whatever the cell holds.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise ValueError("has no image")
    if isinstance(value, str):
        file = Path(folder, value).expanduser()
        if not file.is_file():
            raise ValueError(f"is a path, and there is no file {value}")
        value = file.read_bytes()
    if not isinstance(value, bytes):
        raise ValueError(f"holds {type(value).__name__}, expected an image, bytes or a path")
    try:
        with Image.open(io.BytesIO(value), formats=FORMATS) as image:
            width, height = image.size
            if width * height <= LARGEST_PAGE:
                return to_rgb(image)
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise ValueError(f"does not open: {error}") from error
    raise ValueError(f"has {width} x {height} pixels, the limit is {LARGEST_PAGE:,}")


def presize(page, processor):
    """The RGB page at the size that the processor would make of it: the model sees equal pixels."""
    settings = processor.image_processor
    height, width = smart_resize(
        page.height,
        page.width,
        factor=settings.patch_size * settings.merge_size,
        min_pixels=settings.size["shortest_edge"],
        max_pixels=settings.size["longest_edge"],
    )
    if height * width > settings.size["longest_edge"]:
        return page  # so thin that no size fits: the processor would shrink it a second time
    pixels = functional.resize(
        functional.pil_to_tensor(page),
        [height, width],
        interpolation=functional.InterpolationMode.BICUBIC,
        antialias=True,
    )
    return functional.to_pil_image(pixels)


def write_page(value, folder, processor, pages):
    """Write the page in a cell of a dataset; returns (its key, None) or (None, why not)."""
    try:
        page = presize(open_page(value, folder), processor)
    except ValueError as error:
        return None, str(error)
    key = hashlib.sha1(str(page.size).encode() + page.tobytes()).hexdigest()
    page.save(pages / f"{key}.png", "PNG", compress_level=1)  # a copy writes the same bytes
    return key, None


def write_pages(source, rows, column, write):
    """Write the pages of these rows, several at a time: {row: its key, None for a bad page}."""
    cells, rows = source.select_columns(column).with_format("arrow"), sorted(rows)  # not decoded
    with ThreadPoolExecutor() as threads:
        made = threads.map(lambda row: write(cells[row][column][0].as_py()), rows)
        made = dict(zip(rows, tqdm(made, total=len(rows), desc=column), strict=True))
    problems = {row: problem for row, (_, problem) in made.items() if problem}
    for row, problem in list(problems.items())[:3]:
        print(f"skipped: {column} of row {row} {problem} ({len(problems)} such pages in all)")
    return {row: key for row, (key, _) in made.items()}


# Which rows


def is_text(query):
    """Whether a query is text: not missing, not blank, not what the library would open or fetch."""
    if not isinstance(query, str) or not query.strip():
        return False
    address = query.startswith(("http://", "https://", "data:")) and " " not in query.strip()
    return not address and not os.path.isfile(query)


def is_wanted(row, language):
    return is_text(row["query"]) and language in (row.get("language"), "any")


def choose_negatives(row, count, avoided, right, row_of_id, key_of, skipped):
    """The first `count` usable hard negatives of a row, as numbers of rows; `right`: the keys of
    all pages that answer its query."""
    chosen, seen = [], set()
    for negative in row["negatives"] or ():
        number = row_of_id.get(negative)
        if len(chosen) == count:
            break
        if number is None:
            skipped["negative id resolves to nothing"] += 1
        elif key_of(number) is None:
            skipped["negative image does not open"] += 1
        elif key_of(number) in right:
            skipped["negative is a right page of its query"] += 1
        elif key_of(number) in avoided:
            skipped["page already used"] += 1
        elif key_of(number) not in seen:
            chosen.append(number)
            seen.add(key_of(number))
    return chosen


def choose_rows(texts, key_of, args, skipped):
    """The first usable rows train, the next evaluate: {split: [[row, its negatives...], ...]}."""
    row_of_id = {row["id"]: number for number, row in enumerate(texts)}
    rows_of_query = {}  # a query of several rows has several right pages
    for number, row in enumerate(texts):
        rows_of_query.setdefault(row["query"], []).append(number)
    chosen, taken = {"train": [], "eval": []}, set()
    asked = (n for n, row in enumerate(texts) if is_wanted(row, args.language))
    for split, rows, count in (("train", args.train_rows, 1), ("eval", args.eval_rows, 4)):
        avoided = taken if split == "eval" and args.distinct_eval_pages else set()
        for number in asked:
            if key_of(number) is None:
                skipped["positive image does not open"] += 1
                continue
            row = texts[number]
            right = {key_of(other) for other in rows_of_query[row["query"]]} - {None}
            negatives = choose_negatives(row, count, avoided, right, row_of_id, key_of, skipped)
            if len(negatives) < count or right & avoided:
                skipped[f"{split} row without enough usable pages"] += 1
                continue
            chosen[split].append([number, *negatives])
            taken |= right | {key_of(page) for page in negatives}
            if len(chosen[split]) == rows:
                break
    return chosen


def rows_of_source(args, source, write, skipped):
    """{split: [(query, [key of its page, keys of its negatives...]), ...]} of a raw dataset."""
    texts = source.remove_columns("image").to_list()
    found, unknown = {}, set()

    def key_of(number):  # a page that was not read yet counts as good and unlike all others
        if number not in found:
            unknown.add(number)
        return found.get(number, f"unknown {number}")

    chosen = choose_rows(texts, key_of, args, Counter())
    while unknown:
        found |= write_pages(source, unknown, "image", write)
        unknown.clear()
        skipped.clear()
        chosen = choose_rows(texts, key_of, args, skipped)
    skipped["id of a later row too, which counts"] = len(texts) - len({row["id"] for row in texts})
    queries = [row["query"] for row in texts if row["query"]]
    skipped["query blank, an address or a file"] = sum(not is_text(query) for query in queries)
    return {
        split: [(texts[row[0]]["query"], [found[number] for number in row]) for row in rows]
        for split, rows in chosen.items()
    }


def rows_as_split(split, source, write, skipped):
    """[(query, [key of its page, keys of its negatives...]), ...] of one split of a dataset."""
    columns = [name for name in source.column_names if name != "query"]
    keys = [write_pages(source, range(len(source)), name, write) for name in columns]
    usable = []
    for number, query in enumerate(source["query"]):
        row = [of_column[number] for of_column in keys]
        if is_text(query) and None not in row:
            usable.append((query, row))
        else:
            skipped[f"{split} row without a query or with a page that does not open"] += 1
    return usable


def load_columns(args, config, columns):
    """These columns of the dataset; ValueError names those that it has not."""
    source = load_dataset(args.dataset, config, revision=args.dataset_revision, split="train")
    missing = [name for name in columns if name not in source.column_names]
    if missing:
        raise ValueError(
            f"{args.dataset} has no column {', '.join(missing)}; found "
            f"{', '.join(source.column_names)}: rename yours with dataset.rename_column(old, new); "
            "without a column language, set --language any"
        )
    return source.select_columns(columns)


def load_sources(args):
    """The dataset: one source, or train and eval where its publisher has split it."""
    configs = get_dataset_config_names(args.dataset, revision=args.dataset_revision)
    if {"train", "eval"} <= set(configs):
        sources = {}
        for split, count, negatives in (("train", args.train_rows, 1), ("eval", args.eval_rows, 4)):
            names = ["query", "image", *(f"negative_{i}" for i in range(negatives))]
            source = load_columns(args, split, names)
            sources[split] = source.select(range(min(count, len(source))))
        return sources
    config = args.config if args.config in configs or configs != ["default"] else "default"
    language = [] if args.language == "any" else ["language"]
    source = load_columns(args, config, ["id", "query", "image", "negatives", *language])
    texts = source.select_columns(["query", *language])
    if not any(is_wanted(row, args.language) for row in texts):
        found = dict(Counter(row.get("language") for row in texts if is_text(row["query"])))
        raise ValueError(
            f"no query has the language {args.language!r}: set --language; found {found}"
        )
    return {"source": source}


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
    option("--dataset", default="llamaindex/vdr-multilingual-train", help="a hub id or a folder")
    option("--dataset-revision", type=revision, help="a commit, tag or branch of the hub")
    option("--config", default="en", help="the dataset's configuration; default: en")
    option("--language", default="en", help="of the queries, or any; default: en")
    option("--data", type=folder, default="data", help="what is written; default: data")
    option("--train-rows", type=positive, default=10_000, help="default: 10000, as published")
    option("--eval-rows", type=positive, default=300, help="default: 300, as published")
    option("--distinct-eval-pages", action="store_true", help="no page of eval stands elsewhere")
    base = "Qwen/Qwen3-VL-Embedding-2B"
    option("--base-model", type=model_source, default=base, help="its processor sets the sizes")
    option("--base-revision", type=revision, help="default: for the published base, its commit")
    option("--max-pixels", type=positive, default=360_000, help="per page; default: 360000")
    option("--min-pixels", type=positive, default=4_096, help="per page; default: 4096")
    args = parser.parse_args()
    args.base_revision = args.base_revision or PINNED.get(args.base_model)
    if args.min_pixels > args.max_pixels:
        parser.error(f"--min-pixels {args.min_pixels} is above --max-pixels {args.max_pixels}")
    return args


def write_split(file, rows):
    """A line a row: the query and the names of its pages."""
    lines = []
    for query, keys in rows:
        columns = ["image", *(f"negative_{i}" for i in range(len(keys) - 1))]
        pages = {column: f"{key}.png" for column, key in zip(columns, keys, strict=True)}
        lines.append(json.dumps({"query": query} | pages) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def write_splits(args, sources, skipped, processor, local, partial):
    """Write pages and tables into a new folder; returns the number of rows of each split."""

    def write(cell):
        return write_page(cell, local or Path(), processor, partial / "pages")

    if "source" in sources:
        splits = rows_of_source(args, sources["source"], write, skipped)
    else:
        splits = {name: rows_as_split(name, sources[name], write, skipped) for name in sources}
    for kind, count in (+skipped).most_common():
        print(f"{count:>6}  {kind}")
    found = {split: len(rows) for split, rows in splits.items()}
    enough = found == {"train": args.train_rows, "eval": args.eval_rows}
    if not all(found.values()) or ("source" in sources and not enough):
        raise ValueError(
            f"found {found['train']} usable train rows and {found['eval']} usable eval rows, "
            f"expected {args.train_rows} and {args.eval_rows}: lower --train-rows and --eval-rows"
        )
    for split, rows in splits.items():
        write_split(partial / f"{split}.jsonl", rows)
        print(f"{split}: {len(rows)} rows")
    return found


def main():
    args = read_arguments()
    if args.data.exists():
        raise ValueError(f"{args.data} is there already: name another folder with --data")
    local = folder(args.dataset) if folder(args.dataset).is_dir() else None
    settings = {name: value for name, value in vars(args).items() if name != "data"}
    settings |= {"dataset": local.resolve().name if local else args.dataset, "hub": not local}
    if Path(args.base_model).is_dir():
        settings["base_model"] = Path(args.base_model).name  # no path of this machine
    args.dataset = str(local or args.dataset)
    size = {"shortest_edge": args.min_pixels, "longest_edge": args.max_pixels}
    processor = AutoProcessor.from_pretrained(
        args.base_model, revision=args.base_revision, size=size
    )
    sources, skipped = load_sources(args), Counter()
    args.data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.data.parent, prefix=f"{args.data.name}-") as beside:
        partial = Path(beside, "data")  # takes the name --data when it is whole
        (partial / "pages").mkdir(parents=True)
        found = write_splits(args, sources, skipped, processor, local, partial)
        manifest = json.dumps({"settings": settings, "rows": found}, indent=1)
        (partial / "manifest.json").write_text(manifest, encoding="utf-8")
        partial.rename(args.data)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:  # a hub that does not answer is an OSError too
        raise SystemExit(f"prepare.py: {error}") from error
