"""Compiled loops behind `tiled_csl`: counting, filling, checking and decoding on bit patterns.

Values travel as unsigned integers, so that NaN payloads, infinities and subnormals survive. An element is zero
when all its bits but the sign are. The callers have checked shapes and dtypes. Rows of tiles are independent and run
in parallel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels_numba.formats.layout import BANKS, MAGNITUDE_16, TILE_K, TILE_M, TILE_SIZE, WARP_SIZE, WORDS_PER_VECTOR
from kernels_numba.jit import parallel, serial

ONE_USE, ALL_USES, ONE_WORD = 32, 63 * 32, 64 * 32  # fields of ``spread_banks``' priority, above 5 bits of bank

# What ``check_tiles`` finds in a tile
TILE_VALID, TILE_LOCATION, TILE_COLLISION, TILE_OUTSIDE = 0, 1, 2, 3

Bits = NDArray[Any]  # uint16 or uint32


@parallel
def count_tile_nonzeros(bits: Bits, counts: Any) -> None:
    """Count the non-zeros of every tile into ``counts`` (tiles_m, tiles_k)."""
    m, k = bits.shape
    for tile_row in prange(counts.shape[0]):
        for i in range(tile_row * TILE_M, min(m, (tile_row + 1) * TILE_M)):
            for tile_col in range(counts.shape[1]):
                count = 0
                for j in range(tile_col * TILE_K, min(k, (tile_col + 1) * TILE_K)):
                    count += (bits[i, j] & MAGNITUDE_16) != 0
                counts[tile_row, tile_col] += count


@serial
def gather_tile(bits: Bits, first_row: int, first_col: int, words: Any) -> int:
    """Pack the tile's non-zeros, row by row, into ``words`` and return how many there are.

    ``words`` has one entry more than a tile has elements: the slot after the last word is written without a
    branch and overwritten by the next non-zero.
    """
    count = 0
    for i in range(first_row, min(bits.shape[0], first_row + TILE_M)):
        row = i - first_row
        swizzle = (row & 7) << 3
        for j in range(first_col, min(bits.shape[1], first_col + TILE_K)):
            location = row * TILE_K + ((j - first_col) ^ swizzle)
            words[count] = np.uint32(location << 16) | np.uint32(bits[i, j])
            count += (bits[i, j] & MAGNITUDE_16) != 0
    return count


@serial
def count_banks(words: Any, counts: Any) -> None:
    """Count how many of ``words`` fall into each shared-memory bank; a tile row is exactly 32 banks wide."""
    counts[:] = 0
    for word in words:
        counts[(word >> 17) & (BANKS - 1)] += 1


@serial
def pad_tile(words: Any, count: int, occupied: Any, bank_counts: Any) -> None:
    """Fill ``words[count:]`` (at most 3) with zeros at free locations of the emptiest banks."""
    occupied[:] = False
    for word in words[:count]:
        occupied[word >> 16] = True
    count_banks(words[:count], bank_counts)
    for at in range(count, words.size):
        bank = np.argmin(bank_counts)
        location = 2 * bank  # the emptiest bank has a free place unless the tile is full, and then nothing is padded
        while occupied[location]:
            location += 1 if location % 2 == 0 else TILE_K - 1
        occupied[location] = True
        bank_counts[bank] += 1
        words[at] = np.uint32(location << 16)


@serial
def spread_banks(words: Any, bank_counts: Any, by_bank: Any, out: Any) -> None:
    """Order a tile's words so that the lanes of a warp scatter to distinct banks as far as possible.

    A warp loads 32 vectors of 4 words and stores word 0 of all lanes, then word 1 and so on. Each store takes, lane
    after lane, from the bank with the most words left, and among equals from the one this store has used least. No
    order needs fewer than max(steps, words of the fullest bank) wavefronts, lanes that share a 32-bit word aside;
    this one exceeds that by 1 % at 90 %, 8 % at 30 % and 13 % at 10 % density. The incomplete last group is served
    first, so that the full groups find level banks.
    """
    count_banks(words, bank_counts)
    cursor = np.empty(BANKS, np.int64)
    # Words left, then uses this step may still make, then bank: the maximum names the bank to take from.
    priority = np.empty(BANKS, np.int32)
    start = 0
    for bank in range(BANKS):
        cursor[bank] = start
        priority[bank] = bank_counts[bank] * ONE_WORD + bank
        start += bank_counts[bank]
    for word in words:
        bank = (word >> 17) & (BANKS - 1)
        by_bank[cursor[bank]] = word
        cursor[bank] += 1
    n_vectors = words.size // WORDS_PER_VECTOR
    lanes = n_vectors % WARP_SIZE
    first = n_vectors - lanes
    while first >= 0:
        for step in range(WORDS_PER_VECTOR):
            for bank in range(BANKS):
                priority[bank] |= ALL_USES
            for lane in range(lanes):
                highest = priority[0]
                for bank in range(1, BANKS):
                    highest = max(highest, priority[bank])
                bank = highest & (BANKS - 1)
                priority[bank] -= ONE_WORD + ONE_USE
                cursor[bank] -= 1
                out[WORDS_PER_VECTOR * (first + lane) + step] = by_bank[cursor[bank]]
        lanes = WARP_SIZE
        first -= WARP_SIZE


@parallel
def fill_tiles(bits: Bits, tiles_k: int, tile_offsets: Any, reorder: bool, words: Any) -> None:
    """Write the words of all tiles; ``tile_offsets`` says where each tile starts, in vectors of 4 words."""
    for tile_row in prange((tile_offsets.size - 2) // tiles_k):
        tile_words = np.empty(TILE_SIZE + 1, np.uint32)
        by_bank = np.empty(TILE_SIZE, np.uint32)
        occupied = np.empty(TILE_SIZE, np.bool_)
        bank_counts = np.empty(BANKS, np.int32)
        for tile_col in range(tiles_k):
            tile = tile_row * tiles_k + tile_col
            start = np.int64(tile_offsets[tile]) * WORDS_PER_VECTOR
            stop = np.int64(tile_offsets[tile + 1]) * WORDS_PER_VECTOR
            count = gather_tile(bits, tile_row * TILE_M, tile_col * TILE_K, tile_words)
            padded = tile_words[: stop - start]
            pad_tile(padded, count, occupied, bank_counts)
            if reorder:
                spread_banks(padded, bank_counts, by_bank, words[start:stop])
            else:
                words[start:stop] = padded


@parallel
def scatter_tiles(words: Any, tile_offsets: Any, tiles_k: int, out: Bits) -> None:
    """Write each word's value to its place in ``out`` (m, k), which holds zeros; padding lands on zeros."""
    m, k = out.shape
    for tile_row in prange((tile_offsets.size - 2) // tiles_k):
        for tile_col in range(tiles_k):
            tile = tile_row * tiles_k + tile_col
            start = np.int64(tile_offsets[tile]) * WORDS_PER_VECTOR
            stop = np.int64(tile_offsets[tile + 1]) * WORDS_PER_VECTOR
            for word in words[start:stop]:
                location = np.int64(word >> 16)
                row = location // TILE_K
                i = tile_row * TILE_M + row
                j = tile_col * TILE_K + ((location % TILE_K) ^ ((row & 7) << 3))
                if i < m and j < k:
                    out[i, j] = word & 0xFFFF


@serial
def check_tile(words: Any, rows: int, cols: int, occupied: Any) -> int:
    """Fault of one tile whose first ``rows`` x ``cols`` elements lie inside the matrix."""
    occupied[:] = False
    for word in words:
        location = np.int64(word >> 16)
        if location >= TILE_SIZE:
            return TILE_LOCATION
        if occupied[location]:
            return TILE_COLLISION
        occupied[location] = True
        row = location // TILE_K
        outside = row >= rows or (location % TILE_K) ^ ((row & 7) << 3) >= cols
        if outside and word & 0xFFFF:
            return TILE_OUTSIDE
    return TILE_VALID


@parallel
def check_tiles(words: Any, tile_offsets: Any, tiles_k: int, m: int, k: int) -> NDArray[np.uint8]:
    """Fault code of every tile; the offsets have been checked."""
    faults = np.empty(tile_offsets.size - 2, np.uint8)
    for tile_row in prange(faults.size // tiles_k):
        occupied = np.empty(TILE_SIZE, np.bool_)
        for tile_col in range(tiles_k):
            tile = tile_row * tiles_k + tile_col
            start = np.int64(tile_offsets[tile]) * WORDS_PER_VECTOR
            stop = np.int64(tile_offsets[tile + 1]) * WORDS_PER_VECTOR
            rows, cols = m - tile_row * TILE_M, k - tile_col * TILE_K
            faults[tile] = check_tile(words[start:stop], rows, cols, occupied)
    return faults


@serial
def count_scatter_wavefronts(words: Any, tile_offsets: Any) -> tuple[int, int]:
    """Scatter steps of all warps, and the shared-memory wavefronts they need.

    Lanes that store into the same 32-bit word share a wavefront; distinct words of one bank take turns.
    """
    steps, wavefronts = 0, 0
    seen = np.empty(BANKS * WARP_SIZE, np.uint32)
    multiplicity = np.empty(BANKS, np.int64)
    for tile in range(tile_offsets.size - 2):
        for first in range(tile_offsets[tile], tile_offsets[tile + 1], WARP_SIZE):
            last = min(first + WARP_SIZE, tile_offsets[tile + 1])
            for step in range(WORDS_PER_VECTOR):
                multiplicity[:] = 0
                for vector in range(first, last):
                    address = words[WORDS_PER_VECTOR * vector + step] >> 17
                    bank = address & (BANKS - 1)
                    new = True
                    for other in range(multiplicity[bank]):
                        new = new and seen[bank * WARP_SIZE + other] != address
                    if new:
                        seen[bank * WARP_SIZE + multiplicity[bank]] = address
                        multiplicity[bank] += 1
                steps += 1
                wavefronts += multiplicity.max()
    return steps, wavefronts
