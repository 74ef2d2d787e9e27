"""CpuBitmap: a bit for each weight and 16-bit values of the non-zeros, in the order in which a CPU core reads them.

The format of our fastest CPU kernel from half of the weights zero up to about nine in ten. A core reads masks and
values each from front to back and nothing else, so that it reads at the rate of memory; a bit of a mask costs no
branch, and an eighth of the bytes of a column number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.cpu.lanes import COLUMNS, OVERREAD
from kernels_numba.cpu.tiles import TILE
from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import (
    HALF_ELEMENTS,
    as_matrix,
    bits_of,
    check,
    check_pointers,
    check_shape,
    check_vector,
    half_element_of,
)


@dataclass(frozen=True, eq=False)
class CpuBitmap(EncodedWeight):
    """Chunks of 4 rows x 32 columns, by block of 32 rows, then panel of 512 columns, then group of 4 rows.

    Bytes: ``m k / 8 + 2 nnz + 8 (blocks + 1)``, with m padded to 16 and k to 32, and 64 at the end.

    masks : (chunks * 4,) uint32; one for each row of a chunk, its lowest bit the chunk's first column.
    values : (nnz + OVERREAD,) in the element's storage dtype, in the order of the masks and their bits.
    offsets : (blocks + 1,) int64; the first value of each block.
    """

    shape: tuple[int, int]
    masks: NDArray[np.uint32]
    values: NDArray[Any]
    offsets: NDArray[np.int64]
    element: Element = Element.FLOAT16

    @property
    def chunks(self) -> int:
        """Chunks side by side."""
        return -(-self.shape[1] // COLUMNS)

    @property
    def nnz(self) -> int:
        """Stored non-zeros."""
        return int(self.offsets[-1])

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        from kernels_numba.cpu import bitmap_njit

        m, k = self.shape
        out = np.zeros((-(-m // TILE) * TILE, self.chunks * COLUMNS), self.element.bits)
        bitmap_njit.value_mover(False)(self.masks, self.offsets, bits_of(self.values), out)
        return np.ascontiguousarray(out[:m, :k]).view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        from kernels_numba.cpu import bitmap_njit

        m, k = check_shape(self.shape)
        check(self.element in HALF_ELEMENTS, "element", self.element, "float16 or bfloat16")
        rows, blocks = -(-m // TILE) * TILE, -(-m // bitmap_njit.BLOCK_ROWS)
        check_vector(self.masks, "masks", np.uint32, size=rows * self.chunks)
        check_vector(self.values, "values", Element(self.element).storage)
        check_vector(self.offsets, "offsets", np.int64, size=blocks + 1)
        check_pointers(self.offsets, "offsets", self.values.size - OVERREAD)
        counts = np.zeros(blocks, np.int64)
        bitmap_njit.block_counts(self.masks, self.chunks, counts)
        wrong = np.flatnonzero(np.diff(self.offsets) != counts)
        check(wrong.size == 0, "masks", f"other bits than values in block {wrong[:1]}", "a bit for each value")
        outside = self._beyond(k)
        check(not outside, "masks", f"{outside} bits beyond column {k}", "none")
        return self

    def _beyond(self, k: int) -> int:
        """Bits that stand for columns or rows outside the matrix."""
        from kernels_numba.cpu import bitmap_njit

        out = np.zeros((-(-self.shape[0] // TILE) * TILE, self.chunks * COLUMNS), np.uint8)
        bitmap_njit.value_mover(False)(self.masks, self.offsets, np.ones(self.values.size, np.uint8), out)
        return int(out[:, k:].sum() + out[self.shape[0] :].sum())


def encode_cpu_bitmap(a: NDArray[Any], *, element: Element | None = None) -> CpuBitmap:
    """CpuBitmap of a float16 or bfloat16 matrix.

    Parameters
    ----------
    a : (m, k); uint16 bit patterns if ``element`` is bfloat16. -0.0 is dropped.

    Raises
    ------
    ValueError
        If dtype or shape do not fit; the message names value and allowed range.
    """
    from kernels_numba.cpu import bitmap_njit

    element = half_element_of(a, element)
    bits = bits_of(as_matrix(a, element))
    m, k = bits.shape
    masks = np.zeros(-(-m // TILE) * TILE * -(-k // COLUMNS), np.uint32)
    counts = np.zeros(-(-m // bitmap_njit.BLOCK_ROWS), np.int64)
    bitmap_njit.fill_masks(bits, element.magnitude, masks, counts)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    values = np.zeros(int(offsets[-1]) + OVERREAD, bits.dtype)
    bitmap_njit.value_mover(True)(masks, offsets, values, bits)
    return CpuBitmap((m, k), masks, values.view(element.storage), offsets, element)
