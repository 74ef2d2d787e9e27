"""Expert layers as three engines run them: the table, the fit, what was held out."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_calibration, load_sources
from perfmodel.evidence.experts_fit import GPUS, PRODUCTS, fit, load_of, measured_experts, predict_experts
from perfmodel.kernels import KERNELS
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.experts import CALIBRATION_NAME, ExpertParameters

MEASURES = {"time_us", "fitted"}
MOST_ROWS = 3000


@pytest.fixture(scope="module")
def rows():
    """All rows; ``size`` is the error of the time."""
    table = measured_experts()
    return table.assign(size=np.abs(predict_experts(table) / (table["time_us"] * 1e-6) - 1))


def test_table_is_tidy(rows):
    assert set(rows["gpu"]) == set(GPUS)
    assert rows["gpu"].value_counts().max() <= MOST_ROWS
    assert set(rows["source"]) <= set(load_sources())
    assert not rows.duplicated([name for name in rows if name not in MEASURES | {"size"}]).any()
    assert set(rows["dtype"]) == set(PRODUCTS)
    assert set(PRODUCTS.values()) <= set(KERNELS)


def test_other_engines_other_types_spread_experts_and_one_model_are_held_out(rows):
    fitted = rows[rows["fitted"]]
    assert set(fitted["engine"]) == {"vllm"}
    assert set(fitted["expert_parallel"]) == {1}
    assert set(fitted["dtype"]) == {"bfloat16", "fp8-block"}
    assert set(fitted.loc[fitted["gpu"] == "gb200", "dtype"]) == {"bfloat16"}
    assert 2048 not in set(fitted["hidden"])


def test_stored_parameters_are_the_fit(rows):
    stored, made = load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME], fit()
    assert made.parameters == pytest.approx(stored.parameters, rel=1e-3)
    assert (made.rows, made.gpus) == (stored.rows, stored.gpus)
    assert rows.loc[rows["fitted"], "size"].mean() == pytest.approx(stored.mean_absolute_error, rel=1e-3)


@pytest.mark.parametrize(
    ("gpu", "engine", "dtype", "bound"),
    [
        ("a100-80gb", "sglang", "bfloat16", 0.08),
        ("a100-80gb", "sglang", "int4", 0.12),
        ("a100-80gb", "tensorrt-llm", "bfloat16", 0.10),
        ("gb200", "vllm", "fp8", 0.18),
        ("gb200", "vllm", "fp8-block", 0.17),
        ("gb200", "vllm", "nvfp4", 0.26),
        ("h100", "sglang", "bfloat16", 0.13),
        ("h100", "sglang", "fp8-block", 0.09),
        ("h100", "tensorrt-llm", "bfloat16", 0.09),
        ("h100", "tensorrt-llm", "fp8", 0.11),
        ("h100", "tensorrt-llm", "fp8-block", 0.13),
        ("h100", "vllm", "int4", 0.11),
    ],
)
def test_median_error_of_what_was_held_out(rows, gpu, engine, dtype, bound):
    asked = (rows["gpu"] == gpu) & (rows["engine"] == engine) & (rows["dtype"] == dtype)
    held_out = rows[asked & ~rows["fitted"] & (rows["expert_parallel"] == 1)]
    assert len(held_out) >= 30
    assert held_out["size"].median() <= bound


@pytest.mark.parametrize(("gpu", "bound"), [("a100-80gb", 0.13), ("h100", 0.08), ("gb200", 0.10)])
def test_model_that_no_fit_saw(rows, gpu, bound):
    qwen = (rows["hidden"] == 2048) & (rows["engine"] == "vllm") & (rows["dtype"] == "bfloat16")
    assert rows.loc[qwen & (rows["gpu"] == gpu) & (rows["expert_parallel"] == 1), "size"].median() <= bound


def test_one_tall_product_is_near_with_nothing_fitted(rows):
    fitted = rows[rows["fitted"] & (rows["gpu"] == "h100") & (rows["tokens"] >= 16)]
    plain = predict_experts(fitted, ExpertParameters(1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    assert np.median(np.abs(plain / (fitted["time_us"] * 1e-6) - 1)) < 0.15


def test_dealt_tokens_are_even(rows):
    dealt = rows[(rows["routing"] == "balanced") & (rows["experts"] == 128) & (rows["per_token"] == 8)]
    load = load_of(dealt)
    tokens, gpus = dealt["tokens"].to_numpy(), dealt["expert_parallel"].to_numpy()
    assert np.all(load.spread == 0)
    assert load.active[(tokens == 4) & (gpus == 1)] == pytest.approx(32)
    assert load.each[(tokens == 2048) & (gpus == 8)] == pytest.approx(128)
