"""Encoders: exact round trips, bytes by formula, layout by hand, and corrupt buffers refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels_numba.cpu.panel_csr import BLOCK_ROWS, PANEL_K, PanelCsr, encode_panel_csr
from kernels_numba.formats import Csr, Dense, Element, TiledCsl, TwoFour, encode_csr, encode_tiled_csl, encode_two_four

SHAPES = [(1, 1), (1, 64), (127, 63), (128, 64), (129, 65), (200, 301), (257, 256)]
DENSITIES = [0, 1e-3, 0.1, 0.3, 0.5, 0.51, 0.9, 1]
ENCODERS = {
    "tiled": encode_tiled_csl,
    "tiled in order": lambda a: encode_tiled_csl(a, reorder=False),
    "csr": encode_csr,
    "csr 16": lambda a: encode_csr(a, index_bits=16),
    "two four": encode_two_four,
    "panel csr": encode_panel_csr,
}


def random_bits(shape, density, seed=0, dtype=np.uint16):
    """Any bit patterns: NaNs with payload, infinities, subnormals, -0.0."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    bits[rng.random(shape) >= density] = 0
    return bits


def without_minus_zero(bits):
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return np.where(bits == sign, bits.dtype.type(0), bits)


def assert_round_trip(encoded, bits):
    expected = without_minus_zero(bits)
    np.testing.assert_array_equal(encoded.decode().view(bits.dtype), expected)
    assert encoded.nnz == np.count_nonzero(expected)
    assert encoded.shape == bits.shape
    encoded.validate()


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_is_exact(shape, density, encoder):
    bits = random_bits(shape, density)
    assert_round_trip(ENCODERS[encoder](bits.view(np.float16)), bits)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 140), st.integers(1, 70)), fill=st.just(0)))
def test_round_trip_of_arbitrary_patterns(bits):
    for encode in ENCODERS.values():
        assert_round_trip(encode(bits.view(np.float16)), bits)


@pytest.mark.parametrize("element", Element)
@pytest.mark.parametrize("encode", [encode_csr, encode_two_four, encode_panel_csr])
def test_round_trip_of_other_elements(encode, element):
    bits = random_bits((130, 270), 0.4, dtype=element.bits.type)
    encoded = encode(bits.view(element.storage), element=element)
    assert encoded.element is element
    assert_round_trip(encoded, bits)


def test_dense_keeps_every_bit():
    bits = random_bits((5, 7), 1)
    bits[0, 0] = 0x8000
    dense = Dense(bits.view(np.float16))
    np.testing.assert_array_equal(dense.decode().view(np.uint16), bits)
    assert dense.nbytes == 70
    assert dense.nnz == np.count_nonzero(without_minus_zero(bits))


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


def test_two_four_metadata_by_hand():
    a = np.array([[0, 1, 0, 2, 3, 4, 5, 6, 0, 0, 0, 7, 0, 0, 0, 0]], np.float16)
    encoded = encode_two_four(a)
    assert encoded.values.tolist() == [[1, 2, 3, 4, 0, 7, 0, 0]]
    pairs = [(1, 3), (0, 1), (2, 3), (0, 1)]
    assert encoded.metadata[0, 0] == sum((low | high << 2) << 4 * group for group, (low, high) in enumerate(pairs))
    assert encoded.residual.col_idx.tolist() == [6, 7]


def test_two_four_residual_count_matches_expectation():
    """Residual per weight of Bernoulli weights: (4 d^3 s + 2 d^4) / 4, the third and fourth of each group."""
    a = random_bits((512, 1024), 0.5).view(np.float16)
    expected = a.size / 4 * (4 * 0.5**4 + 2 * 0.5**4)
    assert encode_two_four(a).residual.nnz == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("density", DENSITIES)
def test_bytes_equal_the_closed_forms(density):
    m, k = 300, 320
    a = random_bits((m, k), density).view(np.float16)
    nnz = np.count_nonzero(a)
    tiled = encode_tiled_csl(a)
    tiles = 3 * 5
    assert tiled.nbytes == 4 * tiled.words.size + 4 * (tiles + 2)
    assert nnz <= tiled.words.size <= nnz + 3 * tiles
    assert encode_csr(a).nbytes == 6 * nnz + 4 * (m + 1)
    assert encode_csr(a, index_bits=16).nbytes == 4 * nnz + 4 * (m + 1)
    assert encode_panel_csr(a).nbytes == 3 * nnz + 4 * (3 * 2 * BLOCK_ROWS + 1)
    two_four = encode_two_four(a)
    assert two_four.nbytes == 1.125 * m * k + two_four.residual.nbytes
    assert Dense(a).nbytes == 2 * m * k


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


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda: encode_tiled_csl(np.zeros((4, 4), np.float32)), "dtype: float32; allowed: float16"),
        (lambda: encode_tiled_csl(np.zeros(4, np.float16)), r"shape: \(4,\)"),
        (lambda: encode_csr(np.zeros((0, 4), np.float16)), r"shape: \(0, 4\)"),
        (lambda: encode_csr(np.zeros((4, 4), np.int8)), "dtype: int8"),
        (lambda: encode_csr(np.zeros((4, 4), np.float16), index_bits=8), "index_bits: 8; allowed: 16 or 32"),
        (lambda: encode_csr(np.zeros((1, 65537), np.float16), index_bits=16), "k: 65537; allowed: at most 65536"),
        (lambda: encode_panel_csr(np.zeros((4, 4), np.uint16)), "dtype: uint16"),
        (lambda: Dense([[1.0]]), "dtype: list"),
    ],
)
def test_bad_input_is_named(encode, message):
    with pytest.raises(ValueError, match=message):
        encode()


def corrupt(encoded, name, index, value):
    """Copy of ``encoded`` with one entry of one buffer replaced, rebuilt through ``from_buffers``."""
    fields = {item.name: getattr(encoded, item.name) for item in dataclasses.fields(encoded)}
    fields[name] = fields[name].copy()
    fields[name][index] = value
    return type(encoded).from_buffers(**fields)


SAMPLE = random_bits((200, 301), 0.3, seed=3).view(np.float16)
SPARSE_SAMPLE = random_bits((200, 301), 0.02, seed=4).view(np.float16)


@pytest.mark.parametrize(
    ("encode", "name", "index", "value", "message"),
    [
        (encode_tiled_csl, "tile_offsets", 0, 1, r"tile_offsets\[0\]: 1"),
        (encode_tiled_csl, "tile_offsets", 1, 10**6, "falls"),
        (encode_tiled_csl, "tile_offsets", -1, 1, r"tile_offsets\[-1\]"),
        (encode_tiled_csl, "tile_offsets", -2, 0, "falls|extra tile"),
        (encode_tiled_csl, "words", 5, 8192 << 16 | 1, "location beyond the tile"),
        (encode_tiled_csl, "words", -1, 127 * 64 << 16 | 1, "non-zero outside the matrix"),
        (encode_csr, "row_ptr", 3, -1, "falls"),
        (encode_csr, "row_ptr", -1, 5, r"row_ptr\[-1\]: 5"),
        (encode_csr, "col_idx", 7, 301, "allowed: 0 to 300"),
        (encode_csr, "col_idx", 7, -1, "allowed: 0 to 300"),
        (encode_csr, "col_idx", 7, 0, "ascending"),
        (encode_panel_csr, "segment_ptr", 3, 10**6, "falls"),
        (encode_panel_csr, "col_idx", -1, 255, "outside the matrix"),
        (encode_panel_csr, "col_idx", 1, 0, "does not ascend"),
        (encode_two_four, "metadata", (0, 0), 0, "positions not ascending"),
        (encode_two_four, "metadata", (0, 0), 0xFFFF, "positions not ascending"),
    ],
)
def test_corrupt_entries_are_refused(encode, name, index, value, message):
    with pytest.raises(ValueError, match=message):
        corrupt(encode(SAMPLE), name, index, value)


def test_repeated_location_is_refused():
    encoded = encode_tiled_csl(SAMPLE)
    with pytest.raises(ValueError, match="tile 0 of 10 holds a repeated location"):
        corrupt(encoded, "words", 1, encoded.words[0])


def test_value_in_both_parts_of_two_four_is_refused():
    encoded = encode_two_four(np.ones((1, 16), np.float16))
    with pytest.raises(ValueError, match="disjoint parts"):
        corrupt(encoded, "metadata", (0, 0), 0xEEEE)
    with pytest.raises(ValueError, match="column 9; allowed: below 9"):
        corrupt(encode_two_four(np.ones((1, 9), np.float16)), "values", (0, 5), 1)


@pytest.mark.parametrize("name", ["words", "tile_offsets"])
def test_wrong_arrays_are_refused(name):
    encoded = encode_tiled_csl(SAMPLE)
    fields = {"shape": encoded.shape, "words": encoded.words, "tile_offsets": encoded.tile_offsets}
    for wrong in (fields[name].astype(np.int64), fields[name][::2], fields[name][None], None):
        with pytest.raises(ValueError, match=name):
            TiledCsl.from_buffers(**fields | {name: wrong})
    for shape in ((200, 365), (0, 301), (200.0, 301), [200, 301]):
        with pytest.raises(ValueError, match=r"shape|tile_offsets"):
            TiledCsl.from_buffers(**fields | {"shape": shape})


INDEX_BUFFERS = [
    (encode_tiled_csl, "words"),
    (encode_tiled_csl, "tile_offsets"),
    (encode_csr, "row_ptr"),
    (encode_csr, "col_idx"),
    (encode_panel_csr, "segment_ptr"),
    (encode_panel_csr, "col_idx"),
    (encode_two_four, "metadata"),
]


@pytest.mark.parametrize(("encode", "name"), INDEX_BUFFERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fuzzed_buffers_are_refused_or_lose_nothing(encode, name, data):
    """Whatever entry changes: a clear error, or an encoding in which every stored non-zero has its own place."""
    encoded = encode(SPARSE_SAMPLE)
    buffer = getattr(encoded, name)
    index = np.unravel_index(data.draw(st.integers(0, buffer.size - 1)), buffer.shape)
    limits = np.iinfo(buffer.dtype)
    value = data.draw(st.integers(int(limits.min), int(limits.max)))
    try:
        accepted = corrupt(encoded, name, index, value)
    except ValueError:
        return
    assert np.count_nonzero(without_minus_zero(accepted.decode().view(np.uint16))) == accepted.nnz


def test_formats_are_frozen_records():
    for encode, kind in ((encode_csr, Csr), (encode_two_four, TwoFour), (encode_panel_csr, PanelCsr)):
        encoded = encode(SAMPLE)
        assert isinstance(encoded, kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            encoded.shape = (1, 1)
    assert PANEL_K == 256  # a column number fits one byte
