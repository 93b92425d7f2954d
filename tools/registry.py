"""Write the tables of ``docs/models.md`` from the registry of the twenty published models: ``python -m tools.registry``."""

from __future__ import annotations

from pathlib import Path

from vdr_helpers.published import COMMIT, ListedModel, models, registry
from vdr_helpers.stamps import write_whole

DOCS = Path(__file__).resolve().parents[1] / "docs" / "models.md"


def revision_cell(entry: ListedModel) -> str:
    """The revision as ``docs/models.md`` shows it: the first seven characters of a commit, a pull request's name, or ``not pinned``."""
    if not entry.revision:
        return "not pinned"
    return f"`{entry.revision[:7]}`" if COMMIT.fullmatch(entry.revision) else f"`{entry.revision}` (not a commit)"


def as_markdown() -> str:
    """The registry as the two tables of ``docs/models.md``: what can be said of each model, then the notes."""
    head = "| Model | Published NDCG@10 | Parameters | Dimension | Licence | Revision | Trained on the source | Status |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for entry in models():
        numbers = [f"{entry.ndcg_at_10:.3f}", entry.parameters, f"{entry.dimension:,}"]
        words = [entry.licence, revision_cell(entry), entry.trained_on_source or "not known", entry.status]
        lines.append(f"| {' | '.join([entry.model, *numbers, *words])} |")
    lines += ["", "| Model | transformers class | Notes |", "|---|---|---|"]
    for entry in models():
        family = f"`{registry()['families'][entry.family]}`" if entry.family else "its own"
        lines.append(f"| {entry.model} | {family} | {entry.notes} |")
    return "\n".join(lines) + "\n"


def write_docs(path: Path) -> None:
    """Put the tables of :func:`as_markdown` between the two markers of ``docs/models.md``. Raises ``ValueError`` without markers."""
    text = path.read_text(encoding="utf-8")
    start, end = "<!-- registry: start -->\n", "<!-- registry: end -->"
    if start not in text or end not in text:
        raise ValueError(f"{path.name} has no lines {start.strip()!r} and {end!r} to write the tables between")
    before, rest = text.split(start, 1)
    write_whole(path, before + start + as_markdown() + end + rest.split(end, 1)[1])


if __name__ == "__main__":
    write_docs(DOCS)
