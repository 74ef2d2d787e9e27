"""Widening and rounding of the floating-point types of checkpoints."""

import numpy as np

from kernels_numba.checkpoints.census import take_census
from kernels_numba.checkpoints.float_values import as_float16, as_float32


def test_rounding_is_counted() -> None:
    """1 stays; 1 + 2**-12 rounds; 1e-9 becomes zero; 1e6 becomes infinite; NaN and infinity stay."""
    values = np.array([[1, 1 + 2**-12, 1e-9, 1e6, np.nan, np.inf, 0, -0.0]], np.float32)
    narrow, rounding = as_float16(values, "F32")
    assert (rounding.changed, rounding.flushed, rounding.overflowed) == (3, 1, 1)
    assert np.isinf(narrow[0, 3])
    assert np.isnan(narrow[0, 4])
    census = take_census((1, 8), "F32", [values])
    assert census.nnz == 5
    assert census.sparsity == 0.25  # of the checkpoint: the flushed weight is no zero there


def test_bfloat16_widens_exactly() -> None:
    """Sign, 8 bits of exponent with bias 127, 7 bits of fraction; every finite pattern."""
    bits = np.arange(2**16, dtype=np.uint16)
    bits = bits[bits & 0x7F80 != 0x7F80]
    exponent, fraction = (bits >> 7 & 0xFF).astype(np.int64), (bits & 0x7F) / 128
    magnitude = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - 127), fraction * 2.0**-126)
    np.testing.assert_array_equal(as_float32(bits, "BF16"), np.where(bits >> 15, -magnitude, magnitude))


def test_signalling_nans_pass_without_a_warning() -> None:
    wide = np.array([0x7F800001, 0x3F800000], np.uint32).view(np.float32)
    _, rounding = as_float16(wide, "F32")
    assert rounding.changed == 0
    assert np.isnan(as_float32(np.array([0x7C01], np.uint16).view(np.float16), "F16")).all()
