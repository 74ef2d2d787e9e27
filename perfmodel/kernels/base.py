"""What every kernel model shares: the machine it sees, its free parameters, and how resource times combine.

A kernel model counts the work a kernel gives to each resource (DRAM, L2, shared memory, Tensor or CUDA cores) and
turns it into seconds. Resources overlap imperfectly; `overlap` is the smooth maximum that joins them. Everything
broadcasts: sizes, sparsity and the machine's numbers may be scalars or arrays of any compatible shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.arrays import check_points, sizes
from perfmodel.catalog.cpu import Cpu, Device
from perfmodel.catalog.specs import Bound, Gpu, Precision
from perfmodel.formats import FORMATS, PATTERNS, WeightFormat, check_sparsity
from perfmodel.kernels.call import FIRST_CALL, Call
from perfmodel.kernels.machine import Array, Machine, Number
from perfmodel.units import FP16_BYTES

PATTERN_TOLERANCE = 5e-3  # 0.33 is the third that 4:6 drops
_REMEDIES = {
    Precision.FP16: "",
    Precision.INT8: "; weights are dequantised there: use int8 (w8a16)",
    Precision.FP8: "; weights are dequantised there: use int8 (w8a16)",
    Precision.FP4: "; weights are dequantised there: use int4 (w4a16)",
}


def missing_cores(gpu: Gpu, precision: Precision, *, sparse: bool) -> str | None:
    """That ``gpu`` has no Tensor Cores of this precision, with 2:4 weights if ``sparse``; None where it has."""
    if gpu.peak.tensor(precision, sparse=sparse) is not None:
        return None
    kind = f"{'2:4 ' if sparse else ''}{precision.value.upper()}"
    return f"{gpu.name} has no {kind} Tensor Cores (peak.{precision}_{'sparse' if sparse else 'tensor'})"


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
        m_, k_, n_ = (sizes(letter, value) for letter, value in zip("mkn", (m, k, n), strict=True))
        zeros = check_sparsity(sparsity)
        check_points(m_.shape, k_.shape, n_.shape, zeros.shape)
        return cls(m_, k_, n_, zeros)

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
    def latency_share(self) -> Array:
        """Share of the time that launches, fill and drain take."""
        return self.terms[Bound.LATENCY] / self.time_s

    @property
    def bound(self) -> NDArray[np.object_]:
        """The resource with the longest time alone, if everything else took none, as `Bound` members."""
        names = np.array(list(self.terms), dtype=object)
        stacked = np.stack(np.broadcast_arrays(*self.terms.values(), self.time_s)[:-1])
        return np.asarray(names[np.argmax(stacked, axis=0)], dtype=object)

    def where(self, chosen: NDArray[np.bool_], other: KernelTime) -> KernelTime:
        """Itself where ``chosen``, else the other."""
        both = {**other.terms, **self.terms}
        terms = {name: np.where(chosen, self.terms.get(name, 0.0), other.terms.get(name, 0.0)) for name in both}
        moved = np.where(chosen, self.dram_bytes, other.dram_bytes)
        return KernelTime(np.where(chosen, self.time_s, other.time_s), terms, moved)


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
    moved_by_own: ClassVar[tuple[str, ...]] = ()  # parameters that only a user's own measurements move
    slower_variant: ClassVar[str | None] = None  # sources call both by this name, so an interval reaches to it
    borrows: ClassVar[str | None] = None  # kernel whose fitted parameters hold for this one too
    precision: ClassVar[Precision] = Precision.FP16  # what its Tensor Cores multiply
    sparse_cores: ClassVar[bool] = False  # whether they are the Sparse Tensor Cores
    patterns: ClassVar[tuple[float, ...]] = ()  # the sparsities it takes, its usual one first; any if empty
    on_amd: ClassVar[bool] = False  # whether AMD's library has its like
    oldest: ClassVar[float] = 0.0  # compute capability of the first GPUs of NVIDIA that have its instructions

    @property
    def format(self) -> WeightFormat:
        """Weight format the kernel reads."""
        return FORMATS[self.format_name]

    def padded_n(self, n: ArrayLike) -> Array:
        """Smallest N the kernel accepts that holds ``n`` tokens, NaN if none does; the identity where any N will do."""
        return np.asarray(n, dtype=np.float64)

    supported_n = "any N"

    @property
    def any_n(self) -> bool:
        """Whether it takes every N: what a GPU with its cores leaves out then has no room in shared memory."""
        return self.supported_n == KernelModel.supported_n

    @property
    def one_token(self) -> bool:
        """Whether it takes no N but 1: no prompt, no batch."""
        return bool(np.isnan(self.padded_n(2.0)))

    @property
    def multiplies(self) -> str:
        """What it multiplies, in a word or two."""
        return f"{self.precision.value.upper()}{' 2:4' if self.sparse_cores else ''}"

    def refusal(self, device: Device) -> str | None:
        """Why the kernel does not run on ``device``, in a sentence; None where it does."""
        if isinstance(device, Cpu):
            return f"{device.name} is a CPU: kernel {self.name!r} runs on GPUs"
        return self._refusal_of_gpu(device)

    def _refusal_of_gpu(self, gpu: Gpu) -> str | None:
        if gpu.architecture.amd and not self.on_amd:
            return f"{gpu.name} is AMD's: only dense and 2:4 products are modelled there, not kernel {self.name!r}"
        if not gpu.architecture.amd and float(gpu.compute_capability) < self.oldest:
            has = f"{gpu.name} has compute capability {gpu.compute_capability}"
            return f"{has}; kernel {self.name!r} needs {self.oldest} or newer"
        missing = missing_cores(gpu, self.precision, sparse=self.sparse_cores)
        return missing and f"{missing}, which kernel {self.name!r} needs{_REMEDIES[self.precision]}"

    def has_room(self, gpu: Device, n: ArrayLike, sparsity: ArrayLike) -> NDArray[np.bool_]:
        """True where the shared memory of ``gpu`` holds what a block needs; everywhere for kernels that make do."""
        return np.ones(np.broadcast_shapes(np.shape(n), np.shape(sparsity)), dtype=np.bool_)

    def takes_sparsity(self, sparsity: ArrayLike) -> NDArray[np.bool_]:
        """True where the kernel can multiply weights of this sparsity: a pattern has its own and no other."""
        asked = np.asarray(sparsity, dtype=np.float64)
        return np.abs(self.own_sparsity(asked) - asked) < PATTERN_TOLERANCE

    def own_sparsity(self, sparsity: ArrayLike) -> Array:
        """``sparsity``, or that of the kernel's pattern: the nearest of its family if near, else its usual one."""
        asked = np.asarray(sparsity, dtype=np.float64)
        if not self.patterns:
            return asked
        family = np.array(self.patterns)
        away = np.abs(asked[..., None] - family)
        return np.where(away.min(axis=-1) < PATTERN_TOLERANCE, family[away.argmin(axis=-1)], family[0])

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


def check_pattern(model: KernelModel, sparsity: ArrayLike) -> None:
    """Refuse sparsities that are not those of the kernel's pattern.

    Raises
    ------
    ValueError
        Names the kernel, the value and the sparsities of its patterns.
    """
    shares = np.atleast_1d(np.asarray(sparsity, dtype=np.float64))
    wrong = np.flatnonzero(~np.atleast_1d(model.takes_sparsity(shares)))
    if wrong.size:
        names = {share: name for name, share in PATTERNS.items()}
        own = " or ".join(f"{share:.3g} ({names[share]})" for share in model.patterns)
        raise ValueError(f"{model.name} takes the sparsity of its pattern, {own}, got {shares.flat[wrong[0]]:g}")


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
