"""Questions asked of the models as a whole: where does sparse begin to pay, what matters, what would it take?

Crossover surfaces and inverse questions by root finding, Pareto fronts of any table, global sensitivity by Sobol
indices. All of them call the same vectorised models as a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import Gpu
from perfmodel.crossing import first_fraction
from perfmodel.kernels import BASELINE, KERNELS, Call, KernelModel, Machine, Shape, kernel_model
from perfmodel.kernels.base import check_pattern
from perfmodel.kernels.call import FIRST_CALL
from perfmodel.kernels.fits import calibrated
from perfmodel.serving.transformer import layer_matrices
from perfmodel.sweep.evaluate import scaled_machine
from perfmodel.sweep.spec import SCALES

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

BRACKETS = 201  # points among which a root is bracketed
MOST_TOKENS = 4096  # up to which N is looked for, as far as the models have evidence
BANDWIDTH_SCALES = (0.01, 100.0)  # of a GPU's own, between which a bandwidth is looked for
PARAMETER_PREFIX = "parameter:"


def layer_times(
    kernel: str, gpu: str, model: str, n: ArrayLike, sparsity: ArrayLike, scales: Mapping[str, Any] | None = None
) -> tuple[Array, Array]:
    """Seconds of all matrix products of one decoder layer: on ``kernel`` with the weights pruned, and dense.

    Products a kernel does not prune (a router) are left out of both. N is padded to what the kernel takes.

    Parameters
    ----------
    kernel, gpu, model
        Names of the registry and the catalogue.
    n, sparsity : array_like
        Tokens in flight; fraction of zeros.
    scales : mapping, optional
        What-if factors on the GPU's rates, by the names of the sweep's axes; scalars or arrays.

    Returns
    -------
    tuple of ndarray
        Broadcast shape of the inputs; NaN where the kernel cannot take the tokens or the sparsity, or only a bound of
        it is known.
    """
    chosen = kernel_model(kernel)
    machine = scaled_machine(Machine.of(load_gpu(gpu)), scales or {})
    tokens, s = (np.asarray(value, dtype=np.float64) for value in (n, sparsity))
    own, dense = np.zeros(()), np.zeros(())
    for matrix in layer_matrices(load_model(model).shape):
        if not matrix.prunable:
            continue
        count, each = matrix.products(tokens)
        padded = chosen.padded_n(each)
        shape = Shape.of(matrix.m, matrix.k, np.where(np.isnan(padded), each, padded), chosen.own_sparsity(s))
        unknown = np.isnan(padded) | ~chosen.takes_sparsity(s) | chosen.at_least(shape)
        time_s = np.where(unknown, np.nan, chosen.time(machine, shape, calibrated(kernel)).time_s)
        asked = Shape.of(matrix.m, matrix.k, each, 0.0)
        own = own + count * time_s
        dense = dense + count * KERNELS[BASELINE].time(machine, asked, calibrated(BASELINE)).time_s
    return own, dense


def crossover_sparsity(kernel: str, gpu: str, model: str, n: ArrayLike, speedup: float = 1.0) -> Array:
    """Lowest sparsity from which a layer on ``kernel`` is at least ``speedup`` times as fast as dense.

    The first crossing, should there be several; the layer's products are compared as a whole (`layer_times`).

    Parameters
    ----------
    n : array_like
        Tokens in flight.
    speedup : float
        What counts as winning; above 0.

    Returns
    -------
    ndarray
        Shape of ``n``: 0 where it wins even without zeros, NaN where it never does. Exact to 1e-9.

    Raises
    ------
    ValueError
        If ``speedup`` is not above 0, or a name is unknown; names the value.
    """
    if not speedup > 0:
        raise ValueError(f"speedup must be above 0, got {speedup:g}")
    tokens = np.asarray(n, dtype=np.float64)

    def wins(sparsity: Array) -> NDArray[np.bool_]:
        own, dense = layer_times(kernel, gpu, model, tokens[..., None], sparsity)
        return np.asarray(dense >= speedup * own)

    return first_fraction(wins, tokens.shape)


def crossover_surface(
    kernel: str, *, gpus: Sequence[str], models: Sequence[str], n: Sequence[int], speedup: float = 1.0
) -> pd.DataFrame:
    """`crossover_sparsity` over GPUs, models and tokens.

    Returns
    -------
    pandas.DataFrame
        ``kernel, gpu, model, n, sparsity``; NaN where dense always wins.
    """
    import pandas as pd

    parts = []
    for gpu in gpus:
        for model in models:
            found = crossover_sparsity(kernel, gpu, model, np.asarray(n), speedup)
            parts.append(pd.DataFrame({"kernel": kernel, "gpu": gpu, "model": model, "n": list(n), "sparsity": found}))
    return pd.concat(parts, ignore_index=True)


def pareto_front(
    table: pd.DataFrame, *, maximise: Sequence[str] = (), minimise: Sequence[str] = ()
) -> NDArray[np.bool_]:
    """Mask of the rows that no other row beats: none is at least as good everywhere and better somewhere.

    Rows with a missing value are never on the front; equal rows are on it together.

    Raises
    ------
    ValueError
        If a column is unknown, or none is given.
    """
    names = [*maximise, *minimise]
    if not names:
        raise ValueError("name at least one column to maximise or minimise")
    for name in names:
        if name not in table:
            raise ValueError(unknown_name("column", name, table.columns))
    cost = np.column_stack([-table[name] for name in maximise] + [table[name] for name in minimise]).astype(np.float64)
    usable = np.flatnonzero(~np.isnan(cost).any(axis=1))
    order = usable[np.lexsort(cost[usable].T[::-1])]
    front: list[int] = []
    # In lexical order a row can only be beaten by one before it, and then also by one on the front.
    for row in order:
        others = cost[front]
        beaten = ((others <= cost[row]).all(axis=1) & (others < cost[row]).any(axis=1)).any() if front else False
        if not beaten:
            front.append(int(row))
    mask = np.zeros(len(table), dtype=bool)
    mask[front] = True
    return mask


def sobol_indices(
    function: Callable[[dict[str, Array]], Array],
    ranges: Mapping[str, tuple[float, float]],
    *,
    samples: int = 1024,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of the variance of ``function`` that each input explains, alone and with all its interactions.

    Inputs are independent and uniform in their ranges.

    Parameters
    ----------
    function
        Takes arrays by name, gives one value per element.
    ranges : mapping
        Lowest and highest value of each input.
    samples : int
        Base samples, a power of two; the function sees ``samples * (len(ranges) + 2)`` points.

    Returns
    -------
    pandas.DataFrame
        ``input, first, first_error, total, total_error``, largest total first; errors are 95 % bootstrap half-widths.

    Raises
    ------
    ValueError
        If a range is empty, ``samples`` no power of two, or the function does not vary or is not finite.

    References
    ----------
    Saltelli et al., "Variance based sensitivity analysis of model output", Computer Physics Communications 181, 2010;
    computed by SALib (Herman and Usher, JOSS 2(9), 2017).
    """
    import pandas as pd
    from SALib.analyze import sobol as analysis
    from SALib.sample import sobol as sampling

    for name, (low, high) in ranges.items():
        if not low < high:
            raise ValueError(f"the range of {name} is {low:g} to {high:g}, allowed is a lowest below a highest value")
    if samples < 2 or samples & (samples - 1):
        raise ValueError(f"samples is {samples}, allowed is a power of two")
    problem = {"num_vars": len(ranges), "names": list(ranges), "bounds": [list(ends) for ends in ranges.values()]}
    points = sampling.sample(problem, samples, calc_second_order=False, seed=seed)
    values = np.asarray(function(dict(zip(ranges, points.T, strict=True))), dtype=np.float64)
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise ValueError("the function must be finite and vary within the ranges")
    found = analysis.analyze(problem, values, calc_second_order=False, seed=seed)
    columns = {"first": "S1", "first_error": "S1_conf", "total": "ST", "total_error": "ST_conf"}
    table = pd.DataFrame({"input": list(ranges), **{name: found[key] for name, key in columns.items()}})
    return table.sort_values("total", ascending=False, ignore_index=True)


def prediction_sensitivity(
    kernel: str,
    gpu: str,
    ranges: Mapping[str, tuple[float, float]],
    *,
    m: int,
    k: int,
    n: int = 8,
    sparsity: float = 0.8,
    samples: int = 1024,
) -> pd.DataFrame:
    """Sobol indices of the log of a kernel's predicted time.

    Parameters
    ----------
    ranges : mapping
        Inputs to vary: ``m, k, n, sparsity``, the what-if factors of a sweep (``dram_bandwidth_scale`` ...), and
        ``parameter:NAME`` for a fitted parameter of the kernel. The rest keeps its value. The logarithm makes an
        input that doubles a short time count like one that doubles a long time.

    Raises
    ------
    ValueError
        As `sobol_indices`; unknown inputs are named.
    """
    chosen, machine, fitted = kernel_model(kernel), Machine.of(load_gpu(gpu)), calibrated(kernel)
    fields = {f"{PARAMETER_PREFIX}{name}": name for name in vars(fitted)}
    known = ["m", "k", "n", "sparsity", *SCALES, *fields]
    for name in ranges:
        if name not in known:
            raise ValueError(unknown_name("input", name, known))

    def log_time(inputs: dict[str, Array]) -> Array:
        size = {"m": m, "k": k, "n": n, "sparsity": sparsity} | inputs
        scaled = scaled_machine(machine, {name: inputs[name] for name in SCALES if name in inputs})
        changed = {fields[name]: value for name, value in inputs.items() if name in fields}
        parameters = type(fitted)(**{**vars(fitted), **changed})
        shape = Shape.of(size["m"], size["k"], chosen.padded_n(size["n"]), size["sparsity"])
        return np.log(chosen.time(scaled, shape, parameters).time_s)

    return sobol_indices(log_time, ranges, samples=samples)


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

    if not low < high or (log and low <= 0):
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
    kernel: str, gpu: str | Gpu, *, m: int, k: int, n: int, sparsity: float, call: Call = FIRST_CALL
) -> float | None:
    """How many times as fast as dense ``kernel`` is on one product, padded as it asks; None if only a bound is known.

    Raises
    ------
    ValueError
        As `bandwidth_for_speedup`.
    """
    ask = _Question(kernel, gpu, 1.0, m, k, call)
    if np.isnan(ask.model.padded_n(n)):
        return float(ask.known_gain(n, sparsity))  # says why not
    gain = float(ask.gain(n, sparsity))
    return None if np.isnan(gain) else gain


def sparsity_for_speedup(
    kernel: str, gpu: str | Gpu, speedup: float, *, m: int, k: int, n: int, call: Call = FIRST_CALL
) -> float | None:
    """Sparsity at which ``kernel`` first is ``speedup`` times as fast as dense on one product, or None.

    0 where it is without any zeros, as one that keeps all weights is or never is.

    Raises
    ------
    ValueError
        If a name is unknown, the GPU cannot run the kernel, it takes no N that holds ``n`` tokens, only a bound of its
        time is known there, or it has a pattern, whose sparsity is given; names kernel and value.
    """
    ask = _Question(kernel, gpu, speedup, m, k, call)
    if ask.model.patterns:
        raise ValueError(f"{kernel} has the sparsity of its pattern, so that there is none to look for")
    found = float(first_fraction(lambda sparsity: ask.known_gain(n, sparsity) >= speedup))
    return None if np.isnan(found) else found


def tokens_for_speedup(
    kernel: str, gpu: str | Gpu, speedup: float, *, m: int, k: int, n: int, sparsity: float, call: Call = FIRST_CALL
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
    ask = _Question(kernel, gpu, speedup, m, k, call)
    Shape.of(m, k, n, sparsity)
    if n > MOST_TOKENS:
        raise ValueError(f"n is {n}, allowed is at most {MOST_TOKENS}")
    found = _run_around(ask.gain(np.arange(1.0, MOST_TOKENS + 1), sparsity) >= speedup, n - 1)
    return None if found is None else (found[0] + 1, found[1] + 1)


def bandwidth_for_speedup(
    kernel: str, gpu: str | Gpu, speedup: float, *, m: int, k: int, n: int, sparsity: float, call: Call = FIRST_CALL
) -> float | None:
    """DRAM bandwidth in bytes/s at which ``kernel`` is ``speedup`` times as fast as dense, the GPU else unchanged.

    Looked for between 1 % and 100 times the GPU's own, from below. None if no such bandwidth gives it.

    Raises
    ------
    ValueError
        As `sparsity_for_speedup`, and if the sparsity is none of the kernel's pattern.
    """
    ask = _Question(kernel, gpu, speedup, m, k, call)

    def gain(scale: float) -> float:
        return float(ask.known_gain(n, sparsity, scale))

    scale = value_where(gain, speedup, *BANDWIDTH_SCALES, log=True)
    return None if scale is None else scale * ask.card.dram.bandwidth_bytes_per_s


def bandwidths_for_speedup(
    kernel: str, gpu: str | Gpu, speedup: float, *, m: int, k: int, n: int, sparsity: float, call: Call = FIRST_CALL
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
    ask = _Question(kernel, gpu, speedup, m, k, call)
    own = ask.card.dram.bandwidth_bytes_per_s
    scales = np.geomspace(*BANDWIDTH_SCALES, BRACKETS)  # odd, so the middle one is 1
    found = _run_around(ask.known_gain(n, sparsity, scales) >= speedup, BRACKETS // 2)
    if found is None:
        return None

    def crossing(inside: int, outside: int) -> float:
        ends = sorted((float(scales[inside]), float(scales[outside])))
        at = value_where(lambda scale: float(ask.known_gain(n, sparsity, scale)), speedup, *ends, log=True)
        return own * (float(scales[inside]) if at is None else at)

    first, last = found
    low = 0.0 if first == 0 else crossing(first, first - 1)
    return low, np.inf if last == BRACKETS - 1 else crossing(last, last + 1)


@dataclass(frozen=True)
class _Question:
    """Where is ``kernel`` at least ``speedup`` times as fast as dense on ``m`` x ``k`` weights? Checked when made."""

    kernel: str
    gpu: str | Gpu
    speedup: float
    m: int
    k: int
    call: Call

    def __post_init__(self) -> None:
        if not 0 < self.speedup < np.inf:
            raise ValueError(f"speedup must be a number above 0, got {self.speedup:g}")
        if (refusal := self.model.refusal(self.card)) is not None:
            raise ValueError(refusal)

    @property
    def model(self) -> KernelModel:
        return kernel_model(self.kernel)

    @cached_property
    def card(self) -> Gpu:
        return self.gpu if isinstance(self.gpu, Gpu) else load_gpu(self.gpu)

    def gain(self, n: ArrayLike, sparsity: ArrayLike, bandwidth_scale: ArrayLike = 1.0) -> Array:
        """Times as fast as dense; NaN where the kernel takes no such N, or only a bound of its time is known."""
        check_pattern(self.model, sparsity)
        scale = np.asarray(bandwidth_scale, dtype=np.float64)
        machine = scaled_machine(Machine.of(self.card), {"dram_bandwidth_scale": scale})
        shape = Shape.of(self.m, self.k, n, sparsity)
        padded = self.model.padded_n(shape.n)
        own = replace(
            shape, n=np.where(np.isnan(padded), 1.0, padded), sparsity=self.model.own_sparsity(shape.sparsity)
        )
        dense = KERNELS[BASELINE].time(machine, shape, calibrated(BASELINE), self.call).time_s
        gain = dense / self.model.time(machine, own, calibrated(self.kernel), self.call).time_s
        known = np.where(np.isnan(padded) | self.model.at_least(own), np.nan, gain)
        return np.broadcast_to(known, np.broadcast(shape.n, shape.sparsity, scale).shape)

    def known_gain(self, n: int, sparsity: ArrayLike, bandwidth_scale: ArrayLike = 1.0) -> Array:
        """As `gain` for one N, which must be known."""
        found = self.gain(n, sparsity, bandwidth_scale)
        if np.isnan(found).any():
            if np.isnan(self.model.padded_n(n)):
                raise ValueError(f"{self.kernel} takes N of {self.model.supported_n}, got {n:g}")
            raise ValueError(f"of {self.kernel} no more than a lower bound of the time is known at N = {n:g}")
        return found


def _run_around(holds: NDArray[np.bool_], at: int) -> tuple[int, int] | None:
    """First and last index of the run of true values that holds ``at``, or else the nearest to it; None if none is."""
    true = np.flatnonzero(holds)
    if not true.size:
        return None
    middle = int(true[np.abs(true - at).argmin()])
    false = np.flatnonzero(~holds)
    before, after = false[false < middle], false[false > middle]
    return int(before[-1]) + 1 if before.size else 0, int(after[0]) - 1 if after.size else len(holds) - 1
