"""What a board sustains, whichever kernel runs: a share of its memory's rate, and the Tensor-Core rate it can power."""

from __future__ import annotations

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import Dram, Gpu

MEMORY_FILE = "calibration/memory.json"
INLINE_ECC_SHARE = 15 / 16  # one byte in sixteen of a GDDR card with inline ECC is a check byte
SHARE = "share"
SPLIT_L2_KEEPS = 0.6  # of an L2 in two halves that both keep what both read; from the A100's and H100's resident rows
# FLOP per joule of board power that dense FP16 products reach where power, not the clock, limits them. Tensor Cores fed
# from registers: an A100 of 400 W in serving stacks at 512 tokens (an L40S of 350 W is reported at 0.55 to 0.58, an
# A100 PCIe of 300 W reaches 0.76 at thousands of tokens). Fed from shared memory, as Hopper's: an H100 PCIe of 350 W at
# 512 to 2,048 tokens. Blackwell was not seen at its limit.
FLOPS_PER_JOULE = 0.62e12
FLOPS_PER_JOULE_HOPPER = 1.3e12
FLOPS_PER_JOULE_AMD = 0.73e12  # one product of hipBLASLt on an MI300X, 3,072 x 10,240 at 3,072 tokens


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
    if gpu.power is None:
        return float("inf")
    if gpu.architecture.amd:
        return FLOPS_PER_JOULE_AMD * gpu.power.tdp_w
    if float(gpu.compute_capability) >= 10:
        return float("inf")
    cost = FLOPS_PER_JOULE_HOPPER if float(gpu.compute_capability) >= 9 else FLOPS_PER_JOULE
    return cost * gpu.power.tdp_w


def kept_share(gpu: Gpu) -> float:
    """Share of the L2 in which what all SMs read in turn survives; HBM cards since the A100 split theirs in two."""
    split = memory_family(gpu.dram) != "GDDR" and float(gpu.compute_capability) >= 8 and not gpu.architecture.amd
    return SPLIT_L2_KEEPS if split else 1.0
