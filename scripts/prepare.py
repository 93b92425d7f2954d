"""Make training data from a dataset of pages: every page a file, every split a small table.

    python prepare.py                                           # the published experiment
    python prepare.py --dataset my_pages --train-rows 1000 --eval-rows 100
    python prepare.py --dataset tomaarsen/llamaindex-vdr-en-train-preprocessed  # split already

The dataset has the columns id, query, image, negatives (ids of similar pages) and language, as
llamaindex/vdr-multilingual-train has, whose English part is a download of 19.7 GB; or it is split
already, with configurations train and eval and columns query, image, negative_0 to negative_3.

Written into the folder --data:

    pages/<key>.png    a page at the size at which the model sees it; key: SHA-1 of size and pixels
    train.jsonl        a row a line: query, image and one hard negative, negative_0
    eval.jsonl         the same with four hard negatives
    manifest.json      what all this was made from; written last
    keys.jsonl         which page of the dataset became which file, so that a run can go on

Needs: pip install "sentence-transformers[image,train]"
"""

import argparse
import hashlib
import io
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from datasets import get_dataset_config_names, load_dataset
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional
from tqdm import tqdm
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

PINNED = {"Qwen/Qwen3-VL-Embedding-2B": "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"}
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # Pillow knows more; some start programs
LARGEST_PAGE = 50_000_000  # pixels; a larger picture is a mistake or a decompression bomb


# A page


def to_rgb(image):
    """An upright RGB picture on white. 16-bit and float grey levels, which Pillow clips, are scaled."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    levels = numpy.asarray(image, dtype="float32")
    low, high = float(levels.min()), float(levels.max())
    if not 0 <= low <= high <= 65_535:
        raise ValueError(f"has grey levels from {low:g} to {high:g}, expected 0 to 65,535 at most")
    top = 65_535 if image.mode.startswith("I;16") or high > 255 else 255
    if image.mode == "F" and high <= 1:
        top = 1
    return Image.fromarray((levels / top * 255).round().astype("uint8")).convert("RGB")


def open_page(value, folder):
    """The page of a dataset's cell: bytes, a path, a dictionary of both, or a list with one of these.

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


class Pages:
    """The pages folder. `keys`: {page of the dataset: its key, or None where it does not open}."""

    def __init__(self, data, processor, folder):
        self.data, self.processor, self.folder = data, processor, folder
        self.keys, self.problems = {}, {}
        (data / "pages").mkdir(exist_ok=True)
        if (data / "keys.jsonl").exists():
            for line in (data / "keys.jsonl").read_bytes().split(b"\n"):
                self.note(line)

    def note(self, line):
        try:
            name, key, problem = json.loads(line)
        except ValueError:  # an empty line, or half a line of a run that was killed
            return
        if key is None:
            self.problems[name] = problem
        if key is None or (self.data / "pages" / f"{key}.png").exists():
            self.keys[name] = key

    def write(self, name, value):
        """Write one page; returns its line of keys.jsonl."""
        try:
            page = presize(open_page(value, self.folder), self.processor)
        except ValueError as error:
            return json.dumps([name, None, str(error)])
        key = hashlib.sha1(str(page.size).encode() + page.tobytes()).hexdigest()
        file = self.data / "pages" / f"{key}.png"
        if not file.exists():
            partial = file.with_name(f"{key}-{name}.partial")
            page.save(partial, "PNG", compress_level=1)
            partial.replace(file)  # whole or not at all
        return json.dumps([name, key, None])

    def add(self, dataset, rows, column, split=""):
        """Write the pages of these rows, several at a time."""
        cells = dataset.select_columns(column).with_format("arrow")  # as stored, not decoded
        names = {f"{split}{column}-{row}": row for row in sorted(rows)}
        todo = {name: row for name, row in names.items() if name not in self.keys}

        def write(name):
            return self.write(name, cells[todo[name]][column][0].as_py())

        with ThreadPoolExecutor() as threads, (self.data / "keys.jsonl").open("ab") as lines:
            for line in tqdm(threads.map(write, todo), total=len(todo), desc=f"{split}{column}"):
                lines.write(b"\n" + line.encode())
                self.note(line)
        return [self.keys[name] for name in names]


# Which rows


def is_text(query):
    """Whether a query is text: not missing, not blank, not what the library would open or fetch."""
    if not isinstance(query, str) or not query.strip():
        return False
    address = query.startswith(("http://", "https://", "data:")) and " " not in query.strip()
    return not address and not os.path.isfile(query)


def is_wanted(row, language):
    return is_text(row["query"]) and language in (row["language"], "any")


def choose_negatives(row, count, avoided, row_of_id, key_of, skipped):
    """The first `count` usable hard negatives of a row, as numbers of rows."""
    own = key_of(row_of_id[row["id"]])
    chosen, seen = [], {own}
    for negative in row["negatives"] or ():
        number = row_of_id.get(negative)
        if len(chosen) == count:
            break
        if number is None:
            skipped["negative id resolves to nothing"] += 1
        elif key_of(number) is None:
            skipped["negative image does not open"] += 1
        elif key_of(number) == own:
            skipped["negative is a copy of its own positive"] += 1
        elif key_of(number) in avoided:
            skipped["page already used"] += 1
        elif key_of(number) not in seen:
            chosen.append(number)
            seen.add(key_of(number))
    return chosen


def choose_rows(texts, key_of, args, skipped):
    """{split: [[row, its hard negatives...], ...]}: the first usable rows train, the next evaluate."""
    row_of_id = {row["id"]: number for number, row in enumerate(texts)}
    chosen, taken = {"train": [], "eval": []}, set()
    asked = (n for n, row in enumerate(texts) if is_wanted(row, args.language))
    for split, rows, count in (("train", args.train_rows, 1), ("eval", args.eval_rows, 4)):
        avoided = taken if split == "eval" and args.distinct_eval_pages else set()
        for number in asked:
            if key_of(number) is None:
                skipped["positive image does not open"] += 1
                continue
            negatives = choose_negatives(texts[number], count, avoided, row_of_id, key_of, skipped)
            if len(negatives) < count or key_of(number) in avoided:
                skipped[f"{split} row without enough usable pages"] += 1
                continue
            chosen[split].append([number, *negatives])
            taken |= {key_of(page) for page in chosen[split][-1]}
            if len(chosen[split]) == rows:
                break
    return chosen


def rows_of_source(args, pages, skipped):
    """{split: [(query, [key of its page, keys of its hard negatives...]), ...]} of a raw dataset."""
    source = load_dataset(args.dataset, args.config, revision=args.dataset_revision, split="train")
    check_columns(source, ("id", "query", "image", "negatives", "language"))
    texts = source.select_columns(["id", "query", "negatives", "language"]).to_list()
    if not any(is_wanted(row, args.language) for row in texts):
        there = dict(Counter(row["language"] for row in texts if is_text(row["query"])))
        raise ValueError(f"no row has a query and language {args.language!r}; found {there}")
    found, unknown = {}, set()

    def key_of(number):  # a page that was not read yet counts as good and unlike all others
        if number not in found:
            unknown.add(number)
        return found.get(number, f"unknown {number}")

    chosen = choose_rows(texts, key_of, args, Counter())
    while unknown:
        found |= dict(zip(sorted(unknown), pages.add(source, unknown, "image"), strict=True))
        unknown.clear()
        skipped.clear()
        chosen = choose_rows(texts, key_of, args, skipped)
    skipped["query that is blank, an address or a file"] = sum(
        bool(row["query"]) and not is_text(row["query"]) for row in texts
    )
    return {
        split: [(texts[row[0]]["query"], [found[number] for number in row]) for row in rows]
        for split, rows in chosen.items()
    }


def rows_as_split(args, pages, skipped):
    """The same of a dataset that its publisher has split: as many of its first rows as asked for."""
    found = {}
    for split, count, negatives in (("train", args.train_rows, 1), ("eval", args.eval_rows, 4)):
        source = load_dataset(args.dataset, split, revision=args.dataset_revision, split="train")
        columns = ["image", *(f"negative_{i}" for i in range(negatives))]
        check_columns(source, ("query", *columns))
        source = source.select(range(min(count, len(source))))
        keys = [pages.add(source, range(len(source)), column, f"{split}-") for column in columns]
        rows = list(zip(source["query"][:], map(list, zip(*keys, strict=True)), strict=True))
        found[split] = [(query, row) for query, row in rows if is_text(query) and None not in row]
        skipped[f"{split} row without a query, or with a page that does not open"] = len(
            rows
        ) - len(found[split])
    return found


def check_columns(dataset, columns):
    if missing := [name for name in columns if name not in dataset.column_names]:
        raise ValueError(
            f"the dataset has no column {', '.join(missing)}; it has {', '.join(dataset.column_names)}: "
            "rename yours with dataset.rename_column(old, new)"
        )


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
    option("--dataset", default="llamaindex/vdr-multilingual-train", help="a hub id or a folder")
    option("--config", default="en", help="its configuration; default: en")
    option("--dataset-revision", help="a commit, tag or branch of the hub")
    option("--language", default="en", help="rows of this language, or any; default: en")
    option("--data", type=folder, default=Path("data"), help="what is written; default: data")
    option("--train-rows", type=positive, default=10_000, help="default: 10000, as published")
    option("--eval-rows", type=positive, default=300, help="default: 300, as published")
    option(
        "--distinct-eval-pages", action="store_true", help="no page of train in eval, none twice"
    )
    option(
        "--base-model", default="Qwen/Qwen3-VL-Embedding-2B", help="whose processor sets the size"
    )
    option(
        "--base-revision",
        help="a commit, tag or branch; default: for the published model, its commit",
    )
    option("--max-pixels", type=positive, default=360_000, help="per page; default: 360000")
    option("--min-pixels", type=positive, default=4_096, help="per page; default: 4096")
    args = parser.parse_args()
    args.base_revision = args.base_revision or PINNED.get(args.base_model)
    if args.min_pixels > args.max_pixels:
        parser.error(f"--min-pixels {args.min_pixels} is above --max-pixels {args.max_pixels}")
    return args


def open_data(data, settings):
    """The folder for these settings, new or from a run that was stopped. ValueError for any other."""
    manifest = data / "manifest.json"
    if manifest.exists():
        there = json.loads(manifest.read_text(encoding="utf-8"))["settings"]
        different = [name for name in settings if there.get(name) != settings[name]]
        if different:
            raise ValueError(
                f"{data} was made with another {', '.join(different)}: name another folder with --data"
            )
    elif data.exists() and any(data.iterdir()):
        raise ValueError(
            f"{data} is not empty and was not made here: name another folder with --data"
        )
    data.mkdir(parents=True, exist_ok=True)
    write_whole(manifest, json.dumps({"settings": settings, "rows": None}, indent=1))


def write_whole(file, text):
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def main():
    args = read_arguments()
    settings = {name: value for name, value in vars(args).items() if name != "data"}
    open_data(args.data, settings)
    size = {"shortest_edge": args.min_pixels, "longest_edge": args.max_pixels}
    processor = AutoProcessor.from_pretrained(
        args.base_model, revision=args.base_revision, size=size
    )
    local = Path(args.dataset) if Path(args.dataset).is_dir() else Path()
    pages, skipped = Pages(args.data, processor, local), Counter()
    is_split = {"train", "eval"} <= set(get_dataset_config_names(args.dataset))
    splits = (rows_as_split if is_split else rows_of_source)(args, pages, skipped)

    for kind, count in (+skipped).most_common():
        print(f"{count:>6}  {kind}")
    for name, problem in list(pages.problems.items())[:5]:
        print(f"skipped: {name} {problem}")
    asked = {"train": args.train_rows, "eval": args.eval_rows}
    found = {split: len(rows) for split, rows in splits.items()}
    if found != asked and not (is_split and all(found.values())):
        raise ValueError(
            f"found {found['train']} usable train rows and {found['eval']} usable eval rows, expected "
            f"{asked['train']} and {asked['eval']}: ask for fewer with --train-rows and --eval-rows"
        )
    for split, rows in splits.items():
        lines = [table_row(query, keys) for query, keys in rows]
        write_whole(
            args.data / f"{split}.jsonl", "".join(json.dumps(line) + "\n" for line in lines)
        )
        print(f"{split}: {len(rows)} rows")
    write_whole(
        args.data / "manifest.json", json.dumps({"settings": settings, "rows": found}, indent=1)
    )


def table_row(query, keys):
    columns = ["image", *(f"negative_{i}" for i in range(len(keys) - 1))]
    return {"query": query} | {name: f"{key}.png" for name, key in zip(columns, keys, strict=True)}


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"prepare.py: {error}") from error
