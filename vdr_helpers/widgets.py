"""Small ipywidgets for looking around; each stands beside a static figure or table that shows the same thing without a kernel.

All of them are worked with the keyboard: Tab reaches a control, arrows move a slider, Enter searches. A sentence under the controls says
what the picture shows, since a widget's picture cannot carry alt text.
"""

from __future__ import annotations

import html
from collections.abc import Callable

from vdr_helpers import figures


def _image(figure):
    import ipywidgets

    return ipywidgets.Image(value=figures.to_png(figure), format="png", layout=ipywidgets.Layout(max_width="720px"))


def _status(text: str) -> str:
    """``text`` as HTML that a screen reader reads out when it changes; nothing for an empty text."""
    return f'<div role="status" style="line-height: 1.4">{html.escape(text)}</div>' if text else ""


def figure_slider(
    draw: Callable[[int], object],
    options: list[int],
    label: str,
    value: int | None = None,
    describe: Callable[[int], str] | None = None,
):
    """A slider over ``options`` above the figure that ``draw(option)`` returns; used for rows of a dataset and for dimensions.

    ``describe(option)`` is the sentence that tells the figure's finding; without it the line repeats label and option.
    """
    import ipywidgets

    slider = ipywidgets.SelectionSlider(
        options=options,
        value=options[0] if value is None else value,
        description=label,
        continuous_update=False,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="480px", max_width="100%"),
    )
    say = describe or (lambda option: f"{label}: {option}")
    message, picture = ipywidgets.HTML(_status(say(slider.value))), _image(draw(slider.value))

    def redraw(change) -> None:
        picture.value = figures.to_png(draw(change["new"]))
        message.value = _status(say(change["new"]))

    slider.observe(redraw, names="value")
    return ipywidgets.VBox([slider, message, picture])


def search_box(search: Callable[[str], tuple[object, str]], query: str):
    """A text field, a button, and what ``search(query)`` returns: a sentence about the result and a figure of it, ``(figure, sentence)``.

    Enter searches as the button does. An empty query asks for words instead of failing.
    """
    import ipywidgets

    field = ipywidgets.Text(
        value=query, description="query", layout=ipywidgets.Layout(width="560px", max_width="100%"), continuous_update=False
    )
    button = ipywidgets.Button(description="search", tooltip="search the pages for this query")
    figure, sentence = search(query)
    message, picture = ipywidgets.HTML(_status(sentence)), _image(figure)

    shown = query

    def run(_) -> None:
        nonlocal shown
        if field.value == shown:  # whoever types and then presses the button has left the field, which searched already
            return
        shown = field.value
        if not shown.strip():
            message.value = _status("Type a query first, for example an organisation, a subject and a year.")
            return
        figure, sentence = search(shown)
        message.value, picture.value = _status(sentence), figures.to_png(figure)

    button.on_click(run)
    field.observe(run, names="value")
    return ipywidgets.VBox([ipywidgets.HBox([field, button]), message, picture])


def review_box(suspects: list[tuple[str, str]], marks, draw: Callable[[int], object], score: Callable[[], str]):
    """Each suspect with the buttons "also an answer", "no answer" and "undo", above its figure and the score (appendix a4).

    ``suspects``: ``(query, page)`` pairs; ``marks``: a :class:`vdr_helpers.evaluation.Marks`, which keeps what is clicked; ``draw(number)``
    returns the figure of one suspect, ``score()`` a sentence with the score as marked.
    """
    import ipywidgets

    if not suspects:
        return ipywidgets.HTML(_status("No suspects: no page stands before the right one."))
    slider = ipywidgets.IntSlider(value=1, min=1, max=len(suspects), description="suspect", continuous_update=False)
    buttons = [ipywidgets.Button(description=text) for text in ("also an answer", "no answer", "undo")]
    message, picture = ipywidgets.HTML(), _image(draw(0))

    def tell() -> None:
        held = marks.answers(*suspects[slider.value - 1])
        word = {None: "not marked", True: "marked: also an answer", False: "marked: no answer"}[held]
        message.value = _status(f"Suspect {slider.value} of {len(suspects)}, {word}. {score()}")
        buttons[2].disabled = held is None

    def show(change) -> None:
        picture.value = figures.to_png(draw(change["new"] - 1))
        tell()

    def press(change: Callable[..., None], *answers: bool) -> None:
        try:
            change(*suspects[slider.value - 1], *answers)
            tell()
        except OSError as error:  # a callback's error is shown to nobody
            message.value = _status(f"The mark could not be kept: {error.strerror}")

    slider.observe(show, names="value")
    buttons[0].on_click(lambda _: press(marks.add, True))
    buttons[1].on_click(lambda _: press(marks.add, False))
    buttons[2].on_click(lambda _: press(marks.undo))
    tell()
    return ipywidgets.VBox([ipywidgets.HBox([slider, *buttons]), message, picture])


def microscope_box(look: Callable, cover: Callable, queries: int, widths: list[int], value: int = 0):
    """A query's number and a width above what ``look(number, width)`` draws; a button adds what ``cover(number, width)`` draws (appendix a4).

    Both return ``(figure, sentence)``. Covering takes seconds, so that it waits for the button, and goes when another query is chosen.
    """
    import ipywidgets

    style = {"description_width": "initial"}
    number = ipywidgets.BoundedIntText(value=value, min=0, max=queries - 1, description=f"query, 0 to {queries - 1}", style=style)
    width = ipywidgets.SelectionSlider(options=widths, description="width", continuous_update=False)
    button = ipywidgets.Button(description="cover patch by patch", tooltip="takes some seconds")
    figure, sentence = look(value, widths[0])
    message, picture, below = ipywidgets.HTML(_status(sentence)), _image(figure), ipywidgets.VBox()

    def redraw(_) -> None:
        figure, sentence = look(number.value, width.value)
        message.value, picture.value, below.children = _status(sentence), figures.to_png(figure), ()

    def press(_) -> None:
        button.disabled, message.value = True, _status("Both models read the covered pages, one after the other ...")
        try:
            figure, sentence = cover(number.value, width.value)
            message.value, below.children = _status(sentence), (_image(figure),)
        except Exception as error:  # whatever a model raises: a callback's error is shown to nobody
            message.value = _status(f"The pages could not be covered: {type(error).__name__}, {error}")
        button.disabled = False

    number.observe(redraw, names="value")
    width.observe(redraw, names="value")
    button.on_click(press)
    return ipywidgets.VBox([ipywidgets.HBox([number, width, button]), message, picture, below])
