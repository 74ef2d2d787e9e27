"""The GPU as kernel models see it."""

from __future__ import annotations

import numpy as np

from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.kernels import Machine
from perfmodel.kernels.limits import streamed_share


def test_a_stack_is_its_machines() -> None:
    gpus = [load_gpu(name) for name in gpu_names()]
    stacked = Machine.stack(gpus, range(len(gpus)))
    for i, gpu in enumerate(gpus):
        for name, value in vars(Machine.of(gpu)).items():
            assert np.asarray(getattr(stacked, name))[i] == value


def test_what_is_streamed_scales_with_the_datasheet() -> None:
    gpu = load_gpu("h200")
    machine = Machine.of(gpu)
    assert machine.streamed_bytes_per_s == streamed_share(gpu.dram) * gpu.dram.bandwidth_bytes_per_s
    twice = machine.with_(dram_bytes_per_s=2 * machine.dram_bytes_per_s)
    assert twice.streamed_bytes_per_s == 2 * machine.streamed_bytes_per_s
