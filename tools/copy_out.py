"""Each stage of the course as one script to take away: ``python -m tools.copy_out [stage ...] [--profile tiny]``.

Writes ``outputs/<profile>/scripts/<stage>.py``: plain Sentence Transformers, nothing from this repository to import. The stages are
``train`` (notebook 03), ``evaluate`` (04), ``truncate`` (05), ``publish`` and ``search`` (06), and ``documents`` (08), which makes a
dataset for ``train`` from a folder of PDF files. The notebooks are the only source. A cell belongs to a stage when its metadata say
so, ``"copy_out": {"train": ""}``; in the quotes stands what is written above it where that is not the heading of its section, and
``null`` in their place leaves out what the cell shows last. A new stage is an entry in :data:`STAGES` and that key in its cells.
What happens to the cells on the way:

1. What keeps the course's books or draws for a notebook (:data:`LEFT_OUT`) is left out, and so is what the stage can be without
   (:attr:`Stage.without`): statements that call it, keyword arguments that hold it, and what cannot be without them. A ``try`` whose
   handlers call it and a ``with`` of :data:`UNWRAPPED` give way to what they hold. An assignment that nobody reads any more goes too.
2. What a cell imports from ``vdr_helpers`` is put in by source, with what that needs; plumbing is replaced by its counterpart in
   :mod:`tools.plain`, or by an expression (:data:`EXPRESSIONS`, :data:`FIRST_OF_TWO`).
3. ``profile`` becomes the command line: an option for each setting that is read, with the profile's values. What a cell finds out with
   this repository's own files (:data:`SETTLED`) is found out now and becomes an option, and so does what it says outright and a script
   must be told (:attr:`Stage.instead`).
4. What a notebook shows because it stands last in a cell is printed. Comments that send the reader to another notebook go.

Nothing generated is committed; ``tests/test_copy_out.py`` runs every script without this repository and compares what it finds with the
notebook's cells.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import inspect
import io
import re
import shutil
import subprocess
import sys
import textwrap
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from pprint import pformat
from typing import get_type_hints

import nbformat

from tools import plain
from tools.run_course import find_notebooks
from vdr_helpers.evaluation import finetuned_model
from vdr_helpers.profiles import PROFILES, Profile, assets_folder, load_profile


@dataclass(frozen=True)
class Stage:
    """A script: what it does, how it is called, and how it differs from its cells."""

    does: str
    example: str  # what stands behind ``python <stage>.py``
    given: str = ""  # code for cells of earlier stages, which it does not repeat
    without: tuple[str, ...] = ()  # names that a notebook explains with and a script can be without
    instead: dict[str, str] = field(default_factory=dict)  # what stands once in one cell, and what a script says there
    then: str = ""  # code behind the last cell
    about_the_model: tuple[str, ...] = ()  # options that have to be given for another model than the profile's
    files: tuple[str, ...] = ()  # of assets/, copied beside the script
    guarded: bool = False  # whether the data loader's processes, where they are spawned, import the script anew


STAGES = {
    "train": Stage(
        "Fine-tune an embedding model for pages: cached contrastive loss, several vector lengths at once, all weights.",
        "--data made/documents/dataset --base-model owner/model",
        instead={
            "range(profile.monitor_rows)": "range(min(profile.monitor_rows, len(eval_dataset)))",
            "; the table below is easier to read": "",
            'corpus[f"q{i}-positive"] = row["image"]': (
                'corpus[row["image"]] = row["image"]  # a page that stands in several rows counts once'
            ),
            'relevant_docs[f"q{i}"] = {f"q{i}-positive"}': 'relevant_docs[f"q{i}"] = {row["image"]}',
            'corpus[f"q{i}-{name}"] = row[name]': "corpus[row[name]] = row[name]",
        },
        guarded=True,
    ),
    "evaluate": Stage(
        "Score base and tuned model on the same queries and pages, with an interval for the gain.",
        "--data made/documents/dataset --finetuned made/finetuned",
        without=("number", "by_hand", "base_score", "tuned_score"),
        then="for name, found in metrics.items():\n    print(f\"{name}: NDCG@10 {found['vdr-eval-hard_cosine_ndcg@10']:.3f}\")",
    ),
    "truncate": Stage(
        "Measure what each vector length costs, which step down is more than noise, and choose one.",
        "--data made/documents/dataset --finetuned made/finetuned",
        without=("train_dataset", "train_paths", "train_texts", "train_pages", "by_hand"),
        instead={
            "*embed_once(model, texts, pages, profile), embed_once(model, train_texts, train_pages, profile)[1]": (
                "embed_once(model, texts, pages, profile)"
            ),
            "dims = list(profile.matryoshka_dims)": "dims = sorted({*profile.matryoshka_dims, profile.truncate_dim}, reverse=True)",
            "(query_embeddings, page_embeddings, _) in embeddings": "(query_embeddings, page_embeddings) in embeddings",
            "this profile publishes {profile.truncate_dim:,}": "at {profile.truncate_dim:,} numbers",
            ": with 95 % confidence it loses at most": " with 95 % confidence it loses at most",
        },
    ),
    "publish": Stage(
        "Save a tuned model with its width and a model card, and upload it if you say so.",
        """--finetuned made/finetuned --facts '{"base": "owner/model", "data": "my manuals"}' --licence MIT --eval-rows 20 \\
        --title "Search in my manuals" --publish --repository me/my-model""",
        instead={
            "publish = False": "publish = profile.publish",
            '"your-name/your-model"': "profile.repository",
            'f"Page search, fine-tuned ({profile.name} profile)"': "profile.title",
        },
        files=("model_card.md", "citations.bib"),
        about_the_model=("facts", "licence", "title", "eval-rows"),
    ),
    "search": Stage(
        "Embed pages, keep the vectors in a store, and search them.",
        '--data made/documents/dataset --finetuned made/published --query "How is the filter changed?"',
        given="width = profile.truncate_dim\nuser_model = SentenceTransformer(profile.finetuned, truncate_dim=width)",
        instead={'search("pages about paper")': "search(profile.query)", 'embed("pages about paper")': "embed(profile.query)"},
        then="for page_id, similarity in found.items():\n    print(f'{similarity:.3f}  {page_id}  {corpus[page_id]}')",
    ),
    "documents": Stage(
        "Make a dataset from a folder of PDF files: pages, queries, hard negatives, split by document.",
        "--documents-folder my_pdfs --finetuned owner/model --query-models Qwen/Qwen3-VL-2B-Instruct",
        without=("manifest", "raw"),
        instead={
            "from tiny_vdr.documents import draw_documents\n": "",
            'Path(profile.documents_folder or draw_documents(profile.output_dir / "documents" / "drawn"))': "profile.documents_folder",
            '            "query": None,\n': "",
            '            "negatives": [],\n            "language": profile.dataset_config,\n': "",
        },
    ),
}

LEFT_OUT = {
    "check_band", "display", "hub_token", "last_checkpoint", "model_settings", "reason", "run_folder",
    "show", "show_progress", "start", "PixelsInFormat", "use_matrix_product",
}  # fmt: skip
EXPRESSIONS = {  # a helper, and what stands in the place of it or of its call
    "no_duplicates_by_key": '"no_duplicates"',
    "assets_folder": "Path(__file__).parent",
}
FIRST_OF_TWO = {  # a helper that returns a pair, what stands in the place of its first part, and what has to be imported for that
    "load_prepared": ("load_from_disk(profile.data / {1})", "from datasets import load_from_disk"),
    "finetuned_model": ("profile.finetuned", ""),
}
UNWRAPPED = {"capture_output", "whole_folder"}  # hides progress bars; saves in a folder beside, which a script clears instead
SETTLED = {  # what a cell finds out with this repository's files, and a script has as a setting
    "facts": 'what was trained, for the card: at least "base" and "data"',
    "licence": "of the base model, where it is known",
}
HELP = {  # of profile's fields without a comment of their own
    "bf16": "train in bfloat16",
    "fp16": "train in float16",
    "encode_batch_size": "pages per forward pass when encoding",
    "eval_rows": "queries that were scored, for the card",
    "finetuned_revision": "a commit, tag or branch of the tuned model on the hub",
    "learning_rate": "the highest of the run",
    "matryoshka_dims": "vector lengths, the longest first",
    "model_kwargs": "JSON, for loading a model",
    "monitor_rows": "eval rows that are scored during training",
    "num_train_epochs": "how often each row is seen",
    "per_device_train_batch_size": "rows per step",
    "query_models": "vision-language models that write queries: hub ids or folders; without, none does",
    "seed": "of the training",
    "truncate_dim": "numbers per vector that are published and searched",
}
COURSE = ("vdr_helpers", "tiny_vdr", "tools")
HEADING = "#: "  # until the script is whole, to tell a section from a cell's own comment
LINE = 130


# Settings


def extra_settings(profile: Profile, cells: list[str]) -> dict:
    """What a script reads beside the profile's fields: ``{name: (function of no arguments, help)}``. ``cells``: the stage's sources."""
    tuned = finetuned_model(profile)[0]
    return {
        "documents_folder": (
            lambda: Path(profile.documents_folder or "documents"),
            "PDF files, and questions.csv (file, page, query) if there are questions",
        ),
        "data": (
            lambda: profile.output_dir / "data",
            "train/ and eval/, saved with save_to_disk: query, image, negative_0, in eval up to negative_3",
        ),
        "query": (lambda: "pages about paper", "what to search for"),
        "base_model": (lambda: profile.base_model, "a folder or a hub id"),
        "finetuned": (lambda: tuned, "the tuned model: a folder or a hub id"),
        "results": (lambda: Path("made") / "results", "what evaluate.py and truncate.py measured, for the card"),
        "output_dir": (lambda: Path("made"), "what this script makes goes below this folder"),
        "publish": (lambda: False, "upload the model"),
        "repository": (lambda: "your-name/your-model", "where it is uploaded to"),
        "title": (lambda: f"Page search, fine-tuned ({profile.name} profile)", "of the card"),
        "processor_kwargs": (lambda: profile.processor_kwargs, "JSON: pixels per page, the least and the most"),
    } | {name: (lambda name=name: settled(profile, tuned, cells)[name], comment) for name, comment in SETTLED.items()}


def settled(profile: Profile, tuned: str, cells: list[str]) -> dict:
    """The values of :data:`SETTLED` for a tuned model: the cells that find them out are run, each up to there."""
    found = {"profile": profile, "finetuned_path": tuned}
    for source in cells:
        statements = ast.parse(source).body
        ends = [end for end, node in enumerate(statements, start=1) if isinstance(node, ast.Assign) and is_settled(node)]
        exec(compile(ast.Module(statements[: max(ends, default=0)], []), "cell", "exec"), found)
    return found


def is_settled(node: ast.Assign) -> bool:
    return [target.id for target in node.targets if isinstance(target, ast.Name) and target.id in SETTLED] != []


def field_comments() -> dict[str, str]:
    """``{field of Profile: the comment on its line}``."""
    return dict(re.findall(r"^    (\w+): [^#\n]*# (.*)$", inspect.getsource(Profile), re.MULTILINE))


def settings_code(profile: Profile, names: set[str], cells: list[str], about_the_model: tuple[str, ...]) -> str:
    """The command line of a stage of these cells: an option for each of the settings called ``names``, and ``profile``, what was chosen.

    ``about_the_model``: the options that have to be given where the model is another one than the profile's.
    """
    check = f"""given = {{word.partition("=")[0] for word in sys.argv}}
missing = [name for name in {[f"--{name}" for name in about_the_model]} if name not in given]
if profile.finetuned != parser.get_default("finetuned") and missing:
    parser.error(f"say this of your model too: {{', '.join(missing)}}")
"""
    check = check if about_the_model else ""
    extra, comments = extra_settings(profile, cells), field_comments() | HELP
    options = []
    for name in sorted(names, key=lambda name: ([*extra, name].index(name), name)):  # what everybody sets comes first
        value, said = extra.get(name, (lambda name=name: getattr(profile, name), comments.get(name, "")))
        options.append(option_code(name, value(), "" if "vdr_helpers" in said or re.search(MENTION, said) else said))
    return f"""parser = argparse.ArgumentParser(
    description=__doc__.partition("\\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
)
option = parser.add_argument
{chr(10).join(options)}
profile = parser.parse_args()
{check}"""


def option_code(name: str, value, said: str) -> str:
    """``option("--learning-rate", type=float, default=0.0007, help="...")``; a dictionary is given as JSON."""
    kinds = {bool: "action=argparse.BooleanOptionalAction, ", dict: "type=json.loads, ", str: ""}
    hint = get_type_hints(Profile).get(name)
    kind = kinds.get(type(value), f"type={'float' if hint is float else type(value).__name__}, ")
    if isinstance(value, Path):
        kind, value = "type=Path, ", str(value)
    elif isinstance(value, tuple | list):
        kind, value = 'nargs="*", ' if "str" in str(hint) else 'nargs="*", type=int, ', list(value)
    elif value is None:
        kind = "type=int, " if "int" in str(hint) else ""
    shown = pformat(value, width=100, sort_dicts=False)
    return f'option("--{name.replace("_", "-")}", {kind}default={shown}, help={said.replace("%", "%%")!r})'


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

    def unwrap(self, node: ast.Try | ast.With, before: str = "") -> None:
        """The body of a ``try`` or ``with`` in its place, ``before`` above it: what handlers would have caught is raised."""
        first, last, deeper = node.body[0], node.body[-1], node.body[0].col_offset - node.col_offset
        self.edits.append((self.starts[node.lineno - 1], self.starts[first.lineno - 1], before.encode()))
        self.edits.append((self.starts[last.end_lineno], self.starts[node.end_lineno], b""))
        for start in self.starts[first.lineno - 1 : last.end_lineno]:
            self.edits.append((start, start + deeper, b""))

    def drop_comment(self, line: int) -> None:
        """The comment behind the code of a line, if it has one."""
        for token in tokenize.generate_tokens(io.StringIO(b"".join(self.lines).decode()).readline):
            if token.type == tokenize.COMMENT and token.start[0] == line:
                begin = self.starts[line - 1] + len(token.line[: token.start[1]].rstrip().encode())
                self.edits.append((begin, self.starts[line] - 1, b""))

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
    without: frozenset[str] = frozenset()
    gone: set[str] = field(default_factory=lambda: set(LEFT_OUT))
    bound: set[str] = field(default_factory=set)
    body: list[str] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)  # those of LEFT_OUT that the cells read
    under_way: set[str] = field(default_factory=set)  # helpers that are looked into: two may call each other

    def take_cell(self, source: str, shown: bool | None, heading: str) -> None:
        """Add a cell's code. ``shown``: whether its last expression is, ``None`` to leave it out; ``heading``: of its section."""
        text, tree = Text(source.rstrip("\n") + "\n"), ast.parse(source)
        self.dropped |= names_read(tree) & LEFT_OUT
        self.gone |= self.without
        last = tree.body[-1]
        if shown is None:
            tree.body.pop()
            text.drop_statement(last, tree.body[-1].end_lineno)
        self.block(tree.body, text, 0)
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
            elif isinstance(node, ast.Try):
                if not all(names_read(handler) & self.gone for handler in node.handlers) or node.orelse or node.finalbody:
                    raise ValueError(f"a cell's try cannot be taken apart: {ast.unparse(node.body[0])}")
                self.block(node.body, text, node.lineno)
                text.unwrap(node)
                left = True
            elif isinstance(node, ast.With) and names_read(node.items[0].context_expr) & UNWRAPPED:
                self.take_apart(node, text)
                left = True
            elif names_bound(node) & self.without:
                text.drop_statement(node, previous_end)
            elif isinstance(node, ast.Assign) and called_name(node.value) in FIRST_OF_TWO:
                kept, rest = node.targets[0].elts
                text.put(node.targets[0], kept.id)
                self.first_of_two(node.value, node.value, text)
                self.bound |= {kept.id}
                self.gone = self.gone - {kept.id} | {rest.id}
                left = True
            elif isinstance(node, ast.Assign) and is_settled(node):
                text.put(node.value, f"profile.{node.targets[0].id}")
                self.bound |= names_bound(node)
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

    def take_apart(self, node: ast.With, text: Text) -> None:
        """A ``with`` of :data:`UNWRAPPED`: what it holds, in a folder that is cleared first where it names one."""
        folder, before = node.items[0].optional_vars, ""
        if folder is not None:
            place = node.items[0].context_expr.args[0]
            if isinstance(place, ast.Name):
                for part in (part for inner in node.body for part in ast.walk(inner)):
                    if isinstance(part, ast.Name) and part.id == folder.id:
                        text.put(part, place.id)
                folder = place
            else:
                before = f"{folder.id} = {ast.unparse(place)}\n"
            before += f"shutil.rmtree({folder.id}, ignore_errors=True)  # nothing of an earlier run stays beside this one\n"
            self.imports.append("import shutil")
        self.block(node.body, text, node.lineno)
        text.unwrap(node, before)

    def first_of_two(self, call: ast.Call, whole: ast.AST, text: Text) -> None:
        """Put what stands for the first part of a pair in the place of ``whole``, the call or the call with ``[0]``."""
        expression, needed = FIRST_OF_TWO[call.func.id]
        text.put(whole, expression.format(*map(ast.unparse, call.args)))
        self.imports += [needed] if needed else []

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
                text.drop_comment(calls.get(id(part), part).end_lineno)  # it explains what stood there
            elif isinstance(part, ast.Subscript) and called_name(part.value) in FIRST_OF_TWO:
                self.first_of_two(part.value, part, text)
            elif isinstance(part, ast.With) and names_read(part.items[0].context_expr) & UNWRAPPED:
                text.unwrap(part)

    def take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = getattr(node, "module", None) or ""
        if not module.startswith(COURSE):
            self.imports.append(ast.unparse(node))
            return
        for alias in node.names:
            if alias.name not in {*LEFT_OUT, *EXPRESSIONS, *FIRST_OF_TWO, *UNWRAPPED}:
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


def called_name(node: ast.AST) -> str | None:
    """``"f"`` of ``f(...)``."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


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


@functools.cache
def read_cells(file: Path, changed: int) -> list:
    """A notebook's cells; ``changed``: when the file was."""
    return nbformat.read(file, as_version=4).cells


def cells_of(stage: str) -> list[tuple[str, str, bool | None, str]]:
    """``(notebook's name, source, whether its last expression is shown, heading)``, as :meth:`Script.take_cell` takes them, of a stage's cells, in the course's order."""
    found = []
    for file in find_notebooks():
        heading, imports = "", []
        for cell in read_cells(file, file.stat().st_mtime_ns):
            if cell.cell_type == "markdown":
                heading = (re.findall(r"^## (.*)$", cell.source, re.MULTILINE) or [heading])[-1]
            elif stage in (own := cell.metadata.get("copy_out", {})):
                shown = any(output.output_type == "execute_result" for output in cell.outputs)
                shown = None if own[stage] is None else shown
                found.append((file.stem, "\n".join([*imports, cell.source]), shown, own[stage] or heading))
                imports.clear()
            else:
                imports += outside_imports(cell.source)
    if not found:
        raise ValueError(f"no cell has {stage!r} under the key copy_out of its metadata")
    return found


def told_instead(stage: str, sources: list[str]) -> list[str]:
    """A stage's cells with its :attr:`Stage.instead`; ``ValueError`` names what does not stand in them just once."""
    for there, new in STAGES[stage].instead.items():
        if sum(source.count(there) for source in sources) != 1:
            raise ValueError(f"the cells of {stage} have to hold this once: {there}")
        sources = [source.replace(there, new) for source in sources]
    return sources


def outside_imports(source: str) -> list[str]:
    """The imports at a cell's own level that are not the course's; a later cell may read what they bind."""
    tree = ast.parse("\n".join(line for line in source.split("\n") if not line.startswith("%")))
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in nodes if not (getattr(node, "module", "") or "").startswith(COURSE)]


def make_script(stage: str, profile: Profile) -> str:
    """The code of a stage's script with the settings of ``profile``."""
    if stage not in STAGES:
        raise ValueError(f"no stage is called {stage!r}; there are {', '.join(STAGES)}")
    wanted, cells = STAGES[stage], cells_of(stage)
    script = Script(without=frozenset(wanted.without))
    if wanted.given:
        script.imports.append("from sentence_transformers import SentenceTransformer")
        script.take_cell(wanted.given, False, "What the earlier stages left")
    before = ""
    sources = [source for _, source, *_ in cells]
    for source, (*_, shown, heading) in zip(told_instead(stage, sources), cells, strict=True):
        script.take_cell(source, shown, heading if heading != before else "")
        before = heading
    if wanted.then:
        script.take_cell(wanted.then, False, "")
    body = without_unread("\n\n".join(script.body) + "\n")
    body = re.sub(rf"^{HEADING}.*\n(?=\s*({HEADING}|\Z))", "", body, flags=re.MULTILINE)  # a heading of nothing
    body = without_mentions(body.replace(HEADING, "# "))
    helpers = without_mentions("\n\n\n".join(script.helpers[name] for name in read_helpers(script.helpers, body)))
    settings = {
        part.attr
        for part in ast.walk(ast.parse(helpers + "\n" + body))
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "profile"
    }
    if wanted.guarded:
        body = 'if __name__ == "__main__":\n' + textwrap.indent(body, "    ")
    used = list(dict.fromkeys(name for name, *_ in cells))
    beside = f"\n{' and '.join(wanted.files)} belong beside it." if wanted.files else ""
    imports = dict.fromkeys(["import argparse", "import json", "import sys", "from pathlib import Path", *script.imports])
    whole = (
        'pandas.set_option("display.width", 200, "display.max_columns", 20)  # print tables whole\n' if "pandas." in body else ""
    )
    code = f'''"""{wanted.does}

    python {stage}.py {wanted.example}

`python {stage}.py --help` names every option; without options it takes the settings of the course's profile {profile.name}.{beside}
Made from the course's notebook {", ".join(used)} by `python -m tools.copy_out {stage} --profile {profile.name}`.

Needs: PACKAGES
"""

from __future__ import annotations

{chr(10).join(imports)}

{settings_code(profile, settings, sources, wanted.about_the_model)}{whole}

{helpers}


{body}'''
    code = tidy(code, f"{stage}.py")
    return code.replace("PACKAGES", packages(code), 1)


MENTION = r"\b(?:notebooks?|appendix) [a-z]?\d\d?\b"


def without_mentions(code: str) -> str:
    """``code`` without what comments and docstrings say of the course's notebooks: a bracket, a part of a comment, a sentence."""
    code = re.sub(rf" \([^()]*{MENTION}[^()]*\)", "", code)
    code = re.sub(
        rf"(?<=[.:] )[^.:\n]*{MENTION}[^.:\n]*\. |^(\s*)[A-Z][^.:\n]*{MENTION}[^.:\n]*\. ", r"\1", code, flags=re.MULTILINE
    )
    lines = code.splitlines(keepends=True)
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(code).readline))):
        if token.type == tokenize.COMMENT and re.search(MENTION, token.string):
            kept = [part.strip(" #") for part in token.string.split(";") if not re.search(MENTION, part)]
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = (lines[row][:column] + ("# " + "; ".join(kept) if kept else "")).rstrip() + "\n"
    return "".join(lines)


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
    others = {
        "sentence_transformers": "sentence-transformers[image,train]",
        "pymilvus": "pymilvus milvus-lite",
        "PIL": "pillow",
        "IPython": "ipython",
    }
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
        print("Left out of the cells, because it draws, keeps books or only saves time: " + ", ".join(sorted(LEFT_OUT)))
    except (FileNotFoundError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
