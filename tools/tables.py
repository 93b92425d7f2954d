"""Write tables and the README's figure from the stored results: ``python -m tools.tables``.

A test holds texts and results together. Every table stands between ``<!-- name: start -->`` and
``<!-- name: end -->``, in ``README.md``, ``docs/benchmarks.md`` or ``docs/phenomena.md``. The
figure is the one that notebook 05 stores.
"""

from __future__ import annotations

import base64
import json
import statistics
from pathlib import Path

from tools import phenomena
from vdr_helpers.cache import atomic_write
from vdr_helpers.profiles import assets_folder
from vdr_helpers.published import measured, published

ROOT = assets_folder().parent
README = ROOT / "README.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
PHENOMENA = ROOT / "docs" / "phenomena.md"
FIGURE = ROOT / "assets" / "readme_result.png"
RECIPES = ROOT / "benchmarks" / "results" / "recipes_tiny.json"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A markdown table; ``rows`` hold one text per column of ``head``."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def course_table() -> str:
    """What ``make course`` prints at its end: NDCG@10 of base and tuned model by dimensions."""
    scores = measured("tiny_run")["ndcg_at_10"]
    rows = [
        f"{dim:>7}   {base:>6.3f}  {scores['finetuned'][dim]:>10.3f}"
        for dim, base in scores["base"].items()
    ]
    return "\n".join(["```", "NDCG@10     base  fine-tuned", *rows, "```"])


def headline_table() -> str:
    """Five rows of the published experiment beside what notebooks 03 to 05 measured on ``tiny``."""
    run, card = measured("tiny_run")["ndcg_at_10"], published()
    widest, *_, narrowest = run["base"]
    base, tuned = run["base"], run["finetuned"]
    published_rows = card["dimensions"]
    first, last = published_rows[0], published_rows[-1]
    rows = [
        ["NDCG@10 of the base, all dimensions", first["base"], base[widest]],
        ["NDCG@10 fine-tuned, all dimensions", first["finetuned"], tuned[widest]],
        ["NDCG@10 fine-tuned, a thirty-second of them", last["finetuned"], tuned[narrowest]],
    ]
    texts = [[name, f"{theirs:.3f}", f"{ours:.3f}"] for name, theirs, ours in rows]
    for name, theirs, ours in (
        ("kept at a thirty-second, fine-tuned", last["finetuned"] / first["finetuned"], tuned),
        ("kept at a thirty-second, base", last["base"] / first["base"], base),
    ):
        texts.append([name, f"{theirs:.0%}", f"{ours[narrowest] / ours[widest]:.0%}"])
    return markdown(["", "Published, 2B model", "Measured here, `tiny`"], texts)


def tiny_table() -> str:
    """NDCG@10 by dimension of base, notebook 03's own run and the seeds, and what is kept at the
    fewest dimensions.
    """
    seeds, own = measured("tiny_seeds"), measured("tiny_run")["ndcg_at_10"]["finetuned"]
    base, runs = seeds["base_ndcg_at_10"], [run["ndcg_at_10"] for run in seeds["runs"]]
    widest, *_, narrowest = base
    numbers = ", ".join(str(run["seed"]) for run in seeds["runs"])
    head = [
        "Dimensions",
        "Base",
        "Fine-tuned, the notebooks' run (seed 42)",
        f"Fine-tuned, seeds {numbers}",
    ]
    rows = [
        [dim, f"{base[dim]:.3f}", f"{own[dim]:.3f}", ", ".join(f"{run[dim]:.3f}" for run in runs)]
        for dim in base
    ]
    kept = [f"{scores[narrowest] / scores[widest]:.0%}" for scores in (base, own, *runs)]
    return markdown(head, [*rows, [f"kept at {narrowest}", *kept[:2], ", ".join(kept[2:])]])


def choices_table() -> str:
    """NDCG@10 at the most and at the fewest dimensions, and seconds of training, for each
    choice.
    """
    choices = measured("choices")["choices"]
    widest, *_, narrowest = next(iter(choices.values()))["ndcg_at_10"]
    rows = [
        [
            name,
            f"{run['ndcg_at_10'][widest]:.3f}",
            f"{run['ndcg_at_10'][narrowest]:.3f}",
            f"{run['train_seconds']:.0f}",
        ]
        for name, run in choices.items()
    ]
    return markdown(["Choice", f"NDCG@10 at {widest}", f"at {narrowest}", "Training, s"], rows)


def recipes_table() -> str:
    """Seconds of each part in the published recipe and in the course's, and how many times faster
    it is.
    """
    rows = [
        [
            part["part"],
            f"{part['published']:.3g}",
            f"{part['course']:.3g}",
            "{ratio:.3g} ({lowest:.3g} to {highest:.3g})".format(**part),
        ]
        for part in json.loads(RECIPES.read_text(encoding="utf-8"))["parts"]
    ]
    return markdown(["Part", "Published recipe, s", "Course, s", "Times faster (range)"], rows)


def phenomena_table() -> str:
    """What is known of real models beside what the measured profile shows."""
    profile = phenomena.measured_profile()
    head = ["Phenomenon", "Known", f"Measured here, `{profile.name}`", "Same direction"]
    return markdown(head, phenomena.rows())


def kinds_table() -> str:
    """NDCG@10 of base, tuned model (mean of the seeds) and BM25 by kind of query."""
    found = measured("phenomena")
    runs = found["runs"]
    kinds = list(found["base"]["ndcg_at_10"])
    rows = [
        [
            name,
            *(
                f"{statistics.mean(run['ndcg_at_10'][kind] for run in scores):.3f}"
                for kind in kinds
            ),
        ]
        for name, scores in (
            ("BM25 on exact text", [found["text_search"]]),
            ("base", [found["base"]]),
            ("tuned on the page's text", runs["the page's text instead of its picture"].values()),
            ("tuned on the page", runs[phenomena.USUAL].values()),
            ("tuned without the hard negative", runs["without the hard negative"].values()),
        )
    ]
    return markdown(["", *kinds], rows)


TABLES = {
    README: {"course": course_table, "headline": headline_table},
    BENCHMARKS: {"tiny": tiny_table, "choices": choices_table, "recipes": recipes_table},
    PHENOMENA: {"phenomena": phenomena_table, "kinds": kinds_table},
}


def between_marks(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the marks of ``name``. Raises ``ValueError`` where the two
    marks do not stand once each.
    """
    start, end = f"<!-- {name}: start -->\n", f"\n<!-- {name}: end -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"needs {start.strip()!r} and {end.strip()!r} once each, around its table")
    before, _, rest = text.partition(start)
    return before + start + content + end + rest.partition(end)[2]


def with_tables(file: Path, text: str) -> str:
    """The ``text`` of a file with its tables written anew. Raises ``ValueError`` for one without
    its two marks.
    """
    for name, table in TABLES[file].items():
        text = between_marks(text, name, table())
    return text


def curve_of_notebook_05() -> bytes:
    """The PNG that notebook 05 stores of its truncation curve. Raises ``ValueError`` where it
    stores none.
    """
    cells = json.loads((ROOT / "notebooks" / "05_truncate.ipynb").read_text(encoding="utf-8"))[
        "cells"
    ]
    outputs = next(
        (cell["outputs"] for cell in cells if '"measured here": means' in "".join(cell["source"])),
        [],
    )
    for output in outputs:
        if "image/png" in output.get("data", {}):
            return base64.b64decode("".join(output["data"]["image/png"]))
    raise ValueError("notebook 05 stores no truncation curve: run make notebooks first")


if __name__ == "__main__":
    atomic_write(FIGURE, curve_of_notebook_05())
    for path in TABLES:
        atomic_write(path, with_tables(path, path.read_text(encoding="utf-8")))
