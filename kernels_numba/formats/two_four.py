"""SparTA's split: what fits the 2:4 pattern of the Sparse Tensor Cores, and a CSR residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.csr import Csr, encode_csr
from kernels_numba.formats.encoded import Element, EncodedWeight, as_matrix, bits_of, check, check_shape, element_of


@dataclass(frozen=True, eq=False)
class TwoFour(EncodedWeight):
    """SparTA's split of an unstructured matrix: a 2:4 part for the Sparse Tensor Cores, and a CSR residual.

    The first two non-zeros of each aligned group of 4 columns go to the 2:4 part, the third and fourth to the
    residual. Columns are padded to whole metadata words of 16. Bytes for float16: ``1.125 * m * k_padded`` plus CSR.

    values : (m, k_padded / 2); two kept values per group, explicit zeros where it has fewer.
    metadata : (m, k_padded / 16) uint16; per group two ascending 2-bit positions, lowest group in the lowest bits.
    residual : Csr of the same shape.

    References
    ----------
    Zheng et al., "SparTA", OSDI 2022; NVIDIA PTX ISA, section on ``mma.sp`` metadata.
    """

    shape: tuple[int, int]
    values: NDArray[Any]
    metadata: NDArray[np.uint16]
    residual: Csr
    element: Element = Element.FLOAT16

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return int(np.count_nonzero(bits_of(self.values) & self.element.magnitude)) + self.residual.nnz

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        from kernels_numba.formats.two_four_njit import scatter_two_four

        out = self.residual.decode().view(self.element.bits)
        scatter_two_four(bits_of(self.values), self.metadata, out)
        return out.view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        m, k = check_shape(self.shape)
        self.residual.validate()
        check(self.residual.shape == self.shape, "residual shape", self.residual.shape, f"{self.shape}")
        check(self.residual.element == self.element, "residual element", self.residual.element, self.element)
        words = -(-k // 16)
        for name, array, dtype, columns in (
            ("values", self.values, self.element.storage, 8 * words),
            ("metadata", self.metadata, np.dtype(np.uint16), words),
        ):
            given, allowed = f"{array.dtype} {array.shape}", f"{dtype} {(m, columns)}"
            check(given == allowed and array.flags.c_contiguous, name, given, f"row-major {allowed}")
        shifts = np.arange(0, 16, 4, dtype=np.uint16)
        pairs = (self.metadata[:, :, None] >> shifts) & np.uint16(15)  # (m, words, groups)
        check(bool(((pairs & 3) < (pairs >> 2)).all()), "metadata", "positions not ascending", "first < second")
        self._check_overlap(pairs)
        return self

    def _check_overlap(self, pairs: NDArray[np.uint16]) -> None:
        """Refuse kept non-zeros beyond column k, or where the residual stores a value too."""
        positions = np.stack((pairs & 3, pairs >> 2), axis=-1).reshape(self.shape[0], -1, 2)  # (m, groups, 2)
        columns = (4 * np.arange(positions.shape[1])[:, None] + positions).reshape(self.shape[0], -1)
        rows, slots = np.nonzero(bits_of(self.values) & self.element.magnitude)
        kept = columns[rows, slots]
        check(bool((kept < self.shape[1]).all()), "metadata", f"column {kept.max(initial=0)}", f"below {self.shape[1]}")
        spilled_rows = np.repeat(np.arange(self.shape[0]), np.diff(self.residual.row_ptr))
        taken = np.zeros(self.shape, np.bool_)
        taken[spilled_rows, self.residual.col_idx] = True
        check(not taken[rows, kept].any(), "residual", "a value the 2:4 part holds too", "disjoint parts")


def encode_two_four(a: NDArray[Any], *, index_bits: int = 32, element: Element | None = None) -> TwoFour:
    """SparTA-type split into a 2:4 part and a CSR residual; parameters and errors as for ``encode_csr``."""
    from kernels_numba.formats.two_four_njit import split_two_four

    element = element_of(a, element)
    bits = bits_of(as_matrix(a, element))
    metadata_words = -(-bits.shape[1] // 16)
    values = np.zeros((bits.shape[0], 8 * metadata_words), bits.dtype)
    metadata = np.zeros((bits.shape[0], metadata_words), np.uint16)
    residual = bits.copy()
    split_two_four(bits, element.magnitude, values, metadata, residual)
    spilled = encode_csr(residual.view(element.storage), index_bits=index_bits, element=element)
    return TwoFour(bits.shape, values.view(element.storage), metadata, spilled, element)
