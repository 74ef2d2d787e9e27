"""How far may a predicted run be off? Half-widths of 90 % intervals, from published runs and from the kernels.

Two errors join as the root of the sum of squares. One is that of whole runs, measured on published ones that no fit has
seen (`perfmodel.evidence.run_spread`): ``inside`` for FasterTransformer and what is built on it, on the GPU of the fit;
more on another ``gpu``; more for another ``system``, whose host and attention are its own; and more for the ``prefill``,
by its share of the time. The other is that of the kernels: each shape of a layer may be off by its kernel's own
interval, independently of the others, and weighs as much as its time does. Where nobody measured a kernel, all its
shapes are off together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import FittedKernel
from perfmodel.kernels import KERNELS, Shape
from perfmodel.kernels.call import FIRST_CALL
from perfmodel.kernels.fits import calibrated, interval, kernel_fits
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.passes import Group
from perfmodel.serving.systems import BASELINE, CALIBRATION_NAME, ENGINES
from perfmodel.serving.transformer import layer_matrices

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
    group: Group, batch: Array, prompt: Array, new: Array, stages: Array, prefill_s: Array, step_s: Array
) -> HalfWidths:
    """Half-widths of a run of ``new`` steps, of which the first takes ``prefill_s`` and each other ``step_s``."""
    micro = np.ceil(batch / stages)
    steps, passes = new - 1, 2 - 1 / stages
    first = tuple(side * passes for side in kernel_errors_s(group, micro * prompt))
    each = kernel_errors_s(group, micro)
    both = (first[0] + steps * each[0], first[1] + steps * each[1])
    total_s = prefill_s + steps * step_s
    widths = (
        _joined(kernels_s, seconds, run_half_width(group, share))
        for kernels_s, seconds, share in (
            (both, total_s, prefill_s / total_s), ((first[0], first[1]), prefill_s, 1.0), (each, step_s, 0.0)
        )
    )  # fmt: skip
    return HalfWidths(*widths)


def run_half_width(group: Group, prefill_share: ArrayLike, spread: Mapping[str, float] | None = None) -> Array:
    """Half-width that runs themselves give to a time of which ``prefill_share`` is prefill, without the kernels' part."""
    fitted = fitted_serving() if spread is None else None
    known = spread if spread is not None else fitted.spread  # type: ignore[union-attr]
    gpus = load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME].gpus
    variance = known["inside"] ** 2 + (known["prefill"] * np.asarray(prefill_share)) ** 2
    variance = variance + (known["gpu"] ** 2 if group.gpu.key not in gpus else 0.0)
    return np.sqrt(variance + (known["system"] ** 2 if group.system.name in ENGINES else 0.0))


def kernel_errors_s(group: Group, n: Array) -> Sides:
    """Seconds by which the prunable products of a pass over ``n`` tokens may be faster, and slower, than predicted."""
    shape, fits = group.model.shape, kernel_fits()
    faster: list[Array] = []
    slower: list[Array] = []
    for matrix in layer_matrices(shape, group.p):
        if not matrix.prunable:
            continue
        count, tokens = matrix.products(n)
        product = Shape(matrix.m, matrix.k, tokens, group.sparsity)
        time_s, low, high = _product_interval_s(group, product, fits)
        faster.append(shape.layers * count * (time_s - low))
        slower.append(shape.layers * count * (high - time_s))
    together = group.system.kernel is not None and group.system.kernel not in fits
    sides = (np.stack(np.broadcast_arrays(*side)) for side in (faster, slower))
    first, second = (np.sum(s, axis=0) if together else np.sqrt(np.sum(s**2, axis=0)) for s in sides)
    return np.asarray(first), np.asarray(second)


def _product_interval_s(group: Group, shape: Shape, fits: Mapping[str, FittedKernel]) -> tuple[Array, Array, Array]:
    """Seconds of a product and its interval: of the system's kernel, or of cuBLAS where weights stay dense."""
    own = _interval_s(group, group.system.kernel or BASELINE, shape, fits)
    dense = _interval_s(group, BASELINE, shape, fits)
    sparse = group.system.stores_sparse(shape.sparsity)
    time_s, low, high = (np.where(sparse, a, b) for a, b in zip(own, dense, strict=True))
    return time_s, low, high


def _interval_s(
    group: Group, kernel: str, shape: Shape, fits: Mapping[str, FittedKernel]
) -> tuple[Array, Array, Array]:
    model = KERNELS[kernel]
    result = model.time(group.machine, shape, calibrated(kernel), FIRST_CALL)
    low, high = interval(model, fits, group.gpu.key, group.machine, shape, FIRST_CALL, result)
    return result.time_s, low, high


def _joined(kernels_s: Sides, seconds: Array, own: Array) -> Sides:
    """Both errors of a time of ``seconds``, towards faster and slower; no time falls below a hundredth."""
    faster = -np.log(np.maximum(1 - kernels_s[0] / seconds, 0.01))
    slower = np.log(1 + kernels_s[1] / seconds)
    return np.sqrt(own**2 + faster**2), np.sqrt(own**2 + slower**2)
