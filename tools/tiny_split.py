"""Store which rows notebook 02 chose on ``tiny``: ``python -m tools.tiny_split`` after it has run.

A reader who opens notebook 03, 04, 05 or 06 first gets the splits from ``assets/tiny_split.json``;
a test holds the two together.
"""

from __future__ import annotations

import json

from vdr_helpers.cache import atomic_write
from vdr_helpers.profiles import assets_folder, load_profile
from vdr_helpers.splits import CHOICE, split_settings, splits_folder

WHAT = (
    "source rows of train and eval as notebook 02 chooses them: the positive's row, then its hard "
    "negatives'"
)


def main() -> None:
    """Write the asset from ``rows.json`` beside the splits of the ``tiny`` profile."""
    profile = load_profile("tiny")
    file = splits_folder(profile) / "rows.json"
    if not file.exists():
        raise SystemExit("notebook 02 has not been run on tiny: run_course --only 02 first")
    rows = json.loads(file.read_text(encoding="utf-8"))
    settings = split_settings(profile)
    made_from = json.dumps({name: settings[name] for name in CHOICE})
    splits = []
    for name in ("train", "eval"):
        lines = ",\n".join(f"   {json.dumps(row)}" for row in rows[name])
        splits.append(f'  "{name}": [\n{lines}\n  ]')
    listed = ",\n".join(splits)
    head = f'{{\n "what": {json.dumps(WHAT)},\n "made_from": {made_from},\n "rows": {{\n'
    atomic_write(assets_folder() / "tiny_split.json", f"{head}{listed}\n }}\n}}\n")


if __name__ == "__main__":
    main()
