"""Ship what ``make notebooks`` made: ``python -m tools.ship_tuned``.

Notebook 03's tuned model with its manifest goes into ``assets/tiny-finetuned``, the run's scores and
minutes into ``assets/measured/tiny_run.json``.
"""

from __future__ import annotations

import json
import shutil

from vdr_helpers.cache import atomic_write
from vdr_helpers.models import finetuned_model, tuned_folder
from vdr_helpers.profiles import assets_folder, load_profile

CARD = "README.md"


def main() -> None:
    """Copy the model, which must be the reader's own of ``tiny`` as it is shipped; the card stays."""
    profile = load_profile("tiny")
    own, origin = finetuned_model(profile)
    if own != str(tuned_folder(profile)):
        raise SystemExit(
            f"there is no tuned model of your own ({origin}): run make notebooks first"
        )
    shipped = assets_folder() / "tiny-finetuned"
    card = (shipped / CARD).read_text(encoding="utf-8")
    shutil.rmtree(shipped)
    shutil.copytree(own, shipped)
    (shipped / CARD).write_text(card, encoding="utf-8")
    summary = json.loads((profile.output_dir / "summary.json").read_text(encoding="utf-8"))
    run = {"what": "tiny profile, seed 42, the run whose outputs the notebooks store"}
    for name in ("versions", "device", "minutes", "train_seconds", "ndcg_at_10"):
        run[name] = summary[name]
    file = assets_folder() / "measured" / "tiny_run.json"
    atomic_write(file, json.dumps(run, indent=1) + "\n")
    print("assets/tiny-finetuned is notebook 03's tuned model now")


if __name__ == "__main__":
    main()
