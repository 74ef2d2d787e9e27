"""The kernel of Flash-LLM: its compiled PTX on the emulator, its main loop, its traffic."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import encode_tiled_csl
from kernels_numba.formats.two_four_tiles import TILE_K
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.emulate import emulate, run_on_emulator
from kernels_numba.gpu.launch import Launch
from kernels_numba.gpu.stages import STEPS
from kernels_numba.reference import check_product
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.problems import random_problem


@pytest.mark.parametrize(("m", "k"), [(1, 1), (127, 63), (128, 64), (129, 65), (257, 193)])
def test_shapes(m: int, k: int) -> None:
    check(encode_tiled_csl, m, k, 8, 0.3, out_dtype=np.float32)


@pytest.mark.parametrize("density", [0.0, 1e-3, 0.1, 0.3, 0.5, 0.51, 0.9, 1.0])
def test_every_density(density: float) -> None:
    """Above 50 % the released Flash-LLM loses weights (its issue 14); here the overflow loop takes them."""
    check(encode_tiled_csl, 130, 130, 16, density, out_dtype=np.float32)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17, 24, 32, 33, 64, 65, 80])
def test_any_number_of_columns(n: int) -> None:
    check(encode_tiled_csl, 64, 96, n, 0.4, out_dtype=np.float32)


@pytest.mark.parametrize("split_k", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("out_dtype", [np.float16, np.float32])
def test_split_k(split_k: int, out_dtype: type) -> None:
    check(encode_tiled_csl, 130, 5 * 64 + 3, 16, 0.4, split_k=split_k, out_dtype=out_dtype)


@pytest.mark.parametrize("vectors", variants.VECTOR_CHOICES)
@pytest.mark.parametrize("words_per_thread_beyond", [-4, 0, 4])
def test_boundary_between_registers_and_overflow(vectors: int, words_per_thread_beyond: int) -> None:
    """Tiles just below, at, and just above what the registers hold."""
    words = 128 * (4 * vectors + words_per_thread_beyond)
    rng = np.random.default_rng(vectors)
    a = np.zeros((2, 8192), np.float16)
    for tile in a:
        tile[rng.choice(8192, words, replace=False)] = rng.standard_normal(words)
    a = a.reshape(2, 128, 64).transpose(1, 0, 2).reshape(128, 128)
    weights = encode_tiled_csl(a)
    x = rng.standard_normal((128, 8)).astype(np.float16)
    arguments = (weights.words, weights.tile_offsets, x, out := np.full((128, 8), np.nan, np.float32))
    variant = variants.tiled_csl(8, vectors)
    run_on_emulator(Launch(variant, (1, 1, 1), (*arguments, 128, 128, 8, 2, 1), variant.shared_bytes), "sm_80")
    check_product(out, weights, x)


def test_unreordered_words_give_the_same_result() -> None:
    a, x = random_problem(128, 128, 8, 0.25)
    results = [emulate(encode_tiled_csl(a, reorder=reorder), x)[0] for reorder in (True, False)]
    np.testing.assert_array_equal(*results)


def test_hopper_ptx_computes_the_same() -> None:
    a, x = random_problem(130, 130, 24, 0.3)
    weights = encode_tiled_csl(a)
    results = [emulate(weights, x, arch=arch, split_k=2)[0] for arch in ("sm_80", "sm_90")]
    np.testing.assert_array_equal(*results)


def test_traffic_is_what_the_format_holds() -> None:
    """Every word crosses device memory once; activations once per row of tiles."""
    a, x = random_problem(256, 256, 16, 0.2)
    weights = encode_tiled_csl(a)
    traffic = emulate(weights, x, split_k=1, out_dtype=np.float16)[1][0].counters.by_array("load")
    assert traffic[0].bytes == weights.words.nbytes
    assert traffic[2].bytes == 2 * x.nbytes


@pytest.mark.parametrize("tile_n", [8, 16, 32, 64])
def test_main_loop_does_exactly_the_work_of_a_tile(tile_n: int) -> None:
    """Per warp and tile: 2 halves x tile_n / 8 groups x 4 steps of mma, 8 loads of A, the copies of X."""
    loop = compile_kernel(variants.tiled_csl(tile_n, 4), "sm_80").main_loop
    assert loop["tensor_core"] == 2 * (tile_n // 8) * STEPS
    assert loop["load_matrix"] == 2 * STEPS + max(1, tile_n // 16) * STEPS
    assert loop["async_copy"] == max(1, TILE_K * tile_n // 8 // 128)
    assert loop["shared_store"] == 8  # zeroes 16 KiB with 128 threads x 16 bytes
    assert loop["scatter"] == 4 * 4  # held words; the overflow loop inside is not counted
    assert loop["barrier"] == 2
