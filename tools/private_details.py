"""Look for what should not leave this machine in a folder that will be published: ``python -m
tools.private_details FOLDER``.

Named are paths of this machine, the user's name and tokens of the hub, with the file and, for a
path, the line. The exit status is 1 where anything is found.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path

# What may stand before a path, so that a URL, a closing tag and "query/page" are none.
OPENING = r"(?:^|(?<=[\s\"'`(=,;:\[]))"
POSIX = re.compile(OPENING + r"(?:file://)?(?P<top>/[\w.@+~-]+)(?P<rest>/[\w.@+~-][^\s\"'`<>]*)?")
WINDOWS = re.compile(OPENING + r"(?:[A-Za-z]:[\\/]+[\w.~-]+|\\\\[\w.-]+\\\w|\\{4}[\w.-]+\\\\\w)")
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
NOT_YOURS = {"root", "user", "jovyan", "colab", "kaggle"}  # account names that point to nobody
# Any word can stand in a vocabulary: only tokens are looked for there.
VOCABULARIES = {"tokenizer.json", "vocab.json", "merges.txt"}
TEXT_FILES = {
    ".json", ".md", ".jinja", ".txt", ".yaml", ".yml", ".toml", ".cfg", ".py", ".csv", ".html",
}  # fmt: skip


def private_details(folder: Path) -> list[str]:
    """What was found, such as ``README.md: a path of this machine (line 3)``; ``FileNotFoundError``
    where there is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.name}: save the model first")
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in TEXT_FILES):
        content = path.read_text(encoding="utf-8", errors="replace")
        name = path.relative_to(folder).as_posix()
        if path.name not in VOCABULARIES:
            lines = enumerate(content.splitlines(), start=1)
            numbers = [number for number, line in lines if names_a_path(line)]
            found += [f"{name}: a path of this machine (line {number})" for number in numbers]
            if names_the_user(content):
                found.append(f"{name}: your user name")
        if holds_a_token(content):
            found.append(f"{name}: a token")
    return found


def names_a_path(line: str) -> bool:
    """Whether a line names a path of some machine; a single name such as ``/data`` counts where
    this machine has it.
    """
    if WINDOWS.search(line):
        return True
    return any(path["rest"] or Path(path["top"]).exists() for path in POSIX.finditer(line))


def names_the_user(text: str) -> bool:
    """Whether the name of the account that runs this stands in ``text`` as a word."""
    user = getpass.getuser()
    return user not in NOT_YOURS and re.search(rf"\b{re.escape(user)}\b", text) is not None


def holds_a_token(text: str) -> bool:
    """Whether ``text`` holds something of the shape of a hub token, or what ``HF_TOKEN`` holds."""
    own = os.environ.get("HF_TOKEN", "").strip()
    return TOKEN.search(text) is not None or bool(own and own in text)


def main(arguments: list[str] | None = None) -> int:
    """Print what was found in the folder that is named."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        print("name one folder: python -m tools.private_details outputs/tiny/published")
        return 2
    found = private_details(Path(arguments[0]))
    print("\n".join(found) or "no path of this machine, no user name, no token")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
