"""Fit the all-reduce model and the few system parameters, each to a stated part of the evidence.

Three steps, none of which sees a throughput of OPT-30B, OPT-175B, a Llama, or any card but the A100:

1. all-reduce: NCCL and TensorRT-LLM times on the A100; the H100 rows are held out;
2. waiting at an all-reduce amid other kernels: the published breakdown of LLaMA-70B on two A100 (Quant-LLM), its
   communication beyond what step 1 says. Both other sources have two all-reduces in every layer, so launches and waits
   cannot be told apart there;
3. the rest: throughput of OPT-66B (Flash-LLM's figure 15), three systems, 2 and 4 GPUs, together with the seconds
   that SpInfer's profile of an RTX 4090 gives to what is neither product, attention nor communication. Throughput alone
   cannot tell small kernels from attention: each takes a constant time a layer.

A fourth, apart from all that: vLLM's host, on its dense runs on an A100 PCIe and an H100 PCIe (`vllm_runs`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_model, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import least_squares_parameters
from perfmodel.evidence.run_spread import run_spread
from perfmodel.evidence.runs import (
    FIT_GPU,
    FIT_MODEL,
    HOST_FIT_GPUS,
    PROFILE_GPU,
    PROFILE_SOURCE,
    QUANT_LLM_TABLE,
    WAIT_CATALOGUE_MODEL,
    WAIT_MIN_BATCH,
    WAIT_MODEL,
    predict_parts,
    predict_runs,
    published_parts,
    published_runs,
    vllm_runs,
)
from perfmodel.serving.collectives import CALIBRATION_NAME as ALL_REDUCE
from perfmodel.serving.collectives import Algorithm, CollectiveParameters, all_reduce_time
from perfmodel.serving.planning import RUN_COLUMNS
from perfmodel.serving.systems import CALIBRATION_NAME as SERVING
from perfmodel.serving.systems import VLLM, HostParameters, SystemParameters
from perfmodel.serving.transformer import ALL_REDUCES_PER_LAYER
from perfmodel.units import FP16_BYTES, MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

ROBUST_SCALE = 0.02  # relative error from which a row counts less than quadratically
READ_TO = 0.02  # relative reading error up to which a profile's seconds weigh as much as a throughput
ALGORITHMS = {"nccl": Algorithm.NCCL, "tensorrt-llm": Algorithm.CUSTOM}


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


def fit() -> dict[str, FittedKernel]:
    """All three steps; the result is what ``data/calibration/systems.json`` holds."""
    reduces = measured_all_reduces()
    all_reduce, serving = _fit_all_reduce(reduces), _fit_serving()
    host = _fit_host(serving)
    spread = run_spread(SystemParameters(**serving.parameters), HostParameters(**host.parameters))
    return {ALL_REDUCE: all_reduce, SERVING: msgspec.structs.replace(serving, spread=spread), VLLM: host}


def _fit_all_reduce(rows: pd.DataFrame) -> FittedKernel:
    measured_s = rows["time_us"].to_numpy() * MICRO

    def errors(parameters: CollectiveParameters) -> Array:
        return np.log(predict_all_reduces(rows, parameters) / measured_s)

    best = least_squares_parameters(CollectiveParameters(), errors, robust_scale=ROBUST_SCALE)
    ranges = {name: (float(rows[name].min()), float(rows[name].max())) for name in ("gpus", "message_bytes")}
    return _stored(best, errors(best), rows, "aiconfigurator-nccl, aiconfigurator-tensorrt-llm: all-reduce", ranges)


def all_reduce_wait_cycles() -> float:
    """Median SM cycles an all-reduce takes in a published LLaMA-70B run beyond its time back to back.

    Rows of at least four sequences: below, the runs of that source take another path (messages under 64 KB).
    """
    table = load_table(QUANT_LLM_TABLE)
    rows = table[(table["model"] == WAIT_MODEL) & (table["gpus"] > 1) & (table["batch"] >= WAIT_MIN_BATCH)]
    shape, gpu = load_model(WAIT_CATALOGUE_MODEL).shape, load_gpu(FIT_GPU)
    count = ALL_REDUCES_PER_LAYER * shape.layers * rows["output_len"]
    alone_s = all_reduce_time(gpu, rows["gpus"], FP16_BYTES * shape.hidden_size * rows["batch"])
    return float(np.median(rows["communication_s"] / count - alone_s)) * gpu.clock.hz


def fitted_evidence() -> tuple[pd.DataFrame, pd.DataFrame]:
    """What step 3 is fitted to: rows of `published_runs` and of `published_parts`."""
    runs, parts = published_runs(), published_parts()
    profile = parts["fitted"] & (parts["source"] == PROFILE_SOURCE)
    return runs[runs["fitted"]].reset_index(drop=True), parts[profile].reset_index(drop=True)


def _fit_serving() -> FittedKernel:
    runs, parts = fitted_evidence()
    start = SystemParameters(all_reduce_wait_cycles=float(f"{all_reduce_wait_cycles():.4g}"))

    def errors(parameters: SystemParameters) -> Array:
        slower = np.log(runs["tokens_per_gpu_s"].to_numpy() / predict_runs(runs, parameters))
        longer = np.log(predict_parts(parts, parameters) / parts["gpu_s"].to_numpy())
        return np.concatenate([slower, longer])

    read_to = np.maximum(READ_TO, parts["err"] / parts["gpu_s"])
    weights = np.concatenate([np.ones(len(runs)), READ_TO / read_to])
    best = least_squares_parameters(
        start, lambda p: weights * errors(p), robust_scale=ROBUST_SCALE, fixed=("all_reduce_wait_cycles",)
    )
    ranges = {name: (float(runs[name].min()), float(runs[name].max())) for name in RUN_COLUMNS}
    ranges["gpus"] = (1.0, ranges["gpus"][1])
    text = (
        f"flash-llm-fig15: {FIT_MODEL}; {PROFILE_SOURCE}: other seconds on {PROFILE_GPU}, {len(parts)} rows; "
        f"all_reduce_wait_cycles: quant-llm-figures, {WAIT_MODEL}, batch >= {WAIT_MIN_BATCH}"
    )
    return _stored(best, errors(best)[: len(runs)], runs, text, ranges)


def _fit_host(serving: FittedKernel) -> FittedKernel:
    runs = vllm_runs()
    runs = runs[runs["fitted"]].reset_index(drop=True)
    systems = SystemParameters(**serving.parameters)

    def errors(host: HostParameters) -> Array:
        return np.log(runs["tokens_per_gpu_s"].to_numpy() / predict_runs(runs, systems, host))

    best = least_squares_parameters(HostParameters(), errors, robust_scale=ROBUST_SCALE)
    ranges = {name: (float(runs[name].min()), float(runs[name].max())) for name in RUN_COLUMNS}
    return _stored(best, errors(best), runs, f"slidesparse-vllm: dense, on {' and '.join(HOST_FIT_GPUS)}", ranges)


def _stored(best: Any, errors: Array, rows: pd.DataFrame, text: str, ranges: dict[str, Any]) -> FittedKernel:
    return FittedKernel(
        parameters=asdict(best),
        fitted_on=text,
        gpus=sorted(rows["gpu"].unique()),
        rows=len(rows),
        mean_absolute_error=float(f"{np.mean(np.abs(np.expm1(errors))):.4g}"),
        evidence_range=ranges,
    )
