"""Make training data from a folder of PDF files: pages, queries, hard negatives, split by document.

    python documents.py my_pdfs --data my_data --model owner/model
    python documents.py my_pdfs --query-models                 # without a model that writes queries

Queries come from questions.csv in the folder (columns file, page, query), from headings, captions
and table lines of the text layer, and from vision-language models. All of them are listed in
my_data/queries_to_check.csv: write "no" into the column keep, save, and run the same line again.

Written is what prepare.py writes: pages/<key>.png, train.jsonl, eval.jsonl, manifest.json; beside
them pages.jsonl, which page of which file each one is. A third of the files is for evaluation.

Needs: pip install "sentence-transformers[image,train]" pandas pypdfium2
"""

import argparse
import csv
import hashlib
import io
import json
import math
import os
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pandas
import pypdfium2
from datasets import Dataset
from pypdfium2.raw import FPDF_ERR_FORMAT, FPDF_ERR_PASSWORD, FPDF_PAGEOBJ_IMAGE
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.util import mine_hard_negatives
from torchvision.transforms.v2 import functional
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

LARGEST_PAGE = 50_000_000  # pixels of a picture inside a page, which is unpacked whole


# One PDF file


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
    bicubic = functional.InterpolationMode.BICUBIC
    pixels = functional.pil_to_tensor(page)
    pixels = functional.resize(pixels, [height, width], interpolation=bicubic, antialias=True)
    return functional.to_pil_image(pixels)


def draw_page(page, processor):
    """A PDF page as the model sees it, upright. ValueError for one that cannot be drawn."""
    width, height = page.get_size()  # points, 72 to the inch
    if not 0 < max(width, height) <= 200 * min(width, height):
        raise ValueError(f"measures {width:g} x {height:g} points: no page has this shape")
    pictures = page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE])
    largest = max((math.prod(picture.get_px_size()) for picture in pictures), default=0)
    if largest > LARGEST_PAGE:
        raise ValueError(f"holds a picture of {largest:,} pixels, the limit is {LARGEST_PAGE:,}")
    scale = math.sqrt(4 * processor.image_processor.size["longest_edge"] / (width * height))
    return presize(page.render(scale=scale).to_pil().convert("RGB"), processor)


def clean(text):
    """Text without halves of surrogate pairs, which no file and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_text(page):
    """(the text layer of a page, its lines in large type); a scan has none."""
    layer = page.get_textpage()
    boxes = [layer.get_rect(i) for i in range(layer.count_rects())]  # left, bottom, right, top
    if not boxes:
        return "", []
    usual = statistics.median(top - bottom for _, bottom, _, top in boxes)
    large = [box for box in boxes if box[3] - box[1] > 1.3 * usual]
    lines = [clean(layer.get_text_bounded(*box)).strip() for box in large]
    return clean(layer.get_text_bounded()).replace("\r\n", "\n"), [line for line in lines if line]


def open_document(file):
    """The PDF file, opened. ValueError with the reason where that cannot be done."""
    if file.stat().st_size == 0:
        raise ValueError("is empty: 0 bytes")
    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        reasons = {
            FPDF_ERR_PASSWORD: "has a password: save it without one",
            FPDF_ERR_FORMAT: "is damaged or no PDF file",
        }
        reason = reasons.get(error.err_code, "has no page that can be read")
        raise ValueError(reason) from error
    document.init_forms()  # or what was filled into a form is neither drawn nor read
    return document


def read_title(document):
    try:
        return clean(document.get_metadata_value("Title")).strip()
    except UnicodeDecodeError:
        return ""


def read_outline(document):
    """{page: [headings of the outline that point to it]}."""
    outline = defaultdict(list)
    for mark in document.get_toc():
        try:
            if place := mark.get_dest():
                outline[place.get_index()].append(clean(mark.get_title()).strip())
        except UnicodeDecodeError:
            continue
    return outline


def read_document(file, processor, data):
    """{"title", "rows", "problems"} of a PDF file; its pages are written into the pages folder."""
    rows, problems = [], []
    with open_document(file) as document:
        title, outline = read_title(document), read_outline(document)
        for number in range(len(document)):
            try:
                page = document[number]
                picture, (text, large) = draw_page(page, processor), read_text(page)
                page.close()
            except (ValueError, pypdfium2.PdfiumError) as error:
                problems.append(f"page {number + 1} {error}")
                continue
            key = hashlib.sha1(str(picture.size).encode() + picture.tobytes()).hexdigest()
            partial = data / "pages" / f"{key}.partial"
            picture.save(partial, "PNG", compress_level=1)
            partial.replace(data / "pages" / f"{key}.png")
            row = {"page": number + 1, "image": f"{key}.png", "text": text}
            rows.append(row | {"headings": outline.get(number) or large})
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - 1024))
        if b"%%EOF" not in content.read():
            problems.append("has no end mark: it may have been cut off")
    return {"title": title, "rows": rows, "problems": problems}


# The folder


def read_folder(folder, processor, data):
    """A row for each page of the folder's PDF files; what happened to a file is printed."""
    rows, names = [], {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() != ".pdf":
            continue
        name = unicodedata.normalize("NFC", file.relative_to(folder).as_posix())
        try:
            if not file.is_file():
                raise ValueError("is no file: a folder, or a link to nothing")
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:20]
            if names.setdefault(digest, name) != name:
                raise ValueError(f"is a copy of {names[digest]}, and left out")
            found = read_document(file, processor, data)
        except (ValueError, OSError) as error:
            print(f"{name} {error}")
            continue
        for problem in found["problems"]:
            print(f"{name} {problem}")
        title = found["title"] or Path(name).stem
        place = {"file": name, "title": title}
        rows += [place | row | {"id": f"{name}#{row['page']}"} for row in found["rows"]]
    if not rows:
        raise ValueError(f"no page of a PDF file could be read in {folder}")
    return rows


# Queries: rows of query, id of the page that answers, and the way they were made


def decode(file):
    """The text of a file that a spreadsheet saved. ValueError names one that cannot be read."""
    content = file.read_bytes()
    is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in ["utf-16"] if is_utf16 else ["utf-8-sig", "cp1252"]:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError(f"{file.name} is neither UTF-8 nor UTF-16 nor Windows-1252: save it as UTF-8")


def read_table(file, columns):
    """The lines of a CSV file, each a dictionary of texts; ValueError where a column is missing."""
    text = decode(file)
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count), restval="")
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
    missing = [name for name in columns if name not in reader.fieldnames]
    if missing:
        raise ValueError(
            f"{file.name} has no column {', '.join(missing)}; found {header.strip()!r}"
        )
    lines = []
    for line in reader:
        if None in line:
            print(f"line {reader.line_num} of {file.name} is left out: quote a text with commas")
        elif any(value.strip() for value in line.values()):
            lines.append(line | {"line": reader.line_num})
    return lines


def is_text(query):
    """Whether a query is text: not blank, and not what the library would open or fetch."""
    address = query.startswith(("http://", "https://", "data:")) and " " not in query.strip()
    return bool(query.strip()) and not address and not os.path.isfile(query)


def queries_from_table(file, pages):
    """Questions of people; a line that names no page, or asks nothing, is named and left out."""
    found = []
    for line in read_table(file, ("file", "page", "query")) if file.exists() else []:
        number = re.fullmatch(r"0*(\d+)(\.0*)?", line["page"].strip())
        name = unicodedata.normalize("NFC", line["file"].strip())
        page = f"{name}#{number[1] if number else line['page']}"
        if page in pages and is_text(line["query"]):
            found.append({"query": line["query"].strip(), "id": page, "way": "table"})
        else:
            what = "asks nothing" if page in pages else f"{page} is no page that was read"
            print(f"line {line['line']} of {file.name} is left out: {what}")
    return found


CAPTION = re.compile(
    r"(?:figure|fig|table|chart|abbildung|tabelle)\W+[\d.]+\W+(.{4,80})", re.IGNORECASE
)
TABLE_LINE = re.compile(r"(\w(?:\S*\s+){1,5}?)[\d.,]+(?:\s\S{1,4})?")  # words, a number, a unit


def phrases(row):
    """What a page says of itself: headings, captions and table lines, without their numbers."""
    found = [re.sub(r"^[\d.]+\s+", "", heading) for heading in row["headings"]]
    for line in row["text"].splitlines():
        if match := CAPTION.fullmatch(line.strip()) or TABLE_LINE.fullmatch(line.strip()):
            found.append(match[1].strip())
    title = row["title"].lower()
    return dict.fromkeys(x for x in found if len(x) > 3 and x.lower() not in title)


def queries_from_text(rows):
    """Phrases with their document's title; one that stands on two pages is no query."""
    pairs = [(f"{phrase}, {row['title']}", row["id"]) for row in rows for phrase in phrases(row)]
    pages_with = Counter(query for query, _ in pairs)
    return [
        {"query": query, "id": page, "way": "text layer"}
        for query, page in pairs
        if pages_with[query] == 1 and is_text(query)
    ]


PROMPT = """Here is a page of a document. Write two search queries that this page answers, as a \
person would who has never seen it.
general: about the subject of the page, in at most eight words.
specific: about one fact on the page, naming what a reader must know to find it among many similar \
documents, not the answer.
Reply with JSON only: {"general": "...", "specific": "..."}. If the page says nothing worth \
asking, reply {}."""


def read_reply(reply):
    """The two queries of a model's reply, or None where it has no JSON with both."""
    try:
        found = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
        pair = {name: clean(str(found[name])).strip() for name in ("general", "specific")}
    except (ValueError, KeyError, TypeError):
        return None
    return pair if all(is_text(query) for query in pair.values()) else None


def ask_model(image, model, processor):
    """What the model replies to the prompt and the page, as text."""
    content = [{"type": "image", "image": str(image)}, {"type": "text", "text": PROMPT}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    output = model.generate(**inputs, max_new_tokens=160, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def queries_from_model(name, rows, args):
    """A query for each page whose reply can be read; replies are kept, and not asked for again."""
    file, replies = args.data / "replies.jsonl", {}
    if file.exists():
        lines = file.read_text(encoding="utf-8").split("\n")
        kept = [json.loads(line) for line in lines if line.endswith("]")]  # half a line is none
        replies = {image: reply for model, image, reply in kept if model == name}
    todo = dict.fromkeys(row["image"] for row in rows if row["image"] not in replies)
    if todo:
        model = AutoModelForImageTextToText.from_pretrained(name, dtype="auto", device_map="auto")
        processor = AutoProcessor.from_pretrained(name, size=page_size(args))
        with file.open("a", encoding="utf-8") as lines:
            for image in todo:
                replies[image] = ask_model(args.data / "pages" / image, model, processor)
                lines.write("\n" + json.dumps([name, image, replies[image]]))
                lines.flush()
    read = [(row["id"], read_reply(replies[row["image"]])) for row in rows]
    print(f"{name}: {sum(pair is None for _, pair in read)} of {len(read)} replies not readable")
    return [
        {"query": pair["specific"], "id": page, "way": name, "general": pair["general"]}
        for page, pair in read
        if pair
    ]


def findable(candidates, rows, model, paths, batch_size):
    """Candidates whose general query finds their page among the first 100, or a tenth of few."""
    if not candidates:
        return []
    general = model.encode_query([row["general"] for row in candidates], batch_size=batch_size)
    pages = model.encode_document(paths, batch_size=batch_size)
    similarities = util.cos_sim(general, pages)
    column = {row["id"]: i for i, row in enumerate(rows)}
    own = similarities[range(len(candidates)), [column[row["id"]] for row in candidates]]
    ranks = (similarities > own[:, None]).sum(dim=1) + 1
    limit = min(100, math.ceil(len(rows) / 10))
    return [row for row, rank in zip(candidates, ranks.tolist(), strict=True) if rank <= limit]


def checked(queries, file):
    """The queries that nobody marked with "no" in the table, which is written anew."""
    fresh = pandas.DataFrame(queries, columns=["query", "id", "way"])
    fresh = fresh.drop_duplicates(["query", "id"]).assign(keep="yes")
    if file.exists():
        marks = read_table(file, ("query", "id", "keep"))
        marked = {(line["query"], line["id"]): line["keep"] for line in marks}
        pairs = zip(fresh["query"], fresh["id"], strict=True)
        fresh["keep"] = [marked.get(pair, "yes") for pair in pairs]
    fresh.to_csv(file, index=False, encoding="utf-8-sig")
    return fresh[fresh["keep"].str.strip().str.lower() != "no"].drop(columns="keep")


# The split and the hard negatives


def side_of(file, eval_files):
    """The split of a file, by its name alone, so that it stays there when others are added."""
    if eval_files:
        return "eval" if file in eval_files else "train"
    return "eval" if int(hashlib.sha256(file.encode()).hexdigest(), 16) % 3 == 0 else "train"


def split_by_file(rows, kept, eval_files):
    """{"train", "eval": table of query, id, way, image}: no file, and no page, stands in both."""
    if unknown := set(eval_files) - {row["file"] for row in rows}:
        raise ValueError(f"--eval-files names what was not read: {', '.join(sorted(unknown))}")
    sides = defaultdict(set)
    for row in rows:
        sides[row["image"]].add(side_of(row["file"], eval_files))
    page_of = {row["id"]: row for row in rows}
    table = kept.assign(image=[page_of[page]["image"] for page in kept["id"]])
    table["side"] = [side_of(page_of[page]["file"], eval_files) for page in table["id"]]
    table = table[[len(sides[image]) == 1 for image in table["image"]]]
    split = {side: table[table["side"] == side] for side in ("train", "eval")}
    by_people = split["eval"][split["eval"]["way"] == "table"]
    split["eval"] = by_people if len(by_people) else split["eval"]
    answers = split["eval"].groupby("query")["image"].transform("nunique")
    for query in sorted(set(split["eval"]["query"][answers > 1])):
        print(f"not evaluated, several pages answer it: {query}")
    split["eval"] = split["eval"][answers == 1].drop_duplicates("query")
    for side, some in split.items():
        files = {page_of[page]["file"] for page in some["id"]}
        print(f"{side}: {len(some)} queries about {len(files)} files")
        if not len(some):
            raise ValueError(f"no query for {side}: add files or questions, or name --eval-files")
    return split


def mine(table, corpus, model, args, **rules):
    """What mine_hard_negatives finds for a table of queries, however deep it has to look."""
    pages = args.data / "pages"
    pairs = {"query": list(table["query"]), "image": [str(pages / x) for x in table["image"]]}
    return mine_hard_negatives(
        Dataset.from_dict(pairs),
        model,
        corpus=[str(pages / image) for image in corpus],
        range_max=len(corpus) - 1,
        batch_size=args.encode_batch_size,
        verbose=False,
        **rules,
    )


def mine_train(table, corpus, rows, model, args):
    """Rows of query, image and negative_0, one a page: the most similar page of another file."""
    order = table["way"].map({"table": 0, "text layer": 2}).fillna(1)  # a model's stand between
    table = table.loc[order.sort_values(kind="stable").index].groupby("id", sort=False).head(1)
    files_of = defaultdict(set)
    for row in rows:
        files_of[row["image"]].add(row["file"])
    found, rules = {}, {"relative_margin": args.relative_margin}
    rules["num_negatives"] = min(50, len(corpus) - 1)
    for row in mine(table, corpus, model, args, **rules):
        image, negative = Path(row["image"]).name, Path(row["negative"]).name
        if not files_of[image] & files_of[negative]:
            found.setdefault((row["query"], image), negative)
    print(f"{len(found)} of {len(table)} pages have a hard negative; the others are left out")
    if not found:
        raise ValueError(
            "no page has a hard negative, a page of another file that is safely less similar to "
            "the query: add PDF files, or set --relative-margin 0, or another --model"
        )
    return [
        {"query": query, "image": image, "negative_0": negative}
        for (query, image), negative in found.items()
    ]


def mine_eval(table, corpus, model, args):
    """Rows of query, image and negative_0 to negative_3: the four most similar other pages."""
    if len(corpus) < 5:
        raise ValueError(
            f"the files for evaluation have {len(corpus)} different pages, expected 5 at least: "
            "add PDF files, or name longer ones with --eval-files"
        )
    rows = []
    for row in mine(table, corpus, model, args, num_negatives=4, output_format="n-tuple"):
        names = {"image": row["image"]}
        names |= {f"negative_{i}": row[f"negative_{i + 1}"] for i in range(4)}
        names = {column: Path(path).name for column, path in names.items()}
        rows.append({"query": row["query"]} | names)
    return rows


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


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("folder", type=folder, help="PDF files, in folders below it too, and questions.csv")
    option("--data", type=folder, default="data", help="what is written; default: data")
    model = "tomaarsen/Qwen3-VL-Embedding-2B-vdr"
    option("--model", type=model_source, default=model, help="mines hard negatives; train from it")
    option("--revision", help="a commit, tag or branch of the hub")
    option("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    writers = ["Qwen/Qwen3-VL-2B-Instruct"]
    option("--query-models", type=model_source, nargs="*", default=writers, help="write queries")
    option("--eval-files", nargs="+", default=[], help="default: a third, by the hash of the name")
    option("--relative-margin", type=float, default=0.05, help="of a hard negative; default: 0.05")
    option("--max-pixels", type=positive, default=360_000, help="per page; default: 360000")
    option("--min-pixels", type=positive, default=4_096, help="per page; default: 4096")
    option("--encode-batch-size", type=positive, default=16, help="default: 16")
    args = parser.parse_args()
    if not args.folder.is_dir():
        parser.error(f"expected a folder of PDF files, found {args.folder}")
    return args


def page_size(args):
    return {"shortest_edge": args.min_pixels, "longest_edge": args.max_pixels}


def open_data(data, settings):
    """The folder --data, new or of an earlier run of this script; ValueError for any other."""
    settings, note = json.dumps(settings, indent=1), data / "documents.json"
    if note.exists() and note.read_text(encoding="utf-8") != settings:
        raise ValueError(f"{data} was made with other settings, see {note}: name another --data")
    if not note.exists() and data.exists() and any(data.iterdir()):
        raise ValueError(f"{data} is not empty and was not made here: name another --data")
    (data / "pages").mkdir(parents=True, exist_ok=True)
    note.write_text(settings, encoding="utf-8")
    (data / "manifest.json").unlink(missing_ok=True)  # until everything is whole again


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def all_queries(args, rows, model):
    """The table of queries of all three ways that nobody has marked with "no"."""
    queries = queries_from_table(args.folder / "questions.csv", {row["id"] for row in rows})
    queries += queries_from_text(rows)
    candidates = []
    for name in args.query_models:
        candidates += queries_from_model(name, rows, args)
    paths = [str(args.data / "pages" / row["image"]) for row in rows]
    queries += findable(candidates, rows, model, paths, args.encode_batch_size)
    kept = checked(queries, args.data / "queries_to_check.csv")
    print(f"{len(kept)} queries kept:", dict(Counter(kept["way"])))
    return kept


def main():
    args = read_arguments()
    settings = {"dataset": args.folder.resolve().name, "hub": False}
    settings |= {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    open_data(args.data, settings)
    model = SentenceTransformer(
        args.model,
        revision=args.revision,
        model_kwargs={"dtype": args.dtype},
        processor_kwargs={"size": page_size(args)},
    )
    model.truncate_dim = None
    rows = read_folder(args.folder, model.processor, args.data)
    write_lines(args.data / "pages.jsonl", rows)
    for file in (args.data / "pages").iterdir():
        if not any(file.name == row["image"] for row in rows):
            file.unlink()  # of a file that is gone
    print(f"{len(rows)} pages of {len({row['file'] for row in rows})} files")

    split = split_by_file(rows, all_queries(args, rows, model), args.eval_files)
    corpus = {side: {} for side in split}
    for row in rows:
        corpus[side_of(row["file"], args.eval_files)][row["image"]] = row
    made = {
        "eval": mine_eval(split["eval"], list(corpus["eval"]), model, args),
        "train": mine_train(split["train"], list(corpus["train"]), rows, model, args),
    }
    for side, some in made.items():
        write_lines(args.data / f"{side}.jsonl", some)
        print(f"{side}: {len(some)} rows")
    counts = {side: len(some) for side, some in made.items()}
    manifest = json.dumps({"settings": settings, "rows": counts}, indent=1)
    (args.data / "manifest.json").write_text(manifest, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"documents.py: {error}") from error
