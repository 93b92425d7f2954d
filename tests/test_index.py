"""What index.py reads of PDF files of every kind, that it reads nothing twice, and what search.py
finds in its index.
"""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from types import SimpleNamespace

import numpy
import pypdfium2
import pytest
from filelock import FileLock
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from sentence_transformers import SentenceTransformer
from test_scripts import BASE, FLOAT, SCRIPTS, SMALL, TUNED, call, made, part, read_lines
from transformers import AutoProcessor

SIZE = ("--max-pixels", 16_384)
__all__ = ["made"]  # a fixture


def pdf(file, *pages, **settings):
    """A PDF file with a page for each text, or for each function that draws on a canvas."""
    canvas = Canvas(str(file), **({"pagesize": (400, 560)} | settings))
    for page in pages or ("Page 1",):
        canvas.setFont("Helvetica", 14)
        if callable(page):
            page(canvas)
        else:
            canvas.drawString(20, 500, page)
        canvas.showPage()
    canvas.save()
    return file


def objects(file, *bodies):
    """A PDF file of these objects, numbered from 1, of which the first is the catalog."""
    content = b"%PDF-1.7\n"
    for number, body in enumerate(bodies, start=1):
        content += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    file.write_bytes(content + b"trailer\n<</Root 1 0 R>>\nstartxref\n0\n%%EOF\n")
    return file


def stream(data, settings=b""):
    return b"<<%b/Length %d>>\nstream\n%b\nendstream" % (settings, len(data), data)


def picture_page(file, picture):
    """A PDF file of one page, all of it the picture that is object 5."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 400]/Contents 4 0 R"
    return objects(
        file,
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        page + b"/Resources<</XObject<</Im 5 0 R>>>>>>",
        stream(b"300 0 0 400 0 0 cm /Im Do"),
        picture,
    )


def noise(width=300, height=400):
    pixels = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


JPEG = b"/Type/XObject/Subtype/Image/Width 300/Height 400/ColorSpace/DeviceRGB/BitsPerComponent 8"


def jpeg():
    content = io.BytesIO()
    noise().save(content, "JPEG")
    return content.getvalue()


@pytest.fixture
def read(tmp_path):
    """A function that reads a PDF file as index.py does, without OCR."""
    processor = AutoProcessor.from_pretrained(BASE, size=SMALL)
    read_document = part("index", "read_document")
    (tmp_path / "pages").mkdir()
    return lambda file, ocr=None: read_document(file, processor, tmp_path / "pages", ocr)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pdf").mkdir()
    return tmp_path


def index(folder, *arguments):
    return call("index", "pdf", *SIZE, "--no-ocr", *arguments, folder=folder)


def search(folder, query, *arguments):
    return call("search", query, *arguments, folder=folder)


def texts(found):
    return [row["text"] for row in found["rows"]]


# what is read of a page


def test_what_was_filled_into_a_form_is_drawn_and_read(read, tmp_path):
    found = []
    for value in ("Anna", "Bert", "Anna"):

        def fields(canvas, value=value):
            form, place = canvas.acroForm, {"x": 20, "width": 120, "height": 60, "fontSize": 40}
            form.textfield(name="c", value=value, y=100, **place)
            form.checkbox(name="d", checked=False, x=20, y=300)

        found.append(read(pdf(tmp_path / "form.pdf", fields)))
    images = [one["rows"][0]["image"] for one in found]
    assert images[0] == images[2] != images[1]
    assert [texts(one) for one in found[:2]] == [["Anna"], ["Bert"]]


def test_a_form_that_only_its_maker_draws_is_named(read, tmp_path):
    file = objects(
        tmp_path / "form.pdf",
        b"<</Type/Catalog/Pages 2 0 R/NeedsRendering true/AcroForm<</Fields[]/XFA 4 0 R>>>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 400]>>",
        stream(b"<xdp:xdp/>"),
    )
    with pytest.raises(ValueError, match=r"is an XFA form, .* print it to a PDF file"):
        read(file)


def hidden(canvas):
    canvas.drawString(20, 500, "printed")
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(20, 450, "white")
    canvas.setFillColorRGB(0, 0, 0)
    canvas.saveState()
    text = canvas.beginText(20, 400)
    text.setTextRenderMode(3)
    text.textLine("invisible")
    canvas.drawText(text)
    canvas.restoreState()
    canvas.drawString(450, 300, "outside")
    canvas.beginForm("form")
    canvas.drawString(0, 0, "inside")
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(0, 30, "below")
    canvas.endForm()
    canvas.translate(100, 200)
    canvas.doForm("form")


def test_text_that_nobody_sees_is_not_read(read, tmp_path):
    found = read(pdf(tmp_path / "hidden.pdf", hidden))
    assert texts(found)[0].split() == ["printed", "inside"]


def test_text_of_a_layer_that_is_off_is_not_read(read, tmp_path):
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 400]/Contents 4 0 R/Resources<<"
    page += b"/Font<</F 5 0 R>>/Properties<</On 6 0 R/Off 7 0 R>>>>>>"
    layers = b"BT /F 20 Tf 20 300 Td /OC /On BDC (first) Tj EMC ET "
    layers += b"/OC /Off BDC BT /F 20 Tf 20 200 Td (second) Tj ET EMC"
    file = objects(
        tmp_path / "layers.pdf",
        b"<</Type/Catalog/Pages 2 0 R/OCProperties<</OCGs[6 0 R 7 0 R]/D<</OFF[7 0 R]>>>>>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        page,
        stream(layers),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Type/OCG/Name(one)>>",
        b"<</Type/OCG/Name(two)>>",
    )
    assert texts(read(file)) == ["first"]


def test_text_outside_the_cropbox_is_not_read(read, tmp_path):
    def cropped(canvas):
        canvas.setCropBox((0, 0, 300, 400))
        canvas.drawString(20, 200, "inside")
        canvas.drawString(20, 500, "above")
        canvas.setFont("Helvetica", 40)
        canvas.drawString(320, 200, "Right")

    for rotation in (0, 90):
        file = pdf(tmp_path / "crop.pdf", cropped, cropBox=(0, 0, 300, 400))
        content = file.read_bytes().replace(b"/Rotate 0", b"/Rotate %d" % rotation)
        file.write_bytes(content)
        [row] = read(file)["rows"]
        assert row["text"] == "inside" and row["headings"] == []


def scan(canvas, words="words of a scan"):
    text = canvas.beginText(30, 300)
    text.setTextRenderMode(3)
    text.textLines(words)
    canvas.drawText(text)
    canvas.drawImage(ImageReader(noise()), 0, 0, 400, 560)


def test_the_text_that_ocr_laid_over_or_under_a_scan_is_read(read, tmp_path):
    assert texts(read(pdf(tmp_path / "scan.pdf", scan))) == ["words of a scan"]


def test_a_page_without_text_is_read_by_ocr(read, tmp_path):
    file = pdf(tmp_path / "mixed.pdf", lambda canvas: canvas.circle(99, 99, 50, fill=1), "A layer")
    sizes = []
    found = read(file, lambda picture: (sizes.append(picture.size) or "seen\ud83d", 0))
    assert [(row["text"], row["text_by"]) for row in found["rows"]] == [
        ("seen?", "ocr"),
        ("A layer", "layer"),
    ]
    assert len(sizes) == 1 and min(sizes[0]) > 1000, "large enough for small type"
    assert [row["text_by"] for row in read(file)["rows"]] == ["", "layer"]


def test_a_scan_with_a_page_number_is_read_by_ocr_and_keeps_it(read, tmp_path):
    def stamped(canvas):
        canvas.drawImage(ImageReader(noise()), 0, 40, 400, 520)
        canvas.drawString(20, 20, "Page 7")
        canvas.drawString(300, 20, "seen")

    file = pdf(tmp_path / "stamped.pdf", stamped)
    [row] = read(file, lambda picture: ("words seen", 0))["rows"]
    assert row["text"].split() == ["Page", "7", "seen", "words", "seen"] and row["text_by"] == "ocr"
    for found in (read(file), read(file, lambda picture: ("", 0))):
        [row] = found["rows"]
        assert row["text"].split() == ["Page", "7", "seen"] and row["text_by"] == "", "not read yet"


def test_a_word_of_the_layer_that_ocr_reads_too_stands_there_once(read, tmp_path):
    file = pdf(tmp_path / "scan.pdf", lambda canvas: scan(canvas, "No. 7"))
    assert texts(read(file, lambda picture: ("A pump\nNo. 7", 0))) == ["A pump\nNo. 7"]
    assert texts(read(file, lambda picture: ("A pump, No.\n7", 0))) == ["A pump, No.\n7"]
    found = texts(read(file, lambda picture: ("Tax No. 71", 0)))
    assert found == ["No. 7\nTax No. 71"], "a part of another number is not the number"


def test_pages_with_a_layer_of_their_own_are_not_read_by_ocr(read, tmp_path):
    def title(canvas):
        canvas.drawString(20, 500, "Manual")
        canvas.drawImage(ImageReader(noise()), 0, 0, 400, 250)

    def whole(canvas):
        scan(canvas, "a layer that OCR laid over a whole page\n" * 5)

    def refused(picture):
        raise AssertionError("needless OCR")

    found = read(pdf(tmp_path / "own.pdf", "Title", title, whole), refused)
    assert [row["text_by"] for row in found["rows"]] == ["layer"] * 3


LINES = ("Cleaning the filter of the pump", "Switch the machine off first", "Serial number KV-482")


def lying(turn):
    """A function that draws a scan of LINES, turned counter-clockwise by so many degrees."""
    content = io.BytesIO()
    canvas = Canvas(content, pagesize=(400, 560))
    for number, line in enumerate(LINES):
        canvas.drawString(40, 480 - 30 * number, line)
    canvas.save()
    with pypdfium2.PdfDocument(content) as document:
        picture = document[0].render(scale=2.5).to_pil().rotate(turn, expand=True)
    return lambda canvas: canvas.drawImage(ImageReader(picture), 0, 0, *canvas._pagesize)


@pytest.fixture(scope="module")
def ocr():
    """(what load_ocr makes, a list that grows by each reading)."""
    load_ocr, readings = part("index", "load_ocr"), []
    ocr_lines = load_ocr.__globals__["ocr_lines"]

    def counted(*arguments):
        readings.append(arguments)
        return ocr_lines(*arguments)

    load_ocr.__globals__["ocr_lines"] = counted
    return load_ocr(), readings


@pytest.mark.slow
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_scan_that_does_not_stand_upright_is_turned_and_named(turn, ocr, read, tmp_path):
    size = (560, 400) if turn % 180 else (400, 560)
    engine, readings = ocr
    readings.clear()
    found = read(pdf(tmp_path / "scan.pdf", lying(turn), pagesize=size), engine)
    [row] = found["rows"]
    assert row["text"].splitlines() == list(LINES) and row["text_by"] == "ocr"
    page = Image.open(tmp_path / "pages" / row["image"]).convert("L")
    assert page.height > page.width
    upper, lower = numpy.array_split(numpy.asarray(page), 2)
    assert upper.mean() < 254 < lower.mean(), "text on top"
    said = f"page 1 does not stand upright: kept and read turned by {turn} degrees clockwise"
    assert row["turned"] == turn and found["problems"] == ([said] if turn else [])
    assert len(readings) == (2 if turn else 1), "what stands upright costs no second reading"


def test_how_sure_and_how_tall_lines_are_is_weighted_by_their_letters():
    def box(width, height):
        return [[0, 0], [width, 0], [width, height], [0, height]]

    boxes = [box(5, 10), box(10, 80), box(80, 10), box(50, 10)]
    found = {"txts": ("7", "up", "to read", "noise"), "scores": (1, 1, 0.9, 0.3), "boxes": boxes}
    lines = part("index", "ocr_lines")(lambda pixels: SimpleNamespace(**found), noise())
    assert lines == ("7\nup\nto read", pytest.approx(10.8 / 15), 0), "two letters do not lie"
    found["txts"] = ("7", "\u65e5\u672c\u8a9e", "to read", "noise")
    tall = part("index", "ocr_lines")(lambda pixels: SimpleNamespace(**found), noise())[2]
    assert tall == 0, "a column of Japanese stands upright"
    found["txts"] = ("7", "upwards", "to read", "noise")
    assert part("index", "ocr_lines")(lambda pixels: SimpleNamespace(**found), noise())[2] == 0.35


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (("upright", 0.95, 0.2), None, ("upright", 0)),
        (("nothing", 1, 0), None, ("nothing", 0)),
        (("poor", 0.7, 0), ("worse", 0.6, 0), ("poor", 0)),
        (("poor", 0.6, 0), ("better", 0.8, 0), ("better", 180)),
        (("poor", 0.6, 0), ("", 1, 0), ("poor", 0)),
        (("columns", 0.6, 1), ("columns too", 0.65, 0), ("columns", 0)),
        (("a sign", 0.95, 1), ("it stands again", 0.95, 1), ("a sign", 0)),
    ],
)
def test_of_two_readings_the_better_one_is_kept(first, second, found, monkeypatch):
    load_ocr = part("index", "load_ocr")
    readings = iter([first, second])
    load_ocr.__globals__["ocr_lines"] = lambda engine, picture: next(readings)
    assert load_ocr()(noise()) == found


def test_a_picture_that_is_too_large_is_named_with_a_way_out(tmp_path, monkeypatch):
    processor = AutoProcessor.from_pretrained(BASE, size=SMALL)
    read_document = part("index", "read_document")
    read_document.__globals__["LARGEST_PAGE"] = 100_000
    (tmp_path / "pages").mkdir()

    def found(width, height):
        page = pdf(
            tmp_path / "scan.pdf",
            lambda canvas: canvas.drawImage(ImageReader(noise(width, height)), 0, 0, 300, 400),
            pagesize=(300, 400),
        )
        return read_document(page, processor, tmp_path / "pages")

    limit = "the limit is 100,000: save or scan it at 65 dpi or less"
    said = f"page 1 holds a picture of 120,000 pixels, {limit}"
    assert found(300, 400)["problems"] == [said]
    assert found(300 * 65 // 72, 400 * 65 // 72)["problems"] == []
    file = picture_page(tmp_path / "bomb.pdf", stream(jpeg(), JPEG + b"/Filter/DCTDecode"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    found = read_document(file, processor, tmp_path / "pages")
    assert found["problems"][0] == said, "Pillow, which refuses the file, is not asked"


def test_a_scan_that_a_cropbox_cuts_is_named_with_the_dpi_of_the_whole(tmp_path):
    draw_page = part("index", "draw_page")
    draw_page.__globals__["LARGEST_PAGE"] = 100_000

    def cropped(canvas):
        canvas.setCropBox((0, 0, 150, 200))
        canvas.drawImage(ImageReader(noise()), 0, 0, 300, 400)

    file = pdf(tmp_path / "scan.pdf", cropped, pagesize=(300, 400))
    with pypdfium2.PdfDocument(file) as document:
        assert document[0].get_size() == (150, 200)
        with pytest.raises(ValueError, match="scan it at 65 dpi or less"):
            draw_page(document[0], None)


@pytest.mark.parametrize(
    "cut",
    [
        lambda data: bytes(len(data)),
        lambda data: data[: len(data) // 2],
        lambda data: data[:20],
        lambda data: b"",
    ],
)
@pytest.mark.parametrize("kind", ["jpeg", "zip"])
def test_a_damaged_scan_is_named_and_left_out(cut, kind, read, tmp_path):
    data, code = {
        "jpeg": (jpeg(), b"/Filter/DCTDecode"),
        "zip": (zlib.compress(noise().tobytes()), b"/Filter/FlateDecode"),
    }[kind]
    whole = read(picture_page(tmp_path / "whole.pdf", stream(data, JPEG + code)))
    assert len(whole["rows"]) == 1 and whole["problems"] == []
    found = read(picture_page(tmp_path / "scan.pdf", stream(cut(data), JPEG + code)))
    assert found["rows"] == [] and len(found["problems"]) == 1
    assert "page 1 is left out, its picture is damaged" in found["problems"][0]


def test_a_page_whose_picture_is_missing_is_blank_and_named(read, tmp_path):
    found = read(picture_page(tmp_path / "scan.pdf", b"null"))
    assert found["rows"] == [] and found["problems"] == ["is blank on page 1: left out"]


def test_a_page_with_a_small_damaged_picture_is_kept_and_named(read, tmp_path):
    def logo(canvas):
        canvas.drawString(20, 500, "Text")
        canvas.drawImage(str(tmp_path / "logo.jpg"), 20, 20, 60, 60)

    noise(50, 50).save(tmp_path / "logo.jpg")
    file = pdf(tmp_path / "logo.pdf", logo)
    content = file.read_bytes()
    begin = content.index(b"stream", content.index(b"DCTDecode")) + 300
    file.write_bytes(content[:begin] + b"z" * 400 + content[begin + 400 :])
    found = read(file)
    assert texts(found) == ["Text"]
    assert found["problems"] == ["page 1 has a damaged picture, and is kept"]


def test_a_picture_of_16_bits_keeps_its_levels(read, tmp_path):
    levels = numpy.linspace(6_000, 59_000, 300 * 400).reshape(400, 300).astype(">u2")
    settings = JPEG.replace(b"RGB", b"Gray").replace(b"Component 8", b"Component 16")
    picture = stream(zlib.compress(levels.tobytes()), settings + b"/Filter/FlateDecode")
    found = read(picture_page(tmp_path / "grey.pdf", picture))
    page = Image.open(tmp_path / "pages" / found["rows"][0]["image"]).convert("L")
    values = numpy.asarray(page.resize((1, 8), Image.Resampling.BOX)).ravel().astype(int)
    expected = numpy.linspace(6_000, 59_000, 17)[1::2] / 257
    assert abs(values - expected).max() < 4


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("Microsoft Word - Document1", ""),
        ("untitled", ""),
        ("PowerPoint Presentation", ""),
        ("Microsoft PowerPoint - Folie 3.ppt", ""),
        ("  ", ""),
        ("Microsoft Word - Pump manual.docx", "Pump manual"),
        ("Document control", "Document control"),
    ],
)
def test_a_title_that_a_program_filled_in_is_none(title, found, read, tmp_path):
    def named(canvas):
        canvas.setTitle(title)

    assert read(pdf(tmp_path / "a.pdf", named, "Text"))["title"] == found


def test_half_a_surrogate_pair_costs_no_more_than_itself(read, tmp_path):
    def book(canvas):
        canvas.setTitle("book")
        canvas.bookmarkPage("here")
        canvas.addOutlineEntry("outline", "here")
        canvas.drawString(20, 500, "Filters")

    file = pdf(tmp_path / "book.pdf", book)
    half = b"<FEFFD83D0041>"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"(book)", half).replace(b"(outline)", half))
    found = read(file)
    assert texts(found) == ["Filters"]
    for text in (found["title"], *found["rows"][0]["headings"]):
        text.encode()
    assert part("index", "clean")("a\ud83db") == "a?b"
    assert part("index", "clean")("Alt\x02Öl, count\x02ing\x02") == "Alt-Öl, counting"


def test_a_link_to_nowhere_costs_that_link(read, tmp_path):
    def outline(canvas):
        for name in ("first", "second"):
            canvas.bookmarkPage(name)
            canvas.addOutlineEntry(f"Heading {name}", name)
        canvas.drawString(20, 500, "Filters")

    file = pdf(tmp_path / "book.pdf", outline)
    file.write_bytes(file.read_bytes().replace(b"/Dest [", b"/Dest [ 99 0 R ", 1))
    assert read(file)["rows"][0]["headings"] == ["Heading second"]


def test_a_word_that_the_end_of_a_line_has_cut_is_one_word(read, tmp_path):
    def lines(canvas):
        for y, line in enumerate(("The instal-", "lation of a Linux-", "Distribution")):
            canvas.drawString(20, 500 - 20 * y, line)

    assert texts(read(pdf(tmp_path / "cut.pdf", lines))) == [
        "The installation of a Linux-Distribution"
    ]


def test_letters_that_a_font_does_not_name_are_read_by_ocr(read, tmp_path):
    file = objects(
        tmp_path / "type3.pdf",
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 400]/Contents 4 0 R"
        b"/Resources<</Font<</F 5 0 R>>>>>>",
        stream(b"BT /F 40 Tf 20 200 Td <1912> Tj ET"),
        b"<</Type/Font/Subtype/Type3/FontBBox[0 0 750 750]/FontMatrix[.001 0 0 .001 0 0]"
        b"/FirstChar 18/LastChar 25/Widths[800 0 0 0 0 0 0 800]/CharProcs<</a 6 0 R/b 6 0 R>>"
        b"/Encoding<</Type/Encoding/Differences[18/a 25/b]>>>>",
        stream(b"800 0 0 0 750 750 d1 0 0 750 750 re f"),
    )
    [row] = read(file, lambda picture: ("two squares", 0))["rows"]
    assert (row["text"], row["text_by"]) == ("two squares", "ocr")


# what is read of a folder


def test_every_bad_file_is_named_and_the_others_are_read(folder):
    pdfs = folder / "pdf"
    good = pdf(pdfs / "good.pdf", *(f"Page {i}" for i in range(12)))
    pdf(pdfs / "secret.PDF", encrypt="word")
    (pdfs / "cut.pdf").write_bytes(good.read_bytes()[:700])
    (pdfs / "empty.pdf").touch()
    (pdfs / "text.pdf").write_text("no PDF at all\n" * 99)
    shutil.copyfile(good, pdfs / "zcopy.pdf")
    pdf(pdfs / "thin.pdf", pagesize=(2, 5000))
    (pdfs / "x.pdf").mkdir()
    pdf(pdfs / "x.pdf" / "inside.pdf", "Inside a folder")
    (pdfs / "link.pdf").symlink_to("gone")
    (pdfs / "ending.pdf").write_bytes(good.read_bytes()[: good.read_bytes().rindex(b"startxref")])
    done = index(folder)
    assert done.status == 0, done.said
    for said in (
        "secret.PDF has a password: save it without one",
        "cut.pdf is damaged or no PDF file",
        "empty.pdf is empty: 0 bytes",
        "text.pdf is damaged or no PDF file",
        "zcopy.pdf is a copy of good.pdf, and left out",
        "thin.pdf page 1 measures 2 x 5000 points",
        "x.pdf is no file: a folder, or a link to nothing",
        "link.pdf is no file",
        "ending.pdf has no end mark: it may have been cut off",
    ):
        assert said in done.said, said
    files = {row["file"] for row in read_lines(folder / "index" / "pages.jsonl")}
    assert files == {"good.pdf", "ending.pdf", "x.pdf/inside.pdf"}


def test_every_file_that_is_not_read_is_named_or_counted(folder):
    pdfs = folder / "pdf"
    pdf(pdfs / "good.pdf")
    pdf(pdfs / "renamed.txt", "Another ending")
    pdf(pdfs / "bare", "No ending")
    (pdfs / "letter.docx").write_bytes(b"PK")
    (pdfs / "manual.pdf.gz").write_bytes(b"gz")
    (folder / "elsewhere").mkdir()
    pdf(folder / "elsewhere" / "linked.pdf", "Linked")
    (pdfs / "link").symlink_to(folder / "elsewhere")
    (pdfs / "loop").symlink_to(pdfs)
    done = index(folder)
    assert done.status == 0
    for said in (
        "renamed.txt is a PDF file: call it renamed.pdf to have it read",
        "bare is a PDF file: call it bare.pdf to have it read",
        "link is a link to a folder, and not followed",
        "loop is a link to a folder, and not followed",
        "2 files are no PDF files, and not read: 1 .docx, 1 .gz",
        "1 pages of 1 files",
    ):
        assert said in done.said, said
    inside = call("index", "pdf", *SIZE, "--index", "pdf/index", "--no-ocr", folder=folder)
    assert "2 files are no PDF files" in inside.said
    again = call("index", "pdf", *SIZE, "--index", "pdf/index", "--no-ocr", folder=folder)
    assert "2 files are no PDF files" in again.said, "the index itself is not counted"


def test_a_page_that_a_library_stumbles_over_costs_its_file_only(folder):
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 400]/CropBox[500 500 600 600]>>"
    objects(
        folder / "pdf" / "a.pdf",
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        page,
    )
    pdf(folder / "pdf" / "b.pdf")
    done = index(folder)
    assert done.status == 0 and "1 pages of 1 files" in done.said, done.said
    assert "a.pdf" in done.said, "named, whatever is wrong with it"


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    (folder / "pdf" / "locked").mkdir()
    pdf(folder / "pdf" / "good.pdf")
    scandir = os.scandir

    def closed(place):
        if str(place).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
    assert "locked is a folder that cannot be read: Permission denied" in index(folder).said


def test_names_that_are_no_text_are_printed_and_written(folder):
    pdf(folder / "pdf" / "a.pdf", "First").rename(folder / "pdf" / os.fsdecode(b"over\xe9.pdf"))
    pdf(folder / "pdf" / "b.pdf", "Second").rename(folder / "pdf" / "two\nlines.pdf")
    pdf(folder / "pdf" / "c.pdf", "Third").rename(folder / "pdf" / os.fsdecode(b"\xfcber.txt"))
    (folder / "pdf" / os.fsdecode(b"x.d\xf6c")).write_bytes(b"word")
    done = index(folder)
    assert done.status == 0 and "2 pages of 2 files" in done.said, done.said
    assert "?ber.txt is a PDF file: call it ?ber.pdf" in done.said
    assert "1 files are no PDF files, and not read: 1 .d?c" in done.said
    assert "over?.pdf, page 1" in search(folder, "first").said
    done.said.encode()
    names = [row["file"] for row in read_lines(folder / "index" / "pages.jsonl")]
    assert names == ["over?.pdf", "two lines.pdf"]


def test_two_files_of_one_name_are_named(folder):
    for name in ("\u00fcber.pdf", "u\u0308ber.pdf"):
        pdf(folder / "pdf" / name, f"In {len(name)} letters")
    if len(list((folder / "pdf").iterdir())) == 1:
        pytest.skip("this disk writes all names in one form")
    done = index(folder)
    assert "\u00fcber.pdf is left out, another file has this name: rename one" in done.said


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="whoever may read everything is refused nothing",
)
def test_a_file_that_may_not_be_read_is_named(folder):
    pdf(folder / "pdf" / "locked.pdf").chmod(0)
    pdf(folder / "pdf" / "open.pdf")
    assert "Permission" in index(folder).said


def test_a_name_has_one_form_however_the_disk_writes_it(folder):
    pdf(folder / "pdf" / "Pru\u0308fbericht.pdf", "Befund")
    assert index(folder).status == 0
    assert read_lines(folder / "index" / "pages.jsonl")[0]["file"] == "Pr\u00fcfbericht.pdf"
    assert "Pr\u00fcfbericht.pdf, page 1" in search(folder, "pru\u0308fbericht").said


# the index is kept


def pictures(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "index/pages").iterdir()}


def test_only_new_and_changed_files_are_read_again(folder):
    pdfs = folder / "pdf"
    for name in ("a", "b", "c"):
        pdf(pdfs / f"{name}.pdf", f"Page one of {name}", f"Page two of {name}")
    assert "6 pages of 3 files in index: 3 files read" in index(folder).said
    before = pictures(folder)
    assert "6 pages of 3 files in index: 0 files read" in index(folder).said
    assert pictures(folder) == before

    (pdfs / "a.pdf").rename(pdfs / "renamed.pdf")
    (pdfs / "b.pdf").unlink()
    pdf(pdfs / "c.pdf", "Page one of c", "Another page of c")
    pdf(pdfs / "d.pdf", "Page one of d")
    done = index(folder)
    assert "5 pages of 3 files in index: 2 files read" in done.said, done.said
    places = [(row["file"], row["page"]) for row in read_lines(folder / "index" / "pages.jsonl")]
    assert places == [
        ("c.pdf", 1), ("c.pdf", 2), ("d.pdf", 1), ("renamed.pdf", 1), ("renamed.pdf", 2),
    ]  # fmt: skip
    assert len(pictures(folder)) == 5 and len(before.items() & pictures(folder).items()) >= 2
    assert "b.pdf" not in search(folder, "page two of b").said


def test_a_run_that_was_stopped_loses_nothing_and_leaves_nothing_half(folder, monkeypatch):
    for name in ("a", "b", "c"):
        pdf(folder / "pdf" / f"{name}.pdf", f"Page of {name}")
    assert index(folder).status == 0
    for name in ("d", "e", "f"):
        pdf(folder / "pdf" / f"{name}.pdf", f"Page of {name}", f"More of {name}")
    (folder / "pdf" / "a.pdf").unlink()

    script = part("index", "main").__globals__
    read_document, asked = script["read_document"], []

    def stopped(file, *arguments):
        asked.append(file.name)
        if file.name == "e.pdf":
            (folder / "index" / "pages" / "half.png.partial").write_text("half")
            raise KeyboardInterrupt
        return read_document(file, *arguments)

    script["read_document"] = stopped
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["index.py", "pdf", *map(str, SIZE), "--no-ocr"])
    with pytest.raises(KeyboardInterrupt):
        script["main"]()
    assert asked == ["d.pdf", "e.pdf"]
    said = search(folder, "page").said
    assert "a.pdf, page 1" in said and "d.pdf" not in said, "the last whole index is searched"
    done = index(folder)
    assert "8 pages of 5 files in index: 2 files read" in done.said, done.said
    assert not [file for file in (folder / "index").rglob("*") if file.suffix == ".partial"]


KILLED = """
import os, runpy, signal, sys
main = runpy.run_path(sys.argv.pop(1), run_name="index")["main"]
read = []

def ocr(picture):
    if len(read) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    read.append(picture)
    return f"zebra {len(read)}", 0

main.__globals__["load_ocr"] = lambda: ocr
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as Linux and macOS do")
def test_a_run_that_is_killed_keeps_what_ocr_has_read(folder, monkeypatch, capsys):
    circles = [lambda canvas, r=r: canvas.circle(200, 300, 20 * r, fill=1) for r in range(1, 6)]
    pdf(folder / "pdf" / "long.pdf", *circles)
    line = ["index.py", "pdf", *map(str, SIZE)]
    command = [sys.executable, "-c", KILLED, str(SCRIPTS / "index.py"), *line[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [journal] = (folder / "index").glob("ocr-*.jsonl")
    journal.write_text(journal.read_text() + '\n["half", "a li')

    assert "5 pages have no text" in index(folder).said, "without OCR, and its readings are kept"
    main, read = part("index", "main"), []
    again = lambda picture: (f"lion {len(read)}", read.append(picture) or 0)  # noqa: E731
    main.__globals__["load_ocr"] = lambda: again
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", line)
    main()
    assert "3 pages were read by OCR before an earlier run was stopped" in capsys.readouterr().out
    assert "index: 0 files read" in index(folder).said
    texts = [row["text"] for row in read_lines(folder / "index" / "pages.jsonl")]
    assert texts == ["zebra 1", "zebra 2", "zebra 3", "lion 0", "lion 1"] and len(read) == 2
    assert not journal.exists()


@contextlib.contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_run_and_keeps_the_index(folder):
    pdf(folder / "pdf" / "a.pdf", "Page of a")
    assert index(folder).status == 0
    pdf(folder / "pdf" / "b.pdf", lambda canvas: scan(canvas, "page of b"))
    with full_disk(1000):
        done = index(folder)
    assert done.status == 1 and "run the same line again: what was read is kept" in done.said
    assert "a.pdf, page 1" in search(folder, "page").said
    assert "2 pages of 2 files in index: 1 files read" in index(folder).said


def test_a_file_that_changes_while_it_is_read_is_named(folder, monkeypatch):
    pdf(folder / "pdf" / "a.pdf", "Page of a")
    pdf(folder / "pdf" / "b.pdf", "Page of b")
    main = part("index", "main")
    read_document = main.__globals__["read_document"]

    def changing(file, *arguments):
        found = read_document(file, *arguments)
        if file.name == "a.pdf":
            file.write_bytes(file.read_bytes() + b"more")
        return found

    main.__globals__["read_document"] = changing
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["index.py", "pdf", *map(str, SIZE), "--no-ocr"])
    main()
    assert {row["file"] for row in read_lines(folder / "index" / "pages.jsonl")} == {"b.pdf"}
    assert "2 pages of 2 files in index: 1 files read" in index(folder).said


def test_a_file_that_goes_while_others_are_read_is_named(folder, monkeypatch, capsys):
    pdf(folder / "pdf" / "a.pdf", "Page of a")
    pdf(folder / "pdf" / "b.pdf", "Page of b")
    main = part("index", "main")
    read_document = main.__globals__["read_document"]

    def going(file, *arguments):
        (folder / "pdf" / "a.pdf").unlink(missing_ok=True)
        return read_document(file, *arguments)

    main.__globals__["read_document"] = going
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["index.py", "pdf", *map(str, SIZE), "--no-ocr"])
    main()
    said = capsys.readouterr().out
    assert "a.pdf is no file" in said and "1 pages of 1 files" in said


def test_a_second_run_at_the_same_time_is_refused(folder):
    pdf(folder / "pdf" / "a.pdf", "Page of a")
    assert index(folder).status == 0
    with FileLock(folder / "index" / ".lock"):
        done = index(folder)
        assert done.status == 1 and "another run is writing index: wait" in done.said, done.said
        assert "a.pdf, page 1" in search(folder, "page").said
    assert index(folder).status == 0


def test_a_run_that_is_stopped_by_hand_says_how_to_go_on(folder, monkeypatch):
    pdf(folder / "pdf" / "a.pdf", "Page of a")

    def stop(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(pypdfium2, "PdfDocument", stop)
    done = index(folder)
    assert done.status == 1 and "index.py: stopped. Run the same line again" in done.said


def test_pages_without_text_are_read_once_ocr_is_installed(folder, monkeypatch):
    pdf(folder / "pdf" / "scan.pdf", lambda canvas: canvas.circle(99, 99, 50, fill=1))
    pdf(folder / "pdf" / "text.pdf", "A layer")
    done = index(folder)
    said = "1 pages have no text, or only a few words on a scan: install rapidocr and onnxruntime"
    assert said in done.said
    assert "They are most in scan.pdf (1)" in done.said
    assert "OCR" not in index(folder).said
    main = part("index", "main")
    main.__globals__["load_ocr"] = lambda: lambda picture: ("zebra", 0)
    monkeypatch.chdir(folder)
    for read in (1, 0):
        monkeypatch.setattr("sys.argv", ["index.py", "pdf", *map(str, SIZE)])
        main()
        assert "scan.pdf, page 1" in search(folder, "zebra").said, read
    assert "2 pages of 2 files in index: 0 files read" in index(folder).said, "OCR's text is kept"


def test_an_index_of_another_folder_is_left_alone(folder):
    pdf(folder / "pdf" / "a.pdf", "Page of a")
    assert index(folder).status == 0
    (folder / "other").mkdir()
    pdf(folder / "other" / "b.pdf", "Page of b")
    done = call("index", "other", *SIZE, "--no-ocr", folder=folder)
    assert done.status == 1 and "index was made of" in done.said
    assert "a.pdf, page 1" in search(folder, "page").said
    (folder / "pdf").rename(folder / "moved")
    done = call("index", "moved", *SIZE, "--no-ocr", folder=folder)
    assert done.status == 0 and "1 files in index: 0 files read" in done.said
    (folder / "moved" / "a.pdf").unlink()
    done = call("index", "moved", folder=folder)
    assert done.status == 1 and "no page of a PDF file could be read in moved" in done.said
    assert "a.pdf, page 1" in search(folder, "page").said, "an empty disk empties no index"
    done = call("index", "other", "--index", "other", folder=folder)
    assert done.status == 1 and "other is not empty and holds no index" in done.said
    done = index(folder, "--index", "new", "--max-pixels", "many")
    assert done.status == 2 and not (folder / "new").exists()


def test_a_folder_without_pdf_files_costs_no_index(folder):
    pdf(folder / "pdf" / "a.pdf", "Page of a")
    (folder / "empty").mkdir()
    assert call("index", "empty", *SIZE, folder=folder).status == 1
    assert index(folder).status == 0
    [record] = (folder / "index" / "documents").iterdir()
    record.write_text("{")
    assert "1 files in index: 1 files read" in index(folder).said, "what is damaged is read again"


def test_another_size_of_pages_is_refused_by_name(folder):
    pdf(folder / "pdf" / "a.pdf")
    assert index(folder).status == 0
    done = index(folder, "--max-pixels", 20_000)
    assert done.status == 1
    assert "index was made with max_pixels 16384, not 20000: name another folder" in done.said
    assert call("index", "pdf", "--no-ocr", folder=folder).status == 0, "its own size"


def test_a_model_that_cannot_be_loaded_is_named(folder):
    pdf(folder / "pdf" / "a.pdf")
    (folder / "model").mkdir()
    done = index(folder, "--model", "model")
    assert done.status == 1 and "For text search leave out --model" in done.said, done.said
    done = index(folder, "--model", "nowhere")
    assert done.status == 2 and "no folder 'nowhere', and no hub id" in done.said


# page vectors


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A folder with ``pdf``, the model ``model`` and an ``index`` with page vectors."""
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "pdf").mkdir()
    for number, name in enumerate(("pumps", "hoses")):
        pages = [f"{name} {page} {word}" for page, word in enumerate(("filter", "cable", "valve"))]
        pdf(
            folder / "pdf" / f"{number}.pdf", *pages, lambda canvas: canvas.drawString(9, 9, "Same")
        )
    shutil.copytree(TUNED, folder / "model")
    done = index(folder, "--model", "model", *FLOAT)
    assert done.status == 0, done.said
    assert "8 pages of 2 files in index: 2 files read, 7 encoded" in done.said, "one page is twice"
    return folder


def copy_of(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_pages_are_ranked_as_the_model_does(vectors):
    rows = read_lines(vectors / "index" / "pages.jsonl")
    images = list(dict.fromkeys(row["image"] for row in rows))
    model = SentenceTransformer(
        TUNED, model_kwargs={"dtype": "float32"}, processor_kwargs={"size": SMALL}
    )
    paths = [str(vectors / "index" / "pages" / image) for image in images]
    scores = model.similarity(model.encode_query("Which hoses?"), model.encode_document(paths))[0]
    done = search(vectors, "Which hoses?", "--by", "pages", "--top", 3)
    assert done.status == 0, done.said
    best = scores.topk(3)
    for value, i in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        assert f"{value:.4f}" in done.said and images[i] in done.said
    assert "0.pdf, page 4; 1.pdf, page 4" in search(vectors, "x", "--by", "pages").said


def test_both_searches_are_fused_by_rank():
    fuse = part("search", "fuse")
    found = fuse([numpy.array([3.0, -numpy.inf, 5.0]), numpy.array([0.9, 0.8, 0.1])])
    assert found == pytest.approx([1 / 62 + 1 / 61, 1 / 62, 1 / 61 + 1 / 63])


def test_the_default_fuses_text_and_pages(vectors):
    images = {}
    for way in ("text", "pages", "both"):
        done = search(vectors, "hoses valve", "--by", way, "--top", 8)
        images[way] = re.findall(r"index/pages/(\w+)", done.said)
    done = search(vectors, "hoses valve", "--top", 8)
    assert re.findall(r"index/pages/(\w+)", done.said) == images["both"]
    expected = sum(1 / (61 + images[way].index(images["both"][0])) for way in ("text", "pages"))
    assert f" 1 {expected:.4f} 1.pdf, page 3 index/pages/{images['both'][0]}" in done.said


def test_nothing_is_encoded_twice(vectors, tmp_path):
    folder = copy_of(vectors, tmp_path)
    shutil.rmtree(folder / "index")
    assert index(folder, "--model", "model", *FLOAT).status == 0
    before = (folder / "index" / "vectors.npz").read_bytes()
    pdf(folder / "pdf" / "0.pdf", "pumps 0 filter", "a new page")
    done = index(folder, "--model", "model", *FLOAT)
    assert "6 pages of 2 files in index: 1 files read, 1 encoded" in done.said, done.said
    with numpy.load(folder / "index" / "vectors.npz") as kept:
        assert len(kept["images"]) == 6, "vectors of pages that are gone are gone"
    assert (folder / "index" / "vectors.npz").read_bytes() != before


def test_another_model_is_refused_by_name(vectors, tmp_path):
    folder = copy_of(vectors, tmp_path)
    shutil.rmtree(folder / "index")
    shutil.copytree(vectors / "index", folder / "index")
    note = json.loads((folder / "index" / "index.json").read_text())
    note["folder"] = str((folder / "pdf").resolve())
    (folder / "index" / "index.json").write_text(json.dumps(note))
    done = index(folder, "--model", BASE, *FLOAT)
    assert done.status == 1 and "index was made with the model source model" in done.said, done.said
    done = index(folder, "--model", "model", *FLOAT, "--truncate-dim", 64)
    assert done.status == 1 and "truncate_dim 64" in done.said
    config = folder / "model" / "config_sentence_transformers.json"
    config.write_text(config.read_text() + "\n")
    assert "model was changed since index was made" in index(folder).said
    assert "model is not what index was made with" in search(folder, "pump").said
    assert search(folder, "pumps", "--by", "text").status == 0


def test_a_text_index_gets_page_vectors_later(folder):
    pdf(folder / "pdf" / "a.pdf", "Pumps")
    assert "Searched by text only: no --model was named" in index(folder).said
    done = search(folder, "pumps")
    assert (
        "by text only: the index has no page vectors" in done.said and "a.pdf, page 1" in done.said
    )
    done = search(folder, "pumps", "--by", "pages")
    assert done.status == 1 and "index has no page vectors: run index.py with --model" in done.said
    before = pictures(folder)
    done = index(folder, "--model", TUNED, *FLOAT)
    assert "0 files read, 1 encoded" in done.said and pictures(folder) == before
    assert search(folder, "pumps", "--by", "pages").status == 0


def test_pages_that_prepare_has_made_are_searched(made, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    for page in sorted((tmp_path / "data" / "pages").glob("*.png"))[5:]:
        page.unlink()
    done = call("index", "data", "--no-ocr", "--model", TUNED, *FLOAT, folder=tmp_path)
    assert done.status == 0 and "5 pages of 5 files in index: 5 files read, 5 encoded" in done.said
    names = sorted(page.name for page in (tmp_path / "data" / "pages").iterdir())
    (tmp_path / "data" / "pages" / "damaged.png").write_bytes(b"\x89PNG")
    done = call("index", "data", "--no-ocr", *FLOAT[:2], folder=tmp_path)
    assert done.status == 0 and "damaged.png is damaged or no picture" in done.said, done.said
    said = search(tmp_path, "Which pump?").said
    assert all(f"{name}, page 1 index/pages/{name}" in said for name in names)


# search by text


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A folder with an index for text search."""
    folder = tmp_path_factory.mktemp("found")
    (folder / "pdf").mkdir()
    pdf(folder / "pdf" / "english.pdf", "How the filter of the pump is changed", "Hoses and cables")
    pdf(folder / "pdf" / "deutsch.pdf", "Gr\u00f6\u00dfe und \u00c4nderung der D\u00fcse", "Kabel")
    pdf(folder / "pdf" / "same.pdf", "Hoses and cables")
    assert index(folder).status == 0
    return folder


def test_the_answer_is_a_file_a_page_and_its_picture(found):
    done = search(found, "change the filter", "--top", 1)
    assert done.status == 0 and " english.pdf, page 1 index/pages/" in done.said, done.said
    picture = found / done.said.split()[-1]
    assert Image.open(picture).size == (96, 160) or Image.open(picture).width > 64
    assert "english.pdf, page 2; same.pdf, page 1" in search(found, "cables").said


@pytest.mark.parametrize(
    "query", ["GR\u00d6SSE", "gro\u0308\u00dfe", "\u00e4nderung", "d\u00fcse?"]
)
def test_umlauts_are_found_however_they_are_typed(query, found):
    assert "1 " in search(found, query).said and "deutsch.pdf, page 1" in search(found, query).said


def test_words_without_spaces_between_them_are_found(found, tmp_path):
    shutil.copytree(found / "index", tmp_path / "index")
    row = read_lines(tmp_path / "index" / "pages.jsonl")[0]
    texts = {
        "zh.pdf": "\u65b0\u7ef4\u62a4\u8005\u624b\u518c",
        "ko.pdf": "\uc124\uce58\ub97c \uc2dc\uc791",
    }
    rows = [row | {"file": name, "text": text, "image": name} for name, text in texts.items()]
    lines = "".join(json.dumps(row) + "\n" for row in [row, *rows])
    (tmp_path / "index" / "pages.jsonl").write_text(lines)
    for query, name in (("\u7ef4\u62a4\u8005", "zh.pdf"), ("\uc124\uce58", "ko.pdf")):
        done = search(tmp_path, query)
        assert done.status == 0 and f"{name}, page 1" in done.said, done.said
        other = ({*texts} - {name}).pop()
        assert other not in done.said
    for text in (*texts.values(), "Gr\u00f6\u00dfe of filter_3", "Debian\u65b0\u7ef4 1"):
        assert part("search", "words")(text) == part("serve", "words")(text)
    assert part("search", "words")("Debian\u65b0\u7ef4\u62a4") == [
        "debian", "\u65b0\u7ef4", "\u7ef4\u62a4",
    ]  # fmt: skip


def test_words_that_no_page_has_are_named(found):
    done = search(found, "zebra pump")
    assert done.status == 0 and "on no page: zebra" in done.said
    for query in ("zebra crossing", "How is the zebra?", "Wo wohnt der Elefant und die Maus?"):
        done = search(found, query)
        assert done.status == 1 and "no page has a word of the question" in done.said
        assert ".pdf" not in done.said
    assert search(found, "how is the").status == 0, "nothing else was asked"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.json", "{}"),
        ("index.json", "{"),
        ("index.json", "[]"),
        ("pages.jsonl", '{"file": "a.pdf"'),
        ("pages.jsonl", '{"file": "a.pdf"}'),
        ("pages.jsonl", ""),
    ],
)
def test_a_damaged_index_is_named(name, content, found, tmp_path):
    shutil.copytree(found / "index", tmp_path / "index")
    (tmp_path / "index" / name).write_text(content)
    done = search(tmp_path, "pump")
    assert done.status == 1 and "index is damaged: delete it and run index.py again" in done.said
    assert "index is no whole index" in call("documents", "--model", TUNED, folder=tmp_path).said


def test_an_index_that_is_not_finished_is_named(found, tmp_path):
    shutil.copytree(found / "index", tmp_path / "index")
    (tmp_path / "index" / "pages.jsonl").unlink()
    assert "index is not finished: run index.py again" in search(tmp_path, "pump").said
    (tmp_path / "index" / "index.json").write_text("{}")
    shutil.copytree(found / "pdf", tmp_path / "pdf")
    done = index(tmp_path)
    assert done.status == 1 and "index.json is damaged: delete the folder index" in done.said


def test_vectors_that_are_missing_are_named(vectors, tmp_path):
    shutil.copytree(vectors / "index", tmp_path / "index")
    shutil.copytree(vectors / "model", tmp_path / "model")
    for content in (b"", b"PK"):
        (tmp_path / "index" / "vectors.npz").write_bytes(content)
        done = search(tmp_path, "pump")
        assert done.status == 1 and "has not all page vectors: run index.py again" in done.said
    (tmp_path / "index" / "vectors.npz").unlink()
    assert "has not all page vectors" in search(tmp_path, "pump").said
