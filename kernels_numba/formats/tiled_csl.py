"""Encoded weight matrices A (m, k): how non-zeros are laid out in memory, with exact encoders and decoders.

Letters: ``m`` rows (outputs), ``k`` columns (inputs), ``nnz`` non-zeros, ``tiles`` = number of 128 x 64 tiles.
Every encoding is a frozen record of plain NumPy buffers. Decoding returns the matrix bit for bit, with one
exception: -0.0 counts as zero, is dropped by the sparse formats, and decodes as +0.0.

Buffers that come from elsewhere enter through ``from_buffers``, which checks them; the encoders' own output needs
no check. NumPy has no bfloat16: such matrices are uint16 bit patterns with ``element=Element.BFLOAT16``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.encoded import (
    Element,
    EncodedWeight,
    as_matrix,
    bits_of,
    check,
    check_pointers,
    check_shape,
    check_vector,
    element_of,
    pointers_of,
)

TILE_M, TILE_K = 128, 64
TILE_SIZE = TILE_M * TILE_K
WORDS_PER_VECTOR = 4


@dataclass(frozen=True, eq=False, init=False)
class Dense(EncodedWeight):
    """Every weight stored, -0.0 included.

    values : (m, k), float16, float32, or uint16 with ``element=Element.BFLOAT16``.
    """

    shape: tuple[int, int]
    values: NDArray[Any]
    element: Element

    def __init__(self, values: NDArray[Any], element: Element | None = None) -> None:
        element = element_of(values, element)
        matrix = as_matrix(values, element)
        for name, value in (("shape", matrix.shape), ("values", matrix), ("element", element)):
            object.__setattr__(self, name, value)

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return int(np.count_nonzero(bits_of(self.values) & self.element.magnitude))

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        return self.values

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        return self


@dataclass(frozen=True, eq=False)
class TiledCsl(EncodedWeight):
    """Flash-LLM's Tiled-CSL: per 128 x 64 tile a list of 32-bit words, float16 value and location.

    Bytes: ``4 * nnz_padded + 4 * (tiles + 2)``; more than dense above half full.

    shape : (m, k) of the true matrix; the tiles cover ``padded_shape``.
    words : (nnz_padded,) uint32; low half the float16 bits, high half ``row * 64 + (col ^ (row % 8) * 8)`` within
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

    def decode(self) -> NDArray[np.float16]:
        """Dense matrix (m, k)."""
        from kernels_numba.formats_njit import scatter_tiles

        out = np.zeros(self.shape, np.uint16)
        scatter_tiles(self.words, self.tile_offsets, self.tile_grid[1], out)
        return out.view(np.float16)

    def scatter_wavefronts(self) -> tuple[int, int]:
        """Scatter steps of all warps and shared-memory wavefronts they take; their ratio is the conflict degree."""
        from kernels_numba.formats_njit import count_scatter_wavefronts

        steps, wavefronts = count_scatter_wavefronts(self.words, self.tile_offsets)
        return int(steps), int(wavefronts)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        from kernels_numba.formats_njit import check_tiles

        m, k = check_shape(self.shape)
        check(self.element == Element.FLOAT16, "element", self.element, "float16")
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


@dataclass(frozen=True, eq=False)
class Csr(EncodedWeight):
    """Compressed sparse rows.

    Bytes for float16: ``6 * nnz + 4 * (m + 1)`` with 32-bit columns, ``4 * nnz + 4 * (m + 1)`` with 16-bit ones
    (the width Sputnik's half-precision kernels use).

    row_ptr : (m + 1,) int32; where each row starts.
    col_idx : (nnz,) int32, or uint16 for k <= 65536; ascending within a row.
    values : (nnz,) in the element's storage dtype.
    """

    shape: tuple[int, int]
    row_ptr: NDArray[np.int32]
    col_idx: NDArray[Any]
    values: NDArray[Any]
    element: Element = Element.FLOAT16

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return self.values.size

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        from kernels_numba.formats_njit import scatter_rows

        out = np.zeros(self.shape, self.element.bits)
        scatter_rows(self.row_ptr, self.col_idx, bits_of(self.values), out)
        return out.view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        m, k = check_shape(self.shape)
        check(self.element in tuple(Element), "element", self.element, "a member of Element")
        check_vector(self.row_ptr, "row_ptr", np.int32, size=m + 1)
        check_vector(self.values, "values", Element(self.element).storage)
        check_vector(self.col_idx, "col_idx", np.int32, np.uint16, size=self.values.size)
        check_pointers(self.row_ptr, "row_ptr", self.values.size)
        if self.values.size:
            low, high = int(self.col_idx.min()), int(self.col_idx.max())
            check(low >= 0 and high < k, "col_idx", f"{low} to {high}", f"0 to {k - 1}")
            falls = np.flatnonzero(self.col_idx[1:] <= self.col_idx[:-1]) + 1
            inside = falls[~np.isin(falls, self.row_ptr)]
            check(inside.size == 0, "col_idx", f"not ascending at {inside[:1]}", "ascending columns within a row")
        return self


@dataclass(frozen=True, eq=False)
class TwoFour(EncodedWeight):
    """SparTA's split of an unstructured matrix: a 2:4 part for the Sparse Tensor Cores, and a CSR residual.

    The first two non-zeros of each aligned group of 4 columns go to the 2:4 part, the third and fourth to the
    residual. Columns are padded to whole metadata words of 16. Bytes for float16: ``1.125 * m * k_padded`` plus CSR.

    values : (m, k_padded / 2); two kept values per group, explicit zeros where it has fewer.
    metadata : (m, k_padded / 16) uint16; per group two ascending 2-bit positions, lowest group in the lowest bits.
    residual : Csr of the same shape.

    References
    ----------
    Zheng et al., "SparTA", OSDI 2022; NVIDIA PTX ISA, section on ``mma.sp`` metadata.
    """

    shape: tuple[int, int]
    values: NDArray[Any]
    metadata: NDArray[np.uint16]
    residual: Csr
    element: Element = Element.FLOAT16

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""
        return int(np.count_nonzero(bits_of(self.values) & self.element.magnitude)) + self.residual.nnz

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        from kernels_numba.formats_njit import scatter_two_four

        out = self.residual.decode().view(self.element.bits)
        scatter_two_four(bits_of(self.values), self.metadata, out)
        return out.view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        m, k = check_shape(self.shape)
        self.residual.validate()
        check(self.residual.shape == self.shape, "residual shape", self.residual.shape, f"{self.shape}")
        check(self.residual.element == self.element, "residual element", self.residual.element, self.element)
        words = -(-k // 16)
        for name, array, dtype, columns in (
            ("values", self.values, self.element.storage, 8 * words),
            ("metadata", self.metadata, np.dtype(np.uint16), words),
        ):
            given, allowed = f"{array.dtype} {array.shape}", f"{dtype} {(m, columns)}"
            check(given == allowed and array.flags.c_contiguous, name, given, f"row-major {allowed}")
        shifts = np.arange(0, 16, 4, dtype=np.uint16)
        pairs = (self.metadata[:, :, None] >> shifts) & np.uint16(15)  # (m, words, groups)
        check(bool(((pairs & 3) < (pairs >> 2)).all()), "metadata", "positions not ascending", "first < second")
        self._check_overlap(pairs)
        return self

    def _check_overlap(self, pairs: NDArray[np.uint16]) -> None:
        """Refuse kept non-zeros beyond column k, or where the residual stores a value too."""
        positions = np.stack((pairs & 3, pairs >> 2), axis=-1).reshape(self.shape[0], -1, 2)  # (m, groups, 2)
        columns = (4 * np.arange(positions.shape[1])[:, None] + positions).reshape(self.shape[0], -1)
        rows, slots = np.nonzero(bits_of(self.values) & self.element.magnitude)
        kept = columns[rows, slots]
        check(bool((kept < self.shape[1]).all()), "metadata", f"column {kept.max(initial=0)}", f"below {self.shape[1]}")
        spilled_rows = np.repeat(np.arange(self.shape[0]), np.diff(self.residual.row_ptr))
        taken = np.zeros(self.shape, np.bool_)
        taken[spilled_rows, self.residual.col_idx] = True
        check(not taken[rows, kept].any(), "residual", "a value the 2:4 part holds too", "disjoint parts")


def encode_tiled_csl(a: NDArray[np.float16], *, reorder: bool = True) -> TiledCsl:
    """Tiled-CSL encoding of a float16 matrix.

    Two passes, count then fill, each parallel over rows of tiles; extra memory is one tile per thread.

    Parameters
    ----------
    a : (m, k), float16. Any bit pattern; -0.0 is dropped.
    reorder : order each tile's words so that a warp's scatter meets few bank conflicts (see
        ``formats_njit.spread_banks``); otherwise row by row.

    Raises
    ------
    ValueError
        If ``a`` is not a float16 matrix with at least one element.
    """
    from kernels_numba.formats_njit import count_tile_nonzeros, fill_tiles

    bits = bits_of(as_matrix(a, Element.FLOAT16))
    counts = np.zeros((-(-bits.shape[0] // TILE_M), -(-bits.shape[1] // TILE_K)), np.int64)
    count_tile_nonzeros(bits, counts)
    vectors = np.append(-(-counts.reshape(-1) // WORDS_PER_VECTOR), 0)
    tile_offsets = pointers_of(vectors, "vectors of 4 words")
    words = np.empty(WORDS_PER_VECTOR * int(tile_offsets[-1]), np.uint32)
    fill_tiles(bits, counts.shape[1], tile_offsets, reorder, words)
    return TiledCsl(bits.shape, words, tile_offsets)


def encode_csr(a: NDArray[Any], *, index_bits: int = 32, element: Element | None = None) -> Csr:
    """CSR encoding of a float16, float32 or bfloat16 matrix.

    Parameters
    ----------
    a : (m, k); uint16 bit patterns if ``element`` is bfloat16.
    index_bits : 32, or 16 for k <= 65536.

    Raises
    ------
    ValueError
        If dtype, shape or ``index_bits`` do not fit; the message names value and allowed range.
    """
    from kernels_numba.formats_njit import count_row_nonzeros, fill_rows

    element = element_of(a, element)
    matrix = as_matrix(a, element)
    check(index_bits in (16, 32), "index_bits", index_bits, "16 or 32")
    check(index_bits == 32 or matrix.shape[1] <= 65536, "k", matrix.shape[1], "at most 65536 for index_bits=16")
    bits = bits_of(matrix)
    row_ptr = pointers_of(count_row_nonzeros(bits, element.magnitude), "non-zeros")
    col_idx = np.empty(int(row_ptr[-1]), np.uint16 if index_bits == 16 else np.int32)
    values = np.empty(int(row_ptr[-1]), bits.dtype)
    fill_rows(bits, element.magnitude, row_ptr, col_idx, values)
    return Csr(matrix.shape, row_ptr, col_idx, values.view(element.storage), element)


def encode_two_four(a: NDArray[Any], *, index_bits: int = 32, element: Element | None = None) -> TwoFour:
    """SparTA-type split into a 2:4 part and a CSR residual; parameters and errors as for ``encode_csr``."""
    from kernels_numba.formats_njit import split_two_four

    element = element_of(a, element)
    bits = bits_of(as_matrix(a, element))
    metadata_words = -(-bits.shape[1] // 16)
    values = np.zeros((bits.shape[0], 8 * metadata_words), bits.dtype)
    metadata = np.zeros((bits.shape[0], metadata_words), np.uint16)
    residual = bits.copy()
    split_two_four(bits, element.magnitude, values, metadata, residual)
    spilled = encode_csr(residual.view(element.storage), index_bits=index_bits, element=element)
    return TwoFour(bits.shape, values.view(element.storage), metadata, spilled, element)
