"""The records agree with outside numbers: datasheets."""

from __future__ import annotations

import pytest

from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.catalog.specs import Architecture, Precision

# Streaming multiprocessors, DRAM GB/s, TFLOP/s of dense FP16 Tensor Cores with FP32 accumulation, as the makers print
# them: A100 and H100 whitepapers table 1-2, Ada, GA102 and RTX Blackwell whitepapers, HGX B200 and B300 datasheets / 8,
# GB200 and GB300 NVL72 datasheets / 72, else the card's own datasheet. Of the RTX 2080 SUPER half its 89.2 with FP16
# accumulation; of RTX PRO 6000 and GB10, where FP4 alone is printed, 1024 FLOP per clock and SM.
DATASHEET = {
    "a10": (72, 600, 125),
    "a100-40gb": (108, 1555, 312),
    "a100-80gb": (108, 2039, 312),
    "a100-80gb-pcie": (108, 1935, 312),
    "a40": (84, 696, 149.7),
    "b200": (148, 8000, 2250),
    "b300": (148, 7700, 2250),
    "gb10": (48, 273, 118.8),
    "gb200": (152, 8000, 2500),
    "gb300": (152, 8000, 2500),
    "gh200": (132, 4000, 989.4),
    "h100": (132, 3350, 989.4),
    "h100-pcie": (114, 2039, 756),
    "h20": (78, 4000, 148),
    "h200": (132, 4800, 989.4),
    "l4": (58, 300, 121),
    "l40s": (142, 864, 362.05),
    "mi300x": (304, 5300, 1307.4),
    "mi355x": (256, 8000, 2516.6),
    "rtx-2080-super": (48, 496, 44.6),
    "rtx-3090": (82, 936, 71),
    "rtx-4090": (128, 1008, 165.2),
    "rtx-5080": (84, 960, 112.6),
    "rtx-5090": (170, 1792, 209.5),
    "rtx-6000-ada": (142, 960, 364.2),
    "rtx-a5000": (64, 768, 111.1),
    "rtx-a6000": (84, 768, 154.8),
    "rtx-pro-6000": (188, 1792, 503.8),
    "t4": (40, 320, 65),
    "v100": (80, 900, 125),
}


# Dense TFLOP/s of FP8 with FP32 accumulation, TOP/s of INT8, TFLOP/s of FP4; None where the card has none.
LOW_PRECISION: dict[str, tuple[float | None, float | None, float | None]] = {
    "a10": (None, 250, None),
    "a100-40gb": (None, 624, None),
    "a100-80gb": (None, 624, None),
    "a100-80gb-pcie": (None, 624, None),
    "a40": (None, 299.3, None),
    "b200": (4500, 4500, 9000),
    "b300": (4500, 153.5, 13500),
    "gb10": (237.7, 237.7, 475.4),
    "gb200": (5000, 5000, 10000),
    "gb300": (5000, 165, 15000),
    "gh200": (1978.9, 1978.9, None),
    "h100": (1978.9, 1978.9, None),
    "h100-pcie": (1513, 1513, None),
    "h20": (296, 296, None),
    "h200": (1978.9, 1978.9, None),
    "l4": (242.5, 242.5, None),
    "l40s": (733, 733, None),
    "mi300x": (2614.9, 2614.9, None),
    "mi355x": (5033.2, 5033.2, 10066.3),
    "rtx-2080-super": (None, 178.4, None),
    "rtx-3090": (None, 284, None),
    "rtx-4090": (330.3, 660.6, None),
    "rtx-5080": (450.2, 450.2, 900.4),
    "rtx-5090": (838, 838, 1676),
    "rtx-6000-ada": (728.5, 728.5, None),
    "rtx-a5000": (None, 222.2, None),
    "rtx-a6000": (None, 309.7, None),
    "t4": (None, 130, None),
    "rtx-pro-6000": (1007.6, 1007.6, 2015.2),
    "v100": (None, None, None),
}


# FLOP per clock and SM of the Tensor Cores (FP16 in, FP32 accumulation); GeForce cards run at half their die's rate.
FLOPS_PER_CLOCK = {
    "7.0": 1024, "7.5": 1024, "8.0": 2048, "8.6": 1024, "8.9": 1024, "9.0": 4096, "9.4": 2048, "9.5": 4096,
    "10.0": 8192, "10.3": 8192, "12.0": 1024, "12.1": 1024,
}  # fmt: skip


GEFORCE = ("rtx-2080-super", "rtx-3090", "rtx-4090", "rtx-5080", "rtx-5090")
ULTRA = ("b300", "gb300")  # gave most of INT8 up for half as much FP4 again
AMD = ("mi300x", "mi355x")
CUT = {"h20": 4}  # sold with a quarter of its die's Tensor-Core rate
NVIDIA = [name for name in gpu_names() if name not in AMD]


# A rate with 2:4 weights is twice the dense one but here: Blackwell Ultra raised dense FP4 alone, and the L40S's
# datasheet prints the rounded rate of the next precision.
SPARSE_OVER_DENSE = {
    ("b300", Precision.FP4): 4 / 3,
    ("gb300", Precision.FP4): 4 / 3,
    ("l40s", Precision.FP16): 733 / 362.05,
}
# And missing here: no sparse rate of the H20 is printed, and CDNA 4 has none for FP4.
NO_SPARSE = {*(("h20", precision) for precision in Precision), ("mi355x", Precision.FP4)}


# KiB per SM, KiB per block, warps, blocks: CUDA C++ Programming Guide, table of technical specifications.
SM_LIMITS = {
    "7.0": (96, 96, 64, 32),
    "7.5": (64, 64, 32, 16),
    "8.0": (164, 163, 64, 32),
    "8.6": (100, 99, 48, 16),
    "8.9": (100, 99, 48, 24),
    "9.0": (228, 227, 64, 32),
    "10.0": (228, 227, 64, 32),
    "10.3": (228, 227, 64, 32),
    "12.0": (100, 99, 48, 24),
    "12.1": (100, 99, 48, 24),
}


def test_the_catalogue_is_complete() -> None:
    assert set(gpu_names()) == set(DATASHEET)


@pytest.mark.parametrize("name", gpu_names())
def test_gpu_agrees_with_its_datasheet(name: str) -> None:
    gpu = load_gpu(name)
    sm_count, gigabytes_per_s, teraflops_per_s = DATASHEET[name]
    assert gpu.key == name
    assert gpu.clock.sm_count == sm_count
    assert gpu.dram.bandwidth_bytes_per_s == gigabytes_per_s * 1e9
    assert gpu.peak.fp16_tensor == pytest.approx(teraflops_per_s * 1e12, rel=1e-12)


@pytest.mark.parametrize("name", gpu_names())
def test_peaks_follow_from_sms_and_clock(name: str) -> None:
    """A 2:4-sparse or FP16-accumulation peak would be off by a factor of two."""
    gpu = load_gpu(name)
    per_clock = FLOPS_PER_CLOCK[gpu.compute_capability] / (2 if name in GEFORCE else CUT.get(name, 1))
    tensor_hz = gpu.clock.tensor_hz or gpu.clock.boost_hz
    assert gpu.peak.fp16_tensor == pytest.approx(gpu.clock.sm_count * tensor_hz * per_clock, rel=0.03)
    fp32_per_clock = 128 if gpu.compute_capability in ("7.0", "7.5", "8.0") else 256
    assert gpu.peak.fp32_simt == pytest.approx(gpu.clock.sm_count * gpu.clock.boost_hz * fp32_per_clock, rel=0.03)


@pytest.mark.parametrize("name", gpu_names())
def test_low_precisions_agree_with_the_datasheet(name: str) -> None:
    peak = load_gpu(name).peak
    found = [peak.tensor(precision) for precision in (Precision.FP8, Precision.INT8, Precision.FP4)]
    assert found == [rate and pytest.approx(rate * 1e12, rel=1e-12) for rate in LOW_PRECISION[name]]


@pytest.mark.parametrize("name", gpu_names())
def test_a_generation_has_its_precisions(name: str) -> None:
    gpu = load_gpu(name)
    ada_on = gpu.architecture not in (Architecture.VOLTA, Architecture.TURING, Architecture.AMPERE)
    assert (gpu.peak.tensor(Precision.INT8) is None) == (gpu.architecture is Architecture.VOLTA)
    assert (gpu.peak.tensor(Precision.FP8) is not None) == ada_on
    assert (gpu.peak.tensor(Precision.FP4) is not None) == (
        gpu.architecture in (Architecture.BLACKWELL, Architecture.CDNA4)
    )


@pytest.mark.parametrize("name", [name for name in gpu_names() if load_gpu(name).peak.fp8_tensor])
def test_narrower_numbers_multiply_faster(name: str) -> None:
    """FP8 twice as fast as FP16 with the same accumulation, INT8 as FP8, FP4 twice as fast as FP8.

    GeForce cards halve what accumulates in FP32, so neither INT8 nor FP4; nor FP8 since Blackwell.
    """
    peak = load_gpu(name).peak
    assert peak.fp8_tensor is not None
    assert peak.int8_tensor is not None
    halved = 2 if name in GEFORCE else 1
    full_fp8 = halved if load_gpu(name).architecture is Architecture.BLACKWELL else 1
    assert peak.fp8_tensor / peak.fp16_tensor == pytest.approx(2 * full_fp8, rel=0.025 if name == "l40s" else 0.005)
    halved /= full_fp8
    if name in ULTRA:
        assert peak.int8_tensor < 0.04 * peak.fp8_tensor
    else:
        assert peak.int8_tensor / peak.fp8_tensor == pytest.approx(halved, rel=0.005)
    if peak.fp4_tensor is not None:
        assert peak.fp4_tensor / peak.fp8_tensor == pytest.approx(3 if name in ULTRA else 2 * halved, rel=0.005)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("name", gpu_names())
def test_two_of_four_doubles_the_rate(name: str, precision: Precision) -> None:
    """From Ampere on, at every precision a card has."""
    gpu = load_gpu(name)
    dense, sparse = gpu.peak.tensor(precision), gpu.peak.tensor(precision, sparse=True)
    before = gpu.architecture in (Architecture.VOLTA, Architecture.TURING)
    if dense is None or before or (name, precision) in NO_SPARSE:
        assert sparse is None
        return
    assert sparse is not None
    assert sparse / dense == pytest.approx(SPARSE_OVER_DENSE.get((name, precision), 2), rel=0.005)


@pytest.mark.parametrize("name", NVIDIA)
def test_limits_of_an_sm_follow_from_the_compute_capability(name: str) -> None:
    gpu = load_gpu(name)
    kib_per_sm, kib_per_block, warps, blocks = SM_LIMITS[gpu.compute_capability]
    assert gpu.sm.shared_memory_bytes == kib_per_sm * 1024
    assert gpu.sm.shared_memory_per_block_bytes == kib_per_block * 1024
    assert (gpu.sm.max_warps, gpu.sm.max_blocks) == (warps, blocks)
    assert gpu.sm.registers == 65_536


def test_only_amd_cards_count_compute_units() -> None:
    """Four SIMDs of eight wavefronts, 512 KiB of vector registers, 64 or 160 KiB of local data share (LDS)."""
    assert {name for name in gpu_names() if load_gpu(name).architecture.amd} == set(AMD)
    for name, lds_kib, bytes_per_clock in (("mi300x", 64, 128), ("mi355x", 160, 256)):
        sm = load_gpu(name).sm
        assert sm.shared_memory_bytes == sm.shared_memory_per_block_bytes == lds_kib * 1024
        assert sm.shared_bytes_per_clock == bytes_per_clock
        assert (sm.registers * 4, sm.max_warps, sm.max_blocks) == (512 * 1024, 4 * 8, 16)


def test_inline_ecc_shows_in_the_reported_size() -> None:
    """A GDDR card with it reports 15/16 of the memory it is sold with, one without it nearly all."""
    for name in gpu_names():
        dram = load_gpu(name).dram
        if dram.kind.startswith("GDDR"):
            sold_bytes = round(dram.size_bytes / 2**33) * 2**33  # all are sold with multiples of 8 GiB
            assert dram.size_bytes / sold_bytes == pytest.approx(15 / 16 if dram.ecc else 1, abs=0.006)


@pytest.mark.parametrize("name", gpu_names())
def test_memory_levels_are_ordered(name: str) -> None:
    """On-chip levels are faster than DRAM, and decode (N = 16) stays left of every ridge point (the H20's is 37)."""
    gpu = load_gpu(name)
    shared_bytes_per_s = gpu.clock.sm_count * gpu.clock.boost_hz * gpu.sm.shared_bytes_per_clock
    assert gpu.dram.bandwidth_bytes_per_s < gpu.l2.bandwidth_bytes_per_s < shared_bytes_per_s
    assert 35 < gpu.peak.fp16_tensor / gpu.dram.bandwidth_bytes_per_s < 500
    assert gpu.l2.size_bytes < gpu.dram.size_bytes


def test_nvlink_is_absent_where_the_board_has_none() -> None:
    assert load_gpu("l40s").link.nvlink_bytes_per_s is None
    assert load_gpu("rtx-4090").link.nvlink_bytes_per_s is None
    assert load_gpu("a100-80gb").link.nvlink_bytes_per_s == 600e9
