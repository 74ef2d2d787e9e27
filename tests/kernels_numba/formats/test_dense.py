"""Dense weights, as every format's reference."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import Dense
from tests.kernels_numba.problems import random_bits, without_minus_zero


def test_dense_keeps_every_bit():
    bits = random_bits((5, 7), 1)
    bits[0, 0] = 0x8000
    dense = Dense(bits.view(np.float16))
    np.testing.assert_array_equal(dense.decode().view(np.uint16), bits)
    assert dense.nbytes == 70
    assert dense.nnz == np.count_nonzero(without_minus_zero(bits))


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda: Dense([[1.0]]), "dtype: list"),
    ],
)
def test_bad_input_is_named(encode, message):
    with pytest.raises(ValueError, match=message):
        encode()
