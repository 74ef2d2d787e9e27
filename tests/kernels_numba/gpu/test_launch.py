"""Plans of launches: splits fill the GPU, no block is idle, arguments are those of the kernels."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import Dense, TiledCsl, encode_tiled_csl
from kernels_numba.gpu.launch import Launch, choose_split_k, launches, make_plan
from tests.kernels_numba.problems import random_matrix

A = random_matrix(130, 70, 0.3)


def test_plans_take_whole_numbers_only() -> None:
    weights = encode_tiled_csl(A)
    assert make_plan(weights, np.int32(9), split_k=np.int64(2)) == make_plan(weights, 9, split_k=2)
    for options in ({"n": 8.0}, {"n": 0}, {"n": 8, "split_k": "2"}):
        with pytest.raises(ValueError, match=r"(n|split_k): .*; allowed: an integer from 1 to"):
            make_plan(weights, **options)


def empty_weights(m: int, k: int, words_per_tile: int) -> TiledCsl:
    """Only the sizes matter to a plan."""
    tiles = -(-m // 128) * -(-k // 64)
    return TiledCsl((m, k), np.empty(tiles * words_per_tile, np.uint32), np.empty(tiles + 2, np.int32))


def test_sizes_beyond_32_bits_are_refused() -> None:
    weights = Dense(np.broadcast_to(np.float16(1), (1, 70)).copy())
    with pytest.raises(ValueError, match=r"k \* n: .* allowed: at most 2147483647"):
        make_plan(weights, 2**31 // 70 + 8)


@pytest.mark.parametrize("split_k", [1, 2, 3, 7, 100])
def test_no_block_is_without_work(split_k: int) -> None:
    plan = make_plan(empty_weights(128, 640, 8), 8, split_k=split_k)
    assert plan.k_tiles_per_split * (plan.split_k - 1) < 10 <= plan.k_tiles_per_split * plan.split_k
    assert plan.split_k <= split_k


def test_split_k_fills_the_gpu_and_no_more() -> None:
    """One tile of output and much K: split. Far more tiles than slots: do not. Two tiles of K: at most two."""
    assert choose_split_k(output_tiles=1, k_tiles=512, tile_n=8, slots=432) > 8
    assert choose_split_k(output_tiles=4320, k_tiles=144, tile_n=8, slots=432) == 1
    assert choose_split_k(output_tiles=1, k_tiles=2, tile_n=8, slots=432) <= 2


def test_split_k_removes_an_expensive_tail() -> None:
    """433 tiles on 432 slots take two waves of 100; any split that fills waves better must win."""
    chosen = choose_split_k(output_tiles=433, k_tiles=100, tile_n=8, slots=432)
    waves = -(-433 * chosen // 432)
    assert waves * -(-100 // chosen) < 200


def test_grid_and_arguments_follow_the_plan() -> None:
    plan = make_plan(empty_weights(300, 500, 400), 70, split_k=2)
    assert plan.n_padded == 72
    assert plan.grid == (2, 3, 2)
    assert plan.workspace_shape == (2, 300, 72)
    buffers = {"words": "W", "tile_offsets": "T"}
    first, second = launches(plan, buffers, "X", "OUT", "WORK", None, as_fp32=False)
    assert isinstance(first, Launch)
    assert first.arguments == ("W", "T", "X", "WORK", 300, 500, 72, 4, 1)
    assert second.arguments == ("WORK", "OUT", 300 * 72, 2, 0)
    assert second.grid == (-(-300 * 72 // 512), 1, 1)


@pytest.mark.parametrize("encode", [encode_tiled_csl, Dense])
def test_blocks_that_share_weights_start_together(encode) -> None:
    """Neighbouring blocks differ in columns, so that L2 serves the weights to all but the first of them."""
    plan = make_plan(encode(A), 128, split_k=1)
    rows, columns = -(-A.shape[0] // 128), 128 // plan.variant.tile_n
    assert columns > 1
    assert plan.grid == (columns, rows, 1)
