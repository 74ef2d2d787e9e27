"""What a board sustains: memory families, inline ECC, power."""

from __future__ import annotations

import json

import msgspec
import pytest

from perfmodel.catalog import data_directory, gpu_names, load_gpu, load_kernel_times
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
    assert power_flops_per_s(capped) < 0.65 * capped.peak.fp16_tensor
    assert power_flops_per_s(free) > free.peak.fp16_tensor
    machine = Machine.of(capped)
    assert machine.tensor_s(1e12, 0.85) == pytest.approx(1e12 / power_flops_per_s(capped))
    assert power_flops_per_s(load_gpu("b200")) == float("inf")
