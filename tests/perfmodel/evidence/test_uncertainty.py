"""Intervals: coverage on rows no fit saw, wider outside the evidence, and the decode kernels on held-out rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.evidence.kernel_fit import BOXPLOT_TOKENS
from perfmodel.evidence.rows import boxplot_speedups, launched_by_graph
from perfmodel.evidence.uncertainty import coverage, quantile
from perfmodel.evidence.validation import join_predictions
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import calibrated, kernel_fits

CASE = {"m": 36864, "k": 9216, "n": 8}


@pytest.fixture(scope="module")
def joined() -> pd.DataFrame:
    return join_predictions()


def test_ninety_percent_intervals_cover_about_ninety_percent(joined: pd.DataFrame) -> None:
    table = coverage(joined, kernel_fits())
    by_group = table.groupby("where")["covered"].mean()
    assert by_group.between(0.85, 0.95).all(), by_group
    overall = (table["covered"] * table["rows"]).sum() / table["rows"].sum()
    assert 0.85 <= overall <= 0.95


@pytest.mark.parametrize("kernel", list(kernel_fits()))
def test_intervals_hold_the_prediction_and_widen_outside(kernel: str) -> None:
    n = 1 if kernel == "macko" else 8
    home = kernel_fits()[kernel].gpus[0]
    sparsity = 0.6 if kernel == "bitmap" else 0.8
    inside = predict(kernel, home, m=36864, k=9216, n=n, sparsity=sparsity)
    outside = predict(kernel, home, m=32, k=32, n=n, sparsity=sparsity)
    abroad = predict(kernel, "b200", m=36864, k=9216, n=n, sparsity=sparsity)
    width = [float(p.hi_s / p.lo_s) for p in (inside, outside, abroad)]
    assert float(inside.lo_s) < float(inside.time_s) < float(inside.hi_s)
    assert width[0] < width[1]
    assert width[0] < width[2]
    assert [bool(p.extrapolated) for p in (inside, outside, abroad)] == [False, True, True]


def test_dense_times_of_an_unseen_gpu_generation(joined: pd.DataFrame) -> None:
    # H100 rows took no part in any fit: predicted from the datasheet.
    rows = joined[(joined["gpu"] == "h100") & (joined["kernel"] == "cublas") & (joined["n"] <= 64)]
    assert len(rows) > 5000
    assert rows["error"].abs().mean() <= 0.12


@pytest.mark.parametrize(("kernel", "goal"), [("quant-llm-w6", 0.06), ("quant-llm-w5", 0.06), ("int8", 0.08)])
def test_quantised_kernels_on_held_out_tokens(joined: pd.DataFrame, kernel: str, goal: float) -> None:
    rows = joined[(joined["kernel"] == kernel) & ~joined["fitted"]]
    assert set(rows["n"]) == {16}
    assert rows["error"].abs().mean() <= goal


def test_bitmap_quartiles_at_held_out_tokens() -> None:
    table = boxplot_speedups(KERNELS["bitmap"], calibrated("bitmap"), calibrated("cublas"))
    held_out = table[~table["n"].isin(BOXPLOT_TOKENS)]
    assert len(held_out) == 12
    assert (held_out["predicted"] / held_out["published"] - 1).abs().mean() <= 0.07


def test_replayed_graphs_are_faster_than_launches(joined: pd.DataFrame) -> None:
    graph = launched_by_graph(joined)
    assert set(joined[graph]["source"]) == {"aiconfigurator-gemm"}
    assert calibrated("cublas").launch_s > 1e-6


def test_quantile_is_the_conformal_one() -> None:
    errors = np.arange(1, 100) / 100  # 99 values: the 90th of 99
    assert quantile(errors) == pytest.approx(0.9, abs=0.01)
    assert quantile(-errors) == quantile(errors)
