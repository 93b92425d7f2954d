"""Answers with citations: answer.py beside search.py, replies that were written for the test, and
appendix a11's own code.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from cells import definitions
from model_twins import save_writer_twin
from test_scripts import SCRIPTS, TUNED, call, part
from test_serve import QUERY, save_index

from tiny_vdr.documents import draw_documents

REPLIES = {
    "Grease it once a year [P2].": ("cites pages that were shown", [2]),
    "Once a year [P1][P3], says the table [P1].": ("cites pages that were shown", [1, 3]),
    "Once a year [P1, P3 and P2].": ("cites pages that were shown", [1, 3, 2]),
    "Once a year [P4].": ("cites a page that was not shown", [4]),
    "Once a year [P1], or twice [P0].": ("cites a page that was not shown", [1, 0]),
    "Once a year.": ("cites no page", []),
    "Once a year, says P2 of the pump P3.": ("cites no page", []),
    "Once a year [2], see page 3.": ("cites no page", []),
    "": ("cites no page", []),
    "NOT ON THESE PAGES": ("says: not on these pages", []),
    "Not on these pages.": ("says: not on these pages", []),
    "NOT ON THESE PAGES, but once a year [P1].": ("answers, and says that it cannot", [1]),
}


@pytest.fixture(scope="module")
def both():
    """``{"script": ..., "notebook": ...}``: each one's ``citations`` and ``check``."""
    names = ("NOT_THERE", "citations", "check")
    return {
        "script": {name: part("answer", name) for name in names},
        "notebook": definitions("a11", *names),
    }


@pytest.mark.parametrize("place", ["script", "notebook"])
@pytest.mark.parametrize("reply", REPLIES)
def test_what_a_reply_cites_is_seen(reply, place, both):
    said, cited = REPLIES[reply]
    assert both[place]["citations"](reply) == cited
    assert both[place]["check"](reply, 3) == said


@pytest.mark.parametrize(
    "text", ["Die Größe, Ⅳ ﬁle_name", "設定を変更する (C-5)", "필터 교체", "the a of", ""]
)
def test_all_scripts_take_a_text_apart_alike(text):
    apart = [part(script, "words")(text) for script in ("answer", "search", "serve")]
    assert apart[0] == apart[1] == apart[2]
    assert (
        part("answer", "STOP_WORDS") == part("search", "STOP_WORDS") == part("serve", "STOP_WORDS")
    )


def test_script_and_notebook_ask_alike():
    assert part("answer", "PROMPT") == definitions("a11", "NOT_THERE", "PROMPT")["PROMPT"]


# the script


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an index of three pages, one of them in two files, and a model that replies
    with one sentence.
    """
    made = tmp_path_factory.mktemp("answers")
    save_index(made / "index", TUNED)
    save_index(made / "by_text")
    save_writer_twin(made / "writer", "They are 121 [P1].")
    save_writer_twin(made / "liar", "They are 121 [P7].")
    return made


def answer(folder, question, *arguments):
    return call("answer", question, *arguments, folder=folder)


def places_of(said):
    return re.findall(r"\S+\.pdf, page \d", said)


@pytest.mark.parametrize("index", ["index", "by_text"])
@pytest.mark.parametrize("question", [QUERY, "exports of Basalt", "complaints, staff, 2011"])
def test_the_pages_are_those_of_search(question, index, folder):
    found = call("search", question, "--index", index, "--top", 3, folder=folder)
    shown = answer(folder, question, "--index", index, "--k", 3, "--show-prompt")
    assert found.status == shown.status == 0, shown.said
    assert places_of(shown.said) == places_of(found.said) != []
    assert re.findall(r"index/pages/\w+|by_text/pages/\w+", shown.said) == re.findall(
        r"index/pages/\w+|by_text/pages/\w+", found.said
    )


def test_the_prompt_holds_marks_pages_rules_and_question(folder):
    shown = answer(
        folder, "exports of Basalt", "--index", "by_text", "--k", 1, "--show-prompt"
    ).said
    assert re.match(r"\[P1\] 1.png.pdf, page 2; copy.pdf, page 2 <by_text/pages/1.png>", shown)
    assert "cite the page" in shown and "NOT ON THESE PAGES" in shown
    assert shown.endswith("Question: exports of Basalt") and "[P2]" not in shown


def test_it_runs_without_this_repository(folder):
    command = [sys.executable, "-I", str(SCRIPTS / "answer.py"), "exports of Basalt"]
    done = subprocess.run(
        [*command, "--index", "by_text", "--show-prompt"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert places_of(done.stdout)[:2] == ["1.png.pdf, page 2", "copy.pdf, page 2"]


def test_the_model_sees_the_pages_and_its_answer_names_them(folder):
    done = answer(folder, "staff at Rowan Steel", "--index", "by_text", "--model", "writer")
    assert done.status == 0, done.said
    assert "They are 121 [P1]. The reply" in done.said
    assert "The reply cites pages that were shown." in done.said
    assert places_of(done.said) == ["0.png.pdf, page 1"]
    assert (folder / done.said.split()[-1]).exists(), "the picture"


def test_every_page_is_part_of_what_the_model_reads(folder, monkeypatch):
    import transformers

    seen = []
    generate = transformers.Qwen3VLForConditionalGeneration.generate

    def watched(self, **inputs):
        seen.append(inputs)
        return generate(self, **inputs)

    monkeypatch.setattr(transformers.Qwen3VLForConditionalGeneration, "generate", watched)
    for k in (1, 2):
        answer(folder, QUERY, "--k", k, "--model", "writer")
    assert [len(inputs["image_grid_thw"]) for inputs in seen] == [1, 2]
    assert not any(inputs["do_sample"] for inputs in seen)


def test_a_cited_page_that_was_not_shown_is_no_page(folder):
    done = answer(folder, "staff at Rowan Steel", "--index", "by_text", "--model", "liar")
    assert done.status == 0 and "The reply cites a page that was not shown." in done.said
    assert places_of(done.said) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "no_such_folder"), "no_such_folder cannot be loaded as a vision-language"),
        (("--model", "index"), "index cannot be loaded as a vision-language model"),
        (("--k", "0"), "expected a whole number above 0, found '0'"),
    ],
)
def test_what_cannot_answer_is_named(arguments, message, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = answer(folder, "staff", "--index", "by_text", *arguments)
    assert done.status != 0 and message in done.said, done.said


def test_a_question_without_a_page_is_named(folder):
    done = answer(folder, "zebra", "--index", "by_text", "--show-prompt")
    assert done.status == 1 and "no page has a word of the question" in done.said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda index: (index / "pages.jsonl").unlink(), "no finished index in index"),
        (lambda index: (index / "index.json").write_text('{"format": 2}'), "another format"),
        (lambda index: (index / "vectors.npz").unlink(), "has not all page vectors"),
        (
            lambda index: [p.write_bytes(b"no picture") for p in (index / "pages").iterdir()],
            "cannot identify image file",
        ),
    ],
)
def test_an_index_that_is_not_whole_is_named(damage, message, tmp_path):
    damage(save_index(tmp_path / "index", TUNED))
    done = answer(tmp_path, "staff", "--show-prompt")
    assert done.status == 1 and message in done.said


def test_an_index_made_by_another_model_is_refused(tmp_path):
    save_index(tmp_path / "index", TUNED)
    note = tmp_path / "index" / "index.json"
    settings = json.loads(note.read_text())
    settings["model"]["key"] = "another"
    note.write_text(json.dumps(settings))
    done = answer(tmp_path, "staff", "--show-prompt")
    assert done.status == 1 and "is not what index was made with: make it anew" in done.said


# appendix a11


def pages_named(*names):
    """``(page_of_id, page_of_image)`` of pages such as "oven#2", whose images have their names."""
    pages = {}
    for name in names:
        file, _, number = name.partition("#")
        pages[name] = {"id": name, "file": file, "page": int(number), "image": name}
    return {"page_of_id": pages, "page_of_image": pages}


PAGES = pages_named("oven#1", "oven#2", "oven#3", "oven#5", "winch#1", "winch#2")


def test_neighbours_stay_in_their_document_and_come_once():
    with_neighbours = definitions("a11", "with_neighbours", **PAGES)["with_neighbours"]
    assert with_neighbours(["oven#2", "oven#3", "winch#1"]) == [
        "oven#2",
        "oven#3",
        "oven#1",
        "winch#1",
        "winch#2",
    ]
    assert with_neighbours(["oven#5", "winch#2"]) == ["oven#5", "winch#2", "winch#1"]


def test_a_document_gives_its_best_page_only():
    best_per_document = definitions("a11", "best_per_document", **PAGES)["best_per_document"]
    assert best_per_document(["winch#2", "oven#5", "winch#1", "oven#1"]) == ["winch#2", "oven#5"]


def test_one_right_page_of_several_is_enough():
    right_pages = {"a": {"oven#1", "oven#2"}, "b": {"winch#1"}}
    given = {"right_pages": right_pages, "questions": list(right_pages)}
    has_the_fact = definitions("a11", "has_the_fact", **given)["has_the_fact"]
    lists = [["oven#5", "oven#2"], ["winch#2", "winch#1"]]
    assert has_the_fact(lists).tolist() == [1, 1]
    assert has_the_fact([some[:1] for some in lists]).tolist() == [0, 0]


FOUND = """
found = {
    "questions": len(questions),
    "pages": len(corpus),
    "shares": shares,
    "lengths": sorted({len(images) for images in chosen.values()}),
}
"""


@pytest.mark.slow
def test_the_whole_appendix_with_a_reader(tmp_path):
    reader = save_writer_twin(tmp_path / "reader", "Turn it to 1 [P2].")
    manuals = draw_documents(tmp_path / "manuals", seed=5, count=3)
    job = {"number": "a11", "outputs": str(tmp_path / "out"), "changes": {"more": FOUND}}
    named = {"VDR_READER": str(reader), "VDR_DOCUMENTS": str(manuals)}
    done = warm.run(
        [str(Path(__file__).with_name("cells.py"))],
        input=json.dumps([job]),
        env=os.environ | named | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
    )
    answer = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert answer["status"] == 0, answer["log"]
    found, log = answer["found"], answer["log"]
    assert 3 < found["questions"] < found["pages"] < 40 and found["lengths"] == [3]
    for shares in found["shares"].values():
        assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] <= 1
    assert log.count("Turn it to 1 [P2].\n  cites pages that were shown") == 4
    assert "No reader is named" not in log
