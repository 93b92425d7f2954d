"""What notebook 03 trains with beside Sentence Transformers' own parts; appendix a1 derives what
makes it faster.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from sentence_transformers.util import cos_sim
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback

from vdr_helpers import figures
from vdr_helpers.cache import MANIFEST, atomic_write, settings_key
from vdr_helpers.evaluation import check_band
from vdr_helpers.gpu import retry_when_out_of_memory

# notebook 03 has it from here
from vdr_helpers.models import (
    use_matrix_product as use_matrix_product,
)
from vdr_helpers.models import weights_hash
from vdr_helpers.profiles import Profile
from vdr_helpers.published import published

# Training arguments that change what is shown, kept or waited for, but no number of the result.
NOT_THE_RESULT = (
    "output_dir", "run_name", "report_to", "project", "disable_tqdm", "push_to_hub", "do_eval", "use_cpu",
    "logging_", "log_", "eval_", "save_", "hub_", "dataloader_", "per_device_eval_", "trackio_",
)  # fmt: skip
# how a batch is cut: the gradient does not depend on it
MINI_BATCHES = ("mini_batch_size", "mini_batch_num_tokens")


# training arguments whose defaults are worth knowing
WORTH_KNOWING = ("lr_scheduler_type", "optim", "weight_decay", "max_grad_norm", "seed")
# what the published card calls the columns of its log
CARD_COLUMNS = {"epoch": "Epoch", "loss": "Training Loss", "eval_loss": "Validation Loss"}

# the end of a page's path: the folder of a PageStore, the SHA-1 of size and pixels
PAGE_FILE = re.compile(r"[/\\]pages-[0-9a-f]{10}[/\\][0-9a-f]{40}\.png$")


def course_additions(profile: Profile) -> SimpleNamespace:
    """What notebook 03 adds to the published script, by the names that its cells give it.

    ``mini_batches``, ``scoring`` and ``run_settings``: keyword arguments of the cached loss, the
    evaluator and the training arguments. ``model_changes``: functions to call with the loaded
    model. ``curve``: a :class:`LiveCurve`. ``before_training(trainer)`` prepares the trainer and
    returns the checkpoint to continue from, or ``None``.
    """

    def before_training(trainer) -> str | None:
        trainer.remove_callback(PrinterCallback)  # the curve shows the log
        retry_when_out_of_memory(trainer)
        return resume_point(trainer, profile.output_dir)

    return SimpleNamespace(
        mini_batches={
            "mini_batch_size": profile.mini_batch_size,
            "mini_batch_num_tokens": profile.mini_batch_num_tokens,
        },
        scoring={
            "batch_size": profile.encode_batch_size,
            "score_functions": cosine_at(profile.matryoshka_dims),
            "main_score_function": "cosine",
        },
        run_settings={
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_num_workers": profile.dataloader_num_workers,
            "dataloader_pin_memory": torch.cuda.is_available(),
        },
        model_changes=[
            use_matrix_product,
            partial(add_adapters, adapters=profile.adapters),
            without_examples,
        ],
        curve=LiveCurve(dim=profile.matryoshka_dims[-1]),
        before_training=before_training,
    )


def without_examples(model) -> None:
    """Keep the library from collecting example queries for the model card: it collects none where
    one is there, and saving the model replaces this one (``model_card.fill``).
    """
    model.model_card_data.widget = [{"text": "a query"}]


def add_adapters(model, adapters: Sequence[dict]) -> None:
    """Add LoRA with these arguments of ``peft.LoraConfig`` and keep its matrices in 32 bits.

    PyTorch's gradient scaler, which saves small 16-bit gradients from vanishing, refuses anything
    less.
    """
    from peft import LoraConfig

    for adapter in adapters:
        model.add_adapter(LoraConfig(**adapter))
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()


def cosine_at(dims: Sequence[int]) -> dict[str, Callable]:
    """``score_functions`` with which one ``InformationRetrievalEvaluator`` scores the first numbers
    of its vectors at several widths.

    Queries and pages are encoded once for all of them. The first of ``dims`` must be the largest:
    it keeps the name ``"cosine"``, which ``main_score_function`` is given; the others are called
    ``"cosine-<dim>d"``, as in ``"<name>_cosine-8d_ndcg@10"``. Raises ``ValueError`` when the
    dimensions are empty or not in falling order, and, when it scores, for one that is wider than
    the vectors.
    """
    if not dims or list(dims) != sorted(set(dims), reverse=True):
        raise ValueError(f"dims must be different numbers, the largest first; got {list(dims)}")

    def similarity(dim: int, queries: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
        if dim > pages.shape[1]:
            raise ValueError(
                f"dimension {dim} does not fit: this model's embeddings have {pages.shape[1]} numbers"
            )
        return cos_sim(queries[:, :dim], pages[:, :dim])

    return {
        f"cosine-{dim}d" if i else "cosine": partial(similarity, dim) for i, dim in enumerate(dims)
    }


class LiveCurve(TrainerCallback):
    """The training curve, redrawn at every evaluation, above a line that says how far the run is
    and how long it will take.

    Display ``curve.widget``, or ``curve.message`` for the line alone, then train. ``dim``: a
    second, shorter width whose NDCG@10 is drawn beside the full one.
    """

    def __init__(self, dim: int | None = None) -> None:
        import ipywidgets

        self.dim = dim
        empty = figures.to_png(figures.training_curve([]))
        self.picture = ipywidgets.Image(
            value=empty, format="png", layout=ipywidgets.Layout(max_width="720px")
        )
        self.message = ipywidgets.Label("the first step has not ended yet")
        self.widget = ipywidgets.VBox([self.message, self.picture])

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        done = {
            "n": state.global_step,
            "total": state.max_steps,
            "initial": self.first_step,
            "unit": "step",
        }
        self.message.value = tqdm.format_meter(
            **done, elapsed=time.monotonic() - self.started, ncols=80
        )

    def show(self, log_history: list[dict]) -> None:
        """Display the whole curve as a figure, with alt text that tells its first and last
        values.
        """
        losses, scores = figures.read_log(log_history)
        validation = [entry["eval_loss"] for entry in log_history if "eval_loss" in entry]
        told = [f"Training loss goes from {losses[0][1]:.1f} to {losses[-1][1]:.1f}"]
        if validation:
            told.append(f"validation loss from {validation[0]:.1f} to {validation[-1]:.1f}")
        told.append(
            f"NDCG@10 on the monitored eval pages from {scores[0][1]:.2f} to {scores[-1][1]:.2f}"
        )
        if self.dim:
            short = figures.read_log(log_history, dim=self.dim)[1]
            told.append(f"and at the smallest width from {short[0][1]:.2f} to {short[-1][1]:.2f}")
        figures.show(figures.training_curve(log_history, self.dim), alt=", ".join(told) + ".")

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        self.picture.value = figures.to_png(figures.training_curve(state.log_history, self.dim))


def whole_log(scores_before: dict, log_history: list[dict]) -> list[dict]:
    """``trainer.state.log_history`` with the scores before the training in front, as step 0."""
    start = {f"eval_{name}": value for name, value in scores_before.items()}
    return [{"step": 0, "epoch": 0.0} | start, *log_history]


def log_table(log_history: list[dict]):
    """The log as a ``pandas.DataFrame`` with the columns of the published card's, a row for each
    step that logged a loss or a score.
    """
    import pandas

    table = pandas.DataFrame(log_history)
    [score] = [name for name in table.columns if name.endswith("_cosine_ndcg@10")]
    columns = CARD_COLUMNS | {score: "NDCG@10"}
    table = table.reindex(columns=["step", *columns]).groupby("step").first()
    return table.dropna(subset=["loss", score], how="all").rename(columns=columns)


def check_log(profile: Profile, log) -> None:
    """Print whether the training loss fell, and :func:`check_band` for the rise of NDCG@10, from
    the table of :func:`log_table`.
    """
    losses, scores = (log[name].dropna().tolist() for name in ("Training Loss", "NDCG@10"))
    print("loss fell:", losses[-1] < losses[0])
    rise, band = scores[-1] - scores[0], profile.bands["rise"]
    check_band("rise of NDCG@10 during training", rise, *band, hint="Train longer.")


def show_beside_published(log) -> None:
    """Display the table of :func:`log_table` and, below it, the published card's."""
    import pandas
    from IPython.display import display

    published_log = pandas.DataFrame(published()["training_log"]).set_index("step")
    published_log.columns = log.columns
    for caption, table in (("measured here", log), ("published", published_log)):
        display(table.style.format(precision=4, na_rep="-").set_caption(caption))


def loss_beside_published(loss):
    """The loss and its parameters here and in the published run, as a ``pandas.DataFrame``."""
    import pandas

    card = published()["loss"]
    here = {"name": type(loss).__name__} | loss.get_config_dict()
    there = {"name": card["name"]} | card["parameters"]
    return pandas.DataFrame({"here": here, "published": there}).map(str)


def arguments_beside_published(args):
    """Training arguments here and in the published run, as a ``pandas.DataFrame``.

    A row for each that is not default there, for :data:`WORTH_KNOWING`, and for every other one in
    which the two differ.
    """
    import pandas

    here, there = args.to_dict(), published()["arguments"]
    differing = [name for name in there if name in here and here[name] != there[name]]
    names = dict.fromkeys([*published()["not_default"], *WORTH_KNOWING, *differing])
    rows = {name: {"here": str(here[name]), "published": str(there[name])} for name in names}
    return pandas.DataFrame.from_dict(rows, orient="index")


def run_settings(trainer) -> dict:
    """Everything that decides what a training run ends in, read from the trainer that is about to
    start.
    """
    losses = [
        part for part in (trainer.loss, getattr(trainer.loss, "loss", None)) if part is not None
    ]
    arguments = trainer.args.to_dict()
    weights = trainer.model.named_parameters()
    return {
        "arguments": {
            name: value for name, value in arguments.items() if not name.startswith(NOT_THE_RESULT)
        },
        "losses": [loss_settings(loss) for loss in losses],
        "rows": settings_key({"rows": rows_by_content(trainer.train_dataset)}),
        "start": weights_hash(trainer.model, leave_out="lora_"),
        "trained weights": [name for name, weight in weights if weight.requires_grad],
    }


def rows_by_content(dataset) -> dict:
    """The columns of a dataset, with a page of the course by the name of its file: that is a hash
    of its pixels, and stays the same where the outputs are moved.
    """

    def by_name(value):
        is_page = isinstance(value, str) and PAGE_FILE.search(value)
        return re.split(r"[/\\]", value)[-1] if is_page else value

    return {name: [by_name(value) for value in dataset[name]] for name in dataset.column_names}


def loss_settings(loss) -> dict:
    """A loss's class and its settings, but for how it cuts a batch."""
    config = getattr(loss, "get_config_dict", dict)()
    settings = {name: value for name, value in config.items() if name not in MINI_BATCHES}
    return {"class": type(loss).__name__} | settings


def resume_point(trainer, root: str | Path) -> str | None:
    """Give the trainer a checkpoint folder of its own, and return its newest whole checkpoint, or
    ``None``.

    For ``trainer.train(resume_from_checkpoint=...)``. The folder ``root/checkpoints-<key>`` belongs
    to this run alone (:func:`run_settings`), so that a changed run never resumes another one's
    checkpoints.
    """
    settings = run_settings(trainer)
    folder = Path(root) / f"checkpoints-{settings_key(settings)}"
    if trainer.is_world_process_zero():  # one of several processes
        folder.mkdir(parents=True, exist_ok=True)
        manifest = {"settings": settings, "files": {}}
        atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1, default=str) + "\n")
    trainer.args.output_dir = str(folder)
    return last_checkpoint(folder)


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint in ``folder``, or ``None``.

    ``get_last_checkpoint`` of ``transformers`` takes a half-written one for whole. The Trainer
    writes ``trainer_state.json`` last, so one where it can be read is whole.
    """
    whole = {}
    for state in Path(folder).glob("checkpoint-*/trainer_state.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            step = json.loads(state.read_text(encoding="utf-8"))["global_step"]
            whole[step] = str(state.parent)
    return whole[max(whole)] if whole else None
