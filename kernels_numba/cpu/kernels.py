"""The CPU twin: C = A @ x for every encoded weight, multi-threaded, float32 accumulation.

Two ways to use a sparse weight, as on the GPU. ``Path.DECODE`` loads it as sparse and computes it as dense: each
128 x 64 tile is decoded into a first-level-cache buffer and multiplied densely. ``Path.SPARSE`` multiplies the
non-zeros one by one. In both SIMD runs along n, so n is padded to strips of 8, 16 or 32 columns. Bitmaps and 16-bit
dense rows are read in chunks instead, SIMD along k (`lanes`), or on the matrix unit (`tiles`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.cpu import lanes, tiles
from kernels_numba.cpu.bitmap import CpuBitmap
from kernels_numba.cpu.panel_csr import BLOCK_ROWS, PANEL_K, PanelCsr
from kernels_numba.formats import Csr, Dense, Element, EncodedWeight, TiledCsl
from kernels_numba.formats.encoded import HALF_ELEMENTS, as_activations, bits_of, check, check_memory, widened

STRIP_WIDTHS = (8, 16, 32)
ROW_GROUP = 4  # rows the dense product computes together
TOKEN_GROUP = 4  # tokens that a chunk of weights meets while it is in registers
SPARSE_BELOW_DENSITY = 0.25
FLOAT, HALF, BITS = np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint16)


class Path(StrEnum):
    """How a weight is multiplied."""

    DECODE = "decode"
    SPARSE = "sparse"


def spmm(
    weights: EncodedWeight, x: NDArray[Any], *, path: Path | str = "auto", element: Element | None = None
) -> NDArray[np.float32]:
    """Product of an encoded weight (m, k) and activations, computed on the CPU.

    Parameters
    ----------
    weights : CpuBitmap (the fastest here), PanelCsr, TiledCsl, Csr or Dense; all others are decoded to a dense copy
        first, QuantisedBitmap to values times scales rounded to float16, as on the GPU. Dense of float32 goes
        to NumPy's BLAS.
    x : (k, n), float16, float32, or uint16 bit patterns with ``element=Element.BFLOAT16``; finite wherever a weight
        is zero: a dense product turns 0 * inf into NaN, a sparse one skips it.
    path : "auto" (see ``choose_path``), "decode" or "sparse".

    Returns
    -------
    NDArray
        (m, n) float32, as accumulated; cast it if the next layer wants float16.

    Raises
    ------
    ValueError
        If x does not fit the weights, or the format has no such path; the message names value and allowed range.
    """
    check(isinstance(weights, EncodedWeight), "weights", type(weights).__name__, "an encoded weight (Dense(a) ...)")
    x = as_activations(x)
    _check_activations(x, weights.shape[1], element)
    check_memory(FLOAT.itemsize * sum(weights.shape) * x.shape[1], f"product with x {x.shape}")
    if path != "auto":
        check(path in _paths(weights), "path", path, f"auto, {', '.join(_paths(weights))} for {type(weights).__name__}")
    if isinstance(weights, CpuBitmap) and _on_tiles(weights, x):
        return _multiply_tiles(weights, x)
    wide = x if x.dtype == FLOAT else widened(x, Element.BFLOAT16 if x.dtype == BITS else Element.FLOAT16)
    if isinstance(weights, Dense) and weights.element is Element.FLOAT32:
        return np.matmul(weights.values, wide)
    if _in_chunks(weights):
        return _multiply_chunks(weights, wide)
    chosen = choose_path(weights) if path == "auto" else path
    m, n = weights.shape[0], wide.shape[1]
    strips = _strips(n)
    stride = sum(strips)
    out = np.zeros((-(-m // ROW_GROUP) * ROW_GROUP, stride), np.float32)
    column = 0
    for width in strips:
        _multiply_strip(weights, Path(chosen), _pack(wide, column, width), out.reshape(-1), stride, column)
        column += width
    return out[:m, :n]


def choose_path(weights: EncodedWeight) -> Path:
    """Faster path for ``weights``, by a measured rule.

    Only Tiled-CSL has two paths. Best of 15 runs in ms (1792 x 4096 float16, one Zen 4 core, reordered words):

    ======= ============= ============= =============
    density n = 8         n = 16        n = 32
    (words) decode sparse decode sparse decode sparse
    ======= ============= ============= =============
    0.5     6.8    8.8    7.4    9.3    9.5    14.4
    0.3     4.9    5.3    5.3    5.6    7.4    8.1
    0.25    4.4    4.1    4.8    5.1    7.0    5.5
    0.2     4.0    3.5    4.3    3.4    6.6    5.6
    0.1     2.9    1.8    3.3    1.9    5.5    2.9
    ======= ============= ============= =============

    So they cross near 25 % at every n. Csr and PanelCsr multiply their non-zeros; all others compute as
    dense.
    """
    if isinstance(weights, TiledCsl):
        elements = weights.padded_shape[0] * weights.padded_shape[1]
        return Path.SPARSE if weights.words.size < SPARSE_BELOW_DENSITY * elements else Path.DECODE
    return _paths(weights)[0]


def _in_chunks(weights: EncodedWeight) -> bool:
    """Whether SIMD runs along k, in chunks of 4 x 32 weights: of a bitmap, or of 16-bit rows cut without a rest."""
    if isinstance(weights, Dense):
        whole = weights.shape[0] % lanes.ROWS == 0 and weights.shape[1] % lanes.COLUMNS == 0
        return whole and weights.element in HALF_ELEMENTS and weights.values.flags.c_contiguous
    return isinstance(weights, CpuBitmap)


def _on_tiles(weights: CpuBitmap, x: NDArray[Any]) -> bool:
    """Whether the matrix unit multiplies: weights and activations of bfloat16, more than meet a chunk in registers."""
    halves = weights.element is Element.BFLOAT16 and x.dtype == np.uint16
    return halves and x.shape[1] > TOKEN_GROUP and tiles.has_tiles()


def _multiply_chunks(weights: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Product of weights that are read chunk by chunk; x (k, n)."""
    from kernels_numba.cpu import bitmap_njit

    (m, k), n, bfloat16 = weights.shape, x.shape[1], weights.element is Element.BFLOAT16
    tokens = min(n, TOKEN_GROUP) if n != 3 else TOKEN_GROUP
    padded, chunks = -(-n // tokens) * tokens, -(-k // lanes.COLUMNS)
    if padded == 1 and not bfloat16 and k % lanes.COLUMNS == 0:
        packed = np.ascontiguousarray(x).reshape(-1)
    else:
        packed = np.zeros(chunks * padded * lanes.COLUMNS, np.float32)
        bitmap_njit.pack(x, lanes.column_order(bfloat16), padded, packed)
    out = np.empty((m, n), np.float32)
    values, expansion = bits_of(weights.values), int(lanes.best_expansion())
    if isinstance(weights, Dense):
        bitmap_njit.dense_rows_kernel(tokens, bfloat16)(values.reshape(-1), chunks, packed, out)
    else:
        make = bitmap_njit.bitmap_kernel if n == tokens else bitmap_njit.batched_bitmap_kernel
        make(tokens, bfloat16, expansion)(weights.masks, values, weights.offsets, chunks, packed, out)
    return out


def _multiply_tiles(weights: CpuBitmap, x: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Product of a bitmap of bfloat16 on the matrix unit, as many tokens at a time as its sums have room for."""
    from kernels_numba.cpu import bitmap_njit

    (m, _), n, most = weights.shape, x.shape[1], tiles.MOST_SUMS * tiles.TILE
    operands = weights.masks, bits_of(weights.values), weights.offsets, weights.chunks, tiles.configuration()
    parts = []
    for first in range(0, n, most):
        part = x[:, first : first + most]
        count = -(-part.shape[1] // tiles.TILE)
        packed = np.zeros(weights.chunks * count * tiles.TILE_VALUES, np.uint16)
        bitmap_njit.pack_pairs(part, count, packed)
        parts.append(np.empty((m, part.shape[1]), np.float32))
        bitmap_njit.tiles_kernel(count)(*operands, packed, parts[-1])
    return parts[0] if len(parts) == 1 else np.hstack(parts)


def _paths(weights: EncodedWeight) -> tuple[Path, ...]:
    """Paths a format has."""
    if isinstance(weights, TiledCsl):
        return Path.DECODE, Path.SPARSE
    return (Path.SPARSE,) if isinstance(weights, Csr | PanelCsr) else (Path.DECODE,)


def _check_activations(x: NDArray[Any], k: int, element: Element | None) -> None:
    """Refuse x that is no (k, n) of a type the kernels widen."""
    check(x.ndim == 2, "x", x.shape, "an array (k, n)")
    check(x.shape[0] == k and x.shape[1] > 0, "shape of x", x.shape, f"({k}, n) with n >= 1")
    fits = x.dtype in (FLOAT, HALF) or (element is Element.BFLOAT16 and x.dtype == BITS)
    check(fits, "dtype of x", x.dtype, "float16, float32, or uint16 as bfloat16")


def _strips(n: int) -> list[int]:
    """Vector widths that cover n columns: whole strips of 32, then the narrowest that holds the rest."""
    rest = n % STRIP_WIDTHS[-1]
    tail = [next(width for width in STRIP_WIDTHS if width >= rest)] if rest else []
    return [STRIP_WIDTHS[-1]] * (n // STRIP_WIDTHS[-1]) + tail


def _pack(x: NDArray[np.float32], column: int, width: int) -> NDArray[np.float32]:
    """Columns of x from ``column`` on as a flat (k * width,) array; copied only if padded or cut."""
    if x.shape[1] == width:
        return np.ascontiguousarray(x).reshape(-1)
    packed = np.zeros((x.shape[0], width), np.float32)
    part = x[:, column : column + width]
    packed[:, : part.shape[1]] = part
    return packed.reshape(-1)


def _multiply_strip(
    weights: EncodedWeight, path: Path, x: NDArray[np.float32], out: NDArray[np.float32], stride: int, column: int
) -> None:
    """Add the product for one strip of columns to ``out``."""
    from kernels_numba.cpu import kernels_njit

    width = x.size // weights.shape[1]
    bfloat16 = weights.element is Element.BFLOAT16
    if isinstance(weights, TiledCsl):
        make_kernel = kernels_njit.words_kernel if path is Path.SPARSE else kernels_njit.tiles_kernel
        make_kernel(width)(weights.words, bfloat16, weights.tile_offsets, weights.shape, x, out, stride, column)
    elif isinstance(weights, PanelCsr):
        grid = (BLOCK_ROWS, weights.panels, PANEL_K, weights.shape[0])
        values = bits_of(weights.values)
        kernel = kernels_njit.segments_kernel(width)
        kernel(weights.segment_ptr, weights.col_idx, values, bfloat16, grid, x, out, stride, column)
    elif isinstance(weights, Csr):  # one panel, and blocks of one row
        grid = (1, 1, weights.shape[1], weights.shape[0])
        values = bits_of(weights.values)
        kernels_njit.segments_kernel(width)(
            weights.row_ptr, weights.col_idx, values, bfloat16, grid, x, out, stride, column
        )
    else:
        values = bits_of(weights.values if isinstance(weights, Dense) else weights.decode())
        kernels_njit.dense_kernel(width)(values, bfloat16, x, out, stride, column)
