"""Ship what ``make notebooks`` made: notebook 03's tuned model into ``assets/tiny-finetuned`` and the run's scores and minutes into
``assets/measured/tiny_run.json``: ``python -m tools.ship_tuned``.
"""

from __future__ import annotations

import json
import shutil

from vdr_helpers.stamps import write_whole

from vdr_helpers.evaluation import finetuned_model
from vdr_helpers.profiles import assets_folder, load_profile

CARD = "README.md"


def main() -> None:
    """Copy the model, which must be the reader's own of the ``tiny`` profile as it is shipped; the folder's card stays."""
    profile = load_profile("tiny")
    own, origin = finetuned_model(profile)
    if own != str(profile.output_dir / "finetuned"):
        raise SystemExit(f"there is no tuned model of your own ({origin}): run make notebooks first")
    shipped = assets_folder() / "tiny-finetuned"
    card = (shipped / CARD).read_text(encoding="utf-8")
    shutil.rmtree(shipped)
    shutil.copytree(own, shipped)
    (shipped / CARD).write_text(card, encoding="utf-8")
    summary = json.loads((profile.output_dir / "summary.json").read_text(encoding="utf-8"))
    run = {"what": "tiny profile, seed 42, the run whose outputs the notebooks store"}
    run |= {name: summary[name] for name in ("versions", "device", "minutes", "train_seconds", "ndcg_at_10")}
    write_whole(assets_folder() / "measured" / "tiny_run.json", json.dumps(run, indent=1) + "\n")
    print("assets/tiny-finetuned is notebook 03's tuned model now")


if __name__ == "__main__":
    main()
