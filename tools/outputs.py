"""What lies under ``outputs/``, and what of it the settings of today use: ``python -m tools.outputs [--remove]``.

Every cached folder is named ``<stage>-<key of its settings>``. One is in use when the profile, as the
environment sets it now, leads to that key, or when it was made from splits that are. ``--remove``
deletes the others: they cost time to make again, and nothing else. Checkpoints of an interrupted
training run stay; delete them by hand if you will not resume it.
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import suppress
from pathlib import Path

from vdr_helpers.cache import MANIFEST, read_manifest, stage_folder
from vdr_helpers.evaluation import results_folder
from vdr_helpers.models import tuned_folder
from vdr_helpers.profiles import Profile, load_profile
from vdr_helpers.source import corpus_settings
from vdr_helpers.splits import pages_folders, splits_folder


def used_folders(profile: Profile) -> set[str]:
    """Names of the folders that the profile's settings lead to, whether they are there or not."""
    used = {splits_folder(profile).name, tuned_folder(profile).name}
    if profile.corpus is not None:
        used.add(stage_folder(profile.output_dir, "source", corpus_settings(profile)).name)
    if splits_folder(profile).is_dir():
        used |= pages_folders(splits_folder(profile))
    with suppress(ValueError):  # the tuned model is damaged, or belongs to another base
        used.add(results_folder(profile).name)
    return used


def cached_folders(profile: Profile) -> list[Path]:
    """The profile's folders that are named by a key, and what an interrupted run left of them."""
    if not profile.output_dir.is_dir():
        return []
    folders = [path for path in profile.output_dir.iterdir() if path.is_dir()]
    return sorted(path for path in folders if is_cached(path))


def is_cached(folder: Path) -> bool:
    """Whether a folder's name ends in a key of ten digits, or in ``.partial``."""
    if folder.name.endswith(".partial"):
        return True
    key = folder.name.rpartition("-")[2]
    return len(key) == 10 and all(letter in "0123456789abcdef" for letter in key)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def made_from(folder: Path) -> str:
    """The settings in a folder's manifest, the first 70 letters of them."""
    if folder.name.endswith(".partial"):
        return "left by an interrupted run"
    manifest = read_manifest(folder)
    if manifest is None:
        return f"no {MANIFEST}"
    settings = ", ".join(f"{name} {value}" for name, value in manifest["settings"].items())
    return settings if len(settings) <= 70 else f"{settings[:67]}..."


def is_used(folder: Path, used: set[str]) -> bool:
    """Whether the settings of today use a folder, or may resume it."""
    manifest = read_manifest(folder) or {}
    return (
        folder.name in used
        or manifest.get("splits") in used
        or folder.name.startswith("checkpoints-")
        and not folder.name.endswith(".partial")
    )


def main(arguments: list[str] | None = None) -> None:
    """List the cached folders of the current profile, and remove those that nothing uses if asked."""
    parser = argparse.ArgumentParser(prog="python -m tools.outputs", description=main.__doc__)
    parser.add_argument(
        "--remove", action="store_true", help="delete what these settings do not use"
    )
    remove = parser.parse_args(arguments).remove
    profile = load_profile()
    used, unused_bytes = used_folders(profile), 0
    for folder in cached_folders(profile):
        size, in_use = size_of(folder), is_used(folder, used)
        state = "in use" if in_use else "removed" if remove else "not in use"
        print(f"{state:<11} {size / 1e6:8.1f} MB  {folder.name:<28} {made_from(folder)}")
        if not in_use:
            unused_bytes += size
            if remove:
                shutil.rmtree(folder)
    said = "removed" if remove else "not used by these settings; add --remove to delete it"
    print(f"{unused_bytes / 1e6:.1f} MB {said}")


if __name__ == "__main__":
    main()
