"""Pre-train the tiny base model: ``python -m vdr_helpers.pretrain --minutes 106 --output assets/tiny-base``.

The model learns to read from generated pages of five layouts, with invented names beside the shared vocabulary; two layouts, a
quarter of the course's words and a third of its phrasings are never shown (``vocabulary.WordList.held_out``,
``pages.HELD_OUT_LAYOUTS``). Three losses are added: contrastive between queries and pages, with near-duplicate pages in each batch;
a caption loss (which first name, second name, subject, region and year does this page or query name?); and a letter loss (which
characters are under this image token?). ``--start FOLDER`` goes on from a model instead of from random weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from vdr_helpers.patch_embedding import use_matrix_product
from vdr_helpers.pretrain_batches import CAPTION_WORDS, CELLS, CHARACTERS, KINDS, PAGE_SIZE, Batches, patches
from vdr_helpers.tiny_model import WIDTH, build_model

# The contrastive loss is asked of prefixes too, because Qwen3-VL-Embedding was trained with Matryoshka dimensions: {width: weight}.
WIDTHS = {WIDTH: 0.5, 16: 0.2, 8: 0.3}
FULL_PAGES = 1000  # the step at which the curriculum has come to full pages, where a model that can read already goes on


def caption_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy within each kind of word, summed over the kinds: a year is told from years, a first name from first names.

    ``logits`` and ``targets`` (0/1): shape (items, words). One softmax over all words lets a small model name the years and leave out
    the first names; asked kind by kind it learns those too.
    """
    loss, begin = logits.new_zeros(()), 0
    for kind in KINDS:
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

    def __init__(self, model, widths: dict[int, float]) -> None:
        super().__init__()
        self.widths = widths
        self.model = model
        self.letter_head = torch.nn.Linear(WIDTH, len(CHARACTERS))
        self.caption_head = torch.nn.Linear(WIDTH, len(CAPTION_WORDS))
        self.merged: torch.Tensor | None = None
        model[0].auto_model.visual.merger.register_forward_hook(self._keep)
        use_matrix_product(model)
        self.page_inputs = model.preprocess([Image.new("RGB", PAGE_SIZE, "white")])

    def _keep(self, module, inputs, output) -> None:
        self.merged = output

    def embed(self, features: dict) -> torch.Tensor:
        """Pooled vectors before normalisation, shape (items, 256)."""
        return self.model[1](self.model[0](features))["sentence_embedding"]

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        count = len(batch["images"])
        pixel_values, grids = patches(batch["images"])
        features = {"pixel_values": pixel_values, "image_grid_thw": grids, "modality": "message"}
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            features[name] = self.page_inputs[name].expand(count, -1)
        pages = self.embed(features)
        letters = functional.binary_cross_entropy_with_logits(
            self.letter_head(self.merged).reshape(count, CELLS, -1), batch["letters"], reduction="none"
        )
        letters = letters.sum(dim=-1).mean()  # nats per image token
        all_queries = self.embed(self.model.preprocess(batch["queries"]))
        queries = all_queries[:count]
        target, contrastive = torch.arange(count), 0.0
        for width, weight in sorted(self.widths.items()):  # the full width last: accuracy is told for it
            scores = functional.normalize(queries[:, :width], dim=-1) @ functional.normalize(pages[:, :width], dim=-1).T * 20
            both_ways = functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)
            contrastive += weight * both_ways / 2
        caption = caption_loss(self.caption_head(pages), batch["page_words"])
        caption = caption + caption_loss(self.caption_head(all_queries), batch["query_words"])
        accuracy = (scores.argmax(dim=1) == target).float().mean()
        return {"contrastive": contrastive, "caption": caption, "letter": letters, "accuracy": accuracy}


def save_state(path: Path, **state) -> None:
    """Write the training state whole or not at all: a killed run keeps the previous one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def pretrain(
    output: Path, minutes: float, batch_size: int = 32, seed: int = 0, log_every: int = 20, start: str | None = None
) -> list[dict]:
    """Train for ``minutes`` of wall time (resuming ``output/pretrain.pt`` if it is there) and save the model in ``output``.

    ``start``: a saved model to go on from, past the curriculum, instead of random weights.
    Returns the log, one dict per ``log_every`` steps with the mean of each loss; the shipped model's is in its folder. Raises
    ``ValueError`` if ``minutes`` is not positive.
    """
    if minutes <= 0:
        raise ValueError(f"minutes must be positive, got {minutes}")
    torch.manual_seed(seed)
    output.mkdir(parents=True, exist_ok=True)
    losses = Losses(build_model(seed=seed), WIDTHS)
    first = FULL_PAGES if start else 0
    if start:
        losses.model.load_state_dict(SentenceTransformer(start, device="cpu", model_kwargs={"dtype": "float32"}).state_dict())
    decayed = [p for p in losses.parameters() if p.dim() > 1]
    flat = [p for p in losses.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": flat, "weight_decay": 0.0}], lr=0.0, betas=(0.9, 0.98), fused=True
    )
    state_file, step, spent, log = output / "pretrain.pt", first, 0.0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        losses.load_state_dict(state["losses"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent, log = state["step"], state["spent"], state["log"]
    loader = iter(torch.utils.data.DataLoader(Batches(batch_size, step, seed), batch_size=None, num_workers=1, prefetch_factor=4))
    started, window, saved = time.time() - spent, [], time.time()
    while time.time() - started < minutes * 60:
        share = (time.time() - started) / (minutes * 60)
        rate = 1e-3 * min(1.0, (step - first + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * max(0.0, share - 0.3) / 0.7)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = losses(next(loader))
        optimizer.zero_grad()
        (parts["contrastive"] + 0.5 * parts["caption"] + parts["letter"]).backward()
        torch.nn.utils.clip_grad_norm_(losses.parameters(), 1.0)
        optimizer.step()
        step += 1
        window.append({name: value.item() for name, value in parts.items()})
        if step % log_every == 0:
            row = {"step": step, "minutes": round((time.time() - started) / 60, 2)}
            row |= {name: round(sum(part[name] for part in window) / len(window), 4) for name in window[0]}
            log.append(row)
            window = []
            print(json.dumps(row), flush=True)
        if time.time() - saved > 240:
            spent, saved = time.time() - started, time.time()
            state = {"losses": losses.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(state_file, step=step, spent=spent, log=log, **state)
    losses.model.half().save_pretrained(str(output), create_model_card=False)
    state_file.unlink(missing_ok=True)
    (output / "pretrain_log.json").write_text(json.dumps(log, indent=1) + "\n")
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/pretrain"))
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", help="a saved model to go on from")
    arguments = parser.parse_args()
    pretrain(arguments.output, arguments.minutes, arguments.batch_size, arguments.seed, start=arguments.start)


if __name__ == "__main__":
    main()
