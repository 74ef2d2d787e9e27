"""Sputnik: CSR SpMM on CUDA cores, one row of the sparse matrix per group of threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

# Beside the launch: the published kernel takes 11.6 us on an empty matrix (sparsity sweep, 100 %).
LATENCY_CYCLES = 9.3e3
# Columns of the widest tile of its half-precision kernels, which accumulate in FP32 (google-research/sputnik 1231afc).
TILE_N = 64


@dataclass(frozen=True)
class CsrParameters:
    """Free parameters of a row-split CSR kernel on CUDA cores."""

    load_share: float = free(0.6, 0.3, 1.0, "share of a streaming read's rate that loads of short rows reach")
    cycles_per_nonzero: float = free(0.9, 0.1, 10.0, "SM cycles to issue the loads and multiply-adds of one non-zero")
    token_exponent: float = free(0.25, 0.0, 1.0, "power of the tokens with which these cycles grow: loads get wider")
    row_nonzeros: float = free(60.0, 0.0, 300.0, "start-up and tail cost of a row, in non-zeros")


def csr_issue_s(machine: Machine, shape: Shape, nnz: Array, p: CsrParameters) -> Array:
    """Seconds to issue the instructions of ``nnz`` non-zeros spread over ``m`` rows, anew for every tile of tokens."""
    nonempty = shape.m * -np.expm1(-nnz / shape.m)
    work = nnz + p.row_nonzeros * nonempty
    cycles = p.cycles_per_nonzero * np.minimum(shape.n, TILE_N) ** p.token_exponent * ceil_div(shape.n, TILE_N)
    idle = np.maximum(machine.sm_count / shape.m, 1.0)  # a row is never shared
    return np.asarray(cycles * work * idle / machine.sm_cycles_per_s)


class Sputnik(KernelModel):
    """Sputnik SpMM (half precision, 16-bit column indices).

    Bound by instruction issue from about 8 tokens on, a cycle per SM and non-zero and slowly more with the tokens; by
    device memory for one token, of whose rate its loads, each waited for, reach two thirds. Short rows pay a fixed cost
    each, which ends the gain above 95 %. Every 64 tokens it goes through the weights again, which nobody has timed. The
    tile configurations it picks at 16 tokens are not modelled: one source has it up to 30 % slower there than this,
    another a third faster.
    """

    name = "sputnik"
    title = "Sputnik"
    format_name = "sputnik-csr"
    Parameters = CsrParameters

    def time(self, machine: Machine, shape: Shape, p: CsrParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one SpMM."""
        issue_s = csr_issue_s(machine, shape, shape.nnz, p)
        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        dram_bytes = call.dram_bytes(machine, weight_bytes, shape.activation_bytes)
        memory_s = call.memory_s(machine, weight_bytes, shape.activation_bytes) / p.load_share
        latency_s = call.launch_s() + LATENCY_CYCLES / machine.clock_hz
        time_s = latency_s + overlap(issue_s, memory_s, 3)
        terms = {
            Bound.MEMORY: memory_s,
            Bound.COMPUTE: issue_s,
            Bound.LATENCY: np.broadcast_to(latency_s, time_s.shape),
        }
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes))
