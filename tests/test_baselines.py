"""Beside the model: an outside referee for every metric (a3), and text search on stored and kept
OCR (a5).
"""

import gzip
import json

import ir_measures
import pytest
import torch
from cells import definitions
from ir_measures import AP, RR, P, R, Success, nDCG
from rapidocr import RapidOCR
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from benchmarks.ocr import SETTINGS
from tiny_vdr.corpus import encode_page
from tiny_vdr.plan import plan_rows
from vdr_helpers import ocr, pages
from vdr_helpers.cache import read_manifest
from vdr_helpers.profiles import assets_folder, load_profile
from vdr_helpers.source import open_source
from vdr_helpers.splits import splits_folder, stored_choice

MEASURES = {"ndcg@10": nDCG @ 10, "mrr@10": RR @ 10, "map@100": AP @ 100}
for name, measure in {"accuracy": Success, "precision": P, "recall": R}.items():
    MEASURES |= {f"{name}@{k}": measure @ k for k in (1, 3, 5, 10)}


def both(scores: dict, relevant: dict) -> tuple[dict, dict]:
    """``(the evaluator's metrics, ir-measures')`` of ``{query: {page: score}}``."""
    corpus = {page: page for found in scores.values() for page in found}
    evaluator = InformationRetrievalEvaluator({query: query for query in scores}, corpus, relevant)
    hits = [
        [{"corpus_id": page, "score": score} for page, score in found.items()]
        for found in scores.values()
    ]
    ours = {
        name.replace("@k", f"@{k}"): value
        for name, values in evaluator.compute_metrics(hits).items()
        for k, value in values.items()
    }
    qrels = {query: dict.fromkeys(found, 1) for query, found in relevant.items()}
    theirs = ir_measures.calc_aggregate(MEASURES.values(), qrels, scores)
    return ours, {name: theirs[measure] for name, measure in MEASURES.items()}


@pytest.mark.parametrize("right_pages", [1, 3])
def test_a_referee_counts_all_fifteen_metrics_the_same(right_pages):
    generator = torch.Generator().manual_seed(right_pages)
    scores, relevant = {}, {}
    for i in range(60):
        order = torch.randperm(150, generator=generator).tolist()
        scores[f"q{i}"] = {f"p{page}": 1 - place / 150 for place, page in enumerate(order[:100])}
        near = [
            order[int(place)]
            for place in torch.randperm(1 + 2 * i, generator=generator)[:right_pages]
            if place < 150
        ]
        relevant[f"q{i}"] = {f"p{page}" for page in near}
    ours, theirs = both(scores, relevant)
    assert len(ours) == 15 and set(ours) == set(theirs)
    assert 0.05 < ours["ndcg@10"] < 0.95
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], abs=1e-9), name


@pytest.mark.parametrize(
    ("other", "first_for_evaluator"), [("q0-negative_0", False), ("q1-positive", True)]
)
def test_equal_scores_are_ordered_by_other_rules(other, first_for_evaluator):
    """The evaluator and RR@10 put the first id in front, trec_eval the last; appendix 3 shows this
    very case.
    """
    ours, theirs = both({"q0": {other: 0.5, "q0-positive": 0.5}}, {"q0": {"q0-positive"}})
    assert (ours["ndcg@10"] == 1, ours["mrr@10"] == 1, theirs["mrr@10"] == 1) == (
        first_for_evaluator,
    ) * 3
    assert (theirs["ndcg@10"] == 1) == (not first_for_evaluator)


# OCR


@pytest.fixture(scope="module")
def stored():
    return json.loads(
        gzip.decompress((assets_folder() / "measured" / "ocr_tiny.json.gz").read_bytes())
    )


@pytest.fixture(scope="module")
def planned():
    """The eval pages of the shipped split, before they are drawn."""
    rows = plan_rows()
    return [rows[number] for row in stored_choice(load_profile("tiny"))["eval"] for number in row]


@pytest.fixture(scope="module")
def drawn(planned):
    """A few of them as the tiny profile draws them: ``[image file]``."""
    assert len(planned) == 1500
    return [encode_page(row) for row in planned[::400]]


def notebook_reader(engine):
    """Appendix a5's own ``read_text`` with this OCR engine."""
    read_text = definitions("a5", "read_text")["read_text"]
    read_text.__globals__["engine"] = engine
    return read_text


def test_the_stored_text_is_that_of_the_drawn_pages(stored, drawn):
    assert len(stored["texts"]) == 1500 and all(stored["texts"].values())
    engine = RapidOCR(params={"Global.log_level": "critical"} | SETTINGS)
    read_text = notebook_reader(engine)
    for page in drawn:
        assert stored["texts"][pages.fingerprint(pages.open_page(page))[:16]] == read_text(
            pages.open_page(page)
        )


def test_ocr_misread_no_word_that_decides(stored, planned):
    """Appendix a5 counts on it: organisation, subject and year of every eval page stand in the text
    of one stored page at least.
    """
    texts = [set(text.lower().replace("\n", " ").split()) for text in stored["texts"].values()]
    wanted = [
        {*row.page.organisation.lower().split(), *row.asked.lower().split(), str(row.page.year)}
        for row in planned
    ]
    bare = [{word.strip(".,:;()") for word in text} for text in texts]
    assert not [words for words in wanted if not any(words <= text for text in bare)]


def test_the_notebook_the_benchmark_and_the_asset_have_the_same_settings(stored):
    assert stored["settings"] == SETTINGS == definitions("a5", "ocr_settings")["ocr_settings"]


def test_stored_texts_need_no_ocr_and_others_are_left_out(stored, drawn):
    profile, files = load_profile("tiny"), {f"q{i}": page for i, page in enumerate(drawn)}
    texts = ocr.read_texts(profile, files, SETTINGS, read_text=None)
    keys = [pages.fingerprint(pages.open_page(page))[:16] for page in drawn]
    assert texts == {f"q{i}": stored["texts"][key] for i, key in enumerate(keys)}
    assert ocr.read_texts(profile, files, SETTINGS | {"Det.limit_side_len": 480}, None) == {}


def test_a_page_is_read_once_and_kept_at_once(drawn):
    profile, files, read = load_profile("tiny"), {str(i): page for i, page in enumerate(drawn)}, []

    def read_text(page):
        read.append(page.size)
        if len(read) == 3:
            raise KeyboardInterrupt
        return f"Hazel Energy {len(read)}"

    other = SETTINGS | {"Det.limit_side_len": 480}
    with pytest.raises(KeyboardInterrupt):
        ocr.read_texts(profile, files, other, read_text)
    [folder] = profile.output_dir.glob("ocr-*")
    assert len(list(folder.glob("*.txt"))) == 2, "what was read before the interruption is kept"
    assert read_manifest(folder)["settings"] == other
    texts = ocr.read_texts(profile, files | {"again": drawn[0]}, other, read_text)
    assert len(read) == len(drawn) + 1 and texts["0"] == texts["again"] == "Hazel Energy 1"
    assert list(texts) == [*files, "again"]


def test_no_more_pages_are_read_than_asked_for(drawn):
    profile, files = load_profile("tiny"), {str(i): page for i, page in enumerate(drawn)}
    other = SETTINGS | {"Det.limit_side_len": 480}
    texts = ocr.read_texts(profile, files, other, lambda page: "text", at_most=2)
    assert list(texts) == ["0", "1"]


def test_without_any_text_the_later_cells_say_so_and_do_not_run(capsys):
    """What ``skip_the_rest`` does in a kernel; appendix 5 calls it where there is no OCR."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    run = "from vdr_helpers.ocr import skip_the_rest\nskip_the_rest('no OCR')\nmade = 1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.get_ipython", lambda: shell)
        assert shell.run_cell(run).success and shell.user_ns["made"] == 1
        assert shell.run_cell("made = 2\nraise ValueError").success
    assert shell.user_ns["made"] == 1
    assert capsys.readouterr().out == "no OCR\nleft out, see above\n"


# The source's own pages


@pytest.fixture
def noted(small_profile):
    """The profile, and rows noted as notebook 02 notes them."""
    folder = splits_folder(small_profile)
    folder.mkdir(parents=True)
    (folder / "rows.json").write_text(json.dumps({"eval": [[3, 1, 2, 0, 4], [5, 6, 7, 8, 1]]}))
    return small_profile


def test_source_pages_are_the_sources_files(noted):
    source = open_source(noted)
    found = ocr.source_pages(noted)
    assert list(found)[:6] == [
        "q0-positive",
        *(f"q0-negative_{i}" for i in range(4)),
        "q1-positive",
    ]
    for page_id, row in {
        "q0-positive": 3,
        "q0-negative_0": 1,
        "q0-negative_3": 4,
        "q1-negative_3": 1,
    }.items():
        [read] = source.read_rows([row], ["image"])
        assert found[page_id] == read["image"]["bytes"]


def test_too_much_to_fetch_is_said_and_not_fetched(noted, capsys):
    assert ocr.source_pages(noted, largest_fetch=1000) == {}
    assert "as the model sees them: 0.0 GB of the source" in capsys.readouterr().out


def test_rows_that_nobody_noted_are_not_guessed(small_profile, capsys):
    assert ocr.source_pages(small_profile) == {}
    assert "was not noted" in capsys.readouterr().out
