"""Small ipywidgets for looking around; each stands beside a static figure or table that shows the
same thing without a kernel.

All of them are worked with the keyboard: Tab reaches a control, arrows move a slider, Enter
searches. A sentence under the controls says what the picture shows, since a widget's picture cannot
carry alt text. ``ipywidgets.interact`` would replace the picture by a new output at every change,
which flickers and which no screen reader tells.
"""

from __future__ import annotations

import html
from collections.abc import Callable

from vdr_helpers import figures
from vdr_helpers.evaluation import page_kinds


def _status(text: str) -> str:
    """``text`` as HTML that a screen reader reads out when it changes."""
    return f'<div role="status" style="line-height: 1.4">{html.escape(text)}</div>'


def live_box(answer: Callable, *controls, buttons: dict[str, Callable] | None = None):
    """``controls`` above what ``answer(*their values)`` returns, a figure and a sentence, asked
    anew whenever one of them changes.

    ``buttons``: ``{label: function(*values)}``. A pressed one's sentence takes the place of the
    sentence above, its figure stands below until a control changes. ``None`` for a figure leaves
    the pictures as they are. What a function raises later is said as the sentence, because a
    callback's error is shown to nobody.
    """
    import ipywidgets

    def image(figure):
        png = b"" if figure is None else figures.to_png(figure)
        return ipywidgets.Image(
            value=png, format="png", layout=ipywidgets.Layout(max_width="720px")
        )

    def ask(function: Callable, label: str):
        message.value = _status(f"{label} ...")
        try:
            figure, sentence = function(*(control.value for control in controls))
        except Exception as error:
            figure, sentence = None, f"{label} did not work: {type(error).__name__}, {error}"
        message.value = _status(sentence)
        return figure

    def change(_) -> None:
        below.children = ()
        if (figure := ask(answer, "looking")) is not None:
            picture.value = figures.to_png(figure)

    def press(button) -> None:
        button.disabled = True
        if (figure := ask(buttons[button.description], button.description)) is not None:
            below.children = (image(figure),)
        button.disabled = False

    figure, sentence = answer(*(control.value for control in controls))
    message, picture, below = ipywidgets.HTML(_status(sentence)), image(figure), ipywidgets.VBox()
    pressed = [ipywidgets.Button(description=label) for label in buttons or ()]
    for control in controls:
        control.observe(change, names="value")
    for button in pressed:
        button.on_click(press)
    return ipywidgets.VBox([ipywidgets.HBox([*controls, *pressed]), message, picture, below])


def search_box(search: Callable[[str], tuple[object, str]], query: str):
    """A text field above what ``search(query)`` returns: a figure of the result and a sentence
    about it.

    Enter searches, and so does leaving the field, which is all that pressing the button does. An
    empty query asks for words.
    """
    import ipywidgets

    def answer(text: str):
        hint = "Type a query first, for example an organisation, a subject and a year."
        return search(text) if text.strip() else (None, hint)

    layout = ipywidgets.Layout(width="560px", max_width="100%")
    field = ipywidgets.Text(
        value=query, description="query", layout=layout, continuous_update=False
    )
    box = live_box(answer, field)
    box.children[0].children += (
        ipywidgets.Button(description="search", tooltip="search the pages for this query"),
    )
    return box


def draw_hits(hits, query: str, queries: dict, corpus: dict, relevant_docs: dict, negatives: dict):
    """``(figure, sentence)`` of a search of the whole eval split, for :func:`search_box`: the best
    pages, and the rank of the page that answers.

    ``hits``: ``corpus_id`` and ``score`` of every page, best first, as ``util.semantic_search`` has
    them; ``queries`` and what follows: of :func:`~vdr_helpers.evaluation.retrieval_inputs`. For a
    query that is not among them no page is marked.
    """
    import torch

    page_ids = list(corpus)
    found = [page_ids[hit["corpus_id"]] for hit in hits]
    id_of_query = {text: query_id for query_id, text in queries.items()}
    kinds = page_kinds(id_of_query.get(query), found, relevant_docs, negatives)
    similarities = torch.tensor([hit["score"] for hit in hits])
    figure = figures.ranking(similarities, [corpus[page_id] for page_id in found], kinds, query)
    if "positive" not in kinds:
        return figure, "Not a query of the eval split: no page is marked."
    return figure, f"Rank of the page that answers: {kinds.index('positive') + 1}."
