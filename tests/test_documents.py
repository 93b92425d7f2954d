"""PDF files of one's own, from a folder of every kind of file to questions, a split and a decision:
notebook 08 and the functions that it shares with the scripts.
"""

import ast
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import pypdfium2
import pytest
import torch
import warm
from cells import definitions, printable
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from tiny_vdr.documents import TOPICS, draw_documents, draw_manual, plan_manuals, questions_of
from vdr_helpers import documents
from vdr_helpers.evaluation import ndcg_at_10, ranks
from vdr_helpers.profiles import load_profile

ROOT = Path(__file__).resolve().parent.parent
# what the helper writes for itself, and what a script and the helper have each in their own way
OWN = {"queries_from_model", "findable", "presize", "side_of"}


# the same functions in the scripts


def source_of(file: Path) -> dict[str, str]:
    """``{name: source}`` of a script's functions and constants."""
    text = file.read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.get_source_segment(text, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.get_source_segment(text, node.value)
    return found


HELPER = source_of(Path(documents.__file__))
SHARED = [
    (script, name, source)
    for script in ("index", "documents")
    for name, source in source_of(ROOT / "scripts" / f"{script}.py").items()
    if name in HELPER and name not in OWN | {"READER"}
]


@pytest.mark.parametrize(("script", "name", "source"), SHARED, ids=lambda value: value[:30])
def test_a_function_is_the_same_in_script_and_helper(script, name, source):
    assert HELPER[name] == source, f"{name} differs between scripts/{script}.py and the helper"


def test_reading_and_questions_are_shared():
    names = {name for _, name, _ in SHARED}
    assert {"draw_page", "read_text", "read_document", "read_table", "phrases"} <= names


# a folder


@pytest.fixture(scope="module")
def page_processor():
    size = {"shortest_edge": 4_096, "longest_edge": 40_000}
    image_processor = SimpleNamespace(patch_size=16, merge_size=2, size=size)
    return SimpleNamespace(image_processor=image_processor)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pdf").mkdir()
    return tmp_path / "pdf"


@pytest.fixture
def read(folder, page_processor):
    """A function that reads the test's folder."""
    return lambda: documents.read_documents(folder, page_processor, folder.parent / "store")


@pytest.fixture
def drawn(monkeypatch):
    """The sizes of the pages that are drawn from now on."""
    found, draw = [], documents.draw_page

    def counted(page, processor):
        found.append(page.get_size())
        return draw(page, processor)

    monkeypatch.setattr(documents, "draw_page", counted)
    return found


def number_page(canvas, number):
    canvas.drawString(20, 300, f"Page {number + 1}")


def pdf(file: Path, draw=number_page, pages=1, **settings) -> Path:
    """A PDF file of ``pages`` pages; ``settings`` go to ``Canvas``."""
    canvas = Canvas(str(file), **({"pagesize": (400, 560)} | settings))
    for number in range(pages):
        draw(canvas, number)
        canvas.showPage()
    canvas.save()
    return file


def test_every_bad_file_is_named_and_the_good_one_is_read(folder, read):
    good = pdf(folder / "good.pdf", pages=12)
    pdf(folder / "secret.pdf", encrypt="word")
    (folder / "cut.pdf").write_bytes(good.read_bytes()[:700])
    (folder / "empty.pdf").touch()
    (folder / "text.pdf").write_text("no PDF at all\n" * 99)
    (folder / "copy.pdf").write_bytes(good.read_bytes())
    pdf(folder / "thin.pdf", pagesize=(2, 5000))
    (folder / "folder.pdf").mkdir()
    (folder / "gone.pdf").symlink_to(folder / "nothing.pdf")
    pages, problems = read()
    assert problems == {
        "cut.pdf": "is damaged or no PDF file",
        "empty.pdf": "is empty: 0 bytes",
        "folder.pdf": "is no file: a folder, or a link to nothing",
        "gone.pdf": "is no file: a folder, or a link to nothing",
        "good.pdf": "is a copy of copy.pdf, and left out",
        "secret.pdf": "has a password: save it without one",
        "text.pdf": "is damaged or no PDF file",
        "thin.pdf": "page 1 measures 2 x 5000 points: no page has this shape",
    }
    assert [page["id"] for page in pages] == [f"copy.pdf#{number}" for number in range(1, 13)]
    assert pages[4]["text"].strip() == "Page 5"


def test_names_that_are_no_text_or_stand_there_twice_are_told_apart(folder, read):
    pdf(folder / "a.pdf").rename(folder / os.fsdecode(b"over\xe9.pdf"))
    for pages, name in enumerate(("\u00fcber.pdf", "u\u0308ber.pdf"), start=2):
        pdf(folder / name, pages=pages)
    if len(list(folder.iterdir())) < 3:
        pytest.skip("this disk writes all names in one form")
    pages, problems = read()
    assert pages[0]["id"] == "over?.pdf#1" and len(pages) == 4
    said = "is left out, another file has this name: rename one of them"
    assert problems == {"\u00fcber.pdf": said}


def test_a_folder_without_a_readable_page_says_what_happened(folder, read):
    (folder / "empty.pdf").touch()
    with pytest.raises(ValueError, match=r"no page .*empty\.pdf is empty: 0 bytes"):
        read()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="whoever may read everything is refused nothing",
)
def test_a_file_that_may_not_be_read_is_named_without_its_path(folder, read):
    pdf(folder / "good.pdf")
    pdf(folder / "locked.pdf").chmod(0)
    assert read()[1] == {"locked.pdf": "Permission denied"}


def test_a_name_in_another_unicode_form_is_the_same_name(folder, read):
    pdf(folder / "Pru\u0308fbericht.pdf")
    (folder / "questions.csv").write_text("file,page,query\nPr\u00fcfbericht.pdf,1,How?\n")
    ids = {page["id"] for page in read()[0]}
    found = documents.queries_from_table(folder / "questions.csv", ids)
    assert [row["id"] for row in found] == ["Pr\u00fcfbericht.pdf#1"]


def test_equal_pictures_in_two_files_have_one_path(folder, read):
    pdf(folder / "one.pdf")
    pdf(folder / "two.pdf", pages=2)
    pages, _ = read()
    assert pages[0]["image"] == pages[1]["image"] != pages[2]["image"]


def test_a_title_that_a_program_wrote_gives_way_to_the_file_name(folder, read):
    def page(canvas, number):
        number_page(canvas, number)
        canvas.setTitle("Microsoft Word - Document1")

    pdf(folder / "pump.pdf", page)
    assert [page["title"] for page in read()[0]] == ["pump"]


def test_a_second_run_draws_only_what_is_new(folder, read, drawn):
    def page(text):
        return lambda canvas, number: canvas.drawString(20, 300, f"{text} {number}")

    for name in ("one", "two"):
        pdf(folder / f"{name}.pdf", page(name), pages=2)
    first = read()
    assert len(drawn) == 4
    assert read() == first and len(drawn) == 4
    pdf(folder / "two.pdf", page("changed"), pages=3)
    changed, _ = read()
    assert len(drawn) == 7 and len(changed) == 5 and changed[:2] == first[0][:2]


def test_another_size_reads_every_page_anew(folder, read, drawn, page_processor, monkeypatch):
    pdf(folder / "one.pdf", pages=2)
    read()
    smaller = {"shortest_edge": 4_096, "longest_edge": 20_000}
    monkeypatch.setattr(page_processor.image_processor, "size", smaller)
    pages, _ = read()
    assert len(drawn) == 4
    with Image.open(pages[0]["image"]) as picture:
        assert picture.width * picture.height <= 20_000


def test_a_page_file_that_was_damaged_is_made_again(folder, read):
    pdf(folder / "one.pdf", pages=2)
    pages, _ = read()
    file = Path(pages[0]["image"])
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert read()[0] == pages and file.read_bytes() == whole


def test_an_interrupted_document_is_read_whole_the_next_time(folder, read, drawn, monkeypatch):
    pdf(folder / "one.pdf", pages=3)
    draw = documents.draw_page

    def interrupted(page, processor):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(page, processor)

    with monkeypatch.context() as patch:
        patch.setattr(documents, "draw_page", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read()
    assert len(read()[0]) == 3


@pytest.mark.slow
def test_a_thousand_pages_take_no_more_memory_than_a_hundred(folder, read, monkeypatch):
    pdf(folder / "long.pdf", pages=1000)
    resident, draw, count = [], documents.draw_page, []

    def measured(page, processor):
        count.append(1)
        if len(count) % 100 == 99:
            pages_in_memory = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages_in_memory * os.sysconf("SC_PAGE_SIZE") / 2**20)
        return draw(page, processor)

    monkeypatch.setattr(documents, "draw_page", measured)
    pages, _ = read()
    assert len(pages) == 1000
    # MiB; a page of the model has 0.1, a thousand of them 100
    assert resident[-1] - resident[0] < 30


# questions


def table(file: Path, content: str, encoding="utf-8") -> Path:
    file.write_bytes(content.encode(encoding))
    return file


def test_a_table_of_questions_is_checked_line_by_line(tmp_path, capsys):
    lines = "file,page,query\na.pdf,2, How? \na.pdf,9,Where?\na.pdf,2,\nb.pdf,2,Who?\n,,\n"
    found = documents.queries_from_table(table(tmp_path / "questions.csv", lines), {"a.pdf#2"})
    assert found == [{"query": "How?", "id": "a.pdf#2", "way": "table"}]
    said = capsys.readouterr().out
    assert "line 3 of questions.csv" in said and "line 4" in said and "b.pdf#2" in said


def test_an_empty_page_leaves_the_other_lines_alone(tmp_path):
    """pandas would make floats of the column: a.pdf#1.0 is no page."""
    lines = "file,page,query\na.pdf,01,How?\na.pdf,,What?\na.pdf,2,NA\n"
    found = documents.queries_from_table(
        table(tmp_path / "questions.csv", lines), {"a.pdf#1", "a.pdf#2"}
    )
    assert [(row["id"], row["query"]) for row in found] == [("a.pdf#1", "How?"), ("a.pdf#2", "NA")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, encoding, separator):
    lines = "file,page,query\na.pdf,1,Größe\na.pdf,1,2024\n".replace(",", separator)
    file = table(tmp_path / "questions.csv", lines, encoding)
    found = documents.queries_from_table(file, {"a.pdf#1"})
    assert [row["query"] for row in found] == ["Größe", "2024"]


def test_a_comma_without_quotes_costs_its_line_and_is_named(tmp_path, capsys):
    lines = "file,page,query\na.pdf,1,Where, and how?\na.pdf,1,Why?\n"
    found = documents.queries_from_table(table(tmp_path / "questions.csv", lines), {"a.pdf#1"})
    assert [row["query"] for row in found] == ["Why?"]
    assert "line 2 of questions.csv is left out: quote" in capsys.readouterr().out


@pytest.mark.parametrize("lines", ["", "document,query\na.pdf,How?\n"])
def test_a_table_without_its_columns_is_named(tmp_path, lines):
    file = table(tmp_path / "questions.csv", lines)
    with pytest.raises(ValueError, match=r"questions\.csv has no column file, page"):
        documents.queries_from_table(file, {"a.pdf#1"})


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a.pdf,1,"How?\na.pdf,1,Why?\na.pdf,1,Who?\n', 2),  # never closed
        ('a.pdf,1,Why?\n\na.pdf,1,"How?\na.pdf,1,"Who?"\n', 4),  # closed by the next row's quote
        ('a.pdf,1,"How?\na.pdf,1,Which is 5"\na.pdf,1,Who?\n', 2),  # closed by a sign for inches
        ('"a.pdf","1","How?\n"a.pdf","1","Why?"\n', 2),
        ('a.pdf,1,Why?\na.pdf,1,"F2" means what?\n', 3),
        ('a.pdf,1,"' + "How? " * 30_000 + '"\n', 2),
        ('a.pdf,1,"How?\n' + "a.pdf,1,Why?\n" * 20_000, 2),
    ],
)
def test_a_quote_that_swallows_what_stands_behind_it_is_named(tmp_path, rows, line):
    file = table(tmp_path / "questions.csv", f"file,page,query\n{rows}")
    with pytest.raises(
        ValueError, match=rf"^line {line} of questions\.csv cannot be read: .*quote"
    ):
        documents.queries_from_table(file, {"a.pdf#1"})


def test_a_question_of_two_lines_in_quotes_is_one_question(tmp_path, capsys):
    rows = 'a.pdf,1,"How, and\nwhy, ""now""?"\na.pdf,9,Where?\na.pdf,1,"Who?"\n'
    file = table(tmp_path / "questions.csv", f"file,page,query\n{rows}")
    found = documents.queries_from_table(file, {"a.pdf#1"})
    assert [row["query"] for row in found] == ['How, and why, "now"?', "Who?"]
    assert "line 4 of questions.csv is left out" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["", "\n", ";;\n", "sep=;\n", '"sep=;"\n', "SEP=;\n\n"])
def test_lines_before_the_names_and_every_end_of_a_line_are_read(
    tmp_path, capsys, first, end, encoding
):
    lines = f"{first}file;page;query\na.pdf;1;Größe, wo?\n\na.pdf;9;Where?\n".replace("\n", end)
    file = table(tmp_path / "questions.csv", lines, encoding)
    found = documents.queries_from_table(file, {"a.pdf#1"})
    assert [row["query"] for row in found] == ["Größe, wo?"]
    assert f"line {first.count(chr(10)) + 4} of questions.csv" in capsys.readouterr().out


def test_what_no_spreadsheet_saves_as_text_is_named(tmp_path):
    file = tmp_path / "questions.csv"
    file.write_bytes(b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00")  # a workbook, renamed
    with pytest.raises(ValueError, match="save it as UTF-8"):
        documents.queries_from_table(file, {"a.pdf#1"})


def test_made_queries_have_one_line_so_that_their_table_can_be_read_again(tmp_path):
    row = {"headings": ["Bolts,\nnuts, and\nrings"], "text": "", "title": "Loom", "id": "a.pdf#1"}
    reply = '{"general": "Bolts", "specific": "Which bolt,\\nwhich nut, which ring, and why?"}'
    made = documents.queries_from_text([row])
    made.append(
        {"query": documents.read_reply(reply)["specific"], "id": "a.pdf#1", "way": "writer"}
    )
    first = documents.checked(made, tmp_path / "queries_to_check.csv")
    again = documents.checked(made, tmp_path / "queries_to_check.csv")
    assert list(first["query"]) == list(again["query"]) and len(again) == 2
    assert not any("\n" in query for query in again["query"])


@pytest.mark.parametrize("query", ["   ", "https://example.org/page.png", __file__])
def test_what_the_library_would_open_is_no_query(tmp_path, query):
    lines = f"file,page,query\na.pdf,1,{query}\na.pdf,1,Why?\n"
    found = documents.queries_from_table(table(tmp_path / "questions.csv", lines), {"a.pdf#1"})
    assert [row["query"] for row in found] == ["Why?"]


def test_phrases_are_headings_captions_and_table_lines():
    text = (
        "Kestrel Loom\n2 Bolts\nTable 2: Torque\nM6 bolt 217\nOuter ring 1,204 mm\n"
        "The year 2014 was a good one\nGrand total of all known causes listed here 12"
    )
    row = {"headings": ["2 Bolts", "Loom", "2"], "text": text, "title": "Kestrel loom"}
    assert list(documents.phrases(row)) == ["Bolts", "Torque", "M6 bolt", "Outer ring"]


@pytest.mark.parametrize(
    "phrase",
    [
        "Contents",
        "inside the structure",
        "VALUE ends with a colon:",
        "asn1_read_value_type",
        "element(cert",
        "2 CARD16",
    ],
)
def test_what_says_nothing_is_no_phrase(phrase):
    assert list(documents.phrases({"headings": [phrase], "text": "", "title": "Manual"})) == []


def test_a_phrase_on_two_pages_is_no_query():
    row = {"title": "Manual", "text": ""}
    rows = [
        row | {"id": "a#1", "headings": ["Repairs", "Cleaning"]},
        row | {"id": "a#2", "headings": ["Repairs"]},
    ]
    found = documents.queries_from_text(rows)
    assert found == [{"query": "Cleaning, Manual", "id": "a#1", "way": "text layer"}]


def test_marks_stay_in_the_table_and_marked_queries_go(tmp_path):
    rows = [{"query": q, "id": "a#1", "way": "table"} for q in ("Why?", "How?")]
    file = tmp_path / "to_check.csv"
    assert len(documents.checked(rows, file)) == 2
    marked = file.read_text(encoding="utf-8-sig").replace(
        "How?,a#1,table,yes", "How?,a#1,table,No "
    )
    file.write_text(marked, encoding="utf-8-sig")
    kept = documents.checked([*rows, {"query": "Who?", "id": "a#1", "way": "table"}], file)
    assert list(kept["query"]) == ["Why?", "Who?"]
    assert list(documents.checked(rows, file)["query"]) == ["Why?"]


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
    assert documents.read_reply(reply) == found


def test_a_model_is_asked_once_for_a_page(tmp_path, monkeypatch, capsys):
    asked = []

    def replies_of(name, images, profile):
        for image in images:
            asked.append(image)
            yield image, '{"general": "g", "specific": "s"}' if image == "1.png" else "no"

    monkeypatch.setattr(documents, "replies_of", replies_of)
    profile = SimpleNamespace(output_dir=tmp_path, max_pixels=40_000)
    pages = [{"id": f"a.pdf#{number}", "image": f"{number}.png"} for number in (1, 2)]
    found = documents.queries_from_model("owner/writer", pages, profile)
    assert found == [{"query": "s", "id": "a.pdf#1", "way": "writer", "general": "g"}]
    assert "writer: 1 of 2 replies could not be read" in capsys.readouterr().out
    pages.append({"id": "a.pdf#3", "image": "3.png"})
    assert documents.queries_from_model("owner/writer", pages, profile) == found
    assert asked == ["1.png", "2.png", "3.png"]


def test_only_queries_whose_general_twin_finds_the_page_are_kept(monkeypatch):
    pages = [{"id": f"a#{i}", "image": str(i)} for i in range(20)]
    near, far = {"id": "a#3", "general": "3"}, {"id": "a#4", "general": "9"}
    likes = torch.eye(20)
    # the second general query likes pages 0, 1, 2 ... best: page 4 comes fifth
    likes[9] = torch.arange(20.0).flip(0)

    def embed_once(model, texts, images, profile):
        return torch.stack([likes[int(text)] for text in texts]), torch.eye(20)

    monkeypatch.setattr(documents, "embed_once", embed_once)
    # of 20 pages the first two count
    assert documents.findable([near, far], pages, None, None) == [near]
    assert documents.findable([], pages, None, None) == []


# the split


def page_of(file: str, text: str, image: str = "") -> dict:
    return {"file": file, "text": text, "image": image or f"{file}.png"}


def test_editions_are_one_document_also_by_way_of_a_third():
    first = " ".join(f"word{i}" for i in range(60))
    second = " ".join([*(f"word{i}" for i in range(40)), *(f"new{i}" for i in range(40))])
    third = " ".join(f"new{i}" for i in range(40))
    pages = [page_of("c.pdf", third), page_of("a.pdf", first), page_of("b.pdf", second)]
    pages.append(page_of("d.pdf", "quite another text about quite other things"))
    assert documents.editions(pages) == {
        "a.pdf": "a.pdf",
        "b.pdf": "a.pdf",
        "c.pdf": "a.pdf",
        "d.pdf": "d.pdf",
    }


def test_scans_with_the_same_pictures_are_editions_and_others_are_not():
    pages = [page_of("a.pdf", "", "one.png"), page_of("a.pdf", "", "two.png")]
    pages += [page_of("b.pdf", "", "one.png"), page_of("c.pdf", "", "three.png")]
    groups = documents.editions(pages)
    assert groups["b.pdf"] == "a.pdf" and groups["c.pdf"] == "c.pdf"


def test_a_picture_on_two_sides_and_a_question_about_both_are_left_out():
    pages = [page_of("a.pdf", "", "a.png"), page_of("b.pdf", "", "b.png")]
    pages += [page_of("a.pdf", "", "both.png"), page_of("b.pdf", "", "both.png")]
    sides = documents.one_side_each(pages, lambda page: page["file"])
    assert sides == {"a.png": "a.pdf", "b.png": "b.pdf", "both.png": "left out"}
    rows = [("one", "a.png"), ("two", "a.png"), ("two", "b.png"), ("three", "both.png")]
    queries = pandas.DataFrame(rows, columns=["query", "image"])
    found = documents.sides_of_queries(queries, sides)
    assert list(found) == ["a.pdf", "left out", "left out", "left out"]


def test_documents_lie_on_one_side_and_stay_there():
    side_of = definitions("08", "number_of", "side_of")["side_of"]
    pages = [
        {"file": f"{d}.pdf", "id": f"{d}.pdf#{p}", "page": p}
        for d in range(60)
        for p in range(1, 9)
    ]
    sides = {page["id"]: side_of(page, page["file"]) for page in pages}
    for document in range(60):
        found = {sides[f"{document}.pdf#{number}"] for number in range(1, 9)}
        assert found == {"eval"} or "eval" not in found
        assert sides[f"{document}.pdf#1"] != "wrong split"  # a document of one page trains
    assert set(sides.values()) == {"train", "eval", "wrong split"}
    assert 10 < sum(sides[f"{document}.pdf#1"] == "eval" for document in range(60)) < 32


# scores


def test_one_right_page_is_scored_as_in_notebook_04():
    scores = torch.tensor(numpy.random.default_rng(0).integers(0, 5, (40, 30)).astype(float))
    right = list(range(30)) + list(range(10))
    found = documents.ndcg_with_several(scores, [[column] for column in right])
    expected = ndcg_at_10(ranks(scores, right, equal_in_front=True))
    assert found == pytest.approx(expected)


def test_several_right_pages_in_front_score_one():
    """Three queries that compete for one place would have an average of .71."""
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.9]])
    found = documents.ndcg_with_several(scores, [[0, 1, 2], [0, 1, 2]])
    discounts = 1 / numpy.log2([2, 3, 4, 5])
    assert found == pytest.approx([1, discounts[1:].sum() / discounts[:3].sum()])


def text_search():
    made = definitions("08", "as_words", "text_scores", "fused")
    return made["text_scores"], made["fused"]


def test_text_search_finds_words_and_gives_nothing_to_scans():
    text_scores, _ = text_search()
    scores = text_scores(["grease for bearings", "torque of bolts", ""], ["Which grease?", "???"])
    assert scores.shape == (2, 3) and scores[0].argmax() == 0
    assert scores[0, 2] == 0 and (scores[1] == 0).all()
    assert (text_scores(["", ""], ["Which grease?"]) == 0).all()


def test_fusion_adds_reciprocal_ranks_and_equal_scores_share_theirs():
    _, fused = text_search()
    found = fused(torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[0.0, 7.0, 7.0]]))
    expected = [1 / 61 + 1 / 63, 1 / 62 + 1 / 61.5, 1 / 63 + 1 / 61.5]
    assert found[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("rows", [20, 27, 99, 100, 177, 499, 500, 1_999, 2_000, 10_000])
def test_any_number_of_rows_from_twenty_makes_steps_enough(rows):
    made = definitions("08", "settings_for", "fewest_steps")
    batch, epochs, steps = made["settings_for"](rows)
    assert steps >= made["fewest_steps"] and steps * batch >= rows * epochs


def test_the_small_model_is_said_to_read_drawn_pages_only(tmp_path, monkeypatch):
    assert documents.who_reads(load_profile("tiny")).startswith("Yes")
    monkeypatch.setenv("VDR_DOCUMENTS", str(tmp_path))
    assert documents.who_reads(load_profile("tiny")).startswith("No: the model of the profile tiny")
    assert documents.who_reads(load_profile("full")).startswith("Yes")
    monkeypatch.setenv("VDR_FINETUNED", "owner/reader")
    assert documents.who_reads(load_profile("tiny")).startswith("Yes")


# drawn manuals


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


# the whole notebook


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A folder with a generating twin of the named model's classes: random weights, a few thousand
    of them.
    """
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
def test_a_vision_language_model_is_asked_page_by_page(writer, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(writer)
    tools = AutoProcessor.from_pretrained(writer)
    Image.new("RGB", (160, 224), "white").save(tmp_path / "page.png")
    seen, generate = [], model.generate

    def watched(**inputs):
        seen.append(inputs)
        return generate(**inputs | {"max_new_tokens": 4})

    model.generate = watched
    assert isinstance(documents.ask_model(tmp_path / "page.png", model, tools), str)
    asked = tools.tokenizer.decode(seen[0]["input_ids"][0])
    # the page goes with the prompt
    assert "Reply with JSON only" in asked and seen[0]["pixel_values"].shape[0] == 10 * 14


FOUND = """
own = own_rows.to_dict("records")
found = {
    "origin": origin,
    "rows": len(own_rows),
    "plans": list(plans),
    "same document": sum(document_of[row["image"]] == document_of[row["negative_0"]] for row in own),
    "train only": all(side_of_image[row[n]] == "train" for row in own for n in ("image", "negative_0")),
    "above": sum(n > p - 0.05 * abs(p) for p, n in mined["scores"]),
    "models": len(candidates),
    "scores": {plan: len(values["unseen documents"]) for plan, values in scores.items()},
    "eval": queries[(queries["side"] == "eval") & (queries["way"] == "table")]["query"].nunique(),
    "held": dict(zip(against["reason not to tune"], against["holds"])),
    "kept": kept.name,
    "before": round(float(before["text"].mean()), 3),
}
"""
SMALL = {"VDR_ROWS": "24:8", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def run_notebook(tmp_path, source, folder, **changes) -> dict:
    """Notebook 08 on a folder, after 02 on a small dataset; ``changes`` as in ``cells``."""
    first = {"number": "02", "outputs": str(tmp_path / "out")}
    job = {"number": "08", "outputs": str(tmp_path / "out"), "changes": {"more": FOUND} | changes}
    done = warm.run(
        [str(ROOT / "tests" / "cells.py")],
        input=json.dumps([first, job]),
        env=os.environ | SMALL | {"VDR_DATASET": str(source), "VDR_DOCUMENTS": str(folder)},
        cwd=ROOT,
    )
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


@pytest.mark.slow
def test_the_whole_notebook_on_a_folder_of_ones_own_and_a_query_model(tmp_path, source, writer):
    folder = draw_documents(tmp_path / "mine", seed=5, count=8)
    (folder / "empty.pdf").touch()
    asking = (
        "from dataclasses import replace\n"
        f"profile = replace(profile, query_models=({str(writer)!r},))\n"
        "from vdr_helpers import documents\n"
        "documents.ask_model = lambda *page: 'no JSON'\n"
    )
    below = [("from vdr_helpers.machine import start", asking)]
    answer = run_notebook(tmp_path, source, folder, below=below)
    assert answer["status"] == 0, answer["log"]
    found = answer["found"]
    assert found["same document"] == found["above"] == found["models"] == 0
    assert found["train only"] and found["plans"] == ["several documents", "one document"]
    assert set(found["scores"].values()) == {found["eval"]}
    assert found["held"]["the model cannot read these pages"] == "yes"
    assert found["kept"].startswith("tuned-")
    assert "empty.pdf is empty: 0 bytes" in answer["log"]
    assert "replies could not be read" in answer["log"]


@pytest.mark.slow
def test_forty_documents_of_one_page_train(tmp_path, source):
    folder = tmp_path / "invoices"
    folder.mkdir()
    lines = ["file,page,query"]
    for number in range(40):
        name = f"Customer{chr(65 + number % 26)}{number}"

        def page(canvas, _, name=name):
            canvas.setFont("Helvetica", 30)
            canvas.drawString(20, 480, f"Invoice for {name}")

        pdf(folder / f"{number}.pdf", page)
        lines.append(f"{number}.pdf,1,What does {name} owe?")
    table(folder / "questions.csv", "\n".join(lines))
    answer = run_notebook(tmp_path, source, folder)
    assert answer["status"] == 0, answer["log"]
    assert answer["found"]["plans"] == ["several documents"] and answer["found"]["rows"] >= 20
    assert answer["found"]["held"]["too few questions of people"] == "yes"
    assert answer["found"]["before"] > 0.9  # by text each page is found


@pytest.mark.slow
def test_too_few_rows_are_refused_before_anything_is_trained(tmp_path, source):
    folder = tmp_path / "few"
    folder.mkdir()
    lines = ["file,page,query"]
    for number in range(8):
        pdf(
            folder / f"{number}.pdf",
            lambda canvas, n, d=number: canvas.drawString(20, 300, f"No {d}"),
        )
        lines.append(f"{number}.pdf,1,Where is number {number}?")
    table(folder / "questions.csv", "\n".join(lines))
    answer = run_notebook(tmp_path, source, folder)
    assert answer["status"] != 0
    assert "optimizer steps, expected 20 at least" in answer["log"]


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
    for text in ("owner/name", str(tmp_path / "one_file.pdf"), str(tmp_path / "gone")):
        (tmp_path / "one_file.pdf").touch()
        monkeypatch.setenv("VDR_DOCUMENTS", text)
        with pytest.raises(ValueError, match="VDR_DOCUMENTS") as problem:
            load_profile()
        assert "folder" in str(problem.value) and "hub" not in str(problem.value)
