"""cuSPARSE CSR SpMM on CUDA cores: the library baseline of the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.catalog.specs import Bound
from perfmodel.kernels.base import KernelModel, KernelTime, Machine, Shape, free, overlap
from perfmodel.kernels.csr import DRAM_EFFICIENCY, LAUNCH_S


@dataclass(frozen=True)
class CusparseParameters:
    """Free parameters of the cuSPARSE kernels: several tokens, and the other path taken for a single one."""

    cycles_per_nonzero: float = free(20.0, 1.0, 200.0, "SM cycles of one non-zero in a short row")
    cycles_per_row_nonzero: float = free(0.06, 0.0, 1.0, "further SM cycles of one non-zero for each other in its row")
    vector_cycles_per_nonzero: float = free(1.4, 0.1, 20.0, "as the first, for one token")
    vector_cycles_per_row_nonzero: float = free(0.002, 0.0, 0.1, "as the second, for one token")


class Cusparse(KernelModel):
    """cuSPARSE SpMM, CSR with 32-bit indices and FP16 values.

    Bound by instruction issue and uncoalesced reads, at ten to fifty times Sputnik's cost per non-zero. That cost grows
    with the length of the row (threads of a warp walk along different rows, so their reads drift apart). For several
    tokens the evidence is thin: most published bars are so low that only a lower bound of the time is known. There this
    model says "far slower", not how much.
    """

    name = "cusparse"
    title = "cuSPARSE"
    format_name = "csr"
    Parameters = CusparseParameters

    def time(self, machine: Machine, shape: Shape, p: CusparseParameters) -> KernelTime:
        """Seconds of one SpMM."""
        one = shape.n == 1
        short = np.where(one, p.vector_cycles_per_nonzero, p.cycles_per_nonzero)
        growth = np.where(one, p.vector_cycles_per_row_nonzero, p.cycles_per_row_nonzero)
        cycles = short + growth * shape.nnz / shape.m
        issue_s = cycles * shape.nnz / machine.sm_cycles_per_s
        dram_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity) + shape.activation_bytes
        memory_s = dram_bytes / (DRAM_EFFICIENCY * machine.dram_bytes_per_s)
        time_s = LAUNCH_S + overlap(issue_s, memory_s, 2)
        latency_s = np.full_like(time_s, LAUNCH_S)
        return KernelTime(
            np.asarray(time_s),
            {Bound.MEMORY: memory_s, Bound.COMPUTE: issue_s, Bound.LATENCY: latency_s},
            np.asarray(dram_bytes),
        )
