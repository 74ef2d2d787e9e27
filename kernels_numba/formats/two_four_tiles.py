"""The 2:4 part of a matrix in the order in which the Sparse Tensor Cores take it: values and metadata, tile by tile.

Why another order than `TwoFour`'s? Its rows put the 8 bytes of metadata that a tile of 64 columns needs from each row
far apart; asynchronous copies move 16 bytes from aligned places, and ``mma.sp`` wants two rows in one register. So each
128 x 64 tile becomes one block of 9,216 bytes, copied as it stands: 8,192 of values in their swizzled shared-memory
places, then 1,024 of metadata. ``mma.sp`` takes it from lanes 4 g and 4 g + 1 (sparsity selector 0), in one word for
rows g and g + 8; the four words of such a lane, for 2 steps along k and 2 halves of a warp's 32 rows, lie together.

A launch packs a `TwoFour` once and a GPU keeps the result; the bytes per weight stay 1.125, with both sizes of the
matrix rounded up to whole tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.csr import Csr
from kernels_numba.formats.encoded import HALF_ELEMENTS, Element, EncodedWeight, check, check_shape
from kernels_numba.formats.layout import TILE_K, TILE_M
from kernels_numba.formats.two_four import TwoFour

CHUNKS, CHUNK_VALUES = 4, 8  # a tile's row: 32 kept values in 4 chunks of 16 bytes, each with a word of metadata
VALUE_BYTES = TILE_M * CHUNKS * 16
METADATA_BYTES = TILE_M * TILE_K // 8
TILE_BYTES = VALUE_BYTES + METADATA_BYTES
WARPS, HALVES, ROWS_OF_EIGHT, LANE_ROWS = 4, 2, 2, 8  # a tile's 128 rows, in the order of their numbers
STEPS, PROVIDERS = 2, 2  # a tile's 4 words of metadata a row
NO_PLACES = 0x4444  # metadata of four empty groups: the first two columns, in order


@dataclass(frozen=True, eq=False)
class TwoFourTiles(EncodedWeight):
    """A `TwoFour` weight as `gpu.sparta` reads it.

    shape : (m, k) of the true matrix.
    tiles : (tiles_m, tiles_k, 4608) uint16. Of a tile, the first 4,096 are 16-bit values, 32 in each of 128 rows:
        chunk c of 8 values of row r lies at place ``c ^ (r // 2 % 4)``, so that the 8 rows of an ``ldmatrix`` phase
        meet 8 different groups of banks. The other 512 are metadata, index ``[warp][g][provider][step][half][row g
        or g + 8]``.
    residual : Csr of the same shape.
    """

    shape: tuple[int, int]
    tiles: NDArray[np.uint16]
    residual: Csr
    element: Element = Element.FLOAT16

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return int(np.count_nonzero(self.tiles[..., : VALUE_BYTES // 2] & 0x7FFF)) + self.residual.nnz

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k) in the element's storage dtype."""
        return unpack(self).decode()

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        m, k = check_shape(self.shape)
        shape = (-(-m // TILE_M), -(-k // TILE_K), TILE_BYTES // 2)
        given, allowed = f"{self.tiles.dtype} {self.tiles.shape}", f"uint16 {shape}"
        check(given == allowed and self.tiles.flags.c_contiguous, "tiles", given, f"row-major {allowed}")
        unpack(self).validate()
        return self


def _swizzled(tiles: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Chunks (tiles_m, tiles_k, 128, 4, 8) exchanged between logical and shared-memory order: its own inverse."""
    rows = np.arange(TILE_M)[:, None]
    return tiles[:, :, rows, np.arange(CHUNKS) ^ (rows // 2 % CHUNKS)]


def pack(weights: TwoFour) -> TwoFourTiles:
    """Tiles of a float16 or bfloat16 `TwoFour`; padding is zeros at harmless places.

    Raises
    ------
    ValueError
        If the element type is another one.
    """
    check(weights.element in HALF_ELEMENTS, "element type of weights", weights.element, "float16 or bfloat16")
    m, k = weights.shape
    rows, columns = -(-m // TILE_M), -(-k // TILE_K)
    padding = ((0, rows * TILE_M - m), (0, columns * CHUNKS - weights.metadata.shape[1]))
    metadata = np.pad(weights.metadata, padding, constant_values=NO_PLACES)
    values = np.pad(weights.values.view(np.uint16), (padding[0], (0, padding[1][1] * CHUNK_VALUES)))
    chunks = values.reshape(rows, TILE_M, columns, CHUNKS, CHUNK_VALUES).transpose(0, 2, 1, 3, 4)
    by_lane = metadata.reshape(rows, WARPS, HALVES, ROWS_OF_EIGHT, LANE_ROWS, columns, STEPS, PROVIDERS)
    words = by_lane.transpose(0, 5, 1, 4, 7, 6, 2, 3)
    parts = (_swizzled(chunks).reshape(rows, columns, -1), words.reshape(rows, columns, -1))
    return TwoFourTiles(weights.shape, np.concatenate(parts, axis=2), weights.residual, weights.element)


def unpack(packed: TwoFourTiles) -> TwoFour:
    """Inverse of `pack`."""
    m, k = packed.shape
    rows, columns = packed.tiles.shape[:2]
    values, metadata = np.split(packed.tiles, [VALUE_BYTES // 2], axis=2)
    chunks = _swizzled(values.reshape(rows, columns, TILE_M, CHUNKS, CHUNK_VALUES)).transpose(0, 2, 1, 3, 4)
    by_lane = metadata.reshape(rows, columns, WARPS, LANE_ROWS, PROVIDERS, STEPS, HALVES, ROWS_OF_EIGHT)
    words = by_lane.transpose(0, 2, 6, 7, 3, 1, 5, 4).reshape(rows * TILE_M, -1)
    n_words = -(-k // 16)
    kept: NDArray[Any] = np.ascontiguousarray(chunks.reshape(rows * TILE_M, -1)[:m, : CHUNK_VALUES * n_words])
    places = np.ascontiguousarray(words[:m, :n_words])
    return TwoFour(packed.shape, kept.view(packed.element.storage), places, packed.residual, packed.element)
