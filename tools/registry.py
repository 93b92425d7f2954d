"""Write the tables of ``docs/models.md`` from the registry of the twenty published models: ``python
-m tools.registry``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vdr_helpers.cache import atomic_write
from vdr_helpers.published import published, read_asset

DOCS = Path(__file__).resolve().parents[1] / "docs" / "models.md"
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ListedModel:
    """One row of the published table. ``None`` stands for what is not known; ``notes`` says what
    else there is to know.
    """

    model: str  # hub id
    parameters: str  # published, as the card prints it: "2.1B"
    ndcg_at_10: float  # published, not measured here
    revision: str | None  # what is loaded from the hub: a commit, or the name of a pull request
    revision_source: str | None  # a key of "revision_sources" in models.json
    dimension: int  # dimensions of an embedding
    kwargs: (
        dict  # for SentenceTransformer(...): what the published row needs beyond the saved settings
    )
    licence: str
    research_only: bool
    needs_remote_code: bool
    # a key of "families" in models.json: the transformers classes under it; None: its own classes
    family: str | None
    # how much of the eval set's source it was trained on, or who says so; None: not known
    trained_on_source: str | None
    status: (
        str  # "proven on a twin", "needs remote code (not provable offline)" or "not loadable: why"
    )
    notes: str


def models() -> list[ListedModel]:
    """The twenty models in the order of the published table. Raises ``ValueError`` if the two files
    list different ones.
    """
    rows, facts = (
        published()["models"],
        {row["model"]: row for row in read_asset("models.json")["models"]},
    )
    different = {row["model"] for row in rows} ^ set(facts)
    if different:
        raise ValueError(
            f"assets/models.json and assets/published.json list different models: {', '.join(sorted(different))}"
        )
    return [ListedModel(**(facts[row["model"]] | row)) for row in rows]


def revision_cell(entry: ListedModel) -> str:
    """The revision as ``docs/models.md`` shows it: the first seven characters of a commit, a pull
    request's name, or ``not pinned``.
    """
    if not entry.revision:
        return "not pinned"
    return (
        f"`{entry.revision[:7]}`"
        if COMMIT.fullmatch(entry.revision)
        else f"`{entry.revision}` (not a commit)"
    )


def as_markdown() -> str:
    """The registry as the two tables of ``docs/models.md``: what can be said of each model, then
    the notes.
    """
    head = "| Model | Published NDCG@10 | Parameters | Dimension | Licence | Revision | Trained on the source | Status |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for entry in models():
        numbers = [f"{entry.ndcg_at_10:.3f}", entry.parameters, f"{entry.dimension:,}"]
        words = [
            entry.licence,
            revision_cell(entry),
            entry.trained_on_source or "not known",
            entry.status,
        ]
        lines.append(f"| {' | '.join([entry.model, *numbers, *words])} |")
    lines += ["", "| Model | transformers class | Notes |", "|---|---|---|"]
    for entry in models():
        family = (
            f"`{read_asset('models.json')['families'][entry.family]}`"
            if entry.family
            else "its own"
        )
        lines.append(f"| {entry.model} | {family} | {entry.notes} |")
    return "\n".join(lines) + "\n"


def write_docs(path: Path) -> None:
    """Put the tables of :func:`as_markdown` between the two markers of ``docs/models.md``. Raises
    ``ValueError`` without markers.
    """
    text = path.read_text(encoding="utf-8")
    start, end = "<!-- registry: start -->\n", "<!-- registry: end -->"
    if start not in text or end not in text:
        raise ValueError(
            f"{path.name} has no lines {start.strip()!r} and {end!r} to write the tables between"
        )
    before, rest = text.split(start, 1)
    atomic_write(path, before + start + as_markdown() + end + rest.split(end, 1)[1])


if __name__ == "__main__":
    write_docs(DOCS)
