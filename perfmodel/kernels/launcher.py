"""How the launcher of our own kernels shares K among blocks, restated for arrays.

The rule is that of `kernels_numba.gpu.launch.choose_split_k`, which the models may not import; a test holds both equal.
"""

from __future__ import annotations

import numpy as np

from perfmodel.kernels.base import Array, ceil_div
from perfmodel.kernels.machine import Number

MAX_SPLIT_K = 32
BLOCK_TILES = 2  # what the start of a block costs, in tiles of work
COLUMNS_PER_TILE = 6  # of partial sums that cost as much to write and read as a tile of weights at 80 % sparsity


def launcher_split_k(blocks: Number, k_tiles: Number, tile_n: Number, slots: Number) -> Array:
    """Ways to share K: the fewest of those with the shortest time by the launcher's count.

    Parameters
    ----------
    blocks
        Blocks without splitting.
    k_tiles
        Tiles along K, the work of one such block.
    tile_n
        Columns of a block's output.
    slots
        Blocks that run at once on the whole GPU.

    Notes
    -----
    ``waves * (tiles per block + 2 + tile_n / 6)``, the last term only with a split, in times of one tile.
    """
    arrays = (np.asarray(v, dtype=np.float64) for v in (blocks, k_tiles, tile_n, slots))
    blocks, k_tiles, tile_n, slots = np.broadcast_arrays(*arrays)
    best, least = np.ones(blocks.shape), np.full(blocks.shape, np.inf)
    for split in range(1, MAX_SPLIT_K + 1):
        exchange = tile_n / COLUMNS_PER_TILE if split > 1 else 0.0
        cost = ceil_div(blocks * split, slots) * (ceil_div(k_tiles, split) + BLOCK_TILES + exchange)
        better = (cost < least) & (split <= k_tiles)
        best, least = np.where(better, split, best), np.where(better, cost, least)
    return best
