"""Measured spreads: coverage on rows no fit saw, and the conformal quantile."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.catalog import load_gpu
from perfmodel.evidence.kernel_fit import BOXPLOT_GPU, BOXPLOT_SOURCE, boxplot_baseline
from perfmodel.evidence.rows import kernel_evidence
from perfmodel.evidence.speedups import boxplot_shapes, boxplots
from perfmodel.evidence.uncertainty import coverage, quantile
from perfmodel.kernels import KERNELS, Call, Machine, Shape
from perfmodel.kernels.fits import calibrated, kernel_fits

CASE = {"m": 36864, "k": 9216, "n": 8}


def test_ninety_percent_intervals_cover_about_ninety_percent(joined: pd.DataFrame) -> None:
    """Over all rows, and over those of each kind; in the L2 a B200's errors set the width, and A100 rows need less."""
    table = coverage(joined, kernel_fits())
    table["inside"] = table["covered"] * table["rows"]
    assert 0.85 <= table["inside"].sum() / table["rows"].sum() <= 0.95
    kinds = table.groupby("where")[["inside", "rows"]].sum()
    assert (kinds["inside"] / kinds["rows"]).between(0.85, 0.99).all(), kinds


def test_intervals_of_dense_and_flash_llm_are_narrow(joined: pd.DataFrame) -> None:
    """Median upper over lower end of products from device memory.

    Flash-LLM's reaches to its encoder without reordering: on an A100 two sources are a third apart.
    """
    table = coverage(joined, kernel_fits())
    table = table[~table["where"].str.contains("L2")].set_index(["kernel", "gpu"])["width"]
    assert table["cublas"].median() <= 1.45
    assert table["flash-llm"]["rtx-a5000"] <= 1.65
    assert table["flash-llm"]["a100-80gb"] <= 1.65


def test_flash_llm_holds_both_sources_on_an_a100() -> None:
    """Medians of the rerun without reordering, and figure 9, inside one interval."""
    published = boxplots()
    published = published[(published["source"] == BOXPLOT_SOURCE) & (published["kernel"] == "flash-llm-noreorder")]
    baseline = boxplot_baseline(kernel_evidence(calibrated("cublas")))
    shapes, machine = boxplot_shapes(), Machine.of(load_gpu(BOXPLOT_GPU))
    m, k = shapes["m"].to_numpy(), shapes["k"].to_numpy()
    assert len(published) == 12
    for row in published.itertuples():
        dense_s = KERNELS["cublas"].time(machine, Shape.of(m, k, row.n, 0), baseline, Call(warm=True)).time_s
        p = predict("flash-llm", BOXPLOT_GPU, m, k, row.n, row.sparsity, cache="warm")
        assert np.median(dense_s / p.hi_s) <= row.speedup_median <= np.median(dense_s / p.lo_s), row


def test_quantile_is_the_conformal_one() -> None:
    errors = np.arange(1, 100) / 100  # 99 values: the 90th of 99
    assert quantile(errors) == pytest.approx(0.9, abs=0.01)
    assert quantile(-errors) == quantile(errors)
