"""Parts of ``python -m benchmarks.on_gpu`` beside training: the machine, the notebooks, encoding.

Every function gets ``note``, which writes a result at once. The profile in ``$VDR_PROFILE`` has
random weights: memory and seconds follow from the widths of a model, scores mean nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset, load_from_disk
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import batch_to_device

from benchmarks.recipe import load_base
from benchmarks.recipe_data import CARD_PAGE, make_data
from tiny_vdr.corpus import build_source
from vdr_helpers.gpu import GIB, SHARED_MEMORY, Gpu, compute_dtype, present_gpu
from vdr_helpers.machine import with_random_weights
from vdr_helpers.profiles import Profile, load_profile, outputs_folder
from vdr_helpers.training import cosine_at, use_matrix_product

TIMES = 3  # how often a single call is timed, after one that warms up
ROWS = {"rehearsal": "128:20", "rehearsal-small": "16:4"}  # of the notebooks: two steps
CORPUS = {"train_families": 40, "eval_families": 85}  # enough for them
Note = Callable[..., None]


def wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], object]) -> float:
    """Median seconds of a call, the first one not counted."""
    seconds = []
    for _ in range(TIMES + 1):
        wait_for_gpu()
        started = time.perf_counter()
        work()
        wait_for_gpu()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def profile_at_hand() -> Profile:
    """The profile in ``$VDR_PROFILE`` with its random weights."""
    return with_random_weights(load_profile())


def data_folder() -> Path:
    return outputs_folder() / "data"


def batch(kind: str) -> Dataset:
    """One batch of distinct rows, its pages ``original`` (images) or ``presized`` (paths)."""
    return load_from_disk(str(data_folder() / kind / "train"))


def device_and_dtype(gpu: Gpu) -> dict:
    """Arguments for a tensor on this GPU, in the 16-bit dtype in which it computes; or a CPU."""
    if gpu.capability is None:
        return {"device": "cpu", "dtype": torch.float32}
    return {"device": "cuda", "dtype": getattr(torch, compute_dtype(gpu.capability))}


def machine(note: Note) -> None:
    """GPU, memory, disk, and the speed of matrix products and copies: the floor of all figures."""
    gpu = present_gpu()
    places = {"disk": tempfile.gettempdir(), "shared memory": SHARED_MEMORY}
    free = {
        name: shutil.disk_usage(at).free / GIB for name, at in places.items() if Path(at).is_dir()
    }
    note(gpu=vars(gpu), cores=os.cpu_count(), free_gib=free)
    where, side = device_and_dtype(gpu), 8192 if gpu.capability else 512
    left, right = (torch.randn(side, side, **where) for _ in range(2))
    note(matrix_tflops=2 * side**3 / timed(lambda: left @ right) / 1e12)
    copied = torch.zeros(8 * side**2, **where)
    note(copy_gb_per_second=2 * copied.nbytes / timed(copied.clone) / 1e9)
    note(patches_of_a_page_seconds=patch_seconds(gpu))


def patch_seconds(gpu: Gpu) -> dict[str, float]:
    """Seconds, forward and backward, of the vision tower's first layer on a page of the published
    size: as the library's convolution, which some versions of cuDNN run very slowly, and as the
    matrix product that takes its place in the course.
    """
    where = device_and_dtype(gpu)
    layer = torch.nn.Conv3d(3, 1024, (2, 16, 16), (2, 16, 16), **where)
    patches = torch.randn(1360 if gpu.capability else 16, 1536, **where)
    ways = {
        "convolution": lambda: layer(patches.view(-1, 3, 2, 16, 16)),
        "product": lambda: torch.nn.functional.linear(
            patches, layer.weight.view(1024, -1), layer.bias
        ),
    }
    return {name: timed(lambda way=way: way().sum().backward()) for name, way in ways.items()}


def weights(note: Note) -> None:
    """The 2B architecture with random weights, written once; all later parts load it."""
    files = Path(profile_at_hand().base_model).glob("*.safetensors")
    note(bytes=sum(file.stat().st_size for file in files))


def data(note: Note) -> None:
    """Pages of the published size, notebook 02 on them, one batch in both sizes; without a GPU."""
    profile = load_profile()
    scale = profile.corpus.get("mean_scale")
    build_source(data_folder() / "source", **CORPUS, mean_scale=scale)
    while not list(profile.output_dir.glob("random-weights-*/manifest.json")):
        time.sleep(0.5)  # the part before this one is still writing them
    profile = with_random_weights(profile)
    sizes = {"train": profile.per_device_train_batch_size, "eval": 1, "epoch": 1}
    make_data(profile, data_folder(), sizes, CARD_PAGE if scale else None)
    note(pages=2 * sizes["train"])
    notebook("02", note)


def notebook(number: str, note: Note) -> None:
    """Run the code cells of a notebook; a line for each that takes a second or fails."""
    from IPython.core.interactiveshell import InteractiveShell

    if (data_folder() / "source").is_dir():  # notebook 01 runs while it is being made
        os.environ["VDR_ROWS"] = ROWS[load_profile().name]
        os.environ["VDR_DATASET"] = str(data_folder() / "source")
    [file] = (Path(__file__).parents[1] / "notebooks").glob(f"{number}_*.ipynb")
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shell = InteractiveShell.instance(colors="NoColor")
    for i, source in enumerate(sources, start=1):
        started, peak = time.perf_counter(), 0.0
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        ran = shell.run_cell(source)
        seconds = time.perf_counter() - started
        if torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_allocated() / GIB
        if seconds >= 1:
            note(cell=i, seconds=seconds, peak_gib=peak)
        if error := ran.error_before_exec or ran.error_in_exec:
            raise RuntimeError(f"code cell {i} of {len(sources)}: {error!r}")
    note(cells=len(sources))


def encoding(note: Note) -> None:
    """Milliseconds in which the processor prepares a page, pages a second that the model encodes,
    and an evaluation at seven widths: 300 queries, 1,500 pages on ``rehearsal``.
    """
    profile = profile_at_hand()
    model = load_base(profile)
    use_matrix_product(model)
    rows = batch("presized")
    pages = [*rows["image"], *rows["negative_0"]]
    note(prepare_ms_per_page=1000 * timed(lambda: model.preprocess(pages[:8])) / 8)
    for size in (1, 16, 64):
        some = batch_to_device(model.preprocess((pages * 64)[:size]), model.device)
        with torch.no_grad():
            seconds = timed(lambda some=some: model(dict(some)))
        note(batch_size=size, pages_per_second=size / seconds)
    count = profile.eval_rows
    queries = {f"q{i}": rows[i % len(rows)]["query"] for i in range(count)}
    corpus = {f"p{i}": pages[i % len(pages)] for i in range(5 * count)}
    evaluator = InformationRetrievalEvaluator(
        queries,
        corpus,
        {f"q{i}": {f"p{i}"} for i in range(count)},
        score_functions=cosine_at(profile.matryoshka_dims),
        main_score_function="cosine",
        batch_size=profile.encode_batch_size,
        write_csv=False,
    )
    started = time.perf_counter()
    evaluator(model)
    seconds = time.perf_counter() - started
    note(evaluation_seconds=seconds, queries=count, pages=5 * count, widths=7)
