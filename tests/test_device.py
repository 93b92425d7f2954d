"""What each card is given, and that the reason is said; no card is needed."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.sizing import LORA, choice_for, describe_card
from vdr_helpers import machine
from vdr_helpers.machine import Card, fit_to_card
from vdr_helpers.profiles import load_profile

T4 = Card("Tesla T4", (7, 5), 14.56)
L4 = Card("NVIDIA L4", (8, 9), 22.03)
A100 = Card("NVIDIA A100-SXM4-40GB", (8, 0), 39.50)
H100 = Card("NVIDIA H100 80GB HBM3", (9, 0), 79.1)
CPU = Card("CPU")
FLASH_ATTENTION = "kernels-community/flash-attn2"  # the name under which transformers takes it from the package kernels


def torch_sees_a_card() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def full(monkeypatch):
    monkeypatch.delenv("VDR_ATTENTION", raising=False)
    return load_profile("full")


@pytest.mark.parametrize(("card", "key"), [(T4, "T4"), (L4, "L4"), (A100, "A100-40"), (H100, "H100")])
def test_a_card_is_given_what_notebook_00_says_of_it(full, card, key, capsys):
    """One answer to "what fits": what the setup cell takes is what notebook 00, a2 and docs/free_card.md look up."""
    fitted, choice = fit_to_card(full, card), choice_for(key)
    assert fitted.mini_batch_num_tokens == choice["mini_batch_num_tokens"]
    assert fitted.model_kwargs == {"dtype": choice["dtype"], "attn_implementation": "sdpa"}
    assert (fitted.bf16, fitted.fp16) == (card.capability >= (8, 0), card.capability < (8, 0))
    assert fitted.learning_rate == (full.adapter_learning_rate if choice["lora"] else full.learning_rate)
    assert fitted.adapters == ((LORA,) if choice["lora"] else ())
    said = capsys.readouterr().out
    assert said.startswith(f"{card.name}: compute capability ")
    assert f"{choice['mini_batch_num_tokens']:,} tokens" in said and choice["source"] in said


def test_a_t4_trains_adapters_in_float16_at_their_own_rate_and_is_told_why(full, capsys):
    fitted = fit_to_card(full, T4)
    said = capsys.readouterr().out
    assert fitted.model_kwargs == {"dtype": "float16", "attn_implementation": "sdpa"}
    assert (fitted.bf16, fitted.fp16, fitted.adapters) == (False, True, (LORA,))
    assert fitted.learning_rate == full.adapter_learning_rate == 2e-4
    assert fitted.mini_batch_num_tokens % 361 == 0
    for words in (
        "float16 autocast: it has no units for bfloat16",
        "not all weights: 39.6 GiB at one page per pass",
        "a learning rate of 0.0002 instead of 2e-05",
    ):
        assert words in said
    assert fitted.comparable_score(0.9) is None
    assert "LoRA on the language model instead of all weights" in fitted.deviations


def test_an_h100_trains_the_published_setting(full):
    fitted = fit_to_card(full, H100)
    assert (fitted.mini_batch_num_tokens, fitted.learning_rate, fitted.adapters) == (5600, 2e-5, ())
    assert fitted.deviations == () and fitted.comparable_score(0.9) == (2.1, 0.9)


def test_a_card_that_is_not_listed_is_judged_by_its_memory_and_capability(full):
    assert describe_card(*(T4.name, T4.memory_gib, T4.capability)) == "T4"
    part = describe_card("NVIDIA H100 80GB HBM3", 9.8, (9, 0))  # a listed name, an eighth of its memory
    assert part["memory_mib"] == 9.8 * 1024
    twin = fit_to_card(full, Card("NVIDIA RTX A5000", (8, 6), 22.49))
    listed = fit_to_card(full, L4)
    assert (twin.model_kwargs, twin.adapters) == (listed.model_kwargs, listed.adapters)
    assert twin.mini_batch_num_tokens == listed.mini_batch_num_tokens
    large = fit_to_card(full, Card("NVIDIA H200", (9, 0), 139.8))
    assert large.mini_batch_num_tokens == full.mini_batch_num_tokens  # more room does not raise the budget
    volta = fit_to_card(full, Card("Tesla V100", (7, 0), 31.7))
    assert (volta.model_kwargs["dtype"], volta.fp16, volta.adapters) == ("float16", True, (LORA,))


def test_a_card_without_room_gets_one_page_and_a_warning(full, capsys):
    tight = fit_to_card(full, Card("GeForce GTX 1650", (7, 5), 3.8))
    assert (tight.mini_batch_num_tokens, tight.adapters) == (361, (LORA,))
    assert "even that may not fit: take a larger card" in capsys.readouterr().out


def test_without_a_card_weights_are_float32_and_tiny_stays_as_it_is(full, capsys):
    for card in (CPU, Card("Apple GPU")):
        fitted = fit_to_card(full, card)
        assert (fitted.bf16, fitted.fp16, fitted.learning_rate, fitted.adapters) == (False, False, full.learning_rate, ())
        assert fitted.model_kwargs == {"dtype": "float32", "attn_implementation": "sdpa"}
        assert f"{card.name}: no CUDA card" in capsys.readouterr().out
    tiny = load_profile("tiny")
    assert fit_to_card(tiny, H100) is tiny
    assert capsys.readouterr().out == ""


def test_torchs_own_answer_about_bfloat16_is_not_asked(full, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *arguments, **settings: True)  # as on a T4, where it is emulated
    assert fit_to_card(full, T4).fp16


def test_compiled_code_of_the_hub_runs_only_when_it_is_asked_for(full, monkeypatch, capsys):
    assert fit_to_card(full, A100).model_kwargs["attn_implementation"] == "sdpa"
    monkeypatch.setenv("VDR_ATTENTION", FLASH_ATTENTION)
    assert fit_to_card(full, A100).model_kwargs["attn_implementation"] == FLASH_ATTENTION
    assert f"attention: {FLASH_ATTENTION}\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(torch_sees_a_card(), reason="there it may be able to run")
def test_an_attention_that_cannot_run_here_is_named_as_the_model_is_loaded(monkeypatch):
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for attention, said in ((FLASH_ATTENTION, "pip install kernels"), ("flash_attention_2", "FlashAttention2 .*cannot be used")):
        with pytest.raises(ImportError, match=said):
            SentenceTransformer(load_profile("tiny").base_model, model_kwargs={"attn_implementation": attention})


@pytest.mark.parametrize(
    ("cores", "shared", "workers"), [(16, 64e9, 4), (2, 64e9, 2), (16, 64 * 2**20, 0), (16, 3.4e9, 3), (16, None, 4)]
)
def test_workers_are_as_many_as_cores_and_shared_memory_allow(full, cores, shared, workers, tmp_path, monkeypatch, capsys):
    """A worker holds two batches of 128 pages of 360,000 pixels of six numbers of two bytes: 1.11 GB."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path if shared else Path("nowhere"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=shared or 64e9))
    assert fit_to_card(full, H100).dataloader_num_workers == workers
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"{workers} processes open pages ahead (the profile's 4, processor cores {cores}")
    assert "each holds 2 batches of 0.55 GB" in line


@pytest.fixture
def on_two_cards(monkeypatch, capsys):
    """``on_two_cards(*state, **environment)``: the lines of a setup cell that sees two cards, and which are visible after it.

    ``state``: "started" when CUDA is in use, "stuck" when its driver was asked for the count already.
    """
    import torch

    def call(*state, **environment):
        with monkeypatch.context() as patch:
            for name in (machine.VISIBLE, "LOCAL_RANK"):
                patch.setenv(name, "")  # noted, so that what the call sets does not stay
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            seen = (lambda: 2) if "stuck" in state else lambda: len(os.environ.get(machine.VISIBLE, "0,1").split(","))
            patch.setattr(torch.cuda, "device_count", seen)
            patch.setattr(torch.cuda, "is_initialized", lambda: "started" in state)
            machine.use_first_card()
            return [*capsys.readouterr().out.splitlines(), os.environ.get(machine.VISIBLE)]

    return call


def test_of_two_cards_only_the_first_is_visible(on_two_cards):
    assert on_two_cards() == ["2 CUDA cards: the course uses the first (CUDA_VISIBLE_DEVICES=0)", "0"]
    assert on_two_cards(CUDA_VISIBLE_DEVICES="2,3")[-1] == "2"
    assert on_two_cards(CUDA_VISIBLE_DEVICES="1") == ["1"]
    assert on_two_cards(LOCAL_RANK="0") == [None]  # torchrun gives each process its card


@pytest.mark.parametrize("state", ["started", "stuck"])
def test_two_cards_already_in_use_are_an_error_with_the_way_out(on_two_cards, state):
    with pytest.raises(RuntimeError) as error:
        on_two_cards(state)
    assert str(error.value) == "2 CUDA cards are in use and the course trains on one: restart the kernel, run this cell first"
