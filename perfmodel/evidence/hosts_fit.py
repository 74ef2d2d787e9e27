"""How long does an engine's host keep the GPU waiting? Three numbers an engine, each from a stated part of its runs.

A host that was rewritten is fitted three times: to runs of before (batches that start together), to runs of after
(under a constant load, which know nothing of a lone prompt, so that number is the older one's), and to both, each
source weighing alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import described, least_squares_parameters, ranges_of
from perfmodel.evidence.runs import (
    HARNESS_FITS,
    OUTSIDE_FITS,
    SERVED_FITS,
    STATIC_FITS,
    engine_runs,
    evaluated,
    joined_served,
    outside_runs,
    predict_runs,
    served_runs,
    vllm_runs,
)
from perfmodel.serving.rows import RUN_COLUMNS
from perfmodel.serving.systems import ENGINES, NO_HOST, HostParameters

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Errors = Callable[[HostParameters], Array]

ROBUST_SCALE = 0.05  # relative error from which a row counts less than quadratically
BOTH = {"vllm": ("vllm-v0", "vllm-v1"), "tensorrt-llm": ("tensorrt-llm-v0", "tensorrt-llm-v1")}


def fit() -> dict[str, FittedKernel]:
    """Every engine's host; entries of ``data/calibration/systems.json``."""
    static, served = _static_rows(), _served_rows()
    found = {name: _fitted(name, [rows]) for name, rows in static.items()}
    for name, rows in served.items():
        older = next((first for first, second in BOTH.values() if second == name), None)
        prefill_s = found[older].parameters["prefill_s"] if older else found["vllm-v0"].parameters["prefill_s"]
        found[name] = _fitted(name, [rows], prefill_s)
    for name, (first, second) in BOTH.items():
        found[name] = _fitted(name, [static[first], served[second]])
    return {name: found[name] for name in ENGINES if name in found}


def _static_rows() -> dict[str, pd.DataFrame]:
    """Rows that start together, whose cache fits."""
    rules = STATIC_FITS | OUTSIDE_FITS | HARNESS_FITS
    tables = {
        **dict.fromkeys(STATIC_FITS, engine_runs()),
        **dict.fromkeys(OUTSIDE_FITS, outside_runs()),
        **dict.fromkeys(HARNESS_FITS, vllm_runs()),
    }
    return {name: _that_fit(table.query(rules[name]).reset_index(drop=True)) for name, table in tables.items()}


def _served_rows() -> dict[str, pd.DataFrame]:
    runs = served_runs()
    return {name: runs.query(rule).reset_index(drop=True) for name, rule in SERVED_FITS.items()}


def _that_fit(runs: pd.DataFrame) -> pd.DataFrame:
    fits = np.zeros(len(runs), dtype=bool)
    for place, run in evaluated(runs, host=NO_HOST):
        fits[place] = np.broadcast_to(run.memory.fits, run.total_s.shape)
    return runs[fits].reset_index(drop=True)


def _errors(rows: pd.DataFrame) -> Errors:
    """Log errors of the time, by the host."""
    if "tpot_ms" in rows:
        return lambda host: np.log1p(joined_served(host, rows)["error"].to_numpy())
    measured = rows["tokens_per_gpu_s"].to_numpy()
    return lambda host: np.log(measured / predict_runs(rows, host=host))


def _fitted(name: str, tables: list[pd.DataFrame], prefill_s: float | None = None) -> FittedKernel:
    import pandas as pd

    of_each = [_errors(rows) for rows in tables]
    weights = [np.sqrt(1 / len(rows)) * np.ones(len(rows)) for rows in tables]
    scale = np.sqrt(max(map(len, tables)))  # the largest table's rows weigh 1

    def errors(host: HostParameters) -> Array:
        return np.concatenate([scale * w * error(host) for w, error in zip(weights, of_each, strict=True)])

    start = HostParameters() if prefill_s is None else HostParameters(prefill_s=prefill_s)
    fixed = () if prefill_s is None else ("prefill_s",)
    best = least_squares_parameters(start, errors, robust_scale=ROBUST_SCALE, fixed=fixed)
    text = "; ".join(f"{rows['source'].iloc[0]}: {len(rows)} rows" for rows in tables)
    # Users of a served run count as its batch; none of them was pruned.
    rows = pd.concat([table.rename(columns={"concurrency": "batch"}) for table in tables], ignore_index=True)
    rows = rows.reindex(columns=["gpu", *RUN_COLUMNS]).fillna({"sparsity": 0.0})
    errors_there = np.concatenate([error(best) for error in of_each])
    return described(asdict(best), errors_there, rows, text, ranges_of(rows, RUN_COLUMNS))
