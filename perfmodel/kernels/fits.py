"""The stored fits in use: with which parameters a kernel predicts, where its evidence ends, how wide its interval is.

Fits are made in `perfmodel.evidence` and read here. Whether a fit suits its model is checked when it is read: the
catalogue, which reads the file, knows no kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.records import LARGEST_SIZE
from perfmodel.catalog.specs import FittedKernel
from perfmodel.kernels.base import Call, KernelModel, KernelTime, Machine, Shape
from perfmodel.kernels.own import SETTING
from perfmodel.kernels.registry import KERNELS, kernel_model

Array = NDArray[np.float64]

SPREADS = ("inside", "many", "resident", "latency", "range", "gpu")
MANY_TOKENS = 64  # beyond, Tensor Cores and the choice of tiles decide, and errors are of another kind
WIDEST_SPREAD = 10.0  # of a log error: a factor of 20,000
ROUNDED = 1e-5  # by which six digits of a parameter may leave its range
EVIDENCE_LIMITS = {"m": (0, LARGEST_SIZE), "k": (0, LARGEST_SIZE), "n": (0, LARGEST_SIZE), "sparsity": (0, 1)}


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
        If a kernel is unknown, a key missing or unknown, a parameter outside its declared range, an interval wider than
        `WIDEST_SPREAD`, or a range of the evidence no sizes; names kernel, key, value and what is allowed.
    """
    missing = [name for name, model in KERNELS.items() if not model.assumed and name not in fits]
    if missing:
        raise ValueError(f"no kernel {missing[0]!r} in this calibration; make it anew with `lscd calibrate`")
    if strange := [name for name in fits if name not in KERNELS]:
        raise ValueError(f"{unknown_name('kernel', strange[0], KERNELS)}; the class of your own is named by {SETTING}")
    for kernel, fitted in fits.items():
        declared = fields(kernel_model(kernel).Parameters)
        limits = {field.name: (field.metadata["low"], field.metadata["high"]) for field in declared}
        _check_group(f"{kernel}: parameters", fitted.parameters, limits)
        _check_group(f"{kernel}: evidence_range", fitted.evidence_range, EVIDENCE_LIMITS)
        _check_group(f"{kernel}: spread", fitted.spread, dict.fromkeys(SPREADS, (0, WIDEST_SPREAD)))
        _check_group(f"{kernel}: at_home", fitted.at_home, dict.fromkeys(fitted.at_home, (0, WIDEST_SPREAD)))


def _check_group(
    where: str, values: Mapping[str, float | tuple[float, float]], limits: Mapping[str, tuple[float, float]]
) -> None:
    if set(values) != set(limits):
        words = f"{where} has {', '.join(values) or 'no keys'}, needed are {', '.join(limits)}"
        raise ValueError(f"{words}; make it anew with `lscd calibrate`")
    for key, value in values.items():
        low, high = limits[key]
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(low * (1 - ROUNDED) <= number <= high * (1 + ROUNDED) for number in numbers):
            raise ValueError(f"{where}.{key} is {value}, allowed is {low:g} to {high:g}")


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


def half_width(
    model: KernelModel, fitted: FittedKernel, gpu: str, machine: Machine, shape: Shape, call: Call, result: KernelTime
) -> Array:
    """Half-width of the 90 % interval of the log time of ``result``; broadcasts.

    The error of its kind of product (few tokens, many, or weights in the L2) grows with the share that latency has of
    the time, and joins those of leaving the evidence's range and GPUs as the root of the sum of squares.
    """
    spread = fitted.spread
    weight_bytes = model.format.bytes_of(shape.m, shape.k, shape.sparsity)
    kind = np.where(shape.n > MANY_TOKENS, spread["many"], fitted.at_home.get(gpu, spread["inside"]))
    kind = np.where(call.resident(machine, weight_bytes), spread["resident"], kind)
    outside = outside_range(fitted, shape.m, shape.k, shape.n, shape.sparsity)
    variance = (kind + spread["latency"] * result.latency_share) ** 2 + np.where(outside, spread["range"] ** 2, 0.0)
    return np.asarray(np.sqrt(variance + (0.0 if gpu in fitted.gpus else spread["gpu"] ** 2)))


def interval(
    model: KernelModel,
    fits: Mapping[str, FittedKernel],
    gpu: str,
    machine: Machine,
    shape: Shape,
    call: Call,
    result: KernelTime,
    *,
    variants: bool = True,
) -> tuple[Array, Array]:
    """Seconds at both ends of the interval around the time of ``result``, the prediction of ``model``; broadcasts.

    Where the kernel has no fit, what its assumed parameters span. Where another variant goes by the same name, the
    interval reaches to that one's inside the evidence; where only a lower bound is known, to infinity.

    Parameters
    ----------
    fits
        The fits in use, by kernel.
    gpu, machine
        Catalogue name, and the numbers the model was given.
    variants : bool
        False where it is known that no other variant is meant.
    """
    if model.name not in fits:
        fast, slow = (model.time(machine, shape, parameters, call).time_s for parameters in model.at_ends())
        return fast, slow
    factor = np.exp(half_width(model, fits[model.name], gpu, machine, shape, call, result))
    low, high = result.time_s / factor, result.time_s * factor
    if variants and model.slower_variant is not None and model.slower_variant in fits:
        variant = kernel_model(model.slower_variant)
        slower = variant.time(machine, shape, kernel_parameters(fits[variant.name], variant.name), call)
        high = np.maximum(high, slower.time_s * np.exp(fits[variant.name].spread["inside"]))
    bounded = model.at_least(shape)
    return np.where(bounded, result.time_s, low), np.where(bounded, np.inf, high)
