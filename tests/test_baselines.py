"""The witnesses beside the model: an outside referee for every metric, and the text baseline's stored and kept OCR."""

import gzip
import json
from types import SimpleNamespace

import ir_measures
import pytest
import torch
from cells import definitions
from ir_measures import AP, RR, P, R, Success, nDCG
from rapidocr import RapidOCR
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from benchmarks.ocr import SETTINGS
from tiny_vdr.corpus import encode_page, plan_rows
from vdr_helpers import pages
from vdr_helpers.profiles import assets_folder, load_profile
from vdr_helpers.source import open_source
from vdr_helpers.splits import chosen_rows, stored_choice
from vdr_helpers.stamps import BY_PUBLISHER, data_settings, write_stamp

MEASURES = {"ndcg@10": nDCG @ 10, "mrr@10": RR @ 10, "map@100": AP @ 100}
for name, measure in {"accuracy": Success, "precision": P, "recall": R}.items():
    MEASURES |= {f"{name}@{k}": measure @ k for k in (1, 3, 5, 10)}


def both(scores: dict, relevant: dict) -> tuple[dict, dict]:
    """``(the evaluator's metrics, ir-measures')`` of ``{query: {page: score}}``."""
    corpus = {page: page for found in scores.values() for page in found}
    evaluator = InformationRetrievalEvaluator({query: query for query in scores}, corpus, relevant)
    hits = [[{"corpus_id": page, "score": score} for page, score in found.items()] for found in scores.values()]
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
        near = [order[int(place)] for place in torch.randperm(1 + 2 * i, generator=generator)[:right_pages] if place < 150]
        relevant[f"q{i}"] = {f"p{page}" for page in near}
    ours, theirs = both(scores, relevant)
    assert len(ours) == 15 and set(ours) == set(theirs)
    assert 0.05 < ours["ndcg@10"] < 0.95
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], abs=1e-9), name


@pytest.mark.parametrize(("other", "first_for_evaluator"), [("q0-negative_0", False), ("q1-positive", True)])
def test_equal_scores_are_ordered_by_other_rules(other, first_for_evaluator):
    """The evaluator and RR@10 put the first id in front, trec_eval the last; notebook 04 shows this very case."""
    ours, theirs = both({"q0": {other: 0.5, "q0-positive": 0.5}}, {"q0": {"q0-positive"}})
    assert (ours["ndcg@10"] == 1, ours["mrr@10"] == 1, theirs["mrr@10"] == 1) == (first_for_evaluator,) * 3
    assert (theirs["ndcg@10"] == 1) == (not first_for_evaluator)


# OCR


@pytest.fixture(scope="module")
def stored():
    return json.loads(gzip.decompress((assets_folder() / "measured" / "ocr_tiny.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def planned():
    """The eval pages of the shipped split, before they are drawn."""
    rows = plan_rows(seed=0, train_families=521, eval_families=375)
    return [rows[number] for row in stored_choice(load_profile("tiny"))["eval"] for number in row]


@pytest.fixture(scope="module")
def drawn(planned):
    """A few of them as the tiny profile draws them: ``[image file]``."""
    assert len(planned) == 1500
    return [encode_page(row) for row in planned[::400]]


def reading(folder, settings=SETTINGS, **known):
    """Notebook 04's ``texts_of`` and ``read_text``, keeping what they read in ``folder``."""
    asset = json.loads(gzip.decompress((assets_folder() / "measured" / "ocr_tiny.json.gz").read_bytes()))
    space = definitions("04", "texts_of", "read_text", "OCR_MISSING")
    texts = asset["texts"] if asset["settings"] == settings else {}
    space["texts_of"].__globals__.update({"stored": texts, "ocr_folder": folder, "engine": None} | known)
    return space


def test_the_stored_text_is_that_of_the_drawn_pages(stored, drawn, tmp_path):
    assert len(stored["texts"]) == 1500 and all(stored["texts"].values())
    engine = RapidOCR(params={"Global.log_level": "critical"} | SETTINGS)
    read_text = reading(tmp_path, engine=engine)["read_text"]
    for page in drawn:
        assert stored["texts"][pages.page_fingerprint(page)[:16]] == read_text(pages.open_page(page))


def test_ocr_misread_no_word_that_decides(stored, planned):
    """Notebook 04 says so: organisation, subject and year of every eval page stand in the text of one stored page at least."""
    texts = [set(text.lower().replace("\n", " ").split()) for text in stored["texts"].values()]
    wanted = [{*row.page.organisation.lower().split(), *row.asked.lower().split(), str(row.page.year)} for row in planned]
    bare = [{word.strip(".,:;()") for word in text} for text in texts]
    assert not [words for words in wanted if not any(words <= text for text in bare)]


def test_the_notebook_the_benchmark_and_the_asset_have_the_same_settings(stored):
    assert stored["settings"] == SETTINGS == definitions("04", "ocr_settings")["ocr_settings"]


def test_without_the_extra_the_message_says_what_to_install(drawn, tmp_path):
    texts, from_asset = reading(tmp_path)["texts_of"](drawn)  # what is stored needs no engine
    assert all(texts) and from_asset == len(drawn)
    space = reading(tmp_path, SETTINGS | {"Det.limit_side_len": 480})
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rapidocr>=3\.10' 'onnxruntime>=1\.20'.*run this cell again"):
        space["texts_of"](drawn)


def test_a_page_is_read_once_and_kept_at_once(drawn, tmp_path, capsys):
    read = []

    def engine(pixels):
        read.append(pixels.shape)
        if len(read) == 3:
            raise KeyboardInterrupt
        return SimpleNamespace(txts=("Hazel Energy", str(len(read))))

    texts_of = reading(tmp_path, {}, engine=engine)["texts_of"]
    with pytest.raises(KeyboardInterrupt):
        texts_of(drawn)
    assert len(list(tmp_path.glob("*.txt"))) == 2, "what was read before the interruption is kept"
    texts, from_asset = texts_of([*drawn, drawn[0]])
    assert len(read) == len(drawn) + 1 and texts[0] == texts[-1] == "Hazel Energy\n1" and from_asset == 0
    assert texts_of(drawn)[0] == texts[:-1] and len(read) == len(drawn) + 1


# The source's own pages


@pytest.fixture
def noted(small_profile):
    """The profile, and rows noted as notebook 02 notes them."""
    folder = small_profile.output_dir / "results"
    folder.mkdir(parents=True)
    note = {"eval": [[3, 1, 2, 0, 4], [5, 6, 7, 8, 1]], "made_from": {"data": data_settings(small_profile)}}
    (folder / "rows.json").write_text(json.dumps(note))
    return small_profile


def source_pages(profile, **settings):
    """Notebook 04's own reading of the eval pages."""
    found = definitions("04", "source_pages")["source_pages"]
    found.__globals__["profile"] = profile
    return found(**settings)


def test_source_pages_are_the_sources_files(noted):
    source = open_source(noted.dataset_name, noted.dataset_config)
    found = source_pages(noted)
    assert list(found)[:6] == ["q0-positive", *(f"q0-negative_{i}" for i in range(4)), "q1-positive"]
    for page_id, row in {"q0-positive": 3, "q0-negative_0": 1, "q0-negative_3": 4, "q1-negative_3": 1}.items():
        [read] = source.read_rows([row], ["image"])
        assert found[page_id] == read["image"]["bytes"]


def test_too_much_to_fetch_is_said_and_not_fetched(noted, capsys):
    assert source_pages(noted, largest_fetch=1000) == {}
    assert "taken as the model sees them: 0.0 GB of the source hold them" in capsys.readouterr().out


def test_rows_that_nobody_noted_are_not_guessed(noted, capsys):
    write_stamp_of = noted.output_dir / "data"
    write_stamp_of.mkdir(parents=True)
    write_stamp(write_stamp_of, {"split": BY_PUBLISHER})
    assert source_pages(noted) == {} and chosen_rows(noted, "eval") is None
    assert "was not noted" in capsys.readouterr().out
    write_stamp(write_stamp_of, data_settings(noted))
    (noted.output_dir / "results" / "rows.json").write_text('{"eval": [[0, 1')
    assert source_pages(noted) == {}
