"""Fit the few free parameters of each kernel model to a stated part of the evidence.

The rule of who is fitted and who is held out stands in one place, `FIT_RULES`. A fit minimises the relative error of
absolute times (never of speed-ups, whose baselines differ by 15 % between sources) with a robust loss. Rows that only
bound the time count when the prediction breaks the bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration, load_gpu
from perfmodel.kernels import KERNELS, KernelModel, Machine, Shape, kernel_model
from perfmodel.specs import FittedKernel

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

ROBUST_SCALE = 0.03  # relative error from which a row counts less than quadratically
FITTED_STATUS = ("value", "rough", "lower_bound")


@dataclass(frozen=True)
class FitRule:
    """Which evidence rows may be fitted, by source, GPU, tokens N and kernel; and their weight together."""

    source: str
    gpu: str
    tokens: tuple[int, ...] | None
    weight: float
    kernels: tuple[str, ...] | None = None

    def select(self, evidence: pd.DataFrame) -> NDArray[np.bool_]:
        """Boolean mask of the rows this rule covers."""
        chosen = (evidence["source"] == self.source) & (evidence["gpu"] == self.gpu)
        chosen &= evidence["status"].isin(FITTED_STATUS)
        if self.tokens is not None:
            chosen &= evidence["n"].isin(self.tokens)
        if self.kernels is not None:
            chosen &= evidence["kernel"].isin(self.kernels)
        return chosen.to_numpy()

    def describe(self) -> str:
        """Plain words for the stored calibration."""
        return f"{self.source} on {self.gpu}, " + (
            f"N = {', '.join(map(str, self.tokens))}" if self.tokens else "all N"
        )


FIT_RULES = (
    FitRule("flash-llm-fig9", "a100-80gb", (8, 32), 1.0),
    FitRule("flash-llm-sweep", "a100-80gb", None, 0.2),
    # Fig 9 never leaves the memory-bound regime; the Tensor-Core efficiency needs rows with many tokens.
    FitRule("aiconfigurator-gemm", "a100-80gb", (256, 512), 0.3, kernels=("cublas",)),
    # cuSPARSE takes another path for a single token, which no A100 row shows.
    FitRule("macko-bench", "rtx-3090", (1,), 0.3, kernels=("cusparse",)),
)


def fitted_rows(evidence: pd.DataFrame) -> NDArray[np.bool_]:
    """Mask of the rows that took part in a fit; every other row is held out."""
    chosen = np.zeros(len(evidence), dtype=bool)
    for rule in FIT_RULES:
        chosen |= rule.select(evidence)
    return chosen


def predict_rows(model: KernelModel, rows: pd.DataFrame, parameters: Any) -> Array:
    """Seconds predicted for evidence rows, all on GPUs of the catalogue."""
    names = list(rows["gpu"].unique())
    machine = Machine.stack([load_gpu(name) for name in names], rows["gpu"].map({g: i for i, g in enumerate(names)}))
    shape = Shape.of(*(rows[column].to_numpy(dtype=np.float64) for column in ("m", "k", "n", "sparsity")))
    return model.time(machine, shape, parameters).time_s


def row_weights(rows: pd.DataFrame) -> Array:
    """Weight of each fitted row: the rule's weight shared evenly among its rows."""
    weights = np.zeros(len(rows))
    for rule in FIT_RULES:
        chosen = rule.select(rows)
        if chosen.any():
            weights[chosen] = rule.weight / chosen.sum()
    return weights


def residuals(predicted_s: Array, rows: pd.DataFrame) -> Array:
    """Log ratio of prediction to evidence; zero where evidence only bounds the time and the bound holds."""
    error = np.log(predicted_s * 1e6 / rows["time_us"].to_numpy(dtype=np.float64))
    bounded = (rows["status"] == "lower_bound").to_numpy()
    return np.where(bounded, np.minimum(error, 0.0), error)


def fit(name: str, evidence: pd.DataFrame) -> FittedKernel:
    """Fit one kernel model to the fitted rows of ``evidence``.

    Raises
    ------
    ValueError
        If the evidence holds no row to fit the kernel on.
    """
    from scipy.optimize import least_squares

    model = kernel_model(name)
    rows = evidence[fitted_rows(evidence) & (evidence["kernel"] == name).to_numpy()]
    if rows.empty:
        raise ValueError(f"no evidence to fit kernel {name!r} on")
    frees = fields(model.Parameters)
    low, high = (np.array([f.metadata[end] for f in frees]) for end in ("low", "high"))
    scale = np.sqrt(row_weights(rows) * len(rows))

    def weighted(unit: Array) -> Array:
        parameters = model.Parameters(*(low + unit * (high - low)))
        return scale * residuals(predict_rows(model, rows, parameters), rows)

    start = (np.array([f.default for f in frees]) - low) / (high - low)
    solution = least_squares(weighted, start, bounds=(0, 1), loss="soft_l1", f_scale=ROBUST_SCALE, x_scale="jac")
    values = low + solution.x * (high - low)
    parameters = {f.name: float(f"{v:.6g}") for f, v in zip(frees, values, strict=True)}
    error = residuals(predict_rows(model, rows, model.Parameters(**parameters)), rows)
    return FittedKernel(
        parameters=parameters,
        fitted_on="; ".join(rule.describe() for rule in FIT_RULES if rule.select(rows).any()),
        gpus=sorted(rows["gpu"].unique()),
        rows=len(rows),
        mean_absolute_error=float(f"{np.mean(np.abs(np.expm1(error))):.4g}"),
        evidence_range={
            column: (float(rows[column].min()), float(rows[column].max())) for column in ("m", "k", "n", "sparsity")
        },
    )


def fit_all(evidence: pd.DataFrame) -> dict[str, FittedKernel]:
    """Fit every kernel model of the registry."""
    return {name: fit(name, evidence) for name in KERNELS}


def calibrated(name: str, calibration: Mapping[str, FittedKernel] | None = None) -> Any:
    """Parameters of kernel ``name`` as its model takes them, from the stored calibration unless one is given."""
    stored = load_calibration() if calibration is None else calibration
    return kernel_model(name).Parameters(**stored[name].parameters)


def extrapolated(
    fitted: FittedKernel, gpu: str, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike
) -> NDArray[np.bool_]:
    """True where a prediction leaves the evidence the kernel was fitted on: another GPU, or outside a range.

    Tokens below the fitted range count as inside it when the kernel pads them to it (8 tokens and fewer cost the
    same); sparsity means nothing to a kernel that was fitted at one sparsity only (the dense one).
    """
    values = dict(zip(("m", "k", "n", "sparsity"), (m, k, n, sparsity), strict=True))
    outside = np.asarray(gpu not in fitted.gpus)
    for column, value in values.items():
        low, high = fitted.evidence_range[column]
        if column == "sparsity" and low == high:
            continue
        array = np.asarray(value, dtype=np.float64)
        outside = outside | (array < low) | (array > high)
    return outside
