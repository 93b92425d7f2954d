"""Tiny twins of the listed model families: the family's own classes, random weights, saved as a
Sentence Transformers model.

A twin shows that the classes of a family load, read text and pages and give vectors through the
course's loader and evaluator. It says nothing about the scores of the real model, nor about the
files of its repository. All sizes are made up; the class names are real.
"""

import copy
import tempfile

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    CLIPModel,
    Normalize,
    Pooling,
    Transformer,
)

from tiny_vdr import model

WIDTH = 32
LINES = [
    "What was the revenue of Alder Energy in 2014?",
    "Price of pumps at Basalt Foods in 2019, Lisbon",
]
MARKS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 140 * 140}
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
# as in Qwen2-VL: sums to half a head
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
CLIP_VISION = TEXT | {"image_size": 28, "patch_size": 14}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": WIDTH,
    "num_heads": 2,
    "patch_size": 14,
    "initializer_range": 0.2,
}
LLAVA_TEMPLATE = (
    "{%- for message in messages %}{%- if message.content is string %}{{ message.content }}{%- else %}"
    "{%- for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{%- endfor %}{%- endif %}{%- endfor %}"
    "{{ '\\nSummary in one word: ' }}"
)


def train_tokenizer(*special):
    """A byte-level BPE of 300 tokens and ``special`` ones, with the names that the Omni processor
    asks its tokenizer for.
    """
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special]
    built = transformers.Qwen2Tokenizer().train_new_from_iterator(
        LINES, vocab_size=300, new_special_tokens=tokens, show_progress=False
    )
    names = {name: token for name, token in MARKS.items() if token in special}
    with tempfile.TemporaryDirectory() as folder:
        built.save_pretrained(folder)
        return transformers.Qwen2Tokenizer.from_pretrained(folder, extra_special_tokens=names)


def qwen_parts(tokenizer, more=()):
    """What the configurations of the Qwen families share: the language model's and the ids of the
    marks.
    """
    names = {
        "image_token_id": "image_token", "video_token_id": "video_token", "vision_start_token_id": "vision_bos_token",
        "vision_end_token_id": "vision_eos_token", **dict(more),
    }  # fmt: skip
    text = TEXT | {"num_key_value_heads": 1, "vocab_size": len(tokenizer), "rope_parameters": ROPE}
    text |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return {"text_config": text} | {
        key: tokenizer.convert_tokens_to_ids(MARKS[name]) for key, name in names.items()
    }


def qwen_tools(tokenizer):
    """The keyword arguments that the processors of the Qwen families share."""
    return {
        "image_processor": transformers.Qwen2VLImageProcessor(size=PIXELS),
        "video_processor": transformers.Qwen2VLVideoProcessor(size=PIXELS),
        "tokenizer": tokenizer,
        "chat_template": model.CHAT_TEMPLATE,
    }


def qwen3_vl():
    processor = model.build_processor()
    return transformers.Qwen3VLModel(model.tiny_config(processor.tokenizer)), processor


def qwen2_vl():
    tokenizer = train_tokenizer(*MARKS.values())
    vision = QWEN_VISION | {"embed_dim": WIDTH, "mlp_ratio": 2}
    config = transformers.Qwen2VLConfig(vision_config=vision, **qwen_parts(tokenizer))
    return transformers.Qwen2VLModel(config), transformers.Qwen2VLProcessor(**qwen_tools(tokenizer))


def qwen2_5_vl():
    tokenizer = train_tokenizer(*MARKS.values())
    vision = QWEN_VISION | {
        "out_hidden_size": WIDTH,
        "intermediate_size": 64,
        "fullatt_block_indexes": [1],
    }
    config = transformers.Qwen2_5_VLConfig(vision_config=vision, **qwen_parts(tokenizer))
    return transformers.Qwen2_5_VLModel(config), transformers.Qwen2_5_VLProcessor(
        **qwen_tools(tokenizer)
    )


def qwen2_5_omni_thinker():
    tokenizer = train_tokenizer(*MARKS.values())
    vision = QWEN_VISION | {
        "out_hidden_size": WIDTH,
        "intermediate_size": 64,
        "fullatt_block_indexes": [1],
    }
    audio = {
        "d_model": WIDTH,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "output_dim": WIDTH,
    }
    more = {
        "audio_token_id": "audio_token",
        "audio_start_token_id": "audio_bos_token",
        "audio_end_token_id": "audio_eos_token",
    }
    config = transformers.Qwen2_5OmniThinkerConfig(
        vision_config=vision,
        audio_config=audio | {"num_mel_bins": 16},
        **qwen_parts(tokenizer, more),
    )
    hearing = transformers.WhisperFeatureExtractor(feature_size=16)
    processor = transformers.Qwen2_5OmniProcessor(
        feature_extractor=hearing, **qwen_tools(tokenizer)
    )
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def llava_next():
    tokenizer = train_tokenizer("<image>")
    tokenizer.pad_token = "<|endoftext|>"
    grid = [[28, 56], [56, 28]]
    config = transformers.LlavaNextConfig(
        text_config=transformers.LlamaConfig(
            vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **TEXT
        ),
        vision_config=transformers.CLIPVisionConfig(**CLIP_VISION),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    processor = transformers.LlavaNextProcessor(
        image_processor=transformers.LlavaNextImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
        ),
        tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )  # fmt: skip
    return transformers.LlavaNextModel(config), processor


def clip():
    tokenizer = transformers.CLIPTokenizer().train_new_from_iterator(
        LINES, vocab_size=300, show_progress=False
    )
    ids = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    text = TEXT | {"vocab_size": len(tokenizer)} | ids
    config = transformers.CLIPConfig(text_config=text, vision_config=CLIP_VISION, projection_dim=24)
    image = transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    return transformers.CLIPModel(config), transformers.CLIPProcessor(
        image_processor=image, tokenizer=tokenizer
    )


FAMILIES = {
    build.__name__: build
    for build in (qwen3_vl, qwen2_vl, qwen2_5_vl, qwen2_5_omni_thinker, llava_next, clip)
}


def build_twin(family, parts):
    """A ``SentenceTransformer`` on the CPU of ``family``'s classes; its backbone is saved in the
    folder ``parts``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = FAMILIES[family]()
    model.save_pretrained(parts)
    processor.save_pretrained(parts)
    # as in the real repository: the older module of Sentence Transformers alone, without a
    # Normalize
    if family == "clip":
        return SentenceTransformer(modules=[CLIPModel.load(str(parts))], device="cpu")
    options = {"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}}
    # a generating model: the vector is its last hidden state, not its next word
    if family == "qwen2_5_omni_thinker":
        way = {"method": "forward", "method_output_name": ["hidden_states", -1]}
        ways = {"text": way, "image": way, "message": way | {"format": "structured"}}
        options |= {
            "transformer_task": "any-to-any",
            "modality_config": ways,
            "module_output_name": "token_embeddings",
        }
    transformer = Transformer(str(parts), **options)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


def save_twin(family, folder):
    """The folder of a saved twin of ``family``, under ``folder``."""
    build_twin(family, folder / "parts").save_pretrained(
        str(folder / "twin"), create_model_card=False
    )
    return folder / "twin"


# shaped as the published one: an instruction, then query and document inside one user turn
RERANKER_TEMPLATE = (
    "{%- macro shown(role) -%}{%- for message in messages if message.role == role -%}{%- if message.content is string -%}"
    "{{ message.content }}{%- else -%}{%- for part in message.content -%}{%- if part.type == 'image' -%}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endfor -%}"
    "{%- endmacro -%}{{ '<|im_start|>system\\nAnswer yes or no.<|im_end|>\\n<|im_start|>user\\n<Query>:' + shown('query') }}"
    "{{ '\\n<Document>:' + shown('document') + '<|im_end|>\\n' }}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def save_reranker_twin(folder):
    """The folder of a saved twin of ``Qwen/Qwen3-VL-Reranker-2B``: its classes, the score of one
    word over another, random weights.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore

    processor = copy.deepcopy(model.build_processor())
    # two, as in the real repository
    processor.chat_template = {"default": model.CHAT_TEMPLATE, "reranker": RERANKER_TEMPLATE}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.Qwen3VLForConditionalGeneration(
            model.tiny_config(processor.tokenizer)
        )
    network.save_pretrained(folder / "parts")
    processor.save_pretrained(folder / "parts")
    options = {
        "processing_kwargs": {
            "chat_template": {"chat_template": "reranker", "add_generation_prompt": True}
        }
    }
    read = Transformer(str(folder / "parts"), transformer_task="any-to-any", **options)
    yes, no = (processor.tokenizer.encode(word)[0] for word in ("yes", "no"))
    head = LogitScore(true_token_id=yes, false_token_id=no)
    CrossEncoder(modules=[read, head], device="cpu").save_pretrained(
        str(folder / "reranker"), create_model_card=False
    )
    return folder / "reranker"


def save_writer_twin(folder, reply):
    """The folder of a saved twin of ``Qwen/Qwen3-VL-2B-Instruct``: its classes, with weights that
    answer every page with ``reply``.

    ``reply`` is one word of the vocabulary. The layers pass on what they get, so that the next word
    follows from the last one alone: ``reply`` after the end of a prompt, the end after ``reply``.
    """
    processor = copy.deepcopy(model.build_processor())
    tokenizer = processor.tokenizer
    tokenizer.add_tokens([reply])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = transformers.Qwen3VLForConditionalGeneration(model.tiny_config(tokenizer))
        for name, weight in network.named_parameters():
            if "language_model" in name and name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
        last, said, end = (
            tokenizer.encode("\n")[-1],
            tokenizer.convert_tokens_to_ids(reply),
            tokenizer.eos_token_id,
        )
        read = network.get_input_embeddings().weight.clone()
        # not the table that is read
        network.lm_head.weight = torch.nn.Parameter(torch.zeros_like(read))
        network.lm_head.weight[said], network.lm_head.weight[end] = read[last], read[said]
    network.config.tie_word_embeddings = network.config.text_config.tie_word_embeddings = False
    network.generation_config.eos_token_id = end
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
