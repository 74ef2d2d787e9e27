"""The kernels of condensed strips of codes, by ring and by bulk copies, on the emulator."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from kernels_numba.check import machine_code_faults
from kernels_numba.formats import ValueType, encode_quantised_condensed
from kernels_numba.formats.quantised import value_table
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.emulate import emulate
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.gpu.test_quantised import TYPES, WAYS, codes_that_fit


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value_type", TYPES)
def test_every_code_is_what_the_kernel_computes(value_type: ValueType, way: str) -> None:
    """Every code that an encoder gives once in a group and once in a tail, bit for bit."""
    values = value_table(value_type)[codes_that_fit(value_type, 1)]
    values = np.unique(values[np.abs(values) <= value_type.largest])
    values = values[values != 0]
    m, k = 64, 40
    a = np.zeros((m, k), np.float16)
    at = np.random.default_rng(0).permutation(m * k)[: values.size * 4]  # a few more in each row than groups take
    a.reshape(-1)[at] = np.resize(values, at.size)
    a[:, 0] = value_type.largest  # so that scales are 1
    weights = encode_quantised_condensed(a, value_type)
    np.testing.assert_array_equal(weights.decode(), a)
    out, _ = emulate(weights, np.eye(k, dtype=np.float16), **WAYS[way])
    np.testing.assert_array_equal(out, a)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize(("density", "m", "k"), [(0.0, 33, 65), (0.1, 130, 300), (0.5, 31, 200), (1.0, 64, 130)])
def test_every_density(density: float, m: int, k: int, value_type: ValueType, way: str) -> None:
    """Edges within strips, tiles and groups; without tails, with one and with two."""
    encode = partial(encode_quantised_condensed, value_type=value_type)
    results = check(encode, m, k, 8, density, out_dtype=np.float32, **WAYS[way])
    assert results[0].kernel == f"condensed_pairs_{value_type}" + ("_bulk" if way == "bulk" else "") + "_n8"


@pytest.mark.parametrize(("value_type", "way", "n"), [("int8", "ring", 72), ("int4", "bulk", 24)])
def test_more_columns(value_type: str, way: str, n: int) -> None:
    check(
        partial(encode_quantised_condensed, value_type=value_type), 40, 150, n, 0.5, out_dtype=np.float32, **WAYS[way]
    )


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("condensed_pairs_int8_n8", "sm_80"), ("condensed_pairs_int4_n8", "sm_120"),
        ("condensed_pairs_e4m3_bulk_n8", "sm_90"), ("condensed_pairs_e5m2_bulk_n8", "sm_120"),
    ],
)  # fmt: skip
def test_machine_code_is_what_was_planned(name: str, arch: str) -> None:
    assert machine_code_faults(compile_kernel(variants.all_variants()[name], arch)) == []


@pytest.mark.parametrize("value_type", ["int8", "int4"])
def test_a_register_takes_one_load_and_one_multiplication(value_type: str) -> None:
    """16 registers a lane beside mask, metadata, scales and, of bits for each slot, nothing."""
    loop: dict[str, Any] = compile_kernel(variants.records(f"condensed_pairs_{value_type}", 8), "sm_80").main_loop
    assert (loop["tensor_core"], loop["shared_load"], loop["convert"]) == (4, 16 + 3, 0)
