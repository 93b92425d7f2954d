"""The full experiment rehearsed without its weights and without its data: the 2B architecture with random weights, drawn pages.

``VDR_PROFILE=rehearsal`` runs the notebooks that way; ``python -m vdr_helpers.rehearsal`` measures what a card needs and writes a
receipt for the planner. Memory and seconds are those of the real model, since they depend on its widths and not on what its weights
say; scores mean nothing. Two things differ from the real run: the tokenizer is the tiny model's (its vocabulary is padded to 151,936
rows of the embedding table, so queries are a few tokens longer), and the text on the pages is enlarged. ``VDR_REHEARSAL=small`` takes
a small architecture instead, to try the same path on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from vdr_helpers.architecture import QWEN3_VL_2B, SMALL, Architecture
from vdr_helpers.device import use_first_card
from vdr_helpers.profiles import PROFILES, Profile, assets_folder

SIZE_VARIABLE = "VDR_REHEARSAL"
MEAN_SCALE = (
    3.2  # 400 x 560 pixels, a quarter of them turned, times 3.2: 1,413 x 1,659 on average; the card's mean is 1,416 x 1,648
)
TRAIN_FAMILIES, EVAL_FAMILIES = 70, 335  # families of near-duplicates; 4 queries each, then 1 each
VERSION = 2  # raise it when the same settings would give another model or other pages


def chosen_size() -> Architecture:
    """The 2B model's widths, or the small ones with ``VDR_REHEARSAL=small``. Raises ``ValueError`` for another value."""
    value = os.environ.get(SIZE_VARIABLE) or "true"
    if value not in ("true", "small"):
        raise ValueError(f"{SIZE_VARIABLE} must be 'true' (the 2B architecture) or 'small', not {value!r}: unset it for 'true'")
    return SMALL if value == "small" else QWEN3_VL_2B


def is_current(folder: Path, stamp: dict) -> bool:
    """Whether ``folder`` was finished with these settings; its stamp is written last."""
    file = folder / "rehearsal.json"
    return file.exists() and json.loads(file.read_text()) == stamp


def move_into_place(partial: Path, folder: Path, stamp: dict) -> Path:
    """Stamp a finished folder and give it its name: a killed kernel never leaves half of one."""
    (partial / "rehearsal.json").write_text(json.dumps(stamp))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def build_base(folder: Path, model: Architecture, seed: int = 0) -> Path:
    """A Sentence Transformers folder of this architecture with random weights (2B: 4.3 GB, bfloat16), unless it is there already.

    Weights are drawn on the GPU where there is one. Tokenizer, processor and chat template are the tiny base's. Returns ``folder``.
    """
    import torch
    from transformers import AutoTokenizer, Qwen3VLModel

    from vdr_helpers.tiny_model import build_config

    stamp = {"version": VERSION, "model": model.name, "parameters": model.parameters, "seed": seed}
    if is_current(folder, stamp):
        return folder
    print(f"building the {model.name} architecture with random weights ({2 * model.parameters / 1e9:.1f} GB), once")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tiny = assets_folder() / "tiny-base"
    not_its_own = shutil.ignore_patterns("*.safetensors", "config.json", "README.md", "pretrain_log.json")
    shutil.copytree(tiny, partial, ignore=lambda at, names: not_its_own(at, names) if Path(at) == tiny else set())
    pooling = json.loads((partial / "1_Pooling" / "config.json").read_text()) | {"embedding_dimension": model.hidden_size}
    (partial / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=1))
    before = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(seed)
        try:
            torch.set_default_dtype(torch.bfloat16)
            Qwen3VLModel(build_config(model, AutoTokenizer.from_pretrained(tiny))).save_pretrained(partial)
        finally:
            torch.set_default_dtype(before)
    return move_into_place(partial, folder, stamp)


def small_settings(profile: Profile) -> Profile:
    """The rehearsal profile cut down to a CPU: dimensions of the small architecture, small pages, few rows, no number formats."""
    dims = tuple(dim * SMALL.hidden_size // QWEN3_VL_2B.hidden_size for dim in profile.matryoshka_dims)
    return replace(
        profile, matryoshka_dims=dims, truncate_dim=SMALL.hidden_size // 2, max_pixels=96 * 96, train_rows=24, eval_rows=8,
        monitor_rows=4, per_device_train_batch_size=8, mini_batch_size=8, mini_batch_num_tokens=120, bf16=False,
        model_kwargs={"dtype": "float32"}, model_from_card=False,
    )  # fmt: skip


def make(profile: Profile) -> Profile:
    """``profile`` with its model and pages built under ``outputs/`` on first use; ``load_profile`` calls it."""
    from vdr_helpers.corpus import build_source

    use_first_card()
    model = chosen_size()
    folder = profile.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    small = model is SMALL
    profile = small_settings(profile) if small else profile
    base = build_base(folder / ("base-small" if small else "base"), model)
    families, scale = ((20, 85), 1.0) if small else ((TRAIN_FAMILIES, EVAL_FAMILIES), MEAN_SCALE)
    pages = folder / f"source-{'small-' if small else ''}v{VERSION}"
    source = build_source(pages, train_families=families[0], eval_families=families[1], mean_scale=scale)
    return replace(profile, model_folder=str(base), finetuned_folder=str(base), dataset_folder=str(source))


def main(arguments: list[str] | None = None) -> None:
    """Take the receipts that are asked for; each is written as soon as it is measured, so that an interrupted run keeps what it has."""
    from vdr_helpers.rehearsal_runs import Rehearsal

    parser = argparse.ArgumentParser(prog="python -m vdr_helpers.rehearsal", description=main.__doc__)
    parser.add_argument("--budgets", type=int, nargs="*", default=[], help="train all weights with these token budgets per pass")
    parser.add_argument("--lora", action="store_true", help="train LoRA on the language model under --memory-cap-gib")
    parser.add_argument("--lora-budgets", type=int, nargs="*", default=[400, 1400, 2800])
    parser.add_argument("--memory-cap-gib", type=float, default=15.0, help="of LoRA; PyTorch may not reserve more (default 15)")
    parser.add_argument(
        "--full-cap-gib", type=float, help="train all weights, one page per pass, under this cap (22: an L4 or A10)"
    )
    parser.add_argument("--resume", action="store_true", help="save, reload and resume once")
    parser.add_argument("--fp16", action="store_true", help="float16 on a card that has bfloat16, as a T4 would run")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--receipt", type=Path, help="default: outputs/rehearsal/results/receipt.json")
    asked = parser.parse_args(arguments)
    use_first_card()
    profile = PROFILES["rehearsal"]
    model = chosen_size()
    profile = small_settings(profile) if model is SMALL else profile
    base = build_base(profile.output_dir / ("base-small" if model is SMALL else "base"), model)
    rehearsal = Rehearsal(profile, model, base, asked.receipt, asked.batch, asked.steps, asked.fp16)
    rehearsal.encode()
    for budget in asked.budgets:
        rehearsal.train(budget)
    if asked.lora:
        for budget in asked.lora_budgets:
            rehearsal.train(budget, lora=True, cap_gib=asked.memory_cap_gib)
    if asked.full_cap_gib:
        rehearsal.train(400, cap_gib=asked.full_cap_gib)
    if asked.resume:
        rehearsal.resume()
    print("receipt:", rehearsal.receipt.name, "in", rehearsal.receipt.parent.name)


if __name__ == "__main__":
    main()
