"""Each stage of the course as one script to take away: ``python -m tools.copy_out [stage ...] [--profile tiny]``.

Writes ``outputs/<profile>/scripts/<stage>.py``: plain Sentence Transformers, nothing from this repository to import. The notebooks are
the only source. A cell belongs to a stage when its metadata say so, ``"copy_out": {"train": ""}``; in the quotes stands what is written
above it where that is not the heading of its section. A new stage is an entry in :data:`STAGES` and that key in its cells. What happens
to the cells on the way:

1. What keeps the course's books or draws for a notebook (:data:`LEFT_OUT`) is left out: statements that call it, keyword arguments that
   hold it, and what cannot be without them. An assignment that nobody reads any more goes too.
2. What a cell imports from ``vdr_helpers`` is put in by source, with what that needs; plumbing is replaced by its counterpart in
   :mod:`tools.plain`, or by an expression (:data:`EXPRESSIONS`).
3. ``profile`` becomes a namespace of the settings that are read, with the profile's values.
4. What a notebook shows because it stands last in a cell is printed.

Nothing generated is committed; ``tests/test_copy_out.py`` runs every script without this repository and compares what it finds with the
notebook's cells.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from pprint import pformat

import nbformat

from tools import plain
from tools.run_course import find_notebooks
from vdr_helpers.evaluation import finetuned_model
from vdr_helpers.profiles import PROFILES, Profile, assets_folder, load_profile
from vdr_helpers.publish import licence, training_facts


@dataclass(frozen=True)
class Stage:
    """A script: what it does, and code that stands for cells of earlier stages which it does not repeat."""

    does: str
    given: str = ""
    files: tuple[str, ...] = ()  # of assets/, copied beside the script
    guarded: bool = False  # whether the data loader's processes, where they are spawned, import the script anew


STAGES = {
    "train": Stage(
        "Fine-tune an embedding model for pages: cached contrastive loss, seven vector lengths at once, all weights.",
        guarded=True,
    ),
    "evaluate": Stage("Score base and tuned model on the same queries and pages, with an interval for the gain."),
    "truncate": Stage("Measure what each vector length costs, which step down is more than noise, and choose one."),
    "publish": Stage(
        "Save a tuned model with its width and a model card, and upload it if the switch is on.",
        files=("model_card.md", "citations.bib"),
    ),
    "search": Stage(
        "Embed pages, keep the vectors in a store, and search them.",
        given="width = profile.truncate_dim\nuser_model = SentenceTransformer(profile.finetuned, truncate_dim=profile.matryoshka_dims[0])",
    ),
}

LEFT_OUT = {
    "LiveCurve", "check_band", "display", "explain_failure", "hub_token", "last_checkpoint", "model_key", "model_settings",
    "private_details", "run_folder", "save_results", "show", "show_progress", "start", "stored_control",
    "truncation_curve", "PixelsInFormat", "PrinterCallback", "use_matrix_product",
}  # fmt: skip
EXPRESSIONS = {  # a helper, and what stands in the place of it or of its call
    "no_duplicates_by_key": '"no_duplicates"',
    "training_facts": "profile.training",
    "licence": "profile.licence",
    "citations": '"```bibtex\\n" + Path(__file__).with_name("citations.bib").read_text(encoding="utf-8").strip() + "\\n```"',
    "TEMPLATE": 'Path(__file__).with_name("model_card.md")',
}
COURSE = ("vdr_helpers", "tiny_vdr", "tools")
HEADING = "#: "  # until the script is whole, to tell a section from a cell's own comment
LINE = 130


# Settings


def extra_settings(profile: Profile) -> dict:
    """What counterparts and expressions read beside the profile's fields: ``{name: (function of no arguments, comment)}``."""
    tuned = finetuned_model(profile)[0]
    return {
        "base_model": (lambda: profile.base_model, "a folder or a hub id"),
        "processor_kwargs": (lambda: profile.processor_kwargs, "pixels per page, the least and the most"),
        "data": (lambda: str(profile.output_dir / "data"), "holds train/ and eval/, saved with save_to_disk"),
        "finetuned": (lambda: tuned, "a folder or a hub id"),
        "results": (lambda: str(profile.output_dir / "results"), "evaluation.json and truncation.json, measured with this model"),
        "training": (lambda: training_facts(tuned, profile), "what was trained, for the card"),
        "licence": (lambda: licence(profile.model_name), "of the base model; None where it is not known"),
    }


def field_comments() -> dict[str, str]:
    """``{field of Profile: the comment on its line}``."""
    return dict(re.findall(r"^    (\w+): [^#\n]*# (.*)$", inspect.getsource(Profile), re.MULTILINE))


def settings_code(profile: Profile, names: set[str]) -> str:
    """The namespace ``profile`` with the settings called ``names``."""
    extra, comments = extra_settings(profile), field_comments()
    lines = []
    for name in sorted(names - {"output_dir"}):
        value, comment = extra.get(name, (lambda name=name: getattr(profile, name), comments.get(name, "")))
        comment = "" if "vdr_helpers" in comment or "notebook" in comment else comment
        lines.append(f"    {name}={pformat(value(), width=100, sort_dicts=False)},  # {comment}".removesuffix("  # "))
    if "output_dir" in names:
        lines.append('    output_dir=Path("made"),  # what this script makes goes below this folder')
    return "profile = SimpleNamespace(\n" + "\n".join(lines) + "\n)\n"


# Statements


def names_read(node: ast.AST) -> set[str]:
    """Every name that is read in ``node``; ``x`` in ``x[i] = ...`` is not."""
    stored = {
        id(part.value)
        for part in ast.walk(node)
        if isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store) and isinstance(part.value, ast.Name)
    }
    names = (part for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load))
    return {part.id for part in names if id(part) not in stored}


def names_bound(node: ast.AST) -> set[str]:
    """Every name that ``node`` itself binds; ``x`` of ``x[i] = ...`` and ``x.y = ...`` too."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    return {name for target in targets for name in roots(target)}


def roots(target: ast.expr) -> set[str]:
    """``{"a", "b"}`` of a target such as ``a, b[0].c``."""
    if isinstance(target, ast.Name):
        return {target.id}
    parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target.value]
    return {name for part in parts for name in roots(part)}


class Text:
    """Source text with edits that are collected first and made at the end; positions are those of ``ast``."""

    def __init__(self, source: str) -> None:
        self.lines, self.edits = source.encode().splitlines(keepends=True), []
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def put(self, node: ast.AST, new: str) -> None:
        self.edits.append((self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset), new.encode()))

    def drop_keyword(self, node: ast.keyword) -> None:
        end, content = self.at(node.end_lineno, node.end_col_offset), b"".join(self.lines)
        after = re.compile(rb"\s*,[ ]*(#[^\n]*)?").match(content, end)
        begin = len(content[: self.at(node.lineno, node.col_offset)].rstrip(b" \n"))
        if not after:  # the last argument: the comma before it goes
            begin = len(content[:begin].rstrip().removesuffix(b","))
        self.edits.append((begin, after.end() if after else end, b""))

    def drop_statement(self, node: ast.stmt, previous_end: int) -> None:
        """The whole lines of a statement, with its decorators and the comments above it."""
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        while first - 1 > previous_end and self.lines[first - 2].strip().startswith(b"#"):
            first -= 1
        self.edits.append((self.starts[first - 1], self.starts[node.end_lineno], b""))

    def unwrap(self, node: ast.With) -> None:
        """The body of a ``with`` in its place."""
        first, deeper = node.body[0], node.body[0].col_offset - node.col_offset
        self.edits.append((self.starts[node.lineno - 1], self.starts[first.lineno - 1], b""))
        for start in self.starts[first.lineno - 1 : node.end_lineno]:
            self.edits.append((start, start + deeper, b""))

    def done(self) -> str:
        """The text after all edits; one that lies inside another goes with it."""
        content, begun = b"".join(self.lines), len(b"".join(self.lines)) + 1
        inner = {(b, e) for b, e, _ in self.edits for o in self.edits if o[0] <= b and e <= o[1] and o[:2] != (b, e)}
        for begin, end, new in sorted({edit for edit in self.edits if edit[:2] not in inner}, reverse=True):
            if end > begun:
                raise ValueError(f"two changes meet in one place: {content[begin:end].decode()!r}")
            content, begun = content[:begin] + new + content[end:], begin
        return content.decode()


@dataclass
class Script:
    """What a script is made from while the cells go by."""

    imports: list[str] = field(default_factory=list)
    helpers: dict[str, str] = field(default_factory=dict)  # name: source, in the order in which they can stand
    gone: set[str] = field(default_factory=lambda: set(LEFT_OUT))
    bound: set[str] = field(default_factory=set)
    body: list[str] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)  # those of LEFT_OUT that the cells read
    under_way: set[str] = field(default_factory=set)  # helpers that are looked into: two may call each other

    def take_cell(self, source: str, shown: bool, heading: str) -> None:
        """Add a cell's code. ``shown``: whether its last expression is; ``heading``: of the section it stands in."""
        text, tree = Text(source.rstrip("\n") + "\n"), ast.parse(source)
        self.dropped |= names_read(tree) & LEFT_OUT
        self.block(tree.body, text, 0)
        last = tree.body[-1]
        if shown and isinstance(last, ast.Expr) and not names_read(last) & self.gone:
            value = last.value
            for part in ast.walk(last):
                if isinstance(part, ast.Attribute) and part.attr == "style":
                    value = part.value
            text.put(last, f"print({ast.get_source_segment(source, value)})")
        code = text.done().strip("\n")
        if code.strip():
            self.body.append((f"{HEADING}{heading}\n" if heading else "") + code)

    def block(self, statements: list[ast.stmt], text: Text, previous_end: int) -> bool:
        """Edit a block's statements; returns whether any is left."""
        left = False
        for node in statements:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.take_import(node)
                text.drop_statement(node, previous_end)
            elif isinstance(node, ast.With) and names_read(getattr(node.items[0].context_expr, "func", node)) <= self.gone:
                self.block(node.body, text, node.lineno)
                text.unwrap(node)
                left = True
            elif isinstance(node, ast.For | ast.With | ast.If):
                parts = {ast.For: ("iter",), ast.With: ("items",), ast.If: ("test",)}[type(node)]
                header = ast.Module([ast.Expr(part) for name in parts for part in listed(getattr(node, name))], [])
                if getattr(node, "orelse", None):
                    raise ValueError(f"a cell's {type(node).__name__} with else cannot be told apart: {ast.unparse(header)}")
                doomed = self.reads_gone(header, text) or not self.block(node.body, text, node.lineno)
                if doomed:
                    text.drop_statement(node, previous_end)
                left |= not doomed
            elif self.reads_gone(node, text):
                self.gone |= names_bound(node) - self.bound
                text.drop_statement(node, previous_end)
            else:
                self.bound |= names_bound(node)
                self.gone -= names_bound(node)
                left = True
            previous_end = node.end_lineno
        return left

    def reads_gone(self, node: ast.AST, text: Text) -> bool:
        """Whether ``node`` cannot be without something that is gone; keyword arguments that hold such a thing are taken away first."""
        without: set[int] = set()
        for part in ast.walk(node):
            if isinstance(part, ast.keyword) and part.arg and names_read(part.value) & self.gone:
                without |= {id(sub) for sub in ast.walk(part)}
        kept = [part for part in ast.walk(node) if id(part) not in without]
        reads = {part.id for part in kept if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
        if reads & self.gone:
            return True
        for part in ast.walk(node):
            if isinstance(part, ast.keyword) and id(part) in without:
                text.drop_keyword(part)
        self.replace_expressions(node, text)
        return False

    def replace_expressions(self, node: ast.AST, text: Text) -> None:
        calls = {id(part.func): part for part in ast.walk(node) if isinstance(part, ast.Call)}
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in EXPRESSIONS and part.id not in self.bound:
                text.put(calls.get(id(part), part), EXPRESSIONS[part.id])

    def take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = getattr(node, "module", None) or ""
        if not module.startswith(COURSE):
            self.imports.append(ast.unparse(node))
            return
        for alias in node.names:
            if alias.name not in LEFT_OUT and alias.name not in EXPRESSIONS:
                self.take_helper(module, alias.name)

    def take_helper(self, module: str, name: str) -> None:
        """Put the source of ``module.name`` in, after all it needs: a counterpart of :mod:`tools.plain` where there is one."""
        if name in self.helpers or name in self.under_way:
            return
        self.under_way.add(name)
        found = importlib.import_module(module)
        if hasattr(plain, name) and arguments_of(getattr(plain, name)) == arguments_of(getattr(found, name)):
            found = plain
        source = inspect.getsource(found)
        tree = ast.parse(source)
        defined = {bound: node for node in tree.body for bound in names_bound(node)}
        imported = {
            alias.asname or alias.name.split(".")[0]: node
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__"
            for alias in node.names
        }
        node = defined[name]
        for used in sorted(all_names(node) - {name, Profile.__name__}):
            if used in LEFT_OUT:
                raise ValueError(
                    f"{found.__name__}.{name} calls {used}, which is left out: give it a counterpart in tools/plain.py"
                )
            if used in defined:
                self.take_helper(found.__name__, used)
            elif used in imported:
                single = imported[used]
                if isinstance(single, ast.ImportFrom):
                    alias = next(alias for alias in single.names if (alias.asname or alias.name) == used)
                    self.take_import(ast.ImportFrom(single.module, [alias], 0))
                else:
                    self.take_import(single)
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        self.helpers[name] = "\n".join(source.splitlines()[first - 1 : node.end_lineno]).replace(": Profile", "")


def listed(found) -> list:
    return found if isinstance(found, list) else [found]


def arguments_of(function) -> list[str]:
    """The names of a function's arguments; two helpers may share a name."""
    return list(inspect.signature(function).parameters) if callable(function) else []


def all_names(node: ast.AST) -> set[str]:
    """Every name in ``node``, annotations and decorators included."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def without_unread(code: str) -> str:
    """``code`` without the assignments and functions, at its own level or in its loops, that nothing reads."""
    tree, text = ast.parse(code), Text(code)
    drop_unread(tree.body, tree, text)
    return without_unread(text.done()) if text.edits else code


def drop_unread(statements: list[ast.stmt], tree: ast.Module, text: Text, previous_end: int = 0) -> None:
    """Mark what :func:`without_unread` drops; the only statement of a loop stays, and so does what is set on an object."""
    for node in statements:
        if isinstance(node, ast.For | ast.With | ast.If):
            drop_unread(node.body, tree, text, node.lineno)
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.FunctionDef) and (statements is tree.body or len(statements) > 1):
            on_object = any(isinstance(target, ast.Attribute) for target in getattr(node, "targets", []))
            if names_bound(node) and not on_object and not names_bound(node) & read_outside(tree, node):
                text.drop_statement(node, previous_end)
        previous_end = node.end_lineno


def read_outside(tree: ast.Module, node: ast.stmt) -> set[str]:
    """The names that ``tree`` reads outside of ``node``."""
    inside = {id(part) for part in ast.walk(node)}
    stored = {
        id(part.value)
        for part in ast.walk(tree)
        if isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store) and isinstance(part.value, ast.Name)
    }
    return {
        part.id
        for part in ast.walk(tree)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load) and id(part) not in inside | stored
    }


# Scripts


def cells_of(stage: str) -> list[tuple[str, str, bool, str]]:
    """``(notebook's name, source, whether its last expression is shown, heading)`` of a stage's cells, in the course's order."""
    found = []
    for file in find_notebooks():
        heading, imports = "", []
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "markdown":
                heading = (re.findall(r"^## (.*)$", cell.source, re.MULTILINE) or [heading])[-1]
            elif stage in (own := cell.metadata.get("copy_out", {})):
                shown = any(output.output_type == "execute_result" for output in cell.outputs)
                found.append((file.stem, "\n".join([*imports, cell.source]), shown, own[stage] or heading))
                imports.clear()
            else:
                imports += outside_imports(cell.source)
    if not found:
        raise ValueError(f"no cell has {stage!r} under the key copy_out of its metadata")
    return found


def outside_imports(source: str) -> list[str]:
    """The imports at a cell's own level that are not the course's; a later cell may read what they bind."""
    tree = ast.parse("\n".join(line for line in source.split("\n") if not line.startswith("%")))
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in nodes if not (getattr(node, "module", "") or "").startswith(COURSE)]


def make_script(stage: str, profile: Profile) -> str:
    """The code of a stage's script with the settings of ``profile``."""
    if stage not in STAGES:
        raise ValueError(f"no stage is called {stage!r}; there are {', '.join(STAGES)}")
    wanted, cells, script = STAGES[stage], cells_of(stage), Script()
    if wanted.given:
        script.imports.append("from sentence_transformers import SentenceTransformer")
        script.take_cell(wanted.given, False, "What the earlier stages left")
    before = ""
    for _, source, shown, heading in cells:
        script.take_cell(source, shown, heading if heading != before else "")
        before = heading
    body = without_unread("\n\n".join(script.body) + "\n")
    body = re.sub(rf"^{HEADING}.*\n(?=\s*({HEADING}|\Z))", "", body, flags=re.MULTILINE)  # a heading of nothing
    body = body.replace(HEADING, "# ")
    helpers = "\n\n\n".join(script.helpers[name] for name in read_helpers(script.helpers, body))
    settings = {
        part.attr
        for part in ast.walk(ast.parse(helpers + "\n" + body))
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "profile"
    }
    if wanted.guarded:
        body = 'if __name__ == "__main__":\n' + textwrap.indent(body, "    ")
    used = list(dict.fromkeys(name for name, *_ in cells))
    beside = f" {' and '.join(wanted.files)} belong beside it." if wanted.files else ""
    names = ", ".join(sorted(script.dropped - {"start", "show", "display"}))
    left_out = (
        textwrap.fill(f"Of the cells, what draws, keeps books or only saves time is left out: {names}.", 120) + "\n\n"
        if names
        else ""
    )
    imports = dict.fromkeys(["from pathlib import Path", "from types import SimpleNamespace", *script.imports])
    whole = (
        'pandas.set_option("display.width", 200, "display.max_columns", 20)  # print tables whole\n' if "pandas." in body else ""
    )
    code = f'''"""{wanted.does}

Made from the course's notebook {", ".join(used)} by `python -m tools.copy_out {stage} --profile {profile.name}`: change the
settings below, then run `python {stage}.py`.{beside}

{left_out}Needs: PACKAGES
"""

from __future__ import annotations

{chr(10).join(imports)}

{settings_code(profile, settings)}{whole}

{helpers}


{body}'''
    code = tidy(code, f"{stage}.py")
    return code.replace("PACKAGES", packages(code), 1)


def read_helpers(helpers: dict[str, str], body: str) -> list[str]:
    """The helpers that ``body`` reads, directly or through others, in their order."""
    wanted, new = set(), all_names(ast.parse(body)) & set(helpers)
    while new:
        wanted |= new
        new = {name for one in new for name in all_names(ast.parse(helpers[one]))} & set(helpers) - wanted
    return [name for name in helpers if name in wanted]


def packages(code: str) -> str:
    """What has to be installed for ``code``, by the names of the package index."""
    modules = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    outside = sorted(modules - set(sys.stdlib_module_names))
    others = {"sentence_transformers": "sentence-transformers[image,train]", "pymilvus": "pymilvus milvus-lite", "PIL": "pillow"}
    return "pip install " + " ".join(
        f'"{others[name]}"' if "[" in others.get(name, "") else others.get(name, name.replace("_", "-")) for name in outside
    )


def tidy(code: str, name: str) -> str:
    """``code`` with its imports sorted and those that nobody uses gone, formatted; ``ValueError`` names what ruff cannot mend."""
    ruff = [sys.executable, "-m", "ruff"]
    select = ["--isolated", f"--config=line-length={LINE}", f"--stdin-filename={name}"]
    rules = "--select=F,I,E4,E7,E9,UP"
    fixed = subprocess.run(
        [*ruff, "check", *select, rules, "--ignore=E402", "--fix", "-q", "-"], input=code, capture_output=True, text=True
    )
    if fixed.returncode:
        raise ValueError(f"{name} does not stand alone:\n{fixed.stderr or ''}{problems(ruff, select, rules, code)}")
    return subprocess.run(
        [*ruff, "format", *select, "-q", "-"], input=fixed.stdout, capture_output=True, text=True, check=True
    ).stdout


def problems(ruff: list[str], select: list[str], rules: str, code: str) -> str:
    return subprocess.run(
        [*ruff, "check", *select, rules, "--output-format=concise", "-"], input=code, capture_output=True, text=True
    ).stdout


def write_script(stage: str, profile: Profile, folder: Path) -> Path:
    """Write ``<stage>.py`` and the files it reads into ``folder``; returns the script."""
    code = make_script(stage, profile)
    folder.mkdir(parents=True, exist_ok=True)
    for name in STAGES[stage].files:
        shutil.copyfile(assets_folder() / name, folder / name)
    script = folder / f"{stage}.py"
    script.write_text(code, encoding="utf-8")
    return script


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 for a stage that is not there or cannot stand alone."""
    parser = argparse.ArgumentParser(prog="python -m tools.copy_out", description="Write stages of the course as scripts.")
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"which: {', '.join(STAGES)}; without, all of them")
    parser.add_argument("--profile", help=f"whose settings: {', '.join(PROFILES)}; without, the one of VDR_PROFILE")
    options = parser.parse_args(arguments)
    try:
        profile = load_profile(options.profile)
        for stage in options.stages or STAGES:
            script = write_script(stage, profile, profile.output_dir / "scripts")
            print(f"{script}  {len(script.read_text(encoding='utf-8').splitlines())} lines")
    except (FileNotFoundError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
