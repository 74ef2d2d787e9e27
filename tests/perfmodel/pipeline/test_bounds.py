"""Lower bounds by resource: by hand, against an independent count of the same machine code, below every simulation."""

from __future__ import annotations

import itertools

import pytest
from numpy.testing import assert_allclose

from perfmodel.catalog import load_gpu
from perfmodel.pipeline import PROGRAMS, Resource, simulate
from perfmodel.pipeline.bounds import BOUNDING, bounds

SHAPE, N = (36864, 9216), 16
# Microseconds and roofs at 36864 x 9216, 16 tokens: another disassembly and another table of pipes, wavefronts of whole
# products on the emulator, DRAM by the format's bytes and the activations.
COUNTED = {
    ("a100-80gb", "numba-bitmap"): {0.5: (188.3, "DRAM"), 0.6: (159.3, "SHARED"), 0.8: (116.8, "ISSUE")},
    ("a100-80gb", "numba-bitmap-pairs"): {0.5: (261.7, "DRAM"), 0.8: (131.4, "DRAM")},
    ("a100-80gb", "numba-tiled-csl"): {0.5: (334.0, "DRAM"), 0.8: (134.0, "DRAM"), 0.9: (101.6, "SHARED")},
    ("a100-80gb", "bitmap"): {0.5: (270.2, "XU"), 0.9: (270.2, "XU")},
    ("h100", "numba-bitmap"): {0.6: (94.1, "DRAM"), 0.9: (70.1, "ISSUE")},
    ("h200", "numba-bitmap-pairs"): {0.7: (77.2, "DRAM")},
    ("h200", "numba-tiled-csl"): {0.7: (85.2, "DRAM"), 0.8: (64.4, "SHARED")},
    ("rtx-4090", "numba-bitmap"): {0.5: (381.0, "DRAM"), 0.9: (113.7, "DRAM")},
}
# Of kernels that take fewer instructions and wavefronts than when they were counted: bounds at most as long.
LIGHTER = [
    ("a100-80gb", "numba-bitmap-pairs", 0.9, 76.0),
    ("h100", "numba-bitmap", 0.7, 75.1),
    ("h200", "numba-bitmap-pairs", 0.9, 44.6),
]
CASES = [(gpu, kernel, s, *found) for (gpu, kernel), row in COUNTED.items() for s, found in row.items()]


@pytest.mark.parametrize(("gpu", "kernel", "sparsity", "time_us", "roof"), CASES)
def test_agrees_with_an_independent_count(gpu: str, kernel: str, sparsity: float, time_us: float, roof: str) -> None:
    found = bounds(kernel, gpu, *SHAPE, N, sparsity)
    assert found.roof is Resource[roof]
    assert_allclose(found.time_s * 1e6, time_us, rtol=0.05)


@pytest.mark.parametrize(("gpu", "kernel", "sparsity", "time_us"), LIGHTER)
def test_kernels_that_became_lighter_have_lower_bounds(gpu: str, kernel: str, sparsity: float, time_us: float) -> None:
    assert 0.9 * time_us < bounds(kernel, gpu, *SHAPE, N, sparsity).time_s * 1e6 < 1.01 * time_us


# The same sources count the condensed kernels before they were written to stream strips of their own.
CONDENSED = [("a100-80gb", 0.8, 126.0), ("a100-80gb", 0.9, 82.0), ("h100", 0.8, 77.0), ("h100", 0.9, 50.0)]


@pytest.mark.parametrize(("gpu", "sparsity", "time_us"), CONDENSED)
def test_condensed_is_bound_by_memory_where_its_prototype_was(gpu: str, sparsity: float, time_us: float) -> None:
    """The search for emptier registers takes up to a sixth off the bytes of the prototype."""
    found = bounds("numba-condensed-pairs", gpu, *SHAPE, N, sparsity)
    assert found.roof is Resource.DRAM
    assert 0.8 * time_us < found.time_s * 1e6 < 1.02 * time_us


def test_dense_dram_by_hand() -> None:
    """Weights, activations and results at the pins: 680 MB at 2.039 TB/s."""
    gpu = load_gpu("a100-80gb")
    n_bytes = 2 * (SHAPE[0] * SHAPE[1] + N * sum(SHAPE))
    found = bounds("cublas", "a100-80gb", *SHAPE, N).seconds[Resource.DRAM]
    assert_allclose(found, n_bytes / gpu.dram.bandwidth_bytes_per_s, rtol=1e-3)


@pytest.mark.parametrize("kernel", list(PROGRAMS))
def test_no_simulation_is_faster(kernel: str) -> None:
    for sparsity in (0.5, 0.9):
        found = bounds(kernel, "h100", 8192, 8192, N, sparsity)
        assert list(found.seconds) == list(BOUNDING)
        assert found.time_s == max(found.seconds.values()) > 0
        assert simulate(kernel, "h100", 8192, 8192, N, sparsity, seed=None).kernel_s > found.time_s


def test_only_memory_and_shared_memory_fall_with_sparsity() -> None:
    """At a fixed variant decoding costs the same for every position."""
    denser, sparser = (bounds("numba-bitmap", "a100-80gb", *SHAPE, N, s).seconds for s in (0.85, 0.95))
    for resource in BOUNDING:
        falls = resource in (Resource.DRAM, Resource.SHARED)
        assert (sparser[resource] < denser[resource]) == falls, resource
    for few, many in itertools.pairwise((8, 16, 32)):
        few_s, many_s = (bounds("numba-bitmap", "a100-80gb", *SHAPE, n, 0.8).seconds for n in (few, many))
        assert many_s[Resource.TENSOR] > few_s[Resource.TENSOR]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean numba-bitmap"):
        bounds("numba-bitmp", "h100", *SHAPE, N)
    with pytest.raises(ValueError, match="n is 0, allowed"):
        bounds("cublas", "h100", *SHAPE, 0)
