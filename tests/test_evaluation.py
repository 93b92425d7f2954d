"""Evaluation: inputs, NDCG by hand against the evaluator, embeddings kept once, checkpoints, bands
and results.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import cos_sim

from vdr_helpers import evaluation
from vdr_helpers.cache import replace_folder
from vdr_helpers.models import model_key, tuned_folder, tuned_settings
from vdr_helpers.profiles import load_profile


def eval_split(**changes):
    from datasets import Dataset

    columns = {
        "query": ["first", "second"],
        "image": ["P0", "P1"],
        "negative_0": ["A0", "A1"],
        "negative_1": ["B0", "B1"],
    }
    return Dataset.from_dict(
        {name: values for name, values in (columns | changes).items() if values is not None}
    )


def test_retrieval_inputs_by_hand():
    queries, corpus, relevant, hard_negatives = evaluation.retrieval_inputs(eval_split())
    assert queries == {"q0": "first", "q1": "second"}
    assert corpus == {
        "q0-positive": "P0", "q0-negative_0": "A0", "q0-negative_1": "B0",
        "q1-positive": "P1", "q1-negative_0": "A1", "q1-negative_1": "B1",
    }  # fmt: skip
    assert relevant == {"q0": {"q0-positive"}, "q1": {"q1-positive"}}
    assert hard_negatives == {
        "q0": {"q0-negative_0", "q0-negative_1"},
        "q1": {"q1-negative_0", "q1-negative_1"},
    }


def test_rows_that_share_a_query_are_one_query_with_several_right_pages():
    shared = eval_split(
        query=["same", "other", "same"],
        image=["P0", "P1", "P2"],
        negative_0=["P2", "P0", "A2"],  # P2 answers the first row's query, P0 not the second's
        negative_1=["B0", "B1", "B2"],
    )
    queries, corpus, relevant, hard_negatives = evaluation.retrieval_inputs(shared)
    assert queries == {"q0": "same", "q1": "other"}
    assert relevant == {"q0": {"q0-positive", "q2-positive"}, "q1": {"q1-positive"}}
    assert hard_negatives["q0"] == {"q0-negative_1", "q2-negative_0", "q2-negative_1"}
    assert hard_negatives["q1"] == {"q1-negative_0", "q1-negative_1"}
    assert "q0-negative_0" not in corpus and corpus["q1-negative_0"] == "P0"


def test_a_page_is_labelled_for_the_query_that_it_stands_beside():
    _, corpus, relevant, hard_negatives = evaluation.retrieval_inputs(eval_split())
    kinds = evaluation.page_kinds("q1", list(corpus), relevant, hard_negatives)
    assert kinds == ["other page"] * 3 + ["positive", "hard negative", "hard negative"]
    assert evaluation.page_kinds(None, list(corpus), relevant, hard_negatives) == 6 * ["not judged"]
    assert evaluation.page_kinds("q1", ["q1-positive", "mine"], relevant, hard_negatives) == [
        "positive",
        "other page",
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_ndcg_with_several_right_pages_is_the_evaluators(count):
    generator = torch.Generator().manual_seed(count)
    names = ["first", "second", *(f"page {i}" for i in range(40))]
    vectors = {name: torch.randn(8, generator=generator) for name in names}
    corpus = {name: name for name in names[2:]}
    relevant = {"q0": {f"page {3 * i}" for i in range(count)}, "q1": {"page 7"}}
    model = KnownModel(vectors)
    evaluator = InformationRetrievalEvaluator(
        {"q0": "first", "q1": "second"}, corpus, relevant, name="x", write_csv=False
    )
    similarities = cos_sim(model.encode_query(names[:2]), model.encode_document(names[2:]))
    found = evaluation.ndcg_per_query(similarities, corpus, relevant)
    assert found.mean() == pytest.approx(evaluator(model)["x_cosine_ndcg@10"])
    [rank] = evaluation.ranks(similarities[1:], [7]).tolist()
    assert found[1] == pytest.approx(evaluation.ndcg_at_10(rank)), "one right page"


def test_a_query_that_would_be_opened_as_an_image_is_refused_with_its_row(tmp_path):
    (tmp_path / "page.png").touch()
    for query in ("https://example.org/page.png", str(tmp_path / "page.png")):
        with pytest.raises(ValueError, match="row 1 has an address or a file as its query"):
            evaluation.retrieval_inputs(eval_split(query=["first", query]))


def test_ranks_by_hand():
    similarities = torch.tensor([[0.9, 0.5, 0.5, 0.1], [0.2, 0.3, 0.3, 0.3]])
    assert evaluation.ranks(similarities, [0, 3]).tolist() == [1, 1]
    assert evaluation.ranks(similarities, [1, 0]).tolist() == [2, 4]
    assert evaluation.ranks(similarities, [1, 3], equal_in_front=True).tolist() == [3, 3]


@pytest.mark.parametrize("empty", ["", "   ", None])
def test_an_empty_query_is_refused_with_its_row(empty):
    with pytest.raises(ValueError, match="row 1 has an empty query: filter it out"):
        evaluation.retrieval_inputs(eval_split(query=["first", empty]))


def test_a_split_without_negatives_is_refused():
    with pytest.raises(ValueError, match="no column negative_0: pass the eval split"):
        evaluation.retrieval_inputs(eval_split(negative_0=None, negative_1=None))


# NDCG by hand


class KnownModel:
    """Embeds what it is told: ``vectors[text]``, cut to ``truncate_dim`` as Sentence Transformers
    cuts.
    """

    similarity_fn_name = "cosine"

    def __init__(self, vectors):
        self.vectors = vectors
        self.calls = []
        self.model_card_data = self

    def set_evaluation_metrics(self, *metrics):
        pass

    def similarity(self, queries, pages):
        return cos_sim(queries, pages)

    def encode_query(self, texts, truncate_dim=None, **settings):
        self.calls.append(list(texts))
        return torch.stack(
            [torch.as_tensor(self.vectors[text], dtype=torch.float32) for text in texts]
        )[:, :truncate_dim]

    encode_document = encode_query

    def get_embedding_dimension(self):
        return len(next(iter(self.vectors.values())))


VECTORS = {
    "first": (1, 0), "second": (0, 1),
    "P0": (1, 0.1), "A0": (1, 1), "B0": (-1, 0),
    "P1": (1, 0.5), "A1": (0.2, 1), "B1": (1, -1),
}  # fmt: skip


def test_ndcg_by_hand_is_the_evaluators():
    # angles to "first" (x axis): P0 5.7, P1 26.6, A0 45 ... its page is first; to "second" (y
    # axis): A1, A0, then P1: third
    *inputs, _ = evaluation.retrieval_inputs(eval_split())
    measured = InformationRetrievalEvaluator(*inputs, name="vdr-eval-hard", write_csv=False)(
        KnownModel(VECTORS)
    )
    # 0.75
    assert measured["vdr-eval-hard_cosine_ndcg@10"] == pytest.approx(
        (1 / math.log2(2) + 1 / math.log2(4)) / 2
    )
    assert measured["vdr-eval-hard_cosine_mrr@10"] == pytest.approx((1 + 1 / 3) / 2)
    assert measured["vdr-eval-hard_cosine_accuracy@1"] == 0.5
    assert measured["vdr-eval-hard_cosine_recall@3"] == 1.0
    assert measured["vdr-eval-hard_cosine_precision@3"] == pytest.approx(1 / 3)


def test_slicing_one_encoding_equals_encoding_at_each_dimension():
    generator = torch.Generator().manual_seed(0)
    vectors = {text: torch.randn(16, generator=generator) for text in VECTORS}
    *inputs, _ = evaluation.retrieval_inputs(eval_split())
    pages = KnownModel(vectors).encode_document(list(inputs[1].values()))
    seen = []
    for dim in (16, 8, 4, 2):
        evaluator = InformationRetrievalEvaluator(*inputs, truncate_dim=dim, write_csv=False)
        whole, sliced = KnownModel(vectors), KnownModel(vectors)
        expected = evaluator(whole)
        assert evaluator(sliced, corpus_embeddings=pages[:, :dim]) == expected
        assert len(whole.calls) == 2
        assert sliced.calls == [["first", "second"]]  # the pages were not encoded again
        seen.append(tuple(expected.values()))
    assert len(set(seen)) > 1


# the key of a model in a folder; tests/test_stale.py has the embeddings


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


def test_an_interrupted_encoding_is_not_kept(random_model, monkeypatch, tmp_path):
    def die(self, target):
        raise KeyboardInterrupt

    pages, profile = [str(tmp_path / "red.png")], load_profile("tiny")
    Image.new("RGB", (64, 64), "red").save(pages[0])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", die)
        evaluation.embed_once(random_model, ["first"], pages, profile)
    assert evaluation.embed_once(random_model, ["first"], pages, profile)[1].shape == (1, 256)
    assert len(list(profile.output_dir.glob("embeddings-*"))) == 1, (
        "half a folder has another name and was written over"
    )


def test_the_key_holds_weights_and_settings(model_folder):
    key = model_key(model_folder)
    assert key == model_key(str(model_folder))
    (model_folder / "manifest.json").write_text("{}")  # what says how it was made is not the model
    assert key == model_key(model_folder)
    (model_folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert model_key(model_folder) != key


def test_large_weights_are_not_read_into_memory_at_once(model_folder):
    import tracemalloc

    with (model_folder / "model.safetensors").open("wb") as file:
        file.truncate(50_000_000)
    tracemalloc.start()
    model_key(model_folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_two_checkpoints_have_two_keys(tmp_path):
    keys = set()
    for step in (8, 16):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights of step %d" % step)
        keys.add(model_key(folder))
    assert len(keys) == 2


# checkpoints, dimensions, bands, results


def test_the_tuned_model_is_the_readers_own_else_the_shipped_one():
    profile = load_profile("tiny")
    path, origin = evaluation.finetuned_model(profile)
    assert path == profile.finetuned_model
    assert "shipped" in origin

    def write(folder):
        (folder / "modules.json").write_text("[]")
        save_file({"weight": torch.ones(1)}, folder / "model.safetensors")

    own = replace_folder(tuned_folder(profile), tuned_settings(profile), write)
    path, origin = evaluation.finetuned_model(profile)
    assert path == str(own)
    assert "your own" in origin


@pytest.mark.parametrize("files", [[], ["modules.json"], ["model.safetensors"]])
def test_half_a_folder_is_not_taken_for_a_model(files):
    own = tuned_folder(load_profile("tiny"))
    own.mkdir(parents=True)
    for name in files:
        (own / name).write_text("[]")
    with pytest.raises(ValueError, match=r"is gone or damaged.*run notebook 03 again"):
        evaluation.finetuned_model(load_profile("tiny"))


def test_bands_say_in_or_out_and_never_stop(capsys):
    evaluation.check_band("base NDCG@10", 0.7, 0.5, 0.92, "Train longer.")
    assert capsys.readouterr().out == "[in band] base NDCG@10 is between 0.5 and 0.92\n"
    for edge in (0.5, 0.92):
        evaluation.check_band("base NDCG@10", edge, 0.5, 0.92, "Train longer.")
        assert capsys.readouterr().out.startswith("[in band]")
    evaluation.check_band("base NDCG@10", 0.41234, 0.5, 0.92, "Train longer.")
    assert (
        capsys.readouterr().out
        == "[out of band] base NDCG@10 = 0.412, expected 0.5 to 0.92. Train longer.\n"
    )
    evaluation.check_band("gain", float("nan"), 0.05, 0.45, "Look at the loss.")
    assert capsys.readouterr().out.startswith("[out of band] gain = nan")


def test_scores_and_gain_are_compared_with_the_profiles_bands(capsys):
    evaluation.check_scores(load_profile("tiny"), 0.738, 0.818)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" is ")[0] for line in said] == [
        "[in band] base NDCG@10",
        "[in band] tuned NDCG@10",
        "[in band] gain",
    ]
    evaluation.check_scores(load_profile("tiny"), 0.738, 0.738)
    assert "[out of band] gain = 0.000" in capsys.readouterr().out


def test_what_the_models_keep_is_compared_with_the_profiles_bands(capsys):
    evaluation.check_kept(load_profile("tiny"), {"base": 0.54, "tuned": 0.71})
    assert capsys.readouterr().out == (
        "[in band] share kept by the tuned model is between 0.55 and 0.8\n"
        "[in band] tuned minus base, share kept is between 0.05 and 0.3\n"
    )
    evaluation.check_kept(load_profile("tiny"), {"base": 0.71, "tuned": 0.71})
    assert "[out of band] tuned minus base, share kept = 0.000" in capsys.readouterr().out


def test_results_come_back_and_nothing_half_stays():
    profile = load_profile("tiny")
    assert evaluation.load_results(profile, "truncation") is None
    results = {"base": {"256": 0.61}, "note": "Müller-Lyer ÷ 32"}
    evaluation.save_results(profile, "truncation", results)
    assert evaluation.load_results(profile, "truncation") == results
    evaluation.save_results(profile, "truncation", {"base": {}})
    assert evaluation.load_results(profile, "truncation") == {"base": {}}
    with pytest.raises(TypeError):
        evaluation.save_results(profile, "truncation", {"tensor": torch.zeros(1)})
    # the old ones are still whole
    assert evaluation.load_results(profile, "truncation") == {"base": {}}
    folder = evaluation.results_folder(profile)
    assert [path.name for path in folder.iterdir()] == ["truncation.json"]
    assert json.loads((folder / "truncation.json").read_text()) == {"base": {}}
