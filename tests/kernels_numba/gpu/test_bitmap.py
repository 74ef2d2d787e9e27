"""The kernels that decode bitmaps in registers, with a bit per weight and per pair of columns, on the emulator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from kernels_numba.check import machine_code_faults
from kernels_numba.formats import encode_bitmap
from kernels_numba.formats.layout import STRIP_SIZE
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.launch import make_plan, with_aligned_rows
from kernels_numba.reference import check_product
from kernels_numba.spmm import spmm
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.problems import random_matrix

# Bits for weights, and for pairs of columns.
ENCODERS = {1: encode_bitmap, 2: partial(encode_bitmap, width=2)}


def cases(*, bits: Sequence[Any], pairs: Sequence[Any]) -> list[tuple[int, Any]]:
    """What to check with one bit a weight, and with one bit a pair."""
    return [(1, case) for case in bits] + [(2, case) for case in pairs]


def check_width(width: int, m: int, k: int, n: int, density: float, **options: Any) -> None:
    """Raise unless the product is right, and the kernel is the one for bits of this width."""
    results = check(ENCODERS[width], m, k, n, density, **options)
    assert results[0].kernel.startswith("bitmap_pairs" if width == 2 else "bitmap_n")


@pytest.mark.parametrize(
    ("width", "density"),
    cases(bits=[0.0, 1e-3, 0.1, 0.3, 0.5, 0.51, 0.9, 1.0], pairs=[0.0, 1e-3, 0.1, 0.5, 0.9, 1.0]),
)
def test_every_density(width: int, density: float) -> None:
    check_width(width, 130, 130, 16, density, split_k=1, out_dtype=np.float32)


@pytest.mark.parametrize(
    ("width", "shape"),
    cases(bits=[(1, 1), (31, 63), (32, 64), (127, 65), (257, 193)], pairs=[(1, 1), (31, 63), (32, 64), (257, 193)]),
)
def test_shapes(width: int, shape: tuple[int, int]) -> None:
    check_width(width, *shape, 8, 0.2, out_dtype=np.float32)


@pytest.mark.parametrize(("width", "n"), cases(bits=[1, 9, 24, 32, 64, 72, 128], pairs=[1, 24, 32, 64, 72]))
def test_any_number_of_columns(width: int, n: int) -> None:
    check_width(width, 40, 96, n, 0.2, split_k=1, out_dtype=np.float32)


@pytest.mark.parametrize(("width", "split_k"), cases(bits=[2, 3, 50], pairs=[3]))
@pytest.mark.parametrize("out_dtype", [np.float16, np.float32])
def test_split_k(width: int, split_k: int, out_dtype: type) -> None:
    """K ends within a tile, and behind one or both columns of a pair."""
    check_width(width, 130, 5 * 64 + (3 if width == 1 else 2), 16, 0.2, split_k=split_k, out_dtype=out_dtype)


@pytest.mark.parametrize("width", [1, 2])
def test_full_and_empty_chunks(width: int) -> None:
    """A full 16 x 16 chunk has 256 values, one more than a byte holds, or 128 pairs, 4 a lane; full and empty ones
    alternate, so that every running sum is told apart."""
    a = np.zeros((32, 64), np.float16)
    for chunk in range(0, 8, 2):
        a[:, chunk * 8 : chunk * 8 + 8] = chunk + 1
    a[:16, 16:32] = 1
    weights, x = encode_bitmap(a, width), random_matrix(64, 8, 1)
    check_product(emulate(weights, x, out_dtype=np.float32)[0], weights, x)


def test_one_full_strip_decides_the_capacity() -> None:
    """Its record takes 256 bytes of masks and 4,096 of values, in a loop of copies; all buffers grow with it."""
    a = random_matrix(64, 128, 0.1)
    a[32:, :64] = 1
    weights, x = encode_bitmap(a), random_matrix(128, 8, 1)
    assert weights.most_values == STRIP_SIZE
    assert make_plan(with_aligned_rows(weights), 8).capacity == 256 + 2 * STRIP_SIZE
    check_product(emulate(weights, x, split_k=1)[0], weights, x)


def test_zero_partners_add_nothing() -> None:
    a = np.zeros((4, 64), np.float16)
    a[:, 0] = 1
    x = np.ones((64, 8), np.float16)
    out = spmm(encode_bitmap(a, width=2), x, backend="emulator", out_dtype=np.float32)
    np.testing.assert_array_equal(out, np.ones((4, 8)))


def test_cpu_and_hopper_compute_the_same_product() -> None:
    weights, x = encode_bitmap(random_matrix(64, 130, 0.2)), random_matrix(130, 8, 1)
    ampere, hopper = (emulate(weights, x, arch=arch, split_k=2)[0] for arch in ("sm_80", "sm_90"))
    np.testing.assert_array_equal(ampere, hopper)
    check_product(spmm(weights, x, backend="cpu"), weights, x)


@pytest.mark.parametrize(("width", "density"), [(1, 0.2), (2, 0.1)])
def test_weights_and_activations_cross_memory_once(width: int, density: float) -> None:
    weights, x = encode_bitmap(random_matrix(128, 192, density), width), random_matrix(192, 8, 1)
    counters = emulate(weights, x, split_k=1)[1][0].counters
    traffic = counters.by_array("load")
    assert [traffic[i].bytes for i in (0, 2)] == [weights.masks.nbytes + weights.values.nbytes, x.nbytes]
    for kind in ("ldmatrix", "cp.async"):
        assert counters.shared(kind).bank_conflicts == 0


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("bitmap_n8", "sm_90"), ("bitmap_n64", "sm_80"), ("bitmap_n32", "sm_120"), ("bitmap_n16", "sm_89"),
        ("bitmap_pairs_n8", "sm_90"), ("bitmap_pairs_n64", "sm_80"),
    ],
)  # fmt: skip
def test_machine_code_is_what_was_planned(name: str, arch: str) -> None:
    assert machine_code_faults(compile_kernel(variants.all_variants()[name], arch)) == []


@pytest.mark.parametrize(("width", "most"), [(1, 7), (2, 4.3)])
def test_main_loop_loads_each_weight_once(width: int, most: float) -> None:
    """Per lane and tile 64 halves or 32 pairs to gather, and the masks; no scatter into shared memory."""
    loop = compile_kernel(variants.records("bitmap" if width == 1 else "bitmap_pairs", 8), "sm_80").main_loop
    assert loop["tensor_core"] == 8
    assert loop["async_copy"] == 4 + 1  # the record, X
    assert loop["shared_load"] == 64 // width + 1
    assert loop["shared_store"] == loop["scatter"] == 0
    assert sum(loop.values()) / 64 < most  # instructions per position
