"""Nothing of another setting and nothing damaged is used in silence: data, tuned model, embeddings, pages, results."""

import copy
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from cells import prepare
from PIL import Image
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from tools.prepare import prepare_preprocessed, publisher_settings
from vdr_helpers import evaluation
from vdr_helpers.pages import PageStore
from vdr_helpers.profiles import load_profile
from vdr_helpers.source import open_source, source_path
from vdr_helpers.splits import load_prepared, save_splits
from vdr_helpers.stamps import (  # fmt: skip
    data_settings,
    differences,
    file_sizes,
    model_settings,
    read_stamp,
    used_revisions,
    whole_folder,
    write_stamp,
)

pytestmark = pytest.mark.slow


def cut(file):
    """Leave half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


# settings


def test_differences_by_hand():
    found = {"rows": 96, "pixels": {"largest": 4}, "only here": 1}
    assert differences(found, {"rows": 96, "pixels": {"largest": 4}}) == []
    assert differences(found, {"rows": 2048, "pixels": {"largest": 9}}) == [
        "rows: 96 there, 2048 asked for",
        "pixels.largest: 4 there, 9 asked for",
    ]
    assert differences(found, {"model": {"name": "x"}}) == ["model.name: nothing there, x asked for"]
    assert differences(None, {"rows": 1}) == ["there is no note of what it was made from"]
    assert differences({"dims": [8, 4]}, {"dims": (8, 4)}) == []  # JSON has no tuples


def own_profile(source):
    """The tiny profile on the small source as a folder of the reader's own: 12 train rows, 6 eval rows."""
    profile = load_profile("tiny")
    return dataclasses.replace(
        profile, corpus=None, dataset_name="local folder source", dataset_folder=str(source), train_rows=12, eval_rows=6
    )


@pytest.fixture
def own(source):
    """:func:`own_profile`; nothing is prepared yet."""
    return own_profile(source)


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """What notebook 02 leaves in the outputs of :func:`own_profile`, made once; the tests get copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VDR_OUTPUTS", str(tmp_path_factory.mktemp("prepared")))
        prepare(own_profile(source))
        return own_profile(source).output_dir


@pytest.fixture
def kept(own, prepared):
    """``own``, with its splits prepared."""
    shutil.copytree(prepared, own.output_dir)
    return own


def test_data_of_these_settings_is_used(kept):
    assert [len(load_prepared(kept, split)[0]) for split in ("train", "eval", "full")] == [12, 6, 18]
    assert load_prepared(kept, "train")[1] == "your own notebook 02"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_rows": 9}, "train_rows: 12 there, 9 asked for"),
        ({"eval_rows": 4}, "eval_rows: 6 there, 4 asked for"),
        ({"max_pixels": 96 * 96}, "pixels.largest: 40000 there, 9216 asked for"),
        ({"dataset_name": "local folder other"}, "dataset.name: local folder source there, local folder other asked for"),
        ({"dataset_config": "default"}, "dataset.config: en there, default asked for"),
        ({"model_revision": "abc"}, "processor.revision: None there, abc asked for"),
    ],
    ids=str,
)
def test_data_of_other_settings_is_refused_with_the_ways_out(kept, change, said):
    with pytest.raises(ValueError, match=rf"{re.escape(said)}\): run notebooks/02.*put the settings back.*VDR_OUTPUTS"):
        load_prepared(dataclasses.replace(kept, **change), "eval")


def test_where_the_choice_of_rows_is_stored_the_data_is_read_anew_and_said(kept, monkeypatch):
    from vdr_helpers import splits

    chosen = {"train": [[0, 1]], "eval": [[2, 3, 4, 5, 6]] * 3}
    smaller = dataclasses.replace(kept, eval_rows=3, max_pixels=96 * 96)
    monkeypatch.setattr(splits, "stored_choice", lambda profile: chosen if profile == smaller else None)
    loaded, origin = load_prepared(smaller, "eval")
    assert len(loaded) == 3
    assert "because what was there did not fit: eval_rows: 6 there, 3 asked for" in origin
    page = load_prepared(smaller, "train")[0][0]["image"]
    assert page.width * page.height <= 96 * 96
    assert load_prepared(smaller, "train")[1] == "your own notebook 02"


def test_other_files_under_the_same_name_are_another_dataset(kept, tmp_path):
    folder = tmp_path / "moved" / "en"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"other files")
    assert data_settings(dataclasses.replace(kept, dataset_folder=str(tmp_path / "moved"))) != data_settings(kept)


def test_a_file_of_the_same_name_and_size_is_still_another_one(kept, tmp_path):
    import pyarrow
    import pyarrow.parquet

    settings = []
    for query in ("one query", "two query"):
        file = tmp_path / "mine" / "train.parquet"
        file.parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table({"query": [query]}), file)
        settings.append((file.stat().st_size, data_settings(dataclasses.replace(kept, dataset_folder=str(file.parent)))))
    assert settings[0][0] == settings[1][0]
    assert settings[0][1] != settings[1][1]


def test_a_save_that_was_killed_half_way_leaves_no_note(kept):
    """New training rows beside old eval rows must not pass for either."""
    data, few = kept.output_dir / "data", load_prepared(kept, "train")[0].select(range(3))

    class Killed:
        def save_to_disk(self, path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_splits({"train": few, "eval": Killed()}, data, data_settings(kept))
    assert read_stamp(data) is None
    with pytest.raises(ValueError, match="there is no note of what it was made from"):
        load_prepared(kept, "train")


def test_splits_without_a_note_are_not_trusted(kept):
    (kept.output_dir / "data" / "made_from.json").unlink()
    with pytest.raises(ValueError, match="there is no note of what it was made from"):
        load_prepared(kept, "eval")


def test_a_publishers_split_stays_and_is_named_in_the_receipt(own, tmp_path):
    """The shortcut was chosen on purpose: other rows or pixels are still a difference, its name is none."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 96), "red").save(buffer, "PNG")
    page = {"bytes": buffer.getvalue(), "path": None}
    import pyarrow
    import pyarrow.parquet

    configs = ""
    for config in ("train", "eval"):
        rows = [{"query": f"{config} {i}", "image": page} | {f"negative_{k}": page for k in range(4)} for i in range(12)]
        (tmp_path / "split" / config).mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "split" / config / "train-0.parquet")
        configs += f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train-*.parquet\n"
    (tmp_path / "split" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    prepare_preprocessed(own, str(tmp_path / "split"))
    dataset, origin = load_prepared(own, "train")
    assert dataset[0]["query"] == "train 0"
    assert origin == "local folder split, as its publisher split it"
    assert used_revisions(own)["dataset"] == {"name": "local folder split", "revision": "local folder"}
    assert model_settings(own)["data"]["dataset"]["name"] == "local folder split"
    other = dataclasses.replace(own, train_rows=5, dataset_folder=None)
    with pytest.raises(ValueError, match="train_rows: 12 there, 5 asked for"):
        load_prepared(other, "train")
    other = dataclasses.replace(own, dataset_name="someone/else", dataset_folder=None)  # it stood for another dataset than this
    with pytest.raises(ValueError, match=r"instead_of\.name: local folder source there, someone/else asked for"):
        load_prepared(other, "train")
    assert used_revisions(other)["dataset"]["name"] == "someone/else"


# the tuned model


def save_model(profile, settings):
    folder = profile.output_dir / "finetuned"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text("[]")
    save_file({"weight": torch.ones(100)}, folder / "model.safetensors")
    if settings:
        write_stamp(folder, settings)
    return folder


def test_a_tuned_model_of_these_settings_is_used(own):
    folder = save_model(own, model_settings(own) | {"training": {"rows": 12}})
    assert evaluation.finetuned_model(own) == (str(folder), "your own, from notebook 03")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_rows": 9}, "train_rows: 12 there, 9 asked for"),
        ({"max_pixels": 96 * 96}, "pixels.largest: 40000 there, 9216 asked for"),
        ({"model_name": "another/base"}, "model.name: assets/tiny-base there, another/base asked for"),
        ({"model_revision": "abc"}, "model.revision: None there, abc asked for"),
        ({"dataset_name": "local folder other"}, "dataset.name"),
    ],
    ids=str,
)
def test_a_tuned_model_of_other_settings_is_refused(own, change, said):
    save_model(own, model_settings(own))
    with pytest.raises(ValueError, match=r"run notebook 03 again, put the settings back, or set VDR_OUTPUTS") as refused:
        evaluation.finetuned_model(dataclasses.replace(own, **change))
    assert said in str(refused.value)


def test_other_weights_of_a_base_in_a_folder_are_another_base(own, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"one")
    profile = dataclasses.replace(own, model_folder=str(base))
    save_model(profile, model_settings(profile))
    assert evaluation.finetuned_model(profile)
    (base / "model.safetensors").write_bytes(b"two")
    with pytest.raises(ValueError, match=r"model\.weights"):
        evaluation.finetuned_model(profile)


def test_a_tuned_model_without_a_note_is_refused(own):
    save_model(own, None)
    with pytest.raises(ValueError, match="there is no note of what it was made from"):
        evaluation.finetuned_model(own)


def test_the_shipped_model_says_what_it_was_trained_on():
    tiny = load_profile("tiny")
    assert evaluation.finetuned_model(tiny)[1] == "the shipped one (you have not run notebook 03)"
    fewer = evaluation.finetuned_model(dataclasses.replace(tiny, train_rows=96, eval_rows=20))[1]
    assert "train_rows: 2048 there, 96 asked for" in fewer
    assert "may be among its training pages" in fewer
    with pytest.raises(ValueError, match="the shipped tuned model has another base than yours"):
        evaluation.finetuned_model(dataclasses.replace(tiny, model_name="another/base"))


def test_a_model_that_is_named_is_taken_even_beside_your_own(own):
    save_model(own, model_settings(own))
    named = dataclasses.replace(own, finetuned_name="mine/tuned", finetuned_folder=None)
    assert evaluation.finetuned_model(named) == ("mine/tuned", "the one that VDR_FINETUNED names")
    revision = dataclasses.replace(own, finetuned_revision="v2")
    assert evaluation.finetuned_model(revision)[1] == "the one that VDR_FINETUNED names"


def test_a_hub_model_from_another_base_says_so():
    full = load_profile("full")
    assert evaluation.finetuned_model(full) == (full.finetuned_name, "the shipped one (you have not run notebook 03)")
    other = dataclasses.replace(full, model_name="another/base", model_revision=None)
    assert evaluation.finetuned_model(other)[1].endswith("trained from Qwen/Qwen3-VL-Embedding-2B, not from your base")


@pytest.mark.parametrize("damage", [cut, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja", "config_sentence_transformers.json"])
def test_a_damaged_tuned_model_is_named_by_its_file(own, name, damage):
    """The libraries' errors name no file; without the prompts' file there is no error at all, and other embeddings."""
    folder = own.output_dir / "finetuned"
    with whole_folder(folder, model_settings(own)) as partial:
        shutil.copytree(own.finetuned_model, partial, dirs_exist_ok=True)
    assert evaluation.finetuned_model(own) == (str(folder), "your own, from notebook 03")
    damage(folder / name)
    with pytest.raises(ValueError, match=f"^{name} of the tuned model.*delete the folder and run notebook 03 again"):
        evaluation.finetuned_model(own)


def test_a_model_trained_on_a_publishers_split_does_not_belong_to_your_own(own):
    published = publisher_settings(own, dataclasses.replace(own, dataset_name="theirs/split", dataset_folder=None))
    (own.output_dir / "data").mkdir(parents=True)
    write_stamp(own.output_dir / "data", published | {"resolved": {"name": "theirs/split", "revision": "now"}})
    save_model(own, model_settings(own))
    evaluation.finetuned_model(own)
    write_stamp(own.output_dir / "data", published | {"resolved": {"name": "theirs/split", "revision": "later"}})
    evaluation.finetuned_model(own)  # what a name resolved to is for the reader
    prepare(own)
    with pytest.raises(ValueError, match=r"dataset\.name: theirs/split there, local folder source asked for"):
        evaluation.finetuned_model(own)


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


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_decides_an_embedding_decides_where_it_is_kept(random_model, pages, change):
    key = evaluation.embedding_key(random_model, QUERIES, pages)
    assert key == evaluation.embedding_key(copy.deepcopy(random_model), list(QUERIES), list(pages))
    change(random_model, pages)
    assert evaluation.embedding_key(random_model, QUERIES, pages) != key


def test_texts_count_too(random_model, pages):
    key = evaluation.embedding_key(random_model, QUERIES, pages)
    assert evaluation.embedding_key(random_model, ["first", "third"], pages) != key


def test_a_model_that_moved_with_its_folder_finds_its_embeddings_again(pages, tmp_path):
    shipped, moved = load_profile("tiny").base_model, tmp_path / "moved"
    shutil.copytree(shipped, moved)
    here, there = (
        evaluation.embedding_key(SentenceTransformer(str(folder), device="cpu"), QUERIES, pages) for folder in (shipped, moved)
    )
    assert here == there


def test_embeddings_are_encoded_once_and_a_damaged_file_is_named_and_made_anew(random_model, pages, monkeypatch, capsys):
    profile, calls = load_profile("tiny"), []
    encode = random_model.encode_document
    monkeypatch.setattr(random_model, "encode_document", lambda *given, **more: calls.append(1) or encode(*given, **more))
    first = evaluation.embed_once(random_model, QUERIES, pages, profile)
    again = evaluation.embed_once(random_model, QUERIES, pages, profile)
    assert len(calls) == 1
    assert [tensor.shape for tensor in first] == [(2, 256), (3, 256)]
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(first, again, strict=True))
    fewer = evaluation.embed_once(random_model, QUERIES, pages[:2], profile)
    assert fewer[1].shape == (2, 256), "a page left out is left out of the embeddings"
    for file in (profile.output_dir / "embeddings").iterdir():
        cut(file)
    capsys.readouterr()
    mended = evaluation.embed_once(random_model, QUERIES, pages, profile)
    assert "is damaged (SafetensorError): encoding anew" in capsys.readouterr().out
    assert torch.equal(mended[1], first[1])


def test_an_empty_eval_split_is_refused():
    from datasets import Dataset

    empty = Dataset.from_dict({"query": [], "image": [], "negative_0": []})
    with pytest.raises(ValueError, match="the eval split is empty"):
        evaluation.retrieval_inputs(empty)


# damaged files


@pytest.mark.parametrize("pattern", ["eval/*.arrow", "eval/dataset_info.json", "eval/state.json"])
def test_a_damaged_split_is_named_or_read_anew(kept, monkeypatch, pattern):
    from vdr_helpers import splits

    [file] = (kept.output_dir / "data").glob(pattern)
    cut(file)
    with pytest.raises(ValueError, match=r"eval is damaged, \w+.*run notebooks/02"):
        load_prepared(kept, "eval")
    monkeypatch.setattr(splits, "stored_choice", lambda profile: {"train": [[0, 1]], "eval": [[2, 3, 4, 5, 6]]})
    dataset, origin = load_prepared(kept, "eval")
    assert "eval is damaged" in origin and len(dataset) == 1


def test_damaged_pages_are_named_and_fetched_again(kept, capsys):
    [folder] = (kept.output_dir / "data").glob("pages-*")
    files = sorted(folder.glob("*.png"))
    whole, pages = {file.name: file.read_bytes() for file in files}, len(PageStore(folder).fingerprints)
    cut(files[3])
    files[5].unlink()
    index = folder / "index.jsonl"
    lines = index.read_text().split("\n")
    index.write_text("\n".join([*lines[:9], lines[9][:12], *lines[10:]]))
    capsys.readouterr()
    store = PageStore(folder)
    said = capsys.readouterr().out
    assert f"2 page files of {folder.name} are damaged or gone, {files[3].name} first" in said
    assert int(files[3].stem) not in store.fingerprints
    assert len(store.fingerprints) == pages - 3, "the page of the damaged line does not count either"
    (kept.output_dir / "data" / "made_from.json").unlink()
    prepare(kept)
    assert {file.name: file.read_bytes() for file in folder.glob("*.png")} == whole


def test_a_damaged_source_file_is_named(source, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    opened = open_source(str(tmp_path / "source"), "en")
    file = tmp_path / "source" / "en" / opened.shards[0].rsplit("/", 1)[-1]
    content = bytearray(file.read_bytes())
    content[1000:60000] = bytes(59000)  # in the middle: the footer at the end is whole
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file.name} cannot be read to its end .*delete it, fetch it again"):
        list(opened.read_rows([group.first_row for group in opened.groups], ["image"]))


def shorten(file):
    file.write_bytes(file.read_bytes()[:-2])  # a note ends with a new line


@pytest.mark.parametrize("damage", [cut, shorten, Path.unlink])
@pytest.mark.parametrize("name", ["en/train-00001-of-00002.parquet", "README.md", "made_from.json"])
def test_a_damaged_generated_source_is_drawn_anew(source, tmp_path, monkeypatch, capsys, name, damage):
    from tiny_vdr import corpus

    profile = dataclasses.replace(load_profile("tiny"), corpus={"seed": 0, "train_families": 20, "eval_families": 85})
    folder = profile.output_dir / f"source-v{corpus.VERSION}"
    shutil.copytree(source, folder)
    write_stamp(folder, {"version": corpus.VERSION, **profile.corpus, "files": file_sizes(folder)})
    monkeypatch.setattr(corpus, "plan_rows", lambda *given: (_ for _ in ()).throw(InterruptedError("drawn anew")))
    assert source_path(profile) == str(folder)
    damage(folder / name)
    with pytest.raises(InterruptedError, match="drawn anew"):
        source_path(profile)
    assert capsys.readouterr().out == f"{folder.name} is damaged or was made with other settings: it is made anew\n"


# results


def test_damaged_results_are_named_and_left_out(own, capsys):
    evaluation.save_results(own, "truncation", {"base": {"256": 0.6}})
    cut(own.output_dir / "results" / "truncation.json")
    assert evaluation.load_results(own, "truncation") is None
    assert "results/truncation.json is damaged and left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_rows": 9}, "train_rows: 12 there, 9 asked for"),
        ({"max_pixels": 96 * 96}, "pixels.largest: 40000 there, 9216 asked for"),
        ({"model_name": "another/base"}, "model.name: assets/tiny-base there, another/base asked for"),
        ({"finetuned_name": "mine/tuned"}, "another tuned model"),
    ],
    ids=str,
)
def test_results_of_other_settings_are_left_out(own, capsys, change, said):
    evaluation.save_results(own, "evaluation", {"finetuned": {"ndcg@10": 0.9}})
    assert evaluation.load_results(own, "evaluation")["finetuned"] == {"ndcg@10": 0.9}
    assert evaluation.load_results(dataclasses.replace(own, **change), "evaluation") is None
    printed = capsys.readouterr().out
    assert printed.startswith("results/evaluation.json was measured with other settings (")
    assert said in printed


def test_results_of_the_model_before_this_one_are_left_out(own, capsys):
    folder = save_model(own, model_settings(own))
    evaluation.save_results(own, "evaluation", {"finetuned": {}})
    assert evaluation.load_results(own, "evaluation")
    save_file({"weight": torch.zeros(100)}, folder / "model.safetensors")  # trained again, with the same settings
    assert evaluation.load_results(own, "evaluation") is None
    assert "another tuned model" in capsys.readouterr().out


def test_a_note_that_cannot_be_read_is_no_note(tmp_path):
    write_stamp(tmp_path, {"rows": 3})
    assert json.loads((tmp_path / "made_from.json").read_text()) == {"rows": 3}
    cut(tmp_path / "made_from.json")
    assert read_stamp(tmp_path) is None
