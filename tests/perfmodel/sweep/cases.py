"""Small sweeps that several tests run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from perfmodel.sweep import Plan, grid, run

AXES: dict[str, Any] = {
    "gpu": ["a100-80gb", "rtx-4090"],
    "kernel": "all",
    "m": [1000, 36864],
    "k": [1024, 9217],
    "n": [1, 8, 12, 100],
    "sparsity": {"start": 0.0, "stop": 0.9, "step": 0.3},
}


E2E: dict[str, Any] = {
    "model": ["opt-30b", "mixtral-8x7b"],
    "gpu": ["a100-80gb"],
    "gpus": [1, 2, 3],
    "system": ["flash-llm", "fastertransformer"],
    "sparsity": [0.0, 0.8],
    "batch": [1, 8, 64],
    "input_len": [64, 512],
    "output_len": [1, 512, 2048],
}


def plan(target: str = "predict", axes: dict[str, Any] | None = None, **more: Any) -> Plan:
    possible = {"possible": True} | more.pop("constraints", {})
    axes = axes or (AXES if target == "predict" else E2E)
    return Plan.of({"sweep": {"target": target, **more}, "axes": axes, "constraints": possible})


def swept(made: Plan, out: Path) -> pd.DataFrame:
    run(made, out)
    return pd.read_parquet(out)


def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the small grids of these tests into several blocks and chunks."""
    monkeypatch.setattr(grid, "BLOCK_POINTS", 16)
    monkeypatch.setattr(grid, "CHUNK_POINTS", 64)
