"""One cache: whole or not there, and nothing made with other settings is ever read: pages, splits,
models, embeddings, results.
"""

import contextlib
import copy
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from tools import outputs
from vdr_helpers import evaluation, models, splits
from vdr_helpers.cache import MANIFEST, cached, damage, read_manifest, replace_folder, stage_folder
from vdr_helpers.pages import PageStore, open_page
from vdr_helpers.profiles import PROFILES, load_profile
from vdr_helpers.source import open_files, open_source, source_path

pytestmark = pytest.mark.slow


def cut(file):
    """Leave half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file):
    """Leave as many bytes in a file, and nothing of its content."""
    file.write_bytes(b"x" * file.stat().st_size)


def write_text(text):
    """A stage that leaves one file."""

    def make(folder):
        (folder / "text.txt").write_text(text)

    return make


# the cache itself


def test_a_stage_is_made_once_and_a_changed_setting_is_another_folder(tmp_path):
    first = cached(tmp_path, "texts", {"rows": 96}, write_text("one"))
    assert cached(tmp_path, "texts", {"rows": 96}, write_text("two")) == first
    assert (first / "text.txt").read_text() == "one"
    other = cached(tmp_path, "texts", {"rows": 2048}, write_text("two"))
    assert other != first
    assert (first / "text.txt").read_text() == "one"
    assert read_manifest(other)["settings"] == {"rows": 2048}


def test_the_order_of_settings_does_not_matter_and_a_tuple_is_a_list(tmp_path):
    assert stage_folder(tmp_path, "x", {"a": 1, "b": (2, 3)}) == stage_folder(
        tmp_path, "x", {"b": [2, 3], "a": 1}
    )


def test_what_is_interrupted_is_not_there_and_what_was_there_stays(tmp_path):
    folder = cached(tmp_path, "texts", {}, write_text("whole"))

    def killed(partial):
        write_text("half")(partial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_folder(folder, {}, killed)
    assert (cached(tmp_path, "texts", {}, write_text("new")) / "text.txt").read_text() == "whole"
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "texts", {"rows": 1}, killed)
    assert not stage_folder(tmp_path, "texts", {"rows": 1}).exists()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: cut(folder / "text.txt"), "text.txt has 2 bytes, expected 5"),
        (lambda folder: (folder / "text.txt").unlink(), "text.txt is gone"),
        (lambda folder: cut(folder / MANIFEST), f"its {MANIFEST} is gone or damaged"),
        (lambda folder: (folder / MANIFEST).unlink(), f"its {MANIFEST} is gone or damaged"),
    ],
)
def test_a_damaged_folder_is_named_and_made_anew(tmp_path, capsys, harm, said):
    folder = cached(tmp_path, "texts", {}, write_text("whole"))
    assert damage(folder) == ""
    harm(folder)
    assert (cached(tmp_path, "texts", {}, write_text("again")) / "text.txt").read_text() == "again"
    assert capsys.readouterr().out == f"{folder.name} is made anew: {said}\n"


@pytest.mark.parametrize("manifest", ["{}", '{"files": null}', '{"files": {"text.txt": "5"}}'])
def test_a_manifest_without_sizes_is_damaged(tmp_path, manifest):
    folder = cached(tmp_path, "texts", {}, write_text("whole"))
    (folder / MANIFEST).write_text(manifest)
    assert damage(folder) == f"its {MANIFEST} is gone or damaged"


def test_a_file_in_the_place_of_a_folder_gives_way(tmp_path):
    place = stage_folder(tmp_path, "texts", {})
    place.write_text("no folder")
    folder = cached(tmp_path, "texts", {}, write_text("whole"))
    assert (folder / "text.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_two_processes_that_make_one_folder_do_not_mix_their_files(tmp_path):
    code = """
import sys, time
from pathlib import Path
from vdr_helpers.cache import cached

def make(folder):
    Path(sys.argv[1], "started-" + sys.argv[2]).touch()
    (folder / sys.argv[2]).touch()
    while len(list(Path(sys.argv[1]).glob("started-*"))) < 2:
        time.sleep(0.01)

print(*sorted(path.name for path in cached(Path(sys.argv[1]), "texts", {}, make).iterdir()))
"""
    runs = []
    for name in ("one", "two"):
        command = [sys.executable, "-c", code, str(tmp_path), name]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    answers = [run.communicate(timeout=60)[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert all(answer in ([MANIFEST, "one"], [MANIFEST, "two"]) for answer in answers)


def test_what_cannot_be_written_leaves_nothing_beside(tmp_path):
    def full_disk(folder):
        write_text("half")(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cached(tmp_path, "texts", {}, full_disk)
    assert list(tmp_path.iterdir()) == []


# splits


@pytest.fixture(scope="module")
def template(source, tmp_path_factory):
    """Splits of 12 train rows and 6 eval rows of the small source, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VDR_OUTPUTS", str(tmp_path_factory.mktemp("prepared")))
        profile = own_profile(source)
        splits.build_chosen(profile, usable_rows(profile))
        return profile.output_dir


def own_profile(source):
    """The tiny profile on the small source as a folder of the reader's own."""
    return dataclasses.replace(
        load_profile("tiny"),
        corpus=None,
        dataset_name="local folder source",
        dataset_folder=str(source),
        train_rows=12,
        eval_rows=6,
    )


def usable_rows(profile):
    """``{"train": [[row, negative]], "eval": [[row, four negatives]]}`` from rows whose pages
    open.
    """
    good = []
    for number, row in enumerate(open_source(profile).read_rows(range(150), ["query", "image"])):
        with contextlib.suppress(ValueError):  # a page that does not open, planted by the source
            open_page(row["image"]["bytes"])
            if row["query"]:
                good.append(number)
    train = [[good[i], good[i + 20]] for i in range(12)]
    return {"train": train, "eval": [[good[i], *good[i + 20 : i + 24]] for i in range(20, 26)]}


@pytest.fixture
def kept(source, template):
    """:func:`own_profile` with its splits prepared."""
    profile = own_profile(source)
    shutil.copytree(template, profile.output_dir)
    return profile


OTHER_SETTINGS = [
    {"train_rows": 9},
    {"eval_rows": 4},
    {"max_pixels": 96 * 96},
    {"dataset_name": "local folder other"},
    {"dataset_config": "default"},
    {"dataset_revision": "abc"},
    {"negatives_per_train_row": 2},
    {"distinct_eval_pages": False},
    {"model_revision": "abc"},
    {"model_name": "another/base"},
    {"split": "published"},
]


def test_splits_of_these_settings_are_used(kept):
    assert [len(splits.load_split(kept, split)[0]) for split in ("train", "eval", "full")] == [
        12,
        6,
        18,
    ]
    train, origin = splits.load_split(kept, "train")
    assert origin == "your own notebook 02"
    assert train.column_names == ["query", "image", "negative_0"]
    assert all(Path(path).is_file() for path in train["image"])
    full, _ = splits.load_split(kept, "full")
    assert full[0]["negative_3"] is None, "a train row has fewer negatives than an eval row"


@pytest.mark.parametrize("change", OTHER_SETTINGS, ids=str)
def test_splits_of_other_settings_are_never_used(kept, change):
    other = dataclasses.replace(kept, **change)
    assert splits.splits_folder(other) != splits.splits_folder(kept)
    with pytest.raises(FileNotFoundError, match=r"run notebooks/02|tools\.prepare"):
        splits.load_split(other, "eval")


def test_a_setting_that_decides_nothing_of_the_splits_changes_no_folder(kept):
    for change in (
        {"learning_rate": 1.0},
        {"matryoshka_dims": (8,)},
        {"monitor_rows": 3},
        {"seed": 7},
    ):
        other = dataclasses.replace(kept, **change)
        assert splits.splits_folder(other) == splits.splits_folder(kept)
        assert models.tuned_folder(other) != models.tuned_folder(kept) or "monitor_rows" in change


def test_other_files_of_a_folder_are_another_dataset_even_with_one_name_and_size(kept, tmp_path):
    import pyarrow
    import pyarrow.parquet

    found = []
    for query in ("one query", "two query"):
        file = tmp_path / "mine" / "train.parquet"
        file.parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table({"query": [query]}), file)
        profile = dataclasses.replace(kept, dataset_folder=str(file.parent))
        found.append((file.stat().st_size, splits.splits_folder(profile)))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_where_the_choice_of_rows_is_stored_the_splits_are_made_and_said(kept, monkeypatch):
    chosen = usable_rows(kept)
    other = dataclasses.replace(kept, max_pixels=96 * 96)
    monkeypatch.setattr(
        splits, "stored_choice", lambda profile: chosen if profile == other else None
    )
    loaded, origin = splits.load_split(other, "eval")
    assert len(loaded) == 6
    assert (
        origin
        == "the rows that notebook 02 chooses, read now (because you have not run notebook 02)"
    )
    with Image.open(loaded[0]["image"]) as page:
        assert page.width * page.height <= 96 * 96
    assert splits.load_split(other, "train")[1] == "your own notebook 02"


def test_a_table_overwritten_by_as_many_bytes_is_named(kept):
    folder = splits.splits_folder(kept)
    overwrite(folder / "full.jsonl")
    with pytest.raises(ValueError, match=rf"{folder.name}/full.jsonl is damaged .*notebooks/02"):
        splits.load_split(kept, "train")


def test_lines_of_an_index_that_are_none_of_it_are_passed_over(tmp_path):
    store = PageStore(tmp_path)
    store.add(3, "ab" * 20, b"page")
    with (tmp_path / "index.jsonl").open("ab") as index:
        index.write(
            b'\n5\n"abc"\n[]\n{"a": 1}\n[1, 2, 3]\n[4, ["x"], 3]\n[[1], "x", 3]\n\xff\nnull'
        )
    assert PageStore(tmp_path).fingerprints == {3: "ab" * 20}


@pytest.mark.parametrize("query", ["two\u2028lines", "next\u0085line", "a\nb", "Prüfung"])
def test_a_query_of_any_letters_comes_back_from_its_table(kept, query):
    tables = {name: splits.load_split(kept, name)[0] for name in ("train", "eval", "full")}
    first = {"query": [query, *tables["train"]["query"][1:]]}
    names = [name for name in tables["train"].column_names if name != "query"]
    first |= {name: tables["train"][name][:] for name in names}
    splits.save_splits(kept, tables | {"train": type(tables["train"]).from_dict(first)})
    assert splits.load_split(kept, "train")[0]["query"][0] == query


def test_an_unknown_split_is_refused(kept):
    with pytest.raises(ValueError, match="'train', 'eval' or 'full', not 'test'"):
        splits.load_split(kept, "test")


def a_page(kept):
    [folder] = kept.output_dir.glob("pages-*")
    return next(iter(sorted(folder.glob("*.png"))))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda kept: cut(splits.splits_folder(kept) / "eval.jsonl"),
            r"eval\.jsonl has [\d,]+ bytes, expected [\d,]+",
        ),
        (
            lambda kept: (splits.splits_folder(kept) / "train.jsonl").unlink(),
            r"train\.jsonl is gone",
        ),
        (lambda kept: (splits.splits_folder(kept) / MANIFEST).unlink(), "is gone or damaged"),
        (lambda kept: cut(a_page(kept)), r"1 of \d+ pages are damaged or gone"),
        (lambda kept: a_page(kept).unlink(), r"1 of \d+ pages are damaged or gone"),
    ],
)
def test_damaged_splits_are_named_or_read_anew(kept, monkeypatch, harm, said):
    harm(kept)
    with pytest.raises(ValueError, match=rf"{said}.*run notebooks/02"):
        splits.load_split(kept, "eval")
    chosen = usable_rows(kept)
    monkeypatch.setattr(splits, "stored_choice", lambda profile: chosen)
    dataset, origin = splits.load_split(kept, "eval")
    assert len(dataset) == 6
    assert "what was there is damaged" in origin
    assert splits.load_split(kept, "train")[1] == "your own notebook 02", "and it is whole again"


def test_damaged_pages_are_named_and_fetched_again(kept, capsys):
    [folder] = kept.output_dir.glob("pages-*")
    files = sorted(folder.glob("*.png"))
    whole, pages = (
        {file.name: file.read_bytes() for file in files},
        len(PageStore(folder).fingerprints),
    )
    cut(files[3])
    files[5].unlink()
    index = folder / "index.jsonl"
    lines = index.read_text().split("\n")
    index.write_text("\n".join([*lines[:9], lines[9][:12], *lines[10:]]))
    capsys.readouterr()
    store = PageStore(folder)
    assert (
        f"page files of {folder.name} are damaged or gone, {files[3].name} first"
        in capsys.readouterr().out
    )
    assert len(store.fingerprints) <= pages - 2
    splits.build_chosen(kept, usable_rows(kept))
    assert {file.name: file.read_bytes() for file in folder.glob("*.png")} == whole


def test_a_page_is_written_once_under_its_fingerprint(kept):
    [folder] = kept.output_dir.glob("pages-*")
    store = PageStore(folder)
    names = {name for name in store.fingerprints.values() if name}
    assert {file.stem for file in folder.glob("*.png")} == names
    row = next(row for row, name in store.fingerprints.items() if name)
    file = Path(store.path(row))
    before = file.stat().st_mtime_ns
    store.add(10_000, store.fingerprints[row], b"the same page under another id")
    assert file.stat().st_mtime_ns == before
    assert PageStore(folder).path(10_000) == str(file)


# the generated source


def test_a_damaged_source_file_is_named(source, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    opened = open_files(str(tmp_path / "source"), "en")
    file = tmp_path / "source" / "en" / opened.shards[0].rsplit("/", 1)[-1]
    content = bytearray(file.read_bytes())
    content[1000:60000] = bytes(59000)  # in the middle: the footer at the end is whole
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{file.name} cannot be read to its end .*delete it, fetch it again"
    ):
        list(opened.read_rows([group.first_row for group in opened.groups], ["image"]))


@pytest.mark.parametrize("harm", [cut, Path.unlink])
@pytest.mark.parametrize("name", ["en/train-00001-of-00002.parquet", "README.md", MANIFEST])
def test_a_damaged_generated_source_is_drawn_anew(source, monkeypatch, capsys, name, harm):
    from tiny_vdr import corpus

    small = {"seed": 0, "train_families": 20, "eval_families": 85}
    profile = dataclasses.replace(load_profile("tiny"), corpus=small)

    def copy_it(folder, **arguments):
        shutil.copytree(source, folder, dirs_exist_ok=True)

    monkeypatch.setattr(corpus, "build_source", copy_it)
    folder = Path(source_path(profile))
    monkeypatch.setattr(
        corpus,
        "build_source",
        lambda *given, **more: (_ for _ in ()).throw(InterruptedError("drawn anew")),
    )
    assert source_path(profile) == str(folder)
    harm(folder / name)
    with pytest.raises(InterruptedError, match="drawn anew"):
        source_path(profile)
    assert capsys.readouterr().out.startswith(f"{folder.name} is made anew: ")


@pytest.mark.parametrize("change", [{"corpus": {"seed": 1}}, {"corpus": {"mean_scale": 2.0}}])
def test_another_corpus_is_another_source(change, monkeypatch):
    from tiny_vdr import corpus

    monkeypatch.setattr(
        corpus, "build_source", lambda folder, **arguments: (folder / "x").write_text("x")
    )
    tiny = load_profile("tiny")
    before = source_path(tiny)
    assert source_path(dataclasses.replace(tiny, **change)) != before
    monkeypatch.setattr(corpus, "VERSION", corpus.VERSION + 1)
    assert source_path(tiny) != before


# the tuned model


def save_model(profile):
    """A small stand-in for what notebook 03 keeps with these settings."""

    def write(folder):
        (folder / "modules.json").write_text("[]")
        save_file({"weight": torch.ones(100)}, folder / "model.safetensors")

    return replace_folder(models.tuned_folder(profile), models.tuned_settings(profile), write)


def test_a_tuned_model_of_these_settings_is_used(kept):
    mine = save_model(kept)
    assert models.finetuned_model(kept) == (str(mine), "your own, from notebook 03")


TRAINED_OTHERWISE = [
    {"learning_rate": 1e-3},
    {"num_train_epochs": 2},
    {"per_device_train_batch_size": 32},
    {"warmup_steps": 0.2},
    {"matryoshka_dims": (256, 8)},
    {"seed": 7},
    {"bf16": True},
    {"fp16": True},
    {"adapters": ({"r": 8},)},
    {"model_kwargs": {"dtype": "bfloat16"}},
]


@pytest.mark.parametrize("change", [*OTHER_SETTINGS, *TRAINED_OTHERWISE], ids=str)
def test_a_tuned_model_of_other_settings_is_never_used(kept, change):
    mine = save_model(kept)
    other = dataclasses.replace(kept, **change)
    assert models.tuned_folder(other) != mine
    try:
        found, origin = models.finetuned_model(other)
    except ValueError as error:  # the shipped one has another base
        assert "has another base" in str(error)
    else:
        assert found != str(mine)
        assert "the shipped one" in origin


def test_other_weights_of_a_base_in_a_folder_are_another_base(kept, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"one")
    profile = dataclasses.replace(kept, model_folder=str(base))
    mine = save_model(profile)
    assert models.finetuned_model(profile)[0] == str(mine)
    (base / "model.safetensors").write_bytes(b"two")
    with pytest.raises(ValueError, match="another base"):
        models.finetuned_model(profile)


def test_the_shipped_model_says_what_it_was_trained_on():
    tiny = load_profile("tiny")
    assert models.finetuned_model(tiny)[1] == "the shipped one (you have not run notebook 03)"
    fewer = models.finetuned_model(dataclasses.replace(tiny, train_rows=96, eval_rows=20))[1]
    assert "trained on other data" in fewer
    assert "may be among its training pages" in fewer
    with pytest.raises(ValueError, match="the shipped tuned model has another base"):
        models.finetuned_model(
            dataclasses.replace(tiny, model_name="another/base", model_folder="/nowhere")
        )


def test_a_model_that_is_named_is_taken_even_beside_your_own(kept):
    save_model(kept)
    named = dataclasses.replace(kept, finetuned_name="mine/tuned", finetuned_folder=None)
    assert models.finetuned_model(named) == ("mine/tuned", "the one that VDR_FINETUNED names")
    revision = dataclasses.replace(kept, finetuned_revision="v2")
    assert models.finetuned_model(revision)[1] == "the one that VDR_FINETUNED names"


def test_a_hub_model_from_another_base_says_so():
    full = load_profile("full")
    assert models.finetuned_model(full) == (
        full.finetuned_name,
        "the shipped one (you have not run notebook 03)",
    )
    other = dataclasses.replace(full, model_name="another/base", model_revision=None)
    assert models.finetuned_model(other)[1].endswith(
        "trained from Qwen/Qwen3-VL-Embedding-2B, not from your base"
    )


@pytest.mark.parametrize("harm", [cut, Path.unlink])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "chat_template.jinja", "config_sentence_transformers.json"]
)
def test_a_damaged_tuned_model_is_named_by_its_file(kept, name, harm):
    """The libraries' errors name no file; without the prompts' file there is no error at all, and
    other embeddings.
    """
    shipped = kept.finetuned_model
    folder = replace_folder(
        models.tuned_folder(kept),
        models.tuned_settings(kept),
        lambda partial: shutil.copytree(shipped, partial, dirs_exist_ok=True),
    )
    assert models.finetuned_model(kept)[0] == str(folder)
    harm(folder / name)
    with pytest.raises(ValueError, match=rf"{name} .*delete the folder and run notebook 03 again"):
        models.finetuned_model(kept)


# embeddings


@pytest.fixture
def pages(tmp_path):
    files = []
    for shade in (10, 90, 170):
        Image.new("RGB", (64, 64), (shade, 0, 0)).save(tmp_path / f"{shade}.png")
        files.append(str(tmp_path / f"{shade}.png"))
    return files


QUERIES = ["first", "second"]


def half_the_pixels(model, pages):
    model.processor.image_processor.size = {"shortest_edge": 4096, "longest_edge": 4096}


def another_prompt(model, pages):
    model.prompts = {"query": "Find it.", "document": ""}


def one_other_weight(model, pages):
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3


def another_template(model, pages):
    model.processor.chat_template = model.processor.chat_template.replace("input.", "page.")


def another_page_in_the_same_file(model, pages):
    Image.new("RGB", (64, 64), (1, 2, 3)).save(pages[1])


CHANGES = [
    half_the_pixels,
    another_prompt,
    one_other_weight,
    another_template,
    another_page_in_the_same_file,
    lambda model, pages: model.bfloat16(),
    lambda model, pages: setattr(model[1], "pooling_mode", "mean"),
    lambda model, pages: setattr(model[0].auto_model.config, "_attn_implementation", "eager"),
    lambda model, pages: model.pop(-1),
    lambda model, pages: setattr(model, "truncate_dim", 8),
    lambda model, pages: pages.pop(),
    lambda model, pages: pages.reverse(),
]


def embeddings_folder(model, queries, pages):
    return stage_folder(Path(), "embeddings", evaluation.embedding_settings(model, queries, pages))


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_decides_an_embedding_decides_where_it_is_kept(random_model, pages, change):
    before = embeddings_folder(random_model, QUERIES, pages)
    assert before == embeddings_folder(copy.deepcopy(random_model), list(QUERIES), list(pages))
    change(random_model, pages)
    assert embeddings_folder(random_model, QUERIES, pages) != before


def test_texts_count_too(random_model, pages):
    before = embeddings_folder(random_model, QUERIES, pages)
    assert embeddings_folder(random_model, ["first", "third"], pages) != before


def test_a_model_that_moved_with_its_folder_finds_its_embeddings_again(pages, tmp_path):
    shipped, moved = load_profile("tiny").base_model, tmp_path / "moved"
    shutil.copytree(shipped, moved)
    folders = [
        embeddings_folder(SentenceTransformer(str(folder), device="cpu"), QUERIES, pages)
        for folder in (shipped, moved)
    ]
    assert folders[0] == folders[1]


def test_a_shorter_width_is_cut_from_the_same_embeddings(random_model, pages, monkeypatch):
    profile = load_profile("tiny")
    whole = evaluation.embed_once(random_model, QUERIES, pages, profile)
    random_model.truncate_dim = 8
    random_model[0].auto_model.config.matryoshka_dimensions = [256, 8]  # what a server may offer
    expected = random_model.encode_query(QUERIES, convert_to_tensor=True).cpu()
    monkeypatch.setattr(evaluation, "encode_all", None)  # nothing is encoded again
    short = evaluation.embed_once(random_model, QUERIES, pages, profile)
    assert torch.equal(short[1], whole[1][:, :8]) and random_model.truncate_dim == 8
    assert torch.allclose(short[0], expected, atol=1e-6)


def test_embeddings_are_encoded_once_and_a_damaged_file_is_named_and_made_anew(
    random_model, pages, monkeypatch, capsys
):
    profile, calls = load_profile("tiny"), []
    encode = random_model.encode_document

    def counted(*given, **more):
        calls.append(1)
        return encode(*given, **more)

    monkeypatch.setattr(random_model, "encode_document", counted)
    # cloned, since the libraries map the file that this test overwrites
    first = [part.clone() for part in evaluation.embed_once(random_model, QUERIES, pages, profile)]
    again = evaluation.embed_once(random_model, QUERIES, pages, profile)
    assert len(calls) == 1
    assert [tensor.shape for tensor in first] == [(2, 256), (3, 256)]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == torch.float32
    fewer = evaluation.embed_once(random_model, QUERIES, pages[:2], profile)
    assert fewer[1].shape == (2, 256), "a page left out is left out of the embeddings"
    for file in profile.output_dir.glob("embeddings-*/*.safetensors"):
        cut(file)
    capsys.readouterr()
    mended = evaluation.embed_once(random_model, QUERIES, pages, profile)
    assert "is made anew: embeddings.safetensors has" in capsys.readouterr().out
    assert torch.equal(mended[1], first[1])
    for file in profile.output_dir.glob("embeddings-*/*.safetensors"):
        file.write_bytes(bytes(file.stat().st_size))  # of the right size, and no safetensors file
    mended = evaluation.embed_once(random_model, QUERIES, pages, profile)
    assert "is made anew: SafetensorError" in capsys.readouterr().out
    assert torch.equal(mended[1], first[1])


def test_an_empty_eval_split_is_refused():
    from datasets import Dataset

    empty = Dataset.from_dict({"query": [], "image": [], "negative_0": []})
    with pytest.raises(ValueError, match="the eval split is empty"):
        evaluation.retrieval_inputs(empty)


# results


def test_damaged_results_are_named_and_left_out(kept, capsys):
    evaluation.save_results(kept, "truncation", {"base": {"256": 0.6}})
    assert evaluation.load_results(kept, "truncation") == {"base": {"256": 0.6}}
    cut(evaluation.results_folder(kept) / "truncation.json")
    assert evaluation.load_results(kept, "truncation") is None
    assert "truncation.json is damaged and left out" in capsys.readouterr().out


@pytest.mark.parametrize("change", [*OTHER_SETTINGS, {"finetuned_name": "mine/tuned"}], ids=str)
def test_results_of_other_settings_are_never_used(kept, change):
    other = dataclasses.replace(kept, **change)
    evaluation.save_results(kept, "evaluation", {"tuned": {"ndcg@10": 0.9}})
    try:
        assert evaluation.load_results(other, "evaluation") is None
    except ValueError as error:
        assert "another base" in str(error)


def test_results_of_the_model_before_this_one_are_not_used(kept):
    folder = save_model(kept)
    evaluation.save_results(kept, "evaluation", {"tuned": {}})
    assert evaluation.load_results(kept, "evaluation") == {"tuned": {}}
    # trained again, with the same settings
    save_file({"weight": torch.zeros(100)}, folder / "model.safetensors")
    assert evaluation.load_results(kept, "evaluation") is None


# what lies under outputs/


def test_outputs_are_listed_with_what_uses_them_and_removed_when_asked(kept, monkeypatch, capsys):
    other = dataclasses.replace(kept, train_rows=9)
    mine, stale = save_model(kept), save_model(other)
    checkpoints = kept.output_dir / "checkpoints-0123456789"
    (checkpoints / "checkpoint-1").mkdir(parents=True)
    (kept.output_dir / "notebooks").mkdir()
    monkeypatch.setattr(outputs, "load_profile", lambda: kept)
    outputs.main([])
    listed = capsys.readouterr().out.splitlines()
    state = {
        name: line.split("  ")[0].strip()
        for line in listed
        for name in (mine.name, stale.name)
        if name in line
    }
    assert state == {mine.name: "in use", stale.name: "not in use"}
    assert stale.exists()
    outputs.main(["--remove"])
    assert not stale.exists()
    assert mine.exists()
    assert checkpoints.exists(), "an interrupted run can still be resumed"
    assert (kept.output_dir / "notebooks").exists()
    assert splits.load_split(kept, "train")[1] == "your own notebook 02"


def removed(profile, monkeypatch):
    """Names of the profile's folders that ``--remove`` deletes."""
    before = {path.name for path in profile.output_dir.iterdir()}
    monkeypatch.setattr(outputs, "load_profile", lambda: profile)
    outputs.main(["--remove"])
    return before - {path.name for path in profile.output_dir.iterdir()}


def test_what_the_default_settings_use_stays_under_other_variables(kept, monkeypatch, capsys):
    default = dataclasses.replace(PROFILES["tiny"], outputs=kept.outputs)
    mine, stale = save_model(default), save_model(dataclasses.replace(kept, train_rows=9))
    (kept.output_dir / "ocr-0123456789").mkdir()  # texts that several settings share
    assert removed(kept, monkeypatch) == {stale.name}
    said = capsys.readouterr().out
    assert any(line.startswith("default ") and mine.name in line for line in said.splitlines())


def test_only_folders_of_the_cache_are_ever_removed(kept, tmp_path, monkeypatch):
    for name in ("photos-2026112908", "notes.partial", "my-data-0123456789", "tuned", "tuned-x"):
        (kept.output_dir / name).mkdir()
    (tmp_path / "disk").mkdir()
    (kept.output_dir / "pages-0123456789").symlink_to(tmp_path / "disk")
    (kept.output_dir / "embeddings-0123456789").mkdir()
    assert removed(kept, monkeypatch) == {"embeddings-0123456789"}


def test_what_may_be_in_the_making_stays_for_a_day(kept, monkeypatch):
    young = kept.output_dir / "tuned-0123456789.77.partial"
    old = kept.output_dir / "source-0123456789.77.partial.partial"
    young.mkdir()
    old.mkdir()
    os.utime(old, (0, 0))
    assert removed(kept, monkeypatch) == {old.name}


def test_what_was_trained_on_these_splits_stays_whatever_the_gpu_decided(kept, monkeypatch):
    other = dataclasses.replace(kept, train_rows=9)
    fitted = {"learning_rate": 2e-4, "fp16": True, "adapters": ({"r": 32},)}
    stale = save_model(dataclasses.replace(other, **fitted))
    save_model(dataclasses.replace(kept, **fitted))
    settings = models.tuned_settings(kept) | {"reranker": {"pairs": 3}}
    reranker = stage_folder(kept.output_dir, "reranker", settings)
    replace_folder(reranker, settings, write_text("weights"))
    evaluation.save_results(dataclasses.replace(kept, **fitted), "evaluation", {"tuned": {}})
    assert removed(kept, monkeypatch) == {stale.name}


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "full.jsonl").unlink(),
        lambda folder: (folder / MANIFEST).write_text("{}"),
        lambda folder: overwrite(folder / "full.jsonl"),
        lambda folder: shutil.rmtree(folder),
    ],
)
def test_pages_stay_while_their_splits_are_damaged_or_not_made_yet(kept, monkeypatch, harm):
    harm(splits.splits_folder(kept))
    other = stage_folder(kept.output_dir, "pages", {"pixels": {"smallest": 1, "largest": 2}})
    replace_folder(other, {"pixels": {"smallest": 1, "largest": 2}}, write_text("page"))
    assert removed(kept, monkeypatch) == {other.name}


def test_a_folder_whose_manifest_says_nothing_is_listed(kept, monkeypatch, capsys):
    folder = kept.output_dir / "embeddings-0123456789"
    folder.mkdir()
    (folder / MANIFEST).write_text('{"files": {}}')
    monkeypatch.setattr(outputs, "load_profile", lambda: kept)
    outputs.main([])
    assert f"{folder.name}        no {MANIFEST}" in capsys.readouterr().out


def test_a_manifest_that_cannot_be_read_is_no_manifest(tmp_path):
    folder = replace_folder(tmp_path / "x-0123456789", {"rows": 3}, write_text("x"))
    assert json.loads((folder / MANIFEST).read_text())["settings"] == {"rows": 3}
    cut(folder / MANIFEST)
    assert read_manifest(folder) is None
