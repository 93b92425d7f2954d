"""What notebook 03 trains with beside Sentence Transformers' own parts; appendix a1 derives and checks what makes it faster."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType

import torch
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator, SequentialEvaluator
from transformers import TrainerCallback

from vdr_helpers import figures
from vdr_helpers.stamps import STAMP, file_sizes, whole_folder, write_stamp, write_whole


def page_keys(dataset):
    """The dataset with every page replaced by the SHA-1 of its file, as a string; text columns stay as they are.

    ``dataset``: a ``datasets.Dataset`` with text and ``Image`` columns. Returns a small ``Dataset`` of the same rows and columns, for
    ``NoDuplicatesBatchSampler``: two rows share a key exactly when they share a page file. Pages that were saved twice with different
    bytes get different keys, so presize and save them in one way first (notebook 02 does). Raises ``ValueError`` for an image without
    bytes, such as one given as a path.
    """
    from datasets import Dataset, Image

    columns = {}
    for name in dataset.column_names:
        if not isinstance(dataset.features[name], Image):
            columns[name] = dataset[name][:]
            continue
        files = dataset.select_columns(name).cast_column(name, Image(decode=False))[name][:]
        if any(file is not None and file["bytes"] is None for file in files):
            raise ValueError(
                f"column {name!r} holds paths, not pages: save the dataset with its pages inside first (notebook 02)"
            )
        columns[name] = [
            None if file is None else hashlib.sha1(file["bytes"], usedforsecurity=False).hexdigest() for file in files
        ]
    return Dataset.from_dict(columns)


def page_paths(dataset, folder: str | Path):
    """The dataset with every page replaced by the path of its file in ``folder``, written there first if it is not there yet.

    Sentence Transformers takes paths where it takes images and opens each one when its batch is encoded, so that a corpus of paths
    costs no memory for pixels. Files are named by content: a page that stands in several rows is written once. Returns a ``Dataset``
    of the same rows and columns. Raises ``ValueError`` as :func:`page_keys` does.
    """
    from datasets import Dataset, Image

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    keys = page_keys(dataset)
    columns = {name: keys[name][:] for name in keys.column_names}
    for name in keys.column_names:
        if not isinstance(dataset.features[name], Image):
            continue
        files = dataset.select_columns(name).cast_column(name, Image(decode=False))[name]
        for i, file in enumerate(files):
            if file is None:
                continue
            path = folder / f"{columns[name][i]}.png"
            if not path.exists():
                write_whole(path, file["bytes"])
            columns[name][i] = str(path)
    return Dataset.from_dict(columns)


def no_duplicates_by_key(dataset, **settings):
    """The library's ``NoDuplicatesBatchSampler`` on :func:`page_keys` instead of pages: the same batches, and no page is opened.

    A function with a name, because checkpoints save the arguments and a ``lambda`` cannot be saved (appendix a1 checks the batches).
    """
    return NoDuplicatesBatchSampler(page_keys(dataset), **settings)


@dataclass
class PixelsInFormat(SentenceTransformerDataCollator):
    """The trainer's data collator with pixels in the model's number format: the cast that the model makes first, made before they travel.

    ``preprocess_fn``: ``model.preprocess``; ``dtype``: ``model.dtype``. With 16-bit weights a batch takes half the transfer and half the
    memory and the model computes on the same numbers (appendix a1); with 32-bit weights nothing changes.
    """

    dtype: torch.dtype = torch.float32

    def __call__(self, rows: list[dict]) -> dict:
        features = super().__call__(rows)
        return {name: value.to(self.dtype) if name.endswith("pixel_values") else value for name, value in features.items()}


def use_matrix_product(model) -> bool:
    """Let the patch convolution of a Qwen-VL model run as one matrix product; returns whether this model has such a layer.

    Each patch is convolved with a kernel of its own size, so that every output is one dot product per patch: same weights, same result up
    to rounding. On CPUs the backward pass of the convolution is several times slower (``benchmarks/recipes.py`` measures the step
    with and without). Nothing is changed in the weights or in what ``save_pretrained`` writes. A convolution that something else is
    wrapped around, such as an adapter, is left to it, now and if it is wrapped later. ``model``: a ``SentenceTransformer``.
    """
    from torch.nn import Conv3d, functional

    visual = getattr(getattr(model[0], "auto_model", None), "visual", None)
    layer = getattr(visual, "patch_embed", None)
    convolution = getattr(layer, "proj", None)
    if type(convolution) is not Conv3d or tuple(convolution.kernel_size) != tuple(convolution.stride):
        return False
    by_convolution = type(layer).forward

    def forward(self, pixel_values):
        if type(self.proj) is not Conv3d:
            return by_convolution(self, pixel_values)
        weight = self.proj.weight  # (out, channels, frames, 16, 16); pixel_values: (patches, channels x frames x 256)
        return functional.linear(pixel_values.to(weight.dtype), weight.reshape(weight.shape[0], -1), self.proj.bias)

    layer.forward = MethodType(forward, layer)  # bound, so that a deep copy of the model uses its own weights
    return True


class SharedEncoding(InformationRetrievalEvaluator):
    """An ``InformationRetrievalEvaluator`` that takes its embeddings from ``encoded`` and encodes only what is not there yet.

    ``encoded`` maps ``"query"`` and ``"document"`` to tensors of shape (items, full width); each evaluator slices its own
    ``truncate_dim`` from them. The scores are those of an evaluator that encodes for itself.
    """

    def __init__(self, *args, encoded: dict, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.encoded = encoded

    def embed_inputs(self, model, sentences, encode_fn_name=None, **kwargs):
        if encode_fn_name not in self.encoded:
            own_dim, self.truncate_dim = self.truncate_dim, None  # None: encode at the model's full width
            try:
                self.encoded[encode_fn_name] = super().embed_inputs(model, sentences, encode_fn_name=encode_fn_name, **kwargs)
            finally:
                self.truncate_dim = own_dim
        return self.encoded[encode_fn_name][..., : self.truncate_dim]


class OnePassMatryoshkaEvaluator(SequentialEvaluator):
    """NDCG@10 and the other retrieval metrics at several dimensions, with queries and pages encoded once per call.

    ``queries``, ``corpus``, ``relevant_docs`` and further keyword arguments are those of ``InformationRetrievalEvaluator``. The first of
    ``truncate_dims`` must be the largest: it gives the primary metric and keeps the plain name, ``"<name>_cosine_ndcg@10"``; the others
    are called ``"<name>-<dim>d_cosine_ndcg@10"``. Embeddings are let go at the end of each call, so that a later call sees the weights
    of its own moment. Raises ``ValueError`` when the dimensions are empty or not in falling order, or wider than the model.
    """

    def __init__(
        self, queries: dict, corpus: dict, relevant_docs: dict, truncate_dims: Sequence[int], name: str = "", **settings
    ) -> None:
        dims = list(truncate_dims)
        if not dims or dims != sorted(set(dims), reverse=True):
            raise ValueError(f"truncate_dims must be different numbers, the largest first; got {dims}")
        self.encoded: dict = {}
        self.truncate_dims = dims
        evaluators = [
            SharedEncoding(
                queries,
                corpus,
                relevant_docs,
                encoded=self.encoded,
                truncate_dim=dim,
                name=name if i == 0 else f"{name}-{dim}d",
                corpus_chunk_size=max(1, len(corpus)),  # one chunk: the whole corpus is one entry of the shared embeddings
                **settings,
            )
            for i, dim in enumerate(dims)
        ]
        super().__init__(evaluators, main_score_function=lambda scores: scores[0])

    def __call__(self, model, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> dict[str, float]:
        width = model.get_embedding_dimension()
        if self.truncate_dims[0] > width:
            raise ValueError(f"dimension {self.truncate_dims[0]} does not fit: this model's embeddings have {width} numbers")
        self.encoded.clear()
        try:
            return super().__call__(model, output_path=output_path, epoch=epoch, steps=steps)
        finally:
            self.encoded.clear()


def ndcg(entry: dict, dim: int | None = None) -> float | None:
    """NDCG@10 of one log entry at the full width, or at ``dim`` (names of ``OnePassMatryoshkaEvaluator``); ``None`` if not there."""
    for name, value in entry.items():
        found = re.search(r"(?:-(\d+)d)?_cosine_ndcg@10$", name)
        if found and found.group(1) == (None if dim is None else str(dim)):
            return value
    return None


def read_log(log_history: list[dict], dim: int | None = None) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """``(losses, scores)`` as ``(step, value)`` pairs from ``trainer.state.log_history``; scores are NDCG@10, full width or ``dim``."""
    losses = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    return losses, [(entry["step"], ndcg(entry, dim)) for entry in log_history if ndcg(entry, dim) is not None]


def log_table(log_history: list[dict]):
    """The training log as the published card prints it: epoch, step, training loss, NDCG@10; a pandas ``DataFrame``."""
    import pandas

    rows: dict[int, dict] = {}
    for entry in log_history:
        row = rows.setdefault(entry["step"], {"Epoch": round(entry.get("epoch", 0.0), 3), "Step": entry["step"]})
        if "loss" in entry:
            row["Training loss"] = entry["loss"]
        if ndcg(entry) is not None:
            row["NDCG@10"] = ndcg(entry)
    table = pandas.DataFrame(
        [row for row in rows.values() if len(row) > 2], columns=["Epoch", "Step", "Training loss", "NDCG@10"]
    )
    return table.set_index("Step")


def duration(seconds: float) -> str:
    """``"40 s"``, ``"12 min"`` or ``"2.5 h"``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class LiveCurve(TrainerCallback):
    """The training curve, redrawn at every evaluation, above a line that says how far the run is and how long it will take.

    Display ``curve.widget``, then train. ``dim``: a second, shorter width whose NDCG@10 is drawn beside the full one, as
    ``OnePassMatryoshkaEvaluator`` reports it. The time left is the mean time of the steps so far, evaluations included, times the steps
    that are left.
    """

    def __init__(self, dim: int | None = None) -> None:
        import ipywidgets

        self.dim = dim
        empty = figures.to_png(figures.training_curve([], []))
        self.picture = ipywidgets.Image(value=empty, format="png", layout=ipywidgets.Layout(max_width="720px"))
        self.message = ipywidgets.Label("the first evaluation comes before the first step")
        self.widget = ipywidgets.VBox([self.message, self.picture])
        self.started, self.first_step = 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        done, elapsed = state.global_step - self.first_step, time.monotonic() - self.started
        left = elapsed / max(done, 1) * (state.max_steps - state.global_step)
        self.message.value = (
            f"step {state.global_step} of {state.max_steps}, {duration(elapsed)} so far, about {duration(left)} left"
        )

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        losses, scores = read_log(state.log_history)
        short = read_log(state.log_history, self.dim)[1] if self.dim else []
        self.picture.value = figures.to_png(figures.training_curve(losses, scores, short, self.dim))


# Arguments that change what is shown, kept or waited for, but no number of the result; all others belong to the run.
NOT_THE_RESULT = ("output_dir", "run_name", "report_to", "project", "disable_tqdm", "push_to_hub", "do_eval", "use_cpu")
NOT_THE_RESULT += ("logging_", "log_", "eval_", "save_", "hub_", "dataloader_", "per_device_eval_", "trackio_")
MINI_BATCHES = ("mini_batch_size", "mini_batch_num_tokens")  # how a batch is cut: the gradient does not depend on it


def run_settings(trainer, **more) -> dict:
    """What decides a run's result, read from the trainer that is about to start: arguments, loss, rows, trained weights; and ``more``.

    Pages count by content, so that the same rows prepared again are the same run. Raises ``ValueError`` as
    :func:`vdr_helpers.batches.page_keys` does.
    """
    loss, model = trainer.loss, trainer.model
    losses = {
        name: getattr(part, "get_config_dict", dict)() for name, part in (("outer", loss), ("inner", getattr(loss, "loss", None)))
    }
    rows = page_keys(trainer.train_dataset).to_dict()
    return more | {
        "arguments": {name: value for name, value in trainer.args.to_dict().items() if not name.startswith(NOT_THE_RESULT)},
        "loss": {name: {key: value for key, value in found.items() if key not in MINI_BATCHES} for name, found in losses.items()},
        "kind of loss": type(loss).__name__,
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "trained weights": [
            [name, str(weight.dtype), *weight.shape] for name, weight in model.named_parameters() if weight.requires_grad
        ],
    }


def run_folder(root: str | Path, trainer, **more) -> Path:
    """``root/<key>``: one folder per :func:`run_settings`, so that a changed run never resumes another one's checkpoints.

    ``more``: what the trainer does not know, such as a key of the base model's weights; anything that ``json`` can write. Prints a line
    when ``root`` holds checkpoints of other runs, because each can be larger than the model.
    """

    def by_name(value) -> str:  # a function's own text holds its address, which is another one in every process
        return getattr(value, "__qualname__", None) or str(value)

    key = hashlib.sha256(json.dumps(run_settings(trainer, **more), sort_keys=True, default=by_name).encode()).hexdigest()[:12]
    folder = Path(root) / key
    others = [path for path in Path(root).glob("*/checkpoint-*") if path.parent != folder]
    if others:
        size = sum(file.stat().st_size for path in others for file in path.rglob("*") if file.is_file()) / 1e9
        print(
            f"checkpoints of other, unfinished runs lie in {Path(root).name}/ ({size:.1f} GB): delete what you do not want back"
        )
    return folder


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end. The Trainer writes ``trainer_state.json`` last, so that file must be readable."""
    try:
        step = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError):
        return False
    return checkpoint.name == f"checkpoint-{step}" and any(checkpoint.rglob("*.safetensors"))


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint in ``folder``, or ``None``: what ``trainer.train(resume_from_checkpoint=...)`` is given.

    A half-written checkpoint (a killed kernel, a full disk) is passed over; the Trainer writes over it when it gets there again.
    """
    numbered = [
        (int(path.name.rpartition("-")[2]), path) for path in Path(folder).glob("checkpoint-*") if path.name[11:].isdigit()
    ]
    return next((str(path) for _, path in sorted(numbered, reverse=True) if is_whole(path)), None)


def save_model_whole(model, folder: str | Path, made_from: dict) -> None:
    """``save_pretrained`` beside the target, then move: ``folder`` holds the whole old model or the whole new one, never a half.

    ``made_from``: the settings that the model came from (``vdr_helpers.stamps``), kept with it and with the length of every file.
    """
    with whole_folder(Path(folder)) as partial:
        model.save_pretrained(str(partial), create_model_card=False)
        write_stamp(partial, made_from | {"files": file_sizes(partial, STAMP)})
