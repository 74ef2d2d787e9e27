"""Measured spreads: coverage on rows no fit saw, and the conformal quantile."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.catalog import load_gpu, load_kernel_times
from perfmodel.evidence.kernel_fit import BOXPLOT_GPU, BOXPLOT_SOURCE, boxplot_baseline
from perfmodel.evidence.rows import kernel_evidence, with_residency
from perfmodel.evidence.speedups import boxplot_shapes, boxplots
from perfmodel.evidence.uncertainty import (
    AT_HOME,
    SMALLEST,
    Residuals,
    at_home,
    coverage,
    left_out_errors,
    quantile,
    with_spread,
)
from perfmodel.kernels import KERNELS, Call, Machine, Shape
from perfmodel.kernels.fits import MANY_TOKENS, SPREADS, calibrated, kernel_fits

CASE = {"m": 36864, "k": 9216, "n": 8}


def test_ninety_percent_intervals_cover_about_ninety_percent(joined: pd.DataFrame) -> None:
    """Over all rows, and over those of each kind; in the L2 a B200's errors set the width, and A100 rows need less."""
    table = coverage(joined, kernel_fits())
    table["inside"] = table["covered"] * table["rows"]
    assert 0.85 <= table["inside"].sum() / table["rows"].sum() <= 0.95
    kinds = table.groupby("where")[["inside", "rows"]].sum()
    assert (kinds["inside"] / kinds["rows"]).between(0.85, 0.99).all(), kinds


def test_intervals_of_dense_and_flash_llm_are_narrow(joined: pd.DataFrame) -> None:
    """Median upper over lower end of products of up to 64 tokens from device memory.

    Flash-LLM's reaches to its encoder without reordering: on an A100 two sources are a third apart.
    """
    table = coverage(joined[joined["n"] <= MANY_TOKENS], kernel_fits())
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


def test_a_gpu_has_a_spread_of_its_own_if_it_was_fitted_and_has_rows_enough() -> None:
    for fitted in kernel_fits().values():
        assert set(fitted.at_home) <= set(fitted.gpus)
        assert all(spread >= SMALLEST for spread in fitted.at_home.values())
        assert all(fitted.spread[kind] >= SMALLEST for kind in SPREADS if kind != "latency")
    assert set(kernel_fits()["fp8"].at_home) == {"gb200", "h100"}  # the library's rows are mostly in the L2


def test_spread_at_home_by_hand() -> None:
    """Usual rows of each GPU: neither short nor in the L2, nor of many tokens; never under `SMALLEST`."""
    count = 3 * AT_HOME
    gpu = np.repeat(np.array(["fine", "rough", "rare"], dtype=object), [AT_HOME, 2 * AT_HOME - 1, 1])
    error = np.where(gpu == "rough", 0.3, 1e-4)
    no = np.zeros(count, dtype=bool)
    rows = Residuals(error, np.zeros(count), no, no, gpu)
    assert at_home(rows) == {"fine": SMALLEST, "rough": 0.3}
    assert at_home(rows, 0.1) == {"fine": 0.1, "rough": 0.3}
    fine = gpu == "fine"
    for unusual in ({"many": fine}, {"resident": fine}, {"latency_share": np.where(fine, 0.5, 0.0)}):
        assert at_home(replace(rows, **unusual)) == {"rough": 0.3}


def test_spread_at_home_is_measured_on_left_out_shapes() -> None:
    """As `with_spread` stores it, for a kernel whose evidence is one table."""
    evidence, stored = kernel_evidence(calibrated("cublas")), kernel_fits()["nvfp4"]
    bare = msgspec.structs.replace(stored, spread={}, at_home={})
    found = with_spread({"nvfp4": bare, "macko": kernel_fits()["macko"]}, evidence)["nvfp4"]
    assert found.at_home == pytest.approx(stored.at_home, rel=1e-3)
    assert set(found.at_home) == {"gb200"}
    own = evidence[(evidence["kernel"] == "nvfp4") & (evidence["status"] == "value") & (evidence["n"] == 16)].head(60)
    worse = own.assign(time_us=2 * own["time_us"])
    mine = with_spread({"nvfp4": bare, "macko": kernel_fits()["macko"]}, evidence, worse)["nvfp4"]
    assert mine.at_home["gb200"] > 0.5 > found.at_home["gb200"]


def test_quantile_is_the_conformal_one() -> None:
    errors = np.arange(1, 100) / 100  # 99 values: the 90th of 99
    assert quantile(errors) == pytest.approx(0.9, abs=0.01)
    assert quantile(-errors) == quantile(errors)


def test_rows_left_out_are_fitted_once_a_table() -> None:
    table, fit = with_residency(load_kernel_times("published/kernel_a100.csv")), kernel_fits()["sputnik"]
    once, again = (left_out_errors("sputnik", table, fit) for _ in range(2))
    assert once is again
    slower = table.assign(time_us=table["time_us"].where(table["n"] == 8, table["time_us"] * 2))
    assert np.abs(left_out_errors("sputnik", slower, fit)[0].error - once[0].error).max() > 1e-3
