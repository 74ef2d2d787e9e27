"""Sputnik: CSR SpMM on CUDA cores, one row of the sparse matrix per group of threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.catalog.specs import Bound
from perfmodel.kernels.base import FIRST_CALL, Array, Call, KernelModel, KernelTime, Machine, Shape, free, overlap
from perfmodel.units import FP16_BYTES

SECTOR_BYTES = 32
LATENCY_CYCLES = (
    9.3e3  # beside the launch; the published kernel takes 11.6 us on an empty matrix (sparsity sweep, 100 %)
)


@dataclass(frozen=True)
class CsrParameters:
    """Free parameters of a row-split CSR kernel on CUDA cores."""

    load_share: float = free(0.6, 0.3, 1.0, "share of a streaming read's rate that loads of short rows reach")
    cycles_per_nonzero: float = free(0.9, 0.1, 10.0, "SM cycles to issue the loads and multiply-adds of one non-zero")
    token_exponent: float = free(0.25, 0.0, 1.0, "power of the tokens with which these cycles grow: loads get wider")
    l2_exposure: float = free(0.57, 0.0, 2.0, "share of the L2 time of the input rows that is not hidden")
    row_nonzeros: float = free(60.0, 0.0, 300.0, "start-up and tail cost of a row, in non-zeros")
    l1_reach: float = free(
        1.0, 0.1, 6.0, "input that hits in L1, in L1 sizes; above 1 where neighbouring rows share reads"
    )


def input_traffic(machine: Machine, k: Array, n: Array, work: Array, p: CsrParameters) -> Array:
    """Bytes read from L2 for the rows of B that the non-zeros ask for.

    Every non-zero needs a row of B: ``2 n`` bytes, at least one 32-byte sector. A random read misses if its row is not
    among those that L1 can hold.
    """
    row_bytes = np.maximum(SECTOR_BYTES, FP16_BYTES * n)
    miss = np.maximum(1 - p.l1_reach * machine.l1_bytes / (FP16_BYTES * k * n), 0.0)
    return work * row_bytes * miss


def csr_time(machine: Machine, shape: Shape, nnz: Array, p: CsrParameters) -> tuple[Array, Array]:
    """Seconds of instruction issue and of exposed L2 traffic for ``nnz`` non-zeros spread over ``m`` rows."""
    nonempty = shape.m * -np.expm1(-nnz / shape.m)
    work = nnz + p.row_nonzeros * nonempty
    cycles = p.cycles_per_nonzero * shape.n**p.token_exponent
    issue_s = cycles * work / machine.sm_cycles_per_s
    l2_s = p.l2_exposure * input_traffic(machine, shape.k, shape.n, work, p) / machine.l2_bytes_per_s
    return issue_s, l2_s


class Sputnik(KernelModel):
    """Sputnik SpMM (half precision, 16-bit column indices).

    Bound by instruction issue (about one cycle per SM and non-zero at 8 tokens), joined by the L2 reads of B from 32
    tokens on; DRAM never matters below 99 % sparsity. Short rows pay a fixed cost each, which ends the gain above 95 %.
    The tile configurations Sputnik picks at 16 tokens are not modelled: there it is up to 30 % slower than this.
    """

    name = "sputnik"
    title = "Sputnik"
    format_name = "sputnik-csr"
    Parameters = CsrParameters

    def time(self, machine: Machine, shape: Shape, p: CsrParameters, call: Call = FIRST_CALL) -> KernelTime:
        """Seconds of one SpMM."""
        issue_s, l2_s = csr_time(machine, shape, shape.nnz, p)
        weight_bytes = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        dram_bytes = weight_bytes + shape.activation_bytes
        memory_s = call.memory_s(machine, weight_bytes, shape.activation_bytes) / p.load_share
        latency_s = call.launch_s() + LATENCY_CYCLES / machine.clock_hz
        time_s = latency_s + overlap(issue_s + l2_s, memory_s, 3)
        terms = {
            Bound.MEMORY: memory_s,
            Bound.L2: l2_s,
            Bound.COMPUTE: issue_s,
            Bound.LATENCY: np.broadcast_to(latency_s, time_s.shape),
        }
        return KernelTime(np.asarray(time_s), terms, np.asarray(dram_bytes))
