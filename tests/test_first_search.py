"""Notebook 00 searches pages from the middle of the source: the shipped model was trained on questions before them, and on none of these."""

from collections import Counter

from datasets import Dataset

from tiny_vdr.corpus import plan_rows
from vdr_helpers.profiles import load_profile
from vdr_helpers.splits import choose_rows
from vdr_helpers.stamps import read_stamp


def test_the_shipped_model_was_trained_on_no_question_of_the_second_half():
    profile = load_profile("tiny")
    data = read_stamp(profile.finetuned_model)["data"]
    plan = plan_rows(seed=0, train_families=521, eval_families=375)
    rows = Dataset.from_list(
        [{"id": row.id, "query": row.query, "negatives": row.negatives, "language": row.language} for row in plan]
    )
    fingerprints = [None if row.broken else repr(row.page) for row in plan]  # equal pages are drawn alike
    train, _ = choose_rows(
        rows, fingerprints, data["train_rows"], data["eval_rows"], Counter(), data["negatives_per_train_row"], True
    )
    assert len(train) == 2048
    assert max(row["number"] for row in train) < len(plan) // 2
    asked = [row for row in plan[len(plan) // 2 :][:300] if row.query and row.language == "en"]
    trained = {plan[row["number"]].query for row in train}
    assert len(asked) > 40
    assert not trained & {row.query for row in asked}
