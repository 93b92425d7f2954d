"""The tiny base model: the classes of ``Qwen/Qwen3-VL-Embedding-2B``, 3,779,456 weights instead of
2,127,532,032.

``Qwen3VLModel`` + ``Qwen3VLProcessor`` behind Sentence Transformers' ``Transformer`` ->
``Pooling(lasttoken)`` -> ``Normalize``. The weights come from ``make pretrain``
(:mod:`tiny_vdr.pretrain`); notebook 01 walks through the result.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tiny_vdr import vocabulary

# the published 2,048 divided by eight, so the Matryoshka dimensions are the published seven divided
# by eight
WIDTH = 256
# every generated page becomes 160 x 224 or 224 x 160 pixels: 35 image tokens
PAGE_PIXELS = 200 * 200
INSTRUCTION = "Represent the user's input."
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\n"
    + INSTRUCTION.replace("'", "\\'")
    + "<|im_end|>\\n' }}{% endif %}"
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{ message.content }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif 'text' in part %}{{ part.text }}{%- endif %}{%- endfor %}{%- endif %}{{ '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Sizes:
    """Widths and depths of a ``Qwen3VLModel`` (no language head). Field names follow its
    ``Qwen3VLConfig``.
    """

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


# The public config of the 2B model:
# huggingface.co/interlive/STRIDE-R003-PMDM-Qwen3-VL-2B/blob/main/config.json, a model of the same
# architecture whose config was read (text part and vision depth, width, deepstack); the other
# vision numbers as in the 4B's config, which has the same tower, and in sgl-jax's
# Qwen3VLVisionConfig. Its parameters are the "2.1B" of the published card.
QWEN3_VL_2B = Sizes(
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
TINY = Sizes("tiny", 256, 768, 2, 4, 2, 64, 1536, 128, 512, 4, 4, 256, (1,))
SMALL = Sizes("small", 64, 128, 2, 4, 2, 16, 2048, 32, 64, 3, 2, 64, (0, 1))

SIZES = {sizes.name: sizes for sizes in (QWEN3_VL_2B, TINY, SMALL)}


def build_processor():
    """A ``Qwen3VLProcessor`` whose byte-level BPE (1,536 tokens, one token per digit) is trained on
    invented queries.
    """
    from transformers import (
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    rng = random.Random(0)
    templates = (
        vocabulary.METRIC_QUERIES.shared
        + vocabulary.CHART_QUERIES.shared
        + vocabulary.ITEM_QUERIES.shared
    )
    lines = [INSTRUCTION, "system", "user", "assistant"] * 50
    for _ in range(20_000):
        first, second, subject, region = (vocabulary.invented_word(rng) for _ in range(4))
        if rng.random() < 0.6:
            first, second = (
                rng.choice(vocabulary.FIRST_NAMES.shared),
                rng.choice(vocabulary.SECOND_NAMES.shared),
            )
            subject = rng.choice(vocabulary.METRICS.shared + vocabulary.ITEMS.shared).lower()
            region = rng.choice(vocabulary.REGIONS.shared)
        lines.append(
            rng.choice(templates).format(
                organisation=f"{first} {second}", subject=subject, year="", region=region
            )
        )
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        lines, vocab_size=1536, new_special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.padding_side = (
        "right"  # right padding lets a mini-batch be trimmed to its longest member
    )
    pixels = {
        "patch_size": 16,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [1.0] * 3,
        "image_std": [0.35] * 3,
    }
    size = {"shortest_edge": 64 * 64, "longest_edge": PAGE_PIXELS}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=size, **pixels),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(
    model: Sizes,
    tokenizer,
    initializer_range: float = 0.02,
    rope_theta: float = 5_000_000,
    longest: int = 262_144,
):
    """The ``Qwen3VLConfig`` of these widths; what is left out of the call is as in the 2B model's.
    Special tokens are ``tokenizer``'s.
    """
    from transformers import Qwen3VLConfig

    # rotary sections time, height, width: 24, 20, 20 for heads of 128
    side = model.head_dim // 2 * 5 // 16
    return Qwen3VLConfig(
        vision_config={
            "depth": model.vision_depth, "hidden_size": model.vision_hidden, "intermediate_size": model.vision_intermediate,
            "num_heads": model.vision_heads, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "out_hidden_size": model.hidden_size, "num_position_embeddings": model.position_embeddings,
            "deepstack_visual_indexes": list(model.deepstack), "initializer_range": initializer_range,
        },
        text_config={
            "vocab_size": model.vocabulary, "hidden_size": model.hidden_size, "intermediate_size": model.intermediate_size,
            "num_hidden_layers": model.layers, "num_attention_heads": model.heads, "num_key_value_heads": model.key_value_heads,
            "head_dim": model.head_dim, "max_position_embeddings": longest, "initializer_range": initializer_range,
            "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": rope_theta, "mrope_interleaved": True,
                "mrope_section": [model.head_dim // 2 - 2 * side, side, side],
            },
        },
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        initializer_range=initializer_range,
    )  # fmt: skip


def tiny_config(tokenizer):
    """The tiny model's config: vision 4 x 128, language model 2 x 256, a vocabulary as large as its
    tokenizer's.
    """
    # Weights start at 0.06: with the usual 0.02 a model this small never leaves chance.
    sizes = replace(TINY, vocabulary=len(tokenizer))
    return build_config(sizes, tokenizer, initializer_range=0.06, rope_theta=10_000.0, longest=2048)


def build_model(seed: int = 0):
    """A ``SentenceTransformer`` of this architecture with random weights: text or page in, 256
    numbers of length 1 out.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import Qwen3VLModel

    processor = build_processor()
    tokenizer = processor.tokenizer
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(seed)
        Qwen3VLModel(tiny_config(tokenizer)).save_pretrained(folder)
        processor.save_pretrained(folder)
        transformer = Transformer(
            folder, processing_kwargs={"chat_template": {"add_generation_prompt": True}}
        )
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
        return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


def save_random_model(folder: Path, sizes: Sizes, like: Path, seed: int = 0) -> None:
    """Write a Sentence Transformers folder of these sizes with random bfloat16 weights; they are
    drawn on the GPU where there is one.

    ``like``: the tiny base's folder, whose tokenizer, processor, chat template and modules it gets.
    The tokenizer's vocabulary is padded to ``sizes.vocabulary`` rows of the embedding table.
    """
    import torch
    from transformers import AutoTokenizer, Qwen3VLModel

    not_its_own = shutil.ignore_patterns(
        "*.safetensors", "config.json", "README.md", "pretrain_log.json"
    )
    shutil.copytree(
        like,
        folder,
        ignore=lambda at, names: not_its_own(at, names) if Path(at) == like else set(),
        dirs_exist_ok=True,
    )
    pooling = folder / "1_Pooling" / "config.json"
    settings = json.loads(pooling.read_text(encoding="utf-8")) | {
        "embedding_dimension": sizes.hidden_size
    }
    pooling.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    before = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(seed)
        try:
            torch.set_default_dtype(torch.bfloat16)
            Qwen3VLModel(build_config(sizes, AutoTokenizer.from_pretrained(like))).save_pretrained(
                folder
            )
        finally:
            torch.set_default_dtype(before)
