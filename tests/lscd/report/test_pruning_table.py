"""Accuracy beside speed: the measured study joined with predictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from lscd.report.pruning_table import LARGE_MATRIX, markdown, trade_off
from perfmodel.prediction import predict


def test_the_documented_table_is_the_measured_one() -> None:
    """Quality and size; the predicted columns move with every calibration."""
    text = (Path(__file__).parents[3] / "docs" / "weights.md").read_text(encoding="utf-8")
    current = [line.split(" | ")[:5] for line in markdown(trade_off()).splitlines()]
    documented = [line.split(" | ")[:5] for line in text.splitlines()]
    assert len(current) == 9
    assert all(line in documented for line in current)


def test_trade_off_joins_quality_with_the_fastest_sparse_kernel() -> None:
    table = trade_off(("a100-80gb",)).set_index("sparsity")
    assert list(table.index) == [0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert table.loc[0, "speedup_a100-80gb"] < 1, "a loss is shown, not the dense kernel in its place"
    assert "cublas" not in set(table["kernel_a100-80gb"])
    assert table["speedup_a100-80gb"].is_monotonic_increasing
    kernel = table.loc[0.8, "kernel_a100-80gb"]
    expected = float(predict(kernel, "a100-80gb", *LARGE_MATRIX, 8, 0.8).speedup_vs_dense)
    assert table.loc[0.8, "speedup_a100-80gb"] == pytest.approx(expected)
    assert expected >= float(predict("flash-llm", "a100-80gb", *LARGE_MATRIX, 8, 0.8).speedup_vs_dense)
    assert table.loc[0.5, "size_tiled_csl"] == pytest.approx(1, abs=0.01)
