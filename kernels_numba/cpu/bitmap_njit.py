"""Compiled loops behind `bitmap`: encoding, decoding, and products with SIMD along K.

Letters: a *chunk* is 4 rows x 32 columns (`lanes`), a *panel* 16 chunks wide, a *block* 32 rows. Blocks run in
parallel; a block meets x one panel at a time, so that the panel of x stays in the first-level cache. ``out`` is
(blocks * 8 groups of rows, groups of tokens, 4, tokens) float32, flat: what a group of rows makes with a group of
tokens lies together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import prange

from kernels_numba.cpu import lanes, tiles
from kernels_numba.cpu.lanes import COLUMNS, HALVES, LANES, ROWS
from kernels_numba.cpu.tiles import TILE, TILE_VALUES
from kernels_numba.jit import parallel, serial

BLOCK_ROWS = 32
PADDED_ROWS = 16
PANEL_CHUNKS = 16  # x of 16 tokens takes 32 KB a panel
CHUNK = ROWS * COLUMNS
GROUPS = BLOCK_ROWS // ROWS
KEPT = HALVES * ROWS * LANES


@serial
def mask_index(row: int, chunk: int, m: int, chunks: int) -> int:
    """Number of the mask of ``row`` at column ``32 * chunk``, in the order in which masks and values lie."""
    block, inside, panel = row // BLOCK_ROWS, row % BLOCK_ROWS, chunk // PANEL_CHUNKS * PANEL_CHUNKS
    wide = min(PANEL_CHUNKS, chunks - panel)
    tall = min(BLOCK_ROWS, -(-m // PADDED_ROWS) * PADDED_ROWS - block * BLOCK_ROWS)
    before = block * BLOCK_ROWS * chunks + panel * tall
    return before + (inside // ROWS * wide + chunk - panel) * ROWS + inside % ROWS


@parallel
def fill_masks(bits: Any, magnitude: Any, masks: Any, counts: Any) -> None:
    """Masks of the non-zeros of ``bits`` (m, k), and how many each block has."""
    m, k = bits.shape
    chunks = -(-k // COLUMNS)
    for block in prange(counts.size):
        for row in range(block * BLOCK_ROWS, min(m, (block + 1) * BLOCK_ROWS)):
            for chunk in range(chunks):
                mask = np.uint32(0)
                for column in range(chunk * COLUMNS, min(k, (chunk + 1) * COLUMNS)):
                    if bits[row, column] & magnitude:
                        mask |= np.uint32(1) << np.uint32(column - chunk * COLUMNS)
                        counts[block] += 1
                masks[mask_index(row, chunk, m, chunks)] = mask


@parallel
def move_values(masks: Any, offsets: Any, values: Any, bits: Any, encoding: bool) -> None:
    """Copy the values of all masks from ``bits`` (m, k) to ``values``, or back."""
    m, k = bits.shape
    chunks = -(-k // COLUMNS)
    for block in prange(offsets.size - 1):
        at = offsets[block]
        for panel in range(0, chunks, PANEL_CHUNKS):
            for group in range(min(GROUPS, -(-(m - block * BLOCK_ROWS) // PADDED_ROWS) * PADDED_ROWS // ROWS)):
                for chunk in range(panel, min(panel + PANEL_CHUNKS, chunks)):
                    first = block * BLOCK_ROWS + group * ROWS
                    for row in range(first, first + ROWS):
                        mask = masks[mask_index(row, chunk, m, chunks)]
                        for lane in range(COLUMNS):
                            if mask >> np.uint32(lane) & np.uint32(1):
                                if encoding:
                                    values[at] = bits[row, chunk * COLUMNS + lane]
                                else:
                                    bits[row, chunk * COLUMNS + lane] = values[at]
                                at += 1


@parallel
def block_counts(masks: Any, chunks: int, counts: Any) -> None:
    """Non-zeros of each block by its masks."""
    for block in prange(counts.size):
        for at in range(block * BLOCK_ROWS * chunks, min(masks.size, (block + 1) * BLOCK_ROWS * chunks)):
            rest = masks[at]
            while rest:
                rest &= rest - np.uint32(1)
                counts[block] += 1


@parallel
def pack(x: Any, order: Any, tokens: int, out: Any) -> None:
    """Write x (k, n) to ``out`` (chunks, tokens, 32), flat and zero before, the columns of a chunk in ``order``."""
    k, n = x.shape
    for chunk in prange(-(-k // COLUMNS)):
        for lane in range(COLUMNS):
            column = chunk * COLUMNS + order[lane]
            if column < k:
                for token in range(n):
                    out[(chunk * tokens + token) * COLUMNS + lane] = x[column, token]


@cache
def bitmap_kernel(tokens: int, bfloat16: bool, expansion: int) -> Callable[..., None]:
    """Compile the product of a bitmap for up to ``tokens`` tokens at once: 1, 2 or 4."""
    totals, half = ROWS * tokens, int(bfloat16)

    @parallel
    def multiply_bitmap(masks: Any, values: Any, offsets: Any, chunks: int, x: Any, out: Any) -> None:
        """Write A @ x for all blocks."""
        for block in prange(offsets.size - 1):
            at, mask_at = offsets[block], block * BLOCK_ROWS * chunks
            groups = min(GROUPS, (masks.size - mask_at) // (ROWS * chunks))
            for panel in range(0, chunks, PANEL_CHUNKS):
                wide = min(PANEL_CHUNKS, chunks - panel)
                for group in range(groups):
                    sums = lanes.zeros(totals)
                    for chunk in range(panel, panel + wide):
                        at, weights = lanes.unpack(masks, values, mask_at, at, half, expansion)
                        sums = lanes.multiply(weights, x, chunk * tokens * COLUMNS, sums)
                        mask_at += ROWS
                    lanes.add_sums(sums, out, (block * GROUPS + group) * totals)

    return multiply_bitmap


@cache
def batched_bitmap_kernel(tokens: int, bfloat16: bool, expansion: int) -> Callable[..., None]:
    """Compile the product of a bitmap for groups of ``tokens`` tokens: a panel of rows is unpacked once for all."""
    totals, half = ROWS * tokens, int(bfloat16)

    @parallel
    def multiply_batch(masks: Any, values: Any, offsets: Any, chunks: int, token_groups: int, x: Any, out: Any) -> None:
        """Write A @ x for all blocks; x holds ``token_groups * tokens`` tokens."""
        for block in prange(offsets.size - 1):
            unpacked = np.empty(PANEL_CHUNKS * KEPT, np.float32)
            at, mask_at = offsets[block], block * BLOCK_ROWS * chunks
            groups = min(GROUPS, (masks.size - mask_at) // (ROWS * chunks))
            for panel in range(0, chunks, PANEL_CHUNKS):
                wide = min(PANEL_CHUNKS, chunks - panel)
                for group in range(groups):
                    for chunk in range(wide):
                        at, weights = lanes.unpack(masks, values, mask_at, at, half, expansion)
                        lanes.keep(weights, unpacked, chunk * KEPT)
                        mask_at += ROWS
                    place = (block * GROUPS + group) * token_groups * totals
                    for part in range(token_groups):
                        sums = lanes.zeros(totals)
                        for chunk in range(wide):
                            first = ((panel + chunk) * token_groups + part) * tokens * COLUMNS
                            sums = lanes.multiply(lanes.kept(unpacked, chunk * KEPT), x, first, sums)
                        lanes.add_sums(sums, out, place + part * totals)

    return multiply_batch


@cache
def dense_rows_kernel(tokens: int, bfloat16: bool) -> Callable[..., None]:
    """Compile the product of plain 16-bit rows, whole chunks only, for groups of ``tokens`` tokens."""
    totals, half = ROWS * tokens, int(bfloat16)

    @parallel
    def multiply_rows(values: Any, m: int, chunks: int, token_groups: int, x: Any, out: Any) -> None:
        """Write A @ x; ``values`` (m * 32 chunks,) flat, m a multiple of 4."""
        k = chunks * COLUMNS
        for block in prange(-(-m // BLOCK_ROWS)):
            for panel in range(0, chunks, PANEL_CHUNKS):
                wide = min(PANEL_CHUNKS, chunks - panel)
                for group in range(min(GROUPS, (m - block * BLOCK_ROWS) // ROWS)):
                    row = block * BLOCK_ROWS + group * ROWS
                    for part in range(token_groups):
                        sums = lanes.zeros(totals)
                        for chunk in range(panel, panel + wide):
                            weights = lanes.dense_chunk(values, row * k + chunk * COLUMNS, k, half)
                            first = (chunk * token_groups + part) * tokens * COLUMNS
                            sums = lanes.multiply(weights, x, first, sums)
                        lanes.add_sums(sums, out, ((block * GROUPS + group) * token_groups + part) * totals)

    return multiply_rows


@parallel
def pack_pairs(x: Any, sums: int, out: Any) -> None:
    """Write bit patterns x (k, n) to ``out`` (chunks, sums, 16 pairs of columns, 16 tokens, 2), flat, zero before."""
    k, n = x.shape
    for chunk in prange(-(-k // COLUMNS)):
        for column in range(chunk * COLUMNS, min(k, (chunk + 1) * COLUMNS)):
            pair, odd = (column % COLUMNS) // 2, column % 2
            for token in range(n):
                place = ((chunk * sums + token // TILE) * TILE + pair) * TILE + token % TILE
                out[2 * place + odd] = x[column, token]


@cache
def tiles_kernel(sums: int) -> Callable[..., None]:
    """Compile the product of a bitmap of bfloat16 on the matrix unit, for ``sums`` tiles of tokens."""
    stored = tiles.SETS * sums * TILE * TILE

    @parallel
    def multiply_tiles(masks: Any, values: Any, offsets: Any, chunks: int, config: Any, x: Any, out: Any) -> None:
        """Add A @ x for all blocks to ``out`` (16 rows at a time, 2, sums, 16, 16), flat."""
        for block in prange(offsets.size - 1):
            tiles.configure(config)
            weights = np.empty(PANEL_CHUNKS * TILE_VALUES, np.uint16)
            at, mask_at = offsets[block], block * BLOCK_ROWS * chunks
            talls = min(BLOCK_ROWS // TILE, (masks.size - mask_at) // (TILE * chunks))
            for panel in range(0, chunks, PANEL_CHUNKS):
                wide = min(PANEL_CHUNKS, chunks - panel)
                for tall in range(talls):
                    for group in range(TILE // ROWS):
                        for chunk in range(wide):
                            at = tiles.unpack(masks, values, mask_at, at, weights, chunk * TILE_VALUES + group * CHUNK)
                            mask_at += ROWS
                    place = (block * (BLOCK_ROWS // TILE) + tall) * stored
                    tiles.load_sums(sums, out, place)
                    for chunk in range(0, wide - 1, 2):
                        first = (panel + chunk) * sums * TILE_VALUES
                        tiles.multiply(sums, 0, weights, chunk * TILE_VALUES, x, first)
                        tiles.multiply(sums, 1, weights, (chunk + 1) * TILE_VALUES, x, first + sums * TILE_VALUES)
                    if wide % 2:
                        last = wide - 1
                        tiles.multiply(sums, 0, weights, last * TILE_VALUES, x, (panel + last) * sums * TILE_VALUES)
                    tiles.store_sums(sums, out, place)
            tiles.release()

    return multiply_tiles
