"""Figures with alt text, and widgets whose callbacks change what is shown."""

import base64
import io
import warnings
from itertools import pairwise

import ipywidgets
import nbformat
import numpy
import pandas
import pytest
import torch
from cells import edited_sources
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.transforms import Bbox
from PIL import Image

from tools import run_pages
from vdr_helpers import figures, widgets
from vdr_helpers.profiles import PROFILES
from vdr_helpers.published import measured, published

truncation_curve = figures.truncation_curve
PNG = b"\x89PNG\r\n\x1a\n"


def a_figure(number: int = 1):
    figure, axis = figures.new_figure(height=1.2)
    axis.plot(range(number + 1))
    axis.set_title(str(number))
    return figure


def covered(figure) -> list[str]:
    """What the labels inside a figure's axes lie upon: a line, a marker, another label, or the
    outside of the frame.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    complaints = []
    for axis in figure.axes:
        boxes = {text.get_text(): text.get_window_extent(renderer) for text in axis.texts}
        lines = {line: axis.transData.transform_path(line.get_path()) for line in axis.lines}
        centres = {line: axis.transData.transform(line.get_xydata()) for line in axis.lines}
        # a shade may lie under a label
        dots = [marks for marks in axis.collections if isinstance(marks, PathCollection)]
        centres |= {marks: axis.transData.transform(marks.get_offsets()) for marks in dots}
        unit = figure.dpi / 72
        for label, box in boxes.items():
            complaints += [
                f"{label} on a line"
                for path in lines.values()
                if path.intersects_bbox(box, filled=False)
            ]
            for points in centres.values():
                markers = [
                    Bbox.from_bounds(x - 3 * unit, y - 3 * unit, 6 * unit, 6 * unit)
                    for x, y in points
                ]
                complaints += [f"{label} on a marker" for marker in markers if marker.overlaps(box)]
            complaints += [
                f"{label} on {other}"
                for other, there in boxes.items()
                if other != label and there.overlaps(box)
            ]
            frame = axis.get_window_extent(renderer)
            if not all(
                frame.x0 <= x <= frame.x1 and frame.y0 <= y <= frame.y1 for x, y in box.corners()
            ):
                complaints.append(f"{label} outside")
    return complaints


def labels(figure) -> list[str]:
    """Every text written in a figure's axes beside ticks."""
    return [
        text.get_text()
        for axis in figure.axes
        for text in (*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label)
    ]


# figures


def test_show_stores_the_alt_text_where_readers_of_notebooks_look(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(
        IPython.display, "display", lambda data, **options: shown.append((data, options))
    )
    figures.show(a_figure(), "The tuned model stays above 0.9 down to 32 numbers.")
    ((data, options),) = shown
    assert options["metadata"] == {
        "image/png": {"alt": "The tuned model stays above 0.9 down to 32 numbers.", "width": 720}
    }
    assert options["raw"] is True
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    assert set(data) == {"image/png", "text/plain"}


def test_a_picture_has_two_pixels_for_each_of_the_page_and_a_palette():
    picture = Image.open(io.BytesIO(figures.to_png(a_figure())))
    assert (picture.width, picture.mode) == (1440, "P")
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    colours = {colour for _, colour in picture.convert("RGB").getcolors()}
    assert len(colours) > 20, "smooth edges need more than a few colours"


def test_drawing_changes_no_global_setting():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.to_png(a_figure())
    assert dict(matplotlib.rcParams) == before


def test_page_row_draws_each_page_with_its_title_and_kind():
    pages = [Image.new("RGB", (40, 56)), Image.new("RGB", (56, 40)), Image.new("RGB", (40, 56))]
    figure = figures.page_row(
        pages, ["a", "b", "c"], ["positive", "hard negative", "other"], heading="the query"
    )
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["positive", "hard negative", "other"]
    frames = [axis.spines["top"].get_edgecolor() for axis in figure.axes]
    assert len(set(frames)) == 3
    assert figure.get_suptitle() == "the query"
    assert figures.to_png(figure).startswith(PNG)
    assert len(figures.page_row(pages[:1], ["a"], ["positive"]).axes) == 1


@pytest.mark.parametrize(
    ("titles", "kinds"),
    [(["a"], ["other"] * 2), (["a", "b"], ["other"]), (["a"] * 3, ["other"] * 3), ([], [])],
)
def test_page_row_refuses_lists_of_unequal_length(titles, kinds):
    with pytest.raises(ValueError):
        figures.page_row([Image.new("RGB", (40, 56))] * 2, titles, kinds)


def test_page_row_refuses_no_pages():
    with pytest.raises(ValueError):
        figures.page_row([], [], [])


PAGE_IDS = [f"q{i}-{kind}" for i in range(3) for kind in ("positive", "negative_0", "negative_1")]


def shown(figure) -> list[tuple[str, str]]:
    return [(axis.get_title(), axis.get_xlabel()) for axis in figure.axes]


def test_a_ranking_shows_the_right_page_wherever_it_stands():
    pages = [Image.new("RGB", (40, 56))] * 9
    scores = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.5, 0.6, 0.7])
    kinds = ["positive", "hard negative", *["other"] * 7]
    first = [
        ("rank 1\nscore 0.90", "hard negative"),
        ("rank 2\nscore 0.80", "other"),
        ("rank 3\nscore 0.70", "other"),
    ]
    assert shown(figures.ranking(scores, pages, kinds, best=3)) == [
        *first,
        ("rank 9\nscore 0.10", "positive"),
    ]
    assert [kind for _, kind in shown(figures.ranking(scores, pages, kinds[::-1], best=3))] == [
        "other",
        "other",
        "positive",
    ]
    assert len(shown(figures.ranking(scores, pages, ["not judged"] * 9, best=3))) == 3
    assert figures.ranking(scores, pages, kinds, "a query").get_suptitle() == "a query"


def test_the_alt_text_of_a_ranking_tells_where_each_model_has_the_right_page():
    found = {"base": torch.tensor([0.1, 0.9, 0.2]), "tuned": torch.tensor([0.8, 0.7, 0.9])}
    told = figures.ranking_alt(found, ["positive", "hard negative", "other page"], "won")
    assert told.endswith("a query that is won. Its right page: base at rank 3, tuned at rank 2.")


SCORES = {"base": {256: 0.6, 64: 0.5, 8: 0.2}, "tuned": {256: 0.8, 64: 0.79, 8: 0.7}}
THREE = SCORES | {"tuned, plain loss (stored)": {256: 0.79, 64: 0.7, 8: 0.5}}
CARD = {
    name: {row["dimensions"]: row[column] for row in published()["dimensions"]}
    for name, column in (("base", "base"), ("tuned", "finetuned"))
}
PANELS = {"measured here": THREE, "published (other data)": CARD}
BANDS = {
    name: {dim: (score - 0.03, score + 0.02) for dim, score in curve.items()}
    for name, curve in THREE.items()
}


def test_the_truncation_curve_shows_the_measured_beside_the_published():
    figure = truncation_curve(PANELS)
    here, card = figure.axes
    assert [list(line.get_ydata()) for line in here.lines] == [
        [0.6, 0.5, 0.2],
        [0.8, 0.79, 0.7],
        [0.79, 0.7, 0.5],
    ]
    assert [line.get_linestyle() for line in card.lines] == ["--", "--"]
    assert list(card.lines[1].get_ydata()) == [
        0.948,
        0.9439,
        0.9464,
        0.9451,
        0.9372,
        0.9058,
        0.8758,
    ]
    assert "published" in card.get_title()
    assert [text.get_text() for text in here.texts] == list(THREE)
    assert "2,048" in [text.get_text() for text in card.get_xticklabels()]
    assert figures.to_png(figure).startswith(PNG)
    assert len(truncation_curve({"measured here": SCORES}).axes) == 1


def test_the_alt_text_of_the_truncation_curve_tells_what_each_curve_keeps():
    told = figures.truncation_alt({"measured here": SCORES, "published (other data)": CARD})
    here = (
        "In the panel 'measured here' base keeps 33.3%, tuned keeps 87.5% at 8 of 256 dimensions."
    )
    card = "base keeps 76.5%, tuned keeps 92.4% at 64 of 2,048 dimensions."
    assert here in told and told.endswith(f"In the panel 'published (other data)' {card}")


def test_curves_can_be_told_apart_without_colour_and_keep_their_look_in_every_figure():
    here, card = truncation_curve(PANELS).axes
    assert len({(line.get_marker(), line.get_linestyle()) for line in here.lines}) == 3
    assert len({line.get_marker() for line in here.lines}) == 3
    tuned_first = truncation_curve({"measured here": dict(reversed(THREE.items()))}).axes[0]
    look = {line.get_label(): (line.get_marker(), line.get_color()) for line in tuned_first.lines}
    assert look == {line.get_label(): (line.get_marker(), line.get_color()) for line in here.lines}
    assert [line.get_marker() for line in card.lines] == [
        line.get_marker() for line in here.lines[:2]
    ]


def test_intervals_are_shades_around_their_own_curve_and_none_around_a_published_one():
    here, card = truncation_curve(PANELS, BANDS).axes
    assert len(here.collections) == 3
    assert len(card.collections) == 0
    for (name, band), shade in zip(BANDS.items(), here.collections, strict=True):
        corners = shade.get_paths()[0].vertices
        for dim, (low, high) in band.items():
            heights = [y for x, y in corners if x == dim]
            assert (min(heights), max(heights)) == pytest.approx((low, high)), name
        assert tuple(shade.get_facecolor()[0][:3]) == to_rgb(
            here.lines[list(BANDS).index(name)].get_color()
        )
    assert here.get_ylim()[0] <= 0.17 - 0.05, "the lowest shade is inside"


def log(losses, scores, short_scores=()):
    """A trainer's log of these ``(step, value)`` pairs; the short scores are those of 8
    dimensions.
    """
    named = {
        "loss": losses,
        "eval_x_cosine_ndcg@10": scores,
        "eval_x_cosine-8d_ndcg@10": short_scores,
    }
    return [{"step": step, name: value} for name, pairs in named.items() for step, value in pairs]


def test_the_training_curve_shows_losses_and_scores():
    figure = figures.training_curve(log([(2, 9.5), (4, 8.0)], [(4, 0.7)]))
    losses, scores = figure.axes
    assert list(losses.lines[0].get_xdata()) == [2, 4]
    assert list(losses.lines[0].get_ydata()) == [9.5, 8.0]
    assert list(scores.lines[0].get_ydata()) == [0.7]
    assert figures.to_png(figures.training_curve([])).startswith(PNG)


# labels


def a_labelled_figure(xytext):
    figure, axis = figures.new_figure(height=2)
    axis.plot([0, 1, 2], [0, 1, 0], marker="o")
    axis.annotate("a label", (1, 1), xytext=xytext, textcoords="offset points")
    return figure


def test_a_covered_label_is_noticed():
    assert covered(a_labelled_figure((0, 0))) != []
    assert covered(a_labelled_figure((40, -25))) != []
    assert covered(a_labelled_figure((-150, 20))) == ["a label outside"]
    figure = a_labelled_figure((-20, -70))
    assert covered(figure) == []
    figure.axes[0].annotate("another", (1, 1), xytext=(-20, -72), textcoords="offset points")
    assert covered(figure) != []


@pytest.mark.parametrize(
    "draw",
    [
        lambda: truncation_curve(PANELS),
        lambda: truncation_curve(PANELS, BANDS),
        lambda: truncation_curve(
            {"measured here": {"base": SCORES["base"], "tuned": {256: 0.6, 64: 0.52, 8: 0.25}}}
        ),
        lambda: truncation_curve(
            {"measured here": THREE | {"tuned": {256: 0.99, 64: 0.99, 8: 0.98}}}, BANDS
        ),
        lambda: figures.training_curve(
            log([(2, 9.5)], [(4, 0.7), (8, 0.8)], [(4, 0.6), (8, 0.79)]), 8
        ),
        lambda: figures.training_curve(log([(2, 9.5)], [(4, 0.7)], [(4, 0.7)]), 8),
    ],
)
def test_labels_cover_nothing(draw):
    assert covered(draw()) == []


def test_a_label_stays_beside_its_own_curve():
    here = truncation_curve({"measured here": THREE}, BANDS).axes[0]
    renderer = FigureCanvasAgg(here.figure).get_renderer()
    here.figure.draw(renderer)
    for line, text in zip(here.lines, here.texts, strict=True):
        box = text.get_window_extent(renderer)
        middle = [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]
        away = {
            other: min(
                abs(y - middle[1])
                for x, y in sampled(here, other)
                if abs(x - middle[0]) < box.width / 2
            )
            for other in here.lines
        }
        assert min(away, key=away.get) is line, text.get_text()


def sampled(axis, line):
    """Pixels along a line, one every two hundredth of each segment."""
    corners = axis.transData.transform(line.get_xydata())
    return [start + (end - start) * i / 200 for start, end in pairwise(corners) for i in range(201)]


# stored measurements


def test_stored_measurements_say_what_they_are():
    for name in ("choices", "tiny_seeds"):
        assert {"what", "versions", "device"} <= set(measured(name))
    assert "python -m benchmarks.phenomena" in measured.__doc__
    assert set(measured("tiny_seeds")["base_ndcg_at_10"]) == {
        str(dim) for dim in PROFILES["tiny"].matryoshka_dims
    }
    with pytest.raises(FileNotFoundError, match=r"measured.seeds\.json"):
        measured("seeds")


# widgets


def parts(box):
    """``(controls, message, picture)`` of a box."""
    row, message, picture, _ = box.children
    return row.children, message, picture


def a_slider():
    """A box of one slider, as notebook 05 has it, and the list of what was drawn."""
    asked = []

    def draw(option):
        asked.append(option)
        return a_figure(option), f"{option} < 300"

    slider = ipywidgets.SelectionSlider(
        options=[256, 64, 8], description="dimensions", continuous_update=False
    )
    return widgets.live_box(draw, slider), asked


def test_the_slider_redraws_and_tells_the_finding_in_a_sentence():
    box, asked = a_slider()
    (slider,), message, picture = parts(box)
    assert (slider.value, asked) == (256, [256])
    before = bytes(picture.value)
    assert before.startswith(PNG)
    assert "256 &lt; 300" in message.value  # a text, not HTML
    slider.value = 8
    assert asked == [256, 8]
    assert bytes(picture.value) != before
    assert bytes(picture.value).startswith(PNG)
    assert "8 &lt; 300" in message.value


def search_parts(search, query="Alder Energy rent 2014"):
    (field, button), message, picture = parts(widgets.search_box(search, query))
    return field, button, message, picture


def test_the_search_box_searches():
    asked = []

    def search(query):
        asked.append(query)
        return a_figure(len(query)), f"best page for <{query}>"

    field, button, message, picture = search_parts(search)
    assert asked == ["Alder Energy rent 2014"]
    assert field.value == "Alder Energy rent 2014"
    assert "best page for &lt;Alder Energy rent 2014&gt;" in message.value
    before = bytes(picture.value)
    field.value = (
        "Basalt Foods pumps"  # what Enter does, and what leaving the field for the button does
    )
    assert asked[1:] == ["Basalt Foods pumps"]
    assert bytes(picture.value) != before
    assert "Basalt Foods pumps" in message.value
    button.click()
    assert len(asked) == 2, "the button asked again for what is already shown"


def test_a_search_result_is_drawn_with_the_place_of_its_right_page():
    page = Image.new("RGB", (40, 56))
    corpus = dict.fromkeys(("q0-positive", "q0-negative_0", "q1-positive"), page)
    relevant_docs = {"q0": {"q0-positive"}, "q1": {"q1-positive"}}
    eval_split = {"q0": "asked"}, corpus, relevant_docs, {"q0": {"q0-negative_0"}, "q1": set()}
    hits = [{"corpus_id": place, "score": score} for place, score in ((1, 0.9), (0, 0.8), (2, 0.1))]
    figure, sentence = widgets.draw_hits(hits, "asked", *eval_split)
    assert sentence == "Rank of the page that answers: 2."
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "hard negative",
        "positive",
        "other page",
    ]
    assert widgets.draw_hits(hits, "another", *eval_split)[1] == (
        "Not a query of the eval split: no page is marked."
    )


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_search_asks_for_words(empty):
    def search(query):
        assert query.strip(), "an empty query must not be searched"
        return a_figure(len(query)), "found"

    field, button, message, picture = search_parts(search)
    before = bytes(picture.value)
    field.value = empty
    button.click()
    assert "Type a query first" in message.value
    assert bytes(picture.value) == before
    field.value = "Rent"
    button.click()
    assert "found" in message.value


def a_box(cover=None):
    """A number and a width with a button, as appendix 4 has them, and the list of what was looked
    at.
    """
    looked, controls = (
        [],
        (
            ipywidgets.BoundedIntText(3, 0, 4, description="query"),
            ipywidgets.Dropdown(options=[256, 8]),
        ),
    )

    def look(number, width):
        looked.append((number, width))
        return a_figure(number + 1), f"q{number} at {width} < all"

    controls[1].description = "width"
    return widgets.live_box(
        look,
        *controls,
        buttons={"cover": cover or (lambda number, width: (a_figure(9), f"covered q{number}"))},
    ), looked


def test_a_box_looks_at_once_and_a_button_adds_on_request():
    box, looked = a_box()
    (number, width, button), message, picture = parts(box)
    below = box.children[3]
    assert (looked, below.children) == ([(3, 256)], ())
    assert "q3 at 256 &lt; all" in message.value
    before = bytes(picture.value)
    button.click()
    assert "covered q3" in message.value and not button.disabled
    assert bytes(below.children[0].value).startswith(PNG)
    width.value = 8
    assert looked[-1] == (3, 8) and below.children == (), (
        "a map of another query or width must not stay"
    )
    number.value = 1
    assert looked[-1] == (1, 8) and bytes(picture.value) != before
    number.value = 77
    assert number.value == 4 and looked[-1] == (4, 8)


def test_an_error_in_a_box_is_said_and_the_box_can_be_asked_again():
    def breaks(number, width):
        raise OSError(28, "No space left on device")

    box, _ = a_box(breaks)
    (number, _, button), message, _ = parts(box)
    button.click()
    assert (
        "cover did not work: OSError" in message.value
        and "No space left on device" in message.value
    )
    assert not button.disabled and box.children[3].children == ()
    number.value = 0
    assert "q0 at 256" in message.value


def test_a_button_without_a_figure_leaves_the_pictures():
    box, _ = a_box(lambda number, width: (None, f"marked q{number}"))
    (*_, button), message, picture = parts(box)
    before = bytes(picture.value)
    button.click()
    assert (
        "marked q3" in message.value
        and bytes(picture.value) == before
        and box.children[3].children == ()
    )


def every_box():
    yield a_box()[0]
    yield a_slider()[0]
    yield widgets.search_box(lambda query: (a_figure(), "found"), "Rent")


def inside(box):
    for child in box.children:
        yield child
        yield from inside(child) if hasattr(child, "children") else ()


def test_every_control_has_a_name_and_every_answer_is_read_out():
    controls = ("SelectionSlider", "BoundedIntText", "Text", "Dropdown", "Checkbox", "Button")
    for box in every_box():
        parts = list(inside(box))
        assert all(part.description for part in parts if type(part).__name__ in controls)
        assert [
            part
            for part in parts
            if type(part).__name__ == "HTML" and 'role="status"' in part.value
        ]


def test_a_picture_is_sharp_on_a_dense_screen():
    *_, picture = parts(a_slider()[0])
    assert Image.open(io.BytesIO(bytes(picture.value))).width >= 2 * 100 * figures.WIDTH
    assert picture.layout.max_width == "720px"


def test_building_the_boxes_uses_nothing_deprecated():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # ipywidgets 7.7, Colab's, calls it itself
        warnings.filterwarnings("ignore", message="The `ipykernel.comm.Comm` class")
        assert len(list(every_box())) == 3


def test_pages_without_a_kernel_have_a_sentence_in_a_controls_place(tmp_path):
    view = {
        run_pages.WIDGET: {"model_id": "abc"},
        "text/plain": "VBox(children=(Text(value='x'),))",
    }
    notebook = nbformat.v4.new_notebook(metadata={"widgets": {"state": 1}})
    for output in (
        nbformat.v4.new_output("display_data", view),
        nbformat.v4.new_output("execute_result", view, execution_count=1),
    ):
        notebook.cells.append(nbformat.v4.new_code_cell("box", outputs=[output]))
    run_pages.write_html(notebook, tmp_path, tmp_path / "page.html")
    nbformat.write(notebook, tmp_path / "run.ipynb")
    run_pages.store_outputs(tmp_path / "run.ipynb", tmp_path / "stored.ipynb")
    for file in ("page.html", "stored.ipynb"):
        text = (tmp_path / file).read_text()
        assert text.count(run_pages.STILL) == 2
        assert "VBox(" not in text
        assert "abc" not in text
    assert "VBox(" in str(notebook)  # the executed copy itself keeps its widgets


def test_the_box_of_appendix_a2_answers_every_control():
    """Every control asks the sum anew, with a name that says what it sets."""
    asked = []

    def memory(*sizes):
        asked.append(sizes)
        return {"weights": 4.0}

    [source] = [source for source in edited_sources("a2") if "interact(" in source]
    space = {"memory": memory}
    exec(source, space)
    *controls, _ = space["describe"].widget.children
    assert [control.description for control in controls] == ["lora", "dtype", "pages", "rows"]
    for control, value in zip(controls, (True, "float16", 6, 32), strict=True):
        control.value = value
    assert asked[-1] == (True, "float16", 6, 32)


# figures of notebooks 04 and 07


def test_a_list_of_scores_shows_each_interval_and_the_own_score_where_there_is_one():
    rows = [("a/small", "1B", 0.5), ("b/large", "8B", 0.9)]
    models = pandas.DataFrame(rows, columns=["model", "parameters", "ndcg_at_10"])
    half_widths, card = numpy.array([0.1, 0.02]), {"model": "b/large", "base_model": "b/other"}
    [axis] = figures.score_list(models, half_widths, card).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["small (1B)", "large (8B)"]
    assert [to_hex(colour) for colour in axis.collections[1].get_facecolor()] == [
        "#ffffff",
        figures.TUNED,
    ]
    segments = [line.tolist() for line in axis.collections[0].get_segments()]
    assert segments == [[[0.4, 0], [0.6, 0]], [[0.88, 1], [0.92, 1]]]
    assert not axis.lines
    own = figures.score_list(models, half_widths, card, (2.1, 0.8))
    assert own.axes[0].lines[0].get_xdata() == [0.8, 0.8]


def test_the_alt_text_of_a_list_of_scores_counts_the_intervals_that_overlap():
    rows = [
        ("a/far", "1B", 0.5),
        ("b/near", "2B", 0.8),
        ("c/own", "2B", 0.9),
        ("d/best", "8B", 0.93),
    ]
    models = pandas.DataFrame(rows, columns=["model", "parameters", "ndcg_at_10"])
    half_widths = numpy.array([0.1, 0.08, 0.04, 0.02])
    told = figures.score_list_alt(models, half_widths, {"model": "c/own", "queries": 300})
    assert "of 4 models" in told and told.endswith("0.900, overlaps those of 2 others.")


def test_metrics_stand_beside_the_published_ones():
    metrics = {"base": {"vdr-eval-hard_cosine_ndcg@10": 0.7}, "tuned": {}}
    table = figures.metrics_table(metrics, "vdr-eval-hard").data
    assert list(table.columns) == [
        "base, measured here",
        "tuned, measured here",
        "tuned 2B, published",
    ]
    card = published()["metrics"]["cosine_ndcg@10"]
    assert table.loc["cosine_ndcg@10"].dropna().tolist() == [0.7, card]


def test_bytes_of_a_page_are_drawn_for_each_precision_and_beside_the_published_curve():
    sizes = {"float32": 4, "int8": 1, "binary": 1 / 8}
    scores = {
        (model, width, precision): (0.8, 0.7, 0.9)
        for model in ("base", "tuned")
        for width in (16, 8)
        for precision in sizes
    }
    published = [
        {"dimensions": 2048, "base": 0.9, "finetuned": 0.95},
        {"dimensions": 1024, "base": 0.8, "finetuned": 0.9},
    ]
    base, tuned = figures.precision_curves(scores, sizes, published).axes
    assert (base.get_title(), tuned.get_title()) == ("base", "tuned")
    drawn = [line.get_xdata().tolist() for line in base.lines[:3]]
    assert drawn == [[64, 32], [16, 8], [2, 1]]
    assert list(base.lines[3].get_xdata()) == [8192, 4096]
    labels = {text.get_text() for text in tuned.texts}
    assert labels == {"float32", "int8", "binary", "published, float32"}
    told = "0.80 in float32, 0.80 in int8, 0.80 in binary"
    assert f"With 8 dimensions the tuned model has {told}." in figures.precision_alt(scores, 8)


# the figure of notebook 09


def test_a_reranker_has_a_panel_for_each_first_stage():
    lines = {
        "oracle": [0.8, 0.9, 0.95],
        "sum": [0.8, 0.82, 0.83],
        "reranker": [0.8, 0.75, 0.7],
        "random order": [0.8, 0.6, 0.4],
    }
    strong = {
        way: {
            k: (score, score - 0.02, score + 0.02)
            for k, score in zip((0, 3, 10), scores, strict=True)
        }
        for way, scores in lines.items()
    }
    weak = {
        way: {k: tuple(0.7 * value for value in values) for k, values in curve.items()}
        for way, curve in strong.items()
    }
    panels = {"256 dimensions": strong, "8 dimensions": weak}
    figure = figures.rerank_curves(panels)
    assert [axis.get_title() for axis in figure.axes] == list(panels)
    for axis in figure.axes:
        assert {text.get_text() for text in axis.texts} == set(lines)
        assert len(axis.collections) == 2  # the shades of the sum and of the reranker
    assert covered(figure) == []
    told = figures.rerank_alt(panels)
    assert "'256 dimensions', 0.80 alone; with 10 pages oracle 0.95, sum 0.83" in told
    assert "'8 dimensions', 0.56 alone; with 10 pages" in told


# figures of notebook 10


def test_the_curves_of_an_epoch_have_a_level_line_beside_them():
    curves = {
        "from the base": [(0, 0.6), (8, 0.55), (16, 0.7)],
        "from the other": [(0, 0.65), (16, 0.8)],
    }
    level = "one vector", 0.84
    [axis] = figures.step_curves(curves, level, "stored").axes
    assert [line.get_ydata()[-1] for line in axis.lines] == [0.7, 0.8, 0.84]
    assert {text.get_text() for text in axis.texts} == {*curves, "one vector"}
    told = "from the base: 0.60 to 0.70; from the other: 0.65 to 0.80; one vector: 0.84."
    assert figures.step_alt(curves, level).endswith(told)


def test_one_vector_and_many_have_a_colour_each_and_a_line_for_each_precision():
    rows = [("one vector", "int8", size, size / 1000) for size in (256, 64)]
    rows += [("many vectors", "binary", size, size / 1000) for size in (896, 448)]
    rows += [("many vectors", "int8", size, 0.5) for size in (7168, 3584)]
    grid = pandas.DataFrame(rows, columns=["kind", "precision", "bytes", "NDCG@10"])
    figure = figures.one_and_many_curves(grid, "here")
    one, many, other = figure.axes[0].lines
    assert one.get_color() != many.get_color() == other.get_color()
    assert many.get_linestyle() != other.get_linestyle()
    assert other.get_xdata().tolist() == [7168, 3584]
    assert covered(figure) == []
    told = "many vectors: 0.90 at 896, one vector: 0.26 at 256 bytes."
    assert figures.one_and_many_alt(grid).endswith(told)
