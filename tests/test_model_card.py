"""The model card that the library writes when notebook 03 saves its model: pages for paths, names
with commits, the whole log.
"""

import re
from types import SimpleNamespace

import numpy
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
)

from tools.private_details import private_details
from vdr_helpers.model_card import (
    column_statistics,
    count_tokens,
    facts,
    licence_of,
    provenance,
    score_tables,
    set_evaluation,
    set_facts,
    set_head,
    set_sizes,
    whole_log,
)
from vdr_helpers.models import folder_to_publish, merge_adapters, report_refusal, save_tuned
from vdr_helpers.profiles import load_profile

HISTORY = [
    {"step": 8, "epoch": 0.25, "loss": 9.1},
    {"step": 16, "epoch": 0.5, "loss": 6.7},
    {"step": 16, "epoch": 0.5, "eval_loss": 8.3, "eval_vdr-eval-hard_cosine_ndcg@10": 0.9},
    {"step": 16, "epoch": 0.5, "train_runtime": 1.0},
]


def rows_of(folder, name: str, negatives: int):
    """Three rows of ``name`` whose pages are PNG files of noise, 64 to 128 pixels wide."""
    draw, columns = numpy.random.default_rng(0), {"query": [f"{name} {i}?" for i in range(3)]}
    for column in ("image", *(f"negative_{i}" for i in range(negatives))):
        files = [folder / f"{name}_{column}_{i}.png" for i in range(3)]
        for i, file in enumerate(files):
            noise = draw.integers(0, 255, (96, 64 + 32 * i, 3), dtype="uint8")
            Image.fromarray(noise).save(file)
        columns[column] = [str(file) for file in files]
    return Dataset.from_dict(columns)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """``(profile, model, trainer)`` as a run leaves them that was resumed after step 16; the hub
    must not be asked.
    """

    def asked(*arguments, **settings):
        raise AssertionError(f"the hub was asked for {arguments}")

    for name in ("get_model_info", "get_dataset_info"):
        monkeypatch.setattr(f"sentence_transformers.base.model_card.{name}", asked)
    profile = load_profile("tiny")
    model = SentenceTransformer(profile.base_model, model_kwargs=profile.model_kwargs, device="cpu")
    model.model_card_data.add_tags("generated_from_trainer")  # as every trainer does
    model.model_card_data.training_logs = [{"Epoch": 0.75, "Step": 24, "Training Loss": 5.9}]
    model.model_card_data._training_start_time = 1.0
    model.model_card_data.widget = [{"text": str(tmp_path)}]
    inner = CachedMultipleNegativesRankingLoss(model)
    trainer = SimpleNamespace(
        train_dataset=rows_of(tmp_path, "train", 1),
        eval_dataset=rows_of(tmp_path, "eval", 4),
        loss=MatryoshkaLoss(model, inner, list(profile.matryoshka_dims)),
        state=SimpleNamespace(log_history=HISTORY),
        args=SimpleNamespace(
            output_dir=str(tmp_path / "elsewhere"),
            bf16=False,
            fp16=False,
            learning_rate=7e-4,
            num_train_epochs=1.0,
            train_batch_size=64,
            seed=42,
        ),
    )
    return profile, model, trainer


def test_statistics_by_hand(processor, tmp_path):
    queries = ["Rent 2014", "Rent", "What was the Rent of Alder Energy in 2014?"]
    files = []
    for i, size in enumerate([(40, 60), (60, 40), (100, 30)]):
        files.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", size).save(files[-1])
    counts = [count_tokens(query, processor) for query in queries]
    template = len("<|im_start|>system|Represent|the|user's|input.<|im_end|>".split("|"))
    words = [len(processor.tokenizer.tokenize(query)) for query in queries]
    assert all(count > word + template for count, word in zip(counts, words, strict=True)), (
        "the chat template stands around the query"
    )
    assert counts[0] - counts[1] >= 4  # one token per digit
    found = column_statistics(Dataset.from_dict({"query": queries, "image": files}), processor)
    mean = f"{sum(counts) / 3:.4g} tokens"
    assert found["query"] == ["string", f"{counts[1]} tokens", mean, f"{counts[2]} tokens"]
    assert found["image"] == ["image", "40x60 or 60x40 px", "67x43 px", "100x30 px"]


def test_the_card_shows_pages_and_no_path(trained, tmp_path):
    profile, model, trainer = trained
    folder = save_tuned(profile, model, trainer)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and str(profile.base_model) not in text
    assert "min: 64x96 px" in text and "max: 128x96 px" in text
    assert "* Size: 3 evaluation samples" in text
    shown = re.findall(r'<img src="(assets/.*?)"', text)
    documents = re.findall(r"^    '(assets/.*)',$", text, re.MULTILINE)
    assert (len(shown), len(documents)) == (3 * (2 + 5), 3)
    assert all((folder / picture).is_file() for picture in shown + documents)
    assert "# tensor([[" in text, "the scores of the usage example"
    assert "trained on the generated dataset" in text
    assert "widget" not in ModelCard(text).data.to_dict()


def test_the_card_is_the_same_each_time_and_counts_no_minutes(trained):
    first = save_tuned(*trained) / "README.md"
    before = first.read_text(encoding="utf-8")
    assert (save_tuned(*trained) / "README.md").read_text(encoding="utf-8") == before
    assert "Training Time" not in before


def test_a_base_and_a_dataset_of_the_hub_are_named_with_their_commits(trained, monkeypatch):
    commit = "c" * 40
    monkeypatch.setattr(
        "vdr_helpers.models.resolve_revision",
        lambda profile, role: {"name": f"owner/{role}", "revision": commit},
    )
    card = ModelCard.load(save_tuned(*trained) / "README.md")
    assert card.data.base_model == "owner/model"
    assert card.data.datasets == ["owner/dataset"]
    assert f"https://huggingface.co/datasets/owner/dataset/tree/{commit}" in card.text


def test_a_resumed_run_keeps_the_log_of_its_first_part(trained):
    text = (save_tuned(*trained) / "README.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| 0.")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells == [
        ["0.25", "8", "9.1", "-", "-"],
        ["0.5", "16", "6.7", "8.3", "0.9"],
        ["0.75", "24", "5.9", "-", "-"],
    ]


def test_a_score_from_before_the_training_stays_in_front():
    card_log = [{"Epoch": -1, "Step": -1}, {"Epoch": 0.75, "Step": 24}, {"Epoch": -1, "Step": -1}]
    assert [row["Step"] for row in whole_log(card_log, HISTORY)] == [-1, 8, 16, 24, -1]
    assert whole_log(card_log, []) == card_log


@pytest.mark.parametrize(
    ("base", "stated"),
    [
        ("Qwen/Qwen3-VL-Embedding-2B", "apache-2.0"),
        ("assets/tiny-base", "apache-2.0"),
        ("BAAI/BGE-VL-base", "mit"),
        ("nvidia/omni-embed-nemotron-3b", None),
        ("owner/unknown", None),
    ],
)
def test_a_licence_is_stated_where_it_is_known_and_free(base, stated):
    assert licence_of(base) == stated


def test_a_fact_is_set_whether_the_library_knew_one_or_not():
    text = "- **Language:** de\n<!-- - **License:** Unknown -->\n- **Training Dataset:**\n    - pages\n"
    text = set_facts(text, {"Language": "en", "License": r"a \1 licence"})
    assert facts(text) == {
        "Language": "en",
        "License": r"a \1 licence",
        "Training Dataset": "pages",
    }
    assert "<!--" not in text


def test_the_sizes_are_those_of_the_model_that_ships():
    text = "- **Maximum Sequence Length:** 9 tokens\n- **Output Dimensionality:** 256 dimensions\n"
    config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=2048))

    class Model(list):
        def get_embedding_dimension(self):
            return 128

    model = Model([SimpleNamespace(auto_model=SimpleNamespace(config=config))])
    assert facts(set_sizes(text, model, (256, 128))) == {
        "Maximum Sequence Length": "2048 tokens",
        "Output Dimensionality": "256, 128 dimensions, default 128",
    }


@pytest.mark.parametrize(("licence", "told"), [("mit", "mit"), (None, "not known here: look")])
def test_title_language_and_licence_stand_in_head_and_text(licence, told):
    metrics = {
        "model-index": [{"name": "x", "results": []}],
        "metrics": ["cosine_ndcg@10"],
        "eval_metrics": [{"table": "| a table |"}],
    }
    data = SimpleNamespace(format_eval_metrics=lambda: metrics)
    card = ModelCard(
        "---\ntags:\n- x\n---\n# Old\n\n- **Language:** de\n<!-- - **License:** ? -->\n"
    )
    fields = {"language": "en", "license": licence, "pipeline_tag": "visual-document-retrieval"}
    assert set_head(card, SimpleNamespace(model_card_data=data), "New", fields) == "| a table |"
    assert (data.model_name, card.data.model_name) == ("New", "New")
    assert (card.data.language, card.data.license) == ("en", licence)
    assert card.data.metrics == ["cosine_ndcg@10"]
    assert card.text.lstrip().startswith(f"# New\n\n- **Language:** en\n- **License:** {told}")


def test_what_a_model_was_made_from_is_told_where_its_manifest_says_so(trained, tmp_path):
    profile, model, trainer = trained
    base, different = provenance(save_tuned(profile, model, trainer))
    assert base == "assets/tiny-base"
    assert different.splitlines() == [f"- {setting}" for setting in profile.deviations]
    assert provenance(str(tmp_path)) == ("not known", "- not known here")


def test_scores_by_dimension_stand_below_the_metrics_where_they_are_known():
    truncation = {"base": {"16": 0.5, "8": 0.25}, "finetuned": {"16": 0.75, "8": 0.6251}}
    table = score_tables("| metrics |", truncation)
    assert table.startswith("| metrics |\n\nNDCG@10 of base and tuned model by dimension:\n\n|")
    assert table.endswith("|---|---|---|\n| 16 | 0.500 | 0.750 |\n| 8 | 0.250 | 0.625 |")
    assert score_tables("| metrics |", None) == "| metrics |"


def test_the_own_evaluation_takes_the_place_of_the_librarys():
    own = "## Evaluation\n\nours\n\n## Limits\n"
    card = "# A\n\n## Usage\n\nuse\n\n## Evaluation\n\ntheirs\n\n## Training Details\n\nsteps\n"
    expected = f"# A\n\n## Usage\n\nuse\n\n{own}\n## Training Details\n\nsteps\n"
    assert set_evaluation(card, own) == expected
    assert set_evaluation(card.replace("## Evaluation\n\ntheirs\n\n", ""), own) == expected


def test_lora_is_merged_so_that_no_path_leaves(tmp_path):
    from peft import LoraConfig

    profile = load_profile("tiny")
    settings = {
        "model_kwargs": profile.model_kwargs,
        "processor_kwargs": profile.processor_kwargs,
        "device": "cpu",
    }
    model = SentenceTransformer(profile.base_model, **settings)
    assert merge_adapters(model, profile.base_model, profile) is model
    base = model.encode_query(["Alder Energy revenue 2020"])
    model.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "up_proj"]))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.2)
    source = str(tmp_path / "tuned")
    model.save_pretrained(source, create_model_card=False)
    (tmp_path / "tuned" / "README.md").write_text("# The tuned model\n")
    [found] = private_details(tmp_path / "tuned")
    assert found.startswith("adapter_config.json: a path of this machine (line ")

    tuned = SentenceTransformer(source, truncate_dim=128, **settings)
    expected = tuned.encode_query(["Alder Energy revenue 2020"])
    assert abs(expected - base[:, :128]).max() > 0.01
    folder = tmp_path / "published"
    merge_adapters(tuned, source, profile).save_pretrained(str(folder))
    assert private_details(folder) == []
    assert not list(folder.glob("adapter*"))
    assert (folder / "README.md").read_text() == "# The tuned model\n"
    # as a stranger: no settings, no base
    published = SentenceTransformer(str(folder), device="cpu")
    assert not getattr(published[0].auto_model, "peft_config", None)
    assert abs(published.encode_query(["Alder Energy revenue 2020"]) - expected).max() < 1e-5


def test_the_folder_to_publish_holds_the_cards_pages_and_nothing_of_before(tmp_path):
    profile, tuned = load_profile("tiny"), tmp_path / "tuned"
    (tuned / "assets").mkdir(parents=True)
    (tuned / "assets" / "image_0.jpg").write_bytes(b"page")
    folder = folder_to_publish(profile, "owner/model-of-the-hub")
    assert list(folder.iterdir()) == []
    (folder / "old.safetensors").write_bytes(b"old")
    assert folder_to_publish(profile, str(tuned)) == folder == profile.output_dir / "published"
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert files == ["assets/image_0.jpg"]


def test_a_refusal_is_told_and_goes_no_further(tmp_path, capsys):
    folder = tmp_path / "tiny" / "published"
    with report_refusal(folder):
        print("published")
    with report_refusal(folder):
        raise PermissionError("403: no right")
    assert capsys.readouterr().out.splitlines() == [
        "published",
        "not published (PermissionError): 403: no right",
        "The model is safe in tiny/published, in your outputs folder.",
    ]
