"""Fit the all-reduce model and the few system parameters, each to a stated part of the evidence.

Three steps, none of which sees a throughput of OPT-30B, OPT-175B, a Llama, or any card but the A100:

1. all-reduce: NCCL and TensorRT-LLM times on the A100; the H100 rows are held out;
2. waiting at an all-reduce amid other kernels: the published breakdown of LLaMA-70B on two A100 (Quant-LLM), its
   communication beyond what step 1 says. Both other sources have two all-reduces in every layer, so launches and waits
   cannot be told apart there;
3. the rest: throughput of OPT-66B (Flash-LLM's figure 15), three systems, 2 and 4 GPUs, together with the seconds that
   SpInfer's profile of an RTX 4090 gives to what is neither product, attention nor communication. Throughput alone cannot
   tell small kernels from attention: each takes a constant time a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_model, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import least_squares_parameters
from perfmodel.serving.collectives import CALIBRATION_NAME as ALL_REDUCE
from perfmodel.serving.collectives import Algorithm, CollectiveParameters, all_reduce_time
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.systems import CALIBRATION_NAME as SERVING
from perfmodel.serving.systems import SystemParameters
from perfmodel.serving.transformer import ALL_REDUCES_PER_LAYER, Part
from perfmodel.units import FP16_BYTES, MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

FIT_GPU, FIT_MODEL = "a100-80gb", "opt-66b"
ROBUST_SCALE = 0.02  # relative error from which a row counts less than quadratically
ALGORITHMS = {"nccl": Algorithm.NCCL, "tensorrt-llm": Algorithm.CUSTOM}
WAIT_MODEL, WAIT_CATALOGUE_MODEL, WAIT_MIN_BATCH = "llama-70b", "llama-2-70b", 4
RUN_COLUMNS = ("batch", "input_len", "output_len", "sparsity", "gpus")
PROFILE_SOURCE, PROFILE_GPU = "spinfer-fig15", "rtx-4090"
DOUBTFUL_PROFILE = "fastertransformer"  # its attention there is faster than the memory it reads
READ_TO = 0.02  # relative reading error up to which a profile's seconds weigh as much as a throughput
QUANT_LLM_READ_S = 0.5  # half-width of a bar of its breakdown
QUANT_LLM_SYSTEMS = {"dense-fp16": "fastertransformer", "quant-llm-w6": "fastertransformer+quant-llm-w6"}


def published_runs() -> pd.DataFrame:
    """Throughput that Flash-LLM's figures show: `data/published/e2e.csv` with ``fitted`` saying which rows are fitted."""
    runs = load_table("published/e2e.csv")
    runs["fitted"] = (runs["model"] == FIT_MODEL) & runs["fits"]
    return runs


def spinfer_runs() -> pd.DataFrame:
    """Throughput that SpInfer's figures show, which no fit has seen: `data/published/e2e_spinfer.csv`."""
    return load_table("published/e2e_spinfer.csv").assign(fitted=False)


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

    runs = pd.concat([published_runs(), spinfer_runs(), outside_runs()], ignore_index=True)
    runs = runs[runs["fits"]].reset_index(drop=True)
    runs["time_us"] = 1 / (runs["tokens_per_gpu_s"] * MICRO)
    runs["predicted_us"] = 1 / (predict_runs(runs) * MICRO)
    runs["error"] = runs["predicted_us"] / runs["time_us"] - 1
    return runs


def published_parts() -> pd.DataFrame:
    """GPU-seconds of whole runs by `Part`, as their figures show them.

    Returns
    -------
    pandas.DataFrame
        ``model, gpu, system``, `RUN_COLUMNS`, ``part, gpu_s, err`` (half-width of what was read), ``source, fitted``.
    """
    import pandas as pd

    parts = pd.concat([load_table("published/e2e_parts.csv"), _quant_llm_parts()], ignore_index=True)
    profile = (parts["source"] == PROFILE_SOURCE) & (parts["gpu"] == PROFILE_GPU) & (parts["part"] == Part.OTHER)
    waits = (parts["model"] == WAIT_CATALOGUE_MODEL) & (parts["part"] == Part.COMMUNICATION)
    waits &= parts["batch"] >= WAIT_MIN_BATCH
    return parts.assign(fitted=(profile & (parts["system"] != DOUBTFUL_PROFILE)) | waits)


def _quant_llm_parts() -> pd.DataFrame:
    """Quant-LLM's breakdown in the columns of `published_parts`; parts that a run does not have are left out."""
    table = load_table(f"measured/{FIT_GPU}/quant_llm_e2e_breakdown.csv")
    keys = ["model", "gpu", "gpus", "system", "batch", "output_len", "source"]
    rows = table.rename(columns={f"{part}_s": str(part) for part in Part}).melt(
        keys, [str(part) for part in Part], var_name="part", value_name="seconds"
    )
    rows = rows[rows["seconds"] > 0]
    return rows.drop(columns="seconds").assign(
        model=rows["model"].replace(WAIT_MODEL, WAIT_CATALOGUE_MODEL),
        system=rows["system"].map(QUANT_LLM_SYSTEMS),
        input_len=1,
        sparsity=0.0,
        gpu_s=rows["seconds"] * rows["gpus"],
        err=QUANT_LLM_READ_S * rows["gpus"],
    )


def joined_parts() -> pd.DataFrame:
    """`published_parts` with ``predicted_gpu_s`` and ``error`` (predicted / published - 1, signed)."""
    parts = published_parts()
    parts["predicted_gpu_s"] = predict_parts(parts)
    parts["error"] = parts["predicted_gpu_s"] / parts["gpu_s"] - 1
    return parts


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
    for place, run in evaluated(runs, parameters):
        rate[place] = run.tokens_per_gpu_s
    return rate


def predict_parts(parts: pd.DataFrame, parameters: SystemParameters | None = None) -> Array:
    """GPU-seconds predicted for rows of `published_parts`."""
    seconds = np.empty(len(parts))
    for place, run in evaluated(parts, parameters):
        of_part = run.gpu_seconds
        seconds[place] = [of_part[Part(name)][i] for i, name in enumerate(parts["part"].iloc[place])]
    return seconds


def evaluated(
    runs: pd.DataFrame, parameters: SystemParameters | None = None
) -> Iterator[tuple[NDArray[np.intp], Serving]]:
    """Runs of one model, GPU and system after the other: where their rows stand, and what is predicted for them."""
    for (model, gpu, system), place in runs.groupby(["model", "gpu", "system"]).indices.items():
        group = runs.iloc[place]
        columns: dict[str, Any] = {name: group[name].to_numpy() for name in RUN_COLUMNS}
        yield place, evaluate(str(model), str(gpu), str(system), **columns, parameters=parameters)


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


def all_reduce_wait_cycles() -> float:
    """Median SM cycles an all-reduce takes in a published LLaMA-70B run beyond its time back to back.

    Rows of at least four sequences: below, the runs of that source take another path (messages under 64 KB).
    """
    table = load_table(f"measured/{FIT_GPU}/quant_llm_e2e_breakdown.csv")
    rows = table[(table["model"] == WAIT_MODEL) & (table["gpus"] > 1) & (table["batch"] >= WAIT_MIN_BATCH)]
    shape, gpu = load_model(WAIT_CATALOGUE_MODEL).shape, load_gpu(FIT_GPU)
    count = ALL_REDUCES_PER_LAYER * shape.layers * rows["output_len"]
    alone_s = all_reduce_time(gpu, rows["gpus"], FP16_BYTES * shape.hidden_size * rows["batch"])
    return float(np.median(rows["communication_s"] / count - alone_s)) * gpu.clock.boost_hz


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


def _stored(best: Any, errors: Array, rows: pd.DataFrame, text: str, ranges: dict[str, Any]) -> FittedKernel:
    return FittedKernel(
        parameters=asdict(best),
        fitted_on=text,
        gpus=sorted(rows["gpu"].unique()),
        rows=len(rows),
        mean_absolute_error=float(f"{np.mean(np.abs(np.expm1(errors))):.4g}"),
        evidence_range=ranges,
    )
