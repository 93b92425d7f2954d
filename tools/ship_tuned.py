"""Ship what ``make notebooks`` made: ``python -m tools.ship_tuned``.

Notebook 03's tuned model with its manifest and its model card goes into ``assets/tiny-finetuned``,
the run's scores and minutes into ``assets/measured/tiny_run.json``.
"""

from __future__ import annotations

import json
import shutil

from vdr_helpers.cache import atomic_write
from vdr_helpers.model_card import set_facts
from vdr_helpers.models import finetuned_model, tuned_folder
from vdr_helpers.profiles import Profile, assets_folder, load_profile

ABOUT = """It reads generated pages only: it is for learning how fine-tuning works, and of no use on real
documents. Every name and figure in its data is invented.

"""


def shipped_card(text: str) -> str:
    """The library's card of the tuned model with a title, its language, its licence and what it is
    for.
    """
    text = text.replace("\n# SentenceTransformer\n", "\n# The tuned tiny model\n", 1)
    text = set_facts(text, {"Language": "en", "License": "apache-2.0"})
    return text.replace("## Model Details\n", ABOUT + "## Model Details\n", 1)


def ship_run(profile: Profile) -> None:
    """Keep scores and minutes of the run whose outputs the notebooks store."""
    summary = json.loads((profile.output_dir / "summary.json").read_text(encoding="utf-8"))
    run = {"what": "tiny profile, seed 42, the run whose outputs the notebooks store"}
    for name in ("versions", "device", "minutes", "train_seconds", "ndcg_at_10"):
        run[name] = summary[name]
    file = assets_folder() / "measured" / "tiny_run.json"
    atomic_write(file, json.dumps(run, indent=1) + "\n")


def main() -> None:
    """Copy the model, which must be the reader's own of the profile as it is shipped."""
    profile = load_profile()
    if not profile.finetuned_name.startswith("assets/"):
        raise SystemExit(f"the profile {profile.name} ships no tuned model")
    own, origin = finetuned_model(profile)
    if own != str(tuned_folder(profile)):
        raise SystemExit(f"there is no tuned model of your own ({origin}): run notebook 03 first")
    shipped = assets_folder() / profile.finetuned_name.removeprefix("assets/")
    shutil.rmtree(shipped, ignore_errors=True)
    shutil.copytree(own, shipped)
    card = shipped / "README.md"
    card.write_text(shipped_card(card.read_text(encoding="utf-8")), encoding="utf-8")
    ship_run(profile)
    print(f"{profile.finetuned_name} is notebook 03's tuned model now")


if __name__ == "__main__":
    main()
