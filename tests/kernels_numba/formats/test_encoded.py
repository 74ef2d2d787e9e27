"""Rebuilding encodings from buffers of any origin."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import (
    Dense,
    Element,
    TwoFour,
    encode_bitmap,
    encode_csr,
    encode_tiled_csl,
    encode_two_four,
)
from kernels_numba.formats.encoded import narrowed, output_element, widened
from tests.kernels_numba.problems import ml_dtypes_array, random_matrix


def test_buffers_of_wrong_types_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"buffers of TwoFour: .*residual.*; allowed: the fields"):
        TwoFour.from_buffers(shape=(4, 4))
    weights = encode_two_four(random_matrix(130, 70, 0.3))
    fields = {name: getattr(weights, name) for name in weights.__dataclass_fields__}
    with pytest.raises(ValueError, match="buffers of TwoFour: "):
        TwoFour.from_buffers(**(fields | {"residual": None}))


def test_element_given_as_text_is_understood() -> None:
    bits = encode_csr(np.full((2, 2), 0x3F80, np.uint16), element=Element.BFLOAT16)
    fields = {name: getattr(bits, name) for name in bits.__dataclass_fields__}
    again = type(bits).from_buffers(**(fields | {"element": "bfloat16"}))
    assert again.element is Element.BFLOAT16
    with pytest.raises(ValueError, match="element: float17"):
        type(bits).from_buffers(**(fields | {"element": "float17"}))


def test_every_bfloat16_is_widened_exactly_and_comes_back() -> None:
    bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    wide = widened(bits, Element.BFLOAT16)
    sign, exponent, fraction = bits >> 15, (bits >> 7 & 0xFF).astype(int), (bits & 0x7F).astype(int)
    finite = exponent < 255
    by_hand = np.where(exponent > 0, 128 + fraction, fraction) * 2.0 ** (np.maximum(exponent, 1) - 134)
    np.testing.assert_array_equal(wide[finite], np.where(sign == 1, -by_hand, by_hand)[finite])
    np.testing.assert_array_equal(narrowed(wide[~np.isnan(wide)], Element.BFLOAT16), bits[~np.isnan(wide)])
    assert set(narrowed(wide[np.isnan(wide)], Element.BFLOAT16)) == {0x7FFF}


def test_bfloat16_is_the_nearest_and_even_at_ties() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2**32, 10_000, dtype=np.uint32).view(np.float32)
    values = values[np.abs(values) < 3e38]  # no NaN, nothing that rounds to infinity
    near = narrowed(values, Element.BFLOAT16)
    exact, found = values.astype(np.float64), widened(near, Element.BFLOAT16).astype(np.float64)
    for step in (-1, 1):
        other = widened((near.astype(int) + step).astype(np.uint16), Element.BFLOAT16).astype(np.float64)
        inside = np.isfinite(other) & (np.signbit(other) == np.signbit(found))
        assert (np.abs(found - exact) <= np.abs(other - exact))[inside].all()
    ties = (near.astype(np.uint32) << 16 | 0x8000).view(np.float32)
    ties = ties[np.abs(ties) < 3e38]
    assert not (narrowed(ties, Element.BFLOAT16) & 1).any()
    largest = np.array([3.3895314e38, 3.4e38, -1e39, 1e-46])
    assert narrowed(largest, Element.BFLOAT16).tolist() == [0x7F7F, 0x7F80, 0xFF80, 0]


def test_arrays_of_ml_dtypes_are_taken_as_they_are() -> None:
    bits = np.array([[0x3F80, 0], [0xC000, 0x7F80]], np.uint16)
    foreign = ml_dtypes_array(bits)
    for encode in (Dense, encode_csr, encode_tiled_csl, encode_bitmap):
        encoded = encode(foreign)
        assert encoded.element is Element.BFLOAT16
        np.testing.assert_array_equal(encoded.decode(), bits)
    assert np.shares_memory(Dense.of_same_memory(foreign).values, bits)
    assert output_element(foreign.dtype, Element.BFLOAT16) is Element.BFLOAT16
