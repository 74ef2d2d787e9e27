"""The device as a kernel model sees it: a few numbers, each a scalar or an array to sweep over hardware."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.cpu import Cpu, Device
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
MATRIX_UNIT = "amx_bf16"  # name of it in `Cpu.simd`
READ_SIZES = 2.0 ** np.arange(12, 40.5, 0.5)  # working sets in bytes at which a CPU's curve of read rates is kept


def _rate_name(precision: Precision, *, sparse: bool) -> str:
    """Field of `Machine` that holds a Tensor-Core rate."""
    if precision is Precision.FP16 and not sparse:
        return "tensor_flops_per_s"
    return f"{precision}{'_sparse' if sparse else ''}_flops_per_s"


@dataclass(frozen=True)
class Machine:
    """The few numbers a kernel model uses; each a scalar, or an array to sweep over hardware.

    ``tensor_flops_per_s`` is the FP16 rate, ``fp32_flops_per_s`` that of CUDA cores; rates of precisions that the GPU
    lacks are NaN. Of a CPU there are clock, memory and the fields from ``cpu_fma_flops_per_s`` on, of its
    threads in use: what they multiply and add from registers, in a product of NumPy, and of PyTorch in FP32 and BF16;
    seconds of a parallel call; threads, and 1 or 0 matrix units (AMX) a core; and ``reads_bytes_per_s``, whose last
    axis is that of `READ_SIZES`. The others are NaN, as those are of a GPU.
    """

    clock_hz: Number
    dram_bytes_per_s: Number
    dram_share: Number
    sm_count: Number = np.nan
    kept_bytes: Number = np.nan
    l2_bytes_per_s: Number = np.nan
    l2_bytes: Number = np.nan
    shared_bytes_per_clock: Number = np.nan
    shared_bytes_per_sm: Number = np.nan
    registers_per_sm: Number = np.nan
    tensor_flops_per_s: Number = np.nan
    fp32_flops_per_s: Number = np.nan
    power_flops_per_s: Number = np.nan
    fp8_flops_per_s: Number = np.nan
    fp4_flops_per_s: Number = np.nan
    int8_flops_per_s: Number = np.nan
    fp16_sparse_flops_per_s: Number = np.nan
    fp8_sparse_flops_per_s: Number = np.nan
    int8_sparse_flops_per_s: Number = np.nan
    cpu_fma_flops_per_s: Number = np.nan
    cpu_gemm_flops_per_s: Number = np.nan
    cpu_torch_flops_per_s: Number = np.nan
    cpu_bf16_flops_per_s: Number = np.nan
    call_s: Number = np.nan
    threads: Number = np.nan
    matrix_units: Number = np.nan
    reads_bytes_per_s: Number = field(default_factory=lambda: np.full(READ_SIZES.shape, np.nan))

    @classmethod
    def of(cls, device: Device) -> Machine:
        """Pick the numbers of one device of the catalogue; of a CPU those of its threads in use."""
        return cls._of_cpu(device) if isinstance(device, Cpu) else cls._of_gpu(device)

    @classmethod
    def _of_cpu(cls, cpu: Cpu) -> Machine:
        peak, place = cpu.peak, cpu.place
        torch, brain = (rates[place] if rates else np.nan for rates in (peak.torch_fp32_gemm, peak.bf16_gemm))
        return cls(
            clock_hz=cpu.clock_hz,
            dram_bytes_per_s=cpu.dram_bytes_per_s,
            dram_share=1.0,
            cpu_fma_flops_per_s=peak.fp32_fma[place],
            cpu_gemm_flops_per_s=peak.fp32_gemm[place],
            cpu_torch_flops_per_s=torch,
            cpu_bf16_flops_per_s=brain,
            call_s=cpu.call.seconds[place],
            threads=cpu.in_use,
            matrix_units=float(MATRIX_UNIT in cpu.simd),
            reads_bytes_per_s=np.array([cpu.read_rate(size) for size in READ_SIZES]),
        )

    @classmethod
    def _of_gpu(cls, gpu: Gpu) -> Machine:
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
    def stack(cls, devices: list[Device], index: ArrayLike) -> Machine:
        """One machine whose numbers are arrays: element ``i`` describes ``devices[index[i]]``."""
        machines = [cls.of(device) for device in devices]
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

    def read_rate(self, working_set_bytes: Number) -> Array:
        """Bytes/s at which a CPU's threads read a working set over and over, between `READ_SIZES` in logarithms."""
        steps = np.log2(np.maximum(working_set_bytes, 1.0) / READ_SIZES[0]) / np.log2(READ_SIZES[1] / READ_SIZES[0])
        curve = np.log(self.reads_bytes_per_s)
        at = np.clip(steps, 0, len(READ_SIZES) - 1)
        shape = np.broadcast_shapes(np.shape(at), curve.shape[:-1])
        curve, at = np.broadcast_to(curve, (*shape, len(READ_SIZES))), np.broadcast_to(at, shape)
        low = np.minimum(at.astype(np.intp), len(READ_SIZES) - 2)
        below, above = (np.take_along_axis(curve, i[..., None], -1)[..., 0] for i in (low, low + 1))
        return np.asarray(np.exp(below + (at - low) * (above - below)))

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
