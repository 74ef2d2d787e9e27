"""What are the zeros of a real matrix worth: where its non-zeros lie, and its exact bytes in every sparse format.

In one pass over blocks of rows, so that memory stays at one block. Nothing is encoded, but the columns of condensed
strips are put in order, since their bytes depend on it. The weights are counted as float16, which the formats store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.float_values import Rounding, as_float16
from kernels_numba.formats.condensed import WIDTHS, bytes_of_records
from kernels_numba.formats.encoded import check, check_shape

TILE_M, TILE_K = 128, 64  # Tiled-CSL's tile
STRIP_M = 32  # rows of a strip of the own bitmap format, as wide as a tile
WORDS_PER_VECTOR = 4
BITMAP_SIDE, GROUP_SIDE = 8, 64  # TCA-BME
MACKO_MAX_GAP = 16
SCALE_GROUP = 128  # columns that share a scale in the own bitmap with rounded values
UINT16_COLUMNS = 65536


@dataclass(frozen=True)
class TileSpread:
    """Non-zeros per 128 x 64 tile against zeros that fall independently.

    mean_density, max_density : non-zeros over elements, of the average and of the fullest tile.
    ratio : root mean square deviation over the binomial one; 1 for independent zeros, larger where they cluster,
        smaller where a pattern levels them, None if the matrix is empty or full.
    over_half : tiles more than half full, in which Tiled-CSL takes more bytes than dense; the released Flash-LLM
        kernel loses weights there.
    tiles : number of tiles.
    """

    mean_density: float
    max_density: float
    ratio: float | None
    over_half: int
    tiles: int


@dataclass(frozen=True, eq=False)
class Census:
    """Counts of one matrix.

    shape : (m, k).
    strip_nnz : (strips_m, tiles_k) int64, non-zeros of each 32 x 64 strip after rounding to float16.
    strip_pairs : (strips_m, tiles_k) int64, pairs of columns with a non-zero.
    spilled : non-zeros that do not fit a 2:4 pattern.
    gap_padding : zeros MACKO stores to bridge long gaps.
    condensed_bytes : of the records of condensed strips, by the slots that a bit stands for.
    rounding : what float16 changed.
    """

    shape: tuple[int, int]
    strip_nnz: NDArray[np.int64]
    strip_pairs: NDArray[np.int64]
    spilled: int
    gap_padding: int
    condensed_bytes: dict[int, int]
    rounding: Rounding

    @property
    def nnz(self) -> int:
        """Non-zeros in float16."""
        return int(self.strip_nnz.sum())

    @property
    def tile_nnz(self) -> NDArray[np.int64]:
        """Non-zeros of each 128 x 64 tile, (tiles_m, tiles_k)."""
        return np.add.reduceat(self.strip_nnz, np.arange(0, len(self.strip_nnz), TILE_M // STRIP_M))

    @property
    def sparsity(self) -> float:
        """Fraction of zeros as stored in the checkpoint, before rounding to float16."""
        return 1 - (self.nnz + self.rounding.flushed) / (self.shape[0] * self.shape[1])

    @property
    def tile_spread(self) -> TileSpread:
        """Distribution of the non-zeros over tiles."""
        heights = np.diff(np.append(np.arange(0, self.shape[0], TILE_M), self.shape[0]))
        widths = np.diff(np.append(np.arange(0, self.shape[1], TILE_K), self.shape[1]))
        sizes = np.outer(heights, widths)  # (tiles_m, tiles_k)
        density = self.nnz / sizes.sum()
        fill = self.tile_nnz / sizes
        variance = sizes * density * (1 - density)
        ratio = None
        if 0 < density < 1:
            ratio = float(np.sqrt(np.mean((self.tile_nnz - sizes * density) ** 2 / variance)))
        return TileSpread(float(density), float(fill.max()), ratio, int((fill > 0.5).sum()), sizes.size)

    @property
    def format_bytes(self) -> dict[str, int]:
        """Exact bytes by format name; a format that cannot hold the matrix is absent.

        ``csr``, ``sputnik-csr``, ``tiled-csl``, ``lscd-bitmap`` and ``lscd-condensed`` (``-pairs``), ``sparta`` and
        ``dense`` equal ``nbytes`` of the encoders. ``sparta`` has its columns padded to 16, as ``mma.sp`` metadata
        asks; ``2:4`` is there if nothing spills. ``bitmap`` is SpInfer's, ``lscd-`` says that a format is our own.
        """
        m, k = self.shape
        pointers = 4 * (m + 1)
        pattern = 18 * m * _ceil_div(k, 16)  # of 16 columns 8 values and a 16-bit word of positions
        groups = _ceil_div(m, GROUP_SIDE) * _ceil_div(k, GROUP_SIDE)
        stored = self.nnz + self.gap_padding
        tile_nnz = self.tile_nnz
        offsets = 4 * (tile_nnz.size * (TILE_M // STRIP_M) + 2)
        found = {
            "dense": 2 * m * k,
            "csr": 6 * self.nnz + pointers,
            "coo": 10 * self.nnz,
            "tiled-csl": 4 * _padded_sum(tile_nnz, WORDS_PER_VECTOR) + 4 * (tile_nnz.size + 2),
            "sparta": pattern + 6 * self.spilled + pointers,
            "bitmap": 4 * (groups + 1) + 8 * groups * (GROUP_SIDE // BITMAP_SIDE) ** 2 + 2 * self.nnz,
            "lscd-bitmap": self._strip_bytes(16),
            "lscd-bitmap-pairs": 4 * _padded_sum(self.strip_pairs, 4) + 132 * self.strip_pairs.size + 8,
            "lscd-condensed": self.condensed_bytes[1] + offsets,
            "lscd-condensed-pairs": self.condensed_bytes[2] + offsets,
            "macko": 2 * stored + _ceil_div(stored, 2) + pointers,
        }
        if k <= UINT16_COLUMNS:
            found["sputnik-csr"] = 4 * self.nnz + pointers
        if not self.spilled:
            found["2:4"] = pattern
        return found

    @property
    def rounded_bytes(self) -> dict[str, int]:
        """Exact bytes of our bitmap with codes of 8 and 4 bits for values, whatever they stand for, scales included."""
        m, k = self.shape
        scales = 2 * m * _ceil_div(k, SCALE_GROUP)
        return {f"lscd-bitmap-{bits}": self._strip_bytes(bits) + scales for bits in (8, 4)}

    def _strip_bytes(self, value_bits: int) -> int:
        """Masks, offsets, and values of ``value_bits`` padded to 16 bytes a strip."""
        strips = self.strip_nnz.size
        per_unit = 16 * 8 // value_bits
        return 256 * strips + 4 * (strips + 2) + 16 * _padded_sum(self.strip_nnz, per_unit) // per_unit


def take_census(shape: tuple[int, int], dtype: str, blocks: Iterable[NDArray[Any]]) -> Census:
    """Count a matrix that comes as consecutive blocks of rows.

    Parameters
    ----------
    shape : (m, k).
    dtype : safetensors name: F16, BF16 or F32.
    blocks : (rows, k) each; rows a multiple of 128 in all but the last.

    Raises
    ------
    ValueError
        If shape or dtype do not fit, or the blocks do not make up the matrix; the message names both.
    """
    from kernels_numba.checkpoints.census_njit import count_block

    m, k = check_shape(shape)
    strip_nnz, strip_pairs = np.zeros((2, _ceil_div(m, STRIP_M), _ceil_div(k, TILE_K)), np.int64)
    spilled, padding = np.zeros((2, _ceil_div(m, TILE_M)), np.int64)
    condensed = dict.fromkeys(WIDTHS, 0)
    rounding, row = Rounding(), 0
    for block in blocks:
        check(row % TILE_M == 0 and block.shape[1] == k, "block", block.shape, f"(a multiple of {TILE_M}, {k})")
        narrow, changes = as_float16(block, dtype)
        at = slice(row // TILE_M, _ceil_div(row + block.shape[0], TILE_M))
        bits = np.ascontiguousarray(narrow).view(np.uint16)
        strips = slice(row // STRIP_M, None)
        count_block(bits, MACKO_MAX_GAP, strip_nnz[strips], strip_pairs[strips], spilled[at], padding[at])
        for width, size in bytes_of_records(bits).items():
            condensed[width] += size
        rounding += changes
        row += block.shape[0]
    check(row == m, "rows in blocks", row, str(m))
    return Census(shape, strip_nnz, strip_pairs, int(spilled.sum()), int(padding.sum()), condensed, rounding)


def _padded_sum(counts: NDArray[np.int64], multiple: int) -> int:
    return int((-(-counts // multiple) * multiple).sum())


def _ceil_div(size: int, part: int) -> int:
    return -(-size // part)
