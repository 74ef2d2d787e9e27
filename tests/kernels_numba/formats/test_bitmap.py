"""Bitmaps with a bit per weight or per pair of columns, and their quantised kin: layout, round trips, refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_numba.formats import Bitmap, QuantisedBitmap, encode_bitmap, encode_quantised_bitmap
from kernels_numba.formats.bitmap import by_lane
from tests.kernels_numba.problems import random_matrix


def test_layout_by_hand() -> None:
    """Lane 4 g + t holds a0 = (g, 2t), a1 = (g + 8, 2t), a2 = (g, 2t + 8), a3 = (g + 8, 2t + 8), and each one's right
    neighbour; chunks count first the two halves of rows, then steps of 16 columns."""
    a = np.zeros((32, 64), np.float16)
    a[0, 0], a[9, 3], a[0, 8], a[31, 63], a[16, 0] = 1, 2, 3, 4, 5
    weights = encode_bitmap(a)
    masks = {(lane, int(bit)) for lane in range(32) for bit in range(64) if int(weights.masks[0, lane]) >> bit & 1}
    assert masks == {(0, 0), (5, 3), (0, 4), (31, 63), (0, 8)}
    np.testing.assert_array_equal(weights.values, [1, 3, 2, 5, 4, 0, 0, 0])  # by chunk, lane, slot; then padding
    np.testing.assert_array_equal(weights.offsets, [0, 1, 1])


def test_layout_of_pairs_by_hand() -> None:
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


@pytest.mark.parametrize("width", [1, 2])
def test_compiled_encoder_follows_the_definition(width: int) -> None:
    """`by_lane` states the layout in NumPy; a lane's mask and the stored elements are read off it."""
    a = random_matrix(96, 128, 0.3)
    weights = encode_bitmap(a, width)
    pairs = a.view(np.uint16).reshape(96, -1, width)
    flags = by_lane(pairs.any(axis=2), width)
    positions = by_lane(np.arange(pairs.shape[0] * pairs.shape[1]).reshape(96, -1), width)
    for strip in range(len(flags)):
        words = [int("".join("01"[int(bit)] for bit in flags[strip, :, lane].ravel()[::-1]), 2) for lane in range(32)]
        assert weights.masks[strip].tolist() == words
        stored = pairs.reshape(-1, width)[positions[strip][flags[strip]]].ravel()
        begin = 8 * int(weights.offsets[strip])
        np.testing.assert_array_equal(weights.values.view(np.uint16)[begin : begin + stored.size], stored)


@pytest.mark.parametrize("width", [1, 2])
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 140), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_round_trip(width: int, m: int, k: int, density: float, seed: int) -> None:
    """Any bit pattern survives, infinities and NaN included; -0.0 becomes +0.0."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 65536, (m, k), dtype=np.uint16)
    bits[rng.random((m, k)) >= density] = rng.choice([0, 0x8000])
    weights = encode_bitmap(bits.view(np.float16), width).validate()
    expected = np.where(bits & 0x7FFF, bits, 0)
    np.testing.assert_array_equal(weights.decode().view(np.uint16), expected)
    assert weights.nnz == np.count_nonzero(expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 300), st.floats(0, 1), st.sampled_from([4, 8]), st.integers(0, 99))
def test_quantised_round_trip(m: int, k: int, density: float, bits: int, seed: int) -> None:
    """Every weight errs by at most half a step of its group of 128; zeros stay, and kept positions are counted."""
    a = random_matrix(m, k, density, seed)
    weights = encode_quantised_bitmap(a, bits).validate()
    steps = np.repeat(weights.scales, 128, axis=1)[:, :k].astype(np.float64)
    error = np.abs(weights.decode().astype(np.float64) - a)
    assert (error <= 0.51 * steps + 2.0**-10 * np.abs(a)).all()
    assert not error[a == 0].any()
    assert weights.nnz == np.count_nonzero(a)


def test_quantised_integers_are_exact() -> None:
    """Weights that are whole multiples of their scale come back bit for bit."""
    rng = np.random.default_rng(0)
    for bits, largest in ((8, 127), (4, 7)):
        a = rng.integers(-largest, largest + 1, (40, 256)).astype(np.float16)
        a[:, ::128] = largest
        np.testing.assert_array_equal(encode_quantised_bitmap(a, bits).decode(), a)


@pytest.mark.parametrize("value", [6e-8, 65504])
def test_quantised_extremes(value: float) -> None:
    a = np.full((1, 3), value, np.float16)
    np.testing.assert_allclose(encode_quantised_bitmap(a, 8).decode(), a, rtol=0.01)


@cache
def bitmap(width: int = 1) -> Bitmap:
    return encode_bitmap(random_matrix(40, 70, 0.3), width)


@cache
def quantised() -> QuantisedBitmap:
    return encode_quantised_bitmap(random_matrix(40, 70, 0.3), 4)


def changed(buffer: np.ndarray, place: tuple[int, ...] | int, value: object) -> np.ndarray:
    buffer = buffer.copy()
    buffer[place] = value
    return buffer


def with_last_bit(masks: np.ndarray) -> np.ndarray:
    """The last lane of the last strip holds its last bit, which lies beyond a matrix of 40 x 70."""
    bits = masks.dtype.type
    return changed(masks, (3, 31), masks[3, 31] | bits(1) << bits(8 * masks.itemsize - 1))


@pytest.mark.parametrize(
    ("weights", "field", "damage", "message"),
    [
        (bitmap, "shape", lambda w: (40, 0), r"shape: \(40, 0\); allowed"),
        (bitmap, "shape", lambda w: (40, 200), "masks: uint64"),
        (bitmap, "shape", lambda w: (40, 66), "masks: a bit beyond"),
        (bitmap, "masks", lambda w: w.masks[:-1], "masks: uint64"),
        (bitmap, "masks", lambda w: w.masks.astype(np.int64), "masks: int64"),
        (bitmap, "masks", lambda w: changed(w.masks, 0, ~np.uint64(0)), r"offsets: strip \[0\] of another size"),
        (bitmap, "masks", lambda w: with_last_bit(w.masks), "masks: a bit beyond the matrix|offsets: strip"),
        (bitmap, "values", lambda w: w.values[:-8], r"offsets\[-1\]"),
        (bitmap, "values", lambda w: w.values.astype(np.float32), "values: float32"),
        (bitmap, "offsets", lambda w: w.offsets[:-1], "offsets: int32 of shape"),
        (bitmap, "offsets", lambda w: changed(w.offsets, 1, w.offsets[2] + 1), "offsets: falls after entry"),
        (bitmap, "element", lambda w: "float32", "element: float32"),
        (quantised, "value_bits", lambda w: 5, "value_bits: 5; allowed: 4 or 8"),
        (quantised, "value_bits", lambda w: 8, "value_bits: 8; allowed: 4 for int4"),
        (quantised, "codes", lambda w: w.codes[:-16], r"offsets\[-1\]"),
        (quantised, "scales", lambda w: w.scales[:, :0], "scales: float16"),
        (quantised, "scales", lambda w: w.scales * np.float16("inf"), "scales: infinity"),
    ],
)
def test_corrupt_encodings_are_refused(
    weights: Callable[[], Bitmap | QuantisedBitmap], field: str, damage: Callable[[Any], object], message: str
) -> None:
    sound = weights()
    with pytest.raises(ValueError, match=message), np.errstate(invalid="ignore"):
        type(sound).from_buffers(**(vars(sound) | {field: damage(sound)}))


@pytest.mark.parametrize(
    ("field", "damage", "message"),
    [
        ("shape", lambda w: (40, 69), "values: a weight beyond the last column"),
        ("shape", lambda w: (40, 66), "masks: a bit beyond"),
        ("masks", lambda w: w.masks.astype(np.uint64), "offsets|masks"),
        ("masks", lambda w: w.masks[:-1], "masks: uint32"),
        ("masks", lambda w: with_last_bit(w.masks), "masks: a bit beyond the matrix|offsets: strip"),
        ("values", lambda w: w.values[:-8], r"offsets\[-1\]"),
    ],
)
def test_corrupt_pairs_are_refused(field: str, damage: Callable[[Bitmap], object], message: str) -> None:
    sound = bitmap(width=2)
    with pytest.raises(ValueError, match=message):
        Bitmap.from_buffers(**(vars(sound) | {field: damage(sound)}))


def test_encoders_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(ValueError, match="value_bits: 3; allowed: 4 or 8"):
        encode_quantised_bitmap(np.ones((2, 2), np.float16), 3)
    with pytest.raises(ValueError, match="infinity or NaN"):
        encode_quantised_bitmap(np.full((2, 2), np.inf, np.float16), 8)
    with pytest.raises(ValueError, match="dtype"):
        encode_bitmap(np.ones((2, 2), np.float32))


def test_encoder_refuses_other_widths() -> None:
    with pytest.raises(ValueError, match="width: 3; allowed: 1 or 2"):
        encode_bitmap(np.ones((2, 2), np.float16), width=3)
