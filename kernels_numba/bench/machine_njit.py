"""Compiled loops behind `machine`: reading, multiplying and adding, counting cycles, and doing nothing in parallel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from kernels_numba.cpu.simd import add, load, scaled_add, store, zeros
from kernels_numba.jit import parallel, serial

LANES = 16
STEP = 8 * LANES  # values read at once, so that no addition waits
SUMS = 12  # of a core at once: more than latency times units of any, and no more than registers
CYCLES_A_STEP = 3  # a shift, an exclusive or and an addition, each waiting for the one before


@parallel
def fill(values: Any) -> None:
    """Write ones, so that every page is there before it is read, and no number is so small that adding it is slow."""
    for i in prange(values.size):
        values[i] = 1.0


@parallel
def read(values: Any, rounds: int, nowhere: Any, sums: Any) -> None:
    """Sums of ``values``, each thread its own part, ``rounds`` times over; ``sums`` is (threads, 16).

    ``nowhere`` is all zeros, which the compiler cannot know: it must read anew in every round. A scalar sum, each
    addition waiting for the one before, would read a third of what a core can.
    """
    part = values.size // sums.shape[0] // STEP * STEP
    flat = sums.reshape(-1)
    for thread in prange(sums.shape[0]):
        a, b, c, d = zeros(LANES), zeros(LANES), zeros(LANES), zeros(LANES)
        e, f, g, h = zeros(LANES), zeros(LANES), zeros(LANES), zeros(LANES)
        for turn in range(rounds):
            first = thread * part + nowhere[turn % nowhere.size]
            for i in range(first, first + part, STEP):
                a, b = add(a, load(values, i, a)), add(b, load(values, i + LANES, b))
                c, d = add(c, load(values, i + 2 * LANES, c)), add(d, load(values, i + 3 * LANES, d))
                e, f = add(e, load(values, i + 4 * LANES, e)), add(f, load(values, i + 5 * LANES, f))
                g, h = add(g, load(values, i + 6 * LANES, g)), add(h, load(values, i + 7 * LANES, h))
        store(flat, thread * LANES, add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h))))


@parallel
def multiply_add(steps: int, factors: Any, sums: Any) -> None:
    """``steps`` times 12 vector multiply-adds on every thread, from registers; ``sums`` is (threads, 16)."""
    flat = sums.reshape(-1)
    for thread in prange(sums.shape[0]):
        scale, x = factors[0], load(factors, 0, zeros(LANES))
        a, b, c, d, e, f = x, x, x, x, x, x
        g, h, i, j, k, m = x, x, x, x, x, x
        for _ in range(steps):
            a, b, c = scaled_add(scale, x, a), scaled_add(scale, x, b), scaled_add(scale, x, c)
            d, e, f = scaled_add(scale, x, d), scaled_add(scale, x, e), scaled_add(scale, x, f)
            g, h, i = scaled_add(scale, x, g), scaled_add(scale, x, h), scaled_add(scale, x, i)
            j, k, m = scaled_add(scale, x, j), scaled_add(scale, x, k), scaled_add(scale, x, m)
        low, middle = add(add(a, b), add(c, d)), add(add(e, f), add(g, h))
        store(flat, thread * LANES, add(add(low, middle), add(add(i, j), add(k, m))))


@serial
def chain(steps: int) -> Any:
    """Result of ``steps`` steps of three operations, each of which waits for the one before."""
    word = np.uint64(1)
    for _ in range(steps):
        word = (word ^ (word << np.uint64(1))) + np.uint64(1)
    return word


@parallel
def nothing(marks: Any) -> None:
    """One write a thread: what a parallel call costs by itself."""
    for thread in prange(marks.size):
        marks[thread] += 1
