"""Flash-LLM's Tiled-CSL: tiles of sparse words, ready to be scattered into swizzled shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import (
    HALF_ELEMENTS,
    Element,
    EncodedWeight,
    as_matrix,
    bits_of,
    check,
    check_pointers,
    check_shape,
    check_vector,
    half_element_of,
    pointers_of,
    zeros,
)
from kernels_numba.formats.layout import TILE_K, TILE_M, TILE_SIZE, WORDS_PER_VECTOR


@dataclass(frozen=True, eq=False)
class TiledCsl(EncodedWeight):
    """Flash-LLM's Tiled-CSL: per 128 x 64 tile a list of 32-bit words, 16-bit value and location.

    Bytes: ``4 * nnz_padded + 4 * (tiles + 2)``; more than dense above half full.

    shape : (m, k) of the true matrix; the tiles cover ``padded_shape``.
    words : (nnz_padded,) uint32; low half the value's bits, high half ``row * 64 + (col ^ (row % 8) * 8)`` within
        the tile: the element's place in swizzled shared memory. Each tile is padded with zeros to whole vectors.
    tile_offsets : (tiles + 2,) int32; first vector of 4 words of each tile, tiles row by row, and one empty tile
        at the end, so that a kernel may always read one tile ahead.

    References
    ----------
    Xia et al., "Flash-LLM", PVLDB 17(2), 2023, section on Tiled-CSL and ahead-of-time sparse data reordering.
    """

    shape: tuple[int, int]
    words: NDArray[np.uint32]
    tile_offsets: NDArray[np.int32]
    element: Element = Element.FLOAT16

    @property
    def tile_grid(self) -> tuple[int, int]:
        """Number of tiles along m and k."""
        return -(-self.shape[0] // TILE_M), -(-self.shape[1] // TILE_K)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Shape rounded up to whole tiles."""
        return self.tile_grid[0] * TILE_M, self.tile_grid[1] * TILE_K

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return int(np.count_nonzero(self.words & np.uint32(0x7FFF)))

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k) in the element's storage dtype."""
        from kernels_numba.formats.tiled_csl_njit import scatter_tiles

        out = zeros(self.shape, np.uint16)
        scatter_tiles(self.words, self.tile_offsets, self.tile_grid[1], out)
        return out.view(self.element.storage)

    def scatter_wavefronts(self) -> tuple[int, int]:
        """Scatter steps of all warps and shared-memory wavefronts they take; their ratio is the conflict degree."""
        from kernels_numba.formats.tiled_csl_njit import count_scatter_wavefronts

        steps, wavefronts = count_scatter_wavefronts(self.words, self.tile_offsets)
        return int(steps), int(wavefronts)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        from kernels_numba.formats.tiled_csl_njit import check_tiles

        m, k = check_shape(self.shape)
        check(self.element in HALF_ELEMENTS, "element", self.element, "float16 or bfloat16")
        check_vector(self.words, "words", np.uint32)
        tiles = self.tile_grid[0] * self.tile_grid[1]
        check_vector(self.tile_offsets, "tile_offsets", np.int32, size=tiles + 2)
        check_pointers(self.tile_offsets, "tile_offsets", self.words.size / WORDS_PER_VECTOR)
        check(self.tile_offsets[-1] == self.tile_offsets[-2], "extra tile", "not empty", "an empty last tile")
        vectors = np.diff(self.tile_offsets)
        limit = TILE_SIZE // WORDS_PER_VECTOR
        check(vectors.max() <= limit, "tile size", int(vectors.max()), f"at most {limit} vectors")
        faults = check_tiles(self.words, self.tile_offsets, self.tile_grid[1], m, k)
        if faults.any():
            what = ("", "location beyond the tile", "repeated location", "non-zero outside the matrix")
            tile = int(np.argmax(faults != 0))
            raise ValueError(f"words: tile {tile} of {tiles} holds a {what[faults[tile]]}; allowed: none")
        return self


def encode_tiled_csl(a: NDArray[Any], *, reorder: bool = True, element: Element | None = None) -> TiledCsl:
    """Tiled-CSL encoding of a float16 or bfloat16 matrix.

    Two passes, count then fill, each parallel over rows of tiles; extra memory is one tile per thread.

    Parameters
    ----------
    a : (m, k), float16, or uint16 bit patterns if ``element`` is bfloat16. Any bit pattern; -0.0 is dropped.
    reorder : order each tile's words so that a warp's scatter meets few bank conflicts (see
        `tiled_csl_njit.spread_banks`); otherwise row by row.

    Raises
    ------
    ValueError
        If ``a`` is no float16 or bfloat16 matrix with at least one element.
    """
    from kernels_numba.formats.tiled_csl_njit import count_tile_nonzeros, fill_tiles

    element = half_element_of(a, element)
    bits = bits_of(as_matrix(a, element))
    counts = np.zeros((-(-bits.shape[0] // TILE_M), -(-bits.shape[1] // TILE_K)), np.int64)
    count_tile_nonzeros(bits, counts)
    vectors = np.append(-(-counts.reshape(-1) // WORDS_PER_VECTOR), 0)
    tile_offsets = pointers_of(vectors, "vectors of 4 words")
    words = np.empty(WORDS_PER_VECTOR * int(tile_offsets[-1]), np.uint32)
    fill_tiles(bits, counts.shape[1], tile_offsets, reorder, words)
    return TiledCsl(bits.shape, words, tile_offsets, element)
