"""The obvious product, against which every kernel is judged: decode, widen to float64, multiply."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import as_stored, widened

# What rounding to a 16-bit type loses at most: of a number, and of one too small for all its bits.
HALF_UNITS = {np.dtype(np.float16): (2.0**-11, 2.0**-25), np.dtype(np.uint16): (2.0**-8, 2.0**-134)}


def exact(values: NDArray[Any]) -> NDArray[np.float64]:
    """Values of any float type as float64; uint16 is taken for bit patterns of bfloat16."""
    values = as_stored(values)
    if values.dtype == np.uint16:
        values = widened(values, Element.BFLOAT16)
    return values.astype(np.float64)


def spmm(weights: EncodedWeight, x: NDArray[Any]) -> NDArray[np.float64]:
    """``C = A @ X`` in float64.

    Parameters
    ----------
    weights : EncodedWeight
        A, shape (m, k).
    x : (k, n), any floating dtype, or uint16 bit patterns of bfloat16.

    Returns
    -------
    (m, n) float64.
    """
    return exact(weights.decode()) @ exact(x)


def check_product(actual: NDArray[Any], weights: EncodedWeight, x: NDArray[Any], what: str = "product") -> float:
    """Largest error of ``actual`` against float64, in units of what rounding allows.

    Products of 16-bit values are exact in fp32, so an error has two sources: additions in float32, which err by less
    than ``2**-24`` of the running sum each and almost cancel, and one rounding to the output's type. Allowed is
    ``16 * 2**-24 * (|A| @ |X|)``, which leaves room for Tensor Cores that truncate, plus half a unit in the last place.
    Products of bfloat16 may also fall below float32's smallest number, ``2**-149``: each of the k may lose that much.

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
    allowed = 2.0**-20 * (np.abs(exact(weights.decode())) @ np.abs(exact(x))) + weights.shape[1] * 2.0**-149
    if actual.dtype in HALF_UNITS:
        share, smallest = HALF_UNITS[actual.dtype]
        allowed += share * np.abs(expected) + smallest
    ratio = np.abs(exact(actual) - expected) / allowed
    ratio = np.where(np.isfinite(ratio), ratio, np.inf)
    worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    if ratio[worst] > 1:
        index = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: {int((ratio > 1).sum())} of {ratio.size} elements are wrong; worst at {index}: "
            f"got {actual[index]!r}, expected {expected[index]!r}, allowed error {allowed[index]:.3e}"
        )
    return float(ratio[worst])
