"""All GPU kernels without a GPU."""

from __future__ import annotations

import numpy as np

from kernels_numba.formats import Dense, encode_bitmap, encode_csr, encode_tiled_csl
from kernels_numba.gpu.emulate import emulate


def test_extreme_values_survive() -> None:
    """Largest, smallest and subnormal fp16 weights, each alone in its row."""
    values = np.array([65504, -65504, 6.1e-5, 6e-8, -6e-8, 1.0], np.float16)
    a = np.zeros((6, 64), np.float16)
    a[np.arange(6), np.arange(6) * 9] = values
    x = np.zeros((64, 8), np.float16)
    x[np.arange(6) * 9, :] = 1
    for encode in (encode_tiled_csl, Dense, encode_csr, encode_bitmap):
        out, _ = emulate(encode(a), x, out_dtype=np.float32)
        np.testing.assert_array_equal(out, np.repeat(values[:, None], 8, axis=1).astype(np.float32))
