"""Questions asked of the models as a whole: where does sparse begin to pay, what matters, what would it take?

Crossover surfaces, Pareto fronts of any table, global sensitivity by Sobol indices. All of them call the same
vectorised models as a sweep. The inverse questions of one product are those of `perfmodel.inverse`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.arrays import number, sizes
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import Gpu
from perfmodel.crossing import first_fraction
from perfmodel.formats import check_sparsity
from perfmodel.inverse import bandwidth_for_speedup, sparsity_for_speedup, value_where
from perfmodel.kernels import BASELINE, KERNELS, KernelModel, Machine, Shape, kernel_model
from perfmodel.kernels.fits import calibrated
from perfmodel.serving.experts import active_experts, grouped_product_s
from perfmodel.serving.transformer import Matrix, block_matrices, layer_matrices
from perfmodel.sweep.evaluate import scaled_machine
from perfmodel.sweep.spec import SCALES

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "bandwidth_for_speedup", "crossover_sparsity", "crossover_surface", "expert_speedups", "layer_times",
    "pareto_front", "prediction_sensitivity", "sobol_indices", "sparsity_for_speedup", "value_where",
]  # fmt: skip

Array = NDArray[np.float64]

PARAMETER_PREFIX = "parameter:"


def layer_times(
    kernel: str,
    gpu: str | Gpu,
    model: str | LanguageModel,
    n: ArrayLike,
    sparsity: ArrayLike,
    scales: Mapping[str, Any] | None = None,
) -> tuple[Array, Array]:
    """Seconds of all matrix products of one decoder layer: on ``kernel`` with the weights pruned, and dense.

    Products a kernel does not prune (a router) are left out of both. N is padded to what the kernel takes.

    Parameters
    ----------
    kernel, gpu, model
        Names of the registry and the catalogue, or records of the latter.
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
    card = load_gpu(gpu)
    record = model if isinstance(model, LanguageModel) else load_model(model)
    machine = scaled_machine(Machine.of(card), scales or {})
    tokens, s = sizes("n", n), check_sparsity(sparsity)
    own, dense = np.zeros(()), np.zeros(())
    for matrix in layer_matrices(record.shape):
        if matrix.prunable:
            own = own + _product_s(chosen, card, machine, matrix, tokens, s)
            dense = dense + _product_s(KERNELS[BASELINE], card, machine, matrix, tokens, np.zeros(()))
    return own, dense


def _product_s(model: KernelModel, gpu: Gpu, machine: Machine, matrix: Matrix, n: Array, sparsity: Array) -> Array:
    """Seconds of one product of ``n`` tokens, of experts in one grouped launch; NaN where the kernel has none."""

    def plain(m: Array, tokens: Array) -> Array:
        padded = model.padded_n(tokens)
        shape = Shape.of(m, matrix.k, np.where(np.isnan(padded), tokens, padded), model.own_sparsity(sparsity))
        unknown = np.isnan(padded) | ~model.takes_sparsity(sparsity) | model.at_least(shape)
        return np.where(unknown, np.nan, model.time(machine, shape, calibrated(model.name)).time_s)

    if not matrix.grouped:
        return plain(matrix.m, n)
    load = active_experts(n, matrix.experts_in_all, matrix.experts_per_token)
    return grouped_product_s(gpu, plain, matrix.m, load)


def expert_speedups(kernels: Sequence[str], gpu: str, model: str, n: ArrayLike, sparsity: float) -> pd.DataFrame:
    """How much faster the experts of one layer are multiplied than dense 16-bit ones, by kernel and tokens.

    Both products of a layer as one grouped launch each; what sorts tokens, and experts that every token visits, are
    left out of both sides.

    Returns
    -------
    pandas.DataFrame
        ``kernel, n, active`` (experts with a token), ``each`` (tokens of one), ``speedup``; NaN where the kernel takes
        no such tokens. A kernel of a pattern, or that does not prune, takes its own sparsity.

    Raises
    ------
    ValueError
        If the model has no experts, or a name is unknown; names it.
    """
    import pandas as pd

    shape, card = load_model(model).shape, load_gpu(gpu)
    block = next((block for block in shape.blocks if block.experts), None)
    if block is None or block.experts is None:
        raise ValueError(f"{model} has no experts")
    tokens, machine = np.atleast_1d(sizes("n", n)), Machine.of(card)
    matrices = [matrix for matrix in block_matrices(shape, block) if matrix.grouped]
    load = active_experts(tokens, block.experts.count, block.experts.per_token)

    def seconds(kernel: KernelModel, zeros: Array) -> Array:
        return np.asarray(sum(_product_s(kernel, card, machine, matrix, tokens, zeros) for matrix in matrices))

    dense = seconds(KERNELS[BASELINE], np.zeros(()))
    columns = {"n": tokens, "active": load.active, "each": load.each}
    parts = []
    for name in kernels:
        chosen = kernel_model(name)
        own = chosen.own_sparsity(sparsity) if chosen.format.prunes else np.zeros(())
        parts.append(pd.DataFrame({"kernel": name, **columns, "speedup": dense / seconds(chosen, np.asarray(own))}))
    return pd.concat(parts, ignore_index=True)


def crossover_sparsity(
    kernel: str, gpu: str | Gpu, model: str | LanguageModel, n: ArrayLike, speedup: float = 1.0
) -> Array:
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
    if not number("speedup", speedup) > 0:
        raise ValueError(f"speedup must be above 0, got {speedup:g}")
    tokens = sizes("n", n)

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
