"""The text of the tiny eval pages by OCR, stored for appendix 5: ``python -m benchmarks.ocr``
(1,500 pages, half an hour on two cores).

Reads the source pages at their own size, with appendix 5's settings and one thread per process, and
writes ``assets/measured/ocr_tiny.json.gz``: texts by the page's pixels, settings, versions, and the
processor seconds that a page took. It can be interrupted and goes on from
``outputs/tiny/ocr_run.json``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from importlib.metadata import version
from multiprocessing import get_context

import numpy

from vdr_helpers.cache import atomic_write
from vdr_helpers.gpu import present_gpu
from vdr_helpers.pages import fingerprint, open_page
from vdr_helpers.profiles import assets_folder, load_profile
from vdr_helpers.source import open_source
from vdr_helpers.splits import chosen_rows

# as in appendix 5
SETTINGS = {
    "Global.use_cls": False,
    "Det.limit_type": "max",
    "Det.limit_side_len": 960,
    "Rec.rec_batch_num": 1,
}
ONE_THREAD = {f"EngineConfig.onnxruntime.{name}_op_num_threads": 1 for name in ("intra", "inter")}


def start_engine() -> None:
    from rapidocr import RapidOCR

    global engine
    engine = RapidOCR(params={"Global.log_level": "critical"} | SETTINGS | ONE_THREAD)


def read(page: tuple[str, bytes]) -> tuple[str, str, float]:
    """``(key, text, processor seconds)`` of one ``(key, image file)``."""
    key, content = page
    started = time.process_time()
    # as in appendix 5
    text = "\n".join(engine(numpy.asarray(open_page(content))[:, :, ::-1]).txts or ())
    return key, text, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ocr")
    parser.add_argument("--processes", type=int, default=2)
    processes = parser.parse_args().processes
    profile = load_profile("tiny")
    source = open_source(profile)
    read_rows = source.read_rows(
        {number for row in chosen_rows(profile, "eval") for number in row}, ["image"]
    )
    pages = {
        fingerprint(open_page(row["image"]["bytes"]))[:16]: row["image"]["bytes"]
        for row in read_rows
    }
    file = profile.output_dir / "ocr_run.json"
    done = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rest = [(key, page) for key, page in pages.items() if key not in done]
    with get_context("spawn").Pool(processes, start_engine) as pool:
        for key, text, seconds in pool.imap_unordered(read, rest):
            done[key] = [text, seconds]
            if len(done) % 50 == 0 or len(done) == len(pages):
                atomic_write(file, json.dumps(done))
                print(f"{len(done):,} of {len(pages):,} pages", flush=True)
    result = {
        "what": "text of the eval pages of the tiny profile, read by OCR from the source pages at their own size",
        "command": "python -m benchmarks.ocr",
        "versions": {
            name: version(name) for name in ("rapidocr", "onnxruntime", "opencv-python-headless")
        },
        "device": present_gpu().name,
        "settings": SETTINGS,
        "processor_seconds_per_page": round(sum(done[key][1] for key in pages) / len(pages), 3),
        "texts": {key: done[key][0] for key in sorted(pages)},
    }
    packed = gzip.compress(json.dumps(result, ensure_ascii=False).encode("utf-8"), mtime=0)
    atomic_write(assets_folder() / "measured" / "ocr_tiny.json.gz", packed)


if __name__ == "__main__":
    main()
