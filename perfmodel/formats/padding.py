"""How many values does a tile of random zeros store when it is padded to whole units?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perfmodel.formats.base import Array

CERTAIN_COUNT = 40.0  # powers of the roots of unity below are then smaller than exp(-40)
TABLE_FROM = 1_000  # points below which a table of distinct values is not worth its making


def stored_in_tiles(m: Array, k: Array, s: Array, tile: tuple[int, int], unit: int) -> Array:
    """Expected values of a matrix cut into tiles, those of every tile padded to a multiple of ``unit``."""
    tile_m, tile_k = tile
    rows, columns = np.floor(m / tile_m), np.floor(k / tile_k)
    rest_m, rest_k = m - rows * tile_m, k - columns * tile_k
    return (
        rows * columns * expected_stored(np.asarray(float(tile_m * tile_k)), s, unit)
        + columns * expected_stored(rest_m * tile_k, s, unit)
        + rows * expected_stored(tile_m * rest_k, s, unit)
        + expected_stored(rest_m * rest_k, s, unit)
    )


def expected_stored(elements: Array, sparsity: Array, unit: int) -> Array:
    """Expected non-zeros among ``elements`` Bernoulli weights, rounded up to a multiple of ``unit``, which is even.

    Exact: ``E[(-X) mod u] = (u-1)/2 + sum over j = 1 .. u-1 of E[w_j ** X] / (w_j - 1)`` for a binomial ``X`` and the
    u-th roots of unity ``w_j``; ``E[w ** X] = (s + d w) ** elements``. Roots come in conjugate pairs, but for -1.
    """
    d = 1.0 - sparsity
    angles = 2 * np.pi / unit * np.arange(1, unit // 2)
    # abs(s + d w) <= exp(-d s (1 - cos angle)), and the first root decays most slowly.
    if np.all(elements * d * sparsity * (1 - np.cos(angles[0])) > CERTAIN_COUNT):
        return d * elements + (unit - 1) / 2  # so many that every remainder is equally likely
    if np.all(elements == 0):
        return np.zeros_like(d * elements)
    return d * elements + _tabulated(_expected_padding, elements, sparsity, unit)


def _expected_padding(elements: Array, sparsity: Array, unit: int) -> Array:
    d = 1.0 - sparsity
    # A shape shared by several GPUs may have a part of a row: the power of a negative mean is then its real part.
    sign = np.where(sparsity < d, np.cos(np.pi * elements), 1.0)
    padding = (unit - 1) / 2 - 0.5 * sign * np.abs(sparsity - d) ** elements
    for root in np.exp(2j * np.pi / unit * np.arange(1, unit // 2)):
        mean, pole = np.where(d == 1, root, sparsity + d * root), root - 1
        turned = np.cos(elements * np.angle(mean) - np.angle(pole))  # real arithmetic is twice as fast
        padding = padding + 2 / abs(pole) * np.exp(elements * np.log(np.abs(mean))) * turned
    return np.where(elements > 0, padding, 0.0)


def _tabulated(function: Callable[[Array, Array, int], Array], first: Array, second: Array, unit: int) -> Array:
    """``function`` of two arrays, evaluated once for each pair of their values if that saves half of the work."""
    if np.broadcast(first, second).size > TABLE_FROM:
        (a, at_a), (b, at_b) = (np.unique(values, return_inverse=True) for values in (first, second))
        if 2 * a.size * b.size < np.broadcast(first, second).size:
            table = function(a[:, None], b, unit)
            return table[at_a.reshape(first.shape), at_b.reshape(second.shape)]
    return function(first, second, unit)
