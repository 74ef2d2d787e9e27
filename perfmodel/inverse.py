"""Which sparsity, how many tokens, which memory make a kernel so much faster than dense? Roots on one product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_device
from perfmodel.catalog.arrays import number
from perfmodel.catalog.cpu import Device
from perfmodel.catalog.records import LARGEST_SIZE
from perfmodel.crossing import first_fraction
from perfmodel.formats import check_sparsity
from perfmodel.kernels import KERNELS, Call, KernelModel, Machine, Shape, baseline_of, kernel_model
from perfmodel.kernels.base import check_pattern
from perfmodel.kernels.call import FIRST_CALL
from perfmodel.kernels.fits import calibrated

Array = NDArray[np.float64]

BRACKETS = 201  # points among which a root is bracketed
MOST_TOKENS = 4096  # up to which N is looked for, as far as the models have evidence
BANDWIDTH_SCALES = (0.01, 100.0)  # of a GPU's own, between which a bandwidth is looked for


def value_where(
    function: Callable[[float], float], target: float, low: float, high: float, *, log: bool = False
) -> float | None:
    """Input in [low, high] at which ``function`` first reaches ``target``, or None if it does not.

    Parameters
    ----------
    function
        Continuous, or with steps: then the input just where it passes ``target``.
    log : bool
        Look on a logarithmic scale, for inputs over several powers of ten.

    Raises
    ------
    ValueError
        If the interval is empty, or not above 0 with ``log``.
    """
    from scipy.optimize import brentq

    target, low, high = (number(name, at) for name, at in (("target", target), ("low", low), ("high", high)))
    if not -np.inf < low < high < np.inf or (log and low <= 0):
        raise ValueError(f"the interval is {low:g} to {high:g}, allowed is low < high{', above 0' if log else ''}")
    points = np.geomspace(low, high, BRACKETS) if log else np.linspace(low, high, BRACKETS)
    excess = np.array([function(float(point)) - target for point in points])
    if excess[0] == 0:
        return float(low)
    crossed = np.flatnonzero(np.sign(excess[1:]) != np.sign(excess[0]))
    if not crossed.size:
        return None
    first = int(crossed[0])
    return float(brentq(lambda x: function(x) - target, points[first], points[first + 1], xtol=1e-9, rtol=1e-9))


def product_speedup(
    kernel: str, gpu: str | Device, *, m: int, k: int, n: float, sparsity: float, call: Call = FIRST_CALL
) -> float | None:
    """How many times as fast as dense ``kernel`` is on one product, padded as it asks; None if only a bound is known.

    Raises
    ------
    ValueError
        As `bandwidth_for_speedup`.
    """
    ask = _Question(kernel, gpu, 1.0, m, k, n, call)
    sparsity = number("sparsity", check_sparsity(sparsity))
    if np.isnan(ask.model.padded_n(ask.n)):
        return float(ask.known_gain(sparsity))  # says why not
    gain = float(ask.gain(ask.n, sparsity))
    return None if np.isnan(gain) else gain


def sparsity_for_speedup(
    kernel: str, gpu: str | Device, speedup: float, *, m: int, k: int, n: float, call: Call = FIRST_CALL
) -> float | None:
    """Sparsity at which ``kernel`` first is ``speedup`` times as fast as dense on one product, or None.

    0 where it is without any zeros, as one that keeps all weights is or never is.

    Raises
    ------
    ValueError
        If a name is unknown, the GPU cannot run the kernel, it takes no N that holds ``n`` tokens, only a bound of its
        time is known there, or it has a pattern, whose sparsity is given; names kernel and value.
    """
    ask = _Question(kernel, gpu, speedup, m, k, n, call)
    if ask.model.patterns:
        raise ValueError(f"{kernel} has the sparsity of its pattern, so that there is none to look for")
    found = float(first_fraction(lambda sparsity: ask.known_gain(sparsity) >= speedup))
    return None if np.isnan(found) else found


def tokens_for_speedup(
    kernel: str,
    gpu: str | Device,
    speedup: float,
    *,
    m: int,
    k: int,
    n: float,
    sparsity: float,
    call: Call = FIRST_CALL,
) -> tuple[int, int] | None:
    """First and last N between which ``kernel`` is ``speedup`` times as fast as dense at every N, padding included.

    The run of N that holds ``n``, or else the nearest to it; looked for up to `MOST_TOKENS`, or ``n`` if that is more.

    Returns
    -------
    tuple of int, or None
        None if there is no such N. An N that the kernel cannot hold, or for which only a bound of its time is known, is
        none.

    Raises
    ------
    ValueError
        As `sparsity_for_speedup`, but for N, and if the sparsity is none of the kernel's pattern.
    """
    ask = _Question(kernel, gpu, speedup, m, k, n, call)
    Shape.of(m, k, ask.n, sparsity)
    if ask.n > MOST_TOKENS:
        raise ValueError(f"n is {ask.n:g}, allowed is at most {MOST_TOKENS}")
    found = _run_around(ask.gain(np.arange(1.0, MOST_TOKENS + 1), sparsity) >= speedup, ask.n - 1)
    return None if found is None else (found[0] + 1, found[1] + 1)


def bandwidth_for_speedup(
    kernel: str,
    gpu: str | Device,
    speedup: float,
    *,
    m: int,
    k: int,
    n: float,
    sparsity: float,
    call: Call = FIRST_CALL,
) -> float | None:
    """DRAM bandwidth in bytes/s at which ``kernel`` is ``speedup`` times as fast as dense, the GPU else unchanged.

    Looked for between 1 % and 100 times the GPU's own, from below. None if no such bandwidth gives it.

    Raises
    ------
    ValueError
        As `sparsity_for_speedup`, and if the sparsity is none of the kernel's pattern.
    """
    ask = _Question(kernel, gpu, speedup, m, k, n, call)

    def gain(scale: float) -> float:
        return float(ask.known_gain(sparsity, scale))

    scale = value_where(gain, speedup, *BANDWIDTH_SCALES, log=True)
    return None if scale is None else scale * float(Machine.of(ask.card).dram_bytes_per_s)


def bandwidths_for_speedup(
    kernel: str,
    gpu: str | Device,
    speedup: float,
    *,
    m: int,
    k: int,
    n: float,
    sparsity: float,
    call: Call = FIRST_CALL,
) -> tuple[float, float] | None:
    """Lowest and highest DRAM bandwidth in bytes/s between which ``kernel`` is ``speedup`` times as fast as dense.

    The range that holds the GPU's own, or else the nearest to it; the GPU is else unchanged. `bandwidth_for_speedup` is
    where such a range begins or ends.

    Returns
    -------
    tuple of float, or None
        0 and infinity stand for ends beyond 1 % and 100 times the GPU's own. None if no bandwidth gives it.

    Raises
    ------
    ValueError
        As `bandwidth_for_speedup`.
    """
    ask = _Question(kernel, gpu, speedup, m, k, n, call)
    own = float(Machine.of(ask.card).dram_bytes_per_s)
    scales = np.geomspace(*BANDWIDTH_SCALES, BRACKETS)  # odd, so the middle one is 1
    found = _run_around(ask.known_gain(sparsity, scales) >= speedup, BRACKETS // 2)
    if found is None:
        return None

    def crossing(inside: int, outside: int) -> float:
        ends = sorted((float(scales[inside]), float(scales[outside])))
        at = value_where(lambda scale: float(ask.known_gain(sparsity, scale)), speedup, *ends, log=True)
        return own * (float(scales[inside]) if at is None else at)

    first, last = found
    low = 0.0 if first == 0 else crossing(first, first - 1)
    return low, np.inf if last == BRACKETS - 1 else crossing(last, last + 1)


@dataclass(frozen=True)
class _Question:
    """Where is ``kernel`` ``speedup`` times as fast as dense on ``m`` x ``k`` weights? Checked when made."""

    kernel: str
    gpu: str | Device
    speedup: float
    m: int
    k: int
    n: float
    call: Call

    def __post_init__(self) -> None:
        speedup = number("speedup", self.speedup)
        if not 0 < speedup < np.inf:
            raise ValueError(f"speedup must be a number above 0, got {speedup:g}")
        Shape.of(number("m", self.m), number("k", self.k), 1, 0.0)
        if (refusal := self.model.refusal(self.card)) is not None:
            raise ValueError(refusal)
        object.__setattr__(self, "n", number("n", self.n, 1, LARGEST_SIZE))

    @property
    def model(self) -> KernelModel:
        return kernel_model(self.kernel)

    @cached_property
    def card(self) -> Device:
        return load_device(self.gpu)

    def gain(self, n: ArrayLike, sparsity: ArrayLike, bandwidth_scale: ArrayLike = 1.0) -> Array:
        """Times as fast as dense; NaN where the kernel takes no such N, or only a bound of its time is known."""
        check_pattern(self.model, check_sparsity(sparsity))
        scale = np.asarray(bandwidth_scale, dtype=np.float64)
        real = Machine.of(self.card)
        machine = real.with_(dram_bytes_per_s=scale * real.dram_bytes_per_s)
        shape = Shape.of(self.m, self.k, n, sparsity)
        padded = self.model.padded_n(shape.n)
        own = replace(
            shape, n=np.where(np.isnan(padded), 1.0, padded), sparsity=self.model.own_sparsity(shape.sparsity)
        )
        baseline = baseline_of(self.card)
        dense = KERNELS[baseline].time(machine, shape, calibrated(baseline), self.call).time_s
        gain = dense / self.model.time(machine, own, calibrated(self.kernel), self.call).time_s
        known = np.where(np.isnan(padded) | self.model.at_least(own), np.nan, gain)
        return np.broadcast_to(known, np.broadcast(shape.n, shape.sparsity, scale).shape)

    def known_gain(self, sparsity: ArrayLike, bandwidth_scale: ArrayLike = 1.0) -> Array:
        """As `gain` for the N asked about, which must be known."""
        found = self.gain(self.n, sparsity, bandwidth_scale)
        if np.isnan(found).any():
            if np.isnan(self.model.padded_n(self.n)):
                raise ValueError(f"{self.kernel} takes N of {self.model.supported_n}, got {self.n:g}")
            raise ValueError(f"of {self.kernel} no more than a lower bound of the time is known at N = {self.n:g}")
        return found


def _run_around(holds: NDArray[np.bool_], at: float) -> tuple[int, int] | None:
    """First and last index of the run of true values that holds ``at``, or else the nearest to it; None if none is."""
    true = np.flatnonzero(holds)
    if not true.size:
        return None
    middle = int(true[np.abs(true - at).argmin()])
    false = np.flatnonzero(~holds)
    before, after = false[false < middle], false[false > middle]
    return int(before[-1]) + 1 if before.size else 0, int(after[0]) - 1 if after.size else len(holds) - 1
