"""Fit the all-reduce model on one A100's machine; every row of an H100 and a GB200 is held out.

Two steps: NCCL's parameters see NCCL's rows alone; those of the kernels that engines have of their own then see the
rows of vLLM, SGLang and TensorRT-LLM. All-gathers and all-to-alls are predicted with NCCL's parameters.

Rows are replays of a CUDA graph: what the host adds without one belongs to the model of the host.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import described, least_squares_parameters, ranges_of
from perfmodel.evidence.runs import FIT_GPU
from perfmodel.serving.collectives import (
    OWN_KERNELS,
    Algorithm,
    CollectiveParameters,
    OwnKernels,
    all_gather_time,
    all_reduce_time,
    all_to_all_time,
)
from perfmodel.units import MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

ROBUST_SCALE = 0.02  # relative error from which a row counts less than quadratically
GPUS = (FIT_GPU, "h100", "gb200")  # with measured collectives
NCCL = "nccl"
# The A100 ran older versions: SGLang 0.5.10 still has vLLM's kernels, TensorRT-LLM 1.0.0 leaves more to NCCL.
OLDER_KERNELS = {
    "sglang": OwnKernels(barriers=True, two_shot=True, most_bytes=2**23),
    "tensorrt-llm": OwnKernels(barriers=False, two_shot=False, most_bytes=2**20),
}
OF_OWN_KERNELS = ("one_shot_cycles", "one_shot_peer_cycles", "one_shot_efficiency", "two_shot_cycles", "barrier_cycles")
OF_NCCL = tuple(field.name for field in fields(CollectiveParameters) if field.name not in OF_OWN_KERNELS)
OTHERS = {"all-gather": all_gather_time, "reduce-scatter": all_gather_time, "all-to-all": all_to_all_time}


def measured_collectives(gpu: str = FIT_GPU) -> pd.DataFrame:
    """Times in one GPU's machine: ``gpu, library, operation, gpus, message_bytes, time_us``."""
    return load_table(f"measured/{gpu}/collectives.csv")


def measured_all_reduces(gpu: str = FIT_GPU) -> pd.DataFrame:
    """The all-reduces of `measured_collectives`."""
    table = measured_collectives(gpu)
    return table[table["operation"] == "all-reduce"].reset_index(drop=True)


def predict_collectives(rows: pd.DataFrame, parameters: CollectiveParameters | None = None) -> Array:
    """Seconds predicted for rows of `measured_collectives`."""
    seconds = np.empty(len(rows))
    for (gpu, library, operation), places in rows.groupby(["gpu", "library", "operation"]).indices.items():
        part = rows.iloc[places]
        call = load_gpu(gpu), part["gpus"].to_numpy(), part["message_bytes"].to_numpy()
        if operation in OTHERS:
            seconds[places] = OTHERS[operation](*call, parameters)
        elif library == NCCL:
            seconds[places] = all_reduce_time(*call, Algorithm.NCCL, parameters)
        else:
            kernels = own_kernels(gpu, library)
            seconds[places] = all_reduce_time(*call, Algorithm.CUSTOM, parameters, kernels=kernels)
    return seconds


def own_kernels(gpu: str, library: str) -> OwnKernels:
    """What the measured version of ``library`` sums with."""
    older = OLDER_KERNELS if gpu == FIT_GPU else {}
    return older.get(library, OWN_KERNELS[library])


def fit() -> FittedKernel:
    """Both steps; the result is what ``data/calibration/systems.json`` holds as ``all-reduce``."""
    rows = measured_all_reduces()
    nccl = rows["library"] == NCCL
    best = _fitted(CollectiveParameters(), rows[nccl], fixed=OF_OWN_KERNELS)
    best = _fitted(best, rows[~nccl], fixed=OF_NCCL)
    text = f"{', '.join(sorted(rows['source'].unique()))}: all-reduce"
    return described(asdict(best), _errors(rows, best), rows, text, ranges_of(rows, ("gpus", "message_bytes")))


def _fitted(start: CollectiveParameters, rows: pd.DataFrame, fixed: tuple[str, ...]) -> CollectiveParameters:
    return least_squares_parameters(start, lambda c: _errors(rows, c), robust_scale=ROBUST_SCALE, fixed=fixed)


def _errors(rows: pd.DataFrame, parameters: CollectiveParameters) -> Array:
    return np.log(predict_collectives(rows, parameters) / (rows["time_us"].to_numpy() * MICRO))
