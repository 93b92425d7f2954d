"""What differs between ``tiny``, ``full`` and ``rehearsal``, as data, and what the environment
changes.

The profiles are tables of ``assets/profiles.toml``. The environment is read here and nowhere else,
once, when ``start()`` calls :func:`load_profile`; what it returns holds plain values and paths:

- ``VDR_PROFILE`` names a profile; without it, ``tiny``.
- ``VDR_OUTPUTS`` is the folder for everything that you make; ``~`` and ``$HOME`` are expanded, and a relative path starts in the clone.
- ``VDR_MODEL``, ``VDR_FINETUNED``, ``VDR_RERANKER``, ``VDR_READER`` and ``VDR_DATASET`` hold a hub id, a hub id with ``@revision``, or a folder.
- ``VDR_ROWS=24:6`` keeps 24 training rows and 6 eval rows.
- ``VDR_SPLIT=published`` takes the split that ``python -m tools.prepare`` has fetched instead of notebook 02's.
- ``VDR_DOCUMENTS`` is a folder of PDF files for notebook 08, ``VDR_QUERY_MODEL`` the model that writes queries there, or ``none``.
- ``VDR_ATTENTION`` names another attention implementation than PyTorch's own, ``sdpa``.

A variable that is set to nothing counts as unset.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# The model's official value. The published script has 28 * 28; no published page is so small.
MIN_PIXELS = 64 * 64
OUTPUTS_VARIABLE = "VDR_OUTPUTS"
ROLES = {
    "VDR_MODEL": "model",
    "VDR_FINETUNED": "finetuned",
    "VDR_DATASET": "dataset",
    "VDR_RERANKER": "reranker",
    "VDR_READER": "reader",
}
# Settings whose difference from the published run is reported.
COMPARED = (
    "train_rows",
    "eval_rows",
    "max_pixels",
    "per_device_train_batch_size",
    "num_train_epochs",
    "learning_rate",
)
HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>[\w./-]+))?")


def assets_folder() -> Path:
    """The shipped assets: inside the package when installed from a wheel, beside it in a
    checkout.
    """
    inside = PACKAGE / "assets"
    return inside if inside.is_dir() else PACKAGE.parent / "assets"


def outputs_folder() -> Path:
    """``$VDR_OUTPUTS``, else ``outputs``: in the checkout, or in the current folder where there is
    none; absolute.

    A kernel runs in ``notebooks/`` and a command in the folder above: both mean the same folder by
    a relative path. Raises ``ValueError`` for a home or an environment variable that is not there.
    """
    path = expanded(os.environ.get(OUTPUTS_VARIABLE, "").strip() or "outputs")
    if path.startswith("~") or re.search(r"\$\w|\$\{", path):
        raise ValueError(
            f"{OUTPUTS_VARIABLE} is {path!r}, and there is no such home folder or environment variable: write the whole path, "
            "and restart the kernel"
        )
    checkout = PACKAGE.parent
    base = checkout if (checkout / "notebooks").is_dir() else Path.cwd()
    return (base / path).absolute()


def expanded(path: str) -> str:
    """``path`` with ``~`` and ``$HOME`` replaced; a home or a variable that is not there stays as
    it is.
    """
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111  Path.expanduser raises


def shipped(name: str) -> str:
    """A hub id as it is; a name that starts with ``assets/`` as the path of the shipped model."""
    if not name.startswith("assets/"):
        return name
    return str(assets_folder() / name.removeprefix("assets/"))


@dataclass(frozen=True)
class Profile:
    """One way of running the course. Field names follow Sentence Transformers' own argument names
    where there is one.
    """

    name: str
    model_name: str  # a hub id, or a folder under assets/ when it starts with "assets/"
    finetuned_name: str  # a tuned model to start from when notebook 03 has not been run
    dataset_name: str  # a hub id, or "generated"
    dataset_config: str
    matryoshka_dims: tuple[int, ...]
    truncate_dim: int  # what notebook 06 publishes
    max_pixels: int  # pixels per page after the processor's resize
    train_rows: int
    eval_rows: int
    monitor_rows: int  # eval rows that are scored during training; notebook 04 scores all of them
    per_device_train_batch_size: int
    mini_batch_size: (
        int  # pages per forward pass inside the cached loss; with a token budget, the most of them
    )
    encode_batch_size: int
    num_train_epochs: float
    learning_rate: float
    adapter_learning_rate: float  # takes learning_rate's place where LoRA is chosen
    warmup_steps: float  # a share of all steps when below 1
    bf16: bool
    seed: int = 42
    outputs: Path = Path("outputs")  # set by load_profile
    attention: str = "sdpa"
    # or "published": as the dataset's publisher split it (python -m tools.prepare)
    split: str = "notebook 02"
    model_kwargs: dict = field(default_factory=dict)
    bands: dict = field(default_factory=dict)  # (low, high) per checkpoint of notebooks 03 to 05
    mini_batch_num_tokens: int | None = (
        None  # tokens per forward pass inside the cached loss; None counts pages only
    )
    fp16: bool = False  # set where a GPU has no bfloat16
    dataloader_num_workers: int = (
        0  # processes that open and preprocess the next batches while the GPU computes
    )
    adapters: tuple[
        dict, ...
    ] = ()  # arguments of peft.LoraConfig; vdr_helpers.gpu adds one where all weights do not fit
    fitted_to_gpu: bool = (
        False  # compute dtype, attention and token budget are chosen by vdr_helpers.gpu
    )
    # training arguments in which notebook 10 differs from this profile
    late_interaction: dict = field(default_factory=dict)
    late_name: str | None = None  # what notebook 10 starts from; None: the base
    negatives_per_train_row: int = (
        1  # hard negatives kept per training row; the loss reads the first
    )
    benchmark_tasks: tuple[
        str, ...
    ] = ()  # public tasks of MTEB that notebook 06 scores too; their pages are downloaded
    # drop eval rows that share a page with train or each other; the published split keeps them
    distinct_eval_pages: bool = False
    model_revision: str | None = (
        None  # a commit, tag or branch of the hub; None takes the default branch
    )
    finetuned_revision: str | None = None
    dataset_revision: str | None = None
    preprocessed_name: str | None = (
        None  # the published dataset, split already (python -m tools.prepare)
    )
    model_folder: str | None = None  # a local folder that stands in for the hub id; never printed
    finetuned_folder: str | None = None
    dataset_folder: str | None = None
    reranker_name: str | None = (
        # a CrossEncoder to start from in notebook 09; None: one made of the base's own modules
        None
    )
    reranker_revision: str | None = None
    reranker_folder: str | None = None  # goes before the name
    reranker_rows: int = 0  # train rows whose pages notebook 09 trains the reranker on
    reranker_learning_rate: float = 0.0
    reader_name: str | None = (
        None  # a vision-language model that answers from pages in appendix a11; None: none is asked
    )
    reader_revision: str | None = None
    reader_folder: str | None = None  # goes before the name
    corpus: dict | None = (
        # where the dataset is generated: arguments of tiny_vdr.corpus.build_source
        None
    )
    documents_folder: str | None = (
        None  # PDF files of yours for notebook 08; None lets tiny_vdr.documents draw some
    )
    query_models: tuple[
        str, ...
    ] = ()  # vision-language models that write queries in notebook 08: hub ids or folders
    random_weights: str | None = (
        None  # a name in tiny_vdr.model.SIZES: the base is built from it on first use
    )

    @property
    def output_dir(self) -> Path:
        """``<outputs>/<profile>``: pages, splits, models, embeddings and results of this
        profile.
        """
        return self.outputs / self.name

    @property
    def processor_kwargs(self) -> dict:
        """The page's pixel budget, as the processor of Qwen3-VL wants it since transformers 5:
        pixels per page.
        """
        return {"size": {"shortest_edge": MIN_PIXELS, "longest_edge": self.max_pixels}}

    @property
    def base_model(self) -> str:
        """What ``SentenceTransformer(...)`` is given: the hub id (with ``model_revision``), or a
        folder's path.
        """
        return self.model_folder or shipped(self.model_name)

    @property
    def late_start(self) -> str:
        """What notebook 10's ``MultiVectorEncoder(...)`` is given: as :attr:`base_model`, or a
        model that has learned with all of its tokens already.
        """
        return shipped(self.late_name) if self.late_name else self.base_model

    @property
    def reranker_start(self) -> str | None:
        """A ``CrossEncoder`` that notebook 09 starts from: the hub id, or a folder's path."""
        return self.reranker_folder or (self.reranker_name and shipped(self.reranker_name))

    @property
    def finetuned_model(self) -> str:
        """A tuned model for readers who skip notebook 03: the hub id, or a folder's path."""
        if self.random_weights:
            return self.base_model
        return self.finetuned_folder or shipped(self.finetuned_name)

    def comparable_score(self, ndcg_at_10: float) -> tuple[float, float] | None:
        """``(billions of parameters, score)`` for the figure of published models.

        ``None`` unless model, data and training are the published ones.
        """
        if self.name != "full" or self.deviations:
            return None
        return (2.1, ndcg_at_10)

    @property
    def deviations(self) -> tuple[str, ...]:
        """What is not the published setting, a printable phrase each."""
        published, found = PROFILES["full"], []
        for role in ("model", "dataset"):
            found += self._role_deviation(role, published)
        if self.adapters:
            found.append("LoRA on the language model instead of all weights")
        weights = self.model_kwargs["dtype"] + (
            " weights under float16 autocast" if self.fp16 else " weights"
        )
        if weights != "bfloat16 weights":
            found.append(f"{weights} instead of bfloat16")
        for name in COMPARED:
            mine, theirs = getattr(self, name), getattr(published, name)
            if mine != theirs:
                found.append(f"{name} {mine:,} instead of {theirs:,}")
        return tuple(found)

    def _role_deviation(self, role: str, published: Profile) -> list[str]:
        name, revision = getattr(self, f"{role}_name"), getattr(self, f"{role}_revision")
        published_name, published_revision = (
            getattr(published, f"{role}_name"),
            getattr(published, f"{role}_revision"),
        )
        if name != published_name:
            return [f"{role} {name} instead of {published_name}"]
        if revision != published_revision:
            return [
                f"{role} revision {revision or 'default branch'} instead of {published_revision or 'default branch'}"
            ]
        return []


def read_profiles(file: Path) -> dict[str, Profile]:
    """The profiles of a TOML file by name, a table each.

    ``like`` names the table whose settings this one shares, ``without`` those of them that it does
    not have.
    """
    tables: dict[str, dict] = {}
    for name, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
        shared = dict(tables.get(table.pop("like", None), {}))
        for left_out in table.pop("without", ()):
            shared.pop(left_out, None)
        tables[name] = shared | table
    for table in tables.values():
        for name in ("matryoshka_dims", "benchmark_tasks", "query_models"):
            table[name] = tuple(table.get(name, ()))
        table["bands"] = {name: tuple(band) for name, band in table["bands"].items()}
    return {name: Profile(name, **table) for name, table in tables.items()}


PROFILES = read_profiles(assets_folder() / "profiles.toml")


def find_folder(variable: str, text: str) -> Path | None:
    """The folder that ``text`` names, or ``None``; ``ValueError`` where it names a file."""
    # a kernel runs in notebooks/, the reader's shell often in the folder above
    for base in (Path.cwd(), PACKAGE.parent):
        folder = base / expanded(text)
        if folder.is_dir():
            return folder.resolve()
        if folder.is_file():
            raise ValueError(
                f"{variable} is the file {folder.name}: name the folder that holds it, and restart the kernel"
            )
    return None


def read_variable(variable: str, text: str) -> dict[str, str | None]:
    """``name``, ``revision`` and ``folder`` of one variable; a folder's name has no path in it, so
    that it can be published.

    Raises ``ValueError`` for what is neither an existing folder nor a hub id.
    """
    if folder := find_folder(variable, text):
        return {"name": f"local folder {folder.name}", "revision": None, "folder": str(folder)}
    if not (hub_id := HUB_ID.fullmatch(text)):
        raise ValueError(
            f"{variable} is neither a folder that is there, nor a hub id such as owner/name, nor owner/name@revision: correct it, or "
            "unset it, and restart the kernel"
        )
    return {"name": hub_id["name"], "revision": hub_id["revision"], "folder": None}


def load_profile(name: str | None = None) -> Profile:
    """The profile called ``name``, or the one in ``$VDR_PROFILE``, or ``tiny``, with what the
    environment asks for.

    Nothing is built, read or downloaded; ``Profile.deviations`` says what a change means for the
    scores. Raises ``ValueError`` that lists the known names, and for a variable that cannot be
    used.
    """
    name = name or os.environ.get("VDR_PROFILE") or "tiny"
    if name not in PROFILES:
        known = ", ".join(PROFILES)
        raise ValueError(
            f"unknown profile {name!r}: set VDR_PROFILE to one of {known} (unset it for 'tiny') and restart the kernel"
        )
    changes = {"outputs": outputs_folder(), "attention": os.environ.get("VDR_ATTENTION") or "sdpa"}
    changes |= (
        named_models_and_data()
        | documents_settings()
        | rows_settings(PROFILES[name])
        | split_setting()
    )
    return replace(PROFILES[name], **changes)


def named_models_and_data() -> dict:
    """What ``VDR_MODEL``, ``VDR_FINETUNED``, ``VDR_DATASET``, ``VDR_RERANKER`` and ``VDR_READER``
    change.
    """
    changes = {}
    for variable, role in ROLES.items():
        if text := os.environ.get(variable):
            for part, value in read_variable(variable, text).items():
                changes[f"{role}_{part}"] = value
    if "model_name" in changes:
        changes["random_weights"] = None
        changes["late_name"] = None  # made from the profile's own base
    if "dataset_name" in changes:
        changes["corpus"] = None
    return changes


def documents_settings() -> dict:
    """What ``VDR_DOCUMENTS`` and ``VDR_QUERY_MODEL`` change."""
    changes = {}
    if text := os.environ.get("VDR_DOCUMENTS"):
        folder = find_folder("VDR_DOCUMENTS", text)
        if folder is None:
            raise ValueError(
                f"VDR_DOCUMENTS must be a folder of PDF files that is there, not {text!r}"
            )
        changes["documents_folder"] = str(folder)
    if text := os.environ.get("VDR_QUERY_MODEL"):
        named = read_variable("VDR_QUERY_MODEL", text)
        if named["revision"]:
            raise ValueError(
                f"VDR_QUERY_MODEL takes no revision, found {text!r}: leave out what follows the @"
            )
        changes["query_models"] = () if text == "none" else (named["folder"] or named["name"],)
    return changes


def rows_settings(profile: Profile) -> dict:
    """What ``VDR_ROWS`` changes; fewer than two rows of either kind cannot be split, ranked or
    averaged.
    """
    rows = os.environ.get("VDR_ROWS")
    if not rows:
        return {}
    if not re.fullmatch(r"\d+:\d+", rows):
        raise ValueError(
            f"VDR_ROWS must be training rows, a colon and eval rows, such as 24:6, not {rows!r}"
        )
    train_rows, eval_rows = (int(count) for count in rows.split(":"))
    if train_rows < 2 or eval_rows < 2:
        raise ValueError(
            f"VDR_ROWS is {rows}, and 2:2 is the least: ask for at least two rows of each kind"
        )
    return {
        "train_rows": train_rows,
        "eval_rows": eval_rows,
        "monitor_rows": min(profile.monitor_rows, eval_rows),
    }


def split_setting() -> dict:
    """What ``VDR_SPLIT`` changes."""
    text = os.environ.get("VDR_SPLIT")
    if not text:
        return {}
    if text != "published":
        raise ValueError(f"VDR_SPLIT must be 'published' or unset, not {text!r}")
    return {"split": text}
