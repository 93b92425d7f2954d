"""The tiny base model and its pre-training: the classes, messages and tokens of the 2B model, saved
and read back unchanged.
"""

import io
import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import cos_sim

from tiny_vdr import batches, pretrain, vocabulary
from tiny_vdr.pages import draw_page
from tiny_vdr.sheet import Page
from vdr_helpers.profiles import load_profile
from vdr_helpers.training import use_matrix_product

QUERY = "What was the revenue of Alder Energy in 2014?"
SYSTEM = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>\n<|im_start|>assistant\n"


def a_page(seed: int = 0, layout: str = "report", year: int = 2014) -> Image.Image:
    return draw_page(
        Page("Alder Energy", ("Revenue", "Staff", "Rent"), year, "Oslo", layout, seed)
    )[0]


# architecture and messages


def test_the_architecture_is_that_of_the_2b_model(random_model):
    assert [type(module).__name__ for module in random_model] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    assert type(random_model[0].auto_model).__name__ == "Qwen3VLModel"
    assert type(random_model.processor).__name__ == "Qwen3VLProcessor"
    assert random_model[1].pooling_mode == "lasttoken"
    assert random_model.get_embedding_dimension() == 256
    assert {"text", "image", "message"} <= set(random_model.modalities)
    weights = sum(parameter.numel() for parameter in random_model.parameters())
    assert 2 * weights < 12 * 2**20  # in half precision under 12 MB


def test_a_query_becomes_the_published_message(random_model):
    ids = random_model.preprocess([QUERY])["input_ids"][0]
    assert random_model.tokenizer.decode(ids) == SYSTEM + QUERY + END


def test_weights_under_the_published_names_load_bit_for_bit(tmp_path):
    """The 2B model's file has ``model.`` before every name, the shipped one has not."""
    base = Path(load_profile("tiny").base_model)
    shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    renamed = {f"model.{name}": weight for name, weight in weights.items()}
    save_file(renamed, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    loaded = SentenceTransformer(str(tmp_path / "base"), model_kwargs={"dtype": "auto"})
    found = loaded[0].auto_model.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("layout", ["report", "slide"])
def test_a_page_becomes_35_image_tokens(random_model, layout):
    features = random_model.preprocess([a_page(layout=layout)])
    page = "<|vision_start|>" + "<|image_pad|>" * 35 + "<|vision_end|>"
    assert random_model.tokenizer.decode(features["input_ids"][0]) == SYSTEM + page + END
    grid = [1, 10, 14] if layout == "slide" else [1, 14, 10]
    assert features["image_grid_thw"].tolist() == [grid]
    assert features["pixel_values"].shape == (4 * 35, 3 * 2 * 16 * 16)


def test_digits_are_tokens_of_their_own_and_the_tokenizer_is_small(processor):
    tokenizer = processor.tokenizer
    assert len(tokenizer) == 1536
    assert [tokenizer.decode([token]) for token in tokenizer("2014")["input_ids"]] == [
        "2",
        "0",
        "1",
        "4",
    ]
    # bytes: nothing is unknown
    assert tokenizer.decode(tokenizer(QUERY + " ÷ Müller")["input_ids"]) == QUERY + " ÷ Müller"


def test_paper_is_nearly_zero_for_the_model(processor):
    white = processor.image_processor([Image.new("RGB", (160, 224), "white")], return_tensors="pt")[
        "pixel_values"
    ]
    assert white.abs().max() < 1e-5
    black = processor.image_processor([Image.new("RGB", (160, 224), "black")], return_tensors="pt")[
        "pixel_values"
    ]
    assert black.mean().item() == pytest.approx(-1 / 0.35, abs=1e-4)


def test_embeddings_of_text_and_pages_have_length_one(random_model):
    texts = random_model.encode_query([QUERY, "Rent"], convert_to_tensor=True)
    pages = random_model.encode_document([a_page(), a_page(1, "slide")], convert_to_tensor=True)
    assert texts.shape == pages.shape == (2, 256)
    for embeddings in (texts, pages):
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)
    assert not torch.allclose(pages[0], pages[1], atol=1e-3)


def test_a_batch_of_unequal_lengths_gives_what_each_gives_alone(random_model):
    items = [QUERY, "Rent", "Price of pumps at Basalt Foods in 2019, Lisbon, please"]
    together = random_model.encode_query(items, convert_to_tensor=True)
    alone = torch.cat([random_model.encode_query([item], convert_to_tensor=True) for item in items])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_seed_decides_the_weights_and_leaves_the_generator_alone(processor):
    from tiny_vdr.model import build_model

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights = [
        build_model(seed)[0].auto_model.language_model.embed_tokens.weight for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_saved_and_reloaded_embeddings_are_identical_and_truncation_is_a_slice(
    random_model, tmp_path
):
    queries, pages = [QUERY, "Rent"], [a_page(), a_page(1, "slide")]
    before = random_model.encode_query(queries), random_model.encode_document(pages)
    random_model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    assert list((tmp_path / "model").glob("*.safetensors"))
    reloaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert np.array_equal(reloaded.encode_query(queries), before[0])
    assert np.array_equal(reloaded.encode_document(pages), before[1])
    for dim in (64, 8):
        short = SentenceTransformer(str(tmp_path / "model"), device="cpu", truncate_dim=dim)
        assert short.get_embedding_dimension() == dim
        assert np.array_equal(short.encode_document(pages), before[1][:, :dim])


def test_the_shipped_base_is_this_architecture_and_small():
    folder = load_profile("tiny").base_model
    model = SentenceTransformer(
        folder, device="cpu", model_kwargs=load_profile("tiny").model_kwargs
    )
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert model.get_embedding_dimension() == load_profile("tiny").matryoshka_dims[0] == 256
    assert model.tokenizer.decode(model.preprocess([QUERY])["input_ids"][0]) == SYSTEM + QUERY + END
    from pathlib import Path

    assert sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) < 12 * 2**20
    embeddings = model.encode_document([a_page(), a_page(year=2021)], convert_to_tensor=True)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-4)
    assert torch.isfinite(embeddings).all()


# batches


def test_patches_are_the_processors(processor):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((224, 160), (160, 224))
    ]
    wanted = processor.image_processor(
        [Image.fromarray(image) for image in images], return_tensors="pt"
    )
    values, grids = batches.patches([torch.from_numpy(image) for image in images])
    assert grids.tolist() == wanted["image_grid_thw"].tolist()
    assert torch.allclose(values, wanted["pixel_values"], atol=1e-5, rtol=0)


def test_letter_targets_by_hand():
    letters = batches.CHARACTERS
    assert letters.index("a") == 0 and letters.index("1") == 27 and len(letters) == 36
    lines = [("A1", 0, 0, 128, 40), ("b-c", 192, 400, 320, 440)]
    # half size: 5 columns, 7 rows
    targets = batches.letter_targets(lines, size=(320, 448), shrunk=(160, 224))
    # "A" is centred at 32 of 320, "1" at 96: tokens 0 and 1; "b" at 213 and "c" at 299: columns 3
    # and 4 of row 420 / 64 = 6
    assert {(int(i), letters[j]) for i, j in np.argwhere(targets)} == {
        (0, "a"),
        (1, "1"),
        (33, "b"),
        (34, "c"),
    }
    # 7 columns
    turned = batches.letter_targets([("z", 384, 64, 448, 128)], size=(448, 320), shrunk=(224, 160))
    assert [(int(i), letters[j]) for i, j in np.argwhere(turned)] == [(1 * 7 + 6, "z")]
    beyond = batches.letter_targets(
        [("zz", 300, 440, 460, 480)], size=(320, 448), shrunk=(160, 224)
    )
    assert beyond.sum() == 0  # beyond the right edge nothing is drawn


def test_curriculum_widens():
    assert batches.curriculum(0) == (1.0, 1, 1)
    assert batches.curriculum(249)[2] == 1
    assert batches.curriculum(250)[2] == 2
    assert batches.curriculum(5000) == (0.05, 6, 4)
    shares = [batches.curriculum(step)[0] for step in range(0, 1000, 50)]
    assert shares == sorted(shares, reverse=True)


def test_a_batch_is_fixed_by_seed_and_step_and_holds_near_duplicates():
    drawn = batches.Batches(8, 0)
    batch, again, later = drawn[700], drawn[700], drawn[701]
    assert batch["queries"] == again["queries"] != later["queries"]
    assert torch.equal(batch["pixel_values"], again["pixel_values"])
    assert batch["queries"] != batches.Batches(8, 1)[700]["queries"]
    assert batch["pixel_values"].shape == (8 * 4 * 35, 1536)
    assert {tuple(grid) for grid in batch["image_grid_thw"].tolist()} <= {(1, 14, 10), (1, 10, 14)}
    # the first eight ask for the pages, in their order
    assert len(batch["queries"]) == 8 + batches.EXTRA_QUERIES
    assert batch["letters"].shape == (8, 35, 36)
    page_words, query_words = (
        [words_of(row) for row in batch[name]] for name in ("page_words", "query_words")
    )
    for on_page, in_query in zip(page_words, query_words[:8], strict=True):
        assert in_query <= on_page
    for query, words in zip(batch["queries"], query_words, strict=True):
        assert all(word in query.lower() for word in words)
        assert {str(year) for year in vocabulary.YEARS if str(year) in query} <= words


def words_of(targets):
    return {batches.CAPTION_WORDS[i] for i in np.flatnonzero(targets)}


def test_caption_loss_by_hand():
    """Two first names are equally likely, the year is sure: log 2 for the name, nothing for the
    year or for kinds that are not named.
    """
    index, count = batches.CAPTION_INDEX, len(batches.CAPTION_WORDS)
    targets = batches.caption_targets([["Alder", "2012"], ["Kelmondor"]])
    # an invented word has no place
    assert (
        targets.sum().item() == 2 and targets[0, index["alder"]] == targets[0, index["2012"]] == 1
    )
    logits = torch.full((2, count), -1e4)
    logits[0, [index["alder"], index["birch"], index["2012"]]] = 0.0
    assert pretrain.caption_loss(logits, targets, batches.KINDS).item() == pytest.approx(
        math.log(2), abs=1e-5
    )
    logits[0, index["energy"]] = 5.0  # another kind's words do not compete
    assert pretrain.caption_loss(logits, targets, batches.KINDS).item() == pytest.approx(
        math.log(2), abs=1e-5
    )


def test_a_near_duplicate_differs_in_one_thing():
    rng = random.Random(0)
    for i in range(300):
        page = batches.random_page(rng)
        change = batches.CHANGES[i % len(batches.CHANGES)]
        other = batches.near_duplicate(page, change, rng)
        (first, second), (first_other, second_other) = (
            page.organisation.split(),
            other.organisation.split(),
        )
        changed = [
            page.year != other.year,
            page.subjects != other.subjects,
            first != first_other,
            second != second_other,
        ]
        assert sum(changed) <= 1
        assert all(
            not differs or name == change
            for name, differs in zip(("year", "subject", "first", "second"), changed, strict=True)
        )
        assert (page.layout, page.region) == (other.layout, other.region)


# pre-training


def test_the_patch_product_is_the_models_convolution(random_model):
    values, _ = batches.patches([torch.randint(0, 256, (224, 160, 3), dtype=torch.uint8)])
    layer = random_model[0].auto_model.visual.patch_embed

    def output_and_gradient():
        layer.zero_grad()
        output = layer(values)
        (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
        return output.detach(), layer.proj.weight.grad.clone()

    wanted = output_and_gradient()
    assert use_matrix_product(random_model)
    assert layer.forward.__name__ == "forward" and layer.forward != type(layer).forward
    for mine, theirs in zip(output_and_gradient(), wanted, strict=True):
        assert ((mine - theirs).norm() / theirs.norm()).item() < 1e-5


def test_a_model_without_patches_is_left_alone():
    assert use_matrix_product([torch.nn.Linear(2, 2)]) is False


def test_losses_see_the_features_that_encoding_sees(random_model):
    """Pre-training builds its inputs by hand; they must be those of ``encode_document`` and
    ``encode_query``.
    """
    pages = [np.array(a_page(seed).resize((160, 224), Image.BICUBIC)) for seed in range(3)]
    wanted = random_model.encode_document(
        [Image.fromarray(page) for page in pages], convert_to_tensor=True
    )
    widths = {256: 0.75, 16: 0.25}
    losses, seen, asked = pretrain.Losses(random_model, 0, batches.KINDS).eval(), [], []
    embed, embed_queries = losses.embed, losses.embed_queries
    losses.embed = lambda features: seen.append(embed(features)) or seen[-1]
    losses.embed_queries = lambda *arguments: asked.append(embed_queries(*arguments)) or asked[-1]
    pixel_values, grids = batches.patches([torch.from_numpy(page) for page in pages])
    batch = batches.Batches(3, 0)[0] | {"pixel_values": pixel_values, "image_grid_thw": grids}
    with torch.no_grad():
        parts = losses(batch, widths)
    assert torch.allclose(torch.nn.functional.normalize(seen[0], dim=-1), wanted, atol=1e-4)
    queries = random_model.encode_query(batch["queries"], convert_to_tensor=True)
    # in groups of like length, and in the batch's order again
    assert len(seen) == 1 + pretrain.QUERY_GROUPS
    assert torch.allclose(torch.nn.functional.normalize(asked[0], dim=-1), queries, atol=1e-4)
    assert set(parts) == {"contrastive", "caption", "letter", "accuracy"}
    target, expected = torch.arange(3), 0.0
    cross_entropy = torch.nn.functional.cross_entropy
    for width, weight in widths.items():
        # the further queries have no page here
        scores = 20 * cos_sim(queries[:3, :width], wanted[:, :width])
        expected += weight * (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
    assert parts["contrastive"].item() == pytest.approx(expected.item(), abs=1e-2)


def test_the_state_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "pretrain.pt"
    pretrain.save_state(path, step=3, log=[])
    assert torch.load(path, weights_only=True) == {"step": 3, "log": []}

    def die(state, partial):
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", die)
        pretrain.save_state(path, step=4, log=[])
    assert torch.load(path, weights_only=True)["step"] == 3
    pretrain.save_state(path, step=5, log=[])
    assert [file.name for file in tmp_path.iterdir()] == ["pretrain.pt"]


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_must_be_positive(tmp_path, steps):
    with pytest.raises(ValueError, match=f"steps must be positive, got {steps}"):
        pretrain.pretrain(tmp_path / "out", steps=steps)
    assert not (tmp_path / "out").exists()


def test_the_schedule_warms_up_holds_and_falls():
    rates = [pretrain.learning_rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5) and rates[99] == rates[599] == pytest.approx(1e-3)
    assert rates[600:] == sorted(rates[600:], reverse=True) and rates[-1] == pytest.approx(
        2e-5, rel=0.01
    )
    weights = [pretrain.prefix_weights(step, 30) for step in range(30)]
    assert all(sum(weight.values()) == pytest.approx(1) for weight in weights)
    assert [8 in weight for weight in weights] == [False] * 18 + [True] * 12


def without_minutes(log):
    return [{name: value for name, value in row.items() if name != "minutes"} for row in log]


@pytest.mark.slow
def test_pre_training_learns_and_a_stopped_run_ends_where_an_unbroken_one_does(processor, tmp_path):
    """Twenty steps of eight pages: the losses fall, and a run killed after twelve goes on to the
    same log and the same weights.
    """
    # beside the notebooks' tests two threads would wait for each other at every sum
    part = replace(pretrain.READING, threads=1)
    settings = {"steps": 20, "batch_size": 8, "log_every": 1}
    log = pretrain.pretrain(tmp_path / "whole", part=part, **settings)
    assert [row["step"] for row in log] == list(range(1, 21))
    sums = [row["letter"] + row["caption"] for row in log]
    assert sum(sums[-4:]) < 0.8 * sum(sums[:4])
    assert json.loads((tmp_path / "whole" / "pretrain_log.json").read_text()) == log

    def killed(step, steps):
        if step == 12:
            raise KeyboardInterrupt
        return part.learning_rate(step, steps)

    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(tmp_path / "killed", part=replace(part, learning_rate=killed), **settings)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    resumed_log = pretrain.pretrain(tmp_path / "killed", part=part, **settings)
    assert without_minutes(resumed_log) == without_minutes(log)
    assert not (tmp_path / "killed" / "pretrain.pt").exists()

    whole, resumed = (
        load_file(str(tmp_path / name / "model.safetensors")) for name in ("whole", "killed")
    )
    assert {tensor.dtype for tensor in whole.values()} == {torch.float16}
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    model = SentenceTransformer(
        str(tmp_path / "whole"), device="cpu", model_kwargs={"dtype": "float32"}
    )
    assert torch.isfinite(model.encode_document([a_page()], convert_to_tensor=True)).all()


def test_the_page_is_read_from_any_image_file(random_model):
    """PNG bytes read back give the embedding of the page itself."""
    buffer = io.BytesIO()
    a_page().save(buffer, "PNG")
    pages = [a_page(), Image.open(io.BytesIO(buffer.getvalue()))]
    first, second = random_model.encode_document(pages)
    assert np.array_equal(first, second)
