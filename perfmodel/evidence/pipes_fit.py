"""Fit the share of its pipes that an SM keeps busy, to the one measured kernel that its instructions bind.

SpInfer decodes with population counts, which bound it on an A100 whatever the sparsity: the medians of its speed-up
over the 31 shapes of its benchmark, with the split of K that the benchmark asks for, tell how much of the slowest pipe
it uses. 16 tokens and its runs on other cards are held out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_kernel_times, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.kernel_fit import BOXPLOT_GPU, BOXPLOT_SOURCE, BOXPLOT_TOKENS, boxplot_baseline
from perfmodel.evidence.rows import with_residency
from perfmodel.evidence.speedups import boxplots
from perfmodel.kernels import BASELINE, Call, Machine, Shape, kernel_model
from perfmodel.pipeline.parameters import PipelineParameters
from perfmodel.pipeline.simulate import simulate

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

SPLITS_TABLE = "published/spinfer_benchmark_splits.csv"
KERNEL, PARAMETER = "bitmap", "pipe_share"
HELD_OUT_TOKENS, HELD_OUT_TIMES, MOST_TOKENS = (16,), "measured/rtx-a6000/*", 64
WORST_WEIGHT = 0.3  # of the root mean square error beside the mean error, as in `pipeline_fit`


def benchmark_splits() -> pd.DataFrame:
    """Shapes ``m, k`` of SpInfer's benchmark and the ``split_k`` it asks for in each, on every card."""
    return load_table(SPLITS_TABLE)


def boxplot_rows(tokens: tuple[int, ...]) -> pd.DataFrame:
    """The medians of SpInfer's speed-up on an A100, at some numbers of tokens."""
    table = boxplots()
    return table[(table["source"] == BOXPLOT_SOURCE) & (table["kernel"] == KERNEL) & table["n"].isin(tokens)]


@cache
def _dense_s(n: int) -> Array:
    """Seconds of the source's own cuBLAS on each shape of `benchmark_splits`."""
    sizes, model, machine = benchmark_splits(), kernel_model(BASELINE), Machine.of(load_gpu(BOXPLOT_GPU))
    shape = Shape.of(sizes["m"].to_numpy(), sizes["k"].to_numpy(), n, 0.0)
    baseline = boxplot_baseline(with_residency(load_kernel_times()))
    return np.asarray(model.time(machine, shape, baseline, Call(warm=True)).time_s)


def simulated_medians(rows: pd.DataFrame, parameters: PipelineParameters) -> Array:
    """Median speed-up for each of some rows of `boxplots`: the source's own cuBLAS over the simulated SpInfer."""
    cases = list(benchmark_splits()[["m", "k", "split_k"]].itertuples(index=False, name=None))

    def median(case: tuple[int, float]) -> float:
        n, sparsity = case
        options: dict[str, Any] = {"seed": None, "parameters": parameters}
        runs = [simulate(KERNEL, BOXPLOT_GPU, m, k, n, sparsity, split_k=w, **options) for m, k, w in cases]
        return float(np.median(_dense_s(n) / [run.time_s for run in runs]))

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(median, zip(rows["n"], rows["sparsity"], strict=True))))


def fit_pipes(base: PipelineParameters) -> FittedKernel:
    """Fit the share of the pipes that an SM keeps busy; everything else as in ``base``, Flash-LLM's fit."""
    from scipy.optimize import minimize_scalar

    rows = boxplot_rows(BOXPLOT_TOKENS)
    published = rows["speedup_median"].to_numpy(dtype=np.float64)
    limits = next(f.metadata for f in fields(PipelineParameters) if f.name == PARAMETER)

    def error(share: float) -> Array:
        return published / simulated_medians(rows, replace(base, **{PARAMETER: share})) - 1  # of the time

    def cost(share: float) -> float:
        size = np.log1p(error(share))
        return float(np.abs(size).mean() + WORST_WEIGHT * np.sqrt((size**2).mean()))

    bounds = (limits["low"], limits["high"])
    share = float(f"{minimize_scalar(cost, bounds=bounds, options={'xatol': 2e-3}).x:.4g}")
    sizes, shapes = benchmark_splits(), {}
    for name in ("m", "k"):
        shapes[name] = (float(sizes[name].min()), float(sizes[name].max()))
    return FittedKernel(
        parameters={PARAMETER: share},
        fitted_on=f"{BOXPLOT_SOURCE}, medians of {KERNEL}'s speed-up, N = {', '.join(map(str, BOXPLOT_TOKENS))}",
        gpus=[BOXPLOT_GPU],
        rows=len(rows),
        mean_absolute_error=float(f"{np.abs(error(share)).mean():.4g}"),
        evidence_range=shapes | {c: (float(rows[c].min()), float(rows[c].max())) for c in ("n", "sparsity")},
    )


def held_out_errors(parameters: PipelineParameters) -> dict[str, Array]:
    """Relative errors of SpInfer's simulated times that no fit saw, by GPU.

    Of the medians on the A100 at the tokens left out, and of single products on an RTX A6000 at up to 64 tokens, where
    the user who ran them states the split of K.
    """
    rows = boxplot_rows(HELD_OUT_TOKENS)
    medians = rows["speedup_median"].to_numpy() / simulated_medians(rows, parameters) - 1
    times = load_kernel_times(HELD_OUT_TIMES)
    times = times[(times["kernel"] == KERNEL) & (times["n"] <= MOST_TOKENS)]
    predicted = [
        simulate(KERNEL, *case, split_k=int(split_k), seed=None, parameters=parameters).time_s * 1e6
        for *case, split_k in times[["gpu", "m", "k", "n", "sparsity", "split_k"]].itertuples(index=False, name=None)
    ]
    return {BOXPLOT_GPU: medians, str(times["gpu"].iloc[0]): predicted / times["time_us"].to_numpy() - 1}
