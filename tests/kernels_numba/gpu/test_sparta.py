"""The SparTA-type kernel: the emulated PTX agrees with float64, the machine code is as planned."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels_numba.check import machine_code_faults
from kernels_numba.formats import encode_two_four
from kernels_numba.formats.two_four_tiles import TILE_BYTES, TILE_K, TILE_M, pack
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import ARCHITECTURES, Variant, compile_kernel, compile_ptx
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.launch import launches, make_plan
from kernels_numba.gpu.stages import TILE_N_CHOICES
from kernels_numba.reference import check_product
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.problems import random_problem

MMA_SP = "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32"


def pattern_problem(m: int, k: int, n: int) -> tuple[NDArray, NDArray]:
    """A matrix that is 2:4 already, whose residual is empty."""
    a, x = random_problem(m, k, n, 1.0)
    a[:, 1::4] = a[:, 2::4] = 0
    return a, x


@pytest.mark.parametrize(("m", "k"), [(1, 1), (127, 63), (128, 64), (129, 65), (201, 131)])
def test_shapes(m: int, k: int) -> None:
    check(encode_two_four, m, k, 8, 0.3, out_dtype=np.float32)


@pytest.mark.parametrize("density", [0.0, 1e-3, 0.5, 0.51, 1.0])
def test_every_density(density: float) -> None:
    check(encode_two_four, 40, 130, 16, density, out_dtype=np.float32)


@pytest.mark.parametrize("n", [1, 9, 17, 33, 72])
def test_any_number_of_columns(n: int) -> None:
    check(encode_two_four, 33, 96, n, 0.4, out_dtype=np.float32)


@pytest.mark.parametrize("split_k", [1, 2, 5, 50])
@pytest.mark.parametrize("out_dtype", [np.float16, np.float32])
def test_split_k(split_k: int, out_dtype: type) -> None:
    check(encode_two_four, 20, 5 * 64 + 3, 16, 0.6, split_k=split_k, out_dtype=out_dtype)


def test_a_long_k_goes_round_the_ring() -> None:
    """11 tiles on a ring of 4, on both generations' PTX, bit for bit the same."""
    a, x = pattern_problem(128, 11 * TILE_K, 8)
    weights = encode_two_four(a)
    results = [emulate(weights, x, split_k=1, arch=arch)[0] for arch in ("sm_80", "sm_90")]
    np.testing.assert_array_equal(*results)
    check_product(results[0], weights, x)


def test_each_kept_place_reaches_its_own_column() -> None:
    """One weight a row, in every column of two tiles in turn: the output is that row of X, exactly."""
    k = 2 * TILE_K
    a = np.eye(k, dtype=np.float16)
    x = np.arange(k * 8, dtype=np.float16).reshape(k, 8)
    np.testing.assert_array_equal(emulate(encode_two_four(a), x, out_dtype=np.float32)[0], x.astype(np.float32))


def test_launches_are_pattern_residual_and_sum() -> None:
    a, x = random_problem(130, 200, 16, 0.7)
    out, results = emulate(encode_two_four(a), x, split_k=2)
    assert [result.kernel for result in results] == ["two_four_n16", "csr_n16_i32", "reduce"]
    narrow, _ = emulate(encode_two_four(a, index_bits=16), x, split_k=2)
    np.testing.assert_array_equal(out, narrow)


@pytest.mark.parametrize(("split_k", "kernels"), [(1, 1), (2, 2)])
def test_without_residual_there_is_no_csr_launch(split_k: int, kernels: int) -> None:
    a, x = pattern_problem(70, 190, 8)
    weights = encode_two_four(a)
    assert weights.residual.nnz == 0
    out, results = emulate(weights, x, split_k=split_k)
    assert len(results) == kernels
    check_product(out, weights, x)


def test_workspace_has_a_slice_for_the_residual() -> None:
    packed = pack(encode_two_four(np.ones((300, 640), np.float16)))
    plan = make_plan(packed, 70, split_k=3)
    assert plan.workspace_shape == (4, 300, 72)
    workspace = np.zeros(plan.workspace_shape, np.float32)
    todo = launches(plan, packed.buffers, np.zeros((640, 72)), np.zeros((300, 72)), workspace, None, as_fp32=True)
    assert todo[1].arguments[4].base is workspace
    assert [launch.grid for launch in todo] == [(2, 3, 3), (75, 2, 1), (43, 1, 1)]


@pytest.mark.parametrize("tile_n", TILE_N_CHOICES)
def test_work_is_half_of_dense_and_free_of_bank_conflicts(tile_n: int) -> None:
    a, x = pattern_problem(TILE_M, 3 * TILE_K, tile_n)
    counters = emulate(encode_two_four(a), x, split_k=1)[1][0].counters
    for kind in ("ldmatrix", "cp.async", "load"):
        assert counters.shared(kind).bank_conflicts == 0
    assert counters.mma == {MMA_SP: 3 * 4 * 2 * 2 * tile_n // 8}  # tiles, warps, halves, steps, groups
    assert counters.by_array("load")[0].bytes == 3 * TILE_BYTES


@pytest.mark.parametrize(("tile_n", "arch"), [*((8, arch) for arch in ARCHITECTURES), (64, "sm_120")])
def test_machine_code_has_sparse_tensor_cores_and_no_spills(tile_n: int, arch: str) -> None:
    kernel = compile_kernel(variants.two_four(tile_n), arch)
    assert machine_code_faults(kernel) == []
    assert kernel.main_loop["barrier"] == 1


def test_either_selector_of_the_metadata_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that is none: lanes 4 g + 2 and 4 g + 3 hold the words of 4 g and 4 g + 1."""
    a, x = pattern_problem(40, 130, 8)
    expected, _ = emulate(encode_two_four(a), x, split_k=1)
    counts = []

    def other(variant: Variant, arch: str) -> tuple[str, str]:
        ptx, entry = compile_ptx(variant, arch)
        mutated, count = re.subn(r"(mma\.sp[^;]*), 0;", r"\1, 1;", ptx)
        counts.append(count)
        return mutated, entry

    monkeypatch.setattr("kernels_numba.gpu.emulate.compile_ptx", other)
    np.testing.assert_array_equal(emulate(encode_two_four(a), x, split_k=1)[0], expected)
    assert counts[0] > 0
