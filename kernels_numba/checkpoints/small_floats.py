"""What the codes of floats of 8 bits and less stand for: a table for each type, named as in safetensors.

References
----------
Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433 (E4M3, E5M2); OCP, "Microscaling Formats (MX)
Specification v1.0", 2023 (E2M1, E2M3, E3M2, E8M0); Noune et al., "8-bit Numerical Formats", arXiv 2206.02915 (FNUZ).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import check

# Exponent bits, mantissa bits, bias.
FIELDS = {
    "F4": (2, 1, 1), "F6_E2M3": (2, 3, 1), "F6_E3M2": (3, 2, 3), "F8_E4M3": (4, 3, 7), "F8_E5M2": (5, 2, 15),
    "F8_E4M3FNUZ": (4, 3, 8), "F8_E5M2FNUZ": (5, 2, 16),
}  # fmt: skip
POWERS = "F8_E8M0"
FLOAT8 = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")


@lru_cache
def values_of(dtype: str) -> NDArray[np.float32]:
    """Value of every code of ``dtype``, (2**bits,), exactly; ValueError for other types."""
    check(dtype in FIELDS or dtype == POWERS, "dtype", dtype, ", ".join([*FIELDS, POWERS]))
    if dtype == POWERS:
        return np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan)).astype(np.float32)
    exponent_bits, mantissa_bits, bias = FIELDS[dtype]
    codes = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    mantissa = codes & ((1 << mantissa_bits) - 1)
    exponent = codes >> mantissa_bits & ((1 << exponent_bits) - 1)
    normal = exponent > 0
    significand = np.where(normal, mantissa + (1 << mantissa_bits), mantissa)
    magnitude = np.ldexp(significand.astype(np.float32), np.where(normal, exponent, 1) - bias - mantissa_bits)
    signs = np.where(codes >> (exponent_bits + mantissa_bits), np.float32(-1), np.float32(1))
    return np.copysign(_special(dtype, magnitude), signs)


def _special(dtype: str, magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitudes with the codes for NaN and infinity put in."""
    half = len(magnitude) // 2
    if dtype.endswith("FNUZ"):
        magnitude[half] = np.nan  # the code of minus zero
    elif dtype == "F8_E4M3":
        magnitude[half - 1 :: half] = np.nan
    elif dtype == "F8_E5M2":
        for start in (0, half):
            magnitude[start + half - 4 : start + half] = [np.inf, np.nan, np.nan, np.nan]
    return magnitude
