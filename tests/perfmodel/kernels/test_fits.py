"""Fits in use: checked when read, extrapolation marked, intervals that widen, and kernels without a fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel import catalog, predict
from perfmodel.catalog import data_directory, load_gpu
from perfmodel.kernels import CPU_KERNELS, KERNELS, Machine, Shape
from perfmodel.kernels.call import FIRST_CALL
from perfmodel.kernels.fits import (
    MANY_TOKENS,
    SPREADS,
    calibrated,
    extrapolated,
    interval,
    kernel_fits,
    unmeasured_kernels,
)
from tests.perfmodel.cases import CASE, OURS
from tests.perfmodel.kernels.running import RUNNING, at_sparsity, home, tokens
from tests.perfmodel.machines import round_cpu

CALIBRATION = json.loads((data_directory() / catalog.CALIBRATION_FILE).read_text(encoding="utf-8"))

SPREAD = dict.fromkeys(SPREADS, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cublass": CALIBRATION["cublas"]}, "unknown kernel 'cublass': did you mean cublas?"),
        ({"spread": {}}, f"cublas: spread has no keys, needed are {', '.join(SPREADS)}"),
        ({"spread": {"inside": 0.1, "range": 0.1}}, "cublas: spread has inside, range, needed are inside, many, resid"),
        ({"spread": SPREAD | {"gpu": float("nan")}}, "cublas: spread.gpu is nan, allowed is 0 to 10"),
        ({"spread": SPREAD | {"inside": -1}}, "cublas: spread.inside is -1.0, allowed is 0 to 10"),
        ({"spread": {"inside": "x"}}, "cublas.spread[...]: Expected 'float', got 'str'"),
        ({"parameters": {"launch_s": 1e-6}}, "cublas: parameters has launch_s, needed are bandwidth_eff"),
        ({"evidence_range": {"m": [1, 2]}}, "cublas: evidence_range has m, needed are m, k, n, sparsity"),
        ({"mood": "good"}, "cublas: unknown key 'mood'"),
        ({"rows": 0}, "cublas.rows is 0: Expected 'int' >= 1"),
    ],
)  # fmt: skip
def test_a_users_own_fit_is_checked(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.json"
    monkeypatch.setenv("LSCD_CALIBRATION", str(path))
    path.write_text(json.dumps(CALIBRATION), encoding="utf-8")
    assert set(kernel_fits()) == set(CALIBRATION)
    broken = CALIBRATION | (change if "cublass" in change else {"cublas": CALIBRATION["cublas"] | change})
    path.write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
        kernel_fits()
    assert f"mine.json: {message}" in str(refusal.value)


def inside_evidence(kernel: str) -> tuple[dict[str, float], float]:
    """A product that the evidence of ``kernel`` encloses, as large as it is known, and few tokens."""
    ends = kernel_fits()[kernel].evidence_range
    sizes = {axis: min(size, ends[axis][1]) for axis, size in CASE.items()}
    n = 1 if kernel == "cusparse" else max(tokens(kernel, 8), ends["n"][0])
    sparsity = 0.6 if kernel in ("bitmap", "flash-llm-noreorder") else at_sparsity(kernel)
    return sizes | {"n": n}, sparsity


@pytest.mark.parametrize("kernel", list(kernel_fits()))
def test_intervals_hold_the_prediction_and_widen_outside(kernel: str) -> None:
    at, sparsity = inside_evidence(kernel)
    inside = predict(kernel, home(kernel), **at, sparsity=sparsity)
    outside = predict(kernel, home(kernel), **at | {"m": 32, "k": 32}, sparsity=sparsity)
    abroad = predict(kernel, round_cpu() if kernel in CPU_KERNELS else "b200", **at, sparsity=sparsity)
    width = [float(p.hi_s / p.lo_s) for p in (inside, outside, abroad)]
    assert float(inside.lo_s) < float(inside.time_s) < float(inside.hi_s)
    assert width[0] < width[1]
    # A fitted GPU may be known less well than the fitted ones together: its own errors set the width there.
    spread = kernel_fits()[kernel].spread["many" if at["n"] > MANY_TOKENS else "inside"]
    assert width[2] > np.exp(2 * spread)
    assert [bool(p.extrapolated) for p in (inside, outside, abroad)] == [False, True, True]


def test_extrapolation_is_marked() -> None:
    fit = kernel_fits()["flash-llm"]
    inside = extrapolated(fit, "a100-80gb", 36864, 9216, 8, 0.8)
    assert not inside
    for gpu, m, k, n, sparsity in (
        ("h100", 36864, 9216, 8, 0.8),
        ("a100-80gb", 1024, 9216, 8, 0.8),
        ("a100-80gb", 36864, 9216, 128, 0.8),
        ("a100-80gb", 36864, 9216, 8, 0.3),
    ):
        assert extrapolated(fit, gpu, m, k, n, sparsity)
    assert not extrapolated(kernel_fits()["cublas"], "a100-80gb", 36864, 9216, 8, 0.8)


@pytest.mark.parametrize(("gpu", "kernel"), [pair for pair in RUNNING if pair[1] in unmeasured_kernels()])
def test_every_prediction_is_an_extrapolation_with_the_range_of_its_assumptions(gpu: str, kernel: str) -> None:
    model, machine = KERNELS[kernel], Machine.of(load_gpu(gpu))
    p = predict(kernel, gpu, m=[[4096], [36864]], k=9216, n=16, sparsity=[0.4, 0.8])
    assert p.extrapolated.shape == (2, 2)
    assert p.extrapolated.all()
    fast, slow = model.at_ends()
    shape = Shape.of([[4096], [36864]], 9216, 16, [0.4, 0.8])
    np.testing.assert_array_equal(p.lo_s, model.time(machine, shape, fast).time_s)
    np.testing.assert_array_equal(p.hi_s, model.time(machine, shape, slow).time_s)
    assert (p.lo_s < p.time_s).all()
    assert (p.time_s < p.hi_s).all()


def test_interval_and_mark_need_no_fit() -> None:
    model, machine = KERNELS[OURS], Machine.of(load_gpu("l40s"))
    shape = Shape.of(4096, 4096, 8, 0.5)
    result = model.time(machine, shape, calibrated(OURS))
    lo_s, hi_s = interval(model, {}, "l40s", machine, shape, FIRST_CALL, result)
    assert lo_s < result.time_s < hi_s
    assert extrapolated(None, "l40s", np.ones((3, 1)), 1, np.ones(2), 0.5).shape == (3, 2)


def test_a_calibration_that_lacks_a_measured_kernel_is_refused() -> None:
    incomplete = {name: entry for name, entry in kernel_fits().items() if name != "flash-llm"}
    with pytest.raises(ValueError, match="no kernel 'flash-llm'"):
        calibrated("flash-llm", incomplete)
