"""The kernels that stream records by bulk copies, on an emulator that checks barriers, bytes and proxies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from kernels_numba.check import machine_code_faults
from kernels_numba.formats import encode_bitmap, encode_condensed, encode_csr
from kernels_numba.formats.records import BitmapRecords
from kernels_numba.gpu import bulk, variants
from kernels_numba.gpu.compile import compile_kernel, runs_on
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.launch import make_plan, with_aligned_rows
from kernels_numba.reference import check_product
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.problems import random_matrix

ENCODERS: dict[str, Callable[..., Any]] = {
    "bitmap": encode_bitmap,
    "bitmap_pairs": partial(encode_bitmap, width=2),
    "condensed": partial(encode_condensed, width=1),
    "condensed_pairs": encode_condensed,
}
streamed: dict[str, Any] = {"streamed": True, "arch": "sm_90"}


@pytest.mark.parametrize("kernel", ENCODERS)
@pytest.mark.parametrize(("density", "n"), [(0.0, 8), (0.2, 16), (0.5, 8), (1.0, 8)])
def test_every_density(kernel: str, density: float, n: int) -> None:
    """A full strip's record is one long copy; an empty one's is its header."""
    results = check(ENCODERS[kernel], 70, 130, n, density, sm_count=1, out_dtype=np.float32, **streamed)
    assert results[0].kernel == f"{kernel}_bulk_n{n}"


@pytest.mark.parametrize("shape", [(1, 1), (31, 63), (33, 300), (257, 193)])
@pytest.mark.parametrize("n", [8, 24, 72])
def test_shapes(shape: tuple[int, int], n: int) -> None:
    check(encode_condensed, *shape, n, 0.2, sm_count=3, out_dtype=np.float32, **streamed)


@pytest.mark.parametrize("sm_count", [1, 2, 5])
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_pieces_of_rows_come_together(sm_count: int, slices: int) -> None:
    """80 strips for 16 to 80 warps: rows that one warp has whole, rows of two, rows cut by slices of K."""
    a, x = random_matrix(500, 320, 0.2), random_matrix(320, 8, 1)
    weights = encode_condensed(a)
    out, _ = emulate(weights, x, split_k=slices, sm_count=sm_count, out_dtype=np.float32, **streamed)
    check_product(out, weights, x)


@pytest.mark.parametrize(("m", "k", "slices", "sm_count"), [(128, 320, 3, 9), (1, 640, 2, 4), (100, 640, 2, 8)])
def test_warps_without_strips_read_nothing_out_of_bounds(m: int, k: int, slices: int, sm_count: int) -> None:
    """More warps than strips, in slices whose columns begin far from where the list of records ends."""
    check(encode_bitmap, m, k, 8, 0.2, split_k=slices, sm_count=sm_count, out_dtype=np.float32, **streamed)


def test_the_result_does_not_depend_on_where_it_is_cut_but_for_rounding() -> None:
    weights, x = encode_bitmap(random_matrix(200, 640, 0.2)), random_matrix(640, 16, 1)
    one, other = (emulate(weights, x, sm_count=n, out_dtype=np.float32, **streamed)[0] for n in (1, 3))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(one, emulate(weights, x, sm_count=1, out_dtype=np.float32, **streamed)[0])


def test_weights_cross_memory_once_and_x_once_a_block() -> None:
    weights, x = encode_condensed(random_matrix(512, 256, 0.2)), random_matrix(256, 8, 1)
    counters = emulate(weights, x, sm_count=2, **streamed)[1][0].counters
    traffic = counters.by_array("load")
    assert traffic[0].bytes == weights.records[: 8 * int(weights.offsets[-1])].nbytes
    assert traffic[2].bytes == 2 * x.nbytes
    assert counters.shared("ldmatrix").bank_conflicts == counters.shared("cp.async").bank_conflicts == 0


def test_slices_fit_beside_the_rings() -> None:
    weights = with_aligned_rows(encode_condensed(random_matrix(256, 64 * 200, 0.2)))
    plan = make_plan(weights, 16, sm_count=132, **streamed)
    assert plan.slices == 3
    assert plan.k_tiles_per_split == 67
    assert plan.grid == (1, 132 // 3, 3)
    assert plan.shared_bytes == bulk.shared_bytes(16, plan.capacity, 67) <= 227 * 1024


def test_what_cannot_be_streamed_is_refused() -> None:
    a = random_matrix(64, 64, 0.2)
    with pytest.raises(ValueError, match="streamed: Csr; allowed: Bitmap or Condensed"):
        make_plan(encode_csr(a), 8, **streamed)
    with pytest.raises(ValueError, match="arch: sm_80; allowed: sm_90 or newer"):
        make_plan(encode_condensed(a), 8, streamed=True, arch="sm_80")
    full = encode_condensed(np.ones((32, 64), np.float16))
    assert make_plan(full, 8, **streamed).slices == 1
    with pytest.raises(ValueError, match=r"longest record: 4...; allowed: fewer bytes"):  # of 99 KB a block
        make_plan(full, 8, streamed=True, arch="sm_120")
    k_tiles = 5 * 2**16
    offsets = np.zeros(4 * k_tiles + 2, np.int32)
    offsets[1:] = 290  # one record of 4,640 bytes, beside whose rings 4 tiles of X fit
    long = BitmapRecords((128, 64 * k_tiles), np.zeros(0, np.uint16), offsets, 1)
    with pytest.raises(ValueError, match="slices of k: 81920; allowed: at most 65535"):
        make_plan(long, 8, **streamed)
    assert not runs_on(variants.streamed("bitmap", 8), "sm_89")


@pytest.mark.parametrize("kernel", ENCODERS)
@pytest.mark.parametrize("arch", ["sm_90", "sm_120"])
def test_machine_code_is_what_was_planned(kernel: str, arch: str) -> None:
    assert machine_code_faults(compile_kernel(variants.streamed(kernel, 8), arch)) == []


@pytest.mark.parametrize("n", [8, 16, 32, 64])
def test_streaming_takes_fewer_instructions_than_the_ring(n: int) -> None:
    ring, stream = (
        compile_kernel(make("condensed_pairs", n), "sm_90") for make in (variants.records, variants.streamed)
    )
    assert sum(stream.main_loop.values()) < sum(ring.main_loop.values())
