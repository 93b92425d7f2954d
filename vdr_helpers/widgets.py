"""Small ipywidgets for looking around; each stands beside a static figure that shows the same thing without a kernel."""

from __future__ import annotations

from collections.abc import Callable

from vdr_helpers import figures


def _image(figure):
    import ipywidgets

    return ipywidgets.Image(value=figures.to_png(figure), format="png", layout=ipywidgets.Layout(max_width="720px"))


def figure_slider(draw: Callable[[int], object], options: list[int], label: str, value: int | None = None):
    """A slider over ``options`` above the figure that ``draw(option)`` returns; used for rows of a dataset and for dimensions."""
    import ipywidgets

    slider = ipywidgets.SelectionSlider(
        options=options, value=options[0] if value is None else value, description=label, continuous_update=False
    )
    picture = _image(draw(slider.value))

    def redraw(change) -> None:
        picture.value = figures.to_png(draw(change["new"]))

    slider.observe(redraw, names="value")
    return ipywidgets.VBox([slider, picture])


def search_box(search: Callable[[str], object], query: str):
    """A text field, a button and the figure that ``search(query)`` returns. An empty query asks for words instead of failing."""
    import ipywidgets

    field = ipywidgets.Text(value=query, description="query", layout=ipywidgets.Layout(width="560px"), continuous_update=False)
    button = ipywidgets.Button(description="search")
    message = ipywidgets.Label()
    picture = _image(search(query))

    def run(_) -> None:
        if not field.value.strip():
            message.value = "Type a query first, for example an organisation, a subject and a year."
            return
        message.value = ""
        picture.value = figures.to_png(search(field.value))

    button.on_click(run)
    field.observe(run, names="value")
    return ipywidgets.VBox([ipywidgets.HBox([field, button]), message, picture])
