"""The front door for one product: arrays and scalars agree, bad input names value and remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.kernels import KERNELS, kernel_model
from perfmodel.prediction import predict_all, predict_table
from tests.perfmodel.cases import CASE
from tests.perfmodel.kernels.running import RUNNING


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


def test_a_table_may_say_how_activations_come() -> None:
    row = {"gpu": "h100", "m": 4096, "k": 4096, "n": 8, "sparsity": 0.0}
    rows = pd.DataFrame([row | {"kernel": kernel} for kernel in ("fp8", "cublas", "fp8")])
    told = predict_table(rows.assign(activations=["quantised", "quantised", "fp16"]))["time_us"]
    untold = predict_table(rows)["time_us"]
    assert told[0] < untold[0]
    assert list(told[1:]) == list(untold[1:])


@pytest.mark.parametrize(("gpu", "sparsity"), [("a100-80gb", 0.8), ("h100", 0.0), ("b200", 0.25), ("mi300x", 0.5)])
def test_all_kernels_of_a_gpu_each_at_the_sparsity_it_takes(gpu: str, sparsity: float) -> None:
    """Patterns at their own, whichever is asked for; what the GPU or the tokens rule out is passed over."""
    found = {p.kernel: (n, p) for n, p in predict_all(gpu, 4096, 4096, 12, sparsity)}
    assert set(found) == {kernel for card, kernel in RUNNING if card == gpu} - {"macko"}
    for kernel, (n, p) in found.items():
        own = float(KERNELS[kernel].own_sparsity(sparsity))
        assert own == sparsity or KERNELS[kernel].patterns
        assert n == float(KERNELS[kernel].padded_n(12))
        assert float(p.time_s) == float(predict(kernel, gpu, 4096, 4096, n, own).time_s)


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
        ({"kernel": "fp8"}, "has no FP8 Tensor Cores"),
        ({"kernel": "two-four"}, r"two-four takes the sparsity of its pattern, 0.5 \(2:4\), got 0.8"),
        ({"activations": "fp8"}, "activations is 'fp8', allowed are fp16, quantised"),
    ],
)
def test_bad_input_names_value_and_remedy(change: dict[str, object], message: str) -> None:
    arguments = {"kernel": "flash-llm", "gpu": "a100-80gb", **CASE, "sparsity": 0.8} | change
    with pytest.raises(ValueError, match=message):
        predict(**arguments)


SMALL = [(64, 64), (256, 256), (512, 512), (1024, 1024), (64, 4096), (4096, 64)]


@pytest.mark.parametrize("gpu", ["a100-80gb", "h100", "b200", "rtx-4090", "l4", "v100", "t4"])
@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("n", [1, 8, 64])
def test_no_16_bit_kernel_beats_dense_where_launches_decide(gpu: str, size: tuple[int, int], n: int) -> None:
    """At sparsity 0 it has no fewer bytes to read, and starts no sooner, but for what is assumed of its ends."""
    found = {p.kernel: p for _, p in predict_all(gpu, *size, n, 0.0)}
    dense = found["cublas"]
    for other in found.values():
        model = kernel_model(other.kernel)
        if model.format.change in ("lossless", "pruned") and not model.patterns:
            assert float(other.time_s) > 0.98 * float(dense.time_s), other.kernel
