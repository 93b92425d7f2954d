"""Two callbacks for ``SentenceTransformerTrainer`` (notebook 03): a curve that grows while you wait, and the card's log table."""

from __future__ import annotations

import re

from transformers import TrainerCallback

from vdr_helpers import figures


def ndcg(entry: dict, dim: int | None = None) -> float | None:
    """NDCG@10 of one log entry at the full width, or at ``dim`` (names of ``OnePassMatryoshkaEvaluator``); ``None`` if not there."""
    for name, value in entry.items():
        found = re.search(r"(?:-(\d+)d)?_cosine_ndcg@10$", name)
        if found and found.group(1) == (None if dim is None else str(dim)):
            return value
    return None


def read_log(log_history: list[dict], dim: int | None = None) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """``(losses, scores)`` as ``(step, value)`` pairs from ``trainer.state.log_history``; scores are NDCG@10, full width or ``dim``."""
    losses = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    return losses, [(entry["step"], ndcg(entry, dim)) for entry in log_history if ndcg(entry, dim) is not None]


def log_table(log_history: list[dict]):
    """The training log as the published card prints it: epoch, step, training loss, NDCG@10; a pandas ``DataFrame``."""
    import pandas

    rows: dict[int, dict] = {}
    for entry in log_history:
        row = rows.setdefault(entry["step"], {"Epoch": round(entry.get("epoch", 0.0), 3), "Step": entry["step"]})
        if "loss" in entry:
            row["Training loss"] = entry["loss"]
        if ndcg(entry) is not None:
            row["NDCG@10"] = ndcg(entry)
    table = pandas.DataFrame(
        [row for row in rows.values() if len(row) > 2], columns=["Epoch", "Step", "Training loss", "NDCG@10"]
    )
    return table.set_index("Step")


class LiveCurve(TrainerCallback):
    """Redraws the training curve in an ``ipywidgets.Image`` at every evaluation: display ``curve.widget``, then train.

    ``dim``: a second, shorter width whose NDCG@10 is drawn beside the full one, as ``OnePassMatryoshkaEvaluator`` reports it.
    """

    def __init__(self, dim: int | None = None) -> None:
        import ipywidgets

        self.dim = dim
        self.widget = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="720px"))

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        losses, scores = read_log(state.log_history)
        short = read_log(state.log_history, self.dim)[1] if self.dim else []
        self.widget.value = figures.to_png(figures.training_curve(losses, scores, short, self.dim))
