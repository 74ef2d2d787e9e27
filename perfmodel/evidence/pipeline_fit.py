"""Fit the simulator's free parameters to the stated part of the evidence.

One A100 is fitted: Flash-LLM gives the on-chip costs, cuBLAS nothing but what a launch takes. That depends on how the
host launches, so it is fitted once for kernels queued in a stream (the paper's figure) and once for kernels replayed
from a graph (dense products inside serving stacks). How much of its pipes an SM keeps busy SpInfer tells (`pipes_fit`).
The rate of device memory is that of the closed forms. Every other row and GPU is held out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.pipes_fit import fit_pipes
from perfmodel.evidence.rows import flush_s, machines, shapes_of, with_residency
from perfmodel.kernels import kernel_model
from perfmodel.pipeline.parameters import PIPES, PipelineParameters
from perfmodel.pipeline.simulate import simulate

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

FIT_GPU = "a100-80gb"
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

    def select(self, evidence: pd.DataFrame) -> pd.DataFrame:
        """Rows the fit may see; none whose weights the L2 holds, which the simulator does not model."""
        chosen = (evidence["kernel"] == self.kernel) & (evidence["gpu"] == FIT_GPU) & (evidence["status"] == "value")
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
    Fit("cublas-graph", "cublas", ("launch_s",), ("aiconfigurator-gemm",), (1, 64), every=5),
    Fit("flash-llm", "flash-llm", ON_CHIP, PAPER, (8, 32)),
)


def predicted_us(kernel: str, rows: pd.DataFrame, parameters: PipelineParameters) -> Array:
    """Simulated microseconds of evidence rows as their harness times them; the expected non-zeros in every tile.

    K is shared as a row states, else as the kernel chooses.
    """
    times = [
        simulate(kernel, *case, split_k=asked_split(split_k), seed=None, parameters=parameters).time_s
        for *case, split_k in rows[["gpu", "m", "k", "n", "sparsity", "split_k"]].itertuples(index=False, name=None)
    ]
    shape = shapes_of(rows)
    read_bytes = kernel_model(kernel).format.bytes_of(shape.m, shape.k, shape.sparsity)
    return (np.array(times) + flush_s(rows, machines(rows), read_bytes)) * 1e6


def asked_split(stated: float) -> int | None:
    """``split_k`` of an evidence row for `simulate`; None where the row states none."""
    return None if math.isnan(stated) else int(stated)


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
        gpus=[FIT_GPU],
        rows=len(rows),
        mean_absolute_error=float(f"{np.abs(error).mean():.4g}"),
        evidence_range={c: (float(rows[c].min()), float(rows[c].max())) for c in ("m", "k", "n", "sparsity")},
    )


def fit_all(evidence: pd.DataFrame) -> dict[str, FittedKernel]:
    """Fit all plans, then the share of the pipes; about five minutes.

    Flash-LLM, whose dependent instructions leave the pipes idle, is fitted at that share's first guess: its error
    hardly depends on it.
    """
    fits = {plan.name: fit(plan, evidence, PipelineParameters()) for plan in FITS}
    return {name: record for name, (_, record) in fits.items()} | {PIPES: fit_pipes(fits["flash-llm"][0])}
