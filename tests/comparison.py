"""The one way tests compare arrays: raises with the index and both values of the worst element."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def assert_close(actual: ArrayLike, expected: ArrayLike, *, relative: float, absolute: float = 0.0) -> None:
    """Raise AssertionError unless ``|actual - expected| <= absolute + relative * |expected|`` everywhere."""
    a, e = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert a.shape == e.shape, f"shape {a.shape}, expected {e.shape}"
    excess = np.abs(a - e) - (absolute + relative * np.abs(e))
    excess = np.where(np.isnan(a) | np.isnan(e), np.inf, excess)
    if excess.size and excess.max() > 0:
        worst = np.unravel_index(int(excess.argmax()), excess.shape)
        where = tuple(int(i) for i in worst)
        raise AssertionError(f"at {where}: {a[worst]!r}, expected {e[worst]!r} within {relative:g} relative")
