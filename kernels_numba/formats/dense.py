"""Dense weights: every element stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import Element, EncodedWeight, as_matrix, bits_of, element_of, owned


@dataclass(frozen=True, eq=False, init=False)
class Dense(EncodedWeight):
    """Every weight stored, -0.0 included; a copy, unless the matrix may not be written.

    values : (m, k), float16, float32, or uint16 with ``element=Element.BFLOAT16``.
    """

    shape: tuple[int, int]
    values: NDArray[Any]
    element: Element

    def __init__(self, values: NDArray[Any], element: Element | None = None) -> None:
        self._hold(values, element)
        object.__setattr__(self, "values", owned(self.values))

    @classmethod
    def of_same_memory(cls, values: NDArray[Any], element: Element | None = None) -> Self:
        """The caller's own matrix as a weight, for as long as a product of it takes."""
        weights = cls.__new__(cls)
        weights._hold(values, element)
        return weights

    def _hold(self, values: NDArray[Any], element: Element | None) -> None:
        element = element_of(values, element)
        matrix = as_matrix(values, element)
        for name, value in (("shape", matrix.shape), ("values", matrix), ("element", element)):
            object.__setattr__(self, name, value)

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return int(np.count_nonzero(bits_of(self.values) & self.element.magnitude))

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k): a view of the values that may not be written."""
        view = self.values.view()
        view.flags.writeable = False
        return view

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        return self
