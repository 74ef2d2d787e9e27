"""Random matrices that tests of every room multiply and encode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def random_matrix(m: int, k: int, density: float, seed: int = 0) -> NDArray[np.float16]:
    """Normal weights of which a share ``density`` is kept."""
    return random_problem(m, k, 0, density, seed)[0]


def random_problem(
    m: int, k: int, n: int, density: float, seed: int = 0
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Weights as of `random_matrix`, and n columns of normal activations."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((m, k)).astype(np.float16)
    a[rng.random((m, k)) >= density] = 0
    return a, rng.standard_normal((k, n)).astype(np.float16)


def random_bits(shape: tuple[int, ...], density: float, seed: int = 0, dtype: Any = np.uint16) -> NDArray[Any]:
    """Any bit patterns: NaNs with payload, infinities, subnormals, -0.0."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    bits[rng.random(shape) >= density] = 0
    return bits


def without_minus_zero(bits: NDArray[Any]) -> NDArray[Any]:
    """The bit patterns with -0.0 made +0.0, as the sparse formats store them."""
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return np.where(bits == sign, bits.dtype.type(0), bits)


class bfloat(np.void):  # noqa: N801
    """Scalar of 2 bytes whose dtype calls itself bfloat16, as that of ml_dtypes does."""


def ml_dtypes_array(bits: NDArray[np.uint16]) -> NDArray[Any]:
    """An array as of ``ml_dtypes.bfloat16``."""
    found = np.ascontiguousarray(bits).view(np.dtype((bfloat, 2)))
    assert found.dtype.name == "bfloat16"
    return found
