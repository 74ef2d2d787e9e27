"""SparTA: a 2:4 part on sparse Tensor Cores, then the left-over weights on CUDA cores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.catalog.specs import Bound
from perfmodel.formats import two_four_residual_density
from perfmodel.kernels.base import (
    FIRST_CALL,
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
from perfmodel.kernels.csr import CsrParameters, csr_issue_s

TILE_M = 128
RESIDUAL_BYTES = 4.0  # an FP16 value and a 16-bit column
TENSOR_EFFICIENCY = 0.92  # of the Sparse Tensor Cores, as 2:4 alone: cuSPARSELt is its library too
PATTERN_BYTES_PER_WEIGHT = 1.125  # half of the FP16 values and 2 bits for each kept one
# The residual runs Sputnik's kernel: its calibrated parameters, not free ones here. `residual_factor` comes out near 1.
RESIDUAL = CsrParameters(0.6454, 0.7605, 0.2583, row_nonzeros=0.0)


@dataclass(frozen=True)
class SpartaParameters:
    """Free parameters of the two SparTA kernels."""

    bytes_per_cycle: float = free(10.0, 4.0, 64.0, "bytes that the 2:4 kernel brings into an SM per cycle, at most")
    latency_s: float = free(1e-5, 0.0, 6e-5, "seconds the two kernels take to fill and drain, beside their launches")
    wave_exposure: float = free(0.3, 0.0, 1.0, "share of the last wave's idle SMs that costs time")
    residual_factor: float = free(1.1, 0.3, 3.0, "cost of a residual weight over Sputnik's per non-zero")


class Sparta(KernelModel):
    """SparTA = cuSPARSELt 2:4 plus Sputnik, one after the other.

    The 2:4 kernel reads 1.125 bytes a weight whatever the sparsity, so its DRAM time is the floor from 80 % on; below,
    the residual grows steeply (half of all weights at 0 %, 2.3 % at 70 %). What it keeps in flight does not fill an
    A100-80GB's memory; GDDR, slower for each SM, it fills.
    """

    name = "sparta"
    title = "SparTA"
    format_name = "sparta"
    Parameters = SpartaParameters
    sparse_cores = True

    def time(self, machine: Machine, shape: Shape, p: SpartaParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of both kernels."""
        pattern_bytes = PATTERN_BYTES_PER_WEIGHT * shape.weights
        blocks = ceil_div(shape.m, TILE_M)
        blocks = np.maximum(blocks, blocks * np.ceil(machine.sm_count / blocks))
        idle = imbalance(blocks, machine.sm_count) - 1
        stored_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        streamed_s = call.memory_s(machine, pattern_bytes, shape.activation_bytes, stored_bytes)
        brought_s = (pattern_bytes + shape.activation_bytes) / (p.bytes_per_cycle * machine.sm_cycles_per_s)
        memory_s = np.maximum(streamed_s, brought_s) * (1 + p.wave_exposure * idle)
        compute_s = machine.tensor_s(2 * shape.weights * shape.n, TENSOR_EFFICIENCY, sparse=True)
        residual_nnz = two_four_residual_density(shape.sparsity) * shape.weights
        issue_s = csr_issue_s(machine, shape, residual_nnz, RESIDUAL)
        residual_bytes = RESIDUAL_BYTES * residual_nnz
        loads_s = call.memory_s(machine, residual_bytes, shape.activation_bytes, stored_bytes) / RESIDUAL.load_share
        residual_s = p.residual_factor * overlap(issue_s, loads_s, 3)
        latency_s = call.launch_s(2) + p.latency_s
        time_s = latency_s + np.maximum(memory_s, compute_s) + residual_s
        dram_bytes = call.dram_bytes(machine, stored_bytes, 2 * shape.activation_bytes)
        terms = {
            Bound.MEMORY: memory_s,
            Bound.COMPUTE: np.maximum(residual_s, compute_s),
            Bound.LATENCY: np.broadcast_to(latency_s, time_s.shape),
        }
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes))
