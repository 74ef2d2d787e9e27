"""Matrix products on a CPU: ours that load sparse and compute dense or sparse, and those of NumPy, PyTorch and SciPy.

All have one form: the overhead of a call, in cycles and a parallel loop, and the overlap of reading with computing.
Reading goes at a share of the rate at which the threads in use read a working set of that size
(`perfmodel.catalog.cpu`): of weights and activations for warm calls, of memory for cold ones. Computing is counted in
FLOPs of the measured rate at which the cores multiply and add from registers, so that what a step costs carries to a
core of another width or clock.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from perfmodel.catalog.cpu import Cpu, Device
from perfmodel.catalog.specs import Bound
from perfmodel.formats.cpu import PANEL_K
from perfmodel.kernels.base import (
    FIRST_CALL,
    Array,
    Call,
    KernelModel,
    KernelTime,
    Machine,
    Shape,
    ceil_div,
    free,
    overlap,
)
from perfmodel.units import FP32_BYTES

# Of reading with computing: p = 2, a core has no copies in flight of its own, only what it looks ahead. A library that
# packs a block of weights before it multiplies it does one after the other.
LOOKING_AHEAD, IN_TURN = 1, 0
ASSUMED_READ_SHARE = 0.8  # of kernels that hardly ever wait for memory
TOKEN_GROUP = 4  # tokens that a chunk of weights meets while it is in registers
STRIP_WIDTHS = (8.0, 16.0, 32.0)  # tokens that a non-zero meets at once where lanes lie along N
TILE_TOKENS = 16  # of the matrix unit, or of a vector of 512 bits
MOST_PASSES, PACKED_PASSES = 3, 2  # over FP32 weights, as measured; no source says it
SMALL_PRODUCT = 100**3  # multiply-adds up to which OpenBLAS packs nothing (sgemm_small_kernel_permit_skylakex.c)
CYCLES = "cycles of a call beside a parallel loop that does nothing"
BRAIN_TOKEN_FLOPS = 3.0  # of the bitmap of bfloat16 up to `TOKEN_GROUP` tokens, where decoding takes most of the time


def token_groups(n: ArrayLike) -> Array:
    """N as SIMD along K computes it: up to 4 tokens (3 as 4), then multiples of 4."""
    tokens = np.asarray(n, dtype=np.float64)
    return np.where(tokens <= 2, tokens, TOKEN_GROUP * np.ceil(tokens / TOKEN_GROUP))


def token_strips(n: ArrayLike) -> Array:
    """N as SIMD along N computes it: strips of 32, and the narrowest of 8, 16 and 32 that holds the rest."""
    tokens = np.asarray(n, dtype=np.float64)
    narrow, middle, wide = STRIP_WIDTHS
    whole = wide * np.floor(tokens / wide)
    rest = tokens - whole
    return whole + np.select([rest == 0, rest <= narrow, rest <= middle], [0.0, narrow, middle], wide)


class CpuKernel(KernelModel):
    """A kernel of a CPU: the common form; subclasses count what it computes."""

    assumed = True
    brain: ClassVar[bool] = False  # whether weights and activations are BF16
    rate: ClassVar[str] = "cpu_fma_flops_per_s"  # of `Machine`, in which its work is counted
    needs: ClassVar[str | None] = None  # peak without which it cannot be predicted
    sharpness: ClassVar[int] = LOOKING_AHEAD

    @property
    def multiplies(self) -> str:
        """What it multiplies, in a word."""
        return "BF16" if self.brain else "FP32"

    def refusal(self, device: Device) -> str | None:
        """That ``device`` is a GPU, or was measured without what the kernel runs in; None where it runs."""
        if not isinstance(device, Cpu):
            return f"{device.name} is a GPU: kernel {self.name!r} runs on CPUs"
        if self.needs is not None and getattr(device.peak, self.needs) is None:
            return f"{device.name} was measured without PyTorch (peak.{self.needs}), which kernel {self.name!r} needs"
        return None

    @abstractmethod
    def flops(self, machine: Machine, shape: Shape, p: Any) -> Array:
        """What the kernel computes, in FLOPs of the rate it is counted in."""

    def read_share(self, shape: Shape, p: Any) -> Array | float:
        """Share of the read rate at its working set that the kernel reaches."""
        return float(p.read_share)

    def time(self, machine: Machine, shape: Shape, p: Any, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one product; launches and split-K mean nothing here."""
        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        other_bytes = FP32_BYTES * shape.n * (shape.m + shape.k)
        rate = np.where(
            call.warm, machine.read_rate(call.copies * weight_bytes + other_bytes), machine.streamed_bytes_per_s
        )
        memory_s = (weight_bytes + other_bytes) / (self.read_share(shape, p) * rate)
        compute_s = np.asarray(self.flops(machine, shape, p) / getattr(machine, self.rate))
        latency_s = p.cycles / machine.clock_hz + machine.call_s
        time_s = np.asarray(latency_s + overlap(memory_s, compute_s, self.sharpness))
        # Of a working set in a cache at most what memory could have brought meanwhile.
        dram_bytes = (weight_bytes + other_bytes) * np.minimum(machine.streamed_bytes_per_s / rate, 1.0)
        terms = {Bound.MEMORY: memory_s, Bound.COMPUTE: compute_s}
        terms[Bound.LATENCY] = np.broadcast_to(latency_s, time_s.shape)
        return KernelTime(time_s, terms, np.asarray(dram_bytes))


@dataclass(frozen=True)
class CpuParameters:
    """Free parameters that every kernel of a CPU has."""

    read_share: float = free(0.8, 0.3, 1.2, "share of the read rate at its working set that it reaches", fast="high")
    cycles: float = free(2e4, 0.0, 1e6, CYCLES)


@dataclass(frozen=True)
class ChunkParameters(CpuParameters):
    """Free parameters of a kernel that expands weights in registers and multiplies them with SIMD along K."""

    decode_flops: float = free(4.0, 0.1, 20.0, "work to expand a weight, zero or not, in FLOPs")
    token_flops: float = free(3.0, 2.0, 10.0, "work to multiply it with a token, in FLOPs")


class CpuBitmap(CpuKernel):
    """Our bitmap of float16 weights, expanded in registers: load as sparse, compute as dense.

    Reads one bit a weight and two bytes a non-zero; every weight is expanded and multiplied, zero or not.
    """

    name = "cpu-bitmap"
    title = "our bitmap, FP16 weights"
    format_name = "cpu-bitmap"
    Parameters: ClassVar[type] = ChunkParameters

    def flops(self, machine: Machine, shape: Shape, p: ChunkParameters) -> Array:
        """Work per weight: expand it once, multiply it with every token."""
        return np.asarray(shape.weights * (p.decode_flops + p.token_flops * token_groups(shape.n)))


class CpuDense16(CpuBitmap):
    """Our dense product of float16 weights: as the bitmap, without a mask."""

    name = "cpu-dense16"
    title = "our dense, FP16 weights"
    format_name = "dense"


@dataclass(frozen=True)
class TileParameters(CpuParameters):
    """Free parameters of the bitmap of bfloat16, whose chunks a matrix unit multiplies."""

    decode_flops: float = free(4.0, 0.1, 20.0, "work to expand a weight, zero or not, in FLOPs")
    tile_flops: float = free(4.0, 0.5, 40.0, "work of the matrix unit on a weight and 16 tokens, in FLOPs")


class CpuBitmapBf16(CpuKernel):
    """Our bitmap of bfloat16 weights and activations: beyond 4 tokens on the matrix unit (AMX), if there is one."""

    name = "cpu-bitmap-bf16"
    title = "our bitmap, BF16"
    format_name = "cpu-bitmap"
    Parameters = TileParameters
    brain = True

    def flops(self, machine: Machine, shape: Shape, p: TileParameters) -> Array:
        """Work per weight: expand it, multiply it with every token or every 16 of them."""
        lanes = BRAIN_TOKEN_FLOPS * token_groups(shape.n)
        tiles = p.tile_flops * ceil_div(shape.n, TILE_TOKENS)
        on_tiles = (shape.n > TOKEN_GROUP) & (machine.matrix_units > 0)
        return np.asarray(shape.weights * (p.decode_flops + np.where(on_tiles, tiles, lanes)))


class NonzeroKernel(CpuKernel):
    """A kernel that goes from non-zero to non-zero and computes most of the time: its share of reading is assumed."""

    def read_share(self, shape: Shape, p: Any) -> float:
        """The same for all."""
        return ASSUMED_READ_SHARE


@dataclass(frozen=True)
class SegmentParameters:
    """Free parameters of a kernel that goes from non-zero to non-zero in segments of rows."""

    cycles: float = free(2e4, 0.0, 1e6, CYCLES)
    segment_flops: float = free(500.0, 0.0, 1e4, "work to begin a segment of a row, in FLOPs")
    nonzero_flops: float = free(40.0, 1.0, 400.0, "work to fetch a non-zero and its row of activations, in FLOPs")
    token_flops: float = free(3.0, 2.0, 30.0, "work to multiply it with a token, in FLOPs")


class CpuPanelCsr(NonzeroKernel):
    """Our CSR in panels, SIMD along N: only non-zeros are multiplied, each with a strip of 8 to 32 tokens."""

    name = "cpu-panel-csr"
    title = "our CSR in panels"
    format_name = "panel-csr"
    Parameters = SegmentParameters

    def flops(self, machine: Machine, shape: Shape, p: SegmentParameters) -> Array:
        """Work per non-zero and segment: fetched once a strip, multiplied with its tokens, padding included."""
        strips = ceil_div(shape.n, STRIP_WIDTHS[-1])
        fetched = p.nonzero_flops * shape.nnz + p.segment_flops * shape.m * ceil_div(shape.k, PANEL_K)
        return np.asarray(fetched * strips + p.token_flops * token_strips(shape.n) * shape.nnz)


@dataclass(frozen=True)
class NonzeroParameters:
    """Free parameters of SciPy's kernel."""

    cycles: float = free(2e4, 0.0, 1e6, CYCLES)
    lone_flops: float = free(20.0, 1.0, 400.0, "work on a non-zero where there is one token, in FLOPs")
    nonzero_flops: float = free(100.0, 1.0, 1e3, "work to fetch a non-zero for several tokens, in FLOPs")
    token_flops: float = free(3.0, 1.0, 60.0, "work to multiply it with one of them, in FLOPs")


class ScipyCsr(NonzeroKernel):
    """SciPy's CSR product, FP32 values and 32-bit columns, on one thread whatever the machine has.

    That thread is taken to read at its share of what all threads read. A single token has a loop of its own.
    """

    name = "scipy-csr"
    title = "SciPy CSR"
    format_name = "csr-fp32"
    Parameters = NonzeroParameters

    def flops(self, machine: Machine, shape: Shape, p: NonzeroParameters) -> Array:
        """Work per non-zero and token, all of it on one core."""
        each = np.where(shape.n == 1, p.lone_flops, p.nonzero_flops + p.token_flops * shape.n)
        return np.asarray(machine.threads * shape.nnz * each)

    def time(self, machine: Machine, shape: Shape, p: NonzeroParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one product."""
        alone = np.asarray(machine.reads_bytes_per_s) / np.asarray(machine.threads)[..., None]
        one = machine.with_(reads_bytes_per_s=alone, dram_bytes_per_s=machine.dram_bytes_per_s / machine.threads)
        return super().time(one, shape, p, call)


@dataclass(frozen=True)
class GemmParameters(CpuParameters):
    """Free parameters of a library's dense product."""

    gemm_share: float = free(0.7, 0.1, 1.0, "share of the measured rate of a large square product", fast="high")


@dataclass(frozen=True)
class PackedGemmParameters(GemmParameters):
    """Free parameters of one that packs the weights."""

    packed_tokens: float = free(4.0, 0.0, 64.0, "tokens whose multiplication takes as long as packing the weights")


class NumpyFp32(CpuKernel):
    """NumPy's dense product (OpenBLAS), FP32 weights: one token goes unpacked, more pay for packing the weights."""

    name = "numpy-fp32"
    title = "NumPy, FP32"
    format_name = "fp32"
    Parameters = PackedGemmParameters
    rate = "cpu_gemm_flops_per_s"
    sharpness = IN_TURN

    def flops(self, machine: Machine, shape: Shape, p: PackedGemmParameters) -> Array:
        """Two FLOPs a weight and token, packing counted as tokens."""
        packed = (shape.n > 1) & (shape.weights * shape.n > SMALL_PRODUCT)
        tokens = shape.n + np.where(packed, p.packed_tokens, 0.0)
        return np.asarray(2 * shape.weights * tokens / p.gemm_share)


class TorchFp32(CpuKernel):
    """PyTorch's dense product (MKL), FP32 weights: below 16 tokens read once for every two, three times at most.

    From 16 tokens on the weights are packed, which writes and reads them once more.
    """

    name = "torch-fp32"
    title = "PyTorch, FP32"
    format_name = "fp32"
    Parameters = GemmParameters
    rate = "cpu_torch_flops_per_s"
    needs = "torch_fp32_gemm"

    def read_share(self, shape: Shape, p: GemmParameters) -> Array:
        """Of a single pass."""
        unpacked = np.minimum(np.ceil(shape.n / 2), MOST_PASSES)
        return np.asarray(p.read_share / np.where(shape.n < TILE_TOKENS, unpacked, PACKED_PASSES))

    def flops(self, machine: Machine, shape: Shape, p: GemmParameters) -> Array:
        """Two FLOPs a weight and token."""
        return np.asarray(2 * shape.weights * shape.n / p.gemm_share)


@dataclass(frozen=True)
class BrainGemmParameters(GemmParameters):
    """Free parameters of one in BF16."""

    lone_share: float = free(0.5, 0.1, 1.0, "the same share for one token, over that for several", fast="high")


class TorchBf16(CpuKernel):
    """PyTorch's dense product, BF16 weights and activations (oneDNN, on AMX where the machine has it)."""

    name = "torch-bf16"
    title = "PyTorch, BF16"
    format_name = "dense"
    Parameters = BrainGemmParameters
    rate = "cpu_bf16_flops_per_s"
    needs = "bf16_gemm"
    brain = True

    def read_share(self, shape: Shape, p: BrainGemmParameters) -> Array:
        """One token goes another way, which reads more slowly."""
        return np.asarray(p.read_share * np.where(shape.n == 1, p.lone_share, 1.0))

    def flops(self, machine: Machine, shape: Shape, p: BrainGemmParameters) -> Array:
        """Two FLOPs a weight and token, in tiles of 16."""
        tokens = TILE_TOKENS * ceil_div(shape.n, TILE_TOKENS)
        return np.asarray(2 * shape.weights * tokens / p.gemm_share)


CPU_MODELS: tuple[CpuKernel, ...] = (
    TorchBf16(), TorchFp32(), NumpyFp32(), CpuBitmap(), CpuBitmapBf16(), CpuPanelCsr(), CpuDense16(), ScipyCsr(),
)  # fmt: skip
