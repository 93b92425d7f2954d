"""The model card: a split's statistics as it tables them (02), the card that Sentence Transformers
writes filled when notebook 03 saves its model, and read and completed in notebook 06.
"""

from __future__ import annotations

import re

from vdr_helpers.cache import read_manifest
from vdr_helpers.published import read_asset

ASSETS = r"(?<=['\"])assets/"  # how the library's card names a picture that lies beside it


def fill(model, trainer, base: dict, dataset: dict) -> None:
    """Give the library's model card pages instead of paths, names with commits, and the whole
    training log.

    Left alone it prints paths of this machine as samples, asks the hub for a repository named like
    the base's folder, leaves out the steps before a resume, and calls the time until saving
    training time. ``base`` and ``dataset``: ``{"name", "revision"}`` of
    :func:`~vdr_helpers.splits.resolve_revision`; one that is not on the hub gets no link.
    """
    card = model.model_card_data
    card.local_files_only, card.widget, card._training_start_time = True, [], None
    if is_commit(base["revision"]):
        card.base_model, card.base_model_revision = base["name"], base["revision"]
    source = {"name": dataset["name"]}
    if is_commit(dataset["revision"]):
        source |= {"id": dataset["name"], "revision": dataset["revision"]}
        card.datasets = [dataset["name"]]
    for which in ("train", "eval"):
        rows = getattr(trainer, f"{which}_dataset")
        if rows is not None:
            found = card.extract_dataset_metadata(
                opened_pages(rows), [dict(source)], trainer.loss, which
            )
            setattr(card, f"{which}_datasets", found)
    first = opened_pages(trainer.eval_dataset or trainer.train_dataset)[:3]
    card.generate_widget_examples = True  # the scores of the usage example
    card.usage_examples = [first["query"][0], *first["image"]]
    card.training_logs = whole_log(card.training_logs, trainer.state.log_history)


def count_tokens(query: str, processor) -> int:
    """The tokens that the model receives for a query, those of the chat template included."""
    turn = [{"role": "user", "content": [{"type": "text", "text": query}]}]
    settings = {"tokenize": True, "add_generation_prompt": True, "return_dict": True}
    return len(processor.apply_chat_template(turn, **settings)["input_ids"][0])


def column_statistics(table, processor) -> dict[str, list[str]]:
    """``{column: [type, smallest, mean, largest]}`` of a split, as the published card tables them.

    Queries by their number of tokens, pages by their number of pixels; the mean page has the mean
    width and height. Pages of one area and several shapes are all named.
    """
    from PIL import Image

    tokens = [count_tokens(query, processor) for query in table["query"]]
    lengths = [min(tokens), sum(tokens) / len(tokens), max(tokens)]
    found = {"query": ["string", *(f"{length:.4g} tokens" for length in lengths)]}
    for name in table.column_names[1:]:
        shapes: dict[int, set[str]] = {}  # by area
        widths, heights = [], []
        for file in table[name]:
            with Image.open(file) as page:
                shapes.setdefault(page.width * page.height, set()).add(
                    f"{page.width}x{page.height}"
                )
                widths.append(page.width)
                heights.append(page.height)
        smallest, largest = (" or ".join(sorted(shapes[end(shapes)])) for end in (min, max))
        mean = f"{round(sum(widths) / len(widths))}x{round(sum(heights) / len(heights))}"
        found[name] = ["image", *(f"{size} px" for size in (smallest, mean, largest))]
    return found


def is_commit(revision: str | None) -> bool:
    """Whether ``revision`` is a whole commit of the hub."""
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def opened_pages(dataset):
    """The dataset with its columns of page files as pictures, which are opened where a row is
    read.
    """
    from datasets import Image

    for name in dataset.column_names:
        if name != "query":
            dataset = dataset.cast_column(name, Image())
    return dataset


def whole_log(card_log: list[dict], log_history: list[dict]) -> list[dict]:
    """The card's log rows with those that the trainer logged before a resume, in the order of their
    steps.

    ``card_log``: rows with ``Epoch``, ``Step`` and columns of the library; step -1 stands before or
    after the training.
    """
    known = {row["Step"] for row in card_log}
    earlier: dict[int, dict] = {}
    for entry in log_history:
        if entry["step"] not in known:
            row = earlier.setdefault(
                entry["step"], {"Epoch": entry["epoch"], "Step": entry["step"]}
            )
            for name, value in entry.items():
                if name == "loss":
                    row["Training Loss"] = value
                elif name == "eval_loss":
                    row["Validation Loss"] = value
                elif name.endswith("cosine_ndcg@10"):
                    row[name.removeprefix("eval_")] = value
    first = 1 if card_log and card_log[0]["Step"] == -1 else 0
    return card_log[:first] + list(earlier.values()) + card_log[first:]


def licence_of(model: str) -> str | None:
    """A base model's licence as the hub writes it, ``apache-2.0`` or ``mit``; ``None`` where it is
    another one or not known here.

    Known are the models of ``assets/models.json`` and the shipped base.
    """
    known = {row["model"]: row["licence"] for row in read_asset("models.json")["models"]}
    licence = "Apache-2.0" if model.startswith("assets/") else known.get(model)
    return licence.lower() if licence in ("Apache-2.0", "MIT") else None


def sections(text: str) -> list[str]:
    """The headings of a card that a reader sees, ``#`` signs included; what stands in a comment is
    left out.
    """
    visible = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.findall(r"^##+ .*$", visible, re.MULTILINE)


def facts(text: str) -> dict[str, str]:
    """The lines ``- **Name:** value`` of a card's description, by name."""
    return dict(re.findall(r"^- \*\*(.+?):\*\*\s+(?:- )?(.+)$", text, re.MULTILINE))


def published_facts(published: dict) -> dict[str, str]:
    """The published card's description under the names of :func:`facts`; ``published``: what
    ``published()`` returns.
    """
    card, settings = published["card"], published["hyperparameters"]
    dims = ", ".join(str(dim) for dim in settings["matryoshka_dims"])
    return {
        "Model Type": card["model_type"],
        "Base model": published["base_model"],
        "Maximum Sequence Length": f"{card['max_seq_length']} tokens",
        "Output Dimensionality": f"{dims} dimensions, default {settings['truncate_dim']}",
        "Similarity Function": card["similarity"],
        "Supported Modalities": ", ".join(card["modalities"]),
        "Training Dataset": card["dataset"],
        "Language": card["language"],
        "License": card["license"],
    }


def set_facts(text: str, values: dict[str, str]) -> str:
    """The card's text with these values in its description; the library comments a line out where
    it knows none.
    """
    for name, value in values.items():
        line = rf"^(<!-- )?- \*\*{re.escape(name)}:\*\*.*$"
        text = re.sub(line, lambda _, new=f"- **{name}:** {value}": new, text, flags=re.MULTILINE)
    return text


def set_sizes(text: str, model, dims) -> str:
    """The card's text with the longest input that ``model`` takes and the dimensions that it
    offers: all of ``dims``, and those that it returns by default.
    """
    longest = model[0].auto_model.config.text_config.max_position_embeddings
    offered, width = ", ".join(map(str, dims)), model.get_embedding_dimension()
    sizes = {
        "Maximum Sequence Length": f"{longest} tokens",
        "Output Dimensionality": f"{offered} dimensions, default {width}",
    }
    return set_facts(text, sizes)


def provenance(tuned: str) -> tuple[str, str]:
    """``(name of the base, list in Markdown of what differs from the published setting)``, as the
    manifest of the tuned model in the folder ``tuned`` has them.

    Without a manifest, as for a model on the hub, both say that it is not known.
    """
    manifest = read_manifest(tuned) or {}
    base = manifest.get("model", {}).get("name", "not known")
    different = manifest.get("trained", {}).get("not the published setting", "not known here")
    return base, "\n".join(f"- {setting}" for setting in different.split("; "))


def score_tables(metrics: str, truncation: dict | None) -> str:
    """The table ``metrics`` of :func:`set_head`, and below it NDCG@10 of base and tuned model by
    dimension, in Markdown.

    ``truncation``: what notebook 05 keeps, ``{"base": {dimensions: score}, "finetuned": ...}``;
    ``None`` leaves the second table out.
    """
    if not truncation:
        return metrics
    rows = ["| Dimensions | Base | Tuned |", "|---|---|---|"]
    for dim, tuned in truncation["finetuned"].items():
        rows.append(f"| {dim} | {truncation['base'][dim]:.3f} | {tuned:.3f} |")
    heading = "NDCG@10 of base and tuned model by dimension:"
    return "\n".join([metrics, "", heading, "", *rows])


def set_head(card, model, title: str, fields: dict) -> str:
    """Give the card a title, and its YAML head these fields and the metrics that an evaluator wrote
    into ``model.model_card_data``; returns the metrics as a table in Markdown.

    ``fields``: under the names of the head. The description gets ``language`` and ``license`` too,
    and says so where no licence is known.
    """
    from huggingface_hub.repocard_data import model_index_to_eval_results

    model.model_card_data.model_name = title
    formatted = model.model_card_data.format_eval_metrics()
    _, card.data.eval_results = model_index_to_eval_results(formatted["model-index"])
    card.data.metrics = formatted["metrics"]
    for name, value in {"model_name": title, **fields}.items():
        setattr(card.data, name, value)
    licence = fields["license"] or "not known here: look it up before you use the model"
    text = re.sub(r"^# .*$", lambda _: f"# {title}", card.text, count=1, flags=re.MULTILINE)
    card.text = set_facts(text, {"Language": fields["language"], "License": licence})
    return formatted["eval_metrics"][0]["table"]


def set_usage(text: str, repository: str, width: int, similarities) -> str:
    """The usage example with the repository's name and addresses, and with the shapes and
    similarities that a user gets.

    ``similarities``: a tensor of shape (1, pages), of embeddings with ``width`` dimensions.
    """
    pages = similarities.shape[1]
    text = text.replace("sentence_transformers_model_id", repository)
    text = re.sub(
        r"install -U sentence-transformers$",
        'install -U "sentence-transformers[image]"',
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(ASSETS, f"https://huggingface.co/{repository}/resolve/main/assets/", text)
    text = re.sub(r"to a \d+-dimensional", f"to a {width}-dimensional", text)
    text = re.sub(
        r"^# \[1, \d+\] \[\d+, \d+\]$", f"# [1, {width}] [{pages}, {width}]", text, flags=re.M
    )
    return re.sub(r"^# tensor\(.*\)$", f"# {similarities}", text, flags=re.MULTILINE)


def set_evaluation(text: str, own: str) -> str:
    """The card's text with ``own`` in the place of its section ``## Evaluation``, in front of ``##
    Training Details``.
    """
    before, heading, training = text.partition("## Training Details")
    before = before.partition("## Evaluation")[0]
    return f"{before}{own.strip()}\n\n{heading}{training}"


def versions(text: str) -> dict[str, str]:
    """The packages that a card names with their versions."""
    listed = text.partition("### Framework Versions")[2]
    return dict(re.findall(r"^- ([A-Z][\w ]+): (\S+)$", listed, re.MULTILINE))


def works_cited(text: str) -> list[str]:
    """The BibTeX keys in ``text``."""
    return re.findall(r"@\w+\{([\w-]+),", text)
