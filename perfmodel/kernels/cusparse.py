"""cuSPARSE CSR SpMM on CUDA cores: the library baseline of the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.kernels.base import KernelModel, KernelTime, Machine, Shape, free, overlap
from perfmodel.kernels.csr import DRAM_EFFICIENCY, LAUNCH_S
from perfmodel.specs import Bound
from perfmodel.units import FP16_BYTES

REFERENCE_ROW_NONZEROS = 100.0


@dataclass(frozen=True)
class CusparseParameters:
    """Free parameters of the cuSPARSE kernel."""

    cycles_per_nonzero: float = free(24.0, 1.0, 200.0, "SM cycles of one non-zero in a row of 100")
    row_growth: float = free(0.4, 0.0, 1.0, "exponent by which that cost grows with the length of the row")


class Cusparse(KernelModel):
    """cuSPARSE SpMM, CSR with 32-bit indices and FP16 values.

    Bound by instruction issue, at ten to fifty times Sputnik's cost per non-zero, and longer rows cost more per
    non-zero (seen on an A100 at 8 tokens and on an RTX 3090 at one; the cause is inside the closed library). The
    evidence is thin: most published bars are so low that only a lower bound of the time is known. This model says "far
    slower", not how much, and nothing about a single token, where the library takes another path.
    """

    name = "cusparse"
    title = "cuSPARSE"
    format_name = "csr"
    Parameters = CusparseParameters

    def time(self, machine: Machine, shape: Shape, p: CusparseParameters) -> KernelTime:
        """Seconds of one SpMM."""
        row_nonzeros = shape.nnz / shape.m
        cycles = p.cycles_per_nonzero * (row_nonzeros / REFERENCE_ROW_NONZEROS) ** p.row_growth
        issue_s = cycles * shape.nnz / machine.sm_cycles_per_s
        activations = FP16_BYTES * shape.n * (shape.m + shape.k)
        dram_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity) + activations
        memory_s = dram_bytes / (DRAM_EFFICIENCY * machine.dram_bytes_per_s)
        time_s = LAUNCH_S + overlap(issue_s, memory_s, 2)
        latency_s = np.full_like(time_s, LAUNCH_S)
        return KernelTime(
            np.asarray(time_s),
            {Bound.MEMORY: memory_s, Bound.COMPUTE: issue_s, Bound.LATENCY: latency_s},
            np.asarray(dram_bytes),
        )
