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

from perfmodel.catalog.specs import LARGEST_SIZE, Bound, Cache, Gpu, Launch
from perfmodel.formats import FORMATS, WeightFormat, check_sparsity
from perfmodel.kernels.limits import kept_share, power_flops_per_s, streamed_share
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]
Number = float | Array

STREAM_LAUNCH_S = 5e-6
L2_READ_SHARE = 0.35
NEWTON_STEPS = 6
RESIDENT_L2_SIZES = 1.1


@dataclass(frozen=True)
class Machine:
    """The few GPU numbers a kernel model uses; each a scalar, or an array to sweep over hardware."""

    sm_count: Number
    clock_hz: Number
    dram_bytes_per_s: Number
    dram_share: Number
    kept_bytes: Number
    l2_bytes_per_s: Number
    l2_bytes: Number
    l1_bytes: Number
    shared_bytes_per_clock: Number
    shared_bytes_per_sm: Number
    shared_bytes_per_block: Number
    registers_per_sm: Number
    warps_per_sm: Number
    tensor_flops_per_s: Number
    power_flops_per_s: Number
    simt_flops_per_s: Number

    @classmethod
    def of(cls, gpu: Gpu) -> Machine:
        """Pick the numbers of one catalogue GPU."""
        return cls(
            sm_count=gpu.clock.sm_count,
            clock_hz=gpu.clock.boost_hz,
            dram_bytes_per_s=gpu.dram.bandwidth_bytes_per_s,
            dram_share=streamed_share(gpu.dram),
            kept_bytes=kept_share(gpu) * gpu.l2.size_bytes,
            l2_bytes_per_s=gpu.l2.bandwidth_bytes_per_s,
            l2_bytes=gpu.l2.size_bytes,
            l1_bytes=gpu.sm.shared_memory_bytes,
            shared_bytes_per_clock=gpu.sm.shared_bytes_per_clock,
            shared_bytes_per_sm=gpu.sm.shared_memory_bytes,
            shared_bytes_per_block=gpu.sm.shared_memory_per_block_bytes,
            registers_per_sm=gpu.sm.registers,
            warps_per_sm=gpu.sm.max_warps,
            tensor_flops_per_s=gpu.peak.fp16_tensor,
            power_flops_per_s=power_flops_per_s(gpu),
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
    def streamed_bytes_per_s(self) -> Number:
        """Bytes/s of a long read of device memory: the datasheet's, times the share its kind of memory reaches."""
        return self.dram_share * self.dram_bytes_per_s

    def tensor_s(self, flops: Number, efficiency: Number) -> Number:
        """Seconds of ``flops`` on the Tensor Cores at ``efficiency`` of their peak, or at what the board can power."""
        return flops / np.minimum(efficiency * self.tensor_flops_per_s, self.power_flops_per_s)

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


def cyclic_misses(working_set: Number) -> Array:
    """Share of reads that miss when a ``working_set``, in sizes of the cache, is read over and over.

    A line must outlive one round, in which every miss throws out a line at random: ``1 - miss = exp(-miss * set)``.
    Nothing misses up to the size of the cache, and 20 % still hit at twice its size.
    """
    x = np.asarray(working_set, dtype=np.float64)
    miss = np.clip(2 * (x - 1) / np.maximum(x, 1) ** 2, 0.0, 1.0)
    for _ in range(NEWTON_STEPS):
        left = np.exp(-miss * x)
        miss = np.where(x > 1, miss - (miss - 1 + left) / np.maximum(1 - x * left, 1e-9), 0.0)
    return miss


@dataclass(frozen=True)
class Call:
    """How a product is called; scalars or arrays that broadcast against the product's sizes.

    Attributes
    ----------
    graph : bool
        Replayed from a CUDA graph, which saves `STREAM_LAUNCH_S` of each launch in a stream.
    warm : bool
        The same product was called before, and finds in the L2 what still is there of it. Otherwise every byte comes
        from device memory, as for the weights of a model that were last read a whole forward pass ago.
    copies : float
        Copies of the weights that warm calls go through in turn, as some benchmarks do.
    split_k : float
        Ways to share K among blocks, NaN for the kernel's own choice. Kernels without split-K ignore it.
    """

    graph: NDArray[np.bool_] | bool = False
    warm: NDArray[np.bool_] | bool = False
    copies: Number = 1.0
    split_k: Number = np.nan

    @classmethod
    def of(cls, launch: ArrayLike = "stream", cache: ArrayLike = "cold", split_k: ArrayLike | None = None) -> Call:
        """Check and convert.

        Raises
        ------
        ValueError
            If ``launch`` or ``cache`` is no choice there is, or ``split_k`` no whole number of at least 1; names the
            quantity, the value and what is allowed.
        """
        for name, value, kind in (("launch", launch, Launch), ("cache", cache, Cache)):
            chosen = np.atleast_1d(np.asarray(value, dtype=object))
            wrong = ~np.isin(chosen.astype(str), list(kind))
            if wrong.any():
                raise ValueError(f"{name} is {chosen[wrong][0]}, allowed are {', '.join(kind)}")
        ways = np.asarray(np.nan if split_k is None else split_k, dtype=np.float64)
        bad = ~(np.isnan(ways) | ((ways >= 1) & (ways <= LARGEST_SIZE) & (np.floor(ways) == ways)))
        if np.any(bad):
            raise ValueError(f"split_k is {np.atleast_1d(ways[bad])[0]:g}, allowed is a whole number of at least 1")
        return cls(np.asarray(launch) == Launch.GRAPH, np.asarray(cache) == Cache.WARM, 1.0, ways)

    def launch_s(self, launches: Number = 1.0) -> Array:
        """Seconds that launches cost in a stream beyond their cost in a graph."""
        return np.where(self.graph, 0.0, STREAM_LAUNCH_S * launches)

    def miss_share(self, machine: Machine, weight_bytes: Number) -> Array:
        """Share of a product's bytes that comes from device memory: 1 unless warm, and then what the L2 cannot keep."""
        return np.where(self.warm, cyclic_misses(self.copies * weight_bytes / machine.kept_bytes), 1.0)

    def resident(self, machine: Machine, weight_bytes: Number) -> NDArray[np.bool_]:
        """True where warm calls find all copies of their weights in the L2, or nearly: they time it, not the memory."""
        return np.asarray(self.warm & (self.copies * weight_bytes <= RESIDENT_L2_SIZES * machine.l2_bytes))

    def memory_s(self, machine: Machine, weight_bytes: Number, other_bytes: Number) -> Array:
        """Seconds to bring weights and activations in: what misses from device memory, the rest from the L2."""
        moved, miss = weight_bytes + other_bytes, self.miss_share(machine, weight_bytes)
        l2_rate = np.maximum(L2_READ_SHARE * machine.l2_bytes_per_s, machine.streamed_bytes_per_s)
        hit_s = moved / l2_rate
        return miss * moved / machine.streamed_bytes_per_s + (1 - miss) * hit_s


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
    def latency_share(self) -> Array:
        """Share of the time that launches, fill and drain take."""
        return self.terms[Bound.LATENCY] / self.time_s

    @property
    def bound(self) -> NDArray[np.object_]:
        """The resource with the longest time, as `Bound` members."""
        names = np.array(list(self.terms), dtype=object)
        stacked = np.stack(np.broadcast_arrays(*self.terms.values(), self.time_s)[:-1])
        return np.asarray(names[np.argmax(stacked, axis=0)], dtype=object)


FIRST_CALL = Call()  # in a stream, with nothing in the caches


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
    slower_variant: ClassVar[str | None] = None  # sources call both by this name, so an interval reaches to it
    borrows: ClassVar[str | None] = None  # kernel whose fitted parameters hold for this one too

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

    def at_least(self, shape: Shape) -> NDArray[np.bool_]:
        """True where the model knows a lower bound of the time only, which no ranking may use."""
        return np.zeros(shape.n.shape, dtype=np.bool_)

    @abstractmethod
    def time(self, machine: Machine, shape: Shape, p: Any, call: Call = FIRST_CALL) -> KernelTime:
        """Predict the time of ``shape`` on ``machine`` with the free parameters ``p``, called as ``call`` says."""


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
