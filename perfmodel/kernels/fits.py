"""The stored fits in use: with which parameters a kernel predicts, where its evidence ends, how wide its interval is.

Fits are made in `perfmodel.evidence` and read here. Whether a fit suits its model is checked when it is read: the
catalogue, which reads the file, knows no kernels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import FittedKernel
from perfmodel.kernels.base import KernelModel, Machine, Shape
from perfmodel.kernels.registry import KERNELS, kernel_model

Array = NDArray[np.float64]

FIT_KEYS = {"evidence_range": ("m", "k", "n", "sparsity"), "spread": ("inside", "range", "gpu")}


def kernel_fits() -> dict[str, FittedKernel]:
    """The stored fit of every fitted kernel, by name.

    Raises
    ------
    ValueError
        As `load_calibration`, and if a fit does not suit its kernel's model (`check_kernel_fits`); names file and key.
    """
    return load_calibration(check=check_kernel_fits)


def check_kernel_fits(fits: Mapping[str, FittedKernel]) -> None:
    """Refuse fits that the kernel models cannot use.

    Raises
    ------
    ValueError
        If a kernel is unknown, a key missing or unknown, or a value no finite number of at least 0; names kernel, key,
        value.
    """
    for kernel, fitted in fits.items():
        parameters = tuple(field.name for field in fields(kernel_model(kernel).Parameters))
        for group, needed in ({"parameters": parameters} | FIT_KEYS).items():
            _check_group(f"{kernel}: {group}", getattr(fitted, group), needed)


def _check_group(where: str, values: Mapping[str, float | tuple[float, float]], needed: tuple[str, ...]) -> None:
    if set(values) != set(needed):
        raise ValueError(f"{where} has {', '.join(values) or 'no keys'}, needed are {', '.join(needed)}")
    for key, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(0 <= number < math.inf for number in numbers):
            raise ValueError(f"{where}.{key} is {value}, allowed are finite numbers of at least 0")


def kernel_parameters(fitted: FittedKernel, name: str) -> Any:
    """Parameters of a fit as the model of kernel ``name`` takes them.

    Raises
    ------
    ValueError
        If the fit does not have exactly the model's parameters; names both.
    """
    model = kernel_model(name)
    expected = [f.name for f in fields(model.Parameters)]
    if sorted(fitted.parameters) != sorted(expected):
        raise ValueError(f"calibration of {name} has {sorted(fitted.parameters)}, needed are {sorted(expected)}")
    return model.Parameters(**fitted.parameters)


def calibrated(name: str, calibration: Mapping[str, FittedKernel] | None = None) -> Any:
    """Parameters of kernel ``name`` from the stored calibration, unless one is given; else those it assumes.

    Raises
    ------
    ValueError
        If the calibration lacks a kernel that assumes nothing; names it and those there are.
    """
    stored = kernel_fits() if calibration is None else calibration
    if name not in stored:
        if kernel_model(name).assumed:
            return kernel_model(name).Parameters()
        raise ValueError(f"the calibration has no kernel {name!r}, only {', '.join(stored)}")
    return kernel_parameters(stored[name], name)


def unmeasured_kernels(calibration: Mapping[str, FittedKernel] | None = None) -> tuple[str, ...]:
    """Kernels without evidence: no row of theirs took part in the calibration in use."""
    stored = kernel_fits() if calibration is None else calibration
    return tuple(name for name, model in KERNELS.items() if model.assumed and name not in stored)


def outside_range(
    fitted: FittedKernel, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike
) -> NDArray[np.bool_]:
    """True where sizes, tokens or sparsity leave the range of the evidence the kernel was fitted on."""
    outside = np.asarray(False)
    for column, value in zip(("m", "k", "n", "sparsity"), (m, k, n, sparsity), strict=True):
        low, high = fitted.evidence_range[column]
        array = np.asarray(value, dtype=np.float64)
        outside = outside | (array < low) | (array > high)
    return outside


def extrapolated(
    fitted: FittedKernel | None, gpu: str, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike
) -> NDArray[np.bool_]:
    """True where a prediction leaves the evidence its kernel was fitted on: another GPU, or outside a range.

    Without a fit, everywhere.
    """
    if fitted is None:
        return np.ones(np.broadcast_shapes(*(np.shape(value) for value in (m, k, n, sparsity))), dtype=np.bool_)
    return outside_range(fitted, m, k, n, sparsity) | (gpu not in fitted.gpus)


def half_width(fitted: FittedKernel, gpu: str, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike) -> Array:
    """Half-width of the 90 % interval of the log time; broadcasts."""
    spread = fitted.spread
    outside = outside_range(fitted, m, k, n, sparsity)
    variance = spread["inside"] ** 2 + np.where(outside, spread["range"] ** 2, 0.0)
    if gpu not in fitted.gpus:
        variance = variance + spread["gpu"] ** 2
    return np.sqrt(variance)


def interval(
    model: KernelModel, fitted: FittedKernel | None, gpu: str, machine: Machine, shape: Shape, time_s: Array
) -> tuple[Array, Array]:
    """Seconds at both ends of the interval around ``time_s``, the prediction of ``model``; broadcasts.

    Parameters
    ----------
    fitted
        What the prediction was made with; None if its parameters are assumed.
    gpu, machine
        Catalogue name, and the numbers the model was given.
    """
    if fitted is None:
        fast, slow = (model.time(machine, shape, parameters).time_s for parameters in model.at_ends())
        return fast, slow
    factor = np.exp(half_width(fitted, gpu, shape.m, shape.k, shape.n, shape.sparsity))
    return time_s / factor, time_s * factor
