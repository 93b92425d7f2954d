"""What a run needs beside the card: the disk, and the computer's own memory (notebook 00's planner and its doctor)."""

from __future__ import annotations

import shutil
from pathlib import Path

from vdr_helpers.architecture import Architecture, image_tokens
from vdr_helpers.page_store import COPIES
from vdr_helpers.profiles import Profile
from vdr_helpers.terms import BYTES, GIB, PAGE_SIZE, Term, architecture_of, batch_bytes, in_short, total

PREFETCH = 2  # batches that each worker process holds ready, the default of PyTorch's DataLoader
PNG_SHARE = (
    0.35  # assumed share of its raw size that a page keeps as PNG (tiny: 0.23); notebook 02 estimates again from the first pages
)
RAM_ALLOWANCE_GIB = 4.0  # assumed


def trained_bytes(model: Architecture, lora: bool, weights: str) -> int:
    """Bytes of the weights that are trained: adapters in float32, or all weights in their own format."""
    return model.lora_parameters * 4 if lora else model.parameters * BYTES[weights]


def disk_terms(profile: Profile, lora: bool, weights: str) -> tuple[Term, ...]:
    """What the seven notebooks leave on the disk at most, in GiB. The dataset itself is read over the network and not kept.

    ``weights``: number format of the loaded weights. While a checkpoint is written, the one before it still lies there.
    """
    model, size = architecture_of(profile), BYTES[weights]
    trained, whole = trained_bytes(model, lora, weights), model.parameters * size
    from_hub = 2 * 2 * model.parameters * (profile.model_folder is None and not profile.model_name.startswith("assets/"))
    pages, page = 2 * profile.train_rows + 5 * profile.eval_rows, 3 * image_tokens(*PAGE_SIZE, profile.max_pixels) * 32**2
    vectors = 2 * 6 * profile.eval_rows * model.hidden_size * 4
    return (
        Term("downloaded models", from_hub / GIB, "computed", "base and published tuned model, 2 bytes a weight"),
        Term("pages", pages * COPIES * PNG_SHARE * page / GIB, "assumed", f"{pages:,} x {COPIES} copies, {PNG_SHARE:.0%} of raw"),
        Term("checkpoints", 2 * 3 * trained / GIB, "computed", "two, each of the trained weights and two moments for them"),
        Term("tuned model", trained / GIB, "computed", "of notebook 03: the trained weights"),
        Term("published model", whole / GIB, "computed", "of notebook 06: all weights"),
        Term("embeddings", vectors / GIB, "computed", "of base and tuned model, notebooks 04 and 05"),
    )


def ram_terms(profile: Profile, weights: str) -> tuple[Term, ...]:
    """What notebook 03 needs of the computer's own memory beside a card, in GiB."""
    copy, batch = architecture_of(profile).parameters * BYTES[weights], batch_bytes(profile, weights)
    making = batch * 4 // BYTES[weights]
    ahead = profile.dataloader_num_workers * (PREFETCH * batch + making)
    how = f"{profile.dataloader_num_workers} processes, each {PREFETCH} batches ready and one in the making, in float32"
    return (
        Term(
            "weights or gradients",
            copy / GIB,
            "computed",
            "one at a time: while loading, first gradient, weights before training",
        ),
        Term("batches ahead", ahead / GIB, "computed", how),
        Term("allowance", RAM_ALLOWANCE_GIB, "assumed", "Python, PyTorch, CUDA's libraries, pages being opened"),
    )


def disk_problem(profile: Profile, terms: tuple[Term, ...], folder: Path, free_gib: float | None = None) -> str | None:
    """A line when :func:`disk_terms` do not fit on the disk of ``folder``; what this profile has there already counts as there.

    ``free_gib``: free space, measured at ``folder`` when left out.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / GIB if free_gib is None else free_gib
    there = sum(file.stat().st_size for file in profile.output_dir.rglob("*") if file.is_file()) / GIB
    need = max(0.0, total(terms) - there)
    if free >= need:
        return None
    return (
        f"{free:.1f} GiB free, {need:.1f} GiB needed ({in_short(terms)}): free some, set VDR_OUTPUTS to another disk (and HF_HOME "
        "for the downloads), or take fewer rows (VDR_ROWS)"
    )
