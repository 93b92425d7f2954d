"""A query that somebody types is text wherever it is typed: what is no text is refused, and a path
or an address is never opened. ``test_serve.py`` asks the service the same.
"""

import pytest
import torch
from cells import definitions
from sentence_transformers import SentenceTransformer
from test_scripts import call, part
from test_serve import GOLDEN, PAGES, TUNED, save_index

from vdr_helpers import evaluation, figures
from vdr_helpers.profiles import load_profile

NO_TEXT = [None, "", " \n", 7, b"Which pump?", ["Which pump?"]]
VECTORS = torch.tensor([page["vector"] for page in GOLDEN["pages"]])


@pytest.fixture(scope="module")
def model():
    return SentenceTransformer(TUNED)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return save_index(tmp_path_factory.mktemp("typed") / "index", TUNED)


def scores_of_00(query, model, index, monkeypatch):
    """What notebook 00's search gives to its figure: a score for every page."""
    shown = []
    monkeypatch.setattr(figures, "ranking", lambda scores, *rest, **settings: shown.append(scores))
    given = {"model": model, "page_embeddings": VECTORS, "pages": list(PAGES), "known": {}}
    definitions("00", "search", **given)["search"](query)
    return sorted(shown[0].tolist(), reverse=True)


def scores_of_06(query, model, index, monkeypatch):
    hits = definitions("06", "search", user_model=model, index=VECTORS)["search"](query)
    return [hit["score"] for hit in hits]


def scores_of_script(query, model, index, monkeypatch):
    return [score for score, _ in part("search", "search")(query, index, by="pages")]


def scores_of_answer(query, model, index, monkeypatch):
    settings, pages = part("answer", "read_index")(index)
    return sorted(part("answer", "page_scores")(query, index, settings, list(pages)), reverse=True)


WAYS = {"00": scores_of_00, "06": scores_of_06, "search.py": scores_of_script}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("query", NO_TEXT, ids=repr)
def test_what_is_no_text_is_refused(way, query, model, index, monkeypatch):
    with pytest.raises(ValueError, match="expected a question in words, found"):
        WAYS[way](query, model, index, monkeypatch)


@pytest.mark.parametrize("way", [*WAYS, "answer.py"])
def test_a_path_and_an_address_are_text_and_never_opened(way, model, index, monkeypatch):
    path, nowhere = str(index / "pages" / "0.png"), "http://127.0.0.1:9/page.png"
    as_image = model.similarity(model.encode_query(path), VECTORS).max()
    assert as_image > 0.99  # what is guarded against: the page would find itself
    for query in (path, nowhere):
        as_text = model.similarity(model.encode_query({"text": query}), VECTORS)[0]
        best = as_text.sort(descending=True).values.tolist()
        scores = (WAYS | {"answer.py": scores_of_answer})[way]
        assert scores(query, model, index, monkeypatch) == pytest.approx(best, abs=1e-5)
        assert max(best) < 0.99


def test_a_token_of_the_model_in_a_question_is_named(index):
    done = call("search", "pumps <|image_pad|>", "--index", index, "--by", "pages", folder=index)
    assert done.status != 0 and "<|image_pad|> is a token of the model, not text" in done.said


@pytest.mark.parametrize("query", [*NO_TEXT, "http://127.0.0.1:9/page.png"], ids=repr)
def test_embeddings_are_kept_of_texts_only(query, model):
    with pytest.raises(ValueError, match=r"row 1 has an (empty query|address or a file)"):
        evaluation.embed_once(model, ["Which pump?", query], [], load_profile("tiny"))


@pytest.mark.parametrize("query", [*NO_TEXT, "http://127.0.0.1:9/page.png"], ids=repr)
def test_the_searches_of_notebook_08_refuse_what_is_no_text(query, model):
    given = {"corpus": [], "page_texts": [], "profile": load_profile("tiny")}
    given |= definitions("08", "text_scores", "fused")
    with pytest.raises(ValueError, match=r"row 0 has an (empty query|address or a file)"):
        definitions("08", "searches", **given)["searches"](model, [query])
