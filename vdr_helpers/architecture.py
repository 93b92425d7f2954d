"""The model in numbers: parameters, floating-point operations and stored bytes per token, from the widths of its config.

The planner (notebook 00) and the rehearsal use it. Nothing is imported from transformers; ``tests/test_planner.py`` compares the
parameters with the real class and the bytes with what PyTorch's autograd really keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PIXELS_PER_SIDE = 32  # one image token covers 32 x 32 pixels: patches of 16 pixels, merged 2 x 2
PATCHES_PER_TOKEN = 4
PATCH_VALUES = 3 * 2 * 16 * 16  # colours x two frames x patch: what the processor hands over per patch, as float32
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj", "gate_proj")  # as in the Qwen3-VL-Embedding report
LORA_RANK = 32  # the same report: rank 32, alpha 32
LORA = {"r": LORA_RANK, "lora_alpha": LORA_RANK, "target_modules": list(LORA_MODULES)}  # arguments of peft.LoraConfig


@dataclass(frozen=True)
class Architecture:
    """Widths and depths of a ``Qwen3VLModel`` (no language head). Field names follow its ``Qwen3VLConfig``."""

    name: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    vision_hidden: int
    vision_intermediate: int
    vision_depth: int
    vision_heads: int
    position_embeddings: int
    deepstack: tuple[int, ...]

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        return self.key_value_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Weights of one language layer that take part in matrix products."""
        attention = self.hidden_size * (2 * self.query_width + 2 * self.key_value_width)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def language_parameters(self) -> int:
        """The language model without its token embeddings."""
        norms = 2 * self.hidden_size + 2 * self.head_dim
        return self.layers * (self.layer_matrices + norms) + self.hidden_size

    @property
    def merger_parameters(self) -> int:
        """All mergers (one at the end, one per deepstack level): they turn four patches into one image token."""
        merged = PATCHES_PER_TOKEN * self.vision_hidden
        linear = merged * merged + merged + merged * self.hidden_size + self.hidden_size
        return (1 + len(self.deepstack)) * linear + 2 * self.vision_hidden + len(self.deepstack) * 2 * merged

    @property
    def vision_parameters(self) -> int:
        """The vision tower with its mergers."""
        width, inner = self.vision_hidden, self.vision_intermediate
        block = 4 * width * width + 4 * width + 2 * width * inner + width + inner + 4 * width
        patches = (PATCH_VALUES + 1) * width + self.position_embeddings * width
        return self.vision_depth * block + patches + self.merger_parameters

    @property
    def parameters(self) -> int:
        """All weights: vision tower, token embeddings, language model."""
        return self.vision_parameters + self.vocabulary * self.hidden_size + self.language_parameters

    @property
    def lora_parameters(self) -> int:
        """Trainable weights of LoRA of rank :data:`LORA_RANK` on :data:`LORA_MODULES` of every language layer."""
        wide = 3 * (self.hidden_size + self.intermediate_size)
        attention = (self.hidden_size + self.query_width) + 2 * (self.hidden_size + self.key_value_width)
        return self.layers * LORA_RANK * (wide + attention)

    def stored_bytes_per_token(self, weight_bytes: int) -> int:
        """Bytes that autograd keeps per language token for the backward pass, all layers, with 16-bit products and SDPA.

        Per layer, with 16-bit weights: two RMSNorms keep their input in float32 and two 16-bit copies, the norms of queries and keys
        the same, attention keeps queries, keys, values and output, the MLP four tensors. ``weight_bytes`` 4 (float32 weights under
        autocast) keeps wider copies around the norms. LoRA keeps nearly the same: inputs of its matrices instead of the weights'.
        """
        norms = 16 if weight_bytes == 2 else 26
        attention = 14 * self.query_width + 6 * self.key_value_width  # keys and values repeated to all heads, as with padding
        small = 8 + 8 * self.heads + 4 * self.key_value_heads
        return self.layers * (norms * self.hidden_size + attention + 8 * self.intermediate_size + small)

    def stored_bytes_per_patch(self) -> int:
        """Bytes kept per vision patch, all vision layers; zero when the tower is frozen (LoRA on the language model)."""
        per_layer = 22 * self.vision_hidden + 4 * self.vision_intermediate + 16 + 4 * self.vision_heads
        return self.vision_depth * per_layer

    def stored_bytes_per_image_token(self) -> int:
        """Bytes kept around the mergers and at the two ends of the network, per image token: a few per cent of the whole."""
        merged = PATCHES_PER_TOKEN * self.vision_hidden
        return (1 + len(self.deepstack)) * 12 * merged + 2 * PATCHES_PER_TOKEN * PATCH_VALUES + 8 * self.hidden_size

    def language_flops(self, tokens: int) -> float:
        """Floating-point operations of one forward pass of ``tokens`` tokens of one text or page through the language model."""
        products = 2 * self.layers * self.layer_matrices * tokens
        return products + 2 * self.layers * self.query_width * tokens * tokens  # causal attention computes half of the square

    def vision_flops(self, patches: int) -> float:
        """Floating-point operations of one forward pass of one page of ``patches`` patches through tower and mergers."""
        width, inner = self.vision_hidden, self.vision_intermediate
        blocks = 2 * self.vision_depth * (4 * width * width + 2 * width * inner) * patches
        attention = 4 * self.vision_depth * width * patches * patches
        return blocks + attention + 2 * PATCH_VALUES * width * patches + 2 * self.merger_parameters * patches / PATCHES_PER_TOKEN


# The public config of the 2B model: huggingface.co/interlive/STRIDE-R003-PMDM-Qwen3-VL-2B/blob/main/config.json, a model of the same
# architecture whose config was read (text part and vision depth, width, deepstack); the other vision numbers as in the 4B's config,
# which has the same tower, and in sgl-jax's Qwen3VLVisionConfig. Its parameters are the "2.1B" of the published card.
QWEN3_VL_2B = Architecture(
    name="Qwen3-VL 2B",
    hidden_size=2048,
    intermediate_size=6144,
    layers=28,
    heads=16,
    key_value_heads=8,
    head_dim=128,
    vocabulary=151_936,
    vision_hidden=1024,
    vision_intermediate=4096,
    vision_depth=24,
    vision_heads=16,
    position_embeddings=2304,
    deepstack=(5, 11, 17),
)
TINY = Architecture("tiny", 256, 768, 2, 4, 2, 64, 1536, 128, 512, 4, 4, 256, (1,))
SMALL = Architecture("small (for tests on a CPU)", 64, 128, 2, 4, 2, 16, 2048, 32, 64, 3, 2, 64, (0, 1))


def image_tokens(width: int, height: int, max_pixels: int) -> int:
    """Image tokens of a page of ``width`` x ``height`` pixels after the processor's resize (notebook 01: multiples of 32, a ceiling)."""
    rows, columns = max(1, round(height / PIXELS_PER_SIDE)), max(1, round(width / PIXELS_PER_SIDE))
    if rows * columns * PIXELS_PER_SIDE**2 > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        rows = max(1, math.floor(height / shrink / PIXELS_PER_SIDE))
        columns = max(1, math.floor(width / shrink / PIXELS_PER_SIDE))
    return rows * columns
