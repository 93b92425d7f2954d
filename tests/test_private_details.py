"""What should not leave the machine is found in a folder before it is published."""

import json
import os
from pathlib import Path

import pytest

from tools.private_details import main, private_details

PATH = "a path of this machine"
TOKEN = "hf_" + "S" * 34  # the shape of a token, and none
ROOT = Path(__file__).resolve().parent.parent


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


def test_the_command_says_what_it_found(tmp_path, user, capsys):
    (tmp_path / "README.md").write_text("trained on pages")
    assert main([str(tmp_path)]) == 0
    (tmp_path / "README.md").write_text("in /home/grace/model")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("README.md: a path of this machine (line 1)\n")
    assert main([]) == 2
