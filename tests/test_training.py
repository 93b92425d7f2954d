"""The training log as data and as a table, the live curve, and the cached loss's gradient."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from tiny_vdr.pages import draw_page
from tiny_vdr.sheet import Page
from vdr_helpers import figures, training
from vdr_helpers.profiles import load_profile
from vdr_helpers.published import published

pytestmark = pytest.mark.slow

SCORE = "eval_vdr-eval-hard_cosine_ndcg@10"
LOG = [
    {"loss": 9.5, "grad_norm": 1.0, "learning_rate": 1e-4, "epoch": 0.05, "step": 2},
    {"loss": 8.25, "epoch": 0.1, "step": 4},
    {
        SCORE: 0.71,
        "eval_vdr-eval-hard_cosine_mrr@10": 0.6,
        "eval_runtime": 3.2,
        "epoch": 0.1,
        "step": 4,
    },
    {SCORE: 0.74, "epoch": 0.2004, "step": 8},
    {"train_runtime": 100.0, "train_loss": 8.9, "epoch": 1.0, "step": 40},
]


def test_read_log_by_hand():
    losses, scores = figures.read_log(LOG)
    assert losses == [(2, 9.5), (4, 8.25)]
    assert scores == [(4, 0.71), (8, 0.74)]
    assert figures.read_log([]) == ([], [])


def test_a_shorter_width_has_scores_of_its_own():
    short = "eval_vdr-eval-hard_cosine-8d_ndcg@10"
    log = [
        {SCORE: 0.7, short: 0.4, "step": 4},
        {"loss": 1.0, "step": 5},
        {SCORE: 0.8, short: 0.5, "step": 8},
    ]
    assert figures.read_log(log) == ([(5, 1.0)], [(4, 0.7), (8, 0.8)])
    assert figures.read_log(log, dim=8)[1] == [(4, 0.4), (8, 0.5)]
    assert figures.read_log(log, dim=16)[1] == []


def test_the_log_table_is_the_cards():
    short = {SCORE.replace("cosine", "cosine-8d"): 0.4, "epoch": 0.1, "step": 4}
    validated = {"eval_loss": 7.5, "epoch": 0.1, "step": 4}
    table = training.log_table([*LOG, short, validated])
    assert table.index.name == "step"
    assert list(table.columns) == ["Epoch", "Training Loss", "Validation Loss", "NDCG@10"]
    assert list(table.index) == [2, 4, 8]  # the summary at the end is not a row
    assert table.loc[4].tolist() == [0.1, 8.25, 7.5, 0.71]  # one step, one row
    assert table.loc[2, "Training Loss"] == 9.5
    assert table["NDCG@10"].isna().tolist() == [True, False, False]
    assert len(table.columns) == len(published()["training_log"][0]) - 1  # the step is the index


def test_the_scores_before_the_training_are_step_0():
    log = training.whole_log({SCORE.removeprefix("eval_"): 0.6}, LOG)
    assert log == [{"step": 0, "epoch": 0.0, SCORE: 0.6}, *LOG]
    assert training.log_table(log)["NDCG@10"].loc[0] == 0.6


def test_arguments_stand_beside_the_published_ones(tmp_path):
    args = SentenceTransformerTrainingArguments(str(tmp_path), learning_rate=0.5, max_steps=7)
    table = training.arguments_beside_published(args)
    assert table.loc["learning_rate"].tolist() == ["0.5", "2e-05"]
    assert table.loc["max_steps", "here"] == "7", "it differs"
    assert {"optim", *published()["not_default"]} <= set(table.index)
    assert "adam_beta1" not in table.index


def test_the_loss_stands_beside_the_published_one(random_model):
    loss = CachedMultipleNegativesRankingLoss(random_model)
    loss = MatryoshkaLoss(random_model, loss, matryoshka_dims=[256, 8])
    table = training.loss_beside_published(loss)
    assert table.loc["name"].tolist() == ["MatryoshkaLoss"] * 2
    assert table.loc["loss"].tolist() == ["CachedMultipleNegativesRankingLoss"] * 2
    assert "256, 8" in table.loc["matryoshka_dims", "here"]


def test_the_published_log_is_displayed_below_the_one_from_here(monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    validated = {"eval_loss": 7.5, "epoch": 0.1, "step": 4}
    training.show_beside_published(training.log_table([*LOG, validated]))
    assert [table.caption for table in displayed] == ["measured here", "published"]
    here, card = (table.data for table in displayed)
    assert list(here.columns) == list(card.columns) and len(card) == len(
        published()["training_log"]
    )


def test_a_log_is_checked_for_its_loss_and_its_rise(capsys):
    profile, validated = load_profile("tiny"), {"eval_loss": 7.5, "epoch": 0.1, "step": 4}
    log = training.log_table([*LOG, validated, {SCORE: 0.8, "step": 12}])
    training.check_log(profile, log)
    said = capsys.readouterr().out
    assert said.startswith("loss fell: True\n[in band] rise of NDCG@10 during training is between")
    training.check_log(profile, log[::-1])
    assert capsys.readouterr().out.startswith("loss fell: False\n[out of band] rise of NDCG@10")


def test_the_validation_loss_is_drawn_beside_the_training_loss():
    validated = [{"eval_loss": 9.0, "step": 4}, {"eval_loss": 8.5, "step": 8}]
    losses, _ = figures.training_curve([*LOG, *validated]).axes
    assert [list(line.get_ydata()) for line in losses.lines] == [[9.5, 8.25], [9.0, 8.5]]


def test_the_live_curve_redraws_at_every_evaluation():
    curve = training.LiveCurve()
    # axes without a curve: an empty picture would be drawn as a broken one
    states = [bytes(curve.picture.value)]
    for count in (2, 4):
        curve.on_evaluate(None, SimpleNamespace(log_history=LOG[:count]), None, metrics={})
        states.append(bytes(curve.picture.value))
    assert all(state.startswith(b"\x89PNG") for state in states)
    assert len(set(states)) == 3
    assert curve.widget.children == (curve.message, curve.picture)


@pytest.mark.parametrize("first_step", [0, 30])
def test_the_live_curve_says_how_long_it_will_take(monkeypatch, first_step):
    """100 steps, 20 of them done in ten minutes, whether from the start or from a checkpoint."""
    now = iter([1000.0, 1600.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(now))
    curve = training.LiveCurve()
    state = SimpleNamespace(global_step=first_step, max_steps=first_step + 100)
    curve.on_train_begin(None, state, None)
    state.global_step += 20
    curve.on_step_end(None, state, None)
    assert f" {first_step + 20}/{first_step + 100} [10:00<40:00, " in curve.message.value


def gradient(model, loss, pairs) -> torch.Tensor:
    """The gradient of one batch, all parameters in one vector."""
    model.zero_grad()
    features = [model.preprocess(column) for column in pairs]
    loss(features, None).backward()
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


@pytest.mark.parametrize("mini_batch_size", [2, 3])
def test_the_cached_loss_has_the_gradient_of_the_plain_one(random_model, mini_batch_size):
    """GradCache changes the memory, not the result: four pairs with one hard negative each, seven
    dimensions.
    """
    model = random_model.train()
    queries = [
        f"What was the revenue of {name} Energy in {2010 + i}?"
        for i, name in enumerate(("Alder", "Birch", "Ember", "Tamar"))
    ]

    def pages(first_year):
        subjects = ("Revenue", "Staff", "Rent")
        return [
            draw_page(Page("Alder Energy", subjects, first_year + i, "Oslo", "report", i))[0]
            for i in range(4)
        ]

    pairs, dims = (queries, pages(2010), pages(2018)), [256, 192, 128, 64, 32, 16, 8]
    plain = gradient(model, MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), dims), pairs)
    cached_loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch_size)
    cached = gradient(model, MatryoshkaLoss(model, cached_loss, dims), pairs)
    assert plain.norm() > 0
    assert ((cached - plain).norm() / plain.norm()).item() < 1e-4
    single = gradient(
        model, MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [256]), pairs
    )
    assert ((single - plain).norm() / plain.norm()).item() > 0.1  # the comparison can fail


def test_pages_that_moved_with_their_outputs_are_the_same_rows():
    name = "0123456789abcdef0123456789abcdef01234567.png"

    def rows(image):
        columns = {"query": ["Which?"], "image": [image], "negative_0": ["/mine/scan.png"]}
        return training.rows_by_content(Dataset.from_dict(columns))

    here, there = (f"{root}/tiny/pages-0123456789/{name}" for root in ("/home/ada", "/mnt/disk"))
    assert rows(here) == rows(there) == rows(here.replace("/", "\\"))
    assert rows(here) != rows(here.replace(name, f"1{name[1:]}")), "another page"
    assert rows(here)["negative_0"] == ["/mine/scan.png"], "a name that is no hash of the pixels"
    assert rows("/one/a.png") != rows("/two/a.png")
