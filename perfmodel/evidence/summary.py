"""The verdict on every model in a line each: what `lscd validate`, the report and notebook 07 say first.

All of it is on rows that no fit saw. Rows that time the L2 are counted apart, bounds are not counted.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.catalog import load_kernel_times
from perfmodel.evidence.kernel_fit import BOXPLOT_SOURCE, boxplot_baseline
from perfmodel.evidence.rows import devices_in_words, with_residency
from perfmodel.evidence.run_spread import run_coverage
from perfmodel.evidence.speedups import (
    against_dense,
    break_evens,
    head_to_head,
    is_clear,
    published_speedups,
    same_winner,
)
from perfmodel.evidence.uncertainty import coverage
from perfmodel.kernels import BOUNDED, KERNELS
from perfmodel.kernels.fits import kernel_fits

if TYPE_CHECKING:
    import pandas as pd

ORDER = list(KERNELS)
# Questions of `verdicts`.
MEASURED_ROWS, TWO_FOUR_ROWS = "faster than dense, measured rows", "2:4 faster than dense of its precision"
MILD_ROWS = "4:6, 6:8, 8:10 faster than dense of their precision"
PUBLISHED_SPEEDUPS, PAIRS = "faster than dense, published speed-ups", "which of two kernels of one source"
TWO_FOUR = 0.5  # its sparsity
# The goals this suite set itself for rows it was not fitted on.
GOALS = {"cublas": 0.025, "flash-llm": 0.02, "sparta": 0.055, "sputnik": 0.10}


def held_out(joined: pd.DataFrame) -> pd.DataFrame:
    """Rows of `join_predictions` that no fit saw and that state a time, not a bound."""
    return joined[~joined["fitted"] & ~joined["at_least"]]


def kernel_summary(joined: pd.DataFrame, intervals: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a kernel, on held-out rows; ``intervals`` are `coverage` of the same rows, for who has them already.

    Returns
    -------
    pandas.DataFrame
        Index: kernel. ``rows, devices`` (in words, e.g. "3 GPUs") and ``mean`` (absolute error) of products from device
        memory; ``worst`` (the GPU, or CPU with its threads, with the largest mean error) and ``worst_mean``; ``l2_rows,
        l2_mean`` of those whose weights the L2 holds; ``covered`` (share inside the 90 % interval, from device memory)
        and ``width`` (median of its upper over its lower end), both NaN without a fit.
    """
    import pandas as pd

    rows, intervals = held_out(joined), coverage(joined, kernel_fits()) if intervals is None else intervals
    intervals = intervals[~intervals["where"].str.contains("L2")]
    found = {}
    for kernel, group in rows.groupby("kernel"):
        memory, l2 = group[~group["resident"]], group[group["resident"]]
        by_gpu = memory["error"].abs().groupby(memory["gpu"]).mean()
        mine = intervals[intervals["kernel"] == kernel]
        found[kernel] = {
            "rows": len(memory),
            "devices": devices_in_words(memory["gpu"]),
            "mean": memory["error"].abs().mean(),
            "worst": by_gpu.idxmax() if len(by_gpu) else "",
            "worst_mean": by_gpu.max(),
            "l2_rows": len(l2),
            "l2_mean": l2["error"].abs().mean(),
            "covered": _weighted(mine, "covered"),
            "width": _weighted(mine, "width"),
        }
    return pd.DataFrame.from_dict(found, orient="index").reindex([name for name in ORDER if name in found])


def _weighted(intervals: pd.DataFrame, column: str) -> float:
    if intervals.empty:
        return float("nan")
    return float(np.average(intervals[column], weights=intervals["rows"]))


def run_summary(runs: pd.DataFrame, intervals: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a source of whole runs, on those of `judged_runs` that no fit saw; ``intervals``: their `run_coverage`.

    Returns
    -------
    pandas.DataFrame
        Index: source. ``rows, mean`` (absolute error of the time per token), ``worst`` (model, GPUs, system) and
        ``worst_mean``; ``covered, width`` of `run_coverage`.
    """
    import pandas as pd

    found, intervals = {}, run_coverage(runs) if intervals is None else intervals
    for source, group in runs[~runs["fitted"]].groupby("source", sort=False):
        size = group["error"].abs()
        names = group["model"] + " on " + group["gpus"].astype(str) + " x " + group["gpu"] + ", " + group["system"]
        by_case = size.groupby(names).mean()
        found[source] = {
            "rows": len(group),
            "mean": size.mean(),
            "worst": by_case.idxmax(),
            "worst_mean": by_case.max(),
            "covered": _weighted(intervals[intervals["source"] == source], "covered"),
            "width": _weighted(intervals[intervals["source"] == source], "width"),
        }
    return pd.DataFrame.from_dict(found, orient="index")


@cache
def second_sources() -> pd.DataFrame:
    """`published_speedups`, with the baseline of the one source that printed its own cuBLAS fitted to it; no bounds."""
    evidence = with_residency(load_kernel_times())
    table = published_speedups({BOXPLOT_SOURCE: boxplot_baseline(evidence)})
    return table[~table["kernel"].isin(BOUNDED)].reset_index(drop=True)


def verdicts(joined: pd.DataFrame) -> pd.DataFrame:
    """How often the models name the right winner, where published speeds differ by more than 5 %.

    2:4 and the milder patterns of its family, whose gain is small, are questions of their own.

    Returns
    -------
    pandas.DataFrame
        Index: the question. ``cases`` and ``right`` (share).
    """
    import pandas as pd

    medians = second_sources()
    medians = medians[is_clear(medians["published"])]
    rows = against_dense(joined)
    pattern = rows["kernel"].isin([name for name, model in KERNELS.items() if model.patterns])
    half = rows["sparsity"] == TWO_FOUR
    asked = {
        MEASURED_ROWS: rows[~pattern],
        TWO_FOUR_ROWS: rows[pattern & half],
        MILD_ROWS: rows[pattern & ~half],
        PUBLISHED_SPEEDUPS: medians,
        PAIRS: head_to_head(second_sources()),
    }
    return pd.DataFrame.from_dict(
        {name: {"cases": len(pairs), "right": same_winner(pairs).mean()} for name, pairs in asked.items()},
        orient="index",
    )


def flash_llm_break_evens() -> pd.DataFrame:
    """Sparsity from which Flash-LLM beats cuBLAS, by each source and as predicted: `break_evens` of its kernels."""
    table = break_evens(second_sources())
    return table[table["kernel"].str.startswith("flash-llm")].reset_index(drop=True)
