"""Tiled CSL: words by hand, the order of a tile's words, and which input and buffers are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_numba.formats import TiledCsl, encode_tiled_csl
from tests.kernels_numba.formats.encodings import SAMPLE, assert_refused_or_harmless, assert_round_trip, corrupt
from tests.kernels_numba.problems import random_bits


def test_tiled_words_by_hand():
    a = np.zeros((130, 65), np.float16)
    a[0, 3] = 1.0  # row 0: not swizzled
    a[9, 2] = -2.0  # row 9 % 8 = 1: column 2 ^ 8
    a[129, 64] = np.inf  # last tile, row 1, column 0 ^ 8
    encoded = encode_tiled_csl(a, reorder=False)
    assert encoded.tile_offsets.tolist() == [0, 1, 1, 1, 2, 2]
    assert encoded.words[:2].tolist() == [3 << 16 | 0x3C00, (9 * 64 + 10) << 16 | 0xC000]
    assert encoded.words[4] == (1 * 64 + 8) << 16 | 0x7C00
    assert not (encoded.words[[2, 3, 5, 6, 7]] & 0xFFFF).any()
    assert encoded.padded_shape == (256, 128)
    assert encoded.nnz == 3


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.9, 1])
def test_reordering_comes_close_to_the_fewest_wavefronts(density):
    """A tile of V vectors takes 4 ceil(V/32) steps, and a wavefront takes one word from its fullest bank.

    The larger of the two bounds a tile's wavefronts from below, but for lanes that share a 32-bit word.
    """
    a = random_bits((128, 640), density).view(np.float16)
    ordered, plain = encode_tiled_csl(a), encode_tiled_csl(a, reorder=False)
    np.testing.assert_array_equal(
        np.sort(ordered.words[: plain.tile_offsets[1] * 4]), np.sort(plain.words[: plain.tile_offsets[1] * 4])
    )
    bound = 0
    for first, last in zip(ordered.tile_offsets[:-2], ordered.tile_offsets[1:-1], strict=True):
        fullest = np.bincount(ordered.words[4 * first : 4 * last] >> 17 & 31, minlength=32).max()
        bound += max(4 * -(-(last - first) // 32), fullest)
    steps, wavefronts = ordered.scatter_wavefronts()
    assert steps <= wavefronts <= 1.15 * bound
    assert wavefronts < 0.7 * plain.scatter_wavefronts()[1]


def test_full_tile_needs_no_padding_and_empty_matrix_no_words():
    full = encode_tiled_csl(np.ones((128, 64), np.float16))
    assert full.words.size == full.nnz == 8192
    assert full.scatter_wavefronts() == (256, 256)
    empty = encode_tiled_csl(np.zeros((128, 64), np.float16))
    assert empty.words.size == 0
    assert empty.tile_offsets.tolist() == [0, 0, 0]


def test_strided_input_is_encoded_by_value():
    a = random_bits((130, 140), 0.3).view(np.float16)
    assert_round_trip(encode_tiled_csl(a.T), np.ascontiguousarray(a.T).view(np.uint16))


def test_repeated_location_is_refused():
    encoded = encode_tiled_csl(SAMPLE)
    with pytest.raises(ValueError, match="tile 0 of 10 holds a repeated location"):
        corrupt(encoded, "words", 1, encoded.words[0])


@pytest.mark.parametrize("name", ["words", "tile_offsets"])
def test_wrong_arrays_are_refused(name):
    encoded = encode_tiled_csl(SAMPLE)
    fields = {"shape": encoded.shape, "words": encoded.words, "tile_offsets": encoded.tile_offsets}
    for wrong in (fields[name].astype(np.int64), fields[name][::2], fields[name][None], None):
        with pytest.raises(ValueError, match=rf"{name}|tile_offsets\[-1\]: .* the size of what it points into"):
            TiledCsl.from_buffers(**fields | {name: wrong})
    for shape in ((200, 365), (0, 301), (200.0, 301), [200, 301]):
        with pytest.raises(ValueError, match=r"shape|tile_offsets"):
            TiledCsl.from_buffers(**fields | {"shape": shape})


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda: encode_tiled_csl(np.zeros((4, 4), np.float32)), "dtype: float32; allowed: float16"),
        (lambda: encode_tiled_csl(np.zeros(4, np.float16)), r"shape: \(4,\)"),
    ],
)
def test_bad_input_is_named(encode, message):
    with pytest.raises(ValueError, match=message):
        encode()


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("tile_offsets", 0, 1, r"tile_offsets\[0\]: 1"),
        ("tile_offsets", 1, 10**6, "falls"),
        ("tile_offsets", -1, 1, r"tile_offsets\[-1\]"),
        ("tile_offsets", -2, 0, "falls|extra tile"),
        ("words", 5, 8192 << 16 | 1, "location beyond the tile"),
        ("words", -1, 127 * 64 << 16 | 1, "non-zero outside the matrix"),
    ],
)
def test_corrupt_entries_are_refused(name, index, value, message):
    with pytest.raises(ValueError, match=message):
        corrupt(encode_tiled_csl(SAMPLE), name, index, value)


@pytest.mark.parametrize("name", ["words", "tile_offsets"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fuzzed_buffers_are_refused_or_lose_nothing(name, data):
    assert_refused_or_harmless(encode_tiled_csl, name, data)
