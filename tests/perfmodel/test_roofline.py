"""Roofline: intensities, limits, and consistency with the bytes of the formats."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.catalog.specs import Bound
from perfmodel.formats import FORMATS
from perfmodel.roofline import (
    MemoryLevel,
    attainable_flops_per_s,
    bound,
    bytes_moved,
    intensity,
    memory_time_floor,
    ridge_point,
    roofline_time,
)

DENSE = FORMATS["dense"]


def test_exact_intensity_counts_output_and_index_bytes() -> None:
    m, k, n = 36864, 9216, 8
    assert float(intensity(DENSE, MemoryLevel.DRAM, m, k, n)) == pytest.approx(
        2 * m * k * n / (2 * (m * k + n * (m + k)))
    )
    # Tiled-CSL spends 4 bytes on a kept weight, where the paper's "m n / ((1 - s) m + n)" (section 3) counts 2.
    exact = intensity(FORMATS["tiled-csl"], MemoryLevel.DRAM, m, k, n, 0.8)
    assert 0.49 < float(exact) / (m * n / (0.2 * m + n)) < 0.52


@pytest.mark.parametrize("level", list(MemoryLevel))
def test_inner_levels_move_at_least_as_much(level: MemoryLevel) -> None:
    moved = bytes_moved(DENSE, level, 4096, 4096, np.array([1, 64, 512]))
    assert (moved >= bytes_moved(DENSE, MemoryLevel.DRAM, 4096, 4096, np.array([1, 64, 512]))).all()


@pytest.mark.parametrize("name", gpu_names())
def test_roof_meets_at_the_ridge(name: str) -> None:
    gpu = load_gpu(name)
    ridge = ridge_point(gpu)
    assert float(attainable_flops_per_s(gpu, ridge)) == pytest.approx(gpu.peak.fp16_tensor * gpu.clock.gain)
    assert float(attainable_flops_per_s(gpu, ridge / 2)) == pytest.approx(gpu.peak.fp16_tensor * gpu.clock.gain / 2)
    assert ridge_point(gpu, MemoryLevel.SHARED) < ridge_point(gpu, MemoryLevel.L2) < ridge


def test_skinny_is_memory_bound_and_wide_is_compute_bound() -> None:
    gpu = load_gpu("a100-80gb")
    found = bound(gpu, DENSE, 12288, 12288, [8, 4096])
    assert list(found) == [Bound.MEMORY, Bound.COMPUTE]


def test_time_is_the_slower_of_memory_and_compute() -> None:
    gpu = load_gpu("a100-80gb")
    wide = roofline_time(gpu, 8192, 8192, 8192)
    assert float(wide) == pytest.approx(2 * 8192**3 / gpu.peak.fp16_tensor)
    skinny = roofline_time(gpu, 8192, 8192, 1)
    assert float(skinny) == pytest.approx(float(bytes_moved(DENSE, MemoryLevel.DRAM, 8192, 8192, 1)) / 2.039e12)


def test_memory_floor_of_a_known_product() -> None:
    gpu = load_gpu("a100-80gb")
    floor = memory_time_floor(DENSE, gpu, 36864, 9216, 8)
    assert float(floor) == pytest.approx(2 * (36864 * 9216 + 8 * (36864 + 9216)) / 2.039e12)
    assert float(roofline_time(gpu, 36864, 9216, 8)) == float(floor)
