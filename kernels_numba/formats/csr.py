"""Compressed sparse rows: a column index beside every non-zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import (
    Element,
    EncodedWeight,
    as_matrix,
    bits_of,
    check,
    check_pointers,
    check_shape,
    check_vector,
    element_of,
    one_of,
    pointers_of,
    zeros,
)


@dataclass(frozen=True, eq=False)
class Csr(EncodedWeight):
    """Compressed sparse rows.

    Bytes for float16: ``6 * nnz + 4 * (m + 1)`` with 32-bit columns, ``4 * nnz + 4 * (m + 1)`` with 16-bit ones
    (the width Sputnik's half-precision kernels use).

    row_ptr : (m + 1,) int32; where each row starts.
    col_idx : (nnz,) int32, or uint16 for k <= 65536; ascending within a row.
    values : (nnz,) in the element's storage dtype.
    """

    shape: tuple[int, int]
    row_ptr: NDArray[np.int32]
    col_idx: NDArray[Any]
    values: NDArray[Any]
    element: Element = Element.FLOAT16

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return self.values.size

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        from kernels_numba.formats.csr_njit import scatter_rows

        out = zeros(self.shape, self.element.bits)
        scatter_rows(self.row_ptr, self.col_idx, bits_of(self.values), out)
        return out.view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        m, k = check_shape(self.shape)
        check(self.element in tuple(Element), "element", self.element, "a member of Element")
        check_vector(self.row_ptr, "row_ptr", np.int32, size=m + 1)
        check_vector(self.values, "values", Element(self.element).storage)
        check_vector(self.col_idx, "col_idx", np.int32, np.uint16, size=self.values.size)
        check_pointers(self.row_ptr, "row_ptr", self.values.size)
        if self.values.size:
            low, high = int(self.col_idx.min()), int(self.col_idx.max())
            check(low >= 0 and high < k, "col_idx", f"{low} to {high}", f"0 to {k - 1}")
            falls = np.flatnonzero(self.col_idx[1:] <= self.col_idx[:-1]) + 1
            inside = falls[~np.isin(falls, self.row_ptr)]
            check(inside.size == 0, "col_idx", f"not ascending at {inside[:1]}", "ascending columns within a row")
        return self


def encode_csr(a: NDArray[Any], *, index_bits: int = 32, element: Element | None = None) -> Csr:
    """CSR encoding of a float16, float32 or bfloat16 matrix.

    Parameters
    ----------
    a : (m, k); uint16 bit patterns if ``element`` is bfloat16.
    index_bits : 32, or 16 for k <= 65536.

    Raises
    ------
    ValueError
        If dtype, shape or ``index_bits`` do not fit; the message names value and allowed range.
    """
    from kernels_numba.formats.csr_njit import count_row_nonzeros, fill_rows

    element = element_of(a, element)
    matrix = as_matrix(a, element)
    index_bits = one_of(index_bits, "index_bits", 16, 32)
    check(index_bits == 32 or matrix.shape[1] <= 65536, "k", matrix.shape[1], "at most 65536 for index_bits=16")
    bits = bits_of(matrix)
    row_ptr = pointers_of(count_row_nonzeros(bits, element.magnitude), "non-zeros")
    col_idx = np.empty(int(row_ptr[-1]), np.uint16 if index_bits == 16 else np.int32)
    values = np.empty(int(row_ptr[-1]), bits.dtype)
    fill_rows(bits, element.magnitude, row_ptr, col_idx, values)
    return Csr(matrix.shape, row_ptr, col_idx, values.view(element.storage), element)
