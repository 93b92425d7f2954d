"""What lies under ``outputs/``, and what of it the settings of today use: ``python -m tools.outputs
[--remove]``.

Every cached folder is named ``<stage>-<key of its settings>``. One is in use when the profile, as
the environment sets it now, leads to that key, or when it was made from splits that are. What the
profile uses without any variable is kept too. ``--remove`` deletes the others: they cost time to
make again, and nothing else. It keeps checkpoints, from which an interrupted training run goes on,
results and texts of an OCR, which are small and serve several settings, what a running process may
be making, links, and every folder that is not one of the cache. Delete those by hand.
"""

from __future__ import annotations

import argparse
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

from vdr_helpers.cache import MANIFEST, damage, read_manifest, settings_key, stage_folder
from vdr_helpers.models import tuned_folder
from vdr_helpers.profiles import PROFILES, Profile, load_profile
from vdr_helpers.source import corpus_settings
from vdr_helpers.splits import pages_folders, split_settings, splits_folder

STAGES = (
    "source",
    "random-weights",
    "pages",
    "splits",
    "checkpoints",
    "tuned",
    "reranker",
    "late-interaction",
    "embeddings",
    "results",
    "ocr",
)
CACHED = re.compile(rf"({'|'.join(STAGES)})-[0-9a-f]{{10}}(?P<unfinished>\..*partial)?")
KEPT = ("checkpoints-", "results-", "ocr-")
DAY = 24 * 60 * 60  # seconds; an unfinished folder that is younger may be in the making


def used_folders(profile: Profile) -> set[str]:
    """Names of the folders that the profile's settings lead to, whether they are there or not."""
    used = {splits_folder(profile).name, tuned_folder(profile).name}
    if profile.corpus is not None:
        used.add(stage_folder(profile.output_dir, "source", corpus_settings(profile)).name)
    return used | (known_pages(profile) or set())


def known_pages(profile: Profile) -> set[str] | None:
    """The page folders of the profile's splits; ``None`` where these are damaged or not made
    yet.
    """
    folder = splits_folder(profile)
    if not folder.is_dir() or damage(folder):
        return None
    try:
        return pages_folders(folder)
    except ValueError:  # a table that was overwritten by as many bytes
        return None


def cached_folders(profile: Profile) -> list[Path]:
    """The profile's folders that are named by a key, and what an interrupted run left of them."""
    if not profile.output_dir.is_dir():
        return []
    folders = [path for path in profile.output_dir.iterdir() if path.is_dir()]
    return sorted(path for path in folders if CACHED.fullmatch(path.name))


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is what a process writes before it takes its name."""
    return folder.name.endswith(".partial")


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def settings_of(folder: Path) -> dict:
    """The settings in a folder's manifest; empty where it cannot be read."""
    settings = (read_manifest(folder) or {}).get("settings")
    return settings if isinstance(settings, dict) else {}


def made_from(folder: Path) -> str:
    """The settings in a folder's manifest, the first 70 letters of them."""
    if is_unfinished(folder):
        return "in the making, or left by an interrupted run"
    settings = settings_of(folder)
    if not settings:
        return f"no {MANIFEST}"
    text = ", ".join(f"{name} {value}" for name, value in settings.items())
    return text if len(text) <= 70 else f"{text[:67]}..."


def is_used(folder: Path, used: set[str], profile: Profile) -> bool:
    """Whether the settings of today use a folder, or may go on with it."""
    if is_unfinished(folder):
        return time.time() - folder.stat().st_mtime < DAY
    if folder.name in used or folder.name.startswith(KEPT) or folder.is_symlink():
        return True
    manifest, settings = read_manifest(folder) or {}, settings_of(folder)
    if folder.name.startswith("pages-") and known_pages(profile) is None:
        return settings.get("pixels") in (None, split_settings(profile)["pixels"])
    if folder.name.startswith("random-weights-"):
        return settings.get("model") == profile.random_weights
    # What was trained on these splits: a GPU decides some of its settings, so its key is not known
    # here.
    trained_on_these = settings_key(settings.get("splits")) == settings_key(split_settings(profile))
    return manifest.get("splits") in used or trained_on_these


def state_of_each(folders: list[Path], profile: Profile, default: Profile) -> dict[Path, str]:
    """``in use`` by these settings, ``default`` where only the profile without variables uses the
    folder, or ``not in use``.
    """
    by = {"in use": profile, "default": default}
    used = {state: used_folders(settings) for state, settings in by.items()}
    states = {}
    for folder in folders:
        found = [state for state in by if is_used(folder, used[state], by[state])]
        states[folder] = found[0] if found else "not in use"
    return states


def remove(folder: Path) -> str:
    """Delete a folder; returns ``removed``, or why it could not be deleted."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        return f"not removed ({error.strerror})"
    return "removed"


def main(arguments: list[str] | None = None) -> None:
    """List the cached folders of the current profile, and remove those that nothing uses if
    asked.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.outputs", description=main.__doc__)
    parser.add_argument(
        "--remove", action="store_true", help="delete what these settings do not use"
    )
    is_removing = parser.parse_args(arguments).remove
    profile, unused_bytes = load_profile(), 0
    default = replace(PROFILES[profile.name], outputs=profile.outputs)
    # First all answers, then the removal: it must not change what is in use.
    states = state_of_each(cached_folders(profile), profile, default)
    for folder, state in states.items():
        size, origin = size_of(folder), made_from(folder)
        if state == "not in use":
            state = remove(folder) if is_removing else state
            unused_bytes += 0 if folder.exists() == is_removing else size
        print(f"{state:<11} {size / 1e6:8.1f} MB  {folder.name:<28} {origin}")
    said = "removed" if is_removing else "not used by these settings; add --remove to delete it"
    print(f"{unused_bytes / 1e6:.1f} MB {said}")


if __name__ == "__main__":
    main()
