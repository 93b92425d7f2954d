"""Pages without their pixels, or with half of them: keys for batches, paths for the corpus, pixels in the model's number format.

Notebook 03 uses and checks all three.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vdr_helpers.files import write_whole


def page_keys(dataset):
    """The dataset with every page replaced by the SHA-1 of its file, as a string; text columns stay as they are.

    ``dataset``: a ``datasets.Dataset`` with text and ``Image`` columns. Returns a small ``Dataset`` of the same rows and columns, for
    ``NoDuplicatesBatchSampler``: two rows share a key exactly when they share a page file. Pages that were saved twice with different
    bytes get different keys, so presize and save them in one way first (notebook 02 does). Raises ``ValueError`` for an image without
    bytes, such as one given as a path.
    """
    from datasets import Dataset, Image

    columns = {}
    for name in dataset.column_names:
        if not isinstance(dataset.features[name], Image):
            columns[name] = dataset[name][:]
            continue
        files = dataset.select_columns(name).cast_column(name, Image(decode=False))[name][:]
        if any(file is not None and file["bytes"] is None for file in files):
            raise ValueError(
                f"column {name!r} holds paths, not pages: save the dataset with its pages inside first (notebook 02)"
            )
        columns[name] = [
            None if file is None else hashlib.sha1(file["bytes"], usedforsecurity=False).hexdigest() for file in files
        ]
    return Dataset.from_dict(columns)


def page_paths(dataset, folder: str | Path):
    """The dataset with every page replaced by the path of its file in ``folder``, written there first if it is not there yet.

    Sentence Transformers takes paths where it takes images and opens each one when its batch is encoded, so that a corpus of paths
    costs no memory for pixels. Files are named by content: a page that stands in several rows is written once. Returns a ``Dataset``
    of the same rows and columns. Raises ``ValueError`` as :func:`page_keys` does.
    """
    from datasets import Dataset, Image

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    keys = page_keys(dataset)
    columns = {name: keys[name][:] for name in keys.column_names}
    for name in keys.column_names:
        if not isinstance(dataset.features[name], Image):
            continue
        files = dataset.select_columns(name).cast_column(name, Image(decode=False))[name]
        for i, file in enumerate(files):
            if file is None:
                continue
            path = folder / f"{columns[name][i]}.png"
            if not path.exists():
                write_whole(path, file["bytes"])
            columns[name][i] = str(path)
    return Dataset.from_dict(columns)


class PixelsInFormat:
    """A data collator whose pixels come in the model's number format: the cast that the model makes first, made before they travel.

    ``collator``: the trainer's own; ``dtype``: ``model.dtype``. With 16-bit weights a batch takes half the transfer and half the memory
    and the model computes on the same numbers; with 32-bit weights nothing changes. Everything else is passed through.
    """

    def __init__(self, collator, dtype) -> None:
        self.collator, self.dtype = collator, dtype
        self.valid_label_columns = collator.valid_label_columns  # the trainer asks its collator for these

    def __call__(self, rows: list[dict]) -> dict:
        features = self.collator(rows)
        return {name: value.to(self.dtype) if name.endswith("pixel_values") else value for name, value in features.items()}
