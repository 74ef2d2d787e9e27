"""Blocks on SMs: representatives, tiles along K, the split of the released kernel."""

from __future__ import annotations

import pytest
from numpy.testing import assert_allclose

from perfmodel.pipeline import simulate
from perfmodel.pipeline.grid import Grid, TileCounts, choose_split_k, deal, representatives
from tests.perfmodel.pipeline.cases import time_of


def test_few_representative_sms_stand_for_all(monkeypatch):
    few = time_of(shape=(28672, 7168))
    monkeypatch.setattr("perfmodel.pipeline.grid.SIMULATED_SMS", 108)
    monkeypatch.setattr("perfmodel.pipeline.grid.MAX_EVENTS", 10**7)
    assert_allclose(time_of(shape=(28672, 7168)), few, rtol=0.005)


@pytest.mark.parametrize(("blocks", "sms"), [(5, 108), (108, 108), (109, 108), (432, 108), (1000, 82)])
def test_representatives_stand_for_every_sm_in_use(blocks, sms):
    chosen = representatives(blocks, sms, 6)
    assert_allclose(sum(weight for _, weight in chosen), min(blocks, sms))
    carried = sum(weight * len(range(sm, blocks, sms)) for sm, weight in chosen)
    assert_allclose(carried, blocks)


def test_split_k_is_that_of_the_released_kernel():
    """The 12 hand-tuned values of the kernel benchmark, 2 blocks on each of 108 SMs."""
    tuned = {21504: 5, 28672: 7, 27648: 2, 9216: 6, 36864: 3, 49152: 9, 12288: 9, 7168: 7}
    chosen = {m: choose_split_k(m // 256, 216, 112, 10) for m in tuned}
    assert chosen == tuned


def test_tiles_of_all_blocks_cover_k():
    grid = Grid(4, 1, 5, 112, 2, 108)
    ranges = [grid.k_range(split) for split in range(5)]
    assert [end - begin for begin, end in ranges] == [23, 23, 23, 23, 20]
    program = simulate("flash-llm", "a100-80gb", 1024, 7168, 8, 0.8, split_k=5).program
    load = deal(grid, program, 10, TileCounts(256, 64, 0.2, None, None, 1))
    assert int(load.tiles.max()) == 23
    assert load.nonzeros.shape[1] == 23
