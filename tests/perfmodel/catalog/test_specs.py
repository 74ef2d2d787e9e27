"""The records agree with outside numbers: datasheets, published parameter counts, counts on paper."""

from __future__ import annotations

import msgspec
import pytest

from perfmodel.catalog import gpu_names, load_gpu, load_model, model_names
from perfmodel.catalog.specs import Layers

# Streaming multiprocessors, DRAM GB/s, TFLOP/s of dense FP16 Tensor Cores with FP32 accumulation, as NVIDIA prints
# them: A100 and H100 whitepapers table 1-2, H200/L40S/A5000/V100 datasheets, DGX B200 datasheet / 8, Ada and GA102
# whitepapers appendix A; the RTX 2080 SUPER's peak is half its 89.2 with FP16 accumulation.
DATASHEET = {
    "a100-40gb": (108, 1555, 312),
    "a100-80gb": (108, 2039, 312),
    "b200": (148, 8000, 2250),
    "h100": (132, 3350, 989.4),
    "h200": (132, 4800, 989.4),
    "l40s": (142, 864, 362.05),
    "rtx-2080-super": (48, 496, 44.6),
    "rtx-3090": (82, 936, 71),
    "rtx-4090": (128, 1008, 165.2),
    "rtx-a5000": (64, 768, 111.1),
    "rtx-a6000": (84, 768, 154.8),
    "v100": (80, 900, 125),
}


# FLOP per clock and SM of the Tensor Cores (FP16 in, FP32 accumulation); GeForce cards run at half their die's rate.
FLOPS_PER_CLOCK = {"7.0": 1024, "7.5": 1024, "8.0": 2048, "8.6": 1024, "8.9": 1024, "9.0": 4096, "10.0": 8192}


GEFORCE = ("rtx-2080-super", "rtx-3090", "rtx-4090")


# KiB per SM, KiB per block, warps, blocks: CUDA C++ Programming Guide, table of technical specifications.
SM_LIMITS = {
    "7.0": (96, 96, 64, 32),
    "7.5": (64, 64, 32, 16),
    "8.0": (164, 163, 64, 32),
    "8.6": (100, 99, 48, 16),
    "8.9": (100, 99, 48, 24),
    "9.0": (228, 227, 64, 32),
    "10.0": (228, 227, 64, 32),
}


# Half a unit of the last digit that the OPT paper prints; all other published counts are exact.
ROUNDED = {"opt-2.7b": 5e7, "opt-6.7b": 5e7, "opt-13b": 5e8, "opt-30b": 5e8, "opt-66b": 5e8, "opt-175b": 5e8}


def test_the_catalogue_is_complete() -> None:
    assert set(gpu_names()) == set(DATASHEET)
    assert len(model_names()) == 17


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
    per_clock = FLOPS_PER_CLOCK[gpu.compute_capability] / (2 if name in GEFORCE else 1)
    tensor_hz = gpu.clock.tensor_hz or gpu.clock.boost_hz
    assert gpu.peak.fp16_tensor == pytest.approx(gpu.clock.sm_count * tensor_hz * per_clock, rel=0.03)
    fp32_per_clock = 128 if gpu.compute_capability in ("7.0", "7.5", "8.0") else 256
    assert gpu.peak.fp32_simt == pytest.approx(gpu.clock.sm_count * gpu.clock.boost_hz * fp32_per_clock, rel=0.03)


@pytest.mark.parametrize("name", gpu_names())
def test_limits_of_an_sm_follow_from_the_compute_capability(name: str) -> None:
    gpu = load_gpu(name)
    kib_per_sm, kib_per_block, warps, blocks = SM_LIMITS[gpu.compute_capability]
    assert gpu.sm.shared_memory_bytes == kib_per_sm * 1024
    assert gpu.sm.shared_memory_per_block_bytes == kib_per_block * 1024
    assert (gpu.sm.max_warps, gpu.sm.max_blocks) == (warps, blocks)
    assert gpu.sm.registers == 65_536


@pytest.mark.parametrize("name", gpu_names())
def test_memory_levels_are_ordered(name: str) -> None:
    """On-chip levels are faster than DRAM, and decode (N = 16) stays left of every ridge point."""
    gpu = load_gpu(name)
    shared_bytes_per_s = gpu.clock.sm_count * gpu.clock.boost_hz * gpu.sm.shared_bytes_per_clock
    assert gpu.dram.bandwidth_bytes_per_s < gpu.l2.bandwidth_bytes_per_s < shared_bytes_per_s
    assert 50 < gpu.peak.fp16_tensor / gpu.dram.bandwidth_bytes_per_s < 500
    assert gpu.l2.size_bytes < gpu.dram.size_bytes


def test_nvlink_is_absent_where_the_board_has_none() -> None:
    assert load_gpu("l40s").link.nvlink_bytes_per_s is None
    assert load_gpu("rtx-4090").link.nvlink_bytes_per_s is None
    assert load_gpu("a100-80gb").link.nvlink_bytes_per_s == 600e9


@pytest.mark.parametrize("name", model_names())
def test_parameters_agree_with_the_published_count(name: str) -> None:
    model = load_model(name)
    assert model.published is not None
    if name in ROUNDED:
        assert model.parameters == pytest.approx(model.published.parameters, abs=ROUNDED[name])
    else:
        assert model.parameters == model.published.parameters


def test_parameters_of_a_model_small_enough_for_paper() -> None:
    """H = 4, two heads of 2, one K/V head, F = 6, vocabulary 10; every term by hand."""
    fields = msgspec.structs.asdict(load_model("llama-2-7b").shape) | {
        "layers": 2, "hidden_size": 4, "heads": 2, "kv_heads": 1, "head_dim": 2, "ffn_size": 6,
        "vocab_size": 10, "embedding_size": 4, "attention_bias": True, "experts": 3, "experts_per_token": 1,
    }  # fmt: skip
    shape = Layers(**fields)
    assert shape.attention_parameters == 4 * 4 + 2 * (4 * 2) + 4 * 4 + (4 + 2 + 2)
    assert shape.mlp_parameters == 3 * (3 * 4 * 6) + 4 * 3
    model = msgspec.structs.replace(load_model("llama-2-7b"), shape=shape)
    assert model.parameters == 2 * 10 * 4 + 2 * (56 + 228 + 2 * 4) + 4
