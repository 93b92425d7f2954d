"""The benchmark of the two recipes at reduced size: it runs, both do the same experiment, and a
disagreement is refused.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import recipes

pytestmark = pytest.mark.slow


def run(losses, score, seconds=1.0):
    return {
        "losses": losses,
        "ndcg_at_10": {"256": score},
        "seconds": {"step": seconds, "sampler": 1.0},
    }


def test_agreement_is_the_largest_difference():
    runs = {
        "published": [run([2.0, 1.0], 0.5)],
        "course": [run([2.002, 1.0], 0.501), run([2.0, 1.0], 0.498)],
    }
    worst = recipes.agreement(runs)
    assert worst["loss"] == pytest.approx(0.001)
    assert worst["metric"] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (run([2.0, 1.1], 0.5), "disagree"),
        (run([2.0, 1.0], 0.6), "disagree"),
        (run([2.0], 0.5), "different numbers of steps"),
    ],
)
def test_another_experiment_is_not_compared(other, said):
    with pytest.raises(ValueError, match=said):
        recipes.agreement({"published": [run([2.0, 1.0], 0.5)], "course": [other]})


def test_ratios_by_hand():
    runs = {
        "published": [run([], 0, 6.0), run([], 0, 8.0)],
        "course": [run([], 0, 2.0), run([], 0, 2.0)],
    }
    rows = {row["part"]: row for row in recipes.table(runs)}
    assert rows["step"] == {
        "part": "step",
        "published": 7.0,
        "course": 2.0,
        "ratio": 3.5,
        "lowest": 3.0,
        "highest": 4.0,
    }
    assert "whole run" not in rows  # a part that was not measured is left out


@pytest.mark.long
def test_the_command_at_reduced_size(tmp_path):
    sizes = "--rows 8 --eval-rows 3 --batch-size 4 --epoch-rows 8 --repeats 1".split()
    command = [sys.executable, "-m", "benchmarks.recipes", *sizes, "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "recipes_tiny.json").read_text())
    assert [row["part"] for row in result["parts"]] == [
        "data path",
        "sampler",
        "step",
        "one evaluation",
        "seven dimensions",
        "whole run",
    ]
    assert result["largest_difference"]["loss"] < 5e-3
    assert result["page_encodes"]["published"] > 2 * result["page_encodes"]["course"]
    assert set(result["seven_dimensions_over_one"]) == {"published", "course"}
    assert (tmp_path / "recipes_tiny.png").stat().st_size > 5000
