"""Compiled loops behind `two_four`: splitting and decoding on bit patterns, rows in parallel.

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
def split_two_four(bits: Bits, magnitude: Any, values: Any, metadata: Any, residual: Bits) -> None:
    """Move the first two non-zeros of each aligned group of 4 columns from ``residual`` into ``values, metadata``.

    ``residual`` (m, k) starts as a copy of ``bits``; ``values`` and ``metadata`` start as zeros. A group with fewer
    non-zeros keeps explicit zeros; its two positions still ascend, as the hardware's 2:4 metadata demands.
    """
    m, k = bits.shape
    for i in prange(m):
        for group in range(values.shape[1] // 2):
            first, second = -1, -1
            for j in range(4 * group, min(k, 4 * group + 4)):
                if bits[i, j] & magnitude and second < 0:
                    residual[i, j] = 0
                    values[i, 2 * group + (first >= 0)] = bits[i, j]
                    if first < 0:
                        first = j % 4
                    else:
                        second = j % 4
            if first == 3:  # the lone non-zero must take the second slot
                values[i, 2 * group + 1], values[i, 2 * group] = values[i, 2 * group], values[i, 2 * group + 1]
                first = 2
            first = max(first, 0)
            second = second if second > 0 else (3 if first else 1)
            metadata[i, group // 4] |= np.uint16((first | second << 2) << (4 * (group % 4)))


@parallel
def scatter_two_four(values: Any, metadata: Any, out: Bits) -> None:
    """Write the kept values to their places in ``out`` (m, k); explicit zeros change nothing."""
    m, k = out.shape
    for i in prange(m):
        for slot in range(values.shape[1]):
            group = slot // 2
            position = (metadata[i, group // 4] >> (4 * (group % 4) + 2 * (slot % 2))) & 3
            if values[i, slot] and 4 * group + position < k:
                out[i, 4 * group + position] = values[i, slot]
