"""Where the course lives, in one place: ``pyproject.toml``. Badges and the cell that installs on
Colab and Kaggle follow from it.

``python -m tools.badges https://github.com/owner/name`` writes the address into ``pyproject.toml``
and rewrites what depends on it: the setup cell of every notebook, the badges below its title, the
badges and clone lines in the README and docs/, ``CITATION.cff``. A fork runs it once. ``--unset``
takes all of it away again; with neither, everything is rewritten from what ``pyproject.toml`` says,
for example after a new version. The pinned version is the git tag ``v`` + version, or what
``--ref`` names: a tag, branch or commit.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Colab and Kaggle open notebooks from here; another host gets the install line and no badge
GITHUB = "https://github.com/"
ADDRESS = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~-]+){2,}")
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
BADGE = r"\[!\[Open in (?:Colab|Kaggle)\]\([^)\s]*\)\]\([^)\s]*\)"
# all that the notebooks' cells import, in the one cell that all of them share
EXTRAS = "audit,bench,documents,scale,store"
CLONE = re.compile(r"git clone (?:<address of this repository>|https://\S+)(?= vdr-course\b)")

SETUP_CELL = """\
import os

# Only Colab and Kaggle install anything here.
if {{"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}} & set(os.environ):
    COURSE = "{course}"
    if COURSE:
        %pip install -q "{{COURSE}}"
    else:
        print("COURSE has no address yet: clone the repository and pip install it (README)")
from vdr_helpers.machine import start

profile = start()"""


def clean_address(address: str) -> str:
    """``https://host/owner/name`` without a closing slash or ``.git``. Raises ``ValueError`` for
    anything else, a token in it too.
    """
    cleaned = address.strip().rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(cleaned):
        raise ValueError(
            "not a public address of a repository: write https://github.com/owner/name, without user name or token"
        )
    return cleaned


def settings(pyproject: str) -> tuple[str | None, str]:
    """``(address or None, ref)`` in the text of a ``pyproject.toml``; without ``ref`` in
    ``[tool.vdr]``, the tag of the version.
    """
    data = tomllib.loads(pyproject)
    ref = data.get("tool", {}).get("vdr", {}).get("ref") or f"v{data['project']['version']}"
    return data["project"].get("urls", {}).get("Repository"), ref


def with_entry(text: str, table: str, key: str, value: str | None) -> str:
    """TOML ``text`` with ``key = "value"`` as the first line of ``[table]``, or without that key
    when ``value`` is ``None``.
    """
    lines, inside, found = [], False, False
    for line in text.splitlines(keepends=True):
        header = line.startswith("[")
        if header:
            inside = line.startswith(f"[{table}]")
        if inside and re.match(rf"{key}\s*=", line):
            continue
        lines.append(line)
        if inside and header:
            found = True
            lines += (
                [] if value is None else [f'{key} = "{value}"' + line[len(line.rstrip("\r\n")) :]]
            )
    if value is not None and not found:
        raise ValueError(
            f"pyproject.toml has no line [{table}]: add one, {key} is written below it"
        )
    return "".join(lines)


def setup_cell(address: str | None, ref: str) -> str:
    """The source of the second cell of every notebook; ``COURSE`` is empty while there is no
    address.
    """
    return SETUP_CELL.format(
        course=f"vdr-course[{EXTRAS}] @ git+{address}@{ref}" if address else ""
    )


def badges(address: str | None, ref: str, notebook: str) -> str:
    """The two badges of one notebook as markdown, or nothing without an address that Colab and
    Kaggle can open.
    """
    if not address or not address.startswith(GITHUB):
        return ""
    page = f"{address.removeprefix(GITHUB)}/blob/{ref}/notebooks/{notebook}"
    colab = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    kaggle = "[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
    return f"{colab}(https://colab.research.google.com/github/{page}) {kaggle}(https://kaggle.com/kernels/welcome?src={GITHUB}{page})"


def rewrite_notebook(text: str, name: str, address: str | None, ref: str) -> str:
    """The JSON ``text`` of a notebook with its badges and setup cell for ``address``; nothing else
    changes, not even its layout.

    Raises ``ValueError`` if the second cell is not the setup cell, or the JSON is laid out in a way
    that would not be kept.
    """
    indent = len(re.match(r"\{\s*?\n?( *)", text).group(1)) or None
    end = text[len(text.rstrip()) :]

    def as_text(notebook: dict) -> str:
        return json.dumps(notebook, indent=indent, ensure_ascii=False) + end

    notebook = json.loads(text)
    if as_text(notebook) != text:
        raise ValueError(
            f"{name}: not laid out as Jupyter saves notebooks; open it in JupyterLab, save it, try again"
        )
    title, setup = notebook["cells"][:2]
    if setup["cell_type"] != "code" or "profile = " not in "".join(setup["source"]):
        raise ValueError(f"{name}: the second cell is not the setup cell")
    heading, rest = re.match(r"([^\n]*)(.*)", "".join(title["source"]), re.DOTALL).groups()
    rest = re.sub(rf"\A\n\n{BADGE}(?: {BADGE})*(?=\n|\Z)", "", rest)
    shown = badges(address, ref, name)
    title["source"] = (heading + (f"\n\n{shown}" if shown else "") + rest).splitlines(keepends=True)
    setup["source"] = setup_cell(address, ref).splitlines(keepends=True)
    return as_text(notebook)


def rewrite_readme(text: str, address: str | None, ref: str) -> str:
    """The README's ``text`` with the clone line and, in its table, each notebook's badges for
    ``address``.
    """

    def row(match: re.Match) -> str:
        shown = badges(address, ref, match.group(2))
        return match.group(1) + (f" {shown}" if shown else "")

    row_of_table = rf"(^\|.*?\]\(notebooks/([\w.-]+\.ipynb)\))(?: {BADGE})*"
    return rewrite_document(re.sub(row_of_table, row, text, flags=re.MULTILINE), address)


def rewrite_document(text: str, address: str | None) -> str:
    """A document's ``text`` with its clone lines for ``address``."""
    return CLONE.sub(f"git clone {address or '<address of this repository>'}", text)


def rewrite_citation(text: str, address: str | None, version: str) -> str:
    """``CITATION.cff`` with this version and, below it, the address where there is one."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.MULTILINE)
    code = f"repository-code: {address}\n" if address else ""
    return re.sub(r"^version: .*\n", f"version: {version}\n{code}", text, flags=re.MULTILINE)


def read(path: Path) -> tuple[str, bool]:
    """A file's text with ``\\n`` at the end of lines, and whether it had ``\\r\\n``, as git on
    Windows may write it.
    """
    text = path.read_bytes().decode("utf-8")
    return text.replace("\r\n", "\n"), "\r\n" in text


def rewrite(
    root: Path, change: bool = False, address: str | None = None, ref: str | None = None
) -> list[str]:
    """Bring a checkout in line with ``pyproject.toml``, after writing ``address`` and ``ref`` there
    if ``change``.

    Returns the files that were written, by name; none the second time. Nothing is written if any
    file is not as expected. Raises ``ValueError`` for a wrong address or ref, and
    ``FileNotFoundError`` outside a checkout.
    """
    pyproject, notebooks = root / "pyproject.toml", sorted((root / "notebooks").glob("*.ipynb"))
    citation, documents = root / "CITATION.cff", sorted((root / "docs").glob("*.md"))
    if not pyproject.exists() or not notebooks:
        raise FileNotFoundError(
            "no checkout of the course here: clone the repository, install it with pip install -e ., try again"
        )
    if ref is not None and not REF.fullmatch(ref):
        raise ValueError(f"{ref!r} is not a git tag, branch or commit")
    old = {
        path: read(path)
        for path in [pyproject, root / "README.md", citation, *documents, *notebooks]
    }
    new = {path: text for path, (text, _) in old.items()}
    if change:
        entered = with_entry(
            new[pyproject],
            "project.urls",
            "Repository",
            clean_address(address) if address else None,
        )
        new[pyproject] = with_entry(entered, "tool.vdr", "ref", ref)
    address, ref = settings(new[pyproject])
    version = tomllib.loads(new[pyproject])["project"]["version"]
    new[root / "README.md"] = rewrite_readme(new[root / "README.md"], address, ref)
    new[citation] = rewrite_citation(new[citation], address, version)
    for path in documents:
        new[path] = rewrite_document(new[path], address)
    for path in notebooks:
        new[path] = rewrite_notebook(new[path], path.name, address, ref)
    changed = [path for path in new if new[path] != old[path][0]]
    for path in changed:
        path.write_bytes(
            (new[path].replace("\n", "\r\n") if old[path][1] else new[path]).encode("utf-8")
        )
    return [path.relative_to(root).as_posix() for path in changed]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 0, or 2 with one line on what to do."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.badges", description=__doc__.partition("\n")[0]
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("address", nargs="?", help="https://github.com/owner/name")
    where.add_argument("--unset", action="store_true", help="take the address and every badge away")
    parser.add_argument(
        "--ref", help="the tag, branch or commit to install; without it, the tag v + version"
    )
    options = parser.parse_args(arguments)
    if options.ref and not options.address:
        parser.error("--ref goes with an address")
    try:
        written = rewrite(
            ROOT, bool(options.address or options.unset), options.address, options.ref
        )
        address, ref = settings((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print("written:", ", ".join(written)) if written else print("nothing to change")
    if address:
        print(
            f"Colab and Kaggle install vdr-course[{EXTRAS}] @ git+{address}@{ref}; push that tag, branch or commit before you share a badge"
        )
        if not address.startswith(GITHUB):
            print("no badge is shown: Colab and Kaggle open notebooks from GitHub")
    return 0


if __name__ == "__main__":
    sys.exit(main())
