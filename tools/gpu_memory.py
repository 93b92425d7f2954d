"""What training needs on a GPU: ``python -m tools.gpu_memory`` writes ``assets/gpu_memory.json``.

The setup cell looks settings up there (:mod:`vdr_helpers.gpu`), and notebook a2 adds up the same
figures in a few lines. Weights are counted in the library's own class. Bytes that autograd keeps
follow from the widths; ``tests/test_gpu.py`` compares both with what PyTorch really keeps.
"""

from __future__ import annotations

import json
from functools import cache

from tiny_vdr.model import QWEN3_VL_2B, SMALL, TINY, Sizes, build_config
from vdr_helpers.cache import atomic_write
from vdr_helpers.gpu import BYTES, GIB
from vdr_helpers.profiles import MIN_PIXELS, PROFILES, assets_folder, shipped

TEXT_TOKENS = 21  # the chat template around a page, counted in notebook 01
QUERY_TOKENS = 36  # mean of the published training queries: 36.31 (its model card)
PAGE_SIZE = (1416, 1648)  # mean page of the published training data, in pixels (its model card)
PATCH_VALUES = 1536  # 3 colours x 2 frames x 16 x 16; four patches make an image token
CUDA_GIB = 1.0  # assumed: CUDA's context (about half of it), kernels' work space, fragmentation
EFFICIENCY = (0.2, 0.5)  # assumed share of the data sheet's speed that training reaches
PAGES = (12, 10, 8, 6, 4, 3, 2, 1)  # pages per forward pass that are tried after the profile's own
LORA = {  # arguments of peft.LoraConfig, as in the Qwen3-VL-Embedding report: rank 32, alpha 32
    "r": 32,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj", "gate_proj"],
}
WAYS = {  # compute dtype: what is trained, with the weights' dtype. Adapters are always float32.
    "bfloat16": [("all weights", "bfloat16"), ("LoRA", "bfloat16")],
    # A gradient scaler refuses 16-bit gradients, so all weights would have to be float32.
    "float16": [("all weights", "float32"), ("LoRA", "float16")],
}


def image_tokens(width: int, height: int, max_pixels: int) -> int:
    """Tokens of a page of so many pixels after the processor's resize; one covers 32 x 32."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    rows, columns = smart_resize(height, width, 32, min_pixels=MIN_PIXELS, max_pixels=max_pixels)
    return rows * columns // 32**2


def network(sizes: Sizes):
    """The library's model of these widths on PyTorch's meta device: shapes, and no memory."""
    import torch
    from transformers import AutoTokenizer, Qwen3VLModel

    tokenizer = AutoTokenizer.from_pretrained(shipped("assets/tiny-base"))
    with torch.device("meta"):
        return Qwen3VLModel(build_config(sizes, tokenizer))


@cache
def count_weights(sizes: Sizes) -> dict[str, int]:
    """Weights of a model, of LoRA beside it, and of the matrices that a token passes through."""
    model = network(sizes)
    language, vision = model.language_model, model.visual
    parts = {
        "language": [language.layers],
        "patches": [vision.blocks, vision.patch_embed],
        "mergers": [vision.merger, vision.deepstack_merger_list],
    }
    counted = {}
    for name, modules in parts.items():
        weights = [weight for module in modules for weight in module.parameters()]
        counted[name] = sum(weight.numel() for weight in weights if weight.dim() > 1)
    counted["parameters"] = sum(weight.numel() for weight in model.parameters())
    counted["vision"] = sum(weight.numel() for weight in vision.parameters())
    counted["lora_parameters"] = sum(
        LORA["r"] * (module.in_features + module.out_features)
        for name, module in language.named_modules()
        if name.rpartition(".")[2] in LORA["target_modules"]
    )
    return counted


def operations(sizes: Sizes, tokens: int) -> dict[str, float]:
    """Floating-point operations of one forward pass of a page of ``tokens`` image tokens.

    Two per weight and token, plus attention, which a causal model computes for half of the square.
    """
    weights, width = count_weights(sizes), sizes.heads * sizes.head_dim
    patches, text = 4 * tokens, tokens + TEXT_TOKENS

    def language(length: int) -> float:
        return 2 * weights["language"] * length + 2 * sizes.layers * width * length**2

    attention = 4 * sizes.vision_depth * sizes.vision_hidden * patches**2
    vision = 2 * weights["patches"] * patches + 2 * weights["mergers"] * tokens + attention
    return {"language": language(text), "vision": vision, "query": language(QUERY_TOKENS)}


def kept_per_page(sizes: Sizes, tokens: int, dtype: str) -> dict[str, int]:
    """Bytes that autograd keeps for the backward pass of a page, on CUDA with 16-bit autocast.

    Per token and language layer: two RMSNorms keep their input in float32 and two 16-bit copies
    (wider ones beside float32 weights), attention keeps queries, keys, values and output, the MLP
    four tensors. Per patch and vision layer the same; its LayerNorms run in float32 on CUDA.
    LoRA keeps the language part: the vision tower is frozen and keeps nothing.
    """
    norms, merged = 16 if BYTES[dtype] == 2 else 26, 4 * sizes.vision_hidden
    query, keys = sizes.heads * sizes.head_dim, sizes.key_value_heads * sizes.head_dim
    small = 8 + 8 * sizes.heads + 4 * sizes.key_value_heads
    layer = norms * sizes.hidden_size + 14 * query + 6 * keys + 8 * sizes.intermediate_size + small
    block = 26 * sizes.vision_hidden + 4 * sizes.vision_intermediate + 16 + 4 * sizes.vision_heads
    ends = 12 * merged * (1 + len(sizes.deepstack)) + 8 * PATCH_VALUES + 8 * sizes.hidden_size
    return {
        "language": (tokens + TEXT_TOKENS) * sizes.layers * layer,
        "vision": 4 * tokens * sizes.vision_depth * block + tokens * ends,
    }


def memory(
    sizes: Sizes, trains: str, dtype: str, pages: int, rows: int = 64, tokens: int = 340
) -> dict[str, float]:
    """GiB on the GPU while training, by term; a row is a query, its page and a hard negative.

    ``trains``: "all weights" or "LoRA"; ``dtype``: of the weights; ``pages``: per forward pass.
    """
    counted, lora = count_weights(sizes), trains == "LoRA"
    weights, adapters = counted["parameters"], counted["lora_parameters"]
    trained, width = (adapters, 4) if lora else (weights, BYTES[dtype])
    kept = kept_per_page(sizes, tokens, dtype)
    copies = not lora and dtype == "float32"
    terms = {
        "weights": weights * BYTES[dtype] + (4 * adapters if lora else 0),
        "gradients": trained * width,
        "Adam's two moments": 2 * trained * width,
        "pixels of a batch": 2 * rows * 4 * tokens * PATCH_VALUES * BYTES[dtype],
        "embeddings and their gradients": 2 * 3 * rows * sizes.hidden_size * 4,
        "16-bit copies": 2 * (counted["language"] + counted["vision"]) if copies else 0,
        "activations": pages * (kept["language"] + (0 if lora else kept["vision"])),
    }
    return {name: size / GIB for name, size in terms.items()} | {"CUDA (assumed)": CUDA_GIB}


def settings(compute_dtype: str) -> list[dict]:
    """The table's rows for GPUs that compute in this dtype, in the order in which they are
    tried.
    """
    full = PROFILES["full"]
    tokens = image_tokens(*PAGE_SIZE, full.max_pixels)
    page = tokens + TEXT_TOKENS
    budgets = {full.mini_batch_num_tokens // page: full.mini_batch_num_tokens}
    budgets |= {pages: pages * page for pages in PAGES}
    return [
        {
            "trains": trains,
            "dtype": dtype,
            "mini_batch_num_tokens": budget,
            "pages": pages,
            "gib": round(sum(memory(QWEN3_VL_2B, trains, dtype, pages).values()), 2),
        }
        for trains, dtype in WAYS[compute_dtype]
        for pages, budget in budgets.items()
    ]


def build() -> dict:
    """The contents of ``assets/gpu_memory.json``."""
    tokens = image_tokens(*PAGE_SIZE, PROFILES["full"].max_pixels)
    weights = count_weights(QWEN3_VL_2B)
    models = {}
    for sizes in (QWEN3_VL_2B, TINY, SMALL):
        counted = count_weights(sizes)
        chosen = {name: counted[name] for name in ("parameters", "lora_parameters")}
        models[str(sizes.hidden_size)] = {"name": sizes.name} | chosen
    return {
        "what": "written by python -m tools.gpu_memory; computed, not measured; GiB of 2^30 bytes",
        "page": {
            "width": PAGE_SIZE[0],
            "height": PAGE_SIZE[1],
            "image_tokens": tokens,
            "text_tokens": TEXT_TOKENS,
            "max_pixels": PROFILES["full"].max_pixels,
        },
        "rows": PROFILES["full"].per_device_train_batch_size,
        "models": models,
        "lora": LORA,
        "kept_per_page": {dtype: kept_per_page(QWEN3_VL_2B, tokens, dtype) for dtype in BYTES},
        "copies": 2 * (weights["language"] + weights["vision"]),
        "cuda_gib": CUDA_GIB,
        "operations": operations(QWEN3_VL_2B, tokens),
        "efficiency": EFFICIENCY,
        "settings": {compute_dtype: settings(compute_dtype) for compute_dtype in WAYS},
    }


def main() -> None:
    """Write ``assets/gpu_memory.json``."""
    path = assets_folder() / "gpu_memory.json"
    atomic_write(path, json.dumps(build(), indent=1) + "\n")


if __name__ == "__main__":
    main()
