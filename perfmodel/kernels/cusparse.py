"""cuSPARSE CSR SpMM on CUDA cores: the library baseline of the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import Bound
from perfmodel.kernels.base import FIRST_CALL, Call, KernelModel, KernelTime, Machine, Shape, free, overlap
from perfmodel.kernels.csr import LATENCY_CYCLES

# Cycles of a non-zero in the fastest of 31 shapes, at 8 to 32 tokens and 40 to 70 % sparsity alike, on an RTX 4090 and
# an RTX A6000 (whiskers of SpInfer's figure 10). The median shape takes 16 there; Flash-LLM's figure 9 shows 30 up.
FEWEST_CYCLES = 8.2


@dataclass(frozen=True)
class CusparseParameters:
    """Free parameters of the path that cuSPARSE takes for a single token."""

    cycles_per_nonzero: float = free(1.4, 0.1, 20.0, "SM cycles of one non-zero in a short row, for one token")
    cycles_per_row_nonzero: float = free(0.002, 0.0, 0.1, "further SM cycles of it for each other in its row")


class Cusparse(KernelModel):
    """cuSPARSE SpMM, CSR with 32-bit indices and FP16 values.

    For one token it is bound by DRAM and by instruction issue, whose cost grows with the length of the row (threads of
    a warp walk along different rows, so their reads drift apart). For several tokens sources and versions differ
    fourfold, and most published bars are so low that they only bound the time: there this model says "at least".
    """

    name = "cusparse"
    title = "cuSPARSE"
    format_name = "csr"
    Parameters = CusparseParameters

    def at_least(self, shape: Shape) -> NDArray[np.bool_]:
        """All but one token."""
        return shape.n > 1

    def time(self, machine: Machine, shape: Shape, p: CusparseParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one SpMM."""
        one_token = p.cycles_per_nonzero + p.cycles_per_row_nonzero * shape.nnz / shape.m
        cycles = np.where(self.at_least(shape), np.maximum(FEWEST_CYCLES, one_token), one_token)
        multiply_s = 2 * shape.nnz * shape.n / machine.fp32_flops_per_s
        issue_s = np.maximum(cycles * shape.nnz / machine.sm_cycles_per_s, multiply_s)
        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        dram_bytes = call.dram_bytes(machine, weight_bytes, shape.activation_bytes)
        memory_s = call.memory_s(machine, weight_bytes, shape.activation_bytes)
        latency_s = call.launch_s() + LATENCY_CYCLES / machine.clock_hz
        time_s = latency_s + overlap(issue_s, memory_s, 2)
        return KernelTime(
            np.asarray(time_s),
            {Bound.MEMORY: memory_s, Bound.COMPUTE: issue_s, Bound.LATENCY: np.broadcast_to(latency_s, time_s.shape)},
            np.asarray(dram_bytes),
        )
