"""Another model, another dataset or fewer rows for a profile, by environment variables; what that changes, and what was really used.

``VDR_MODEL``, ``VDR_FINETUNED`` and ``VDR_DATASET`` hold a hub id, a hub id with ``@revision``, or a local folder.
``VDR_ROWS=24:6`` keeps 24 training rows and 6 eval rows, to try a profile before its long run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

VARIABLES = {"VDR_MODEL": "model", "VDR_FINETUNED": "finetuned", "VDR_DATASET": "dataset"}
ROWS_VARIABLE = "VDR_ROWS"
COMPARED = {  # field: the words before its number, the number's format and the words after, as Profile.deviations prints it
    "train_rows": ("", ",", " training rows"),
    "eval_rows": ("", ",", " eval rows"),
    "max_pixels": ("", ",", " pixels per page"),
    "per_device_train_batch_size": ("batch ", "", ""),
    "num_train_epochs": ("", "g", " epochs"),
    "learning_rate": ("learning rate ", "g", ""),
}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_folder(text: str, bases: tuple[Path, ...]) -> Path | None:
    """The folder that ``text`` names, absolute: as it is, or seen from one of ``bases``; ``None`` if there is none."""
    for base in bases:
        folder = base / Path(text).expanduser()
        if folder.is_dir():
            return folder.resolve()
    return None


def read_source(variable: str, text: str, bases: tuple[Path, ...]) -> tuple[str, str | None, str | None]:
    """``(name, revision, folder)`` of one variable; a folder's name has no path in it, so that it can be printed and published.

    Raises ``FileNotFoundError`` for a path that is no folder and ``ValueError`` for what is neither a folder nor a hub id.
    """
    folder = find_folder(text, bases)
    if folder:
        return f"local folder {folder.name}", None, str(folder)
    name, _, revision = text.partition("@")
    if find_folder(name, bases):
        raise ValueError(f"{variable} names a folder with a revision: only a hub id can have one, remove '@{revision}'")
    if text.startswith((".", "/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]", text):
        raise FileNotFoundError(
            f"{variable} is set to a folder that is not there: correct it, or unset it, and restart the kernel"
        )
    if not HUB_ID.fullmatch(name) or "@" in text and not re.fullmatch(r"[\w./-]+", revision):
        raise ValueError(f"{variable} must be a folder, a hub id such as owner/name, or owner/name@revision, not {text!r}")
    return name, revision or None, None


def read_rows(text: str) -> tuple[int, int]:
    """``(train_rows, eval_rows)`` of ``VDR_ROWS``. Raises ``ValueError`` unless it is two positive numbers with a colon between."""
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", text):
        raise ValueError(f"{ROWS_VARIABLE} must be training rows, a colon and eval rows, such as 24:6, not {text!r}")
    train_rows, eval_rows = map(int, text.split(":"))
    return train_rows, eval_rows


def with_overrides(profile, environment: Mapping[str, str], bases: tuple[Path, ...]):
    """``profile`` with what the environment asks for; itself when it asks for nothing.

    ``bases``: the folders that a relative path may start from. ``Profile.deviations`` says what such a change means for the scores.
    Raises ``ValueError`` or ``FileNotFoundError`` for a value that cannot be used.
    """
    changes: dict = {}
    for variable, role in VARIABLES.items():
        if environment.get(variable):
            name, revision, folder = read_source(variable, environment[variable], bases)
            changes |= {f"{role}_name": name, f"{role}_revision": revision, f"{role}_folder": folder}
    if environment.get(ROWS_VARIABLE):
        train_rows, eval_rows = read_rows(environment[ROWS_VARIABLE])
        changes |= {"train_rows": train_rows, "eval_rows": eval_rows, "monitor_rows": min(profile.monitor_rows, eval_rows)}
    return replace(profile, **changes) if changes else profile


def deviations(profile, published) -> tuple[str, ...]:
    """What makes ``profile`` another experiment than ``published`` (the profile ``full`` as it is shipped), a printable phrase each."""
    said = []
    for role in ("model", "dataset"):
        for part in ("name", "revision"):  # another name has revisions of its own
            mine, theirs = getattr(profile, f"{role}_{part}"), getattr(published, f"{role}_{part}")
            if mine != theirs:
                what = role if part == "name" else f"{role} revision"
                said.append(f"{what} {mine or 'default branch'} instead of {theirs or 'default branch'}")
                break
    said += ["LoRA on the language model instead of all weights"] if profile.adapters else []
    weights, autocast = profile.model_kwargs["dtype"], " under float16 autocast" if profile.fp16 else ""
    said += [f"{weights} weights{autocast} instead of bfloat16"] if weights != "bfloat16" or autocast else []
    for name, (before, digits, after) in COMPARED.items():
        mine, theirs = getattr(profile, name), getattr(published, name)
        said += [f"{before}{mine:{digits}}{after} instead of {theirs:{digits}}"] if mine != theirs else []
    return tuple(said)


def hub_revision(name: str, kind: str, revision: str | None) -> str:
    """The commit that a hub id stands for now: 40 hex digits, or a sentence when the hub cannot be asked.

    ``kind``: ``"model"`` or ``"dataset"``. Never raises: a receipt with a gap is better than a run that stops at its end.
    """
    from huggingface_hub import HfApi

    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        return HfApi().repo_info(name, repo_type=kind, revision=revision).sha
    except Exception as error:  # no network, no such repository, offline mode: each library has its own class
        return f"{revision or 'default branch'} (not resolved: {type(error).__name__})"


def resolved_revisions(profile) -> dict[str, dict[str, str]]:
    """``{"model": {"name", "revision"}, "dataset": {...}}`` for the run's receipt ``results/run.json`` (notebook 02 writes it).

    A revision is the full commit on the hub; for a folder of yours it says ``local folder``, for what comes with the course
    ``shipped with the course`` or ``generated by the course``.
    """
    found = {}
    for role in ("model", "dataset"):
        name, revision, folder = (getattr(profile, f"{role}_{part}") for part in ("name", "revision", "folder"))
        if folder:
            where = "local folder"
        elif name.startswith("assets/"):
            where = "shipped with the course"
        elif name == "generated":
            where = "generated by the course"
        else:
            where = hub_revision(name, role, revision)
        found[role] = {"name": name, "revision": where}
    return found
