"""What each card is given, and that the reason is said; no card is needed."""

import os
import subprocess
import sys

import pytest

from vdr_helpers import device
from vdr_helpers.architecture import LORA
from vdr_helpers.device import Card, decide, fit_to_card, token_budget
from vdr_helpers.presets import preset
from vdr_helpers.profiles import load_profile

T4 = Card("Tesla T4", (7, 5), 14.7)
L4 = Card("NVIDIA L4", (8, 9), 22.0)
A100 = Card("NVIDIA A100-SXM4-40GB", (8, 0), 39.4)
H100 = Card("NVIDIA H100 80GB HBM3", (9, 0), 79.1)
CPU = Card("CPU")


@pytest.mark.parametrize(
    ("card", "weights", "autocast", "attention"),
    [
        (T4, "float16", "fp16", "sdpa"),
        (L4, "bfloat16", "bf16", device.FLASH_ATTENTION),
        (A100, "bfloat16", "bf16", device.FLASH_ATTENTION),
        (H100, "bfloat16", "bf16", device.FLASH_ATTENTION),
        (CPU, "float32", None, "sdpa"),
    ],
    ids=lambda value: value.name if isinstance(value, Card) else None,
)
def test_the_decision_per_card(card, weights, autocast, attention):
    chosen = decide(card, kernels_installed=True)
    assert (chosen.weights, chosen.autocast, chosen.attention) == (weights, autocast, attention)
    assert chosen.model_kwargs == {"dtype": weights, "attn_implementation": attention}
    assert card.name in chosen.reasons[0]
    without = decide(card, kernels_installed=False)
    assert without.attention == "sdpa"
    assert (without.weights, without.autocast) == (weights, autocast)


def test_a_t4_is_told_why():
    said = "\n".join(decide(T4, kernels_installed=True).reasons)
    assert "bfloat16 needs compute capability 8.0, this card has 7.5" in said
    assert "SDPA attention: FlashAttention 2 needs compute capability 8.0" in said
    assert "LoRA: training all weights does not fit" in said


def test_the_reason_for_sdpa_on_a_new_card_is_the_missing_package():
    assert any("the package kernels is not installed" in line for line in decide(A100, kernels_installed=False).reasons)


def test_torchs_own_answer_about_bfloat16_is_not_asked(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *arguments, **settings: True)  # as on a T4
    assert decide(T4, kernels_installed=False).autocast == "fp16"


def test_the_budget_is_the_planners():
    """Whole pages of 340 image tokens and 21 of text; room as the planner computes it, a tenth of the card left free."""
    assert device.page_tokens() == 361
    assert token_budget(14.7) is None
    assert token_budget(21.5) is None  # 0.9 x 21.5 GiB is short of one page
    assert token_budget(79.1) == 5600  # room for more, held at the most that pays
    for memory, card in ((22.0, "L4"), (40.0, "A100-40")):
        assert token_budget(memory) // 361 == preset(card, receipts=[]).plan.pages_per_pass


def test_a_card_too_small_for_all_weights_gets_lora_as_its_preset_has_it():
    chosen, planned = decide(T4, kernels_installed=False), preset("T4", receipts=[])
    assert chosen.lora and planned.settings["lora"] == LORA
    assert chosen.weights == planned.settings["model_kwargs"]["dtype"] == "float16"
    assert not decide(A100, kernels_installed=False).lora and preset("A100-40", receipts=[]).settings["lora"] is None
    volta = decide(Card("Tesla V100", (7, 0), 31.7), kernels_installed=False)
    assert (volta.weights, volta.autocast) == (("float16", "fp16") if volta.lora else ("float32", "fp16"))


def test_a_card_without_room_gets_one_page_and_no_card_gets_no_budget():
    tight = decide(Card("GeForce GTX 1650", (7, 5), 3.8), kernels_installed=False)
    assert tight.mini_batch_num_tokens == 361 and any("take a larger card" in line for line in tight.reasons)
    assert decide(CPU, kernels_installed=False).mini_batch_num_tokens is None


def test_full_follows_the_card_and_tiny_stays_as_it_is(capsys):
    tiny = load_profile("tiny")
    assert fit_to_card(tiny, H100, True) is tiny
    assert capsys.readouterr().out == ""

    full = load_profile("full")
    fitted = fit_to_card(full, T4, True)
    assert (fitted.bf16, fitted.fp16) == (False, True)
    assert fitted.model_kwargs == {"dtype": "float16", "attn_implementation": "sdpa"}
    assert fitted.mini_batch_num_tokens >= 361 and fitted.mini_batch_num_tokens % 361 == 0
    assert fitted.adapters == (LORA,) and fit_to_card(full, A100, False).adapters == ()
    said = capsys.readouterr().out
    assert "T4" in said and "learning rate 0.0002 for the adapters" in said
    assert fitted.learning_rate == full.adapter_learning_rate == 2e-4
    assert fitted.comparable_score(0.9) is None and "LoRA on the language model instead of all weights" in fitted.deviations
    assert fit_to_card(full, A100, False).mini_batch_num_tokens == 7 * 361
    published = fit_to_card(full, H100, False)
    assert (published.bf16, published.fp16) == (True, False)
    assert published.model_kwargs["dtype"] == "bfloat16"
    assert published.mini_batch_num_tokens == full.mini_batch_num_tokens
    assert published.learning_rate == full.learning_rate
    assert published.deviations == () and published.comparable_score(0.9) == (2.1, 0.9)
    on_cpu = fit_to_card(full, CPU, False)
    assert (on_cpu.bf16, on_cpu.fp16) == (False, False)
    assert on_cpu.model_kwargs["dtype"] == "float32"


TWO_CARDS = """
import os, sys, torch
torch.cuda.device_count = lambda: len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(","))
torch.cuda.is_initialized = lambda: "started" in sys.argv
if "stuck" in sys.argv:  # the count of a process that has asked its driver already
    torch.cuda.device_count = lambda: 2
from vdr_helpers.device import fit_to_card
from vdr_helpers.profiles import load_profile
fit_to_card(load_profile("tiny"))
print(os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def on_two_cards(*state, **environment):
    """The setup cell's call in a process of its own that sees two cards: ``state`` is "started" when CUDA is in use."""
    kept = {name: value for name, value in os.environ.items() if name not in (device.VISIBLE, "LOCAL_RANK")}
    return subprocess.run([sys.executable, "-c", TWO_CARDS, *state], env=kept | environment, capture_output=True, text=True)


def test_of_two_cards_only_the_first_is_visible():
    assert on_two_cards().stdout.splitlines() == ["2 CUDA cards: the course uses the first (CUDA_VISIBLE_DEVICES=0)", "0"]
    assert on_two_cards(CUDA_VISIBLE_DEVICES="2,3").stdout.splitlines()[-1] == "2"
    assert on_two_cards(CUDA_VISIBLE_DEVICES="1").stdout.splitlines() == ["1"]
    assert on_two_cards(LOCAL_RANK="0").stdout.splitlines() == ["None"]  # torchrun gives each process its card


@pytest.mark.parametrize("state", ["started", "stuck"])
def test_two_cards_already_in_use_are_an_error_with_the_way_out(state):
    error = on_two_cards(state).stderr.splitlines()[-1]
    assert error == (
        "RuntimeError: 2 CUDA cards are in use and the course trains on one: restart the kernel, run this cell first"
    )


def test_the_present_card_is_read_from_torch(monkeypatch):
    import torch

    class Properties:
        name, major, minor, total_memory = "Tesla T4", 7, 5, 15 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    assert device.present_card() == Card("Tesla T4", (7, 5), 15.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.present_card() == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    apple = device.present_card()
    assert apple == Card("Apple GPU")
    chosen = decide(apple, kernels_installed=True)
    assert (chosen.weights, chosen.autocast, chosen.attention) == ("float32", None, "sdpa")
