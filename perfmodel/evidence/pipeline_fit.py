"""Fit the simulator's free parameters to the stated part of the evidence.

Flash-LLM on an A100 gives the on-chip costs, cuBLAS nothing but what a launch takes. That depends on how the host
launches, so it is fitted once for kernels queued in a stream (the paper's figure) and once for kernels replayed from a
graph (dense products inside serving stacks, on an A100 and an H100). How much of its pipes an SM keeps busy is fitted
to SpInfer, which population counts bound on an A100: the medians of its speed-up over 31 shapes, with the split of K
that its benchmark asks for. The rate of device memory is that of the closed forms. Every other row and GPU is held out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_kernel_times, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.kernel_fit import BOXPLOT_GPU, BOXPLOT_SOURCE, boxplot_baseline
from perfmodel.evidence.rows import flush_s, machines, shapes_of, with_residency
from perfmodel.evidence.speedups import boxplots
from perfmodel.kernels import BASELINE, Call, Machine, Shape, kernel_model
from perfmodel.pipeline.parameters import PIPES, PipelineParameters
from perfmodel.pipeline.simulate import simulate

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

FIT_GPU = "a100-80gb"
SPLITS_TABLE = "published/spinfer_benchmark_splits.csv"
PIPES_KERNEL, PIPES_PARAMETER = "bitmap", "pipe_share"
MAX_EVALUATIONS = 160  # of one search
# Of a parameter's range; a simplex that shrank too early starts afresh where it stopped.
FIRST_STEPS = (0.12, -0.12, 0.12)
WORST_WEIGHT = 0.3  # of the root mean square error beside the mean error, so that no row is given up


@dataclass(frozen=True)
class Fit:
    """One fit: which parameters of which kernel, on which evidence."""

    name: str
    kernel: str
    free: tuple[str, ...]
    source: tuple[str, ...]
    tokens: tuple[int, ...]
    every: int = 1
    gpus: tuple[str, ...] = (FIT_GPU,)

    def select(self, evidence: pd.DataFrame) -> pd.DataFrame:
        """Rows the fit may see; none whose weights the L2 holds, which the simulator does not model."""
        chosen = (evidence["kernel"] == self.kernel) & evidence["gpu"].isin(self.gpus) & (evidence["status"] == "value")
        chosen &= evidence["source"].isin(self.source) & evidence["n"].isin(self.tokens)
        rows = with_residency(evidence[chosen])
        return rows[~rows["resident"]].iloc[:: self.every]

    def describe(self) -> str:
        """Plain words for the stored calibration."""
        words = f"{', '.join(self.source)}, N = {', '.join(map(str, self.tokens))}"
        return words + (f", every {self.every}th row" if self.every > 1 else "")


PAPER = ("flash-llm-fig9", "flash-llm-sweep")
ON_CHIP = ("fill_bytes_per_cycle", "issue_interval_cycles", "barrier_cycles", "block_cycles", "launch_s")
FITS = (
    Fit("cublas", "cublas", ("launch_s",), PAPER, (8, 32)),
    Fit("cublas-graph", "cublas", ("launch_s",), ("aiconfigurator-gemm",), (1, 64), 10, (FIT_GPU, "h100")),
    Fit("flash-llm", "flash-llm", ON_CHIP, PAPER, (8, 32)),
)


def predicted_us(kernel: str, rows: pd.DataFrame, parameters: PipelineParameters) -> Array:
    """Simulated microseconds of evidence rows as their harness times them; the expected non-zeros in every tile."""
    cases = rows[["gpu", "m", "k", "n", "sparsity"]].itertuples(index=False, name=None)
    times = [simulate(kernel, *case, seed=None, parameters=parameters).time_s for case in cases]
    shape = shapes_of(rows)
    read_bytes = kernel_model(kernel).format.bytes_of(shape.m, shape.k, shape.sparsity)
    return (np.array(times) + flush_s(rows, machines(rows), read_bytes)) * 1e6


def fit(plan: Fit, evidence: pd.DataFrame, base: PipelineParameters) -> tuple[PipelineParameters, FittedKernel]:
    """Fit one plan by the downhill simplex, starting from ``base``.

    Raises
    ------
    ValueError
        If the evidence holds no row for it.
    """
    from scipy.optimize import minimize

    rows = plan.select(evidence)
    if rows.empty:
        raise ValueError(f"no evidence to fit {plan.name!r} on")
    measured = rows["time_us"].to_numpy(dtype=np.float64)
    limits = {f.name: (f.metadata["low"], f.metadata["high"]) for f in fields(PipelineParameters)}
    low, high = np.array([limits[name] for name in plan.free]).T

    def at(unit: Array) -> PipelineParameters:
        values = low + np.clip(unit, 0, 1) * (high - low)
        return replace(base, **{name: float(f"{v:.5g}") for name, v in zip(plan.free, values, strict=True)})

    def cost(unit: Array) -> float:
        error = np.log(predicted_us(plan.kernel, rows, at(unit)) / measured)
        outside = float(np.abs(unit - np.clip(unit, 0, 1)).sum())
        return float(np.abs(error).mean() + WORST_WEIGHT * np.sqrt((error**2).mean())) + outside

    unit: Array = (np.array([getattr(base, name) for name in plan.free]) - low) / (high - low)
    for step in FIRST_STEPS:
        inside = (unit + step >= 0) & (unit + step <= 1)
        steps = np.diag(np.where(inside, step, -step))
        simplex = np.vstack([unit, unit + steps])
        found = minimize(
            cost,
            unit,
            method="Nelder-Mead",
            options={"maxfev": MAX_EVALUATIONS, "initial_simplex": simplex, "xatol": 1e-3},
        )
        unit = np.clip(found.x, 0, 1)
    best = at(unit)
    error = predicted_us(plan.kernel, rows, best) / measured - 1
    return best, FittedKernel(
        parameters={name: getattr(best, name) for name in plan.free},
        fitted_on=plan.describe(),
        gpus=list(plan.gpus),
        rows=len(rows),
        mean_absolute_error=float(f"{np.abs(error).mean():.4g}"),
        evidence_range={c: (float(rows[c].min()), float(rows[c].max())) for c in ("m", "k", "n", "sparsity")},
    )


def benchmark_splits() -> pd.DataFrame:
    """Shapes ``m, k`` of SpInfer's benchmark and the ``split_k`` it asks for in each, on every card."""
    return load_table(SPLITS_TABLE)


def boxplot_rows() -> pd.DataFrame:
    """The medians of SpInfer's speed-up on an A100 that the share of the pipes is fitted to."""
    table = boxplots()
    return table[(table["source"] == BOXPLOT_SOURCE) & (table["kernel"] == PIPES_KERNEL)]


def simulated_medians(rows: pd.DataFrame, parameters: PipelineParameters) -> Array:
    """Median speed-up for each of some rows of `boxplots`: the source's own cuBLAS over the simulated SpInfer."""
    splits, dense = benchmark_splits(), kernel_model(BASELINE)
    baseline, machine = boxplot_baseline(with_residency(load_kernel_times())), Machine.of(load_gpu(BOXPLOT_GPU))
    cases = list(splits[["m", "k", "split_k"]].itertuples(index=False, name=None))

    def median(case: tuple[int, float]) -> float:
        n, sparsity = case
        shape = Shape.of(splits["m"].to_numpy(), splits["k"].to_numpy(), n, 0.0)
        dense_s = dense.time(machine, shape, baseline, Call(warm=True)).time_s
        options: dict[str, Any] = {"seed": None, "parameters": parameters}
        runs = [simulate(PIPES_KERNEL, BOXPLOT_GPU, m, k, n, sparsity, split_k=w, **options) for m, k, w in cases]
        return float(np.median(dense_s / [run.time_s for run in runs]))

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(median, zip(rows["n"], rows["sparsity"], strict=True))))


def fit_pipes(base: PipelineParameters) -> FittedKernel:
    """Fit the share of the pipes that an SM keeps busy; everything else as in ``base``, Flash-LLM's fit."""
    from scipy.optimize import minimize_scalar

    rows = boxplot_rows()
    published = rows["speedup_median"].to_numpy(dtype=np.float64)
    limits = next(f.metadata for f in fields(PipelineParameters) if f.name == PIPES_PARAMETER)

    def error(share: float) -> Array:
        return published / simulated_medians(rows, replace(base, **{PIPES_PARAMETER: share})) - 1  # of the time

    def cost(share: float) -> float:
        size = np.log1p(error(share))
        return float(np.abs(size).mean() + WORST_WEIGHT * np.sqrt((size**2).mean()))

    bounds = (limits["low"], limits["high"])
    share = float(f"{minimize_scalar(cost, bounds=bounds, options={'xatol': 2e-3}).x:.4g}")
    sizes, shapes = benchmark_splits(), {}
    for name in ("m", "k"):
        shapes[name] = (float(sizes[name].min()), float(sizes[name].max()))
    return FittedKernel(
        parameters={PIPES_PARAMETER: share},
        fitted_on=f"{BOXPLOT_SOURCE}, medians of {PIPES_KERNEL}'s speed-up over cuBLAS",
        gpus=[BOXPLOT_GPU],
        rows=len(rows),
        mean_absolute_error=float(f"{np.abs(error(share)).mean():.4g}"),
        evidence_range=shapes | {c: (float(rows[c].min()), float(rows[c].max())) for c in ("n", "sparsity")},
    )


def fit_all(evidence: pd.DataFrame) -> dict[str, FittedKernel]:
    """Fit all plans, then the share of the pipes; about five minutes.

    Flash-LLM, whose dependent instructions leave the pipes idle, is fitted at that share's first guess: its error
    hardly depends on it.
    """
    fits = {plan.name: fit(plan, evidence, PipelineParameters()) for plan in FITS}
    return {name: record for name, (_, record) in fits.items()} | {PIPES: fit_pipes(fits["flash-llm"][0])}
