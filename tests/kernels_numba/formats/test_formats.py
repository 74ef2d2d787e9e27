"""All encodings of the house, whatever the format: exact round trips, bytes by formula, frozen records."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels_numba.cpu.bitmap import encode_cpu_bitmap
from kernels_numba.cpu.panel_csr import BLOCK_ROWS, PANEL_K, PanelCsr, encode_panel_csr
from kernels_numba.formats import (
    Csr,
    Dense,
    Element,
    TwoFour,
    encode_bitmap,
    encode_csr,
    encode_tiled_csl,
    encode_two_four,
)
from tests.kernels_numba.formats.encodings import SAMPLE, assert_round_trip
from tests.kernels_numba.problems import random_bits

SHAPES = [(1, 1), (1, 64), (127, 63), (128, 64), (129, 65), (200, 301), (257, 256)]
DENSITIES = [0, 1e-3, 0.1, 0.3, 0.5, 0.51, 0.9, 1]
ENCODERS = {
    "tiled": encode_tiled_csl,
    "tiled in order": lambda a: encode_tiled_csl(a, reorder=False),
    "csr": encode_csr,
    "csr 16": lambda a: encode_csr(a, index_bits=16),
    "two four": encode_two_four,
    "panel csr": encode_panel_csr,
    "cpu bitmap": encode_cpu_bitmap,
}
HALVES_ONLY = {
    "tiled": encode_tiled_csl,
    "bitmap": encode_bitmap,
    "pairs": partial(encode_bitmap, width=2),
    "cpu bitmap": encode_cpu_bitmap,
}


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


@pytest.mark.parametrize("encode", HALVES_ONLY.values(), ids=HALVES_ONLY)
def test_formats_of_16_bit_values_take_bfloat16(encode):
    bits = random_bits((130, 271), 0.4)
    brain, half = encode(bits, element=Element.BFLOAT16), encode(bits.view(np.float16))
    assert brain.element is Element.BFLOAT16
    assert brain.decode().dtype == np.uint16
    assert_round_trip(brain, bits)
    fields = {field.name: getattr(brain, field.name) for field in dataclasses.fields(brain)}
    assert type(brain).from_buffers(**fields).element is Element.BFLOAT16
    for name, buffer in brain.buffers.items():  # one layout, whatever the bits mean
        np.testing.assert_array_equal(buffer, half.buffers[name].view(buffer.dtype))


@pytest.mark.parametrize("encode", HALVES_ONLY.values(), ids=HALVES_ONLY)
def test_formats_of_16_bit_values_refuse_others(encode):
    with pytest.raises(ValueError, match="dtype: float32; allowed: float16 or bfloat16"):
        encode(np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"dtype: uint16; allowed: .* uint16 with element='bfloat16'"):
        encode(np.ones((2, 2), np.uint16))
    encoded = encode(SAMPLE)
    with pytest.raises(ValueError, match="element: float32; allowed: float16 or bfloat16"):
        dataclasses.replace(encoded, element=Element.FLOAT32).validate()


def test_a_bitmap_of_float16_values_is_none_of_bfloat16():
    with pytest.raises(ValueError, match=r"values: float16 .*; allowed: contiguous uint16"):
        dataclasses.replace(encode_bitmap(SAMPLE), element=Element.BFLOAT16).validate()


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
    assert encode_cpu_bitmap(a).nbytes == 304 * 320 // 8 + 2 * (nnz + 32) + 8 * (10 + 1)
    two_four = encode_two_four(a)
    assert two_four.nbytes == 1.125 * m * k + two_four.residual.nbytes
    assert Dense(a).nbytes == 2 * m * k


def test_formats_are_frozen_records():
    for encode, kind in ((encode_csr, Csr), (encode_two_four, TwoFour), (encode_panel_csr, PanelCsr)):
        encoded = encode(SAMPLE)
        assert isinstance(encoded, kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            encoded.shape = (1, 1)
    assert PANEL_K == 256  # a column number fits one byte
