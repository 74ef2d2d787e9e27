"""The launcher's rule for sharing K, restated for the models, against the launcher itself."""

from __future__ import annotations

from itertools import product

import numpy as np

from kernels_numba.gpu.launch import choose_split_k
from perfmodel.kernels.launcher import launcher_split_k
from perfmodel.kernels.tiled_csl import split_k

SHAPES = ((128, 64), (1024, 4096), (4096, 14336), (8192, 8192), (9216, 36864), (36864, 9216), (49152, 12288))
TILES_N, SLOTS = (8, 16, 32, 64), (108, 132 * 3, 108 * 5, 132 * 7, 16 * 6, 1)


def test_same_as_the_launcher() -> None:
    """Over 168 cases, and not just the rule of the published kernels."""
    cases = [(-(-m // 128), -(-k // 64), tile_n, slots) for (m, k), tile_n, slots in product(SHAPES, TILES_N, SLOTS)]
    assert len(cases) >= 144
    restated = launcher_split_k(*np.array(cases, dtype=np.float64).T)
    assert restated.tolist() == [choose_split_k(*case) for case in cases]
    blocks, k_tiles, _, slots = np.array(cases, dtype=np.float64).T
    assert (restated != split_k(blocks, slots, k_tiles)).mean() > 0.2
