"""Kernels that decode compact weights on the fly and multiply them dense: bitmap, MACKO, and quantised weights.

They share one anatomy: compact weights stream from DRAM, CUDA cores expand them into operands, Tensor Cores (or, for a
single token, CUDA cores) multiply. They differ in format, in the cost of expanding a weight, and in the tokens taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from perfmodel.catalog.specs import Bound
from perfmodel.formats import MACKO_VALUE_BYTES
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
from perfmodel.units import FP16_BYTES, FP32_BYTES

OVERLAP_SHARPNESS = 2
MMA_TOKENS = 8  # columns of the smallest Tensor-Core tile
TILE_K = 64  # depth of SpInfer's tiles; no block takes less of K


@dataclass(frozen=True)
class DecodeParameters:
    """Free parameters of a kernel that decodes weights on the fly."""

    bandwidth_efficiency: float = free(0.95, 0.5, 1.1, "share of a streaming read's rate that the kernel reaches")
    latency_cycles: float = free(1e4, 0.0, 6e4, "SM cycles to fill and drain the pipeline, beside the launch")
    cycles_per_weight: float = free(0.05, 0.0, 1.0, "SM cycles to decode one position, zeros included")
    cycles_per_token: float = free(0.001, 0.0, 0.02, "further SM cycles of one position for each token")


@dataclass(frozen=True)
class BitmapParameters(DecodeParameters):
    """As `DecodeParameters`; quartiles over shapes cannot tell share and latency, so they stay near other kernels'."""

    bandwidth_efficiency: float = free(1.0, 0.98, 1.02, "share of a streaming read's rate that the kernel reaches")
    latency_cycles: float = free(1e4, 7e3, 1.2e4, "SM cycles to fill and drain the pipeline, beside the launch")


@dataclass(frozen=True)
class WeightOnlyParameters(DecodeParameters):
    """As `DecodeParameters`; these kernels do not share K among blocks."""

    cycles_per_column: float = free(1.5, 0.0, 8.0, "SM cycles in which a block goes one column along K")


class DecodeKernel(KernelModel):
    """Compact weights in, dense product out.

    Bound by DRAM while decoding keeps up, which it does on cards with little bandwidth per SM; on HBM cards the decode
    rate decides. It is paid for every position, zeros included, so it does not fall with sparsity.
    """

    Parameters = DecodeParameters
    tensor_efficiency: ClassVar[float] = 0.75

    def decoded(self, shape: Shape, weight_bytes: Array) -> Array:
        """Positions that pass through the decoder: all weights."""
        return shape.weights

    def passes(self, n: Array) -> Array:
        """How often each position is decoded: once, however many tokens there are."""
        return np.ones_like(n)

    def reduction_s(self, machine: Machine, shape: Shape, call: Call) -> Array:
        """Seconds to add up partial sums; none without split-K."""
        return np.zeros(())

    def walk_s(self, machine: Machine, shape: Shape, p: Any) -> Array:
        """Seconds in which a block goes along all of K, however few rows there are; hidden where K is shared."""
        return np.zeros(())

    def time(self, machine: Machine, shape: Shape, p: DecodeParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one product."""
        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        dram_bytes = call.dram_bytes(machine, weight_bytes, shape.activation_bytes)
        streamed_s = call.memory_s(machine, weight_bytes, shape.activation_bytes) / p.bandwidth_efficiency
        memory_s = np.asarray(overlap(streamed_s, self.walk_s(machine, shape, p), OVERLAP_SHARPNESS))
        cycles = p.cycles_per_weight * self.passes(shape.n) + p.cycles_per_token * np.maximum(shape.n, MMA_TOKENS)
        decode_s = cycles * self.decoded(shape, weight_bytes) / machine.sm_cycles_per_s
        compute_s = machine.tensor_s(2 * shape.weights * shape.n, self.tensor_efficiency)
        latency_s = call.launch_s() + p.latency_cycles / machine.clock_hz
        busy_s = overlap(memory_s, np.maximum(decode_s, compute_s), OVERLAP_SHARPNESS)
        time_s = latency_s + busy_s + self.reduction_s(machine, shape, call)
        terms = {
            Bound.MEMORY: np.asarray(memory_s),
            Bound.COMPUTE: np.maximum(decode_s, compute_s),
            Bound.LATENCY: np.broadcast_to(latency_s, time_s.shape),
        }
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes))


class Bitmap(DecodeKernel):
    """SpInfer: 8 x 8 bitmaps decoded by popcount into Tensor-Core operands (Fan et al., EuroSys 2025).

    A block holds at most 64 columns, so every 64 tokens decode the weights again (HPMLL/SpInfer_EuroSys25, commit
    2410ef7); their bytes come from L2 then. Decodes about five positions per cycle and SM, so it is bound by decoding
    on an A100 and by DRAM on GDDR cards.
    """

    name = "bitmap"
    title = "SpInfer (bitmap)"
    format_name = "bitmap"
    Parameters = BitmapParameters
    supported_n = "8, 16, 32 or a multiple of 64"
    tensor_efficiency = 0.7

    def padded_n(self, n: ArrayLike) -> Array:
        """Smallest supported N that holds ``n`` tokens."""
        tokens = np.asarray(n, dtype=np.float64)
        small = 2.0 ** np.ceil(np.log2(np.maximum(tokens, 8)))
        return np.where(tokens <= 32, small, 64 * np.ceil(tokens / 64))

    def passes(self, n: Array) -> Array:
        """Once for every 64 tokens."""
        return np.ceil(n / 64)

    def reduction_s(self, machine: Machine, shape: Shape, call: Call) -> Array:
        """FP16 partial sums are written and read again, by way of device memory where they outgrow the L2.

        Only where ``call`` says how many: what the kernel chooses by itself is within its fitted latency.
        """
        ways = call.ways(1.0, ceil_div(shape.k, TILE_K))
        moved = np.where(ways > 1, 2 * FP16_BYTES * ways * shape.m * shape.n, 0.0)
        rate = np.where(moved > machine.l2_bytes, machine.streamed_bytes_per_s, machine.l2_bytes_per_s)
        return np.asarray(moved / rate)


class Macko(DecodeKernel):
    """MACKO: 16-bit values with 4-bit column gaps, one token (Macko and Boza, arXiv 2511.13061).

    Bound by DRAM down to small matrices; the decoder works on stored values only, so its cost falls with sparsity.
    """

    name = "macko"
    title = "MACKO"
    format_name = "macko"
    supported_n = "1"

    def padded_n(self, n: ArrayLike) -> Array:
        """One token, or NaN: a vector kernel cannot hold more."""
        tokens = np.asarray(n, dtype=np.float64)
        return np.where(tokens <= 1, 1.0, np.nan)

    def decoded(self, shape: Shape, weight_bytes: Array) -> Array:
        """Stored values, padding included."""
        return (weight_bytes - FP32_BYTES * (shape.m + 1)) / MACKO_VALUE_BYTES


class QuantLlmW6(DecodeKernel):
    """FP6-LLM / Quant-LLM with 6-bit floating-point weights (Xia et al., USENIX ATC 2024)."""

    name = "quant-llm-w6"
    title = "Quant-LLM FP6"
    format_name = "fp6"


class QuantLlmW5(DecodeKernel):
    """FP6-LLM / Quant-LLM with 5-bit floating-point weights."""

    name = "quant-llm-w5"
    title = "Quant-LLM FP5"
    format_name = "fp5"


class WeightOnly(DecodeKernel):
    """Integer weights that are turned into FP16 on the way, in every column of blocks anew."""

    Parameters = WeightOnlyParameters

    def walk_s(self, machine: Machine, shape: Shape, p: WeightOnlyParameters) -> Array:
        """K at so many cycles a column."""
        return p.cycles_per_column * shape.k / machine.clock_hz


class Int4(WeightOnly):
    """Weight-only INT4 in groups of 128: Marlin, AWQ and TensorRT-LLM kernels."""

    name = "int4"
    title = "INT4 weights"
    format_name = "int4"


class Int8(WeightOnly):
    """Weight-only INT8, as in TensorRT-LLM."""

    name = "int8"
    title = "INT8 weights"
    format_name = "int8"


@cache
def expanding(kernel: str, format_name: str) -> WeightOnly:
    """Kernel ``int4`` or ``int8`` on weights of another format of as many bits, which cost as much to expand."""
    base = {Int4.name: Int4, Int8.name: Int8}[kernel]
    return type(base.__name__, (base,), {"format_name": format_name})()
