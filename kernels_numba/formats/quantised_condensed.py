"""Condensed strips with values of 8 or 4 bits, times a scale of their row and group of 128 columns.

The record of `condensed` with a bit for each register, the strip's 32 scales behind its metadata, and codes for values:
a register in use holds two codes side by side, two bytes or one. That is the form that pays: codes take so few bytes
that decoding them is the bound, and a bit for each register halves the loads. Codes, scales and what they stand for are
those of `quantised`; a weight whose code is 0 is left out.

Bytes: ``448 + registers * bits / 4`` a strip, padded to 16; 4 an offset; without tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.condensed import Condensed, encode_condensed
from kernels_numba.formats.encoded import Element, EncodedWeight, check, check_shape
from kernels_numba.formats.layout import STRIP_M, UNIT_BYTES
from kernels_numba.formats.quantised import (
    ValueType,
    dequantise,
    quantise,
    scales_by_strip,
    scales_of_strips,
    value_type_of,
)
from kernels_numba.formats.records import UNIT, check_records

SCALES_AT = 192  # entry of two bytes of a record where its scales begin


@dataclass(frozen=True, eq=False)
class QuantisedCondensed(EncodedWeight):
    """Condensed strips of codes with their scales, as records.

    shape, records, offsets : as in `Condensed`, whose registers and tails hold codes of ``value_type``.
    """

    shape: tuple[int, int]
    records: NDArray[np.uint16]
    offsets: NDArray[np.int32]
    value_type: ValueType
    element: Element = Element.FLOAT16

    @property
    def codes(self) -> Condensed:
        """The codes, each in the low byte of a 16-bit pattern."""
        return Condensed(self.shape, *_with_values_of(16, self.records, self.offsets, self.value_type.bits))

    @property
    def scales(self) -> NDArray[np.float16]:
        """(m, ceil(k / 128)) scales, those of a group's first strip."""
        rows = self._scale_entries()
        return scales_of_strips(self.records[rows].view(np.float16), self.shape, self.value_type)

    def _scale_entries(self) -> NDArray[np.int64]:
        begins = self.offsets[:-2].astype(np.int64) * UNIT
        return np.asarray(begins[:, None] + SCALES_AT + np.arange(STRIP_M))

    @property
    def nnz(self) -> int:
        """Codes that are not zero."""
        return int(np.count_nonzero(self.codes.decode().view(np.uint16)))

    def decode(self) -> NDArray[np.float16]:
        """Dense matrix (m, k): value times scale, rounded once to float16."""
        return _dequantised(self.codes, self.scales, self.value_type)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        check_shape(self.shape)
        check(self.element == Element.FLOAT16, "element", self.element, Element.FLOAT16)
        check(self.value_type in tuple(ValueType), "value_type", self.value_type, ", ".join(ValueType))
        check_records(self.records, self.offsets, self.shape)
        codes, scales = self.codes.validate(), self.scales
        given = self.records[self._scale_entries()]
        again = scales_by_strip(scales, self.shape, self.value_type).view(np.uint16)
        check(
            np.array_equal(given, again), "scales", "two for a row and group of columns", "the same in all its strips"
        )
        check(np.isfinite(scales).all(), "scales", "infinity or NaN", "finite numbers")
        decoded = _dequantised(codes, scales, self.value_type)
        check(np.isfinite(decoded).all(), "codes", "infinity, NaN, or beyond float16 times its scale", "finite")
        return self


def _dequantised(codes: Condensed, scales: NDArray[np.float16], value_type: ValueType) -> NDArray[np.float16]:
    """Weights (m, k) of condensed codes, each in the low byte of its 16-bit pattern."""
    return dequantise(codes.decode().view(np.uint16).astype(np.uint8), scales, value_type)


def encode_quantised_condensed(
    a: NDArray[np.float16], value_type: int | str, *, element: Element | None = None
) -> QuantisedCondensed:
    """Condensed encoding of a finite float16 matrix (m, k) with values of 8 or 4 bits.

    Parameters
    ----------
    value_type : 8 or 4 for integers, or the name of a `ValueType`.

    Raises
    ------
    ValueError
        If ``a`` is no float16 matrix or holds infinity or NaN, or there is no such type of values.
    """
    found = value_type_of(value_type)
    codes, scales = quantise(a, found, element)
    wide = encode_condensed(codes.astype(np.uint16).view(np.float16))
    records, offsets = _with_values_of(found.bits, wide.records, wide.offsets, 16)
    encoded = QuantisedCondensed(codes.shape, records, offsets, found)
    records[encoded._scale_entries()] = scales_by_strip(scales, codes.shape, found).view(np.uint16)
    return encoded


def _with_values_of(
    bits: int, records: NDArray[np.uint16], offsets: NDArray[np.int32], from_bits: int
) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Records and offsets of the same strips with values of other bits, 16, 8 or 4; ValueError if one is too short."""
    from kernels_numba.formats.quantised_condensed_njit import carry_records, measure_records

    source, begins = records.view(np.uint8), offsets[:-1].astype(np.int64) * UNIT_BYTES
    sizes = np.empty(begins.size - 1, np.int64)
    measure_records(source, begins, from_bits, bits, sizes)
    bad = np.flatnonzero(sizes < 0)
    check(bad.size == 0, f"record of strip {bad[:1].sum()}", "a length that its masks do not explain", "what they say")
    ends = np.concatenate(([0], np.cumsum(sizes)))
    carried = np.zeros(ends[-1] // 2, np.uint16)
    carry_records(source, begins, from_bits, carried.view(np.uint8), ends, bits)
    return carried, (np.concatenate((ends, ends[-1:])) // UNIT_BYTES).astype(np.int32)
