"""The rehearsal on a CPU at reduced size: the same path as on a card, from random weights to a receipt and resumed training."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny_vdr.corpus import build_source, enlarged_size
from tiny_vdr.model import QWEN3_VL_2B, SMALL, build_config
from tools import rehearsal
from tools.rehearsal import MEAN_SCALE, build_base, chosen_size, is_current, small_settings
from tools.sizing import PAGE_SIZE, read_receipt
from vdr_helpers import rehearsal_runs
from vdr_helpers.profiles import PROFILES, load_profile, shipped


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The small architecture with random weights, as a Sentence Transformers folder; built once."""
    return build_base(tmp_path_factory.mktemp("rehearsal") / "base", SMALL)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shipped("assets/tiny-base"))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setenv("VDR_REHEARSAL", "small")


def small_rehearsal(base, folder):
    profile = small_settings(PROFILES["rehearsal"])
    return rehearsal_runs.Rehearsal(profile, SMALL, base, folder / "receipt.json", batch=4, steps=2)


@pytest.fixture(scope="module")
def rows(base, tmp_path_factory):
    """Four rows of enlarged pages, drawn once."""
    drawing = small_rehearsal(base, tmp_path_factory.mktemp("rows"))
    return drawing.rows(drawing.load_processor())


@pytest.fixture
def measured(base, rows, tmp_path):
    """A rehearsal of two steps of four rows that writes its receipt into the test's folder."""
    rehearsing = small_rehearsal(base, tmp_path)
    rehearsing.dataset = rows
    return rehearsing


def test_the_size_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("VDR_REHEARSAL", raising=False)
    assert chosen_size() is QWEN3_VL_2B
    monkeypatch.setenv("VDR_REHEARSAL", "small")
    assert chosen_size() is SMALL
    monkeypatch.setenv("VDR_REHEARSAL", "tiny")
    with pytest.raises(ValueError, match="must be 'true'"):
        chosen_size()


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
    assert not profile.published_setting
    assert small_settings(profile).matryoshka_dims == (64, 48, 32, 16, 8, 4, 2)


def test_pages_have_the_published_mean_size():
    from tiny_vdr.corpus import plan_rows
    from tiny_vdr.pages import LANDSCAPE

    pages = [row.page for row in plan_rows(0, 20, 85)]
    sizes = [enlarged_size(*((560, 400) if page.layout in LANDSCAPE else (400, 560)), page.seed, MEAN_SCALE) for page in pages]
    mean = [sum(size[axis] for size in sizes) / len(sizes) for axis in (0, 1)]
    assert mean == pytest.approx(PAGE_SIZE, rel=0.05)
    assert min(size[0] for size in sizes) < 1000
    assert max(size[1] for size in sizes) > 2000


def test_the_base_loads_as_every_notebook_loads_it(base):
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    profile = small_settings(PROFILES["rehearsal"])
    model = SentenceTransformer(
        str(base), device="cpu", model_kwargs=profile.model_kwargs, processor_kwargs=profile.processor_kwargs
    )
    assert model.encode_query(["Which page?"]).shape == (1, 64)
    assert model.encode_document([Image.new("RGB", (200, 300))]).shape == (1, 64)
    rows = model[0].auto_model.language_model.embed_tokens.weight.shape[0]
    assert rows == SMALL.vocabulary > len(model.tokenizer)  # padded: no token has these rows
    assert sum(weight.numel() for weight in model.parameters()) == SMALL.parameters


def test_a_half_built_base_is_never_taken_for_a_whole_one(base, tmp_path, monkeypatch):
    stamp = json.loads((base / "rehearsal.json").read_text())
    assert is_current(base, stamp)
    assert not is_current(base, stamp | {"seed": 1})
    half = tmp_path / "base"
    half.mkdir()
    (half / "modules.json").write_text("[]")
    assert not is_current(half, stamp)
    monkeypatch.setattr(rehearsal, "move_into_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_base(half, SMALL)
    assert not (half / "model.safetensors").exists()


def test_load_profile_builds_model_and_pages_once_and_notebook_02_prepares_them(small, base, tmp_path, monkeypatch):
    from vdr_helpers.splits import load_prepared

    drawn = []

    def fewer_pages(folder, train_families, eval_families, mean_scale):
        drawn.append((train_families, eval_families))
        return build_source(
            folder, train_families=train_families, eval_families=eval_families, mean_scale=0.4
        )  # the drawing is the slow part

    monkeypatch.setattr(rehearsal, "build_base", lambda folder, model: base)
    monkeypatch.setattr("vdr_helpers.corpus.build_source", fewer_pages)
    profile = load_profile("rehearsal")
    assert profile.base_model == profile.finetuned_model == str(base)
    assert str(tmp_path) not in str(profile.to_dict())
    train, _ = load_prepared(profile, "train")
    evaluation, _ = load_prepared(profile, "eval")
    assert (len(train), len(evaluation)) == (24, 8)
    assert evaluation.column_names == ["query", "image", "negative_0", "negative_1", "negative_2", "negative_3"]
    written = (Path(profile.dataset_folder) / "corpus.json").stat().st_mtime_ns
    load_profile("rehearsal")
    assert (Path(profile.dataset_folder) / "corpus.json").stat().st_mtime_ns == written
    assert drawn == [(20, 85)] * 2


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

    model = measured.load("bfloat16")
    by_class = model[0].auto_model.visual.patch_embed.forward.__func__
    trainer, _ = measured.trainer(model, 60, str(tmp_path / "all"))
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
    adapted, _ = measured.trainer(measured.load("bfloat16"), 60, str(tmp_path / "lora"), lora=True)
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

    monkeypatch.setattr(measured, "load", full_card)
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

    model = measured.load("bfloat16")
    rehearsal_runs.lora_adapter(model)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert not [name for name in trained if "visual" in name or "lora" not in name]
    assert sum(weight.numel() for weight in trained.values()) == SMALL.lora_parameters
    assert measured.train(60, lora=True)["losses_finite"] is True


def test_the_command_takes_what_it_is_asked_for(small, base, tmp_path, monkeypatch):
    taken = []

    class Noted:
        def __init__(self, profile, model, base, receipt, batch, steps, fp16):
            self.receipt = receipt
            taken.append((profile.name, model.name, batch, steps, fp16))

        def encode(self):
            taken.append("encode")

        def train(self, budget, lora=False, cap_gib=None):
            taken.append((budget, lora, cap_gib))

        def resume(self):
            taken.append("resume")

    monkeypatch.setattr(rehearsal_runs, "Rehearsal", Noted)
    monkeypatch.setattr(rehearsal, "build_base", lambda folder, model: base)
    asked = "--budgets 1400 2800 --lora --lora-budgets 400 --memory-cap-gib 15 --full-cap-gib 22 --resume --batch 8 --steps 3"
    rehearsal.main([*asked.split(), "--receipt", str(tmp_path / "r.json")])
    assert taken[0] == ("rehearsal", SMALL.name, 8, 3, False)
    assert taken[1:] == ["encode", (1400, False, None), (2800, False, None), (400, True, 15.0), (400, False, 22.0), "resume"]


def test_importing_the_command_imports_nothing_heavy():
    import subprocess

    program = "import sys, vdr_helpers.rehearsal, vdr_helpers.presets; print(sorted({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
