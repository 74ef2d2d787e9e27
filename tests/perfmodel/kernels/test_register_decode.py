"""The model of decoding in registers: its counts are those of the compiled kernel, its times keep to physics."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import encode_bitmap, encode_condensed
from kernels_numba.gpu import trace, variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.launch import make_plan, with_aligned_rows
from perfmodel.catalog import load_gpu, load_trace
from perfmodel.kernels import Machine, Shape, register_decode
from perfmodel.kernels.register_decode import (
    CondensedDecode,
    CondensedDecodePairs,
    RegisterDecode,
    RegisterDecodePairs,
)
from tests.kernels_numba.problems import random_matrix

GPUS = ("a100-80gb", "h100", "h200", "rtx-4090")


@pytest.mark.parametrize("kernel", ["bitmap", "condensed_pairs"])
def test_counts_of_the_model_are_those_of_the_compiled_kernel(kernel: str) -> None:
    """A warp's loop takes as many issue cycles of its scheduler as it has instructions, or twice its busiest pipe's."""
    stored = load_trace(f"{kernel}_n8")
    if stored["versions"] != {package: trace._version(package) for package in trace.PACKAGES}:
        pytest.skip("the trace was counted with other compilers")
    instructions = sum(compile_kernel(variants.records(kernel, 8), "sm_90").main_loop.values())
    assert instructions <= register_decode.counts(kernel).decode_cycles[0] < 1.1 * instructions


@pytest.mark.parametrize("model", [RegisterDecode(), RegisterDecodePairs(), CondensedDecode(), CondensedDecodePairs()])
def test_buffers_of_the_model_are_those_of_the_launch(model: RegisterDecode) -> None:
    """The longest record of 1,024 strips, a little below that of a large matrix."""
    encode = encode_condensed if "condensed" in model.traced else encode_bitmap
    for sparsity in (0.5, 0.7, 0.8, 0.95):
        weights = with_aligned_rows(encode(random_matrix(1024, 1024, 1 - sparsity), model.positions))
        expected = float(model.capacity_bytes(sparsity))
        assert -0.02 * expected - 128 <= make_plan(weights, 8).capacity - expected <= 0.02 * expected + 128


@pytest.mark.parametrize("n", [8, 32, 128])
def test_predictions_keep_to_physics(n: int) -> None:
    """Never below the DRAM floor, never rising with sparsity, intervals around the middle."""
    sparsities = np.linspace(0.4, 0.95, 12)
    for gpu in GPUS:
        machine, shape = Machine.of(load_gpu(gpu)), Shape.of(36864, 9216, n, sparsities)
        model = RegisterDecode()
        fast, slow = (model.time(machine, shape, parameters) for parameters in model.at_ends())
        middle = model.time(machine, shape, model.Parameters())
        assert (fast.time_s > fast.dram_bytes / machine.dram_bytes_per_s).all()
        assert (slow.time_s > middle.time_s).all()
        assert (middle.time_s > fast.time_s).all()
        # Where buffers shrink enough for one more block, stretches are cut anew.
        assert (np.diff(middle.time_s) < 0.01 * middle.time_s[1:]).all()
