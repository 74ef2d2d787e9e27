"""What a board sustains: memory families, inline ECC, power."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import data_directory, gpu_names, load_gpu, load_kernel_times
from perfmodel.catalog.specs import Clock
from perfmodel.evidence.memory_fit import fit_memory
from perfmodel.evidence.rows import with_residency
from perfmodel.kernels import Machine
from perfmodel.kernels.limits import MEMORY_FILE, memory_family, power_flops_per_s, streamed_share


@pytest.mark.parametrize(
    ("gpu", "family"),
    [
        ("v100", "HBM"), ("a100-40gb", "HBM"), ("a100-80gb", "HBM2e"), ("h200", "HBM"), ("l40s", "GDDR"),
        ("rtx-4090", "GDDR"),
    ],
)  # fmt: skip
def test_memory_families(gpu: str, family: str) -> None:
    assert memory_family(load_gpu(gpu).dram) == family


@pytest.mark.parametrize("gpu", gpu_names())
def test_no_memory_sustains_its_datasheet(gpu: str) -> None:
    assert 0.75 < streamed_share(load_gpu(gpu).dram) < 0.95


@pytest.mark.parametrize(
    ("kind", "family"), [("hbm2e", "HBM2e"), ("gddr6x", "GDDR"), ("LPDDR5X", "GDDR"), ("HBM4", "HBM")]
)
def test_a_kind_may_be_spelled_in_any_case(kind: str, family: str) -> None:
    assert memory_family(msgspec.structs.replace(load_gpu("a100-80gb").dram, kind=kind)) == family


def test_inline_ecc_takes_a_sixteenth() -> None:
    dram = load_gpu("l40s").dram
    assert dram.ecc
    assert streamed_share(dram) / streamed_share(msgspec.structs.replace(dram, ecc=False)) == pytest.approx(15 / 16)


def test_stored_shares_are_what_the_evidence_gives() -> None:
    again = fit_memory(with_residency(load_kernel_times()))
    stored = json.loads((data_directory() / MEMORY_FILE).read_text(encoding="utf-8"))
    assert again.keys() == stored.keys()
    for family, found in again.items():
        assert found.parameters["share"] == pytest.approx(stored[family]["parameters"]["share"], rel=2e-3)


def test_power_caps_the_l40s_but_not_the_rtx_4090() -> None:
    """The first has the Tensor Cores of a board of twice its power; the second computes at half rate with FP32 sums."""
    capped, free = load_gpu("l40s"), load_gpu("rtx-4090")
    assert power_flops_per_s(capped) < 0.72 * capped.peak.fp16_tensor
    assert power_flops_per_s(free) > free.peak.fp16_tensor * free.clock.gain
    machine = Machine.of(capped)
    assert machine.tensor_s(1e12, 0.85) == pytest.approx(1e12 / power_flops_per_s(capped))


def test_half_the_watts_cost_less_than_half_the_rate() -> None:
    """Measured on boards of one chip: A100s of 300 and 400 W at 253 and 271 TFLOP/s, H100s of 350 and 700 W."""
    small, large = (power_flops_per_s(load_gpu(name)) for name in ("a100-80gb-pcie", "a100-80gb"))
    assert small / large == pytest.approx(252.9 / 271.2, rel=0.08)
    small, large = (power_flops_per_s(load_gpu(name)) for name in ("h100-pcie", "h100"))
    assert small / large == pytest.approx(499.5 / 794.5, rel=0.06)


def test_boards_that_were_not_seen_at_their_limit_have_none() -> None:
    for name in ("rtx-5090", "rtx-pro-6000", "gb10", "rtx-2080-super"):
        assert power_flops_per_s(load_gpu(name)) == float("inf")
    assert power_flops_per_s(msgspec.structs.replace(load_gpu("h100"), power=None)) == float("inf")


@pytest.mark.parametrize("name", gpu_names())
def test_geforce_boards_run_faster_than_they_print(name: str) -> None:
    """And every rate of their SMs with them: of Tensor Cores of all precisions, and of CUDA cores."""
    gpu = load_gpu(name)
    machine = Machine.of(gpu)
    assert (gpu.clock.reached_hz is not None) == (name in ("rtx-3090", "rtx-4090", "rtx-5080", "rtx-5090"))
    assert machine.clock_hz == gpu.clock.hz == pytest.approx(gpu.clock.gain * gpu.clock.boost_hz)
    assert machine.tensor_flops_per_s == gpu.clock.gain * gpu.peak.fp16_tensor
    assert machine.int8_flops_per_s == pytest.approx(gpu.clock.gain * (gpu.peak.int8_tensor or np.nan), nan_ok=True)
    assert machine.fp32_flops_per_s == gpu.clock.gain * gpu.peak.fp32_simt


@pytest.mark.parametrize("reached_hz", [1.6e9, 2.6e9])
def test_a_clock_that_no_board_reaches_is_refused(reached_hz: float) -> None:
    with pytest.raises(ValueError, match=r"^reached_hz is .*: from boost_hz \(1.7e\+09\) to 1.5 times it$"):
        Clock(sm_count=82, boost_hz=1.7e9, reached_hz=reached_hz, source="made up")
