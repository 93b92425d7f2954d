"""The cell of notebook 03 that is the experiment: it runs where only Sentence Transformers is, and
on ``full`` its arguments are the published ones.
"""

import ast
import json
import subprocess
import sys

import nbformat
import numpy
import pytest
import torch
from cells import find_notebook
from PIL import Image
from safetensors.torch import load_file

from vdr_helpers.profiles import PROFILES
from vdr_helpers.published import published

pytestmark = pytest.mark.slow

ROWS, MONITORED, BATCH = 8, 4, 4
# Arguments whose defaults Transformers has changed since; they decide nothing on one machine.
NEWER_DEFAULTS = {"fsdp", "fsdp_config", "trackio_space_id"}
# What the text above the cell says to write, where the course's own plumbing is missing.
WITHOUT_THE_COURSE = """
mini_batches = scoring = run_settings = {}
model_changes = callbacks = []
before_training = lambda trainer: None
"""
# Every installed package is closed that ``pip install "sentence-transformers[image,train]"`` would
# not bring, the course's own among them.
CLOSED = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

wanted, brought = [Requirement("sentence-transformers[image,train]")], set()
while wanted:
    requirement = wanted.pop()
    name, extras = canonicalize_name(requirement.name), requirement.extras or {""}
    new = {(name, extra) for extra in extras | {""}} - brought
    brought |= new
    try:
        listed = [Requirement(line) for line in requires(name) or []] if new else []
    except PackageNotFoundError:  # asked for on another platform only
        listed = []
    for one in listed:
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for _, extra in new):
            wanted.append(one)
brought = {name for name, _ in brought}
closed = []
for module, distributions in packages_distributions().items():
    if not brought & {canonicalize_name(name) for name in distributions}:
        if module not in sys.modules:
            closed.append(module)
closed += ["vdr_helpers", "vdr_exercises", "tiny_vdr"]


class OpenOnly:
    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in closed:
            return PathFinder.find_spec(name, path, target)


sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OpenOnly]
"""
TOLD = """
import json
history = trainer.state.log_history
model.save_pretrained("tuned", create_model_card=False)
print()
told = {"steps": trainer.state.global_step, "before": scores_before, "history": history}
print(json.dumps(told | {"closed": closed}))
"""


@pytest.fixture(scope="module")
def experiment() -> str:
    """The source of the cell."""
    cells = nbformat.read(find_notebook("03"), as_version=4).cells
    [cell] = [cell for cell in cells if "experiment" in cell.metadata.get("tags", ())]
    return cell.source


def write_rows(folder, name: str, rows: int, negatives: int) -> str:
    """A file of JSON lines with pages of random pixels; returns its path."""
    rng, lines = numpy.random.default_rng(len(name)), []
    for i in range(rows):
        row = {"query": f"invoice of firm {i} for {2000 + i}"}
        for column in ("image", *(f"negative_{k}" for k in range(negatives))):
            page = folder / f"{name}-{i}-{column}.png"
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=numpy.uint8)).save(page)
            row[column] = str(page)
        lines.append(json.dumps(row))
    file = folder / f"{name}.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


@pytest.fixture
def pasted(random_model, experiment, tmp_path):
    """``(what the run left, weights before, weights after)`` of the cell in a Python of its own."""
    random_model.save_pretrained(str(tmp_path / "base"), create_model_card=False)
    values = {
        "output_dir": str(tmp_path / "checkpoints"),
        "model_name": str(tmp_path / "base"),
        "loading": {"model_kwargs": {"dtype": "float32"}},
        "train_file": write_rows(tmp_path, "train", ROWS, 1),
        "eval_file": write_rows(tmp_path, "eval", MONITORED, 4),
        "matryoshka_dims": [256, 64],
        "batch_size": BATCH,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "warmup_steps": 0.1,
        "bf16": False,
        "fp16": False,
        "seed": 42,
    }
    assigned = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    program = "\n".join([CLOSED, assigned, WITHOUT_THE_COURSE, experiment, TOLD])
    environment = {
        "HF_HOME": str(tmp_path / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    there = set(tmp_path.iterdir())
    run = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads(run.stdout.splitlines()[-1])
    told["left"] = {path.name for path in set(tmp_path.iterdir()) - there}
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("base", "tuned")]
    return told, *weights


def test_it_runs_where_only_sentence_transformers_is(pasted):
    told, before, after = pasted
    assert {"vdr_helpers", "pymilvus", "bm25s", "faiss"} <= set(told["closed"])
    assert not {"torch", "transformers", "datasets", "PIL"} & set(told["closed"])
    assert told["steps"] == ROWS // BATCH
    assert told["left"] <= {"cache", "checkpoints", "tuned"}, "a file of no use to the reader"
    score = "eval_vdr-eval-hard_cosine_ndcg@10"
    logged = {name for entry in told["history"] for name in entry}
    assert {"loss", "eval_loss", score} <= logged
    assert 0 < told["before"][score.removeprefix("eval_")] <= 1
    changed = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    assert len(changed) > len(before) / 2, "the weights that are saved are trained"


def test_it_reads_nothing_of_the_course(experiment):
    """Names that the cell reads and does not make itself: the values above it, and Python's own."""
    tree = ast.parse(experiment)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            made |= {alias.asname or alias.name for alias in node.names}
    read = {node.id for node in names if isinstance(node.ctx, ast.Load)} - made
    assert "profile" not in read
    assert "vdr_helpers" not in experiment


def test_on_full_its_arguments_are_the_published_ones(experiment, monkeypatch):
    """All 97 that the card prints, but those that decide only where and how the run is shown."""
    from sentence_transformers import SentenceTransformerTrainingArguments

    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    full = PROFILES["full"]
    [node] = [
        node
        for node in ast.parse(experiment).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "args"
    ]
    space = {
        "SentenceTransformerTrainingArguments": SentenceTransformerTrainingArguments,
        "output_dir": "not printed on the card",
        "batch_size": full.per_device_train_batch_size,
        "run_settings": {},
    }
    names = ("num_train_epochs", "learning_rate", "warmup_steps", "fp16", "bf16", "seed")
    space |= {name: getattr(full, name) for name in names}
    exec(compile(ast.Module([node], []), "notebook 03", "exec"), space)
    found, card = space["args"].to_dict(), published()["arguments"]
    differing = {name for name in card if name in found and found[name] != card[name]}
    assert differing <= NEWER_DEFAULTS
    assert len(card.keys() & found.keys()) > 85
