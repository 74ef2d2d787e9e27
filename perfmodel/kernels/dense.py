"""cuBLAS on Tensor Cores: the dense baseline every sparse kernel has to beat."""

from __future__ import annotations

from dataclasses import dataclass

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
    Shape,
    ceil_div,
    free,
    overlap,
)
from perfmodel.units import FP16_BYTES

TILE_M = 128
TILE_ROWS = 32  # rows of a block where few tokens leave room for many blocks
OVERLAP_SHARPNESS = 2  # p = 4: fits the dense GEMM rows around the ridge best
LONE_SHARES = 3.0  # of device memory's rate that one SM reaches alone, in its share of it
TOKEN_TILES = (16.0, 32.0)  # below 64 tokens cuBLAS has narrow tiles, above it works in 64s


@dataclass(frozen=True)
class DenseParameters:
    """Free parameters of the dense kernel.

    The first is 1 by definition: the share that each kind of memory sustains is what this kernel reaches on it. Only a
    user's own measurements move it.
    """

    bandwidth_efficiency: float = free(1.0, 0.4, 1.2, "share of a streaming read's rate that the kernel reaches")
    pipeline_cycles: float = free(7e3, 1e3, 3e4, "SM cycles to fill and drain the pipeline")
    split_cycles: float = free(
        4e3, 0.0, 2e4, "further SM cycles where K must be shared among all SMs; none where rows do"
    )
    tensor_efficiency: float = free(0.8, 0.3, 1.0, "achieved fraction of the dense Tensor-Core peak")


def token_tile(n: ArrayLike) -> Array:
    """N padded to the tile the kernel computes: 16, 32, then multiples of 64."""
    tokens = np.asarray(n, dtype=np.float64)
    wide = 64 * np.ceil(tokens / 64)
    return np.where(tokens <= TOKEN_TILES[0], TOKEN_TILES[0], np.where(tokens <= TOKEN_TILES[1], TOKEN_TILES[1], wide))


class Dense(KernelModel):
    """cuBLAS GEMM, FP16 in, FP32 accumulate.

    Bound by DRAM up to about 64 tokens: each weight is read once at the rate of a long read. Beyond, the Tensor Cores
    take over, with N padded to the tile. L2 serves the inputs once per row of tiles. Memory and compute overlap
    imperfectly around the ridge (`overlap` with p = 4). Where the rows alone do not give every SM a block, K is shared,
    which costs a little more, but never more than it saves: a short K is left to one block.
    """

    name = "cublas"
    title = "cuBLAS (Tensor Cores)"
    format_name = "dense"
    Parameters = DenseParameters
    moved_by_own = ("bandwidth_efficiency",)
    on_amd = True

    def time(self, machine: Machine, shape: Shape, p: DenseParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one GEMM; ``shape.sparsity`` is ignored: a dense kernel multiplies zeros too."""
        weight_bytes = FP16_BYTES * shape.weights
        memory_s = call.memory_s(machine, weight_bytes, shape.activation_bytes) / p.bandwidth_efficiency
        dram_bytes = call.dram_bytes(machine, weight_bytes, shape.activation_bytes)
        inputs = FP16_BYTES * shape.k * shape.n * ceil_div(shape.m, TILE_M)
        l2_s = (weight_bytes + inputs) / machine.l2_bytes_per_s
        compute_s = machine.tensor_s(2 * shape.weights * token_tile(shape.n), p.tensor_efficiency)
        idle = np.maximum(1 - ceil_div(shape.m, TILE_ROWS) / machine.sm_count, 0)
        block_s = FP16_BYTES * TILE_ROWS * shape.k * machine.sm_count / (LONE_SHARES * machine.streamed_bytes_per_s)
        split_s = np.minimum(p.split_cycles / machine.clock_hz, block_s)
        latency_s = call.launch_s() + p.pipeline_cycles / machine.clock_hz + split_s * idle
        time_s = latency_s + overlap(np.maximum(memory_s, l2_s), compute_s, OVERLAP_SHARPNESS)
        terms = {Bound.MEMORY: memory_s, Bound.L2: np.asarray(l2_s), Bound.COMPUTE: compute_s}
        terms[Bound.LATENCY] = np.broadcast_to(latency_s, np.shape(time_s))
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes))
