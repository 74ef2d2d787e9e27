"""The CSR kernel: its compiled PTX on the emulator."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import encode_csr
from kernels_numba.gpu.emulate import emulate
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.problems import random_problem


@pytest.mark.parametrize(("m", "k"), [(1, 1), (5, 63), (8, 200)])
def test_shapes(m: int, k: int) -> None:
    check(encode_csr, m, k, 8, 0.3, out_dtype=np.float32)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_extreme_densities(density: float) -> None:
    check(encode_csr, 6, 130, 16, density, out_dtype=np.float32)


@pytest.mark.parametrize("n", [7, 16, 40, 72])
def test_any_number_of_columns(n: int) -> None:
    check(encode_csr, 7, 96, n, 0.4, out_dtype=np.float32)


def test_16_bit_column_indices() -> None:
    a, x = random_problem(6, 70, 16, 0.4)
    narrow, wide = (emulate(encode_csr(a, index_bits=bits), x)[0] for bits in (16, 32))
    np.testing.assert_array_equal(narrow, wide)
