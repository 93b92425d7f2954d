"""With the network blocked, the tiny profile loads its model and finds a page; nothing even tries
to connect.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import socket
tried = []
def refuse(*arguments, **options):
    tried.append(repr(arguments[-1] if arguments else None))
    raise OSError("the network is blocked")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse

from sentence_transformers import SentenceTransformer
from tiny_vdr.pages import draw_page
from vdr_helpers.profiles import load_profile
from tiny_vdr.sheet import Page

profile = load_profile("tiny")
model = SentenceTransformer(profile.base_model, device="cpu", model_kwargs=profile.model_kwargs)
page, _ = draw_page(Page("Alder Energy", ("Revenue", "Staff", "Rent"), 2014, "Oslo", "report", 0))
query = model.encode_query(["What was the revenue of Alder Energy in 2014?"])
pages = model.encode_document([page])
print(query.shape, pages.shape, tuple(model.similarity(query, pages).shape), "tried:", tried)
"""


@pytest.mark.slow
def test_the_tiny_base_works_with_the_network_blocked(tmp_path):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    environment |= {
        "HF_HOME": str(tmp_path / "empty cache"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines()[-1] == "(1, 256) (1, 256) (1, 1) tried: []"


def test_the_block_works(tmp_path):
    """The same block stops a real request, so that the test above can fail."""
    script = (
        SCRIPT.split("from sentence_transformers")[0]
        + "import urllib.request; urllib.request.urlopen('http://huggingface.co')"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode != 0
    assert "the network is blocked" in run.stderr
