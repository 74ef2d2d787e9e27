"""SpInfer's program: as many instructions as were counted, and nothing of A on its way while a block decodes."""

from __future__ import annotations

import pytest
from numpy.testing import assert_allclose

from perfmodel.pipeline import Resource, WhatIf, simulate
from perfmodel.pipeline.spinfer import TILE_INSTRUCTIONS, TILE_PIPES
from perfmodel.pipeline.timeline import timeline

SHAPE = (8192, 8192)


@pytest.mark.parametrize("sparsity", [0.4, 0.7])
def test_a_tile_has_the_counted_instructions(sparsity: float) -> None:
    """62 population counts for each warp's 16 bitmaps, at every sparsity; 465 instructions to 3 %."""
    program = simulate("bitmap", "a100-80gb", *SHAPE, 16, sparsity).program
    kept = 64 * 64 * (1 - sparsity)
    tile = (program.demand(101, 101 * kept) - program.demand(1, kept)) / 100 / 4  # a warp's
    for pipe, count in TILE_PIPES.items():
        assert_allclose(tile[pipe], count, rtol=1e-9)
    assert_allclose(tile[Resource.ISSUE], TILE_INSTRUCTIONS, rtol=0.03)
    assert_allclose(4 * tile[Resource.TENSOR], 64 * 64 * 16)


def test_tiles_of_a_come_one_at_a_time() -> None:
    simulation = simulate("bitmap", "a100-80gb", *SHAPE, 16, 0.6, seed=None)
    assert simulation.grid.resident == 5
    table = timeline(simulation)
    one = table[table["block"] == table["block"].iloc[0]].set_index(["step", "stage"])
    for step in range(2, 6):
        loaded = one.loc[(step, "load A"), "end_cycles"]
        assert one.loc[(step, "count 0"), "begin_cycles"] >= loaded
        assert one.loc[(step, "gather 3"), "end_cycles"] <= one.loc[(step + 1, "load A"), "begin_cycles"]
        assert one.loc[(step, "mma 0"), "begin_cycles"] < loaded  # the product covers the copy


def test_population_counts_bind_on_hbm_at_every_sparsity() -> None:
    times = [simulate("bitmap", "a100-40gb", 36864, 9216, 16, s, seed=None) for s in (0.6, 0.9)]
    assert max(times[0].busy, key=times[0].busy.__getitem__) == "xu"
    assert times[1].time_s > 0.95 * times[0].time_s


def test_decoding_in_line_overlaps_what_spinfer_does_not() -> None:
    """The same decoder in Flash-LLM's grid, with two buffers of A."""
    change = WhatIf(register_decode=True)
    double = simulate("flash-llm", "a100-80gb", *SHAPE, 16, 0.6, what_if=change, seed=None)
    single = simulate(
        "flash-llm", "a100-80gb", *SHAPE, 16, 0.6, what_if=WhatIf(register_decode=True, double_buffer=False), seed=None
    )
    assert single.program.buffers == 1
    assert double.program.buffers == 2
    with pytest.raises(ValueError, match="double_buffer cannot be changed in bitmap; nothing can"):
        simulate("bitmap", "a100-80gb", *SHAPE, 16, 0.6, what_if=WhatIf(double_buffer=False))
