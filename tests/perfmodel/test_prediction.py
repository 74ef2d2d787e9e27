"""The front door for one product: arrays and scalars agree, bad input names value and remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.prediction import predict_table
from tests.perfmodel.cases import CASE


def test_arrays_broadcast_and_agree_with_scalars() -> None:
    p = predict("flash-llm", "a100-80gb", m=np.array([7168, 36864])[:, None], k=9216, n=8, sparsity=[0.6, 0.8, 0.9])
    assert p.time_s.shape == p.bound.shape == p.extrapolated.shape == p.dram_bytes.shape == (2, 3)
    single = predict("flash-llm", "a100-80gb", m=36864, k=9216, n=8, sparsity=0.8)
    assert float(p.time_s[1, 1]) == float(single.time_s)


def test_table_keeps_the_order_of_its_rows() -> None:
    rows = pd.DataFrame(
        {
            "gpu": ["h100", "a100-80gb", "h100"],
            "m": [4096, 36864, 4096],
            "k": [4096, 9216, 4096],
            "n": [8, 8, 16],
            "sparsity": [0.5, 0.8, 0.5],
            "kernel": ["flash-llm", "cublas", "sputnik"],
        }
    )
    predicted = predict_table(rows)
    for i, row in rows.iterrows():
        alone = predict(row["kernel"], row["gpu"], row["m"], row["k"], row["n"], row["sparsity"])
        assert predicted.loc[i, "time_us"] == pytest.approx(float(alone.time_s) * 1e6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 12}, "flash-llm takes N of 8, 16, 32, 64 or a multiple of 128, got 12; pad N to 16"),
        ({"m": 0}, "m must be at least 1, got 0"),
        ({"k": -5}, "k must be at least 1, got -5"),
        ({"n": float("nan")}, "n must be at least 1, got nan"),
        ({"sparsity": 80}, "did you mean 0.8"),
        ({"kernel": "flashllm"}, "did you mean flash-llm"),
        ({"gpu": "a100"}, "did you mean a100-"),
    ],
)
def test_bad_input_names_value_and_remedy(change: dict[str, object], message: str) -> None:
    arguments = {"kernel": "flash-llm", "gpu": "a100-80gb", **CASE, "sparsity": 0.8} | change
    with pytest.raises(ValueError, match=message):
        predict(**arguments)
