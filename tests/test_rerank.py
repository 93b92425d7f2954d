"""Notebook 09: ranks after sorting a shortlist again, what a pair becomes, a reranker saved and
loaded, and its published twin.
"""

import json
import math

import model_twins
import numpy
import pytest
import torch
from cells import definitions, edited_sources, printable
from PIL import Image
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from benchmarks import rerank as measuring
from tools.phenomena import of_reranker
from vdr_helpers.evaluation import ndcg_per_query, ranks
from vdr_helpers.profiles import PROFILES, assets_folder, load_profile

QUERY = "Which page gives Rowan Steel's staff during 2011?"


@pytest.fixture(scope="module")
def own():
    return definitions("09", "reranked", "added")


@pytest.fixture(scope="module")
def task():
    """Similarities of 40 queries and 60 pages, the ten first pages of each, and the columns of the
    right pages.
    """
    drawn = torch.Generator().manual_seed(3)
    similarities = torch.rand(40, 60, generator=drawn)
    right_pages = torch.randint(0, 60, (40,), generator=drawn).tolist()
    for number in range(30):  # the first thirty find their page among the first few
        similarities[number, right_pages[number]] += 0.6
    return similarities, similarities.topk(10, dim=1).indices, right_pages


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("pages") / "page.png"
    Image.new("RGB", (160, 224), "white").save(file)
    return str(file)


@pytest.fixture(scope="module")
def start():
    """``start_reranker`` as the notebook defines it, on the tiny profile."""
    space = definitions("09", "start_reranker")
    profile = load_profile("tiny")
    settings = {"model_kwargs": profile.model_kwargs, "processor_kwargs": profile.processor_kwargs}
    space["start_reranker"].__globals__.update(profile=profile, settings=settings)
    return space["start_reranker"]


@pytest.fixture(scope="module")
def reranker(start):
    return start(None)


@pytest.fixture(scope="module")
def as_text(reranker):
    function = definitions("09", "as_text")["as_text"]
    function.__globals__.update(reranker=reranker, image_token=reranker.processor.image_token)
    return function


# ranks


def test_sorting_by_the_first_scores_changes_nothing(own, task):
    similarities, shortlist, right_pages = task
    first = similarities.gather(1, shortlist)
    for k in (1, 2, 5, 10):
        again = own["reranked"](similarities, shortlist[:, :k], first[:, :k])
        assert (ranks(again, right_pages) == ranks(similarities, right_pages)).all()


def test_only_the_first_k_are_sorted_and_the_others_stay(own, task):
    similarities, shortlist, right_pages = task
    before = ranks(similarities, right_pages)
    oracle = shortlist == torch.tensor(right_pages)[:, None]
    for k in (1, 3, 10):
        found = own["reranked"](similarities, shortlist[:, :k], oracle[:, :k])
        assert (ranks(found, right_pages) == torch.where(before <= k, 1, before)).all(), (
            "a right page behind the first k stays"
        )
        worst = own["reranked"](similarities, shortlist[:, :k], -oracle[:, :k].float())
        assert (ranks(worst, right_pages) == torch.where(before <= k, k, before)).all()


def test_the_order_is_that_of_a_sort_written_out(own, task):
    similarities, shortlist, _ = task
    scores = 100 * torch.rand(40, 5, generator=torch.Generator().manual_seed(5)) - 90
    found = own["reranked"](similarities, shortlist[:, :5], scores).argsort(descending=True)
    for number, row in enumerate(similarities.argsort(descending=True).tolist()):
        order = sorted(range(5), key=lambda place, row=number: -scores[row, place])
        assert found[number].tolist() == [row[place] for place in order] + row[5:]


def test_the_score_is_the_librarys(own, task):
    """``CrossEncoderRerankingEvaluator`` counts NDCG@10 in the same way over the pages that were
    found.
    """
    similarities, shortlist, right_pages = task
    scores = torch.rand(shortlist.shape, generator=torch.Generator().manual_seed(7))

    class Reader:
        def predict(self, pairs, **settings):
            found = [
                (int(query), shortlist[int(query)].tolist().index(int(page)))
                for query, page in pairs
            ]
            return numpy.array([float(scores[place]) for place in found])

    samples = [
        {
            "query": str(number),
            "positive": [str(right_pages[number])],
            "documents": list(map(str, row)),
        }
        for number, row in enumerate(shortlist.tolist())
    ]
    evaluator = CrossEncoderRerankingEvaluator(
        samples, at_k=10, always_rerank_positives=False, show_progress_bar=False
    )
    evaluator.store_metrics_in_model_card_data = lambda *arguments: None
    by_library = evaluator(Reader())
    relevant_docs = {number: {page} for number, page in enumerate(right_pages)}
    again = own["reranked"](similarities, shortlist, scores)
    by_notebook = ndcg_per_query(again, range(60), relevant_docs).mean()
    assert by_library["ndcg@10"] == pytest.approx(by_notebook, abs=1e-6)


def test_a_weight_of_nought_and_of_one_are_the_two_parts(own, task):
    similarities, shortlist, _ = task
    first = similarities.gather(1, shortlist)
    # another scale entirely
    second = 1000 * torch.rand(first.shape, generator=torch.Generator().manual_seed(9)) - 300
    spreads = [values.std(dim=1).mean() for values in (first, second)]

    def order(values):
        return values.argsort(dim=1, descending=True).tolist()

    assert order(own["added"](first, second, 0.0, spreads)) == order(first)
    assert order(own["added"](first, second, 1.0, spreads)) == order(second)
    halfway = own["added"](first, second, 0.5, spreads)
    shifted = own["added"](first, 5 * second, 0.5, spreads)
    wider = [spreads[0], 5 * spreads[1]]
    assert own["added"](first, 5 * second, 0.5, wider) == pytest.approx(halfway, abs=1e-5), (
        "a reranker of another scale counts the same"
    )
    assert (shifted != halfway).any()


# pairs


def test_a_pair_becomes_a_query_turn_and_a_document_turn(as_text, page):
    told = as_text((QUERY, page))
    query, document = told.partition("<|im_start|>document")[::2]
    assert "<|im_start|>query\n" + QUERY in query
    assert "image tokens)" in document and QUERY not in document


def test_the_wrong_way_round_and_a_wrong_path_raise_nothing(as_text, reranker, page):
    """What the notebook warns of: if a later version refuses these, its text must change."""
    swapped = as_text((page, QUERY)).partition("<|im_start|>document")
    assert "image tokens)" in swapped[0] and QUERY in swapped[2]
    missing = as_text((QUERY, page.replace("page.png", "not_there.png")))
    assert "(0 image tokens)" not in missing and "not_there.png" in missing
    scores = reranker.predict([(QUERY, page), (page, QUERY)], show_progress_bar=False)
    assert scores[0] != scores[1]


def test_the_notebook_checks_its_paths():
    assert any("is_file() for page in train_pages" in source for source in edited_sources("09"))


# scores


def test_a_score_passes_through_a_sigmoid_unless_asked_otherwise(reranker, page):
    pairs = [(QUERY, page), ("pumps", page)]
    logits = reranker.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    scores = reranker.predict(pairs, show_progress_bar=False)
    assert scores == pytest.approx(1 / (1 + numpy.exp(-logits)), abs=1e-6)
    large = torch.sigmoid(torch.tensor([20.0, 30.0]))
    assert large[0] == large[1] == 1, (
        "two scores that differ by ten are equal behind a sigmoid in float32"
    )


def test_saved_and_loaded_it_gives_equal_scores(reranker, page, tmp_path):
    reranker.save_pretrained(str(tmp_path / "reranker"), create_model_card=False)
    loaded = CrossEncoder(str(tmp_path / "reranker"))
    pairs = [(QUERY, page), ("pumps", page)]
    assert (
        loaded.predict(pairs, show_progress_bar=False)
        == reranker.predict(pairs, show_progress_bar=False)
    ).all()
    assert loaded.processor.image_processor.size["longest_edge"] == load_profile("tiny").max_pixels
    assert type(loaded.activation_fn) is torch.nn.Sigmoid


def test_training_a_reranker_leaves_the_embedding_model_alone(start, page):
    """Its modules are its own: made from the same files, not shared with a model that encodes."""
    profile = load_profile("tiny")
    embedder = SentenceTransformer(profile.base_model, model_kwargs=profile.model_kwargs)
    before = embedder.encode_query([QUERY])
    made = start(None)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1)
    assert (embedder.encode_query([QUERY]) == before).all()


# the published reranker's classes


def test_a_twin_of_the_published_reranker_reads_and_learns(start, page, processor, tmp_path):
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    twin = start(str(model_twins.save_reranker_twin(tmp_path)))
    assert [type(module).__name__ for module in twin] == ["Transformer", "LogitScore"]
    told = twin.tokenizer.decode(twin.preprocess([(QUERY, page)])["input_ids"][0])
    assert (
        told.index("<Query>:" + QUERY)
        < told.index("<Document>:<|vision_start|>")
        < told.index("<|im_start|>assistant")
    )
    pairs = [(QUERY, page), ("pumps", page)]
    before = twin.predict(pairs, show_progress_bar=False)
    rows = Dataset.from_dict({"query": [QUERY, "pumps"], "page": [page, page], "label": [1.0, 0.0]})
    quiet = {
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    args = CrossEncoderTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=2, learning_rate=1e-3, **quiet
    )
    CrossEncoderTrainer(
        model=twin, args=args, train_dataset=rows, loss=BinaryCrossEntropyLoss(twin)
    ).train()
    after = twin.predict(pairs, show_progress_bar=False)
    assert after[0] - after[1] > before[0] - before[1], (
        "the pair with label 1 rises against the other"
    )
    twin.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert CrossEncoder(str(tmp_path / "saved")).predict(
        pairs, show_progress_bar=False
    ) == pytest.approx(after, abs=1e-6)


def test_a_reranker_is_named_by_the_profile(monkeypatch, tmp_path):
    assert (
        PROFILES["full"].reranker_name == "Qwen/Qwen3-VL-Reranker-2B"
        and len(PROFILES["full"].reranker_revision) == 40
    )
    assert PROFILES["tiny"].reranker_name == "assets/tiny-reranker"
    for name in ("rehearsal", "rehearsal-small"):
        assert PROFILES[name].reranker_name is None, name
    for name in ("tiny", "rehearsal", "rehearsal-small"):
        assert PROFILES[name].reranker_revision is None, name
        assert PROFILES[name].reranker_rows > 0 and PROFILES[name].reranker_learning_rate > 0
    monkeypatch.setenv("VDR_RERANKER", str(tmp_path))
    mine = load_profile("full")
    assert mine.reranker_folder == str(tmp_path) and mine.reranker_revision is None
    assert str(tmp_path) not in str(printable(mine))
    assert mine.deviations == PROFILES["full"].deviations, (
        "the published embedding experiment has no reranker"
    )


# what was measured


def test_the_loss_of_one_who_knows_nothing():
    [text] = [cell for cell in texts_of("09") if "all five pages the same score" in cell]
    assert f"{math.log(5):.2f}" in text


def stored_stage(score, gain):
    return {
        "embedding": score,
        "reranker": score - 0.1,
        "weight": 0.1,
        "sum": score + gain,
        "sum_minus_embedding": gain,
        "low": gain - 0.01,
        "high": gain + 0.01,
    }


def stored_run(start, rows, seed, gains):
    strong, weak = stored_stage(0.8, gains[0]), stored_stage(0.6, gains[1])
    return {"start": start, "rows": rows, "seed": seed, "first_stages": {"8": weak, "256": strong}}


def test_the_phenomenon_is_of_the_pretrained_one_with_the_profiles_rows():
    rows = PROFILES["tiny"].reranker_rows
    runs = [
        stored_run("pretrained", rows, 1, (0.02, 0.3)),
        stored_run("pretrained", rows, 0, (0.0, 0.1)),
        stored_run("pretrained", 4 * rows, 0, (0.3, 0.5)),
        stored_run("base", rows, 0, (0.4, 0.4)),
    ]
    found = of_reranker({"runs": runs})
    assert [found[f"rerank_{name}_before"] for name in ("strong", "weak")] == [0.8, 0.6]
    assert (found["rerank_strong"], found["rerank_weak"]) == pytest.approx((0.01, 0.2))
    assert (found["rerank_strong_least"], found["rerank_strong_most"]) == (0.0, 0.02)
    assert found["rerank_weak_after"] == pytest.approx(0.8)
    assert found["rerank_weak_low"] == pytest.approx(0.09)


def test_runs_are_kept_by_start_rows_and_seed():
    keys = [
        measuring.key({"start": start, "rows": int(rows), "seed": int(seed)})
        for rows, seed, start in (one.split(":") for one in measuring.DEFAULT)
    ]
    assert keys == sorted(set(keys))


def test_the_base_has_a_start_and_a_learning_rate_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("VDR_RERANKER", str(tmp_path))
    pretrained = measuring.profile_of("pretrained", rows=7)
    assert pretrained.reranker_start == str(tmp_path) and pretrained.reranker_rows == 7
    base = measuring.profile_of("base", rows=7)
    assert base.reranker_start is None
    assert base.reranker_learning_rate == measuring.BASE_LEARNING_RATE
    with pytest.raises(SystemExit, match="mined"):
        measuring.profile_of("mined", rows=7)


def test_the_cells_that_are_measured_are_there():
    cells = measuring.code_cells("09")
    first, last = (measuring.first_with(cells, text) for text in (measuring.FIRST, measuring.LAST))
    trained = measuring.first_with(cells, "trainer.train()")
    assert 0 < first < trained < last < len(cells)


def test_the_stored_measurement_says_what_it_is():
    found = json.loads((assets_folder() / "measured" / "rerank.json").read_text(encoding="utf-8"))
    assert (
        "tiny" in found["what"] and found["device"] and found["versions"]["sentence-transformers"]
    )
    runs = {f"{run['rows']}:{run['seed']}:{run['start']}": run for run in found["runs"]}
    assert set(measuring.DEFAULT) <= set(runs), "the runs that the notebook speaks of"
    dims = load_profile("tiny").matryoshka_dims
    for run in runs.values():
        assert run["pairs"] == 5 * run["rows"]
        assert list(run["first_stages"]) == [str(dims[0]), str(dims[-1])]
        for stage in run["first_stages"].values():
            change = stage["sum_minus_embedding"]
            assert 0 < stage["reranker"] <= 1 and stage["low"] <= change <= stage["high"]
            assert stage["sum"] - stage["embedding"] == pytest.approx(change)


def texts_of(number):
    import nbformat
    from cells import find_notebook

    return [
        cell.source
        for cell in nbformat.read(find_notebook(number), as_version=4).cells
        if cell.cell_type == "markdown"
    ]
