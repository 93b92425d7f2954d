"""PDF files of your own, from the folder to questions that can be trained on (notebook 08).

What reads a page and what reads a table of questions is the same, function by function, as in
``scripts/index.py`` and ``scripts/documents.py``, which import nothing of this repository; a test
holds them equal. Appendix a8 shows how a file is read.

A **page** is a dictionary: ``id`` (``"manuals/pump.pdf#3"``), ``file``, ``page`` (counted from 1),
``title``, ``image`` (path of its PNG file; equal pictures have equal paths), ``text``, ``headings``.
A **question** is a dictionary: ``query``, ``id`` of a page that answers, ``way`` it was made.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import io
import itertools
import json
import math
import os
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy
import pandas
import pypdfium2
from PIL import Image, ImageChops
from pypdfium2.raw import (
    FORMTYPE_XFA_FULL,
    FPDF_ANNOT_WIDGET,
    FPDF_ERR_FORMAT,
    FPDF_ERR_PASSWORD,
    FPDF_PAGEOBJ_IMAGE,
    FPDF_PAGEOBJ_TEXT,
    FPDF_TEXTRENDERMODE_INVISIBLE,
    FPDFAnnot_GetFormFieldValue,
    FPDFAnnot_GetSubtype,
    FPDFPage_CloseAnnot,
    FPDFPage_GetAnnot,
    FPDFPage_GetAnnotCount,
    FPDFTextObj_GetTextRenderMode,
    FPDFTextObj_SetTextRenderMode,
)

from vdr_helpers.cache import MANIFEST, atomic_write, cached, stage_folder
from vdr_helpers.evaluation import embed_once, ranks
from vdr_helpers.models import is_named
from vdr_helpers.pages import LARGEST_PAGE, presize, show_progress
from vdr_helpers.profiles import Profile

PICTURES = "pages"  # the folder of a document's page files
# Raise it when pages are read in another way: they are all read again.
READER = 3
FEW_LETTERS = 150  # a picture page with fewer is a scan with a page number or a stamp


# One page of a PDF file, and one file, as in scripts/index.py


def box_on_page(item):
    """(left, bottom, right, top) of an object of the page, in points; of one in a form too."""
    box, form = item.get_bounds(), item.container
    while form:
        box, form = form.get_matrix().on_rect(*box), form.container
    return box


def is_damaged(picture):
    """Whether a picture of a page cannot be decoded to its end; not known of fax and JBIG2."""
    if math.prod(picture.get_px_size()) > LARGEST_PAGE:
        return False  # not unpacked at all: draw_page refuses it
    filters = picture.get_filters(skip_simple=True)
    data = bytes(picture.get_data(decode_simple=True))
    try:
        picture.get_bitmap()
        if filters in (["DCTDecode"], ["JPXDecode"]):
            Image.open(io.BytesIO(data)).load()
    except (pypdfium2.PdfiumError, OSError, ValueError):
        return True
    if filters:
        return False
    if picture.get_filters() and data == bytes(picture.get_data()):
        return True  # what cannot be unpacked is handed on as it is
    width, height = picture.get_px_size()
    told = picture.get_metadata().bits_per_pixel  # 24 for 16 grey bits too, so others are tried
    bits = [bits for bits in (1, 2, 4, 8, 16, 24, 32, 48, 64) if bits < told]
    sizes = [math.ceil(width * some / 8) * height for some in (*bits, told)]
    return len(data) < sizes[-1] and not any(size <= len(data) < size + 100 for size in sizes)


def picture_share(page, counts=lambda picture: True):
    """The share of the page, from 0 to 1, that pictures cover: those for which `counts` is true."""
    left, bottom, right, top = page.get_bbox()
    covered = 0
    for picture in page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE]):
        box = box_on_page(picture)
        wide, high = min(right, box[2]) - max(left, box[0]), min(top, box[3]) - max(bottom, box[1])
        if min(wide, high) > 0 and counts(picture):
            covered += wide * high
    return min(1, covered / ((right - left) * (top - bottom)))


def draw_page(page, processor):
    """A PDF page as the model sees it, upright. ValueError for one that cannot be drawn."""
    width, height = page.get_size()  # points, 72 to the inch
    if not 0 < max(width, height) <= 200 * min(width, height):
        raise ValueError(f"measures {width:g} x {height:g} points: no page has this shape")
    pictures = page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE])
    largest = max((math.prod(picture.get_px_size()) for picture in pictures), default=0)
    if largest > LARGEST_PAGE:
        left, bottom, right, top = page.get_mediabox()  # a CropBox may show a part of a scan
        area = max(width * height, abs((right - left) * (top - bottom)))
        dpi = int(72 * math.sqrt(LARGEST_PAGE / area))  # of a picture that fills it
        raise ValueError(
            f"holds a picture of {largest:,} pixels, the limit is {LARGEST_PAGE:,}: "
            f"save or scan it at {dpi} dpi or less"
        )
    scale = math.sqrt(4 * processor.image_processor.size["longest_edge"] / (width * height))
    return presize(page.render(scale=scale).to_pil().convert("RGB"), processor)


def remove_unseen_text(page):
    """Take text off the page that nobody sees: white on white, in a layer that is off, cut away.

    The page is drawn with and without its text; text that makes no difference goes. Text over or
    under a picture stays, since OCR puts its words there. Not found: text of the colour of a
    picture below it, and text that overlaps with text that is seen.
    """
    layer = page.get_textpage()
    texts = list(page.get_objects(filter=[FPDF_PAGEOBJ_TEXT], textpage=layer))
    texts = [text for text in texts if text.extract().strip()]
    layer.close()  # before any of its text may go
    scale = math.sqrt(500_000 / math.prod(page.get_size()))
    bitmap = page.render(scale=scale)
    whole = bitmap.to_pil().convert("RGB")
    modes = [FPDFTextObj_GetTextRenderMode(text) for text in texts]
    for text in texts:
        FPDFTextObj_SetTextRenderMode(text, FPDF_TEXTRENDERMODE_INVISIBLE)
    without = page.render(scale=scale).to_pil().convert("RGB")
    for text, mode in zip(texts, modes, strict=True):
        FPDFTextObj_SetTextRenderMode(text, mode)

    seen = numpy.asarray(ImageChops.difference(whole, without)).max(axis=2) > 8  # of 255 levels
    pictures = [box_on_page(picture) for picture in page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE])]
    to_pixels = bitmap.get_posconv(page).to_bitmap
    for text in texts:
        left, bottom, right, top = box_on_page(text)
        columns, rows = zip(to_pixels(left, bottom), to_pixels(right, top), strict=True)
        spot = seen[
            max(0, min(rows) - 1) : max(0, max(rows) + 2),
            max(0, min(columns) - 1) : max(0, max(columns) + 2),
        ]
        x, y = (left + right) / 2, (bottom + top) / 2
        over = any(box[0] <= x <= box[2] and box[1] <= y <= box[3] for box in pictures)
        if not spot.any() and not (over and spot.size):
            page.remove_obj(text)


NO_LETTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ue000-\uf8ff\ufffd\ufffe]")


def clean(text):
    """Text that files and tokenizers take, a word that the end of a line has cut in one piece.

    Taken out are halves of surrogate pairs, and what fonts without a table of letters leave.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    # PDFium's mark of such a cut
    text = re.sub("\x02(?=(.))", lambda cut: "-" if cut[1].isupper() else "", text)
    text = text.replace("\x02", "")
    return NO_LETTER.sub(" ", text)


def read_fields(page):
    """What was filled into the form fields of a page, which is no part of its text layer."""
    values = []
    for i in range(FPDFPage_GetAnnotCount(page) if page.formenv else 0):
        field = FPDFPage_GetAnnot(page, i)
        if FPDFAnnot_GetSubtype(field) == FPDF_ANNOT_WIDGET:
            size = FPDFAnnot_GetFormFieldValue(page.formenv, field, None, 0)  # bytes, with the end
            buffer = (ctypes.c_ushort * (size // 2))()
            FPDFAnnot_GetFormFieldValue(page.formenv, field, buffer, size)
            values.append(bytes(buffer)[:-2].decode("utf-16-le", "replace").strip())
        FPDFPage_CloseAnnot(field)
    return [value for value in values if value not in ("", "Off")]


def read_text(page):
    """(the text layer of a page with its form fields, its lines in large type)."""
    layer = page.get_textpage()
    boxes = [layer.get_rect(i) for i in range(layer.count_rects())]  # left, bottom, right, top
    text = clean(layer.get_text_bounded()).replace("\r\n", "\n") if boxes else ""
    usual = statistics.median(top - bottom for _, bottom, _, top in boxes) if boxes else 0
    large = [box for box in boxes if box[3] - box[1] > 1.3 * usual]
    lines = [clean(layer.get_text_bounded(*box)).strip() for box in large]
    layer.close()
    text = "\n".join([text, *read_fields(page)]).strip()
    return text, [line for line in lines if line]


def read_page(page, processor, pages, ocr=None):
    """The row of a page, or None for a blank one; its picture is written into the folder `pages`.

    `ocr(picture)` gives a text, and the degrees clockwise that make the picture stand upright.
    ValueError with the reason for a page that cannot be drawn.
    """
    picture = draw_page(page, processor)
    if picture.getcolors(maxcolors=1):
        return None
    remove_unseen_text(page)
    text, headings = read_text(page)
    is_scan = len(text) < FEW_LETTERS and picture_share(page) > 0.5
    text_by, turned = "layer" if text and not is_scan else "", 0
    if ocr and not text_by:
        scale = math.sqrt(3_000_000 / math.prod(page.get_size()))  # 180 dpi on Letter
        found, turned = ocr(page.render(scale=scale).to_pil().convert("RGB"))
        found = clean(found).strip()
        text_by = "ocr" if found else ""
        words = f" {' '.join(found.split())} "  # whole ones: a page number 7 is not in 1975
        unread = [line for line in text.splitlines() if f" {line.strip()} " not in words]
        text = "\n".join([*unread, found]).strip()
    if turned:
        page.set_rotation((page.get_rotation() + turned) % 360)
        picture = draw_page(page, processor)
    row = {"image": save_picture(picture, pages), "text": text, "headings": headings}
    return row | {"text_by": text_by, "turned": turned}


def save_picture(picture, pages):
    """The name under which a picture is kept, the SHA-1 of its size and pixels."""
    name = hashlib.sha1(str(picture.size).encode() + picture.tobytes()).hexdigest() + ".png"
    picture.save(pages / f"{name}.partial", "PNG", compress_level=1)
    (pages / f"{name}.partial").replace(pages / name)
    return name


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
    if document.get_formtype() == FORMTYPE_XFA_FULL:
        raise ValueError("is an XFA form, of which nothing is drawn here: print it to a PDF file")
    document.init_forms()  # or what was filled into a form is neither drawn nor read
    return document


BY_PROGRAMS = re.compile(
    r"^microsoft \w+ - |\.(docx?|pptx?|xlsx?|odt|indd|qxd|tex|dvi|pdf)$", re.IGNORECASE
)
NO_TITLE = re.compile(
    r"((untitled|unbenannt|do[ck]ument|presentation|präsentation|powerpoint[- ]präsentation"
    r"|powerpoint presentation|slide|folie|book|mappe|workbook|tit(el|le)|no title|scan|print)"
    r"[\s_-]*\d*|\W*)",
    re.IGNORECASE,
)


def read_title(document):
    """The title of a PDF file, or "" where a program filled it in without being asked."""
    try:
        title = clean(document.get_metadata_value("Title"))
    except UnicodeDecodeError:
        return ""
    title = BY_PROGRAMS.sub("", " ".join(title.split()))
    return "" if NO_TITLE.fullmatch(title) else title


def read_outline(document):
    """{page: [headings of the outline that point to it]}, the first page being 0."""
    outline = defaultdict(list)
    for mark in document.get_toc():
        try:
            if place := mark.get_dest():
                outline[place.get_index()].append(clean(mark.get_title()).strip())
        except UnicodeDecodeError:
            continue
    return outline


def read_document(file, processor, pages, ocr=None):
    """{"title", "rows", "problems"} of a PDF file; its pages are written into the folder `pages`.

    A row is {"page", "image", "text", "headings", "text_by", "turned"}: the number of the page from
    1, its picture's name, its text and where that is from ("layer", "ocr", or "" where there is
    none, or a few words on a scan), the degrees clockwise by which it was turned to stand upright.
    """
    rows, problems, blank = [], [], []
    with open_document(file) as document:
        title, outline = read_title(document), read_outline(document)
        for number in range(len(document)):
            try:
                page = document[number]
                damaged = picture_share(page, is_damaged)
                if damaged > 0.5:
                    raise ValueError("is left out, its picture is damaged: save or scan it anew")
                row = read_page(page, processor, pages, ocr)
                page.close()
            except (ValueError, pypdfium2.PdfiumError) as error:
                problems.append(f"page {number + 1} {error}")
                continue
            if damaged:
                problems.append(f"page {number + 1} has a damaged picture, and is kept")
            if not row:
                blank.append(str(number + 1))
                continue
            if row["turned"]:
                turned = f"turned by {row['turned']} degrees clockwise"
                problems.append(f"page {number + 1} does not stand upright: kept and read {turned}")
            headings = outline.get(number) or row["headings"]
            rows.append({"page": number + 1} | row | {"headings": headings})
    if blank:
        problems.append(f"is blank on page {', '.join(blank)}: left out")
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - 1024))
        if b"%%EOF" not in content.read():
            problems.append("has no end mark: it may have been cut off")
    return {"title": title, "rows": rows, "problems": problems}


# The folder


def reading_settings(processor) -> dict:
    """What decides a page's row beside the file: the pixels, the patches, the way it is read."""
    image = processor.image_processor
    return {
        "reader": READER,
        "pixels": dict(image.size),
        "patch": [image.patch_size, image.merge_size],
        "pypdfium2": version("pypdfium2"),
    }


def read_documents(folder: Path, processor, store: Path) -> tuple[list[dict], dict[str, str]]:
    """``(pages, problems)`` of every PDF file in ``folder`` and below it; no file stops the run.

    ``problems``: ``{file: what happened}``, for a file that could not be read and for one with a
    damaged page. Files are read once and kept under ``store``, by their content and
    :func:`reading_settings`. The same file under a second name is left out and named. Raises
    ``ValueError`` where no page at all could be read.
    """
    pages, problems, names, pictures = [], {}, {}, {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() != ".pdf":
            continue
        name = clean(unicodedata.normalize("NFC", file.relative_to(folder).as_posix()))
        try:
            digest = digest_of(file)
            if name in names.values():
                raise ValueError("is left out, another file has this name: rename one of them")
            if names.setdefault(digest, name) != name:
                raise ValueError(f"is a copy of {names[digest]}, and left out")
            kept, found = keep_document(file, digest, processor, store)
        except (ValueError, OSError, ArithmeticError, pypdfium2.PdfiumError) as error:
            problems[name] = getattr(error, "strerror", None) or str(error)
            continue
        if found["problems"]:
            problems[name] = "; ".join(found["problems"])
        for row in found["rows"]:
            path = str((kept / PICTURES / row["image"]).resolve())
            row["image"] = pictures.setdefault(row["image"], path)
            place = {"id": f"{name}#{row['page']}", "file": name}
            pages.append(place | {"title": found["title"] or Path(name).stem} | row)
    if not pages:
        happened = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        raise ValueError(f"no page of a PDF file could be read in {folder.name}: {happened}")
    return pages, problems


def digest_of(file: Path) -> str:
    """20 digits for a file's content. ``ValueError`` for what is no file."""
    if not file.is_file():
        raise ValueError("is no file: a folder, or a link to nothing")
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:20]


def keep_document(file: Path, digest: str, processor, store: Path) -> tuple[Path, dict]:
    """``(its folder, what read_document found)``, read now or kept from before."""

    def read(folder: Path) -> None:
        (folder / PICTURES).mkdir()
        found = read_document(file, processor, folder / PICTURES)
        (folder / "document.json").write_text(json.dumps(found), encoding="utf-8")

    settings = reading_settings(processor) | {"file": digest}
    kept = cached(store, "document", settings, read)
    return kept, json.loads((kept / "document.json").read_text(encoding="utf-8"))


def who_reads(profile: Profile) -> str:
    """A sentence on whether the model of this profile can read the pages of the folder.

    The small model that the course ships has seen drawn pages only; PDF files of the reader's own
    are other pages. A model that ``VDR_FINETUNED`` names is the reader's, and so is the answer.
    """
    ships = profile.model_name.startswith("assets/") or profile.random_weights
    if ships and not is_named(profile) and profile.documents_folder:
        return (
            f"No: the model of the profile {profile.name} has learned to read only pages that this "
            "course draws. Your own PDF files are searched by their text here; VDR_PROFILE=full "
            "takes a model that reads any page."
        )
    return "Yes: it has learned to read pages of this kind; how well, the scores below say."


# Questions


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
TABLE_LINE = re.compile(r"(\w(?:\S*\s+){1,5}?)[\d.,]+(?:\s\S{1,4})?")
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


def queries_from_model(name: str, pages: list[dict], profile: Profile) -> list[dict]:
    """A question for each page whose reply can be read, with its ``general`` twin.

    ``name``: hub id or folder of a vision-language model. Replies are kept one by one; a page that
    was asked for once, by this model with this prompt, is not asked for again.
    """
    settings = {"model": name, "prompt": PROMPT, "pixels": profile.max_pixels}
    folder = stage_folder(profile.output_dir / "documents", "replies", settings)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.dumps({"settings": settings, "files": {}}, indent=1)
    atomic_write(folder / MANIFEST, manifest + "\n")
    file, replies = folder / "replies.jsonl", {}
    if file.exists():
        lines = file.read_text(encoding="utf-8").split("\n")
        replies = dict(json.loads(line) for line in lines if line.endswith("]"))
    todo = dict.fromkeys(page["image"] for page in pages if Path(page["image"]).stem not in replies)
    for image, reply in replies_of(name, list(todo), profile):
        replies[Path(image).stem] = reply
        with file.open("a", encoding="utf-8") as lines:
            lines.write("\n" + json.dumps([Path(image).stem, reply]))
    read = [(page["id"], read_reply(replies[Path(page["image"]).stem])) for page in pages]
    unread = sum(pair is None for _, pair in read)
    print(f"{Path(name).name}: {unread} of {len(read)} replies could not be read")
    return [
        {"query": pair["specific"], "id": page, "way": Path(name).name, "general": pair["general"]}
        for page, pair in read
        if pair
    ]


def replies_of(name: str, images: list[str], profile: Profile):
    """Load the model where there are images, and yield ``(image, reply)`` for each."""
    if not images:
        return
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(name, dtype="auto", device_map="auto")
    processor = AutoProcessor.from_pretrained(name, **profile.processor_kwargs)
    for number, image in enumerate(images):
        yield image, ask_model(image, model, processor)
        show_progress(number, number + 1, len(images), 50)


def findable(candidates: list[dict], pages: list[dict], model, profile: Profile) -> list[dict]:
    """The candidates whose ``general`` query finds their page among the first 100, or among a tenth
    of few pages: the filter of the published set.
    """
    if not candidates:
        return []
    from sentence_transformers.util import cos_sim

    ids, paths = [page["id"] for page in pages], [page["image"] for page in pages]
    general = [row["general"] for row in candidates]
    queries, page_vectors = embed_once(model, general, paths, profile)
    found = ranks(cos_sim(queries, page_vectors), [ids.index(row["id"]) for row in candidates])
    limit = min(100, math.ceil(len(ids) / 10))
    return [row for row, rank in zip(candidates, found.tolist(), strict=True) if rank <= limit]


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


# Splits and scores


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


def one_side_each(pages: list[dict], side_of) -> dict[str, str]:
    """``{image: its side}`` by ``side_of(page)``; ``"left out"`` for a picture on several sides."""
    sides = defaultdict(set)
    for page in pages:
        sides[page["image"]].add(side_of(page))
    return {image: some.pop() if len(some) == 1 else "left out" for image, some in sides.items()}


def sides_of_queries(queries: pandas.DataFrame, side_of_image: dict[str, str]) -> pandas.Series:
    """The side of each line of queries, by its ``image``; ``"left out"`` where the right pages of
    its query, of which there may be several, lie on several sides.
    """

    def common(sides):
        return sides.iloc[0] if sides.nunique() == 1 else "left out"

    return queries["image"].map(side_of_image).groupby(queries["query"]).transform(common)


def ndcg_with_several(similarities, right_pages: list[list[int]]) -> numpy.ndarray:
    """NDCG@10 of each query, which may have several right pages; an array of shape (queries,).

    ``similarities``: a tensor of shape (queries, pages); ``right_pages``: the columns of each
    query's right pages, one at least. Wrong pages as similar as a right one count in front of it:
    a page that shares no word with the query is not found. With one right page this is notebook
    04's ``ndcg_at_10(ranks(..., equal_in_front=True))``.
    """
    discounts, found = 1 / numpy.log2(numpy.arange(2, 12)), []
    for scores, right in zip(similarities.numpy(), right_pages, strict=True):
        is_right = numpy.isin(numpy.arange(len(scores)), right)
        first = numpy.lexsort((is_right, -scores))[:10]
        best = discounts[: is_right.sum()].sum()
        found.append((discounts[: len(first)] * is_right[first]).sum() / best)
    return numpy.array(found)
