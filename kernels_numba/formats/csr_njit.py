"""Compiled loops behind `csr`: counting, filling and decoding on bit patterns, rows in parallel.

An element is zero when all its bits but the sign are; ``magnitude`` masks the sign off (0x7fff or 0x7fffffff).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels_numba.jit import parallel

Bits = NDArray[Any]  # uint16 or uint32


@parallel
def count_row_nonzeros(bits: Bits, magnitude: Any) -> NDArray[np.int64]:
    """Count the non-zeros in each row of ``bits`` (m, k)."""
    m, k = bits.shape
    counts = np.empty(m, np.int64)
    for i in prange(m):
        count = 0
        for j in range(k):
            count += (bits[i, j] & magnitude) != 0
        counts[i] = count
    return counts


@parallel
def fill_rows(bits: Bits, magnitude: Any, row_ptr: Any, col_idx: Any, values: Any) -> None:
    """Write columns and bit patterns of the non-zeros, row by row in ascending columns, into ``col_idx, values``."""
    m, k = bits.shape
    for i in prange(m):
        at = np.int64(row_ptr[i])
        for j in range(k):
            if bits[i, j] & magnitude:
                col_idx[at] = j
                values[at] = bits[i, j]
                at += 1


@parallel
def scatter_rows(row_ptr: Any, col_idx: Any, values: Any, out: Bits) -> None:
    """Write each CSR value to its place in ``out`` (m, k), which holds zeros."""
    for i in prange(out.shape[0]):
        for at in range(row_ptr[i], row_ptr[i + 1]):
            out[i, col_idx[at]] = values[at]
