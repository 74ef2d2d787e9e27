"""What every kernel model shares: the machine it sees, its free parameters, and how resource times combine.

A kernel model counts the work a kernel gives to each resource (DRAM, L2, shared memory, Tensor or CUDA cores) and
turns it into seconds. Resources overlap imperfectly; `overlap` is the smooth maximum that joins them. Everything
broadcasts: sizes, sparsity and the machine's numbers may be scalars or arrays of any compatible shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.specs import LARGEST_SIZE, Bound, Gpu
from perfmodel.formats import FORMATS, WeightFormat, check_sparsity
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]
Number = float | Array


@dataclass(frozen=True)
class Machine:
    """The few GPU numbers a kernel model uses; each a scalar, or an array to sweep over hardware."""

    sm_count: Number
    clock_hz: Number
    dram_bytes_per_s: Number
    l2_bytes_per_s: Number
    l2_bytes: Number
    l1_bytes: Number
    shared_bytes_per_clock: Number
    shared_bytes_per_sm: Number
    shared_bytes_per_block: Number
    registers_per_sm: Number
    warps_per_sm: Number
    tensor_flops_per_s: Number
    simt_flops_per_s: Number

    @classmethod
    def of(cls, gpu: Gpu) -> Machine:
        """Pick the numbers of one catalogue GPU."""
        return cls(
            sm_count=gpu.clock.sm_count,
            clock_hz=gpu.clock.boost_hz,
            dram_bytes_per_s=gpu.dram.bandwidth_bytes_per_s,
            l2_bytes_per_s=gpu.l2.bandwidth_bytes_per_s,
            l2_bytes=gpu.l2.size_bytes,
            l1_bytes=gpu.sm.shared_memory_bytes,
            shared_bytes_per_clock=gpu.sm.shared_bytes_per_clock,
            shared_bytes_per_sm=gpu.sm.shared_memory_bytes,
            shared_bytes_per_block=gpu.sm.shared_memory_per_block_bytes,
            registers_per_sm=gpu.sm.registers,
            warps_per_sm=gpu.sm.max_warps,
            tensor_flops_per_s=gpu.peak.fp16_tensor,
            simt_flops_per_s=gpu.peak.fp32_simt,
        )

    @classmethod
    def stack(cls, gpus: list[Gpu], index: ArrayLike) -> Machine:
        """One machine whose numbers are arrays: element ``i`` describes ``gpus[index[i]]``."""
        machines = [cls.of(gpu) for gpu in gpus]
        rows = np.asarray(index)
        columns = {f.name: np.array([getattr(m, f.name) for m in machines], dtype=np.float64) for f in fields(cls)}
        return cls(**{name: column[rows] for name, column in columns.items()})

    def with_(self, **changes: Number) -> Machine:
        """Copy with some numbers replaced: a what-if machine."""
        return replace(self, **changes)

    @property
    def sm_cycles_per_s(self) -> Number:
        """SM clock cycles per second, all SMs together."""
        return self.sm_count * self.clock_hz


def free(initial: float, low: float, high: float, meaning: str, *, fast: Literal["low", "high"] = "low") -> Any:
    """Declare a free parameter of a kernel model: start value, physical range, meaning with unit.

    ``fast`` is the end of the range where the kernel is fastest; it matters only where the parameter is assumed.
    """
    return field(default=initial, metadata={"low": low, "high": high, "meaning": meaning, "fast": fast})


@dataclass(frozen=True)
class Shape:
    """Matrix products ``C[m, n] = A[m, k] @ B[k, n]`` with ``sparsity`` of A; float arrays that broadcast."""

    m: Array
    k: Array
    n: Array
    sparsity: Array

    @classmethod
    def of(cls, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike) -> Shape:
        """Check and convert.

        Raises
        ------
        ValueError
            If a size is not positive or a sparsity is outside [0, 1]; names the quantity and the value.
        """
        sizes = []
        for letter, value in zip("mkn", (m, k, n), strict=True):
            size = np.asarray(value, dtype=np.float64)
            if np.any(~((size >= 1) & (size < np.inf))):
                raise ValueError(f"{letter} must be at least 1, got {float(np.min(size)):g}")
            if np.any(size > LARGEST_SIZE):
                raise ValueError(f"{letter} must be at most 2**40, got {float(np.max(size)):g}")
            sizes.append(size)
        m_, k_, n_ = sizes
        return cls(m_, k_, n_, check_sparsity(sparsity))

    @property
    def weights(self) -> Array:
        """Elements of A, zeros included."""
        return self.m * self.k

    @property
    def activation_bytes(self) -> Array:
        """Bytes of B and C in FP16, each moved once."""
        return FP16_BYTES * self.n * (self.m + self.k)

    @property
    def nnz(self) -> Array:
        """Expected non-zeros of A."""
        return (1 - self.sparsity) * self.weights


@dataclass(frozen=True)
class KernelTime:
    """Predicted time of a kernel and the resource times it is made of.

    Attributes
    ----------
    time_s : ndarray
        Seconds of one call, launches included.
    terms : dict
        Seconds each resource would take alone, by `Bound`.
    dram_bytes : ndarray
        Bytes over DRAM.
    """

    time_s: Array
    terms: dict[Bound, Array]
    dram_bytes: Array

    @property
    def bound(self) -> NDArray[np.object_]:
        """The resource with the longest time, as `Bound` members."""
        names = np.array(list(self.terms), dtype=object)
        stacked = np.stack(np.broadcast_arrays(*self.terms.values(), self.time_s)[:-1])
        return np.asarray(names[np.argmax(stacked, axis=0)], dtype=object)


class KernelModel(ABC):
    """A modelled kernel: which format it reads, which N it takes, how long it runs.

    Where nobody has measured the kernel its parameters are ``assumed``: the defaults of ``Parameters``, within their
    ranges. Its predictions are then extrapolations, and their interval is what the ranges span.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    format_name: ClassVar[str]
    Parameters: ClassVar[type]
    assumed: ClassVar[bool] = False

    @property
    def format(self) -> WeightFormat:
        """Weight format the kernel reads."""
        return FORMATS[self.format_name]

    def padded_n(self, n: ArrayLike) -> Array:
        """Smallest N the kernel accepts that holds ``n`` tokens, NaN if none does; the identity where any N will do."""
        return np.asarray(n, dtype=np.float64)

    supported_n = "any N"

    def at_ends(self) -> tuple[Any, Any]:
        """Parameters with all ranges at their fast ends together, and at their slow ends."""
        declared = fields(self.Parameters)
        slow = {"low": "high", "high": "low"}
        return (
            self.Parameters(**{f.name: f.metadata[f.metadata["fast"]] for f in declared}),
            self.Parameters(**{f.name: f.metadata[slow[f.metadata["fast"]]] for f in declared}),
        )

    @abstractmethod
    def time(self, machine: Machine, shape: Shape, p: Any) -> KernelTime:
        """Predict the time of ``shape`` on ``machine`` with the free parameters ``p``."""


def overlap(first: Number, second: Number, sharpness: int) -> Number:
    """Smooth maximum of two times, ``(a^p + b^p)^(1/p)`` with ``p = 2**sharpness``.

    p = 2 for stages that hide each other poorly, p = 8 for a deep asynchronous pipeline. Squares and square roots
    only, because a power of arrays is twenty times slower.
    """
    largest = np.maximum(first, second)
    ratio: Number = np.minimum(first, second) / np.maximum(largest, 1e-300)
    for _ in range(sharpness):
        ratio = ratio * ratio
    total: Number = 1.0 + ratio
    for _ in range(sharpness):
        total = np.sqrt(total)
    return largest * total


def ceil_div(size: Number, tile: Number) -> Array:
    """Tiles that cover ``size``, as floats."""
    return np.ceil(np.asarray(size, dtype=np.float64) / tile)


def imbalance(blocks: Number, sm_count: Number) -> Array:
    """Slowdown because SMs get whole blocks: busiest SM over the average one, at least 1."""
    per_sm = np.asarray(blocks, dtype=np.float64) / sm_count
    return np.ceil(per_sm) / per_sm
