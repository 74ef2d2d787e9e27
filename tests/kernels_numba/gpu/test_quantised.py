"""The kernels of codes, in bitmaps and condensed strips, on the emulator: what they multiply is `decode()`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels_numba.check import machine_code_faults
from kernels_numba.formats import (
    Element,
    QuantisedBitmap,
    ValueType,
    encode_quantised_bitmap,
    encode_quantised_condensed,
)
from kernels_numba.formats.bitmap import pack
from kernels_numba.formats.quantised import SCALE_GROUP, pack_codes, value_table
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.launch import make_plan, with_aligned_rows
from kernels_numba.spmm import spmm
from tests.kernels_numba.gpu.products import check
from tests.kernels_numba.problems import random_matrix

TYPES = tuple(ValueType)
WAYS: dict[str, dict[str, Any]] = {
    "ring": {"sm_count": 1},
    "bulk": {"sm_count": 1, "streamed": True, "arch": "sm_90"},
}
SMALLEST, LARGEST = 2.0**-24, 65504.0  # of float16
LARGEST_SCALE = dict.fromkeys(TYPES, LARGEST) | {ValueType.E4M3: 255.875}  # e4m3 records hold 256 times the scale
LARGEST_VALUE = {ValueType.INT8: 128.0, ValueType.INT4: 8.0, ValueType.E4M3: 448.0, ValueType.E5M2: 57344.0}
EYE = np.eye(8, dtype=np.float16)


def weights_of(
    codes: NDArray[np.uint8], scales: NDArray[Any], value_type: ValueType, kept: NDArray[Any] | None = None
) -> QuantisedBitmap:
    """Weights of codes (m, k), 4-bit ones sign-extended, and scales a group; all codes are stored unless ``kept``."""
    stored = np.ones(codes.shape, np.uint16) if kept is None else kept.astype(np.uint16)
    masks, packed, offsets = pack(codes, stored, value_type.bits)
    packed, halves = pack_codes(packed, value_type.bits), np.ascontiguousarray(scales, np.float16)
    bits = value_type.bits
    return QuantisedBitmap(codes.shape, masks, packed, offsets, halves, bits, value_type=value_type).validate()


def codes_that_fit(value_type: ValueType, scale: float) -> NDArray[np.uint8]:
    """All codes, 4-bit ones sign-extended, whose value times ``scale`` is a finite float16."""
    codes = np.arange(256, dtype=np.uint8)
    values = value_table(value_type)
    with np.errstate(over="ignore", invalid="ignore"):
        fits = np.isfinite((values * np.float32(scale)).astype(np.float16))
    return codes[fits & ((value_type.bits == 8) | (codes < 8) | (codes >= 248))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value_type", TYPES)
def test_every_code_is_what_the_kernel_computes(value_type: ValueType, way: str) -> None:
    """Times scales of 1, of any, and of few subnormal bits; multiplied by one, nothing is left to rounding."""
    codes = codes_that_fit(value_type, 1)
    assert codes.size == {"int8": 256, "int4": 16, "e4m3": 254, "e5m2": 248}[value_type]
    each = np.resize(np.random.default_rng(0).permutation(codes), (32, 8))
    rng = np.random.default_rng(1)
    scales = np.ones((96, 1))
    scales[32:64, 0] = rng.uniform(-1, 1, 32) * LARGEST / LARGEST_VALUE[value_type]
    scales[64:, 0] = rng.integers(-40, 40, 32) * SMALLEST
    weights = weights_of(np.tile(each, (3, 1)), scales, value_type)
    decoded = weights.decode()
    np.testing.assert_array_equal(decoded[:32], value_table(value_type)[each])
    out, _ = emulate(weights, EYE, **WAYS[way])
    np.testing.assert_array_equal(out, decoded)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value_type", TYPES)
def test_scales_at_their_limits(value_type: ValueType, way: str) -> None:
    """Each row and group has another scale and any codes that fit it; K ends inside the second group."""
    rng = np.random.default_rng(2)
    m, k = 70, 200
    limits = [SMALLEST, -3 * SMALLEST, 2.0**-14, 1.0, LARGEST / LARGEST_VALUE[value_type], -LARGEST_SCALE[value_type]]
    scales = np.resize(limits, m * 2 + 1)[: m * 2].reshape(2, m).T.astype(np.float16)
    groups = [[rng.choice(codes_that_fit(value_type, s), SCALE_GROUP) for s in row] for row in scales]
    codes = np.ascontiguousarray(np.reshape(groups, (m, 2 * SCALE_GROUP))[:, :k])
    kept = rng.random((m, k)) < 0.6
    weights = weights_of(codes, scales, value_type, kept)
    decoded = weights.decode()
    assert not decoded[~kept].any()
    assert np.abs(decoded).max() > LARGEST / 2
    columns = [0, 17, 63, 64, 127, 128, 170, 199]
    out, _ = emulate(weights, np.take(np.eye(k, dtype=np.float16), columns, axis=1), **WAYS[way])
    np.testing.assert_array_equal(out, decoded[:, columns])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value_type", TYPES)
def test_what_is_absent_adds_nothing(value_type: ValueType, way: str) -> None:
    """One weight a row, of the largest code, the least or code 0, among activations of the largest magnitude."""
    m, k = 40, 150
    rng = np.random.default_rng(3)
    fitting = codes_that_fit(value_type, 1)
    values = value_table(value_type)[fitting]
    least = np.where(values > 0, values, np.inf).argmin()
    extremes = [fitting[values.argmax()], fitting[values.argmin()], 0, fitting[least]]
    codes, kept = np.full((m, k), extremes[0], np.uint8), np.zeros((m, k), bool)
    places = rng.integers(0, k, m - 1)  # nothing in the last row
    codes[np.arange(m - 1), places] = np.resize(extremes, m - 1)
    kept[np.arange(m - 1), places] = True
    weights = weights_of(codes, rng.uniform(0.5, 1, (m, 2)), value_type, kept)
    assert weights.nnz == m - 1
    x = (rng.choice([-1, 1], (k, 8)) * LARGEST).astype(np.float16)
    out, _ = emulate(weights, x, out_dtype=np.float32, **WAYS[way])
    np.testing.assert_array_equal(out, weights.decode().astype(np.float64) @ x.astype(np.float64))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize(("density", "m", "k"), [(0.0, 33, 65), (0.1, 130, 300), (0.5, 31, 200), (1.0, 64, 130)])
def test_every_density(density: float, m: int, k: int, value_type: ValueType, way: str) -> None:
    """Edges within strips, tiles and groups; from a full strip to none."""
    encode = partial(encode_quantised_bitmap, value_bits=value_type)
    results = check(encode, m, k, 8, density, out_dtype=np.float32, **WAYS[way])
    assert results[0].kernel == f"bitmap_{value_type}" + ("_bulk" if way == "bulk" else "") + "_n8"


@pytest.mark.parametrize(("value_type", "way", "n"), [("int4", "ring", 64), ("int4", "ring", 72), ("e4m3", "bulk", 24)])
def test_more_columns(value_type: str, way: str, n: int) -> None:
    encode = partial(encode_quantised_bitmap, value_bits=value_type)
    check(encode, 40, 150, n, 0.3, out_dtype=np.float32, **WAYS[way])


@pytest.mark.parametrize(
    ("value_type", "way"), [("int8", "bulk"), ("int4", "ring"), ("e4m3", "ring"), ("e5m2", "bulk")]
)
def test_shared_rows(value_type: str, way: str) -> None:
    """Blocks or warps that meet within a row of strips; 7 tiles along K."""
    encode = partial(encode_quantised_bitmap, value_bits=value_type)
    check(encode, 200, 6 * 64 + 3, 8, 0.2, split_k=2, **WAYS[way] | {"sm_count": 2})


@pytest.mark.parametrize("value_type", TYPES)
def test_all_backends_multiply_the_same_weights(value_type: ValueType) -> None:
    """Of one product a column nothing is added, so that none may differ by a bit."""
    weights = encode_quantised_bitmap(random_matrix(33, 140, 0.4), value_type)
    x = np.eye(140, 8, k=-128, dtype=np.float16)
    outs = [spmm(weights, x, backend=backend) for backend in ("emulator", "cpu", "reference")]
    for out in outs:
        np.testing.assert_array_equal(out, weights.decode()[:, 128:136])


def test_what_is_refused() -> None:
    weights = encode_quantised_bitmap(random_matrix(32, 64, 0.3), "e4m3")
    x = np.zeros((64, 8), np.uint16)
    with pytest.raises(ValueError, match=r"^dtype of x: uint16; allowed: float16 for GPU kernels of float16 weights$"):
        emulate(weights, x)
    with pytest.raises(ValueError, match=r"^element type of weights: bfloat16; allowed: float16 for codes$"):
        emulate(replace(weights, element=Element.BFLOAT16), x)
    with pytest.raises(ValueError, match=r"^arch: sm_80; allowed: sm_90 or newer, for bulk copies$"):
        make_plan(with_aligned_rows(weights), 8, streamed=True, arch="sm_80")
    with pytest.raises(ValueError, match=r"^largest scale: 300.0; allowed: at most 255.875 for e4m3$"):
        emulate(replace(weights, scales=np.full((32, 1), 300, np.float16)), EYE)
    with pytest.raises(ValueError, match="unknown kernel 'bitmap_int8_n8_bf16'"):
        variants.find_variants("bitmap_int8_n8_bf16")


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("bitmap_int8_n8", "sm_80"), ("bitmap_int4_n64", "sm_120"),
        ("bitmap_e4m3_bulk_n32", "sm_90"), ("bitmap_e5m2_bulk_n8", "sm_120"),
        ("condensed_pairs_int8_n8", "sm_80"), ("condensed_pairs_int4_n8", "sm_120"),
        ("condensed_pairs_e4m3_bulk_n8", "sm_90"), ("condensed_pairs_e5m2_bulk_n8", "sm_120"),
    ],
)  # fmt: skip
def test_machine_code_is_what_was_planned(name: str, arch: str) -> None:
    assert machine_code_faults(compile_kernel(variants.all_variants()[name], arch)) == []


@pytest.mark.parametrize(("value_type", "loads"), [("int8", 64), ("int4", 2 * 8)])
def test_a_strip_takes_one_multiplication_a_register_and_no_conversion(value_type: str, loads: int) -> None:
    """A load for each code, or two words for the nibbles of a lane's chunk; beside them masks and scales."""
    kernel = compile_kernel(variants.records(f"bitmap_{value_type}", 8), "sm_80")
    loop = kernel.main_loop
    assert (loop["tensor_core"], loop["shared_load"], loop["scatter"], loop["convert"]) == (8, loads + 2, 0, 0)
    assert kernel.opcodes["HMUL2"] == 64 // 2


@pytest.mark.parametrize(
    ("value_type", "way"), [*((value_type, "ring") for value_type in TYPES), (ValueType.INT4, "bulk")]
)
def test_every_code_of_condensed_strips(value_type: ValueType, way: str) -> None:
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


@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize(
    ("density", "m", "k", "way"),
    [
        (0.0, 33, 65, "ring"), (0.1, 130, 300, "ring"), (0.5, 31, 200, "ring"), (1.0, 64, 130, "ring"),
        (0.5, 31, 200, "bulk"),
    ],
)  # fmt: skip
def test_every_density_of_condensed_strips(density: float, m: int, k: int, value_type: ValueType, way: str) -> None:
    """Edges within strips, tiles and groups; without tails, with one and with two."""
    encode = partial(encode_quantised_condensed, value_type=value_type)
    results = check(encode, m, k, 8, density, out_dtype=np.float32, **WAYS[way])
    assert results[0].kernel == f"condensed_pairs_{value_type}" + ("_bulk" if way == "bulk" else "") + "_n8"


@pytest.mark.parametrize(("value_type", "way", "n"), [("int8", "ring", 72), ("int4", "bulk", 24)])
def test_more_columns_of_condensed_strips(value_type: str, way: str, n: int) -> None:
    check(
        partial(encode_quantised_condensed, value_type=value_type), 40, 150, n, 0.5, out_dtype=np.float32, **WAYS[way]
    )


@pytest.mark.parametrize("value_type", ["int8", "int4"])
def test_a_register_takes_one_load_and_one_multiplication(value_type: str) -> None:
    """16 registers a lane beside mask, metadata, scales and, of bits for each slot, nothing."""
    loop: dict[str, Any] = compile_kernel(variants.records(f"condensed_pairs_{value_type}", 8), "sm_80").main_loop
    assert (loop["tensor_core"], loop["shared_load"], loop["convert"]) == (4, 16 + 3, 0)
