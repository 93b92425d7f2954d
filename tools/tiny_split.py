"""Store which rows notebook 02 chose on ``tiny``: ``python -m tools.tiny_split`` after it has run; a test holds the two together.

A reader who opens notebook 03, 04, 05 or 06 first gets the splits from ``assets/tiny_split.json``.
"""

from __future__ import annotations

import json

from vdr_helpers.stamps import data_settings, kept_data, write_whole

from vdr_helpers.profiles import assets_folder, load_profile

OF_THE_CHOICE = ("dataset", "train_rows", "eval_rows", "negatives_per_train_row", "distinct_eval_pages")


def main() -> None:
    """Write the asset from ``results/rows.json`` of the ``tiny`` profile."""
    profile = load_profile("tiny")
    file = profile.output_dir / "results" / "rows.json"
    if kept_data(profile) is None or not file.exists():
        raise SystemExit("notebook 02 has not been run on tiny: python -m tools.run_course --only 02")
    rows = json.loads(file.read_text(encoding="utf-8"))
    settings = data_settings(profile)
    made_from = json.dumps({name: settings[name] for name in OF_THE_CHOICE})
    splits = []
    for name in ("train", "eval"):
        lines = ",\n".join(f"   {json.dumps(row)}" for row in rows[name])
        splits.append(f'  "{name}": [\n{lines}\n  ]')
    listed = ",\n".join(splits)
    what = "source rows of train and eval as notebook 02 chooses them: the positive's row, then its hard negatives'"
    text = f'{{\n "what": {json.dumps(what)},\n "made_from": {made_from},\n "rows": {{\n{listed}\n }}\n}}\n'
    write_whole(assets_folder() / "tiny_split.json", text)


if __name__ == "__main__":
    main()
