"""Notebook 10's own code and what it says of the libraries: MaxSim, masks, pooling, bytes, the
second stage and the store.
"""

import logging
import math

import numpy
import pytest
import torch
from cells import definitions
from pymilvus import MilvusClient
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.evaluation import (
    MultiVectorInformationRetrievalEvaluator,
)
from sentence_transformers.multi_vector_encoder.interpretability import (
    get_n_patches,
    real_query_token_slice,
)
from sentence_transformers.multi_vector_encoder.losses import (
    CachedMultiVectorMultipleNegativesRankingLoss,
    MultiVectorMultipleNegativesRankingLoss,
)
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling
from sentence_transformers.util.similarity import maxsim

from benchmarks import late_interaction
from tiny_vdr.pages import draw_page
from tiny_vdr.sheet import Page
from vdr_helpers.evaluation import ranks, with_interval
from vdr_helpers.profiles import load_profile
from vdr_helpers.published import published, read_asset

QUERIES = [
    "Who sells lamps at Vesper Optics?",
    "Which page gives Rowan Steel's staff during 2011?",
    "pallets sold in Seville by Umber Paper, 2013",
]


@pytest.fixture(scope="module")
def model():
    logging.getLogger("sentence_transformers.base.model").setLevel(logging.ERROR)
    profile = load_profile("tiny")
    torch.manual_seed(0)
    return MultiVectorEncoder(
        profile.base_model,
        model_kwargs=profile.model_kwargs,
        processor_kwargs=profile.processor_kwargs,
        device="cpu",
    )


@pytest.fixture(scope="module")
def pages():
    """The pages of the three queries, in two sizes."""
    asked = (
        Page("Vesper Optics", ("Lamps", "Gears", "Hoses"), 2012, "Oslo", "invoice", 0),
        Page("Rowan Steel", ("Staff", "Rent", "Wages"), 2011, "Turin", "slide", 1),
        Page("Umber Paper", ("Pallets", "Gloves", "Pumps"), 2013, "Seville", "datasheet", 2),
    )
    return [draw_page(page)[0] for page in asked]


@pytest.fixture(scope="module")
def vectors(model, pages):
    return model.encode_query(QUERIES), model.encode_document(pages)


def some_pages(count=40, tokens=(20, 30), numbers=16, seed=0):
    """Random lists of unit vectors, as many of them as ``count``."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(*tokens, (count,), generator=generator).tolist()
    return [
        torch.nn.functional.normalize(torch.randn(length, numbers, generator=generator), dim=1)
        for length in lengths
    ]


# MaxSim


def test_by_hand_is_the_librarys(model, vectors):
    by_hand = definitions("10", "maxsim_by_hand")["maxsim_by_hand"]
    queries, documents = vectors
    expected = torch.tensor([[by_hand(query, page) for page in documents] for query in queries])
    assert torch.allclose(model.similarity(queries, documents), expected, atol=1e-4)
    assert not torch.allclose(
        expected,
        torch.tensor([[by_hand(page, query) for page in documents] for query in queries]),
        atol=1,
    )
    one, other = torch.eye(4)[:2], torch.eye(4)[1:]
    assert by_hand(one, other) == 1.0, "the first vector finds nothing, the second itself"


def test_the_evaluator_counts_as_the_hand_does(model, vectors, pages):
    queries, corpus = (
        {str(i): text for i, text in enumerate(QUERIES)},
        {f"page {i}": page for i, page in enumerate(pages)},
    )
    right_pages = [2, 0, 1]
    relevant = {str(i): {f"page {column}"} for i, column in enumerate(right_pages)}
    evaluator = MultiVectorInformationRetrievalEvaluator(
        queries, corpus, relevant, write_csv=False, name="x"
    )
    own = definitions("10", "ndcg_per_query")["ndcg_per_query"]
    own.__globals__.update(right_pages=right_pages)
    by_hand = own(model.similarity(*vectors))
    assert evaluator(model)["x_maxsim_ndcg@10"] == pytest.approx(by_hand.mean())
    assert by_hand.tolist() != [1.0] * 3, "a score that shows a difference"


def test_the_loss_picks_the_own_page_by_maxsim(model, vectors, pages):
    scores = model.similarity(*vectors)
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(3)).item()
    for make in (
        MultiVectorMultipleNegativesRankingLoss,
        CachedMultiVectorMultipleNegativesRankingLoss,
    ):
        columns = [
            model.preprocess(QUERIES, task="query"),
            model.preprocess(pages, task="document"),
        ]
        with torch.no_grad():
            assert make(model)(columns).item() == pytest.approx(expected, abs=1e-4), make.__name__


# Which tokens have a vector


def test_padding_never_counts(model, vectors):
    queries, _ = vectors
    alone = [model.encode_query([text])[0] for text in QUERIES]
    assert len({len(query) for query in queries}) > 1, "the batch was padded"
    for query, single, text in zip(queries, alone, QUERIES, strict=True):
        assert len(query) == model.preprocess([text], task="query")["input_ids"].shape[1]
        assert torch.allclose(query, single, atol=1e-4)
    raw = model.encode_query(QUERIES, output_value=None)
    assert [int(features["attention_mask"].sum()) for features in raw] == [
        len(query) for query in queries
    ]


def test_the_templates_vectors_count_unless_the_mask_keeps_only_patches(model, vectors, pages):
    queries, documents = vectors
    words = [real_query_token_slice(model, text) for text in QUERIES]
    before = words[0].start
    assert all(
        part.start == before > 0 and part.stop < len(query)
        for part, query in zip(words, queries, strict=True)
    )
    for query in queries[1:]:
        assert torch.allclose(query[:before], queries[0][:before], atol=1e-4), (
            "what precedes the words has not seen them"
        )
    assert not torch.allclose(queries[0][words[0].stop :], queries[1][words[1].stop :], atol=1e-2)
    mask = model[2]
    mask.keep_only_token_ids = [model.tokenizer.convert_tokens_to_ids(model.processor.image_token)]
    try:
        kept = model.encode_document(pages)
    finally:
        mask.keep_only_token_ids = None
    for page, whole, some in zip(pages, documents, kept, strict=True):
        columns, rows = get_n_patches(model, page.size)
        assert len(some) == columns * rows < len(whole)


def test_saved_and_reloaded_gives_equal_vectors(model, vectors, pages, tmp_path):
    model.save_pretrained(str(tmp_path / "late"), create_model_card=False)
    again = MultiVectorEncoder(str(tmp_path / "late"), device="cpu")
    assert torch.equal(again[1].linear.weight, model[1].linear.weight)
    for kept, found in zip(
        vectors, (again.encode_query(QUERIES), again.encode_document(pages)), strict=True
    ):
        assert all(
            torch.allclose(one, other, atol=1e-6) for one, other in zip(kept, found, strict=True)
        )


# Bytes


def test_pooling_keeps_the_order_at_factor_one_and_shrinks_as_told():
    pages, queries = some_pages(), some_pages(5, (6, 12), seed=1)
    ranking = maxsim(queries, pages).argsort(dim=1, descending=True)
    for factor in (1, 2, 3, 4, 8):
        pooled = HierarchicalTokenPooling(factor, num_protected_tokens=0).pool(pages)
        assert [len(page) for page in pooled] == [len(page) // factor for page in pages]
        assert all(
            torch.allclose(page.norm(dim=1), torch.ones(len(page)), atol=1e-5) for page in pooled
        )
        same = torch.equal(maxsim(queries, pooled).argsort(dim=1, descending=True), ranking)
        assert same == (factor == 1), factor


def test_a_page_takes_the_bytes_that_the_notebook_says():
    space = definitions("10", "write", "read")
    write, page = space["write"], some_pages(1, numbers=64)[0]
    write["int8"].__globals__["largest"] = float(page.abs().max())
    sizes = {precision: code(page).nbytes for precision, code in write.items()}
    one = page.numel()
    assert sizes == {"float16": 2 * one, "int8": one, "binary": one // 8}
    assert abs(write["int8"](page)).max() == 127
    met = {precision: space["read"](code(page), precision) for precision, code in write.items()}
    assert torch.equal(met["binary"], torch.where(page > 0, 1.0, -1.0))
    assert torch.allclose(met["float16"], page, atol=1e-3)
    assert torch.allclose(met["int8"] / 127 * page.abs().max(), page, atol=page.abs().max() / 250)


# The store and the second stage


@pytest.fixture
def client(tmp_path):
    made = MilvusClient(str(tmp_path / "late.db"))
    yield made
    made.close()


def test_the_embedded_store_takes_the_schema_leaves_the_field_out_and_refuses_the_rest(client):
    """As notebook 10 says. When this fails, the store has learned it: let the notebook search by
    MaxSim there.
    """
    from pymilvus import DataType, MilvusClient
    from pymilvus.client.embedding_list import EmbeddingList
    from pymilvus.exceptions import MilvusException

    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("page_id", DataType.VARCHAR, max_length=100, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    of_many = MilvusClient.create_struct_field_schema()
    of_many.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    schema.add_field(
        "many", DataType.ARRAY, element_type=DataType.STRUCT, struct_schema=of_many, max_capacity=16
    )
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("pages", schema=schema, index_params=indexes)
    assert [field["name"] for field in client.describe_collection("pages")["fields"]] == [
        "page_id",
        "vector",
    ]
    row, unit = {"page_id": "a", "vector": [1.0, 0, 0, 0]}, numpy.eye(4, dtype=numpy.float32)
    with pytest.raises(MilvusException, match="unexpected field `many`"):
        client.insert("pages", [row | {"many": [{"vector": vector} for vector in unit]}])
    client.insert("pages", [row])
    with pytest.raises(MilvusException, match="not supported"):
        client.search("pages", [EmbeddingList(list(unit))], anns_field="many[vector]", limit=1)


def test_a_list_of_all_pages_is_maxsim_over_all_and_a_short_one_finds_only_what_is_on_it(client):
    pages, queries = some_pages(), some_pages(6, (6, 12), seed=1)
    single = torch.nn.functional.normalize(
        torch.randn(46, 8, generator=torch.Generator().manual_seed(2)), dim=1
    )
    client.create_collection("pages", dimension=8, metric_type="COSINE")
    rows = [{"id": page, "vector": vector.tolist()} for page, vector in enumerate(single[:40])]
    client.insert("pages", rows)
    found = client.search("pages", single[40:].tolist(), limit=40)
    ranking = [[hit["id"] for hit in hits] for hits in found]
    first = single[40:] @ single[:40].T
    assert ranking == first.argsort(dim=1, descending=True).tolist()
    space = definitions("10", "two_stages", "ndcg_per_query")

    class Scorer:
        similarity = staticmethod(maxsim)

    own = {"first_stage": ranking, "model": Scorer, "texts": ["a query"] * 6}
    own |= {"query_vectors": queries, "page_vectors": pages}
    full = maxsim(queries, pages)
    own |= {"right_pages": list(range(6)), "similarities": full}
    space["two_stages"].__globals__.update(own)
    assert space["two_stages"](40) == pytest.approx(space["ndcg_per_query"](full))
    for number, value in enumerate(space["two_stages"](3)):
        best = ranking[number][:3]
        rank = 1 + sum(full[number, column] > full[number, number] for column in best)
        assert value == pytest.approx(1 / math.log2(1 + int(rank)) if number in best else 0)


# What is stored and published


def test_the_published_figures_name_their_source_and_agree_with_the_other_file():
    asset = read_asset("published_late_interaction.json")
    scores = {row["model"]: row["ndcg_at_10"] for row in asset["models"]}
    assert asset["address"].startswith("https://github.com/huggingface/sentence-transformers/")
    assert "none was measured by this project" in asset["source"]
    table = {row["model"]: row["ndcg_at_10"] for row in published()["models"]}
    assert (
        scores["tomaarsen/Qwen3-VL-Embedding-2B-vdr"]
        == table["tomaarsen/Qwen3-VL-Embedding-2B-vdr"]
    )
    assert scores["Qwen/Qwen3-VL-Embedding-2B"] == published()["base_ndcg_at_10"]["table of models"]
    full = load_profile("full")
    assert full.late_interaction["max_grad_norm"] == asset["settings"]["max_grad_norm"]
    [rate] = full.late_interaction["learning_rate_mapping"].values()
    assert (full.learning_rate, rate) == (
        asset["settings"]["learning_rate"],
        asset["settings"]["learning_rate_of_the_new_layer"],
    )


def test_the_stored_epoch_is_counted_as_the_notebook_counts():
    similarities = torch.randn(30, 50, generator=torch.Generator().manual_seed(0))
    own = definitions("10", "ndcg_per_query")["ndcg_per_query"]
    collection = late_interaction.Collection.__new__(late_interaction.Collection)
    collection.right_pages = list(range(30))
    own.__globals__.update(right_pages=collection.right_pages)
    values = collection.per_query(similarities)
    assert values == pytest.approx(own(similarities))
    found = ranks(similarities, collection.right_pages)
    assert values == pytest.approx(numpy.where(found <= 10, 1 / numpy.log2(1 + found.numpy()), 0))
    stored = late_interaction.interval(values)
    told = f"{stored['mean']:.3f} ({stored['low']:.3f} to {stored['high']:.3f})"
    assert with_interval(values) == told
