"""Appendix a6's public benchmark: the task that ``full`` names is a graded one of ViDoRe v3, and a
task of one's own scores as scikit-learn does with the same gain.
"""

import json
import math
import os
from pathlib import Path

import pytest
import warm

from vdr_helpers.profiles import PROFILES

ROOT = Path(__file__).resolve().parent.parent

# The notebook's own cells with a model that was never tuned on these pages, so that no ranking is
# right by itself. One public task cannot be fetched; the other has a stand-in.
RUN = """
import json, socket, sys
from pathlib import Path

def refuse(*arguments, **settings):
    raise OSError("no network here")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
sys.path.insert(0, sys.argv[1])
from cells import edited_sources
from vdr_helpers.profiles import load_profile

import dataclasses
tasks = ("Vidore3ComputerScienceRetrieval", "StandIn")
profile = dataclasses.replace(load_profile("tiny"), truncate_dim=16, finetuned_name="assets/tiny-base", benchmark_tasks=tasks)
sources = edited_sources("a6", edits=[("count=12", "count=3")])[1:]
for source in sources:
    exec(source)
    if "class DrawnManuals" in source:
        fetched = mteb.get_task
        mteb.get_task = lambda name, **asked: DrawnManuals() if name == "StandIn" else fetched(name, **asked)
try:
    mteb.evaluate(mteb.SentenceTransformerEncoderWrapper(model), DrawnManuals(), **settings)
    untold = "no error"
except ValueError as error:
    untold = str(error)
kept = [path.relative_to(profile.output_dir).as_posix() for path in (profile.output_dir / "mteb").rglob("*.json*")]
means = {f"{name}, {kind}": float(values.mean()) for (name, kind), values in scores.items()}
one = {"grades": relevance[0].tolist(), "similarities": similarities["tuned"][0].tolist()}
one |= {kind: float(scores["tuned", kind][0]) for kind in gains}
print("FOUND " + json.dumps({"means": means, "by_mteb": by_mteb, "one": one, "cells": len(sources), "untold": untold, "kept": kept}))
"""


def mteb_says(code: str, folder: Path) -> dict:
    """The JSON that ``code`` prints last, run without the hub in ``folder``."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
        "MTEB_CACHE": str(folder / "mteb"),
    }
    done = warm.run(["-c", code], env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_task_of_full_gives_page_images_of_vidore_3_and_is_of_the_class_of_ours(tmp_path):
    (name,) = PROFILES["full"].benchmark_tasks
    found = mteb_says(
        f"""
import json, mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
task = mteb.get_task("{name}", languages=["eng"])
names = [other.metadata.name for other in mteb.get_benchmark("ViDoRe(v3)").tasks]
meta, right = task.metadata, task.metadata.descriptive_stats["test"]["hf_subset_descriptive_stats"]
print(json.dumps({{"class": isinstance(task, AbsTaskRetrieval), "category": meta.category,
    "public": meta.is_public, "v3": meta.name in names, "subsets": list(task.hf_subsets),
    "relevant": right["english"]["relevant_docs_statistics"]["average_relevant_docs_per_query"]}}))
""",
        tmp_path,
    )
    assert found.pop("relevant") > 2, "several relevant pages for a question"
    assert found == {
        "class": True,
        "category": "t2i",
        "public": True,
        "v3": True,
        "subsets": ["english"],
    }


def test_only_profiles_of_the_real_model_have_public_tasks():
    assert not any(
        profile.benchmark_tasks
        for profile in PROFILES.values()
        if profile.dataset_name.startswith("generated")
    )


def test_mteb_counts_a_grade_as_its_gain(tmp_path):
    """A page of grade 1 before the page of grade 2: by linear gain
    (1 + 2 / log2 3) / (2 + 1 / log2 3).
    """
    found = mteb_says(
        """
import json
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
run, grades = {"q": {"a": 0.9, "b": 0.8}}, {"q": {"a": 1, "b": 2}}
print(json.dumps({"ndcg": calculate_retrieval_scores(run, grades, [10]).ndcg["NDCG@10"]}))
""",
        tmp_path,
    )
    step = math.log2(3)
    assert found["ndcg"] == pytest.approx((1 + 2 / step) / (2 + 1 / step), abs=1e-5)


def ndcg(gains: list[float], similarities: list[float]) -> float:
    """NDCG@10 from its definition."""

    def summed(ordered):
        return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(ordered[:10], start=1))

    by_rank = [gain for _, gain in sorted(zip(similarities, gains, strict=True), reverse=True)]
    return summed(by_rank) / summed(sorted(gains, reverse=True))


@pytest.mark.slow
def test_the_cells_run_without_a_network_and_both_gains_are_those_of_the_definition(tmp_path):
    outputs, home = tmp_path / "outputs", tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HOME": str(home),
        "VDR_OUTPUTS": str(outputs),
        "OMP_NUM_THREADS": "1",
    }
    done = warm.run(["-c", RUN, str(ROOT / "tests")], env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    assert found["cells"] == 9, "none of the appendix's cells is left out"
    for name in ("base", "tuned"):
        linear = found["means"][f"{name}, linear gain"]
        assert 0 < linear < 1, "a score of 0 or 1 would agree with nearly anything"
        assert found["by_mteb"][name] == pytest.approx(linear, abs=1e-4)
        assert abs(found["means"][f"{name}, exponential gain"] - linear) > 1e-3
    grades, similarities = found["one"]["grades"], found["one"]["similarities"]
    assert sorted(set(grades)) == [0, 1, 2] and grades.count(2) == 1
    assert found["one"]["linear gain"] == pytest.approx(ndcg(grades, similarities), abs=1e-6)
    doubled = [2**grade - 1 for grade in grades]
    assert found["one"]["exponential gain"] == pytest.approx(ndcg(doubled, similarities), abs=1e-6)
    assert "[in band] NDCG@10 by MTEB against linear gain" in done.stdout
    assert "Vidore3ComputerScienceRetrieval was not run: " in done.stdout, (
        "a task that cannot be fetched is named, and the cell ends"
    )
    assert "DrawnManuals: 0." in done.stdout, "the stand-in of a public task has a score"
    assert "supports ['text']" in found["untold"], "why the wrapper is told what the model reads"
    assert any(name.endswith("DrawnManuals.json") for name in found["kept"])
    assert not list(home.rglob("*mteb*")), "nothing of MTEB's in the home folder"
