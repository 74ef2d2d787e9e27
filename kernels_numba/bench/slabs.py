"""Large random matrices at the price of a small one: one slab of rows, encoded once and repeated.

A benchmark's matrix of 36,864 rows takes seconds to draw and to encode, and milliseconds to measure. Tiles of a format
never reach across a multiple of 128 rows, so a slab of at most 4,608 rows is drawn and encoded, and its buffers are
laid one after the other with shifted offsets: the bytes are those of the encoded repeated matrix. Every copy lies at
its own addresses, so memory and caches see a matrix of full size. The float64 product of the slab is repeated too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.product import random_weights
from kernels_numba.formats import TILE_M, Dense, EncodedWeight
from kernels_numba.formats.encoded import INT32_MAX, check

SLAB_ROWS = 4608
# Running positions, and how many entries at their end belong to no row, tile or strip.
POINTERS = {"row_ptr": 1, "tile_offsets": 2, "offsets": 2}
Weight = TypeVar("Weight", bound=EncodedWeight)


@dataclass(frozen=True)
class Matrix:
    """Weights (m, k) that repeat a slab, activations, and their product.

    slab : (rows, k) float16; x : (k, n_max) float16; product : (rows, n_max) float64, of slab and x.
    m : a multiple of rows.
    """

    m: int
    slab: NDArray[np.float16]
    x: NDArray[np.float16]
    product: NDArray[np.float64]

    @property
    def k(self) -> int:
        """Columns of the weights."""
        return self.slab.shape[1]

    @property
    def times(self) -> int:
        """How often the slab is repeated."""
        return self.m // self.slab.shape[0]

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return 1 - np.count_nonzero(self.slab) / self.slab.size

    def activations(self, n: int) -> NDArray[np.float16]:
        """The first n columns of x, row-major."""
        return np.ascontiguousarray(self.x[:, :n])

    def expected(self, n: int) -> NDArray[np.float64]:
        """Product (m, n)."""
        return np.tile(self.product[:, :n], (self.times, 1))

    def dense(self) -> NDArray[np.float16]:
        """All weights (m, k)."""
        return np.tile(self.slab, (self.times, 1))


def slab_rows(m: int, most: int = SLAB_ROWS) -> int:
    """Rows of the largest slab, a multiple of 128 of at most ``most`` rows, that m rows repeat; m if there is none."""
    parts = (count for count in range(-(-m // most), m // TILE_M + 1) if m % (TILE_M * count) == 0)
    return m // next(parts, 1)


def make_matrix(m: int, k: int, sparsity: float, n_max: int, seed: int, most_rows: int = SLAB_ROWS) -> Matrix:
    """Random weights of a sparsity, and random activations of n_max columns; the same for the same arguments."""
    rng = np.random.default_rng([seed, m, k, round(100 * sparsity)])
    slab = random_weights(slab_rows(m, most_rows), k, sparsity, rng)
    x = rng.standard_normal((k, n_max)).astype(np.float16)
    return Matrix(m, slab, x, slab.astype(np.float64) @ x.astype(np.float64))


def repeat(weights: Weight, times: int) -> Weight:
    """Encoding of the matrix that repeats ``weights`` along m.

    Raises
    ------
    ValueError
        If a slab that is repeated does not end at a multiple of 128 rows, or offsets would pass 32 bits.
    """
    m, k = weights.shape
    check(times == 1 or m % TILE_M == 0, "rows of a slab", m, f"a multiple of {TILE_M}")
    given = vars(weights)
    changed: dict[str, Any] = {"shape": (m * times, k)}
    changed |= {name: _shifted(given[name], ends, times) for name, ends in POINTERS.items() if name in given}
    for name in given.keys() - changed.keys():
        value = given[name]
        if isinstance(value, EncodedWeight):
            changed[name] = repeat(value, times)
        elif isinstance(value, np.ndarray):
            changed[name] = np.tile(value, (times, *(1 for _ in value.shape[1:])))
    if isinstance(weights, Dense):  # whose constructor takes the values alone
        return type(weights)(changed["values"], weights.element)
    return type(weights)(**{**given, **changed})


def _shifted(pointers: NDArray[np.int32], ends: int, times: int) -> NDArray[np.int32]:
    """Running positions of ``times`` parts, one after the other."""
    end = int(pointers[-1])
    check(end * times <= INT32_MAX, "offsets of repeated slabs", end * times, f"at most {INT32_MAX}")
    starts = pointers[:-ends] + end * np.arange(times, dtype=np.int32)[:, None]
    return np.concatenate((starts.reshape(-1), np.full(ends, end * times, np.int32)))
