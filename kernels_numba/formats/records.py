"""Strips as records: what a warp needs to decode 32 x 64 weights, side by side, as kernels stream it.

`Condensed` weights are stored so. A `Bitmap` is packed so for a launch, as a `TwoFour` is in tiles: the strip's masks,
then its values. Records are numbered row of strips by row, and the rows of strips fill tiles of 128 rows: a thread
block finds each of its 4 warps a strip, which beyond the matrix is an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.bitmap import MASK_DTYPES, Bitmap
from kernels_numba.formats.encoded import INT32_MAX, Element, EncodedWeight, check
from kernels_numba.formats.layout import LANES, STRIP_K, STRIP_M, TILE_M, UNIT_BYTES

UNIT = UNIT_BYTES // 2  # entries of two bytes


def record_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Number of records along m and k that cover a matrix with whole tiles of 128 rows."""
    return -(-shape[0] // TILE_M) * (TILE_M // STRIP_M), -(-shape[1] // STRIP_K)


def most_bytes(offsets: NDArray[np.int32]) -> int:
    """Bytes of the longest record: what a kernel must have room for."""
    return int(np.diff(offsets).max()) * UNIT_BYTES


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


def pack_bitmap(weights: Bitmap) -> BitmapRecords:
    """Records of a bitmap.

    Raises
    ------
    ValueError
        If they are too large for 32-bit offsets.
    """
    from kernels_numba.formats.bitmap_njit import copy_strips

    rows, columns = record_grid(weights.shape)
    header, strips = header_entries(weights.width), len(weights.masks)
    units = np.full(rows * columns, header // UNIT, np.int64)
    units[:strips] += np.diff(weights.offsets[:-1])
    ends = np.cumsum(units)
    check(ends[-1] <= INT32_MAX, "units of 16 bytes", int(ends[-1]), f"at most {INT32_MAX}")
    offsets = np.concatenate(([0], ends, ends[-1:])).astype(np.int32)
    records = np.zeros(int(ends[-1]) * UNIT, np.uint16)
    masks, values = weights.masks.view(np.uint16), weights.values.view(np.uint16)
    copy_strips(records, offsets, masks, values, weights.offsets, True)
    return BitmapRecords(weights.shape, records, offsets, weights.width, weights.element)


def unpack_bitmap(packed: BitmapRecords) -> Bitmap:
    """Inverse of `pack_bitmap`."""
    from kernels_numba.formats.bitmap_njit import copy_strips

    (m, k), header = packed.shape, header_entries(packed.width)
    strips = -(-m // STRIP_M) * -(-k // STRIP_K)
    units = np.diff(packed.offsets[: strips + 1].astype(np.int64)) - header // UNIT
    offsets = np.concatenate(([0], np.cumsum(units), [units.sum()])).astype(np.int32)
    masks = np.empty((strips, header), np.uint16)
    values = np.empty(int(offsets[-1]) * UNIT, np.uint16)
    copy_strips(packed.records, packed.offsets, masks, values, offsets, False)
    halves = values.view(packed.element.storage)
    return Bitmap(packed.shape, masks.view(MASK_DTYPES[packed.width]), halves, offsets, packed.element)
