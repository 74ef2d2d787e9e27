"""The GPU as a kernel model sees it: a few numbers, each a scalar or an array to sweep over hardware."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.specs import Gpu, Precision
from perfmodel.kernels.limits import kept_share, power_flops_per_s, streamed_share

Array = NDArray[np.float64]
Number = float | Array

# Rates at a board's power limit, in that of dense FP16 (`limits`). INT8: 1.6 on an A100 PCIe and 2.0 on an H100 PCIe;
# FP8: 1.8 on H100s and 1.9 to 2.0 on Blackwells; FP4: 5.2 to 5.7 PFLOP/s on a B200 (DeepGEMM pull request 348).
AT_LIMIT = {Precision.FP16: 1.0, Precision.FP8: 1.9, Precision.INT8: 1.8, Precision.FP4: 3.3}
# The same with 2:4 weights, zeros counted: FP16 1.6 and 1.5 on the first two, FP8 2.7 on the H100, INT8 3.2 and 2.8.
SPARSE_AT_LIMIT = {Precision.FP16: 1.6, Precision.FP8: 2.75, Precision.INT8: 3.1, Precision.FP4: 5.0}
LOW_RATES = tuple(
    (precision, sparse)
    for precision in Precision
    for sparse in (False, True)
    if (precision, sparse) not in ((Precision.FP16, False), (Precision.FP4, True))
)
L2_PORT_BYTES_PER_CYCLE = 64.0  # L2 to SM, NVIDIA A100 whitepaper (2020), section on the L2 cache: 5120 B/clk in all
RESERVED_SHARED_BYTES = 1024  # of a block's shared memory; the driver keeps them, from Ampere on


def _rate_name(precision: Precision, *, sparse: bool) -> str:
    """Field of `Machine` that holds a Tensor-Core rate."""
    if precision is Precision.FP16 and not sparse:
        return "tensor_flops_per_s"
    return f"{precision}{'_sparse' if sparse else ''}_flops_per_s"


@dataclass(frozen=True)
class Machine:
    """The few GPU numbers a kernel model uses; each a scalar, or an array to sweep over hardware.

    ``tensor_flops_per_s`` is the FP16 rate, ``fp32_flops_per_s`` that of CUDA cores; rates of precisions that the GPU
    lacks are NaN.
    """

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
    fp32_flops_per_s: Number
    power_flops_per_s: Number
    fp8_flops_per_s: Number = np.nan
    fp4_flops_per_s: Number = np.nan
    int8_flops_per_s: Number = np.nan
    fp16_sparse_flops_per_s: Number = np.nan
    fp8_sparse_flops_per_s: Number = np.nan
    int8_sparse_flops_per_s: Number = np.nan

    @classmethod
    def of(cls, gpu: Gpu) -> Machine:
        """Pick the numbers of one catalogue GPU."""
        gain = gpu.clock.gain
        return cls(
            sm_count=gpu.clock.sm_count,
            clock_hz=gpu.clock.hz,
            dram_bytes_per_s=gpu.dram.bandwidth_bytes_per_s,
            dram_share=streamed_share(gpu.dram),
            kept_bytes=kept_share(gpu) * gpu.l2.size_bytes,
            l2_bytes_per_s=gpu.l2.bandwidth_bytes_per_s,
            l2_bytes=gpu.l2.size_bytes,
            shared_bytes_per_clock=gpu.sm.shared_bytes_per_clock,
            shared_bytes_per_sm=gpu.sm.shared_memory_bytes,
            registers_per_sm=gpu.sm.registers,
            tensor_flops_per_s=gpu.peak.fp16_tensor * gain,
            fp32_flops_per_s=gpu.peak.fp32_simt * gain,
            power_flops_per_s=power_flops_per_s(gpu),
            **{
                _rate_name(precision, sparse=sparse): (gpu.peak.tensor(precision, sparse=sparse) or np.nan) * gain
                for precision, sparse in LOW_RATES
            },
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

    def tensor_s(
        self, flops: Number, efficiency: Number, precision: Precision = Precision.FP16, *, sparse: bool = False
    ) -> Array:
        """Seconds of ``flops`` on the Tensor Cores at ``efficiency`` of their peak, or at what the board can power.

        With 2:4 weights if ``sparse``; ``flops`` then counts the zeros. NaN on cards without that precision.
        """
        peak: Number = getattr(self, _rate_name(precision, sparse=sparse))
        powered = self.power_flops_per_s * (SPARSE_AT_LIMIT if sparse else AT_LIMIT)[precision]
        return np.asarray(flops / np.minimum(efficiency * peak, powered))

    @property
    def sm_cycles_per_s(self) -> Number:
        """SM clock cycles per second, all SMs together."""
        return self.sm_count * self.clock_hz
