"""Problems of the bench: random weights, copies beyond the cache, the error of a product."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.bench.product import accuracy, random_weights


def test_random_weights_have_the_sparsity_asked_for() -> None:
    a = random_weights(512, 512, 0.8, np.random.default_rng(0))
    assert abs(np.mean(a == 0) - 0.8) < 0.01
    assert len(np.unique(a)) > 200
    magnitudes = np.abs(a[a != 0].astype(np.float32))
    assert magnitudes.min() >= 0.5
    assert magnitudes.max() < 2
    assert abs(np.mean(a.astype(np.float32))) < 0.01


def test_one_lost_weight_is_an_error_and_rounding_is_none() -> None:
    a = random_weights(64, 4096, 0.5, np.random.default_rng(0))
    x = np.random.default_rng(4).standard_normal((4096, 16)).astype(np.float16)
    expected = a.astype(np.float64) @ x
    error = accuracy(expected.astype(np.float16), expected)
    assert 1e-4 < error < 2.0**-11
    row, column = np.argwhere(a)[0]
    a[row, column] = 0
    wrong = (a.astype(np.float64) @ x).astype(np.float16)
    with pytest.raises(ArithmeticError, match=rf"of 1024 elements are wrong; worst at \({row}, "):
        accuracy(wrong, expected)
    wrong[:] = np.nan
    with pytest.raises(ArithmeticError, match="1024 of 1024 elements are wrong"):
        accuracy(wrong, expected)


def test_a_coarser_output_may_err_by_more() -> None:
    expected = np.random.default_rng(0).standard_normal((64, 8))
    rounded = expected * (1 + 2.0**-9)
    with pytest.raises(ArithmeticError):
        accuracy(rounded, expected)
    assert accuracy(rounded, expected, unit=2.0**-8) == pytest.approx(2.0**-9)
