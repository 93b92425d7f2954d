"""What differs between ``tiny``, ``full`` and ``rehearsal``, as data, and how the environment changes it (every notebook's setup cell).

The profiles themselves are in ``assets/profiles.toml``. ``VDR_PROFILE`` names one. ``VDR_MODEL``, ``VDR_FINETUNED``, ``VDR_RERANKER``
and ``VDR_DATASET`` hold a hub id, a hub id with ``@revision``, or a local folder; ``VDR_ROWS=24:6`` keeps 24 training rows and 6 eval
rows; ``VDR_DOCUMENTS`` is a folder of PDF files for notebook 08, ``VDR_QUERY_MODEL`` the model that writes queries there, or ``none``.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
MIN_PIXELS = 64 * 64  # 4,096, the model's official value; the published script has 28 * 28 = 784, no published page is so small
OUTPUTS_VARIABLE = "VDR_OUTPUTS"
VARIABLES = {  # variable: the role it fills, and what the course would otherwise make for it
    "VDR_MODEL": ("model", {"random_weights": None}),
    "VDR_FINETUNED": ("finetuned", {}),
    "VDR_DATASET": ("dataset", {"corpus": None}),
    "VDR_RERANKER": ("reranker", {}),
}
COMPARED = ("train_rows", "eval_rows", "max_pixels", "per_device_train_batch_size", "num_train_epochs", "learning_rate")
HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>[\w./-]+))?")


def assets_folder() -> Path:
    """The shipped assets: inside the package when installed from a wheel, beside it in a checkout."""
    inside = PACKAGE / "assets"
    return inside if inside.is_dir() else PACKAGE.parent / "assets"


def outputs_folder() -> Path:
    """Where everything a learner makes is kept: ``$VDR_OUTPUTS``, else ``outputs/`` of the checkout, else of this folder."""
    if OUTPUTS_VARIABLE in os.environ:
        return Path(os.environ[OUTPUTS_VARIABLE])
    checkout = PACKAGE.parent
    return (checkout if (checkout / "notebooks").is_dir() else Path.cwd()) / "outputs"


def shipped(name: str) -> str:
    """A hub id as it is; a name that starts with ``assets/`` as the path of the shipped model."""
    return str(assets_folder() / name.removeprefix("assets/")) if name.startswith("assets/") else name


@dataclass(frozen=True)
class Profile:
    """One way of running the course. Field names follow Sentence Transformers' own argument names where there is one."""

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
    mini_batch_size: int  # pages per forward pass inside the cached loss; with a token budget, the most of them
    encode_batch_size: int
    num_train_epochs: float
    learning_rate: float
    adapter_learning_rate: float  # what vdr_helpers.machine puts in learning_rate's place when it chooses LoRA
    warmup_steps: float  # a share of all steps when below 1
    bf16: bool
    seed: int = 42
    model_kwargs: dict = field(default_factory=dict)
    bands: dict = field(default_factory=dict)  # (low, high) per checkpoint of notebooks 03 to 05
    mini_batch_num_tokens: int | None = None  # tokens per forward pass inside the cached loss; None counts pages only
    fp16: bool = False  # set by vdr_helpers.machine on a card without bfloat16
    dataloader_num_workers: int = 0  # processes that open and preprocess the next batches while the card computes
    adapters: tuple[dict, ...] = ()  # arguments of peft.LoraConfig; vdr_helpers.machine adds one where all weights do not fit
    model_from_card: bool = False  # number format, attention and token budget are chosen by vdr_helpers.machine
    late_interaction: dict = field(default_factory=dict)  # training arguments in which notebook 10 differs from this profile
    negatives_per_train_row: int = 1  # hard negatives kept per training row; the loss reads the first
    benchmark_tasks: tuple[str, ...] = ()  # public tasks of MTEB that notebook 06 scores too; their pages are downloaded
    distinct_eval_pages: bool = False  # drop eval rows that share a page with train or each other; the published split keeps them
    model_revision: str | None = None  # a commit, tag or branch of the hub; None takes the default branch
    finetuned_revision: str | None = None
    dataset_revision: str | None = None
    preprocessed_name: str | None = None  # the published dataset, split already (python -m tools.prepare)
    model_folder: str | None = None  # a local folder that stands in for the hub id; never printed
    finetuned_folder: str | None = None
    dataset_folder: str | None = None
    reranker_name: str | None = None  # a CrossEncoder to start from in notebook 09; None: one made of the base's own modules
    reranker_revision: str | None = None
    reranker_folder: str | None = None  # goes before the name
    reranker_rows: int = 0  # train rows whose pages notebook 09 trains the reranker on
    reranker_learning_rate: float = 0.0
    corpus: dict | None = None  # arguments of tiny_vdr.corpus.build_source where the dataset is generated
    documents_folder: str | None = None  # PDF files of yours for notebook 08; None lets tiny_vdr.documents draw some
    query_models: tuple[str, ...] = ()  # vision-language models that write queries in notebook 08: hub ids or folders
    random_weights: str | None = None  # a name in tiny_vdr.model.SIZES: the base is built from it on first use

    def comparable_score(self, ndcg_at_10: float) -> tuple[float, float] | None:
        """``(billions of parameters, score)`` for the figure of published models; ``None`` unless model, data and training are the published ones."""
        return (2.1, ndcg_at_10) if self.name == "full" and not self.deviations else None

    @property
    def deviations(self) -> tuple[str, ...]:
        """What is not the published setting, a printable phrase each: your variables' doing and, in the setup cell, the card's."""
        published, said = PROFILES["full"], []
        for role in ("model", "dataset"):
            mine, theirs = ([getattr(one, f"{role}_{part}") for part in ("name", "revision")] for one in (self, published))
            if mine[0] != theirs[0]:
                said.append(f"{role} {mine[0]} instead of {theirs[0]}")
            elif mine[1] != theirs[1]:
                said.append(f"{role} revision {mine[1] or 'default branch'} instead of {theirs[1] or 'default branch'}")
        said += ["LoRA on the language model instead of all weights"] if self.adapters else []
        weights = self.model_kwargs["dtype"] + (" weights under float16 autocast" if self.fp16 else " weights")
        said += [f"{weights} instead of bfloat16"] if weights != "bfloat16 weights" else []
        for name in COMPARED:
            mine, theirs = getattr(self, name), getattr(published, name)
            said += [f"{name} {mine:,} instead of {theirs:,}"] if mine != theirs else []
        return tuple(said)

    @property
    def output_dir(self) -> Path:
        """``outputs/<profile>``: data, checkpoints, results and models of this profile."""
        return outputs_folder() / self.name

    @property
    def processor_kwargs(self) -> dict:
        """The page's pixel budget, as the processor of Qwen3-VL wants it since transformers 5: ``size`` in pixels per page."""
        return {"size": {"shortest_edge": MIN_PIXELS, "longest_edge": self.max_pixels}}

    @property
    def base_model(self) -> str:
        """What ``SentenceTransformer(...)`` is given: the hub id (with ``model_revision``), or the path of a folder."""
        return str(self.output_dir / "model") if self.random_weights else self.model_folder or shipped(self.model_name)

    @property
    def finetuned_model(self) -> str:
        """A tuned model for readers who skip notebook 03: the hub id, or the path of a folder."""
        return self.finetuned_folder or (self.base_model if self.random_weights else shipped(self.finetuned_name))


def read_profiles(file: Path) -> dict[str, Profile]:
    """The profiles of a TOML file, by name: a table each. ``like`` names the one whose settings a table shares, ``without`` what of them not."""
    settings: dict[str, dict] = {}
    for name, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
        shared, left_out = settings.get(table.pop("like", None), {}), table.pop("without", ())
        settings[name] = {key: value for key, value in shared.items() if key not in left_out} | table
    for table in settings.values():
        table |= {name: tuple(table.get(name, ())) for name in ("matryoshka_dims", "benchmark_tasks", "query_models")}
        table["bands"] = {name: tuple(band) for name, band in table["bands"].items()}
    return {name: Profile(name, **table) for name, table in settings.items()}


PROFILES = read_profiles(assets_folder() / "profiles.toml")


def read_variable(variable: str, text: str) -> dict[str, str | None]:
    """``name``, ``revision`` and ``folder`` of one variable; a folder's name has no path in it, so that it can be printed and published.

    Raises ``ValueError`` for what is neither a folder that is there nor a hub id.
    """
    for base in (Path.cwd(), PACKAGE.parent):  # a kernel runs in notebooks/, the reader's shell often in the folder above
        if (folder := base / Path(text).expanduser()).is_dir():
            return {"name": f"local folder {folder.resolve().name}", "revision": None, "folder": str(folder.resolve())}
    if not (hub_id := HUB_ID.fullmatch(text)):
        raise ValueError(
            f"{variable} is neither a folder that is there, nor a hub id such as owner/name, nor owner/name@revision: correct it, or "
            "unset it, and restart the kernel"
        )
    return {"name": hub_id["name"], "revision": hub_id["revision"], "folder": None}


def load_profile(name: str | None = None) -> Profile:
    """The profile called ``name``, or the one in ``$VDR_PROFILE``, or ``tiny``, with what the environment asks for.

    Nothing is built, read or downloaded; ``Profile.deviations`` says what a change means for the scores. Raises ``ValueError`` that
    lists the known names, and for a variable that cannot be used.
    """
    name = name or os.environ.get("VDR_PROFILE") or "tiny"
    if name not in PROFILES:
        raise ValueError(
            f"unknown profile {name!r}: set VDR_PROFILE to one of {', '.join(PROFILES)} (unset it for 'tiny') and restart the kernel"
        )
    profile, changes = PROFILES[name], {}
    for variable, (role, made_here) in VARIABLES.items():
        if text := os.environ.get(variable):
            changes |= {f"{role}_{part}": value for part, value in read_variable(variable, text).items()} | made_here
    if text := os.environ.get("VDR_DOCUMENTS"):
        changes["documents_folder"] = read_variable("VDR_DOCUMENTS", text)["folder"]
        if changes["documents_folder"] is None:
            raise ValueError(f"VDR_DOCUMENTS must be a folder of PDF files that is there, not {text!r}")
    if text := os.environ.get("VDR_QUERY_MODEL"):
        named = read_variable("VDR_QUERY_MODEL", text)
        changes["query_models"] = () if text == "none" else (named["folder"] or named["name"],)
    if rows := os.environ.get("VDR_ROWS"):
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", rows):
            raise ValueError(f"VDR_ROWS must be training rows, a colon and eval rows, such as 24:6, not {rows!r}")
        train_rows, eval_rows = map(int, rows.split(":"))
        changes |= {"train_rows": train_rows, "eval_rows": eval_rows, "monitor_rows": min(profile.monitor_rows, eval_rows)}
    return replace(profile, **changes) if changes else profile
