"""Chapter "Engines of today": whole models in vLLM, TensorRT-LLM and others, under load too, and sparse experts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, gpu_title, percent
from perfmodel.analysis import expert_speedups
from perfmodel.catalog import load_model
from perfmodel.evidence.runs import HARNESS_SOURCE, engine_of, joined_served, of_today
from perfmodel.plotting import today as draw

GPU = "h100"
SPARSITY = 0.7
MODELS = {
    "mixtral-8x7b": "Mixtral, 2 of 8",
    "qwen3-30b-a3b": "Qwen3-30B, 8 of 128",
    "deepseek-v3": "DeepSeek-V3, 8 of 256",
}
KERNELS = {
    "flash-llm": "Flash-LLM",
    "bitmap": "SpInfer",
    "two-four": "2:4",
    "int4": "INT4",
    "fp8-block": "FP8, blocks",
}
BATCHES = np.unique(np.round(np.geomspace(1, 4096, 49)))
SKINNY = 64.0  # tokens of a matrix up to which the paper's kernels are skinny


def static_runs(context: Context) -> pd.DataFrame:
    """Batches that start together, of engines: ``engine, measured, predicted`` (ms a token step), ``fitted``."""
    runs = context.runs
    runs = runs[of_today(runs["system"]) & (runs["source"] != HARNESS_SOURCE)]
    # Milliseconds of the whole run for each token of a sequence.
    step = runs["batch"] / runs["gpus"] * 1e-3
    return pd.DataFrame(
        {
            "engine": runs["system"].map(engine_of), "model": runs["model"], "gpu": runs["gpu"], "gpus": runs["gpus"],
            "batch": runs["batch"], "measured": runs["time_us"] * step, "predicted": runs["predicted_us"] * step,
            "fitted": runs["fitted"], "error": runs["error"], "source": runs["source"],
        }
    ).reset_index(drop=True)  # fmt: skip


def engines(context: Context) -> Exhibit:
    """Static and served runs of engines, predicted beside measured."""
    static, served = static_runs(context), joined_served()
    served = served.assign(
        engine=served["system"].map(engine_of), measured=served["tpot_ms"], predicted=served["predicted_ms"]
    )
    unseen = {
        engine: (rows["error"].abs().mean(), len(rows)) for engine, rows in static[~static["fitted"]].groupby("engine")
    }
    listed = ", ".join(f"{engine} {percent(error)} on {count}" for engine, (error, count) in unseen.items())
    held = served[~served["fitted"]]
    table = pd.concat([static.assign(load="together"), served.assign(load="constant")], ignore_index=True)
    columns = ["load", "engine", "model", "gpu", "gpus", "batch", "concurrency", "measured", "predicted", "fitted"]
    return Exhibit(
        name="engines",
        title="Engines of today, on runs that no fit saw",
        finding=(
            f"Whole runs of engines are predicted within these mean errors: {listed} runs; the time between tokens "
            f"under load within {percent(held['error'].abs().mean())} on {len(held)}."
        ),
        evidence=(
            "Kernels, attention, experts and all-reduces are fitted to their own measurements; of whole runs each "
            "engine's host alone, three numbers, on the filled marks. Grey: within 15 %."
        ),
        sources=("llm-inference-bench", "aiconfigurator-served", "tensorrt-llm-a100", "lmdeploy-a100", "gpt-fast-a100"),
        table=table[columns],
        figure=draw.against_measured(
            {"batches that start together": static, "constant load: time between tokens": served}, "ms"
        ),
    )


def sparse_experts(context: Context) -> Exhibit:
    """Where experts stay skinny, and what that is worth."""
    tables = [expert_speedups(list(KERNELS), GPU, model, BATCHES, SPARSITY).assign(model=model) for model in MODELS]
    table = pd.concat(tables, ignore_index=True)
    many = "qwen3-30b-a3b"
    rows = table[(table["model"] == many) & (table["kernel"] == "flash-llm")]
    last = rows[rows["each"] <= SKINNY]["n"].max()
    at = {kernel: _at(table, many, kernel, 64) for kernel in KERNELS}
    best = max((kernel for kernel in ("flash-llm", "bitmap", "two-four")), key=lambda kernel: at[kernel])
    verdict = "behind" if at[best] < at["int4"] else "ahead of"
    experts = load_model(many).shape.usual.experts
    assert experts is not None
    return Exhibit(
        name="sparse_experts",
        title="Where do sparse experts pay?",
        finding=(
            f"With {experts.count} experts an expert keeps at most {SKINNY:.0f} tokens up to {last:.0f} in flight: "
            f"its products stay skinny, and so stays what skipping bytes buys. At {percent(SPARSITY, 0)} zeros and 64 "
            f"tokens {KERNELS[best]} multiplies the experts of {MODELS[many].partition(',')[0]} {at[best]:.2f} times "
            f"as fast as dense, {verdict} INT4 ({at['int4']:.2f} times)."
        ),
        evidence=(
            f"Predicted on {gpu_title(GPU)}: both products of a layer, one grouped launch each, over all active "
            "experts; routing uniform. Grouped launches of sparse kernels exist in no engine: they are assumed to cost "
            "what grouping costs dense ones. Scale above: tokens of one expert."
        ),
        sources=("aiconfigurator-experts", "flash-llm-fig9", "spinfer-rerun-boxplot"),
        table=table,
        figure=draw.sparse_experts(table, MODELS, KERNELS),
    )


def _at(table: pd.DataFrame, model: str, kernel: str, n: float) -> float:
    rows = table[(table["model"] == model) & (table["kernel"] == kernel)]
    return float(np.interp(n, rows["n"], rows["speedup"]))


CHAPTER = Chapter(
    "Engines of today",
    "Whole models as vLLM, TensorRT-LLM and SGLang run them, and mixtures of experts.",
    (engines, sparse_experts),
    question="In today's engines, and in experts?",
    headline="sparse_experts",
)
