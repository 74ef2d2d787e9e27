"""Fit what our decoder's host does between products to steps of SmolLM2 on one machine.

Fitted to `FITTED`; one thread, other kernels and sparsities are held out. Products are
predicted by their stored fits, so that an error of theirs shows here too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_device, load_model, load_table
from perfmodel.catalog.cpu import Cpu
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import described, least_squares_parameters, ranges_of
from perfmodel.serving.cpu_decoding import CpuHostParameters, decode_step_s
from perfmodel.units import MILLI

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

TABLE = "measured/smollm2/decoding.csv"
FITTED = "gpu == 'xeon-emerald-rapids-2c@2' and kernel == 'cpu-bitmap' and (sparsity in (0.5, 0.9) or context > 500)"
COVERED = 0.9
ROBUST_SCALE = 0.05  # relative error from which a row counts less than quadratically


def measured_steps() -> pd.DataFrame:
    """Decoding steps on CPUs: ``gpu, model, kernel, sparsity, batch, context, step_ms, step_err_ms, step_bytes``."""
    return load_table(TABLE)


def predict_steps(rows: pd.DataFrame, host: CpuHostParameters | None = None) -> Array:
    """Seconds predicted for rows of `measured_steps`."""
    return np.array([_predicted_s(row, host) for row in rows.itertuples()])


def _predicted_s(row: tuple[object, ...], host: CpuHostParameters | None) -> float:
    cpu, model = load_device(row.gpu), load_model(row.model)  # type: ignore[attr-defined]
    assert isinstance(cpu, Cpu)
    asked = {name: getattr(row, name) for name in ("kernel", "batch", "context", "sparsity")}
    return decode_step_s(model, cpu, **asked, host=host).total_s


def joined_steps() -> pd.DataFrame:
    """`measured_steps` with ``predicted_ms``, ``error`` (predicted / measured - 1) and ``fitted``.

    And ``tokens_per_s`` and ``predicted_tokens_per_s`` of all sequences together.
    """
    rows = measured_steps()
    rows = rows.assign(predicted_ms=predict_steps(rows) / MILLI, fitted=rows.index.isin(rows.query(FITTED).index))
    rates = {"tokens_per_s": "step_ms", "predicted_tokens_per_s": "predicted_ms"}
    rows = rows.assign(**{name: rows["batch"] / (rows[time] * MILLI) for name, time in rates.items()})
    return rows.assign(error=rows["predicted_ms"] / rows["step_ms"] - 1)


def fit() -> FittedKernel:
    """What ``data/calibration/systems.json`` holds as ``cpu-decoder``.

    Its spread is the size of the log error of the time that nine of ten steps stay below, on rows held out.
    """
    rows = measured_steps()
    chosen = rows.query(FITTED).reset_index(drop=True)

    def errors(host: CpuHostParameters) -> Array:
        return _log_errors(chosen, host)

    best = least_squares_parameters(CpuHostParameters(), errors, robust_scale=ROBUST_SCALE)
    text = f"{', '.join(sorted(rows['source'].unique()))}: {FITTED}"
    apart = float(np.quantile(np.abs(_log_errors(rows.query(f"not ({FITTED})"), best)), COVERED))
    ranges = ranges_of(chosen, ("batch", "context"))
    return described(asdict(best), errors(best), chosen, text, ranges, {"steps": float(f"{apart:.4g}")})


def _log_errors(rows: pd.DataFrame, host: CpuHostParameters) -> Array:
    return np.log(predict_steps(rows, host) / (rows["step_ms"].to_numpy() * MILLI))
