"""The table of ``docs/phenomena.md``: what is known of real models beside what the profile
``tiny`` shows. :mod:`tools.tables` writes it.
"""

from __future__ import annotations

import statistics
import tomllib

from vdr_helpers.profiles import PROFILES, Profile, assets_folder
from vdr_helpers.published import measured

USUAL = "as notebook 03"


def measured_profile() -> Profile:
    """The profile that was measured; the stored file's first words name it."""
    return PROFILES[measured("phenomena")["what"].partition(",")[0].removeprefix("profile ")]


def known() -> dict[str, dict]:
    """The rows of ``assets/phenomena.toml`` by name."""
    return tomllib.loads((assets_folder() / "phenomena.toml").read_text(encoding="utf-8"))


def over_seeds(runs: dict[str, dict], name: str, *path: str) -> list[float]:
    """One score of every seed of a run."""
    values = []
    for seed in sorted(runs[name]):
        value = runs[name][seed]
        for key in path:
            value = value[key]
        values.append(value)
    return values


def gain(runs: dict[str, dict], better: str, worse: str) -> float:
    """Mean difference of NDCG@10 over the seeds that both runs have."""
    both = sorted(set(runs[better]) & set(runs[worse]))
    score = [[runs[name][seed]["ndcg_at_10"]["all"] for seed in both] for name in (better, worse)]
    return statistics.mean(score[0]) - statistics.mean(score[1])


def spread(runs: dict[str, dict], *names: str) -> float:
    """The largest difference between two seeds of one run."""
    scores = [over_seeds(runs, name, "ndcg_at_10", "all") for name in names]
    return max(max(values) - min(values) for values in scores)


def of_own_documents(found: dict) -> dict[str, float]:
    """Split and forgetting, from ``benchmarks.own_documents``: means over seeds, and over both
    kinds of batches where the name holds neither.
    """
    start, runs = found["start"], found["runs"]

    def gained(task: str, mixed: int, batches: str = "document") -> float:
        scores = [
            run[task]
            for run in runs
            if run["old rows per own row"] == mixed and batches in run["batches of"]
        ]
        return statistics.mean(scores) - start[task]

    unseen, wrong = gained("unseen documents", 0), gained("wrong split", 0)
    return {
        "unseen_several": gained("unseen documents", 0, "several"),
        "unseen_one": gained("unseen documents", 0, "one"),
        "wrong_several": gained("wrong split", 0, "several"),
        "wrong_one": gained("wrong split", 0, "one"),
        "pretended": wrong - unseen,
        "forgotten": gained("old pages", 0),
        "replayed": gained("old pages", 1),
        "replay_recovers": gained("old pages", 1) - gained("old pages", 0),
    }


def of_reranker(found: dict) -> dict[str, float]:
    """``benchmarks.rerank`` from the pre-trained reranker with the profile's rows: NDCG@10 before
    and after, means over seeds, behind the first stage of all dimensions and behind that of the
    fewest; ``rerank_weak_low``: the lowest end of an interval of the gain.
    """
    usual = "pretrained", PROFILES["tiny"].reranker_rows
    runs = [run for run in found["runs"] if (run["start"], run["rows"]) == usual]
    widths = sorted(map(int, runs[0]["first_stages"]))
    weak, strong = ([run["first_stages"][str(width)] for run in runs] for width in widths)

    def over_runs(stages: list[dict], name: str) -> float:
        return statistics.mean(stage[name] for stage in stages)

    gains = [stage["sum_minus_embedding"] for stage in strong]
    return {
        "rerank_strong_before": over_runs(strong, "embedding"),
        "rerank_strong": over_runs(strong, "sum_minus_embedding"),
        "rerank_strong_least": min(gains),
        "rerank_strong_most": max(gains),
        "rerank_weak_before": over_runs(weak, "embedding"),
        "rerank_weak_after": over_runs(weak, "sum"),
        "rerank_weak": over_runs(weak, "sum_minus_embedding"),
        "rerank_weak_low": min(stage["low"] for stage in weak),
    }


def quantities(found: dict) -> dict[str, float | str]:
    """What the texts and bands of ``assets/phenomena.toml`` name, from
    ``assets/measured/phenomena.json``; means over seeds.
    """
    runs, base = found["runs"], found["base"]
    usual = runs[USUAL]

    def tuned(*path: str) -> float:
        return statistics.mean(over_seeds(runs, USUAL, *path))

    dims = list(base["by_dimensions"])
    first, last = dims[0], dims[-1]

    def kept(scores: dict, width: str = last) -> float:
        return scores["by_dimensions"][width] / scores["by_dimensions"][first]

    seed = min(usual)
    text, whole = (
        over_seeds(runs, "the page's text instead of its picture", "ndcg_at_10", "all"),
        tuned("ndcg_at_10", "all"),
    )
    bm25 = found["text_search"]["ndcg_at_10"]
    noise = spread(runs, USUAL, "without the hard negative")
    alone, small = "without the hard negative", "batches of 16, four a step"
    batch_noise = spread(runs, alone, f"{alone}, {small}")
    scans = usual[seed]["resolution"]
    shares = [name for name in scans if float(name) >= 0.2]
    result = {
        "base": base["ndcg_at_10"]["all"],
        "tuned": whole,
        "first": tuned("accuracy_at_1"),
        "in_ten": tuned("recall_at_10"),
        "bm25": bm25["all"],
        "bm25_quoted": bm25["quoted"],
        "bm25_shape": bm25["shape"],
        "text": statistics.mean(text),
        "over_text": whole - max(bm25["all"], statistics.mean(text)),
        "hard_negative": gain(runs, USUAL, "without the hard negative"),
        "four": gain(runs, "four hard negatives", USUAL),
        "spread": noise,
        "batch_spread": batch_noise,
        "false_negatives": gain(runs, "false negatives planted", USUAL),
        "batch": gain(runs, alone, f"{alone}, {small}"),
        "batch_negative": gain(runs, USUAL, small),
        "batch_steps": gain(runs, USUAL, "batches of 16"),
        "kept_tuned": statistics.mean(kept(run) for run in usual.values()),
        "kept_16": statistics.mean(kept(run, "16") for run in usual.values()),
        "kept_plain": kept(runs["without MatryoshkaLoss"][seed]),
        "kept_base": kept(base),
        "int8": tuned("int8") - whole,
        "binary": tuned("binary") - whole,
        "scans": ", ".join(f"{scans[share]:.3f}" for share in shares),
        "scan_rise": scans["0.3"] - scans["0.2"],
        "scan_end": scans["1.0"] - scans["0.4"],
        "paraphrase_base": base["ndcg_at_10"]["quoted"] - base["ndcg_at_10"]["paraphrased"],
        "paraphrase_tuned": tuned("ndcg_at_10", "quoted") - tuned("ndcg_at_10", "paraphrased"),
        "german_base": base["the_same_in_english"] - base["german"],
        "german_tuned": tuned("the_same_in_english") - tuned("german"),
        "fused_base": base["fused_with_bm25"],
        "fused": tuned("fused_with_bm25"),
    }
    result |= of_own_documents(measured("own_documents")) | of_reranker(measured("rerank"))
    late = found["late_interaction"]
    lora = gain(runs, "LoRA of rank 4, ten times the learning rate", USUAL)
    lora_32 = gain(runs, "LoRA, ten times the learning rate", USUAL)
    gained = whole - result["base"]
    return result | {
        "late": late["ndcg_at_10"],
        "late_minus_one": late["ndcg_at_10"] - whole,
        "pooled": late["pooled"]["3"] / late["pooled"]["1"],
        "lora": 1 + lora / gained,
        "lora_32": 1 + lora_32 / gained,
        "hard_negative_over_spread": result["hard_negative"] - noise,
        "batch_over_spread": result["batch"] - batch_noise,
        "kept_difference": result["kept_tuned"] - result["kept_base"],
        "plain_difference": kept(usual[seed]) - result["kept_plain"],
        "paraphrase_closes": result["paraphrase_base"] - result["paraphrase_tuned"],
        "german_closes": result["german_base"] - result["german_tuned"],
        "fusion_over_better": result["fused"] - max(whole, bm25["all"]),
    }


def shown(row: dict, found: dict[str, float | str]) -> bool:
    """Whether every band of a row holds. Raises ``KeyError`` for a row that has none."""
    return all(low <= found[name] <= high for name, (low, high) in row["bands"].items())


def verdict(row: dict, found: dict[str, float | str]) -> str:
    """``yes``, ``no`` with its reason, or ``not measured``. Raises ``ValueError`` where a reason is
    missing.
    """
    if "bands" not in row:
        return "not measured"
    if not shown(row, found) and "why" not in row:
        raise ValueError(f"{row['title']} does not show: write in assets/phenomena.toml why")
    return "yes" if shown(row, found) else f"**no**: {row['why'].format(**found)}"


def rows() -> list[list[str]]:
    """The cells of the table, a list per phenomenon."""
    found = quantities(measured("phenomena"))
    return [
        [
            row["title"],
            f"{row['known']} ([source]({row['source']}))",
            row["measured"].format(**found),
            verdict(row, found),
        ]
        for row in known().values()
    ]


def counts() -> dict[str, int]:
    """How many phenomena show, do not show, and were not measured."""
    found = quantities(measured("phenomena"))
    said = [verdict(row, found).partition(":")[0].strip("*") for row in known().values()]
    return {word: said.count(word) for word in ("yes", "no", "not measured")}
