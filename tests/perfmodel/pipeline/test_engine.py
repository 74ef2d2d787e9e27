"""The engine by hand, and at small and odd sizes."""

from __future__ import annotations

import pytest
from numpy.testing import assert_allclose

from perfmodel.catalog import load_gpu
from perfmodel.pipeline import PipelineParameters, Program, Resource, Stage, Tile, Wait, WhatIf, Work, simulate
from perfmodel.pipeline.grid import Grid, TileCounts
from perfmodel.pipeline.machine import Machine
from perfmodel.pipeline.simulate import run_program
from perfmodel.pipeline.stages import Product
from tests.perfmodel.pipeline.cases import time_of


def test_one_block_by_hand():
    """A load of 1000 bytes, then 20 instructions: every cycle can be counted."""
    gpu = load_gpu("a100-80gb")
    machine = Machine.of(gpu, PipelineParameters(issue_interval_cycles=5.0, launch_s=1e-6))
    load = Stage("load", "load", {Resource.DRAM: Work(1000.0)}, latency_cycles=300.0)
    use = Stage("use", "scatter", {}, Work(20.0), after=(("load", 0),))
    program = Program("toy", Tile(128, 8, 64), 1, 1024, 32, 128, (load, use), source="this test")
    product = Product(128, 128, 8, 0.0)
    result = run_program(program, machine, Grid(1, 1, 1, 2, 1, 108), TileCounts(128, 64, 1, None, None, 1), product)
    transfer = 1000 * machine.cycles_per_unit[Resource.DRAM]
    # The second load is issued with the first `use`; DRAM is free again long before.
    assert_allclose(result.kernel_s * machine.clock_hz, 2 * (transfer + 300 + 20 * 5), rtol=1e-12)
    assert_allclose(result.dram_bytes, 2000)
    shares = result.waits
    assert_allclose(shares[Wait.DRAM] / shares[Wait.ISSUE], (transfer + 300) / 100)


@pytest.mark.parametrize("buffers", [True, False])
@pytest.mark.parametrize("k", [1, 64, 65, 9216])
def test_small_and_odd_sizes(buffers, k):
    """One row, one column, a split of K that leaves blocks without a tile: all finish, and longer K takes longer."""
    for kernel in ("flash-llm", "cublas", "bitmap"):
        change = WhatIf(double_buffer=buffers or kernel == "bitmap")  # whose buffers nothing can change
        short = simulate(kernel, "a100-80gb", 1, k, 1, 0.5, what_if=change)
        split = simulate(kernel, "a100-80gb", 300, 9216, 1, 0.5, split_k=100, what_if=change)
        assert 0 < short.time_s <= time_of(kernel, shape=(1, 9216), n=1, sparsity=0.5, what_if=change)
        assert split.load.tiles.min() >= 1
