"""What the environment variables of ``full`` may name where there is no hub: a source in the real
layout, models of the real width.

A model here is the real architecture at the real width of 2,048 with one layer and random weights;
the pages are generated. So every step of ``full`` runs except what needs the hub or a GPU, and no
score means anything.
"""

from pathlib import Path

import model_twins
import pyarrow
import pyarrow.parquet

from tiny_vdr.model import Sizes, save_random_model

BASE = Path(__file__).parents[1] / "assets" / "tiny-base"
SIZES = Sizes(
    "stand-in of the real width",
    hidden_size=2048, intermediate_size=256, layers=1, heads=4, key_value_heads=2, head_dim=64, vocabulary=1536,
    vision_hidden=64, vision_intermediate=128, vision_depth=1, vision_heads=2, position_embeddings=256, deepstack=(0,),
)  # fmt: skip
README = "---\nconfigs:\n{}---\n"
CONFIG = "- config_name: {0}\n  data_files:\n  - split: train\n    path: {0}/train-*.parquet\n"


def write_shards(table: pyarrow.Table, folder: Path, shards: int, group_rows: int) -> None:
    """``train-00000-of-0000N.parquet`` files with small row groups, as a dataset lies on the
    hub.
    """
    folder.mkdir(parents=True)
    size = -(-table.num_rows // shards)
    for i in range(shards):
        name = f"train-{i:05d}-of-{shards:05d}.parquet"
        pyarrow.parquet.write_table(
            table.slice(i * size, size), folder / name, row_group_size=group_rows
        )


def read_source(source: Path) -> pyarrow.Table:
    """All rows of a generated source, noise included."""
    return pyarrow.concat_tables(
        [pyarrow.parquet.read_table(file) for file in sorted((source / "en").glob("*.parquet"))]
    )


def save_stand_ins(source: Path, root: Path) -> dict[str, Path]:
    """``source``, ``model``, ``finetuned``, ``reranker`` and ``writer``: the folders of the
    stand-ins, under ``root``.
    """
    write_shards(read_source(source), root / "vdr-source" / "en", shards=4, group_rows=40)
    (root / "vdr-source" / "README.md").write_text(README.format(CONFIG.format("en")))
    for number, name in enumerate(("stand-in-base", "stand-in-tuned")):
        save_random_model(root / name, SIZES, like=BASE, seed=number)
    reply = '{"general": "Hoses", "specific": "Where are the hoses of the manual?"}'
    return {
        "source": root / "vdr-source",
        "model": root / "stand-in-base",
        "finetuned": root / "stand-in-tuned",
        "reranker": model_twins.save_reranker_twin(root / "reranker-parts"),
        "writer": model_twins.save_writer_twin(root / "writer", reply),
    }


def variables(stand_ins: dict[str, Path], rows: str) -> dict[str, str]:
    """The environment of a reader who runs ``full`` on the stand-ins with so many rows, such as
    ``"24:6"``.
    """
    return {
        "VDR_PROFILE": "full",
        "VDR_MODEL": str(stand_ins["model"]),
        "VDR_FINETUNED": str(stand_ins["finetuned"]),
        "VDR_RERANKER": str(stand_ins["reranker"]),
        "VDR_DATASET": str(stand_ins["source"]),
        "VDR_ROWS": rows,
    }
