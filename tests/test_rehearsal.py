"""The rehearsal on a CPU at reduced size: the same path as on a card, from random weights to a receipt and resumed training."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from cells import printable

from benchmarks.recipe import load_base, load_to_train
from tiny_vdr import corpus
from tiny_vdr.corpus import build_source, enlarged_size
from tiny_vdr.model import QWEN3_VL_2B, build_config
from tools import rehearsal
from tools.sizing import PAGE_SIZE, SMALL, read_receipt
from vdr_helpers import machine
from vdr_helpers.profiles import PROFILES, load_profile, shipped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An outputs folder with the small architecture of random weights in it, built once."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("rehearsal")
    patch.setenv("VDR_OUTPUTS", str(folder))
    machine.build_random_weights(PROFILES["rehearsal-small"])
    patch.undo()
    return folder


@pytest.fixture
def small(monkeypatch, base):
    monkeypatch.setenv("VDR_OUTPUTS", str(base))
    return load_profile("rehearsal-small")


@pytest.fixture
def measured(small, tmp_path):
    """A rehearsal of two steps of four rows that writes its receipt into the test's folder."""
    return rehearsal.Rehearsal(small, tmp_path / "receipt.json", batch=4, steps=2)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shipped("assets/tiny-base"))


def test_the_config_is_the_public_one_of_the_2b_model(tokenizer):
    config = build_config(QWEN3_VL_2B, tokenizer)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads) == (2048, 28, 16, 8)
    assert (text.head_dim, text.intermediate_size, text.vocab_size) == (128, 6144, 151_936)
    assert text.rope_parameters["mrope_section"] == [24, 20, 20]
    assert text.rope_parameters["rope_theta"] == 5_000_000
    assert (vision.depth, vision.hidden_size, vision.num_heads, vision.intermediate_size) == (24, 1024, 16, 4096)
    assert (vision.patch_size, vision.spatial_merge_size, vision.out_hidden_size) == (16, 2, 2048)
    assert (vision.num_position_embeddings, vision.deepstack_visual_indexes) == (2304, [5, 11, 17])
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")


def test_the_profile_is_the_published_setting_on_fewer_rows():
    profile, full = PROFILES["rehearsal"], PROFILES["full"]
    for name in ("matryoshka_dims", "max_pixels", "per_device_train_batch_size", "learning_rate", "bf16", "model_kwargs"):
        assert getattr(profile, name) == getattr(full, name), name
    assert profile.mini_batch_num_tokens == full.mini_batch_num_tokens
    assert profile.train_rows + profile.eval_rows < 1000
    assert profile.comparable_score(0.9) is None
    assert PROFILES["rehearsal-small"].matryoshka_dims == (64, 48, 32, 16, 8, 4, 2)


def test_pages_have_the_published_mean_size():
    from tiny_vdr.corpus import plan_rows
    from tiny_vdr.pages import LANDSCAPE

    pages = [row.page for row in plan_rows(0, 20, 85)]
    scale = PROFILES["rehearsal"].corpus["mean_scale"]
    sizes = [enlarged_size(*((560, 400) if page.layout in LANDSCAPE else (400, 560)), page.seed, scale) for page in pages]
    mean = [sum(size[axis] for size in sizes) / len(sizes) for axis in (0, 1)]
    assert mean == pytest.approx(PAGE_SIZE, rel=0.05)
    assert min(size[0] for size in sizes) < 1000
    assert max(size[1] for size in sizes) > 2000


def test_the_base_loads_as_every_notebook_loads_it(small):
    from PIL import Image

    model = load_base(small)
    assert model.encode_query(["Which page?"]).shape == (1, 64)
    assert model.encode_document([Image.new("RGB", (200, 300))]).shape == (1, 64)
    rows = model[0].auto_model.language_model.embed_tokens.weight.shape[0]
    assert rows == SMALL.vocabulary > len(model.tokenizer)  # padded: no token has these rows
    assert sum(weight.numel() for weight in model.parameters()) == SMALL.parameters


def test_a_base_is_built_once_and_a_half_built_one_is_never_taken_for_a_whole_one(monkeypatch, capsys):
    from tiny_vdr import model

    profile, real = load_profile("rehearsal-small"), model.save_random_model

    def killed(folder, *settings, **more):
        (folder / "modules.json").write_text("[]")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_random_model", killed)
    with pytest.raises(KeyboardInterrupt):
        machine.build_random_weights(profile)
    assert not Path(profile.base_model).exists()
    monkeypatch.setattr(model, "save_random_model", real)
    machine.build_random_weights(profile)
    capsys.readouterr()
    machine.build_random_weights(profile)
    assert capsys.readouterr().out == "", "there already"
    (Path(profile.base_model) / "config.json").unlink()
    machine.build_random_weights(profile)
    assert "building the small architecture" in capsys.readouterr().out
    machine.build_random_weights(load_profile("tiny"))
    assert not (load_profile("tiny").output_dir / "model").exists()


def test_notebook_02_prepares_its_pages(small, monkeypatch, tmp_path):
    from cells import prepare

    from vdr_helpers.splits import load_prepared

    drawn = []

    def fewer_pages(folder, **families):
        drawn.append(families)
        return build_source(folder, **families, mean_scale=0.4)  # the drawing is the slow part

    monkeypatch.setattr(corpus, "build_source", fewer_pages)
    prepare(small)
    train, evaluation = (load_prepared(small, name)[0] for name in ("train", "eval"))
    assert (len(train), len(evaluation)) == (24, 8)
    assert evaluation.column_names == ["query", "image", "negative_0", "negative_1", "negative_2", "negative_3"]
    assert drawn == [{"train_families": 20, "eval_families": 85}]
    assert str(tmp_path) not in str(printable(small))


def test_training_and_encoding_leave_a_receipt(measured, capsys):
    measured.encode()
    run = measured.train(60)
    assert (run["kind"], run["outcome"], run["mode"], run["weights"], run["autocast"]) == ("train", "ok", "full", "float32", None)
    assert run["losses_finite"] is True
    assert run["peak_gib"] is None  # no card here
    assert run["seconds_per_step"] > 0
    assert run["wall_seconds_per_step"] >= run["seconds_per_step"]
    assert run["pages_per_second"] == pytest.approx(2 * 4 / run["wall_seconds_per_step"])
    assert run["pages_per_pass"] == min(4, 60 // (run["image_tokens"] + 21))
    receipt = read_receipt(measured.receipt)
    assert [kept["kind"] for kept in receipt["runs"]] == ["encode", "train"]
    assert receipt["model"] == {"name": SMALL.name, "parameters": SMALL.parameters, "weights": "random"}
    assert {"torch", "transformers", "sentence-transformers"} <= receipt["versions"].keys()
    assert receipt["hardware"]["device"]
    assert "seconds_per_step" in capsys.readouterr().out


def test_the_trainer_is_notebook_03s(measured, tmp_path):
    """Its arguments, its batches, its pixels and its first layer; LoRA at its own learning rate."""
    import torch
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    from vdr_helpers.training import PixelsInFormat

    profile = measured.at("bfloat16")
    by_class = load_base(profile)[0].auto_model.visual.patch_embed.forward.__func__
    model = load_to_train(profile)
    trainer, _ = measured.trainer(profile, model, 60, str(tmp_path / "all"))
    assert trainer.args.learning_rate == measured.profile.learning_rate
    assert trainer.args.warmup_steps == measured.profile.warmup_steps
    assert model[0].auto_model.visual.patch_embed.forward.__func__ is not by_class
    loader = trainer.get_train_dataloader()
    assert isinstance(trainer.data_collator, PixelsInFormat)
    batch = next(iter(loader))
    assert {value.dtype for name, value in batch.items() if name.endswith("pixel_values")} == {torch.bfloat16}
    sampler = trainer.args.batch_sampler(
        trainer.train_dataset, batch_size=4, drop_last=False, generator=torch.Generator(), seed=1
    )
    assert isinstance(sampler, NoDuplicatesBatchSampler)
    queries = trainer.train_dataset["query"]
    assert all(len({queries[i] for i in rows}) == 4 for rows in sampler)  # every row stands in the data once per step
    profile = measured.at("bfloat16", lora=True)
    adapted, _ = measured.trainer(profile, load_to_train(profile), 60, str(tmp_path / "lora"))
    assert adapted.args.learning_rate == measured.profile.adapter_learning_rate


def test_saving_reloading_and_resuming_change_nothing(measured):
    run = measured.resume(budget=60)
    assert run["reload_difference"] < 1e-5
    assert run["largest_difference"] < 1e-4
    assert run["checkpoint_gib"] > 0


def test_out_of_memory_is_a_result(measured, monkeypatch):
    import torch

    def full_card(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(rehearsal, "load_to_train", full_card)
    run = measured.train(60, cap_gib=15)
    assert (run["outcome"], run["memory_cap_gib"]) == ("out of memory", 15)
    assert read_receipt(measured.receipt)["runs"] == [run]


def test_the_cap_is_a_share_of_the_card(measured, monkeypatch):
    import torch

    asked = []
    measured.cuda = True
    card = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", asked.append)
    measured.start(20)
    measured.start(None)
    measured.start(100)
    assert asked == [0.25, 1.0, 1.0]


def test_lora_trains_the_language_model_alone_in_float32(measured):
    import torch

    model = load_to_train(measured.at("bfloat16", lora=True))
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert not [name for name in trained if "visual" in name or "lora" not in name]
    assert sum(weight.numel() for weight in trained.values()) == SMALL.lora_parameters
    assert measured.train(60, lora=True)["losses_finite"] is True


def test_the_command_takes_what_it_is_asked_for(small, tmp_path, monkeypatch):
    taken = []

    class Noted:
        def __init__(self, profile, receipt, batch, steps, fp16):
            self.receipt = receipt
            taken.append((profile.name, batch, steps, fp16))

        def encode(self):
            taken.append("encode")

        def train(self, budget, lora=False, cap_gib=None):
            taken.append((budget, lora, cap_gib))

        def resume(self):
            taken.append("resume")

    monkeypatch.setattr(rehearsal, "Rehearsal", Noted)
    with pytest.raises(SystemExit, match="set VDR_PROFILE=rehearsal"):
        rehearsal.main([])
    monkeypatch.setenv("VDR_PROFILE", "rehearsal-small")
    asked = "--budgets 1400 2800 --lora --lora-budgets 400 --memory-cap-gib 15 --full-cap-gib 22 --resume --batch 8 --steps 3"
    rehearsal.main([*asked.split(), "--receipt", str(tmp_path / "r.json")])
    assert taken[0] == ("rehearsal-small", 8, 3, False)
    assert taken[1:] == ["encode", (1400, False, None), (2800, False, None), (400, True, 15.0), (400, False, 22.0), "resume"]
