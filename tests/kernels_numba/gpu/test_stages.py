"""The stages that the Tensor-Core kernels share."""

from __future__ import annotations

import pytest

from kernels_numba.formats import Dense, encode_tiled_csl
from kernels_numba.gpu import stages as gpu_stages
from kernels_numba.gpu.emulate import emulate
from tests.kernels_numba.problems import random_problem


@pytest.mark.parametrize("tile_n", gpu_stages.TILE_N_CHOICES)
def test_shared_memory_has_no_bank_conflicts_outside_the_scatter(tile_n: int) -> None:
    a, x = random_problem(128, 192, tile_n, 0.2)
    for encode in (encode_tiled_csl, Dense):
        counters = emulate(encode(a), x)[1][0].counters
        for kind in ("ldmatrix", "cp.async"):
            assert counters.shared(kind).bank_conflicts == 0
        assert counters.mma["mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"] == 3 * 8 * 4 * tile_n // 8
