"""Answers about single products: how long a kernel takes, how many times as fast as another, from where to where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.load import load_gpu
from perfmodel.catalog.specs import Activations
from perfmodel.crossing import crossing
from perfmodel.kernels import Call, Machine, Shape, kernel_model
from perfmodel.kernels.fits import calibrated, interval, kernel_fits
from perfmodel.papers.asked import Answer, Asked, Times, UnansweredError, over
from perfmodel.prediction import check_product
from perfmodel.units import MICRO

Array = NDArray[np.float64]

SPARSITIES = np.linspace(0.0, 0.99, 100)
TOKENS = np.unique(np.geomspace(1, 4096, 97).round())


def kernel_time(asked: Asked) -> Answer:
    """Microseconds of a product."""
    return asked.answer(*(seconds / MICRO for seconds in _times(asked, "kernel", *asked.grid())))


def kernel_speedup(asked: Asked) -> Answer:
    """Time of the baseline over that of the kernel."""
    return asked.answer(*_speedup(asked, *asked.grid()))


def layer_time(asked: Asked) -> Answer:
    """Microseconds of several products one after the other, those that ``m`` and ``k`` list."""
    return Answer(*(float(seconds) / MICRO for seconds in _summed(_times(asked, "kernel", *asked.grid()))))


def layer_speedup(asked: Asked) -> Answer:
    """Time of the baseline over that of the kernel, for several products one after the other."""
    own, other = (_summed(_times(asked, side, *asked.grid())) for side in ("kernel", "baseline"))
    return Answer(*map(float, over(own, other)))


def _summed(times: Times) -> Times:
    value, low, high = (np.asarray(part.sum()) for part in times)
    return value, low, high


def break_even_sparsity(asked: Asked) -> Answer:
    """Fraction of zeros from which the kernel is faster than the baseline for good."""

    def from_where(m: float, k: float, n: float, _: float) -> tuple[float, ...]:
        gains = _speedup(asked, *(np.full(SPARSITIES.shape, x) for x in (m, k, n)), SPARSITIES)
        value, late, early = (_from_where(gain) for gain in gains)
        return value, early, late

    return _each(asked, asked.grid(by_sparsity=False), from_where)


def break_even_tokens(asked: Asked) -> Answer:
    """Most tokens at which the kernel is still the faster one."""
    tokens = TOKENS[np.asarray(kernel_model(asked.text("kernel")).padded_n(TOKENS)) == TOKENS]

    def up_to(m: float, k: float, _: float, sparsity: float) -> tuple[float, ...]:
        gains = _speedup(asked, *(np.full(tokens.shape, x) for x in (m, k)), tokens, np.full(tokens.shape, sparsity))
        value, low, high = (_last(tokens, gain) for gain in gains)
        return value, low, high

    return _each(asked, asked.grid(by_tokens=False), up_to)


def _each(asked: Asked, grid: tuple[Array, Array, Array, Array], place: Callable[..., tuple[float, ...]]) -> Answer:
    return asked.answer(*np.array([place(*row) for row in zip(*grid, strict=True)]).T)


def _from_where(gain: Array) -> float:
    """Fraction from which the gain is there for good; 0 where it always is, 1 where it never is."""
    always, never = gain.min() > 1, gain[-1] <= 1
    return 0.0 if always else 1.0 if never else crossing(SPARSITIES, 1 / gain)


def _last(tokens: Array, gain: Array) -> float:
    """The last N at which there is a gain; 0 where there never is one."""
    wins = np.flatnonzero(gain > 1)
    return float(tokens[wins[-1]]) if wins.size else 0.0


def _speedup(asked: Asked, *grid: Array) -> Times:
    """Baseline over kernel, and the interval of it: both errors independent."""
    return over(_times(asked, "kernel", *grid), _times(asked, "baseline", *grid))


def _times(asked: Asked, side: str, m: Array, k: Array, n: Array, sparsity: Array) -> Times:
    """Seconds and interval of the ``kernel`` or the ``baseline``, called as the paper's benchmark calls it.

    A paper says which variant of a kernel it runs, so the interval does not reach to others of the same name.
    """
    name, gpu = asked.text(side), load_gpu(asked.text("gpu"))
    model, fits = kernel_model(name), kernel_fits()
    padded = np.asarray(model.padded_n(n))
    if np.isnan(padded).any():
        raise UnansweredError(f"our {name} takes N of {model.supported_n}")
    if name not in fits:
        raise UnansweredError(f"nobody has measured {name}, so nothing we say of it can judge")
    check_product(model, gpu, padded, sparsity)
    shape, machine = Shape(m, k, padded, model.own_sparsity(sparsity)), Machine.of(gpu)
    if model.at_least(shape).any():
        raise UnansweredError(f"only a bound is known of {name} here")
    call = Call.of(asked.paper.launch, asked.paper.cache, None, Activations.FP16)
    result = model.time(machine, shape, calibrated(name), call)
    return result.time_s, *interval(model, fits, gpu.key, machine, shape, call, result, variants=False)
