"""Where on the way from 0 to 1 does something begin to hold? Asked of whole grids, since models are vectorised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = np.linspace(0.0, 1.0, 201)
PASSES = 4  # each cuts the interval to 1/200: 6e-10 after the last


def first_fraction(holds: Callable[[Array], NDArray[np.bool_]], shape: tuple[int, ...] = ()) -> Array:
    """Lowest fraction from which a condition holds; the first one if it comes and goes over more than 1/200.

    Parameters
    ----------
    holds
        Takes fractions of shape ``(*shape, points)`` and says for each whether the condition holds.
    shape
        Cases looked at together, each with a fraction of its own.

    Returns
    -------
    ndarray
        Of ``shape``: 0 where the condition holds from the start, NaN where it never does. Exact to 1e-9.

    Examples
    --------
    >>> float(first_fraction(lambda s: s**2 >= 0.25).round(8))
    0.5
    """
    low, span = np.zeros(shape), 1.0
    at_once: NDArray[np.bool_]
    never: NDArray[np.bool_]
    for turn in range(PASSES):
        # The last point of a later grid may miss the point it repeats by a rounding.
        held = np.asarray(holds(np.minimum(low[..., None] + span * STEPS, 1.0)))
        if turn == 0:
            at_once, never = np.asarray(held[..., 0]), np.asarray(~held.any(axis=-1))
        first = np.where(held.any(axis=-1), held.argmax(axis=-1), STEPS.size - 1)
        span /= STEPS.size - 1
        low = low + span * np.maximum(first - 1, 0)
    return np.where(never, np.nan, np.where(at_once, 0.0, low + span))


def crossing(at: Array, ratio: Array) -> float:
    """Where a sampled ``ratio`` falls below 1 for good, between its neighbours; NaN if it never crosses in the range.

    Parameters
    ----------
    at, ratio
        Of one length, ``at`` rising.

    Examples
    --------
    >>> crossing(np.array([0.4, 0.5, 0.6]), np.array([1.2, 1.1, 0.9]))
    0.55
    """
    above = np.flatnonzero(ratio >= 1)
    if above.size == 0 or above[-1] == len(ratio) - 1:
        return float("nan")
    i = above[-1]
    part = (ratio[i] - 1) / (ratio[i] - ratio[i + 1])
    return round(float(at[i] + part * (at[i + 1] - at[i])), 12)
