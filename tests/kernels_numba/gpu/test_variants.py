"""Which compiled kernel a weight and a number of columns get."""

from __future__ import annotations

from kernels_numba.gpu.variants import tile_n_for, vectors_for


def test_choice_of_tile_and_registers() -> None:
    assert [tile_n_for(n) for n in (8, 16, 24, 32, 40, 64, 72)] == [8, 16, 32, 32, 64, 64, 64]
    assert [vectors_for(8192 * density) for density in (0.0, 0.25, 0.26, 0.5, 1.0)] == [4, 4, 8, 8, 8]
