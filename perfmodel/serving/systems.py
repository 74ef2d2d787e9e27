"""Inference systems: which kernel multiplies the pruned matrices, and the few numbers all systems share.

The numbers are global: one set for every model, GPU and number of GPUs. They describe what a kernel model, calibrated
on back-to-back launches, cannot see: launches between the products, waiting for other GPUs, waiting inside attention. A
product costs what its kernel model says and nothing beyond, sparse or dense: sources disagree on more, and together
they ask for none. The KV cache is read at the rate of any long read, which a share left free comes out at too.
``fastertransformer+NAME`` is FasterTransformer with the products of another kernel or weight format, ``vllm+NAME``
vLLM. vLLM's host plans each step and samples its tokens before the next begins; that is a fit of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import Bound, Gpu, Launch, Precision
from perfmodel.formats import FORMATS, PATTERNS, WeightFormat, break_even_sparsity
from perfmodel.kernels import BASELINE, BOUNDED, KERNELS, Call, Machine, Shape
from perfmodel.kernels.base import PATTERN_TOLERANCE, check_pattern, free, missing_cores, overlap
from perfmodel.kernels.dense import OVERLAP_SHARPNESS
from perfmodel.kernels.fits import calibrated
from perfmodel.kernels.low_precision import SixEight
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]

CALIBRATION_NAME = "serving"
FLASH_LLM_DENSE_BELOW = 0.5  # the released system keeps matrices of less sparsity dense
HOST = "fastertransformer"
VLLM = "vllm"  # its name, and that of the fit of its host


@dataclass(frozen=True)
class SystemParameters:
    """Free parameters of whole-model runs, the same for all models and GPUs."""

    attention_cycles: float = free(60.0, 0.0, 300.0, "SM cycles that a layer's attention waits per token of context")
    launch_s: float = free(5e-6, 5e-7, 2e-5, "seconds of a small kernel between the products: norm, activation, ...")
    row_s: float = free(1e-6, 0.0, 5e-6, "seconds that a layer's small kernels take for each sequence")
    all_reduce_wait_cycles: float = free(
        4e4, 0.0, 1.5e5, "SM cycles an all-reduce amid other kernels takes beyond its own"
    )
    deepspeed_layer_s: float = free(5e-5, 0.0, 3e-4, "seconds a layer takes longer in DeepSpeed")


@dataclass(frozen=True)
class HostParameters:
    """Free parameters of an engine whose host works between the steps, the same for all models and GPUs."""

    step_s: float = free(2e-3, 0.0, 2e-2, "seconds of a decoding step in which the GPU waits for the host")
    prefill_s: float = free(4e-2, 0.0, 2e-1, "seconds that the host needs to launch and end a prefill, at least")


NO_HOST = HostParameters(0.0, 0.0)


def calibrated_host(name: str | None) -> HostParameters:
    """The stored fit of an engine's host; nothing for systems that need none."""
    return NO_HOST if name is None else HostParameters(**load_calibration(CALIBRATION_FILE)[name].parameters)


def calibrated_systems() -> SystemParameters:
    """The stored fit."""
    return SystemParameters(**load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME].parameters)


@dataclass(frozen=True)
class Attention:
    """How attention reads the KV cache while it decodes.

    Attributes
    ----------
    shares_heads : bool
        Whether query heads that have keys and values in common read them once; else each reads them for itself.
    splits_context : bool
        Whether many blocks share one sequence, as in FlashDecoding; else one block goes through all its context.
    """

    shares_heads: bool = False
    splits_context: bool = False


@dataclass(frozen=True)
class System:
    """One inference system.

    Attributes
    ----------
    name, title : str
        What users type, what figures show.
    format : WeightFormat
        How pruned matrices are stored.
    kernel : str or None
        Kernel model of their products; None: a kernel that reads the format as well as cuBLAS reads dense weights.
    dense_below : float
        Matrices of less sparsity are stored and multiplied dense; 0 where the format asks for no sparsity.
    deepspeed : bool
        Whether DeepSpeed's extra time per layer applies.
    attention : Attention
        How it reads the KV cache; FasterTransformer's way by default.
    launch : Launch
        How it starts the kernels of its products: in a stream, or replayed from a CUDA graph.
    host : str or None
        Name of the fit of its host, for engines whose host is waited for.
    pattern : float or None
        Sparsity of the pattern that the format was asked for by; None where the kernel has patterns, or none is.
    """

    name: str
    title: str
    format: WeightFormat
    kernel: str | None
    dense_below: float = 0.0
    deepspeed: bool = False
    attention: Attention = Attention()
    launch: Launch = Launch.STREAM
    host: str | None = None
    pattern: float | None = None

    def refusal(self, gpu: Gpu) -> str | None:
        """Why it does not run on ``gpu``, in a sentence; None where it does.

        Of a format without a kernel model it asks for the Tensor Cores that its products take.
        """
        if self.kernel is not None:
            return KERNELS[self.kernel].refusal(gpu)
        if self.format.activations not in list(Precision):
            return None
        missing = missing_cores(gpu, Precision(self.format.activations), sparse=self.pattern is not None)
        return missing and f"{missing}, which format {self.format.name!r} needs"

    def own_sparsity(self, sparsity: ArrayLike) -> Array:
        """Sparsity at which it runs a model pruned to ``sparsity``: that of its pattern, if it has one."""
        if self.pattern is not None:
            return np.full(np.shape(sparsity), self.pattern)
        return np.asarray(sparsity) if self.kernel is None else KERNELS[self.kernel].own_sparsity(sparsity)

    @property
    def patterns(self) -> tuple[float, ...]:
        """Sparsities of its patterns; none where any sparsity will do."""
        if self.pattern is not None:
            return (self.pattern,)
        return () if self.kernel is None else KERNELS[self.kernel].patterns

    def takes_sparsity(self, sparsity: ArrayLike) -> NDArray[np.bool_]:
        """True where it is the sparsity of its pattern; everywhere without one."""
        asked = np.asarray(sparsity, dtype=np.float64)
        return np.abs(self.own_sparsity(asked) - asked) < PATTERN_TOLERANCE

    def check_sparsity(self, sparsity: Array) -> None:
        """Refuse sparsities that are not those of its pattern.

        Raises
        ------
        ValueError
            Names the system or its kernel, the value, and what is allowed.
        """
        if self.pattern is None:
            if self.kernel is not None:
                check_pattern(KERNELS[self.kernel], sparsity)
            return
        wrong = ~self.takes_sparsity(sparsity)
        if wrong.any():
            bad = np.ravel(sparsity)[np.argmax(wrong)]
            raise ValueError(f"{self.name} takes the sparsity of its pattern, {self.pattern:.3g}, got {bad:g}")

    @property
    def call(self) -> Call:
        """How it calls a product: each weight was last read a whole forward pass ago, so none is in the caches."""
        return Call(graph=self.launch is Launch.GRAPH)

    def stores_sparse(self, sparsity: Array) -> NDArray[np.bool_]:
        """True where prunable matrices are stored in the system's own format."""
        return np.asarray(sparsity >= self.dense_below)

    def prunable_bytes(self, m: Array, k: Array, sparsity: Array) -> Array:
        """Bytes of a prunable matrix as this system stores it."""
        dense = FORMATS["dense"].bytes_of(m, k, sparsity)
        return np.where(self.stores_sparse(sparsity), self.format.bytes_of(m, k, sparsity), dense)

    def prunable_time(self, machine: Machine, shape: Shape) -> Array:
        """Seconds of one product with a prunable matrix."""
        dense = dense_time(machine, shape, self.call)
        if self.kernel == BASELINE:
            return dense
        if self.kernel is None:
            own = format_time(self.format, machine, shape, self.call)
        else:
            model = KERNELS[self.kernel]
            padded = replace(shape, n=model.padded_n(shape.n))
            own = model.time(machine, padded, calibrated(self.kernel), self.call).time_s
        return np.where(self.stores_sparse(shape.sparsity), own, dense)


def dense_time(machine: Machine, shape: Shape, call: Call) -> Array:
    """Seconds of cuBLAS."""
    return KERNELS[BASELINE].time(machine, shape, calibrated(BASELINE), call).time_s


def format_time(fmt: WeightFormat, machine: Machine, shape: Shape, call: Call) -> Array:
    """Seconds of an ideal kernel of ``fmt``: its bytes at cuBLAS's efficiency, decoding hidden.

    A lower bound for formats without a kernel model of their own.
    """
    dense = KERNELS[BASELINE].time(machine, shape, calibrated(BASELINE), call)
    moved = fmt.bytes_of(shape.m, shape.k, shape.sparsity) + FP16_BYTES * shape.n * (shape.m + shape.k)
    memory_s = dense.terms[Bound.MEMORY] * moved / dense.dram_bytes
    busy_s = overlap(memory_s, dense.terms[Bound.COMPUTE], OVERLAP_SHARPNESS)
    return np.asarray(dense.terms[Bound.LATENCY] + busy_s)


_DENSE = FORMATS["dense"]
SYSTEMS: dict[str, System] = {
    entry.name: entry
    for entry in (
        System("flash-llm", "Flash-LLM", FORMATS["tiled-csl"], "flash-llm", dense_below=FLASH_LLM_DENSE_BELOW),
        System(HOST, "FasterTransformer", _DENSE, BASELINE),
        System("deepspeed", "DeepSpeed", _DENSE, BASELINE, deepspeed=True),
    )
}


# Engines whose runs are at hand: FasterTransformer's launches with attention of their own. What else sets them apart
# (graphs, the host's time, all-reduces of their own) is not modelled but in vLLM, so no plan proposes them.
ENGINES: dict[str, System] = {
    entry.name: entry
    for entry in (
        System("lmdeploy", "LMDeploy", _DENSE, BASELINE, attention=Attention(True, True)),
        System("tensorrt-llm", "TensorRT-LLM", _DENSE, BASELINE, attention=Attention(True, True)),
        System(VLLM, "vLLM", _DENSE, BASELINE, attention=Attention(True, True), launch=Launch.GRAPH, host=VLLM),
    )
}


@cache
def load_system(name: str) -> System:
    """System that users call ``name``.

    Raises
    ------
    ValueError
        If there is none (suggests the nearest and lists all), or its kernel's time is known as a bound only.
    """
    if found := SYSTEMS.get(name) or ENGINES.get(name):
        return found
    host, plus, part = name.partition("+")
    if host in (HOST, VLLM) and plus:
        if part in KERNELS or part in FORMATS:
            return _hosted(host, part)
        raise ValueError(f"system {name!r}: {unknown_name('kernel or format', part, [*KERNELS, *FORMATS])}")
    raise ValueError(unknown_name("system", name, [*SYSTEMS, *ENGINES, f"{HOST}+NAME", f"{VLLM}+NAME"]))


def _hosted(host: str, part: str) -> System:
    # A variant that borrows its parameters is chosen by its own name only.
    by_format: dict[str, Any] = {model.format_name: key for key, model in KERNELS.items() if model.borrows is None}
    by_format |= {pattern: SixEight.name for pattern, share in PATTERNS.items() if share in SixEight.patterns}
    kernel = part if part in KERNELS else by_format.get(part)
    named = () if part in KERNELS else (share for name, share in PATTERNS.items() if name in part.split("-"))
    pattern = next(iter(named), None)
    if kernel in BOUNDED:
        raise ValueError(
            f"system '{host}+{part}': of {kernel} only a lower bound of the time is known, so no run is predicted"
        )
    if kernel is not None and KERNELS[kernel].one_token:
        raise ValueError(
            f"system '{host}+{part}': {kernel} takes N of {KERNELS[kernel].supported_n}, so it reads no prompt; "
            "see it for single products (lscd predict) and a decoding step (lscd worth)"
        )
    fmt = KERNELS[part].format if part in KERNELS else FORMATS[part]
    even = break_even_sparsity(fmt, _DENSE) if fmt.depends_on_sparsity else 0.0
    dense_below = np.inf if even is None else even
    base = SYSTEMS.get(host) or ENGINES[host]
    title = f"{base.title} with {KERNELS[kernel].title if kernel else fmt.title}"
    return replace(
        base, name=f"{host}+{part}", title=title, format=fmt, kernel=kernel, dense_below=dense_below, pattern=pattern
    )
