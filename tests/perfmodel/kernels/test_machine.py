"""The GPU as kernel models see it."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.catalog.specs import Precision
from perfmodel.kernels import Machine
from perfmodel.kernels.limits import streamed_share
from perfmodel.kernels.machine import AT_LIMIT, SPARSE_AT_LIMIT


def test_a_stack_is_its_machines() -> None:
    gpus = [load_gpu(name) for name in gpu_names()]
    stacked = Machine.stack(gpus, range(len(gpus)))
    for i, gpu in enumerate(gpus):
        for name, value in vars(Machine.of(gpu)).items():
            np.testing.assert_array_equal(np.asarray(getattr(stacked, name))[i], value)  # NaN where a precision lacks


def test_rates_of_precisions_are_the_datasheets() -> None:
    """A rate that the GPU lacks is NaN, never 0, and so is a time that needs it."""
    ampere, hopper = (Machine.of(load_gpu(name)) for name in ("a100-80gb", "h100"))
    assert (ampere.int8_flops_per_s, ampere.fp16_sparse_flops_per_s) == (624e12, 624e12)
    assert np.isnan([ampere.fp8_flops_per_s, ampere.fp8_sparse_flops_per_s, ampere.fp4_flops_per_s]).all()
    assert hopper.fp8_flops_per_s == pytest.approx(2 * hopper.tensor_flops_per_s, rel=0.01)
    assert np.isnan(ampere.tensor_s(1e12, 0.9, Precision.FP8))
    assert float(ampere.tensor_s(1e12, 0.9, Precision.INT8)) >= 1e12 / (0.9 * 624e12)


def test_what_a_joule_pays_for_caps_every_precision() -> None:
    """An H100 PCIe of 350 W is capped in each; a card without a known limit in none."""
    board, free = Machine.of(load_gpu("h100-pcie")), Machine.of(load_gpu("b200"))
    for precision in (Precision.FP16, Precision.FP8, Precision.INT8):
        for sparse in (False, True):
            paid = board.power_flops_per_s * (SPARSE_AT_LIMIT if sparse else AT_LIMIT)[precision]
            assert float(board.tensor_s(1e15, 1.0, precision, sparse=sparse)) == pytest.approx(1e15 / paid)
    rate = free.fp4_flops_per_s
    assert float(free.tensor_s(1e15, 0.5, Precision.FP4)) == pytest.approx(1e15 / (0.5 * rate))


def test_what_is_streamed_scales_with_the_datasheet() -> None:
    gpu = load_gpu("h200")
    machine = Machine.of(gpu)
    assert machine.streamed_bytes_per_s == streamed_share(gpu.dram) * gpu.dram.bandwidth_bytes_per_s
    twice = machine.with_(dram_bytes_per_s=2 * machine.dram_bytes_per_s)
    assert twice.streamed_bytes_per_s == 2 * machine.streamed_bytes_per_s
