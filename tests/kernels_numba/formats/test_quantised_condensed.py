"""Condensed strips of codes: the same weights as a quantised bitmap's, in records of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kernels_numba.formats import ValueType, encode_quantised_bitmap, encode_quantised_condensed
from tests.kernels_numba.problems import random_matrix

TYPES = list(ValueType)


@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize(
    ("m", "k", "density"), [(1, 1, 1.0), (33, 130, 0.2), (70, 300, 0.5), (130, 65, 1.0), (40, 64, 0.0), (128, 256, 0.3)]
)
def test_weights_are_those_of_the_bitmap(m: int, k: int, density: float, value_type: ValueType) -> None:
    """Codes and scales do not depend on where they are stored; edges in strips, tiles and groups, with tails."""
    a = random_matrix(m, k, density) * np.linspace(0.1, 4, m)[:, None].astype(np.float16)
    bitmap, strips = encode_quantised_bitmap(a, value_type), encode_quantised_condensed(a, value_type).validate()
    np.testing.assert_array_equal(strips.decode(), bitmap.decode())
    np.testing.assert_array_equal(strips.scales, bitmap.scales)
    assert strips.nnz == np.count_nonzero(bitmap.decode())


@pytest.mark.parametrize("value_type", TYPES)
def test_masks_of_kinds(value_type: ValueType) -> None:
    """Blocks and whole columns, which fit no order, and 2:4."""
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.random((8, 8)) < 0.3, np.ones((16, 16)))
    columns = np.tile(rng.random(128) < 0.5, (128, 1))
    two_four = np.argsort(rng.random((128, 32, 4)), axis=2).reshape(128, 128) < 2
    for kept in (blocks, columns, two_four):
        a = (random_matrix(128, 128, 1.0) * kept).astype(np.float16)
        decoded = encode_quantised_bitmap(a, value_type).decode()
        np.testing.assert_array_equal(encode_quantised_condensed(a, value_type).validate().decode(), decoded)


def test_record_by_hand() -> None:
    """One weight in row 19 and column 5: its register's two codes behind 384 bytes and 64 of scales, then padding."""
    a = np.zeros((128, 64), np.float16)
    a[19, 5] = -127
    for value_type, entry in (("int8", 0x81), ("int4", 0x9)):
        weights = encode_quantised_condensed(a, value_type)
        assert weights.offsets.tolist() == [0, 29, 57, 85, 113, 113]
        codes = weights.records[224:232].copy()
        assert sorted({int(codes[0]) & 0xFF, int(codes[0]) >> 8} if value_type == "int8" else {int(codes[0])})[-1] in (
            entry, entry << 4,
        )  # fmt: skip
        assert not codes[1:].any()
        assert np.flatnonzero(weights.records[192:224]).tolist() == [4 * 3 + 2]


@pytest.mark.parametrize(("value_type", "bits"), [("int8", 8), ("int4", 4)])
def test_bytes_where_all_fits(value_type: str, bits: int) -> None:
    """448 bytes a strip and two codes for each register in use, padded to 16; 4 an offset."""
    a = random_matrix(256, 256, 0.15)
    weights = encode_quantised_condensed(a, value_type)
    assert not weights.codes.tails.any()
    headers = weights.records.reshape(-1)
    registers = [int(np.bitwise_count(headers[8 * begin : 8 * begin + 64 : 2]).sum()) for begin in weights.offsets[:-2]]
    padded = [448 + -(-count * 2 * bits // 128) * 16 for count in registers]
    assert weights.nbytes == sum(padded) + 4 * (len(padded) + 2)


def test_corrupt_records_are_refused() -> None:
    sound = encode_quantised_condensed(random_matrix(128, 128, 0.2), "e4m3")
    scales = sound.records.copy()
    scales[sound.offsets[1] * 8 + 200] ^= 1  # of the group's second strip
    nan = sound.records.copy()
    nan[224] |= 0x7F7F
    masks = sound.records.copy()
    masks[0] ^= 0xFFFF
    ends = sound.offsets.copy()
    ends[1] = ends[2] + 1
    extra = sound.offsets.copy()
    extra[-2] -= 1
    for damaged, message in (
        (replace(sound, offsets=extra), "extra strip: not empty"),
        (replace(sound, records=scales), "scales: two for a row"),
        (replace(sound, records=nan), "codes: infinity, NaN"),
        (replace(sound, records=masks), "record of strip 0: a length that its masks do not explain"),
        (replace(sound, offsets=ends), "offsets: falls"),
        (replace(sound, records=sound.records[:-8]), r"offsets\[-1\]"),
        (replace(sound, value_type="e3m4"), "value_type: e3m4"),  # type: ignore[arg-type]
        (replace(sound, value_type=ValueType.INT4), "record of strip 0"),
    ):
        with pytest.raises(ValueError, match=message):
            damaged.validate()


def test_what_is_refused() -> None:
    a = random_matrix(32, 64, 0.3)
    with pytest.raises(ValueError, match="value_bits: 6; allowed: 4 or 8, or int8, int4, e4m3, e5m2"):
        encode_quantised_condensed(a, 6)
    with pytest.raises(ValueError, match="a: infinity or NaN"):
        encode_quantised_condensed(np.full((32, 64), np.inf, np.float16), 8)
