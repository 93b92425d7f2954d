"""Notebook 07's own code, int8, binary, ties and shortlists; and appendix a7's made-up corpus and
the library's quantized search.
"""

import numpy
import pytest
from cells import definitions
from sentence_transformers.util.quantization import quantize_embeddings

from benchmarks import latency


@pytest.fixture(scope="module")
def own():
    return definitions("07", "to_int8", "hamming_similarity", "rescore", "cut")


@pytest.fixture(scope="module")
def vectors():
    made = numpy.random.default_rng(1).normal(size=(300, 64)).astype(numpy.float32)
    return made / numpy.linalg.norm(made, axis=1, keepdims=True)


def scorer(right_pages):
    """``ndcg_with_ties`` with the names that it reads."""
    function = definitions("07", "ndcg_with_ties")["ndcg_with_ties"]
    function.__globals__.update(right_pages=right_pages)
    return function


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
    found = scorer(list(range(40)))(similarities)
    ranks = (similarities > similarities[range(40), range(40)][:, None]).sum(axis=1) + 1
    assert found == pytest.approx(numpy.where(ranks <= 10, 1 / numpy.log2(1 + ranks), 0))
    assert 0 < found.mean() < 1


def test_equal_pages_share_the_places_they_take():
    ndcg_with_ties = scorer([0])
    alone, four = numpy.zeros((1, 20)), numpy.zeros((1, 20))
    alone[0, 0], four[0, :4] = 1, 1
    assert ndcg_with_ties(alone) == pytest.approx([1.0])
    assert ndcg_with_ties(four) == pytest.approx(
        [sum(1 / numpy.log2(1 + place) for place in (1, 2, 3, 4)) / 4]
    )
    everything = ndcg_with_ties(numpy.zeros((1, 20)))
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


def test_the_librarys_uint8_search_loses_and_rescoring_brings_some_back(own, vectors):
    space = definitions("a7", "library_ndcg")
    space["library_ndcg"].__globals__.update(right=list(range(60)))
    draw = numpy.random.default_rng(2)
    query = own["cut"](vectors[:60] + 0.2 * draw.normal(size=(60, 64)).astype(numpy.float32), 64)
    exact = space["library_ndcg"](query, vectors, "float32", rescore=False)
    plain = space["library_ndcg"](query, vectors, "uint8", rescore=False)
    rescored = space["library_ndcg"](query, vectors, "uint8", rescore=True)
    cosines = query @ vectors.T
    ranks = 1 + (cosines > cosines[range(60), range(60)][:, None]).sum(axis=1)
    by_hand = numpy.where(ranks <= 10, 1 / numpy.log2(1 + ranks), 0).mean()
    assert exact == pytest.approx(by_hand, abs=1e-6)
    assert plain < rescored <= exact and plain < exact - 0.1


def test_the_benchmark_measures_what_the_appendix_shows(vectors):
    own = definitions("a7", "made_up", "brute_force")
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
