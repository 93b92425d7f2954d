"""Make training data of an index: queries for its pages, hard negatives, a split by document.

    python index.py my_pdfs --index index --max-pixels 360000
    python documents.py --index index --data my_data --model owner/model
    python documents.py --index index --query-models         # without a model that writes queries

Queries come from a table of questions that people asked (columns file, page, query), and two kinds
are made: headings, captions and table lines of the text layer, and queries of vision-language
models. All stand in my_data/queries_to_check.csv, with the way they were made: write "no" into the
column keep, save, and run the same line again. A question with several right pages has a line for
each. Evaluated are questions of people, if there are any, about files that are not trained on.

Written is what prepare.py writes: pages/<key>.png, train.jsonl, eval.jsonl, manifest.json; beside
them pages.jsonl, which page of which file each one is. A third of the documents is for evaluation:
files with much of their text in common are editions of one document, named and kept on one side.

Needs: pip install "sentence-transformers[image,train]" pandas
"""

import argparse
import csv
import hashlib
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pandas
from datasets import Dataset
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.util import mine_hard_negatives
from transformers import AutoModelForImageTextToText, AutoProcessor


def read_index(index):
    """(settings, rows of pages, each with an id) of an index; ValueError where it is not whole."""
    try:
        settings = json.loads((index / "index.json").read_text(encoding="utf-8"))
        lines = (index / "pages.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        rows = [row | {"id": f"{row['file']}#{row['page']}"} for row in rows]
        if not rows:
            raise ValueError("no pages")
        size = [settings["pages"][name] for name in ("min_pixels", "max_pixels")]
        return {"folder": Path(settings["folder"]), "size": size}, rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is no whole index: make it with index.py, or anew") from error


# Queries: rows of query, id of the page that answers, and the way they were made


def decode(file):
    """The text of a file that a spreadsheet saved. ValueError names one that cannot be read."""
    content = file.read_bytes()
    encodings = ["utf-8-sig", "cp1252"]
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif 0 in content[:2]:  # UTF-16 without its mark: half of a plain letter is a zero
        encodings = ["utf-16-le" if content[0] else "utf-16-be"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError(f"{file.name} is neither UTF-8 nor UTF-16 nor Windows-1252: save it as UTF-8")


EXCEL_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?[ ,;\t]*\n', re.IGNORECASE)  # as a first line


def rows_of(file, separators):
    """Yield (number of its line, cells) of each row of a CSV file that is not empty.

    A text in quotes may hold line breaks. ValueError names a line whose quotes are not right, which
    would swallow the lines below, and a text in which one of these has the separators of a row.
    """
    text = decode(file).replace("\r\n", "\n").replace("\r", "\n")
    told = EXCEL_SEPARATOR.match(text)
    text = text[told.end() - 1 :] if told else text  # its line stays, empty, to be counted
    first = next((line for line in text.split("\n") if line.strip(" ,;\t")), "")
    delimiter = told[1] if told else max(",;\t", key=first.count)
    reader, number = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            below = [line for cell in cells for line in cell.split("\n")[1:]]
            if any(line.count(delimiter) >= separators for line in below):
                raise csv.Error("a row within a text")
            if any(cell.strip() for cell in cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        what = "close each quote, write one inside a text twice, and leave no line break in a text"
        if "limit" in str(error):
            most = csv.field_size_limit()
            what = f"a text is longer than {most:,} characters: close its quote, or shorten it"
        raise ValueError(f"line {number} of {file.name} cannot be read: {what}") from error


def read_table(file, columns):
    """The lines of a CSV file, each a dictionary of texts; ValueError where a column is missing."""
    rows = rows_of(file, len(columns) - 1)
    _, header = next(rows, (1, []))
    names = [name.strip().lower() for name in header]
    missing = [name for name in columns if name not in names]
    if missing:
        found = ",".join(header)
        raise ValueError(f"{file.name} has no column {', '.join(missing)}; found {found!r}")
    lines = []
    for number, cells in rows:
        if len(cells) > len(names):
            print(f"line {number} of {file.name} is left out: quote a text with commas")
        else:
            line = dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
            lines.append(line | {"line": number})
    return lines


def is_text(query):
    """Whether a query is text: not missing, not blank, not what the library would open or fetch."""
    if not isinstance(query, str) or not query.strip():
        return False
    address = query.startswith(("http://", "https://", "data:")) and " " not in query.strip()
    return not address and not os.path.isfile(query)


def queries_from_table(file, pages):
    """Questions of people; a line that names no page, or asks nothing, is named and left out."""
    found = []
    for line in read_table(file, ("file", "page", "query")):
        number = re.fullmatch(r"0*(\d+)(\.0*)?", line["page"].strip())
        name = unicodedata.normalize("NFC", line["file"].strip())
        page = f"{name}#{number[1] if number else line['page']}"
        if page in pages and is_text(line["query"]):
            query = " ".join(line["query"].split())
            found.append({"query": query, "id": page, "way": "table"})
        else:
            what = "asks nothing" if page in pages else f"{page} is no page that was read"
            print(f"line {line['line']} of {file.name} is left out: {what}")
    return found


CAPTION = re.compile(
    r"(?:figure|fig|table|chart|abbildung|tabelle)\W+[\d.]+\W+(.{4,80})", re.IGNORECASE
)
TABLE_LINE = re.compile(r"(\w(?:\S*\s+){1,5}?)[\d.,]+(?:\s\S{1,4})?")  # words, a number, a unit
SAYS_NOTHING = re.compile(  # as a heading, also with a number or a letter behind it
    r"((table of )?contents|index|preface|foreword|introduction|overview|summary|conclusions?"
    r"|references?|bibliography|glossary|abstract|description|details|examples?|notes?|remarks?"
    r"|usage|synopsis|options|arguments|values?|author|authors|version|files|see also|see|about"
    r"|copyright|licen[sc]e|disclaimer|chapter|part|section|appendix|figure|table|page|revision"
    r"|history|acknowledge?ments?|inhalt(sverzeichnis)?|einleitung|einführung|überblick|vorwort"
    r"|zusammenfassung|literatur(verzeichnis)?|anhang|kapitel|abschnitt|teil|seite|impressum"
    r"|stichwortverzeichnis|beispiele?)(\W*\b[\divxlc]+|\W*\b[a-z])?\W*",
    re.IGNORECASE,
)


def is_phrase(text):
    """Whether a line could be searched for: one to eight words, no sentence, code or number."""
    letters = sum(letter.isalpha() for letter in text)
    return (
        len(text.split()) <= 8
        and letters >= 4
        and letters > 0.7 * len(text.replace(" ", ""))
        and text[0].isalpha()
        and not text[0].islower()
        and text[-1] not in ",;:=.("
        and text.count("(") == text.count(")")
        and not re.search(r"[=<>{}\[\]\\_|]|\. ?\. ?\.|::", text)
        and not SAYS_NOTHING.fullmatch(text)
    )


def phrases(row):
    """What a page says of itself: headings, captions and table lines, without their numbers.

    A table of contents or an index says what other pages answer: it gives none. More than eight
    headings of a page are no headings.
    """
    lines = [line.strip() for line in row["text"].splitlines() if line.strip()]
    if sum(line[-1].isdigit() for line in lines) > max(8, len(lines) / 2):
        return []
    found = list(row["headings"]) if len(row["headings"]) <= 8 else []
    for line in lines:
        if match := CAPTION.fullmatch(line) or TABLE_LINE.fullmatch(line):
            found.append(match[1])
    found = [re.sub(r"^(\d+|[A-Z]\.)[\d.]*\s+", "", phrase) for phrase in found]
    found = [" ".join(phrase.split()) for phrase in found]
    title = row["title"].lower()
    return list(dict.fromkeys(x for x in found if x.lower() not in title and is_phrase(x)))


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
        pair = {name: " ".join(str(found[name]).split()) for name in ("general", "specific")}
        "".join(pair.values()).encode()  # half a surrogate pair is no text
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
        processor = AutoProcessor.from_pretrained(name, size=args.size)
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
    """The queries that nobody marked with "no" in the table, which is brought up to date.

    A mark stays in the table when its query is not made this time.
    """
    columns = ["query", "id", "way", "keep"]
    fresh = pandas.DataFrame(queries, columns=columns[:3]).drop_duplicates(["query", "id"])
    marks = read_table(file, columns) if file.exists() else []
    marked = {(x["query"], x["id"]): x for x in marks if x["keep"].strip().lower() == "no"}
    pairs = list(zip(fresh["query"], fresh["id"], strict=True))
    fresh["keep"] = ["no" if pair in marked else "yes" for pair in pairs]
    rest = [mark for pair, mark in marked.items() if pair not in set(pairs)]
    partial = file.with_name(file.name + ".partial")
    table = pandas.concat([fresh, pandas.DataFrame(rest, columns=columns)])
    table.to_csv(partial, index=False, encoding="utf-8-sig")
    partial.replace(file)
    return fresh[fresh["keep"] == "yes"].drop(columns="keep")


# The split and the hard negatives


def word_groups(pages, words=5):
    """{file: its groups of five words in a row, and the names of its pictures}."""
    groups = defaultdict(set)
    for page in pages:
        tokens = page["text"].lower().split()
        groups[page["file"]].update(zip(*(tokens[i:] for i in range(words)), strict=False))
        groups[page["file"]].add(Path(page["image"]).name)
    return groups


def editions(pages, at_least=0.3):
    """{file: the first file of its group}: files that share much of their text are one group.

    Two files are editions of one document where at least `at_least` of the shorter one's groups of
    five words, or of its pictures, stand in the other, too. Every pair is compared: seconds for a
    hundred files, minutes for a thousand.
    """
    groups = word_groups(pages)
    group_of = {file: file for file in groups}
    for first, second in itertools.combinations(groups, 2):
        shared = len(groups[first] & groups[second])
        if shared >= at_least * min(len(groups[first]), len(groups[second])):
            joined = {group_of[first], group_of[second]}
            group_of = {f: min(joined) if g in joined else g for f, g in group_of.items()}
    return group_of


def documents_of(rows, share):
    """{file: its document}: editions of one document are named, and count as one everywhere."""
    found = editions(rows, share)
    for file, document in found.items():
        if file != document:
            print(f"{file} has much of the text of {document}, or of its editions: one document")
    if len(set(found.values())) == 1 < len(found):
        raise ValueError(
            "all files have much of their text in common, and count as one document: add other "
            "files, or, where only a template is the same, split by file with --edition-share 1.1"
        )
    return found


def side_of(document, evaluated):
    """The split of a document, by its name alone, so that it stays there when others are added."""
    if evaluated:
        return "eval" if document in evaluated else "train"
    return "eval" if int(hashlib.sha256(document.encode()).hexdigest(), 16) % 3 == 0 else "train"


def split_by_file(rows, kept, eval_files):
    """{"train", "eval": table of query, id, way, image}, and {"train", "eval": images to search}.

    No document and no page stands in both; a query with a page that does is left out whole.
    """
    if unknown := set(eval_files) - {row["file"] for row in rows}:
        raise ValueError(f"--eval-files names what was not read: {', '.join(sorted(unknown))}")
    evaluated = {row["document"] for row in rows if row["file"] in eval_files}
    sides, corpus = defaultdict(set), defaultdict(dict)
    for row in rows:
        sides[row["image"]].add(side_of(row["document"], evaluated))
    for row in rows:
        if len(sides[row["image"]]) == 1:
            corpus[side_of(row["document"], evaluated)][row["image"]] = row["file"]
    page_of = {row["id"]: row for row in rows}
    table = kept.assign(image=[page_of[page]["image"] for page in kept["id"]])
    table["side"] = ["/".join(sorted(sides[image])) for image in table["image"]]
    for query in sorted(set(table["query"][table["side"] == "eval/train"])):
        print(f"left out, its page stands in files of both sides: {query}")
        table = table[table["query"] != query]
    asked = set(table["query"][table["side"] == "eval"])
    again = (table["side"] == "train") & table["query"].isin(asked)
    print(f"{again.sum()} training queries are left out: they are evaluated, on other pages")
    table = table[~again]
    split = {side: table[table["side"] == side] for side in ("train", "eval")}
    by_people = split["eval"][split["eval"]["way"] == "table"]
    split["eval"] = by_people if len(by_people) else split["eval"]
    for side, some in split.items():
        files = {page_of[page]["file"] for page in some["id"]}
        print(f"{side}: {some['query'].nunique()} queries about {len(files)} files")
        if not len(some):
            raise ValueError(f"no query for {side}: add files or questions, or name --eval-files")
    return split, corpus


def mine(table, corpus, model, args, **rules):
    """What mine_hard_negatives finds, however deep it has to look; no right page of a query is."""
    pages = args.data / "pages"
    pairs = {"query": list(table["query"]), "image": [str(pages / x) for x in table["image"]]}
    mined = mine_hard_negatives(
        Dataset.from_dict(pairs),
        model,
        corpus=[str(pages / image) for image in corpus],
        range_max=len(corpus) - 1,
        batch_size=args.encode_batch_size,
        verbose=False,
        **rules,
    )
    return [
        {name: text if name == "query" else Path(text).name for name, text in row.items()}
        for row in mined
    ]


def mine_train(table, corpus, rows, model, args):
    """Rows of query, image and negative_0: the most similar page of another document.

    A page has one query, of people before a model's before the text layer, or all that people
    asked. Where nothing is safely less similar, the negative is a page of another by chance.
    """
    documents = defaultdict(set)
    for row in rows:
        documents[row["image"]].add(row["document"])
    if len(set().union(*(documents[image] for image in corpus))) < 2:
        raise ValueError("one document to train on, a hard negative is of another: add PDF files")
    right = table.groupby("query")["image"].agg(set)
    rules = {"relative_margin": args.relative_margin, "num_negatives": min(50, len(corpus) - 1)}
    mined = defaultdict(list)
    for row in mine(table, corpus, model, args, **rules):
        mined[row["query"], row["image"]].append(row["negative"])

    order = table["way"].map({"table": 0, "text layer": 2}).fillna(1)  # a model's stand between
    table = table.loc[order.sort_values(kind="stable").index]
    table = table[(table["way"] == "table") | ~table.duplicated("image")]
    found, by_chance, chance = [], 0, random.Random(0)
    for query, image in zip(table["query"], table["image"], strict=True):
        own = set().union(*(documents[page] for page in right[query]))
        others = [page for page in mined[query, image] if not documents[page] & own]
        if not others:
            others = [page for page in corpus if not documents[page] & own]
            chance.shuffle(others)
            by_chance += 1
        if not others:
            raise ValueError(f"every document to train on answers {query!r}: add PDF files")
        found.append({"query": query, "image": image, "negative_0": others[0]})
    print(f"{by_chance} of {len(found)} rows have a negative by chance, the others a hard one")
    return found


def mine_eval(table, corpus, model, args):
    """Rows of query, image and negative_0 to negative_3: the four most similar other pages.

    A query with several right pages has a row for each, which evaluate.py takes together.
    """
    needed = 4 + table.groupby("query")["image"].nunique().max()
    if len(corpus) < needed:
        raise ValueError(
            f"the files for evaluation have {len(corpus)} different pages, expected {needed} at "
            "least: add PDF files, or name longer ones with --eval-files"
        )
    mined = mine(table, corpus, model, args, num_negatives=4, output_format="n-tuple")
    names = {f"negative_{i + 1}": f"negative_{i}" for i in range(4)}
    return [{names.get(name, name): value for name, value in row.items()} for row in mined]


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
    option("--index", type=folder, default="index", help="of index.py; default: index")
    option("--questions", type=folder, help="default: questions.csv beside the PDF files, if any")
    option("--data", type=folder, default="data", help="what is written; default: data")
    model = "tomaarsen/Qwen3-VL-Embedding-2B-vdr"
    option("--model", type=model_source, default=model, help="mines hard negatives; train from it")
    option("--revision", type=revision, help="a commit, tag or branch of the hub")
    option("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    writers = ["Qwen/Qwen3-VL-2B-Instruct"]
    option("--query-models", type=model_source, nargs="*", default=writers, help="write queries")
    option("--eval-files", nargs="+", default=[], help="default: a third, by the hash of the name")
    same = "files with more of their text in common are one document; default: 0.3"
    option("--edition-share", type=float, default=0.3, help=same)
    option("--relative-margin", type=float, default=0.05, help="of a hard negative; default: 0.05")
    option("--encode-batch-size", type=positive, default=16, help="default: 16")
    args = parser.parse_args()
    args.eval_files = [unicodedata.normalize("NFC", name) for name in args.eval_files]
    return args


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


def copy_pages(rows, index, data):
    """The pictures of the index, into the data: links to the same file where the disk has them."""
    images = {row["image"] for row in rows}
    for file in (data / "pages").iterdir():
        if file.name not in images:
            file.unlink()  # of a file that is gone
    for image in images - {file.name for file in (data / "pages").iterdir()}:
        try:
            os.link(index / "pages" / image, data / "pages" / image)
        except OSError:
            shutil.copyfile(index / "pages" / image, data / "pages" / image)


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def all_queries(args, rows, model):
    """The table of queries of all three ways that nobody has marked with "no"."""
    queries = queries_from_text(rows)
    if args.questions:
        queries = queries_from_table(args.questions, {row["id"] for row in rows}) + queries
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
    there, rows = read_index(args.index)
    if not args.questions and (there["folder"] / "questions.csv").exists():
        args.questions = there["folder"] / "questions.csv"
    document_of = documents_of(rows, args.edition_share)
    least, most = there["size"]
    args.size = {"shortest_edge": least, "longest_edge": most}
    settings = {"dataset": there["folder"].name, "hub": False}
    settings |= {"min_pixels": least, "max_pixels": most}
    open_data(args.data, settings)
    model = SentenceTransformer(
        args.model,
        revision=args.revision,
        model_kwargs={"dtype": args.dtype},
        processor_kwargs={"size": args.size},
    )
    model.truncate_dim = None
    copy_pages(rows, args.index, args.data)
    write_lines(args.data / "pages.jsonl", rows)
    print(f"{len(rows)} pages of {len(document_of)} files")

    kept = all_queries(args, rows, model)
    rows = [row | {"document": document_of[row["file"]]} for row in rows]
    split, corpus = split_by_file(rows, kept, args.eval_files)
    made = {
        "eval": mine_eval(split["eval"], corpus["eval"], model, args),
        "train": mine_train(split["train"], corpus["train"], rows, model, args),
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
