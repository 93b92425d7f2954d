"""What differs between ``tiny``, ``full`` and ``rehearsal``, as data, and how the environment changes it (every notebook's setup cell).

``VDR_PROFILE`` names the profile. ``VDR_MODEL``, ``VDR_FINETUNED`` and ``VDR_DATASET`` hold a hub id, a hub id with ``@revision``, or a
local folder; ``VDR_ROWS=24:6`` keeps 24 training rows and 6 eval rows, to try a profile before its long run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

VARIABLES = {  # variable: the role it fills, and what the course would otherwise make for it
    "VDR_MODEL": ("model", {"random_weights": None}),
    "VDR_FINETUNED": ("finetuned", {}),
    "VDR_DATASET": ("dataset", {"corpus": None}),
}
ROWS_VARIABLE = "VDR_ROWS"
COMPARED = {  # field: the words before its number, the number's format and the words after, as Profile.deviations prints it
    "train_rows": ("", ",", " training rows"),
    "eval_rows": ("", ",", " eval rows"),
    "max_pixels": ("", ",", " pixels per page"),
    "per_device_train_batch_size": ("batch ", "", ""),
    "num_train_epochs": ("", "g", " epochs"),
    "learning_rate": ("learning rate ", "g", ""),
}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read_source(variable: str, text: str, bases: tuple[Path, ...]) -> tuple[str, str | None, str | None]:
    """``(name, revision, folder)`` of one variable; a folder's name has no path in it, so that it can be printed and published.

    Raises ``FileNotFoundError`` for a path that is no folder and ``ValueError`` for what is neither a folder nor a hub id.
    """

    def found(path: str) -> list[Path]:
        return [folder.resolve() for base in bases if (folder := base / Path(path).expanduser()).is_dir()]

    if folders := found(text):
        return f"local folder {folders[0].name}", None, str(folders[0])
    name, _, revision = text.partition("@")
    if found(name):
        raise ValueError(f"{variable} names a folder with a revision: only a hub id can have one, remove '@{revision}'")
    if text.startswith((".", "/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]", text):
        raise FileNotFoundError(
            f"{variable} is set to a folder that is not there: correct it, or unset it, and restart the kernel"
        )
    if not HUB_ID.fullmatch(name) or "@" in text and not re.fullmatch(r"[\w./-]+", revision):
        raise ValueError(f"{variable} must be a folder, a hub id such as owner/name, or owner/name@revision, not {text!r}")
    return name, revision or None, None


def with_overrides(profile: Profile, environment: Mapping[str, str], bases: tuple[Path, ...]) -> Profile:
    """``profile`` with what the environment asks for; itself when it asks for nothing.

    ``bases``: the folders that a relative path may start from. ``Profile.deviations`` says what such a change means for the scores.
    Raises ``ValueError`` or ``FileNotFoundError`` for a value that cannot be used.
    """
    changes: dict = {}
    for variable, (role, made_here) in VARIABLES.items():
        if environment.get(variable):
            name, revision, folder = read_source(variable, environment[variable], bases)
            changes |= {f"{role}_name": name, f"{role}_revision": revision, f"{role}_folder": folder} | made_here
    if rows := environment.get(ROWS_VARIABLE):
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", rows):
            raise ValueError(f"{ROWS_VARIABLE} must be training rows, a colon and eval rows, such as 24:6, not {rows!r}")
        train_rows, eval_rows = map(int, rows.split(":"))
        changes |= {"train_rows": train_rows, "eval_rows": eval_rows, "monitor_rows": min(profile.monitor_rows, eval_rows)}
    return replace(profile, **changes) if changes else profile


PACKAGE = Path(__file__).resolve().parent
PUBLISHED_DIMS = (2048, 1536, 1024, 512, 256, 128, 64)  # published model card, loss parameters
MIN_PIXELS = 64 * 64  # 4,096, the model's official value; the published script has 28 * 28 = 784, no published page is so small
OUTPUTS_VARIABLE = "VDR_OUTPUTS"


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
    bands: dict = field(default_factory=dict)  # (low, high) per checkpoint, around the README's table of seeds
    mini_batch_num_tokens: int | None = None  # tokens per forward pass inside the cached loss; None counts pages only
    fp16: bool = False  # set by vdr_helpers.machine on a card without bfloat16
    dataloader_num_workers: int = 0  # processes that open and preprocess the next batches while the card computes
    adapters: tuple[dict, ...] = ()  # arguments of peft.LoraConfig; vdr_helpers.machine adds one where all weights do not fit
    model_from_card: bool = False  # number format, attention and token budget are chosen by vdr_helpers.machine
    negatives_per_train_row: int = 1  # hard negatives kept per training row; the loss reads the first
    distinct_eval_pages: bool = False  # drop eval rows that share a page with train or each other; the published split keeps them
    model_revision: str | None = None  # a commit, tag or branch of the hub; None takes the default branch
    finetuned_revision: str | None = None
    dataset_revision: str | None = None
    preprocessed_name: str | None = None  # the published dataset, split already (python -m tools.prepare)
    model_folder: str | None = None  # a local folder that stands in for the hub id; never printed
    finetuned_folder: str | None = None
    dataset_folder: str | None = None
    corpus: dict | None = None  # arguments of tiny_vdr.corpus.build_source where the dataset is generated
    random_weights: str | None = None  # a name in tiny_vdr.model.SIZES: the base is built from it on first use

    def comparable_score(self, ndcg_at_10: float) -> tuple[float, float] | None:
        """``(billions of parameters, score)`` for the figure of published models, or ``None`` where a comparison would mislead."""
        return (2.1, ndcg_at_10) if self.published_setting else None

    @property
    def deviations(self) -> tuple[str, ...]:
        """What is not the published setting, a printable phrase each: your variables' doing and, in the setup cell, the card's."""
        published, said = PROFILES["full"], []
        for role in ("model", "dataset"):
            for part in ("name", "revision"):  # another name has revisions of its own
                mine, theirs = getattr(self, f"{role}_{part}"), getattr(published, f"{role}_{part}")
                if mine != theirs:
                    what = role if part == "name" else f"{role} revision"
                    said.append(f"{what} {mine or 'default branch'} instead of {theirs or 'default branch'}")
                    break
        said += ["LoRA on the language model instead of all weights"] if self.adapters else []
        weights, autocast = self.model_kwargs["dtype"], " under float16 autocast" if self.fp16 else ""
        said += [f"{weights} weights{autocast} instead of bfloat16"] if weights != "bfloat16" or autocast else []
        for name, (before, digits, after) in COMPARED.items():
            mine, theirs = getattr(self, name), getattr(published, name)
            said += [f"{before}{mine:{digits}}{after} instead of {theirs:{digits}}"] if mine != theirs else []
        return tuple(said)

    @property
    def published_setting(self) -> bool:
        """Whether model, data and training are the published ones, so that a score may stand among the published scores."""
        return self.name == "full" and not self.deviations

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

    def to_dict(self) -> dict:
        """The settings as a dictionary, for printing and for summaries; without paths of this machine."""
        return {name: value for name, value in self.__dict__.items() if not name.endswith("_folder")}


PROFILES = {
    "tiny": Profile(
        name="tiny",
        model_name="assets/tiny-base",
        finetuned_name="assets/tiny-finetuned",
        dataset_name="generated",
        dataset_config="en",
        corpus={},
        matryoshka_dims=tuple(dim // 8 for dim in PUBLISHED_DIMS),
        truncate_dim=128,
        max_pixels=200 * 200,
        train_rows=2048,
        eval_rows=300,
        monitor_rows=60,
        per_device_train_batch_size=64,
        mini_batch_size=32,
        encode_batch_size=50,
        num_train_epochs=1,
        learning_rate=7e-4,
        adapter_learning_rate=7e-3,  # ten times: LoRA 0.936 with it, 0.859 at 7e-4, all weights 0.943 (benchmarks/choices.py)
        warmup_steps=0.1,
        bf16=False,
        model_kwargs={"dtype": "float32"},
        negatives_per_train_row=4,
        distinct_eval_pages=True,
        bands={
            "base": (0.75, 0.90),
            "finetuned": (0.88, 0.98),
            "gain": (0.05, 0.20),
            "rise": (0.03, 0.25),
            "kept_finetuned": (0.80, 0.95),
            "kept_difference": (0.10, 0.30),
            "kept_int8": (0.97, 1.03),
        },
    ),
    "full": Profile(
        name="full",
        model_name="Qwen/Qwen3-VL-Embedding-2B",
        finetuned_name="tomaarsen/Qwen3-VL-Embedding-2B-vdr",
        dataset_name="llamaindex/vdr-multilingual-train",
        dataset_config="en",
        matryoshka_dims=PUBLISHED_DIMS,
        truncate_dim=1024,
        max_pixels=600 * 600,
        train_rows=10_000,
        eval_rows=300,
        monitor_rows=300,
        per_device_train_batch_size=64,
        mini_batch_size=64,
        mini_batch_num_tokens=5600,  # 16 pages of 350 tokens
        encode_batch_size=16,
        dataloader_num_workers=4,
        num_train_epochs=1,
        learning_rate=2e-5,
        adapter_learning_rate=2e-4,  # ten times, as on tiny; not measured on the real model
        warmup_steps=0.1,
        bf16=True,
        model_kwargs={"dtype": "bfloat16"},
        model_from_card=True,
        model_revision="9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda",  # the commit that MTEB's model registry names (November 2026)
        preprocessed_name="tomaarsen/llamaindex-vdr-en-train-preprocessed",
        bands={  # around the published figures, not measured by this project
            "base": (0.85, 0.91),
            "finetuned": (0.93, 0.96),
            "gain": (0.03, 0.09),
            "rise": (0.03, 0.10),
            "kept_finetuned": (0.90, 0.95),
            "kept_difference": (0.10, 0.22),
            "kept_int8": (0.97, 1.03),
        },
    ),
}
PROFILES["rehearsal"] = replace(  # the settings of full: it is what is rehearsed
    PROFILES["full"],
    name="rehearsal",
    model_name="random weights",
    finetuned_name="random weights",
    dataset_name="generated, enlarged",
    train_rows=192,  # three steps
    monitor_rows=20,
    model_revision=None,
    preprocessed_name=None,
    corpus={
        "train_families": 70,
        "eval_families": 335,
        "mean_scale": 3.2,
    },  # on average 1,413 x 1,659 pixels; published 1,416 x 1,648
    random_weights="Qwen3-VL 2B",
    # Random weights promise nothing: these bands catch a score that is not a number, no more.
    bands=dict.fromkeys(("base", "finetuned"), (0.0, 1.0))
    | dict.fromkeys(("gain", "rise"), (-1.0, 1.0))
    | {"kept_finetuned": (0.0, 10.0), "kept_difference": (-10.0, 10.0), "kept_int8": (0.0, 10.0)},
)
PROFILES["rehearsal-small"] = replace(  # the same path on a CPU
    PROFILES["rehearsal"],
    name="rehearsal-small",
    matryoshka_dims=tuple(dim // 32 for dim in PUBLISHED_DIMS),
    truncate_dim=32,
    max_pixels=96 * 96,
    train_rows=24,
    eval_rows=8,
    monitor_rows=4,
    per_device_train_batch_size=8,
    mini_batch_size=8,
    mini_batch_num_tokens=120,
    bf16=False,
    model_kwargs={"dtype": "float32"},
    model_from_card=False,
    corpus={"train_families": 20, "eval_families": 85},
    random_weights="small",
)


def load_profile(name: str | None = None) -> Profile:
    """The profile called ``name``, or the one in ``$VDR_PROFILE``, or ``tiny``, with the overrides of the environment.

    Nothing is built, read or downloaded. Raises ``ValueError`` that lists the known names, and what :func:`with_overrides` raises.
    """
    name = name or os.environ.get("VDR_PROFILE") or "tiny"
    if name not in PROFILES:
        known = ", ".join(PROFILES)
        raise ValueError(
            f"unknown profile {name!r}: set VDR_PROFILE to one of {known} (unset it for 'tiny') and restart the kernel"
        )
    return with_overrides(PROFILES[name], os.environ, bases=(Path.cwd(), PACKAGE.parent))
