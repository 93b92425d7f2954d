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
