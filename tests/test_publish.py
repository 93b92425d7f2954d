"""Publishing, without the hub: notebook 06's own cells push to a stand-in on this machine, which answers, refuses and keeps all it got.

The stand-in speaks the part of the hub's protocol that ``push_to_hub`` uses, with large files sent the way of git LFS. The newer
transfer (xet) is switched off: it needs a store of its own and was not tried.
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
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import definitions, edited_sources
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError
from vdr_helpers.stamps import data_settings, write_stamp

from tools.gpu_memory import LORA
from vdr_helpers.profiles import PROFILES, load_profile

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "hf_" + "S" * 34  # the shape of a token, and none
CARD_CELLS = (
    "training_facts(",
    "load_results(",
    "ModelCardData(",
    "model_card = ",
)  # what they hold, in order
SCAN_CELLS = (
    "def names_a_path",
    "def private_details",
    "def merge_adapters",
    "def hub_token",
    "def reason",
)
OWNERS = {"no-right": 403, "bad-token": 401, "taken": 409}

# Runs cells of notebook 06 (the profile first, publishing last), the last one with another name each time.
PROGRAM = """
import json, os, sys
cells, names = json.load(open(sys.argv[1])), sys.argv[2:]
space = {"__name__": "__main__"}
for source in cells[:-1]:
    exec(source, space)
for name in names:
    print("== " + name)
    if name == "no-token/model":
        del os.environ["HF_TOKEN"]
    exec(cells[-1].replace("publish = False", "publish = True").replace("your-name/your-model", name), space)
"""


class StandIn(http.server.BaseHTTPRequestHandler):
    """Creates repositories, says that ``*.safetensors`` are large, takes uploads and commits; refuses the owners in OWNERS."""

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
    server.uploads, server.created, server.commits, server.authorizations, server.unexpected = (
        {},
        [],
        [],
        [],
        [],
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def cell(text, number="06"):
    """The one code cell of notebook 06, or another one, that holds ``text``."""
    found = [source for source in edited_sources(number) if text in source]
    assert len(found) == 1, f"{len(found)} cells hold {text!r}"
    return found[0]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """Notebook 06 published six times by a user ``ada`` with a home folder: what the stand-in got, and what was printed."""
    home = tmp_path_factory.mktemp("home") / "ada"
    home.mkdir()
    cells = [
        "from vdr_helpers.profiles import load_profile\nprofile = load_profile()",
        *(
            cell(text)
            for text in (
                "finetuned_model(profile)",
                *CARD_CELLS,
                *SCAN_CELLS,
                "save_pretrained(",
                "push_to_hub(",
            )
        ),
    ]
    (home / "cells.json").write_text(json.dumps(cells))
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
    for name in (
        "HF_HUB_OFFLINE",
        "VDR_PROFILE",
        "VDR_MODEL",
        "VDR_FINETUNED",
        "VDR_DATASET",
        "COLAB_RELEASE_TAG",
    ):
        environment.pop(name, None)
    names = [
        "me/model",
        "no-right/model",
        "bad-token/model",
        "taken/model",
        "not a name",
        "no-token/model",
    ]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(home / "cells.json"), *names],
        env=environment,
        capture_output=True,
        text=True,
        cwd=home,
        timeout=500,
    )
    server.shutdown()
    assert run.returncode == 0, run.stderr
    printed = dict(part.split("\n", 1) for part in run.stdout.split("== ")[1:])
    return types.SimpleNamespace(
        server=server, printed=printed, run=run, home=home, folder=home / "outputs/tiny/published"
    )


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
    assert (
        pushed.printed["me/model"]
        == f"published: http://127.0.0.1:{pushed.server.server_port}/me/model/commit/abc\n"
    )


@pytest.mark.slow
def test_a_push_holds_the_folder_on_disk_with_its_card(pushed):
    files = committed(pushed.server)
    on_disk = {
        p.relative_to(pushed.folder).as_posix(): p.read_bytes()
        for p in pushed.folder.rglob("*")
        if p.is_file()
    }
    assert files == on_disk
    card = files["README.md"].decode()
    assert ModelCard(card).data.library_name == "sentence-transformers"
    assert "| loss | MatryoshkaLoss over CachedMultipleNegativesRankingLoss at 256, " in card
    assert "| base | assets/tiny-base |" in card
    assert {"model.safetensors", "modules.json", "config_sentence_transformers.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pkl", ".pt", ".ckpt", ".py"))]


@pytest.mark.slow
def test_the_token_goes_to_the_hub_and_nowhere_else(pushed):
    assert f"Bearer {TOKEN}" in pushed.server.authorizations
    everything = [
        pushed.run.stdout.encode(),
        pushed.run.stderr.encode(),
        *committed(pushed.server).values(),
    ]
    assert not [part[:60] for part in everything if TOKEN.encode() in part]
    written = [
        path
        for path in pushed.home.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert not written


@pytest.mark.slow
def test_neither_the_user_nor_the_home_folder_is_published_or_printed(pushed):
    small = {
        name: data for name, data in committed(pushed.server).items() if name != "tokenizer.json"
    }
    private = re.compile(
        rb"\bada\b|/root/|/home/|/tmp/|/work/|" + re.escape(str(pushed.home.parent)).encode()
    )
    assert not [name for name, data in small.items() if private.search(data)]
    for printed in (
        pushed.run.stdout,
        pushed.run.stderr,
    ):  # some releases of transformers print where they are installed
        assert not re.search(r"\bada\b", printed)
        assert str(pushed.home.parent) not in printed
    assert str(pushed.home).encode() not in committed(pushed.server)["tokenizer.json"]
    assert "paths, user names, tokens: none" in pushed.run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-right/model", "this token may not write there"),
        ("bad-token/model", "the hub does not know this token"),
        ("taken/model", "of that name already"),
        ("not a name", "not valid on the hub"),
        ("no-token/model", "no token was found"),
    ],
)
def test_a_refusal_is_one_line_and_the_model_is_safe(pushed, name, why):
    refusal, end = pushed.printed[name].splitlines()
    assert refusal.startswith("not published: ")
    assert why in refusal
    assert refusal.endswith("Your model is safe in tiny/published, in your outputs folder.")
    assert end == "published: no"
    assert (pushed.folder / "model.safetensors").stat().st_size > 1_000_000


@pytest.mark.slow
def test_a_missing_token_asks_the_hub_for_nothing(pushed):
    assert {entry["organization"] for entry in pushed.server.created} == {"me", *OWNERS}
    assert None not in pushed.server.authorizations


def test_the_switch_is_off_in_the_notebook():
    source = cell("push_to_hub(")
    assert "publish = False\n" in source
    assert "private=True" in source


# Where the token comes from


@pytest.fixture
def no_token(monkeypatch):
    for name in ("HF_TOKEN", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "nowhere")


def platform(monkeypatch, variable, modules):
    monkeypatch.setenv(variable, "1")
    for name, contents in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)


def secrets_of(read):
    """Stand-ins for the secret stores of Colab and Kaggle, as modules; ``read(name)`` returns the secret or raises."""
    userdata = types.SimpleNamespace(get=read)
    client = type("UserSecretsClient", (), {"get_secret": lambda self, name: read(name)})
    return {
        "COLAB_RELEASE_TAG": {"google": {}, "google.colab": {"userdata": userdata}},
        "KAGGLE_KERNEL_RUN_TYPE": {"kaggle_secrets": {"UserSecretsClient": client}},
    }


def hub_token():
    """What notebook 06 hands to the hub."""
    return definitions("06", "hub_token")["hub_token"]()


def test_the_environment_comes_first(no_token, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    platform(monkeypatch, KAGGLE, secrets_of(lambda name: "another")[KAGGLE])
    assert hub_token() == TOKEN


KAGGLE = "KAGGLE_KERNEL_RUN_TYPE"  # Colab's secrets are read by huggingface_hub


@pytest.mark.parametrize("variable", [KAGGLE])
def test_the_platforms_secret_is_read(no_token, monkeypatch, capsys, variable):
    platform(monkeypatch, variable, secrets_of({"HF_TOKEN": TOKEN}.__getitem__)[variable])
    assert hub_token() == TOKEN
    assert capsys.readouterr() == ("", "")
    assert "HF_TOKEN" not in os.environ


@pytest.mark.parametrize("variable", ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"])
def test_a_refused_secret_is_no_token(no_token, monkeypatch, variable):
    platform(
        monkeypatch, variable, secrets_of({}.__getitem__)[variable]
    )  # raises KeyError, as a store without the secret
    with pytest.raises(LocalTokenNotFoundError) as problem:
        HfApi(token=hub_token()).create_repo("me/model", private=True)
    assert "HF_TOKEN" in reason(problem.value) and "\n" not in reason(problem.value)


def test_a_login_is_found(no_token, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    assert hub_token() == TOKEN


# What becomes one line


def reason(error):
    """Notebook 06's own words for what the hub refuses."""
    return definitions("06", "ADVICE", "reason")["reason"](error)


def test_an_error_of_the_code_is_not_hidden():
    assert reason(KeyError("a mistake in the cell")) is None


def test_a_hub_that_is_not_there_is_one_line():
    with pytest.raises(Exception) as refused:
        HfApi(endpoint="http://127.0.0.1:9", token=TOKEN).create_repo("me/model", private=True)
    line = reason(refused.value)
    assert "could not be reached" in line and "\n" not in line
    assert TOKEN not in line


# What must not be published


PATH = "a path of this machine"
SCAN = "USER TOKEN OPENING POSIX WINDOWS NOT_YOURS VOCABULARIES TEXT_FILES names_a_path names_you holds_a_token private_details".split()


def private_details(folder):
    """Notebook 06's own search, for who runs it now."""
    return definitions("06", *SCAN)["private_details"](folder)


@pytest.fixture
def user(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "lovelace")
    monkeypatch.setenv("HF_TOKEN", "secret-of-mine")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("trained on pages", []),
        ("see https://example.org/home/page/two, a/root/b, and/or, 3 / 4, </think>, ~5 m/s", []),
        ("[notebook](docs/models.md), `owner/name`, query/page", []),
        ('{"path": "/home/grace/model"}', [PATH]),
        ('{"path": "C:\\\\Users\\\\grace\\\\model"}', [PATH]),
        ("in D:/models/mine", [PATH]),
        ("in file:///opt/models/mine", [PATH]),
        ("in " + os.sep + "tmp", [PATH]),  # a single word counts because this machine has it
        ("say /no_think to the model", []),
        *(
            (f"in {top}/my run/model", [PATH])
            for top in ("/root", "/content", "/tmp", "/mnt", "/workspace", "/scratch", "/data")
        ),
        ("by lovelace", ["your user name"]),
        ("by lovelaces", []),
        ("token " + TOKEN, ["a token"]),
        ("secret-of-mine", ["a token"]),
    ],
)
def test_private_details_are_found(tmp_path, user, text, found):
    (tmp_path / "README.md").write_text("# Title\n" + text)
    (tmp_path / "tokenizer.json").write_text(
        '{"model": {"vocab": {"lovelace": 1, "/home/x/y": 2}, "merges": ["/usr/ lib/x"]}}'
    )
    found = [what + " (line 2)" if what == PATH else what for what in found]
    assert private_details(tmp_path) == [f"README.md: {what}" for what in found]


def test_a_path_in_json_is_named_by_its_line(tmp_path, user):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base": [{"base_model_name_or_path": "/scratch/u1/base"}], "r": 32}, indent=1)
    )
    (tmp_path / "config.json").write_text(
        json.dumps({"_name_or_path": "owner/model", "dir": "\\\\server\\share\\model"})
    )
    (tmp_path / "broken.json").write_text('{"a": "/mnt/disk/model", ')
    assert private_details(tmp_path) == [
        f"adapter_config.json: {PATH} (line 4)",
        f"broken.json: {PATH} (line 1)",
        f"config.json: {PATH} (line 1)",
    ]


def test_what_a_real_model_folder_holds_is_no_path(tmp_path, user):
    expression = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|i:\s|/\S+/"
    tokenizer = {
        "pre_tokenizer": {"pattern": {"Regex": expression}},
        "added_tokens": [{"content": "</tool_call>"}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "merges.txt").write_text("/home /ada\n/usr/lib /x\n")
    (tmp_path / "vocab.json").write_text('{"/home/ada": 3}')
    (tmp_path / "chat_template.jinja").write_text(
        "{{- '</tools>\\n' }}{% if x / 2 %}{{ '/think' }}{% endif %}<|im_end|>"
    )
    (tmp_path / "config.json").write_text(
        '{"url": "https://huggingface.co/owner/model/blob/main/x", "dtype": "float16"}'
    )
    assert private_details(tmp_path) == []
    for shipped_model in (ROOT / "assets").glob("tiny-*"):
        assert private_details(shipped_model) == []


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="save the model first"):
        private_details(tmp_path / "published")


# LoRA


def test_lora_is_merged_so_that_no_path_leaves(tmp_path, monkeypatch):
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    profile = load_profile("tiny")
    settings = {
        "model_kwargs": profile.model_kwargs,
        "processor_kwargs": profile.processor_kwargs,
        "device": "cpu",
    }
    model = SentenceTransformer(profile.base_model, **settings)
    space = definitions("06", "merge_adapters")
    merge_adapters = space["merge_adapters"]
    merge_adapters.__globals__["profile"] = profile
    assert merge_adapters(model) is model
    base = model.encode_query(["Alder Energy revenue 2020"])
    model.add_adapter(LoraConfig(**LORA))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.05)
    model.save_pretrained(str(tmp_path / "tuned"), create_model_card=False)
    [found] = private_details(tmp_path / "tuned")
    assert found.startswith(f"adapter_config.json: {PATH} (line ")

    tuned = SentenceTransformer(str(tmp_path / "tuned"), truncate_dim=128, **settings)
    expected = tuned.encode_query(["Alder Energy revenue 2020"])
    assert abs(expected - base[:, :128]).max() > 0.01
    folder = tmp_path / "published"
    merge_adapters(tuned).save_pretrained(str(folder), create_model_card=False)
    assert private_details(folder) == []
    assert not list(folder.glob("adapter*"))
    published = SentenceTransformer(
        str(folder), device="cpu"
    )  # as a stranger: no settings, no peft, no base
    assert not getattr(published[0].auto_model, "peft_config", None)
    assert abs(published.encode_query(["Alder Energy revenue 2020"]) - expected).max() < 1e-5


# The card


def make_card(monkeypatch, folder, profile, stamp, results=None):
    """Notebook 06's card for a tuned model with this note, and what the cells said."""
    folder.mkdir()
    if stamp:
        write_stamp(folder, stamp)
    monkeypatch.setattr(
        "vdr_helpers.evaluation.load_results", lambda profile, name: (results or {}).get(name)
    )
    space = {"profile": profile, "finetuned_path": str(folder), "width": profile.truncate_dim}
    for text in CARD_CELLS:
        exec(cell(text), space)
    return ModelCard(space["model_card"])


def loss_of(profile):
    """The course's loss on a model that does nothing."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MatryoshkaLoss,
    )

    model = SentenceTransformer(modules=[torch.nn.Identity()], device="cpu")
    return MatryoshkaLoss(
        model, CachedMultipleNegativesRankingLoss(model), list(profile.matryoshka_dims)
    )


def in_words(loss):
    """What notebook 03's own cell says of a LoRA run on a T4."""
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    rows = types.SimpleNamespace(column_names=["query", "image", "negative_0"])
    settings = {
        "learning_rate": 2e-4,
        "num_train_epochs": 1.0,
        "train_batch_size": 64,
        "seed": 42,
        "bf16": False,
        "fp16": True,
    }
    space = {
        "profile": replace(PROFILES["full"], adapters=(LORA,)), "args": types.SimpleNamespace(**settings), "loss": loss,
        "trainer": types.SimpleNamespace(train_dataset=rows), "train_dataset": range(8991), "MatryoshkaLoss": MatryoshkaLoss,
        "model": types.SimpleNamespace(dtype=torch.float16),
    }  # fmt: skip
    exec(cell("training = {", "03"), space)
    return {
        name: value
        for name, value in space["training"].items()
        if name != "not the published setting"
    }


def note(**training):
    """What notebook 03 would have kept of a LoRA run on a T4 with the split of its publisher."""
    split = {
        "name": "tomaarsen/llamaindex-vdr-en-train-preprocessed",
        "config": "train and eval",
        "revision": None,
    }
    data = data_settings(PROFILES["full"]) | {
        "dataset": split,
        "split": "by its publisher",
        "train_rows": 9000,
    }
    return {
        "model": {"name": "Qwen/Qwen3-VL-Embedding-2B", "revision": "9f2f7e"},
        "data": data | {"resolved": {"name": split["name"], "revision": "abc123"}},
        "training": in_words(loss_of(PROFILES["full"])) | training,
    }


METRICS = {
    f"vdr-eval-hard_cosine_{name}": value
    for name, value in (("ndcg@10", 0.93711), ("mrr@10", 0.9), ("accuracy@1", 0.85))
}
RESULTS = {
    "evaluation": {"base": METRICS, "finetuned": METRICS},
    "truncation": {"base": {"2048": 0.8, "64": 0.6}, "finetuned": {"2048": 0.93711, "64": 0.9}},
}


def test_the_card_says_what_was_really_trained(tmp_path, monkeypatch):
    card = make_card(monkeypatch, tmp_path / "tuned", PROFILES["full"], note(), RESULTS)
    for row in (
        "| data | tomaarsen/llamaindex-vdr-en-train-preprocessed |",
        "| data revision | abc123 |",
        "| split | by its publisher |",
        "| rows | 8,991 pairs of query and page, hard negatives per pair: 1 |",
        "| trained | LoRA, later added to the weights |",
        "| number format | float16 under fp16 autocast |",
        "| learning rate | 0.0002 |",
    ):
        assert row in card.text, row
    assert "10,000" not in card.text
    assert "all weights" not in card.text


def test_deviations_are_those_of_the_training_machine(tmp_path, monkeypatch):
    said = [
        "LoRA on the language model instead of all weights",
        "float16 weights instead of bfloat16",
    ]
    card = make_card(
        monkeypatch,
        tmp_path / "tuned",
        PROFILES["full"],
        note(**{"not the published setting": "; ".join(said)}),
    )
    assert f"| not the published setting | {'; '.join(said)} |" in card.text
    here = make_card(
        monkeypatch, tmp_path / "older", replace(PROFILES["full"], train_rows=96), note()
    )
    assert (
        "published setting" not in here.text
    )  # a note that does not say them: today's settings are not theirs
    assert "96" not in here.text.partition("## Training")[2].partition("## Evaluation")[0]


def test_the_head_is_what_the_hub_reads(tmp_path, monkeypatch):
    card = make_card(monkeypatch, tmp_path / "tuned", PROFILES["full"], note(), RESULTS)
    data = card.data
    assert (data.base_model, data.license, data.language) == (
        "Qwen/Qwen3-VL-Embedding-2B",
        "apache-2.0",
        "en",
    )
    assert data.datasets == "tomaarsen/llamaindex-vdr-en-train-preprocessed"
    assert (data.library_name, data.pipeline_tag) == (
        "sentence-transformers",
        "visual-document-retrieval",
    )
    scores = {result.metric_type: result.metric_value for result in data.eval_results}
    assert scores == {"ndcg@10": 0.9371, "mrr@10": 0.9, "accuracy@1": 0.85}
    assert "| 64 | 0.600 | 0.900 |" in card.text
    assert "their licence is not known here" in card.text
    assert re.findall(r"^## (.*)", card.text, re.MULTILINE) == [
        "Use", "Limits", "Training", "Evaluation", "Licence", "Versions", "Citations",
    ]  # fmt: skip
    assert len(re.findall(r"^@\w+\{", card.text, re.MULTILINE)) == 3
    assert not re.search(r"\{\{|\{%|\bNone\b|\n\n\n\n", str(card))


def test_what_is_not_known_is_left_out(tmp_path, monkeypatch):
    stamp = note() | {"model": {"name": "local folder mine", "revision": None}}
    stamp["data"]["resolved"] = {"name": "local folder pages", "revision": "local folder"}
    card = make_card(monkeypatch, tmp_path / "tuned", PROFILES["full"], stamp)
    head = card.data.to_dict()
    assert not {"license", "base_model", "datasets", "model-index"} & set(head)
    assert "licence of the model that these weights were tuned from is not known here" in card.text
    assert "Not evaluated." in card.text
    assert "0.9" not in card.text.partition("## Evaluation")[2].partition("## Licence")[0]


def test_a_model_without_a_note_is_somebody_elses(tmp_path, monkeypatch):
    card = make_card(monkeypatch, tmp_path / "tuned", PROFILES["full"], None)
    assert card.data.base_model == "tomaarsen/Qwen3-VL-Embedding-2B-vdr"
    assert "| data | not known here |" in card.text
    assert "| rows |" not in card.text


def test_only_a_name_that_the_hub_can_know_is_one():
    names = ("owner/model", "assets/tiny-base", "local folder mine", "generated", "random weights")
    hub_name = definitions("06", "hub_name")["hub_name"]
    assert [name for name in names if hub_name(name)] == ["owner/model"]


@pytest.mark.parametrize(
    ("base", "stated"),
    [
        ("Qwen/Qwen3-VL-Embedding-2B", "apache-2.0"),
        ("assets/tiny-base", "apache-2.0"),
        ("BAAI/BGE-VL-base", "mit"),
        ("nvidia/omni-embed-nemotron-3b", None),
        ("owner/unknown", None),
    ],
)
def test_a_licence_is_stated_where_it_is_known_and_free(base, stated):
    space = {"facts": {"base": base, "data": "generated"}, "metrics": []}
    exec(cell("ModelCardData("), space)
    assert space["card_data"].license == stated
