"""Shared fixtures: no test writes into the checkout or the home folder, and what is slow to make is
made once.
"""

import atexit
import dataclasses
import os
import shutil
import tempfile
from collections import Counter

import pytest

# set before datasets and matplotlib are imported: they read these once
CACHE = tempfile.mkdtemp(prefix="vdr-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ |= {
    "HF_HOME": CACHE,
    "HF_DATASETS_CACHE": f"{CACHE}/datasets",
    "MPLCONFIGDIR": f"{CACHE}/matplotlib",
}

# the least that holds the planted noise
SMALL = {"seed": 0, "train_families": 20, "eval_families": 85}


SKIPPED = Counter()  # tests by the reason why they were skipped


def pytest_runtest_logreport(report):
    """Count what is skipped."""
    if report.skipped and isinstance(report.longrepr, tuple):
        SKIPPED[report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_unconfigure():
    """Say in the last line what the skipped tests need."""
    if SKIPPED:
        print(
            "Skipped:", "; ".join(f"{count} ({reason})" for reason, count in SKIPPED.most_common())
        )


@pytest.fixture(autouse=True)
def own_outputs(tmp_path, monkeypatch):
    """Every test has an ``outputs/`` of its own and the default profile."""
    monkeypatch.setenv("VDR_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("VDR_PROFILE", raising=False)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The folder of a small generated source, drawn once."""
    from tiny_vdr.corpus import build_source

    return build_source(tmp_path_factory.mktemp("corpus") / "source", **SMALL)


@pytest.fixture(scope="session")
def stand_ins(source, tmp_path_factory):
    """The folders that the variables of ``full`` name where there is no hub; ``stand_ins.py`` says
    what is in them.
    """
    from stand_ins import save_stand_ins

    return save_stand_ins(source, tmp_path_factory.mktemp("stand-ins"))


@pytest.fixture(scope="session")
def processor():
    """``build_processor()``; training its tokenizer takes seconds, so ``build_model`` is given this
    one for the whole session.
    """
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

    return dataclasses.replace(
        load_profile("tiny"), corpus=None, dataset_name=str(source), train_rows=30, eval_rows=20
    )


@pytest.fixture(scope="session")
def pdf_files(tmp_path_factory):
    """A folder of six PDF files of six pages, of which notebook 08's rule evaluates by one, and
    questions about some pages.
    """
    import numpy
    from cells import definitions
    from PIL import Image
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    folder = tmp_path_factory.mktemp("pdf")
    side_of = definitions("08", "number_of", "side_of")["side_of"]
    photo = ImageReader(
        Image.fromarray(
            numpy.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=numpy.uint8)
        )
    )
    names = {"eval": [], "train": []}
    for name in (f"manual{i}.pdf" for i in range(30)):
        names["eval" if side_of({"page": 1}, name) == "eval" else "train"].append(name)
    questions = ["file,page,query"]
    for number, name in enumerate([names["eval"][0], *names["train"][:5]]):
        canvas = Canvas(str(folder / name), pagesize=(400, 560))
        canvas.setTitle(name.removesuffix(".pdf"))
        for page, part in enumerate(
            ("Filters", "Hoses", "Cables", "Storage", "Transport", "Cleaning"), start=1
        ):
            canvas.setFont("Helvetica", 30)
            canvas.drawString(20, 500, f"{part} {number}")
            canvas.setFont("Helvetica", 10)
            for line in range(page):
                canvas.drawString(20, 400 - 14 * line, f"Ring {part} {10 * number + line} mm")
            if part == "Storage":
                canvas.drawImage(photo, 20, 20)
            canvas.showPage()
        canvas.save()
        questions += [f"{name},{page},Where is part {page} of {name}?" for page in (2, 4, 5)]
    (folder / "questions.csv").write_text("\n".join([*questions, "gone.pdf,1,Who?"]) + "\n")
    return folder
