"""The table of phenomena: its arithmetic by hand, and that table, bands and stored numbers agree."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kept
from benchmarks import phenomena as measuring
from tools import phenomena
from vdr_helpers.published import measured


def test_ndcg_is_the_mean_over_the_order_of_equal_pages():
    similarities = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.2, 0.1]])
    found = measuring.ndcg_of(similarities, np.array([0, 1, 2]))
    assert found == pytest.approx([1, (1 + 1 / np.log2(3)) / 2, 1 / np.log2(4)])
    many = np.arange(12.0)[None]
    assert measuring.ndcg_of(many, np.array([1])) == 0  # eleven pages are not among ten


def test_fusion_adds_reciprocal_ranks_and_ignores_pages_without_a_word():
    pages, text = np.array([[0.9, 0.5, 0.1, 0.05]]), np.array([[0.0, 3.0, 1.0, 1.0]])
    k = measuring.FUSION_K
    expected = [1 / (k + 1), 1 / (k + 2) + 1 / (k + 1), 1 / (k + 3) + 1 / (k + 2.5)]
    fused = measuring.fuse(pages, text)[0]
    assert fused[:3] == pytest.approx(expected)
    assert fused[3] == pytest.approx(1 / (k + 4) + 1 / (k + 2.5))  # equal by text: the same rank


def test_a_mean_by_kind_of_query():
    values, kinds = np.array([1.0, 0.5, 0.0]), np.array(["quoted", "shape", "shape"])
    assert measuring.by_kind(values, kinds) == {"all": 0.5, "quoted": 1.0, "shape": 0.25}


def test_an_unknown_run_is_named():
    with pytest.raises(SystemExit, match="unknown run batch 16: there are as notebook 03"):
        measuring.main(["batch 16"])


def test_a_scan_keeps_the_size_and_loses_detail():
    from PIL import Image

    page = Image.effect_noise((400, 560), 80).convert("RGB")
    for share in (0.2, 0.4):
        small = measuring.scan(page, share)
        assert small.size == page.size
        assert np.asarray(small).std() < np.asarray(page).std()
    assert measuring.scan(page, 1.0).tobytes() == page.tobytes()


# what notebooks 04 and 05 read of it


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """``keep_scores``, which then gives the two files it wrote."""
    (tmp_path / "measured").mkdir()
    monkeypatch.setattr(kept, "assets_folder", lambda: tmp_path)

    def write_and_read(found):
        kept.keep_scores(found)
        files = sorted((tmp_path / "measured").iterdir())
        assert [file.name for file in files] == ["choices.json", "tiny_seeds.json"]
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    return write_and_read


def test_seeds_and_choices_are_taken_from_the_runs(keep):
    def run(score):
        return {
            "train_seconds": 100 * score,
            "by_dimensions": {"256": score, "8": score / 2},
            "accuracy_at_1": 0.5,
        }

    def kept_of(score):
        return {"train_seconds": 100 * score, "ndcg_at_10": {"256": score, "8": score / 2}}

    runs = {kept.USUAL: {"0": run(0.75), "1": run(1.0), "2": run(0.5)}}
    runs |= {name: {"0": run(0.25)} for name in ("batches of 16", *kept.NOT_A_CHOICE)}
    runs |= {"with two seeds": {"0": run(0.125), "42": run(1.0)}, "of another": {"1": run(1.0)}}
    where = {"versions": {"torch": "2"}, "device": "CPU"}
    choices, seeds = keep({"runs": runs, "base": run(0.5), **where})
    assert seeds.pop("what") and choices.pop("what")
    assert seeds == where | {
        "base_ndcg_at_10": {"256": 0.5, "8": 0.25},
        "runs": [
            {"seed": seed, **kept_of(score)} for seed, score in ((0, 0.75), (1, 1.0), (2, 0.5))
        ],
        "tuned_spread": 0.5,
    }
    assert choices == where | {
        "choices": {
            kept.USUAL: kept_of(0.75),
            "batches of 16": kept_of(0.25),
            "with two seeds": kept_of(0.125),
        }
    }
    assert {kept.USUAL, *kept.NOT_A_CHOICE} <= set(measuring.RUNS)


def test_the_stored_seeds_and_choices_are_of_the_stored_runs(keep):
    stored = [measured("choices"), measured("tiny_seeds")]
    assert keep(measured("phenomena")) == stored, "run python -m benchmarks.phenomena"


# the stored table


def test_every_row_has_bands_on_quantities_that_exist_and_a_source():
    found = phenomena.quantities(measured("phenomena"))
    for name, row in phenomena.known().items():
        bands = row.get("bands", {})
        assert set(bands) <= set(found), name
        assert row["source"].startswith("https://"), name
        assert all(low < high for low, high in bands.values()), name
        row["measured"].format(**found)


def test_a_phenomenon_that_does_not_show_has_its_reason_and_no_other_has():
    found = phenomena.quantities(measured("phenomena"))
    for name, row in phenomena.known().items():
        if "bands" in row:
            assert phenomena.shown(row, found) == ("why" not in row), name
        else:
            assert phenomena.verdict(row, found) == "not measured"
    assert sum(phenomena.counts().values()) == len(phenomena.known())


def test_the_stored_runs_are_those_of_the_command():
    runs = measured("phenomena")["runs"]
    assert {name: sorted(map(int, seeds)) for name, seeds in runs.items()} == {
        name: sorted(run.seeds) for name, run in measuring.RUNS.items()
    }


def test_a_changed_number_changes_the_verdict():
    stored = measured("phenomena")
    rows, changed = phenomena.known(), copy.deepcopy(stored)
    changed["base"]["ndcg_at_10"]["all"] = 0.99
    assert not phenomena.shown(rows["room"], phenomena.quantities(changed))
    changed = copy.deepcopy(stored)
    for run in changed["runs"]["without the hard negative"].values():
        run["ndcg_at_10"]["all"] = 1.0
    assert not phenomena.shown(rows["hard_negatives"], phenomena.quantities(changed))


def test_the_card_of_the_base_says_what_was_measured():
    profile = phenomena.measured_profile()
    card = (Path(profile.base_model) / "README.md").read_text(encoding="utf-8")
    scores = measured("phenomena")["base"]["by_dimensions"]
    assert list(scores) == [str(dim) for dim in profile.matryoshka_dims]
    row = next(line for line in card.splitlines() if line.startswith("| NDCG@10 |"))
    shown = [float(cell) for cell in row.split("|")[2:-1]]
    assert shown == pytest.approx(list(scores.values()), abs=0.0006)  # stored ones are rounded


def test_stored_scores_are_shares():
    text = json.dumps(measured("phenomena")["runs"])
    numbers = [value for value in _numbers(json.loads(text)) if value is not None]
    assert numbers and all(0 <= value <= 1 for value in numbers)


def _numbers(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "train_seconds":
                yield from _numbers(inner)
    else:
        yield value
