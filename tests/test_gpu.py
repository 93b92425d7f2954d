"""What a GPU is given and why, the arithmetic behind it, receipts, and a step that runs out of
memory.

No GPU is needed: a GPU is three values, and memory is counted on the CPU.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from cells import definitions

from tiny_vdr.model import QWEN3_VL_2B, SMALL, TINY, build_config
from tools import gpu_memory
from vdr_helpers import gpu, machine
from vdr_helpers.gpu import GIB, Gpu, fit_to_gpu, gpus, settings_for, settings_table
from vdr_helpers.profiles import PROFILES, assets_folder, load_profile, shipped

T4 = Gpu("Tesla T4", (7, 5), 14.56)
L4 = Gpu("NVIDIA L4", (8, 9), 22.03)
A100 = Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 39.50)
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 79.1)
H200 = Gpu("NVIDIA H200", (9, 0), 139.8)
FLASH_ATTENTION = "kernels-community/flash-attn2"
FREE_GPU = Path(__file__).parent.parent / "docs" / "free_gpu.md"


@pytest.fixture
def full(monkeypatch):
    monkeypatch.delenv("VDR_ATTENTION", raising=False)
    return load_profile("full")


# what a GPU is given


def test_a_t4_trains_lora_in_float16_at_its_own_learning_rate(full, capsys):
    fitted = fit_to_gpu(full, T4)
    assert fitted.model_kwargs["dtype"] == "float16"
    assert (fitted.bf16, fitted.fp16, len(fitted.adapters)) == (False, True, 1)
    assert fitted.learning_rate == full.adapter_learning_rate == 2e-4
    assert fitted.mini_batch_num_tokens == 6 * 361
    said = capsys.readouterr().out
    assert said.startswith("Tesla T4: compute capability 7.5, 14.6 GiB\n")
    assert "all weights need 39.8 GiB or more" in said
    assert "0.0002 instead of 2e-05" in said
    assert "computed, not measured" in said
    assert fitted.comparable_score(0.9) is None
    assert "LoRA on the language model instead of all weights" in fitted.deviations


def test_an_h100_trains_the_published_setting(full):
    fitted = fit_to_gpu(full, H100)
    assert (fitted.mini_batch_num_tokens, fitted.learning_rate) == (5600, 2e-5)
    assert (fitted.bf16, fitted.fp16, fitted.adapters) == (True, False, ())
    assert fitted.deviations == ()
    assert fitted.comparable_score(0.9) == (2.1, 0.9)


@pytest.mark.parametrize("found", [T4, L4, A100, H100, H200], ids=lambda found: found.name)
def test_the_setting_fits_and_the_next_larger_one_does_not(found):
    chosen = settings_for(found.capability, found.memory_gib, receipts=[])
    assert chosen["fits"]
    assert chosen["gib"] <= 0.9 * found.memory_gib
    table = settings_table(gpu.compute_dtype(found.capability), receipts=[])
    setting = {name: chosen[name] for name in gpu.SETTING}
    position = next(i for i, row in enumerate(table) if row | setting == row)
    assert all(row["gib"] > 0.9 * found.memory_gib for row in table[:position])


def test_a_gpu_that_is_not_listed_is_judged_by_memory_and_capability(full):
    unknown = fit_to_gpu(full, Gpu("NVIDIA RTX A5000", (8, 6), 22.03))
    listed = fit_to_gpu(full, L4)
    assert unknown == listed
    assert fit_to_gpu(full, H200).mini_batch_num_tokens == full.mini_batch_num_tokens
    volta = fit_to_gpu(full, Gpu("Tesla V100", (7, 0), 31.7))
    assert (volta.model_kwargs["dtype"], volta.fp16, len(volta.adapters)) == ("float16", True, 1)
    slice_of_a_gpu = fit_to_gpu(full, Gpu(H100.name, (9, 0), 9.8))
    assert slice_of_a_gpu.adapters
    turing = fit_to_gpu(full, Gpu("Quadro RTX 8000", (7, 5), 47.5))
    assert (turing.model_kwargs["dtype"], turing.fp16, turing.adapters) == ("float32", True, ())


def test_a_gpu_without_room_gets_one_page_and_a_warning(full, capsys):
    fitted = fit_to_gpu(full, Gpu("GeForce GTX 1650", (7, 5), 3.8))
    assert (fitted.mini_batch_num_tokens, len(fitted.adapters)) == (361, 1)
    assert "take a GPU with more memory" in capsys.readouterr().out


def test_without_cuda_weights_are_float32_and_tiny_stays_as_it_is(full, capsys):
    for found in (Gpu("CPU, 2 cores"), Gpu("Apple GPU")):
        fitted = fit_to_gpu(full, found)
        assert fitted.model_kwargs["dtype"] == "float32"
        assert (fitted.bf16, fitted.fp16, fitted.adapters) == (False, False, ())
        assert fitted.learning_rate == full.learning_rate
        assert f"{found.name}: no CUDA GPU" in capsys.readouterr().out
    tiny = load_profile("tiny")
    assert fit_to_gpu(tiny, H100) is tiny
    assert capsys.readouterr().out == ""


def test_pytorchs_own_answer_about_bfloat16_is_not_asked(full, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *given, **more: True)  # as on a T4
    assert fit_to_gpu(full, T4).fp16


def test_compiled_code_of_the_hub_runs_only_when_it_is_asked_for(full, monkeypatch, capsys):
    assert fit_to_gpu(full, A100).model_kwargs["attn_implementation"] == "sdpa"
    monkeypatch.setenv("VDR_ATTENTION", FLASH_ATTENTION)
    asked = load_profile("full")
    assert fit_to_gpu(asked, A100).model_kwargs["attn_implementation"] == FLASH_ATTENTION
    assert f"attention: {FLASH_ATTENTION}\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (FLASH_ATTENTION, "pip install kernels"),
        ("flash_attention_2", "FlashAttention2 .*cannot be used"),
    ],
)
def test_an_attention_that_cannot_run_is_named_as_the_model_is_loaded(monkeypatch, attention, said):
    import torch
    from sentence_transformers import SentenceTransformer

    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = load_profile("tiny").base_model
    with pytest.raises(ImportError, match=said):
        SentenceTransformer(base, model_kwargs={"attn_implementation": attention})


@pytest.mark.parametrize(
    ("cores", "shared", "workers"),
    [(16, 64e9, 4), (2, 64e9, 2), (16, 64 * 2**20, 0), (16, 3.4e9, 3), (16, None, 4)],
)
def test_workers_are_as_many_as_cores_and_shared_memory_allow(
    full, cores, shared, workers, tmp_path, monkeypatch, capsys
):
    """A worker holds two batches of 128 pages of 360,000 pixels of six 2-byte values: 1.11 GB."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(gpu, "SHARED_MEMORY", tmp_path if shared else Path("nowhere"))
    free = SimpleNamespace(free=shared or 64e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    assert fit_to_gpu(full, H100).dataloader_num_workers == workers
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"{workers} worker processes, 2 batches of 0.55 GB each")
    assert f"profile 4, processor cores {cores}" in line


@pytest.fixture
def on_two_gpus(monkeypatch, capsys):
    """``on_two_gpus(*state, **environment)``: printed lines, then which GPUs are visible.

    ``state``: "started" when CUDA is in use, "stuck" when its driver was asked already.
    """
    import torch

    def call(*state, **environment):
        with monkeypatch.context() as patch:
            for name in (gpu.VISIBLE, "LOCAL_RANK"):
                patch.setenv(name, "")  # noted, so that what the call sets does not stay
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)

            def count() -> int:
                return 2 if "stuck" in state else len(os.environ.get(gpu.VISIBLE, "0,1").split(","))

            patch.setattr(torch.cuda, "device_count", count)
            patch.setattr(torch.cuda, "is_initialized", lambda: "started" in state)
            gpu.use_first_gpu()
            return [*capsys.readouterr().out.splitlines(), os.environ.get(gpu.VISIBLE)]

    return call


def test_of_two_gpus_only_the_first_is_visible(on_two_gpus):
    assert on_two_gpus() == ["2 GPUs: the course uses the first (CUDA_VISIBLE_DEVICES=0)", "0"]
    assert on_two_gpus(CUDA_VISIBLE_DEVICES="2,3")[-1] == "2"
    assert on_two_gpus(CUDA_VISIBLE_DEVICES="1") == ["1"]
    assert on_two_gpus(LOCAL_RANK="0") == [None]  # torchrun gives each process its GPU


@pytest.mark.parametrize("state", ["started", "stuck"])
def test_two_gpus_already_in_use_are_an_error_that_says_what_to_do(on_two_gpus, state):
    with pytest.raises(RuntimeError, match="found 2 GPUs in use, expected 1: restart the kernel"):
        on_two_gpus(state)


# the arithmetic


@pytest.mark.parametrize("sizes", [QWEN3_VL_2B, TINY, SMALL], ids=lambda sizes: sizes.name)
def test_lora_weights_are_those_that_peft_adds(sizes):
    from peft import LoraConfig, inject_adapter_in_model

    counted = gpu_memory.count_weights(sizes)
    model = inject_adapter_in_model(LoraConfig(**gpu_memory.LORA), gpu_memory.network(sizes))
    added = [weight for name, weight in model.named_parameters() if "lora_" in name]
    assert sum(weight.numel() for weight in added) == counted["lora_parameters"]


def test_the_2b_architecture_has_the_published_parameters():
    assert gpu_memory.count_weights(QWEN3_VL_2B)["parameters"] == 2_127_532_032


def test_the_mean_page_has_340_image_tokens():
    """1416 x 1648 shrinks by sqrt(2,333,568 / 360,000) = 2.546 to 544 x 640, which is 17 x 20."""
    assert gpu_memory.image_tokens(1416, 1648, 600 * 600) == 340


def kept_by_autograd(sizes, dtype: str, lora: bool, side: int) -> int:
    """Bytes of the distinct tensors that autograd keeps for a page of ``side`` x 4 image tokens.

    On the CPU with bfloat16 autocast, LayerNorm in float32 as CUDA's autocast runs it.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoTokenizer, Qwen3VLModel

    tokenizer = AutoTokenizer.from_pretrained(shipped("assets/tiny-base"))
    config = build_config(sizes, tokenizer)
    torch.manual_seed(0)
    model = Qwen3VLModel(config).to(getattr(torch, dtype))
    if lora:
        model = inject_adapter_in_model(LoraConfig(**gpu_memory.LORA), model)
        for name, weight in model.named_parameters():
            weight.requires_grad_("lora_" in name)
            weight.data = weight.data.float() if "lora_" in name else weight.data
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # so that no address is used twice
        return tensor

    plain = torch.nn.functional.layer_norm

    def in_float32(x, shape, weight, bias, eps):
        return plain(x.float(), shape, weight.float(), bias.float(), eps)

    tokens = side * 4
    ids = torch.tensor([[7] * 4 + [config.image_token_id] * tokens + [7] * 17])
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0  # padding, as in a mini-batch of pages of several sizes
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch.nn.functional, "layer_norm", in_float32)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=torch.randn(4 * tokens, 1536),
            image_grid_thw=torch.tensor([[1, 2 * side, 8]]),
            mm_token_type_ids=(ids == config.image_token_id).int(),
        )
    return sum(kept.values())


@pytest.mark.parametrize(
    ("dtype", "lora"), [("bfloat16", False), ("float32", False), ("bfloat16", True)]
)
def test_activations_are_what_autograd_keeps(dtype, lora):
    """The difference of two pages, so that what does not grow with a page drops out."""
    small, large = (kept_by_autograd(TINY, dtype, lora, side) for side in (16, 32))
    formula = [gpu_memory.kept_per_page(TINY, tokens, dtype) for tokens in (64, 128)]
    parts = ("language",) if lora else ("language", "vision")
    expected = sum(formula[1][part] - formula[0][part] for part in parts)
    assert large - small == pytest.approx(expected, rel=0.05)


def test_memory_of_the_published_run_by_hand():
    terms = gpu_memory.memory(QWEN3_VL_2B, "all weights", "bfloat16", pages=15)
    weights = 2_127_532_032
    assert terms["weights"] == terms["gradients"] == weights * 2 / GIB
    assert terms["Adam's two moments"] == weights * 4 / GIB
    assert terms["pixels of a batch"] == 128 * 1360 * 1536 * 2 / GIB
    assert terms["16-bit copies"] == 0
    per_token = 28 * (16 * 2048 + 14 * 2048 + 6 * 1024 + 8 * 6144 + 8 + 128 + 32)
    per_patch = 24 * (26 * 1024 + 4 * 4096 + 16 + 64)
    per_image_token = 4 * 12 * 4096 + 8 * 1536 + 8 * 2048
    page = 361 * per_token + 1360 * per_patch + 340 * per_image_token
    assert terms["activations"] == pytest.approx(15 * page / GIB)


def test_lora_has_16_bit_weights_float32_adapters_and_nothing_of_the_vision_tower():
    terms = gpu_memory.memory(QWEN3_VL_2B, "LoRA", "float16", pages=1)
    adapters = 31_195_136
    assert terms["weights"] == (2 * 2_127_532_032 + 4 * adapters) / GIB
    assert terms["gradients"] == 4 * adapters / GIB
    assert terms["Adam's two moments"] == 8 * adapters / GIB
    kept = gpu_memory.kept_per_page(QWEN3_VL_2B, 340, "float16")
    assert terms["activations"] == kept["language"] / GIB


def test_operations_of_a_page_by_hand():
    weights = 28 * (2 * 2048 * 2048 + 2 * 2048 * 1024 + 3 * 2048 * 6144)
    language = 2 * weights * 361 + 2 * 28 * 2048 * 361**2
    tower = 24 * (4 * 1024**2 + 2 * 1024 * 4096) + 1536 * 1024
    vision = 2 * tower * 1360 + 4 * 24 * 1024 * 1360**2
    vision += 2 * 4 * (4096 * 4096 + 4096 * 2048) * 340
    found = gpu_memory.operations(QWEN3_VL_2B, 340)
    assert (found["language"], found["vision"]) == (language, vision)


def test_the_stored_table_is_what_the_arithmetic_gives():
    stored = (assets_folder() / "gpu_memory.json").read_text(encoding="utf-8")
    expected = json.loads(json.dumps(gpu_memory.build()))
    assert json.loads(stored) == expected, "run python -m tools.gpu_memory"


def test_the_sum_of_appendix_a2_is_the_tables():
    memory = definitions("a2", "facts", "model", "page", "memory")["memory"]
    for rows in gpu.read_asset("gpu_memory.json")["settings"].values():
        for row in rows:
            found = sum(memory(row["trains"] == "LoRA", row["dtype"], row["pages"]).values())
            assert found == pytest.approx(row["gib"], abs=0.01)


def test_every_listed_gpu_has_memory_speed_and_their_source():
    assert {"T4", "L4", "A100 40 GB", "A100 80 GB", "H100", "H200"} <= gpus().keys()
    for found in gpus().values():
        assert found["memory_gib"] > 0
        assert found["tflops"] > 0
        assert "memory:" in found["source"]
        assert "data sheet" in found["source"]


# receipts


def receipt(found: Gpu, *, parameters: int = 2_127_532_032, **run) -> dict:
    """A receipt of one training step: all weights, one page per pass, 20 GiB."""
    made = {
        "trains": "all weights",
        "dtype": "bfloat16",
        "autocast": "bfloat16",
        "mini_batch_num_tokens": 361,
        "rows": 64,
        "max_pixels": 360_000,
        "outcome": "ok",
        "peak_gib": 18.0,
        "seconds_per_step": 3.0,
    }
    model = {"name": "Qwen3-VL 2B", "parameters": parameters}
    return {"gpu": vars(found), "versions": {}, "model": model, "runs": [made | run]}


def test_a_receipt_of_an_h200_replaces_a_row_for_every_gpu_of_its_dtype():
    assert settings_for(L4.capability, L4.memory_gib, [])["trains"] == "LoRA"
    chosen = settings_for(L4.capability, L4.memory_gib, [receipt(H200)])
    assert (chosen["trains"], chosen["pages"]) == ("all weights", 1)
    assert chosen["gib"] == 18.0 + 1.0  # CUDA's own share comes on top of what PyTorch reserves
    assert chosen["source"] == "measured on NVIDIA H200"
    assert settings_for(T4.capability, T4.memory_gib, [receipt(H200)])["source"].startswith("comp")


def test_a_measured_figure_may_fill_the_gpu_and_no_more():
    for peak, trains in ((21.0, "all weights"), (21.1, "LoRA")):
        taken = [receipt(L4, peak_gib=peak)]
        assert settings_for(L4.capability, 22.0, taken)["trains"] == trains


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": 356_928},
        {"rows": 8},
        {"max_pixels": 90_000},
        {"mini_batch_num_tokens": 999},
        {"outcome": "out of memory", "peak_gib": None},
        {"autocast": None, "peak_gib": None},
        {"dtype": "float32"},
    ],
    ids=str,
)
def test_a_receipt_of_something_else_replaces_nothing(other):
    taken = receipt(H200, **other)
    assert settings_table("bfloat16", [taken]) == settings_table("bfloat16", [])


def test_shipped_and_own_receipts_are_read_and_a_damaged_one_is_named(tmp_path, monkeypatch, full):
    shipped_folder, own = tmp_path / "assets" / "receipts", tmp_path / "outputs" / "receipts"
    monkeypatch.setattr(gpu, "assets_folder", lambda: tmp_path / "assets")
    assert gpu.read_receipts() == []
    for folder, peak in ((shipped_folder, 17.0), (own, 18.0)):
        folder.mkdir(parents=True)
        (folder / "nvidia-h200.json").write_text(json.dumps(receipt(H200, peak_gib=peak)))
    outputs = tmp_path / "outputs"
    peaks = [taken["runs"][0]["peak_gib"] for taken in gpu.read_receipts(outputs)]
    assert peaks == [17.0, 18.0]
    assert fit_to_gpu(dataclasses.replace(full, outputs=outputs), L4).adapters == ()
    for text, problem in (("{", "is not JSON"), ("{}", r"has no \['gpu', 'model'")):
        (own / "nvidia-h200.json").write_text(text)
        with pytest.raises(ValueError, match=f"nvidia-h200.json {problem}.*: delete it"):
            gpu.read_receipts(outputs)


# a step that runs out of memory


@pytest.fixture
def small_trainer(random_model, tmp_path):
    """``small_trainer(**loss settings)``: a trainer of two steps of four rows."""
    from datasets import Dataset

    from benchmarks.recipe import build_trainer, contrastive_loss, matryoshka

    profile = dataclasses.replace(load_profile("tiny"), per_device_train_batch_size=4)
    start = {name: weight.clone() for name, weight in random_model.state_dict().items()}
    texts = [f"pumps sold by Umber Paper in {year}" for year in range(2000, 2008)]
    answers = [text.upper() for text in texts]

    def build(**cut):
        random_model.load_state_dict(start)
        loss = contrastive_loss(profile, random_model, **cut)
        rows = Dataset.from_dict({"query": texts, "image": answers})
        wrapped = matryoshka(profile, random_model, loss)
        return build_trainer(profile, random_model, rows, wrapped, str(tmp_path))

    return build


def weights_after(trainer):
    import torch

    trainer.train()
    return torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])


def run_out_above(trainer, most: int, name: str) -> list[int]:
    """Let backward passes of ``trainer`` run out of memory while the loss allows more than
    ``most``.

    Returns a list that grows by the allowed number at each try.
    """
    import torch

    tried, backward, inner = [], trainer.accelerator.backward, trainer.loss.loss

    def limited(loss, **more):
        tried.append(getattr(inner, name))
        backward(loss, **more)  # gradients are there already when memory runs out
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trainer.accelerator.backward = limited
    return tried


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cut", "most", "tries"),
    [
        ("mini_batch_size", {"mini_batch_size": 4}, 1, [4, 2, 1, 1]),
        (
            "mini_batch_num_tokens",
            {"mini_batch_size": 4, "mini_batch_num_tokens": 700},
            300,
            [700, 350, 200, 200],
        ),
    ],
)
def test_a_step_without_memory_is_repeated_with_the_same_result(
    small_trainer, capsys, name, cut, most, tries
):
    """The step is repeated once per halving, the next one starts at the size that worked."""
    import torch

    expected = weights_after(small_trainer(**cut))
    trainer = small_trainer(**cut)
    tried = run_out_above(trainer, most, name)
    gpu.retry_when_out_of_memory(trainer)
    found = weights_after(trainer)
    assert tried == tries
    assert torch.allclose(found, expected, atol=1e-6)
    assert f"out of memory: {name} is now {tries[1]}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_step_that_never_fits_raises_and_other_errors_pass(small_trainer):
    import torch

    trainer = small_trainer(mini_batch_size=4)
    tried = run_out_above(trainer, 0, "mini_batch_size")
    gpu.retry_when_out_of_memory(trainer)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert tried == [4, 2, 1]

    trainer = small_trainer(mini_batch_size=4)

    def broken(loss, **more):
        raise RuntimeError("shapes do not match")

    trainer.accelerator.backward = broken
    gpu.retry_when_out_of_memory(trainer)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer.train()


@pytest.mark.parametrize("kind", ["CachedMultipleNegativesRankingLoss", "CoSENTLoss"])
def test_a_loss_without_matryoshka_is_cut_if_it_is_a_cached_one(random_model, kind):
    from sentence_transformers.sentence_transformer import losses

    loss = getattr(losses, kind)(random_model)
    trainer = SimpleNamespace(args=SimpleNamespace(gradient_accumulation_steps=1), loss=loss)
    trainer.training_step = step = lambda model, inputs: 0.0
    gpu.retry_when_out_of_memory(trainer)
    assert (trainer.training_step is not step) == hasattr(loss, "mini_batch_size")
    assert trainer.training_step(random_model, {}) == 0.0


def test_accumulated_gradients_cannot_be_repeated():
    trainer = SimpleNamespace(args=SimpleNamespace(gradient_accumulation_steps=2))
    with pytest.raises(ValueError, match="gradient_accumulation_steps must be 1"):
        gpu.retry_when_out_of_memory(trainer)


# the disk


def test_the_disk_by_hand(full):
    """A checkpoint of all weights is three times the weights, and two lie there for a moment."""
    weights = 2_127_532_032 * 2 / GIB
    needs = machine.disk_needs(full)
    assert needs["checkpoints"] == pytest.approx(6 * weights)
    assert needs["tuned model"] == needs["published model"] == pytest.approx(weights)
    assert needs["downloaded models"] == pytest.approx(2 * weights)  # base, and the published one
    assert needs["pages"] == pytest.approx(21_500 * 0.35 * 360_000 * 3 / GIB)
    lora = machine.disk_needs(fit_to_gpu(full, T4))
    assert lora["tuned model"] == pytest.approx(31_195_136 * 4 / GIB)
    assert lora["published model"] == pytest.approx(weights)  # merged
    assert machine.disk_needs(PROFILES["tiny"])["downloaded models"] == 0


def test_a_disk_that_is_too_small_is_announced_and_what_lies_there_counts(
    full, tmp_path, monkeypatch
):
    need = sum(machine.disk_needs(full).values())

    def said(free_gib):
        free = SimpleNamespace(free=free_gib * GIB)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
        return machine.check_disk(full, tmp_path / "outputs")

    assert said(need) is None
    assert said(20).startswith(f"20.0 GiB free, {need:.1f} GiB needed (checkpoints 23.8, ")
    pages = full.output_dir / "data" / "pages"
    pages.mkdir(parents=True)
    (pages / "0.png").write_bytes(bytes(2**20))
    assert said(need - 2**-10) is None


# the page about a free GPU


def test_the_figures_for_a_free_gpu_are_those_of_the_table(full):
    """Each row: training and eval rows, pages, GPU minutes (notebook a2's sum), disk in GiB."""
    page = FREE_GPU.read_text(encoding="utf-8")
    prose = " ".join(page.split())
    minutes = definitions("a2", "facts", "minutes")["minutes"]
    t4 = gpus()["T4"]
    chosen = settings_for(t4["capability"], t4["memory_gib"], [])
    needed = f"{chosen['gib']:.1f} of {t4['memory_gib']} GiB"
    assert f"{chosen['mini_batch_num_tokens']:,} tokens per pass" in prose
    assert needed in prose
    rows = re.findall(
        r"^\| ([\d,]+) : (\d+) \| ([\d,]+) \| (\d+) to (\d+) \| ([\d.]+) \|$", page, re.M
    )
    assert len(rows) == 2
    for train, evaluation, pages, fewest, most, disk in rows:
        train_rows, eval_rows = int(train.replace(",", "")), int(evaluation)
        asked = dataclasses.replace(full, train_rows=train_rows, eval_rows=eval_rows)
        low, high = minutes(t4, True, train_rows, 11 * 5 * eval_rows)
        assert int(pages.replace(",", "")) == 2 * train_rows + 5 * eval_rows
        assert (int(fewest), int(most)) == (round(low), round(high))
        assert float(disk) == round(sum(machine.disk_needs(fit_to_gpu(asked, T4)).values()), 1)


def test_the_free_gpus_run_is_hidden_from_the_setup_cell():
    """With one of these variables the setup cell would install the course once more."""
    from tools.badges import SETUP_CELL

    page = FREE_GPU.read_text(encoding="utf-8")
    hidden = re.findall(r"env -u (\w+) -u (\w+) python -m tools.run_course", page)[0]
    condition = SETUP_CELL.partition("& set(os.environ)")[0].rpartition("if ")[2]
    assert set(hidden) == set(re.findall(r'"([A-Z_]+)"', condition))
