"""Sizes that the formats, their compiled loops and the kernels share."""

from __future__ import annotations

import numpy as np

TILE_M, TILE_K = 128, 64  # of a thread block's weights, in every tiled format
TILE_SIZE = TILE_M * TILE_K
WORDS_PER_VECTOR = 4  # one 16-byte load per lane
WARP_SIZE = 32
BANKS = 32
STRIP_M, STRIP_K = 32, 64  # what one warp decodes from a bitmap per step
STRIP_SIZE = STRIP_M * STRIP_K
LANES, CHUNKS, REGISTERS = 32, 8, 4  # of a strip: lanes, 16 x 16 operands, registers an operand takes from a lane
MAGNITUDE_16 = np.uint16(0x7FFF)  # all bits of a 16-bit float but the sign
UNIT_BYTES = 16  # what one asynchronous copy moves: records and the values of a strip begin at multiples of it


def record_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Number of strips along m and k that cover a matrix with whole tiles of 128 rows."""
    return -(-shape[0] // TILE_M) * (TILE_M // STRIP_M), -(-shape[1] // STRIP_K)
