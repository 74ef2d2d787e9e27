"""What commands on whole models ask alike: help texts, a sparsity or a file of them, a system by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lscd.errors import InputError

if TYPE_CHECKING:
    from perfmodel.catalog.sparsities import Sparsities
    from perfmodel.serving.systems import System

MODEL_HELP = "Model: a name from `lscd models`, a TOML file, a checkpoint's folder or its config.json."
GPU_HELP = "GPU: a name from `lscd gpus`, or a TOML file of your own."
SYSTEM_HELP = (
    "vllm, sglang, tensorrt-llm, lmdeploy, deepspeed-mii, gpt-fast, fastertransformer, deepspeed, flash-llm; vllm-v0 "
    "and vllm-v1 (tensorrt-llm alike) by version; or ENGINE+NAME with a kernel or a format (`lscd kernels list`, `lscd "
    "formats`). vllm by default, and flash-llm where a sparsity is given."
)
SPARSITY_HELP = "Fraction of zeros in the pruned matrices, 0 to 1; dense by default (a pattern has its own)."
SPARSITY_FILE_HELP = "Sparsity of each matrix in each layer: what `lscd weights inspect` writes, or a CSV of yours."
JSON_HELP = "Print JSON instead of a table."


def asked_sparsity(sparsity: float | None, file: Path | None) -> float | Sparsities | None:
    """One sparsity for all, that of each matrix from a file, or None where nothing is asked for."""
    if file is None:
        return sparsity
    if sparsity is not None:
        raise InputError("give --sparsity or --sparsity-file, not both")
    from perfmodel.catalog import load_sparsities

    return load_sparsities(file)


def own_sparsity(host: System, asked: float | Sparsities | None) -> float | Sparsities:
    """What a system is asked for: dense where nothing is, and a pattern's own."""
    if asked is None or (host.patterns and not isinstance(asked, float)):
        return float(host.own_sparsity(0.0))
    return asked


def named(name: str) -> System:
    """System of that name."""
    from perfmodel.serving.systems import load_system

    return load_system(name)


def always(name: str) -> System:
    """The system, storing matrices of any sparsity in its own format."""
    return replace(named(name), dense_below=0.0)


def mean_of(model: str, sparsity: float | Sparsities) -> float:
    """Share of zeros among all prunable weights."""
    if isinstance(sparsity, float | int):
        return float(sparsity)
    from perfmodel.catalog import load_model
    from perfmodel.serving.transformer import mean_sparsity

    return mean_sparsity(load_model(model).shape, sparsity)


def error_words(systems: list[str]) -> str:
    """How far predictions of these systems are from published runs, which say how sure they are."""
    from perfmodel.evidence.runs import joined_runs

    runs = joined_runs()
    runs = runs[runs["system"].isin(systems)]
    if runs.empty:
        return f"No published run of {', '.join(systems)} shows how far this is off."
    means = [
        f"{error.abs().mean():.1%} over {len(error)} {'fitted' if fitted else 'held-out'} runs"
        for fitted, error in runs.groupby("fitted")["error"]
    ]
    return f"Mean error against published runs, all on {' and '.join(runs['gpu'].unique())}: {', '.join(means)}."
