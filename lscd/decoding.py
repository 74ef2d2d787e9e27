"""What our decoder is predicted to take for a step on a CPU that `lscd measure` has measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.catalog import load_device
from perfmodel.catalog.cpu import THREADS_MARK, Cpu
from perfmodel.serving.cpu_decoding import Weights, host_fit, step_s
from perfmodel.units import FP32_BYTES

if TYPE_CHECKING:
    from kernels_numba.decoder.model import Decoder

KERNELS = {  # by what holds the weights, and their element
    ("ndarray", None): "numpy-fp32",
    ("Dense", "float16"): "cpu-dense16",
    ("CpuBitmap", "float16"): "cpu-bitmap",
    ("CpuBitmap", "bfloat16"): "cpu-bitmap-bf16",
    ("PanelCsr", "float16"): "cpu-panel-csr",
}


@dataclass(frozen=True)
class Speed:
    """Predicted seconds of a step with their 90 % interval, as far as our own steps tell; ``measured`` on this CPU."""

    kernel: str
    step_s: float
    lo_s: float
    hi_s: float
    measured: bool


def this_cpu(name: str, threads: int) -> Cpu:
    """The CPU of a file or of the catalogue, with so many threads in use.

    Raises
    ------
    ValueError
        If it is unknown, a GPU, or was not measured with so many threads.
    """
    device = load_device(name)
    if not isinstance(device, Cpu):
        raise ValueError(f"--gpu is {name}, a GPU, and text is generated on a CPU: see `lscd measure --out this.toml`")
    if THREADS_MARK in name and device.in_use != threads:
        raise ValueError(f"--gpu is {name}, allowed here are {threads} threads in use: those of --threads")
    return device.on(threads)


def kernel_of(decoder: Decoder) -> str | None:
    """Name of the kernel that multiplies all matrices of the layers; None if they differ or it has no model."""
    found = {
        (type(weight).__name__, getattr(weight, "element", None))
        for weight in (decoder.weights[name] for name in decoder.config.stored(decoder.weights))
    }
    return KERNELS.get(next(iter(found))) if len(found) == 1 else None


def predicted(decoder: Decoder, cpu: Cpu, batch: int, context: float) -> Speed | None:
    """Time of a step of ``batch`` sequences with ``context`` tokens each; None for formats without a CPU kernel."""
    kernel, config = kernel_of(decoder), decoder.config
    if kernel is None:
        return None
    weights = []
    for name in [*config.stored(decoder.weights), decoder.head]:
        weight = decoder.weights[name]
        m, k = weight.shape
        zeros = 1 - weight.nnz / (m * k) if hasattr(weight, "nnz") and kernel != "cpu-dense16" else 0.0
        weights.append(Weights(m, k, zeros, batch, 1, 1))
    cached = 2 * FP32_BYTES * config.layers * config.kv_heads * config.head_dim * batch * context
    attention = config.layers, config.layers * config.heads, cached
    seconds, fitted = step_s(weights, cpu, kernel, batch, context, attention).total_s, host_fit()
    apart = math.exp(fitted.spread["steps"])
    measured = _machine(cpu.key) in map(_machine, fitted.gpus)
    return Speed(kernel, seconds, seconds / apart, seconds * apart, measured)


def _machine(key: str) -> str:
    """Name without the threads in use."""
    return key.partition(THREADS_MARK)[0]
