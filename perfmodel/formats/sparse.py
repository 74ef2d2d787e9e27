"""How many bytes do weights take with their zeros left out, where zeros fall at random?"""

from __future__ import annotations

import numpy as np

from perfmodel.formats.base import Array, BytesOf, WeightFormat
from perfmodel.formats.padding import stored_in_tiles
from perfmodel.formats.pattern import two_four_family_bytes, two_four_residual_density
from perfmodel.units import FP16_BYTES, FP32_BYTES

TILE_M, TILE_K = 128, 64  # Tiled-CSL tile
TILED_CSL_WORDS = 4  # every tile is padded to one 128-bit load
BITMAP_SIDE, GROUP_SIDE = 8, 64  # TCA-BME bitmap and group tile
MACKO_MAX_GAP = 16  # a 4-bit delta reaches 16 columns
MACKO_VALUE_BYTES = 2.5  # FP16 value and 4-bit delta
BSR_SIDE = 32  # rows and columns of a block
INDEX_BYTES = 4


def _csr_bytes(nnz: Array, m: Array, index_bytes: int) -> Array:
    return (FP16_BYTES + index_bytes) * nnz + FP32_BYTES * (m + 1)


def _csr(m: Array, k: Array, s: Array) -> Array:
    return _csr_bytes((1 - s) * m * k, m, index_bytes=INDEX_BYTES)


def _csr16(m: Array, k: Array, s: Array) -> Array:
    return _csr_bytes((1 - s) * m * k, m, index_bytes=2)


def _coo(m: Array, k: Array, s: Array) -> Array:
    return (FP16_BYTES + 2 * INDEX_BYTES) * (1 - s) * m * k


def _bsr(m: Array, k: Array, s: Array) -> Array:
    """Whole blocks are zero, a fraction ``s`` of them; a block at the edge is stored in full."""
    block_rows, block_columns = np.ceil(m / BSR_SIDE), np.ceil(k / BSR_SIDE)
    block_bytes = FP16_BYTES * BSR_SIDE**2 + INDEX_BYTES
    return (1 - s) * block_rows * block_columns * block_bytes + INDEX_BYTES * (block_rows + 1)


def _tiled_csl(m: Array, k: Array, s: Array) -> Array:
    tiles = np.ceil(m / TILE_M) * np.ceil(k / TILE_K)
    return 4 * stored_in_tiles(m, k, s, (TILE_M, TILE_K), TILED_CSL_WORDS) + 4 * (tiles + 2)


def _sparta(m: Array, k: Array, s: Array) -> Array:
    residual = _csr_bytes(two_four_residual_density(s) * m * k, m, index_bytes=INDEX_BYTES)
    return two_four_family_bytes(m, k, 1 / 2) + residual


def _tca_bme(m: Array, k: Array, s: Array) -> Array:
    groups = np.ceil(m / GROUP_SIDE) * np.ceil(k / GROUP_SIDE)
    bitmaps = groups * (GROUP_SIDE // BITMAP_SIDE) ** 2
    return 4 * (groups + 1) + 8 * bitmaps + FP16_BYTES * (1 - s) * m * k


def _macko(m: Array, k: Array, s: Array) -> Array:
    """Each stored value has a 4-bit gap to its predecessor; a longer gap costs one padding zero per 16 columns."""
    q = s**MACKO_MAX_GAP
    steps = np.floor(k / MACKO_MAX_GAP)
    gap = np.maximum(1 - q, 1e-12)
    powers = np.where(q < 1, q * (1 - q**steps) / gap, steps)
    weighted = np.where(q < 1, (powers - steps * q ** (steps + 1)) / gap, steps * (steps + 1) / 2)
    stored = (1 - s) * m * (k + k * powers - MACKO_MAX_GAP * weighted)
    return MACKO_VALUE_BYTES * stored + FP32_BYTES * (m + 1)


def _row(name: str, title: str, bytes_of: BytesOf, source: str) -> WeightFormat:
    return WeightFormat(name, title, bytes_of, True, True, source)


_SPINFER = "Fan et al., SpInfer, EuroSys 2025, section 3"
_GALE = "Gale et al., Sparse GPU Kernels for Deep Learning, SC 2020; row-swizzle indices not counted"
_BSR = "NVIDIA cuSPARSE, BSR: values, 32-bit block columns and row offsets; sparsity is that of blocks"

SPARSE = (
    _row("csr", "CSR, 32-bit index", _csr, f"{_SPINFER}: 6 nnz + 4 (m + 1)"),
    _row("sputnik-csr", "Sputnik CSR, 16-bit index", _csr16, _GALE),
    _row("coo", "COO, 32-bit indices", _coo, "FP16 value, 32-bit row, 32-bit column"),
    _row("tiled-csl", "Tiled-CSL", _tiled_csl, "Xia et al., Flash-LLM, PVLDB 17(2), 2023, Fig 7"),
    _row("sparta", "SparTA (2:4 + CSR)", _sparta, f"Zheng et al., SparTA, OSDI 2022; {_SPINFER}"),
    _row("bitmap", "bitmap (TCA-BME)", _tca_bme, _SPINFER),
    _row("macko", "MACKO", _macko, "Macko and Boza, MACKO, arXiv 2511.13061"),
    _row("bsr", "BSR, blocks of 32 × 32", _bsr, _BSR),
)
