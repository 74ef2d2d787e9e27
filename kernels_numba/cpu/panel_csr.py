"""PanelCsr: CSR cut into cache-sized pieces, the format in which our CPU kernel multiplies unstructured weights.

A block of 128 rows meets x one panel of 256 rows at a time, so that the panel stays in the first-level cache while
all rows use it, and a column number within a panel fits one byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import (
    as_matrix,
    bits_of,
    check,
    check_pointers,
    check_shape,
    check_vector,
    element_of,
    pointers_of,
    zeros,
)
from kernels_numba.jit import parallel

BLOCK_ROWS = 128
PANEL_K = 256


@dataclass(frozen=True, eq=False)
class PanelCsr(EncodedWeight):
    """Segments of at most 256 columns, ordered by block of 128 rows, then panel, then row.

    Bytes for float16: ``3 * nnz + 4 * (segments + 1)``; half of 32-bit CSR.

    segment_ptr : (segments + 1,) int32, ``segments = 128 * blocks * panels``; where each segment starts. Rows beyond
        m have empty segments.
    col_idx : (nnz,) uint8; column within the panel, ascending within a segment.
    values : (nnz,) in the element's storage dtype.
    """

    shape: tuple[int, int]
    segment_ptr: NDArray[np.int32]
    col_idx: NDArray[np.uint8]
    values: NDArray[Any]
    element: Element = Element.FLOAT16

    @property
    def panels(self) -> int:
        """Number of panels of columns."""
        return -(-self.shape[1] // PANEL_K)

    @property
    def nnz(self) -> int:
        """Stored non-zeros."""
        return self.values.size

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        out = zeros(self.shape, self.element.bits)
        _scatter_segments(self.segment_ptr, self.col_idx, bits_of(self.values), out)
        return out.view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        m, k = check_shape(self.shape)
        check(self.element in tuple(Element), "element", self.element, "a member of Element")
        blocks = -(-m // BLOCK_ROWS)
        check_vector(self.segment_ptr, "segment_ptr", np.int32, size=BLOCK_ROWS * blocks * self.panels + 1)
        check_vector(self.values, "values", Element(self.element).storage)
        check_vector(self.col_idx, "col_idx", np.uint8, size=self.values.size)
        check_pointers(self.segment_ptr, "segment_ptr", self.values.size)
        faults = _check_segments(self.segment_ptr, self.col_idx, m, k)
        if faults.any():
            raise ValueError(
                f"col_idx: segment {int(np.argmax(faults))} lies outside the matrix or does not ascend; allowed: "
                f"ascending columns within {m} x {k}"
            )
        return self


def encode_panel_csr(a: NDArray[Any], *, element: Element | None = None) -> PanelCsr:
    """PanelCsr encoding of a float16, float32 or bfloat16 matrix.

    Parameters
    ----------
    a : (m, k); uint16 bit patterns if ``element`` is bfloat16. -0.0 is dropped.

    Raises
    ------
    ValueError
        If dtype or shape do not fit; the message names value and allowed range.
    """
    element = element_of(a, element)
    bits = bits_of(as_matrix(a, element))
    counts = np.zeros((-(-bits.shape[0] // BLOCK_ROWS), -(-bits.shape[1] // PANEL_K), BLOCK_ROWS), np.int64)
    _count_segments(bits, element.magnitude, counts)
    segment_ptr = pointers_of(counts.reshape(-1), "non-zeros")
    col_idx = np.empty(int(segment_ptr[-1]), np.uint8)
    values = np.empty(int(segment_ptr[-1]), bits.dtype)
    _fill_segments(bits, element.magnitude, segment_ptr, col_idx, values)
    return PanelCsr(bits.shape, segment_ptr, col_idx, values.view(element.storage), element)


@parallel
def _count_segments(bits: Any, magnitude: Any, counts: Any) -> None:
    m, k = bits.shape
    for block in prange(counts.shape[0]):
        for i in range(block * BLOCK_ROWS, min(m, (block + 1) * BLOCK_ROWS)):
            for panel in range(counts.shape[1]):
                count = 0
                for j in range(panel * PANEL_K, min(k, (panel + 1) * PANEL_K)):
                    count += (bits[i, j] & magnitude) != 0
                counts[block, panel, i - block * BLOCK_ROWS] = count


@parallel
def _fill_segments(bits: Any, magnitude: Any, segment_ptr: Any, col_idx: Any, values: Any) -> None:
    m, k = bits.shape
    panels = -(-k // PANEL_K)
    for block in prange(-(-m // BLOCK_ROWS)):
        for i in range(block * BLOCK_ROWS, min(m, (block + 1) * BLOCK_ROWS)):
            for panel in range(panels):
                at = np.int64(segment_ptr[(block * panels + panel) * BLOCK_ROWS + i - block * BLOCK_ROWS])
                for j in range(panel * PANEL_K, min(k, (panel + 1) * PANEL_K)):
                    if bits[i, j] & magnitude:
                        col_idx[at] = j - panel * PANEL_K
                        values[at] = bits[i, j]
                        at += 1


@parallel
def _scatter_segments(segment_ptr: Any, col_idx: Any, values: Any, out: Any) -> None:
    m, k = out.shape
    panels = -(-k // PANEL_K)
    for block in prange(-(-m // BLOCK_ROWS)):
        for i in range(block * BLOCK_ROWS, min(m, (block + 1) * BLOCK_ROWS)):
            for panel in range(panels):
                segment = (block * panels + panel) * BLOCK_ROWS + i - block * BLOCK_ROWS
                for at in range(segment_ptr[segment], segment_ptr[segment + 1]):
                    out[i, panel * PANEL_K + col_idx[at]] = values[at]


@parallel
def _check_segments(segment_ptr: Any, col_idx: Any, m: int, k: int) -> NDArray[np.bool_]:
    """Flag segments with a row or column outside (m, k), or columns that do not ascend."""
    panels = -(-k // PANEL_K)
    faults = np.zeros(segment_ptr.size - 1, np.bool_)
    for segment in prange(faults.size):
        row = segment // (panels * BLOCK_ROWS) * BLOCK_ROWS + segment % BLOCK_ROWS
        limit = k - segment // BLOCK_ROWS % panels * PANEL_K if row < m else 0
        previous = np.int64(-1)
        for at in range(segment_ptr[segment], segment_ptr[segment + 1]):
            column = np.int64(col_idx[at])
            faults[segment] = faults[segment] or column >= limit or column <= previous
            previous = column
    return faults
