"""Read a folder of PDF files into an index that search.py asks: pictures, text and page vectors.

    python index.py my_pdfs --index index                        # text search, without a model
    python index.py my_pdfs --index index --model owner/model    # page vectors too, with a GPU
    python index.py data --index index --model finetuned         # pages that prepare.py has made

Run the same line again after a change: files that are new or changed are read, those that are gone
leave the index, and nothing else is drawn or encoded again. A run that was stopped goes on where it
was. Pages without a text layer, and scans with a few words in it, are read by OCR, if rapidocr is
installed; a scan that lies on its side or upside down is turned, and named.

Every PDF file that is not read is named with the reason; files of other kinds are counted. Text
that nobody sees is not read, and damaged pictures are named. Two cases escape: text of the colour
of the picture below it, and pictures in fax or JBIG2 compression, which many black-and-white scans
have.

Needs: pip install "sentence-transformers[image]" pypdfium2; for OCR also rapidocr onnxruntime
"""

import argparse
import ctypes
import hashlib
import io
import json
import math
import os
import re
import statistics
import unicodedata
import zipfile
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy
import pypdfium2
from filelock import FileLock, Timeout
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
from sentence_transformers import SentenceTransformer
from torchvision.transforms.v2 import functional
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

LARGEST_PAGE = 50_000_000  # pixels of a picture inside a page, which is unpacked whole
READER = 3  # raise it when pages are read in another way: they are all read again
FEW_LETTERS = 150  # a picture page with fewer is a scan with a page number or a stamp
CHUNK = 500  # pages that are encoded before their vectors are kept
FORMAT = 1  # of the index
PATCH = 32  # pixels: 2 x 2 patches of 16, which Qwen3-VL makes one token
MIN_PIXELS, MAX_PIXELS = 4_096, 360_000
DPI = "60 dpi on Letter; 1440000 is 120 dpi, and four times the tokens"
TEXT_ONLY = """no --model was named. Page vectors need a model that reads such pages, like
tomaarsen/Qwen3-VL-Embedding-2B-vdr, and in practice a GPU. The tiny models of the course read no
pages but its own."""


# One page of a PDF file


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
    return [value for value in values if value not in ("", "Off")]  # Off: a box without its tick


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


def load_ocr():
    """A function that reads a picture, or None where rapidocr is not installed.

    It gives the text, and the degrees clockwise that make the picture stand upright. Only what does
    not look upright is read twice. The library's own step, use_cls, turns lines that were right.
    """
    try:
        from rapidocr import RapidOCR
    except ImportError:
        return None
    settings = {"Global.log_level": "critical", "Global.use_cls": False, "Global.text_score": 0}
    engine = RapidOCR(params=settings)

    def read(picture):
        text, sure, tall = ocr_lines(engine, picture)
        if sure > 0.9 and tall < 0.5:
            return text, 0
        turn = 180
        if tall >= 0.5:
            turn = 270 if sure > 0.9 else 90  # it turns tall lines by 270 degrees, and reads them
        again, surer, tall = ocr_lines(engine, picture.rotate(-turn, expand=True))
        if again and surer > min(0.9, sure + 0.1) and tall < 0.5:
            return again, turn
        return text, 0

    return read


RUNS_DOWN = re.compile("[\u3040-\u30ff\u3400-\u9fff]")  # letters of Japanese and Chinese columns


def ocr_lines(engine, picture):
    """(the text of a picture, how sure its letters are, the share in lines that run up or down)."""
    found = engine(numpy.asarray(picture)[:, :, ::-1])  # blue first, as OpenCV has it
    if not found.txts:
        return "", 1, 0
    letters = [len(text) for text in found.txts]
    lines = zip(found.txts, found.scores, strict=True)
    text = "\n".join(text for text, score in lines if score >= 0.5)
    corners = numpy.asarray(found.boxes)  # of shape (lines, 4, 2), clockwise from the top left
    width = numpy.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
    height = numpy.linalg.norm(corners[:, 3] - corners[:, 0], axis=1)
    tall = (height > 1.5 * width) & (numpy.asarray(letters) > 2)  # a single letter is tall, too
    tall &= [2 * len(RUNS_DOWN.findall(text)) < len(text) for text in found.txts]
    return text, *(numpy.average(values, weights=letters) for values in (found.scores, tall))


def remember(ocr, file):
    """`ocr`, with its readings kept line by line in a file: a run that was killed goes on there."""
    kept = {}
    for line in file.read_text(encoding="utf-8").split("\n") if file.exists() else ():
        try:
            key, *reading = json.loads(line)
        except ValueError:
            continue  # half a line, of the moment of the kill
        kept[key] = reading
    if kept:
        print(f"{len(kept)} pages were read by OCR before an earlier run was stopped: kept")

    def read(picture):
        key = hashlib.sha1(str(picture.size).encode() + picture.tobytes()).hexdigest()
        if key not in kept:
            kept[key] = ocr(picture)
            with file.open("a", encoding="utf-8") as lines:
                lines.write("\n" + json.dumps([key, *kept[key]]))
        return kept[key]

    return read


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


# One PDF file


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


def write_whole(file, text):
    """Write a file whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def read_picture(file, processor, pages, ocr=None):
    """What read_document finds, for a picture at the model's size that prepare.py has made."""
    try:
        picture = Image.open(file).convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError("is damaged or no picture") from error
    text, turned = ocr(picture) if ocr else ("", 0)
    text, problems = clean(text).strip(), []
    if turned:
        problems.append(f"does not stand upright: its text is read turned by {turned} degrees")
    row = {"page": 1, "image": save_picture(picture, pages), "text": text, "headings": []}
    row |= {"text_by": "ocr" if text else "", "turned": 0}  # the picture stays what prepare.py made
    return {"title": "", "rows": [row], "problems": problems}


def kept_document(record, index, made_with):
    """What an earlier run has read of a file, or None where it has to be read now."""
    if not record.exists():
        return None
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return None
    before = found["made_with"]
    without_text = any(not row["text_by"] for row in found["rows"])
    if before["reader"] != made_with["reader"]:
        return None
    if without_text and made_with["ocr"] and not before["ocr"]:
        return None  # OCR was installed since
    whole = all((index / "pages" / row["image"]).exists() for row in found["rows"])
    return found if whole else None


def walk(folder, index):
    """(all files below a folder, links to folders too; {path: what happened} of folders)."""
    files, problems = [], {}

    def closed(error):
        problems[Path(error.filename)] = f"is a folder that cannot be read: {error.strerror}"

    for place, folders, names in os.walk(folder, onerror=closed):
        paths = [Path(place) / name for name in folders]
        folders[:] = [path.name for path in paths if path.resolve() != index.resolve()]
        for path in paths:
            if path.suffix.lower() == ".pdf":
                names.append(path.name)  # to be named
            elif path.is_symlink():
                problems[path] = "is a link to a folder, and not followed: index that folder"
        files += [Path(place) / name for name in names]
    return sorted(files), problems


def name_of(file, begin):
    """The name of a file in one Unicode form and on one line; bytes that are no text become "?"."""
    name = clean(unicodedata.normalize("NFC", file.relative_to(begin).as_posix()))
    return re.sub("[\t\n\r\x80-\x9f]", " ", name)


def is_pdf(file):
    """Whether a file that is not called so begins as a PDF file does."""
    try:
        return file.is_file() and file.open("rb").read(5) == b"%PDF-"
    except OSError:
        return False


def files_of(folder, index):
    """{name: path} of the PDF files of a folder, or of the pages that prepare.py has made there.

    Printed is what is not among them, and why.
    """
    is_data = (folder / "manifest.json").exists()
    begin, ending = (folder / "pages", ".png") if is_data else (folder, ".pdf")
    files, problems = walk(begin, index)
    found, others = {}, Counter()
    for file in files:
        name = name_of(file, begin)
        if file.suffix.lower() != ending:
            if not is_data and is_pdf(file):
                problems[file] = f"is a PDF file: call it {Path(name).stem}.pdf to have it read"
            elif not is_data:
                others[Path(name).suffix.lower() or "no ending"] += 1
        elif name in found:
            problems[file] = "is left out, another file has this name: rename one of them"
        else:
            found[name] = file
    for file, problem in problems.items():
        print(f"{name_of(file, begin)} {problem}")
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
        print(f"{sum(others.values())} files are no PDF files, and not read: {kinds}")
    return found


def file_hash(file):
    """20 digits for a file's content. ValueError for what is no file, or cannot be read."""
    try:
        if not file.is_file():
            raise ValueError("is no file: a folder, or a link to nothing")
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:20]
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def read_file(file, digest, index, processor, ocr):
    """What is found in a file. ValueError with the reason where it cannot be read.

    OSError where the index cannot be written: all other files would fare no better.
    """
    read = read_picture if file.suffix.lower() == ".png" else read_document
    try:
        found = read(file, processor, index / "pages", ocr)
    except ValueError:
        raise
    except OSError:
        file_hash(file)  # is it the file that fails?
        raise
    except Exception as error:  # of a library: it costs this file, not the others
        raise ValueError(f"cannot be read: {type(error).__name__}, {error}") from error
    if file_hash(file) != digest:
        raise ValueError("was changed while it was read: run the same line again")
    return found


def read_folder(folder, index, processor, made_with, ocr):
    """(rows of all pages, records in use, number of files read now); problems are printed."""
    rows, records, new = [], {}, 0
    files = files_of(folder, index)
    for number, (name, file) in enumerate(files.items(), start=1):
        try:
            digest = file_hash(file)
            if digest in records:
                raise ValueError(f"is a copy of {records[digest]}, and left out")
            record = index / "documents" / f"{digest}.json"
            found = kept_document(record, index, made_with)
            if not found:
                found = read_file(file, digest, index, processor, ocr) | {"made_with": made_with}
                write_whole(record, json.dumps(found))
                new += 1
                print(f"{number} of {len(files)}  {name}: {len(found['rows'])} pages", flush=True)
        except ValueError as error:
            print(f"{name} {error}")
            continue
        records[digest] = name
        for problem in found["problems"]:
            print(f"{name} {problem}")
        place = {"file": name, "title": found["title"] or Path(name).stem}
        rows += [place | row for row in found["rows"]]
    if not rows:
        raise ValueError(f"no page of a PDF file could be read in {folder}")
    return rows, records, new


# Page vectors


def model_key(source, revision):
    """A hash of a saved model's weights and settings; a model of the hub is its name."""
    digest = hashlib.sha256()
    for file in sorted(Path(source).rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16] if Path(source).is_dir() else f"{source}@{revision or 'main'}"


def load_model(settings):
    """The model of the index; ValueError where it cannot be loaded, or reads no pages."""
    chosen, pages = settings["model"], settings["pages"]
    size = {"shortest_edge": pages["min_pixels"], "longest_edge": pages["max_pixels"]}
    try:
        model = SentenceTransformer(
            chosen["source"],
            revision=chosen["revision"],
            truncate_dim=chosen["truncate_dim"],
            model_kwargs={"dtype": chosen["dtype"]},
            processor_kwargs={"size": size},
        )
        reader = model
        if not hasattr(model, "processor"):  # a Router: a student for queries, a teacher for pages
            reader = model[0].sub_modules["document"][0]
        pixels = reader.processor.image_processor
        patch = (pixels.patch_size, pixels.merge_size)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{chosen['source']} cannot be loaded: {reason} For text search leave out --model"
        ) from error
    except AttributeError as error:
        raise ValueError(f"{chosen['source']} does not read pages as Qwen2-VL does") from error
    if math.prod(patch) != pages["patch"]:
        raise ValueError(f"{chosen['source']} cuts pages into pieces of {math.prod(patch)} pixels")
    return model


def read_vectors(index):
    """{image: vector} of the pages that are encoded already."""
    if not (index / "vectors.npz").exists():
        return {}
    try:
        with numpy.load(index / "vectors.npz") as kept:
            return dict(zip(kept["images"].tolist(), kept["vectors"], strict=True))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        print("vectors.npz is damaged: all pages are encoded again")
        return {}


def write_vectors(index, vectors):
    partial = index / "vectors.npz.partial"
    with partial.open("wb") as file:
        numpy.savez(file, images=list(vectors), vectors=numpy.stack(list(vectors.values())))
    partial.replace(index / "vectors.npz")


def encode_new(model, index, images, batch_size):
    """Encode the pictures that have no vector yet, and return how many those were."""
    vectors = read_vectors(index)
    new = [image for image in images if image not in vectors]
    for begin in range(0, len(new), CHUNK):
        chunk = new[begin : begin + CHUNK]
        found = model.encode_document(
            [str(index / "pages" / image) for image in chunk],
            batch_size=batch_size,
            normalize_embeddings=True,
        ).astype("float32")
        if not numpy.isfinite(found).all():
            raise ValueError("the model's vectors are not finite: set --dtype float32")
        vectors |= zip(chunk, found, strict=True)
        write_vectors(index, vectors)
        print(f"{begin + len(chunk)} of {len(new)} new pages encoded", flush=True)
    return len(new)


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
    """A folder, with ~ and $HOME expanded, the id of a model on the hub, or none."""
    if folder(text).is_dir():
        return str(folder(text))
    if text != "none" and (text.count("/") != 1 or text.startswith(("~", ".", "/"))):
        raise argparse.ArgumentTypeError(f"no folder {text!r}, and no hub id such as owner/name")
    return text


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("folder", type=folder, help="PDF files, in folders below it too, or prepare.py's data")
    option("--index", type=folder, default="index", help="what is written; default: index")
    option("--model", type=model_source, help="makes page vectors; default: none, or the index's")
    option("--revision", type=revision, help="a commit, tag or branch of the hub")
    option("--truncate-dim", type=positive, help="default: as the model was saved")
    option("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    option("--max-pixels", type=positive, help=f"per page; default: {MAX_PIXELS}, {DPI}")
    option("--min-pixels", type=positive, help=f"per page; default: {MIN_PIXELS}")
    option("--ocr", action=argparse.BooleanOptionalAction, default=True, help="if it is installed")
    option("--encode-batch-size", type=positive, default=16, help="default: 16")
    args = parser.parse_args()
    if not args.folder.is_dir():
        parser.error(f"expected a folder of PDF files, found {args.folder}")
    return args


def read_settings(index):
    """The settings of an index that is there, or {}; ValueError for a folder that is no index."""
    note = index / "index.json"
    if not note.exists():
        if index.exists() and any(index.iterdir()):
            raise ValueError(f"{index} is not empty and holds no index: name another with --index")
        return {}
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        found = {}
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{note} is damaged: delete the folder {index} and make it anew")
    return found


def settle(args):
    """The settings of the index; ValueError where it was made with others."""
    there = read_settings(args.index)
    pages = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    if (args.folder / "manifest.json").exists():
        manifest = json.loads((args.folder / "manifest.json").read_text(encoding="utf-8"))
        pages = {name: manifest["settings"][name] for name in pages}
    before = there.get("pages", {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS})
    pages = {name: value or before[name] for name, value in pages.items()} | {"patch": PATCH}
    model = there.get("model")
    if args.model == "none":
        model = None
    elif args.model:
        names = ("revision", "truncate_dim", "dtype")
        model = {"source": args.model} | {name: getattr(args, name) for name in names}
        model["key"] = model_key(args.model, args.revision)
    elif model and model_key(model["source"], model["revision"]) != model["key"]:
        raise ValueError(f"{model['source']} was changed since {args.index} was made")
    settings = {"format": FORMAT, "folder": str(args.folder.resolve())}
    settings |= {"pages": pages, "model": model}
    if there:
        check_same(args.index, there, settings)
    return settings


def check_same(index, there, settings):
    """ValueError where an index was made of another folder, with another model or page size."""
    other = "name another folder with --index"
    moved = not Path(there["folder"]).exists() or not (index / "pages.jsonl").exists()
    if there["folder"] != settings["folder"] and not moved:
        raise ValueError(f"{index} was made of {there['folder']}: {other}")
    for name, value in there["pages"].items():
        if settings["pages"][name] != value:
            raise ValueError(
                f"{index} was made with {name} {value}, not {settings['pages'][name]}: {other}"
            )
    before, now = there["model"], settings["model"]
    if before and before != now:
        raise ValueError(
            f"{index} was made with the model {told(before)}, not {told(now)}: {other}"
        )


def told(model):
    return " ".join(f"{name} {value}" for name, value in model.items()) if model else "none"


def lock(index):
    """The index for this run alone: a second would take away what the first has just written."""
    index.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(index / ".lock", timeout=0).acquire()
    except Timeout as error:
        raise ValueError(f"another run is writing {index}: wait until it has ended") from error


def main():
    args = read_arguments()
    settings = settle(args)
    model = load_model(settings) if settings["model"] else None
    with lock(args.index):
        write_whole(args.index / "index.json", json.dumps(settings, indent=1))
        make_index(args, settings, model)


def make_index(args, settings, model):
    for name in ("pages", "documents"):
        (args.index / name).mkdir(exist_ok=True)
    pages = settings["pages"]
    size = {"shortest_edge": pages["min_pixels"], "longest_edge": pages["max_pixels"]}
    pixels = SimpleNamespace(patch_size=PATCH, merge_size=1, size=size)
    ocr = load_ocr() if args.ocr else None
    made_with = {"reader": [READER, version("pypdfium2"), pages], "ocr": ocr is not None}
    processor = SimpleNamespace(image_processor=pixels)
    ocr = remember(ocr, args.index / f"ocr-{READER}.jsonl") if ocr else None
    rows, records, new = read_folder(args.folder, args.index, processor, made_with, ocr)
    images = list(dict.fromkeys(row["image"] for row in rows))
    encoded = encode_new(model, args.index, images, args.encode_batch_size) if model else 0
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_whole(args.index / "pages.jsonl", lines)  # from here on the pages are searched
    remove_the_rest(args.index, images, records)
    for file in args.index.glob("ocr-*.jsonl") if ocr else ():
        file.unlink()  # the records have it; a run with --no-ocr leaves it for the next
    tell(args.index, rows, new, encoded, settings["model"], ocr)


def tell(index, rows, new, encoded, model, ocr):
    files = len({row["file"] for row in rows})
    print(f"{len(rows)} pages of {files} files in {index}: {new} files read, {encoded} encoded")
    without_text = Counter(row["file"] for row in rows if not row["text_by"])
    if without_text:
        way = "OCR finds none"
        if not ocr:
            way = "install rapidocr and onnxruntime to read them, or leave out --no-ocr"
        several = sum(without_text.values())
        print(f"{several} pages have no text, or only a few words on a scan: {way}")
        most = without_text.most_common(5)
        print("They are most in", ", ".join(f"{name} ({count})" for name, count in most))
    if model:
        print(f"Searched by text and by page vectors of {model['source']}.")
    else:
        print(f"Searched by text only: {TEXT_ONLY}")


def remove_the_rest(index, images, records):
    """Delete what belongs to files that are gone, and what a stopped run has left."""
    used = {*images, *(f"{digest}.json" for digest in records)}
    for file in [*(index / "pages").iterdir(), *(index / "documents").iterdir()]:
        if file.name not in used:
            file.unlink()
    vectors = read_vectors(index)
    if vectors.keys() - used:
        write_vectors(index, {image: vectors[image] for image in images if image in vectors})


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        raise SystemExit(f"index.py: {error}") from error
    except OSError as error:
        raise SystemExit(
            f"index.py: {error}\nMend that and run the same line again: what was read is kept."
        ) from error
    except KeyboardInterrupt:
        raise SystemExit("index.py: stopped. Run the same line again to go on.") from None
