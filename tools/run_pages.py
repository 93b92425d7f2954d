"""The web pages that a headless run leaves behind (``run_course``): one per executed notebook, and
an index that links them.
"""

from __future__ import annotations

import copy
import html
from pathlib import Path

WIDGET = "application/vnd.jupyter.widget-view+json"
STILL = (
    "A control stands here when the notebook runs; the outputs beside it show the same without it."
)
# long lines of code are not cut off
WRAPPED = "<style>.highlight pre {white-space: pre-wrap; overflow-wrap: anywhere}</style>"


def without_controls(notebook):
    """A copy of the notebook for readers without a kernel: a widget's output is one sentence
    instead of its internal state, and what was printed in pieces is one output.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output.data = type(output.data)({"text/plain": STILL})
        if "outputs" in cell:
            cell.outputs = joined(cell.outputs)
    return notebook


def joined(outputs: list) -> list:
    """The outputs of a cell, those that follow each other on one stream put together."""
    found: list = []
    for output in outputs:
        before = found[-1] if found else {}
        if output.output_type == "stream" and before.get("name") == output.name:
            before.text += output.text
        else:
            found.append(output)
    return found


def image_descriptions(notebook) -> dict[str, str]:
    """``{base64 data: alt text}`` of the notebook's PNG outputs, as its figures store them in the
    output's metadata.
    """
    descriptions = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt and "image/png" in output.get("data", {}):
                descriptions["".join(output.data["image/png"].split())] = alt
    return descriptions


def write_html(notebook, source_folder: Path, target: Path) -> None:
    """Convert an executed notebook to one HTML file that carries its pictures and their alt text,
    which nbconvert drops.
    """
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    resources = {"metadata": {"path": str(source_folder), "name": target.stem}}
    # outputs carry their pictures by themselves; embed_images would close every <details> above its
    # answer
    page, _ = HTMLExporter().from_notebook_node(without_controls(notebook), resources=resources)
    descriptions = image_descriptions(notebook)
    if descriptions:
        soup = BeautifulSoup(page, features="html.parser")
        for image in soup.select("img[src]"):
            data = "".join(image["src"].partition("base64,")[2].split())
            image["alt"] = descriptions.get(data, image.get("alt", ""))
        page = str(soup)
    target.write_text(page.replace("</head>", WRAPPED + "</head>", 1), encoding="utf-8")


def store_outputs(executed: Path, target: Path) -> None:
    """Write an executed notebook over its source, without what differs from run to run or keeps a
    code host from showing it.
    """
    import nbformat

    notebook = without_controls(nbformat.read(executed, as_version=4))
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, target)


def score_rows(summary: dict) -> list[tuple[str, str, str]]:
    """``(dimension, base, fine-tuned)`` as text, widest dimension first; a score that is missing is
    a dash.
    """
    base, finetuned = summary["ndcg_at_10"]["base"], summary["ndcg_at_10"]["finetuned"]
    dimensions = sorted({*base, *finetuned}, key=int, reverse=True)
    return [
        (dim, *(f"{scores[dim]:.3f}" if dim in scores else "–" for scores in (base, finetuned)))
        for dim in dimensions
    ]


def write_index(profile, summary: dict) -> Path:
    """Write ``index.html``: the executed notebooks with their minutes, and the scores."""
    copies = sorted((profile.output_dir / "notebooks").glob("*.html"))
    notebook_rows = "\n".join(
        f'<tr><td><a href="notebooks/{copy.name}">{html.escape(copy.stem)}</a></td>'
        f"<td>{summary['minutes'].get(copy.stem, '–')}</td>"
        f"<td>{html.escape(summary['failed'].get(copy.stem, ''))}</td></tr>"
        for copy in copies
    )
    scores = "\n".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in score_rows(summary))
    versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Course run: {html.escape(profile.name)}</title>
<style>body {{font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem}}
table {{border-collapse: collapse; margin: 1rem 0}} td, th {{border-bottom: 1px solid #bbb; padding: .3rem .8rem; text-align: left}}
</style></head><body>
<h1>The course, executed with profile <code>{html.escape(profile.name)}</code></h1>
<p>{html.escape(summary["device"])}. {html.escape(versions)}.</p>
<table><caption>Notebooks</caption><tr><th>Notebook</th><th>Minutes</th><th>Error</th></tr>
{notebook_rows}</table>
<table><caption>NDCG@10 on the evaluation split</caption><tr><th>Dimension</th><th>Base</th><th>Fine-tuned</th></tr>
{scores}</table>
</body></html>
"""
    index = profile.output_dir / "index.html"
    index.write_text(page, encoding="utf-8")
    return index
