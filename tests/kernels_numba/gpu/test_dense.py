"""The dense kernel, our own baseline."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import Dense
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel
from tests.kernels_numba.gpu.products import check


@pytest.mark.parametrize(("m", "k"), [(1, 1), (127, 63), (128, 64), (129, 65), (257, 193)])
def test_shapes(m: int, k: int) -> None:
    check(Dense, m, k, 8, 0.3, out_dtype=np.float32)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_extreme_densities(density: float) -> None:
    check(Dense, 6, 130, 16, density, out_dtype=np.float32)


@pytest.mark.parametrize("n", [7, 16, 40, 72])
def test_any_number_of_columns(n: int) -> None:
    check(Dense, 7, 96, n, 0.4, out_dtype=np.float32)


@pytest.mark.parametrize("split_k", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("out_dtype", [np.float16, np.float32])
def test_split_k(split_k: int, out_dtype: type) -> None:
    check(Dense, 130, 5 * 64 + 3, 16, 0.4, split_k=split_k, out_dtype=out_dtype)


def test_dense_needs_one_barrier_a_tile() -> None:
    loop = compile_kernel(variants.dense(16), "sm_80").main_loop
    assert loop["barrier"] == 1
    assert loop["async_copy"] == 8 + 1
    assert loop["scatter"] == loop["shared_store"] == 0
