"""How many bytes do weights take as our CPU kernels, NumPy and SciPy read them, where zeros fall at random?

Our own: `kernels_numba/cpu/bitmap.py` and `kernels_numba/cpu/panel_csr.py`. The libraries know no 16-bit weights on a
CPU, but for PyTorch's dense bfloat16, which takes the bytes of the format `dense`.
"""

from __future__ import annotations

import numpy as np

from perfmodel.formats.base import Array, WeightFormat, at_any_sparsity
from perfmodel.units import BITS_PER_BYTE, FP16_BYTES, FP32_BYTES

PADDED_ROWS, PADDED_COLUMNS, BLOCK_ROWS = 16, 32, 32  # of masks; rows that share an offset
OVERREAD_BYTES = 64  # behind the values: one vector load
PANEL_K, PANEL_ROWS = 256, 128  # columns of a segment, and rows that are padded with empty ones
INDEX_BYTES, OFFSET_BYTES = 4, 8


def _bitmap(m: Array, k: Array, s: Array) -> Array:
    masks = PADDED_ROWS * np.ceil(m / PADDED_ROWS) * PADDED_COLUMNS * np.ceil(k / PADDED_COLUMNS) / BITS_PER_BYTE
    return masks + FP16_BYTES * (1 - s) * m * k + OFFSET_BYTES * (np.ceil(m / BLOCK_ROWS) + 1) + OVERREAD_BYTES


def _panel_csr(m: Array, k: Array, s: Array) -> Array:
    segments = PANEL_ROWS * np.ceil(m / PANEL_ROWS) * np.ceil(k / PANEL_K)
    return (FP16_BYTES + 1) * (1 - s) * m * k + INDEX_BYTES * (segments + 1)


def _csr_fp32(m: Array, k: Array, s: Array) -> Array:
    return (FP32_BYTES + INDEX_BYTES) * (1 - s) * m * k + INDEX_BYTES * (m + 1)


def _fp32(m: Array, k: Array) -> Array:
    return FP32_BYTES * m * k


ON_CPU = (
    WeightFormat("cpu-bitmap", "bitmap of a CPU", _bitmap, True, True, "kernels_numba/cpu/bitmap.py"),
    WeightFormat("panel-csr", "CSR in panels of 256 columns", _panel_csr, True, True, "kernels_numba/cpu/panel_csr.py"),
    WeightFormat("csr-fp32", "CSR, FP32 values", _csr_fp32, True, True, "SciPy csr_matrix: 32-bit values and columns"),
    WeightFormat("fp32", "dense FP32", at_any_sparsity(_fp32), False, True, "4 bytes a weight"),
)
