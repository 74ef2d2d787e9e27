"""Compiled loops behind `bitmap`: masks, values and back, strip by strip.

A *register* is two neighbouring columns of a row. Register r of lane ``4 g + t`` in chunk c lies in the strip at row
``16 (c % 2) + 8 (r % 2) + g`` and column ``16 (c // 2) + 8 (r // 2) + 2 t``. Rows of strips run in parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels_numba.formats.layout import CHUNKS, LANES, REGISTERS, STRIP_K, STRIP_M
from kernels_numba.jit import inlined, parallel


@inlined
def register_row(chunk: int, lane: int, register: int) -> int:
    """Row of a register in its strip."""
    return 16 * (chunk & 1) + 8 * (register & 1) + (lane >> 2)


@inlined
def register_column(chunk: int, lane: int, register: int) -> int:
    """First column of a register in its strip."""
    return 16 * (chunk >> 1) + 8 * (register >> 1) + 2 * (lane & 3)


@inlined
def bits_of_register(word: Any, chunk: int, register: int, width: int) -> Any:
    """Which of a register's two halves are stored, as two bits; with pairs both or none."""
    index = np.uint64(CHUNKS // 2 * chunk + register)
    if width == 2:
        return np.uint64(3) * ((word >> index) & np.uint64(1))
    return (word >> (index << np.uint64(1))) & np.uint64(3)


@parallel
def fill_masks(kept: NDArray[Any], magnitude: Any, width: int, masks: Any, counts: Any) -> None:
    """Mark the elements of ``kept`` (m, k) that are not zero under ``magnitude``, and count what will be stored.

    masks : (strips_m, strips_k, 32) uint64 or uint32; counts : (strips_m, strips_k) int64, elements of each strip.
    """
    m, k = kept.shape
    for row in prange(masks.shape[0]):
        for column in range(masks.shape[1]):
            stored = 0
            for lane in range(LANES):
                word = np.uint64(0)
                for chunk in range(CHUNKS):
                    for register in range(REGISTERS):
                        i = row * STRIP_M + register_row(chunk, lane, register)
                        j = column * STRIP_K + register_column(chunk, lane, register)
                        low = i < m and j < k and (kept[i, j] & magnitude) != 0
                        high = i < m and j + 1 < k and (kept[i, j + 1] & magnitude) != 0
                        index = np.uint64(CHUNKS // 2 * chunk + register)
                        if width == 2:
                            word |= np.uint64(low or high) << index
                            stored += 2 * (low or high)
                        else:
                            word |= (np.uint64(low) | (np.uint64(high) << np.uint64(1))) << (index << np.uint64(1))
                            stored += low + high
                masks[row, column, lane] = word
            counts[row, column] = stored


@cache
def value_mover(pack: bool) -> Callable[..., None]:
    """Compile the loop that packs or unpacks values: two loops, since what one writes the other may find read-only."""

    @parallel
    def move_values(dense: NDArray[Any], magnitude: Any, width: int, masks: Any, begins: Any, values: Any) -> None:
        """Carry the marked elements between ``dense`` (m, k) and ``values``, by chunk, lane, register from ``begins``.

        Both targets hold zeros. Packing leaves out a partner that lies beyond the matrix or is zero but for its sign;
        unpacking what lies beyond.
        """
        m, k = dense.shape
        for row in prange(masks.shape[0]):
            for column in range(masks.shape[1]):
                at = begins[row, column]
                for chunk in range(CHUNKS):
                    for lane in range(LANES):
                        word = np.uint64(masks[row, column, lane])
                        for register in range(REGISTERS):
                            marked = bits_of_register(word, chunk, register, width)
                            i = row * STRIP_M + register_row(chunk, lane, register)
                            j = column * STRIP_K + register_column(chunk, lane, register)
                            for half in range(2):
                                if marked >> np.uint64(half) & np.uint64(1):
                                    if i < m and j + half < k:
                                        if not pack:
                                            dense[i, j + half] = values[at]
                                        elif (dense[i, j + half] & magnitude) != 0:
                                            values[at] = dense[i, j + half]
                                    at += 1

    return move_values


@cache
def strip_copier(pack: bool) -> Callable[..., None]:
    """Compile the loop that packs or unpacks records, as `value_mover`."""

    @parallel
    def copy_strips(records: Any, places: Any, masks: Any, values: Any, offsets: Any) -> None:
        """Carry masks (strips, header) and values between records and their own arrays, all of two-byte entries.

        ``places`` and ``offsets`` count units of 8 entries in records and in values.
        """
        header = masks.shape[1]
        for strip in prange(masks.shape[0]):
            at, begin, end = 8 * np.int64(places[strip]), 8 * np.int64(offsets[strip]), 8 * np.int64(offsets[strip + 1])
            if pack:
                records[at : at + header] = masks[strip]
                records[at + header : at + header + end - begin] = values[begin:end]
            else:
                masks[strip] = records[at : at + header]
                values[begin:end] = records[at + header : at + header + end - begin]

    return copy_strips
