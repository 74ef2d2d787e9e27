"""What a board sustains, whichever kernel runs: a share of its memory's rate, and the Tensor-Core rate it can power."""

from __future__ import annotations

import math

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import Architecture, Dram, Gpu

MEMORY_FILE = "calibration/memory.json"
INLINE_ECC_SHARE = 15 / 16  # one byte in sixteen of a GDDR card with inline ECC is a check byte
SHARE = "share"
SPLIT_L2_KEEPS = 0.6  # of an L2 in two halves that both keep what both read; from the A100's and H100's resident rows
# Tensor-Core FLOP/s over the root of (watts of the board x SMs), where power and not the clock limits dense FP16
# products: short of power a board slows its clock and lowers the voltage with it, so half the watts cost less than half
# the rate.
POWERED = {  # with what it was seen on
    Architecture.VOLTA: (0.61e12, "V100 of 300 W: 94 TFLOP/s"),
    Architecture.AMPERE: (1.22e12, "A100s of 300 and 400 W: 225 and 245 TFLOP/s, 253 and 271 at the best shape"),
    Architecture.ADA: (1.15e12, "L40S of 350 W: 252 TFLOP/s at the best shape, some 200 in engines; RTX 4090 in INT8"),
    Architecture.HOPPER: (2.6e12, "H100s of 350 and 700 W: 500 and 795 TFLOP/s"),
    Architecture.BLACKWELL: (4.7e12, "B200 and GB200: 1,745 and 1,822 TFLOP/s; other Blackwells not seen at theirs"),
    Architecture.CDNA3: (1.5e12, "MI300X: 670 to 790 TFLOP/s"),
    Architecture.CDNA4: (2.6e12, "MI355X: 1,565 TFLOP/s"),
}
SMALL_BLACKWELL = 12.0  # compute capability from which a Blackwell is no server's


def memory_family(dram: Dram) -> str:
    """Kind of memory whose sustained share is fitted together: GDDR (LPDDR as well), HBM2e, or any other HBM."""
    kind = dram.kind.upper()
    if not kind.startswith("HBM"):
        return "GDDR"
    return "HBM2e" if kind == "HBM2E" else "HBM"


def streamed_share(dram: Dram) -> float:
    """Share of the datasheet's bandwidth that a long read reaches."""
    return load_calibration(MEMORY_FILE)[memory_family(dram)].parameters[SHARE] * ecc_share(dram)


def ecc_share(dram: Dram) -> float:
    """Share of the bandwidth that inline ECC leaves to data."""
    return INLINE_ECC_SHARE if dram.ecc and memory_family(dram) == "GDDR" else 1.0


def power_flops_per_s(gpu: Gpu) -> float:
    """FLOP/s that the board's power limit allows; infinite where the limit or the generation's cost is not known."""
    small = gpu.architecture is Architecture.BLACKWELL and float(gpu.compute_capability) >= SMALL_BLACKWELL
    if gpu.power is None or small or gpu.architecture not in POWERED:
        return float("inf")
    return POWERED[gpu.architecture][0] * math.sqrt(gpu.power.tdp_w * gpu.clock.sm_count)


def kept_share(gpu: Gpu) -> float:
    """Share of the L2 in which what all SMs read in turn survives; HBM cards since the A100 split theirs in two."""
    split = memory_family(gpu.dram) != "GDDR" and float(gpu.compute_capability) >= 8 and not gpu.architecture.amd
    return SPLIT_L2_KEEPS if split else 1.0
