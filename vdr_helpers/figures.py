"""One drawing style for the whole course, alt text on every figure, and the figures that several
notebooks share.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

from vdr_helpers.published import published

TUNED, BASE, PUBLISHED = "#0b6e8a", "#8a8f98", "#5f6368"  # accent, neutral, a darker grey
POSITIVE, NEGATIVE = "#1a7f37", "#b35900"
# colour, marker and line of the curves in one figure: tuned, base, and what stands beside them
LINES = [
    (TUNED, "o", "-"), (BASE, "s", "-"), ("#b35900", "^", ":"), ("#6a3d9a", "D", "-."), ("#202124", "v", "--"),
]  # fmt: skip
WIDTH = 7.2  # inches: the text column, 720 pixels of a page
# By a line's colour: small letters need the darker grey.
LETTERS = {colour: colour for colour, *_ in LINES} | {BASE: PUBLISHED, PUBLISHED: PUBLISHED}
DPI = (
    200  # two pixels of the picture for each of the page, so that dense screens show sharp letters
)
BESIDE = [
    (x, y, away)
    for away in (7, 12, 20)
    for x, y in ((1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0))
]


def new_figure(rows: int = 1, columns: int = 1, height: float = 3.2, **options):
    """``(figure, axes)`` in the course's style, ``WIDTH`` inches wide; ``options`` go to
    ``Figure.subplots``.

    Built without pyplot, so that nothing is drawn twice and no global setting changes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    axes = figure.subplots(rows, columns, **options)
    for axis in axes.flat if hasattr(axes, "flat") else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def to_png(figure) -> bytes:
    """The figure as PNG bytes with a palette of 128 colours, less than a third of the size that
    full colours take.
    """
    from PIL import Image

    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        buffer, format="png", optimize=True
    )
    return buffer.getvalue()


def show(figure, alt: str) -> None:
    """Display a figure with ``alt``, one or two sentences that tell its finding to a reader who
    cannot see it.
    """
    from IPython.display import display

    data = {"image/png": base64.b64encode(to_png(figure)).decode(), "text/plain": "<figure>"}
    display(data, raw=True, metadata={"image/png": {"alt": alt, "width": round(100 * WIDTH)}})


def label_points(axis, labels: list[tuple[str, list, str]]) -> None:
    """Write each ``(text, points, colour)`` beside one of its ``points`` (data coordinates), where
    it covers nothing.

    It keeps clear of every line and marker in ``axis``, of its frame and of the labels before it,
    and stays on its point's side of them, so call it last. The first free place wins; where there
    is none, the least covered.
    """
    import numpy
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(axis.figure).get_renderer()
    axis.figure.draw_without_rendering()  # only now does the layout know where a point lies
    frame, unit, written = axis.get_window_extent(renderer), axis.figure.dpi / 72, []
    lines = [axis.transData.transform_path(line.get_path()) for line in axis.lines]
    dots = [
        axis.transData.transform(dots.get_offsets())
        for dots in axis.collections
        if isinstance(dots, PathCollection)
    ]
    dots = numpy.concatenate([*dots, *(line.vertices for line in lines)])

    def covered(point, box) -> int:
        near, middle = box.padded(5 * unit), (box.p0 + box.p1) / 2
        way = Path([point + 0.3 * (middle - point), middle])  # from the point to the label's middle
        crossed = sum(
            line.intersects_bbox(near, filled=False) + line.intersects_path(way, filled=False)
            for line in lines
        )
        outside = not (frame.contains(*box.p0) and frame.contains(*box.p1))
        return (
            near.count_contains(dots)
            + 100 * crossed
            + 1000 * (box.count_overlaps(written) + outside)
        )

    for text, points, colour in labels:
        at = axis.transData.transform(points)
        style = {
            "textcoords": "offset points",
            "va": "bottom",
            "fontsize": 8,
            "color": colour,
            "in_layout": False,
        }
        label = axis.annotate(text, points[0], xytext=(0, 0), **style)
        size = numpy.array(label.get_window_extent(renderer).size)
        moves = [
            unit * away * numpy.array([x, y]) + size * [(x - 1) / 2, (y - 1) / 2]
            for x, y, away in BESIDE
        ]
        places = [
            (point, Bbox.from_bounds(*(point + move), *size)) for move in moves for point in at
        ]
        _, box = min(places, key=lambda place: covered(*place))
        label.set_position((box.p0 - at[0]) / unit)
        written.append(box)


def page_grid(rows: Sequence[tuple], heading: str = "", height: float = 3.0):
    """Rows of pages (PIL images or paths), each marked by label and frame colour.

    ``rows``: ``(pages, titles, labels)`` each. A label's first line is the page's kind:
    ``"positive"``, ``"hard negative"`` or another. Raises ``ValueError`` where the three sequences
    of a row differ in length.
    """
    columns = max(len(pages) for pages, _, _ in rows)
    figure, axes = new_figure(len(rows), columns, height=height, squeeze=False)
    figure.get_layout_engine().set(hspace=0.1 if len(rows) > 1 else None)
    size = 9 if len(rows) == 1 else 8
    for line, (pages, titles, labels) in zip(axes, rows, strict=True):
        for axis in line[len(pages) :]:
            axis.set_axis_off()
        cells = list(zip(pages, titles, labels, strict=True))
        for axis, (page, title, label) in zip(line, cells, strict=False):
            draw_page(axis, page, kind=label.partition("\n")[0])
            axis.set_title(title, fontsize=size)
            axis.set_xlabel(label, fontsize=size)
    if heading:
        figure.suptitle(heading, fontsize=10)
    return figure


def draw_page(axis, page, kind: str) -> None:
    """One page in a frame whose colour and width tell its kind."""
    from PIL import Image

    axis.imshow(Image.open(page).convert("RGB") if isinstance(page, str) else page)
    axis.grid(False)
    axis.set(xticks=[], yticks=[])
    colour = {"positive": POSITIVE, "hard negative": NEGATIVE}.get(kind, "#c3c7cc")
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=3 if kind == "positive" else 2)


def page_row(
    pages: Sequence,
    titles: Sequence[str],
    kinds: Sequence[str],
    heading: str = "",
    height: float = 3.0,
):
    """One row of :func:`page_grid`. Raises ``ValueError`` if the three sequences differ in length
    or are empty.
    """
    return page_grid([(pages, titles, kinds)], heading, height)


def ranking(similarities, pages: Sequence, kinds: Sequence[str], heading: str = "", best: int = 5):
    """The ``best`` pages of one query side by side, and after them the right one where it stands
    further back, each with its rank.

    ``similarities``: tensor of shape (pages,), or ``{"base": tensor, "tuned": ...}`` for a row per
    model, with a page's rank by the other models under it; ``kinds``: for each of ``pages`` how it
    is labelled, ``"positive"`` for the right one.
    """
    by_model = similarities if isinstance(similarities, dict) else {"rank": similarities}
    orders = {name: found.argsort(descending=True).tolist() for name, found in by_model.items()}
    rows = []
    for name, order in orders.items():
        further_back = [page for page in order[best:] if kinds[page] == "positive"]
        shown = order[:best] + further_back[:1]
        titles, labels = [], []
        for page in shown:
            titles.append(f"{name} {order.index(page) + 1}\nscore {by_model[name][page]:.2f}")
            ranks = [
                f"{other}: {orders[other].index(page) + 1}" for other in orders if other != name
            ]
            labels.append("\n".join([kinds[page], *ranks]))
        rows.append(([pages[page] for page in shown], titles, labels))
    return page_grid(rows, heading, height=4 if len(rows) > 1 else min(3, 0.8 + 10 / len(shown)))


def ranking_alt(similarities: dict, kinds: Sequence[str], what: str) -> str:
    """The alt text of :func:`ranking` with several models: at which rank each has the right page.

    ``what``: how the text calls the query, such as "won".
    """
    orders = {name: found.argsort(descending=True).tolist() for name, found in similarities.items()}
    places = [
        f"{name} at rank {[kinds[page] for page in order].index('positive') + 1}"
        for name, order in orders.items()
    ]
    return (
        f"Best pages of each model for a query that is {what}. Its right page: {', '.join(places)}."
    )


def read_log(log_history: list[dict], dim: int | None = None) -> tuple[list, list]:
    """``(losses, scores)`` as ``(step, value)`` pairs from ``trainer.state.log_history``; scores
    are NDCG@10, full width or ``dim``.
    """
    ending = f"_cosine-{dim}d_ndcg@10" if dim else "_cosine_ndcg@10"
    losses, scores = [], []
    for entry in log_history:
        if "loss" in entry:
            losses.append((entry["step"], entry["loss"]))
        for name, value in entry.items():
            if name.endswith(ending):
                scores.append((entry["step"], value))
    return losses, scores


def training_curve(log_history: list[dict], dim: int | None = None):
    """Losses and NDCG@10 against the step, in two panels, from ``trainer.state.log_history``.

    The validation loss is drawn beside the training loss where it was logged. ``dim``: a second,
    shorter width whose NDCG@10 is drawn beside the full one (:func:`read_log`).
    """
    losses, scores = read_log(log_history)
    short_scores = read_log(log_history, dim)[1] if dim else []
    validation = [(row["step"], row["eval_loss"]) for row in log_history if "eval_loss" in row]
    panels = {
        "loss (sum over dimensions)": {"training": losses, "validation": validation},
        "NDCG@10 on eval": {"full width": scores, f"first {dim} dims": short_scores},
    }
    figure, axes = new_figure(1, 2, height=2.8)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for points, marker, style in zip(lines.values(), "os", ("-", ":"), strict=True):
            steps, values = [step for step, _ in points], [value for _, value in points]
            axis.plot(steps, values, color=TUNED, marker=marker, linestyle=style, markersize=4)
        axis.set(xlabel="step", title=title)
        if all(lines.values()):  # a single line needs no label
            label_points(axis, [(label, points, TUNED) for label, points in lines.items()])
    return figure


def truncation_curve(panels: dict, bands: dict | None = None):
    """NDCG@10 against the number of dimensions, a panel for each title (notebook 05).

    ``panels``: ``{title: {curve: {width: score}}}``; a title that starts with "published" makes
    dashed grey lines. ``bands``: ``{curve: {width: (low, high)}}``, shaded in the other panels.
    "tuned" and "base" look alike in every figure.
    """
    figure, axes = new_figure(1, len(panels), height=3.6, squeeze=False, sharey=True)
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        is_published = title.startswith("published")
        draw_widths(axis, curves, {} if is_published else bands or {}, is_published)
        axis.set_title(title, fontsize=10)
    heights = [score for axis in axes[0] for line in axis.lines for score in line.get_ydata()]
    heights += [low for band in (bands or {}).values() for low, _ in band.values()]
    bottom = max(0, math.floor(10 * min(heights) - 0.5) / 10)
    axes[0][0].set(ylabel="NDCG@10", ylim=(bottom, 1))
    for axis in axes[0]:
        labels = [
            (line.get_label(), line.get_xydata()[::-1].tolist(), LETTERS[line.get_color()])
            for line in axis.lines
        ]
        label_points(axis, labels)
    return figure


def truncation_alt(panels: dict) -> str:
    """The alt text of :func:`truncation_curve`: what share of its score each curve keeps at the
    smallest width of its panel.
    """
    sentences = ["NDCG@10 against the number of dimensions kept."]
    for title, curves in panels.items():
        widths = list(next(iter(curves.values())))
        shares = [
            f"{name} keeps {curve[widths[-1]] / curve[widths[0]]:.1%}"
            for name, curve in curves.items()
        ]
        place = f"{widths[-1]:,} of {widths[0]:,} dimensions"
        sentences.append(f"In the panel {title!r} {', '.join(shares)} at {place}.")
    return " ".join(sentences)


def draw_widths(axis, curves: dict, bands: dict, is_published: bool) -> None:
    """Draw ``{curve: {width: score}}`` with their bands, and name the widths on the axis."""
    others = [name for name in curves if name not in ("tuned", "base")]
    place = {"tuned": 0, "base": 1} | {name: 2 + i for i, name in enumerate(others)}
    for name, curve in curves.items():
        colour, marker, style = LINES[place[name]]
        if is_published:
            colour, style = PUBLISHED, "--"
        look = {"color": colour, "marker": marker, "linestyle": style, "markersize": 5}
        filled = colour if place[name] < 2 else "white"
        axis.plot(list(curve), list(curve.values()), label=name, markerfacecolor=filled, **look)
        if name in bands:
            lows, highs = zip(*bands[name].values(), strict=True)
            axis.fill_between(list(bands[name]), lows, highs, color=colour, alpha=0.16, linewidth=0)
    widths = list(next(iter(curves.values())))
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [f"{width:,}" for width in widths], rotation=45)
    axis.minorticks_off()
    axis.set_xlabel("dimensions kept")


def score_list(models, half_widths, card: dict, measured: tuple | None = None):
    """The published score of each model with its interval, a line each, best on top (notebook 04).

    ``models``: a table with the columns model, parameters and ndcg_at_10, in rising order of the
    last; the intervals are the scores plus and minus ``half_widths``. ``card["model"]`` and
    ``card["base_model"]`` name the two that have colours. ``measured``: ``(parameters, score)`` of
    your own model, drawn as a vertical line.
    """
    scores = models["ndcg_at_10"]
    labels = models["model"].str.split("/").str[1] + " (" + models["parameters"] + ")"
    colours = models["model"].map({card["model"]: TUNED, card["base_model"]: BASE}).fillna("white")
    figure, axis = new_figure(height=4.8)
    lows, highs = scores - half_widths, scores + half_widths
    axis.hlines(labels, lows, highs, color=PUBLISHED, linestyle="--")
    axis.scatter(scores, labels, s=45, color=colours, edgecolor=PUBLISHED, zorder=3)
    if measured:
        axis.axvline(measured[1], color=TUNED)
        label_points(axis, [("measured here", [(measured[1], 0)], TUNED)])
    axis.set(xlabel="NDCG@10", xlim=(0.25, 1))
    axis.set_title("published; dashed: a 95 % interval is at most this wide", fontsize=9)
    return figure


def score_list_alt(models, half_widths, card: dict) -> str:
    """The alt text of :func:`score_list`: how many intervals reach into that of the card's model,
    which is among ``models``.
    """
    scores, is_tuned = models["ndcg_at_10"], models["model"] == card["model"]
    low, high = ((scores + sign * half_widths)[is_tuned].item() for sign in (-1, 1))
    overlapping = (scores + half_widths >= low) & (scores - half_widths <= high) & ~is_tuned
    return (
        f"Published NDCG@10 of {len(models)} models with the widest possible intervals of "
        f"{card['queries']} queries: that of the fine-tuned model, {scores[is_tuned].item():.3f}, "
        f"overlaps those of {overlapping.sum()} others."
    )


def metrics_table(metrics: dict[str, dict], name: str):
    """The metrics of ``{"base": ..., "tuned": ...}`` beside the published ones, as a styled table
    (notebook 04).

    ``name``: the evaluator's, which its metrics have in front. The card prints four digits.
    """
    import pandas

    table = pandas.DataFrame(metrics).add_suffix(", measured here")
    table.index = table.index.str.removeprefix(f"{name}_")
    table["tuned 2B, published"] = pandas.Series(published()["metrics"])
    return table.style.format(precision=3).format("{:.4f}", subset="tuned 2B, published")


def precision_curves(scores: dict, sizes: dict, published_rows: list[dict]):
    """NDCG@10 against the bytes of a page, a panel for base and one for tuned (notebook 07).

    ``scores``: ``{(model, dimensions, precision): (NDCG@10, low, high)}``, widest first, with the
    ends of the shaded interval; ``sizes``: ``{precision: bytes of a dimension}``.
    ``published_rows``: ``dimensions`` of ``published()``, float32, drawn dashed and grey.
    """
    looks = {"float32": ("o", "-"), "int8": ("s", "--"), "binary": ("^", ":")}
    figure, axes = new_figure(1, 2, height=3.8, sharey=True)
    models = (("base", "base", BASE), ("tuned", "finetuned", TUNED))
    for axis, (model, in_card, colour) in zip(axes, models, strict=True):
        labels = []
        for precision, (marker, line) in looks.items():
            curve = {
                int(width * sizes[precision]): score
                for (name, width, stored_as), score in scores.items()
                if (name, stored_as) == (model, precision)
            }
            means, lows, highs = zip(*curve.values(), strict=True)
            axis.fill_between(list(curve), lows, highs, color=colour, alpha=0.15, lw=0)
            look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
            axis.plot(list(curve), means, **look)
            points = list(zip(curve, means, strict=True))
            labels.append((precision, points, LETTERS[colour]))
        points = [(sizes["float32"] * row["dimensions"], row[in_card]) for row in published_rows]
        axis.plot(*zip(*points, strict=True), color=PUBLISHED, linestyle="--", marker=".")
        labels.append(("published, float32", points, PUBLISHED))
        axis.set_xscale("log", base=2)
        axis.set_xticks([1, 8, 64, 512, 4096])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.set(title=model, xlabel="bytes a page (log scale)")
        label_points(axis, labels)
    axes[0].set_ylabel("NDCG@10")
    return figure


def precision_alt(scores: dict, width: int) -> str:
    """The alt text of :func:`precision_curves`: NDCG@10 of the tuned model at ``width``
    dimensions.
    """
    told = [
        f"{score:.2f} in {precision}"
        for (model, dimensions, precision), (score, _, _) in scores.items()
        if (model, dimensions) == ("tuned", width)
    ]
    return (
        f"NDCG@10 against bytes a page. With {width:,} dimensions the tuned model has "
        f"{', '.join(told)}. The int8 curve is the float32 curve moved to the left by a factor of "
        "four."
    )


def rerank_curves(panels: dict):
    """NDCG@10 against the number of pages that are sorted again, a panel for each first stage
    (notebook 09).

    ``panels``: ``{title: {way: {k: (NDCG@10, low, high)}}}`` with the ends of the interval, which
    is shaded for "sum" and "reranker"; the other ways are "oracle" and "random order", and ``k`` =
    0 is the first stage.
    """
    looks = {"oracle": LINES[1], "sum": LINES[0], "reranker": LINES[2], "random order": LINES[4]}
    figure, axes = new_figure(1, len(panels), height=3.6, squeeze=False, sharey=True)
    for axis, (title, ways) in zip(axes[0], panels.items(), strict=True):
        labels = []
        for way, scores in ways.items():
            colour, marker, line = looks[way]
            means, lows, highs = zip(*scores.values(), strict=True)
            look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}
            axis.plot(list(scores), means, **look)
            if way in ("sum", "reranker"):
                axis.fill_between(list(scores), lows, highs, color=colour, alpha=0.14, linewidth=0)
            points = list(zip(scores, means, strict=True))[1:]
            labels.append((way, points[::-1], LETTERS[colour]))
        axis.set(xlabel="pages sorted again", xticks=list(scores))
        axis.set_title(title, fontsize=10)
        label_points(axis, labels)
    axes[0][0].set_ylabel("NDCG@10")
    return figure


def rerank_alt(panels: dict) -> str:
    """The alt text of :func:`rerank_curves`: where each way begins and ends."""
    sentences = ["NDCG@10 against the number of pages that are sorted again."]
    for title, ways in panels.items():
        last = max(ways["oracle"])
        told = ", ".join(f"{way} {scores[last][0]:.2f}" for way, scores in ways.items())
        alone = ways["oracle"][0][0]
        sentences.append(f"In the panel {title!r}, {alone:.2f} alone; with {last} pages {told}.")
    return " ".join(sentences)


def step_curves(curves: dict, level: tuple[str, float], title: str):
    """NDCG@10 against the training step, a line for each of ``curves``, and a level line beside
    them (notebook 10).

    ``curves``: ``{label: [(step, score), ...]}``; ``level``: label and score of what was not
    trained in these steps.
    """
    figure, axis = new_figure(height=3)
    labels = []
    for (label, points), (colour, marker, line) in zip(curves.items(), LINES[1:], strict=False):
        axis.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=line)
        labels.append((label, points, LETTERS[colour]))
    label, score = level
    points = [(step, score) for step, _ in max(curves.values(), key=len)]
    axis.plot(*zip(*points, strict=True), color=TUNED)
    axis.set(xlabel="step", ylabel="NDCG@10", title=title)
    label_points(axis, [*labels, (label, points, TUNED)])
    return figure


def step_alt(curves: dict, level: tuple[str, float]) -> str:
    """The alt text of :func:`step_curves`: where each curve begins and ends."""
    told = [
        f"{label}: {points[0][1]:.2f} to {points[-1][1]:.2f}" for label, points in curves.items()
    ]
    return f"NDCG@10 against the training step. {'; '.join(told)}; {level[0]}: {level[1]:.2f}."


def one_and_many_curves(grid, title: str):
    """NDCG@10 against the bytes of a page, for one vector and for many (notebook 10).

    ``grid``: a table with the columns kind ("one vector" or "many vectors"), precision, bytes and
    NDCG@10; a line for each kind and precision.
    """
    colours = {"one vector": TUNED, "many vectors": LINES[3][0]}
    looks = {"float32": "o-", "float16": "D-", "int8": "s--", "binary": "^:"}
    figure, axis = new_figure(height=3.8)
    labels = []
    for (kind, precision), part in grid.groupby(["kind", "precision"], sort=False):
        points = part[["bytes", "NDCG@10"]].values.tolist()
        look = {"color": colours[kind], "markersize": 5}
        axis.plot(*zip(*points, strict=True), looks[precision], **look)
        labels.append((f"{kind}, {precision}", points, colours[kind]))
    axis.set(xscale="log", xlabel="bytes a page (log scale)", ylabel="NDCG@10", title=title)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    label_points(axis, labels)
    return figure


def one_and_many_alt(grid) -> str:
    """The alt text of :func:`one_and_many_curves`: the highest point of each kind."""
    best = grid.sort_values("NDCG@10").groupby("kind").last()
    told = [f"{kind}: {row['NDCG@10']:.2f} at {row['bytes']:,.0f}" for kind, row in best.iterrows()]
    return f"NDCG@10 against bytes a page. Highest points: {', '.join(told)} bytes."
