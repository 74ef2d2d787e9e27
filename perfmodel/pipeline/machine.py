"""A GPU as the simulator sees it: how many cycles of the SM clock each resource needs for one unit of work.

Everything but the free parameters comes from the datasheet or from published microbenchmarks. Device memory serves what
its kind sustains in a long read, Tensor Cores what the board can power: the same limits as in every closed form. A
closed form's share of the Tensor Cores' peak is no input here: it should come out of the simulated waits. What an SM
can have in flight needs no rate of its own: it is what the stages of its blocks have asked for and not yet received.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import Gpu
from perfmodel.kernels.limits import power_flops_per_s, streamed_share
from perfmodel.kernels.machine import L2_PORT_BYTES_PER_CYCLE, RESERVED_SHARED_BYTES
from perfmodel.kernels.pipes import PIPE_CYCLES
from perfmodel.pipeline.parameters import PipelineParameters
from perfmodel.pipeline.program import Resource

Array = NDArray[np.float64]

WAVEFRONT_BYTES = 128
LDMATRIX_CYCLES = 33.0  # ldmatrix.x4 on an A100; Sun et al., "Dissecting Tensor Cores via Microbenchmarks", TPDS 2023
MMA_CYCLES = 33.0  # mma.m16n8k16 on an A100, same source
BLOCK_INTERVAL_CYCLES = 2.0  # the grid's blocks start one after the other


@dataclass(frozen=True)
class Machine:
    """Rates of one GPU per cycle of its SM clock, and the limits of one SM.

    Attributes
    ----------
    cycles_per_unit : ndarray
        (resources,) cycles per unit of work; of the whole GPU for DRAM and L2, of one SM for the rest.
    """

    gpu: Gpu
    clock_hz: float
    sm_count: int
    cycles_per_unit: Array
    dram_cycles: float
    l2_cycles: float
    shared_bytes: float
    shared_bytes_per_block: float
    parameters: PipelineParameters

    @classmethod
    def of(cls, gpu: Gpu, p: PipelineParameters, *, bandwidth_scale: float = 1.0, shared_scale: float = 1.0) -> Machine:
        """Machine of a catalogue GPU, its device memory and its shared memory scaled for a what-if."""
        clock = gpu.clock.hz
        sustained = streamed_share(gpu.dram) * gpu.dram.bandwidth_bytes_per_s * bandwidth_scale
        cycles = np.zeros(len(Resource))
        cycles[Resource.DRAM] = clock / sustained
        cycles[Resource.L2] = clock / gpu.l2.bandwidth_bytes_per_s
        cycles[Resource.PORT] = 1 / (L2_PORT_BYTES_PER_CYCLE * max(bandwidth_scale, 1.0))
        cycles[Resource.SHARED] = WAVEFRONT_BYTES / gpu.sm.shared_bytes_per_clock
        at_peak = (gpu.clock.tensor_hz or gpu.clock.boost_hz) / gpu.peak.fp16_tensor
        cycles[Resource.TENSOR] = 2 * gpu.clock.sm_count * max(at_peak, clock / power_flops_per_s(gpu))
        for pipe, lasting in PIPE_CYCLES.items():
            cycles[Resource[pipe.upper()]] = lasting / gpu.sm.schedulers / p.pipe_share
        return cls(
            gpu=gpu,
            clock_hz=clock,
            sm_count=gpu.clock.sm_count,
            cycles_per_unit=cycles,
            dram_cycles=gpu.latency.dram_cycles,
            l2_cycles=gpu.latency.l2_cycles,
            shared_bytes=gpu.sm.shared_memory_bytes * shared_scale,
            shared_bytes_per_block=gpu.sm.shared_memory_per_block_bytes * shared_scale,
            parameters=p,
        )

    def resident_blocks(self, shared_bytes: int, registers_per_thread: int, threads: int) -> int:
        """Blocks an SM holds at once, at least 1.

        Raises
        ------
        ValueError
            If one block does not fit: names what it needs and what the GPU has.
        """
        if shared_bytes > self.shared_bytes_per_block:
            raise ValueError(
                f"a block needs {shared_bytes} bytes of shared memory, {self.gpu.key} allows at most "
                f"{self.shared_bytes_per_block:.0f}"
            )
        sm, warps = self.gpu.sm, -(-threads // 32)
        registers = -(-registers_per_thread // 8) * 8 * warps * 32  # allocated to warps in units of 256
        reserved = RESERVED_SHARED_BYTES if float(self.gpu.compute_capability) >= 8 else 0
        by_shared = self.shared_bytes // (shared_bytes + reserved)
        return int(max(1, min(by_shared, sm.registers // registers, sm.max_warps // warps, sm.max_blocks)))
