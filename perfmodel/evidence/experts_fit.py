"""Fit grouped products of experts to layers as engines run them, and say which rows were left out.

Two steps on vLLM's rows, none of which sees another engine, an expert-parallel layer or Qwen3-30B-A3B:

1. all but ``fused_s``: A100 and H100, BF16 and FP8 in blocks;
2. ``fused_s``: BF16 on the GB200, whose engines run other kernels; everything else there is held out.

FP8 with a scale a tensor is held out too: vLLM's kernel for it on the H100 takes five times as long as TensorRT-LLM's.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import described, least_squares_parameters, ranges_of
from perfmodel.kernels import KERNELS, Call, Machine, Shape
from perfmodel.kernels.fits import calibrated
from perfmodel.serving.experts import (
    ExpertParameters,
    Load,
    active_experts,
    calibrated_experts,
    fuses_experts,
    grouped_product_s,
    permutation,
)
from perfmodel.units import MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

GPUS = ("a100-80gb", "h100", "gb200")
FUSED_GPU = "gb200"
FIT_ENGINE, FIT_DTYPES, FUSED_DTYPE = "vllm", ("bfloat16", "fp8-block"), "bfloat16"
HELD_OUT_SHAPE = (2048, 768)  # hidden and inner size of Qwen3-30B-A3B
# Kernel that multiplies each type. MXFP4 weights with 16-bit activations are taken as INT4 ones.
PRODUCTS = {
    "bfloat16": "cublas", "fp8": "fp8", "fp8-block": "fp8-block", "nvfp4": "nvfp4", "int4": "int4", "mxfp4": "int4",
    "mxfp4-mxfp8": "mxfp4",
}  # fmt: skip
ROBUST_SCALE = 0.1  # relative error from which a row counts less than quadratically
ROUTINGS = 5  # that the source replays in turn under a power law; one if balanced
RANGES = ("tokens", "hidden", "inter", "per_token", "experts", "tensor_parallel", "expert_parallel")


def measured_experts() -> pd.DataFrame:
    """Times of expert layers on one GPU, for the tokens of all GPUs; ``fitted`` says which take part in the fit."""
    import pandas as pd

    rows = pd.concat([load_table(f"measured/{gpu}/experts.parquet") for gpu in GPUS], ignore_index=True)
    held_out = (rows["hidden"] == HELD_OUT_SHAPE[0]) & (rows["inter"] == HELD_OUT_SHAPE[1])
    whole = (rows["engine"] == FIT_ENGINE) & (rows["expert_parallel"] == 1) & ~held_out
    dtypes = np.where(rows["gpu"] == FUSED_GPU, rows["dtype"] == FUSED_DTYPE, rows["dtype"].isin(FIT_DTYPES))
    return rows.assign(fitted=whole & dtypes)


def load_of(rows: pd.DataFrame) -> Load:
    """Load that each row's routing puts on the measured GPU: dealt out in turn if balanced, else a power law's."""
    tokens, experts, per_token, gpus = (
        rows[name].to_numpy(np.float64) for name in ("tokens", "experts", "per_token", "expert_parallel")
    )
    dealt = rows["routing"].to_numpy() == "balanced"
    active = np.minimum(experts / gpus, np.ceil(tokens * per_token / gpus))
    each, spread = np.maximum(tokens * per_token / gpus / active, 1.0), np.zeros(len(rows))
    for routing in sorted(set(rows["routing"]) - {"balanced"}):
        law = active_experts(tokens, experts, per_token, float(routing.removeprefix("power-law-")), gpus)
        chosen = rows["routing"].to_numpy() == routing
        active, each = np.where(chosen, law.active, active), np.where(chosen, law.each, each)
        spread = np.where(chosen, law.spread, spread)
    return Load(active, each, np.where(dealt, 0.0, spread))


def predict_experts(rows: pd.DataFrame, parameters: ExpertParameters | None = None) -> Array:
    """Seconds predicted for rows of `measured_experts`."""
    c = calibrated_experts() if parameters is None else parameters
    seconds = np.empty(len(rows))
    for (gpu, dtype), index in rows.groupby(["gpu", "dtype"], sort=False).indices.items():
        seconds[index] = _layers_s(str(gpu), PRODUCTS[str(dtype)], rows.iloc[index], c)
    return seconds


def _layers_s(key: str, kernel: str, rows: pd.DataFrame, c: ExpertParameters) -> Array:
    """Seconds of layers of one kernel on one GPU; the source replays them, and the L2 keeps what it can."""
    gpu, model, parameters, load = load_gpu(key), KERNELS[kernel], calibrated(kernel), load_of(rows)
    machine, hidden = Machine.of(gpu), rows["hidden"].to_numpy(np.float64)
    inter = rows["inter"].to_numpy(np.float64) / rows["tensor_parallel"].to_numpy()
    local = rows["experts"].to_numpy() / rows["expert_parallel"].to_numpy()
    replayed = np.where(rows["routing"] == "balanced", 1.0, np.minimum(ROUTINGS, local / load.active))
    matrices = ((2 * inter, hidden), (hidden, inter))
    stored = [model.format.bytes_of(load.active * m, k, np.zeros(())) for m, k in matrices]
    total = permutation(gpu, load.rows, hidden, inter, c).time_s
    for number, (m, k) in enumerate(matrices):
        copies = replayed * (stored[0] + stored[1]) / stored[number]
        # What a fused activation hands on is quantised by it.
        call = Call(graph=True, warm=True, copies=copies, quantised=fuses_experts(gpu) and number == 1)

        def product_s(m: Array, n: Array, k: Array = k, call: Call = call) -> Array:
            return model.time(machine, Shape(m, k, n, np.zeros(())), parameters, call).time_s

        total = total + grouped_product_s(gpu, product_s, m, load, c)
    return total


def fit() -> FittedKernel:
    """Both steps; the result is entry ``experts`` of ``data/calibration/systems.json``."""
    rows = measured_experts()
    rows = rows[rows["fitted"]]
    fused = (rows["gpu"] == FUSED_GPU).to_numpy()
    best = _fit(ExpertParameters(), rows[~fused], ("fused_s",))
    others = tuple(name for name in asdict(best) if name != "fused_s")
    best = _fit(best, rows[fused], others)
    text = f"aiconfigurator-experts: {FIT_ENGINE}, {' and '.join(FIT_DTYPES)}; fused_s: {FUSED_GPU}, {FUSED_DTYPE}"
    return described(asdict(best), _errors(rows, best), rows, text, ranges_of(rows, RANGES))


def _errors(rows: pd.DataFrame, parameters: ExpertParameters) -> Array:
    return np.log(predict_experts(rows, parameters) / (rows["time_us"].to_numpy() * MICRO))


def _fit(start: ExpertParameters, rows: pd.DataFrame, fixed: tuple[str, ...]) -> ExpertParameters:
    return least_squares_parameters(start, lambda p: _errors(rows, p), robust_scale=ROBUST_SCALE, fixed=fixed)
