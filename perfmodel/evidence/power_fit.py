"""Fit the power of a board to what boards drew while they served, and judge it on other boards.

Fitted: every counted row on an H100, of two years of vLLM; one kept its host ahead, the other spent most of the time
waiting for it, so memory and Tensor Cores are busy from a few percent of the time to nearly all of it. Every other
board is held out. Rows of models that the catalogue lacks, of single phases, and means over whole jobs have no count:
they are shown.

How busy a board was is counted, not measured: weights and cached keys and values a step over the step's time, and two
FLOP a weight and token, prompts included. Where a source keeps its prompts to itself, their length is assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_model, load_table, model_names
from perfmodel.catalog.specs import FittedKernel, Precision
from perfmodel.evidence.fitting import described, least_squares_parameters, ranges_of
from perfmodel.serving.energy import (
    AWAY,
    HOME,
    PowerParameters,
    power_share,
    sustained_bytes_per_s,
    sustained_flops_share,
)
from perfmodel.units import BITS_PER_BYTE, FP16_BYTES

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

POWER_TABLE = "published/power.csv"
FIT_GPU = "h100"
ROBUST_SCALE = 0.1  # log error from which a row counts less than quadratically
COVERED = 0.9
# Tokens of a prompt: ML.ENERGY's chats of 2025 repeat the turns before, those of 2024 are first turns. Between 400 and
# 1000 the first hardly changes the error of the fit (5.6 to 6.3 %), but moves `compute` from 1.6 to 0.9.
ASSUMED_PROMPT = {"ml-energy-v3": 600.0, "ml-energy-v2": 250.0}
WHOLE_JOBS = ["inferencex-828"]  # means that hold the start and the end of the server
BUSY = ["dram_busy", "tensor_busy"]


def measured_power() -> pd.DataFrame:
    """Rows of `POWER_TABLE` with ``dram_busy``, ``tensor_busy`` (NaN where uncounted), ``share`` and ``fitted``."""
    rows = load_table(POWER_TABLE)
    known = rows["model"].isin(model_names()) & rows[["tokens_per_s", "output_len"]].notna().all(axis="columns")
    known &= ~rows["source"].isin(WHOLE_JOBS)
    rows[BUSY] = np.nan
    rows.loc[known, BUSY] = [busy_shares(row) for row in rows[known].itertuples()]
    return rows.assign(share=rows["power_w"] / rows["limit_w"], fitted=known & (rows["gpu"] == FIT_GPU))


def busy_shares(row: Any) -> tuple[float, float]:
    """Shares of the time that DRAM and Tensor Cores of each GPU were busy; every step reads all experts."""
    shape, gpu = load_model(row.model).shape, load_gpu(row.gpu)
    prompt = ASSUMED_PROMPT[row.source] if np.isnan(row.input_len) else row.input_len
    context = row.batch * (prompt + row.output_len / 2)
    head_bytes = FP16_BYTES * shape.vocab_size * shape.hidden_size
    weight_bytes = row.weight_bits / BITS_PER_BYTE * shape.weights() + head_bytes
    step_bytes = weight_bytes + FP16_BYTES * shape.cached_values * context
    bytes_per_s = step_bytes * row.tokens_per_s / row.batch / row.gpus
    flops_per_s = 2 * shape.weights(active=True) * row.tokens_per_s * (1 + prompt / row.output_len) / row.gpus
    peak = gpu.peak.tensor(Precision.FP16 if row.weight_bits == BITS_PER_BYTE * FP16_BYTES else Precision.FP8)
    if peak is None:
        raise ValueError(f"{row.source}: {gpu.name} has no Tensor Cores of {row.weight_bits} bits")
    return bytes_per_s / sustained_bytes_per_s(gpu), flops_per_s / (sustained_flops_share(gpu) * peak)


def log_errors(rows: pd.DataFrame, parameters: PowerParameters) -> Array:
    """Log of predicted over measured power."""
    return np.asarray(np.log(power_share(rows["dram_busy"], rows["tensor_busy"], parameters) / rows["share"]))


def fit() -> FittedKernel:
    """Parameters from the rows on `FIT_GPU`; spreads from what they did not see. Also what the calibration stores."""
    rows = measured_power()
    counted = rows[rows["dram_busy"].notna()]
    fitted, away = counted[counted["fitted"]], counted[~counted["fitted"]]
    best = _best(fitted)
    home = [log_errors(group, _best(fitted.drop(group.index))) for _, group in fitted.groupby(["source", "model"])]
    others = [log_errors(group, best) for _, group in away.groupby(["source", "gpu", "model"])]
    sources = ", ".join(sorted(fitted["source"].unique()))
    parameters = {name: getattr(best, name) for name in ("awake", "memory", "compute")}
    text = f"{sources}: {', '.join(sorted(fitted['model'].unique()))} on {FIT_GPU}"
    ranges = {
        name: (float(f"{low:.4g}"), float(f"{high:.4g}")) for name, (low, high) in ranges_of(fitted, BUSY).items()
    }
    spread = {HOME: _half_width(home), AWAY: _half_width(others)}
    return described(parameters, log_errors(fitted, best), fitted, text, ranges, spread)


def _best(rows: pd.DataFrame) -> PowerParameters:
    return least_squares_parameters(PowerParameters(), lambda p: log_errors(rows, p), robust_scale=ROBUST_SCALE)


def _half_width(groups: list[Array]) -> float:
    """Size of log error that holds `COVERED` of one more group's rows, as conformal prediction has it."""
    size = np.abs(np.concatenate(groups))
    weight = np.concatenate([np.full(len(group), 1 / len(group)) for group in groups])
    order = np.argsort(size)
    reached = np.cumsum(weight[order]) / weight.sum()
    level = min(1.0, COVERED * (len(groups) + 1) / len(groups))
    return float(f"{size[order][np.searchsorted(reached, level - 1e-9)]:.4g}")
