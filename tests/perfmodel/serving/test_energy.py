"""Power of a board by hand, in its limits, and its interval."""

from __future__ import annotations

import math
from dataclasses import fields

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import load_calibration, load_gpu
from perfmodel.serving import energy
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.energy import (
    CALIBRATION_NAME,
    PowerParameters,
    board_power_w,
    calibrated_power,
    power_share,
    sustained_bytes_per_s,
    sustained_flops_share,
)

H100 = load_gpu("h100")
PARTS = PowerParameters(awake=0.25, memory=0.5, compute=1.25)
stored = pytest.mark.skipif(CALIBRATION_NAME not in load_calibration(CALIBRATION_FILE), reason="not yet calibrated")


def test_power_by_hand():
    # 700 W: a quarter awake, half of a half for DRAM, an eighth of the Tensor Cores' share for the rest.
    low, mean, high = board_power_w(H100, 0.5, 0.1, PARTS, spread=math.log(1.25))
    assert float(mean) == pytest.approx(700 * (0.25 + 0.25 + 0.125))
    assert (float(low), float(high)) == pytest.approx((float(mean) / 1.25, float(mean) * 1.25))


def test_busy_board_stays_at_its_limit():
    low, mean, high = board_power_w(H100, 1.0, [0.5, 1.0, 7.0], PARTS, spread=0.2)
    assert mean.tolist() == high.tolist() == [700] * 3
    assert low == pytest.approx(700 * math.exp(-0.2))


def test_power_grows_with_each_busy_share():
    dram, tensor = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9), indexing="ij")
    share = power_share(dram, tensor, PARTS)
    assert share.shape == (9, 9)
    assert np.all(np.diff(share, axis=0) >= 0)
    assert np.all(np.diff(share, axis=1) >= 0)
    assert share.min() == PARTS.awake
    assert share.max() == 1


def test_a_limit_in_watts_serves_as_a_board():
    assert board_power_w(350, 0.3, 0.2, PARTS, spread=0)[1] == board_power_w(H100, 0.3, 0.2, PARTS, spread=0)[1] / 2


def test_what_counts_as_wholly_busy():
    assert sustained_bytes_per_s(H100) == pytest.approx(0.85 * 3350e9, rel=0.01)
    assert sustained_flops_share(H100) == pytest.approx(0.80, abs=0.01)  # 795 of 989 TFLOP/s at 700 W


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((H100, -0.1, 0.0), r"dram_busy must be at least 0, got -0\.1"),
        ((H100, 0.0, np.nan), "tensor_busy must be at least 0, got nan"),
        ((0.0, 0.5, 0.5), "power limit must be finite and above 0, got 0"),
        ((math.inf, 0.5, 0.5), "power limit must be finite and above 0, got inf"),
        ((msgspec.structs.replace(H100, power=None), 0.5, 0.5), r"H100.*has no power limit \(power\.tdp_w\)"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        board_power_w(*arguments, PARTS, spread=0.1)


@pytest.mark.parametrize("spread", [{}, {"inside": 0.1}, {"inside": 0.1, "gpu": math.inf}])
def test_fit_without_spreads_is_refused(spread, monkeypatch):
    fitted = next(iter(load_calibration(CALIBRATION_FILE).values()))
    broken = msgspec.structs.replace(fitted, spread=spread)
    monkeypatch.setattr(energy, "load_calibration", lambda _: {CALIBRATION_NAME: broken})
    with pytest.raises(ValueError, match="power: spread is"):
        energy.fitted_power()


def test_missing_fit_is_named(monkeypatch):
    monkeypatch.setattr(energy, "load_calibration", lambda _: {})
    with pytest.raises(ValueError, match="has no 'power'"):
        calibrated_power()


@stored
def test_stored_fit_lies_within_its_ranges():
    parameters = calibrated_power()
    for field in fields(parameters):
        assert field.metadata["low"] < getattr(parameters, field.name) < field.metadata["high"]


@stored
def test_other_boards_are_known_less_well():
    ends = {key: board_power_w(load_gpu(key), 0.5, 0.05) for key in ("h100", "b200")}
    width = {key: float(high / low) for key, (low, _, high) in ends.items()}
    assert width["b200"] > width["h100"] > 1
    by_limit = board_power_w(1000, 0.5, 0.05)
    assert [float(end) for end in by_limit] == [float(end) for end in ends["b200"]]
