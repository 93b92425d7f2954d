"""Shared fixtures: no test writes into the checkout or the home folder, and what is slow to make is made once."""

import atexit
import dataclasses
import os
import shutil
import tempfile

import pytest

CACHE = tempfile.mkdtemp(prefix="vdr-tests-")  # set before datasets and matplotlib are imported: they read these once
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ |= {"HF_HOME": CACHE, "HF_DATASETS_CACHE": f"{CACHE}/datasets", "MPLCONFIGDIR": f"{CACHE}/matplotlib"}

SMALL = {"seed": 0, "train_families": 20, "eval_families": 85}  # the least that holds the planted dirt


@pytest.fixture(autouse=True)
def own_outputs(tmp_path, monkeypatch):
    """Every test has an ``outputs/`` of its own and the default profile."""
    monkeypatch.setenv("VDR_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("VDR_PROFILE", raising=False)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The folder of a small generated source, drawn once (620 pages)."""
    from tiny_vdr.corpus import build_source

    return build_source(tmp_path_factory.mktemp("corpus") / "source", **SMALL)


@pytest.fixture(scope="session")
def processor():
    """``build_processor()``; training its tokenizer takes seconds, so ``build_model`` is given this one for the whole session."""
    from tiny_vdr import model

    patch, built = pytest.MonkeyPatch(), model.build_processor()
    patch.setattr(model, "build_processor", lambda: built)
    yield built
    patch.undo()


@pytest.fixture
def random_model(processor):
    """A fresh model of the tiny architecture with random weights in single precision."""
    from tiny_vdr.model import build_model

    return build_model(seed=0)


@pytest.fixture
def small_profile(source):
    """The tiny profile on the small source: 30 train rows, 20 eval rows."""
    from vdr_helpers.profiles import load_profile

    return dataclasses.replace(load_profile("tiny"), corpus=None, dataset_name=str(source), train_rows=30, eval_rows=20)
