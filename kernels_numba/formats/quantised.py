"""Bitmap weights with values of 8 or 4 bits: integers or small floats, times a scale of their row and group of columns.

A kept weight is ``value * scale``, with one float16 scale for each row and 128 columns, rounded once to float16: what
the reference decodes is bit for bit what a kernel computes. The layout is that of `bitmap`, with codes for values.

Four types of values: integers of 8 and of 4 bits, and the floats E4M3 and E5M2 (Micikevicius et al., "FP8 Formats for
Deep Learning", 2022). Encoders round to nearest, ties to even, and never beyond the largest value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.bitmap import Masks, check_strips, expand, pack
from kernels_numba.formats.encoded import Element, EncodedWeight, as_matrix, bits_of, check, check_shape, check_vector
from kernels_numba.formats.layout import STRIP_K, STRIP_M, record_grid

SCALE_GROUP = 128  # columns of a row that share a scale
LARGEST_HALF = float(np.finfo(np.float16).max)


class ValueType(StrEnum):
    """What a code stands for."""

    INT8 = "int8"
    INT4 = "int4"
    E4M3 = "e4m3"
    E5M2 = "e5m2"

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 4 if self is ValueType.INT4 else 8

    @property
    def largest(self) -> float:
        """Value that a group's largest weight is scaled to.

        E5M2 reaches 57,344, but such scales would be subnormal numbers of float16, with few bits; 448, the largest of
        E4M3, leaves 24 powers of two below it.
        """
        return {"int8": 127.0, "int4": 7.0}.get(self, 448.0)

    @property
    def half_exponent(self) -> int:
        """Power of two by which a code's bits, shifted to where float16 has them, read as a number too small."""
        return 8 if self is ValueType.E4M3 else 0


INTEGERS = {8: ValueType.INT8, 4: ValueType.INT4}


@dataclass(frozen=True, eq=False)
class QuantisedBitmap(EncodedWeight):
    """Bitmap whose kept weights are ``value * scale`` of their row and group of 128 columns, rounded to float16.

    Encoders choose the scale ``max |a| / largest`` as float16, so that an integer errs by half a scale plus the scale's
    own rounding, a float by half its last place. A kept weight may get the value 0.

    masks, offsets : as in `Bitmap`, with a bit per position.
    codes : (bytes,) uint8; integers in two's complement, for 4 bits two per byte, the first in the low half.
    scales : (m, ceil(k / 128)) float16.
    value_bits : 4 or 8.
    value_type : what codes stand for; integers of ``value_bits`` unless given.
    """

    shape: tuple[int, int]
    masks: Masks
    codes: NDArray[np.uint8]
    offsets: NDArray[np.int32]
    scales: NDArray[np.float16]
    value_bits: int
    element: Element = Element.FLOAT16
    value_type: ValueType | None = None

    def __post_init__(self) -> None:
        """Fill in the type of values; other widths than those of integers are left for `validate` to refuse."""
        if self.value_type is None:
            object.__setattr__(self, "value_type", INTEGERS.get(self.value_bits))

    @property
    def nnz(self) -> int:
        """Stored positions; padding not counted."""
        return int(np.bitwise_count(self.masks).sum())

    def decode(self) -> NDArray[np.float16]:
        """Dense matrix (m, k): value times scale, exact in float32, rounded once to float16."""
        codes = expand(self.shape, self.masks, unpack_codes(self.codes, self.value_bits), self.offsets)
        return dequantise(codes, self.scales, value_type_of(self.value_type))

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        m, k = check_shape(self.shape)
        check(self.element == Element.FLOAT16, "element", self.element, Element.FLOAT16)
        check(self.value_bits in INTEGERS, "value_bits", self.value_bits, "4 or 8")
        bits = value_type_of(self.value_type).bits
        check(self.value_bits == bits, "value_bits", self.value_bits, f"{bits} for {self.value_type}")
        check_vector(self.codes, "codes", np.uint8)
        n_codes = self.codes.size * 8 // self.value_bits
        check_strips(self.shape, self.masks, self.offsets, n_codes, self.value_bits)
        shape = (m, -(-k // SCALE_GROUP))
        given, allowed = f"{self.scales.dtype} {self.scales.shape}", f"float16 {shape}"
        check(given == allowed and self.scales.flags.c_contiguous, "scales", given, f"row-major {allowed}")
        check(np.isfinite(self.scales).all(), "scales", "infinity or NaN", "finite numbers")
        check(np.isfinite(self.decode()).all(), "codes", "infinity, NaN, or beyond float16 times its scale", "finite")
        return self


def value_type_of(value_type: Any) -> ValueType:
    """Type of values by its name, or by 8 or 4 for integers; ValueError for anything else."""
    named = isinstance(value_type, str) or value_type in tuple(INTEGERS)
    found = str(INTEGERS.get(value_type, value_type)) if named else ""
    check(found in tuple(ValueType), "value_bits", repr(value_type), f"4 or 8, or {', '.join(ValueType)}")
    return ValueType(found)


def encode_quantised_bitmap(
    a: NDArray[np.float16], value_bits: int | str, *, element: Element | None = None
) -> QuantisedBitmap:
    """Bitmap encoding of a finite float16 matrix (m, k) with values of 8 or 4 bits for its non-zeros.

    Parameters
    ----------
    value_bits : 8 or 4 for integers, or the name of a `ValueType`.

    Raises
    ------
    ValueError
        If ``a`` is no float16 matrix or holds infinity or NaN, or there is no such type of values.
    """
    value_type = value_type_of(value_bits)
    codes, scales = quantise(a, value_type, element)
    bits = value_type.bits
    masks, packed, offsets = pack(codes, bits_of(as_matrix(a, Element.FLOAT16)), bits)
    packed = pack_codes(packed, bits)
    return QuantisedBitmap(codes.shape, masks, packed, offsets, scales, bits, value_type=value_type)


def quantise(
    a: NDArray[np.float16], value_type: ValueType, element: Element | None
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Codes (m, k) of a finite float16 matrix, 4-bit ones sign-extended, and their scales (m, ceil(k / 128))."""
    check(element in (None, Element.FLOAT16), "element", element, Element.FLOAT16)
    matrix = as_matrix(a, Element.FLOAT16)
    check(np.isfinite(matrix).all(), "a", "infinity or NaN", "finite numbers")
    m, k = matrix.shape
    groups = -(-k // SCALE_GROUP)
    padded = np.pad(matrix, ((0, 0), (0, groups * SCALE_GROUP - k))).astype(np.float32)
    grouped = padded.reshape(m, groups, SCALE_GROUP)
    scales = scales_of(np.abs(grouped).max(axis=2), value_type.largest)
    steps = np.maximum(scales.astype(np.float32), np.finfo(np.float32).tiny)[:, :, None]
    parts: NDArray[np.float32] = np.divide(grouped, steps, dtype=np.float32)
    return np.ascontiguousarray(codes_of(parts, value_type).reshape(m, -1)[:, :k]), scales


def dequantise(codes: NDArray[np.uint8], scales: NDArray[np.float16], value_type: ValueType) -> NDArray[np.float16]:
    """Weights (m, k) of their codes: value times scale, exact in float32, rounded once to float16."""
    by_column = np.repeat(scales, SCALE_GROUP, axis=1)[:, : codes.shape[1]]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # of buffers that nobody has validated
        return (value_table(value_type)[codes] * by_column.astype(np.float32)).astype(np.float16)


def scales_by_strip(scales: NDArray[np.float16], shape: tuple[int, int], value_type: ValueType) -> NDArray[np.float16]:
    """Scales of every strip that tiles of 128 rows have, (strips, 32), row of strips by row.

    Scale ``4 g + p`` belongs to row ``g + 8 p``: a lane of mma operands finds those of its four rows side by side. They
    are multiplied by ``2 ** value_type.half_exponent``, which a kernel need not do then.

    Raises
    ------
    ValueError
        If a scale is too large for that.
    """
    power = 2.0**value_type.half_exponent
    most = LARGEST_HALF / power
    largest = float(np.abs(scales).max())
    check(largest <= most, "largest scale", largest, f"at most {most:g} for {value_type}")
    rows, columns = record_grid(shape)
    padded = np.pad(scales, ((0, rows * STRIP_M - shape[0]), (0, 0))) * np.float16(power)
    by_lane = padded.reshape(rows, 4, 8, -1).transpose(0, 3, 2, 1).reshape(rows, -1, STRIP_M)  # (rows, groups, 4 g + p)
    return np.ascontiguousarray(by_lane[:, np.arange(columns) * STRIP_K // SCALE_GROUP].reshape(-1, STRIP_M))


def scales_of_strips(
    by_strip: NDArray[np.float16], shape: tuple[int, int], value_type: ValueType
) -> NDArray[np.float16]:
    """Inverse of `scales_by_strip`, (m, ceil(k / 128)): those of a group's first strip."""
    m, k = shape
    by_lane = by_strip.reshape(-1, -(-k // STRIP_K), 8, 4)
    firsts = by_lane[:, :: SCALE_GROUP // STRIP_K]  # (rows, groups, g, p)
    return firsts.transpose(0, 3, 2, 1).reshape(-1, firsts.shape[1])[:m] * np.float16(2.0**-value_type.half_exponent)


def scales_of(peaks: NDArray[np.float32], largest: float) -> NDArray[np.float16]:
    """Scales that bring the largest magnitudes of groups to ``largest``; none so large that it would overflow."""
    most = np.nextafter(np.float16(LARGEST_HALF / largest), np.float16(0))
    scales = np.minimum((peaks / largest).astype(np.float16), most)
    # A scale that rounds to zero would lose the group; the smallest float16 above zero keeps its largest weights.
    scales[(scales == 0) & (peaks > 0)] = np.finfo(np.float16).smallest_subnormal
    return scales


def codes_of(values: NDArray[np.float32], value_type: ValueType) -> NDArray[np.uint8]:
    """Codes of the nearest values that a type has, ties to even, up to its largest; 4-bit ones sign-extended."""
    clipped = np.clip(values, -value_type.largest, value_type.largest)
    if value_type in INTEGERS.values():
        return np.rint(clipped).astype(np.int8).view(np.uint8)
    mantissa_bits, least = (3, -6) if value_type is ValueType.E4M3 else (2, -14)
    exponents = np.frexp(clipped)[1] - 1
    quanta = np.ldexp(np.float32(1), np.maximum(exponents, least) - mantissa_bits)
    rounded = np.rint(clipped / quanta) * quanta + np.float32(0)  # no -0
    halves = np.ldexp(rounded, -value_type.half_exponent).astype(np.float16).view(np.uint16)
    shift = 7 if value_type is ValueType.E4M3 else 8
    return (halves >> np.uint16(8) & np.uint16(0x80) | halves >> np.uint16(shift) & np.uint16(0x7F)).astype(np.uint8)


def value_table(value_type: ValueType) -> NDArray[np.float32]:
    """Value of each of the 256 codes, 4-bit ones sign-extended; NaN or infinity where a float has none."""
    codes = np.arange(256, dtype=np.uint8)
    if value_type in INTEGERS.values():
        return codes.view(np.int8).astype(np.float32)
    if value_type is ValueType.E5M2:
        return (codes.astype(np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)
    wide = codes.astype(np.uint16)
    halves = (wide & np.uint16(0x80)) << np.uint16(8) | (wide & np.uint16(0x7F)) << np.uint16(7)
    table = np.ldexp(halves.view(np.float16).astype(np.float32), value_type.half_exponent)
    return np.where(wide & np.uint16(0x7F) == np.uint16(0x7F), np.float32(np.nan), table)


def pack_codes(codes: NDArray[np.uint8], value_bits: int) -> NDArray[np.uint8]:
    """Bytes that hold one code each (8 bits) or two (4 bits)."""
    return codes if value_bits == 8 else (codes[::2] & np.uint8(15)) | (codes[1::2] << np.uint8(4))


def unpack_codes(packed: NDArray[np.uint8], value_bits: int) -> NDArray[np.uint8]:
    """Codes, one per element, 4-bit ones sign-extended."""
    if value_bits == 8:
        return packed
    halves = np.stack((packed << np.uint8(4), packed), axis=-1).reshape(-1)
    return (halves.view(np.int8) >> np.int8(4)).view(np.uint8)
