"""From which sparsity does sparse overtake the kernels that keep all weights, and who is fastest where?

Asked of one decoder layer of a model, its products replayed from a graph. A kernel is its time summed over the layer's
matrices with the interval of `perfmodel.choice`: speed-ups of several matrices together. Kernels that nobody measured
take no part; patterns take part from their own sparsity on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.arrays import sizes
from perfmodel.catalog.specs import Gpu, Launch
from perfmodel.choice import SEVERAL_MATRICES, rivals
from perfmodel.formats import check_sparsity
from perfmodel.kernels import BASELINE, KERNELS, KernelModel, kernel_model
from perfmodel.kernels.rivals import WHOLE
from perfmodel.prediction import predict
from perfmodel.serving.transformer import layer_matrices

Array = NDArray[np.float64]

LAYER_OF = "opt-66b"  # its matrices are among those that every source of the sparse kernels has measured
FASTEST = ("kernel", "speedup", "low", "high", "extrapolated")  # of `bests`
CHANGES = ("pruned", "rounded", "pruned and rounded")
SPARSITIES = np.round(np.arange(0.30, 0.9501, 0.005), 4)


@dataclass(frozen=True)
class Layer:
    """Seconds of a layer's products on one kernel, over tokens and sparsities; NaN where it takes no part.

    ``slow`` and ``fast`` are the half-widths of the log of its time, of one product.
    """

    time_s: Array
    slow: Array
    fast: Array
    extrapolated: NDArray[np.bool_]

    def speedup_over(self, other: Layer) -> tuple[float, float, float]:
        """How many times faster one such layer is than ``other``: prediction, low and high end."""
        ratio = float(other.time_s / self.time_s)
        slow, fast = np.hypot(self.slow, other.fast), np.hypot(self.fast, other.slow)
        return ratio, ratio * float(np.exp(-SEVERAL_MATRICES * slow)), ratio * float(np.exp(SEVERAL_MATRICES * fast))

    def clearly_ahead_of(self, other: Layer) -> NDArray[np.bool_]:
        """Where all of the 90 % interval of the speed-up over ``other`` lies above 1; False where either is NaN."""
        gain = np.log(other.time_s / self.time_s)
        return np.asarray(gain > SEVERAL_MATRICES * np.hypot(self.slow, other.fast))


@dataclass(frozen=True)
class Overtaking:
    """Where the best unstructured sparse kernel overtakes ``rival``.

    Attributes
    ----------
    gpu, rival : str
        Names.
    n : int
        Tokens.
    kernel : str
        The sparse kernel that overtakes, or that comes nearest.
    sparsity, low, high : float
        From which sparsity it is faster, as predicted and at the ends of the 90 % interval; NaN: nowhere up to 95 %.
    extrapolated : bool
        Whether either kernel is outside its evidence there.
    """

    gpu: str
    rival: str
    n: int
    kernel: str
    sparsity: float
    low: float
    high: float
    extrapolated: bool

    def __str__(self) -> str:
        against = f"{self.rival} on {self.gpu}, N = {self.n}"
        low, high = ("nowhere" if np.isnan(end) else f"{end:.0%}" for end in (self.low, self.high))
        doubt = ", extrapolated" if self.extrapolated else ""
        if np.isnan(self.sparsity):
            hope = "" if np.isnan(self.low) else f", at best from {low}"
            return f"{against}: overtaken nowhere up to {SPARSITIES[-1]:.0%}{hope}; {self.kernel} comes nearest{doubt}"
        return f"{against}: overtaken from {self.sparsity:.0%} ({low} to {high}), {self.kernel}{doubt}"


def layer_on(kernel: str, gpu: str | Gpu, n: ArrayLike, sparsity: ArrayLike, model: str = LAYER_OF) -> Layer:
    """One layer of ``model`` on ``kernel``: its products summed, of experts those that the tokens visit.

    Parameters
    ----------
    n, sparsity : array_like
        Tokens and fractions of zeros; broadcast.

    Raises
    ------
    ValueError
        As `predict`, but for N and sparsities that the kernel does not take, which are NaN.
    """
    chosen = kernel_model(kernel)
    tokens, shares = np.broadcast_arrays(sizes("n", n), check_sparsity(sparsity))
    m, k, each = _products(model, tokens)
    padded = chosen.padded_n(each)
    taken = ~np.isnan(padded).any(axis=-1) & _takes_part(chosen, shares)
    asked = np.where(np.isnan(padded), chosen.padded_n(1.0), padded)  # computed and thrown away below
    p = predict(kernel, gpu, m, k, asked, chosen.own_sparsity(shares)[..., None], launch=Launch.GRAPH)
    time_s = p.time_s.sum(axis=-1)
    slow, fast = np.log(p.hi_s.sum(axis=-1) / time_s), np.log(time_s / p.lo_s.sum(axis=-1))
    known = taken & ~p.at_least.any(axis=-1)
    return Layer(np.where(known, time_s, np.nan), slow, fast, np.asarray(p.extrapolated.any(axis=-1)))


def _products(model: str, tokens: Array) -> tuple[Array, Array, Array]:
    """Rows, columns and tokens of a layer's products, along a last axis.

    Experts that get a token are one tall product, as in `perfmodel.choice`.
    """
    matrices = [matrix for matrix in layer_matrices(load_model(model).shape) if matrix.prunable]
    active, each = (np.stack(counts, axis=-1) for counts in zip(*(x.products(tokens) for x in matrices), strict=True))
    m, k = (np.array([float(getattr(matrix, axis)) for matrix in matrices]) for axis in "mk")
    return np.ceil(active * m), k, each


def _takes_part(model: KernelModel, sparsity: Array) -> NDArray[np.bool_]:
    """Where a kernel may be asked: anywhere, or for a pattern where no more weights go than asked for."""
    if not model.patterns:
        return np.ones(sparsity.shape, dtype=np.bool_)
    return np.asarray(model.own_sparsity(sparsity) <= sparsity + 1e-9)


def running(gpu: str | Gpu) -> list[str]:
    """Measured kernels that ``gpu`` runs."""
    card = load_gpu(gpu)
    return [model.name for model in rivals() if model.refusal(card) is None]


def unstructured(gpu: str | Gpu) -> list[str]:
    """Those for zeros anywhere."""
    return [name for name in running(gpu) if KERNELS[name].format.change == "pruned" and not KERNELS[name].patterns]


def overtaking(gpu: str, rival: str, n: int, sparsities: ArrayLike = SPARSITIES, model: str = LAYER_OF) -> Overtaking:
    """From which sparsity the best unstructured kernel is faster than ``rival`` on a layer.

    Raises
    ------
    ValueError
        If the GPU cannot run ``rival``, naming the precision it lacks, or no kernel for zeros anywhere; if ``rival`` is
        unknown, or none of the measured kernels that keep all weights; if ``sparsities`` do not rise.
    """
    if (refusal := kernel_model(rival).refusal(load_gpu(gpu))) is not None:
        raise ValueError(refusal)
    whole = [model.name for model in rivals() if model.format.change in WHOLE and not model.patterns]
    if rival not in whole:
        raise ValueError(f"{rival!r} is none of the measured kernels that keep all weights: {', '.join(whole)}")
    able = unstructured(gpu)
    if not able:
        raise ValueError(f"{gpu} runs no kernel for zeros anywhere that is modelled")
    shares = np.atleast_1d(check_sparsity(sparsities)) if np.size(sparsities) else np.zeros(0)
    if not shares.size or (np.diff(shares) <= 0).any():
        raise ValueError(f"sparsities are {sparsities!r}: one or more, each above the one before")
    other = layer_on(rival, gpu, n, 0.0, model)
    layers = {name: layer_on(name, gpu, n, shares, model) for name in able}
    names = [name for name, layer in layers.items() if not np.isnan(layer.time_s).all()]
    times = np.array([layers[name].time_s for name in names])
    best = np.argmin(times, axis=0)
    along = np.arange(len(shares))
    slow, fast, outside = (
        np.array([getattr(layers[name], field) for name in names])[best, along]
        for field in ("slow", "fast", "extrapolated")
    )
    gain = np.log(other.time_s / times[best, along])
    ends = SEVERAL_MATRICES * np.hypot(slow, other.fast), SEVERAL_MATRICES * np.hypot(fast, other.slow)
    at, high, low = (_first(shares, value) for value in (gain, gain - ends[0], gain + ends[1]))
    i = int(np.argmax(gain)) if np.isnan(at) else int(np.searchsorted(shares, at))
    return Overtaking(gpu, rival, n, names[best[i]], at, low, high, bool(outside[i] | other.extrapolated))


def _first(shares: Array, gain: Array) -> float:
    """Sparsity from which ``gain`` is positive, NaN if it never is."""
    ahead = np.flatnonzero(gain >= 0)
    return float(shares[ahead[0]]) if len(ahead) else float("nan")


def winners(gpu: str, tokens: Sequence[int], sparsities: ArrayLike, model: str = LAYER_OF) -> pd.DataFrame:
    """The fastest kernel on a layer at each number of tokens and each sparsity.

    Returns
    -------
    pandas.DataFrame
        ``gpu, n, sparsity, kernel, change, speedup`` (over dense), ``extrapolated``, and ``clear``: whether the 90 %
        interval of its speed-up over the runner-up of another kind (pruned or not) lies above 1.
    """
    n, shares = np.meshgrid(sizes("tokens", tokens), check_sparsity(sparsities), indexing="ij")
    layers = {name: layer_on(name, gpu, n, shares, model) for name in running(gpu)}
    names = np.array(list(layers), dtype=object)
    times = np.stack([layer.time_s for layer in layers.values()])
    filled = np.where(np.isnan(times), np.inf, times)
    best = np.argmin(filled, axis=0)
    prunes = np.array(["pruned" in KERNELS[name].format.change for name in names])
    other_kind = np.where(prunes[:, None, None] == prunes[best], np.inf, filled)
    second = np.argmin(other_kind, axis=0)
    of = partial(_of, list(layers.values()))
    ahead = np.log(of("time_s", second) / of("time_s", best))
    clear = ahead > SEVERAL_MATRICES * np.hypot(of("slow", best), of("fast", second))
    return pd.DataFrame(
        {
            "gpu": gpu,
            "n": n.ravel().astype(int),
            "sparsity": shares.ravel(),
            "kernel": names[best].ravel(),
            "change": [KERNELS[name].format.change for name in names[best].ravel()],
            "speedup": (layers[BASELINE].time_s / of("time_s", best)).ravel(),
            "extrapolated": of("extrapolated", best).ravel().astype(bool),
            "clear": clear.ravel(),
        }
    )


def speedups(
    kernels: Sequence[str], gpu: str | Gpu, tokens: ArrayLike, sparsities: ArrayLike, model: str = LAYER_OF
) -> pd.DataFrame:
    """Speed-up of each kernel over dense on a layer, at each number of tokens and each sparsity.

    Returns
    -------
    pandas.DataFrame
        ``gpu, kernel, change, n, sparsity, speedup, extrapolated``; without rows where a kernel takes no part.

    Raises
    ------
    ValueError
        As `predict`: what the GPU cannot run among them.
    """
    card = load_gpu(gpu)
    n, shares = np.meshgrid(sizes("tokens", tokens), check_sparsity(sparsities), indexing="ij")
    dense_s = layer_on(BASELINE, card, n, 0.0, model).time_s
    parts = []
    for name in kernels:
        layer = layer_on(name, card, n, shares, model)
        values = {"n": n.astype(int), "sparsity": shares, "speedup": dense_s / layer.time_s}
        columns = {column: grid.ravel() for column, grid in (values | {"extrapolated": layer.extrapolated}).items()}
        parts.append(pd.DataFrame({"gpu": card.key, "kernel": name, "change": KERNELS[name].format.change, **columns}))
    return pd.concat(parts, ignore_index=True).dropna(subset="speedup", ignore_index=True)


def _of(layers: Sequence[Layer], field: str, index: NDArray[np.intp]) -> Array:
    """``field`` of the layer that ``index`` names at each place."""
    stacked = np.stack([getattr(layer, field) for layer in layers])
    return np.take_along_axis(stacked, index[None], axis=0)[0]


def bests(gpu: str | Gpu, n: int, sparsity: float, model: str = LAYER_OF) -> pd.DataFrame:
    """The fastest kernel on a layer of each kind: that prunes, that rounds, that does both.

    Returns
    -------
    pandas.DataFrame
        ``gpu, change, kernel, speedup`` (over dense), ``low, high`` (its 90 % interval), ``extrapolated``.
    """
    return bests_over(gpu, [n], [sparsity], model).drop(columns=["n", "sparsity"])


def bests_over(
    gpu: str | Gpu,
    tokens: ArrayLike,
    sparsities: ArrayLike,
    model: str = LAYER_OF,
    kernels: Sequence[str] | None = None,
) -> pd.DataFrame:
    """`bests` at each number of tokens and each sparsity, with ``n, sparsity``; no row where no kernel takes part.

    ``kernels``: only these; all of `running` by default.
    """
    card = load_gpu(gpu)
    n, shares = np.meshgrid(sizes("tokens", tokens), check_sparsity(sparsities), indexing="ij")
    dense = layer_on(BASELINE, card, n, 0.0, model)
    layers = {name: layer_on(name, card, n, shares, model) for name in (running(card) if kernels is None else kernels)}
    asked = {"gpu": card.key, "n": n.ravel().astype(int), "sparsity": shares.ravel()}
    tables = [pd.DataFrame(columns=[*asked, "change", *FASTEST])]
    for change in CHANGES:
        able = {name: layer for name, layer in layers.items() if KERNELS[name].format.change == change}
        if able:
            tables.append(pd.DataFrame({**asked, "change": change, **_fastest(able, dense)}).dropna(subset="speedup"))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def _fastest(layers: Mapping[str, Layer], dense: Layer) -> dict[str, NDArray[Any]]:
    """`FASTEST` at each place, flat: who it is, how much faster than ``dense``, and whether that is extrapolated."""
    of = partial(_of, list(layers.values()))
    best = np.argmin(np.nan_to_num(np.stack([layer.time_s for layer in layers.values()]), nan=np.inf), axis=0)
    gain = dense.time_s / of("time_s", best)
    slow, fast = np.hypot(of("slow", best), dense.fast), np.hypot(of("fast", best), dense.slow)
    ends = gain * np.exp(-SEVERAL_MATRICES * slow), gain * np.exp(SEVERAL_MATRICES * fast)
    found = (np.array(list(layers), dtype=object)[best], gain, *ends, of("extrapolated", best).astype(bool))
    return {name: value.ravel() for name, value in zip(FASTEST, found, strict=True)}
