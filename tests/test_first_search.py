"""Notebook 00 searches pages further down in the source: the shipped model was trained on questions
before them, and on none of these.
"""

from types import SimpleNamespace

from cells import chooser, definitions
from datasets import Dataset

from tiny_vdr.plan import plan_rows
from vdr_helpers.cache import read_manifest
from vdr_helpers.profiles import load_profile
from vdr_helpers.splits import stored_choice


def test_the_shipped_model_was_trained_on_no_question_of_the_first_search():
    profile = load_profile("tiny")
    data = read_manifest(profile.finetuned_model)["settings"]["splits"]
    plan = plan_rows()
    rows = Dataset.from_list(
        [
            {"id": row.id, "query": row.query, "negatives": row.negatives, "language": row.language}
            for row in plan
        ]
    )
    # equal pages are drawn alike
    fingerprints = [None if row.broken else repr(row.page) for row in plan]
    settings = {
        name: data[name]
        for name in ("train_rows", "eval_rows", "negatives_per_train_row", "distinct_eval_pages")
    }
    train, evaluation, _ = chooser(rows, **settings)["choose_rows"](fingerprints.__getitem__)
    assert {"train": train, "eval": evaluation} == stored_choice(profile), (
        "run python -m tools.tiny_split after notebook 02"
    )
    assert len(train) == 2048
    shown = definitions("00", "first", "wanted", source=SimpleNamespace(num_rows=len(plan)))
    assert max(row[0] for row in train) < shown["first"]
    asked = [plan[number] for number in shown["wanted"]]
    asked = [row for row in asked if row.query and row.language == "en"]
    trained = {plan[row[0]].query for row in train}
    assert len(asked) > 40
    assert not trained & {row.query for row in asked}
    # no page of them was a hard negative either
    assert not {number for row in train for number in row} & set(shown["wanted"])
