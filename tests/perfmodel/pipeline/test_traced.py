"""Programs made of traces, through the simulator."""

from __future__ import annotations

import pytest
from numpy.testing import assert_allclose

from perfmodel.pipeline import Resource, WhatIf, simulate
from perfmodel.pipeline.traced import load_trace
from tests.perfmodel.pipeline.cases import SHAPE, time_of


def test_pays_where_decoding_is_the_bound() -> None:
    """Simulated on an H200: fewer instructions win at 90 % sparsity, fewer bytes at 60 %."""
    pairs, bits = (
        [simulate(kernel, "h200", 36864, 9216, 16, s).time_s for s in (0.6, 0.9)]
        for kernel in ("numba-bitmap-pairs", "numba-bitmap")
    )
    assert pairs[0] > 1.1 * bits[0]
    assert pairs[1] < 0.9 * bits[1]


def test_our_kernels_are_simulated_as_compiled():
    """Registers, shared memory and counts come from the trace of the variant that fits N."""
    result = simulate("numba-tiled-csl", "a100-80gb", *SHAPE, 8, 0.8)
    trace = load_trace("tiled_csl", 8, "_v8")
    assert result.grid.resident == trace["architectures"]["sm_80"]["blocks_per_sm"]
    tiles = result.load.tiles
    # One block's instructions are those the emulator counted, within the split between constant and per-word work.
    issued = result.program.demand(int(tiles[0]), 1640.0 * int(tiles[0]))[Resource.ISSUE] / int(tiles[0])
    counted = trace["per_block"]["instructions"]
    assert_allclose(issued, counted["tile"] + 1640 * counted["word"], rtol=0.1)
    assert time_of("numba-tiled-csl", what_if=WhatIf(reorder=False), sparsity=0.9) > time_of(
        "numba-tiled-csl", sparsity=0.9
    )
    with pytest.raises(ValueError, match="not compiled for sm_75, allowed are sm_80"):
        time_of("numba-tiled-csl", "rtx-2080-super")
