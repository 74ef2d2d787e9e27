"""The GPU as a kernel model sees it: a few numbers, each a scalar or an array to sweep over hardware."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.specs import Gpu
from perfmodel.kernels.limits import kept_share, power_flops_per_s, streamed_share

Array = NDArray[np.float64]
Number = float | Array

RESERVED_SHARED_BYTES = 1024  # of a block's shared memory; the driver keeps them, from Ampere on


@dataclass(frozen=True)
class Machine:
    """The few GPU numbers a kernel model uses; each a scalar, or an array to sweep over hardware."""

    sm_count: Number
    clock_hz: Number
    dram_bytes_per_s: Number
    dram_share: Number
    kept_bytes: Number
    l2_bytes_per_s: Number
    l2_bytes: Number
    shared_bytes_per_clock: Number
    shared_bytes_per_sm: Number
    registers_per_sm: Number
    tensor_flops_per_s: Number
    power_flops_per_s: Number

    @classmethod
    def of(cls, gpu: Gpu) -> Machine:
        """Pick the numbers of one catalogue GPU."""
        return cls(
            sm_count=gpu.clock.sm_count,
            clock_hz=gpu.clock.boost_hz,
            dram_bytes_per_s=gpu.dram.bandwidth_bytes_per_s,
            dram_share=streamed_share(gpu.dram),
            kept_bytes=kept_share(gpu) * gpu.l2.size_bytes,
            l2_bytes_per_s=gpu.l2.bandwidth_bytes_per_s,
            l2_bytes=gpu.l2.size_bytes,
            shared_bytes_per_clock=gpu.sm.shared_bytes_per_clock,
            shared_bytes_per_sm=gpu.sm.shared_memory_bytes,
            registers_per_sm=gpu.sm.registers,
            tensor_flops_per_s=gpu.peak.fp16_tensor,
            power_flops_per_s=power_flops_per_s(gpu),
        )

    @classmethod
    def stack(cls, gpus: list[Gpu], index: ArrayLike) -> Machine:
        """One machine whose numbers are arrays: element ``i`` describes ``gpus[index[i]]``."""
        machines = [cls.of(gpu) for gpu in gpus]
        rows = np.asarray(index)
        columns = {f.name: np.array([getattr(m, f.name) for m in machines], dtype=np.float64) for f in fields(cls)}
        return cls(**{name: column[rows] for name, column in columns.items()})

    def with_(self, **changes: Number) -> Machine:
        """Copy with some numbers replaced: a what-if machine."""
        return replace(self, **changes)

    @property
    def streamed_bytes_per_s(self) -> Number:
        """Bytes/s of a long read of device memory: the datasheet's, times the share its kind of memory reaches."""
        return self.dram_share * self.dram_bytes_per_s

    def tensor_s(self, flops: Number, efficiency: Number) -> Array:
        """Seconds of ``flops`` on the Tensor Cores at ``efficiency`` of their peak, or at what the board can power."""
        return np.asarray(flops / np.minimum(efficiency * self.tensor_flops_per_s, self.power_flops_per_s))

    @property
    def sm_cycles_per_s(self) -> Number:
        """SM clock cycles per second, all SMs together."""
        return self.sm_count * self.clock_hz
