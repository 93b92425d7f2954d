"""LoRA as notebook 03 attaches it: which weights train, in which format, and that the saved adapter
is the tuned model.
"""

import dataclasses

import pytest
import torch
from cells import prepare
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

from tools.gpu_memory import LORA
from vdr_helpers.profiles import load_profile
from vdr_helpers.splits import load_split
from vdr_helpers.training import add_adapters

pytestmark = pytest.mark.slow


def load(dtype="float32"):
    profile = load_profile("tiny")
    return SentenceTransformer(
        profile.base_model, model_kwargs={"dtype": dtype}, processor_kwargs=profile.processor_kwargs
    )


@pytest.fixture
def with_adapters(small_profile):
    return dataclasses.replace(small_profile, adapters=(LORA,))


def test_without_adapters_nothing_changes():
    model = load("float16")
    add_adapters(model, load_profile("tiny").adapters)
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}
    assert all(weight.requires_grad for weight in model.parameters())


def test_only_float32_matrices_of_the_language_model_are_trained(with_adapters):
    model = load("float16")
    add_adapters(model, with_adapters.adapters)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * len(LORA["target_modules"]) * 2  # layers x modules x (A, B)
    assert all("lora_" in name and "language_model" in name for name in trained)
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert {weight.dtype for name, weight in model.named_parameters() if name not in trained} == {
        torch.float16
    }


def test_a_trained_adapter_saves_and_reloads_as_the_tuned_model(with_adapters, tmp_path):
    model, base = load(), load()
    add_adapters(model, with_adapters.adapters)
    prepare(with_adapters)
    rows, _ = load_split(with_adapters, "train")
    args = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    model.model_card_data.generate_widget_examples = False
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)
    SentenceTransformerTrainer(model=model, args=args, train_dataset=rows, loss=loss).train()
    model.save_pretrained(str(tmp_path / "tuned"), create_model_card=False)
    assert (tmp_path / "tuned" / "adapter_model.safetensors").exists()
    assert not (
        tmp_path / "tuned" / "model.safetensors"
    ).exists()  # two million weights are not saved twice
    texts = ["Alder Energy revenue 2020", "Which page gives the wages of Birch Rail?"]
    reloaded = SentenceTransformer(
        str(tmp_path / "tuned"), device="cpu", model_kwargs={"dtype": "float32"}
    )
    tuned = torch.from_numpy(model.encode_query(texts))
    assert torch.allclose(torch.from_numpy(reloaded.encode_query(texts)), tuned, atol=1e-5)
    assert (torch.from_numpy(base.encode_query(texts)) - tuned).abs().max() > 1e-3
