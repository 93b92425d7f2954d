"""Two callbacks for ``SentenceTransformerTrainer`` (notebook 03): a curve that grows while you wait, and the card's log table."""

from __future__ import annotations

from transformers import TrainerCallback

from vdr_helpers import figures


def read_log(log_history: list[dict]) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """``(losses, scores)`` as ``(step, value)`` pairs from ``trainer.state.log_history``; scores are the evaluator's NDCG@10."""
    losses = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    scores = []
    for entry in log_history:
        scores += [(entry["step"], value) for name, value in entry.items() if name.endswith("cosine_ndcg@10")]
    return losses, scores


def log_table(log_history: list[dict]):
    """The training log as the published card prints it: epoch, step, training loss, NDCG@10; a pandas ``DataFrame``."""
    import pandas

    rows: dict[int, dict] = {}
    for entry in log_history:
        row = rows.setdefault(entry["step"], {"Epoch": round(entry.get("epoch", 0.0), 3), "Step": entry["step"]})
        if "loss" in entry:
            row["Training loss"] = entry["loss"]
        for name, value in entry.items():
            if name.endswith("cosine_ndcg@10"):
                row["NDCG@10"] = value
    table = pandas.DataFrame(
        [row for row in rows.values() if len(row) > 2], columns=["Epoch", "Step", "Training loss", "NDCG@10"]
    )
    return table.set_index("Step")


class LiveCurve(TrainerCallback):
    """Redraws the training curve in an ``ipywidgets.Image`` at every evaluation: display ``curve.widget``, then train."""

    def __init__(self) -> None:
        import ipywidgets

        self.widget = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="720px"))

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        losses, scores = read_log(state.log_history)
        self.widget.value = figures.to_png(figures.training_curve(losses, scores))
