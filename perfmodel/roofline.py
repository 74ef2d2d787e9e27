"""How far from the ridge is a skinny matrix product, at each level of the memory hierarchy?

The roofline takes every byte once per level and lets compute and memory overlap perfectly: an upper bound on speed,
about 20 % optimistic for skinny products (see the kernel models for calibrated times).
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.arguments import record, shown
from perfmodel.catalog.arrays import check_points, sizes
from perfmodel.catalog.specs import Bound, Gpu
from perfmodel.formats import FORMATS, WeightFormat, check_sparsity
from perfmodel.formats.base import LEAST_SIZE
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]

TILE_M, TILE_N = 128, 256  # output tile of a block in a large dense GEMM


class MemoryLevel(StrEnum):
    """Where bytes are counted."""

    DRAM = "dram"
    L2 = "l2"
    SHARED = "shared"


def bytes_moved(
    fmt: WeightFormat,
    level: MemoryLevel,
    m: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    sparsity: ArrayLike = 0.0,
) -> Array:
    """Bytes that cross ``level`` for ``C[m, n] = A[m, k] @ B[k, n]`` in FP16.

    DRAM: each operand once. L2: weights once per column of tiles, inputs once per row of tiles. Shared memory: both
    operands of every tile are written once and read once **dense**, because the Tensor Cores compute dense.

    Parameters
    ----------
    fmt
        Format of A.
    m, k, n : array_like
        Rows, columns of the weights; tokens in flight. At least 1.
    sparsity : array_like
        Fraction of zero weights, 0 to 1.

    Returns
    -------
    ndarray
        Bytes, of the broadcast shape; so in the functions below.

    Raises
    ------
    ValueError
        As `WeightFormat.bytes`.
    """
    m_, k_, n_ = _sizes(m, k, n)
    record("fmt", fmt, WeightFormat)
    _check_level(level)
    weights, inputs, outputs = fmt.bytes(m_, k_, sparsity), FP16_BYTES * k_ * n_, FP16_BYTES * m_ * n_
    if level is MemoryLevel.DRAM:
        return weights + inputs + outputs
    rows, columns = np.ceil(m_ / TILE_M), np.ceil(n_ / TILE_N)
    if level is MemoryLevel.L2:
        return weights * columns + inputs * rows + outputs
    dense_tiles = rows * columns * k_ * FP16_BYTES * (TILE_M + np.minimum(TILE_N, n_))
    return 2 * dense_tiles + outputs


def _sizes(m: ArrayLike, k: ArrayLike, n: ArrayLike) -> tuple[Array, Array, Array]:
    """Rows, columns and tokens as float arrays that broadcast, each from 1 to 2**40."""
    found = tuple(sizes(name, size, LEAST_SIZE) for name, size in (("m", m), ("k", k), ("n", n)))
    check_points(*(size.shape for size in found))
    return found[0], found[1], found[2]


def _check_level(level: MemoryLevel) -> None:
    if not isinstance(level, str) or level not in tuple(MemoryLevel):
        raise ValueError(f"level is {shown(level)}, allowed are {', '.join(MemoryLevel)}")


def _peak(gpu: Gpu) -> float:
    """Dense FP16 FLOP/s of the Tensor Cores at the clock that boards reach."""
    record("gpu", gpu, Gpu)
    return gpu.peak.fp16_tensor * gpu.clock.gain


def level_bandwidth(gpu: Gpu, level: MemoryLevel) -> float:
    """Peak bytes/s of ``level``: datasheet for DRAM, measured for L2, banks x clock x SMs for shared memory."""
    record("gpu", gpu, Gpu)
    _check_level(level)
    if level is MemoryLevel.DRAM:
        return gpu.dram.bandwidth_bytes_per_s
    if level is MemoryLevel.L2:
        return gpu.l2.bandwidth_bytes_per_s
    return gpu.sm.shared_bytes_per_clock * gpu.clock.hz * gpu.clock.sm_count


def intensity(
    fmt: WeightFormat, level: MemoryLevel, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike = 0.0
) -> Array:
    """FLOP of the dense product per byte that crosses ``level``."""
    m_, k_, n_ = _sizes(m, k, n)
    return 2 * m_ * k_ * n_ / bytes_moved(fmt, level, m_, k_, n_, sparsity)


def ridge_point(gpu: Gpu, level: MemoryLevel = MemoryLevel.DRAM) -> float:
    """Arithmetic intensity at which Tensor Cores and ``level`` take equal time, FLOP per byte.

    Kernels below it are bound by memory.

    References
    ----------
    Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
    """
    return _peak(gpu) / level_bandwidth(gpu, level)


def attainable_flops_per_s(gpu: Gpu, at_intensity: ArrayLike, level: MemoryLevel = MemoryLevel.DRAM) -> Array:
    """Roof: ``min(peak, intensity * bandwidth)`` in FLOP/s."""
    return np.minimum(_peak(gpu), sizes("at_intensity", at_intensity, 0.0) * level_bandwidth(gpu, level))


def memory_time_floor(
    fmt: WeightFormat, gpu: Gpu, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike = 0.0
) -> Array:
    """Seconds below which no kernel can go: weights, inputs and outputs once over DRAM at the datasheet bandwidth.

    A matrix that stays in the L2 cache from one launch to the next escapes it.
    """
    record("gpu", gpu, Gpu)
    return bytes_moved(fmt, MemoryLevel.DRAM, m, k, n, sparsity) / gpu.dram.bandwidth_bytes_per_s


def roofline_time(
    gpu: Gpu, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike = 0.0, fmt: WeightFormat | None = None
) -> Array:
    """Seconds at the roof of DRAM and Tensor Cores: no kernel of this format can be faster."""
    m_, k_, n_ = _sizes(m, k, n)
    memory_s = memory_time_floor(FORMATS["dense"] if fmt is None else fmt, gpu, m_, k_, n_, sparsity)
    return np.maximum(memory_s, 2 * m_ * k_ * n_ / _peak(gpu))


def bound(
    gpu: Gpu, fmt: WeightFormat, m: ArrayLike, k: ArrayLike, n: ArrayLike, sparsity: ArrayLike = 0.0
) -> NDArray[np.object_]:
    """Name the level with the longest time: `Bound.MEMORY`, `L2`, `SHARED_MEMORY` or `COMPUTE` for each point."""
    levels = {
        Bound.MEMORY: MemoryLevel.DRAM,
        Bound.L2: MemoryLevel.L2,
        Bound.SHARED_MEMORY: MemoryLevel.SHARED,
    }
    m_, k_, n_, s_ = np.broadcast_arrays(*_sizes(m, k, n), check_sparsity(sparsity))
    seconds = [bytes_moved(fmt, level, m_, k_, n_, s_) / level_bandwidth(gpu, level) for level in levels.values()]
    seconds.append(2 * m_ * k_ * n_ / _peak(gpu))
    names = np.array([*levels, Bound.COMPUTE], dtype=object)
    return names[np.argmax(np.stack(seconds), axis=0)]
