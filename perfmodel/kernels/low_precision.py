"""Kernels that multiply in less than 16 bits, or with 2:4 weights: the rivals that need no decoding.

What they share: the Tensor Cores take the stored weights as they are, so nothing is expanded on the way, and the time
is bytes, a pipeline to fill, and the Tensor-Core peak of their own precision. Three things hold them back:

- a launch of its own quantises the activations, unless something before has done so (`Call.quantised`);
- most of them do not share K among blocks, so a block walks along all of it however few rows there are;
- tokens are padded to the tile, as cuBLAS pads them.

Patterns of 2N - 2 weights in 2N run on 2:4 hardware as N - 1 overlapping windows of four columns (SlideSparse), so
they multiply ``2 (1 - sparsity)`` times the columns, at the rate of 2:4.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from perfmodel.catalog.specs import Bound, Precision
from perfmodel.formats import FORMATS, PATTERNS, WeightFormat, two_four_family_bytes
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
from perfmodel.kernels.dense import OVERLAP_SHARPNESS, TILE_M, token_tile
from perfmodel.units import BITS_PER_BYTE, FP16_BYTES

PAIRED_FROM = 4096.0  # FP16 FLOP per clock and SM beyond which SMs work in pairs on taller tiles: Blackwell's 8,192
VALUE_BITS = {Precision.FP16: 16, Precision.FP8: 8, Precision.INT8: 8, Precision.FP4: 4}
FAMILY = tuple(PATTERNS.values())  # sparsities of 2:4, 4:6, 6:8 and 8:10
# To fill and drain, of dense products that come quantised: 64 x 64 take 4.6 us on an H100 PCIe.
PIPELINE_CYCLES = 7.5e3
QUANTISE_S = 5e-6  # of 2:4 products, whose times are known without it: as dense FP8 and INT8 ones take


@dataclass(frozen=True)
class TensorParameters:
    """Free parameters of a kernel that multiplies the stored weights as they are."""

    bandwidth_efficiency: float = free(
        1.0, 0.5, 1.1, "share of a streaming read's rate that the kernel reaches", fast="high"
    )
    cycles_per_column: float = free(1.5, 0.0, 8.0, "SM cycles in which a block goes one column along K")
    tensor_efficiency: float = free(
        0.9, 0.85, 1.0, "achieved fraction of the Tensor-Core peak of its precision", fast="high"
    )
    cycles_per_weight: float = free(0.03, 0.0, 0.3, "SM cycles to bring a weight, scaled, to the Tensor Cores")


@dataclass(frozen=True)
class DenseParameters(TensorParameters):
    """As `TensorParameters`, and the launch before."""

    quantise_s: float = free(5e-6, 5e-7, 2e-5, "seconds of the launch that quantises the activations")


@dataclass(frozen=True)
class BlockParameters(DenseParameters):
    """As `DenseParameters`; nobody has reported kernels that scale blocks at more tokens than engines decode."""

    tensor_efficiency: float = free(
        0.7, 0.3, 1.0, "achieved fraction of the Tensor-Core peak of its precision", fast="high"
    )


@dataclass(frozen=True)
class PatternParameters(TensorParameters):
    """As `TensorParameters`, and the pipeline."""

    latency_cycles: float = free(1e4, 7e3, 4e4, "SM cycles to fill and drain the pipeline, beside the launch")


def shared_rows(machine: Machine) -> Array:
    """Rows of weights for which inputs are read from the L2 once: the faster the Tensor Cores, the taller a tile."""
    return TILE_M * np.maximum(machine.tensor_flops_per_s / machine.sm_cycles_per_s / PAIRED_FROM, 1.0)


class TensorKernel(KernelModel):
    """Stored weights straight into the Tensor Cores.

    Bound by DRAM up to some hundred tokens; by the walk along K where a matrix has few rows; then by Tensor Cores.
    """

    @abstractmethod
    def fixed_s(self, machine: Machine, p: Any, call: Call) -> Array:
        """Seconds of the pipeline, and of the launch that quantises the activations unless they come quantised.

        That launch is queued while the device is busy, so it leaves no gap in a stream either.
        """

    def quantised_s(self, machine: Machine, shape: Shape, call: Call) -> Array:
        """Seconds in which 16-bit activations are read and written in the precision of the product, many of them."""
        if self.precision is Precision.FP16:
            return np.zeros(())
        moved = (FP16_BYTES + VALUE_BITS[self.precision] / BITS_PER_BYTE) * shape.n * shape.k
        return np.where(call.quantised, 0.0, moved / machine.streamed_bytes_per_s)

    def columns(self, shape: Shape) -> Array:
        """Columns of K that are multiplied: all."""
        return shape.k

    def time(self, machine: Machine, shape: Shape, p: Any, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one product."""
        k = self.columns(shape)
        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        input_bytes = VALUE_BITS[self.precision] / BITS_PER_BYTE * k * shape.n
        moved = input_bytes + FP16_BYTES * shape.n * shape.m
        streamed_s = call.memory_s(machine, weight_bytes, moved) / p.bandwidth_efficiency
        memory_s = overlap(streamed_s, p.cycles_per_column * k / machine.clock_hz, OVERLAP_SHARPNESS)
        l2_s = (weight_bytes + input_bytes * ceil_div(shape.m, shared_rows(machine))) / machine.l2_bytes_per_s
        flops = 2 * shape.m * k * token_tile(shape.n)
        multiplied_s = machine.tensor_s(flops, p.tensor_efficiency, self.precision, sparse=self.sparse_cores)
        compute_s = multiplied_s + p.cycles_per_weight * shape.m * k / machine.sm_cycles_per_s
        latency_s = call.launch_s() + self.fixed_s(machine, p, call)
        busy_s = overlap(np.maximum(memory_s, l2_s), compute_s, OVERLAP_SHARPNESS)
        time_s = latency_s + busy_s + self.quantised_s(machine, shape, call)
        terms = {Bound.MEMORY: memory_s, Bound.L2: np.asarray(l2_s), Bound.COMPUTE: compute_s}
        terms[Bound.LATENCY] = np.broadcast_to(latency_s, np.shape(time_s))
        dram_bytes = call.dram_bytes(machine, weight_bytes, moved)
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes))


class DenseKernel(TensorKernel):
    """All weights, in the precision of the activations."""

    Parameters = DenseParameters

    def fixed_s(self, machine: Machine, p: DenseParameters, call: Call) -> Array:
        """The launch before, as measured in serving stacks."""
        return PIPELINE_CYCLES / machine.clock_hz + np.where(call.quantised, 0.0, p.quantise_s)


class Fp8(DenseKernel):
    """FP8 weights and activations, one scale a tensor or a row: CUTLASS and cuBLASLt."""

    name = "fp8"
    title = "FP8"
    format_name = "fp8-row"
    precision = Precision.FP8


class Fp8Block(DenseKernel):
    """FP8 with a scale for each 128 x 128 weights and 128 activations of a token: DeepGEMM and CUTLASS."""

    name = "fp8-block"
    title = "FP8, blocks of 128"
    format_name = "fp8-block"
    Parameters = BlockParameters
    precision = Precision.FP8


class NvFp4(DenseKernel):
    """NVFP4: 4-bit values, an FP8 scale for each 16, which Blackwell's Tensor Cores apply themselves."""

    name = "nvfp4"
    title = "NVFP4"
    format_name = "nvfp4"
    Parameters = BlockParameters
    precision = Precision.FP4


@dataclass(frozen=True)
class AssumedParameters(BlockParameters):
    """Parameters that nobody has measured: about those of NVFP4, within what FP8, its blocks and NVFP4 came to."""

    bandwidth_efficiency: float = free(
        0.85, 0.75, 1.1, "share of a streaming read's rate that the kernel reaches", fast="high"
    )
    cycles_per_column: float = free(1.5, 1.0, 2.5, "SM cycles in which a block goes one column along K")
    tensor_efficiency: float = free(
        0.45, 0.3, 0.9, "achieved fraction of the Tensor-Core peak of its precision", fast="high"
    )
    cycles_per_weight: float = free(0.005, 0.0, 0.04, "SM cycles to bring a weight, scaled, to the Tensor Cores")
    quantise_s: float = free(3e-6, 1.5e-6, 8e-6, "seconds of the launch that quantises the activations")


class MxFp4(NvFp4):
    """MXFP4: as NVFP4 with a power of two as scale for each 32; no time of a single product is published."""

    name = "mxfp4"
    title = "MXFP4, unmeasured"
    format_name = "mxfp4"
    Parameters = AssumedParameters
    assumed = True


class Int8W8A8(DenseKernel):
    """INT8 weights and activations (SmoothQuant): a scale a row and a token."""

    name = "int8-w8a8"
    title = "INT8 W8A8"
    format_name = "int8-w8a8"
    precision = Precision.INT8


class Pattern(TensorKernel):
    """FP16 weights of which 2N - 2 in 2N are kept, on the Sparse Tensor Cores (cuSPARSELt).

    Bound by DRAM at few tokens: 9/16 of the dense bytes for 2:4, 27/32 for 6:8. At many tokens twice the dense peak
    is out of reach: operands arrive as fast as ever, and the board's power ends it before.
    """

    Parameters = PatternParameters
    precision = Precision.FP16
    sparse_cores = True
    patterns: ClassVar[tuple[float, ...]] = FAMILY
    on_amd = True

    @property
    def format(self) -> WeightFormat:
        """The family's bytes at the sparsity of a pattern."""
        bits = VALUE_BITS[self.precision]
        return replace(FORMATS[self.format_name], bytes_of=lambda m, k, s: two_four_family_bytes(m, k, s, bits))

    def fixed_s(self, machine: Machine, p: PatternParameters, call: Call) -> Array:
        """The pipeline; 8 bits are quantised before."""
        quantise_s = 0.0 if self.precision is Precision.FP16 else QUANTISE_S
        return p.latency_cycles / machine.clock_hz + np.where(call.quantised, 0.0, quantise_s)

    def columns(self, shape: Shape) -> Array:
        """Columns after each 2N became N - 1 windows of four."""
        return 2 * (1 - shape.sparsity) * shape.k


class TwoFour(Pattern):
    """2:4 in FP16."""

    name = "two-four"
    title = "2:4"
    format_name = "2:4"
    patterns = (0.5,)


class SixEight(Pattern):
    """6:8 in FP16, and the others of the family but 2:4 by their sparsity."""

    name = "six-eight"
    title = "6:8"
    format_name = "6:8"
    patterns = (0.25, *(s for s in FAMILY if s not in (0.25, 0.5)))


class TwoFourFp8(Pattern):
    """2:4 in FP8; Ada, Hopper and Blackwell."""

    name = "two-four-fp8"
    title = "2:4 FP8"
    format_name = "2:4-fp8"
    on_amd = False  # its library has no 2:4 in FP8
    precision = Precision.FP8


class TwoFourInt8(Pattern):
    """2:4 in INT8."""

    name = "two-four-int8"
    title = "2:4 INT8"
    format_name = "2:4-int8"
    precision = Precision.INT8
