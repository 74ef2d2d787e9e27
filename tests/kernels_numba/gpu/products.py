"""One product of a compiled kernel on the emulator, judged in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import EncodedWeight
from kernels_numba.gpu.emulate import emulate
from kernels_numba.reference import check_product
from tests.kernels_numba.problems import random_problem


def check(
    encode: Callable[[NDArray[np.float16]], EncodedWeight], m: int, k: int, n: int, density: float, **options: Any
) -> list[Any]:
    """Raise unless the product is right; results of the launches."""
    a, x = random_problem(m, k, n, density)
    weights = encode(a)
    out, results = emulate(weights, x, **options)
    assert out.shape == (m, n)
    check_product(out, weights, x, f"{type(weights).__name__} {m} x {k} x {n} at density {density}")
    return results
