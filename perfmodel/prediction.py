"""Predict the time of a matrix product on a kernel and a GPU or CPU: the front door of the kernel models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_device
from perfmodel.catalog.arrays import number, numbers
from perfmodel.catalog.cpu import Device
from perfmodel.catalog.records import LARGEST_SIZE
from perfmodel.catalog.specs import Bound, Gpu
from perfmodel.formats import check_sparsity
from perfmodel.kernels import KERNELS, Call, KernelModel, Machine, Shape, baseline_of, kernel_model, kernels_of
from perfmodel.kernels.base import check_pattern
from perfmodel.kernels.fits import calibrated, extrapolated, interval, kernel_fits

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

TABLE_COLUMNS = ("time_us", "speedup_vs_dense", "bound", "extrapolated", "lo_us", "hi_us", "at_least", "measured")
SHOWN_POINTS = 10  # lines that a printed prediction has at most


@dataclass(frozen=True)
class Prediction:
    """Predicted times of one kernel on one GPU; arrays of the broadcast shape of the inputs.

    Attributes
    ----------
    kernel, gpu : str
        Names in the registry and the catalogue.
    m, k, n, sparsity : ndarray
        Of the products; the sparsity is that of the kernel's pattern, if it has one.
    time_s : ndarray
        Seconds of one product.
    dense_s : ndarray
        Seconds of cuBLAS for the same product; on a CPU of `baseline_of`.
    bound : ndarray of Bound
        The resource with the longest time alone; the L2 for a product that reads its weights there.
    terms : dict
        Seconds each resource would take alone.
    dram_bytes, weight_bytes : ndarray
        Bytes over DRAM in all, and of the stored weights.
    lo_s, hi_s : ndarray
        90 % interval of ``time_s``, wider outside the evidence; without any, what the kernel's assumptions span.
    extrapolated : ndarray of bool
        True outside the evidence the kernel was fitted on, so everywhere if it was not.
    measured : bool
        False for a kernel without a fit, whose parameters are assumed.
    at_least : ndarray of bool
        True where ``time_s`` is a lower bound and nothing more is known: ``hi_s`` is infinite, and nothing may be
        ranked by it.
    resident : ndarray of bool
        True where warm calls have all copies of their weights in the L2, or nearly: `Call.resident`.
    """

    kernel: str
    gpu: str
    m: Array
    k: Array
    n: Array
    sparsity: Array
    time_s: Array
    dense_s: Array
    bound: NDArray[np.object_]
    terms: dict[str, Array]
    dram_bytes: Array
    weight_bytes: Array
    lo_s: Array
    hi_s: Array
    extrapolated: NDArray[np.bool_]
    measured: bool
    at_least: NDArray[np.bool_]
    resident: NDArray[np.bool_]

    @property
    def speedup_vs_dense(self) -> Array:
        """Dense time (`baseline_of`) over that of this kernel, at most where only a bound is known; above 1 it wins."""
        return self.dense_s / self.time_s

    def to_frame(self) -> pd.DataFrame:
        """The products as rows of a table, in the order of the flattened arrays.

        Returns
        -------
        pandas.DataFrame
            ``kernel, gpu, m, k, n, sparsity, time_us, lo_us, hi_us, speedup_vs_dense, bound, extrapolated, measured,
            at_least, in_l2, dram_bytes, weight_bytes``; ``hi_us`` is missing where ``time_us`` is only a lower bound.

        Examples
        --------
        >>> p = predict("flash-llm", "a100-80gb", m=36864, k=9216, n=[8, 16], sparsity=0.8)
        >>> p.to_frame()[["kernel", "n", "bound"]].to_numpy().tolist()
        [['flash-llm', 8.0, 'shared-memory'], ['flash-llm', 16.0, 'shared-memory']]
        """
        import pandas as pd

        columns = {
            "m": self.m,
            "k": self.k,
            "n": self.n,
            "sparsity": self.sparsity,
            "time_us": self.time_s * 1e6,
            "lo_us": self.lo_s * 1e6,
            "hi_us": np.where(self.at_least, np.nan, self.hi_s * 1e6),
            "speedup_vs_dense": self.speedup_vs_dense,
            "bound": self.bound.astype(str),
            "extrapolated": self.extrapolated,
            "measured": np.broadcast_to(self.measured, self.time_s.shape),
            "at_least": self.at_least,
            "in_l2": self.resident,
            "dram_bytes": self.dram_bytes,
            "weight_bytes": self.weight_bytes,
        }
        flat = {name: np.ravel(column) for name, column in columns.items()}
        return pd.DataFrame({"kernel": self.kernel, "gpu": self.gpu, **flat})

    def __str__(self) -> str:
        rows = list(self.to_frame().head(SHOWN_POINTS).itertuples(index=False))
        return "\n".join([*(_in_words(row) for row in rows), *(["…"] if self.time_s.size > SHOWN_POINTS else [])])


def _in_words(row: Any) -> str:
    """One row of `Prediction.to_frame` as a line."""
    product = f"{row.kernel} on {row.gpu}: {row.m:.10g} x {row.k:.10g}, N = {row.n:.10g}, sparsity {row.sparsity:.3g}"
    if row.at_least:
        time = f"at least {row.time_us:.4g} us, at most {row.speedup_vs_dense:.2f}x dense"
    else:
        time = f"{row.time_us:.4g} us ({row.lo_us:.4g} - {row.hi_us:.4g}), {row.speedup_vs_dense:.2f}x dense"
    doubt = "" if row.measured and not row.extrapolated else ", extrapolated" if row.measured else ", not measured"
    return f"{product}: {time}, bound by {row.bound}{doubt}"


def check_tokens(model: KernelModel, n: ArrayLike) -> None:
    """Refuse token counts the kernel does not take.

    Raises
    ------
    ValueError
        Names the kernel, the value, what it takes, and the N to pad to.
    """
    tokens = np.atleast_1d(numbers("n", n))
    padded = np.atleast_1d(model.padded_n(tokens))
    wrong = np.flatnonzero(padded != tokens)
    if wrong.size:
        bad, fit = tokens.flat[wrong[0]], padded.flat[wrong[0]]
        remedy = "" if np.isnan(fit) else f"; pad N to {fit:g}"
        raise ValueError(f"{model.name} takes N of {model.supported_n}, got {bad:g}{remedy}")


def check_product(model: KernelModel, gpu: Device, n: ArrayLike, sparsity: ArrayLike) -> None:
    """Refuse what the kernel cannot run: on this GPU, with so many tokens, at this sparsity.

    Raises
    ------
    ValueError
        As `check_tokens`, `check_pattern` and `check_room`, or names the GPU and what it lacks.
    """
    if (refusal := model.refusal(gpu)) is not None:
        raise ValueError(refusal)
    check_tokens(model, n)
    check_pattern(model, sparsity)
    check_room(model, gpu, n, sparsity)


def check_room(model: KernelModel, gpu: Device, n: ArrayLike, sparsity: ArrayLike) -> None:
    """Refuse products whose blocks do not fit the shared memory of the GPU.

    Raises
    ------
    ValueError
        Names the kernel, the GPU, its shared memory, tokens and sparsity.
    """
    room = np.atleast_1d(model.has_room(gpu, n, sparsity))
    if isinstance(gpu, Gpu) and not room.all():
        first = np.unravel_index(int(np.argmin(room)), room.shape)
        tokens, zeros = (float(np.broadcast_to(np.atleast_1d(x), room.shape)[first]) for x in (n, sparsity))
        raise ValueError(
            f"{model.name} keeps more in shared memory at N = {tokens:g} and sparsity {zeros:g} than the "
            f"{gpu.sm.shared_memory_per_block_bytes:,.0f} bytes a block of {gpu.name} may have: records are shorter at "
            "higher sparsity"
        )


def predict(
    kernel: str,
    gpu: str | Device,
    m: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    sparsity: ArrayLike = 0.0,
    *,
    launch: ArrayLike = "stream",
    cache: ArrayLike = "cold",
    split_k: ArrayLike | None = None,
    activations: ArrayLike = "fp16",
) -> Prediction:
    """Predict ``C[m, n] = A[m, k] @ B[k, n]`` with A at ``sparsity``.

    Parameters
    ----------
    kernel : str
        Name in `perfmodel.kernels.KERNELS`.
    gpu : str or Gpu or Cpu
        Catalogue name, path of a TOML file, or a record; threads of a CPU stand after ``@``.
    m, k, n : array_like
        Rows, columns of the weights; tokens in flight. At least 1.
    sparsity : array_like
        Fraction of zero weights, 0 to 1.
    launch : array_like
        ``stream`` (launched one by one) or ``graph`` (replayed from a CUDA graph).
    cache : array_like
        ``cold``: every byte comes from device memory, as for the layers of a model. ``warm``: the same product was
        called just before, and what fits of it is still in the L2, as in a benchmark's loop.
    split_k : array_like, optional
        Ways to share K among blocks, NaN where the kernel chooses; kernels without split-K ignore it.
    activations : array_like
        ``fp16``: a kernel of less than 16 bits quantises them in a launch of its own. ``quantised``: they come so.

    Returns
    -------
    Prediction
        Arrays of the broadcast shape.

    Raises
    ------
    ValueError
        Unknown names (nearest ones offered), values out of range, N or a sparsity the kernel does not take, a precision
        the GPU lacks.

    Examples
    --------
    >>> p = predict("flash-llm", "a100-80gb", m=36864, k=9216, n=8, sparsity=0.8)
    >>> 1.7 < float(p.speedup_vs_dense) < 1.95
    True
    """
    model = kernel_model(kernel)
    record = load_device(gpu)
    shape, call = Shape.of(m, k, n, sparsity), Call.of(launch, cache, split_k, activations)
    check_product(model, record, shape.n, shape.sparsity)
    shape = replace(shape, sparsity=model.own_sparsity(shape.sparsity))
    calibration = kernel_fits()
    machine = Machine.of(record)
    result = model.time(machine, shape, calibrated(kernel, calibration), call)
    dense, baseline = result, baseline_of(record)
    if kernel != baseline:
        dense = KERNELS[baseline].time(machine, shape, calibrated(baseline, calibration), call)
    lo_s, hi_s = interval(model, calibration, record.key, machine, shape, call, result)
    fit = calibration.get(kernel)
    outside = extrapolated(fit, record.key, shape.m, shape.k, shape.n, shape.sparsity)
    weight_bytes = model.format.bytes_of(shape.m, shape.k, shape.sparsity)
    resident = call.resident(machine, weight_bytes)
    from_l2 = call.mostly_hits(machine, weight_bytes) & (result.bound == Bound.MEMORY)
    bound = np.where(from_l2, np.array(Bound.L2, dtype=object), result.bound)
    full = np.broadcast(*vars(shape).values(), *vars(call).values()).shape
    return Prediction(
        kernel=kernel,
        gpu=record.key,
        **{axis: _spread(values, full) for axis, values in vars(shape).items()},
        time_s=_spread(result.time_s, full),
        dense_s=_spread(dense.time_s, full),
        bound=_spread(bound, full),
        terms={str(name): _spread(seconds, full) for name, seconds in result.terms.items()},
        dram_bytes=_spread(result.dram_bytes, full),
        weight_bytes=_spread(weight_bytes, full),
        lo_s=_spread(lo_s, full),
        hi_s=_spread(hi_s, full),
        extrapolated=_spread(outside, full),
        measured=fit is not None,
        at_least=_spread(model.at_least(shape), full),
        resident=_spread(resident, full),
    )


def _spread(values: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """``values`` at ``shape``, which most have already: numpy would look at them for as long as a model computes."""
    return values if np.shape(values) == shape and shape else np.broadcast_to(values, shape)


def predict_all(
    gpu: str | Device, m: ArrayLike, k: ArrayLike, n: int, sparsity: ArrayLike = 0.0, **how: Any
) -> Iterator[tuple[int, Prediction]]:
    """Predict one product on every kernel of the GPU that takes ``n`` tokens, padded where it must be.

    Kernels of a pattern are predicted at its sparsity, whichever is asked for. Who is passed over, `left_out` says.

    Parameters
    ----------
    gpu, m, k, sparsity
        As `predict`.
    n : int
        Tokens in flight; at least 1.
    **how
        ``launch, cache, split_k, activations`` of `predict`.

    Yields
    ------
    tuple of int and Prediction
        The tokens the kernel computes, and its prediction for them; kernels that take no such N, or that the GPU cannot
        run, are passed over.

    Raises
    ------
    ValueError
        As `predict`.
    """
    record, tokens, sparsity = load_device(gpu), number("n", n, 1, LARGEST_SIZE), check_sparsity(sparsity)
    for name, model in kernels_of(record).items():
        padded, own = float(model.padded_n(tokens)), model.own_sparsity(sparsity)
        runs = not np.isnan(padded) and model.refusal(record) is None
        if runs and model.has_room(record, padded, own).all():
            yield int(padded), predict(name, record, m, k, padded, own, **how)


def left_out(gpu: str | Device, n: float, sparsity: ArrayLike = 0.0) -> dict[str, str]:
    """Why `predict_all` passes over a kernel of such devices, in a sentence: it lacks something, no such N, or no room.

    Raises
    ------
    ValueError
        If the GPU is unknown.
    """
    record, n, sparsity = load_device(gpu), number("n", n, 1, LARGEST_SIZE), check_sparsity(sparsity)
    found = {}
    for name, model in kernels_of(record).items():
        if (refusal := model.refusal(record)) is not None:
            found[name] = refusal
        elif np.isnan(model.padded_n(n)):
            found[name] = f"{name} takes N of {model.supported_n}, got {n:g}"
        else:
            try:
                check_room(model, record, model.padded_n(n), model.own_sparsity(sparsity))
            except ValueError as error:
                found[name] = str(error)
    return found


def predict_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Predict many products at once.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``gpu, m, k, n, sparsity, kernel``; ``launch, cache, split_k, activations`` where not the defaults of
        `predict`.

    Returns
    -------
    pandas.DataFrame
        Index of ``rows``; columns ``time_us, speedup_vs_dense, bound, extrapolated, lo_us, hi_us, at_least,
        measured``; ``hi_us`` is missing where ``time_us`` is only a lower bound.
    """
    import pandas as pd

    parts = []
    given = [name for name in ("launch", "cache", "split_k", "activations") if name in rows]
    for (gpu, kernel), group in rows.groupby(["gpu", "kernel"], sort=False):
        size = (group[name].to_numpy() for name in ("m", "k", "n", "sparsity"))
        how: dict[str, Any] = {name: group[name].to_numpy() for name in given}
        p = predict(str(kernel), str(gpu), *size, **how)
        parts.append(p.to_frame()[list(TABLE_COLUMNS)].set_index(group.index))
    return pd.concat(parts).reindex(rows.index)
