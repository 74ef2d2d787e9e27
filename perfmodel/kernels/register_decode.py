"""Our own kernels that decode in registers, predicted before any GPU has run them: bitmaps and condensed strips.

How fast can a kernel be that never builds a dense tile in shared memory? The counts are those of the compiled code:
machine instructions of the main loop, registers and wavefronts of shared memory come from the traces
``data/traces/{bitmap,bitmap_pairs,condensed,condensed_pairs}_*.json``. What no count can tell - how much of DRAM
bandwidth and of the pipes is used, and what a block costs at its ends - is assumed within stated ranges, and the
interval of a prediction is what these ranges span. The simulator runs the same counts tile by tile; the interval holds
its times too.

As many blocks as run at once share one list of tiles, so that no wave is half empty; sums that blocks share go through
the L2, and no second kernel is launched.

Nothing here has been measured: every prediction is an extrapolation.
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
from perfmodel.kernels.machine import RESERVED_SHARED_BYTES, Number
from perfmodel.kernels.pipes import busiest_cycles, loop_pipes
from perfmodel.units import BITS_PER_BYTE, FP16_BYTES, FP32_BYTES

STRIP_SIZE = STRIP_M * STRIP_K
TILE_M, TILE_K = 128, 64
WIDTHS = (8, 16, 32, 64)  # tile_n of the variants
STAGES, CAPACITY_UNIT = 3, 128  # of the ring; bytes that a buffer of records is a multiple of
FULLEST_SIGMAS = 4.5  # the fullest of some 100,000 strips
WARPS, SCHEDULERS = 4, 4  # of a block, and of an SM, each of which issues one warp instruction a cycle
STRIPS = TILE_M // STRIP_M  # of a tile, each the work of one warp
PIECE_CYCLES = 600.0  # two round trips to the L2, of 280 cycles on an H100 and 295 on a B200: the flag, then the sums
COUNTED_ARCHITECTURE = "sm_90"  # whose machine code is the longest, by up to 4 %
SHARPNESS = 4  # p = 16: copies run two tiles ahead and never stop, and warps of several blocks fill each other's waits


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
    # cuBLAS's fit, 6.9e3, and Flash-LLM's lie in its upper half, the simulator's start of a block at its lower end.
    block_cycles: float = free(7e3, 3e3, 9e3, "SM cycles a block spends filling and draining its pipeline")


@dataclass(frozen=True)
class Counts:
    """Counted figures of a kernel, arrays over tile_n; tiles are 128 x 64.

    decode_cycles : per tile, of the pipe that its instructions keep busy longest, issue slots among them.
    tail_share : what a tail takes of the instructions of a tile.
    shared_cycles : per tile, without gather and values.
    registers : per block; header_bytes : of a tile's records, without values.
    occupied : (rows,) shares of positions that `RegisterDecode.occupied` means; what a tile then has:
    wavefronts, values, tails : (rows,) of the gather, stored with their padding, and of 16 columns left over.
    """

    decode_cycles: Array
    tail_share: Array
    shared_cycles: Array
    registers: Array
    header_bytes: float
    occupied: Array
    wavefronts: Array
    values: Array
    tails: Array


@cache
def counts(kernel: str) -> Counts:
    """Figures of a compiled kernel, from its traces."""

    def figures(trace: dict[str, Any]) -> tuple[float, float, float, float]:
        code, per_block = trace["architectures"][COUNTED_ARCHITECTURE], trace["per_block"]
        decode = busiest_cycles(loop_pipes(code)) * STRIPS / SCHEDULERS
        instructions = per_block["instructions"]
        stages = [q for name, q in per_block.items() if name.startswith("shared_wavefronts.")]
        gathered = per_block["shared_wavefronts.gather"].get("tile", 0.0)
        shared = sum(stage.get("tile", 0.0) for stage in stages) - gathered
        return (
            decode,
            instructions.get("tail", 0.0) / instructions["tile"],
            shared,
            code["registers"] * trace["threads"],
        )

    traces = [load_trace(f"{kernel}_n{width}") for width in WIDTHS]
    decode, tail, shared, registers = np.array([figures(trace) for trace in traces]).T
    rows = traces[0]["gather"]
    columns = [
        np.array([0.0, *(row.get(name, 0.0) for row in rows)]) for name in ("density", "wavefronts", "values", "tails")
    ]
    header = traces[0]["per_block"]["global_bytes.records.load"]["tile"]
    return Counts(decode, tail, shared, registers, header, *columns)


@dataclass(frozen=True)
class Shares:
    """How a launch deals the tiles.

    sm_tiles : what the busiest SM gets; sums_s : what it costs that blocks share rows; x_s : seconds of reading X
    before the first product, where X stays.
    """

    sm_tiles: Array
    sums_s: Array
    x_s: Array | float = 0.0


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
    traced = "bitmap"  # kernel whose code was counted
    positions = 1  # that a bit of the masks stands for
    value_bits: ClassVar[int] = 16

    def occupied(self, sparsity: Array) -> Array:
        """Share of positions that are stored."""
        return 1 - np.asarray(sparsity, dtype=np.float64) ** self.positions

    def streamed_bytes(self, m: Array, k: Array, sparsity: Array) -> Array:
        """Bytes of all records, offsets included."""
        return self.format.bytes_of(m, k, sparsity)

    def capacity_bytes(self, sparsity: ArrayLike) -> Array:
        """Bytes that a buffer must have for the longest record of a large matrix with random zeros."""
        c = counts(self.traced)
        share = np.interp(self.occupied(np.asarray(sparsity)), c.occupied, c.values) / (TILE_M * TILE_K)
        groups = STRIP_SIZE / self.positions
        fullest = self.positions * (groups * share + FULLEST_SIGMAS * np.sqrt(groups * share * (1 - share)))
        needed = c.header_bytes / STRIPS + self.value_bits / BITS_PER_BYTE * np.minimum(fullest, STRIP_SIZE)
        return np.asarray(np.ceil(needed / CAPACITY_UNIT) * CAPACITY_UNIT)

    def shares(self, machine: Machine, shape: Shape, width: Array, call: Call) -> Shares:
        """As many blocks as run at once share one list of tiles; every block but one in a row leaves another a sum.

        Sums take as long as the L2 moves them, or as their round trips follow each other.
        """
        c, columns = counts(self.traced), computed_columns(shape.n) / width
        rows, k_tiles = ceil_div(shape.m, TILE_M), ceil_div(shape.k, TILE_K)
        buffers = STAGES * (FP16_BYTES * TILE_K * width + WARPS * self.capacity_bytes(shape.sparsity))
        by_shared = machine.shared_bytes_per_sm // (buffers + RESERVED_SHARED_BYTES)
        registers = c.registers[np.searchsorted(WIDTHS, width)]
        resident = np.maximum(np.minimum(by_shared, machine.registers_per_sm // registers), 1)
        at_once = np.maximum(machine.sm_count * resident // columns, 1) / rows
        blocks = np.minimum(rows * call.ways(at_once, k_tiles), rows * k_tiles) * columns
        per_block = ceil_div(rows * k_tiles * columns, blocks)
        shared_rows = np.where(per_block % k_tiles == 0, 0.0, blocks)
        moved_s = 2 * FP32_BYTES * TILE_M * width * shared_rows / machine.l2_bytes_per_s
        in_turn_s = sums_in_turn(rows * columns, k_tiles, blocks) * PIECE_CYCLES / machine.clock_hz
        sums_s = np.maximum(moved_s, in_turn_s)
        return Shares(per_block * blocks * imbalance(blocks, machine.sm_count) / machine.sm_count, sums_s)

    def time(self, machine: Machine, shape: Shape, p: RegisterDecodeParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of the product, in one launch.

        Weights come from DRAM once per 64 columns, where the L2 does not serve blocks that differ in columns only.
        """
        n = computed_columns(shape.n)
        width = np.minimum(n, WIDTHS[-1])
        c, occupied = counts(self.traced), self.occupied(shape.sparsity)
        at = np.searchsorted(WIDTHS, width)
        shares = self.shares(machine, shape, width, call)

        weight_bytes = self.streamed_bytes(shape.m, shape.k, shape.sparsity)
        other_bytes = FP16_BYTES * n * shape.k + FP16_BYTES * shape.m * n
        dram_bytes = call.dram_bytes(machine, weight_bytes, other_bytes)
        # Blocks that differ in columns only start together: L2 serves the weights to all but the first.
        l2_s = weight_bytes * (n / width) / machine.l2_bytes_per_s
        memory_s = np.maximum(call.memory_s(machine, weight_bytes, other_bytes) / p.bandwidth_efficiency, l2_s)
        cycles_to_s = shares.sm_tiles / machine.clock_hz
        values = np.interp(occupied, c.occupied, c.values)
        tails = 1 + c.tail_share[at] * np.interp(occupied, c.occupied, c.tails)
        decode_s = c.decode_cycles[at] * tails / p.pipe_share * cycles_to_s
        gather = np.interp(occupied, c.occupied, c.wavefronts)
        copied = values * self.value_bits / BITS_PER_BYTE / machine.shared_bytes_per_clock
        shared_s = (c.shared_cycles[at] + gather + copied) / p.pipe_efficiency * cycles_to_s
        compute_s = machine.tensor_s(2 * shape.weights * n, p.pipe_efficiency, sparse=self.sparse_cores)
        latency_s = call.launch_s() + p.block_cycles / machine.clock_hz
        on_chip_s = shares.x_s + overlap(overlap(decode_s, shared_s, SHARPNESS), compute_s, SHARPNESS)
        time_s = latency_s + overlap(memory_s, on_chip_s, SHARPNESS) + shares.sums_s
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
    traced = "bitmap_pairs"
    positions = 2


class CondensedDecode(RegisterDecode):
    """Condensed strips with a bit for each slot: two of every four columns to decode, on the Sparse Tensor Cores.

    From 70 % sparsity on nearly all strips fit; below, columns left to tails cost as much as a bitmap's.
    """

    name = "lscd-condensed"
    title = "LSCD condensed, unmeasured"
    format_name = "lscd-condensed"
    traced = "condensed"
    sparse_cores = True

    def occupied(self, sparsity: Array) -> Array:
        """Share of weights, by which the traces of condensed strips are told apart."""
        return 1 - np.asarray(sparsity, dtype=np.float64)


class CondensedDecodePairs(CondensedDecode):
    """The same with a bit for each register of two slots: half the tests and loads, more bytes."""

    name = "lscd-condensed-pairs"
    title = "LSCD condensed pairs, unmeasured"
    format_name = "lscd-condensed-pairs"
    traced = "condensed_pairs"
    positions = 2


def sums_in_turn(rows: Number, k_tiles: Number, blocks: Number) -> Array:
    """Sums that a block takes one after the other where ``blocks`` share ``rows`` rows of ``k_tiles`` tiles equally."""
    whole = ceil_div(rows * k_tiles, blocks) % k_tiles == 0
    return np.where(whole, 0.0, np.ceil(np.asarray(blocks, dtype=np.float64) / rows - 1).clip(0))


def computed_columns(n: ArrayLike) -> Array:
    """Columns the kernel computes for ``n`` tokens: 8, 16, 32 or a multiple of 64."""
    tokens = np.asarray(n, dtype=np.float64)
    small = 2.0 ** np.ceil(np.log2(np.maximum(tokens, 8)))
    return np.where(tokens <= 32, small, 64 * np.ceil(tokens / 64))
