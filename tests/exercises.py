"""What the tests of exercises know: for each exercise the names its cell finds in the notebook, mistakes, and another right answer.

``given``: Python that makes small stand-ins of the notebook's variables; ``mistakes``: ``(code, words of the hint)``; ``another``: a right
answer that is written differently than the folded solution.
"""

SCORES = """
import math

import numpy


def ndcg_at_10(rank):
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


queries = dict.fromkeys(range(300))
rng = numpy.random.default_rng(5)
base_scores = rng.choice([0.0, 0.5, 0.63, 1.0], size=300)
tuned_scores = numpy.maximum(base_scores, rng.choice([0.0, 1.0], size=300, p=[0.7, 0.3]))
"""

WIDTHS = """
from itertools import takewhile

import numpy
import torch

sources, dims = {"base": None, "tuned": None}, [256, 192, 128, 64, 32, 16, 8]
embeddings = {"base": (None, torch.nn.functional.normalize(torch.randn(20, 256, generator=torch.Generator().manual_seed(0))))}
means = {"tuned": {256: 0.94, 192: 0.941, 128: 0.938, 64: 0.93, 32: 0.92, 16: 0.89, 8: 0.82}}
"""

RUN = """
import math
from types import SimpleNamespace

profile = SimpleNamespace(per_device_train_batch_size=64)
"""

RANKS = """
from pathlib import Path
from types import SimpleNamespace

import numpy

names = [f"{number:06d}.parquet" for number in (3, 0, 4, 1, 2)]
parts = SimpleNamespace(iterdir=lambda: map(Path, names))
vectors = SimpleNamespace(iterdir=lambda: map(Path, [*names[:2], "encoded.txt", "made_from.json", "killed"]))
"""

GRADIENTS = """
from types import SimpleNamespace

import torch

columns = [None, {"attention_mask": torch.ones(4, 42, dtype=torch.int64)}]
three_pages = 3 * 42
few_rows = [{"query": f"q{number}", "image": f"p{number // 2}", "negative_0": f"p{number + 1}"} for number in range(96)]
page_keys = list
pixel_values = torch.randn(12, 96, generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
patch_embedding = SimpleNamespace(proj=torch.nn.Conv3d(3, 8, kernel_size=(2, 4, 4), stride=(2, 4, 4)))
"""

MEMORY = """
BYTES, GIB = {"float32": 4, "bfloat16": 2, "float16": 2}, 2**30
model = {"parameters": 2_127_532_032, "lora_parameters": 31_195_136}


def memory(lora, dtype, pages, rows=64):
    trained = 16 * model["lora_parameters"] if lora else 3 * BYTES[dtype] * model["parameters"]
    return {"weights": (model["parameters"] * BYTES[dtype] + trained) / GIB, "activations": 0.41 * pages, "allowance": 1.0}
"""

TIES = """
import math

import torch

similarities = {"base": torch.rand(5, 40, generator=torch.Generator().manual_seed(0))}
inexact, right_pages = similarities["base"].bfloat16(), [11, 12, 13, 14, 15]
"""

AUDIT = """
import numpy


def bits_apart(some, others):
    return (some @ (1 - others).T + (1 - some) @ others.T).astype(int)
"""

CODES = """
import numpy
import torch

page_vectors = {"tuned": numpy.random.default_rng(0).normal(scale=0.06, size=(40, 128)).astype("float32")}
largest = {name: abs(vectors).max() for name, vectors in page_vectors.items()}
short, right_pages = numpy.random.default_rng(1).normal(size=(30, 50)), list(range(30))


def to_int8(vectors, largest):
    return numpy.clip(numpy.round(vectors / largest * 127), -127, 127).astype(numpy.int8)


def ranks(similarities, right_pages):
    return (similarities > similarities[range(len(right_pages)), right_pages][:, None]).sum(dim=1) + 1
"""

FIRST_SEARCH = """
import torch

PROFILES = {"tiny": None, "full": None, "rehearsal": None}
scores = torch.linspace(0.2, 0.8, 20).roll(7)
"""

VECTORS = """
import numpy

query_embeddings, page_embeddings = numpy.random.default_rng(0).normal(size=(2, 3, 16))
"""

PUBLISHED = """
import re

import torch

facts = {"base": "assets/tiny-base", "data": "generated", "seed": "42"}
index = torch.nn.functional.normalize(torch.randn(12, 16, generator=torch.Generator().manual_seed(3)), dim=1)
page_ids = [f"q{number}-positive" for number in range(12)]
"""

DOCUMENTS = """
import hashlib
import random

import numpy
import pandas
from scipy import stats

documents = dict.fromkeys(f"{first}_{second}.pdf" for first in ("alder", "basalt", "calder") for second in ("crane", "oven", "winch"))
rows = [{"id": f"alder_crane.pdf#{number}", "phrases": ["Lamps", f"Code {number}"]} for number in (2, 3)]
phrases = lambda row: dict.fromkeys(row["phrases"])
drawn = numpy.random.default_rng(6)
raw = pandas.DataFrame({"positive": drawn.uniform(-0.1, 0.8, 40), "similarity": drawn.uniform(-0.1, 0.8, 40)})
raw["same document"] = drawn.random(40) < 0.3
gains = {name: drawn.normal(mean, 0.2, 60) for name, mean in (("unseen documents", 0.2), ("wrong split", 0.3), ("old pages", -0.1))}
"""

RERANK = """
import math

import numpy
import torch


def ndcg(found):
    return torch.where(found <= 10, 1 / torch.log2(1 + found), 0).double().numpy()
"""

MANY_VECTORS = """
import itertools
import math

import torch
from sentence_transformers import util

four_queries, four_pages, page_vectors = (
    [torch.nn.functional.normalize(torch.randn(length, 16, generator=torch.Generator().manual_seed(length)), dim=1) for length in lengths]
    for lengths in ([5, 7, 6, 4], [20, 21, 22, 23], [25, 26])
)
query_single, page_single, others = torch.randn(3, 30, 16, generator=torch.Generator().manual_seed(1)).unbind()
similarities = others @ page_single.T
"""

CASES = {
    "0.1": {
        "given": FIRST_SEARCH,
        "mistakes": [
            ('chosen = "full"', "downloaded first"),
            ('chosen = "tiny"', "says nothing about the published size"),
            ('chosen = "small"', "none of the profiles"),
            ("chosen = 3", "none of the profiles"),
            ('chosen = ["rehearsal"]', "none of the profiles"),
        ],
        "another": "chosen = next(name for name in PROFILES if name.startswith('re'))",
    },
    "0.2": {
        "given": FIRST_SEARCH,
        "mistakes": [
            ("def rank_of(scores, right):\n    return int((scores > scores[right]).sum())", "counted from 1"),
            ("def rank_of(scores, right):\n    return int((scores <= scores[right]).sum())", "a high score is good"),
            ("def rank_of(scores, right):\n    return int(scores.argsort(descending=True)[right])", "the place of a page"),
            ("def rank_of(scores, right):\n    return 20", "1 pages score higher"),
            ("def rank_of(scores, right):\n    int((scores > scores[right]).sum()) + 1", "returns nothing"),
            ("def rank_of(scores, right):\n    return scores > scores[right]", "one number is asked for"),
        ],
        "another": "rank_of = lambda scores, right: sorted(scores.tolist(), reverse=True).index(float(scores[right])) + 1",
    },
    "0.3": {
        "given": FIRST_SEARCH,
        "mistakes": [
            ("def best_or_none(scores, lowest):\n    return int(scores.argmax())", "return `None`"),
            (
                "def best_or_none(scores, lowest):\n    return None if (scores < lowest).any() else int(scores.argmax())",
                "it does not matter that others are not",
            ),
            ("def best_or_none(scores, lowest):\n    return scores.max() if scores.max() >= lowest else None", "is the score"),
            (
                "def best_or_none(scores, lowest):\n    return next((n for n, s in enumerate(scores) if s >= lowest), None)",
                "page 2 is better",
            ),
            ("def best_or_none(scores, lowest):\n    return 0", "page 2 has the best score"),
            ("def best_or_none(scores, lowest):\n    return 'refused'", "one number is asked for"),
            ("best_or_none = 2", "a function is asked for"),
        ],
        "another": """
def best_or_none(scores, lowest):
    for number in scores.argsort(descending=True):
        return number if scores[number] > lowest else None
""",
    },
    "1.1": {
        "given": VECTORS,
        "mistakes": [
            ("def last_token(vectors, mask):\n    return vectors[:, -1]", "filled on the right, the last place holds filling"),
            (
                "def last_token(vectors, mask):\n    return vectors[range(len(vectors)), mask.sum(axis=1) - 1]",
                "filled on the left, the number of tokens",
            ),
            ("def last_token(vectors, mask):\n    return vectors[:, 0]", "the first token"),
            (
                "def last_token(vectors, mask):\n    return (vectors * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]",
                "the mean over tokens",
            ),
            ("def last_token(vectors, mask):\n    return vectors[mask.astype(bool)]", "the shape is (10, 4)"),
            ("def last_token(vectors, mask):\n    return 2 * vectors[:, -1]", "the first text should have"),
            ("def last_token(vectors, mask):\n    return 'the last'", "one vector a text is asked for"),
            ("def last_token(vectors, mask):\n    vectors[:, -1]", "returns nothing"),
        ],
        "another": """
def last_token(vectors, mask):
    places = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    return [text[place] for text, place in zip(vectors, places)]
""",
    },
    "1.2": {
        "given": VECTORS,
        "mistakes": [
            ("def tokens_of(width, height):\n    return (width // 16) * (height // 16)", "patches of 16 pixels"),
            ("def tokens_of(width, height):\n    return width * height / 1024", "each side is rounded by itself"),
            ("def tokens_of(width, height):\n    return (width // 32) * (height // 32)", "not down"),
            ("def tokens_of(width, height):\n    return -(-width // 32) * -(-height // 32)", "not up"),
            ("def tokens_of(width, height):\n    return width // 32 + height // 32", "not their sum"),
            ("def tokens_of(width, height):\n    return width * height", "these are pixels"),
            ("def tokens_of(width, height):\n    return 35", "so 140"),
            ("def tokens_of(width, height):\n    return width // 32, height // 32", "one number is asked for"),
        ],
        "another": "tokens_of = lambda width, height: ((width + 16) // 32) * ((height + 16) // 32)",
    },
    "1.3": {
        "given": VECTORS,
        "mistakes": [
            ("def cosine(first, second):\n    return first @ second", "divide by both lengths"),
            ("def cosine(first, second):\n    return (first @ second) / (first @ first) / (second @ second)", "square root"),
            (
                "def cosine(first, second):\n    return 1 - (first @ second) / ((first @ first) * (second @ second)) ** 0.5",
                "a distance",
            ),
            ("def cosine(first, second):\n    return (first @ second) / (first @ first) ** 0.5", "the lengths of both"),
            ("def cosine(first, second):\n    return numpy.linalg.norm(first - second)", "how far apart"),
            (
                "def cosine(first, second):\n    return abs(first @ second) / ((first @ first) * (second @ second)) ** 0.5",
                "a negative cosine",
            ),
            ("def cosine(first, second):\n    return 0.9", "through the product of both lengths"),
            ("def cosine(first, second):\n    return first * second", "one number is asked for"),
        ],
        "another": """
def cosine(first, second):
    return sum((first / numpy.linalg.norm(first)) * (second / numpy.linalg.norm(second)))
""",
    },
    "6.1": {
        "given": PUBLISHED,
        "mistakes": [
            (
                "def left_out(facts, required):\n    return [name for name in required if name not in facts]",
                "nothing stands under it",
            ),
            ("def left_out(facts, required):\n    return [name for name in required if not facts.get(name)]", "'seed' is there"),
            (
                "def left_out(facts, required):\n    return [name for name in required if facts.get(name) not in (None, '', [])]",
                "'seed' is there",
            ),
            ("def left_out(facts, required):\n    return ['base', 'rows']", "missing of"),
            ("def left_out(facts, required):\n    return len(required)", "the names that are missing are asked for"),
            ("def left_out(facts, required):\n    return [name for name in required if not facts[name]]", "stops with KeyError"),
        ],
        "another": """
def left_out(facts, required):
    there = {name for name, value in facts.items() if value is not None and str(value) not in ("", "[]")}
    return set(required) - there
""",
    },
    "6.2": {
        "given": PUBLISHED,
        "mistakes": [
            ("def stays(revision):\n    return revision is not None", "a branch names another commit"),
            ("def stays(revision):\n    return revision not in (None, 'main', '')", "a tag can be deleted"),
            ("def stays(revision):\n    return bool(re.fullmatch('[0-9a-f]+', revision or ''))", "a shortened commit"),
            ("def stays(revision):\n    return len(revision or '') == 40", "40 characters"),
            ("def stays(revision):\n    return False", "never names anything else"),
            ("def stays(revision):\n    return bool(re.fullmatch('[0-9a-f]{40}', revision))", "stops with TypeError"),
            ("stays = True", "a function is asked for"),
        ],
        "another": "stays = lambda revision: revision is not None and len(revision) == 40 and set(revision) <= set('0123456789abcdef')",
    },
    "6.3": {
        "given": PUBLISHED,
        "mistakes": [
            (
                "def best_pages(query, index, page_ids, count):\n    return [page_ids[n] for n in (index @ query).topk(count).indices]",
                "ten asked for: this stops with RuntimeError",
            ),
            (
                "def best_pages(query, index, page_ids, count):\n    return [page_ids[n] for n in (index @ query).argsort()[:count]]",
                "the worst pages",
            ),
            (
                "def best_pages(query, index, page_ids, count):\n    return (index @ query).argsort(descending=True)[:count].tolist()",
                "none of the ids",
            ),
            (
                """
def best_pages(query, index, page_ids, count):
    found = [page_ids[int((index @ query).argmax())]]
    return (found + [page for page in page_ids if page not in found])[:count]
""",
                "place 2 should have",
            ),
            ("def best_pages(query, index, page_ids, count):\n    return page_ids[:1]", "3 ids are asked for"),
            ("def best_pages(query, index, page_ids, count):\n    return page_ids[:count]", "place 1 should have"),
            (
                """
def best_pages(query, index, page_ids, count):
    scores = index @ query
    assert scores.max() <= 2
    return [page_ids[n] for n in scores.argsort(descending=True)[:count]]
""",
                "an index without pages: this stops with",
            ),
            ("def best_pages(query, index, page_ids, count):\n    return 3", "this stops with TypeError"),
        ],
        "another": """
def best_pages(query, index, page_ids, count):
    scores = {name: float(row @ query) for name, row in zip(page_ids, index)}
    return sorted(scores, key=lambda name: -scores[name])[:count]
""",
    },
    "4.1": {
        "given": SCORES,
        "mistakes": [
            ("gain = 1 / 4", "MRR"),
            ("gain = 1 / math.log2(4)", "third place"),
            ("gain = 1 / math.log(5)", "natural logarithm"),
            ("gain = 0.9", "1 / log2(1 + rank)"),
            ("gain = [0.43, 0.5]", "one number is asked for, and the type of yours is list"),
            ("gain = '0.43'", "one number is asked for, and the type of yours is str"),
        ],
        "another": "gain = math.log(2) / math.log(5)",
    },
    "4.2": {
        "given": SCORES,
        "mistakes": [
            ("def ndcg_of_two(first, second):\n    return ndcg_at_10(first) + ndcg_at_10(second)", "divide by the largest sum"),
            ("def ndcg_of_two(first, second):\n    return (ndcg_at_10(first) + ndcg_at_10(second)) / 2", "cannot both be first"),
            ("def ndcg_of_two(first, second):\n    return ndcg_at_10(min(first, second))", "the better page alone"),
            (
                "def ndcg_of_two(first, second):\n    return sum(1 / math.log2(1 + rank) for rank in (first, second)) / (1 + 1 / math.log2(3))",
                "beyond the tenth",
            ),
            ("def ndcg_of_two(first, second):\n    ndcg_at_10(first)", "returns nothing"),
            ("ndcg_of_two = 0.9", "a function is asked for"),
            ("def ndcg_of_two(first, second):\n    return [first, second]", "one number is asked for"),
        ],
        "another": """
def ndcg_of_two(*ranks):
    places = numpy.arange(1, 11)
    gains = 1 / numpy.log2(1 + places)
    return (gains * numpy.isin(places, ranks)).sum() / gains[:2].sum()
""",
    },
    "4.3": {
        "given": SCORES,
        "mistakes": [
            ("slipped = 8", "round up"),
            ("slipped = 0.01 * 300 / (1 - 0.63093)", "round up"),
            ("slipped = 3", "drop out of the first ten"),
            ("slipped = 6", "MRR"),
            ("slipped = 0.01 / (1 - ndcg_at_10(2))", "the mean of 300"),
            ("slipped = 100", "one slip costs"),
        ],
        "another": "slipped = next(n for n in range(300) if n * (1 - 1 / math.log2(3)) / 300 >= 0.01)",
    },
    "4.4": {
        "given": SCORES,
        "mistakes": [
            (
                """
def paired_interval(first, second):
    change = first - second
    drawn = numpy.random.default_rng(0).integers(0, len(change), size=(2000, len(change)))
    return numpy.percentile(change[drawn].mean(axis=1), [2.5, 97.5])
""",
                "first minus second",
            ),
            (
                """
def paired_interval(first, second):
    change = second - first
    drawn = numpy.random.default_rng(0).integers(0, len(change), size=(2000, len(change)))
    return numpy.percentile(change[drawn].mean(axis=1), [5, 95])
""",
                "that holds 90 %",
            ),
            (
                """
def paired_interval(first, second):
    rng = numpy.random.default_rng(0)
    one, other = (rng.integers(0, len(first), size=(2000, len(first))) for _ in range(2))
    return numpy.percentile(second[other].mean(axis=1) - first[one].mean(axis=1), [2.5, 97.5])
""",
                "other queries for each model",
            ),
            (
                "def paired_interval(first, second):\n    return numpy.percentile(second - first, [2.5, 97.5])",
                "percentiles of single queries",
            ),
            (
                """
def paired_interval(first, second):
    change, rng = second - first, numpy.random.default_rng(0)
    means = [rng.permutation(change).mean() for _ in range(1000)]
    return numpy.percentile(means, [2.5, 97.5])
""",
                "with replacement",
            ),
            ("def paired_interval(first, second):\n    return (second - first).mean()", "two things are asked for"),
            ("def paired_interval(first, second):\n    return 0.5, 0.9", "is not near"),
        ],
        "another": """
def paired_interval(first, second):
    change = second - first
    error = change.std(ddof=1) / math.sqrt(len(change))  # by the normal distribution, without drawing
    return [change.mean() - 1.96 * error, change.mean() + 1.96 * error]
""",
    },
    "5.1": {
        "given": WIDTHS,
        "mistakes": [
            ("encodings = 14", "slice it"),
            ("encodings = 1", "two models"),
            ("encodings = len(dims)", "a slice of one encoding"),
            ("encodings = 300", "how often must a page"),
            ("encodings = ['base', 'tuned']", "one number is asked for, and the type of yours is list"),
        ],
        "another": "encodings = 2",
    },
    "5.2": {
        "given": WIDTHS,
        "mistakes": [
            ("def cut(vectors, width):\n    return vectors[:, :width]", "not of length 1"),
            (
                "def cut(vectors, width):\n    return (vectors / vectors.norm(dim=1, keepdim=True))[:, :width]",
                "Slice first, then normalise",
            ),
            (
                "def cut(vectors, width):\n    return vectors[:, :width] / vectors[:, :width].norm(dim=0)",
                "each column got length 1",
            ),
            (
                "def cut(vectors, width):\n    return vectors[:, :width] / vectors[:, :width].norm()",
                "divided by one number",
            ),
            (
                "def cut(vectors, width):\n    short = vectors[:, :width]\n    return short / (short**2).sum(dim=1, keepdim=True)",
                "not by its square",
            ),
            ("def cut(vectors, width):\n    return torch.nn.functional.normalize(vectors[:width])", "rows were cut"),
            (
                "def cut(vectors, width):\n    return vectors[:, :width] / vectors[:, :width].norm(dim=1)",
                "stops with RuntimeError",
            ),
            ("def cut(vectors, width):\n    return torch.nn.functional.normalize(vectors[:, -width:])", "its first 128 numbers"),
            ("def cut(vectors, width):\n    vectors[:, :width]", "returns nothing"),
            ("def cut(vectors, width):\n    return 'short'", "vectors are asked for"),
        ],
        "another": """
def cut(vectors, width):
    return [row[:width] / sum(number**2 for number in row[:width]) ** 0.5 for row in vectors.numpy()]
""",
    },
    "5.3": {
        "given": WIDTHS,
        "mistakes": [
            (
                "def narrowest(curve, share):\n    return min(dim for dim in curve if curve[dim] >= share * curve[max(curve)])",
                "a lucky width wins",
            ),
            (
                "def narrowest(curve, share):\n    return min((dim for dim in curve if curve[dim] >= share), default=max(curve))",
                "of the score at full width",
            ),
            (
                "def narrowest(curve, share):\n    return max(dim for dim in curve if curve[dim] < share * curve[256])",
                "that fails",
            ),
            ("def narrowest(curve, share):\n    return max(curve)", "a narrower one keeps enough"),
            ("def narrowest(curve, share):\n    return share * curve[256]", "none of the widths"),
            ("def narrowest(curve, share):\n    return 128", "at least 0.931 is asked for"),
        ],
        "another": """
def narrowest(curve, share):
    chosen = widest = max(curve)
    for dim in sorted(curve)[::-1]:
        if curve[dim] / curve[widest] < share:
            return chosen
        chosen = dim
    return chosen
""",
    },
    "3.1": {
        "given": RUN,
        "mistakes": [
            ("guessing = math.log(64)", "the hard negative of every row"),
            ("guessing = math.log(65)", "those of the other rows"),
            ("guessing = math.log2(128)", "natural logarithm"),
            ("guessing = 1 / 128", "minus its logarithm"),
            ("guessing = 7 * math.log(128)", "seven lengths"),
            ("guessing = 0.7", "how many pages"),
            ("guessing = [4.85]", "one number is asked for"),
        ],
        "another": "guessing = -math.log2(1 / 128) * math.log(2)",
    },
    "3.2": {
        "given": RUN,
        "mistakes": [
            ("def candidates(rows, hard_negatives):\n    return rows + hard_negatives", "not only its own"),
            ("def candidates(rows, hard_negatives):\n    return rows", "hard negatives are candidates too"),
            ("def candidates(rows, hard_negatives):\n    return rows * hard_negatives", "positives are candidates too"),
            ("def candidates(rows, hard_negatives):\n    return rows + rows * hard_negatives - 1", "its own page is one"),
            ("def candidates(rows, hard_negatives):\n    return 100", "one positive and its hard negatives"),
            ("candidates = 128", "a function is asked for, and the type of yours is int"),
            ("def candidates(rows):\n    return 2 * rows", "stops with TypeError"),
        ],
        "another": "candidates = lambda rows, hard_negatives: sum(1 for row in range(rows) for page in range(hard_negatives + 1))",
    },
    "3.3": {
        "given": RUN,
        "mistakes": [
            (
                "def matryoshka(queries, pages, dims, contrastive):\n    return sum(contrastive(queries[:, :d], pages[:, :d]) for d in dims) / len(dims)",
                "the mean",
            ),
            (
                "def matryoshka(queries, pages, dims, contrastive):\n    return sum(contrastive(queries[:d], pages[:d]) for d in dims)",
                "not the rows",
            ),
            (
                "def matryoshka(queries, pages, dims, contrastive):\n    return sum(contrastive(queries[:, -d:], pages[:, -d:]) for d in dims)",
                "the last numbers",
            ),
            (
                """
def matryoshka(queries, pages, dims, contrastive):
    edges = [0, *sorted(dims)]
    return sum(contrastive(queries[:, a:b], pages[:, a:b]) for a, b in zip(edges, edges[1:]))
""",
                "separate blocks",
            ),
            (
                """
def matryoshka(queries, pages, dims, contrastive):
    for dim in dims:
        loss = contrastive(queries[:, :dim], pages[:, :dim])
        return loss
""",
                "inside the loop",
            ),
            (
                "def matryoshka(queries, pages, dims, contrastive):\n    return sum(contrastive(queries[:, :d], pages[:, :d]) for d in dims[1:])",
                "the whole vector is one",
            ),
            (
                "def matryoshka(queries, pages, dims, contrastive):\n    return [contrastive(queries[:, :d], pages[:, :d]) for d in dims]",
                "one number is asked for, and the type of yours is list",
            ),
            ("def matryoshka(queries, pages, dims, contrastive):\n    return contrastive(queries, pages[:, :8])", "stops with"),
            ("def matryoshka(queries, pages, dims, contrastive):\n    return 7.0", "is not the sum of"),
        ],
        "another": """
def matryoshka(queries, pages, dims, contrastive):
    total = 0.0
    for dim in dims:
        total += contrastive(queries.narrow(1, 0, dim), pages.narrow(1, 0, dim)).item()
    return total
""",
    },
    "3.4": {
        "given": RUN,
        "mistakes": [
            (
                "def plan(rows, per_step, epochs, warmup):\n    steps = epochs * (rows // per_step)\n    return steps, math.ceil(warmup * steps)",
                "is a step too",
            ),
            (
                "def plan(rows, per_step, epochs, warmup):\n    steps = epochs * rows / per_step\n    return steps, math.ceil(warmup * steps)",
                "only whole steps",
            ),
            (
                "def plan(rows, per_step, epochs, warmup):\n    steps = math.ceil(epochs * rows / per_step)\n    return steps, math.ceil(warmup * steps)",
                "round up before you multiply",
            ),
            (
                "def plan(rows, per_step, epochs, warmup):\n    steps = math.ceil(rows / per_step)\n    return steps, math.ceil(warmup * steps)",
                "one epoch",
            ),
            (
                "def plan(rows, per_step, epochs, warmup):\n    steps = epochs * math.ceil(rows / per_step)\n    return steps, int(warmup * steps)",
                "the trainer rounds up",
            ),
            (
                "def plan(rows, per_step, epochs, warmup):\n    return epochs * math.ceil(rows / per_step), math.ceil(warmup * rows)",
                "not of the rows",
            ),
            ("def plan(rows, per_step, epochs, warmup):\n    return epochs * math.ceil(rows / per_step), 100", "of all steps"),
            ("def plan(rows, per_step, epochs, warmup):\n    return rows, 4", "once through all rows"),
            (
                "def plan(rows, per_step, epochs, warmup):\n    return epochs * math.ceil(rows / per_step)",
                "two things are asked for",
            ),
        ],
        "another": """
def plan(rows, per_step, epochs, warmup):
    steps = sum(len(range(0, rows, per_step)) for _ in range(epochs))
    return [steps, -int(-warmup * steps // 1)]
""",
    },
    "2.1": {
        "mistakes": [
            ("def usable(page, own, taken):\n    return page != own and page not in taken", "does not open"),
            ("def usable(page, own, taken):\n    return page is not None and page not in taken", "punishes the model"),
            ("def usable(page, own, taken):\n    return page is not None and page != own", "taken already"),
            ("def usable(page, own, taken):\n    return page in taken", "is usable"),
            ("def usable(page, own, taken):\n    return False", "is usable"),
            ("def usable(page, own, taken):\n    page not in taken", "returns nothing"),
            ("def usable(page):\n    return True", "stops with TypeError"),
            ("usable = True", "a function is asked for"),
        ],
        "another": "usable = lambda page, own, taken: page not in {None, own} | taken",
    },
    "2.2": {
        "mistakes": [
            (
                "def rows_with_copies(rows):\n    return [n for n, (own, others) in enumerate(rows) if own in others]",
                "`None` on both sides",
            ),
            (
                "def rows_with_copies(rows):\n    return [n for n, (own, others) in enumerate(rows) if own and own in others[:1]]",
                "in second place",
            ),
            (
                "def rows_with_copies(rows):\n    return [own is not None and own in others for own, others in rows]",
                "one truth value",
            ),
            (
                "def rows_with_copies(rows):\n    return [n for n, (own, others) in enumerate(rows) for o in others if own and o == own]",
                "is still one row",
            ),
            ("def rows_with_copies(rows):\n    return sum(own in others for own, others in rows)", "row numbers are asked for"),
            (
                """
def rows_with_copies(rows):
    all_pages = {own for own, _ in rows if own}
    return [n for n, (_, others) in enumerate(rows) if all_pages & set(others)]
""",
                "a page of another row",
            ),
            ("def rows_with_copies(rows):\n    return []", "list a copy"),
        ],
        "another": """
def rows_with_copies(rows):
    found = set()
    for number, (own, negatives) in enumerate(rows):
        for negative in negatives:
            if negative == own and own is not None:
                found.add(number)
    return found
""",
    },
    "2.3": {
        "mistakes": [
            (
                "def split_by_document(documents, share):\n    cut = int((1 - share) * len(documents))\n    return range(cut), range(cut, len(documents))",
                "documents have pages on both sides",
            ),
            ("def split_by_document(documents, share):\n    return [0, 1, 2], [3, 4]", "on neither side"),
            ("def split_by_document(documents, share):\n    return range(len(documents)), [3, 4]", "row 3 is on both sides"),
            ("def split_by_document(documents, share):\n    return range(len(documents)), []", "eval is empty"),
            ("def split_by_document(documents, share):\n    return list(range(len(documents)))", "two things are asked for"),
            ("def split_by_document(documents, share):\n    return documents, documents", "row numbers are asked for"),
            (
                """
def split_by_document(documents, share):
    first = [n for n, name in enumerate(documents) if sorted(set(documents)).index(name) < share * len(set(documents))]
    return first, [n for n in range(len(documents)) if n not in first]
""",
                "train is returned first",
            ),
            (
                """
def split_by_document(documents, share):
    small = [n for n, name in enumerate(documents) if name == documents[0]]
    return small, [n for n in range(len(documents)) if n not in small]
""",
                "give or take one document",
            ),
        ],
        "another": """
import numpy


def split_by_document(documents, share):
    names, inverse, sizes = numpy.unique(documents, return_inverse=True, return_counts=True)
    order = numpy.random.default_rng(3).permutation(len(names))
    in_eval = order[numpy.cumsum(sizes[order]) <= share * len(documents)]
    return numpy.flatnonzero(~numpy.isin(inverse, in_eval)), numpy.flatnonzero(numpy.isin(inverse, in_eval))
""",
    },
    "11.1": {
        "mistakes": [
            (
                "def step_and_epoch(rows, size, ranks, split):\n    return size * ranks, rows // (size * ranks)",
                "one batch is cut",
            ),
            ("def step_and_epoch(rows, size, ranks, split):\n    return size, rows // size", "a batch of its own"),
            (
                "def step_and_epoch(rows, size, ranks, split):\n    step = size // ranks if split else size * ranks\n    return step, rows // step",
                "the share of one rank",
            ),
            (
                "def step_and_epoch(rows, size, ranks, split):\n    step = size if split else size * ranks\n    return step, -(-rows // step)",
                "is not full, and is dropped",
            ),
            (
                "def step_and_epoch(rows, size, ranks, split):\n    step = size if split else size * ranks\n    return step, rows / step",
                "only whole steps",
            ),
            (
                "def step_and_epoch(rows, size, ranks, split):\n    return (size if split else size * ranks), rows // size",
                "an epoch has fewer",
            ),
            (
                "def step_and_epoch(rows, size, ranks, split):\n    return (size if split else size * ranks), 7",
                "how many times do",
            ),
            ("def step_and_epoch(rows, size, ranks, split):\n    return 100, 20", "and it has 256"),
            ("def step_and_epoch(rows, size, ranks, split):\n    return size", "two things are asked for"),
            ("def step_and_epoch(rows, size, ranks):\n    return size, rows", "stops with TypeError"),
        ],
        "another": """
def step_and_epoch(rows, size, ranks, split):
    draws = 1 if split else ranks
    steps = [begin for begin in range(0, rows, draws * size) if begin + draws * size <= rows]
    return [draws * size, len(steps)]
""",
    },
    "11.2": {
        "given": RANKS,
        "mistakes": [
            ("def seen_by(rows, ranks):\n    return numpy.ones((rows, 2 * rows), dtype=bool)", "what gathering shows"),
            (
                "def seen_by(rows, ranks):\n    return numpy.kron(numpy.eye(ranks), numpy.ones((rows // ranks, rows // ranks)))",
                "a page of every row is missing",
            ),
            (
                """
def seen_by(rows, ranks):
    own = numpy.kron(numpy.eye(ranks), numpy.ones((rows // ranks, rows // ranks)))
    return numpy.hstack([own, numpy.zeros_like(own)])
""",
                "the hard negatives of its rank",
            ),
            ("def seen_by(rows, ranks):\n    return numpy.tile(numpy.eye(rows), 2)", "its own two pages"),
            (
                "def seen_by(rows, ranks):\n    rank_of = numpy.arange(rows) % ranks\n    return rank_of[:, None] == numpy.tile(rank_of, 2)",
                "one after another",
            ),
            (
                "def seen_by(rows, ranks):\n    return numpy.kron(numpy.eye(ranks), numpy.ones((rows // ranks, 2 * rows // ranks)))",
                "each rank has two blocks",
            ),
            (
                "def seen_by(rows, ranks):\n    rank_of = numpy.arange(rows) // (rows // ranks)\n    return rank_of[:, None] != numpy.tile(rank_of, 2)",
                "does not see",
            ),
            (
                "def seen_by(rows, ranks):\n    return numpy.kron([[1, 0, 1, 0], [0, 1, 0, 1]], numpy.ones((rows // 2, rows // 2)))",
                "query 0 sees 12 pages",
            ),
            ("def seen_by(rows, ranks):\n    return numpy.ones((2 * rows, rows))", "a row per query, a column per page"),
            ("def seen_by(rows, ranks):\n    return 2 * rows // ranks", "the shape is ()"),
            ("def seen_by(rows, ranks):\n    return 'all'", "a matrix of the shape"),
        ],
        "another": """
def seen_by(rows, ranks):
    share = rows // ranks
    return [[query // share == page % rows // share for page in range(2 * rows)] for query in range(rows)]
""",
    },
    "11.3": {
        "given": RANKS,
        "mistakes": [
            (
                "def share_of(names, worker, workers):\n    size = len(names) // workers\n    return names[worker * size : (worker + 1) * size]",
                "leaves a rest",
            ),
            (
                """
def share_of(names, worker, workers):
    size = len(names) // workers
    return names[worker * size : None if worker == workers - 1 else (worker + 1) * size]
""",
                "all wait for it",
            ),
            ("def share_of(names, worker, workers):\n    return names[worker - 1 :: workers]", "counted from 0"),
            ("def share_of(names, worker, workers):\n    return names", "each part belongs to one"),
            ("def share_of(names, worker, workers):\n    return names if worker == 0 else []", "worker 0 has 11"),
            (
                "def share_of(names, worker, workers):\n    return list(range(worker, len(names), workers))",
                "the parts themselves, not their numbers",
            ),
            ("def share_of(names, worker, workers):\n    return names[worker]", "the parts of one worker are asked for"),
            ("def share_of(names, worker, workers):\n    return 2 * names[worker::workers]", "has a part twice"),
            ("def share_of(names, worker, workers):\n    return names[: len(names) // workers]", "nobody does"),
            ("def share_of(names, worker, workers):\n    names[worker::workers]", "returns nothing"),
        ],
        "another": """
def share_of(names, worker, workers):
    return set(numpy.array_split(names, workers)[worker].tolist())
""",
    },
    "11.4": {
        "given": RANKS,
        "mistakes": [
            (
                "def left_to_do(parts, files):\n    return sorted(parts)[len(set(parts) & set(files)) :]",
                "do not count",
            ),
            (
                "def left_to_do(parts, files):\n    return [part for part in parts if part > max(set(parts) & set(files), default='')]",
                "before the last whole part",
            ),
            (
                "def left_to_do(parts, files):\n    return [part for part in parts if not any(part in file for file in files)]",
                "when its worker died",
            ),
            ("def left_to_do(parts, files):\n    return parts", "whole stays"),
            ("def left_to_do(parts, files):\n    return set(parts) & set(files)", "these are done"),
            ("def left_to_do(parts, files):\n    return set(files) - set(parts)", "the other way round"),
            ("def left_to_do(parts, files):\n    return [part for part in parts if part not in files][:2]", "you leave it out"),
            ("def left_to_do(parts, files):\n    return [part for part in parts if part != '000000.parquet']", "you do it again"),
            ("def left_to_do(parts, files):\n    return len(set(parts) - set(files))", "names of parts are asked for"),
        ],
        "another": """
def left_to_do(parts, files):
    done = dict.fromkeys(files)
    return (part for part in parts if part not in done)
""",
    },
    "a1.1": {
        "given": GRADIENTS,
        "mistakes": [
            (
                "def relative_difference(a, b):\n    return sum((a[n] - b[n]).norm() / b[n].norm() for n in b) / len(b)",
                "a mean over weights",
            ),
            (
                "def relative_difference(a, b):\n    return max((a[n] - b[n]).norm() / b[n].norm() for n in b)",
                "furthest apart",
            ),
            (
                "def relative_difference(a, b):\n    return sum((a[n] - b[n]).square().sum() for n in b) ** 0.5",
                "divide by its length",
            ),
            (
                "def relative_difference(a, b):\n    return sum((a[n] - b[n]).square().sum() for n in b) / sum(b[n].square().sum() for n in b)",
                "take the root",
            ),
            (
                "def relative_difference(a, b):\n    return (sum((a[n] - b[n]).square().sum() for n in b) / sum(a[n].square().sum() for n in b)) ** 0.5",
                "of the second",
            ),
            (
                "def relative_difference(a, b):\n    return sum((a[n] - b[n]).norm() for n in b) / sum(b[n].norm() for n in b)",
                "do not add up",
            ),
            ("def relative_difference(a, b):\n    return max((a[n] - b[n]).abs().max() for n in b)", "largest single difference"),
            (
                """
def relative_difference(a, b):
    first, second = (torch.cat([side[name].flatten() for name in b]) for side in (a, b))
    return (1 - torch.nn.functional.cosine_similarity(first, second, dim=0)).round(decimals=4)
""",
                "the same direction, and another gradient",
            ),
            ("def relative_difference(a, b):\n    return 0.5", "the length of the difference through"),
            ("def relative_difference(a, b):\n    return a['patches'] - b['patches']", "one number is asked for"),
            ("def relative_difference(a, b):\n    return (a - b).norm()", "stops with TypeError"),
        ],
        "another": """
def relative_difference(a, b):
    squares = [((a[name] - b[name]).square().sum().item(), b[name].square().sum().item()) for name in a]
    return (sum(apart for apart, _ in squares) / sum(whole for _, whole in squares)) ** 0.5
""",
    },
    "a1.2": {
        "given": GRADIENTS,
        "mistakes": [
            ("def cut_by_tokens(lengths, budget):\n    return [1] * len(lengths)", "the published script does"),
            (
                """
def cut_by_tokens(lengths, budget):
    size = budget // max(lengths)
    return [len(lengths[begin : begin + size]) for begin in range(0, len(lengths), size)]
""",
                "equal numbers of items",
            ),
            (
                """
def cut_by_tokens(lengths, budget):
    sizes, held = [], []
    for length in lengths:
        if held and (len(held) + 1) * max(*held, length) > budget:
            sizes.append(len(held))
            held = []
        held.append(length)
    return sizes + [len(held)]
""",
                "tokens without padding",
            ),
            (
                """
def cut_by_tokens(lengths, budget):
    sizes, tokens = [0], 0
    for length in lengths:
        if tokens + length >= budget and sizes[-1]:
            sizes.append(0)
            tokens = 0
        sizes[-1] += 1
        tokens += length
    return sizes
""",
                "may be reached",
            ),
            (
                """
def cut_by_tokens(lengths, budget):
    sizes, count, tokens = [], 0, 0
    for length in lengths:
        if tokens + length > budget:
            sizes.append(count)
            count, tokens = 0, 0
        count += 1
        tokens += length
    return sizes
""",
                "is a mini-batch too",
            ),
            (
                """
def cut_by_tokens(lengths, budget):
    sizes, tokens = [0], 0
    for length in lengths:
        if tokens + length >= budget:
            sizes.append(0)
            tokens = 0
        sizes[-1] += 1
        tokens += length
    return [0, *sizes]
""",
                "without an item",
            ),
            ("def cut_by_tokens(lengths, budget):\n    return [len(lengths)]", "tokens in one mini-batch"),
            ("def cut_by_tokens(lengths, budget):\n    return lengths", "how many items each"),
            ("def cut_by_tokens(lengths, budget):\n    return [2, 2]", "is 4 items"),
            ("def cut_by_tokens(lengths, budget):\n    return [2, 1, 2, 1, 2]", "fill each mini-batch"),
            ("def cut_by_tokens(lengths, budget):\n    return sum(lengths) / budget", "a list is asked for"),
            ("def cut_by_tokens(lengths, budget):\n    return [lengths]", "one number is asked for"),
        ],
        "another": """
import itertools


def cut_by_tokens(lengths, budget):  # from the end, so that the first one is the one that is not full
    sizes, left = [], list(lengths)
    while left:
        size = sum(total <= budget for total in itertools.accumulate(reversed(left)))
        sizes, left = [size, *sizes], left[: len(left) - size]
    return sizes
""",
    },
    "a1.3": {
        "given": GRADIENTS,
        "mistakes": [
            ("def choose_batch(rows, size):\n    return list(range(size))", "image of one is negative_0 of the other"),
            (
                """
def choose_batch(rows, size):
    chosen = []
    for number, row in enumerate(rows):
        if all(row[name] != rows[other][name] for other in chosen for name in row):
            chosen.append(number)
    return chosen[:size]
""",
                "compare values of all columns",
            ),
            (
                """
def choose_batch(rows, size):
    chosen, seen = [], set()
    for number, row in enumerate(rows):
        pages = {row["image"], row["negative_0"]}
        if not seen & pages:
            chosen.append(number)
            seen |= pages
    return chosen[:size]
""",
                "with the same query",
            ),
            (
                """
def choose_batch(rows, size):
    chosen, seen = [], set()
    for number, row in enumerate(rows):
        if seen & set(row.values()):
            break
        chosen.append(number)
        seen |= set(row.values())
    return chosen[:size]
""",
                "go on after a row that does not fit",
            ),
            ("def choose_batch(rows, size):\n    return [4] * size", "stands twice"),
            ("def choose_batch(rows, size):\n    return [len(rows)]", "is no row number"),
            ("def choose_batch(rows, size):\n    return rows[:size]", "row numbers are asked for"),
            (
                """
def choose_batch(rows, size):
    chosen, seen = [], set()
    for number, row in enumerate(rows):
        if not seen & set(row.values()):
            chosen.append(number)
            seen |= set(row.values())
    return chosen
""",
                "2 rows are asked for, you return 4",
            ),
        ],
        "another": """
def choose_batch(rows, size):
    free = dict(reversed(list(enumerate(rows))))
    chosen = []
    while len(chosen) < size:
        number, row = next(iter(free.items()))
        chosen.append(number)
        free = {other: values for other, values in free.items() if not set(values.values()) & set(row.values())}
    return chosen
""",
    },
    "a1.4": {
        "given": GRADIENTS,
        "mistakes": [
            ("def product_of_patches(pixels, weight, bias):\n    return pixels @ weight.flatten(1).T", "the bias is missing"),
            (
                "def product_of_patches(pixels, weight, bias):\n    return pixels @ weight.reshape(-1, len(weight)) + bias",
                "does not turn a matrix",
            ),
            (
                "def product_of_patches(pixels, weight, bias):\n    return (pixels @ weight.flatten(1).T + bias).T",
                "a row per patch, a column per output",
            ),
            (
                "def product_of_patches(pixels, weight, bias):\n    return pixels @ weight.flatten(1).T - bias",
                "apart from the convolution",
            ),
            ("def product_of_patches(pixels, weight, bias):\n    return pixels @ weight.flatten(1)", "stops with RuntimeError"),
            ("def product_of_patches(pixels, weight, bias):\n    return pixels", "the shape is (12, 96)"),
            ("def product_of_patches(pixels, weight, bias):\n    return 'patches'", "a tensor of the shape"),
        ],
        "another": """
def product_of_patches(pixels, weight, bias):
    patches = pixels.view(-1, *weight.shape[1:])
    return torch.einsum("pcfhw,ocfhw->po", patches, weight) + bias[None]
""",
    },
    "a2.1": {
        "given": MEMORY,
        "mistakes": [
            ("bytes_per_weight = 2", "the weight itself"),
            ("bytes_per_weight = 2 + 2", "two moments beside them"),
            ("bytes_per_weight = 3 * BYTES['bfloat16']", "one of the four is missing"),
            ("bytes_per_weight = 16", "that is float32"),
            ("bytes_per_weight = 12", "has two bytes"),
            ("bytes_per_weight = 64", "these are bits"),
            ("bytes_per_weight = 5", "count the numbers"),
            ("bytes_per_weight = '8 bytes'", "one number is asked for"),
        ],
        "another": "bytes_per_weight = 2 + 2 + 2 * 2.0",
    },
    "a2.2": {
        "given": MEMORY,
        "mistakes": [
            ("def lora_gib(frozen, trained):\n    return 2 * frozen + 16 * trained", "which are bytes"),
            ("def lora_gib(frozen, trained):\n    return (2 * frozen + 16 * trained) / 1e9", "that is GB"),
            ("def lora_gib(frozen, trained):\n    return (8 * frozen + 16 * trained) / GIB", "neither gradient nor moments"),
            ("def lora_gib(frozen, trained):\n    return 16 * (frozen + trained) / GIB", "neither gradient nor moments"),
            ("def lora_gib(frozen, trained):\n    return (2 * frozen + 8 * trained) / GIB", "kept in float32"),
            ("def lora_gib(frozen, trained):\n    return (2 * frozen + 12 * trained) / GIB", "four numbers are kept"),
            ("def lora_gib(frozen, trained):\n    return 16 * trained / GIB", "lie on the card too"),
            ("def lora_gib(frozen, trained):\n    return 2 * (frozen + trained) / GIB", "these are the weights"),
            ("def lora_gib(frozen, trained):\n    return 1", "two bytes for a frozen one"),
            ("lora_gib = 4.4", "a function is asked for"),
        ],
        "another": """
def lora_gib(frozen, trained):
    weights, gradients, moments = frozen * 2 + trained * 4, trained * 4, 2 * trained * 4
    return sum([weights, gradients, moments]) / 1024 / 1024 / 1024
""",
    },
    "a2.3": {
        "given": MEMORY,
        "mistakes": [
            (
                "def most_pages(card, needs):\n    n = 0\n    while needs(n + 1) <= card:\n        n += 1\n    return n",
                "leave a tenth of it free",
            ),
            (
                "def most_pages(card, needs):\n    n = 0\n    while needs(n) <= 0.9 * card:\n        n += 1\n    return n",
                "the last number that fits",
            ),
            (
                "def most_pages(card, needs):\n    return max(1, max((n for n in range(1, 200) if needs(n) <= 0.9 * card), default=0))",
                "so that the answer is 0",
            ),
            (
                "def most_pages(card, needs):\n    return (0.9 * card - needs(0)) / (needs(1) - needs(0))",
                "round down",
            ),
            (
                "def most_pages(card, needs):\n    return int((0.9 * card - needs(0)) // (needs(1) - needs(0)))",
                "so that the answer is 0",
            ),
            ("def most_pages(card, needs):\n    return 8", "8: 23 pages need"),
            ("def most_pages(card, needs):\n    return 40", "needs 33.0 GiB"),
            ("def most_pages(card, needs):\n    return needs", "one number is asked for"),
        ],
        "another": """
def most_pages(card, needs):
    each = needs(2) - needs(1)
    return max(0, int((0.9 * card - needs(1)) // each) + 1)
""",
    },
    "a2.4": {
        "mistakes": [
            (
                "def share_reached(operations, seconds, peak):\n    return peak * 1e12 / (operations / seconds)",
                "the other way round",
            ),
            ("def share_reached(operations, seconds, peak):\n    return operations / seconds / peak", "a TFLOPS is"),
            ("def share_reached(operations, seconds, peak):\n    return operations / seconds / (peak * 1e9)", "a TFLOPS is"),
            (
                "def share_reached(operations, seconds, peak):\n    return 100 * operations / seconds / (peak * 1e12)",
                "in percent",
            ),
            ("def share_reached(operations, seconds, peak):\n    return operations / (peak * 1e12)", "seconds at full speed"),
            (
                "def share_reached(operations, seconds, peak):\n    return operations / (seconds / 60) / (peak * 1e12)",
                "so is the time",
            ),
            (
                "def share_reached(operations, seconds, peak):\n    return operations / seconds / 1e12",
                "divide by the promised one",
            ),
            ("def share_reached(operations, seconds, peak):\n    return 0.25", "operations per second through"),
        ],
        "another": """
def share_reached(operations, seconds, peak):
    shortest = operations * 1e-12 / peak  # seconds at the promised speed
    return shortest / seconds
""",
    },
    "a3.1": {
        "given": TIES,
        "mistakes": [
            (
                "def rank_among(scores, right, kept):\n    part = scores[kept]\n    return int((part > part[right]).sum()) + 1",
                "number 3 of those kept",
            ),
            (
                "def rank_among(scores, right, kept):\n    return 3 if right == 3 else int((scores[kept] > scores[kept][right]).sum()) + 1",
                "before you cut",
            ),
            ("def rank_among(scores, right, kept):\n    return int((scores > scores[right]).sum()) + 1", "among all pages"),
            ("def rank_among(scores, right, kept):\n    return int((scores[kept] > scores[right]).sum())", "counted from 1"),
            (
                "def rank_among(scores, right, kept):\n    return int((scores[kept] < scores[right]).sum()) + 1",
                "highest score has rank 1",
            ),
            ("def rank_among(scores, right, kept):\n    return 6", "kept pages have a higher score"),
            ("def rank_among(scores, right, kept):\n    return scores[kept]", "one number is asked for"),
        ],
        "another": """
def rank_among(scores, right, kept):
    best_first = sorted(kept, key=lambda page: -float(scores[page]))
    return best_first.index(right) + 1
""",
    },
    "a3.2": {
        "given": TIES,
        "mistakes": [
            (
                "encoded_again = dict.fromkeys(['pages', 'number format', 'prompt', 'truncation', 'ties'], 'both')",
                "the queries are as they were",
            ),
            (
                "encoded_again = {'pages': 'pages', 'number format': 'pages', 'prompt': 'queries', 'truncation': 'nothing', 'ties': 'nothing'}",
                "of queries and of pages alike",
            ),
            (
                "encoded_again = {'pages': 'pages', 'number format': 'both', 'prompt': 'both', 'truncation': 'nothing', 'ties': 'nothing'}",
                "no page has it",
            ),
            (
                "encoded_again = {'pages': 'pages', 'number format': 'both', 'prompt': 'queries', 'truncation': 'both', 'ties': 'nothing'}",
                "the beginning of one that is there",
            ),
            (
                "encoded_again = {'pages': 'pages', 'number format': 'both', 'prompt': 'queries', 'truncation': 'nothing', 'ties': 'both'}",
                "comparing vectors",
            ),
            ("encoded_again = {'pages': 'pages', 'prompt': 'queries'}", "are missing: number format, truncation, ties"),
            (
                "encoded_again = dict.fromkeys(['pages', 'number format', 'prompt', 'truncation', 'ties'], 'yes')",
                "are the answers",
            ),
            ("encoded_again = ['pages', 'prompt']", "a dictionary is asked for"),
        ],
        "another": """
encoded_again = {"prompt": ["queries"], "pages": {"pages"}, "number format": ("pages", "queries"), "truncation": None, "ties": []}
""",
    },
    "a3.3": {
        "given": TIES,
        "mistakes": [
            (
                "def both_ranks(scores, right):\n    return int((scores >= scores[right]).sum()), int((scores > scores[right]).sum()) + 1",
                "comes first, and is the better one",
            ),
            (
                "def both_ranks(scores, right):\n    return int((scores > scores[right]).sum()) + 1, int((scores >= scores[right]).sum()) + 1",
                "nothing to add",
            ),
            (
                "def both_ranks(scores, right):\n    return int((scores > scores[right]).sum()), int((scores >= scores[right]).sum()) - 1",
                "counted from 1",
            ),
            (
                "def both_ranks(scores, right):\n    place = scores.argsort(descending=True).tolist().index(right) + 1\n    return place, place",
                "both are the same",
            ),
            ("def both_ranks(scores, right):\n    return 1, 2", "the ranks are 2 and 4"),
            ("def both_ranks(scores, right):\n    return int((scores > scores[right]).sum()) + 1", "two things are asked for"),
        ],
        "another": """
def both_ranks(scores, right):
    values = sorted(scores.tolist())
    place = values.index(scores[right].item())  # how many score less
    equal = values.count(scores[right].item())
    return torch.tensor([len(values) - place - equal + 1, len(values) - place])
""",
    },
    "a3.4": {
        "given": TIES,
        "mistakes": [
            ("def expected_gain(best, worst):\n    return 1 / math.log2(1 + (best + worst) / 2)", "the gain of the mean rank"),
            (
                "def expected_gain(best, worst):\n    return (1 / math.log2(1 + best) + 1 / math.log2(1 + worst)) / 2",
                "the mean of both ends",
            ),
            (
                "def expected_gain(best, worst):\n    places = range(best, worst + 1)\n    return sum(1 / math.log2(1 + p) for p in places) / len(places)",
                "beyond the tenth place",
            ),
            (
                "def expected_gain(best, worst):\n    return sum(1 / math.log2(1 + p) for p in range(best, worst + 1) if p <= 10)",
                "one of the 2 places is taken",
            ),
            (
                "def expected_gain(best, worst):\n    places = range(best, worst)\n    return sum(1 / math.log2(1 + p) for p in places if p <= 10) / (len(places) + 1)",
                "the worst rank is one of them",
            ),
            (
                "def expected_gain(best, worst):\n    places = range(best, worst + 1)\n    return sum(1 / p for p in places) / len(places)",
                "1 / rank is MRR",
            ),
            ("def expected_gain(best, worst):\n    return 1 / math.log2(1 + worst)", "one end of what can happen"),
            ("def expected_gain(best, worst):\n    return 0.1", "the mean of the 2 gains is 0.815"),
        ],
        "another": """
def expected_gain(best, worst):
    ranks = torch.arange(best, worst + 1).float()
    return torch.where(ranks <= 10, 1 / torch.log2(1 + ranks), 0.0).mean()
""",
    },
    "a4.1": {
        "given": AUDIT,
        "mistakes": [
            (
                "def shared_with_train(pages, rows):\n    first = {row[0] for row in rows}\n    return [n for n, page in enumerate(pages) if page in first]",
                "look at all columns",
            ),
            (
                "def shared_with_train(pages, rows):\n    return [any(page in row for row in rows) for page in pages]",
                "`numpy.flatnonzero`",
            ),
            (
                "def shared_with_train(pages, rows):\n    return numpy.isin(pages, [page for row in rows for page in row if page])",
                "`numpy.flatnonzero`",
            ),
            (
                "def shared_with_train(pages, rows):\n    return {page for row in rows for page in row} & set(pages)",
                "their numbers in eval are asked for",
            ),
            (
                "def shared_with_train(pages, rows):\n    return sum(any(page in row for row in rows) for page in pages)",
                "says how many",
            ),
            (
                "def shared_with_train(pages, rows):\n    return [n for n, page in enumerate(pages) for row in rows if page in row]",
                "stands there twice",
            ),
            (
                "def shared_with_train(pages, rows):\n    return [pages.index(page) for page in {p for row in rows for p in row} if page in pages]",
                "as another number does",
            ),
            ("def shared_with_train(pages, rows):\n    return [0, 2, 4]", "does not stand in train"),
            ("def shared_with_train(pages, rows):\n    return [2]", "number 4 is 'e'"),
            ("def shared_with_train(pages, rows):\n    return 'c and e'", "page numbers are asked for"),
        ],
        "another": """
def shared_with_train(pages, rows):
    columns = [str(page) for row in rows for page in row]
    return numpy.flatnonzero(numpy.isin(pages, columns))
""",
    },
    "a4.2": {
        "given": AUDIT,
        "mistakes": [
            (
                "def near_copies(codes, limit):\n    return list(zip(*numpy.nonzero(bits_apart(codes, codes) <= limit)))",
                "no copy of itself",
            ),
            (
                "def near_copies(codes, limit):\n    n = range(len(codes))\n    return [(i, j) for i in n for j in n if i != j and (codes[i] != codes[j]).sum() <= limit]",
                "in whichever order",
            ),
            (
                "def near_copies(codes, limit):\n    return list(zip(*numpy.nonzero(numpy.triu(bits_apart(codes, codes) < limit, 1))))",
                "are near enough",
            ),
            (
                "def near_copies(codes, limit):\n    return list(zip(*numpy.nonzero(numpy.triu(codes @ codes.T + (1 - codes) @ (1 - codes).T <= limit, 1))))",
                "not those that agree",
            ),
            (
                "def near_copies(codes, limit):\n    return list(zip(*numpy.nonzero(numpy.triu(bits_apart(codes, codes) <= 10, 1))))",
                "one of which differs in 4 bits",
            ),
            (
                "def near_copies(codes, limit):\n    return [pair for pair in zip(*numpy.nonzero(numpy.triu(bits_apart(codes, codes) <= limit, 1)))][:1]",
                "are left out",
            ),
            ("def near_copies(codes, limit):\n    return bits_apart(codes, codes) <= limit", "pairs of page numbers"),
            ("def near_copies(codes, limit):\n    return 2", "pairs of page numbers"),
        ],
        "another": """
def near_copies(codes, limit):
    whole = codes.astype(int)
    return [[j, i] for i in range(len(whole)) for j in range(i + 1, len(whole)) if abs(whole[i] - whole[j]).sum() < limit + 1]
""",
    },
    "a4.3": {
        "given": AUDIT,
        "mistakes": [
            ("def choose_limit(same, different):\n    return different.min()", "is taken for a copy"),
            ("def choose_limit(same, different):\n    return same.max()", "return `None`"),
            ("def choose_limit(same, different):\n    return same.mean()", "the furthest of them decides"),
            ("def choose_limit(same, different):\n    return different.mean()", "would be taken for copies"),
            ("def choose_limit(same, different):\n    return None if len(same) else 0", "would do"),
            ("def choose_limit(same, different):\n    return same", "one number is asked for"),
            ("choose_limit = 10", "a function is asked for"),
        ],
        "another": """
def choose_limit(same, different):
    for limit in reversed(range(257)):
        if (same <= limit).all() and not (different <= limit).any():
            return limit
""",
    },
    "a4.4": {
        "given": AUDIT,
        "mistakes": [
            (
                """
def fall_map(query, whole, covered, columns):
    norm = numpy.linalg.norm
    remain = covered @ query / norm(query) / norm(covered, axis=1)
    return (remain - whole @ query / norm(query) / norm(whole)).reshape(-1, columns)
""",
                "the sign is turned",
            ),
            (
                """
def fall_map(query, whole, covered, columns):
    norm = numpy.linalg.norm
    return (covered @ query / norm(query) / norm(covered, axis=1)).reshape(-1, columns)
""",
                "take each from that of the whole page",
            ),
            (
                "def fall_map(query, whole, covered, columns):\n    return (query @ whole - covered @ query).reshape(-1, columns)",
                "these are dot products",
            ),
            (
                """
def fall_map(query, whole, covered, columns):
    norm = numpy.linalg.norm
    falls = whole @ query / norm(query) / norm(whole) - covered @ query / norm(query) / norm(covered, axis=1)
    return falls.reshape(columns, -1).T
""",
                "line by line, not column by column",
            ),
            (
                """
def fall_map(query, whole, covered, columns):
    norm = numpy.linalg.norm
    return (whole @ query / norm(query) / norm(whole) - covered @ query / norm(query) / norm(covered, axis=1))
""",
                "the shape is (6,)",
            ),
            (
                """
def fall_map(query, whole, covered, columns):
    norm = numpy.linalg.norm
    return (1 - covered @ query / norm(query) / norm(covered, axis=1)).reshape(-1, columns)
""",
                "no cosine of 1",
            ),
            (
                """
def fall_map(query, whole, covered, columns):
    norm = numpy.linalg.norm
    return (1 - covered @ whole / norm(whole) / norm(covered, axis=1)).reshape(-1, columns)
""",
                "the query decides",
            ),
            (
                """
def fall_map(query, whole, covered, columns):
    norm = numpy.linalg.norm
    similarity = whole @ query / norm(query) / norm(whole)
    return (1 - covered @ query / norm(query) / norm(covered, axis=1) / similarity).reshape(-1, columns)
""",
                "a share of the similarity",
            ),
            (
                "def fall_map(query, whole, covered, columns):\n    return numpy.zeros((len(covered) // columns, columns))",
                "the first patch",
            ),
            ("def fall_map(query, whole, covered, columns):\n    return 'dark'", "a map of the shape"),
        ],
        "another": """
def fall_map(query, whole, covered, columns):
    lines = []
    for begin in range(0, len(covered), columns):
        line = [query / (query @ query) ** 0.5 @ (whole / (whole @ whole) ** 0.5 - page / (page @ page) ** 0.5) for page in covered[begin : begin + columns]]
        lines.append(line)
    return lines
""",
    },
    "7.1": {
        "given": CODES,
        "mistakes": [
            (
                "def round_trip(vectors, largest):\n    return numpy.round(vectors / largest * 127).astype(numpy.int8) * largest / 127",
                "the other sign",
            ),
            (
                "def round_trip(vectors, largest):\n    return (vectors.clip(-largest, largest) / largest * 127).astype(numpy.int8) * largest / 127",
                "round before it",
            ),
            ("def round_trip(vectors, largest):\n    return to_int8(vectors, largest)", "these are the codes"),
            ("def round_trip(vectors, largest):\n    return to_int8(vectors, largest) / 127", "between -1 and 1"),
            ("def round_trip(vectors, largest):\n    return vectors", "nothing was rounded"),
            (
                "def round_trip(vectors, largest):\n    return to_int8(vectors, largest)[0] * largest / 127",
                "of the shape (40, 128)",
            ),
            ("def round_trip(vectors, largest):\n    return (vectors * 10).round() / 10", "half a step is the most"),
            ("def round_trip(vectors, largest):\n    return 'codes'", "floats of the shape"),
        ],
        "another": """
def round_trip(vectors, largest):
    step = largest / 127
    return [[max(-127, min(127, round(float(number) / step))) * step for number in row] for row in vectors]
""",
    },
    "7.2": {
        "given": CODES,
        "mistakes": [
            ("def index_bytes(pages, width, bits):\n    return pages * width * bits", "eight of them are a byte"),
            ("def index_bytes(pages, width, bits):\n    return pages * width * 4", "float32 alone"),
            ("def index_bytes(pages, width, bits):\n    return pages * width", "int8 alone"),
            ("def index_bytes(pages, width, bits):\n    return pages * width * bits / 8 / 2**30", "without a unit"),
            ("def index_bytes(pages, width, bits):\n    return width * bits / 8", "one page"),
            ("def index_bytes(pages, width, bits):\n    return 7", "384,000,000 bytes are needed"),
            ("index_bytes = 128_000_000", "a function is asked for"),
        ],
        "another": "index_bytes = lambda pages, width, bits: numpy.zeros((1, width * bits // 8), dtype=numpy.uint8).nbytes * pages",
    },
    "7.3": {
        "given": CODES,
        "mistakes": [
            ("def shortlist_length(ranks, share):\n    return share * ranks.max()", "one far page decides"),
            ("def shortlist_length(ranks, share):\n    return ranks.max()", "one far page decides"),
            ("def shortlist_length(ranks, share):\n    return ranks.mean()", "the mean rank"),
            ("def shortlist_length(ranks, share):\n    return numpy.quantile(ranks, share)", "a whole number"),
            (
                "def shortlist_length(ranks, share):\n    return int(numpy.quantile(ranks, share, method='higher'))",
                "a shorter list would do",
            ),
            ("def shortlist_length(ranks, share):\n    return 10", "too short"),
            ("def shortlist_length(ranks, share):\n    return ranks <= 10", "one number is asked for"),
        ],
        "another": """
def shortlist_length(ranks, share):
    length = 1
    while (ranks <= length).mean() < share:
        length += 1
    return length
""",
    },
    "7.4": {
        "given": CODES,
        "mistakes": [
            (
                "def recall_at_10(true, found):\n    return numpy.mean([a == b for t, f in zip(true, found) for a, b in zip(t, f)])",
                "the order among the ten",
            ),
            (
                "def recall_at_10(true, found):\n    return len({i for row in true for i in row} & {i for row in found for i in row[:10]}) / (10 * len(true))",
                "its own row",
            ),
            (
                "def recall_at_10(true, found):\n    return numpy.mean([len(set(t) & set(f)) / 10 for t, f in zip(true, found)])",
                "only the first ten",
            ),
            (
                "def recall_at_10(true, found):\n    return numpy.mean([len(set(t) & set(f[:10])) for t, f in zip(true, found)])",
                "divide by the ten",
            ),
            (
                "def recall_at_10(true, found):\n    return 100 * numpy.mean([len(set(t) & set(f[:10])) / 10 for t, f in zip(true, found)])",
                "in percent",
            ),
            ("def recall_at_10(true, found):\n    return len(set(true[0]) & set(found[0][:10])) / 10", "mean over queries"),
            ("def recall_at_10(true, found):\n    return [1.0, 0.5]", "one number is asked for"),
        ],
        "another": """
def recall_at_10(true, found):
    hits = [numpy.isin(row[:10], best) for best, row in zip(true, found)]
    return numpy.concatenate(hits).sum() / sum(len(best) for best in true)
""",
    },
    "8.1": {
        "given": DOCUMENTS,
        "mistakes": [
            ("def clear_pairs(pairs):\n    return pairs", "stands on crane#2 and on crane#5"),
            (
                "def clear_pairs(pairs):\n    return list(dict(reversed(pairs)).items())",
                "'Cleaning' was kept for crane#2 alone",
            ),
            (
                "def clear_pairs(pairs):\n    asked = [query.lower() for query, _ in pairs]\n    return [p for p in pairs if asked.count(p[0].lower()) == 1]",
                "count pages, not pairs",
            ),
            (
                "def clear_pairs(pairs):\n    asked = [query for query, _ in set(pairs)]\n    return [p for p in pairs if asked.count(p[0]) == 1]",
                "in other letters",
            ),
            (
                "def clear_pairs(pairs):\n    low = {(query.lower(), page) for query, page in pairs}\n    asked = [query for query, _ in low]\n    return [p for p in low if asked.count(p[0]) == 1]",
                "return them as they came",
            ),
            ("def clear_pairs(pairs):\n    return [('Lamps', 'crane#3')]", "is lost"),
            ("def clear_pairs(pairs):\n    return ['Motor', 'Lamps']", "pairs of a query and a page"),
            ("def clear_pairs(pairs):\n    return 3", "pairs of a query and a page"),
            ("clear_pairs = []", "a function is asked for"),
        ],
        "another": """
def clear_pairs(pairs):
    table = pandas.DataFrame(pairs, columns=["query", "page"]).drop_duplicates()
    alone = table.groupby(table["query"].str.lower())["page"].transform("nunique") == 1
    return table[alone].itertuples(index=False)
""",
    },
    "8.2": {
        "given": DOCUMENTS,
        "mistakes": [
            (
                "def side_by_name(document, share):\n    return 'eval' if hash(document) % 1000 < 1000 * share else 'train'",
                "when Python starts anew",
            ),
            (
                "def side_by_name(document, share):\n    return 'eval' if random.random() < share else 'train'",
                "when asked again",
            ),
            (
                "def side_by_name(document, share):\n    number = int(hashlib.sha256(document.encode()).hexdigest(), 16)\n    return 'eval' if number % 3 == 0 else 'train'",
                "no notice of `share`",
            ),
            (
                "def side_by_name(document, share):\n    number = int(hashlib.sha256(document.encode()).hexdigest(), 16)\n    return 'train' if number % 1000 < 1000 * share else 'eval'",
                "the share is that of eval",
            ),
            (
                "def side_by_name(document, share):\n    return 'eval' if len(document) % 10 < 10 * share else 'train'",
                "what differs between",
            ),
            ("def side_by_name(document, share):\n    return 'train'", "what differs between"),
            (
                "def side_by_name(document, share):\n    return 'eval' if sum(document.encode()) / 2000 < share else 'train'",
                "what differs between",
            ),
            (
                "def side_by_name(document, share):\n    return 'eval' if document[-5] < str(10 * share * share) else 'train'",
                "spread evenly between 0 and 1",
            ),
            ("def side_by_name(document, share):\n    return len(document) < share", "neither 'train' nor 'eval'"),
            ("def side_by_name(document, share):\n    'eval' if len(document) < share else 'train'", "returns nothing"),
        ],
        "another": """
def side_by_name(document, share):
    return random.Random(document).choices(["eval", "train"], weights=[share, 1 - share])[0]
""",
    },
    "8.3": {
        "given": DOCUMENTS,
        "mistakes": [
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return similarity < positive and not same_document",
                "nearly as similar",
            ),
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return similarity < (1 - margin) * positive and not same_document",
                "`abs`",
            ),
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return similarity < positive - margin and not same_document",
                "the margin is a share",
            ),
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return similarity < positive - margin * abs(positive)",
                "the same document may well answer too",
            ),
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return not same_document",
                "nearly as similar",
            ),
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return abs(similarity - positive) > margin * abs(positive) and not same_document",
                "a second answer",
            ),
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return same_document or similarity > positive - margin * abs(positive)",
                "`True` says that it may be used",
            ),
            (
                "def may_be_used(positive, similarity, same_document, margin):\n    return positive - similarity",
                "`True` or `False`",
            ),
        ],
        "another": """
def may_be_used(positive, similarity, same_document, margin):
    if same_document:
        return numpy.bool_(False)
    return numpy.subtract(positive, similarity) > margin * numpy.abs(positive)
""",
    },
    "8.4": {
        "given": DOCUMENTS,
        "mistakes": [
            (
                "def judge(gains):\n    return gains['unseen documents'].mean() > 0, gains['old pages'].mean() < 0",
                "zero lies inside, so these queries did not show that it paid",
            ),
            (
                "def judge(gains):\n    low = {task: stats.bootstrap((values,), numpy.mean, rng=0).confidence_interval for task, values in gains.items()}\n    return low['wrong split'].low > 0, low['old pages'].high < 0",
                "not the wrong split",
            ),
            (
                "def judge(gains):\n    return numpy.percentile(gains['unseen documents'], 2.5) > 0, numpy.percentile(gains['old pages'], 97.5) < 0",
                "not of single queries",
            ),
            (
                "def judge(gains):\n    error = {task: 1.96 * values.std() / len(values) ** 0.5 for task, values in gains.items()}\n    return tuple(abs(gains[task].mean()) > error[task] for task in ('unseen documents', 'old pages'))",
                "that is a loss",
            ),
            (
                "def judge(gains):\n    error = {task: 1.96 * values.std() / len(values) ** 0.5 for task, values in gains.items()}\n    paid = gains['unseen documents'].mean() > error['unseen documents']\n    return paid, abs(gains['old pages'].mean()) > error['old pages']",
                "that is a gain, nothing was forgotten",
            ),
            (
                "def judge(gains):\n    new, old = gains['unseen documents'], gains['old pages']\n    return new.mean() > 1.96 * new.std() / len(new) ** 0.5, old.mean() < 0",
                "nothing was shown to be forgotten",
            ),
            ("def judge(gains):\n    return True, False", "something was forgotten"),
            ("def judge(gains):\n    return gains['unseen documents'].mean() > 0", "two things are asked for"),
            ("def judge(gains):\n    return 0.1, -0.1", "`True` or `False`"),
        ],
        "another": """
def judge(gains):
    ends = {task: stats.t.interval(0.95, len(v) - 1, v.mean(), stats.sem(v)) for task, v in gains.items()}
    return [ends["unseen documents"][0] > 0, ends["old pages"][1] < 0]
""",
    },
    "9.1": {
        "given": RERANK,
        "mistakes": [
            ("at_best = 1", "not among the five"),
            ("at_best = 0", "stays where it was"),
            ("at_best = ndcg(torch.tensor(5))", "fifth place"),
            ("at_best = 1 / 6", "MRR"),
            ("at_best = 1 / math.log(7)", "natural logarithm"),
            ("at_best = 0.63", "in which place"),
            ("at_best = 'sixth'", "one number is asked for"),
        ],
        "another": "at_best = 1 / numpy.log2(1 + 6)",
    },
    "9.2": {
        "given": RERANK,
        "mistakes": [
            (
                "def sort_again(page_ids, new_scores):\n    return [page_ids[i] for i in new_scores.argsort(descending=True)]",
                "is gone",
            ),
            (
                "def sort_again(page_ids, new_scores):\n    return [page_ids[i] for i in new_scores.argsort()] + page_ids[len(new_scores):]",
                "a high score is good",
            ),
            (
                "def sort_again(page_ids, new_scores):\n    return [page_ids[i] for i in new_scores.argsort(descending=True).argsort()] + page_ids[len(new_scores):]",
                "the place of each page",
            ),
            ("def sort_again(page_ids, new_scores):\n    return page_ids", "nothing moved"),
            (
                "def sort_again(page_ids, new_scores):\n    return new_scores.argsort(descending=True).tolist()",
                "ids are asked for",
            ),
            (
                "def sort_again(page_ids, new_scores):\n    return page_ids[len(new_scores):] + [page_ids[i] for i in new_scores.argsort(descending=True)]",
                "is asked for",
            ),
            (
                "def sort_again(page_ids, new_scores):\n    return [page_ids[i] for i in new_scores.argsort(descending=True)] + page_ids",
                "none lost and none twice",
            ),
            ("def sort_again(page_ids, new_scores):\n    return 'abc'", "one text"),
            ("def sort_again(page_ids, new_scores):\n    return 3", "a list of page ids"),
        ],
        "another": """
def sort_again(page_ids, new_scores):
    k = len(new_scores)
    pairs = sorted(zip(new_scores.tolist(), page_ids[:k]), reverse=True)
    return (*(page for _, page in pairs), *page_ids[k:])
""",
    },
    "9.3": {
        "given": RERANK,
        "mistakes": [
            (
                "def add_scores(first, second, weight):\n    return (1 - weight) * first + weight * second",
                "whichever has the larger numbers decides",
            ),
            (
                "def add_scores(first, second, weight):\n    return weight * first / first.std() + (1 - weight) * second / second.std()",
                "at 0 the order is that of the first",
            ),
            (
                "def add_scores(first, second, weight):\n    return (1 - weight) * first / first.mean() + weight * second / second.mean()",
                "turned round",
            ),
            (
                "def add_scores(first, second, weight):\n    return (1 - weight) * first / abs(first).max() + weight * second / abs(second).max()",
                "divide by the spread, not by the size",
            ),
            (
                "def add_scores(first, second, weight):\n    return (1 - weight) * first / first.std(dim=0) + weight * second / second.std(dim=0)",
                "across queries",
            ),
            (
                "def add_scores(first, second, weight):\n    return (1 - weight) * first.softmax(dim=1) + weight * second.softmax(dim=1)",
                "with the second scores times",
            ),
            ("def add_scores(first, second, weight):\n    return first", "at weight 1"),
            (
                "def add_scores(first, second, weight):\n    return first if weight < 0.5 else second",
                "one of the two scores decides alone",
            ),
            ("def add_scores(first, second, weight):\n    return (first + second).mean()", "scores of the shape (30, 8)"),
            ("def add_scores(first, second, weight):\n    return first.log() + second.log()", "no finite numbers"),
            ("def add_scores(first, second, weight):\n    return 'sum'", "scores of the shape (30, 8)"),
        ],
        "another": """
def add_scores(first, second, weight):
    places = [(-scores).argsort(dim=1).argsort(dim=1) + 1 for scores in (first, second)]
    return (1 - weight) / places[0] + weight / places[1]
""",
    },
    "9.4": {
        "given": RERANK,
        "mistakes": [
            (
                "def choose_k(runs, budget):\n    return max((k for k in runs if runs[k][3] <= budget), key=lambda k: runs[k][0], default=0)",
                "its interval holds zero",
            ),
            (
                "def choose_k(runs, budget):\n    return max((k for k in runs if runs[k][1] > 0), key=lambda k: runs[k][0], default=0)",
                "takes too long",
            ),
            (
                "def choose_k(runs, budget):\n    return max((k for k in runs if runs[k][1] > 0 and runs[k][3] < budget), key=lambda k: runs[k][0], default=0)",
                "takes just the budget",
            ),
            (
                "def choose_k(runs, budget):\n    return max((k for k in runs if runs[k][1] > 0 and runs[k][3] <= budget), default=0)",
                "and k = 2 (+0.020",
            ),
            (
                "def choose_k(runs, budget):\n    return min((k for k in runs if runs[k][1] > 0 and runs[k][3] <= budget), default=0)",
                "and k = 5 (+0.022",
            ),
            (
                "def choose_k(runs, budget):\n    return max((k for k, (g, lo, hi, ms) in runs.items() if lo * hi > 0 and ms <= budget), key=lambda k: runs[k][0], default=0)",
                "loses; an interval without zero",
            ),
            (
                "def choose_k(runs, budget):\n    return max((k for k in runs if runs[k][1] > 0 and runs[k][3] <= budget), key=lambda k: runs[k][0], default=None)",
                "where no k pays, return 0",
            ),
            (
                "def choose_k(runs, budget):\n    return max((runs[k][0] for k in runs if runs[k][1] > 0 and runs[k][3] <= budget), default=0)",
                "that is no k",
            ),
            ("def choose_k(runs, budget):\n    return 0", "you say 0, and k = 5"),
            ("choose_k = 5", "a function is asked for"),
        ],
        "another": """
def choose_k(runs, budget):
    best = 0
    for k in sorted(runs):
        gain, low, _, ms = runs[k]
        if ms <= budget and low > 0 and (best == 0 or gain > runs[best][0]):
            best = k
    return best
""",
    },
    "10.1": {
        "given": MANY_VECTORS,
        "mistakes": [
            ("def maxsim(query, page):\n    return (query @ page.T).max(dim=0).values.sum()", "the page looked for the query's"),
            ("def maxsim(query, page):\n    return (query @ page.T).max(dim=1).values.mean()", "that is the mean"),
            ("def maxsim(query, page):\n    return (query @ page.T).sum()", "all similarities were added"),
            ("def maxsim(query, page):\n    return (query @ page.T).max()", "the best pair of all"),
            ("def maxsim(query, page):\n    return (query @ page.T).max(dim=1).sum()", "take `.values`"),
            ("def maxsim(query, page):\n    return (query @ page.T).max(dim=1).values", "add them"),
            ("def maxsim(query, page):\n    return query.mean(dim=0) @ page.mean(dim=0)", "one vector a side"),
            ("def maxsim(query, page):\n    return (query @ page.T).clamp(min=0).max(dim=1).values.sum()", "can be negative"),
            ("def maxsim(query, page):\n    return 4", "it should be"),
            ("def maxsim(query, page):\n    return query @ page.T", "one number is asked for"),
        ],
        "another": "maxsim = lambda query, page: sum(max(float(one @ other) for other in page) for one in query)",
    },
    "10.2": {
        "given": MANY_VECTORS,
        "mistakes": [
            (
                "def maxsim_of_padded(query, page, counts):\n    return (query @ page.T).max(dim=1).values.sum()",
                "the padding took part",
            ),
            (
                "def maxsim_of_padded(query, page, counts):\n    return (query @ (page * counts[:, None]).T).max(dim=1).values.sum()",
                "set to 0 wins",
            ),
            (
                "def maxsim_of_padded(query, page, counts):\n    return ((query @ page.T) * counts).max(dim=1).values.sum()",
                "set to 0 wins",
            ),
            (
                "def maxsim_of_padded(query, page, counts):\n    return (query @ page[~counts].T).max(dim=1).values.sum()",
                "the padding alone",
            ),
            (
                "def maxsim_of_padded(query, page, counts):\n    return (query @ page[: counts.sum()].T).max(dim=1).values.sum()",
                "on the left too",
            ),
            (
                "def maxsim_of_padded(query, page, counts):\n    return (query @ page[counts].T).max(dim=1).values.mean()",
                "a vector that counts, added",
            ),
            (
                "def maxsim_of_padded(query, page, counts):\n    (query @ page[counts].T).max(dim=1).values.sum()",
                "returns nothing",
            ),
        ],
        "another": "maxsim_of_padded = lambda query, page, counts: (query @ page[counts].T).amax(dim=1).sum()",
    },
    "10.3": {
        "given": MANY_VECTORS,
        "mistakes": [
            (
                "def pool_neighbours(vectors, factor):\n    return torch.stack([group.mean(dim=0) for group in vectors.split(factor)])",
                "normalise it",
            ),
            (
                "def pool_neighbours(vectors, factor):\n    return util.normalize_embeddings(vectors.reshape(-1, factor, vectors.shape[1]).mean(dim=1))",
                "2 are left at the end, and are a group too",
            ),
            (
                "def pool_neighbours(vectors, factor):\n    whole = vectors[: len(vectors) // factor * factor]\n    return util.normalize_embeddings(whole.reshape(-1, factor, vectors.shape[1]).mean(dim=1))",
                "is gone",
            ),
            ("def pool_neighbours(vectors, factor):\n    return vectors[::factor]", "keeps one vector of each group"),
            (
                "def pool_neighbours(vectors, factor):\n    return util.normalize_embeddings(vectors.reshape(factor, -1, vectors.shape[1]).mean(dim=0))",
                "scattered over the page",
            ),
            (
                "def pool_neighbours(vectors, factor):\n    whole = len(vectors) // factor * factor\n    means = [group.mean(dim=0) for group in vectors[:whole].split(factor)] if whole else []\n    return [*(mean / mean.norm() for mean in means), *([vectors[whole:].mean(dim=0)] if whole < len(vectors) else [])]",
                "the last group is not like the others",
            ),
            (
                "def pool_neighbours(vectors, factor):\n    return util.normalize_embeddings(vectors.mean(dim=0, keepdim=True))",
                "the shape (4, 8)",
            ),
            (
                "def pool_neighbours(vectors, factor):\n    return util.normalize_embeddings(vectors[: -(-len(vectors) // factor)])",
                "row 1 should be",
            ),
            ("def pool_neighbours(vectors, factor):\n    return 'means'", "this stops with ValueError"),
        ],
        "another": """
def pool_neighbours(vectors, factor):
    filled = torch.cat([vectors, torch.zeros(-len(vectors) % factor, vectors.shape[1])])
    sums = filled.reshape(-1, factor, vectors.shape[1]).sum(dim=1)
    return (sums / sums.norm(dim=1, keepdim=True)).numpy()
""",
    },
    "10.4": {
        "given": MANY_VECTORS,
        "mistakes": [
            (
                "def smallest_factor(vectors, numbers, bits, budget):\n    return max(1, math.ceil(vectors * numbers * bits / budget))",
                "eight bits are a byte",
            ),
            (
                "def smallest_factor(vectors, numbers, bits, budget):\n    return max(1, math.ceil(vectors * numbers * 4 / budget))",
                "a number takes 16 bits here",
            ),
            (
                "def smallest_factor(vectors, numbers, bits, budget):\n    return max(1, vectors * numbers * bits // 8 // budget)",
                "round up",
            ),
            (
                "def smallest_factor(vectors, numbers, bits, budget):\n    return max(1, vectors * numbers * bits / 8 / budget)",
                "a whole number",
            ),
            (
                "def smallest_factor(vectors, numbers, bits, budget):\n    return math.ceil(vectors * numbers * bits / 8 / budget) - (budget == 20_000)",
                "the page fits as it is",
            ),
            (
                "def smallest_factor(vectors, numbers, bits, budget):\n    return max(1, math.ceil(numbers * bits / 8 / budget))",
                "a page has 56",
            ),
            ("def smallest_factor(vectors, numbers, bits, budget):\n    return vectors", "4 would do"),
            ("def smallest_factor(vectors, numbers, bits, budget):\n    return 3", "with 4 it fits"),
            ("def smallest_factor(vectors, numbers, bits, budget):\n    return vectors, numbers", "one number is asked for"),
        ],
        "another": """
def smallest_factor(vectors, numbers, bits, budget):
    allowed = budget // (numbers * bits // 8)
    return next(factor for factor in itertools.count(1) if math.ceil(vectors / factor) <= allowed)
""",
    },
    "10.5": {
        "given": MANY_VECTORS,
        "mistakes": [
            (
                "def find_pages(first, rescore, k):\n    return rescore(first.topk(k).indices).argsort(descending=True).tolist()",
                "places on the shortlist",
            ),
            (
                "def find_pages(first, rescore, k):\n    return rescore(range(len(first))).topk(k).indices.tolist()",
                "you had 40 pages re-scored",
            ),
            ("def find_pages(first, rescore, k):\n    return first.topk(k).indices.tolist()", "no page was re-scored"),
            (
                "def find_pages(first, rescore, k):\n    shortlist = first.topk(k).indices\n    rescore(shortlist)\n    return shortlist.tolist()",
                "still the order of the first stage",
            ),
            (
                "def find_pages(first, rescore, k):\n    shortlist = first.topk(k).indices\n    return shortlist[rescore(shortlist).argsort()].tolist()",
                "a high score is good",
            ),
            (
                "def find_pages(first, rescore, k):\n    shortlist = first.argsort()[:k]\n    return shortlist[rescore(shortlist).argsort(descending=True)].tolist()",
                "are not the 6 best",
            ),
            (
                "def find_pages(first, rescore, k):\n    shortlist = first.topk(k).indices\n    best = shortlist[rescore(shortlist).argmax()]\n    return [int(best)]",
                "you return 1 pages",
            ),
            (
                "def find_pages(first, rescore, k):\n    shortlist = first.topk(k).indices\n    order = (rescore(shortlist) + 10 * first[shortlist]).argsort(descending=True)\n    return shortlist[order].tolist()",
                "you begin with the pages",
            ),
            ("def find_pages(first, rescore, k):\n    return 3", "a list of page numbers"),
        ],
        "another": """
def find_pages(first, rescore, k):
    shortlist = sorted(range(len(first)), key=lambda page: float(first[page]), reverse=True)[:k]
    scores = {page: float(rescore([page])) for page in shortlist}
    return sorted(scores, key=scores.get, reverse=True)
""",
    },
}
