"""Notebook 07's own code: int8, binary, ties, shortlists and the search index, taken out of its cells."""

import numpy
import pytest
from cells import definitions
from sentence_transformers.util.quantization import quantize_embeddings

from benchmarks import latency


@pytest.fixture(scope="module")
def own():
    return definitions(
        "07", "to_int8", "hamming_similarity", "rescore", "made_up", "brute_force", "cut"
    )


@pytest.fixture(scope="module")
def vectors():
    made = numpy.random.default_rng(1).normal(size=(300, 64)).astype(numpy.float32)
    return made / numpy.linalg.norm(made, axis=1, keepdims=True)


def scorer(right_pages, pages):
    """``ndcg_per_query`` with the names that it reads."""
    places = numpy.arange(1, pages + 1)
    space = definitions("07", "ndcg_per_query")["ndcg_per_query"]
    gains = numpy.concatenate(
        [[0.0], numpy.cumsum(numpy.where(places <= 10, 1 / numpy.log2(1 + places), 0))]
    )
    space.__globals__.update(right_pages=right_pages, gains=gains)
    return space


def test_int8_stays_within_half_a_step_and_clips_what_calibration_did_not_see(own, vectors):
    largest = abs(vectors).max()
    codes = own["to_int8"](vectors, largest)
    assert codes.dtype == numpy.int8
    assert abs(codes * largest / 127 - vectors).max() <= largest / 254 + 1e-7
    clipped = own["to_int8"](vectors, largest / 4)
    assert clipped.max() == 127 and clipped.min() == -127, "no number wraps around"


def test_hamming_is_the_number_of_signs_that_differ(own, vectors):
    similarity = own["hamming_similarity"](vectors[:20], vectors)
    assert (similarity == -((vectors[:20, None] > 0) != (vectors[None] > 0)).sum(axis=2)).all()
    assert quantize_embeddings(vectors, precision="ubinary").shape == (300, 8)


def test_without_ties_the_score_is_the_plain_one(vectors):
    similarities = vectors[:40] @ vectors.T + numpy.random.default_rng(0).normal(
        size=(40, 300), scale=0.6
    )
    found = scorer(list(range(40)), 300)(similarities)
    ranks = (similarities > similarities[range(40), range(40)][:, None]).sum(axis=1) + 1
    assert found == pytest.approx(numpy.where(ranks <= 10, 1 / numpy.log2(1 + ranks), 0))
    assert 0 < found.mean() < 1


def test_equal_pages_share_the_places_they_take():
    ndcg_per_query = scorer([0], 20)
    alone, four = numpy.zeros((1, 20)), numpy.zeros((1, 20))
    alone[0, 0], four[0, :4] = 1, 1
    assert ndcg_per_query(alone) == pytest.approx([1.0])
    assert ndcg_per_query(four) == pytest.approx(
        [sum(1 / numpy.log2(1 + place) for place in (1, 2, 3, 4)) / 4]
    )
    everything = ndcg_per_query(numpy.zeros((1, 20)))
    assert everything == pytest.approx(
        [sum(1 / numpy.log2(1 + place) for place in range(1, 11)) / 20]
    )


def test_a_shortlist_finds_only_what_is_on_it(own, vectors):
    full = vectors[:30] @ vectors.T
    wrong_way_round = own["rescore"](-full, full, 20)
    assert (wrong_way_round[range(30), range(30)] == -2).all(), (
        "the right page came last and is not on the list"
    )
    right = own["rescore"](full, full, 20)
    assert (right.argmax(axis=1) == numpy.arange(30)).all() and (
        (right > -2).sum(axis=1) == 20
    ).all()


def test_the_benchmark_measures_what_the_notebook_shows(own, vectors):
    assert (own["made_up"](vectors, 500) == latency.made_up(vectors, 500)).all()
    made = own["made_up"](vectors, 500)
    assert numpy.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-5)
    assert set(own["brute_force"](vectors[0], vectors)) == set(
        numpy.argsort(-(vectors @ vectors[0]))[:10]
    )
    row = latency.measure(vectors[:40], latency.made_up(vectors, 4000))
    assert row["vectors"] == 4000 and 0 < row["ivf_recall_at_10"] <= 1 and row["lists"] <= 100


def test_stored_measurements_say_what_they_are():
    from vdr_helpers.published import measured

    times, stores = measured("latency"), measured("stores")
    assert [row["vectors"] for row in times["rows"]] == list(latency.SIZES)
    assert all(
        row["ivf_ms"] < row["numpy_ms"] for row in times["rows"] if row["vectors"] >= 100_000
    )
    assert times["device"] and stores["device"] and times["versions"]["numpy"]
    for store in stores["stores"].values():
        assert store["queries_with_numpys_ten_best"] == store["queries_compared"]
