"""The speed-ups of appendix a1 change no number: paths, token budgets, one encoding, a matrix
product, 16-bit pixels.
"""

import copy
import io

import pytest
import torch
from cells import definitions
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from vdr_helpers.pages import fingerprint
from vdr_helpers.training import cosine_at, use_matrix_product

pytestmark = pytest.mark.slow

DIMS = (256, 192, 128, 64, 32, 16, 8)


def png(shade: int, size=(64, 96)) -> dict:
    image = PillowImage.new("RGB", size, (shade, 255 - shade, 40))
    image.paste((shade // 2, 0, 0), (shade % 40, 10, shade % 40 + 20, 50))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture(scope="module")
def split():
    """40 rows; every fourth row repeats a page of the row before it, as positive or as negative."""
    pages = [png(i) for i in range(80)]
    rows = [(f"query {i}", pages[2 * i], pages[2 * i + 1]) for i in range(40)]
    for i in range(3, 40, 4):
        rows[i] = (rows[i][0], rows[i - 1][1 + i % 2], rows[i][2])
    features = Features({"query": Value("string"), "image": Image(), "negative_0": Image()})
    return Dataset.from_dict(
        dict(zip(features, map(list, zip(*rows, strict=True)), strict=True)), features=features
    )


def with_paths(split, folder) -> Dataset:
    """The same rows with pages as files named by their content."""
    folder.mkdir(exist_ok=True)
    columns = {"query": split["query"][:]}
    for name in ("image", "negative_0"):
        columns[name] = []
        for page in split[name]:
            file = folder / f"{fingerprint(page)}.png"
            page.save(file)
            columns[name].append(str(file))
    return Dataset.from_dict(columns)


def batches(dataset, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    sampler = NoDuplicatesBatchSampler(
        dataset, batch_size=6, drop_last=False, generator=generator, seed=seed
    )
    sampler.set_epoch(1)
    return list(sampler)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_paths_draw_the_batches_of_pages(split, tmp_path, seed):
    from_paths = batches(with_paths(split, tmp_path), seed)
    assert from_paths == batches(split, seed)
    assert from_paths != batches(split.select_columns("query"), seed)  # without pages they differ


def test_a_path_is_encoded_like_its_page(split, tmp_path, random_model):
    paths = with_paths(split, tmp_path)
    from_paths = random_model.encode_document(paths["image"][:6], convert_to_tensor=True)
    from_images = random_model.encode_document(list(split["image"][:6]), convert_to_tensor=True)
    assert torch.equal(from_paths, from_images)


def test_pixels_cast_in_the_collator_are_those_the_16_bit_model_computes_on(split, processor):
    from sentence_transformers.base.data_collator import BaseDataCollator

    from tiny_vdr.model import build_model

    collator = definitions("a1", "PixelsInDtype")["PixelsInDtype"]
    model = build_model(seed=0).bfloat16()
    plain = BaseDataCollator(preprocess_fn=model.preprocess)
    rows = [split[i] for i in range(2)]
    wide, narrow = plain(rows), collator(model.preprocess, dtype=model.dtype)(rows)
    assert wide["image_pixel_values"].dtype == torch.float32
    assert (
        narrow["image_pixel_values"].dtype
        == narrow["negative_0_pixel_values"].dtype
        == torch.bfloat16
    )
    assert torch.equal(narrow["query_input_ids"], wide["query_input_ids"])
    assert narrow.keys() == wide.keys()
    vectors = []
    for features in (wide, narrow):
        column = {
            name.removeprefix("image_"): value
            for name, value in features.items()
            if name.startswith("image_")
        }
        column["image_grid_thw"] = features["image_image_grid_thw"]
        with torch.no_grad():
            vectors.append(model(column)["sentence_embedding"])
    assert torch.equal(*vectors)


def test_a_deep_copy_of_the_model_uses_its_own_patch_weights(random_model):
    assert use_matrix_product(random_model)
    twin = copy.deepcopy(random_model)
    layer = twin[0].auto_model.visual.patch_embed
    pixels = torch.rand(4, 1536)
    with torch.no_grad():
        before = random_model[0].auto_model.visual.patch_embed(pixels)
        layer.proj.weight.zero_()
        layer.proj.bias.zero_()
        assert layer(pixels).abs().max() == 0
        assert torch.equal(random_model[0].auto_model.visual.patch_embed(pixels), before)


def adapt_the_patches(model):
    """LoRA on the patch convolution, with an update that is not zero."""
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=2, target_modules=["visual.patch_embed.proj"]))
    with torch.no_grad():
        model[0].auto_model.visual.patch_embed.proj.lora_B["default"].weight.fill_(0.5)


@pytest.mark.parametrize("applied_first", [True, False])
def test_an_adapter_on_the_patches_is_not_lost(random_model, applied_first):
    model, pixels = copy.deepcopy(random_model), torch.rand(4, 1536)
    if applied_first:
        assert use_matrix_product(model)
    adapt_the_patches(model)
    if not applied_first:
        assert not use_matrix_product(model)
    reference = copy.deepcopy(random_model)
    adapt_the_patches(reference)
    with torch.no_grad():
        for adapter in (model, reference):
            adapter[0].auto_model.visual.patch_embed.proj.lora_A["default"].weight.fill_(0.25)
        expected = reference[0].auto_model.visual.patch_embed(pixels)
        assert torch.equal(model[0].auto_model.visual.patch_embed(pixels), expected)
        assert not torch.allclose(random_model[0].auto_model.visual.patch_embed(pixels), expected)


def gradient(model, loss, columns) -> torch.Tensor:
    model.zero_grad()
    loss([{**features} for features in columns], None).backward()
    return torch.cat(
        [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    )


def test_the_gradient_does_not_depend_on_the_token_budget(split, random_model):
    model = random_model
    rows = split.select([0, 5, 10, 14, 20])
    queries = [
        "short",
        "a somewhat longer query about pumps",
        "q",
        "Alder Energy revenue 2014 Oslo",
        "a b c d",
    ]
    columns = [
        model.preprocess(values)
        for values in (queries, list(rows["image"]), list(rows["negative_0"]))
    ]
    plain = gradient(
        model, MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), DIMS), columns
    )
    page_tokens = columns[1]["attention_mask"].shape[1]
    for budget in (1, page_tokens, 2 * page_tokens, 100 * page_tokens):
        inner = CachedMultipleNegativesRankingLoss(
            model, mini_batch_size=5, mini_batch_num_tokens=budget
        )
        by_budget = gradient(model, MatryoshkaLoss(model, inner, DIMS), columns)
        assert ((by_budget - plain).norm() / plain.norm()).item() < 1e-5, budget
    assert model.tokenizer.padding_side == "right"  # only right padding is trimmed in a mini-batch


@pytest.fixture
def retrieval(split):
    rows = split.select(range(0, 40, 3))
    queries = {f"q{i}": row["query"] for i, row in enumerate(rows)}
    corpus = {
        f"q{i}-{name}": row[name] for i, row in enumerate(rows) for name in ("image", "negative_0")
    }
    return queries, corpus, {name: {f"{name}-image"} for name in queries}


def evaluator_at(retrieval, dims):
    """As notebook 03 builds it."""
    return InformationRetrievalEvaluator(
        *retrieval, score_functions=cosine_at(dims), main_score_function="cosine", name="few"
    )


def test_one_pass_gives_the_metrics_of_seven(retrieval, random_model):
    calls = {"query": 0, "document": 0}
    for kind in calls:
        original = getattr(random_model, f"encode_{kind}")

        def counted(*arguments, kind=kind, original=original, **settings):
            calls[kind] += 1
            return original(*arguments, **settings)

        setattr(random_model, f"encode_{kind}", counted)
    metrics = evaluator_at(retrieval, DIMS)(random_model)
    assert calls == {"query": 1, "document": 1}
    widths = [
        InformationRetrievalEvaluator(*retrieval, truncate_dim=dim, name="few")(random_model)
        for dim in DIMS
    ]
    named = {
        key.replace("cosine", name): value
        for name, alone in zip(cosine_at(DIMS), widths, strict=True)
        for key, value in alone.items()
    }
    assert metrics == named
    assert len({alone["few_cosine_ndcg@10"] for alone in widths}) > 1  # the widths do differ


def test_the_evaluator_sees_new_weights(retrieval, random_model):
    evaluator = evaluator_at(retrieval, (256, 8))
    before = evaluator(random_model)
    assert evaluator.primary_metric == "few_cosine_ndcg@10"
    with torch.no_grad():
        for weight in random_model.parameters():
            weight.add_(
                torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.05
            )
    assert evaluator(random_model) != before


@pytest.mark.parametrize("dims", [(), (8, 16), (16, 16)])
def test_dimensions_must_fall(dims):
    with pytest.raises(ValueError, match="different numbers, the largest first"):
        cosine_at(dims)


def test_a_dimension_larger_than_the_model_is_refused(retrieval, random_model):
    with pytest.raises(
        ValueError, match="dimension 512 does not fit: this model's embeddings have 256"
    ):
        evaluator_at(retrieval, (512, 8))(random_model)
