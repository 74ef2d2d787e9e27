"""Compiled loops behind `bitmap`: encoding, decoding, and products with SIMD along K.

Letters: a *chunk* is 4 rows x 32 columns (`lanes`), a *panel* 16 chunks wide, a *block* 32 rows. Blocks run in
parallel; a block meets x one panel at a time, so that the panel of x stays in the first-level cache. A block adds up
(groups of rows, groups of tokens, 4, tokens) in a buffer of its own and writes its rows of ``out`` (m, n) once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import prange

from kernels_numba.cpu import lanes, tiles
from kernels_numba.cpu.lanes import COLUMNS, ROWS
from kernels_numba.cpu.tiles import TILE, TILE_VALUES
from kernels_numba.jit import parallel, serial

BLOCK_ROWS = 32
PADDED_ROWS = 16
PANEL_CHUNKS = 16  # x of 16 tokens takes 32 KB a panel
CHUNK = ROWS * COLUMNS
GROUPS = BLOCK_ROWS // ROWS


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


@cache
def value_mover(encoding: bool) -> Callable[..., None]:
    """Compile the loop that packs or unpacks values: two loops, since what one writes the other may find read-only."""

    @parallel
    def move_values(masks: Any, offsets: Any, values: Any, bits: Any) -> None:
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

    return move_values


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


@serial
def write_rows(sums: Any, first_row: int, tokens: int, out: Any) -> None:
    """Write the sums of a block, by group of 4 rows and group of ``tokens`` tokens, to its rows of ``out``."""
    m, n = out.shape
    token_groups = -(-n // tokens)
    for row in range(first_row, min(m, first_row + BLOCK_ROWS)):
        group, inside = (row - first_row) // ROWS, (row - first_row) % ROWS
        for token in range(n):
            place = ((group * token_groups + token // tokens) * ROWS + inside) * tokens + token % tokens
            out[row, token] = sums[place]


@cache
def bitmap_kernel(tokens: int, bfloat16: bool, expansion: int) -> Callable[..., None]:
    """Compile the product of a bitmap for up to ``tokens`` tokens at once: 1, 2 or 4."""
    totals, half = ROWS * tokens, int(bfloat16)

    @parallel
    def multiply_bitmap(masks: Any, values: Any, offsets: Any, chunks: int, x: Any, out: Any) -> None:
        """Write A @ x for all blocks."""
        for block in prange(offsets.size - 1):
            sums = np.zeros(GROUPS * totals, np.float32)
            at, mask_at = offsets[block], block * BLOCK_ROWS * chunks
            groups = min(GROUPS, (masks.size - mask_at) // (ROWS * chunks))
            for panel in range(0, chunks, PANEL_CHUNKS):
                for group in range(groups):
                    mine = lanes.zeros(totals)
                    for chunk in range(panel, min(panel + PANEL_CHUNKS, chunks)):
                        at, weights = lanes.unpack(masks, values, mask_at, at, half, expansion)
                        mine = lanes.multiply(weights, x, chunk * tokens * COLUMNS, mine)
                        mask_at += ROWS
                    lanes.add_sums(mine, sums, group * totals)
            write_rows(sums, block * BLOCK_ROWS, tokens, out)

    return multiply_bitmap


@cache
def batched_bitmap_kernel(tokens: int, bfloat16: bool, expansion: int) -> Callable[..., None]:
    """Compile the product of a bitmap for groups of ``tokens`` tokens: a panel of rows is unpacked once for all."""
    totals, half = ROWS * tokens, int(bfloat16)

    @parallel
    def multiply_batch(masks: Any, values: Any, offsets: Any, chunks: int, x: Any, out: Any) -> None:
        """Write A @ x for all blocks."""
        token_groups = -(-out.shape[1] // tokens)
        for block in prange(offsets.size - 1):
            sums = np.zeros(GROUPS * token_groups * totals, np.float32)
            unpacked = np.empty(PANEL_CHUNKS * CHUNK, np.float32)
            at, mask_at = offsets[block], block * BLOCK_ROWS * chunks
            groups = min(GROUPS, (masks.size - mask_at) // (ROWS * chunks))
            for panel in range(0, chunks, PANEL_CHUNKS):
                wide = min(PANEL_CHUNKS, chunks - panel)
                for group in range(groups):
                    for chunk in range(wide):
                        at, weights = lanes.unpack(masks, values, mask_at, at, half, expansion)
                        lanes.keep(weights, unpacked, chunk * CHUNK)
                        mask_at += ROWS
                    for part in range(token_groups):
                        mine = lanes.zeros(totals)
                        for chunk in range(wide):
                            first = ((panel + chunk) * token_groups + part) * tokens * COLUMNS
                            mine = lanes.multiply(lanes.kept(unpacked, chunk * CHUNK), x, first, mine)
                        lanes.add_sums(mine, sums, (group * token_groups + part) * totals)
            write_rows(sums, block * BLOCK_ROWS, tokens, out)

    return multiply_batch


@cache
def dense_rows_kernel(tokens: int, bfloat16: bool) -> Callable[..., None]:
    """Compile the product of plain 16-bit rows, whole chunks only, for groups of ``tokens`` tokens."""
    totals, half = ROWS * tokens, int(bfloat16)

    @parallel
    def multiply_rows(values: Any, chunks: int, x: Any, out: Any) -> None:
        """Write A @ x; ``values`` (m * 32 chunks,) flat, m a multiple of 4."""
        k, m = chunks * COLUMNS, out.shape[0]
        token_groups = -(-out.shape[1] // tokens)
        for block in prange(-(-m // BLOCK_ROWS)):
            sums = np.zeros(GROUPS * token_groups * totals, np.float32)
            for panel in range(0, chunks, PANEL_CHUNKS):
                for group in range(min(GROUPS, (m - block * BLOCK_ROWS) // ROWS)):
                    row = block * BLOCK_ROWS + group * ROWS
                    for part in range(token_groups):
                        mine = lanes.zeros(totals)
                        for chunk in range(panel, min(panel + PANEL_CHUNKS, chunks)):
                            weights = lanes.dense_chunk(values, row * k + chunk * COLUMNS, k, half)
                            first = (chunk * token_groups + part) * tokens * COLUMNS
                            mine = lanes.multiply(weights, x, first, mine)
                        lanes.add_sums(mine, sums, (group * token_groups + part) * totals)
            write_rows(sums, block * BLOCK_ROWS, tokens, out)

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


@serial
def write_tiles(found: Any, count: int, first_row: int, out: Any) -> None:
    """Write two sets of ``count`` tiles of sums, added, to 16 rows of ``out``."""
    m, n = out.shape
    for row in range(first_row, min(m, first_row + TILE)):
        for token in range(n):
            place = (token // TILE * TILE + row - first_row) * TILE + token % TILE
            out[row, token] = found[place] + found[count * TILE * TILE + place]


@cache
def tiles_kernel(count: int) -> Callable[..., None]:
    """Compile the product of a bitmap of bfloat16 on the matrix unit, for ``count`` tiles of 16 tokens."""
    stored = tiles.SETS * count * TILE * TILE

    @parallel
    def multiply_tiles(masks: Any, values: Any, offsets: Any, chunks: int, config: Any, x: Any, out: Any) -> None:
        """Write A @ x for all blocks."""
        for block in prange(offsets.size - 1):
            tiles.configure(config)
            weights = np.empty(PANEL_CHUNKS * TILE_VALUES, np.uint16)
            sums = np.zeros(BLOCK_ROWS // TILE * stored, np.float32)
            at, mask_at = offsets[block], block * BLOCK_ROWS * chunks
            talls = min(BLOCK_ROWS // TILE, (masks.size - mask_at) // (TILE * chunks))
            for panel in range(0, chunks, PANEL_CHUNKS):
                wide = min(PANEL_CHUNKS, chunks - panel)
                for tall in range(talls):
                    for group in range(TILE // ROWS):
                        for chunk in range(wide):
                            at = tiles.unpack(masks, values, mask_at, at, weights, chunk * TILE_VALUES + group * CHUNK)
                            mask_at += ROWS
                    tiles.load_sums(count, sums, tall * stored)
                    for chunk in range(0, wide - 1, 2):
                        first = (panel + chunk) * count * TILE_VALUES
                        tiles.multiply(count, 0, weights, chunk * TILE_VALUES, x, first)
                        tiles.multiply(count, 1, weights, (chunk + 1) * TILE_VALUES, x, first + count * TILE_VALUES)
                    if wide % 2:
                        last = wide - 1
                        tiles.multiply(count, 0, weights, last * TILE_VALUES, x, (panel + last) * count * TILE_VALUES)
                    tiles.store_sums(count, sums, tall * stored)
            tiles.release()
            for tall in range(talls):
                write_tiles(sums[tall * stored :], count, block * BLOCK_ROWS + tall * TILE, out)

    return multiply_tiles
