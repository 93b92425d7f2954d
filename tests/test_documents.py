"""Notebook 08's own cells on PDF files of every kind: what each gives, that none stops the run, and
that nothing is done twice.
"""

import contextlib
import io
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pypdfium2
import pytest
import warm
from cells import definitions, edited_sources, printable
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from transformers import AutoProcessor

from tiny_vdr.documents import TOPICS, draw_documents, draw_manual, plan_manuals, questions_of
from vdr_helpers.profiles import load_profile

ROOT = Path(__file__).resolve().parent.parent
READING = ("draw_page", "open_document", "read_text", "read_page", "read_document", "read_folder")
FOREIGN_FOLDERS = (
    "/usr/share/doc",
    "/usr/share/cups",
    "/usr/share/texmf",
    "/usr/share/ghostscript",
)


@pytest.fixture(scope="module")
def page_processor():
    profile = load_profile("tiny")
    return AutoProcessor.from_pretrained(profile.base_model, **profile.processor_kwargs)


@pytest.fixture
def cells(tmp_path, page_processor):
    """The reading cells' own functions, on the folder ``pdf`` and with the store ``store`` of this
    test; ``drawn`` counts pages.
    """
    (tmp_path / "pdf").mkdir()
    space = definitions("08", *READING)["read_folder"].__globals__
    draw, drawn = space["draw_page"], []

    def counted(page, processor):
        drawn.append(page.get_size())
        return draw(page, processor)

    space |= {"draw_page": counted, "drawn": drawn, "processor": page_processor}
    space |= {
        "folder": tmp_path / "pdf",
        "store": tmp_path / "store",
        "settings": {"pixels": 40_000},
    }
    return space


def pdf(
    file: Path,
    draw=lambda canvas, number: canvas.drawString(20, 300, f"Page {number + 1}"),
    pages=1,
    **settings,
) -> Path:
    """A PDF file of ``pages`` pages; ``settings`` go to ``Canvas``."""
    canvas = Canvas(str(file), **({"pagesize": (400, 560)} | settings))
    for number in range(pages):
        draw(canvas, number)
        canvas.showPage()
    canvas.save()
    return file


def read(cells: dict) -> tuple[dict, dict]:
    return cells["read_folder"](sorted(cells["folder"].iterdir()))


def pictures(cells: dict, name: str, documents: dict) -> list[Image.Image]:
    folder = cells["store"] / documents[name]["folder"]
    return [Image.open(folder / f"{row['hash']}.png") for row in documents[name]["rows"]]


def test_every_bad_file_is_named_and_the_good_one_is_read(cells):
    folder = cells["folder"]
    good = pdf(folder / "good.pdf", pages=12)
    pdf(folder / "secret.pdf", encrypt="word")
    (folder / "cut.pdf").write_bytes(good.read_bytes()[:700])
    (folder / "empty.pdf").touch()
    (folder / "text.pdf").write_text("no PDF at all\n" * 99)
    (folder / "copy.pdf").write_bytes(good.read_bytes())
    pdf(folder / "thin.pdf", pagesize=(2, 5000))
    documents, problems = read(cells)
    assert problems == {
        "cut.pdf": "is damaged or no PDF file",
        "empty.pdf": "is empty: 0 bytes",
        "good.pdf": "is a copy of copy.pdf, and left out",
        "secret.pdf": "has a password: save it without one",
        "text.pdf": "is damaged or no PDF file",
        "thin.pdf": "page 1 measures 2 x 5000 points: no page has this shape",
    }
    assert [row["page"] for row in documents["copy.pdf"]["rows"]] == list(
        range(1, 13)
    ) and not documents["thin.pdf"]["rows"]
    assert documents["copy.pdf"]["rows"][4]["text"].strip() == "Page 5"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="whoever may read everything is refused nothing",
)
def test_a_file_that_may_not_be_read_is_named(cells):
    pdf(cells["folder"] / "locked.pdf").chmod(0)
    assert "Permission" in read(cells)[1]["locked.pdf"]


def test_a_file_with_an_owner_password_only_is_read(cells):
    from reportlab.lib.pdfencrypt import StandardEncryption

    pdf(cells["folder"] / "owned.pdf", encrypt=StandardEncryption("", ownerPassword="owner"))
    documents, problems = read(cells)
    assert len(documents["owned.pdf"]["rows"]) == 1 and not problems


def test_a_cut_file_that_still_opens_is_named_and_its_pages_kept(cells):
    whole = pdf(cells["folder"] / "whole.pdf", pages=3).read_bytes()
    (cells["folder"] / "whole.pdf").write_bytes(whole[: whole.rindex(b"startxref")])
    documents, problems = read(cells)
    assert (
        problems == {"whole.pdf": "has no end mark: it may have been cut off"}
        and len(documents["whole.pdf"]["rows"]) == 3
    )


def test_a_page_that_fails_leaves_the_others(cells):
    def odd(canvas, number):
        canvas.setPageSize((2, 5000) if number == 1 else (400, 560))

    pdf(cells["folder"] / "mixed.pdf", odd, pages=3)
    documents, problems = read(cells)
    assert [row["page"] for row in documents["mixed.pdf"]["rows"]] == [1, 3]
    assert problems["mixed.pdf"].startswith("page 2 measures")


def test_a_scan_has_pixels_and_no_text(cells):
    ink = Image.new("RGB", (200, 280), "white")
    ink.paste((0, 0, 0), (50, 50, 150, 100))
    pdf(
        cells["folder"] / "scan.pdf",
        lambda canvas, number: canvas.drawImage(ImageReader(ink), 0, 0, 400, 560),
    )
    documents, problems = read(cells)
    [row] = documents["scan.pdf"]["rows"]
    assert (row["text"], row["headings"]) == ("", []) and not problems
    assert pictures(cells, "scan.pdf", documents)[0].convert("L").getextrema()[0] < 30


def test_a_turned_page_stands_upright(cells):
    straight = pdf(
        cells["folder"] / "turned.pdf", lambda canvas, number: canvas.rect(10, 10, 60, 60, fill=1)
    )
    with pypdfium2.PdfDocument(straight.read_bytes()) as document:
        document[0].set_rotation(90)  # clockwise: bottom left of the paper is shown top left
        document.save(straight)
    documents, _ = read(cells)
    [picture] = pictures(cells, "turned.pdf", documents)
    assert picture.width > picture.height
    assert picture.convert("L").getpixel((picture.width // 12, picture.height // 12)) < 60
    assert picture.convert("L").getpixel((picture.width // 12, picture.height * 11 // 12)) > 200


# 200 inches, the largest page that PDF has; a page of a millimetre
@pytest.mark.parametrize("side", [14_400, 3])
def test_a_page_of_any_size_has_the_pixels_of_the_model(cells, side):
    pdf(cells["folder"] / "square.pdf", lambda canvas, number: None, pagesize=(side, side))
    documents, problems = read(cells)
    [picture] = pictures(cells, "square.pdf", documents)
    assert picture.width * picture.height <= 40_000 and picture.width % 32 == 0 and not problems


def test_the_cap_is_set_before_anything_is_drawn(cells, monkeypatch):
    scales, render = [], pypdfium2.PdfPage.render
    monkeypatch.setattr(
        pypdfium2.PdfPage,
        "render",
        lambda page, scale: scales.append(scale) or render(page, scale=scale),
    )
    pdf(cells["folder"] / "huge.pdf", lambda canvas, number: None, pagesize=(14_400, 7_200))
    read(cells)
    assert 14_400 * 7_200 * scales[0] ** 2 == pytest.approx(4 * 40_000)


def test_a_picture_too_large_to_unpack_is_named(cells):
    cells["LARGEST_PAGE"] = 9_999
    pdf(
        cells["folder"] / "poster.pdf",
        lambda canvas, number: canvas.drawImage(ImageReader(Image.new("L", (100, 100))), 0, 0),
    )
    assert read(cells)[1] == {
        "poster.pdf": "page 1 holds a picture of 10,000 pixels, the limit is 9,999"
    }
    assert cells["drawn"]  # it was looked at, and refused before a pixel was made


def test_a_second_run_draws_only_what_is_new(cells):
    for name in ("one", "two"):
        pdf(
            cells["folder"] / f"{name}.pdf",
            lambda canvas, number, name=name: canvas.drawString(20, 300, f"{name} {number}"),
            pages=2,
        )
    first = read(cells)
    assert len(cells["drawn"]) == 4
    assert read(cells) == first and len(cells["drawn"]) == 4
    pdf(
        cells["folder"] / "two.pdf",
        lambda canvas, number: canvas.drawString(20, 300, f"changed {number}"),
        pages=3,
    )
    changed = read(cells)
    assert (
        len(cells["drawn"]) == 7
        and len(changed[0]["two.pdf"]["rows"]) == 3
        and changed[0]["one.pdf"] == first[0]["one.pdf"]
    )
    cells["settings"] = {"pixels": 20_000}
    read(cells)
    assert len(cells["drawn"]) == 12  # another size: every page anew


def test_a_page_file_that_was_damaged_is_made_again(cells):
    pdf(cells["folder"] / "one.pdf", pages=2)
    documents, _ = read(cells)
    file = (
        cells["store"]
        / documents["one.pdf"]["folder"]
        / f"{documents['one.pdf']['rows'][0]['hash']}.png"
    )
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert read(cells)[0] == documents and file.read_bytes() == whole


def test_an_interrupted_document_is_read_whole_the_next_time(cells):
    pdf(cells["folder"] / "one.pdf", pages=3)
    draw = cells["draw_page"]

    def interrupted(page, processor):
        if len(cells["drawn"]) == 2:
            raise KeyboardInterrupt
        return draw(page, processor)

    cells["draw_page"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        read(cells)
    cells["draw_page"] = draw
    assert len(read(cells)[0]["one.pdf"]["rows"]) == 3


def test_outline_comes_before_large_type(cells):
    def page(canvas, number):
        canvas.setFont("Helvetica", 30)
        canvas.drawString(20, 500, "Large words")
        canvas.setFont("Helvetica", 9)
        for line in range(8):
            canvas.drawString(20, 400 - 12 * line, "small words that say little")
        if number:
            canvas.bookmarkPage("here")
            canvas.addOutlineEntry("From the outline", "here")

    pdf(cells["folder"] / "book.pdf", page, pages=2)
    rows = read(cells)[0]["book.pdf"]["rows"]
    assert [row["headings"] for row in rows] == [["Large words"], ["From the outline"]]


@pytest.mark.slow
def test_a_thousand_pages_take_no_more_memory_than_a_hundred(cells):
    pdf(cells["folder"] / "long.pdf", pages=1000)
    resident, draw = [], cells["draw_page"]

    def measured(page, processor):
        if len(cells["drawn"]) % 100 == 99:
            resident.append(
                int(Path("/proc/self/statm").read_text().split()[1])
                * os.sysconf("SC_PAGE_SIZE")
                / 2**20
            )
        return draw(page, processor)

    cells["draw_page"] = measured
    tracemalloc.start()
    documents, _ = read(cells)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert len(documents["long.pdf"]["rows"]) == 1000
    # MiB; a page of the model has 0.1, a thousand of them 100
    assert resident[-1] - resident[0] < 30 and peak < 30


def test_phrases_are_headings_captions_and_table_lines():
    phrases = definitions("08", "CAPTION", "TABLE_LINE", "phrases")["phrases"]
    text = "Kestrel Loom\n2 Bolts\nTable 2: Torque\nM6 bolt 217\nOuter ring 1,204 mm\nThe year 2014 was a good one\nGrand total of all known causes listed here 12"
    assert list(
        phrases({"headings": ["2 Bolts", "Loom", "2"], "text": text, "title": "Kestrel loom"})
    ) == [
        "Bolts",
        "Torque",
        "M6 bolt",
        "Outer ring",
    ]


def test_a_phrase_on_two_pages_is_no_query():
    make = definitions("08", "CAPTION", "TABLE_LINE", "phrases", "queries_from_text")[
        "queries_from_text"
    ]
    row = {"title": "Manual", "text": ""}
    rows = [
        row | {"id": "a#1", "headings": ["Notes", "Cleaning"]},
        row | {"id": "a#2", "headings": ["Notes"]},
    ]
    assert make(rows) == [{"query": "Cleaning, Manual", "id": "a#1", "way": "text layer"}]


def test_a_table_of_questions_is_checked_line_by_line(tmp_path, capsys):
    make = definitions("08", "queries_from_table")["queries_from_table"]
    make.__globals__["page_of"] = {"a.pdf#2": {}}
    assert make(tmp_path / "none.csv") == []
    file = tmp_path / "questions.csv"
    file.write_text("file,page,query\na.pdf,2, How? \na.pdf,9,Where?\na.pdf,2,\nb.pdf,2,Who?\n")
    assert make(file) == [{"query": "How?", "id": "a.pdf#2", "way": "table"}]
    said = capsys.readouterr().out
    assert "line 3 of questions.csv" in said and "line 4" in said and "b.pdf#2" in said
    file.write_text("document,query\na.pdf,How?\n")
    with pytest.raises(ValueError, match=r"no column file, page.*needs file, page and query"):
        make(file)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (
            '{"general": "pumps", "specific": "pumps of 2014"}',
            {"general": "pumps", "specific": "pumps of 2014"},
        ),
        (
            'Sure:\n```json\n{"specific": " a ", "general": "b"}\n```',
            {"general": "b", "specific": "a"},
        ),
        ("{}", None),
        ('{"general": "", "specific": "a"}', None),
        ('{"general": "pumps"', None),
        ("}{", None),
        ("[1, 2]", None),
        ("no", None),
    ],
)
def test_a_reply_is_read_or_left_out(reply, found):
    assert definitions("08", "read_reply")["read_reply"](reply) == found


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A folder with a generating twin of the named model's classes: random weights, a few thousand
    of them.
    """
    import torch
    import transformers

    from tiny_vdr import model

    folder = tmp_path_factory.mktemp("writer")
    tools = model.build_processor()
    torch.manual_seed(0)
    twin = transformers.Qwen3VLForConditionalGeneration(model.tiny_config(tools.tokenizer))
    twin.save_pretrained(folder)
    tools.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_vision_language_model_is_asked_page_by_page(writer, tmp_path, capsys):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    made = definitions("08", "PROMPT", "read_reply", "ask_model", "queries_from_model")
    model, tools = (
        AutoModelForImageTextToText.from_pretrained(writer),
        AutoProcessor.from_pretrained(writer),
    )
    Image.new("RGB", (160, 224), "white").save(tmp_path / "page.png")
    row = {"id": "a.pdf#1", "image": str(tmp_path / "page.png")}
    assert isinstance(made["ask_model"](row, model, tools, max_new_tokens=4), str)
    seen = []
    generate = model.generate

    def watched(**inputs):
        seen.append(inputs)
        return generate(**inputs | {"max_new_tokens": 4})

    model.generate = watched
    # random weights write no JSON
    assert made["queries_from_model"]([row, row], model, tools, "twin") == []
    assert "twin: 2 of 2 replies could not be read" in capsys.readouterr().out
    asked = tools.tokenizer.decode(seen[0]["input_ids"][0])
    # the page goes with the prompt
    assert "Reply with JSON only" in asked and seen[0]["pixel_values"].shape[0] == 10 * 14
    made["queries_from_model"].__globals__["ask_model"] = lambda row, *_: (
        '{"general": "g", "specific": "s"}'
    )
    found = made["queries_from_model"]([row], model, tools, "twin")
    assert found == [{"query": "s", "id": "a.pdf#1", "way": "twin", "general": "g"}]


def test_only_queries_whose_general_twin_finds_the_page_are_kept(monkeypatch):
    import torch

    from vdr_helpers import evaluation

    findable = definitions("08", "findable")["findable"]
    space, ids = findable.__globals__, [f"a#{i}" for i in range(20)]
    near, far = {"id": "a#3", "general": "3"}, {"id": "a#4", "general": "9"}
    likes = torch.eye(20)
    # the second general query likes pages 0, 1, 2 ... best: page 4 comes fifth
    likes[9] = torch.arange(20.0).flip(0)
    space.update(ids=ids, paths=ids, profile=None)

    def embed_once(model, texts, pages, profile):
        return torch.stack([likes[int(text)] for text in texts]), torch.eye(20)

    monkeypatch.setattr(evaluation, "embed_once", embed_once)
    assert findable([near, far], None) == [near]  # of 20 pages the first two count
    assert findable([], None) == []


def test_documents_lie_on_one_side_and_stay_there():
    side_of = definitions("08", "side_of")["side_of"]
    rows = [{"document": f"{d}.pdf", "id": f"{d}.pdf#{p}"} for d in range(60) for p in range(1, 20)]
    sides = {row["id"]: side_of(row) for row in rows}
    of_documents = {d: {sides[f"{d}.pdf#{p}"] for p in range(1, 20)} for d in range(60)}
    assert all(found == {"eval"} or "eval" not in found for found in of_documents.values())
    assert 10 < sum(found == {"eval"} for found in of_documents.values()) < 32
    assert {side_of(row) for row in rows} == {"train", "eval", "wrong split"}


def test_manuals_are_the_same_every_time_and_ask_what_they_hold(tmp_path):
    manuals = plan_manuals(0, 24)
    assert len({manual.product for manual in manuals}) == 24 and any(
        manual.scanned for manual in manuals
    )
    assert draw_manual(manuals[0]) == draw_manual(manuals[0])
    with pypdfium2.PdfDocument(draw_manual(manuals[0])) as document:
        assert len(document) == 1 + len(manuals[0].topics)
        for question in questions_of(manuals[0]):
            text = document[question["page"] - 1].get_textpage().get_text_bounded()
            assert manuals[0].product in text and manuals[0].product in question["query"]
        assert [mark.get_title() for mark in document.get_toc()] == list(manuals[0].topics)
    scan = next(manual for manual in manuals if manual.scanned)
    with pypdfium2.PdfDocument(draw_manual(scan)) as document:
        assert not any(page.get_textpage().count_chars() for page in document) and len(
            document
        ) == 1 + len(scan.topics)
    assert all(kind in ("prose", "figure", "table") for kind, *_ in TOPICS.values())


def cells_until(text: str) -> list[str]:
    """The notebook's code cells up to the first that holds ``text``, that one included."""
    sources = edited_sources("08")
    return sources[: 1 + next(i for i, source in enumerate(sources) if text in source)]


def foreign_pdfs() -> list[Path]:
    import matplotlib

    folders = [Path(matplotlib.get_data_path()) / "images", *map(Path, FOREIGN_FOLDERS)]
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob("*.pdf"))]


@pytest.mark.slow
def test_files_that_nobody_here_made_go_through_steps_1_to_3(tmp_path, monkeypatch):
    found = foreign_pdfs()
    if not any(file.stat().st_size > 100_000 for file in found):
        pytest.skip(
            f"no PDF documents on this machine beside {len(found)} small ones: no documentation packages are installed"
        )
    side_of = definitions("08", "side_of")["side_of"]
    folder, names = (
        tmp_path / "foreign",
        {"train": (f"{i}.pdf" for i in range(999)), "eval": (f"{i}.pdf" for i in range(999))},
    )
    folder.mkdir()
    # copies, named so that both sides have some
    for i, file in enumerate(sorted(found, key=lambda file: -file.stat().st_size)[:12]):
        wanted = "eval" if i % 2 else "train"
        name = next(
            n
            for n in names[wanted]
            if (side_of({"document": n, "id": n}) == "eval") == (wanted == "eval")
        )
        shutil.copyfile(file, folder / name)
    monkeypatch.setenv("VDR_DOCUMENTS", str(folder))
    monkeypatch.setattr("IPython.display.display", lambda *shown, **settings: None)
    space = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for source in cells_until("own_rows = Dataset.from_list"):
            exec(compile(source, "notebook 08", "exec"), space)
    assert len(space["documents"]) + len(space["problems"]) >= len(space["files"])
    assert len(space["manifest"]) > len(found) and space["from_text"] and len(space["own_rows"])
    assert all(
        space["document_of"][row["image"]] != space["document_of"][row["negative_0"]]
        for row in space["own_rows"]
    )


FOUND = """
found = {
    "queries": len(kept), "asked": len(asked), "negatives": len(own_rows),
    "both": len(both),
    "same page": sum(row["image"] == row["negative_0"] for row in own_rows),
    "same document": sum(document_of[row["image"]] == document_of[row["negative_0"]] for row in own_rows),
    "train pages only": all(sides[page["id"]] == "train" for page in rows if page["image"] in set(own_rows["negative_0"])),
    "above": sum(negative > positive - 0.05 * abs(positive) for positive, negative in mined["scores"]),
    "raw above": float(raw["above the positive"].mean()),
    "models": len(candidates), "scores": {name: len(values["unseen documents"]) for name, values in scores.items()},
}
"""


@pytest.mark.slow
def test_the_whole_notebook_on_a_folder_of_ones_own_and_a_query_model(tmp_path, source, writer):
    folder = draw_documents(tmp_path / "mine", seed=5, count=8)
    (folder / "empty.pdf").touch()
    asking = f"from dataclasses import replace\nprofile = replace(profile, query_models=({str(writer)!r},))"
    short = ("max_new_tokens=160", "max_new_tokens=2")
    changes = {
        "below": [("from vdr_helpers.machine import start", asking)],
        "edits": [short],
        "more": FOUND,
    }
    job = [{"number": "08", "outputs": str(tmp_path / "out"), "changes": changes}]
    small = {
        "VDR_DATASET": str(source),
        "VDR_ROWS": "24:8",
        "VDR_DOCUMENTS": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    first = [{"number": "02", "outputs": str(tmp_path / "out")}]
    done = warm.run(
        [str(ROOT / "tests" / "cells.py")],
        input=json.dumps(first + job),
        env=os.environ | small,
        cwd=ROOT,
    )
    answer = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert answer["status"] == 0, answer["log"]
    found = answer["found"]
    assert (
        found["both"]
        == found["same page"]
        == found["same document"]
        == found["above"]
        == found["models"]
        == 0
    )
    assert found["raw above"] > 0 and found["train pages only"] and found["negatives"] > 5
    assert set(found["scores"]) == {"start", "tuned"} and set(found["scores"].values()) == {
        found["asked"]
    }
    assert (
        "empty.pdf is empty: 0 bytes" in answer["log"]
        and "replies could not be read" in answer["log"]
    )


def test_the_variables_name_a_folder_and_a_model(tmp_path, monkeypatch):
    assert load_profile("tiny").documents_folder is None and load_profile("tiny").query_models == ()
    assert load_profile("full").query_models == ("Qwen/Qwen3-VL-2B-Instruct",)
    monkeypatch.setenv("VDR_DOCUMENTS", str(tmp_path))
    monkeypatch.setenv("VDR_QUERY_MODEL", "none")
    profile = load_profile("full")
    assert profile.documents_folder == str(tmp_path.resolve()) and profile.query_models == ()
    assert str(tmp_path) not in str(printable(profile))
    monkeypatch.setenv("VDR_QUERY_MODEL", "owner/writer")
    assert load_profile("tiny").query_models == ("owner/writer",)
    monkeypatch.setenv("VDR_DOCUMENTS", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="VDR_DOCUMENTS"):
        load_profile()
    monkeypatch.setenv("VDR_DOCUMENTS", "owner/name")
    with pytest.raises(ValueError, match="folder of PDF files that is there"):
        load_profile()
