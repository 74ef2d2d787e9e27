"""Power against what boards drew while they served: the fitted H100, and the boards that were held out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from perfmodel.catalog import load_calibration, load_gpu, load_model, load_sources
from perfmodel.evidence.power_fit import FIT_GPU, busy_shares, fit, log_errors, measured_power
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.energy import AWAY, CALIBRATION_NAME, HOME, PowerParameters

GPUS = ("h100", "b200", "a100-40gb", "a100-80gb", "rtx-3090", "rtx-6000-ada")


@pytest.fixture(scope="module")
def fitted():
    return fit()


@pytest.fixture(scope="module")
def counted(fitted):
    rows = measured_power()
    rows = rows[rows["dram_busy"].notna()].reset_index(drop=True)
    return rows.assign(error=log_errors(rows, PowerParameters(**fitted.parameters)))


def test_table_is_whole():
    rows = measured_power()
    assert len(rows) >= 25
    assert rows["source"].nunique() >= 4
    assert set(rows["source"]) <= set(load_sources())
    assert set(rows["phase"]) == {"decode", "prefill", "serve"}
    assert rows["share"].between(0.15, 1.0).all()
    assert not rows.duplicated(["gpu", "model", "phase", "batch", "gpus", "weight_bits", "power_w", "source"]).any()
    for gpu, group in rows.groupby("gpu"):
        assert group["limit_w"].eq(load_gpu(gpu).power.tdp_w).all()


def test_busy_shares_by_hand():
    row = SimpleNamespace(
        gpu="h100", model="llama-3.1-8b", batch=10, input_len=100, output_len=200, gpus=2, weight_bits=16,
        tokens_per_s=1000, source="ml-energy-v3",
    )  # fmt: skip
    shape = load_model("llama-3.1-8b").shape
    weights = shape.parameters - shape.vocab_size * shape.hidden_size - shape.vectors  # the token table is not read
    step_bytes = 2 * weights + 2 * 32 * 2 * 8 * 128 * 10 * 200  # 10 sequences of 100 + 200 / 2 tokens
    dram, tensor = busy_shares(row)
    assert dram == pytest.approx(step_bytes * 100 / 2 / (0.849557 * 3350e9), rel=1e-3)
    # 1000 tokens generated and 500 read a second, on two boards; a board carries about 0.8 of 989 TFLOP/s.
    assert tensor == pytest.approx(2 * shape.weights() * 1500 / 2 / 790e12, rel=0.02)


def test_8_bit_weights_move_half_the_bytes():
    rows = measured_power().query("model == 'llama-3.1-405b' and gpu == 'b200' and batch < 9").set_index("weight_bits")
    step = rows["dram_busy"] * rows["gpus"] / rows["tokens_per_s"] * rows["batch"]
    assert step[8] / step[16] == pytest.approx(0.5, abs=0.02)


def test_fit_sees_one_kind_of_board(fitted, counted):
    assert fitted.gpus == [FIT_GPU]
    assert fitted.rows == counted["fitted"].sum() == (counted["gpu"] == FIT_GPU).sum() >= 50
    assert set(counted["gpu"]) == set(GPUS)
    assert fitted.evidence_range["dram_busy"][0] < 0.05 < 0.7 < fitted.evidence_range["dram_busy"][1]


def test_errors_at_home_and_on_other_boards(fitted, counted):
    size = np.abs(np.expm1(counted["error"]))
    at_limit = np.abs(1 / counted["share"] - 1)  # what "every board at its limit" is off by
    home = counted["fitted"]
    assert fitted.mean_absolute_error == pytest.approx(size[home].mean(), rel=1e-3)
    assert size[home].mean() < 0.065 < 0.9 < at_limit[home].mean()
    assert size[~home].mean() < 0.145 < 0.7 < at_limit[~home].mean()
    assert abs(counted["error"][~home].mean()) < 0.05


# Known misses: several B200 with a 405B model draw up to 37 % more than said, several A100 with a 70B model less.
@pytest.mark.parametrize(("gpu", "bias"), [("b200", -0.10), ("a100-40gb", 0.14), ("a100-80gb", 0.06)])
def test_bias_of_other_boards(counted, gpu, bias):
    assert counted.loc[counted["gpu"] == gpu, "error"].mean() == pytest.approx(bias, abs=0.02)


def test_intervals_hold_held_out_rows(fitted, counted):
    inside = counted["error"].abs() <= np.where(counted["fitted"], fitted.spread[HOME], fitted.spread[AWAY])
    assert inside[~counted["fitted"]].mean() >= 0.9
    assert inside[counted["fitted"]].mean() >= 0.9
    assert 0.1 < fitted.spread[HOME] < fitted.spread[AWAY] < 0.4


def test_single_phases_fall_where_the_model_puts_them(fitted):
    """Of rows without a count the phase is known: decoding uses no Tensor Cores to speak of, prompts saturate them."""
    awake, memory = fitted.parameters["awake"], fitted.parameters["memory"]
    rows = measured_power().query("phase != 'serve'").set_index(["source", "phase"])["share"]
    decode_w = rows.xs("decode", level="phase")
    slack = np.exp(fitted.spread[AWAY])
    for source in ("1cat-vllm-535", "power-capping-illusion"):
        assert (decode_w[[source]] >= awake / slack).all()
        assert (decode_w[[source]] <= (awake + memory) * slack).all()
    assert rows.xs("prefill", level="phase").min() > awake + memory


@pytest.mark.skipif(CALIBRATION_NAME not in load_calibration(CALIBRATION_FILE), reason="not yet calibrated")
def test_stored_fit_is_reproduced(fitted):
    kept = load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME]
    assert fitted.parameters == pytest.approx(kept.parameters, rel=1e-3)
    assert fitted.spread == pytest.approx(kept.spread, rel=1e-2)
    assert (fitted.rows, fitted.gpus, fitted.fitted_on) == (kept.rows, kept.gpus, kept.fitted_on)
