"""Ranks, NDCG@10, intervals and the paired test of notebook 04; the third curve and the choice of
notebook 05.
"""

import dataclasses
import json
import math

import numpy
import pytest
import torch
from cells import definitions, edited_sources
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import stats
from sentence_transformers.util import cos_sim

from vdr_helpers import evaluation
from vdr_helpers.cache import read_manifest
from vdr_helpers.profiles import assets_folder, load_profile
from vdr_helpers.published import measured


def test_ndcg_at_10_by_hand():
    assert evaluation.ndcg_at_10(1) == 1
    assert evaluation.ndcg_at_10(4) == pytest.approx(1 / math.log2(5))
    assert evaluation.ndcg_at_10(11) == 0
    of_many = evaluation.ndcg_at_10(torch.tensor([1, 10, 11]))
    assert of_many.tolist() == pytest.approx([1, 1 / math.log2(11), 0])


def scores(queries: int, seed: int = 1) -> numpy.ndarray:
    rng = numpy.random.default_rng(seed)
    return rng.choice([1.0, 0.63, 0.5, 0.0], size=queries, p=[0.8, 0.1, 0.05, 0.05])


def test_an_interval_contains_the_mean_and_shrinks_with_more_queries():
    widths = []
    for queries in (1600, 100):
        low, high = evaluation.interval(scores(queries))
        assert low < scores(queries).mean() < high
        widths.append(high - low)
    narrow, wide = widths
    assert wide / narrow == pytest.approx(4, rel=0.5)  # sixteen times the queries
    assert evaluation.interval(numpy.ones(50)).tolist() == [1, 1]


def test_an_interval_is_the_one_that_scipy_draws():
    values = scores(300)
    expected = stats.bootstrap((values,), numpy.mean, method="percentile", rng=0)
    ends = [expected.confidence_interval.low, expected.confidence_interval.high]
    assert evaluation.interval(values).tolist() == pytest.approx(ends, abs=0.003)


def test_an_interval_of_a_difference_is_paired():
    """Two models that find the same queries hard differ by little, and the interval knows."""
    first = scores(300)
    second = numpy.clip(first + 0.05, 0, None)
    low, high = evaluation.interval(second - first)
    assert low == pytest.approx(0.05) and high == pytest.approx(0.05)


def test_an_interval_as_text():
    assert evaluation.with_interval(numpy.full(9, 0.5)) == "0.500 (0.500 to 0.500)"
    assert evaluation.with_interval(numpy.full(9, 0.5), "+") == "+0.500 (+0.500 to +0.500)"


def test_the_paired_test_sees_a_gain_and_none_where_there_is_none():
    first, other = scores(300), scores(300, seed=2)
    assert evaluation.paired_test(first, first) == 1
    assert evaluation.paired_test(first, other) > 0.1
    worse = first.copy()
    worse[:40] *= 0.5
    assert evaluation.paired_test(first, worse) < 0.001
    assert evaluation.paired_test(first, worse) == evaluation.paired_test(worse, first)


# the third curve of notebook 05

QUERIES = {"q0": "first", "q1": "second"}
CORPUS = {"q0-positive": "P0", "q0-negative_0": "A0", "q1-positive": "P1"}
TRAINED = {"learning rate": "0.0007", "seed": "42", "loss": "MatryoshkaLoss"}
TRAINED["not the published setting"] = "of the profile"


@pytest.fixture
def control(tmp_path, monkeypatch):
    """``(profile, folder of a tuned model)``, and stored embeddings of three dimensions that belong
    to it.
    """
    profile, tuned = load_profile("tiny"), tmp_path / "tuned"
    file = tmp_path / "assets" / evaluation.CONTROL
    file.parent.mkdir(parents=True)
    tuned.mkdir()
    vectors = {"queries": torch.ones(2, 3).half(), "pages": torch.ones(3, 3).half()}
    settings = evaluation.control_settings(profile, TRAINED, QUERIES, CORPUS)
    save_file(vectors, str(file), metadata={"settings": json.dumps(settings)})
    monkeypatch.setattr(evaluation, "assets_folder", lambda: tmp_path / "assets")
    write_manifest(tuned, TRAINED)
    return profile, tuned


def write_manifest(tuned, trained: dict) -> None:
    (tuned / "manifest.json").write_text(json.dumps({"trained": trained}))


def test_the_control_is_used_where_it_belongs(control):
    profile, tuned = control
    vectors, origin = evaluation.stored_control(profile, tuned, QUERIES, CORPUS)
    assert [tuple(part.shape) for part in vectors] == [(2, 3), (3, 3)]
    assert {part.dtype for part in vectors} == {torch.float32}
    assert "python -m benchmarks.phenomena" in origin
    write_manifest(tuned, TRAINED | {"loss": "CachedMultipleNegativesRankingLoss"})
    assert evaluation.stored_control(profile, tuned, QUERIES, CORPUS)[0], "only the loss differs"


@pytest.mark.parametrize(
    ("changes", "trained", "queries", "corpus", "why"),
    [
        ({"train_rows": 96}, {}, QUERIES, CORPUS, "splits"),
        ({"max_pixels": 160 * 160}, {}, QUERIES, CORPUS, "splits"),
        ({"model_folder": "."}, {}, QUERIES, CORPUS, "base"),
        ({}, {"seed": "1"}, QUERIES, CORPUS, "trained"),
        ({}, {"learning rate": "0.001"}, QUERIES, CORPUS, "trained"),
        ({}, {}, dict(reversed(QUERIES.items())), CORPUS, "queries and pages"),
        ({}, {}, QUERIES, {"q0-positive": "P0", "q1-positive": "P1"}, "queries and pages"),
    ],
)
def test_the_control_is_left_out_where_anything_else_differs(
    control, changes, trained, queries, corpus, why
):
    profile, tuned = control
    write_manifest(tuned, TRAINED | trained)
    changed = dataclasses.replace(profile, **changes)
    vectors, origin = evaluation.stored_control(changed, tuned, queries, corpus)
    assert vectors is None
    assert origin == f"left out: it was made with other settings ({why})"


@pytest.mark.parametrize("manifest", [None, "{}", "half a fi"])
def test_a_tuned_model_without_a_manifest_has_no_control(control, manifest):
    profile, tuned = control
    (tuned / "manifest.json").unlink()
    if manifest:
        (tuned / "manifest.json").write_text(manifest)
    vectors, origin = evaluation.stored_control(profile, tuned, QUERIES, CORPUS)
    assert vectors is None
    assert "no manifest that says how it was trained" in origin


def test_the_shipped_control_belongs_to_the_shipped_models_and_scores_what_is_stored():
    again = 'run python -m benchmarks.phenomena "without MatryoshkaLoss"'
    profile, file = load_profile("tiny"), assets_folder() / evaluation.CONTROL
    with safe_open(str(file), framework="pt") as stored:
        settings = json.loads(stored.metadata()["settings"])
        queries, pages = stored.get_tensor("queries").float(), stored.get_tensor("pages").float()
    trained = read_manifest(profile.finetuned_model)["trained"]
    wanted = evaluation.control_settings(profile, trained, QUERIES, CORPUS)
    for name in ("base", "splits", "trained"):
        assert settings[name] == json.loads(json.dumps(wanted[name])), again
    assert (tuple(queries.shape), tuple(pages.shape)) == ((300, 256), (1500, 256))
    runs = measured("phenomena")["runs"]["without MatryoshkaLoss"]
    for dim, score in runs[str(profile.seed)]["by_dimensions"].items():
        similarities = cos_sim(queries[:, : int(dim)], pages[:, : int(dim)])
        # four negatives follow each
        found = evaluation.ranks(similarities, list(range(0, 1500, 5)))
        assert evaluation.ndcg_at_10(found).mean() == pytest.approx(score, abs=2e-3), again


# the choice of a width in notebook 05


def test_the_choice_goes_down_and_stops_at_the_first_width_that_fails():
    shortest_within = definitions("05", "shortest_within")["shortest_within"]
    at_most = {8: 0.0, 4: 0.02, 3: 0.2, 2: 0.01}
    shortest_within.__globals__.update(dims=list(at_most), at_most=at_most)
    found = {limit: shortest_within(limit) for limit in (0.01, 0.02, 0.1, 0.2)}
    assert found == {0.01: 8, 0.02: 4, 0.1: 4, 0.2: 2}, (
        "2 would do at 0.02, but 3 on the way does not"
    )


def test_no_query_both_chooses_and_reports():
    [source] = [source for source in edited_sources("05") if "choosing, reporting =" in source]
    split = source.partition("losses =")[0]
    for count in (300, 7, 2):
        space = {"queries": range(count)}
        exec(compile(split, "notebook 05", "exec"), space)
        choosing, reporting = set(space["choosing"].tolist()), set(space["reporting"].tolist())
        assert not choosing & reporting and choosing | reporting == set(range(count))
