"""Bank conflicts of a random scatter: how many wavefronts one store of a warp takes, exactly."""

from __future__ import annotations

from functools import cache
from math import factorial

import numpy as np

BANKS = 32


@cache
def expected_wavefronts(lanes: int, banks: int = BANKS) -> float:
    """Mean of the fullest bank when ``lanes`` stores fall on ``banks`` banks at random.

    Assumes distinct words: two half-words of one 32-bit word would share a wavefront, but a tile of 128 x 64 has 4,096
    words, so that happens to one pair in 4,096.

    Raises
    ------
    ValueError
        If there are no lanes or no banks; names the value.

    Notes
    -----
    With ``p(x) = sum_{j <= c} x**j / j!``, the chance that no bank gets more than c is
    ``lanes! / banks**lanes`` times the coefficient of ``x**lanes`` in ``p(x)**banks``; the mean is the sum over c of
    the chance of the contrary.

    Examples
    --------
    >>> expected_wavefronts(1)
    1.0
    >>> expected_wavefronts(2, 2)
    1.5
    >>> round(expected_wavefronts(32), 2)
    3.53
    """
    if lanes < 1 or banks < 1:
        raise ValueError(f"lanes is {lanes} and banks is {banks}, allowed is at least 1")
    return float(sum(1 - _chance_at_most(most, lanes, banks) for most in range(lanes)))


def _chance_at_most(most: int, lanes: int, banks: int) -> float:
    terms = np.array([1 / factorial(j) for j in range(most + 1)])
    power = np.ones(1)
    for _ in range(banks):
        power = np.convolve(power, terms)[: lanes + 1]
    coefficient = float(power[lanes]) if len(power) > lanes else 0.0
    return coefficient * factorial(lanes) / float(banks) ** lanes
