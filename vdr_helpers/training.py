"""What notebook 03 trains with beside Sentence Transformers' own parts; appendix a1 derives and checks what makes it faster."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MethodType

import torch
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.util import cos_sim
from tqdm import tqdm
from transformers import TrainerCallback

from vdr_helpers import figures
from vdr_helpers.stamps import write_whole


def replace_pages(dataset, replacement: Callable[[bytes], str]):
    """The dataset with ``replacement(bytes of its file)`` in place of every page; text and missing pages stay as they are.

    Raises ``ValueError`` for an image without bytes, such as one given as a path.
    """
    from datasets import Features, Image, Value

    names = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    for name in names:
        dataset = dataset.cast_column(name, Image(decode=False))

    def replaced(row: dict) -> dict[str, str | None]:
        if paths := [name for name in names if row[name] and row[name]["bytes"] is None]:
            raise ValueError(
                f"column {paths[0]!r} holds paths, not pages: save the dataset with its pages inside first (notebook 02)"
            )
        return {name: row[name] and replacement(row[name]["bytes"]) for name in names}

    features = Features(dataset.features | dict.fromkeys(names, Value("string")))
    return dataset.map(replaced, features=features, keep_in_memory=True, load_from_cache_file=False)


def key_of(page: bytes) -> str:
    """SHA-1 of a page's file, as 40 hexadecimal digits."""
    return hashlib.sha1(page, usedforsecurity=False).hexdigest()


def page_keys(dataset):
    """The dataset with every page replaced by its :func:`key_of`: a small ``Dataset`` of the same rows and columns.

    For ``NoDuplicatesBatchSampler``: two rows share a key exactly when they share a page file. Pages that were saved twice with different
    bytes get different keys, so presize and save them in one way first (notebook 02 does). Raises as :func:`replace_pages` does.
    """
    return replace_pages(dataset, key_of)


def page_paths(dataset, folder: str | Path):
    """The dataset with every page replaced by the path of its file in ``folder``, written there first if it is not there yet.

    A corpus of paths costs no memory for pixels (notebook 03). Files are named by content: a page that stands in several rows is written
    once. Raises as :func:`replace_pages` does.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)

    def written(page: bytes) -> str:
        path = folder / f"{key_of(page)}.png"
        if not path.exists():
            write_whole(path, page)
        return str(path)

    return replace_pages(dataset, written)


def no_duplicates_by_key(dataset, **settings):
    """The library's ``NoDuplicatesBatchSampler`` on :func:`page_keys`: the same batches, and no page is opened (appendix a1)."""
    return NoDuplicatesBatchSampler(page_keys(dataset), **settings)


@dataclass
class PixelsInFormat(SentenceTransformerDataCollator):
    """The trainer's data collator with pixels in the model's number format: the cast that the model makes first, made before they travel.

    ``preprocess_fn``: ``model.preprocess``; ``dtype``: ``model.dtype``. The model computes on the same numbers (appendix a1).
    """

    dtype: torch.dtype = torch.float32

    def __call__(self, rows: list[dict]) -> dict:
        features = super().__call__(rows)
        return {name: value.to(self.dtype) if name.endswith("pixel_values") else value for name, value in features.items()}


def use_matrix_product(model) -> bool:
    """Let the patch convolution of a Qwen-VL ``SentenceTransformer`` run as one matrix product; returns whether it has such a layer.

    Each patch meets a kernel of its own size, so that every output is one dot product: same weights, same result up to rounding, faster on
    CPUs (appendix a1). A convolution that an adapter is wrapped around is left to it, now and if it is wrapped later.
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


def cosine_at(dims: Sequence[int]) -> dict[str, Callable]:
    """``score_functions`` with which one ``InformationRetrievalEvaluator`` scores the first numbers of its vectors at several widths.

    Queries and pages are encoded once for all of them. The first of ``dims`` must be the largest: it keeps the name ``"cosine"``, which
    ``main_score_function`` is given; the others are called ``"cosine-<dim>d"``, as in ``"<name>_cosine-8d_ndcg@10"``. Raises
    ``ValueError`` when the dimensions are empty or not in falling order, and, when it scores, for one that is wider than the vectors.
    """
    if not dims or list(dims) != sorted(set(dims), reverse=True):
        raise ValueError(f"dims must be different numbers, the largest first; got {list(dims)}")

    def similarity(dim: int, queries: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
        if dim > pages.shape[1]:
            raise ValueError(f"dimension {dim} does not fit: this model's embeddings have {pages.shape[1]} numbers")
        return cos_sim(queries[:, :dim], pages[:, :dim])

    return {f"cosine-{dim}d" if i else "cosine": partial(similarity, dim) for i, dim in enumerate(dims)}


class LiveCurve(TrainerCallback):
    """The training curve, redrawn at every evaluation, above a line that says how far the run is and how long it will take.

    Display ``curve.widget``, or ``curve.message`` for the line alone, then train. ``dim``: a second, shorter width whose NDCG@10 is
    drawn beside the full one.
    """

    def __init__(self, dim: int | None = None) -> None:
        import ipywidgets

        self.dim = dim
        empty = figures.to_png(figures.training_curve([]))
        self.picture = ipywidgets.Image(value=empty, format="png", layout=ipywidgets.Layout(max_width="720px"))
        self.message = ipywidgets.Label("the first step has not ended yet")
        self.widget = ipywidgets.VBox([self.message, self.picture])

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        done = {"n": state.global_step, "total": state.max_steps, "initial": self.first_step, "unit": "step"}
        self.message.value = tqdm.format_meter(**done, elapsed=time.monotonic() - self.started, ncols=80)

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        self.picture.value = figures.to_png(figures.training_curve(state.log_history, self.dim))


# Arguments that change what is shown, kept or waited for, but no number of the result; all others belong to the run.
NOT_THE_RESULT = ("output_dir", "run_name", "report_to", "project", "disable_tqdm", "push_to_hub", "do_eval", "use_cpu")
NOT_THE_RESULT += ("logging_", "log_", "eval_", "save_", "hub_", "dataloader_", "per_device_eval_", "trackio_")
MINI_BATCHES = ("mini_batch_size", "mini_batch_num_tokens")  # how a batch is cut: the gradient does not depend on it


def run_folder(root: str | Path, trainer, **more) -> Path:
    """``root/<key>``: one folder per run, so that a changed run never resumes another one's checkpoints.

    The key is of all that decides the result, read from the trainer that is about to start: arguments, loss, rows (by content), trained
    weights; ``more``: what the trainer does not know, such as the base model. Checkpoints of other runs are named with their size.
    """
    from datasets.fingerprint import Hasher

    losses = [part for part in (trainer.loss, getattr(trainer.loss, "loss", None)) if part is not None]
    configs = [getattr(part, "get_config_dict", dict)().items() for part in losses]
    weights = trainer.model.named_parameters()
    settings = more | {
        "arguments": {name: value for name, value in trainer.args.to_dict().items() if not name.startswith(NOT_THE_RESULT)},
        "losses": [type(part).__name__ for part in losses],
        "of the losses": [{name: value for name, value in config if name not in MINI_BATCHES} for config in configs],
        "rows": page_keys(trainer.train_dataset).to_dict(),
        "trained weights": [[name, str(weight.dtype), *weight.shape] for name, weight in weights if weight.requires_grad],
    }
    folder = Path(root) / Hasher.hash(settings)
    others = [path for path in Path(root).glob("*/checkpoint-*") if path.parent != folder]
    if others:
        size = sum(file.stat().st_size for path in others for file in path.rglob("*") if file.is_file()) / 1e9
        print(f"checkpoints of other runs lie in {Path(root).name}/ ({size:.1f} GB): delete what you do not want back")
    return folder


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint in ``folder``, or ``None``: what ``trainer.train(resume_from_checkpoint=...)`` is given.

    ``get_last_checkpoint`` of ``transformers`` takes a half-written one for whole. The Trainer writes ``trainer_state.json`` last, so one
    where it can be read is whole.
    """
    whole = {}
    for state in Path(folder).glob("checkpoint-*/trainer_state.json"):
        with suppress(OSError, ValueError, KeyError):
            whole[json.loads(state.read_text(encoding="utf-8"))["global_step"]] = str(state.parent)
    return whole[max(whole)] if whole else None
