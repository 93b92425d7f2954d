"""Two callbacks for ``SentenceTransformerTrainer`` (notebook 03): a curve that grows while you wait, and the card's log table."""

from __future__ import annotations

import re
import time

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


def duration(seconds: float) -> str:
    """``"40 s"``, ``"12 min"`` or ``"2.5 h"``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class LiveCurve(TrainerCallback):
    """The training curve, redrawn at every evaluation, above a line that says how far the run is and how long it will take.

    Display ``curve.widget``, then train. ``dim``: a second, shorter width whose NDCG@10 is drawn beside the full one, as
    ``OnePassMatryoshkaEvaluator`` reports it. The time left is the mean time of the steps so far, evaluations included, times the steps
    that are left.
    """

    def __init__(self, dim: int | None = None) -> None:
        import ipywidgets

        self.dim = dim
        empty = figures.to_png(figures.training_curve([], []))
        self.picture = ipywidgets.Image(value=empty, format="png", layout=ipywidgets.Layout(max_width="720px"))
        self.message = ipywidgets.Label("the first evaluation comes before the first step")
        self.widget = ipywidgets.VBox([self.message, self.picture])
        self.started, self.first_step = 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        done, elapsed = state.global_step - self.first_step, time.monotonic() - self.started
        left = elapsed / max(done, 1) * (state.max_steps - state.global_step)
        self.message.value = (
            f"step {state.global_step} of {state.max_steps}, {duration(elapsed)} so far, about {duration(left)} left"
        )

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        losses, scores = read_log(state.log_history)
        short = read_log(state.log_history, self.dim)[1] if self.dim else []
        self.picture.value = figures.to_png(figures.training_curve(losses, scores, short, self.dim))
