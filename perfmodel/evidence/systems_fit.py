"""Fit the all-reduce model and the few system parameters, each to a stated part of the evidence.

Three steps, none of which sees a run of OPT-30B, OPT-175B or a Llama's throughput:

1. all-reduce: NCCL and TensorRT-LLM times on the A100; the H100 rows are held out;
2. waiting at an all-reduce amid other kernels: the published breakdown of LLaMA-70B on two A100 (Quant-LLM), its
   communication beyond what step 1 says. Both other sources have two all-reduces in every layer, so launches and waits
   cannot be told apart there;
3. the rest: throughput of OPT-66B (paper Fig 15), three systems, 2 and 4 GPUs.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_model, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import least_squares_parameters
from perfmodel.serving.collectives import CALIBRATION_NAME as ALL_REDUCE
from perfmodel.serving.collectives import Algorithm, CollectiveParameters, all_reduce_time
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import CALIBRATION_NAME as SERVING
from perfmodel.serving.systems import SystemParameters
from perfmodel.serving.transformer import ALL_REDUCES_PER_LAYER
from perfmodel.units import FP16_BYTES, MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

FIT_GPU, FIT_MODEL = "a100-80gb", "opt-66b"
ROBUST_SCALE = 0.02  # relative error from which a row counts less than quadratically
ALGORITHMS = {"nccl": Algorithm.NCCL, "tensorrt-llm": Algorithm.CUSTOM}
WAIT_MODEL, WAIT_CATALOGUE_MODEL, WAIT_MIN_BATCH = "llama-70b", "llama-2-70b", 4
RUN_COLUMNS = ("batch", "input_len", "output_len", "sparsity", "gpus")


def published_runs() -> pd.DataFrame:
    """Published throughput of whole models: `data/published/e2e.csv` with ``fitted`` saying which rows are fitted."""
    runs = load_table("published/e2e.csv")
    runs["fitted"] = (runs["model"] == FIT_MODEL) & runs["fits"]
    return runs


def outside_runs() -> pd.DataFrame:
    """Published runs of other systems, which no fit has seen: `data/published/e2e_outside.csv`."""
    return load_table("published/e2e_outside.csv").assign(fitted=False)


def joined_runs() -> pd.DataFrame:
    """All published runs that fitted into memory, with their prediction beside them.

    Returns
    -------
    pandas.DataFrame
        Columns of the tables, ``fitted``, and GPU-microseconds per output token, prefill included: ``time_us`` as
        published, ``predicted_us``, ``error`` (predicted / published - 1, signed).
    """
    import pandas as pd

    runs = pd.concat([published_runs(), outside_runs()], ignore_index=True)
    runs = runs[runs["fits"]].reset_index(drop=True)
    runs["time_us"] = 1 / (runs["tokens_per_gpu_s"] * MICRO)
    runs["predicted_us"] = 1 / (predict_runs(runs) * MICRO)
    runs["error"] = runs["predicted_us"] / runs["time_us"] - 1
    return runs


def measured_all_reduces(gpu: str = FIT_GPU) -> pd.DataFrame:
    """All-reduce times of one GPU's machine: ``library, gpus, message_bytes, time_us``."""
    table = load_table(f"measured/{gpu}/collectives.csv")
    return table[table["operation"] == "all-reduce"].reset_index(drop=True)


def predict_all_reduces(rows: pd.DataFrame, parameters: CollectiveParameters | None = None) -> Array:
    """Seconds predicted for rows of `measured_all_reduces`."""
    seconds = np.empty(len(rows))
    for (gpu, library), group in rows.groupby(["gpu", "library"]):
        times = all_reduce_time(
            load_gpu(str(gpu)), group["gpus"], group["message_bytes"], ALGORITHMS[str(library)], parameters
        )
        seconds[group.index.to_numpy()] = times
    return seconds


def predict_runs(runs: pd.DataFrame, parameters: SystemParameters | None = None) -> Array:
    """Tokens per GPU-second predicted for rows with `RUN_COLUMNS`, ``model``, ``gpu`` and ``system``."""
    rate = np.empty(len(runs))
    place = np.arange(len(runs))
    for (model, gpu, system), index in runs.groupby(["model", "gpu", "system"]).indices.items():
        group = runs.iloc[index]
        columns: dict[str, Any] = {name: group[name].to_numpy() for name in RUN_COLUMNS}
        run = evaluate(str(model), str(gpu), str(system), **columns, parameters=parameters)
        rate[place[index]] = run.tokens_per_gpu_s
    return rate


def fit() -> dict[str, FittedKernel]:
    """All three steps; the result is what ``data/calibration/systems.json`` holds."""
    reduces = measured_all_reduces()
    return {ALL_REDUCE: _fit_all_reduce(reduces), SERVING: _fit_serving()}


def _fit_all_reduce(rows: pd.DataFrame) -> FittedKernel:
    measured_s = rows["time_us"].to_numpy() * MICRO

    def errors(parameters: CollectiveParameters) -> Array:
        return np.log(predict_all_reduces(rows, parameters) / measured_s)

    best = least_squares_parameters(CollectiveParameters(), errors, robust_scale=ROBUST_SCALE)
    ranges = {name: (float(rows[name].min()), float(rows[name].max())) for name in ("gpus", "message_bytes")}
    return _stored(best, errors(best), rows, "aiconfigurator-nccl, aiconfigurator-tensorrt-llm: all-reduce", ranges)


def all_reduce_wait_s() -> float:
    """Median seconds an all-reduce takes in a published LLaMA-70B run beyond its time back to back.

    Rows of at least four sequences: below, the runs of that source take another path (messages under 64 KB).
    """
    table = load_table(f"measured/{FIT_GPU}/quant_llm_e2e_breakdown.csv")
    rows = table[(table["model"] == WAIT_MODEL) & (table["gpus"] > 1) & (table["batch"] >= WAIT_MIN_BATCH)]
    shape = load_model(WAIT_CATALOGUE_MODEL).shape
    count = ALL_REDUCES_PER_LAYER * shape.layers * rows["output_len"]
    alone_s = all_reduce_time(load_gpu(FIT_GPU), rows["gpus"], FP16_BYTES * shape.hidden_size * rows["batch"])
    return float(np.median(rows["communication_s"] / count - alone_s))


def _fit_serving() -> FittedKernel:
    runs = published_runs()
    rows = runs[runs["fitted"]].reset_index(drop=True)
    start = SystemParameters(all_reduce_wait_s=float(f"{all_reduce_wait_s():.4g}"))

    def errors(parameters: SystemParameters) -> Array:
        return np.log(predict_runs(rows, parameters) / rows["tokens_per_gpu_s"].to_numpy())

    best = least_squares_parameters(start, errors, robust_scale=ROBUST_SCALE, fixed=("all_reduce_wait_s",))
    ranges = {name: (float(rows[name].min()), float(rows[name].max())) for name in RUN_COLUMNS}
    ranges["gpus"] = (1.0, ranges["gpus"][1])
    text = (
        f"flash-llm-fig15: {FIT_MODEL}; all_reduce_wait_s: quant-llm-figures, {WAIT_MODEL}, batch >= {WAIT_MIN_BATCH}"
    )
    return _stored(best, errors(best), rows, text, ranges)


def _stored(best: Any, errors: Array, rows: pd.DataFrame, text: str, ranges: dict[str, Any]) -> FittedKernel:
    return FittedKernel(
        parameters=asdict(best),
        fitted_on=text,
        gpus=sorted(rows["gpu"].unique()),
        rows=len(rows),
        mean_absolute_error=float(f"{np.mean(np.abs(np.expm1(errors))):.4g}"),
        evidence_range=ranges,
    )
