"""The kernels that decode condensed strips, with a bit per slot and per register, on the emulator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from kernels_numba.check import machine_code_faults
from kernels_numba.formats import encode_condensed
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.emulate import emulate
from kernels_numba.reference import check_product
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.problems import random_matrix

KERNELS = {1: "condensed", 2: "condensed_pairs"}


def cases(*, slots: Sequence[Any], registers: Sequence[Any]) -> list[tuple[int, Any]]:
    """What to check with a bit for each slot, and with one for each register."""
    return [(1, case) for case in slots] + [(2, case) for case in registers]


def check_width(width: int, m: int, k: int, n: int, density: float, **options: Any) -> None:
    """Raise unless the product is right, and the kernel is the one for bits of this width."""
    results = check(partial(encode_condensed, width=width), m, k, n, density, **options)
    assert results[0].kernel.startswith(f"{KERNELS[width]}_n")


@pytest.mark.parametrize(
    ("width", "density"),
    cases(slots=[0.0, 1e-3, 0.1, 0.3, 0.4, 0.6, 1.0], registers=[0.0, 1e-3, 0.1, 0.25, 0.35, 0.5, 1.0]),
)
def test_every_density(width: int, density: float) -> None:
    """With tails from 35 % on, two of them when full."""
    check_width(width, 130, 130, 16, density, split_k=1, out_dtype=np.float32)


@pytest.mark.parametrize(
    ("width", "shape"),
    cases(slots=[(1, 1), (31, 63), (32, 64), (257, 193)], registers=[(1, 1), (31, 63), (127, 65), (257, 193)]),
)
def test_shapes(width: int, shape: tuple[int, int]) -> None:
    check_width(width, *shape, 8, 0.2, out_dtype=np.float32)


@pytest.mark.parametrize(("width", "n"), cases(slots=[1, 24, 64, 72], registers=[1, 9, 24, 32, 64, 72, 128]))
@pytest.mark.parametrize("density", [0.2, 0.6])
def test_any_number_of_columns(width: int, n: int, density: float) -> None:
    """Four panels of X and more, read by groups of four and by tails."""
    check_width(width, 40, 96, n, density, split_k=1, out_dtype=np.float32)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("out_dtype", [np.float16, np.float32])
def test_shared_rows_of_tiles(width: int, out_dtype: type) -> None:
    check_width(width, 300, 5 * 64 + 3, 16, 0.2, split_k=3, out_dtype=out_dtype)


@pytest.mark.parametrize("width", [1, 2])
def test_weights_and_activations_cross_memory_once_without_conflicts(width: int) -> None:
    weights, x = encode_condensed(random_matrix(128, 192, 0.2), width), random_matrix(192, 32, 1)
    counters = emulate(weights, x, split_k=1)[1][0].counters
    traffic = counters.by_array("load")
    assert [traffic[i].bytes for i in (0, 2)] == [weights.records.nbytes, x.nbytes]
    for kind in ("ldmatrix", "cp.async"):
        assert counters.shared(kind).bank_conflicts == 0


def test_an_order_without_regard_to_banks_is_right_and_slower() -> None:
    """60 % sparsity leaves columns over in any case; the orders found for it may read rows that meet."""
    weights, x = encode_condensed(random_matrix(64, 128, 0.32)), random_matrix(128, 8, 1)
    out, results = emulate(weights, x, split_k=1, out_dtype=np.float32)
    check_product(out, weights, x)
    assert results[0].counters.shared("ldmatrix").bank_conflicts > 0


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("condensed_n8", "sm_90"), ("condensed_n64", "sm_120"), ("condensed_n32", "sm_80"),
        ("condensed_pairs_n8", "sm_80"), ("condensed_pairs_n16", "sm_86"), ("condensed_pairs_n64", "sm_100"),
    ],
)  # fmt: skip
def test_machine_code_is_what_was_planned(name: str, arch: str) -> None:
    assert machine_code_faults(compile_kernel(variants.all_variants()[name], arch)) == []


@pytest.mark.parametrize(("width", "n", "most"), [(1, 8, 295), (2, 8, 212), (2, 16, 220), (2, 32, 232)])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_decoding_takes_half_of_what_a_bitmap_takes(width: int, n: int, most: int, arch: str) -> None:
    """Machine instructions a warp issues for 2,048 weights that fit; 4 sparse products for each 8 columns."""
    kernel = compile_kernel(variants.records(KERNELS[width], n), arch)
    assert kernel.main_loop["tensor_core"] == n // 2
    assert sum(kernel.main_loop.values()) <= most
