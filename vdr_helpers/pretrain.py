"""Pre-train the tiny base model: ``python -m vdr_helpers.pretrain --minutes 60 --output assets/tiny-base``.

The model learns to read from generated pages of four layouts, with invented names beside the shared vocabulary; two layouts, a
quarter of the course's words and a third of its phrasings are never shown (``vocabulary.WordList.held_out``,
``pages.HELD_OUT_LAYOUTS``). Three losses are added: contrastive between queries and pages, with near-duplicate pages in each batch;
a caption loss (which known words does this page or query name?); and a letter loss (which characters are under this image token?).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import string
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from vdr_helpers import vocabulary
from vdr_helpers.corpus import query_templates, write_query
from vdr_helpers.pages import HELD_OUT_LAYOUTS, ITEM_LAYOUTS, METRIC_LAYOUTS, TABLE_LAYOUTS, Page, draw_page
from vdr_helpers.tiny_model import WIDTH, build_model

CHARACTERS = string.ascii_lowercase + string.digits
CAPTION_WORDS = tuple(
    word.lower()
    for group in (vocabulary.FIRST_NAMES, vocabulary.SECOND_NAMES, vocabulary.METRICS, vocabulary.ITEMS, vocabulary.REGIONS)
    for word in group.shared
) + tuple(str(year) for year in vocabulary.YEARS)
CAPTION_INDEX = {word: i for i, word in enumerate(CAPTION_WORDS)}
PAGE_SIZE = (160, 224)  # pixels after the processor's resize, portrait; landscape pages are turned
CELLS = 35  # image tokens per page: one per 32 x 32 pixels


def curriculum(step: int) -> tuple[float, float, int]:
    """``(share of flashcards, share of posters, near-duplicates per family)`` at a step: first one typeface at fixed places."""
    flashcards = min(1.0, max(0.0, 1.3 - step / 320))
    posters = (1 - flashcards) * max(0.1, 1.2 - step / 700)
    return flashcards, posters, 1 if step < 200 else 2 if step < 450 else 4


def random_page(rng: random.Random, flashcards: float = 0.0, posters: float = 0.0) -> Page:
    """A page from the pre-training mix: shared words and layouts, a third invented names, 15 % invented subjects."""
    item = rng.random() < 0.4
    layouts = [layout for layout in (ITEM_LAYOUTS if item else METRIC_LAYOUTS) if layout not in HELD_OUT_LAYOUTS]
    first, second = rng.choice(vocabulary.FIRST_NAMES.shared), rng.choice(vocabulary.SECOND_NAMES.shared)
    if rng.random() < 0.35:
        first = vocabulary.invented_word(rng)
    if rng.random() < 0.15:
        second = vocabulary.invented_word(rng)
    subjects = rng.sample((vocabulary.ITEMS if item else vocabulary.METRICS).shared, k=3)
    if rng.random() < 0.15:
        subjects[0] = vocabulary.invented_word(rng)
    plain = rng.random()
    return Page(
        organisation=f"{first} {second}",
        subjects=tuple(subjects),
        year=rng.choice(vocabulary.YEARS),
        region=rng.choice(vocabulary.REGIONS.shared),
        layout="flashcard" if plain < flashcards else "poster" if plain < flashcards + posters else rng.choice(layouts),
        seed=rng.randrange(2**31),
    )


def near_duplicate(page: Page, rng: random.Random) -> Page:
    """The same page with one thing changed: the year, the subject, or half of the organisation's name."""
    change = rng.choice(("year", "year", "subject", "first", "second"))
    values = dict(page.__dict__, seed=rng.randrange(2**31))
    other = random_page(rng)
    if change == "year":
        values["year"] = rng.choice([year for year in vocabulary.YEARS if year != page.year])
    elif change == "subject":
        words = vocabulary.ITEMS.shared if page.layout in ITEM_LAYOUTS else vocabulary.METRICS.shared
        values["subjects"] = tuple(rng.sample([word for word in words if word not in page.subjects], k=3))
    else:
        mine, theirs = page.organisation.split(), other.organisation.split()
        place = 0 if change == "first" else 1
        mine[place] = theirs[place]
        values["organisation"] = " ".join(mine)
    return Page(**values)


def random_query(page: Page, rng: random.Random) -> str:
    """A query that ``page`` answers, in one of the shared phrasings, now and then in lower case or as bare words."""
    asked = rng.choice(page.subjects) if page.layout in TABLE_LAYOUTS else page.subjects[0]
    query = write_query(page, asked, rng.choice([template for group in query_templates(page.layout) for template in group.shared]))
    if rng.random() < 0.2:
        pieces = [page.organisation, asked.lower(), str(page.year)]
        rng.shuffle(pieces)
        query = " ".join(pieces)
    return query.lower() if rng.random() < 0.15 else query


def letter_targets(key_lines: list, size: tuple[int, int], shrunk: tuple[int, int]) -> np.ndarray:
    """Which characters lie under which image token: 0/1 of shape (35, 36), in the order of the image tokens."""
    scale_x, scale_y = shrunk[0] / size[0], shrunk[1] / size[1]
    columns, rows = shrunk[0] // 32, shrunk[1] // 32
    targets = np.zeros((CELLS, len(CHARACTERS)), dtype=np.float32)
    for text, x0, y0, x1, y1 in key_lines:
        row = min(rows - 1, int((y0 + y1) / 2 * scale_y // 32))
        for i, character in enumerate(text.lower()):
            column = int((x0 + (x1 - x0) * (i + 0.5) / len(text)) * scale_x // 32)
            if character in CHARACTERS and 0 <= column < columns:
                targets[row * columns + column, CHARACTERS.index(character)] = 1.0
    return targets


class Batches(torch.utils.data.IterableDataset):
    """Endless batches of ``size`` pages with one query each: images, queries, letter targets, caption targets."""

    def __init__(self, size: int, start: int, seed: int) -> None:
        self.size, self.start, self.seed = size, start, seed

    def __iter__(self):
        step = self.start
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> dict:
        rng = random.Random(f"{self.seed}-{step}")
        flashcards, posters, family = curriculum(step)
        pages: list[Page] = []
        while len(pages) < self.size:
            page = random_page(rng, flashcards, posters)
            pages += [page] + [near_duplicate(page, rng) for _ in range(family - 1)]
        pages = pages[: self.size]
        images, letters, captions, queries = [], [], [], []
        for page in pages:
            image, key_lines = draw_page(page)
            shrunk = PAGE_SIZE if image.height > image.width else PAGE_SIZE[::-1]
            letters.append(letter_targets(key_lines, image.size, shrunk))
            images.append(torch.from_numpy(np.array(image.resize(shrunk, Image.BICUBIC))))
            queries.append(random_query(page, rng))
            caption = np.zeros(len(CAPTION_WORDS), dtype=np.float32)
            for word in [*page.organisation.split(), *page.subjects, page.region, str(page.year)]:
                if word.lower() in CAPTION_INDEX:
                    caption[CAPTION_INDEX[word.lower()]] = 1.0
            captions.append(caption)
        return {"images": images, "queries": queries, "letters": torch.from_numpy(np.stack(letters)), "captions": torch.from_numpy(np.stack(captions))}


def patches(images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the processor makes of already resized pages: ``pixel_values`` (patches, 1536) and ``image_grid_thw`` (pages, 3)."""
    values, grids = [], []
    for image in images:
        height, width = image.shape[0] // 16, image.shape[1] // 16
        pixels = (image.permute(2, 0, 1).float() / 255 - 1.0) / 0.35
        pixels = pixels.reshape(3, height // 2, 2, 16, width // 2, 2, 16).permute(1, 4, 2, 5, 0, 3, 6)
        pixels = pixels.reshape(height * width, 3, 1, 16, 16).expand(-1, -1, 2, -1, -1)
        values.append(pixels.reshape(height * width, -1))
        grids.append([1, height, width])
    return torch.cat(values), torch.tensor(grids)


class Losses(torch.nn.Module):
    """The model and the two heads that only pre-training needs."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model
        self.letter_head = torch.nn.Linear(WIDTH, len(CHARACTERS))
        self.caption_head = torch.nn.Linear(WIDTH, len(CAPTION_WORDS))
        self.merged: torch.Tensor | None = None
        model[0].auto_model.visual.merger.register_forward_hook(self._keep)
        self.patch_embed = model[0].auto_model.visual.patch_embed
        self.patch_embed.forward = self._embed_patches
        self.page_inputs = model.preprocess([Image.new("RGB", PAGE_SIZE, "white")])

    def _embed_patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The patch convolution as the matrix product it is: same result, a backward pass five times cheaper on a CPU."""
        weight = self.patch_embed.proj.weight
        return functional.linear(pixel_values, weight.reshape(weight.shape[0], -1), self.patch_embed.proj.bias)

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
        queries = self.embed(self.model.preprocess(batch["queries"]))
        scores = functional.normalize(queries, dim=-1) @ functional.normalize(pages, dim=-1).T * 20
        target = torch.arange(count)
        contrastive = (functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)) / 2
        captions = batch["captions"] / batch["captions"].sum(dim=-1, keepdim=True).clamp(min=1)
        caption = -(captions * functional.log_softmax(self.caption_head(pages), dim=-1)).sum(dim=-1).mean()
        caption = caption - (captions * functional.log_softmax(self.caption_head(queries), dim=-1)).sum(dim=-1).mean()
        accuracy = (scores.argmax(dim=1) == target).float().mean()
        return {"contrastive": contrastive, "caption": caption, "letter": letters, "accuracy": accuracy}


def save_state(path: Path, **state) -> None:
    """Write the training state whole or not at all: a killed run keeps the previous one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def pretrain(output: Path, minutes: float, batch_size: int = 64, seed: int = 0, log_every: int = 20) -> list[dict]:
    """Train for ``minutes`` of wall time (resuming ``output/pretrain.pt`` if it is there) and save the model in ``output``.

    Returns the log, one dict per ``log_every`` steps with the mean of each loss. Takes 60 minutes on two cores for the
    shipped model; raises ``ValueError`` if ``minutes`` is not positive.
    """
    if minutes <= 0:
        raise ValueError(f"minutes must be positive, got {minutes}")
    torch.manual_seed(seed)
    output.mkdir(parents=True, exist_ok=True)
    losses = Losses(build_model(seed=seed))
    decayed = [p for p in losses.parameters() if p.dim() > 1]
    flat = [p for p in losses.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": flat, "weight_decay": 0.0}], lr=0.0, fused=True)
    state_file, step, spent, log = output / "pretrain.pt", 0, 0.0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        losses.load_state_dict(state["losses"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent, log = state["step"], state["spent"], state["log"]
    loader = iter(torch.utils.data.DataLoader(Batches(batch_size, step, seed), batch_size=None, num_workers=1, prefetch_factor=4))
    started, window, saved = time.time() - spent, [], time.time()
    while time.time() - started < minutes * 60:
        share = (time.time() - started) / (minutes * 60)
        rate = 1e-3 * min(1.0, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * max(0.0, share - 0.3) / 0.7)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = losses(next(loader))
        optimizer.zero_grad()
        (parts["contrastive"] + parts["caption"] + parts["letter"]).backward()
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
    del losses.patch_embed.forward  # the model's own method again
    losses.model.half().save_pretrained(str(output), create_model_card=False)
    (output / "pretrain_log.json").write_text(json.dumps(log, indent=1) + "\n")
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/pretrain"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pretrain(arguments.output, arguments.minutes, arguments.batch_size, arguments.seed)


if __name__ == "__main__":
    main()
