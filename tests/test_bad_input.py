"""What goes wrong at a reader's: each a clear line with the way out, and never a result that looks
right.
"""

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from cells import prepare

from tools import prepare as tools_prepare
from vdr_helpers import machine
from vdr_helpers.pages import PageStore, fetch_chosen
from vdr_helpers.profiles import load_profile
from vdr_helpers.source import HOW_TO_SAVE, is_text, open_source
from vdr_helpers.splits import build_splits, page_store, save_splits

ROOT = Path(__file__).resolve().parent.parent
USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture
def versions(monkeypatch):
    """Set what ``importlib.metadata`` says of a package: ``versions["torch"] = "2.1.0"``, ``None``
    for not installed.
    """
    found, real = {}, importlib.metadata.version

    def version(name):
        if name in found and found[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


# the doctor


@pytest.fixture
def problems(monkeypatch, versions):
    """``problems("datasets>=4.0")``: what is wrong with the packages where the installed course
    asks for these.
    """

    def call(*requirements):
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(requirements))
        return machine.check_packages()

    return call


def test_a_missing_package_comes_with_its_pip_line(versions, problems):
    versions["datasets"] = None
    [(asked, said)] = problems("datasets>=4.0", "numpy>=2.0").items()
    assert asked == "datasets>=4.0"
    assert said == (
        "datasets: found none, needed >=4.0. Do: pip install 'datasets>=4.0', then restart the kernel"
    )


def test_an_old_package_comes_with_its_pip_line(versions, problems):
    versions["nbconvert"] = "7.16.6"
    [(asked, said)] = problems("nbconvert>=7.17").items()
    assert asked == "nbconvert>=7.17"
    assert said == (
        "nbconvert: found 7.16.6, needed >=7.17. "
        "Do: pip install 'nbconvert>=7.17', then restart the kernel"
    )


@pytest.mark.parametrize("version", ["6.0.0", "6.2.0", "10.0", "6.1rc1", "7.1.0+cu130", "6"])
def test_a_package_that_is_new_enough_passes(versions, problems, version):
    versions["sentence-transformers"] = version
    assert problems("sentence-transformers[image,train]>=6.0") == {
        "1 packages, each recent enough": None
    }


def pretend_installed(folder, name, version):
    """Put the metadata of a package where Python looks before it looks among the installed ones."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("name", "version", "needed"),
    [("sentence-transformers", "5.7.0", "<7,>=6.0"), ("peft", "0.17.0", ">=0.18")],
)
def test_a_notebook_on_an_old_package_stops_in_its_first_cell_with_one_line(
    tmp_path, name, version, needed
):
    pretend_installed(tmp_path, name, version)
    first = "from vdr_helpers.machine import start\n\nprofile = start()"
    done = subprocess.run(
        [sys.executable, "-c", first],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        f"ImportError: {name}: found {version}, needed {needed}. Do: pip install '{name}"
    )
    assert said.endswith(f"{needed}', then restart the kernel")


def test_a_notebook_without_some_packages_names_them_all(versions, monkeypatch):
    versions.update({"peft": None, "torchvision": None, "pandas": "1.5.0"})
    asked = ["pandas>=2.2.2", "peft>=0.18", "numpy>=2.0", "torchvision>=0.21", "gone; extra == 'x'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    with pytest.raises(ImportError) as problem:
        machine.start("tiny")
    assert str(problem.value) == (
        "pandas: found 1.5.0, needed >=2.2.2; peft: found none, needed >=0.18; "
        "torchvision: found none, needed >=0.21. "
        "Do: pip install 'pandas>=2.2.2' 'peft>=0.18' 'torchvision>=0.21', then restart the kernel"
    )


def test_the_doctor_asks_for_what_the_installed_course_asks_for(monkeypatch, capsys):
    monkeypatch.setattr(machine, "check_torchvision", lambda: None)
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda name: ["peft>=99", "pytest>=99; extra == 'test'", "numpy>=2.0"],
    )
    assert machine.examine(load_profile("tiny")) is False
    lines = [line for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    assert len(lines) == 1 and lines[0].endswith("pip install 'peft>=99', then restart the kernel")


def test_a_course_that_is_not_installed_is_told(monkeypatch, capsys):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert machine.examine(load_profile("tiny")) is False
    assert "vdr-course is not installed: in the clone, pip install -e ." in capsys.readouterr().out


def test_a_disk_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    said = machine.check_disk(load_profile("tiny"), tmp_path / "file" / "outputs")
    assert re.fullmatch(
        r"outputs folder cannot be written \(.+\): set VDR_OUTPUTS to a folder of yours", said
    )


def test_a_disk_without_room(tmp_path, monkeypatch):
    """The room is the planner's sum, for all weights or for what the card made of the profile."""
    full = load_profile("full")
    lora = dataclasses.replace(full, adapters=({"r": 32},), model_kwargs={"dtype": "float16"})
    for free, profile, enough in (
        (0.3, "tiny", False),
        (2, "tiny", True),
        (45, full, False),
        (50, full, True),
        (22, lora, True),
    ):
        profile = load_profile(profile) if isinstance(profile, str) else profile
        monkeypatch.setattr(
            shutil, "disk_usage", lambda folder, free=free: USAGE(100 * 2**30, 0, int(free * 2**30))
        )
        said = machine.check_disk(profile, tmp_path)
        assert said is None if enough else said.startswith(f"{free:.1f} GiB free, ")
    assert list(tmp_path.iterdir()) == []  # the probe is gone


def test_a_shipped_model_that_is_missing_or_half_there(tmp_path, monkeypatch):
    from vdr_helpers import profiles

    tiny = load_profile("tiny")
    monkeypatch.setattr(profiles, "PACKAGE", tmp_path / "vdr_helpers")
    assert "reinstall the course" in machine.check_model(tiny)
    assert machine.check_model(load_profile("full")) is None  # a hub id is not a folder
    folder = tmp_path / "assets" / "tiny-base"
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    assert "reinstall the course" in machine.check_model(tiny), (
        "a folder without weights is not whole"
    )
    (folder / "model.safetensors").write_bytes(b"weights")
    assert machine.check_model(tiny) is None


def test_examine_prints_a_line_per_check_and_tells_success(capsys, monkeypatch):
    monkeypatch.setattr(machine, "check_torchvision", lambda: None)
    monkeypatch.setattr(machine, "check_model", lambda profile: None)
    assert machine.examine(load_profile("tiny")) is True
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("[OK]   ") for line in lines)
    requires = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "dependencies"
    ]
    assert f"[OK]   {len(requires)} packages, each recent enough" in lines


def test_examine_prints_fail_with_the_way_out(capsys, versions, monkeypatch):
    monkeypatch.setattr(
        machine,
        "check_torchvision",
        lambda: "torchvision does not match torch (RuntimeError): install both",
    )
    versions["datasets"] = None
    assert machine.examine(load_profile("tiny")) is False
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("[FAIL] ")]
    assert len(failed) == 2
    assert "pip install 'datasets>=4.0'" in failed[0]
    assert "torchvision matches torch: torchvision does not match" in failed[1]


def test_a_torchvision_of_another_build_is_found(monkeypatch):
    import torchvision

    assert machine.check_torchvision() is None

    def missing(*arguments):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", missing)
    assert "torchvision does not match torch (RuntimeError)" in machine.check_torchvision()


# checkpoints, profiles, splits


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": {"hello": 1}},
        {"modules.json": []},
        {"model.safetensors": "x"},
        {"adapter_config.json": {}},
    ],
)
def test_a_foreign_checkpoint_is_not_taken_for_the_tuned_model(files):
    from vdr_helpers.models import finetuned_model, tuned_folder

    own = tuned_folder(load_profile("tiny"))
    own.mkdir(parents=True)
    for name, content in files.items():
        (own / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"is gone or damaged.*run notebook 03 again"):
        finetuned_model(load_profile("tiny"))


def test_an_unknown_profile_ends_the_headless_run_in_one_line():
    run = subprocess.run(
        [sys.executable, "-m", "tools.run_course"],
        env={"VDR_PROFILE": "huge", "PATH": "", "VDR_OUTPUTS": "unused"},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert run.returncode == 2
    assert "unknown profile 'huge'" in run.stderr
    assert "tiny" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_dataset_with_other_columns_is_named_before_work_starts(tmp_path, small_profile):
    from datasets import Dataset

    folder = tmp_path / "foreign" / "en"
    folder.mkdir(parents=True)
    Dataset.from_dict({"text": ["a"], "picture": [1]}).to_parquet(
        folder / "train-00000-of-00001.parquet"
    )
    readme = "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/train-*.parquet\n---\n"
    (tmp_path / "foreign" / "README.md").write_text(readme)
    profile = dataclasses.replace(small_profile, dataset_name=str(tmp_path / "foreign"))
    with pytest.raises(
        ValueError, match="no column id, query, image, negatives, language; it has text, picture"
    ):
        prepare(profile)
    assert not (profile.output_dir / "data").exists()


def test_more_rows_than_the_source_has(tmp_path, small_profile):
    with pytest.raises(
        ValueError, match=r"found \d+ usable train rows, expected 5000: ask for fewer"
    ):
        prepare(dataclasses.replace(small_profile, train_rows=5000))
    assert not (small_profile.output_dir / "data").exists()


# datasets of a reader's own

STORED = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})


def own_dataset(folder, images, image_type, config="en"):
    """A dataset of these cells of its column ``image``, as a reader would save it."""
    rows = range(len(images))
    columns = {"id": [f"p{i}" for i in rows], "query": [f"query {i}" for i in rows]}
    columns |= {"image": pyarrow.array(images, image_type), "language": ["en" for _ in rows]}
    columns["negatives"] = [[f"p{(i + k) % len(images)}" for k in range(1, 6)] for i in rows]
    (folder / config).mkdir(parents=True)
    pyarrow.parquet.write_table(
        pyarrow.table(columns), folder / config / "train-00000-of-00001.parquet"
    )
    data_files = f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/*\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{data_files}---\n")
    return dataclasses.replace(load_profile("tiny"), corpus=None, dataset_folder=str(folder))


def test_a_query_that_the_library_would_open_is_no_text(tmp_path):
    (tmp_path / "page.png").touch()
    texts = ["Which pump?", "https://example.org is what?", "word " * 300, "a\0b", "page.pngs"]
    assert all(is_text(text) for text in texts)
    opened = ["https://example.org/a.png", "data:image/png;base64,AAAA", str(tmp_path / "page.png")]
    assert not any(is_text(text) for text in [*opened, "", " \n", None, 7])


@pytest.mark.parametrize("query", ["  ", "https://example.org/a.png", None])
def test_a_split_with_a_query_that_is_no_text_is_not_kept(tmp_path, query):
    page = str(tmp_path / "tiny" / "pages" / "page.png")
    rows = {
        "train": [("Which?", [page] * 2)],
        "eval": [("Where?", [page] * 5), (query, [page] * 5)],
    }
    profile = dataclasses.replace(load_profile("tiny"), outputs=tmp_path)
    with pytest.raises(ValueError, match=r"row 1 of eval has .* as its query"):
        save_splits(profile, build_splits(rows), dataset={})
    with pytest.raises(ValueError, match="eval is empty"):
        save_splits(profile, build_splits(rows | {"eval": []}), dataset={})
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written_are_named_with_the_way_out(tmp_path, processor):
    (tmp_path / "outputs").touch()
    own = own_dataset(tmp_path / "own", [{"bytes": b"PNG", "path": None}], STORED)
    profile = dataclasses.replace(own, outputs=tmp_path / "outputs")
    with pytest.raises(OSError, match="set VDR_OUTPUTS to a folder that you can write to"):
        page_store(profile, open_source(own), processor)


def test_outputs_that_can_only_be_read_are_read(tmp_path, processor, monkeypatch):
    own = own_dataset(tmp_path / "own", [{"bytes": b"PNG", "path": None}], STORED)
    profile = dataclasses.replace(own, outputs=tmp_path / "outputs")
    source = open_source(own)
    made = page_store(profile, source, processor)

    def refuse(*arguments, **settings):
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert page_store(profile, source, processor).folder == made.folder


def test_the_hub_that_does_not_answer_is_one_line(monkeypatch):
    def unreachable(*arguments, **settings):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub")

    monkeypatch.setattr("tools.prepare.prepare_published", unreachable)
    with pytest.raises(SystemExit, match=r"tools\.prepare: Couldn't reach 'owner/name'"):
        tools_prepare.main(["owner/name"])


@pytest.mark.parametrize(
    ("images", "image_type", "found"),
    [
        ([b"PNG"] * 12, pyarrow.binary(), "binary"),
        (["a.png"] * 12, pyarrow.string(), "string"),
        ([[{"bytes": b"PNG", "path": None}]] * 12, pyarrow.list_(STORED), "list"),
    ],
)
def test_an_image_column_of_something_else_is_named(tmp_path, images, image_type, found):
    profile = own_dataset(tmp_path / "own", images, image_type)
    with pytest.raises(ValueError, match=rf"column image holds {found}.*expected images"):
        open_source(profile)


def test_a_dataset_of_paths_is_told_before_all_of_it_is_read(tmp_path, processor):
    profile = own_dataset(tmp_path / "own", [{"bytes": None, "path": "a.png"}] * 40, STORED)
    source = open_source(profile)
    store = PageStore(tmp_path / "pages")

    def choose(fingerprint_of):
        return [row for row in range(40) if fingerprint_of(row)][:12]

    with pytest.raises(ValueError, match=r"none of the 40 pages .* has no image, only a path"):
        fetch_chosen(choose, source, store, processor)


def test_a_small_dataset_of_paths_is_told_too(tmp_path, processor):
    profile = own_dataset(tmp_path / "own", [{"bytes": None, "path": "a.png"}] * 3, STORED)
    with pytest.raises(ValueError, match=r"none of the 3 pages .* has no image, only a path"):
        fetch_chosen(
            lambda fingerprint_of: [fingerprint_of(row) for row in range(3)],
            open_source(profile),
            PageStore(tmp_path / "pages"),
            processor,
        )


def test_how_to_save_images_puts_them_into_the_file(tmp_path):
    import datasets
    from datasets import Dataset
    from PIL import Image

    Image.new("RGB", (20, 20)).save(tmp_path / "page.png")
    dataset = Dataset.from_dict({"image": [str(tmp_path / "page.png")]})
    line = HOW_TO_SAVE.replace("...", repr(str(tmp_path / "own.parquet")))
    eval(line, {"dataset": dataset, "datasets": datasets})
    [cell] = pyarrow.parquet.read_table(tmp_path / "own.parquet").to_pylist()
    assert cell["image"]["bytes"] == (tmp_path / "page.png").read_bytes()


def test_a_dataset_without_the_config_is_told_how_to_name_it(tmp_path):
    profile = own_dataset(tmp_path / "own", [{"bytes": b"", "path": None}], STORED, config="de")
    with pytest.raises(ValueError, match=r"no config 'en' .*\['de'\].*README.md"):
        open_source(profile)
