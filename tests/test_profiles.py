"""Profiles and the published figures: one place for what differs, and the published numbers as the
card prints them.
"""

import math
import re
from dataclasses import replace

import pytest
from cells import printable

from vdr_helpers import machine, profiles
from vdr_helpers.profiles import PROFILES, assets_folder, load_profile, outputs_folder, shipped
from vdr_helpers.published import published
from vdr_helpers.splits import resolve_revision


def test_tiny_is_the_default_and_the_variable_chooses(monkeypatch):
    assert load_profile().name == "tiny"
    monkeypatch.setenv("VDR_PROFILE", "full")
    assert load_profile().name == "full"
    assert load_profile("tiny").name == "tiny"  # an argument wins


def test_an_unknown_profile_is_told_the_names(monkeypatch):
    with pytest.raises(ValueError, match=r"unknown profile 'huge'.*one of .*tiny.*full"):
        load_profile("huge")
    monkeypatch.setenv("VDR_PROFILE", "Tiny")
    with pytest.raises(ValueError, match="unknown profile 'Tiny'"):
        load_profile()


def test_outputs_go_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("VDR_OUTPUTS", str(tmp_path / "elsewhere"))
    assert outputs_folder() == tmp_path / "elsewhere"
    assert load_profile("tiny").output_dir == tmp_path / "elsewhere" / "tiny"
    assert load_profile("full").output_dir == tmp_path / "elsewhere" / "full"


@pytest.mark.parametrize("text", ["~/course", "$HOME/course", "${HOME}/course"])
def test_the_outputs_variable_is_expanded(tmp_path, monkeypatch, text):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VDR_OUTPUTS", text)
    assert outputs_folder() == tmp_path / "course"


def test_a_relative_outputs_folder_is_one_folder_for_kernels_and_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("VDR_OUTPUTS", "mine")
    clone = profiles.PACKAGE.parent
    for folder in (tmp_path, clone / "notebooks"):
        monkeypatch.chdir(folder)
        assert outputs_folder() == clone / "mine"


@pytest.mark.parametrize(
    "text", ["~no-such-user/x", "$NO_SUCH_VARIABLE/x", "${NO_SUCH_VARIABLE}/x"]
)
def test_an_outputs_folder_that_cannot_be_expanded_is_refused(monkeypatch, text):
    monkeypatch.setenv("VDR_OUTPUTS", text)
    with pytest.raises(ValueError, match=r"VDR_OUTPUTS is .*: write the whole path"):
        load_profile()


def test_a_revision_of_the_query_model_is_refused_not_dropped(monkeypatch):
    monkeypatch.setenv("VDR_QUERY_MODEL", "owner/name@abc")
    with pytest.raises(ValueError, match="VDR_QUERY_MODEL takes no revision"):
        load_profile()


@pytest.mark.parametrize(
    "name",
    [
        "VDR_OUTPUTS",
        "VDR_PROFILE",
        "VDR_MODEL",
        "VDR_ROWS",
        "VDR_ATTENTION",
        "VDR_SPLIT",
        "VDR_DOCUMENTS",
    ],
)
def test_a_variable_set_to_nothing_counts_as_unset(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    unset = load_profile()
    monkeypatch.setenv(name, "")
    assert load_profile() == unset


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("8:1", "2:2 is the least"),
        ("1:8", "2:2 is the least"),
        ("0:0", "2:2"),
        ("8", "such as 24:6"),
        ("-2:4", "such as 24:6"),
    ],
)
def test_too_few_rows_are_refused(monkeypatch, rows, said):
    monkeypatch.setenv("VDR_ROWS", rows)
    with pytest.raises(ValueError, match=said):
        load_profile()


def test_a_file_in_place_of_a_folder_is_named(monkeypatch, tmp_path):
    (tmp_path / "manual.pdf").write_bytes(b"%PDF")
    monkeypatch.setenv("VDR_DOCUMENTS", str(tmp_path / "manual.pdf"))
    with pytest.raises(ValueError, match=r"manual\.pdf: name the folder that holds it"):
        load_profile()


def test_the_publishers_split_is_asked_for_by_name(monkeypatch):
    monkeypatch.setenv("VDR_SPLIT", "published")
    assert load_profile().split == "published"
    monkeypatch.setenv("VDR_SPLIT", "theirs")
    with pytest.raises(ValueError, match="VDR_SPLIT must be 'published' or unset, not 'theirs'"):
        load_profile()


def test_without_the_variable_outputs_lie_in_the_checkout_else_in_this_folder(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("VDR_OUTPUTS")
    package = tmp_path / "clone" / "vdr_helpers"
    package.mkdir(parents=True)
    (tmp_path / "clone" / "notebooks").mkdir()
    monkeypatch.setattr(profiles, "PACKAGE", package)
    assert outputs_folder() == tmp_path / "clone" / "outputs"
    (tmp_path / "clone" / "notebooks").rmdir()  # installed from a wheel
    monkeypatch.chdir(tmp_path)
    assert outputs_folder() == tmp_path / "outputs"


def test_shipped_models_are_found_beside_or_inside_the_package(tmp_path, monkeypatch):
    assert shipped("Qwen/Qwen3-VL-Embedding-2B") == "Qwen/Qwen3-VL-Embedding-2B"
    monkeypatch.setattr(profiles, "PACKAGE", tmp_path / "vdr_helpers")
    assert shipped("assets/tiny-base") == str(tmp_path / "assets" / "tiny-base")
    (tmp_path / "vdr_helpers" / "assets").mkdir(parents=True)
    assert shipped("assets/tiny-base") == str(tmp_path / "vdr_helpers" / "assets" / "tiny-base")


def test_tiny_dimensions_are_the_published_ones_divided_by_eight():
    assert PROFILES["full"].matryoshka_dims == (2048, 1536, 1024, 512, 256, 128, 64)
    assert load_profile("tiny").matryoshka_dims == (256, 192, 128, 64, 32, 16, 8)
    assert load_profile("tiny").truncate_dim * 8 == load_profile("full").truncate_dim


def test_full_is_the_published_experiment():
    full, card = load_profile("full"), published()["hyperparameters"]
    assert full.per_device_train_batch_size == card["per_device_train_batch_size"] == 64
    assert full.learning_rate == card["learning_rate"] == 2e-5
    assert full.num_train_epochs == card["num_train_epochs"] == 1
    assert full.warmup_steps == card["warmup_steps"] == 0.1
    assert full.seed == card["seed"] == 42
    assert full.bf16 is card["bf16"] is True
    assert list(full.matryoshka_dims) == card["matryoshka_dims"]
    assert full.truncate_dim == card["truncate_dim"] == 1024
    assert full.train_rows == card["train_rows"] == 10_000
    assert full.eval_rows == published()["queries"] == 300
    assert full.model_name == published()["base_model"]
    assert full.finetuned_name == published()["model"]
    # the card's last step
    assert math.ceil(full.train_rows / full.per_device_train_batch_size) == 157


def test_full_takes_one_negative_and_keeps_the_published_rows():
    full = load_profile("full")
    assert full.negatives_per_train_row == 1
    assert full.distinct_eval_pages is False
    assert (full.mini_batch_size, full.mini_batch_num_tokens) == (64, 5600)
    assert full.max_pixels == 360_000
    assert full.preprocessed_name == "tomaarsen/llamaindex-vdr-en-train-preprocessed"
    assert re.fullmatch(r"[0-9a-f]{40}", full.model_revision)
    assert full.fitted_to_gpu
    assert not load_profile("tiny").fitted_to_gpu


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_every_profile_is_consistent(profile):
    assert PROFILES[profile.name] is profile
    assert list(profile.matryoshka_dims) == sorted(profile.matryoshka_dims, reverse=True)
    assert profile.matryoshka_dims[0] == 32 * profile.matryoshka_dims[-1]
    assert profile.truncate_dim in profile.matryoshka_dims
    assert profile.eval_rows == (8 if profile.name == "rehearsal-small" else 300)
    assert {
        "base",
        "finetuned",
        "gain",
        "kept_finetuned",
        "kept_difference",
    } <= profile.bands.keys()
    assert all(low < high for low, high in profile.bands.values())


def test_only_the_published_setting_may_stand_among_the_published_models():
    assert load_profile("full").comparable_score(0.94) == (2.1, 0.94)
    assert load_profile("tiny").comparable_score(0.94) is None


def test_what_may_be_printed_has_no_path_of_this_machine():
    settings = printable(load_profile("tiny"))
    assert settings["model_name"] == "assets/tiny-base"
    assert not [
        value for value in settings.values() if isinstance(value, str) and value.startswith("/")
    ]


# overrides by environment


def test_a_hub_id_with_and_without_a_revision(monkeypatch):
    monkeypatch.setenv("VDR_MODEL", "someone/Their-Model_1.5")
    monkeypatch.setenv("VDR_DATASET", "someone/data@refs/pr/7")
    profile = load_profile("full")
    # not the other model's commit
    assert (profile.model_name, profile.model_revision) == ("someone/Their-Model_1.5", None)
    assert profile.base_model == "someone/Their-Model_1.5"
    assert (profile.dataset_name, profile.dataset_revision) == ("someone/data", "refs/pr/7")
    assert profile.finetuned_name == PROFILES["full"].finetuned_name
    assert profile.comparable_score(0.9) is None


def test_what_is_not_published_is_said_and_takes_the_score_out_of_the_figure(monkeypatch):
    full = PROFILES["full"]
    assert full.deviations == ()
    monkeypatch.setenv("VDR_MODEL", f"{full.model_name}@main")
    monkeypatch.setenv("VDR_DATASET", "someone/data@v2")
    monkeypatch.setenv("VDR_ROWS", "1000:100")
    profile = load_profile("full")
    assert profile.deviations == (
        f"model revision main instead of {full.model_revision}",
        "dataset someone/data instead of llamaindex/vdr-multilingual-train",
        "train_rows 1,000 instead of 10,000",
        "eval_rows 100 instead of 300",
    )
    assert profile.comparable_score(0.9) is None
    choices = {
        "adapters": ({"r": 32},),
        "model_kwargs": {"dtype": "float16"},
        "max_pixels": 200 * 200,
        "per_device_train_batch_size": 16,
        "learning_rate": 2e-4,
    }
    said = [
        "LoRA on the language model instead of all weights",
        "float16 weights instead of bfloat16",
    ]
    said += ["max_pixels 40,000 instead of 360,000", "per_device_train_batch_size 16 instead of 64"]
    said += ["learning_rate 0.0002 instead of 2e-05"]
    for (name, value), sentence in zip(choices.items(), said, strict=True):
        changed = replace(full, **{name: value})
        assert changed.deviations == (sentence,)
        assert changed.comparable_score(0.9) is None
    assert (
        "float32 weights under float16 autocast"
        in replace(full, fp16=True, model_kwargs={"dtype": "float32"}).deviations[0]
    )


def test_adapters_learn_at_ten_times_the_rate_of_all_weights():
    for profile in PROFILES.values():
        assert profile.adapter_learning_rate == pytest.approx(10 * profile.learning_rate)


def test_a_profile_is_data_and_loading_it_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("VDR_OUTPUTS", str(tmp_path / "outputs"))
    for name in PROFILES:
        profile = load_profile(name)
        assert profile.output_dir == tmp_path / "outputs" / name
    assert not (tmp_path / "outputs").exists()
    monkeypatch.setenv("VDR_MODEL", "owner/name")
    monkeypatch.setenv("VDR_DATASET", "owner/pages")
    named = load_profile("rehearsal")
    assert (named.base_model, named.random_weights, named.corpus) == ("owner/name", None, None)


@pytest.mark.parametrize("spelling", ["absolute", "relative", "dotted", "home"])
def test_a_local_folder_in_every_spelling(spelling, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    text = {
        "absolute": str(folder),
        "relative": "models/mine",
        "dotted": "./models/mine",
        "home": "~/models/mine",
    }[spelling]
    for variable in ("VDR_MODEL", "VDR_FINETUNED", "VDR_DATASET"):
        monkeypatch.setenv(variable, text)
    profile = load_profile("full")
    assert profile.base_model == profile.finetuned_model == profile.dataset_folder == str(folder)
    assert profile.model_name == profile.dataset_name == "local folder mine"
    assert profile.model_revision is None
    # what is printed and published has no path in it
    assert str(tmp_path) not in str(printable(profile))


def test_a_relative_folder_is_also_seen_from_the_checkout(monkeypatch, tmp_path):
    """A notebook's kernel runs in notebooks/, the reader's shell in the folder above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VDR_MODEL", "assets/tiny-base")
    assert load_profile("full").base_model == shipped("assets/tiny-base")


def test_another_base_is_what_late_interaction_starts_from(monkeypatch):
    assert load_profile("tiny").late_start == shipped("assets/tiny-late")
    assert load_profile("full").late_start == load_profile("full").base_model
    monkeypatch.setenv("VDR_MODEL", "assets/tiny-base")
    assert load_profile("tiny").late_start == shipped("assets/tiny-base")


@pytest.mark.parametrize(
    "text",
    [
        "./nowhere",
        "/nowhere/at/all",
        "~/nowhere",
        ".@main",
        "a/b/c",
        "owner/name@",
        "owner/na me",
        "C:\\x",
    ],
)
def test_an_override_that_cannot_be_used_says_what_to_do(text, monkeypatch):
    monkeypatch.setenv("VDR_MODEL", text)
    with pytest.raises(
        ValueError,
        match=r"^VDR_MODEL is neither a folder that is there, nor a hub id .*: correct it",
    ) as raised:
        load_profile("full")
    assert "nowhere" not in str(raised.value)


def test_fewer_rows_to_try_a_profile(monkeypatch):
    monkeypatch.setenv("VDR_ROWS", "24:6")
    full = load_profile("full")
    assert (full.train_rows, full.eval_rows, full.monitor_rows) == (24, 6, 6)
    assert full.comparable_score(0.9) is None
    assert PROFILES["full"].train_rows == 10_000
    monkeypatch.setenv("VDR_ROWS", "24:500")
    assert load_profile("tiny").monitor_rows == PROFILES["tiny"].monitor_rows
    for text in ("24", "24:", "a:b", "24:6:1", "-1:6"):
        monkeypatch.setenv("VDR_ROWS", text)
        with pytest.raises(
            ValueError, match="VDR_ROWS must be training rows, a colon and eval rows, such as 24:6"
        ):
            load_profile("full")


def test_without_variables_a_profile_is_itself(monkeypatch):
    for variable in ("VDR_MODEL", "VDR_FINETUNED", "VDR_DATASET", "VDR_ROWS"):
        monkeypatch.setenv(variable, "")
    assert load_profile("full") == replace(PROFILES["full"], outputs=outputs_folder())


def test_the_resolved_revisions(monkeypatch):
    import huggingface_hub

    class Info:
        sha = "0123456789abcdef0123456789abcdef01234567"

    asked = []

    def repo_info(self, name, repo_type, revision):
        asked.append((name, repo_type, revision))
        return Info

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    full = load_profile("full")
    # a full commit needs no question
    assert resolve_revision(full, "model") == {
        "name": full.model_name,
        "revision": full.model_revision,
    }
    assert resolve_revision(full, "dataset") == {"name": full.dataset_name, "revision": Info.sha}
    assert asked == [(full.dataset_name, "dataset", None)]
    tiny = load_profile("tiny")
    assert resolve_revision(tiny, "model")["revision"] == "shipped with the course"
    assert resolve_revision(tiny, "dataset") == {
        "name": "generated",
        "revision": "generated by the course",
    }

    def unreachable(self, name, repo_type, revision):
        raise ConnectionError("https://somewhere/with/a?token=secret")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", unreachable)
    found = resolve_revision(full, "dataset")["revision"]
    assert found == "default branch (not resolved: ConnectionError)"


def test_start_names_the_profile_and_the_versions(capsys):
    import sentence_transformers

    assert machine.start() == load_profile("tiny")
    line = capsys.readouterr().out.strip()
    assert line.startswith("profile tiny | ")
    assert f"sentence-transformers {sentence_transformers.__version__}" in line
    assert "\n" not in line
    assert "+" not in line  # no local build tag, which differs from machine to machine


def test_quiet_leaves_the_bars_of_downloads_on(monkeypatch):
    """Gigabytes come from the hub; transformers turns its bars off together with its own."""
    import datasets
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    disable_progress_bars()
    machine.quiet_progress_bars()
    assert not are_progress_bars_disabled()
    assert datasets.are_progress_bars_disabled()


def test_an_apple_gpu_is_called_by_its_name(monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    machine.start()
    assert " | Apple GPU | " in capsys.readouterr().out


# published figures, typed by hand from the model card


def test_twenty_models_with_their_scores():
    models = {row["model"]: (row["parameters"], row["ndcg_at_10"]) for row in published()["models"]}
    assert len(models) == len(published()["models"]) == 20
    assert models["tomaarsen/Qwen3-VL-Embedding-2B-vdr"] == ("2.1B", 0.947)
    assert models["Qwen/Qwen3-VL-Embedding-8B"] == ("8.1B", 0.923)
    assert models["nomic-ai/nomic-embed-multimodal-3b"] == ("3.8B", 0.899)
    assert models["Qwen/Qwen3-VL-Embedding-2B"] == ("2.1B", 0.888)
    assert models["BidirLM/BidirLM-Omni-2.5B-Embedding"] == ("2.5B", 0.775)
    assert models["sentence-transformers/clip-ViT-L-14"] == ("428M", 0.611)
    assert models["BAAI/BGE-VL-base"] == ("150M", 0.335)
    scores = [score for _, score in models.values()]
    assert scores == sorted(scores, reverse=True)


def test_seven_dimensions_with_both_curves():
    rows = {row["dimensions"]: (row["base"], row["finetuned"]) for row in published()["dimensions"]}
    assert tuple(rows) == PROFILES["full"].matryoshka_dims
    assert rows[2048] == (0.8961, 0.948)
    assert rows[1024] == (0.8941, 0.9464)
    assert rows[512] == (0.876, 0.9451)
    assert rows[64] == (0.6852, 0.8758)
    assert round(100 * rows[64][1] / rows[2048][1], 1) == 92.4  # the card's percentages
    assert round(100 * rows[64][0] / rows[2048][0], 1) == 76.5


def test_metrics_log_and_statistics():
    card = published()
    assert card["metrics"]["cosine_ndcg@10"] == 0.9485
    assert card["metrics"]["cosine_mrr@10"] == 0.9318
    assert card["metrics"]["cosine_accuracy@3"] == 0.97
    assert len(card["metrics"]) == 15
    log = {row["step"]: row for row in card["training_log"] if row["epoch"] > 0}
    assert log[8]["training_loss"] == 9.0764
    assert log[16]["ndcg_at_10"] == 0.8987
    assert log[157]["ndcg_at_10"] == 0.9485
    assert len(log) == 20
    assert card["training_log"][0]["ndcg_at_10"] == 0.8629
    assert card["pages"] == 5 * card["queries"] == 1500


def test_the_three_citations():
    text = (assets_folder() / "citations.bib").read_text(encoding="utf-8").strip()
    for key in ("reimers-2019-sentence-bert", "kusupati2024matryoshka", "gao2021scaling"):
        assert key in text
    assert text.startswith("@")
    assert text.endswith("}")
    assert text.count("{") == text.count("}")
