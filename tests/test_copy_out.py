"""Scripts to take away: they hold nothing of the course, run without it, and find what the notebooks find."""

import ast
import dataclasses
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import model_twins
import nbformat
import pytest
import warm
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file

from tools import copy_out, plain
from tools.run_course import find_notebooks
from vdr_helpers import evaluation, splits, stamps, training
from vdr_helpers.profiles import load_profile

ROOT = Path(__file__).resolve().parent.parent
COURSE = ("vdr_helpers", "tiny_vdr", "tools", "benchmarks")


@pytest.fixture(scope="module")
def scripts():
    """``{(stage, profile): code}`` of all stages, for two profiles."""
    return {
        (stage, name): copy_out.make_script(stage, load_profile(name))
        for stage in copy_out.STAGES
        for name in ("tiny", "full")
    }


# What a script holds


def test_every_script_stands_alone(scripts):
    for (stage, _), code in scripts.items():
        tree = ast.parse(code)
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        assert not [module for module in modules if module.split(".")[0] in COURSE], stage
        assert ast.get_docstring(tree).startswith(copy_out.STAGES[stage].does)
        assert not copy_out.LEFT_OUT & copy_out.all_names(tree), stage
        settings = code.partition("option = ")[2].partition("profile = ")[
            0
        ]  # a card's facts may say what made the split
        of_the_course = [
            line
            for line in code.replace(settings, "").splitlines()
            if "otebook" in line or "ppendix" in line
        ]
        assert len(of_the_course) == 1 and of_the_course[0].startswith(
            "Made from the course's notebook"
        ), (stage, of_the_course)


def test_every_script_is_clean(scripts, tmp_path):
    for (stage, name), code in scripts.items():
        (tmp_path / f"{stage}_{name}.py").write_text(code)
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--isolated", f"--config=line-length={copy_out.LINE}"]
    for command in (["check", "--select=E,F,I,B,UP", "--ignore=E501"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *command, *settings, str(tmp_path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_a_profile_is_settings(scripts):
    tiny, full = scripts["train", "tiny"], scripts["train", "full"]
    assert (
        '"--learning-rate", type=float, default=0.0007' in tiny
        and '"--learning-rate", type=float, default=2e-05' in full
    )
    assert '"--base-model", default="Qwen/Qwen3-VL-Embedding-2B"' in full
    assert '"--query-models", nargs="*", default=["Qwen/Qwen3-VL-2B-Instruct"]' in " ".join(
        scripts["documents", "full"].split()
    )
    same = [code.split("parser.parse_args()\n", 1)[1] for code in (tiny, full)]
    assert same[0] == same[1], "below the settings the two are the same code"


def test_every_setting_says_what_it_is(scripts):
    for (stage, name), code in scripts.items():
        options = [
            part for part in ast.walk(ast.parse(code)) if copy_out.called_name(part) == "option"
        ]
        helps = {
            part.args[0].value: next(key.value.value for key in part.keywords if key.arg == "help")
            for part in options
        }
        read = {f"--{word.replace('_', '-')}" for word in re.findall(r"\bprofile\.(\w+)", code)}
        assert helps and all(helps.values()) and set(helps) == read, (stage, name, helps)


@pytest.mark.slow
def test_the_command_line_of_a_script(scripts, tmp_path):
    (tmp_path / "train.py").write_text(scripts["train", "tiny"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VDR_")}
    said = warm.run([str(tmp_path / "train.py"), "--help"], env=environment, cwd=tmp_path)
    assert said.returncode == 0 and "usage: train.py" in said.stdout
    assert "the highest of the run (default: 0.0007)" in " ".join(said.stdout.split())
    said = warm.run(
        [str(tmp_path / "train.py"), "--learning-rate", "fast"], env=environment, cwd=tmp_path
    )
    assert (
        said.returncode == 2
        and "argument --learning-rate: invalid float value: 'fast'" in said.stderr
    )
    (tmp_path / "publish.py").write_text(scripts["publish", "tiny"])
    mine = ["--finetuned", "mine", "--facts={}", "--licence", "MIT", "--title", "Mine"]
    said = warm.run([str(tmp_path / "publish.py"), *mine], env=environment, cwd=tmp_path)
    assert said.returncode == 2 and "say this of your model too: --eval-rows" in said.stderr, (
        "not what was true of another one"
    )


def test_a_counterpart_takes_what_the_helper_takes():
    helpers = {
        name: value
        for module in (evaluation, splits, stamps, training)
        for name, value in vars(module).items()
    }
    counterparts = [
        name
        for name, value in vars(plain).items()
        if getattr(value, "__module__", "") == plain.__name__
    ]
    assert counterparts
    for name in counterparts:
        assert list(inspect.signature(getattr(plain, name)).parameters) == list(
            inspect.signature(helpers[name]).parameters
        ), name


def test_the_counterpart_of_make_once_makes_once(tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "page.txt").write_text("page")
        if len(made) == 3:
            raise KeyboardInterrupt

    for pixels in (1, 1, 2):
        plain.make_once(tmp_path / "pages", {"pixels": pixels}, make)
    assert len(made) == 2 and (tmp_path / "pages" / "page.txt").exists()
    with pytest.raises(KeyboardInterrupt):
        plain.make_once(tmp_path / "more", {"pixels": 1}, make)
    plain.make_once(tmp_path / "more", {"pixels": 1}, made.append)
    assert len(made) == 4, "half a folder is none"


def test_a_page_of_several_rows_stands_once_among_the_pages():
    rows = [
        {"query": "a", "image": "x/1.png", "negative_0": "x/2.png"},
        {"query": "b", "image": "x/2.png", "negative_0": "x/3.png"},
    ]
    queries, corpus, relevant_docs, hard_negatives = plain.retrieval_inputs(Dataset.from_list(rows))
    assert queries == {"q0": "a", "q1": "b"} and corpus == {
        f"{i}.png": f"x/{i}.png" for i in (1, 2, 3)
    }
    assert relevant_docs == {"q0": {"1.png"}, "q1": {"2.png"}} and hard_negatives == {
        "q0": {"2.png"},
        "q1": {"3.png"},
    }
    with pytest.raises(ValueError, match="row 0 has an empty query"):
        plain.retrieval_inputs(Dataset.from_list([rows[0] | {"query": " "}]))


def test_scores_of_another_model_do_not_get_into_a_card(tmp_path, capsys):
    def settings(model):
        return SimpleNamespace(
            finetuned=str(tmp_path / model), output_dir=tmp_path, results=tmp_path / "results"
        )

    plain.save_results(settings("mine"), "evaluation", {"tuned": 0.9})
    assert plain.load_results(settings("mine"), "evaluation") == {"tuned": 0.9}
    assert plain.load_results(settings("other"), "evaluation") is None
    assert "evaluation.json was measured with" in capsys.readouterr().out
    assert plain.load_results(settings("mine"), "truncation") is None


def test_every_mark_in_a_notebook_is_a_stage():
    marks = [
        stage
        for file in find_notebooks()
        for cell in nbformat.read(file, 4).cells
        for stage in cell.metadata.get("copy_out", {})
    ]
    assert set(marks) == set(copy_out.STAGES)


def test_an_edit_of_a_cell_is_in_the_script(tmp_path, monkeypatch):
    notebook = nbformat.read(
        next(file for file in find_notebooks() if file.name.startswith("04")), 4
    )
    cell = next(cell for cell in notebook.cells if "default_rng(0)" in cell.source)
    cell.source = cell.source.replace("default_rng(0)", "default_rng(7)")
    nbformat.write(notebook, tmp_path / "04_edited.ipynb")
    monkeypatch.setattr(copy_out, "find_notebooks", lambda: [tmp_path / "04_edited.ipynb"])
    assert "default_rng(7)" in copy_out.make_script("evaluate", load_profile("tiny"))


def test_what_cannot_stand_alone_is_named(tmp_path, monkeypatch, capsys):
    assert copy_out.main(["cook"]) == 2
    assert "no stage is called 'cook'; there are train, " in capsys.readouterr().err
    notebook = nbformat.read(
        next(file for file in find_notebooks() if file.name.startswith("04")), 4
    )
    first = next(cell for cell in notebook.cells if "copy_out" in cell.metadata)
    del first.metadata["copy_out"]
    nbformat.write(notebook, tmp_path / "04_cut.ipynb")
    monkeypatch.setattr(copy_out, "find_notebooks", lambda: [tmp_path / "04_cut.ipynb"])
    assert copy_out.main(["evaluate"]) == 2
    assert (
        "does not stand alone" in (said := capsys.readouterr().err)
        and "Undefined name `queries`" in said
    )
    assert copy_out.main(["train"]) == 2
    assert "no cell has 'train'" in capsys.readouterr().err


def cell(*sources: str, shown: bool | None = False, without: tuple[str, ...] = ()) -> str:
    """What becomes of cells."""
    script = copy_out.Script(without=frozenset(without))
    for source in sources:
        script.take_cell(source, shown, "")
    return copy_out.without_unread("\n\n".join(script.body) + "\n").strip()


def test_what_keeps_books_is_left_out_and_nothing_else():
    assert cell("print(1)\ncheck_band('x', 1, 0, 2, hint='h')\nprint(2)") == "print(1)\nprint(2)"
    assert (
        cell("cast = PixelsInFormat(dim=8)\ntrain(\n    model,\n    collators=[cast],  # live\n)")
        == "train(\n    model,\n)"
    )
    assert cell("train(model, token=hub_token())") == "train(model)"
    tried = "try:\n    page = push(token=hub_token())\n    # said\n    print(page)\nexcept Exception as error:\n    print({})\nprint(2)"
    assert cell(tried.format("reason(error)")) == "page = push()\n# said\nprint(page)\nprint(2)"
    with pytest.raises(ValueError, match="try cannot be taken apart: page = push"):
        cell(tried.format("error"))
    assert (
        cell("key = model_settings(1)\nplace = key + '/x'\nprint(place)\nprint('é', 2)")
        == "print('é', 2)"
    )
    assert (
        cell("model = load()\nmodel = run_folder(model)\nprint(model)")
        == "model = load()\nprint(model)"
    )
    assert cell("if ready:\n    show(figure)\nprint(1)") == "print(1)"
    with pytest.raises(ValueError, match="If with else cannot be told apart: ready"):
        cell("if ready:\n    show(figure)\nelse:\n    print(1)")


def test_what_nobody_reads_goes():
    assert cell("a = 1\nb = a\nc = 2\nprint(c)") == "c = 2\nprint(c)"
    assert (
        cell("kept, seen = {}, {}\nfor i in range(2):\n    kept[i] = i\n    print(i)")
        == "for i in range(2):\n    print(i)"
    )
    assert cell("a = b = 1\nmodel.width = a") == "a = b = 1\nmodel.width = a"
    assert cell("def f():\n    return 1\n\n\ndef g():\n    return f()\n\n\nprint(2)") == "print(2)"


def test_what_a_script_can_be_without_goes_wherever_it_stands():
    source = "raw = mine()\nraw['same'] = 1\nprint(raw)\nrows = mine()\nfor row in rows:\n    print(row)\n    print(raw)"
    assert cell(source, without=("raw",)) == "rows = mine()\nfor row in rows:\n    print(row)"
    assert cell("print(1)\n# of a table\npandas.DataFrame(\n    rows\n)", shown=None) == "print(1)"


def test_what_hides_or_keeps_books_gives_way_to_what_it_holds():
    hidden = "def mine():\n    with capture_output():  # its bars\n        return search(\n            1\n        )"
    assert (
        cell(f"{hidden}\n\n\nprint(mine())")
        == "def mine():\n    return search(\n        1\n    )\n\n\nprint(mine())"
    )
    saved = "with whole_folder({}, made_from=model_settings()) as partial:\n    save(str(partial))"
    cleared = (
        "shutil.rmtree({}, ignore_errors=True)  # nothing of an earlier run stays beside this one"
    )
    assert cell(f"folder = place\n{saved.format('folder')}").splitlines()[1:] == [
        cleared.format("folder"),
        "save(str(folder))",
    ]
    expected = ["partial = place / 'x'", cleared.format("partial"), "save(str(partial))"]
    assert cell(saved.format("place / 'x'")).splitlines() == expected


def test_the_first_of_a_pair_is_what_the_settings_name():
    rows = "rows, origin = load_prepared(profile, 'train')\nprint(rows)\nprint('data:', origin)"
    assert cell(rows) == "rows = load_from_disk(profile.data / 'train')\nprint(rows)"
    assert (
        cell("print(load_prepared(profile, 'eval')[0].x)")
        == "print(load_from_disk(profile.data / 'eval').x)"
    )
    assert (
        cell("path, _ = finetuned_model(profile)\nprint(path)")
        == "path = profile.finetuned\nprint(path)"
    )


def test_nobody_is_sent_to_a_notebook_that_is_not_there():
    code = "a = 1  # notebook 5 shows it; cheap\nb = 2  # as in notebook 03\n# see appendix a1\nc = '# notebook 3'\n"
    assert copy_out.without_mentions(code) == "a = 1  # cheap\nb = 2\n\nc = '# notebook 3'\n"
    told = '"""What it is (notebook 02), always.\n\n    As notebook 03 builds them. It holds.\n    """\n'
    assert copy_out.without_mentions(told) == '"""What it is, always.\n\n    It holds.\n    """\n'
    assert (
        cell("run(sampler=no_duplicates_by_key,  # by the key\n    seed=1)")
        == 'run(sampler="no_duplicates",\n    seed=1)'
    )


def test_a_change_that_does_not_fit_its_cells_is_named(monkeypatch):
    stage = dataclasses.replace(copy_out.STAGES["search"], instead={"no such words": ""})
    monkeypatch.setitem(copy_out.STAGES, "search", stage)
    with pytest.raises(ValueError, match="cells of search have to hold this once: no such words"):
        copy_out.make_script("search", load_profile("tiny"))


def test_what_needs_this_repository_is_a_setting():
    assert (
        cell("def licences():\n    return table\n\n\nlicence = licences()[base]\nprint(licence)")
        == "licence = profile.licence\nprint(licence)"
    )
    made = copy_out.make_script("publish", load_profile("full"))
    assert '"--licence", default="Apache-2.0", help="of the base model' in " ".join(made.split())
    assert f'"base": "{load_profile("full").finetuned_name}"' in made


def test_what_a_notebook_shows_is_printed():
    assert cell(
        "import pandas\ntable = pandas.DataFrame()\ntable.style.format(precision=3)", shown=True
    ).endswith("print(table)")
    assert cell("1 + 1", shown=True) == "print(1 + 1)"
    assert cell("trainer.train()") == "trainer.train()"


# What a script finds

ROWS = "24:8"
SMALLER = (
    "import dataclasses\nprofile = dataclasses.replace(profile, per_device_train_batch_size=8)"
)
WITHOUT = """
import json, runpy, sys
course = ("vdr_helpers", "tiny_vdr", "tools", "benchmarks")
for name in [name for name in sys.modules if name.split(".")[0] in course]:
    del sys.modules[name]
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in course:
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Refuse())
_, script, code, *arguments = sys.argv
sys.argv = [script, *arguments]
space = runpy.run_path(script, run_name="__main__")
exec(code, space)
print("FOUND " + json.dumps(space["found"]))
"""
LEAVES = {  # what notebook and script are compared by
    "train": ("03", "found = {'losses': [e['loss'] for e in log_history if 'loss' in e], 'ndcg': [e[score] for e in log_history if score in e]}"),
    "evaluate": ("04", "found = {'metrics': metrics, 'gain': [float(low), float(high)]}"),
    "truncate": ("05", "found = {'scores': scores, 'choice': choice.to_dict(), 'steps': steps.to_dict()}"),
    "publish": ("06", "found = {'card': model_card}"),
    "documents": ("08", "found = {'pages': [[row['id'], row['hash'], row['text'], row['headings']] for row in rows], 'queries': kept, 'by models': [len(candidates), len(from_model)]} | {name: [[row.pop('query'), *(Path(page).stem for page in row.values())] for row in some] for name, some in {'train': own_rows, 'eval': eval_rows}.items()}"),
    "search": ("06", "import hashlib\nfrom pathlib import Path\nfound = {query: [hashlib.sha1(Path(corpus[page]).read_bytes()).hexdigest() for page in search(query)] for query in queries.values()}"),
}  # fmt: skip
TRAIN_LOG = "score = 'eval_vdr-eval-hard_cosine_ndcg@10'\nlog_history = trainer.state.log_history\n"


IN_THE_NOTEBOOK = """
import json, sys
from vdr_helpers.machine import start
profile = start()
left = {}
for source, leaves in json.load(sys.stdin):
    exec(compile(source, "cell", "exec"), globals())
    if leaves:
        exec(leaves)
        left |= found
print("FOUND " + json.dumps(left))
"""


def tagged(*stages: str) -> list[tuple[str, str]]:
    """The stages' cells, one notebook's in its order, and what the last cell of each leaves to be compared."""
    cells = []
    for stage in stages:
        cells += [(source, "") for _, source, _, _ in copy_out.cells_of(stage)]
        cells[-1] = (cells[-1][0], LEAVES[stage][1])
    return cells


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A twin of the vision-language model that writes queries."""
    reply = '{"general": "Hoses", "specific": "Where are the hoses of the manual?"}'
    return model_twins.save_writer_twin(tmp_path_factory.mktemp("writer"), reply)


@pytest.fixture(scope="module")
def course(source, pdf_files, writer, tmp_path_factory):
    """``(outputs folder, {notebook: what it found})``: notebooks 02 and 03 small, three steps of training, then the cells of 04 to 08."""
    outputs = tmp_path_factory.mktemp("copy-out") / "outputs"
    small = {
        "VDR_DATASET": str(source),
        "VDR_ROWS": ROWS,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    small |= {
        "VDR_OUTPUTS": str(outputs),
        "HF_HUB_OFFLINE": "1",
        "VDR_DOCUMENTS": str(pdf_files),
        "VDR_QUERY_MODEL": str(writer),
    }
    prepare = "from cells import prepare; from vdr_helpers.profiles import load_profile; prepare(load_profile())"
    done = warm.run(
        ["-c", f"import sys; sys.path.insert(0, 'tests'); {prepare}"],
        env=os.environ | small,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    below = [
        ("profile = start()", SMALLER),
        ("trainer.train(resume", f"{TRAIN_LOG}{LEAVES['train'][1]}\nkept = found"),
    ]
    job = {
        "number": "03",
        "outputs": str(outputs),
        "changes": {"below": below, "more": "found = kept"},
    }
    done = warm.run(
        [str(ROOT / "tests" / "cells.py")],
        input=json.dumps([job]),
        env=os.environ | small,
        cwd=ROOT,
    )
    answer = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert answer["status"] == 0, answer["log"]
    found = {"03": answer["found"]}
    for number, stages in {
        "04": ["evaluate"],
        "05": ["truncate"],
        "06": ["publish", "search"],
        "08": ["documents"],
    }.items():
        done = warm.run(
            ["-c", IN_THE_NOTEBOOK],
            input=json.dumps(tagged(*stages)),
            env=os.environ | small,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[number] = json.loads(done.stdout.rpartition("FOUND ")[2])
    return outputs, found


@pytest.fixture(scope="module")
def small(course, source, pdf_files):
    """The profile with which the scripts of :func:`course` are made."""
    patch = pytest.MonkeyPatch()
    variables = {
        "VDR_OUTPUTS": str(course[0]),
        "VDR_DATASET": str(source),
        "VDR_ROWS": ROWS,
        "VDR_DOCUMENTS": str(pdf_files),
    }
    for name, value in variables.items():
        patch.setenv(name, value)
    yield dataclasses.replace(load_profile("tiny"), per_device_train_batch_size=8)
    patch.undo()


def run_script(
    stage: str, profile, folder: Path, outputs: Path, *arguments: str, fresh: bool = False
) -> dict:
    """What the script finds, in a folder of its own and in a process where the course cannot be imported.

    ``fresh``: by ``python -I``, which looks neither into the folder nor at any variable, in place of a fork.
    """
    os.environ["VDR_OUTPUTS"] = str(outputs)  # the fixture of every test has set another one
    script = copy_out.write_script(stage, profile, folder)
    code = (TRAIN_LOG if stage == "train" else "") + LEAVES[stage][1]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("VDR_", "PYTHON"))
    }
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if fresh:
        command = [sys.executable, "-I", "-c", WITHOUT, str(script), code, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    else:
        done = warm.run(["-c", WITHOUT, str(script), code, *arguments], env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("FOUND ")[2])


@pytest.mark.slow
def test_train_ends_with_the_notebooks_weights(course, small, tmp_path):
    found = run_script("train", small, tmp_path, course[0])
    assert len(found["losses"]) == 3 and len(found["ndcg"]) >= 3
    assert found["losses"] == pytest.approx(course[1]["03"]["losses"], rel=1e-3)
    assert found["ndcg"] == pytest.approx(course[1]["03"]["ndcg"], abs=1e-6)
    ours = load_file(tmp_path / "made" / "finetuned" / "model.safetensors")
    theirs = load_file(course[0] / "tiny" / "finetuned" / "model.safetensors")
    base = load_file(Path(small.base_model) / "model.safetensors")
    assert ours.keys() == theirs.keys()
    apart = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
    moved = max((ours[name] - base[name].float()).abs().max().item() for name in ours)
    assert apart < 0.05 * moved, f"{apart} apart where training moved weights by {moved}"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["evaluate", "truncate", "search"])
def test_a_script_finds_what_its_notebook_finds(stage, course, small, tmp_path):
    found, expected = (
        run_script(stage, small, tmp_path, course[0], fresh=stage == "search"),
        course[1][LEAVES[stage][0]],
    )
    assert found
    for name, value in found.items():
        assert value == expected[name], name
    if results := {"evaluate": "evaluation", "truncate": "truncation"}.get(stage):
        kept, theirs = (
            (folder / "results" / f"{results}.json")
            for folder in (tmp_path / "made", course[0] / "tiny")
        )
        scores, expected = (
            json.loads(kept.read_text()),
            json.loads(theirs.read_text()) if theirs.exists() else {},
        )
        assert set(scores) == {"base", "finetuned", "made_from"}
        assert not expected or all(scores[name] == expected[name] for name in ("base", "finetuned"))


@pytest.mark.slow
def test_publish_saves_what_the_notebook_saves(course, small, tmp_path):
    found = run_script(
        "publish", small, tmp_path, course[0], "--results", str(course[0] / "tiny" / "results")
    )
    ours, theirs = tmp_path / "made" / "published", course[0] / "tiny" / "published"
    assert found["card"] == course[1]["06"]["card"]
    names = sorted(path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file())
    assert names and names == sorted(
        path.relative_to(ours) for path in ours.rglob("*") if path.is_file()
    )
    assert not [
        name for name in names if (ours / name).read_bytes() != (theirs / name).read_bytes()
    ]


@pytest.mark.slow
def test_train_reads_what_documents_made(course, small, writer, tmp_path):
    found, expected = (
        run_script("documents", small, tmp_path, course[0], "--query-models", str(writer)),
        course[1]["08"],
    )
    for name, value in found.items():
        assert value == expected[name], name
    assert found["by models"] == [18, 2], "of 18 pages the first two for the one general query"
    assert [row["query"] for row in found["queries"] if row["way"] == str(writer)] == [
        "Where are the hoses of the manual?"
    ] * 2
    made = tmp_path / "made" / "documents" / "dataset"
    for name in ("train", "eval"):
        rows = load_from_disk(str(made / name))
        assert rows.column_names == [
            "query",
            "image",
            *(f"negative_{i}" for i in range(1 if name == "train" else 4)),
        ]
        pages = [[page_hash(row[column]) for column in rows.column_names[1:]] for row in rows]
        assert [[row["query"], *some] for row, some in zip(rows, pages, strict=True)] == found[name]
    assert (
        len(found["train"]) > 3 and len({page for _, *pages in found["eval"] for page in pages}) > 4
    )
    assert all(len(set(pages)) == 5 for _, *pages in found["eval"])
    shutil.rmtree(tmp_path / "made" / "documents" / "pages")  # the pages travel with the rows
    trained = run_script(
        "train",
        small,
        tmp_path,
        course[0],
        "--data",
        str(made),
        "--per-device-train-batch-size",
        "4",
    )
    assert trained["losses"] and len(trained["ndcg"]) >= 2
    assert (tmp_path / "made" / "finetuned" / "model.safetensors").exists()


def page_hash(page) -> str:
    """As notebook 08 names a page's file."""
    return hashlib.sha256(f"{page.width} {page.height}".encode() + page.tobytes()).hexdigest()[:20]
