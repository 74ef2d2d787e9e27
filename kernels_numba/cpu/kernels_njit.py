"""Compiled loops behind ``cpu.py``: sparse weights times a skinny x, with SIMD along n.

Letters: ``width`` lanes per vector (n padded to 8, 16 or 32 per strip of columns); ``x`` (k_padded * width,) flat
float32, one row of x per vector; ``out`` (m * stride,) flat float32, to which the product is added at ``column``.
Blocks of rows run in parallel; nobody shares an output row. Sums are float32, their order is fixed by the loops.

A kernel is made once per width: the width has to be a compile-time constant to become a register.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import prange

from kernels_numba.cpu import simd
from kernels_numba.jit import parallel, serial

TILE_M, TILE_K, WORDS_PER_VECTOR = 128, 64, 4
TILE_SIZE = TILE_M * TILE_K
ROWS = 4  # rows of A that share each load of x


@serial
def widen(values: Any, bfloat16: bool, out: Any) -> None:
    """Write ``values``, bit patterns of 16 or 32 bits, as float32 to the front of ``out``.

    Both start at index 0: with an offset the loops do not vectorise and cost 1.1 ns per value instead of 0.1.
    """
    if values.itemsize == 4:
        for i in range(values.size):
            out[i] = np.uint32(values[i]).view(np.float32)
    elif bfloat16:
        for i in range(values.size):
            out[i] = np.uint32(np.uint32(values[i]) << np.uint32(16)).view(np.float32)
    else:
        for i in range(values.size):
            out[i] = simd.half_to_float(values[i])


@serial
def value_of(word: Any, bfloat16: bool) -> Any:
    """Value in the low half of a Tiled-CSL word, as float32."""
    if bfloat16:
        return np.uint32(word << np.uint32(16)).view(np.float32)
    return simd.half_to_float(np.uint16(word & np.uint32(0xFFFF)))


@serial
def scatter_words(words: Any, bfloat16: bool, tile: Any) -> None:
    """Decode the words of one Tiled-CSL tile into ``tile`` (128 * 64,) float32, row-major and not swizzled."""
    tile[:] = np.float32(0.0)
    for word in words:
        location = np.int64(word >> np.uint32(16))
        swizzle = (location >> 3) & 56  # (row % 8) * 8
        tile[location ^ swizzle] = value_of(word, bfloat16)


@cache
def dense_tile_function(width: int) -> Callable[..., None]:
    """Compile the dense product of one decoded tile for vectors of ``width`` lanes."""

    @serial
    def multiply_tile(tile: Any, rows: int, cols: int, x: Any, out: Any, start: int, stride: int) -> None:
        """Add tile @ x to the rows of ``out`` that begin at ``start``; rows come in groups of 4."""
        for row in range(0, rows, ROWS):
            place = start + row * stride
            sum_0 = simd.load(out, place, simd.zeros(width))
            sum_1 = simd.load(out, place + stride, sum_0)
            sum_2 = simd.load(out, place + 2 * stride, sum_0)
            sum_3 = simd.load(out, place + 3 * stride, sum_0)
            for col in range(cols):
                x_row = simd.load(x, col * width, sum_0)
                at = row * TILE_K + col
                sum_0 = simd.scaled_add(simd.peek(tile, at), x_row, sum_0)
                sum_1 = simd.scaled_add(simd.peek(tile, at + TILE_K), x_row, sum_1)
                sum_2 = simd.scaled_add(simd.peek(tile, at + 2 * TILE_K), x_row, sum_2)
                sum_3 = simd.scaled_add(simd.peek(tile, at + 3 * TILE_K), x_row, sum_3)
            simd.store(out, place, sum_0)
            simd.store(out, place + stride, sum_1)
            simd.store(out, place + 2 * stride, sum_2)
            simd.store(out, place + 3 * stride, sum_3)

    return multiply_tile


@cache
def dense_kernel(width: int) -> Callable[..., None]:
    """Compile the product of dense weights, widened tile by tile, for vectors of ``width`` lanes."""
    multiply_tile = dense_tile_function(width)

    @parallel
    def multiply_dense(values: Any, bfloat16: bool, x: Any, out: Any, stride: int, column: int) -> None:
        """Add A @ x; ``values`` (m, k), ``out`` holds whole groups of 4 rows."""
        m, k = values.shape
        for block in prange(-(-m // TILE_M)):
            tile = np.zeros(TILE_SIZE, np.float32)
            first_row = block * TILE_M
            rows = min(TILE_M, m - first_row)
            for first_col in range(0, k, TILE_K):
                cols = min(TILE_K, k - first_col)
                for row in range(rows):
                    widen(values[first_row + row, first_col : first_col + cols], bfloat16, tile[row * TILE_K :])
                multiply_tile(tile, rows, cols, x[first_col * width :], out, first_row * stride + column, stride)

    return multiply_dense


@cache
def tiles_kernel(width: int) -> Callable[..., None]:
    """Compile load-as-sparse, compute-as-dense on Tiled-CSL for vectors of ``width`` lanes."""
    multiply_tile = dense_tile_function(width)

    @parallel
    def multiply_tiles(
        words: Any, bfloat16: bool, tile_offsets: Any, shape: Any, x: Any, out: Any, stride: int, column: int
    ) -> None:
        """Add A @ x, decoding each tile into a first-level-cache buffer; ``shape`` = m, k."""
        m, k = shape
        tiles_k = -(-k // TILE_K)
        for block in prange(-(-m // TILE_M)):
            tile = np.empty(TILE_SIZE, np.float32)
            start = block * TILE_M * stride + column
            for tile_col in range(tiles_k):
                at = block * tiles_k + tile_col
                first = np.int64(tile_offsets[at]) * WORDS_PER_VECTOR
                last = np.int64(tile_offsets[at + 1]) * WORDS_PER_VECTOR
                scatter_words(words[first:last], bfloat16, tile)
                rows, cols = min(TILE_M, m - block * TILE_M), min(TILE_K, k - tile_col * TILE_K)
                multiply_tile(tile, rows, cols, x[tile_col * TILE_K * width :], out, start, stride)

    return multiply_tiles


@cache
def words_kernel(width: int) -> Callable[..., None]:
    """Compile the product of Tiled-CSL words without decoding tiles, for vectors of ``width`` lanes."""

    @parallel
    def multiply_words(
        words: Any, bfloat16: bool, tile_offsets: Any, shape: Any, x: Any, out: Any, stride: int, column: int
    ) -> None:
        """Add A @ x, one word after the other to the output rows of its tile; ``shape`` = m, k."""
        m, k = shape
        tiles_k = -(-k // TILE_K)
        for block in prange(-(-m // TILE_M)):
            for tile_col in range(tiles_k):
                at = block * tiles_k + tile_col
                first = np.int64(tile_offsets[at]) * WORDS_PER_VECTOR
                last = np.int64(tile_offsets[at + 1]) * WORDS_PER_VECTOR
                for word in words[first:last]:
                    location = np.int64(word >> np.uint32(16))
                    row = location >> 6
                    col = tile_col * TILE_K + ((location & 63) ^ ((row & 7) << 3))
                    if block * TILE_M + row < m and col < k:  # padding may lie outside
                        place = (block * TILE_M + row) * stride + column
                        total = simd.load(out, place, simd.zeros(width))
                        value = value_of(word, bfloat16)
                        simd.store(out, place, simd.scaled_add(value, simd.load(x, col * width, total), total))

    return multiply_words


@cache
def segments_kernel(width: int) -> Callable[..., None]:
    """Compile the product of row segments for vectors of ``width`` lanes."""

    @parallel
    def multiply_segments(
        segment_ptr: Any,
        columns: Any,
        values: Any,
        bfloat16: bool,
        grid: Any,
        x: Any,
        out: Any,
        stride: int,
        column: int,
    ) -> None:
        """Add A @ x for CSR cut into panels of columns and blocks of rows; ``grid`` = rows, panels, panel_k, m."""
        block_rows, panels, panel_k, m = grid
        for block in prange((segment_ptr.size - 1) // (block_rows * panels)):
            first_row = block * block_rows
            for panel in range(panels):
                segment = (block * panels + panel) * block_rows
                first = np.int64(segment_ptr[segment])
                wide = np.empty(segment_ptr[segment + block_rows] - first, np.float32)
                widen(values[first : first + wide.size], bfloat16, wide)
                x_panel = x[panel * panel_k * width :]
                for row in range(min(block_rows, m - first_row)):
                    at = np.int64(segment_ptr[segment + row])
                    stop = np.int64(segment_ptr[segment + row + 1])
                    place = (first_row + row) * stride + column
                    sum_0 = simd.load(out, place, simd.zeros(width))
                    sum_1, sum_2, sum_3 = simd.zeros(width), simd.zeros(width), simd.zeros(width)
                    while at + 4 <= stop:
                        x_0 = simd.load(x_panel, simd.peek(columns, at) * width, sum_0)
                        x_1 = simd.load(x_panel, simd.peek(columns, at + 1) * width, sum_0)
                        x_2 = simd.load(x_panel, simd.peek(columns, at + 2) * width, sum_0)
                        x_3 = simd.load(x_panel, simd.peek(columns, at + 3) * width, sum_0)
                        sum_0 = simd.scaled_add(simd.peek(wide, at - first), x_0, sum_0)
                        sum_1 = simd.scaled_add(simd.peek(wide, at - first + 1), x_1, sum_1)
                        sum_2 = simd.scaled_add(simd.peek(wide, at - first + 2), x_2, sum_2)
                        sum_3 = simd.scaled_add(simd.peek(wide, at - first + 3), x_3, sum_3)
                        at += 4
                    while at < stop:
                        x_0 = simd.load(x_panel, simd.peek(columns, at) * width, sum_0)
                        sum_0 = simd.scaled_add(simd.peek(wide, at - first), x_0, sum_0)
                        at += 1
                    simd.store(out, place, simd.add(simd.add(sum_0, sum_1), simd.add(sum_2, sum_3)))

    return multiply_segments
