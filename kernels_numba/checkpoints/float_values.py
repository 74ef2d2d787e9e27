"""Checkpoint values as NumPy floats: float16, bfloat16 and float32 in, float16 or float32 out, with what it costs.

bfloat16 comes as uint16 bit patterns. Widening to float32 is exact; narrowing to float16 rounds to nearest even.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import Element
from kernels_numba.formats.encoded import check, widened

ELEMENTS = {"F16": Element.FLOAT16, "BF16": Element.BFLOAT16, "F32": Element.FLOAT32}
DTYPES = {"float16": "F16", "float32": "F32"}  # what weights are imported as
DTYPE_NAMES = {element: name for name, element in ELEMENTS.items()}


@dataclass(frozen=True)
class Rounding:
    """What narrowing to float16 did to the values of a matrix.

    changed : values that are not what they were, the other two counts included.
    flushed : non-zeros that became zero (below 2**-25 in magnitude).
    overflowed : finite values that became infinite (above 65504).
    """

    changed: int = 0
    flushed: int = 0
    overflowed: int = 0

    def __add__(self, other: Rounding) -> Rounding:
        return Rounding(self.changed + other.changed, self.flushed + other.flushed, self.overflowed + other.overflowed)


def as_float32(values: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Values of safetensors type ``dtype`` as float32, exactly; ValueError for other types than F16, BF16, F32."""
    check(dtype in ELEMENTS, "dtype", dtype, ", ".join(ELEMENTS))
    return widened(values, ELEMENTS[dtype])


def as_float16(values: NDArray[Any], dtype: str) -> tuple[NDArray[np.float16], Rounding]:
    """Values of safetensors type ``dtype`` rounded to float16, and what that changed; errors as ``as_float32``."""
    if dtype == "F16":
        return values.astype(np.float16, copy=False), Rounding()
    wide = as_float32(values, dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = wide.astype(np.float16)
        changed = (narrow != wide) & ~np.isnan(wide)
    before, after = wide[changed], narrow[changed]
    overflowed = np.isinf(after) & np.isfinite(before)
    return narrow, Rounding(before.size, int((after == 0).sum()), int(overflowed.sum()))


def in_dtype(values: NDArray[np.float32], dtype: str, where: str) -> NDArray[Any]:
    """Values as a key of ``DTYPES``; ValueError that begins with ``where`` if a finite one overflows float16."""
    if dtype == "float32":
        return values
    narrow, rounding = as_float16(values, "F32")
    check(not rounding.overflowed, where, f"{rounding.overflowed} values overflow float16", "--dtype float32")
    return narrow
