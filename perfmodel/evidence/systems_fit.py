"""Fit what all systems share, each number to a stated part of the evidence.

Three steps for the paper's systems, none of which sees a throughput of OPT-30B, OPT-175B, a Llama, or any card but the
A100:

1. all-reduce: `collectives_fit`;
2. waiting at an all-reduce amid other kernels: the published breakdown of LLaMA-70B on two A100 (Quant-LLM), its
   communication beyond what step 1 says. Both other sources have two all-reduces in every layer, so launches and waits
   cannot be told apart there;
3. the rest: throughput of OPT-66B (Flash-LLM's figure 15), three systems, 2 and 4 GPUs, together with the seconds
   that SpInfer's profile of an RTX 4090 gives to what is neither product, attention nor communication. Throughput alone
   cannot tell small kernels from attention: each takes a constant time a layer.

Attention, experts and hosts of today's engines have fits of their own (`attention_fit`, `experts_fit`, `hosts_fit`),
and so has the power of the boards (`power_fit`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_model, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence import attention_fit, collectives_fit, cpu_host_fit, experts_fit, hosts_fit, power_fit
from perfmodel.evidence.fitting import described, least_squares_parameters, ranges_of
from perfmodel.evidence.run_spread import run_spread
from perfmodel.evidence.runs import (
    FIT_GPU,
    FIT_MODEL,
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
)
from perfmodel.serving.attention import CALIBRATION_NAME as ATTENTION
from perfmodel.serving.collectives import CALIBRATION_NAME as ALL_REDUCE
from perfmodel.serving.collectives import all_reduce_time
from perfmodel.serving.cpu_decoding import CALIBRATION_NAME as CPU_DECODER
from perfmodel.serving.energy import CALIBRATION_NAME as POWER
from perfmodel.serving.experts import CALIBRATION_NAME as EXPERTS
from perfmodel.serving.rows import RUN_COLUMNS
from perfmodel.serving.systems import CALIBRATION_NAME as SERVING
from perfmodel.serving.systems import SystemParameters
from perfmodel.units import FP16_BYTES

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

ROBUST_SCALE = 0.02  # relative error from which a row counts less than quadratically
READ_TO = 0.02  # relative reading error up to which a profile's seconds weigh as much as a throughput


def fit() -> dict[str, FittedKernel]:
    """All of it; the result is what ``data/calibration/systems.json`` holds."""
    return fit_parts() | fit_hosts() | fit_systems()


def fit_parts() -> dict[str, FittedKernel]:
    """What runs are made of beside products: all-reduces, attention, experts; and the power of boards."""
    return {
        ALL_REDUCE: collectives_fit.fit(),
        ATTENTION: attention_fit.fit(),
        EXPERTS: experts_fit.fit(),
        POWER: power_fit.fit(),
    }


def fit_hosts() -> dict[str, FittedKernel]:
    """Hosts of engines and of our own decoder, which stand on the stored fits of the parts and of the kernels."""
    return hosts_fit.fit() | {CPU_DECODER: cpu_host_fit.fit()}


def fit_systems() -> dict[str, FittedKernel]:
    """What the paper's systems share, and how far whole runs are off, which stand on all other stored fits."""
    serving = _fit_serving()
    return {SERVING: msgspec.structs.replace(serving, spread=run_spread(SystemParameters(**serving.parameters)))}


def all_reduce_wait_cycles() -> float:
    """Median SM cycles an all-reduce takes in a published LLaMA-70B run beyond its time back to back.

    Rows of at least four sequences: below, the runs of that source take another path (messages under 64 KB).
    """
    table = load_table(QUANT_LLM_TABLE)
    rows = table[(table["model"] == WAIT_MODEL) & (table["gpus"] > 1) & (table["batch"] >= WAIT_MIN_BATCH)]
    shape, gpu = load_model(WAIT_CATALOGUE_MODEL).shape, load_gpu(FIT_GPU)
    count = sum(block.count * block.all_reduces for block in shape.blocks) * rows["output_len"]
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
    ranges = ranges_of(runs, RUN_COLUMNS)
    ranges["gpus"] = (1.0, ranges["gpus"][1])
    text = (
        f"flash-llm-fig15: {FIT_MODEL}; {PROFILE_SOURCE}: other seconds on {PROFILE_GPU}, {len(parts)} rows; "
        f"all_reduce_wait_cycles: quant-llm-figures, {WAIT_MODEL}, batch >= {WAIT_MIN_BATCH}"
    )
    return described(asdict(best), errors(best)[: len(runs)], runs, text, ranges)
