"""Types of values in quantised bitmaps: tables by hand, rounding against an exhaustive search, records, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernels_numba.formats import QuantisedBitmap, ValueType, encode_quantised_bitmap
from kernels_numba.formats.quantised import codes_of, value_table
from kernels_numba.formats.records import QuantisedRecords, pack_quantised, unpack_quantised
from tests.kernels_numba.problems import random_matrix


@pytest.mark.parametrize(
    ("value_type", "code", "value"),
    [
        ("int8", 0x7F, 127), ("int8", 0x81, -127), ("int4", 0xF9, -7), ("int4", 7, 7),
        ("e4m3", 0x38, 1), ("e4m3", 0x7E, 448), ("e4m3", 1, 2.0**-9), ("e4m3", 0xC4, -3), ("e4m3", 0x80, 0),
        ("e5m2", 0x3C, 1), ("e5m2", 0x7B, 57344), ("e5m2", 1, 2.0**-16), ("e5m2", 0xC2, -3), ("e5m2", 0x5F, 448),
    ],
)  # fmt: skip
def test_values_by_hand(value_type: str, code: int, value: float) -> None:
    """Of E4M3 and E5M2 as their definition's tables have them: one, the largest, the smallest, a negative one."""
    assert value_table(ValueType(value_type))[code] == value


def test_what_a_float_cannot_say_is_no_number() -> None:
    assert np.flatnonzero(np.isnan(value_table(ValueType.E4M3))).tolist() == [0x7F, 0xFF]
    assert np.flatnonzero(~np.isfinite(value_table(ValueType.E5M2))).tolist() == [*range(0x7C, 0x80), *range(0xFC, 256)]


@pytest.mark.parametrize("value_type", list(ValueType))
def test_codes_are_those_of_the_nearest_values(value_type: ValueType) -> None:
    """Of random numbers and of all ties between neighbours, which go to the even code; beyond the largest, to it."""
    table = value_table(value_type)
    codes = np.flatnonzero(np.abs(table) <= value_type.largest)
    if value_type.bits == 4:
        codes = codes[(codes < 8) | (codes >= 248)]
    codes = codes[np.argsort(table[codes], kind="stable")]
    codes = codes[np.concatenate(([True], np.diff(table[codes]) > 0))]  # one of the two zeros
    values = table[codes].astype(np.float64)
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(2000) * value_type.largest * 2.0 ** rng.integers(-20, 1, 2000)
    samples = np.concatenate((values, (values[1:] + values[:-1]) / 2, drawn)).astype(np.float32)
    distance = np.abs(samples.astype(np.float64)[:, None] - values)
    found = table[codes_of(samples, value_type)]
    np.testing.assert_array_equal(np.abs(found - samples.astype(np.float64)), distance.min(axis=1))
    ties = np.sum(distance == distance.min(axis=1, keepdims=True), axis=1) == 2
    assert ties.sum() >= values.size - 1
    assert not (codes_of(samples, value_type)[ties] & 1).any()


@pytest.mark.parametrize("value_type", list(ValueType))
@pytest.mark.parametrize("scale", [1.0, 0.02, 3e4])
def test_round_trip(value_type: ValueType, scale: float) -> None:
    """Floats err by 2**-4 or 2**-3 of the weight, half their last place; zeros stay, and nothing overflows."""
    a = np.clip(random_matrix(70, 300, 0.4).astype(np.float32) * scale, -65504, 65504).astype(np.float16)
    weights = encode_quantised_bitmap(a, value_type).validate()
    decoded = weights.decode().astype(np.float64)
    steps = np.repeat(weights.scales, 128, axis=1)[:, :300].astype(np.float64)
    relative = {ValueType.E4M3: 2.0**-4, ValueType.E5M2: 2.0**-3}.get(value_type, 0.0)
    least = {ValueType.E4M3: 2.0**-9, ValueType.E5M2: 2.0**-16}.get(value_type, 1.0)
    rounding = 2.0**-10 * np.abs(a) + 2.0**-24
    assert (np.abs(decoded - a) <= np.maximum(relative * np.abs(a), 0.51 * least * steps) + rounding).all()
    assert not decoded[a == 0].any()
    assert not np.signbit(decoded[decoded == 0]).any()


@pytest.mark.parametrize("value_type", list(ValueType))
@pytest.mark.parametrize("shape", [(1, 1), (33, 129), (300, 65)])
def test_records_hold_the_same(value_type: ValueType, shape: tuple[int, int]) -> None:
    weights = encode_quantised_bitmap(random_matrix(*shape, 0.3), value_type)
    packed = pack_quantised(weights).validate()
    for name, buffer in unpack_quantised(packed).buffers.items():
        np.testing.assert_array_equal(buffer, weights.buffers[name])
    np.testing.assert_array_equal(packed.decode(), weights.decode())
    assert packed.nnz == weights.nnz


def test_records_by_hand() -> None:
    """One code of row 19 = 3 + 8 * 2 in the second strip: scale 4 * 3 + 2 of both strips; 320 bytes and 336."""
    a = np.zeros((32, 128), np.float16)
    a[19, 64] = -127
    packed = pack_quantised(encode_quantised_bitmap(a, 8))
    assert packed.offsets[:3].tolist() == [0, 20, 41]
    for begin in (0, 160):
        scales = packed.records[begin + 128 : begin + 160].view(np.float16)
        assert np.flatnonzero(scales).tolist() == [14]
        assert scales[14] == 1
    assert packed.records[320] == 0x81


@pytest.mark.parametrize(
    ("value_type", "field", "damage", "message"),
    [
        ("e4m3", "codes", lambda w: w.codes | np.uint8(0x7F), "codes: infinity, NaN"),
        ("e5m2", "codes", lambda w: w.codes | np.uint8(0x7C), "codes: infinity, NaN"),
        ("int8", "scales", lambda w: w.scales * np.float16(1e4), "codes: .* beyond float16 times its scale"),
        ("int8", "value_type", lambda w: "int4", "value_bits: 8; allowed: 4 for int4"),
        ("int8", "value_type", lambda w: "e3m4", "value_bits: 'e3m4'; allowed: 4 or 8, or int8, int4, e4m3, e5m2"),
    ],
)
def test_corrupt_encodings_are_refused(
    value_type: str, field: str, damage: Callable[[QuantisedBitmap], Any], message: str
) -> None:
    sound = encode_quantised_bitmap(random_matrix(40, 70, 0.3) * np.float16(5), value_type)
    with pytest.raises(ValueError, match=message):
        QuantisedBitmap.from_buffers(**(vars(sound) | {field: damage(sound)}))


def test_the_type_of_values_may_be_left_out_for_integers() -> None:
    sound = encode_quantised_bitmap(random_matrix(40, 70, 0.3), 4)
    buffers = {name: value for name, value in vars(sound).items() if name != "value_type"}
    assert QuantisedBitmap.from_buffers(**buffers).value_type is ValueType.INT4


def test_records_refuse_what_they_cannot_hold() -> None:
    sound = encode_quantised_bitmap(np.ones((1, 128), np.float16), "e4m3")
    with pytest.raises(ValueError, match=r"largest scale: 300.0; allowed: at most 255.875 for e4m3"):
        pack_quantised(replace(sound, scales=np.full((1, 1), 300, np.float16)))
    packed = pack_quantised(sound)
    records = packed.records.copy()
    second = 8 * int(packed.offsets[1])
    records[second + 128] += 1
    with pytest.raises(ValueError, match="scales: two for a row and group"):
        QuantisedRecords.from_buffers(**(vars(packed) | {"records": records}))


def test_bfloat16_is_refused() -> None:
    with pytest.raises(ValueError, match="element: bfloat16; allowed: float16"):
        encode_quantised_bitmap(np.ones((2, 2), np.uint16), 8, element="bfloat16")  # type: ignore[arg-type]
