"""How far may a predicted run be off? Half-widths of 90 % intervals, from published runs and from the kernels.

Two errors join as the root of the sum of squares. One is that of whole runs, measured on published ones that no fit
has seen (`perfmodel.evidence.run_spread`): ``inside`` for FasterTransformer and what is built on it, on the GPU of the
fit; more on another ``gpu``; more for another ``system``, whose host and attention are its own; and more for the
``prefill``, by its share of the time. The other is that of the kernels: each shape of a layer may be off by its
kernel's own interval, independently of the others, and weighs as much as its time does. Where nobody measured a kernel,
all its shapes are off together; where a format has none, its time is a lower bound, and nothing says how much slower a
real one is: the half-width towards slower is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import FittedKernel
from perfmodel.kernels import BASELINE, KERNELS, Shape
from perfmodel.kernels.fits import calibrated, interval, kernel_fits
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.group import Group
from perfmodel.serving.passes import part_s, plain_products, product
from perfmodel.serving.systems import CALIBRATION_NAME, System, format_product

Array = NDArray[np.float64]
Sides = tuple[Array, Array]  # towards faster, towards slower

SPREADS = ("inside", "gpu", "system", "prefill")


@dataclass(frozen=True)
class HalfWidths:
    """Half-widths of the log of a time, towards faster and towards slower.

    Attributes
    ----------
    run, prefill, step : pair of ndarray
        Of the whole run, of the time to the first token, and of the time between tokens.
    """

    run: Sides
    prefill: Sides
    step: Sides


def fitted_serving() -> FittedKernel:
    """The stored fit of whole runs.

    Raises
    ------
    ValueError
        If it lacks a spread, or one is no finite number of at least 0; names them.
    """
    fitted = load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME]
    if set(fitted.spread) != set(SPREADS):
        raise ValueError(f"{CALIBRATION_NAME}: spread has {', '.join(fitted.spread)}, needed are {', '.join(SPREADS)}")
    if wrong := {key: v for key, v in fitted.spread.items() if not 0 <= v < math.inf}:
        raise ValueError(f"{CALIBRATION_NAME}: spread is {wrong}, allowed are finite numbers of at least 0")
    return fitted


def half_widths(
    group: Group,
    load: tuple[Array, Array, Array, Array],
    prefill_s: Array,
    step_s: Array,
    spread: Mapping[str, float] | None = None,
) -> HalfWidths:
    """Half-widths of a run whose first token takes ``prefill_s`` and each further one ``step_s``.

    Parameters
    ----------
    load
        Sequences, tokens of each prompt, tokens generated for it, pipeline stages.
    spread
        `SPREADS` of whole runs; the stored ones by default.
    """
    batch, prompt, new, stages = load
    known = fitted_serving().spread if spread is None else spread
    micro, steps, passes = np.ceil(batch / stages), new - 1, 2 - 1 / stages
    fill, each = kernel_errors_s(group, micro * prompt), kernel_errors_s(group, micro)
    first = fill[0] * passes, fill[1] * passes
    later = (np.where(steps > 0, np.maximum(steps, 1) * side, 0.0) for side in each)  # a bound's is infinite
    faster, slower = (start + rest for start, rest in zip(first, later, strict=True))
    total_s = prefill_s + steps * step_s
    return HalfWidths(
        run=_joined(_half_widths((faster, slower), total_s), run_half_width(group, prefill_s / total_s, known)),
        prefill=_joined(_half_widths(first, prefill_s), run_half_width(group, 1.0, known)),
        step=_joined(_half_widths(each, step_s), run_half_width(group, 0.0, known)),
    )


def run_half_width(group: Group, prefill_share: ArrayLike, spread: Mapping[str, float]) -> Array:
    """Half-width that runs give to a time of which ``prefill_share`` is prefill, without the kernels' part."""
    away = group.gpu.key not in load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME].gpus
    prefill = spread["prefill"] * np.asarray(prefill_share, dtype=np.float64)
    # That of engines is measured on other GPUs than those of their fits too.
    own = spread["system"] if group.system.engine.flash else np.hypot(spread["inside"], away * spread["gpu"])
    return np.hypot(own, prefill)


def kernel_errors_s(group: Group, n: Array) -> Sides:
    """Seconds by which the prunable products of a pass over ``n`` tokens may be faster, and slower, than predicted."""
    fits = kernel_fits()
    errors = [*_errors_of_experts(group, n, fits), *_errors_of_plain(group, n, fits)]
    faster, slower = zip(*errors, strict=True)
    together = group.system.kernel is not None and group.system.kernel not in fits
    sides = (np.stack(np.broadcast_arrays(*side)) for side in (faster, slower))
    first, second = (np.sum(s, axis=0) if together else np.sqrt(np.sum(s**2, axis=0)) for s in sides)
    if group.system.is_bound:
        second = np.full(np.shape(second), np.inf)
    return np.asarray(first), np.asarray(second)


def _errors_of_experts(group: Group, n: Array, fits: Mapping[str, FittedKernel]) -> Iterator[Sides]:
    for matrix in group.matrices:
        if not (matrix.prunable and matrix.grouped):
            continue
        active, tokens = matrix.products(n * group.expert_parallel)
        for system, sparsity, share in group.stored(matrix):
            shape = Shape(np.ceil(active * matrix.m), matrix.k, tokens, sparsity)  # whole rows, as `experts` has it
            time_s, low, high = _product_interval_s(group, system, shape, fits)
            taken = matrix.layers * share * product(group, system, matrix, sparsity, n).time_s / time_s
            yield taken * (time_s - low), taken * (high - time_s)


def _errors_of_plain(group: Group, n: Array, fits: Mapping[str, FittedKernel]) -> Iterator[Sides]:
    for part in plain_products(group, n):
        if not part.prunable:
            continue
        time_s, low, high = _product_interval_s(group, part.system, Shape(part.m, part.k, n, part.sparsity), fits)
        taken = part.each(part_s(group, part, n) / time_s)
        yield from zip(taken * (time_s - low), taken * (high - time_s), strict=True)


def _product_interval_s(
    group: Group, system: System, shape: Shape, fits: Mapping[str, FittedKernel]
) -> tuple[Array, Array, Array]:
    """Seconds of a product and its interval: of the system's kernel, or of cuBLAS where weights stay dense.

    A format without a kernel of its own is read as cuBLAS reads, so it errs as cuBLAS does.
    """
    sparse = system.stores_sparse(shape.sparsity)
    if system.kernel is not None and sparse.all():
        return _interval_s(group, system.kernel, shape, fits)
    dense = _interval_s(group, BASELINE, shape, fits)
    if system.kernel is None:
        scale = format_product(system.format, group.machine, shape, system.call).time_s / dense[0]
        own = tuple(scale * seconds for seconds in dense)
    else:
        own = _interval_s(group, system.kernel, shape, fits)
    time_s, low, high = (np.where(sparse, a, b) for a, b in zip(own, dense, strict=True))
    return time_s, low, high


def _interval_s(
    group: Group, kernel: str, shape: Shape, fits: Mapping[str, FittedKernel]
) -> tuple[Array, Array, Array]:
    """Of a kernel itself: a system says which it runs, so variants of the same name do not widen its interval."""
    model = KERNELS[kernel]
    call = group.system.call
    result = model.time(group.machine, shape, calibrated(kernel), call)
    ends = interval(model, fits, group.gpu.key, group.machine, shape, call, result, variants=False)
    return result.time_s, *ends


def _half_widths(error_s: Sides, seconds: Array) -> Sides:
    """Half-widths of the log of ``seconds`` that may be off by ``error_s``; none falls below a hundredth."""
    return -np.log(np.maximum(1 - error_s[0] / seconds, 0.01)), np.log(1 + error_s[1] / seconds)


def _joined(kernels: Sides, own: Array) -> Sides:
    return np.sqrt(own**2 + kernels[0] ** 2), np.sqrt(own**2 + kernels[1] ** 2)
