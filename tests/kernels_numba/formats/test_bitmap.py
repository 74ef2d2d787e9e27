"""Bitmaps with a bit per pair of columns: the encoding, and the kernel on the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_numba.check import machine_code_faults
from kernels_numba.formats import Bitmap, encode_bitmap
from kernels_numba.gpu import bitmap as gpu_bitmap
from kernels_numba.gpu import trace, variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.emulate import emulate
from kernels_numba.reference import check_product
from kernels_numba.spmm import spmm
from perfmodel.formats import FORMATS
from perfmodel.pipeline import simulate
from tests.test_bitmap import random_matrix


def check(m: int, k: int, n: int, density: float, **options) -> None:
    weights = encode_bitmap(random_matrix(m, k, density), width=2)
    x = random_matrix(k, n, 1, seed=1)
    out, results = emulate(weights, x, **options)
    assert results[0].kernel.startswith("bitmap_pairs")
    check_product(out, weights, x, f"pairs {m} x {k} x {n} at density {density}")


# The format.


def test_layout_by_hand() -> None:
    """A lane's nibble c are its registers a0 ... a3 of chunk c; a pair is stored whole if either half is not zero."""
    a = np.zeros((32, 64), np.float16)
    a[0, 0], a[9, 3], a[0, 8], a[31, 63], a[16, 0], a[16, 1] = 1, 2, 3, 4, 5, 6
    weights = encode_bitmap(a, width=2)
    assert weights.masks.dtype == np.uint32
    masks = {(lane, bit) for lane in range(32) for bit in range(32) if int(weights.masks[0, lane]) >> bit & 1}
    assert masks == {(0, 0), (5, 1), (0, 2), (31, 31), (0, 4)}
    np.testing.assert_array_equal(weights.values, [1, 0, 3, 0, 0, 2, 5, 6, 0, 4, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(weights.offsets, [0, 2, 2])
    assert (weights.width, weights.nnz, weights.most_values) == (2, 6, 16)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 140), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_round_trip(m: int, k: int, density: float, seed: int) -> None:
    """Any bit pattern survives, infinities and NaN included; -0.0 becomes +0.0."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 65536, (m, k), dtype=np.uint16)
    bits[rng.random(bits.shape) >= density] = rng.choice([0, 0x8000])
    weights = encode_bitmap(bits.view(np.float16), width=2).validate()
    expected = np.where(bits & 0x7FFF, bits, 0)
    np.testing.assert_array_equal(weights.decode().view(np.uint16), expected)
    assert weights.nnz == np.count_nonzero(expected)


@pytest.mark.parametrize("shape", [(1, 1), (32, 64), (33, 65), (100, 300)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_bytes_are_those_of_the_formula(shape: tuple[int, int], density: float) -> None:
    """A bit for two positions and 4 bytes a pair; ``1 - s**2`` of the pairs are stored where zeros fall at random."""
    sizes = [encode_bitmap(random_matrix(*shape, density, seed), width=2).nbytes for seed in range(60)]
    expected = float(FORMATS["lscd-bitmap-pairs"].bytes(*map(np.float64, shape), np.float64(1 - density)))
    assert np.mean(sizes) == pytest.approx(expected, abs=4 * np.std(sizes) / np.sqrt(60) + 1e-6)


WEIGHTS = encode_bitmap(random_matrix(40, 70, 0.3), width=2)
OUTSIDE = WEIGHTS.masks.copy()
OUTSIDE[3, 31] |= np.uint32(1) << np.uint32(31)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("shape", (40, 69), "values: a weight beyond the last column"),
        ("shape", (40, 66), "masks: a bit beyond"),
        ("masks", WEIGHTS.masks.astype(np.uint64), "offsets|masks"),
        ("masks", WEIGHTS.masks[:-1], "masks: uint32"),
        ("masks", OUTSIDE, "masks: a bit beyond the matrix|offsets: strip"),
        ("values", WEIGHTS.values[:-8], r"offsets\[-1\]"),
    ],
)
def test_corrupt_encodings_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bitmap.from_buffers(**(vars(WEIGHTS) | {field: value}))


def test_encoder_refuses_other_widths() -> None:
    with pytest.raises(ValueError, match="width: 3; allowed: 1 or 2"):
        encode_bitmap(np.ones((2, 2), np.float16), width=3)


# The kernel.


@pytest.mark.parametrize("density", [0.0, 1e-3, 0.1, 0.5, 0.9, 1.0])
def test_every_density(density: float) -> None:
    check(130, 130, 16, density, split_k=1, out_dtype=np.float32)


@pytest.mark.parametrize(("m", "k"), [(1, 1), (31, 63), (32, 64), (257, 193)])
def test_shapes(m: int, k: int) -> None:
    check(m, k, 8, 0.2, out_dtype=np.float32)


@pytest.mark.parametrize("n", [1, 24, 32, 64, 72])
def test_any_number_of_columns(n: int) -> None:
    check(40, 96, n, 0.2, split_k=1, out_dtype=np.float32)


@pytest.mark.parametrize("out_dtype", [np.float16, np.float32])
def test_split_k(out_dtype: type) -> None:
    check(130, 5 * 64 + 2, 16, 0.2, split_k=3, out_dtype=out_dtype)


def test_full_and_empty_chunks() -> None:
    """A full chunk has 128 pairs, 4 a lane; full and empty ones alternate, so that every running sum is told apart."""
    a = np.zeros((32, 64), np.float16)
    for chunk in range(0, 8, 2):
        a[:, chunk * 8 : chunk * 8 + 8] = chunk + 1
    a[:16, 16:32] = 1
    weights, x = encode_bitmap(a, width=2), random_matrix(64, 8, 1)
    check_product(emulate(weights, x, out_dtype=np.float32)[0], weights, x)


def test_zero_partners_add_nothing() -> None:
    a = np.zeros((4, 64), np.float16)
    a[:, 0] = 1
    x = np.ones((64, 8), np.float16)
    out = spmm(encode_bitmap(a, width=2), x, backend="emulator", out_dtype=np.float32)
    np.testing.assert_array_equal(out, np.ones((4, 8)))


def test_weights_cross_memory_once() -> None:
    weights, x = encode_bitmap(random_matrix(128, 192, 0.1), width=2), random_matrix(192, 8, 1)
    counters = emulate(weights, x, split_k=1)[1][0].counters
    traffic = counters.by_array("load")
    assert [traffic[i].bytes for i in (0, 1, 3)] == [weights.masks.nbytes, weights.values.nbytes, x.nbytes]
    for kind in ("ldmatrix", "cp.async"):
        assert counters.shared(kind).bank_conflicts == 0


@pytest.mark.parametrize(("name", "arch"), [("bitmap_pairs_n8_c512", "sm_90"), ("bitmap_pairs_n64_c2048", "sm_80")])
def test_machine_code_is_what_was_planned(name: str, arch: str) -> None:
    assert machine_code_faults(compile_kernel(variants.all_variants()[name], arch)) == []


def test_main_loop_has_half_the_work_of_single_bits() -> None:
    """Per lane and tile 32 loads of pairs and one of the mask; about 4 instructions a position instead of 6.5."""
    loop = compile_kernel(variants.bitmap(8, 512, 2), "sm_90").main_loop
    assert loop["shared_load"] == 32 + 1
    assert loop["scatter"] == 0
    assert sum(loop.values()) / 64 < 4.2


def test_trace_by_hand() -> None:
    """A tile has 512 bytes of masks; a pair takes 4 bytes of the 128 a wavefront brings, so a full chunk's 32 loads,
    each of 4 lanes' neighbouring pairs, meet no conflict up to a quarter full and 4 wavefronts when full."""
    per_block = (result := trace.trace(variants.bitmap(8, 2048, 2), archs=["sm_80"]))["per_block"]
    assert per_block["global_bytes.masks.load"] == {"tile": 512}
    assert per_block["global_bytes.values.load"] == {"value": 2}
    assert per_block["mma"] == {"tile": 32}
    gather = {row["density"]: row["wavefronts"] for row in result["gather"]}
    assert gather[1.0] == 4 * 128
    assert gather[0.1] == pytest.approx(128, rel=0.05)


def test_capacity_is_in_values_for_both_widths() -> None:
    assert variants.bitmap(8, 512, 2).shared_bytes < variants.bitmap(8, 512, 1).shared_bytes
    assert gpu_bitmap.stage_bytes(8, 512, 1) - gpu_bitmap.stage_bytes(8, 512, 2) == 4 * 128


def test_pays_where_decoding_is_the_bound() -> None:
    """Simulated on an H200: fewer instructions win at 90 % sparsity, fewer bytes at 60 %."""
    pairs, bits = (
        [simulate(kernel, "h200", 36864, 9216, 16, s).time_s for s in (0.6, 0.9)]
        for kernel in ("numba-bitmap-pairs", "numba-bitmap")
    )
    assert pairs[0] > 1.1 * bits[0]
    assert pairs[1] < 0.9 * bits[1]
