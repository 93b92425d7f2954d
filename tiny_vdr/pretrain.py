"""Pre-train the tiny base model from random weights; ``make pretrain`` calls it and the result is
``assets/tiny-base``.

The first part teaches reading, from generated pages of five layouts with invented names beside the
shared vocabulary (``pages.HELD_OUT_LAYOUTS`` are the two others); the later parts teach to tell
pages of one report and charts of one subject apart, and leave out one layout. A quarter of the
course's words and a third of its phrasings are never shown (``vocabulary.WordList.held_out``).
Three losses are added:
contrastive between queries and pages, with near-duplicate pages in each batch; a caption loss
(which first name, second name, subject, region and year does this page or query name?); and a
letter loss (which characters are under this image token?).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader

from tiny_vdr.batches import CHARACTERS, PAGE_SIZE, Batches
from tiny_vdr.model import WIDTH, build_model
from tiny_vdr.report_batches import ReportBatches, TwinBatches

STEPS = 4800  # batches of 32 pages: under two hours on two cores
REPORT_STEPS = 1500  # of tiny_vdr.report_batches, from a base that reads
REPORT_PEAK = 6e-4  # their highest learning rate
REPORT_PREFIXES = {WIDTH: 0.6, 16: 0.25, 8: 0.15}  # as prefix_weights gives them
LAST_PREFIXES = {WIDTH: 0.5, 16: 0.2, 8: 0.3}  # those of the last batches
QUERY_GROUPS = 4  # the queries of a batch are padded within groups of like length


def learning_rate(step: int, steps: int) -> float:
    """100 steps of warm-up, then 1e-3 until three fifths of the run, then a cosine down to a
    fiftieth of it.
    """
    through = max(0.0, step / steps - 0.6) / 0.4
    return 1e-3 * min(1.0, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * through)))


def report_learning_rate(step: int, steps: int) -> float:
    """150 steps of warm-up, then a cosine from :data:`REPORT_PEAK` to a fiftieth of it."""
    falling = max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))
    return REPORT_PEAK * min(1.0, (step + 1) / 150) * falling


def prefix_weights(step: int, steps: int) -> dict[int, float]:
    """Which first numbers the contrastive loss is asked of, and how much each counts: ``{width:
    weight}``.

    Qwen3-VL-Embedding was trained with Matryoshka dimensions too. The first 8 numbers join after
    three fifths of the run, when full pages are read: asked of them from the start, the base would
    leave nothing for fine-tuning to gain there.
    """
    return {WIDTH: 0.5, 16: 0.5} if step < steps * 3 / 5 else {WIDTH: 0.5, 16: 0.2, 8: 0.3}


def caption_loss(
    logits: torch.Tensor, targets: torch.Tensor, kinds: tuple[tuple[str, ...], ...]
) -> torch.Tensor:
    """Cross-entropy within each kind of word, summed over the kinds: a year is told from years, a
    first name from first names.

    ``logits`` and ``targets`` (0/1): shape (items, words). One softmax over all words lets a small
    model name the years and leave out the first names; asked kind by kind it learns those too.
    """
    loss, begin = logits.new_zeros(()), 0
    for kind in kinds:
        end = begin + len(kind)
        wanted, found = targets[:, begin:end], logits[:, begin:end]
        named = wanted.sum(dim=1) > 0
        if named.any():
            share = wanted[named] / wanted[named].sum(dim=1, keepdim=True)
            loss = loss - (share * functional.log_softmax(found[named], dim=1)).sum(dim=1).mean()
        begin = end
    return loss


class Losses(torch.nn.Module):
    """The model and the two heads that only pre-training needs."""

    def __init__(self, model, seed: int, kinds: tuple[tuple[str, ...], ...]) -> None:
        super().__init__()
        self.model, self.kinds = model, kinds
        torch.manual_seed(seed)
        self.letter_head = torch.nn.Linear(WIDTH, len(CHARACTERS))
        self.caption_head = torch.nn.Linear(WIDTH, sum(map(len, kinds)))
        self.merged: torch.Tensor | None = None
        model[0].auto_model.visual.merger.register_forward_hook(self._keep)
        patch_embed = model[0].auto_model.visual.patch_embed
        # A convolution of separate patches, each given twice (a still image as two frames of a
        # video): one product is the same, faster.
        patch_embed.forward = lambda pixels: functional.linear(
            pixels.view(len(pixels), 3, 2, -1)[:, :, 0].flatten(1),
            patch_embed.proj.weight.sum(2).flatten(1),
            patch_embed.proj.bias,
        )
        self.page_inputs = model.preprocess([Image.new("RGB", PAGE_SIZE, "white")])

    def _keep(self, module, inputs, output) -> None:
        self.merged = output

    def embed(self, features: dict) -> torch.Tensor:
        """Pooled vectors before normalisation, shape (items, 256)."""
        return self.model[1](self.model[0](features))["sentence_embedding"]

    def embed_queries(self, queries: list[str], device: torch.device) -> torch.Tensor:
        """As :meth:`embed`, short queries beside short ones: padding to the longest of all would be
        a quarter of the tokens.
        """
        asked = self.model.preprocess(queries)
        lengths = asked["attention_mask"].sum(dim=1)
        order, parts = lengths.argsort(stable=True), []
        for some in order.chunk(QUERY_GROUPS):
            longest = int(lengths[some].max())
            parts.append(
                self.embed(
                    {
                        n: x[some, :longest].to(device) if isinstance(x, torch.Tensor) else x
                        for n, x in asked.items()
                    }
                )
            )
        return torch.cat(parts)[order.argsort()]

    def forward(self, batch: dict, widths: dict[int, float]) -> dict[str, torch.Tensor]:
        """The three losses of a batch and its accuracy; ``widths`` as :func:`prefix_weights` gives
        them.
        """
        device, count = self.letter_head.weight.device, len(batch["image_grid_thw"])
        features = {name: batch[name].to(device) for name in ("pixel_values", "image_grid_thw")} | {
            "modality": "message"
        }
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            features[name] = self.page_inputs[name].expand(count, -1).to(device)
        pages = self.embed(features)
        letters = functional.binary_cross_entropy_with_logits(
            self.letter_head(self.merged).reshape(batch["letters"].shape),
            batch["letters"].to(device),
            reduction="none",
        )
        letters = letters.sum(dim=-1).mean()  # nats per image token
        all_queries = self.embed_queries(batch["queries"], device)
        queries = all_queries[:count]
        target, contrastive = torch.arange(count, device=device), 0.0
        for width, weight in sorted(widths.items()):  # the full width last: accuracy is told for it
            scores = (
                functional.normalize(queries[:, :width], dim=-1)
                @ functional.normalize(pages[:, :width], dim=-1).T
                * 20
            )
            both_ways = functional.cross_entropy(scores, target) + functional.cross_entropy(
                scores.T, target
            )
            contrastive += weight * both_ways / 2
        caption = caption_loss(self.caption_head(pages), batch["page_words"].to(device), self.kinds)
        caption = caption + caption_loss(
            self.caption_head(all_queries), batch["query_words"].to(device), self.kinds
        )
        accuracy = (scores.argmax(dim=1) == target).float().mean()
        return {
            "contrastive": contrastive,
            "caption": caption,
            "letter": letters,
            "accuracy": accuracy,
        }


def load_start(folder: Path):
    """The model in ``folder`` in single precision, on the CPU."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})


def save_state(path: Path, **state) -> None:
    """Write the training state whole or not at all: a killed run keeps the previous one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


@dataclass(frozen=True)
class Part:
    """One part of pre-training: which batches, how many, how fast, and on which first numbers."""

    batches: type
    steps: int
    learning_rate: Callable[[int, int], float]
    prefix_weights: Callable[[int, int], dict[int, float]]
    # whatever the number of cores: sums are made in the same order, so that the same seed gives
    # the same log
    threads: int


READING = Part(Batches, STEPS, learning_rate, prefix_weights, threads=2)
REPORTS = Part(
    ReportBatches, REPORT_STEPS, report_learning_rate, lambda *_: REPORT_PREFIXES, threads=1
)
TWINS = replace(REPORTS, batches=TwinBatches, prefix_weights=lambda *_: LAST_PREFIXES)


def pretrain(
    output: Path,
    steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    log_every: int = 20,
    part: Part = READING,
    start: Path | None = None,
) -> list[dict]:
    """Train for ``steps`` batches of ``part`` (its own number, if not given) and save the model in
    ``output``; a run that was stopped goes on from ``output/pretrain.pt``.

    ``start``: the folder of the model to go on from; without it, random weights. The log, one dict
    per ``log_every`` steps with the mean of each loss, is returned and saved as
    ``pretrain_log.json``; the same seed gives the same log on every CPU of a kind. A GPU is used
    where there is one. Raises ``ValueError`` if ``steps`` is not positive.
    """
    steps = part.steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps must be positive, got {steps}")
    output.mkdir(parents=True, exist_ok=True)
    device, threads = "cuda" if torch.cuda.is_available() else "cpu", torch.get_num_threads()
    torch.set_num_threads(part.threads)
    model = load_start(start) if start else build_model(seed)
    losses = Losses(model, seed, part.batches.kinds).to(device)
    decayed = [p for p in losses.parameters() if p.dim() > 1]
    flat = [p for p in losses.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": flat, "weight_decay": 0.0}],
        lr=0.0,
        betas=(0.9, 0.98),
        fused=True,
    )
    state_file, begin, spent, log = output / "pretrain.pt", 0, 0.0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=device)
        losses.load_state_dict(state["losses"])
        optimizer.load_state_dict(state["optimizer"])
        begin, spent, log = state["step"], state["spent"], state["log"]
    workers = max(1, min(8, (os.cpu_count() or 2) - 1))
    batches = DataLoader(
        part.batches(batch_size, seed),
        batch_size=None,
        sampler=range(begin, steps),
        num_workers=workers,
    )
    started, window = time.time() - spent, []
    for step, batch in enumerate(batches, start=begin):
        for group in optimizer.param_groups:
            group["lr"] = part.learning_rate(step, steps)
        parts = losses(batch, part.prefix_weights(step, steps))
        optimizer.zero_grad()
        (parts["contrastive"] + 0.5 * parts["caption"] + parts["letter"]).backward()
        torch.nn.utils.clip_grad_norm_(losses.parameters(), 1.0)
        optimizer.step()
        window.append({name: value.item() for name, value in parts.items()})
        done = step + 1
        if done % log_every == 0 or done == steps:
            row = {"step": done, "minutes": round((time.time() - started) / 60, 2)}
            row |= {
                name: round(sum(losses_of[name] for losses_of in window) / len(window), 4)
                for name in window[0]
            }
            log.append(row)
            window = []
            print(json.dumps(row), flush=True)
        if done % (10 * log_every) == 0:
            state = {"losses": losses.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(state_file, step=done, spent=time.time() - started, log=log, **state)
    losses.model.half().save_pretrained(str(output), create_model_card=False)
    state_file.unlink(missing_ok=True)
    (output / "pretrain_log.json").write_text(json.dumps(log, indent=1) + "\n")
    torch.set_num_threads(threads)
    return log
