"""Figures with alt text, and widgets whose callbacks change what is shown."""

import base64
import inspect
import warnings

import pytest
from PIL import Image

from vdr_helpers import figures, widgets
from vdr_helpers.published import published

PNG = b"\x89PNG\r\n\x1a\n"


def a_figure(number: int = 1):
    figure, axis = figures.new_figure(height=1.2)
    axis.plot(range(number + 1))
    axis.set_title(str(number))
    return figure


def labels(figure) -> list[str]:
    """Every text written in a figure's axes beside ticks."""
    return [text.get_text() for axis in figure.axes for text in (*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label)]


# figures


@pytest.mark.parametrize("alt", ["", "A curve", "x" * 19])
def test_alt_text_must_say_something(alt):
    with pytest.raises(ValueError, match="at least 20 characters"):
        figures.show(a_figure(), alt)


def test_show_stores_the_alt_text_where_readers_of_notebooks_look(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **options: shown.append((data, options)))
    figures.show(a_figure(), "The tuned model stays above 0.9 down to 32 numbers.")
    ((data, options),) = shown
    assert options["metadata"] == {"image/png": {"alt": "The tuned model stays above 0.9 down to 32 numbers."}}
    assert options["raw"] is True
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    assert set(data) == {"image/png", "text/plain"}


def test_drawing_changes_no_global_setting():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.to_png(a_figure())
    assert dict(matplotlib.rcParams) == before
    assert "pyplot" not in inspect.getsource(figures).replace("without pyplot", "")


def test_page_row_draws_each_page_with_its_title_and_kind():
    pages = [Image.new("RGB", (40, 56)), Image.new("RGB", (56, 40)), Image.new("RGB", (40, 56))]
    figure = figures.page_row(pages, ["a", "b", "c"], ["positive", "hard negative", "other"], heading="the query")
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["positive", "hard negative", "other"]
    frames = [axis.spines["top"].get_edgecolor() for axis in figure.axes]
    assert len(set(frames)) == 3
    assert figure.get_suptitle() == "the query"
    assert figures.to_png(figure).startswith(PNG)
    assert len(figures.page_row(pages[:1], ["a"], ["positive"]).axes) == 1


@pytest.mark.parametrize(("titles", "kinds"), [(["a"], ["other"] * 2), (["a", "b"], ["other"]), ([], [])])
def test_page_row_refuses_lists_of_unequal_length(titles, kinds):
    with pytest.raises(ValueError, match="one title and one kind per page"):
        figures.page_row([Image.new("RGB", (40, 56))] * 2, titles, kinds)


def test_page_row_refuses_no_pages():
    with pytest.raises(ValueError, match="at least one page"):
        figures.page_row([], [], [])


def test_the_truncation_curve_shows_the_measured_beside_the_published():
    scores = {"base": {256: 0.6, 64: 0.5, 8: 0.2}, "finetuned": {256: 0.8, 64: 0.79, 8: 0.7}}
    figure = figures.truncation_curve(scores, published()["dimensions"])
    measured, card = figure.axes
    assert [list(line.get_ydata()) for line in measured.lines] == [[0.6, 0.5, 0.2], [0.8, 0.79, 0.7]]
    assert [line.get_linestyle() for line in measured.lines] == ["-", "-"]
    assert [line.get_linestyle() for line in card.lines] == ["--", "--"]
    assert list(card.lines[1].get_ydata()) == [0.948, 0.9439, 0.9464, 0.9451, 0.9372, 0.9058, 0.8758]
    assert "published" in card.get_title()
    assert [text.get_text() for text in measured.texts] == ["base", "finetuned"]
    assert figures.to_png(figure).startswith(PNG)
    assert len(figures.truncation_curve(scores).axes) == 1


def test_the_training_curve_shows_losses_and_scores():
    figure = figures.training_curve([(2, 9.5), (4, 8.0)], [(4, 0.7)])
    losses, scores = figure.axes
    assert list(losses.lines[0].get_xdata()) == [2, 4]
    assert list(losses.lines[0].get_ydata()) == [9.5, 8.0]
    assert list(scores.lines[0].get_ydata()) == [0.7]
    assert figures.to_png(figures.training_curve([], [])).startswith(PNG)


def test_the_model_sizes_are_marked_as_published_and_own_only_where_given():
    models = published()["models"]
    figure = figures.model_sizes(models)
    points = [tuple(map(float, dots.get_offsets()[0])) for dots in figure.axes[0].collections]
    assert len(points) == 20
    assert (2.1, 0.947) in points
    assert any(x == pytest.approx(0.15) and y == 0.335 for x, y in points)
    assert "not measured here" in figure.axes[0].get_title()
    assert "measured here" not in [text.get_text() for text in figure.axes[0].texts]
    own = figures.model_sizes(models, own=(2.1, 0.94))
    assert len(own.axes[0].collections) == 21
    assert "measured here" in labels(own)
    assert figures.to_png(own).startswith(PNG)


# widgets


def test_the_slider_redraws():
    asked = []

    def draw(option):
        asked.append(option)
        return a_figure(option)

    box = widgets.figure_slider(draw, [256, 64, 8], "dimensions")
    slider, picture = box.children
    assert (slider.value, asked) == (256, [256])
    before = bytes(picture.value)
    assert before.startswith(PNG)
    slider.value = 8
    assert asked == [256, 8]
    assert bytes(picture.value) != before
    assert bytes(picture.value).startswith(PNG)
    assert widgets.figure_slider(draw, [256, 64, 8], "dimensions", value=64).children[0].value == 64


def search_parts(search, query="Alder Energy rent 2014"):
    row, message, picture = widgets.search_box(search, query).children
    field, button = row.children
    return field, button, message, picture


def test_the_search_box_searches():
    asked = []

    def search(query):
        asked.append(query)
        return a_figure(len(query))

    field, button, message, picture = search_parts(search)
    assert asked == ["Alder Energy rent 2014"]
    assert field.value == "Alder Energy rent 2014"
    before = bytes(picture.value)
    field.value = "Basalt Foods pumps"
    button.click()
    assert asked[-1] == "Basalt Foods pumps"
    assert bytes(picture.value) != before
    assert message.value == ""


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_search_asks_for_words(empty):
    def search(query):
        assert query.strip(), "an empty query must not be searched"
        return a_figure(len(query))

    field, button, message, picture = search_parts(search)
    before = bytes(picture.value)
    field.value = empty
    button.click()
    assert "Type a query first" in message.value
    assert bytes(picture.value) == before
    field.value = "Rent"
    button.click()
    assert message.value == ""


def test_building_a_search_box_uses_nothing_deprecated():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="The `ipykernel.comm.Comm` class")  # ipywidgets 7.7, Colab's, calls it itself
        search_parts(lambda query: a_figure())
