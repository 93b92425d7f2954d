"""The twenty listed models: complete and honest facts, no code without the switch, and a tiny twin
of every native family.
"""

import json
import math
import re

import model_twins
import pytest
import torch
import transformers
from cells import definitions
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from tiny_vdr.pages import draw_page
from tiny_vdr.sheet import Page
from tools.registry import DOCS, as_markdown, models, write_docs
from vdr_helpers.published import published, read_asset

pytestmark = pytest.mark.slow

TWIN, REMOTE = "proven on a twin", "needs remote code (not provable offline)"
CODE = "llamaindex/vdr-2b-multi-v1"
RESEARCH = "nvidia/omni-embed-nemotron-3b"
NATIVE = [entry for entry in models() if entry.status == TWIN]


# Appendix a3's own way to load a listed model, and the table that it reads
A3 = definitions("a3", "tables", "listed", "RISK", "load_listed_model")
load_listed_model, listed = A3["load_listed_model"], A3["listed"]


@pytest.fixture
def loads(monkeypatch):
    """What ``SentenceTransformer`` was asked for; nothing is loaded."""
    calls = []
    asked = {
        "SentenceTransformer": lambda *arguments, **options: calls.append((arguments, options))
    }
    monkeypatch.setitem(
        load_listed_model.__globals__, "SentenceTransformer", asked["SentenceTransformer"]
    )
    return calls


# the facts


def test_all_twenty_are_listed_once_in_the_published_order_with_the_published_scores():
    assert len(models()) == 20
    listed = [
        {"model": entry.model, "parameters": entry.parameters, "ndcg_at_10": entry.ndcg_at_10}
        for entry in models()
    ]
    assert listed == published()["models"]
    assert (
        len({row["model"] for row in read_asset("models.json")["models"]})
        == len(read_asset("models.json")["models"])
        == 20
    )


def test_no_figure_stands_in_both_files():
    """A score that was written twice could differ."""
    assert all(
        "ndcg_at_10" not in row and "parameters" not in row
        for row in read_asset("models.json")["models"]
    )


def test_every_entry_is_complete():
    sources, families = (
        read_asset("models.json")["revision_sources"],
        read_asset("models.json")["families"],
    )
    for entry in models():
        assert (
            entry.licence and entry.notes and entry.dimension in (768, 1024, 1536, 2048, 3584, 4096)
        ), entry.model
        assert entry.family is None or entry.family in families, entry.model
        assert (entry.revision is None) == (entry.revision_source is None), entry.model
        if entry.revision is None:
            assert "not pinned" in entry.notes.lower() or "No commit" in entry.notes, entry.model
        else:
            assert entry.revision_source in sources
            assert re.fullmatch(
                r"[0-9a-f]{40}" if entry.revision_source != "pull request" else r"refs/pr/\d+",
                entry.revision,
            )
    assert [entry.model for entry in models() if entry.research_only] == [RESEARCH]


def test_the_status_is_what_was_tried():
    """Remote code is never called proven, and what is called proven has a twin among the tests
    below.
    """
    for entry in models():
        assert entry.status in (TWIN, REMOTE) or entry.status.startswith("not loadable: ")
        assert (entry.status == REMOTE) == entry.needs_remote_code
        if entry.status == TWIN:
            assert entry.family in model_twins.FAMILIES
    assert (
        {entry.family for entry in models() if entry.family}
        == set(model_twins.FAMILIES)
        == set(read_asset("models.json")["families"])
    )


def test_two_files_with_different_models_are_an_error(monkeypatch):
    fewer = {"models": published()["models"][1:]}
    monkeypatch.setattr("tools.registry.published", lambda: fewer)
    with pytest.raises(
        ValueError, match="list different models: tomaarsen/Qwen3-VL-Embedding-2B-vdr"
    ):
        models()


def test_the_docs_are_the_json():
    assert as_markdown() in DOCS.read_text(encoding="utf-8"), "run: python -m tools.registry"


def test_the_docs_are_written_between_their_markers(tmp_path):
    page = tmp_path / "models.md"
    page.write_text("before\n<!-- registry: start -->\nold\n<!-- registry: end -->\nafter\n")
    write_docs(page)
    assert (
        page.read_text()
        == f"before\n<!-- registry: start -->\n{as_markdown()}<!-- registry: end -->\nafter\n"
    )
    page.write_text("no markers")
    with pytest.raises(ValueError, match=r"models.md has no lines '<!-- registry: start -->'"):
        write_docs(page)


def test_the_docs_say_that_the_evaluation_set_is_not_neutral():
    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    assert "rows 10,000 to 10,299 of the source *training* set" in text
    assert "several of the listed models were trained on that set" in text
    assert sum(entry.trained_on_source is not None for entry in models()) == 6


# finding and the switch


def test_the_table_of_appendix_3_holds_all_that_is_known():
    assert list(listed.index) == [entry.model for entry in models()]
    for entry in models():
        row = listed.loc[entry.model]
        assert (row.kwargs, row.revision, row.ndcg_at_10) == (
            entry.kwargs,
            entry.revision,
            entry.ndcg_at_10,
        )
        assert (bool(row.needs_remote_code), bool(row.research_only)) == (
            entry.needs_remote_code,
            entry.research_only,
        )


def test_an_unknown_name_is_named(loads):
    with pytest.raises(KeyError, match="Qwen3-VL-Embeding-2B"):
        load_listed_model("Qwen3-VL-Embeding-2B")


@pytest.mark.parametrize("name", [entry.model for entry in models() if entry.needs_remote_code])
def test_code_from_a_repository_never_runs_without_the_switch(name, loads):
    with pytest.raises(PermissionError) as error:
        load_listed_model(name)
    assert not loads
    for words in (
        "run with your rights",
        "read your files and tokens",
        f"huggingface.co/{name}",
        "allow_remote_code=True",
    ):
        assert words in str(error.value)


def test_with_the_switch_a_commit_must_say_which_code(loads):
    load_listed_model(CODE, allow_remote_code=True)
    (source,), options = loads[0]
    assert (source, options["trust_remote_code"], options["revision"]) == (
        CODE,
        True,
        listed.loc[CODE].revision,
    )
    unpinned = "nvidia/llama-nemotron-embed-vl-1b-v2"
    for revision in ({}, {"revision": "main"}):
        with pytest.raises(PermissionError, match="revision=<the 40 characters of the commit"):
            load_listed_model(unpinned, allow_remote_code=True, **revision)
    load_listed_model(unpinned, allow_remote_code=True, revision="a" * 40)
    assert loads[1][1]["revision"] == "a" * 40


def test_a_model_that_needs_no_code_gets_none_even_with_the_switch(loads):
    load_listed_model("royokong/e5-v", allow_remote_code=True)
    assert not loads[0][1]["trust_remote_code"]
    with pytest.raises(TypeError, match="trust_remote_code"):
        load_listed_model("royokong/e5-v", trust_remote_code=True)


def test_pickled_weights_are_refused_and_the_reader_may_override_settings(loads):
    load_listed_model("tomaarsen/Qwen3-VL-Embedding-2B-vdr", model_kwargs={"dtype": "float32"})
    load_listed_model("tomaarsen/Qwen3-VL-Embedding-2B-vdr", truncate_dim=512)
    assert loads[0][1]["model_kwargs"] == {"use_safetensors": True, "dtype": "float32"}
    assert [options["truncate_dim"] for _, options in loads] == [2048, 512]


def test_a_research_licence_prints_a_line(loads, capsys):
    load_listed_model(RESEARCH, allow_remote_code=True)
    assert "non-commercial research only" in capsys.readouterr().out
    load_listed_model("royokong/e5-v")
    assert capsys.readouterr().out == ""


# twins


@pytest.fixture(scope="module")
def small_set():
    """``(queries, corpus, relevant_docs)``: three queries, six pages."""
    names, years = ("Alder Energy", "Basalt Foods", "Cedar Health"), (2014, 2019)
    corpus = {
        f"{name} {year}": draw_page(
            Page(name, ("Revenue", "Staff", "Rent"), year, "Oslo", layout, year)
        )[0]
        for name, layout in zip(names, ("report", "slide", "invoice"), strict=True)
        for year in years
    }
    queries = {f"q{i}": f"What was the revenue of {name} in 2014?" for i, name in enumerate(names)}
    return queries, corpus, {f"q{i}": {f"{name} 2014"} for i, name in enumerate(names)}


def score(model, small_set):
    queries, corpus, relevant_docs = small_set
    return InformationRetrievalEvaluator(queries, corpus, relevant_docs, batch_size=4, name="twin")(
        model
    )["twin_cosine_ndcg@10"]


def name_of(family):
    return next(
        entry.model
        for entry in models()
        if entry.family == family and not (family != "qwen2_vl" and entry.needs_remote_code)
    )


@pytest.mark.parametrize("family", model_twins.FAMILIES)
def test_a_twin_of_every_family_goes_through_the_loader_and_the_evaluator(
    family, small_set, tmp_path, processor
):
    folder = model_twins.save_twin(family, tmp_path)
    model = load_listed_model(
        name_of(family), stand_in=str(folder), device="cpu", truncate_dim=None
    )
    assert isinstance(
        model[0].model, getattr(transformers, read_asset("models.json")["families"][family])
    )
    queries, corpus, _ = small_set
    texts = model.encode_query(list(queries.values()), convert_to_tensor=True)
    pages = model.encode_document(list(corpus.values()), convert_to_tensor=True)
    assert texts.shape == (3, model.get_embedding_dimension()) and pages.shape == (
        6,
        model.get_embedding_dimension(),
    )
    assert torch.isfinite(texts).all() and torch.isfinite(pages).all()
    # it reads what it is given
    assert torch.pdist(texts).min() > 1e-4 and torch.pdist(pages).min() > 1e-5
    ndcg = score(model, small_set)
    places = (
        model.similarity(texts, pages)
        > model.similarity(texts, pages)[range(3), [0, 2, 4]][:, None]
    ).sum(dim=1) + 1
    assert ndcg == pytest.approx(
        sum(1 / math.log2(1 + place) for place in places.tolist()) / 3, abs=1e-6
    )


def test_a_broken_twin_is_seen(small_set, tmp_path):
    """The check above can fail: weights of the wrong shape do not load, and a pickle is not
    read.
    """
    folder = model_twins.save_twin("clip", tmp_path)
    weights = next(folder.rglob("*.safetensors"))
    torch.save({}, weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        load_listed_model(
            next(name for name in listed.index if name.endswith("clip-ViT-L-14")),
            stand_in=str(folder),
            device="cpu",
        )


def test_code_in_a_local_folder_needs_the_switch_too(tmp_path):
    folder = model_twins.save_twin("qwen2_vl", tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "custom_st.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ValueError, match=r"custom_st\.Transformer"):
        load_listed_model(CODE, stand_in=str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_an_adapter_on_a_twin_changes_its_vectors(small_set, tmp_path):
    """The nomic models are adapters on Qwen2.5-VL."""
    peft = pytest.importorskip("peft", reason="adapters need the package peft")
    plain = model_twins.build_twin("qwen2_5_vl", tmp_path / "parts")
    before = plain.encode_query(["Rent"], convert_to_tensor=True)
    settings = peft.LoraConfig(
        r=2,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
        task_type="FEATURE_EXTRACTION",
    )
    plain.add_adapter(settings)
    plain.save_pretrained(str(tmp_path / "adapter"), create_model_card=False)
    assert (tmp_path / "adapter" / "adapter_config.json").exists() and not (
        tmp_path / "adapter" / "model.safetensors"
    ).exists()
    model = load_listed_model(
        next(name for name in listed.index if name.endswith("nomic-embed-multimodal-3b")),
        stand_in=str(tmp_path / "adapter"),
        device="cpu",
    )
    assert (model.encode_query(["Rent"], convert_to_tensor=True) - before).abs().max() > 1e-4
    assert 0 <= score(model, small_set) <= 1
