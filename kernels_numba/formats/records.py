"""Strips as records: what a warp needs to decode 32 x 64 weights, side by side, as kernels stream it.

`Condensed` weights are stored so. A `Bitmap` is packed so for a launch, as a `TwoFour` is in tiles: the strip's masks,
then its values; a `QuantisedBitmap` has the scales of the strip's 32 rows between them, 64 bytes. Records are numbered
row of strips by row, and the rows of strips fill tiles of 128 rows: a thread block finds each of its 4 warps a strip,
which beyond the matrix is an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.bitmap import MASK_DTYPES, Bitmap
from kernels_numba.formats.encoded import INT32_MAX, Element, EncodedWeight, check, check_pointers, check_vector
from kernels_numba.formats.layout import LANES, STRIP_K, STRIP_M, UNIT_BYTES, record_grid
from kernels_numba.formats.quantised import QuantisedBitmap, ValueType, scales_by_strip, scales_of_strips, value_type_of

UNIT = UNIT_BYTES // 2  # entries of two bytes


def most_bytes(offsets: NDArray[np.int32]) -> int:
    """Bytes of the longest record: what a kernel must have room for."""
    return int(np.diff(offsets).max()) * UNIT_BYTES


def check_records(records: Any, offsets: Any, shape: tuple[int, int]) -> None:
    """Refuse records and offsets that are no vectors of their types, or whose offsets do not cut them for ``shape``."""
    rows, columns = record_grid(shape)
    check_vector(records, "records", np.uint16)
    check_vector(offsets, "offsets", np.int32, size=rows * columns + 2)
    check_pointers(offsets, "offsets", records.size / UNIT)
    check(offsets[-1] == offsets[-2], "extra strip", "not empty", "an empty last strip")


@dataclass(frozen=True, eq=False)
class BitmapRecords(EncodedWeight):
    """A `Bitmap` as records: 32 masks, then values, padded to 16 bytes.

    records : (entries,) uint16; offsets : (records + 2,) int32, where each begins in units of 16 bytes, with an empty
        one at the end; width : positions that a bit stands for.
    """

    shape: tuple[int, int]
    records: NDArray[np.uint16]
    offsets: NDArray[np.int32]
    width: int
    element: Element = Element.FLOAT16

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return unpack_bitmap(self).nnz

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        return unpack_bitmap(self).decode()

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        unpack_bitmap(self).validate()
        return self


def header_entries(width: int) -> int:
    """Entries of two bytes that a strip's masks take."""
    return LANES * np.dtype(MASK_DTYPES[width]).itemsize // 2


@dataclass(frozen=True, eq=False)
class QuantisedRecords(EncodedWeight):
    """A `QuantisedBitmap` as records: 32 masks, 32 scales, then codes, padded to 16 bytes.

    Scales stand in the order of `scales_by_strip`.

    records, offsets : as in `BitmapRecords`.
    """

    shape: tuple[int, int]
    records: NDArray[np.uint16]
    offsets: NDArray[np.int32]
    value_type: ValueType
    element: Element = Element.FLOAT16

    @property
    def nnz(self) -> int:
        """Stored positions; padding not counted."""
        return unpack_quantised(self).nnz

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        return unpack_quantised(self).decode()

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        again = pack_quantised(unpack_quantised(self).validate())
        same = np.array_equal(again.records, self.records)
        check(same, "scales", "two for a row and group of columns", "the same in both of a group's strips")
        return self


def pack_bitmap(weights: Bitmap) -> BitmapRecords:
    """Records of a bitmap.

    Raises
    ------
    ValueError
        If they are too large for 32-bit offsets.
    """
    headers, values = weights.masks.view(np.uint16), weights.values.view(np.uint16)
    records, offsets = _pack(weights.shape, headers, values, weights.offsets)
    return BitmapRecords(weights.shape, records, offsets, weights.width, weights.element)


def unpack_bitmap(packed: BitmapRecords) -> Bitmap:
    """Inverse of `pack_bitmap`."""
    masks, values, offsets = _unpack(packed, header_entries(packed.width))
    halves = values.view(packed.element.storage)
    return Bitmap(packed.shape, masks.view(MASK_DTYPES[packed.width]), halves, offsets, packed.element)


def pack_quantised(weights: QuantisedBitmap) -> QuantisedRecords:
    """Records of a quantised bitmap.

    Raises
    ------
    ValueError
        If they are too large for 32-bit offsets, or a scale is too large to be stored with its power of two.
    """
    value_type = value_type_of(weights.value_type)
    strips = weights.masks.shape[0]
    scales = scales_by_strip(weights.scales, weights.shape, value_type)[:strips]
    headers = np.concatenate((weights.masks.view(np.uint16), scales.view(np.uint16)), axis=1)
    records, offsets = _pack(weights.shape, headers, weights.codes.view(np.uint16), weights.offsets)
    return QuantisedRecords(weights.shape, records, offsets, value_type, weights.element)


def unpack_quantised(packed: QuantisedRecords) -> QuantisedBitmap:
    """Inverse of `pack_quantised`; the scales of a group's first strip are taken."""
    n_masks, value_type = header_entries(1), packed.value_type
    headers, codes, offsets = _unpack(packed, quantised_header_entries())
    masks = np.ascontiguousarray(headers[:, :n_masks]).view(np.uint64)
    by_strip = np.ascontiguousarray(headers[:, n_masks:]).view(np.float16)
    scales = scales_of_strips(by_strip, packed.shape, value_type)
    return QuantisedBitmap(
        packed.shape, masks, codes.view(np.uint8), offsets, scales, value_type.bits, packed.element, value_type
    )


def quantised_header_entries() -> int:
    """Entries of two bytes that a strip's masks and scales take."""
    return header_entries(1) + STRIP_M


def _pack(shape: tuple[int, int], headers: Any, values: Any, begins: Any) -> tuple[Any, NDArray[np.int32]]:
    """Records and their offsets of headers (strips, entries) and values, which ``begins`` cuts in units of 16 bytes."""
    from kernels_numba.formats.bitmap_njit import strip_copier

    rows, columns = record_grid(shape)
    strips, header = headers.shape
    units = np.full(rows * columns, header // UNIT, np.int64)
    units[:strips] += np.diff(begins[:-1])
    ends = np.cumsum(units)
    check(ends[-1] <= INT32_MAX, "units of 16 bytes", int(ends[-1]), f"at most {INT32_MAX}")
    offsets = np.concatenate(([0], ends, ends[-1:])).astype(np.int32)
    records = np.zeros(int(ends[-1]) * UNIT, np.uint16)
    strip_copier(True)(records, offsets, headers, values, begins)
    return records, offsets


def _unpack(packed: BitmapRecords | QuantisedRecords, header: int) -> tuple[Any, Any, NDArray[np.int32]]:
    """Inverse of `_pack` for headers of so many entries."""
    from kernels_numba.formats.bitmap_njit import strip_copier

    m, k = packed.shape
    strips = -(-m // STRIP_M) * -(-k // STRIP_K)
    units = np.diff(packed.offsets[: strips + 1].astype(np.int64)) - header // UNIT
    begins = np.concatenate(([0], np.cumsum(units), [units.sum()])).astype(np.int32)
    headers = np.empty((strips, header), np.uint16)
    values = np.empty(int(begins[-1]) * UNIT, np.uint16)
    strip_copier(False)(packed.records, packed.offsets, headers, values, begins)
    return headers, values, begins
