"""Programs made of traces, through the simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from kernels_numba.formats import encode_bitmap, encode_condensed
from kernels_numba.gpu.bulk import WARPS as WARPS_OF_STREAMED
from kernels_numba.gpu.launch import choose_split_k, make_plan, with_aligned_rows
from perfmodel import catalog
from perfmodel.kernels.pipes import loop_pipes
from perfmodel.pipeline import Resource, WhatIf, simulate
from perfmodel.pipeline.stages import WARPS
from perfmodel.pipeline.traced import load_trace
from tests.kernels_numba.problems import random_matrix
from tests.perfmodel.pipeline.cases import SHAPE, time_of


def test_pays_where_decoding_is_the_bound() -> None:
    """Simulated on an H100: fewer instructions win at 90 % sparsity, fewer bytes at 60 %."""
    pairs, bits = (
        [simulate(kernel, "h100", 36864, 9216, 16, s).time_s for s in (0.6, 0.9)]
        for kernel in ("numba-bitmap-pairs", "numba-bitmap")
    )
    assert pairs[0] > 1.1 * bits[0]
    assert pairs[1] < 0.9 * bits[1]


def test_our_kernels_are_simulated_as_compiled():
    """Registers, shared memory and counts come from the trace of the variant that fits N."""
    result = simulate("numba-tiled-csl", "a100-80gb", *SHAPE, 8, 0.8)
    trace = load_trace("tiled_csl", 8, "_v4")
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


def test_our_kernels_share_k_as_their_launcher_does() -> None:
    """The launcher's rule with the blocks that fit, not the one of the published kernels."""
    for kernel, tile_n in (("numba-tiled-csl", 16), ("numba-dense", 16)):
        grid = simulate(kernel, "h100", 8192, 8192, 16, 0.8, seed=None).grid
        asked = choose_split_k(8192 // 128, 8192 // 64, tile_n, grid.resident * grid.sm_count)
        per_block = -(-8192 // 64 // asked)
        assert grid.split_k == -(-8192 // 64 // per_block), kernel


@pytest.mark.parametrize("kernel", ["numba-bitmap", "numba-condensed-pairs"])
def test_kernels_that_share_a_list_have_the_blocks_of_their_launch(kernel: str) -> None:
    """As many as run at once, in equal stretches that take all tiles and go on from one row to the next."""
    result = simulate(kernel, "h100", 8192, 8192, 16, 0.8, seed=None)
    grid = result.grid
    assert grid.blocks == grid.list_blocks == grid.resident * 132
    stretches = grid.stretches(np.arange(grid.blocks))
    assert stretches[0, 0] == 0
    assert stretches[-1, 1] == 64 * 128
    assert (stretches[1:, 0] == stretches[:-1, 1]).all()
    assert set(np.diff(stretches, axis=1).ravel()) <= {grid.tiles_per_block - 1, grid.tiles_per_block}
    a = (
        encode_condensed(random_matrix(256, 256, 0.2))
        if "condensed" in kernel
        else encode_bitmap(random_matrix(256, 256, 0.2))
    )
    planned = make_plan(with_aligned_rows(a), 16, sm_count=132)
    assert planned.blocks == simulate(kernel, "h100", 256, 256, 16, 0.8, seed=None).grid.blocks


def test_condensed_wins_where_decoding_is_the_bound() -> None:
    """Simulated at 80 % and 90 %, 16 tokens: ahead of both bitmaps on cards with HBM, behind them with GDDR."""
    for gpu, ahead in (("a100-80gb", True), ("h100", True), ("h200", True), ("rtx-4090", False)):
        for sparsity in (0.8, 0.9):
            times = {
                kind: min(
                    simulate(f"numba-{kind}{end}", gpu, 36864, 9216, 16, sparsity, seed=None).time_s
                    for end in ("", "-pairs")
                )
                for kind in ("bitmap", "condensed")
            }
            assert (times["condensed"] < times["bitmap"]) == ahead, (gpu, sparsity)


def test_streamed_warps_are_those_of_the_launch() -> None:
    """Each a block of one warp to the engine, as many on an SM as a real block has, whole blocks only."""
    for n, sparsity, gpu in ((16, 0.8, "h100"), (64, 0.8, "b200")):
        result = simulate("numba-condensed-pairs-bulk", gpu, *SHAPE, n, sparsity, seed=None)
        program, grid = result.program, result.grid
        assert grid.resident == program.streams == WARPS_OF_STREAMED[n]
        assert grid.blocks == program.launched * program.streams == grid.sm_count * program.streams
        assert grid.stretches(np.array([grid.blocks - 1]))[0, 1] == grid.row_blocks * grid.k_tiles
        assert program.shared_bytes <= result.machine.shared_bytes_per_block
    with pytest.raises(ValueError, match="split_k is 2, but numba-bitmap-bulk cuts K"):
        simulate("numba-bitmap-bulk", "h100", *SHAPE, 8, 0.8, split_k=2)
    with pytest.raises(ValueError, match=r"sparsity is 0.5, but at N = 16 records of numba-bitmap-bulk"):
        simulate("numba-bitmap-bulk", "rtx-5090", *SHAPE, 16, 0.5)


@pytest.mark.parametrize(("kernel", "gpu"), [("numba-condensed-pairs-bulk", "h100"), ("numba-bitmap-bulk", "b200")])
def test_a_streamed_strip_has_a_quarter_of_the_counted_work_of_a_tile(kernel: str, gpu: str) -> None:
    """A pass of the loop is a strip on every architecture: the assembler may not unroll it."""
    program = simulate(kernel, gpu, *SHAPE, 16, 0.8, seed=None).program
    trace = catalog.load_trace(Path(program.source).stem)
    code = trace["architectures"]["sm_90" if gpu == "h100" else "sm_100"]
    strips = code["main_loop_instructions"]["tensor_core"] * 4 / trace["per_block"]["mma"]["tile"]
    assert strips == 1
    a_strip = (program.demand(101, 0) - program.demand(1, 0)) / 100
    for name, count in loop_pipes(code).items():
        assert_allclose(a_strip[Resource[name.upper()]], count, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(("kernel", "sparsity"), [("numba-bitmap", 0.8), ("numba-bitmap-pairs", 0.9)])
def test_decoding_has_the_counted_instructions_of_every_pipe(kernel: str, sparsity: float) -> None:
    program = simulate(kernel, "h100", *SHAPE, 16, sparsity).program
    code = catalog.load_trace(Path(program.source).stem)["architectures"]["sm_90"]
    a_tile = (program.demand(101, 0) - program.demand(1, 0)) / 100
    for name, count in loop_pipes(code).items():
        assert_allclose(a_tile[Resource[name.upper()]], WARPS * count, rtol=1e-9, err_msg=name)
