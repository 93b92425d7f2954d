"""Tuned models: where notebook 03 keeps them, where later notebooks find them, and what they were
made from.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType

from vdr_helpers.cache import (
    damage,
    make_folder,
    read_manifest,
    replace_folder,
    settings_key,
    stage_folder,
)
from vdr_helpers.model_card import fill
from vdr_helpers.profiles import PROFILES, Profile
from vdr_helpers.splits import resolve_revision, split_settings, splits_folder

# The profile's settings that decide what a training run ends in.
TRAINING = (
    "matryoshka_dims",
    "per_device_train_batch_size",
    "num_train_epochs",
    "learning_rate",
    "warmup_steps",
    "bf16",
    "fp16",
    "adapters",
    "seed",
)


def use_matrix_product(model) -> bool:
    """Let the patch convolution of a Qwen-VL ``SentenceTransformer`` run as one matrix product;
    returns whether it has such a layer.

    Each patch meets a kernel of its own size, so that every output is one dot product: same
    weights, same result up to rounding, faster on CPUs (appendix a1). A convolution that an adapter
    is wrapped around is left to it, now and if it is wrapped later.
    """
    from torch.nn import Conv3d, functional

    visual = getattr(getattr(model[0], "auto_model", None), "visual", None)
    layer = getattr(visual, "patch_embed", None)
    convolution = getattr(layer, "proj", None)
    if type(convolution) is not Conv3d or tuple(convolution.kernel_size) != tuple(
        convolution.stride
    ):
        return False
    by_convolution = type(layer).forward

    def forward(self, pixel_values):
        if type(self.proj) is not Conv3d:
            return by_convolution(self, pixel_values)
        # (out, channels, frames, 16, 16); pixel_values: (patches, channels x frames x 256)
        weight = self.proj.weight
        return functional.linear(
            pixel_values.to(weight.dtype), weight.reshape(weight.shape[0], -1), self.proj.bias
        )

    # bound, so that a deep copy of the model uses its own weights
    layer.forward = MethodType(forward, layer)
    return True


def model_key(source: str | Path) -> str:
    """16 digits for a saved model's weights and settings; read in pieces, whatever the size of the
    weights.

    ``source``: a folder, or the id of a model on the hub, which counts by its name.
    """
    folder = Path(source)
    if not folder.is_dir():
        return hashlib.sha256(str(source).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_part = path.suffix in (".safetensors", ".json", ".jinja") and "checkpoint" not in name
        if is_part and path.name not in ("manifest.json", "pretrain_log.json"):
            with path.open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def weights_hash(model, leave_out: str | None = None) -> str:
    """16 digits for the names, dtypes, shapes and values of a model's weights as they are in
    memory.

    ``leave_out``: weights whose name contains this do not count, such as LoRA's, which start at
    random.
    """
    import torch

    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        if leave_out is None or leave_out not in name:
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def base_settings(profile: Profile) -> dict:
    """Which base: a hub id and its revision, or a name and a key of the weights in its folder."""
    if profile.random_weights:
        return {"name": profile.random_weights, "seed": profile.seed}
    if Path(profile.base_model).is_dir():
        return {"name": profile.model_name, "weights": model_key(profile.base_model)}
    return {"name": profile.model_name, "revision": profile.model_revision}


def tuned_settings(profile: Profile) -> dict:
    """What decides a tuned model: the base, the splits, and the profile's training settings."""
    training = {name: getattr(profile, name) for name in TRAINING}
    training["dtype"] = profile.model_kwargs["dtype"]
    return {"base": base_settings(profile), "splits": split_settings(profile), "training": training}


def tuned_folder(profile: Profile) -> Path:
    """Where notebook 03 keeps the tuned model of these settings, whether it is there or not."""
    return stage_folder(profile.output_dir, "tuned", tuned_settings(profile))


def save_tuned(profile: Profile, model, trainer) -> Path:
    """Save notebook 03's tuned model, whole or not at all, and remove its checkpoints; returns the
    folder.

    The manifest says what it was made from, and what the trainer really did. The library writes its
    model card, ``README.md`` with pictures in ``assets/``, beside the weights; notebook 06
    completes it. A model that was trained before with the same profile settings is replaced.
    """

    def write(folder: Path) -> None:
        fill(model, trainer, notes["model"], notes["dataset"])
        model.save_pretrained(str(folder))

    log_history = trainer.state.log_history
    notes = {
        "trained": training_facts(profile, model, trainer),
        "train_seconds": train_seconds(log_history),
        "log_history": log_history,
        "model": resolve_revision(profile, "model"),
    }
    manifest = read_manifest(splits_folder(profile)) or {}
    notes["dataset"] = manifest.get("dataset") or resolve_revision(profile, "dataset")
    folder = replace_folder(tuned_folder(profile), tuned_settings(profile), write, notes)
    checkpoints = Path(trainer.args.output_dir)
    # the run is over: the next one starts from the base again
    if checkpoints.name.startswith("checkpoints-"):
        shutil.rmtree(checkpoints, ignore_errors=True)
    return folder


def train_seconds(log_history: list[dict]) -> float | None:
    """Seconds that the trainer reports at its end, evaluations included; ``None`` where it did not
    end.
    """
    ends = [entry["train_runtime"] for entry in log_history if "train_runtime" in entry]
    return ends[-1] if ends else None


def training_facts(profile: Profile, model, trainer) -> dict[str, str]:
    """What was trained and how, in words, read from the trainer: for the model card."""
    args, loss, rows = trainer.args, trainer.loss, trainer.train_dataset
    negatives = [name for name in rows.column_names if name.startswith("negative_")]
    loss_name = type(loss).__name__
    if hasattr(loss, "matryoshka_dims"):
        dims = ", ".join(map(str, sorted(loss.matryoshka_dims, reverse=True)))
        loss_name += f" over {type(loss.loss).__name__} at {dims} dimensions"
    autocast = " under bf16 autocast" if args.bf16 else " under fp16 autocast" if args.fp16 else ""
    return {
        "rows": f"{len(rows):,} pairs of query and page, hard negatives per pair: {len(negatives)}",
        "largest page": f"{profile.max_pixels:,} pixels",
        "loss": loss_name,
        "trained": "LoRA, later added to the weights" if profile.adapters else "all weights",
        "number format": str(model.dtype).removeprefix("torch.") + autocast,
        "learning rate": f"{args.learning_rate:g}",
        "epochs": f"{args.num_train_epochs:g}",
        "rows per step": str(args.train_batch_size),
        "seed": str(args.seed),
        "not the published setting": "; ".join(profile.deviations) or "none: as published",
    }


def merge_adapters(model, source: str, profile: Profile):
    """The model with LoRA's matrices added to the base's weights; one without adapters comes back
    as it is.

    ``source``: the folder or hub id that it was loaded from. Saved unmerged, adapters name the
    place of their base on this machine, and whoever loads them needs that base. For a moment both
    models are in memory.
    """
    from sentence_transformers import SentenceTransformer

    if not getattr(model[0].auto_model, "peft_config", None):
        return model
    from peft import PeftModel

    merged = SentenceTransformer(
        profile.base_model,
        revision=profile.model_revision,
        truncate_dim=model.truncate_dim,
        model_kwargs=profile.model_kwargs,
        processor_kwargs=profile.processor_kwargs,
    )
    PeftModel.from_pretrained(merged[0].auto_model, source).merge_and_unload()
    merged._model_card_text = model._model_card_text  # the tuned model's card, not the base's
    return merged


def folder_to_publish(profile: Profile, tuned: str) -> Path:
    """The folder that notebook 06 publishes, empty but for the pages that the card of the tuned
    model shows; nothing of an earlier model stays.

    ``tuned``: the folder or hub id of the tuned model; one on the hub gives no pages.
    """
    folder = profile.output_dir / "published"
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    pictures = Path(tuned) / "assets"
    if pictures.is_dir():
        shutil.copytree(pictures, folder / "assets")
    return folder


@contextmanager
def report_refusal(folder: Path) -> Iterator[None]:
    """Print why the hub did not take the model, and that it is safe in ``folder``, instead of
    stopping the notebook.

    Every error counts: the hub, the network and the token have errors of their own.
    """
    try:
        yield
    except Exception as error:
        print(f"not published ({type(error).__name__}): {error}")
        print(f"The model is safe in {folder.parent.name}/{folder.name}, in your outputs folder.")


def is_named(profile: Profile) -> bool:
    """Whether ``VDR_FINETUNED`` names the tuned model."""
    usual = PROFILES[profile.name]
    named = (profile.finetuned_name, profile.finetuned_revision)
    return named != (usual.finetuned_name, usual.finetuned_revision)


def finetuned_model(profile: Profile) -> tuple[str, str]:
    """``(path or hub id, where it came from)`` of the tuned model that the later notebooks take.

    The one that ``VDR_FINETUNED`` names, else your own from notebook 03 with these settings, else
    the shipped one. Raises ``ValueError`` that says what is damaged, or that the shipped one has
    another base.
    """
    if is_named(profile):
        return profile.finetuned_model, "the one that VDR_FINETUNED names"
    own = tuned_folder(profile)
    if not own.exists():
        return profile.finetuned_model, origin_of_shipped(profile)
    if problem := damage(own):
        raise ValueError(
            f"the tuned model in {own.name} cannot be used ({problem}): delete the folder and run notebook 03 again"
        )
    return str(own), "your own, from notebook 03"


def origin_of_shipped(profile: Profile) -> str:
    """Where the tuned model is from for a reader who has not run notebook 03, and whether it was
    made with other settings.
    """
    origin = "the shipped one (you have not run notebook 03)"
    manifest = read_manifest(profile.finetuned_model)
    if manifest is None:  # a model on the hub has none
        if profile.model_name == PROFILES[profile.name].model_name:
            return origin
        return f"{origin}, trained from {PROFILES[profile.name].model_name}, not from your base"
    made_from, asked = manifest["settings"], tuned_settings(profile)
    if settings_key(made_from["base"]) != settings_key(asked["base"]):
        raise ValueError(
            f"the shipped tuned model has another base ({made_from['base']['name']}) than yours ({asked['base']['name']}): "
            "run notebook 03 first"
        )
    if settings_key(made_from["splits"]) != settings_key(asked["splits"]):
        return f"{origin}, trained on other data: pages of this eval split may be among its training pages"
    return origin
