"""Bitmap weights in the order in which Tensor-Core lanes hold them: a bit per position, a packed value per non-zero.

How must a bitmap be laid out so that a warp decodes it straight into mma operands? The matrix is cut into *strips* of
32 rows x 64 columns, what one warp multiplies per step. A strip is 8 *chunks*, the 16 x 16 operands of ``mma.m16n8k16``
(4 steps along k, for each the upper and the lower 16 rows); in a chunk every lane owns 8 positions, its *slots*. So a
lane has 64 bits per strip, one byte a chunk, and the values follow in the order chunk, lane, slot: what a warp reads at
a time lies together, within few banks of shared memory.

Bytes: ``260 * strips + 2 * nnz_padded``, or 0.127 per position and 2 per non-zero; strips are padded to 16 bytes.
With 8-bit or 4-bit values (`quantised`) a non-zero takes 1 or half a byte, and each row has scales.

Or a bit stands for a *pair*, one operand register: two neighbouring columns of a row, both stored if either is not
zero. That takes half the masks, more values, and half the work of decoding, which pays where decoding is the bound.

-0.0 counts as zero. Positions beyond the matrix have no bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import (
    HALF_ELEMENTS,
    INT32_MAX,
    Element,
    EncodedWeight,
    as_matrix,
    bits_of,
    check,
    check_pointers,
    check_shape,
    check_vector,
    half_element_of,
    one_of,
    zeros,
)
from kernels_numba.formats.layout import CHUNKS, LANES, MAGNITUDE_16, STRIP_K, STRIP_M, UNIT_BYTES

SLOTS = 8
MASK_DTYPES = {1: np.uint64, 2: np.uint32}  # a lane's bits of a strip, by the positions that a bit stands for
Masks = NDArray[np.uint64] | NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Bitmap(EncodedWeight):
    """Bitmap and packed 16-bit values, in strips.

    shape : (m, k) of the true matrix; ``strip_grid`` covers it.
    masks : (strips, 32) uint64, or uint32 with a bit per pair; word l belongs to lane l, its byte (or nibble) c to
        chunk c, bit s of that to slot (or register) s. Strips are numbered row by row.
    values : (n_padded,) float16, or uint16 for bfloat16; each strip's stored positions by chunk, lane, slot, then
        zeros up to 16 bytes.
    offsets : (strips + 2,) int32; where each strip begins, in units of 16 bytes; one empty strip at the end, so that
        a kernel may always look one strip ahead.
    """

    shape: tuple[int, int]
    masks: Masks
    values: NDArray[Any]
    offsets: NDArray[np.int32]
    element: Element = Element.FLOAT16

    @property
    def strip_grid(self) -> tuple[int, int]:
        """Number of strips along m and k."""
        return strip_grid(self.shape)

    @property
    def width(self) -> int:
        """Positions that a bit stands for: 1, or 2 for pairs."""
        return _width(self.masks)

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding and zero partners not counted."""
        if self.width == 2:
            return int(np.count_nonzero(bits_of(self.values) & np.uint16(0x7FFF)))
        return int(np.bitwise_count(self.masks).sum())

    @property
    def most_values(self) -> int:
        """Values of the fullest strip, padding included: what a kernel must have room for."""
        return int(np.diff(self.offsets).max()) * (UNIT_BYTES // 2)

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k) in the element's storage dtype."""
        return expand(self.shape, self.masks, bits_of(self.values), self.offsets).view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        check(self.element in HALF_ELEMENTS, "element", self.element, "float16 or bfloat16")
        check_vector(self.values, "values", self.element.storage)
        known = isinstance(self.masks, np.ndarray) and self.masks.dtype in MASK_DTYPES.values()
        check_strips(self.shape, self.masks, self.offsets, self.values.size, 16, self.width if known else 1)
        if self.shape[1] % self.width:
            beyond = expand((self.shape[0], self.shape[1] + 1), self.masks, bits_of(self.values), self.offsets)[:, -1]
            check(not beyond.any(), "values", "a weight beyond the last column", "zero there")
        return self


def _width(masks: Masks) -> int:
    """Positions that a bit of ``masks`` stands for."""
    return 2 if masks.dtype == np.uint32 else 1


def strip_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Number of strips along m and k that cover a matrix."""
    return -(-shape[0] // STRIP_M), -(-shape[1] // STRIP_K)


def encode_bitmap(a: NDArray[Any], width: int = 1, *, element: Element | None = None) -> Bitmap:
    """Bitmap encoding of a float16 or bfloat16 matrix (m, k); every bit pattern is kept, but -0.0 becomes +0.0.

    Parameters
    ----------
    a : float16, or uint16 bit patterns if ``element`` is bfloat16.
    width : positions that a bit stands for: 1, or 2 for pairs of columns.

    Raises
    ------
    ValueError
        If ``a`` is no float16 or bfloat16 matrix with at least one element, or too large for 32-bit offsets, or
        ``width`` is neither 1 nor 2.
    """
    width = one_of(width, "width", *MASK_DTYPES)
    element = half_element_of(a, element)
    bits = bits_of(as_matrix(a, element))
    masks, values, offsets = pack(bits, bits, 16, width)
    return Bitmap(bits.shape, masks, values.view(element.storage), offsets, element)


def by_lane(rows: NDArray[Any], width: int = 1) -> NDArray[Any]:
    """Rows of a matrix, padded to whole strips, as (strips, chunks, lanes, slots); with pairs, a slot is a register.

    Slots are the halves of operand registers a0 ... a3: row g or g + 8, columns 2 t, 2 t + 1 or 8 further, of lane
    4 g + t (PTX ISA, matrix fragments of mma.m16n8k16).
    """
    n_rows, n_tiles = rows.shape[0] // STRIP_M, rows.shape[1] * width // STRIP_K
    # strip row, half, row + 8, g, strip column, step, column + 8, t, pair
    axes = rows.reshape(n_rows, 2, 2, 8, n_tiles, 4, 2, 4, 2 // width)
    return axes.transpose(0, 4, 5, 1, 3, 7, 6, 2, 8).reshape(n_rows * n_tiles, CHUNKS, LANES, SLOTS // width)


def _to_masks(flags: NDArray[np.bool_]) -> Masks:
    """(strips, lanes) words of flags (strips, chunks, lanes, slots)."""
    by_word = flags.transpose(0, 2, 1, 3).reshape(len(flags), LANES, -1)
    masks: Masks = np.packbits(by_word, axis=2, bitorder="little").view(MASK_DTYPES[64 // by_word.shape[2]])[..., 0]
    return masks


def pack(
    elements: NDArray[Any], kept: NDArray[np.uint16], bits: int, width: int = 1
) -> tuple[Masks, NDArray[Any], NDArray[np.int32]]:
    """Masks, stored elements and offsets of a matrix (m, k) of unsigned integers.

    Parameters
    ----------
    kept : (m, k) bit patterns of float16; what is not zero there is stored.
    bits : stored bits per element; decides how many fill a unit of 16 bytes.
    """
    from kernels_numba.formats.bitmap_njit import fill_masks, value_mover

    grid = strip_grid(elements.shape)
    per_unit = UNIT_BYTES * 8 // bits
    masks = np.empty((*grid, LANES), MASK_DTYPES[width])
    counts = np.empty(grid, np.int64)
    fill_masks(kept, MAGNITUDE_16, width, masks, counts)
    units = -(-counts // per_unit)
    ends = np.cumsum(units).reshape(grid)
    check(ends[-1, -1] <= INT32_MAX, "units of 16 bytes", int(ends[-1, -1]), f"at most {INT32_MAX}")
    values = np.zeros(int(ends[-1, -1]) * per_unit, elements.dtype)
    value_mover(True)(elements, MAGNITUDE_16, width, masks, (ends - units) * per_unit, values)
    offsets = np.concatenate(([0], ends.reshape(-1), ends[-1, -1:])).astype(np.int32)
    return masks.reshape(-1, LANES), values, offsets


def expand(shape: tuple[int, int], masks: Masks, elements: NDArray[Any], offsets: NDArray[np.int32]) -> NDArray[Any]:
    """Dense (m, k) of what `pack` made, for masks and offsets that `check_strips` let through."""
    from kernels_numba.formats.bitmap_njit import value_mover

    grid = strip_grid(shape)
    per_unit = elements.size // int(offsets[-1]) if offsets[-1] else 1
    out = zeros(shape, elements.dtype)
    begins = offsets[:-2].reshape(grid).astype(np.int64) * per_unit
    value_mover(False)(out, MAGNITUDE_16, _width(masks), masks.reshape(*grid, LANES), begins, elements)
    return out


def check_strips(shape: Any, masks: Any, offsets: Any, n_elements: int, bits: int, width: int = 1) -> None:
    """Refuse masks and offsets that do not describe ``n_elements`` stored elements of a matrix of this shape."""
    m, k = check_shape(shape)
    grid = strip_grid((m, k))
    strips = grid[0] * grid[1]
    kind = f"{getattr(masks, 'dtype', type(masks))} {getattr(masks, 'shape', None)}"
    wanted = f"{np.dtype(MASK_DTYPES[width])} {(strips, LANES)}"
    good = isinstance(masks, np.ndarray) and masks.flags.c_contiguous and kind == wanted
    check(good, "masks", kind, f"row-major {wanted}")
    check_vector(offsets, "offsets", np.int32, size=strips + 2)
    per_unit = UNIT_BYTES * 8 // bits
    check_pointers(offsets, "offsets", n_elements / per_unit)
    check(offsets[-1] == offsets[-2], "extra strip", "not empty", "an empty last strip")
    units = -(-width * np.bitwise_count(masks).sum(axis=1, dtype=np.int64) // per_unit)
    wrong = np.flatnonzero(units != np.diff(offsets[:-1]))
    check(wrong.size == 0, "offsets", f"strip {wrong[:1]} of another size than its mask", "ceil(bits set / unit)")
    check(not _bits_outside(m, k, grid, masks), "masks", "a bit beyond the matrix", "bits inside only")


def _bits_outside(m: int, k: int, grid: tuple[int, int], masks: Masks) -> bool:
    """Whether any mask of the last strip row or column marks a position beyond the matrix."""
    width = _width(masks)
    by_strip = masks.reshape(*grid, LANES)
    columns = np.arange(0, STRIP_K, width)
    rows = np.arange(STRIP_M)[:, None]
    below = np.broadcast_to(rows >= m - (grid[0] - 1) * STRIP_M, (STRIP_M, columns.size))
    right = np.broadcast_to(columns >= k - (grid[1] - 1) * STRIP_K, (STRIP_M, columns.size))
    last_row, last_column = (_to_masks(by_lane(flags, width))[0] for flags in (below, right))
    return bool((by_strip[-1] & last_row).any() or (by_strip[:, -1] & last_column).any())
