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


def plan_box(describe: Callable[..., str], cards: list[str]):
    """Card, page size, rows per step, tokens per pass and LoRA above the text that ``describe`` returns for them (notebook 00).

    ``describe(card, max_pixels=..., batch=..., mini_batch_num_tokens=..., lora=...)``; a ``ValueError`` is shown as its message.
    """
    import html

    import ipywidgets

    def slider(label: str, options: list, value):
        return ipywidgets.SelectionSlider(options=options, value=value, description=label, continuous_update=False)

    controls = {
        "card": ipywidgets.Dropdown(options=cards, value=cards[0], description="card"),
        "max_pixels": slider("page", [(f"{side} x {side}", side * side) for side in (400, 600, 800, 1000)], 600 * 600),
        "batch": slider("rows", [16, 32, 64], 64),
        "mini_batch_num_tokens": slider("tokens", [400, 1400, 2800, 5600], 1400),
        "lora": ipywidgets.Checkbox(value=False, description="LoRA"),
    }
    text = ipywidgets.HTML()

    def redraw(_=None) -> None:
        values = {name: control.value for name, control in controls.items()}
        try:
            answer = describe(values.pop("card"), **values)
        except ValueError as error:
            answer = str(error)
        text.value = f"<pre>{html.escape(answer)}</pre>"

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([*controls.values(), text])
