"""Chapter on our own kernels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lscd.report import own_kernels
from perfmodel import predict

GPUS = ("a100-80gb", "h100", "h200", "rtx-4090")


def test_table_of_the_design_note() -> None:
    """docs/bitmap.md shows what the model says now, to 5 %, and nothing in it is called measured."""
    text = (Path(__file__).parents[3] / "docs" / "bitmap.md").read_text()
    table = own_kernels.speedups(GPUS, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
    assert table["extrapolated"].all()
    for gpu, rows in table.groupby("gpu"):
        line = next(line for line in text.splitlines() if line.startswith(f"| {gpu} |"))
        cells = line.split("|")[2:-1]
        shown = np.array([[float(number) for number in re.findall(r"\d+\.\d+", cell)] for cell in cells])
        np.testing.assert_allclose(
            shown, rows[["speedup", "low", "high", "pairs", "condensed", "flash_llm"]], rtol=0.05, err_msg=str(gpu)
        )


def test_tokens_are_padded_to_what_a_kernel_takes_and_dense_is_not() -> None:
    """At 3 tokens Flash-LLM computes 8; cuBLAS, beside which it stands, computes 3."""
    found = own_kernels.speedups(["h100"], [0.6], m=4096, k=4096, n=3)
    padded, dense = predict("flash-llm", "h100", 4096, 4096, 8, 0.6), predict("cublas", "h100", 4096, 4096, 3)
    assert found["flash_llm"].item() == pytest.approx((dense.time_s / padded.time_s).item())


def test_a_gpu_that_lacks_one_of_them_is_refused() -> None:
    with pytest.raises(ValueError, match="AMD Instinct MI300X"):
        own_kernels.speedups(["mi300x"], [0.6])
