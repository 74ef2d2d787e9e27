"""Fit the attention model to a stated part of what NVIDIA's AIConfigurator measured inside three engines.

Fitted: 16-bit caches on the A100 and the H100, vLLM's decoding and prompts, and TensorRT-LLM's latent decoding on the
H100 (vLLM's is started by the host and so holds its time). Held out: the GB200, the other engines, every FP8 cache.

The harness repeats one call, so a cache that the L2 can hold is not read from memory as it is between the layers of a
model. Such rows (`resident`) are neither fitted nor scored; where a cache is so small that its read hardly counts, they
are. Heads of more than 256 dimensions, for which engines fall back on other kernels, are scored but not fitted.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_table
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import described, least_squares_parameters, ranges_of
from perfmodel.serving.attention import AttentionParameters, decode, latent_decode, prompt
from perfmodel.units import FP16_BYTES, MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

GPUS = ("a100-80gb", "h100", "gb200")
FIT_GPUS = ("a100-80gb", "h100")
FIT_ENGINES = {"decode": "vllm", "prompt": "vllm", "latent-decode": "tensorrt-llm"}
UNFIT = ("a100-80gb", "latent-decode")  # takes as long for one sequence as for 16: does not split the context
WIDEST_HEAD = 256
LATENT_VALUE = 512  # of the values cached a token, those that are values and not only keys
CACHE_BYTES = {"bf16": FP16_BYTES, "fp8": 1}
ROBUST_SCALE = 0.1  # relative error from which a row counts less than quadratically
L2_HOLDS = (1 / 16, 1.5)  # sizes of a cache over the L2's between which repeated calls find part of it there
RANGES = ("batch", "tokens", "heads", "kv_heads", "head_dim")


def measured_attention() -> pd.DataFrame:
    """All rows, with ``resident`` and ``fitted`` (see the module's text)."""
    import pandas as pd

    rows = pd.concat([load_table(f"measured/{gpu}/attention.parquet") for gpu in GPUS], ignore_index=True)
    rows["resident"] = _resident(rows)
    wide = (rows["kind"] != "latent-decode") & (rows["head_dim"] > WIDEST_HEAD)
    excluded = (rows["gpu"] == UNFIT[0]) & (rows["kind"] == UNFIT[1])
    chosen = rows["gpu"].isin(FIT_GPUS) & (rows["engine"] == rows["kind"].map(FIT_ENGINES))
    rows["fitted"] = chosen & (rows["cache_dtype"] == "bf16") & ~rows["resident"] & ~wide & ~excluded
    return rows


def predict_attention(rows: pd.DataFrame, parameters: AttentionParameters | None = None) -> Array:
    """Seconds predicted for rows of `measured_attention`, their caches read from memory."""
    seconds = np.empty(len(rows))
    for (gpu, kind), places in rows.groupby(["gpu", "kind"]).indices.items():
        seconds[places] = _predicted_s(str(gpu), str(kind), rows.iloc[places], parameters)
    return seconds


def fit() -> FittedKernel:
    """The entry ``attention`` of ``data/calibration/systems.json``."""
    rows = measured_attention()
    rows = rows[rows["fitted"]].reset_index(drop=True)
    measured_s = rows["time_us"].to_numpy() * MICRO

    def errors(parameters: AttentionParameters) -> Array:
        return np.log(predict_attention(rows, parameters) / measured_s)

    best = least_squares_parameters(AttentionParameters(), errors, robust_scale=ROBUST_SCALE)
    text = (
        f"aiconfigurator-attention on {' and '.join(FIT_GPUS)}: 16-bit caches, vLLM's decoding and prompts, "
        "TensorRT-LLM's latent decoding on the H100"
    )
    return described(asdict(best), errors(best), rows, text, ranges_of(rows, RANGES))


def _attended(rows: pd.DataFrame) -> Array:
    tokens, window = rows["tokens"].to_numpy(np.float64), rows["window"].to_numpy(np.float64)
    return np.minimum(tokens, np.where(window > 0, window, np.inf))


def _resident(rows: pd.DataFrame) -> NDArray[np.bool_]:
    latent = rows["kind"] == "latent-decode"
    values = np.where(latent, 1, 2) * rows["kv_heads"] * rows["head_dim"]
    cached = rows["batch"] * _attended(rows) * values * rows["cache_dtype"].map(CACHE_BYTES)
    share = cached / rows["gpu"].map({gpu: load_gpu(gpu).l2.size_bytes for gpu in GPUS})
    low, high = L2_HOLDS
    return np.asarray((rows["kind"] != "prompt") & (share > low) & (share < high))


def _predicted_s(gpu: str, kind: str, rows: pd.DataFrame, parameters: AttentionParameters | None) -> Array:
    card = load_gpu(gpu)
    batch, heads, kv_heads, head_dim = (rows[n].to_numpy() for n in ("batch", "heads", "kv_heads", "head_dim"))
    cache_bytes = rows["cache_dtype"].map(CACHE_BYTES).to_numpy()
    if kind == "decode":
        return decode(card, batch, _attended(rows), heads, kv_heads, head_dim, cache_bytes, parameters).time_s
    if kind == "latent-decode":
        return latent_decode(
            card, batch, _attended(rows), heads, head_dim, LATENT_VALUE, cache_bytes, parameters
        ).time_s
    return prompt(
        card, batch, rows["tokens"], heads, kv_heads, head_dim, window=_attended(rows), parameters=parameters
    ).time_s
