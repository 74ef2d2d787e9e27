"""Our own bitmap kernel, predicted before any GPU has run it: decoding straight into Tensor-Core operands.

How fast can a kernel be that never builds a dense tile in shared memory? The counts are those of the compiled code:
machine instructions of the main loop, registers, shared memory and the wavefronts of the gather come from the traces
``data/traces/bitmap_*.json``. What no count can tell - how much of DRAM bandwidth and of the pipes is used, and what a
block costs at its ends - is assumed within stated ranges, and the interval of a prediction is what these ranges span.
The simulator runs the same counts tile by tile; the interval holds its times too.

Nothing here has been measured: every prediction is an extrapolation. The kernels with 8-bit and 4-bit values are not
even written: they are the counted one plus an assumed cost of turning codes into FP16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from perfmodel.catalog import load_trace
from perfmodel.catalog.specs import Bound
from perfmodel.formats import STRIP_K, STRIP_M
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
    imbalance,
    overlap,
)
from perfmodel.kernels.launcher import launcher_split_k
from perfmodel.kernels.machine import RESERVED_SHARED_BYTES
from perfmodel.kernels.pipes import busiest_cycles, loop_pipes
from perfmodel.units import BITS_PER_BYTE, FP16_BYTES, FP32_BYTES, WARP_SIZE

STRIP_SIZE = STRIP_M * STRIP_K
TILE_M, TILE_K = 128, 64
WIDTHS, CAPACITIES = (8, 16, 32, 64), (512, 768, 1280, 2048)  # tile_n, values a strip's buffer holds: the variants
FULLEST_SIGMAS = 4.5  # the fullest of some 100,000 strips
SCHEDULERS = 4  # of an SM; each issues one warp instruction a cycle
COUNTED_ARCHITECTURE = "sm_90"  # whose machine code is the longest, by up to 4 %
LAUNCHES = 2  # product and split-K reduction
SHARPNESS = 3  # p = 8: cp.async runs two tiles ahead, and the warps of several blocks fill each other's waits


@dataclass(frozen=True)
class RegisterDecodeParameters:
    """What cannot be counted: ranges around what measured kernels reach."""

    # Fitted kernels that read compact weights reach .95 to 1.07: MACKO, FP6, FP5, Flash-LLM.
    bandwidth_efficiency: float = free(
        1.0, 0.9, 1.07, "share of a streaming read's rate that the kernel reaches", fast="high"
    )
    # As fitted in the simulator on SpInfer's kernel, the only one at hand that its instructions bind.
    pipe_share: float = free(
        0.65, 0.5, 0.9, "share of its slots in which a scheduler issues, its busiest pipe takes a warp", fast="high"
    )
    # cuBLAS reaches .85 of the Tensor Cores' peak, Flash-LLM .62, and .72 of shared memory's: 1.4 cycles a wavefront.
    pipe_efficiency: float = free(
        0.85, 0.6, 1.0, "achieved fraction of the peak rates of shared memory and of the Tensor Cores", fast="high"
    )
    # cuBLAS's and Flash-LLM's fits lie in its upper half, the simulator's start of a block at its lower end.
    block_cycles: float = free(6.5e3, 3e3, 9e3, "SM cycles a block spends filling and draining its pipeline")


@dataclass(frozen=True)
class QuantisedParameters(RegisterDecodeParameters):
    """As `RegisterDecodeParameters`, and what codes cost beyond FP16 values."""

    dequantise_instructions: float = free(
        3.0, 1.0, 6.0, "instructions a lane issues to turn a pair of codes into scaled FP16 values"
    )


@dataclass(frozen=True)
class Counts:
    """Counted figures of the variants, arrays over (tile_n, capacity); tiles are 128 x 64.

    decode_cycles : per tile, of the pipe that its instructions keep busy longest, issue slots among them.
    shared_cycles : per tile, without the gather.
    registers : per block; shared_bytes : per block.
    gather : (densities, wavefronts per tile), the same for all variants.
    """

    decode_cycles: Array
    shared_cycles: Array
    registers: Array
    shared_bytes: Array
    gather: tuple[Array, Array]


@cache
def counts(positions: int = 1) -> Counts:
    """Figures of the compiled kernel whose bits stand for so many ``positions``, from the traces."""

    def figures(trace: dict[str, Any]) -> tuple[float, float, float, float]:
        code = trace["architectures"][COUNTED_ARCHITECTURE]
        warps = trace["threads"] / WARP_SIZE
        decode = busiest_cycles(loop_pipes(code)) * warps / SCHEDULERS
        steady = ("read_masks", "read_x", "copy_masks", "copy_x")
        shared = sum(trace["per_block"][f"shared_wavefronts.{stage}"]["tile"] for stage in steady)
        return decode, shared, code["registers"] * trace["threads"], trace["shared_bytes"]

    name = "bitmap" if positions == 1 else "bitmap_pairs"
    traces = [[load_trace(f"{name}_n{width}_c{capacity}") for capacity in CAPACITIES] for width in WIDTHS]
    decode, shared, registers, shared_bytes = np.array([[figures(trace) for trace in row] for row in traces]).T
    gather = traces[0][-1]["gather"]
    table = np.array([[0.0, 0.0], *([row["density"], row["wavefronts"]] for row in gather)]).T
    return Counts(decode.T, shared.T, registers.T, shared_bytes.T, (table[0], table[1]))


class RegisterDecode(KernelModel):
    """Bitmap weights decoded in registers.

    Bound by DRAM where decoding keeps up. Every position costs the same instructions, zeros included; the gather from
    shared memory takes one wavefront for 32 positions up to a quarter full and up to four beyond.
    """

    name = "lscd-bitmap"
    title = "LSCD bitmap, unmeasured"
    format_name = "lscd-bitmap"
    Parameters = RegisterDecodeParameters
    assumed = True
    positions = 1  # that a bit of the masks stands for
    value_bits: ClassVar[int] = 16

    def dequantise_cycles(self, p: Any) -> float:
        """Issue cycles of a tile to turn codes into values; none are needed here."""
        return 0.0

    def time(self, machine: Machine, shape: Shape, p: RegisterDecodeParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of product and split-K reduction.

        Weights come from DRAM once per 64 columns: the launch runs all rows of a column tile before the next. Where
        they fit in L2 that is too careful.
        """
        n = computed_columns(shape.n)
        width = np.minimum(n, WIDTHS[-1])
        columns = n / width
        stored = 1 - shape.sparsity**self.positions  # of all positions
        c, capacity = counts(self.positions), capacity_index(shape.sparsity, self.positions)
        at = (np.searchsorted(WIDTHS, width), capacity)
        by_shared = machine.shared_bytes_per_sm // (c.shared_bytes[at] + RESERVED_SHARED_BYTES)
        resident = np.maximum(np.minimum(by_shared, machine.registers_per_sm // c.registers[at]), 1)
        blocks = ceil_div(shape.m, TILE_M) * columns
        k_tiles = ceil_div(shape.k, TILE_K)
        split = call.ways(launcher_split_k(blocks, k_tiles, width, machine.sm_count * resident), k_tiles)
        blocks = blocks * split

        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        output_bytes = FP16_BYTES * shape.m * n
        partial_bytes = np.where(split > 1, FP32_BYTES * split * shape.m * n, 0.0)
        other_bytes = FP16_BYTES * n * shape.k + np.where(split > 1, partial_bytes, output_bytes)
        reduction_bytes = np.where(split > 1, partial_bytes + output_bytes, 0.0)
        # The second launch finds the partial sums in the L2 unless they outgrow it.
        in_l2 = reduction_bytes < machine.l2_bytes
        reduction_s = reduction_bytes / np.where(in_l2, machine.l2_bytes_per_s, machine.streamed_bytes_per_s)
        dram_bytes = call.dram_bytes(machine, weight_bytes, other_bytes) + np.where(in_l2, 0.0, reduction_bytes)
        # Blocks that differ in columns only start together: L2 serves the weights to all but the first.
        l2_s = weight_bytes * columns / machine.l2_bytes_per_s
        memory_s = np.maximum(call.memory_s(machine, weight_bytes, other_bytes) / p.bandwidth_efficiency, l2_s)
        tiles = ceil_div(shape.m, TILE_M) * k_tiles * columns
        cycles_to_s = tiles * imbalance(blocks, machine.sm_count) / machine.sm_cycles_per_s
        decode_s = (c.decode_cycles[at] + self.dequantise_cycles(p)) / p.pipe_share * cycles_to_s
        gather = np.interp(stored, *c.gather)
        value_bytes = self.value_bits / BITS_PER_BYTE
        copied = stored * TILE_M * TILE_K * value_bytes / machine.shared_bytes_per_clock
        shared_s = (c.shared_cycles[at] + gather + copied) / p.pipe_efficiency * cycles_to_s
        compute_s = machine.tensor_s(2 * shape.weights * n, p.pipe_efficiency)
        block_s = p.block_cycles / machine.clock_hz
        # A block that fills its pipeline leaves the SM to the other resident ones.
        refills_s = np.maximum(blocks / (machine.sm_count * resident) - 1, 0) * block_s / resident
        latency_s = call.launch_s() + np.where(split > 1, LAUNCHES, 1) * block_s
        on_chip_s = overlap(overlap(decode_s, shared_s, SHARPNESS), compute_s, SHARPNESS) + refills_s
        time_s = latency_s + overlap(memory_s, on_chip_s, SHARPNESS) + reduction_s
        terms = {
            Bound.MEMORY: memory_s,
            Bound.SHARED_MEMORY: shared_s,
            Bound.COMPUTE: np.maximum(decode_s, compute_s),
            Bound.LATENCY: latency_s,
        }
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes))


class RegisterDecodePairs(RegisterDecode):
    """The same kernel with a bit for each pair of columns, one operand register.

    Half the decoding for the bytes of the zeros that have a partner: ahead from about 85 % sparsity on HBM cards.
    """

    name = "lscd-bitmap-pairs"
    title = "LSCD pairs, unmeasured"
    format_name = "lscd-bitmap-pairs"
    positions = 2


class RegisterDecodeInt8(RegisterDecode):
    """Bitmap weights with 8-bit codes, a scale per row and 128 columns; a kernel nobody has written.

    Occupancy and the wavefronts of the gather are those of FP16 values, which narrower ones can only better.
    """

    name = "lscd-bitmap-8"
    title = "LSCD INT8, not written"
    written = False
    format_name = "lscd-bitmap-8"
    Parameters = QuantisedParameters
    value_bits = 8

    def dequantise_cycles(self, p: QuantisedParameters) -> float:
        """Every position pays, zeros included, in pairs."""
        return p.dequantise_instructions * TILE_M * TILE_K / 2 / WARP_SIZE / SCHEDULERS


class RegisterDecodeInt4(RegisterDecodeInt8):
    """As with 8-bit codes; picking a 4-bit code out of its byte is within the assumed range."""

    name = "lscd-bitmap-4"
    title = "LSCD INT4, not written"
    format_name = "lscd-bitmap-4"
    value_bits = 4


def computed_columns(n: ArrayLike) -> Array:
    """Columns the kernel computes for ``n`` tokens: 8, 16, 32 or a multiple of 64."""
    tokens = np.asarray(n, dtype=np.float64)
    small = 2.0 ** np.ceil(np.log2(np.maximum(tokens, 8)))
    return np.where(tokens <= 32, small, 64 * np.ceil(tokens / 64))


def capacity_index(sparsity: ArrayLike, positions: int = 1) -> Any:
    """Variant whose buffers hold the fullest strip of a large matrix with random zeros."""
    groups, empty = STRIP_SIZE / positions, np.asarray(sparsity, dtype=np.float64) ** positions
    fullest = positions * (groups * (1 - empty) + FULLEST_SIGMAS * np.sqrt(groups * empty * (1 - empty)))
    return np.minimum(np.searchsorted(CAPACITIES, fullest), len(CAPACITIES) - 1)
