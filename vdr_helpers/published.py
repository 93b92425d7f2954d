"""The published experiment's figures and this project's own stored measurements, two things that are never mixed.

``assets/published.json`` (its ``source`` field names the model card) and ``assets/measured/``.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vdr_helpers.profiles import assets_folder


def read_asset(name: str) -> dict:
    """A JSON file under ``assets/``."""
    return json.loads((assets_folder() / name).read_text(encoding="utf-8"))


@cache
def published() -> dict:
    """All published figures: ``models`` (20), ``dimensions`` (7), ``metrics``, ``training_log``, ``hyperparameters``, ``statistics``."""
    return read_asset("published.json")


@cache
def registry() -> dict:
    """``assets/models.json`` as it is: ``source``, ``revision_sources``, ``prompts``, ``families`` and ``models``."""
    return read_asset("models.json")


@cache
def measured(name: str) -> dict:
    """What this project measured once and keeps: ``assets/measured/<name>.json``; its ``what`` says on which profile and seeds.

    ``python -m benchmarks.choices`` and ``python -m benchmarks.tiny_seeds`` write those of their names. Scores are NDCG@10 by dimension;
    JSON makes the dimensions strings. Raises ``ValueError`` for another name.
    """
    if name not in (known := sorted(file.stem for file in (assets_folder() / "measured").glob("*.json"))):
        raise ValueError(f"nothing was measured under {name!r}: there are {', '.join(known)}")
    return read_asset(f"measured/{name}.json")


def parameters_in_billions(text: str) -> float:
    """``"428M"`` -> 0.428, ``"2.1B"`` -> 2.1. Raises ``ValueError`` for another unit."""
    scale = {"M": 1e-3, "B": 1.0}.get(text[-1:])
    if scale is None:
        raise ValueError(f"expected a number of parameters such as '428M' or '2.1B', got {text!r}")
    return float(text[:-1]) * scale


def citations() -> str:
    """The three works that the published card cites, as a BibTeX block (``assets/citations.bib``)."""
    return "```bibtex\n" + (assets_folder() / "citations.bib").read_text(encoding="utf-8").strip() + "\n```"


COMMIT = re.compile(r"[0-9a-f]{40}")
REMOTE_CODE = """{model} does not load without Python code from its own repository, and that switch is off.
The code would run here with your rights: it can read your files and tokens and use your network. This course has not checked it.
Read the .py files at https://huggingface.co/{model}/tree/{revision} first. If you then trust them, turn the switch on:
    load_listed_model("{model}", allow_remote_code=True)"""
UNPINNED_CODE = """no commit of {model} is pinned, so its code could change between your reading it and its running.
Open the repository's history on the hub, read the .py files at one commit, and name that commit (40 characters):
    load_listed_model("{model}", allow_remote_code=True, revision="...")"""


@dataclass(frozen=True)
class ListedModel:
    """One row of the published table. ``None`` stands for what is not known; ``notes`` says what else there is to know."""

    model: str  # hub id
    parameters: str  # published, as the card prints it: "2.1B"
    ndcg_at_10: float  # published, not measured by this project
    revision: str | None  # what is loaded from the hub: a commit, or the name of a pull request
    revision_source: str | None  # a key of "revision_sources" in models.json
    dimension: int  # numbers per embedding
    kwargs: dict  # for SentenceTransformer(...): what the published row needs beyond the saved settings
    licence: str
    research_only: bool
    needs_remote_code: bool
    family: str | None  # a key of "families" in models.json: the transformers classes under it; None: its own classes
    trained_on_source: str | None  # how much of the eval set's source it was trained on, or who says so; None: not known
    status: str  # "proven on a twin", "needs remote code (not provable offline)" or "not loadable: why"
    notes: str


def models() -> list[ListedModel]:
    """The twenty models in the order of the published table. Raises ``ValueError`` if the two files list different ones."""
    rows, facts = published()["models"], {row["model"]: row for row in registry()["models"]}
    different = {row["model"] for row in rows} ^ set(facts)
    if different:
        raise ValueError(f"assets/models.json and assets/published.json list different models: {', '.join(sorted(different))}")
    return [ListedModel(**(facts[row["model"]] | row)) for row in rows]


def find(name: str) -> ListedModel:
    """The listed model called ``name``: its hub id, or the part after the slash, in any case. Raises ``ValueError`` with close names."""
    known = {key.lower(): entry for entry in models() for key in (entry.model, entry.model.split("/")[1])}
    if name.lower() in known:
        return known[name.lower()]
    close = dict.fromkeys(known[key].model for key in difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.4))
    hint = f"Did you mean {' or '.join(close)}?" if close else "vdr_helpers.published.models() lists them."
    raise ValueError(f"{name!r} is none of the twenty models of the published table. {hint}")


def load_listed_model(name: str, allow_remote_code: bool = False, model_name: str | None = None, **kwargs):
    """The listed model ``name`` as a ``SentenceTransformer``, at its pinned revision and from safetensors files only.

    ``model_name`` puts a local folder or another hub id in its place, with the same settings. ``kwargs`` go to ``SentenceTransformer`` and
    win over the registry's. Raises ``ValueError`` for an unknown name, and ``PermissionError`` where code from a hub repository is needed
    and ``allow_remote_code`` is off, or on without a commit that says which code.
    """
    from sentence_transformers import SentenceTransformer

    entry = find(name)
    if "trust_remote_code" in kwargs:
        raise ValueError("say allow_remote_code=True instead of trust_remote_code: it is refused where it is not needed")
    source = model_name or entry.model
    if source == entry.model and entry.revision:
        kwargs.setdefault("revision", entry.revision)
    if entry.needs_remote_code and not Path(source).is_dir():
        if not allow_remote_code:
            raise PermissionError(REMOTE_CODE.format(model=entry.model, revision=kwargs.get("revision", "main")))
        if not COMMIT.fullmatch(kwargs.get("revision") or ""):
            raise PermissionError(UNPINNED_CODE.format(model=entry.model))
    if entry.research_only:
        print(f"Licence of {entry.model}: {entry.licence}. Do not use it, or what you make with it, for anything else.")
    settings = entry.kwargs | kwargs
    settings["model_kwargs"] = {"use_safetensors": True} | settings.get("model_kwargs", {})
    return SentenceTransformer(source, trust_remote_code=allow_remote_code and entry.needs_remote_code, **settings)
