"""The obvious product, against which every kernel is judged: decode, widen to float64, multiply."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import Element, EncodedWeight


def widened(values: NDArray[Any], element: Element = Element.FLOAT16) -> NDArray[np.float64]:
    """Weights of any element type as float64; bfloat16 comes as uint16 bit patterns."""
    if element is Element.BFLOAT16:
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float64)


def spmm(weights: EncodedWeight, x: NDArray[Any]) -> NDArray[np.float64]:
    """``C = A @ X`` in float64.

    Parameters
    ----------
    weights : EncodedWeight
        A, shape (m, k).
    x : (k, n), any floating dtype.

    Returns
    -------
    (m, n) float64.
    """
    return widened(weights.decode(), getattr(weights, "element", Element.FLOAT16)) @ x.astype(np.float64)


def check_product(actual: NDArray[Any], weights: EncodedWeight, x: NDArray[Any], what: str = "product") -> float:
    """Largest error of ``actual`` against float64, in units of what rounding allows.

    fp16 products are exact in fp32, so an error has two sources: additions in float32, which err by less than
    ``2**-24`` of the running sum each and almost cancel, and one rounding to the output's dtype. Allowed is
    ``16 * 2**-24 * (|A| @ |X|)``, which leaves room for Tensor Cores that truncate, plus half a unit in the last place.

    Returns
    -------
    float
        0 (exact) to 1 (as bad as allowed).

    Raises
    ------
    AssertionError
        If an element errs by more or is not finite; names how many, the worst one's index and both values.
    """
    expected = spmm(weights, x)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    a = widened(weights.decode(), getattr(weights, "element", Element.FLOAT16))
    allowed = 2.0**-20 * (np.abs(a) @ np.abs(x.astype(np.float64))) + 1e-30
    if actual.dtype == np.float16:
        allowed += 2.0**-11 * np.abs(expected) + 2.0**-25
    ratio = np.abs(actual.astype(np.float64) - expected) / allowed
    ratio = np.where(np.isfinite(ratio), ratio, np.inf)
    worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    if ratio[worst] > 1:
        index = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: {int((ratio > 1).sum())} of {ratio.size} elements are wrong; worst at {index}: "
            f"got {actual[index]!r}, expected {expected[index]!r}, allowed error {allowed[index]:.3e}"
        )
    return float(ratio[worst])
