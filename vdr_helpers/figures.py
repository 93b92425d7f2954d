"""One drawing style for the whole course, alt text on every figure, and the figures that several notebooks share."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

TUNED, BASE, PUBLISHED = "#0b6e8a", "#8a8f98", "#5f6368"  # accent, neutral, and the dashed grey of published figures
POSITIVE, NEGATIVE = "#1a7f37", "#b35900"
WIDTH = 7.2  # inches: the text column


def new_figure(rows: int = 1, columns: int = 1, height: float = 3.2, **options):
    """``(figure, axes)`` in the course's style, ``WIDTH`` inches wide; ``options`` go to ``Figure.subplots``.

    Built without pyplot, so that nothing is drawn twice and no global setting changes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=100)
    axes = figure.subplots(rows, columns, **options)
    for axis in axes.flat if hasattr(axes, "flat") else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def to_png(figure) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def show(figure, alt: str) -> None:
    """Display a figure with ``alt``, one or two sentences that tell its finding to a reader who cannot see it.

    Raises ``ValueError`` when ``alt`` is too short to say anything.
    """
    from IPython.display import display

    if len(alt) < 20:
        raise ValueError("alt text must tell the figure's finding in a sentence of at least 20 characters")
    data = {"image/png": base64.b64encode(to_png(figure)).decode(), "text/plain": "<figure>"}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def page_row(pages: Sequence, titles: Sequence[str], kinds: Sequence[str], heading: str = "", height: float = 3.0):
    """Pages (PIL images or paths) side by side, each told by label and frame colour.

    ``kinds``: ``"positive"``, ``"hard negative"``, ``"other"`` or ``""`` per page. Raises ``ValueError`` if the three sequences differ in length or are empty.
    """
    from PIL import Image

    if not pages or not len(pages) == len(titles) == len(kinds):
        raise ValueError("page_row needs at least one page, and one title and one kind per page")
    colours = {"positive": POSITIVE, "hard negative": NEGATIVE}
    figure, axes = new_figure(1, len(pages), height=height, squeeze=False)
    for axis, page, title, kind in zip(axes[0], pages, titles, kinds, strict=True):
        axis.imshow(Image.open(page).convert("RGB") if isinstance(page, str) else page)
        axis.grid(False)
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(kind, fontsize=9)
        axis.set_title(title, fontsize=9)
        for spine in axis.spines.values():
            spine.set(visible=True, color=colours.get(kind, "#c3c7cc"), linewidth=3 if kind == "positive" else 2)
    if heading:
        figure.suptitle(heading, fontsize=10)
    return figure


def truncation_curve(scores: dict[str, dict[int, float]], published_rows: list[dict] | None = None):
    """NDCG@10 against the number of dimensions kept, measured here (solid) beside the published curves (dashed grey).

    ``scores``: ``{"base": {dim: NDCG@10}, "finetuned": {...}}``; ``published_rows``: ``published()["dimensions"]``.
    """
    panels = [("measured here", scores)]
    if published_rows:
        published_scores = {name: {row["dimensions"]: row[name] for row in published_rows} for name in ("base", "finetuned")}
        panels.append(("published (2B model, other data)", published_scores))
    figure, axes = new_figure(1, len(panels), height=3.2, squeeze=False, sharey=True)
    for axis, (title, curves) in zip(axes[0], panels, strict=True):
        for name, curve in curves.items():
            measured = title == "measured here"
            colour = (TUNED if name == "finetuned" else BASE) if measured else PUBLISHED
            marker = "o" if name == "finetuned" else "s"
            axis.plot(list(curve), list(curve.values()), marker=marker, color=colour, linestyle="-" if measured else "--")
            smallest = min(curve)
            above = name == "finetuned"  # the two labels keep clear of each other's curve
            place = (0, 8 if above else -14)
            axis.annotate(name, (smallest, curve[smallest]), xytext=place, textcoords="offset points", color=colour)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(curve), [str(dim) for dim in curve], rotation=45)
        axis.minorticks_off()
        axis.set(title=title, xlabel="dimensions kept", ylim=(0, 1))
    axes[0][0].set_ylabel("NDCG@10")
    return figure


def training_curve(
    losses: list[tuple[int, float]],
    scores: list[tuple[int, float]],
    short_scores: Sequence[tuple[int, float]] = (),
    short_dim: int | None = None,
):
    """Training loss and NDCG@10 against the step, in two panels; each list holds ``(step, value)``.

    ``short_scores``: NDCG@10 of the same vectors cut to ``short_dim`` numbers, drawn in the same panel.
    """
    figure, axes = new_figure(1, 2, height=2.8)
    lines = [(axes[0], losses, "o", "-", ""), (axes[1], scores, "o", "-", "full width" if short_scores else "")]
    lines.append((axes[1], short_scores, "s", ":", f"first {short_dim} dims"))
    for axis, points, marker, style, label in lines:
        steps, values = [step for step, _ in points], [value for _, value in points]
        axis.plot(steps, values, color=TUNED, marker=marker, linestyle=style, markersize=4)
        if label and points:
            axis.annotate(label, points[0], xytext=(7, -4), textcoords="offset points", color=TUNED, fontsize=8)
    axes[0].set(xlabel="step", title="training loss (sum over dimensions)")
    axes[1].set(xlabel="step", title="NDCG@10 on eval")
    return figure


def model_sizes(models: list[dict], own: tuple[float, float] | None = None):
    """The published table as a scatter: billions of parameters against NDCG@10; ``own`` is the reader's ``(billions, score)``."""
    from vdr_helpers.published import parameters_in_billions

    figure, axis = new_figure(height=3.6)
    for row in models:
        tuned = row["model"].endswith("-vdr")
        x, y = parameters_in_billions(row["parameters"]), row["ndcg_at_10"]
        axis.scatter(x, y, color="white", edgecolor=PUBLISHED, linewidth=2 if tuned else 1, s=70 if tuned else 36, zorder=3)
        if tuned or row["model"].startswith("Qwen/") or y < 0.65:
            axis.annotate(
                row["model"].split("/")[1], (x, y), xytext=(6, 5 if tuned else -11), textcoords="offset points", fontsize=8
            )
    if own:
        axis.scatter(*own, color=TUNED, s=70, zorder=4)
        axis.annotate("measured here", own, xytext=(6, -12), textcoords="offset points", color=TUNED)
    axis.set(xscale="log", xlabel="parameters (billions, log scale)", ylabel="NDCG@10", xlim=(0.1, 20), ylim=(0.3, 1))
    axis.set_xticks([0.15, 0.5, 1, 2, 4, 8], ["0.15", "0.5", "1", "2", "4", "8"])
    axis.minorticks_off()
    axis.set_title("published by the model card, not measured here")
    return figure
