"""The model of decoding in registers: its counts are those of the compiled kernel, its times keep to physics."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import encode_bitmap
from kernels_numba.gpu import trace, variants
from kernels_numba.gpu.compile import compile_kernel
from perfmodel.catalog import load_gpu, load_trace
from perfmodel.kernels import Machine, Shape, register_decode
from perfmodel.kernels.register_decode import RegisterDecode
from tests.kernels_numba.problems import random_matrix

GPUS = ("a100-80gb", "h100", "h200", "rtx-4090")


def test_counts_of_the_model_are_those_of_the_compiled_kernel() -> None:
    """A warp's loop takes as many issue cycles of its scheduler as it has instructions."""
    stored = load_trace("bitmap_n8_c512")
    if stored["versions"] != {package: trace._version(package) for package in trace.PACKAGES}:
        pytest.skip("the trace was counted with other compilers")
    instructions = sum(compile_kernel(variants.bitmap(8, 512), "sm_90").main_loop.values())
    assert register_decode.counts().decode_cycles[0, 0] == instructions
    assert register_decode.counts().shared_bytes[0, 0] == variants.bitmap(8, 512).shared_bytes


def test_variant_of_the_model_is_that_of_the_launch() -> None:
    for sparsity in (0.0, 0.4, 0.5, 0.7, 0.8, 0.95):
        weights = encode_bitmap(random_matrix(1024, 1024, 1 - sparsity))
        capacity = register_decode.CAPACITIES[int(register_decode.capacity_index(np.float64(sparsity)))]
        assert variants.capacity_for(weights.most_values) == capacity


@pytest.mark.parametrize("n", [8, 32, 128])
def test_predictions_keep_to_physics(n: int) -> None:
    """Never below the DRAM floor, falling with sparsity at a fixed variant, intervals around the middle."""
    sparsities = np.linspace(0.4, 0.95, 12)
    for gpu in GPUS:
        machine, shape = Machine.of(load_gpu(gpu)), Shape.of(36864, 9216, n, sparsities)
        model = RegisterDecode()
        fast, slow = (model.time(machine, shape, parameters) for parameters in model.at_ends())
        middle = model.time(machine, shape, model.Parameters())
        assert (fast.time_s > fast.dram_bytes / machine.dram_bytes_per_s).all()
        assert (slow.time_s > middle.time_s).all()
        assert (middle.time_s > fast.time_s).all()
        falls = np.diff(middle.time_s) < 0
        assert falls[np.diff(register_decode.capacity_index(sparsities)) == 0].all()
