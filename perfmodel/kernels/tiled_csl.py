"""Flash-LLM: Load-as-Sparse, Compute-as-Dense with Tiled-CSL weights (the paper's kernel).

Counts are those of the released kernel: 128 x 64 tiles of sparse words are cleared, scattered and read back dense
from shared memory, then multiplied on Tensor Cores, double-buffered; K is split over blocks to fill the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from perfmodel.catalog.specs import Bound
from perfmodel.kernels.base import (
    FIRST_CALL,
    Array,
    Call,
    KernelModel,
    KernelTime,
    Machine,
    Number,
    Shape,
    ceil_div,
    free,
    imbalance,
    overlap,
)
from perfmodel.kernels.conflicts import expected_wavefronts
from perfmodel.kernels.machine import RESERVED_SHARED_BYTES
from perfmodel.units import FP16_BYTES, WARP_SIZE

TILE_M, TILE_K = 128, 64
TILE_BYTES = FP16_BYTES * TILE_M * TILE_K
MAX_SPLIT_K = 10
GOOD_WAVE = 0.9
LAUNCHES = 2  # product and split-K reduction
TENSOR_EFFICIENCY = 0.62
CALIBRATED_BLOCKS_PER_SM = 2  # residency on the A100, where the cycle counts below were fitted
# Registers allow two blocks of 128 threads: 246 a thread are known at 128 tokens, and up to 32 tokens twice as many
# hold sparse words. At 64 tokens half of both is needed, and three blocks fit, as many as shared memory lets in. So the
# sparsity from which the kernel pays dips a little at 64 tokens. That it is three was seen in published throughputs of
# OPT-30B and OPT-66B at batch 64, which two would miss by twice as much.
BLOCKS_BY_REGISTERS, BLOCKS_BY_REGISTERS_AT_64 = 2, 3


@dataclass(frozen=True)
class TiledCslParameters:
    """Free parameters of the Flash-LLM kernel."""

    bandwidth_efficiency: float = free(1.0, 0.9, 1.1, "share of a streaming read's rate that the kernel reaches")
    cycles_per_wavefront: float = free(1.4, 1.0, 3.0, "SM cycles per shared-memory wavefront of clearing and ldmatrix")
    cycles_per_nonzero: float = free(0.17, 1 / 32, 1.0, "SM cycles to load, unpack and scatter one non-zero")
    tensor_exposure: float = free(0.2, 0.0, 1.0, "share of the Tensor-Core time not hidden behind shared memory")
    block_cycles: float = free(6e3, 5e2, 2e4, "SM cycles a block spends filling and draining its pipeline")


@dataclass(frozen=True)
class UnorderedParameters(TiledCslParameters):
    """Those of Flash-LLM, which are not fitted again, and what its encoder saves by reordering."""

    cycles_per_conflict: float = free(2.0, 0.5, 6.0, "SM cycles of each further wavefront of a conflicting store")


def padded_tokens(n: ArrayLike) -> Array:
    """Smallest supported N: 8, 16, 32, 64 or a multiple of 128."""
    tokens = np.asarray(n, dtype=np.float64)
    small = 2.0 ** np.ceil(np.log2(np.maximum(tokens, 8)))
    return np.where(tokens <= 64, small, 128 * np.ceil(tokens / 128))


def block_rows(n: Array) -> Array:
    """Rows of C a block owns: two sparse tiles up to 32 tokens, one above."""
    return np.where(n <= 32, 256.0, 128.0)


def stored_tokens(n: Array) -> Array:
    """TILE_N, the columns of B a block keeps in shared memory: 16 to 128."""
    return np.clip(n, 16, 128)


def shared_bytes(n: Array) -> Array:
    """Shared memory of one block: two buffers of A and B tiles, or the FP32 result tile."""
    rows, tokens = block_rows(n), stored_tokens(n)
    return np.maximum(2 * (rows + tokens) * TILE_K * FP16_BYTES, (rows + 4) * tokens * 4)


def blocks_per_sm(machine: Machine, n: Array) -> Array:
    """Resident blocks per SM from shared memory and registers, at least 1."""
    by_shared = np.floor(machine.shared_bytes_per_sm / (shared_bytes(n) + RESERVED_SHARED_BYTES))
    return np.clip(by_shared, 1, np.where(n == 64, BLOCKS_BY_REGISTERS_AT_64, BLOCKS_BY_REGISTERS))


def split_k(blocks: Number, slots: Number, k_tiles: Number) -> Array:
    """Ways to share K among blocks: the fewest that fill the last wave to 90 %, else the best up to 10.

    This rule gives all 15 hand-tuned values of the released code (A100, two blocks per SM) and carries over to other
    GPUs through ``slots``, the blocks resident on the whole GPU.
    """
    if np.all(np.asarray(k_tiles) >= MAX_SPLIT_K):
        k_tiles = MAX_SPLIT_K  # no limit, and no axis of k to search along
    blocks, slots, k_tiles = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (blocks, slots, k_tiles)))
    best, best_fill = np.ones(blocks.shape), np.zeros(blocks.shape)
    for split in range(1, MAX_SPLIT_K + 1):
        waves = blocks * split / slots
        fill = waves / np.ceil(waves)
        better = (fill > best_fill + 1e-9) & (best_fill < GOOD_WAVE) & (split <= k_tiles)
        best = np.where(better, split, best)
        best_fill = np.where(better, fill, best_fill)
    return best


class TiledCsl(KernelModel):
    """Flash-LLM SpMM.

    Up to about 70 % sparsity DRAM bounds it on an A100; above, the on-chip floor of computing dense: clearing and
    reading a 16 KB tile costs the same however few weights it holds, so even an empty matrix takes 0.136 ms at
    36864 x 9216. At 128 tokens and more the sparse tile is loaded and expanded once per 128 columns; its bytes come
    from DRAM once, because the grid puts the blocks that share rows side by side (columns are its fastest axis in the
    released code), where all but the first find them in L2.
    """

    name = "flash-llm"
    title = "Flash-LLM"
    format_name = "tiled-csl"
    Parameters = TiledCslParameters
    slower_variant: ClassVar[str | None] = "flash-llm-noreorder"
    supported_n = "8, 16, 32, 64 or a multiple of 128"

    def padded_n(self, n: ArrayLike) -> Array:
        """Smallest supported N that holds ``n`` tokens."""
        return padded_tokens(n)

    def conflict_cycles(self, p: Any) -> float:
        """SM cycles a non-zero waits for the banks of shared memory: none, the encoder sees to that."""
        return 0.0

    def time(self, machine: Machine, shape: Shape, p: TiledCslParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of product and split-K reduction."""
        n = padded_tokens(shape.n)
        stored, rows = stored_tokens(n), block_rows(n)
        columns = ceil_div(n, stored)
        resident = blocks_per_sm(machine, n)
        blocks = ceil_div(shape.m, rows) * columns
        k_tiles = ceil_div(shape.k, TILE_K)
        split = call.ways(split_k(blocks, machine.sm_count * resident, k_tiles), k_tiles)
        blocks = blocks * split

        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        other_bytes = FP16_BYTES * n * (shape.m + shape.k)
        dram_bytes = call.dram_bytes(machine, weight_bytes, other_bytes)
        memory_s = call.memory_s(machine, weight_bytes, other_bytes) / p.bandwidth_efficiency
        partial_bytes = FP16_BYTES * shape.m * n * split
        # Partial sums are written instead of the result, read again, and added up into it.
        reduction_bytes = np.where(split > 1, partial_bytes + FP16_BYTES * shape.m * n, 0.0)
        extra_bytes = np.where(split > 1, reduction_bytes + partial_bytes - FP16_BYTES * shape.m * n, 0.0)
        cycles_to_s = imbalance(blocks, machine.sm_count) / machine.sm_cycles_per_s
        # A third block hides the others' waits in full; a missing second one is partly made up for by the first.
        residency = np.minimum(CALIBRATED_BLOCKS_PER_SM / resident, np.sqrt(CALIBRATED_BLOCKS_PER_SM / resident))
        # Conflicts keep the banks busy: a third block hides none of them.
        conflicts = self.conflict_cycles(p) * shape.nnz * columns * np.maximum(residency, 1.0)
        shared_s = (on_chip_cycles(machine, shape, n, p) * residency + conflicts) * cycles_to_s
        compute_s = machine.tensor_s(2 * shape.weights * n, TENSOR_EFFICIENCY)
        block_s = p.block_cycles / machine.clock_hz
        refills_s = np.maximum(blocks / (machine.sm_count * resident) - 1, 0) * block_s
        launches = np.where(split > 1, LAUNCHES, 1)
        latency_s = call.launch_s() + launches * block_s
        busy_s = overlap(overlap(memory_s, shared_s + refills_s, 3), compute_s, 3)
        time_s = latency_s + busy_s + reduction_bytes / machine.dram_bytes_per_s
        terms: dict[Bound, Array] = {
            Bound.MEMORY: memory_s,
            Bound.SHARED_MEMORY: shared_s,
            Bound.COMPUTE: compute_s,
            Bound.LATENCY: latency_s,
        }
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes + extra_bytes))


class TiledCslUnordered(TiledCsl):
    """Flash-LLM from an encoder that leaves each tile's weights in the order it met them.

    So do the encoder that SpInfer's benchmark calls and its forks. The 32 stores of a scatter then fall on the banks of
    shared memory at random and take 3.5 wavefronts instead of one. Everything else, parameters too, is Flash-LLM's.
    """

    name = "flash-llm-noreorder"
    title = "Flash-LLM, not reordered"
    Parameters = UnorderedParameters
    borrows = TiledCsl.name
    slower_variant = None

    def conflict_cycles(self, p: UnorderedParameters) -> float:
        """Cycles of the further wavefronts that a store of 32 non-zeros takes, for each of them."""
        return p.cycles_per_conflict * (expected_wavefronts(WARP_SIZE) - 1) / WARP_SIZE


def on_chip_cycles(machine: Machine, shape: Shape, n: Array, p: TiledCslParameters) -> Array:
    """SM cycles to expand and multiply all tiles, summed over the GPU.

    Per 128 x 64 tile: 128 wavefronts to clear, 128 to read by ldmatrix (twice from 64 tokens on, where two columns
    of warps share it), the B tile written once and read by each row of warps, ``nnz`` 16-bit stores, and
    ``128 * 64 * TILE_N`` multiply-adds on the Tensor Cores of one SM.
    """
    stored = np.minimum(n, 128)
    wide = n >= 64
    wavefront_bytes = machine.shared_bytes_per_clock
    tile_reads = np.where(wide, 2, 1)
    inputs = FP16_BYTES * TILE_K * stored_tokens(n) / wavefront_bytes * np.where(wide, 3.0, 2.5)
    wavefronts = TILE_BYTES / wavefront_bytes * (1 + tile_reads) + inputs
    flops_per_cycle = machine.tensor_flops_per_s / machine.sm_cycles_per_s
    tensor_cycles = 2 * TILE_M * TILE_K * stored / flops_per_cycle
    tiles = shape.weights / (TILE_M * TILE_K) * ceil_div(n, stored_tokens(n))
    expand = shape.nnz * ceil_div(n, stored_tokens(n)) * p.cycles_per_nonzero
    return tiles * (p.cycles_per_wavefront * wavefronts + p.tensor_exposure * tensor_cycles) + expand
