"""Which rows train, which evaluate, and with which hard negatives: the rules of notebook 02."""

from __future__ import annotations

from collections import Counter

NEGATIVES_PER_EVAL_ROW = 4  # published: 300 queries x (1 positive + 4 hard negatives) = 1,500 pages


class Fetched(dict):
    """Fingerprints of fetched pages. A page not fetched yet counts as good and unlike all others, and is noted in ``unknown``.

    So the rows can be chosen before a page is read: choose, fetch ``unknown``, choose again, until nothing is unknown. The last
    choice is the one that all fingerprints would give, because it looked at no page that is not known.
    """

    def __init__(self, fingerprints: dict[int, str | None]) -> None:
        super().__init__(fingerprints)
        self.unknown: set[int] = set()

    def __missing__(self, number: int) -> str:
        self.unknown.add(number)
        return f"page {number}, not fetched yet"


def choose_negatives(
    row: dict, row_of_id: dict[str, int], fingerprints: list, count: int, taken: set, dirt: Counter
) -> list[int]:
    """The first ``count`` usable hard negatives of a row, as row numbers of the source, in its order.

    Skipped and counted in ``dirt``: ids that resolve to nothing, images that do not open, a copy of the row's own page (it would be
    punished for being right), and pages whose fingerprint is in ``taken``. May return fewer than ``count``.
    """
    own = fingerprints[row_of_id[row["id"]]]
    chosen, seen = [], {own}
    for negative_id in row["negatives"] or ():  # the last rows of the real source have none
        if len(chosen) == count:
            break
        number = row_of_id.get(negative_id)
        fingerprint = None if number is None else fingerprints[number]
        if number is None:
            dirt["negative id resolves to nothing"] += 1
        elif fingerprint is None:
            dirt["negative image does not open"] += 1
        elif fingerprint == own:
            dirt["negative is a copy of its own positive"] += 1
        elif fingerprint in taken:
            dirt["page already used (train or another eval row)"] += 1
        elif fingerprint not in seen:
            chosen.append(number)
            seen.add(fingerprint)
    return chosen


def choose_rows(
    rows,
    fingerprints,
    train_rows: int,
    eval_rows: int,
    dirt: Counter,
    negatives_per_train_row: int = 4,
    distinct_eval_pages: bool = True,
) -> tuple[list[dict], list[dict]]:
    """Split like the published dataset: the first ``train_rows`` usable rows with a query, then the next ``eval_rows``.

    ``rows``: the source without its image column; ``fingerprints``: one per row, ``None`` where the image does not open (a list, or
    :class:`Fetched`). Each chosen row is ``{"number": source row, "negatives": [source rows]}``. With ``distinct_eval_pages`` an
    eval row is dropped when a page of it is in train or in another eval row, so that ``eval_rows`` queries make ``5 * eval_rows``
    distinct pages; without, it is kept and counted, as published. Raises ``ValueError`` when the source is too small.
    """
    row_of_id = {row_id: number for number, row_id in enumerate(rows["id"])}
    train, evaluation, taken = [], [], set()
    for number, row in enumerate(rows):
        if not row["query"]:
            dirt["row without a query (kept as a page)"] += 1
        elif row["language"] != "en":
            dirt["row in another language"] += 1
        elif len(train) == train_rows and len(evaluation) == eval_rows:
            continue
        elif fingerprints[number] is None:
            dirt["positive image does not open"] += 1
        elif len(train) < train_rows:
            negatives = choose_negatives(row, row_of_id, fingerprints, negatives_per_train_row, set(), dirt)
            if negatives:
                train.append({"number": number, "negatives": negatives})
                taken |= {fingerprints[number], fingerprints[negatives[0]]}
            else:
                dirt["row without a usable negative"] += 1
        else:
            avoided = taken if distinct_eval_pages else set()
            negatives = choose_negatives(row, row_of_id, fingerprints, NEGATIVES_PER_EVAL_ROW, avoided, dirt)
            pages = {fingerprints[number], *(fingerprints[negative] for negative in negatives)}
            if len(negatives) < NEGATIVES_PER_EVAL_ROW or fingerprints[number] in avoided:
                dirt["eval row dropped: a page of it is in train" if distinct_eval_pages else "eval row with too few pages"] += 1
                continue
            if pages & taken:
                dirt["eval row that shares a page with train or another eval row (kept, as published)"] += 1
            evaluation.append({"number": number, "negatives": negatives})
            taken |= pages
    if len(train) < train_rows or len(evaluation) < eval_rows:
        raise ValueError(
            f"the source has {len(train)} clean train rows and {len(evaluation)} clean eval rows, but the profile asks for "
            f"{train_rows} and {eval_rows}: lower train_rows or eval_rows, or give a larger source"
        )
    return train, evaluation
