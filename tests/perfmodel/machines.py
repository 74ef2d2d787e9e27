"""A CPU that nobody measured, whose numbers are easy to compute with."""

from __future__ import annotations

from perfmodel.catalog.cpu import Cpu, CpuMemory, CpuPeak, Measured, ParallelCall, Reads

KIB, MIB = 2**10, 2**20


def round_cpu(**changes: object) -> Cpu:
    """One or two cores of 100 GFLOP/s each: 100 GB/s from 32 KiB each, 10 GB/s from 64 MiB on."""
    curve = [100e9, 100e9, 10e9, 10e9]
    none = [0.0, 0.0]
    fields = {
        "key": "round",
        "name": "round CPU",
        "architecture": "cpu",
        "cores": 2,
        "threads": [1, 2],
        "simd": ["avx512f", "amx_bf16"],
        "clock_hz": 2e9,
        "memory": CpuMemory(size_bytes=16e9),
        "reads": Reads(
            sizes_bytes=[32 * KIB, MIB, 64 * MIB, 1024 * MIB],
            bytes_per_s=[curve, [2 * rate for rate in curve]],
            spread=[[0.01] * 4] * 2,
        ),
        "peak": CpuPeak(
            fp32_fma=[100e9, 200e9], fp32_fma_spread=none,
            fp32_gemm=[80e9, 160e9], fp32_gemm_spread=none,
            torch_fp32_gemm=[80e9, 160e9], torch_fp32_gemm_spread=none,
            bf16_gemm=[800e9, 1600e9], bf16_gemm_spread=none,
        ),
        "call": ParallelCall(seconds=[1e-6, 5e-6], spread=none),
        "measured": Measured(date="2026-01-01", python="3", numpy="2", numba="0", source="made up"),
    }  # fmt: skip
    return Cpu(**(fields | changes))  # type: ignore[arg-type]
