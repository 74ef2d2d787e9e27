"""Compiled loop behind `orders`: what each search for an order leaves over of every strip."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels_numba.formats.condensed_order_njit import (
    GROUPS,
    MOST_TAILS,
    STRIP_K,
    TAIL_COLUMNS,
    arrange,
    filled,
    fit,
    ones,
    others,
    surplus_of_group,
)
from kernels_numba.jit import parallel, serial

LEFT_NATURAL, LEFT_BANK, LEFT_ANY, COLUMNS_LEFT, WEIGHTS_LEFT, REGISTERS = range(6)
COLUMNS = 6


@serial
def best_fit(words: Any, bank_free: bool, moves: int, searches: int, seed: int) -> int:
    """Least that one of ``searches`` leaves over, each from the natural order."""
    order = np.empty(STRIP_K, np.uint8)
    least = 1 << 30
    for search in range(searches):
        order[:] = np.arange(STRIP_K)
        least = min(least, fit(words, order, bank_free, moves, searches * seed + search))
        if least == 0:
            break
    return least


@parallel
def search_strips(words: NDArray[np.uint64], moves: int, searches: int, trials: int, found: NDArray[np.int64]) -> None:
    """Fill ``found`` (strips, `COLUMNS`) for strips given as columns ``words`` (strips, 64).

    The first three columns are weights over 2:4: as the columns stand, after searches with the bank rule, and without
    it. The others are the encoder's: columns it leaves to tails, weights in them, registers that hold any of the rest.
    """
    for strip in prange(words.shape[0]):
        kept = words[strip].copy()
        order, tail = np.arange(STRIP_K).astype(np.uint8), np.empty(MOST_TAILS * TAIL_COLUMNS, np.uint8)
        for group in range(GROUPS):
            found[strip, LEFT_NATURAL] += surplus_of_group(kept, order, group)
        found[strip, LEFT_BANK] = best_fit(kept, True, moves, searches, strip)
        found[strip, LEFT_ANY] = best_fit(kept, False, moves, searches, strip)
        found[strip, COLUMNS_LEFT] = arrange(kept, order, tail, moves, trials, strip)
        for i in range(STRIP_K):
            found[strip, WEIGHTS_LEFT] += ones(words[strip, i] & ~kept[i])
        for group in range(GROUPS):
            a, b, c = others(kept, order, 4 * group)
            found[strip, REGISTERS] += filled(a, b, c, kept[order[4 * group]])
