"""Publishing, without the hub: notebook 06's own cells push to a stand-in on this machine, which
answers, refuses and keeps all it got.

The stand-in speaks the part of the hub's protocol that ``push_to_hub`` uses, with large files sent
the way of git LFS. The newer transfer (xet) is switched off: it needs a store of its own and was
not tried.
"""

import base64
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from cells import edited_sources
from huggingface_hub import ModelCard

from tools.private_details import private_details

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "hf_" + "S" * 34  # the shape of a token, and none
OWNERS = {"no-right": 403, "bad-token": 401, "taken": 409}
NAMES = ["me/model", *(f"{owner}/model" for owner in OWNERS), "not a name", "no-token/model"]

# Runs the cells of notebook 06 on four made-up rows, then the one that pushes, each time with
# another name.
PROGRAM = """
import json, os, sys
import numpy
from datasets import Dataset
from PIL import Image
import vdr_helpers.splits

draw, columns = numpy.random.default_rng(0), {"query": [f"question {i}" for i in range(4)]}
for name in ("image", "negative_0", "negative_1", "negative_2", "negative_3"):
    columns[name] = [os.path.abspath(f"{name}_{i}.png") for i in range(4)]
    for file in columns[name]:
        Image.fromarray(draw.integers(0, 255, (96, 96, 3), dtype="uint8")).save(file)
vdr_helpers.splits.load_split = lambda profile, split: (Dataset.from_dict(columns), "made up")

cells, push, names = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3:]
space = {"__name__": "__main__"}
for source in cells:
    exec(source, space)
for name in names:
    print("== " + name)
    if name == "no-token/model":
        del os.environ["HF_TOKEN"]
    space["repository"] = name
    exec(push.replace("publish = False", "publish = True"), space)
"""


class StandIn(http.server.BaseHTTPRequestHandler):
    """Creates repositories, says that ``*.safetensors`` are large, takes uploads and commits;
    refuses the owners in OWNERS.
    """

    def log_message(self, *arguments):
        pass

    def answer(self, status, body=None):
        data = json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self):
        self.server.uploads[self.path.rpartition("/")[2]] = self.body()
        self.answer(200)

    def do_GET(self):
        self.answer(404)  # the library asks for news of its own; a push needs no answer

    def do_POST(self):
        data, path = self.body(), self.path.partition("?")[0]
        here = f"http://127.0.0.1:{self.server.server_port}"
        self.server.authorizations.append(self.headers.get("Authorization"))
        if path == "/api/repos/create":
            asked = json.loads(data)
            self.server.created.append(asked)
            status = OWNERS.get(asked["organization"], 200)
            name = f"{asked['organization']}/{asked['name']}"
            self.answer(
                status,
                {"url": f"{here}/{name}"}
                if status == 200
                else {"error": "refused by the stand-in"},
            )
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [file["path"] for file in json.loads(data)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in files}
            self.answer(
                200,
                {
                    "files": [
                        {"path": n, "uploadMode": m, "shouldIgnore": False}
                        for n, m in modes.items()
                    ]
                },
            )
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(data)["objects"]
            for entry in objects:
                entry["actions"] = {"upload": {"href": f"{here}/lfs/{entry['oid']}"}}
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.server.commits.append([json.loads(line) for line in data.splitlines()])
            repository = path.partition("/models/")[2].partition("/commit/")[0]
            self.answer(
                200,
                {
                    "commitUrl": f"{here}/{repository}/commit/abc",
                    "commitOid": "abc",
                    "pullRequestUrl": None,
                },
            )
        else:
            self.server.unexpected.append(f"POST {path}")
            self.answer(404)


def start_stand_in():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.uploads, server.created, server.commits = {}, [], []
    server.authorizations, server.unexpected = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """Notebook 06 published six times by a user ``ada`` with a home folder: what the stand-in got,
    and what was printed.
    """
    home = tmp_path_factory.mktemp("home") / "ada"
    home.mkdir()
    sources = [source for source in edited_sources("06") if "vdr_exercises" not in source]
    [last] = [i for i, source in enumerate(sources) if "push_to_hub(" in source]
    (home / "cells.json").write_text(json.dumps(sources[1:last]))  # without the setup cell
    program = PROGRAM.replace(
        "for source in cells:",
        "from vdr_helpers.profiles import load_profile\nspace['profile'] = load_profile()\nfor source in cells:",
    )
    server = start_stand_in()
    environment = os.environ | {
        "HOME": str(home),
        "USER": "ada",
        "LOGNAME": "ada",
        "HF_HOME": str(home / "cache"),
        "HF_TOKEN": TOKEN,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_DISABLE_XET": "1",
        "VDR_OUTPUTS": str(home / "outputs"),
        "PYTHONPATH": str(ROOT),
    }
    for name in ("HF_HUB_OFFLINE", "VDR_PROFILE", "VDR_MODEL", "VDR_FINETUNED", "VDR_DATASET"):
        environment.pop(name, None)
    run = subprocess.run(
        [sys.executable, "-c", program, str(home / "cells.json"), sources[last], *NAMES],
        env=environment,
        capture_output=True,
        text=True,
        cwd=home,
        timeout=900,
    )
    server.shutdown()
    assert run.returncode == 0, run.stderr
    printed = dict(part.split("\n", 1) for part in run.stdout.split("== ")[1:])
    folder = home / "outputs/tiny/published"
    return types.SimpleNamespace(server=server, printed=printed, run=run, home=home, folder=folder)


def committed(server):
    """``{path: bytes}`` of the one commit, large files from their upload."""
    assert len(server.commits) == 1
    files = {}
    for line in server.commits[0]:
        if line["key"] == "file":
            files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        elif line["key"] == "lfsFile":
            files[line["value"]["path"]] = server.uploads[line["value"]["oid"]]
    return files


@pytest.mark.slow
def test_a_push_creates_a_private_repository(pushed):
    asked = [entry for entry in pushed.server.created if entry["organization"] == "me"]
    assert len(asked) == 1
    assert asked[0].get("private") is True or asked[0].get("visibility") == "private"
    assert pushed.server.unexpected == []
    address = f"http://127.0.0.1:{pushed.server.server_port}/me/model/commit/abc"
    assert pushed.printed["me/model"] == f"published: {address}\n"


@pytest.mark.slow
def test_a_push_holds_the_folder_on_disk(pushed):
    files = committed(pushed.server)
    on_disk = {
        path.relative_to(pushed.folder).as_posix(): path.read_bytes()
        for path in pushed.folder.rglob("*")
        if path.is_file()
    }
    assert files == on_disk
    needed = {"README.md", "model.safetensors", "modules.json", "config_sentence_transformers.json"}
    assert needed <= set(files) and "assets/image_0.jpg" in files
    assert not [name for name in files if name.endswith((".bin", ".pkl", ".pt", ".ckpt", ".py"))]


@pytest.mark.slow
def test_the_width_ships_and_a_server_may_offer_the_others(pushed):
    read = {
        name: json.loads((pushed.folder / name).read_text())
        for name in ("config.json", "config_sentence_transformers.json")
    }
    assert read["config_sentence_transformers.json"]["truncate_dim"] == 128
    assert read["config.json"]["matryoshka_dimensions"] == [256, 192, 128, 64, 32, 16, 8]


@pytest.mark.slow
def test_the_card_speaks_of_the_width_that_ships(pushed):
    card = ModelCard.load(pushed.folder / "README.md")
    head = card.data
    assert (head.language, head.license, head.library_name) == (
        "en",
        "apache-2.0",
        "sentence-transformers",
    )
    assert head.pipeline_tag == "visual-document-retrieval"
    [score] = [
        result.metric_value
        for result in head.eval_results
        if result.metric_type == "cosine_ndcg@10"
    ]
    assert f"| **cosine_ndcg@10**  | **{score:.4f}".rstrip("0") in card.text
    assert (
        "4 queries against 20 pages" in card.text
        and "At 128\ndimensions, as the model ships" in card.text
    )
    assert "to a 128-dimensional dense vector space" in card.text
    assert "# [1, 128] [3, 128]" in card.text
    assert (
        "- **Output Dimensionality:** 256, 192, 128, 64, 32, 16, 8 dimensions, default 128"
        in card.text
    )
    assert "- train_rows 2,048 instead of 10,000" in card.text
    assert "your-name/your-model/resolve/main/assets/image_0.jpg" in card.text
    assert not re.search(r"sentence_transformers_model_id|[\"']assets/", card.text)
    headings = re.findall(r"^## (.*)$", card.text, re.MULTILINE)
    own = ["Evaluation", "Limits", "What differs from the published setting", "Training Details"]
    assert [heading for heading in headings if heading in own] == own


@pytest.mark.slow
def test_the_token_goes_to_the_hub_and_nowhere_else(pushed):
    assert f"Bearer {TOKEN}" in pushed.server.authorizations
    everything = [pushed.run.stdout.encode(), pushed.run.stderr.encode()]
    everything += committed(pushed.server).values()
    assert not [part[:60] for part in everything if TOKEN.encode() in part]
    files = (path for path in pushed.home.rglob("*") if path.is_file())
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


@pytest.mark.slow
def test_neither_the_user_nor_the_home_folder_is_published(pushed, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    assert private_details(pushed.folder) == []
    small = {
        name: data for name, data in committed(pushed.server).items() if name != "tokenizer.json"
    }
    weights = small["model.safetensors"]  # among millions of numbers any three letters turn up
    small["model.safetensors"] = weights[: 8 + int.from_bytes(weights[:8], "little")]
    private = re.compile(
        rb"\bada\b|/root/|/home/|/tmp/|/work/|" + re.escape(str(pushed.home.parent)).encode()
    )
    assert not [name for name, data in small.items() if private.search(data)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-right/model", "403"),
        ("bad-token/model", "401"),
        ("taken/model", "409"),
        ("not a name", "HFValidationError"),
        ("no-token/model", "LocalTokenNotFoundError"),
    ],
)
def test_a_refusal_says_why_and_the_model_is_safe(pushed, name, why):
    said = pushed.printed[name]
    assert said.startswith("not published (") and why in said
    assert said.endswith("The model is safe in tiny/published, in your outputs folder.\n")
    assert (pushed.folder / "model.safetensors").stat().st_size > 1_000_000


@pytest.mark.slow
def test_a_missing_token_asks_the_hub_for_nothing(pushed):
    assert {entry["organization"] for entry in pushed.server.created} == {"me", *OWNERS}
    assert None not in pushed.server.authorizations


def test_the_switch_is_off_in_the_notebook():
    [source] = [source for source in edited_sources("06") if "push_to_hub(" in source]
    space = {"user_model": None, "repository": "", "folder": Path()}
    exec(source, space)  # with the switch on, the missing model would be named
    assert space["publish"] is False
