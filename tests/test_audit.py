"""Is an eval set clean, what moved, and which errors: notebook 04's cells and their helpers on sets
with planted faults, and on clean ones.
"""

import dataclasses
import io
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import pytest
import torch
from cells import definitions, prepare
from PIL import Image, ImageDraw
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import cos_sim
from test_evaluation import KnownModel
from test_figures_widgets import PNG

from tiny_vdr.pages import CHART_LAYOUTS
from tiny_vdr.plan import changed_facts, plan_rows
from vdr_helpers import figures
from vdr_helpers.evaluation import retrieval_inputs
from vdr_helpers.pages import PageStore, fingerprint
from vdr_helpers.profiles import load_profile
from vdr_helpers.splits import load_split

# The audit's own functions, as notebook 04 defines them


@pytest.fixture(scope="module")
def audit():
    """``scores_without``, ``copies`` and others on three queries with two pages each: the right
    one, in column 0, 2 or 4, and a negative.
    """
    names = (
        "ndcg_at_10",
        "hashes",
        "bits_apart",
        "altered",
        "scores_without",
        "copies",
        "cover_patches",
        "similarity_and_falls",
    )
    space = definitions("a4", *names)
    similarities = numpy.array(
        [[0.9, 0.5, 0.1, 0, 0, 0], [0, 0, 0.6, 0.7, 0.1, 0], [0, 0, 0.8, 0.1, 0.6, 0.7]]
    )
    right_pages = [0, 2, 4]
    right = numpy.arange(3), numpy.array(right_pages)
    known = {
        "right": right,
        "right_pages": right_pages,
        "in_front": {"base": similarities > similarities[right][:, None]},
    }
    space["copies"].__globals__.update(known, ndcg_at_10=space["ndcg_at_10"])
    return space


def same(*pairs, size=6):
    matrix = numpy.zeros((size, size), dtype=bool)
    for one, other in pairs:
        matrix[one, other] = matrix[other, one] = True
    return matrix


SECOND, THIRD = 1 / math.log2(3), 1 / math.log2(4)


def test_nothing_left_out_is_the_score_as_it_stands(audit):
    assert audit["scores_without"](same()[:3])["base"] == pytest.approx([1, SECOND, THIRD])
    assert not audit["copies"](same()).any()


def test_without_a_page_that_was_trained_on(audit):
    # a negative stands in train
    left_out = numpy.zeros((3, 6), dtype=bool) | (numpy.arange(6) == 3)
    assert audit["scores_without"](left_out)["base"] == pytest.approx([1, 1, THIRD])
    # the second query's right page does
    left_out = numpy.zeros((3, 6), dtype=bool) | (numpy.arange(6) == 2)
    scores = audit["scores_without"](left_out)["base"]
    assert math.isnan(scores[1]) and scores[[0, 2]] == pytest.approx([1, SECOND])


def test_a_copy_of_the_right_page_is_left_out_and_the_right_page_never(audit):
    # the negative of the second query is a copy of its right page
    left_out = audit["copies"](same((2, 3)))
    assert audit["scores_without"](left_out)["base"] == pytest.approx([1, 1, THIRD])
    assert not left_out[1, 2] and left_out[0, 3] and not left_out[0, 2], (
        "for other queries the first of the copies stays"
    )
    # one page answers two queries: each keeps its own, without the other
    left_out = audit["copies"](same((2, 4)))
    assert audit["scores_without"](left_out)["base"] == pytest.approx([1, SECOND, SECOND])
    assert not left_out[1, 2] and left_out[1, 4] and not left_out[2, 4] and left_out[2, 2]


@pytest.fixture(scope="module")
def sheets():
    """Two pages of one layout with another word, and a page of another layout."""
    pages = []
    for word, top in (("Revenue 2014", 60), ("Revenue 2015", 60), ("Pumps", 130)):
        page = Image.new("RGB", (160, 224), "white")
        draw = ImageDraw.Draw(page)
        draw.text((16, top), word, fill="black", font_size=18)
        draw.rectangle((16, top + 30, 140, top + 60), fill="grey")
        pages.append(page)
    return pages


def test_the_hash_finds_what_was_saved_again_and_takes_another_word_for_the_same(
    audit, sheets, tmp_path
):
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for page, path in zip(sheets, paths, strict=True):
        page.save(path)
    hashes, apart = audit["hashes"], audit["bits_apart"]
    again = audit["altered"](paths[0])
    assert set(again) == {"saved as JPEG", "at half size", "4 pixels cut off"}
    known = hashes(paths, 256)
    assert known.shape == (3, 256)
    for way in ("saved as JPEG", "at half size"):
        assert apart(hashes([again[way]], 256), known)[0].argmin() == 0
        assert apart(hashes([again[way]], 256), known)[0, 0] < 12
    table = apart(hashes(paths, 64), hashes(paths, 64))
    assert (table.diagonal() == 0).all() and (table == table.T).all()
    assert table[0, 1] <= 4 < table[0, 2], "one word does not show in 64 bits, another layout does"
    by_hand = (hashes(paths[:1], 64) != hashes(paths[2:], 64)).sum()
    assert table[0, 2] == by_hand


def test_planted_pages_are_found_by_their_content(tmp_path, sheets):
    """The first cell's way to count: a page saved under two ids, or in train too, is one file."""
    from datasets import Dataset

    store = PageStore(tmp_path / "pages")

    def split(*pages):
        files = []
        for row, page in enumerate(pages):
            content = io.BytesIO()
            page.save(content, "PNG")
            store.add(row, fingerprint(page.convert("RGB")), content.getvalue())
            files.append(store.path(row))
        return Dataset.from_dict({"query": ["a"], "image": files[:1], "negative_0": files[1:]})

    first, other, third = sheets
    trained = split(first, third)
    train_pages = {trained["image"][0], trained["negative_0"][0]}
    clean = split(other, Image.new("RGB", (32, 32)))
    assert not train_pages & {clean["image"][0], clean["negative_0"][0]}
    leaky = split(other, third)
    assert train_pages & {leaky["image"][0], leaky["negative_0"][0]} == {leaky["negative_0"][0]}
    doubled = split(other, other)
    assert doubled["image"][0] == doubled["negative_0"][0]


# The occlusion map


class ReadsOnePatch:
    """A model whose vector depends on one place of the page alone: on whether a mark is there."""

    def __init__(self, box):
        self.box = box

    def encode(self, pictures):
        marked = [numpy.asarray(picture.crop(self.box)).min() < 128 for picture in pictures]
        return torch.tensor([[1.0, 0.0] if here else [0.6, 0.8] for here in marked])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 3), (6, 4)])
def test_the_map_finds_the_patch_that_the_match_depends_on(audit, tmp_path, row, column):
    page = Image.new("RGB", (160, 224), (250, 248, 240))
    box = (column * 32 + 4, row * 32 + 4, column * 32 + 20, row * 32 + 20)
    ImageDraw.Draw(page).rectangle(box, fill="black")
    ImageDraw.Draw(page).rectangle((0, 100, 20, 110), fill="red")  # not what the model looks at
    page.save(tmp_path / "page.png")
    pictures = audit["cover_patches"](tmp_path / "page.png", 32)
    assert len(pictures) == 1 + 5 * 7
    assert pictures[0].tobytes() == page.tobytes()
    assert set(
        pictures[1 + 5 * row + column]
        .crop((column * 32, row * 32, column * 32 + 32, row * 32 + 32))
        .get_flattened_data()
    ) == {(250, 248, 240)}
    similarity, falls = audit["similarity_and_falls"](
        torch.tensor([1.0, 0.0]), ReadsOnePatch(box).encode(pictures), tmp_path / "page.png", 32
    )
    assert similarity == pytest.approx(1) and falls.shape == (7, 5)
    assert numpy.unravel_index(falls.argmax(), falls.shape) == (row, column)
    assert falls.max() == pytest.approx(0.4)
    assert numpy.count_nonzero(abs(falls) > 1e-6) == 1


def test_a_page_that_is_no_multiple_of_the_patch_is_covered_to_its_edge(audit, tmp_path):
    Image.new("RGB", (70, 40), "white").save(tmp_path / "page.png")
    pictures = audit["cover_patches"](tmp_path / "page.png", 32)
    _, falls = audit["similarity_and_falls"](
        torch.ones(2), torch.ones(len(pictures), 2), tmp_path / "page.png", 32
    )
    assert falls.shape == (2, 3)


# Figures


def a4(*names, **known):
    """What appendix a4's cells define under ``names``, with ``known`` in place of what earlier cells
    leave.
    """
    space = definitions("a4", *names)
    scope = next(value for value in space.values() if callable(value)).__globals__
    scope.update(known)
    return space


def page_files(folder, count=8):
    for number in range(count):
        Image.new("RGB", (64, 96) if number % 2 else (96, 64), (200, 30 * number % 255, 90)).save(
            folder / f"{number}.png"
        )
    return [str(folder / f"{number}.png") for number in range(count)]


def test_rank_movement_shows_both_orders_and_the_right_page_of_each(tmp_path):
    pages, kinds = page_files(tmp_path), ["positive", "hard negative", *["other"] * 6]
    similarities = {
        "base": torch.tensor([0.0, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        "tuned": torch.linspace(0.9, 0.2, 8),
    }
    figure = figures.ranking(similarities, pages, kinds, "a query", best=2)
    drawn = [(axis.get_title(), axis.get_xlabel()) for axis in figure.axes if axis.axison]
    assert drawn == [
        ("base 1\nscore 0.70", "hard negative\ntuned: 2"),
        ("base 2\nscore 0.60", "other\ntuned: 3"),
        ("base 8\nscore 0.00", "positive\ntuned: 1"),
        ("tuned 1\nscore 0.90", "positive\nbase: 8"),
        ("tuned 2\nscore 0.80", "hard negative\nbase: 1"),
    ]
    assert figures.to_png(figure).startswith(PNG)


def test_occlusion_shades_falls_and_marks_rises(tmp_path):
    falls = numpy.array([[0.3, 0.0], [-0.1, 0.15], [0.0, -0.01]])
    occlusion = a4("occlusion")["occlusion"]
    figure = occlusion([("right page, tuned", page_files(tmp_path)[1], 0.8, falls)], "a query")
    [axis] = figure.axes
    shade = axis.images[1].get_array()
    assert shade.shape == (3, 2, 4)
    numpy.testing.assert_allclose(shade[..., 3], 0.8 * numpy.array([[1, 0], [0, 0.5], [0, 0]]))
    assert axis.lines[0].get_xydata().tolist() == [[0.5, 1.5]], (
        "a rise of a tenth of the largest fall, no smaller"
    )
    assert axis.get_xlabel() == "similarity 0.80\nlargest fall 0.30"
    assert figures.to_png(
        occlusion([("nothing falls", page_files(tmp_path)[1], 0.8, 0 * falls)], "")
    ).startswith(PNG)


def test_group_scores_draws_each_group_with_its_counts():
    row = {"queries": 30, "fixed": 5, "broken": 2} | {
        "base": 0.6,
        "base low": 0.5,
        "base high": 0.7,
    }
    row |= {"tuned": 0.8, "tuned low": 0.75, "tuned high": 0.9}
    table = pandas.DataFrame(
        {
            ("", "all queries"): row,
            ("layout", "slide"): row | {"broken": 11},
            ("layout", "letter"): row,
        }
    ).T
    figure = a4("group_scores")["group_scores"](table)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "all queries",
        "layout slide",
        "layout letter",
    ]
    counts = [label.get_text().split() for label in axis.child_axes[0].get_yticklabels()]
    assert counts == [["30", "5", "2"], ["30", "5", "11"], ["30", "5", "2"]]
    spans = [part.get_segments() for part in axis.collections]
    assert [[list(ends[:, 0]) for ends in line] for line in spans] == [
        [[0.5, 0.7]] * 3,
        [[0.75, 0.9]] * 3,
    ]
    assert len({line.get_marker() for line in axis.lines}) == 2, "in grey the markers differ"
    png = Image.open(io.BytesIO(figures.to_png(figure))).convert("L")
    assert numpy.asarray(png)[:, -8:].min() == 255, "nothing is cut off at the right"


# Marks


@pytest.fixture
def review(tmp_path):
    """The marks of two suspects, as appendix 4's cells keep them."""
    names = ("read_marks", "marks_of", "mark", "undo", "told_mark")
    known = {
        "marks_file": tmp_path / "results" / "marks.json",
        "pairs": [("a query", "a page"), ("another", "page 2")],
    }
    (tmp_path / "results").mkdir()
    return SimpleNamespace(
        **a4(*names, **known, marked_sentence=lambda: "the score"), file=known["marks_file"]
    )


def test_marks_are_kept_and_taken_back_one_by_one(review):
    assert review.told_mark(0) == "Suspect 1 of 2, not marked. the score"
    assert not review.file.exists(), "looking writes nothing"
    assert review.mark(0, True) == "Suspect 1 of 2, marked: also an answer. the score"
    review.mark(1, False)
    assert "no answer" in review.mark(0, False)
    assert (review.marks_of(("a query", "a page")), review.marks_of(("another", "page 2"))) == (
        [True, False],
        [False],
    )
    assert "also an answer" in review.undo(0)
    assert "not marked" in review.undo(0)
    assert "not marked" in review.undo(0), "nothing left: nothing happens"
    assert review.read_marks() == [("another", "page 2", False)], "the other pair keeps its mark"


def test_a_mark_belongs_to_content_and_never_meets_another_page(review):
    review.mark(0, True)
    review.mark.__globals__["pairs"] = [
        ("a query", "other content"),
        ("another query", "a page"),
        ("a query", "a page"),
    ]
    assert [review.told_mark(i).split(". ")[0].split(", ", 1)[1] for i in range(3)] == [
        "not marked"
    ] * 2 + ["marked: also an answer"]
    assert len(review.read_marks()) == 1, "the mark is not lost"


@pytest.mark.parametrize("content", ['[["a", "pa', "[1]", '{"marks": 3}', '[["a", "b"]]', "\xff"])
def test_a_damaged_file_is_named_and_set_aside(review, capsys, content):
    review.file.write_text(content, encoding="latin-1")
    assert review.read_marks() == []
    [aside] = review.file.parent.iterdir()
    assert aside.read_text(encoding="latin-1") == content
    told = capsys.readouterr().out
    assert (
        "marks.json is damaged" in told and f"set aside as {aside.name}, marks start anew" in told
    )
    assert "also an answer" in review.mark(0, True)


def test_a_mark_is_written_whole_or_not_at_all(review, monkeypatch):
    review.mark(0, True)
    before = review.file.read_text()

    def full_disk(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        review.mark(1, True)
    assert review.file.read_text() == before


def test_a_review_without_suspects_says_so(review):
    review.mark.__globals__["pairs"] = []
    assert "No suspects" in review.told_mark(0)


VECTORS = {
    "first": (1, 0), "second": (0, 1),
    "P0": (1, 0.1), "A0": (1, 0.05), "B0": (-1, 0),
    "P1": (1, 0.5), "A1": (0.2, 1), "B1": (1, -1),
}  # fmt: skip


def test_the_marked_score_is_that_of_the_evaluator_with_more_right_pages():
    queries = {"q0": "first", "q1": "second"}
    corpus = {
        f"c{number}": name for number, name in enumerate(("P0", "A0", "B0", "P1", "A1", "B1"))
    }
    right_pages, marked = [0, 3], {("first", "A0"), ("second", "A1"), ("second", "A0")}
    space = definitions("a4", "ndcg_at_10", "marked_score")
    similar = cos_sim(
        *(
            torch.tensor([VECTORS[name] for name in names], dtype=torch.float32)
            for names in (("first", "second"), list(corpus.values()))
        )
    )
    suspects = pandas.DataFrame([(0, 1), (1, 4), (1, 1), (1, 5)], columns=["number", "column"])
    pairs = [
        (list(queries.values())[one.number], list(corpus.values())[one.column])
        for one in suspects.itertuples()
    ]

    def marks_of(pair):
        return (
            [False, True] if pair in marked else [True, False] if pair == ("second", "B1") else []
        )

    known = {
        "suspects": suspects,
        "pairs": pairs,
        "right_pages": right_pages,
        "queries": queries,
        "similar": {"base": similar.numpy()},
    }
    space["marked_score"].__globals__.update(
        known, marks_of=marks_of, ndcg_at_10=space["ndcg_at_10"]
    )
    relevant = {"q0": {"c0", "c1"}, "q1": {"c3", "c4", "c1"}}
    measured = InformationRetrievalEvaluator(queries, corpus, relevant, name="x", write_csv=False)(
        KnownModel(VECTORS)
    )
    assert space["marked_score"]("base") == pytest.approx(measured["x_cosine_ndcg@10"], abs=1e-12)
    before = measured
    marked.clear()
    relevant = {"q0": {"c0"}, "q1": {"c3"}}
    measured = InformationRetrievalEvaluator(queries, corpus, relevant, name="x", write_csv=False)(
        KnownModel(VECTORS)
    )
    assert space["marked_score"]("base") == pytest.approx(measured["x_cosine_ndcg@10"], abs=1e-12)
    assert measured != before


# Facts


@pytest.fixture(scope="module")
def plan():
    return plan_rows(0, 20, 85)


def test_what_a_negative_changes_is_what_stands_otherwise_on_it(plan):
    seen, by_id = set(), {row.id: row for row in plan}
    for row in plan:
        for other in (by_id[name].page for name in row.negatives if name in by_id):
            changed = set(changed_facts(row, other))
            names, there = row.page.organisation.split(), other.organisation.split()
            if row.kind == "shape":  # it names no year
                shown = other.layout in CHART_LAYOUTS and row.page.shape == other.shape
                assert ("shape" in changed) == (not shown) and "year" not in changed
            else:
                assert ("year" in changed) == (row.page.year != other.year)
            assert ("first name" in changed, "second name" in changed) == (
                names[0] != there[0],
                names[1] != there[1],
            )
            assert ("subject" in changed) == (row.asked not in other.subjects)
            seen.add(tuple(sorted(changed)))
    assert {("year",), ("first name",), ("second name",), ("subject",), ()} <= seen, (
        "the planted copies change nothing"
    )


def test_a_corpus_is_planned_again_as_it_was_drawn(source, plan):
    from datasets import load_dataset

    drawn = load_dataset(str(source), "en", split="train").remove_columns("image")
    assert drawn["id"][:] == [row.id for row in plan]
    assert drawn["query"][:] == [row.query for row in plan]
    assert [
        row.id for row in plan_rows(seed=0, train_families=20, eval_families=85, mean_scale=3.2)
    ] == drawn["id"][:]


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """``(profile, inputs, source row numbers)`` of a small generated set, prepared by the cells of
    notebook 02 themselves.
    """
    patch = pytest.MonkeyPatch()
    patch.setenv("VDR_OUTPUTS", str(tmp_path_factory.mktemp("drawn")))
    profile = dataclasses.replace(
        load_profile("tiny"),
        corpus={"seed": 0, "train_families": 20, "eval_families": 85},
        train_rows=30,
        eval_rows=20,
    )
    patch.setattr(
        "tiny_vdr.corpus.build_source",
        lambda folder, **settings: shutil.copytree(source, folder, dirs_exist_ok=True),
    )
    space = prepare(profile)
    inputs = retrieval_inputs(load_split(profile, "eval")[0])
    yield profile, inputs, space["eval_rows"], profile.output_dir.parent
    patch.undo()


@pytest.fixture
def drawn_set(prepared, monkeypatch):
    *found, outputs = prepared
    monkeypatch.setenv("VDR_OUTPUTS", str(outputs))
    return found


def facts_of(profile, queries, corpus, relevant_docs, hard_negatives):
    """``(facts, changes)`` as appendix 4's cells find them."""
    store = PageStore(Path(next(iter(corpus.values()))).parent)
    numbers = {page: row for row, page in sorted(store.fingerprints.items(), reverse=True)}
    names = ("planned_rows", "known_facts", "known_changes", "QUESTION_WORDS")
    cells = a4(
        *names,
        plan=plan_rows(**profile.corpus) if profile.corpus is not None else [],
        numbers=numbers,
    )
    planned = cells["planned_rows"](corpus)
    facts = cells["known_facts"](queries, corpus, relevant_docs, planned)
    return facts, cells["known_changes"](hard_negatives, relevant_docs, planned)


def test_facts_agree_with_the_drawn_corpus(drawn_set, plan):
    profile, inputs, rows = drawn_set
    facts, changes = facts_of(profile, *inputs)
    assert list(facts.columns) == ["opens with", "page", "kind", "layout"]
    assert list(facts.index) == list(inputs[0]) and len(changes) == 4 * 20
    for (query, fact), (number, *negatives) in zip(facts.iterrows(), rows, strict=True):
        row = plan[number]
        assert inputs[0][query] == row.query
        assert (fact["layout"], fact["kind"]) == (row.page.layout, row.kind)
        assert (fact["page"] == "landscape") == (row.page.layout in ("slide", "dashboard"))
        for i, negative in enumerate(negatives):
            assert changes[f"{query}-negative_{i}"] == " + ".join(
                changed_facts(row, plan[negative].page)
            )
    assert "" not in changes.values(), "no hard negative answers its query too"


def test_facts_follow_the_pages_not_their_places(drawn_set):
    profile, (queries, corpus, relevant, negatives), _ = drawn_set
    swapped = dict(corpus)
    swapped["q0-negative_0"], swapped["q0-negative_3"] = (
        corpus["q0-negative_3"],
        corpus["q0-negative_0"],
    )
    _, before = facts_of(profile, queries, corpus, relevant, negatives)
    _, after = facts_of(profile, queries, swapped, relevant, negatives)
    assert (after["q0-negative_0"], after["q0-negative_3"]) == (
        before["q0-negative_3"],
        before["q0-negative_0"],
    )


def test_a_planted_false_negative_is_found(drawn_set):
    profile, (queries, corpus, relevant, negatives), _ = drawn_set
    planted = corpus | {"q3-negative_1": corpus["q3-positive"]}
    _, changes = facts_of(profile, queries, planted, relevant, negatives)
    assert [page for page, changed in changes.items() if not changed] == ["q3-negative_1"]


def test_a_query_that_the_plan_does_not_have_is_an_error(drawn_set):
    profile, (queries, *others), _ = drawn_set
    with pytest.raises(
        ValueError,
        match=r"q2 asks 'Another question\?', its page was drawn for .*: run notebook 02 again",
    ):
        facts_of(profile, queries | {"q2": "Another question?"}, *others)


def test_without_an_index_of_pages_the_facts_are_those_of_the_query(drawn_set, tmp_path):
    profile, (queries, corpus, *others), _ = drawn_set
    moved = {}
    for page_id, page in corpus.items():
        moved[page_id] = str(tmp_path / Path(page).name)
        shutil.copy(page, moved[page_id])
    facts, changes = facts_of(profile, queries, moved, *others)
    assert list(facts.columns) == ["opens with", "page"] and changes == {}


def test_on_real_data_the_query_and_the_page_are_what_is_known(drawn_set):
    profile, (queries, *others), _ = drawn_set
    real = dataclasses.replace(profile, corpus=None)
    asked = queries | {"q0": "What is shown?", "q1": "Alder Energy rent 2014"}
    facts, changes = facts_of(real, asked, *others)
    assert list(facts.columns) == ["opens with", "page"] and changes == {}
    assert facts["opens with"][:2].tolist() == ["what", "another word"]
