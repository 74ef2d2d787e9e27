"""Blocks that share a list of tiles: every stretch, its sums in fixed order, and flags as they were."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from kernels_numba.formats import encode_bitmap, encode_condensed
from kernels_numba.gpu.emulate import emulate, run_on_emulator
from kernels_numba.gpu.launch import launches, make_plan
from kernels_numba.reference import check_product
from tests.kernels_numba.problems import random_matrix


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 7, 11, 14, 15])
def test_any_number_of_blocks(blocks: int) -> None:
    """Three rows of five tiles in stretches that end anywhere: inside a row, over two rows, a tile each."""
    weights, x = encode_condensed(random_matrix(300, 320, 0.2)), random_matrix(320, 8, 1)
    plan = replace(make_plan(weights, 8), blocks=blocks)
    out = np.full((300, 8), np.nan, np.float32)
    sums, flags = np.full(plan.workspace_shape, np.nan, np.float32), np.zeros(plan.flags, np.uint32)
    (launch,) = launches(plan, weights.buffers, x, out, sums, flags, as_fp32=True)
    for _ in range(2):  # the second launch finds the flags as the first did
        run_on_emulator(launch, "sm_80")
        assert not flags.any()
        check_product(out, weights, x)
        out[:] = np.nan


def test_a_block_for_every_slot_of_the_gpu_and_no_tile_without_one() -> None:
    weights = encode_bitmap(random_matrix(640, 640, 0.2))
    plan = make_plan(_records(weights), 16, sm_count=4)
    assert plan.blocks == 4 * 4
    assert plan.grid == (1, 16, 1)
    assert make_plan(_records(weights), 16, sm_count=1000).blocks == 5 * 10
    assert make_plan(_records(weights), 16, split_k=2).blocks == 2 * 5
    assert make_plan(_records(weights), 128, sm_count=4).grid == (2, 8 // 2, 1)  # 2 blocks of 64 columns fit an SM


def _records(weights):  # type: ignore[no-untyped-def]
    from kernels_numba.gpu.launch import with_aligned_rows

    return with_aligned_rows(weights)


def test_columns_beyond_a_tile_have_blocks_of_their_own() -> None:
    weights, x = encode_condensed(random_matrix(200, 200, 0.2)), random_matrix(200, 150, 1)
    out, results = emulate(weights, x, split_k=3, out_dtype=np.float32)
    check_product(out, weights, x)
    assert len(results) == 1


def test_sums_are_added_in_the_order_of_k() -> None:
    """Rounded as (first block + second) + ...: the first in the list of blocks is the last in time it could be."""
    a = np.zeros((1, 256), np.float16)
    a[0, [0, 64, 128, 192]] = [1, 2.0**-13, 2.0**-13, 2.0**-13]
    x = np.zeros((256, 8), np.float16)
    x[[0, 64, 128, 192]] = 2.0**12
    out, _ = emulate(encode_condensed(a), x, split_k=4, out_dtype=np.float32)
    assert Fraction(float(out[0, 0])) == 2**12 + 3 * Fraction(1, 2)
