"""The folder for a room without network: what is in it, and what it says when something is
missing.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import offline_kit

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def quick(monkeypatch):
    """The drawn pages and the web pages take half a minute; here they are one file each."""
    monkeypatch.setattr(
        offline_kit, "copy_drawn_pages", lambda target: (target / "drawn").write_text("pages")
    )
    monkeypatch.setattr(offline_kit, "write_pages", lambda target: None)


def test_the_repository_is_the_last_commit_and_no_more(tmp_path, quick, capsys):
    kit = tmp_path / "a room" / "kit"
    assert offline_kit.main([str(kit), "--no-wheels"]) == 0
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    course = kit / "vdr-course"
    assert {str(file.relative_to(course)) for file in course.rglob("*") if file.is_file()} == {
        *listed.stdout.split("\n")[:-1],
        "drawn",
    }
    start = (kit / "START.txt").read_text()
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in start
    assert "--no-index --find-links ../wheels -r requirements.txt" in start
    assert "START.txt" in capsys.readouterr().out


def test_what_is_fetched_is_what_the_laptop_needs(tmp_path, quick, monkeypatch):
    commands = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **more: (
            run(command, **more) if command[0] == "git" else commands.append(command)
        ),
    )
    options = ["--platform", "win_amd64", "--python-version", "3.12", "--", "--timeout", "60"]
    assert offline_kit.main([str(tmp_path / "kit"), *options]) == 0
    [command] = commands
    assert command[1:4] == ["-m", "pip", "download"]
    assert command[command.index("-r") + 1] == str(ROOT / "requirements.txt")
    assert command[command.index("--dest") + 1] == str(tmp_path / "kit" / "wheels")
    assert command[-6:] == [
        "--timeout",
        "60",
        "--platform",
        "win_amd64",
        "--python-version",
        "3.12",
    ]
    assert {"editables"} < {word.partition(">")[0] for word in command} > {"hatchling"}
    assert "Python 3.12 (win_amd64)" in (tmp_path / "kit" / "START.txt").read_text()


@pytest.mark.parametrize("status", [0, 2])
def test_slides_come_along_where_reveal_js_does(tmp_path, quick, monkeypatch, status):
    asked = []
    monkeypatch.setattr(
        offline_kit.slides, "main", lambda arguments: asked.append(arguments) or status
    )
    kit = tmp_path / "kit"
    assert offline_kit.main([str(kit), "--no-wheels", "--reveal", "package"]) == status
    assert asked == [["--reveal", "package", "--folder", str(kit / "slides")]]
    assert (kit / "START.txt").exists() == (status == 0)


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").write_text("notes")
    assert offline_kit.main([str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_failed_download_says_that_the_kit_is_not_whole(tmp_path, quick, monkeypatch, capsys):
    def fail(command, **more):
        if command[0] != "git":
            raise subprocess.CalledProcessError(1, command)
        return run(command, **more)

    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", fail)
    assert offline_kit.main([str(tmp_path / "kit")]) == 2
    assert "not whole" in capsys.readouterr().err
    assert not (tmp_path / "kit" / "START.txt").exists()


def test_the_pages_are_the_notebooks_with_their_outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(
        offline_kit, "find_notebooks", lambda: sorted((ROOT / "notebooks").glob("01_*.ipynb"))
    )
    index = offline_kit.write_pages(tmp_path / "pages")
    page = index.parent / "notebooks" / "01_base_model.html"
    assert 'href="notebooks/01_base_model.html"' in index.read_text(encoding="utf-8")
    assert "<img" in page.read_text(encoding="utf-8")
