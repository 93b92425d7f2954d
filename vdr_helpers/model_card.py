"""What notebook 06 writes into a model card: facts from the note beside the tuned model, a licence, names for the hub."""

from __future__ import annotations

import re

from vdr_helpers.profiles import Profile, assets_folder
from vdr_helpers.registry import registry
from vdr_helpers.stamps import read_stamp, used_revisions

TEMPLATE = str(assets_folder() / "model_card.md")  # the text around the facts, for huggingface_hub's ModelCard.from_template
HUB_NAME = re.compile(r"(?!assets/)[\w.-]+/[\w.-]+")


def hub_name(name: str) -> str | None:
    """``name`` if it is one that the hub can know, such as ``owner/model``; ``None`` for a folder and for what comes with the course."""
    return name if HUB_NAME.fullmatch(name) else None


def licence(name: str) -> str | None:
    """A model's licence as the hub spells it: Apache-2.0 for what is shipped, else as ``assets/models.json`` knows it, or ``None``."""
    known = {row["model"]: row["licence"] for row in registry()["models"]}
    stated = "Apache-2.0" if name.startswith("assets/") else known.get(name)
    return stated.lower() if stated in ("Apache-2.0", "MIT") else None


def training_facts(tuned: str, profile: Profile) -> dict[str, str]:
    """What was really trained, from the note beside the tuned model, which today's settings cannot change.

    ``tuned``: its folder or hub id. ``base`` and ``data`` (names) are always there, the rest where a note says it, in a card's order.
    """
    stamp = read_stamp(tuned)
    if not (stamp and stamp.get("training")):  # trained by somebody else: nothing here knows how
        return {
            "base": profile.finetuned_name,
            "base revision": profile.finetuned_revision or "default branch",
            "data": "not known here",
        }
    data, training = stamp["data"], stamp["training"]
    source = data.get("resolved") or {
        "name": data["dataset"]["name"],
        "revision": data["dataset"]["revision"] or "default branch",
    }
    negatives = sum(column.startswith("negative_") for column in training["columns"])
    dims = f" over CachedMultipleNegativesRankingLoss at {', '.join(map(str, profile.matryoshka_dims))} numbers"
    autocast = [name for name in ("bf16", "fp16") if training[name]]
    facts = {
        "base": stamp["model"]["name"],
        "base revision": stamp["model"]["revision"] or used_revisions(profile)["model"]["revision"],
        "data": source["name"],
        "data revision": source["revision"],
        "split": data["split"],
        "rows": f"{training['rows']:,} pairs of query and page, hard negatives per pair: {negatives}",
        "largest page": f"{data['pixels']['largest']:,} pixels",
        "loss": training["loss"] + (dims if training["loss"] == "MatryoshkaLoss" else ""),
        "trained": "LoRA, later added to the weights" if training["adapters"] else "all weights",
        "number format": training["weights"].removeprefix("torch.") + (f" under {autocast[0]} autocast" if autocast else ""),
        "learning rate": f"{training['learning_rate']:g}",
        "epochs": f"{training['num_train_epochs']:g}",
        "rows per step": f"{training['train_batch_size']}",
        "seed": f"{training['seed']}",
    }
    if "deviations" in training:  # as they were on the machine that trained
        facts["not the published setting"] = "; ".join(training["deviations"]) or "none: as published"
    return facts
