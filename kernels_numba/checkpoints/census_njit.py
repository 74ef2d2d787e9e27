"""Compiled loop behind ``census.py``: what formats need to know about a block of float16 bit patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from kernels_numba.formats import TILE_K, TILE_M
from kernels_numba.formats.layout import MAGNITUDE_16
from kernels_numba.formats.tiled_csl_njit import Bits
from kernels_numba.jit import parallel

STRIP_M = 32


@parallel
def count_block(bits: Bits, max_gap: int, strip_nnz: Any, strip_pairs: Any, spilled: Any, gap_padding: Any) -> None:
    """Count the non-zeros of a block of rows that begins at a tile's first row.

    strip_nnz : (strips_m, tiles_k) int64, non-zeros of each strip of 32 rows of a tile.
    strip_pairs : the same of pairs of neighbouring columns with a non-zero.
    spilled : (tiles_m,) int64, third and fourth non-zeros of aligned groups of 4 columns.
    gap_padding : (tiles_m,) int64, zeros a format must store because a gap reaches ``max_gap`` columns at most.
    """
    m, k = bits.shape
    for tile_row in prange(spilled.size):
        for i in range(tile_row * TILE_M, min(m, (tile_row + 1) * TILE_M)):
            last = -1
            in_group = 0
            for j in range(k):
                if j % 4 == 0:
                    in_group = 0
                if bits[i, j] & MAGNITUDE_16 != np.uint16(0):
                    strip_nnz[i // STRIP_M, j // TILE_K] += 1
                    strip_pairs[i // STRIP_M, j // TILE_K] += j >> 1 != last >> 1
                    in_group += 1
                    spilled[tile_row] += in_group > 2
                    gap_padding[tile_row] += (j - last - 1) // max_gap
                    last = j
