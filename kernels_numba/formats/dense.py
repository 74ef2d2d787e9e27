"""Dense weights: every element stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import Element, EncodedWeight, as_matrix, bits_of, element_of


@dataclass(frozen=True, eq=False, init=False)
class Dense(EncodedWeight):
    """Every weight stored, -0.0 included.

    values : (m, k), float16, float32, or uint16 with ``element=Element.BFLOAT16``.
    """

    shape: tuple[int, int]
    values: NDArray[Any]
    element: Element

    def __init__(self, values: NDArray[Any], element: Element | None = None) -> None:
        element = element_of(values, element)
        matrix = as_matrix(values, element)
        for name, value in (("shape", matrix.shape), ("values", matrix), ("element", element)):
            object.__setattr__(self, name, value)

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return int(np.count_nonzero(bits_of(self.values) & self.element.magnitude))

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        return self.values

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        return self
