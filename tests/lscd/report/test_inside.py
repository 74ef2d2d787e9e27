"""One kernel, one number: closed form and simulator over GPUs, shapes, tokens and sparsities."""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest

from lscd.report.inside import compared
from perfmodel.pipeline import PREDICTED_BY

GPUS = ("a100-80gb", "h100", "h200", "b200", "rtx-4090", "l40s")
SHAPES = ((36864, 9216), (8192, 8192), (4096, 14336))
TOKENS, SPARSITIES = (8, 16, 32, 64), (0.5, 0.6, 0.7, 0.8, 0.9)


@cache
def grid(kernel: str) -> pd.DataFrame:
    sparsities = (0.5,) if kernel == "cublas" else SPARSITIES
    return compared((kernel,), GPUS, SHAPES, TOKENS, sparsities)


@pytest.mark.parametrize("kernel", [kernel for kernel in PREDICTED_BY if kernel.startswith("numba")])
def test_kernels_never_run_have_one_number(kernel: str) -> None:
    """The assumed ranges hold the simulated time in 95 % of cases, and their middle is not biased against it."""
    table = grid(kernel)
    assert table["within"].mean() >= 0.95
    assert 0.9 <= table["ratio"].median() <= 1.1


@pytest.mark.parametrize(
    ("kernel", "share"), [("cublas", 0.9), ("flash-llm", 0.9), ("flash-llm-noreorder", 0.85), ("bitmap", 0.9)]
)
def test_intervals_of_measured_kernels_hold_what_the_simulator_says(kernel: str, share: float) -> None:
    """Both were fitted on evidence of one or two GPUs; the limit is a little below what is reached.

    Without reordering both follow one rerun of 12 medians, at 8 to 32 tokens; at 64 and beyond nothing ties them.
    """
    table = grid(kernel)
    assert table["within"].mean() >= share
    assert 0.85 <= table["ratio"].median() <= 1.15


@pytest.mark.parametrize("kernel", list(PREDICTED_BY))
def test_both_name_the_same_bound_in_most_cases(kernel: str) -> None:
    table = grid(kernel)
    assert (table["bound"] == table["simulated_bound"]).mean() >= 0.6
