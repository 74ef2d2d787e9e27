"""The judge of all kernels."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import Dense
from kernels_numba.reference import check_product
from kernels_numba.spmm import spmm
from tests.kernels_numba.problems import random_problem


def test_check_product_names_the_worst_element() -> None:
    a, x = random_problem(130, 70, 12, 0.3)
    weights = Dense(a)
    out = spmm(weights, x, backend="reference", out_dtype=np.float32)
    out[17, 3] += 1
    with pytest.raises(AssertionError, match=r"1 of 1560 elements are wrong; worst at \(17, 3\): got"):
        check_product(out, weights, x)
    out[17, 3] = np.nan
    with pytest.raises(AssertionError, match=r"\(17, 3\): got np.float32\(nan\)"):
        check_product(out, weights, x)
