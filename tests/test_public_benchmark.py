"""Appendix a6's public benchmark: the task that ``full`` names is there, and a task of one's own
scores as the course's evaluator does.
"""

import json
import os
from pathlib import Path

import pytest
import warm

from vdr_helpers.profiles import PROFILES

ROOT = Path(__file__).resolve().parent.parent

# The notebook's own cells, on pages of noise and a model that was never tuned on them, where no
# ranking is right by itself.
RUN = """
import json, socket, sys
from pathlib import Path

def refuse(*arguments, **settings):
    raise OSError("no network here")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
sys.path.insert(0, sys.argv[1])
import numpy
from cells import edited_sources
from datasets import Dataset
from PIL import Image
from vdr_helpers.profiles import load_profile

import dataclasses
profile = dataclasses.replace(load_profile("tiny"), monitor_rows=6, truncate_dim=16, finetuned_name="assets/tiny-base", benchmark_tasks=("VidoreTabfquadRetrieval",))
draw, columns = numpy.random.default_rng(0), {"query": [f"question {i}" for i in range(8)]}
for name in ("image", "negative_0", "negative_1", "negative_2", "negative_3"):
    columns[name] = [f"{name}_{i}.png" for i in range(8)]
    for file in columns[name]:
        Image.fromarray(draw.integers(0, 255, (96, 96, 3), dtype="uint8")).save(file)
import vdr_helpers.splits
vdr_helpers.splits.load_split = lambda profile, split: (Dataset.from_dict(columns), "made up")
sources = edited_sources("a6")[1:]
for source in sources:
    exec(source)
try:
    mteb.evaluate(mteb.SentenceTransformerEncoderWrapper(model), CoursePages(), **settings)
    untold = "no error"
except ValueError as error:
    untold = str(error)
kept = [path.relative_to(profile.output_dir).as_posix() for path in (profile.output_dir / "mteb").rglob("*.json*")]
print("FOUND " + json.dumps({"ours": ours, "theirs": float(theirs), "cells": len(sources), "untold": untold, "kept": kept}))
"""


def test_the_task_of_full_is_the_smallest_of_vidore_and_of_the_class_of_ours(tmp_path):
    code = """
import json, mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
task = mteb.get_task("NAME")
sizes = {t.metadata.name: sum(s["num_samples"] for s in t.metadata.descriptive_stats.values())
         for v in ("v1", "v2", "v3") for t in mteb.get_benchmark(f"ViDoRe({v})").tasks}
print(json.dumps({"class": isinstance(task, AbsTaskRetrieval), "category": task.metadata.category, "public": task.metadata.is_public,
    "modalities": sorted(task.metadata.modalities), "smallest": min(sizes, key=sizes.get), "size": min(sizes.values())}))
"""
    (name,) = PROFILES["full"].benchmark_tasks
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
        "MTEB_CACHE": str(tmp_path / "mteb"),
    }
    done = warm.run(["-c", code.replace("NAME", name)], env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "class": True,
        "category": "t2i",
        "public": True,
        "modalities": ["image", "text"],
        "smallest": name,
        "size": 350,
    }
    assert not any(
        profile.benchmark_tasks
        for profile in PROFILES.values()
        if profile.dataset_name.startswith("generated")
    )


@pytest.mark.slow
def test_the_cells_run_without_a_network_and_agree_with_the_evaluator(tmp_path):
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
    assert found["cells"] == 6, "none of the appendix's cells is left out"
    assert 0 < found["ours"] < 1, "a score of 0 or 1 would agree with nearly anything"
    assert found["theirs"] == pytest.approx(found["ours"], abs=1e-4)
    assert "[in band] NDCG@10 by MTEB against the evaluator" in done.stdout
    assert "VidoreTabfquadRetrieval was not run: " in done.stdout, (
        "a task that cannot be fetched is named, and the cell ends"
    )
    assert "supports ['text']" in found["untold"], "why the wrapper is told what the model reads"
    assert any(name.endswith("CoursePages.json") for name in found["kept"])
    assert not list(home.rglob("*mteb*")), "nothing of MTEB's in the home folder"
