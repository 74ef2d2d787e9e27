"""Does a kernel's address arithmetic hold at the largest problems, whose arrays no machine here could hold?

The last thread blocks of a launch with sizes near 2**31 run on the emulator. Of its arrays only what these blocks own
exists (`ptx_emulator.Rows`), so that an address that wraps, or that leaves its own part by one element, meets nothing.
The pieces are those of a small product, encoded as always and placed where they would lie; lists of words, records and
non-zeros begin beyond 4 GiB.

* wide: as many columns as a plan allows; the rows of X and of the output lie far apart.
* tall: as many rows as 32-bit sizes allow, and a long K; weights, offsets and outputs lie far behind their beginnings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import TILE_K, TILE_M, Dense, EncodedWeight, encode_csr, encode_tiled_csl, encode_two_four
from kernels_numba.formats.layout import STRIP_M
from kernels_numba.formats.two_four_tiles import TILE_BYTES
from kernels_numba.gpu import csr, reduce
from kernels_numba.gpu.bulk import WARPS
from kernels_numba.gpu.compile import Variant
from kernels_numba.gpu.decoders import ENCODERS
from kernels_numba.gpu.emulate import run_on_emulator
from kernels_numba.gpu.launch import (
    COLUMN_UNIT,
    MAX_GRID_Y,
    MAX_INT32,
    Launch,
    Plan,
    Records,
    capacity_of,
    ceil_div,
    launches,
    with_aligned_rows,
)
from kernels_numba.gpu.variants import BULK
from kernels_numba.ptx_emulator import Rows
from kernels_numba.reference import check_product

UNITS_BEFORE = 2**28 + 5  # of 16 bytes, before the first word or record
NONZEROS_BEFORE = 1_600_000_000
ALONE = 2**40  # bytes between rows of which there is one
DENSITY = 0.35  # more words a tile than registers hold
Block = tuple[int, int, int]


@dataclass(frozen=True)
class Piece:
    """Sizes of a whole problem, and the part of it that exists: rows from ``row`` on, columns of X from ``column`` on.

    K is cut into parts of ``tiles`` tiles, of which the last is computed; all of it is by kernels that share a list.
    """

    m: int
    k: int
    n: int
    row: int
    column: int
    tiles: int

    @property
    def k_tiles(self) -> int:
        """Tiles along the whole K."""
        return ceil_div(self.k, TILE_K)


def wide(tile_n: int, *, row_unit: int = TILE_M) -> Piece:
    """Columns to the limit: 504 deep, and so many rows that the output has nearly 2**31 elements."""
    n = MAX_GRID_Y * tile_n - COLUMN_UNIT
    m = 499
    return Piece(m, 504, n, (m - 1) // row_unit * row_unit, (n - 1) // tile_n * tile_n, 2)


def tall(m: int, k_tiles: int, tiles: int, *, row_unit: int = TILE_M) -> Piece:
    """Eight columns, the last rows of ``m``."""
    return Piece(m, k_tiles * TILE_K - COLUMN_UNIT, COLUMN_UNIT, (m - 1) // row_unit * row_unit, 0, tiles)


def run_far(variant: Variant, arch: str, seed: int) -> float:
    """Largest error of the last blocks of a far problem, in units of what rounding allows.

    Variants of 8 columns are checked tall and write fp16, others wide and float32.

    Raises
    ------
    AssertionError, PtxError
        If a result is wrong, or an access is.
    """
    family = next((run for name, run in FAMILIES.items() if variant.kernel == name), None)
    if family is None:
        family = _streamed if variant.kernel.endswith(BULK) else _shared
    return family(variant, arch, np.random.default_rng(seed))


def _beyond(array: NDArray[Any], before: int) -> Rows:
    """A flat array that has ``before`` more entries at its beginning."""
    return Rows(np.ascontiguousarray(array).reshape(1, -1), before * array.itemsize, ALONE)


def _rows(array: NDArray[Any], row: int, column: int, width: int, before: int = 0) -> Rows:
    """Part of a matrix of ``width`` columns, ``before`` more entries in front of it."""
    return Rows(array, (before + row * width + column) * array.itemsize, width * array.itemsize)


def _weights(piece: Piece, first_k: int, rng: np.random.Generator, density: float = DENSITY) -> NDArray[np.float16]:
    """The rows that exist, from column ``first_k`` on."""
    a = rng.standard_normal((piece.m - piece.row, piece.k - first_k)).astype(np.float16)
    a[rng.random(a.shape) >= density] = 0
    return a


def _run(job: Launch, arch: str, blocks: list[Block]) -> None:
    missing = [block for block in blocks if any(at >= size for at, size in zip(block, job.grid, strict=True))]
    assert not missing, f"the grid {job.grid} of the plan lacks block {missing[0]}"
    run_on_emulator(job, arch, blocks)


def _product(
    plan: Plan, piece: Piece, first_k: int, weights: EncodedWeight, buffers: dict[str, Any], arch: str,
    blocks: list[Block], rng: np.random.Generator, sums: Any = None, flags: Any = None, split: int = 0,
) -> float:  # fmt: skip
    """Run some blocks of a plan whose weights are placed in ``buffers``, and check what they write."""
    as_fp32 = plan.variant.tile_n != COLUMN_UNIT
    m, n = piece.m - piece.row, piece.n - piece.column
    x = rng.standard_normal((weights.shape[1], n)).astype(np.float16)
    out = np.full((m, n), np.nan, np.float32 if as_fp32 else np.float16)
    # Partial sums of the splits lie 4 bytes an element apart, whatever their type.
    before = split * piece.m * piece.n * 4 // out.itemsize
    x_rows = _rows(x, first_k, piece.column, piece.n)
    out_rows = _rows(out, piece.row, piece.column, piece.n, before)
    (job,) = launches(plan, buffers, x_rows, out_rows, sums, flags, as_fp32=as_fp32)
    _run(job, arch, blocks)
    return check_product(out, weights, x)


def _split(variant: Variant, arch: str, rng: np.random.Generator) -> float:
    """Kernels whose blocks own a tile of the output and a part of K."""
    if variant.tile_n == COLUMN_UNIT:
        piece = tall(MAX_GRID_Y * TILE_M - 12, 16_384 if variant.kernel == "tiled_csl" else 256, 16)
    else:
        piece = wide(variant.tile_n)
    splits = ceil_div(piece.k_tiles, piece.tiles)
    first_tile = (splits - 1) * piece.tiles
    a = _weights(piece, first_tile * TILE_K, rng)
    row_tile = piece.row // TILE_M
    tile = row_tile * piece.k_tiles + first_tile
    if variant.kernel == "tiled_csl":
        weights: Any = encode_tiled_csl(a)
        words = _beyond(weights.words, UNITS_BEFORE * 4)
        buffers = {"words": words, "tile_offsets": _beyond(weights.tile_offsets + np.int32(UNITS_BEFORE), tile)}
    elif variant.kernel == "dense":
        weights = Dense(a)
        buffers = {"values": _rows(a, piece.row, first_tile * TILE_K, piece.k)}
    else:
        a[:, 2::4] = a[:, 3::4] = 0
        weights = with_aligned_rows(encode_two_four(a))
        buffers = {"tiles": _beyond(weights.tiles, tile * (TILE_BYTES // 2))}
    plan = Plan(variant, piece.m, piece.k, piece.n, splits, piece.tiles)
    block = (piece.column // variant.tile_n, row_tile, splits - 1)
    return _product(plan, piece, first_tile * TILE_K, weights, buffers, arch, [block], rng, split=splits - 1)


def _csr(variant: Variant, arch: str, rng: np.random.Generator) -> float:
    """One warp a row; with 16-bit indices the last rows of X that these can name."""
    bits, rows = int(variant.parameters[1]), csr.ROWS_PER_BLOCK
    if variant.tile_n == COLUMN_UNIT:
        piece = tall(MAX_INT32 // COLUMN_UNIT - 1, 2, 1, row_unit=rows)
    else:
        piece = wide(variant.tile_n, row_unit=rows)
    if bits == 16:
        piece = Piece(piece.m, 2**16, min(piece.n, 32_752), piece.row, min(piece.column, 32_704), 1)
    first_k = piece.k - 120
    weights = encode_csr(_weights(piece, first_k, rng), index_bits=bits)
    buffers = {
        "row_ptr": _beyond(weights.row_ptr + np.int32(NONZEROS_BEFORE), piece.row),
        "col_idx": _beyond(weights.col_idx + weights.col_idx.dtype.type(first_k), NONZEROS_BEFORE),
        "values": _beyond(weights.values, NONZEROS_BEFORE),
    }
    plan = Plan(variant, piece.m, piece.k, piece.n, 1, piece.k_tiles)
    block = (piece.row // rows, piece.column // variant.tile_n, 0)
    return _product(plan, piece, first_k, weights, buffers, arch, [block], rng)


def _records(kernel: str, a: NDArray[np.float16], row: int, k_tiles: int) -> tuple[Any, dict[str, Any]]:
    """Records of the last rows, and where they and their offsets lie in the whole list."""
    weights = with_aligned_rows(ENCODERS[kernel](a))
    assert isinstance(weights, Records)
    offsets = (weights.offsets + np.int32(UNITS_BEFORE)).astype(weights.offsets.dtype)
    records = _beyond(weights.records, UNITS_BEFORE * (16 // weights.records.itemsize))
    return weights, {"records": records, "offsets": _beyond(offsets, row // STRIP_M * k_tiles)}


def _shared(variant: Variant, arch: str, rng: np.random.Generator) -> float:
    """Blocks that share a list of tiles: those of the last row of tiles."""
    piece = tall(2**28 - 12, 80, 16) if variant.tile_n == COLUMN_UNIT else wide(variant.tile_n)
    weights, buffers = _records(variant.kernel, _weights(piece, 0, rng, 0.2), piece.row, piece.k_tiles)
    per_row = piece.k_tiles // piece.tiles
    blocks = ceil_div(piece.m, TILE_M) * per_row
    columns = piece.column // variant.tile_n
    capacity = capacity_of(weights)
    plan = Plan(variant, piece.m, piece.k, piece.n, per_row, piece.k_tiles, blocks=blocks, capacity=capacity)
    place = columns * blocks + blocks - per_row
    sums = np.full((per_row, TILE_M * variant.tile_n), np.nan, np.float32)
    flags = np.zeros(per_row, np.uint32)
    error = _product(
        plan, piece, 0, weights, buffers, arch, [(columns, b, 0) for b in range(blocks - per_row, blocks)], rng,
        _beyond(sums, place * sums.shape[1]), _beyond(flags, place),
    )  # fmt: skip
    assert not flags.any(), "a block left its flag raised"
    return error


def _streamed(variant: Variant, arch: str, rng: np.random.Generator) -> float:
    """Warps that share a list of strips: all of a few rows in two slices, or those of the last four rows in one."""
    warps, is_tall = WARPS[variant.tile_n], variant.tile_n == COLUMN_UNIT
    piece = tall(2**28 - 16, 80, 80) if is_tall else wide(variant.tile_n)
    if not is_tall:
        piece = Piece(piece.m, piece.k, piece.n, 0, piece.column, piece.k_tiles // 2)
    kernel = variant.kernel.removesuffix(BULK)
    weights, buffers = _records(kernel, _weights(piece, 0, rng, 0.05), piece.row, piece.k_tiles)
    rows, own_rows = ceil_div(piece.m, STRIP_M), ceil_div(piece.m - piece.row, STRIP_M)
    blocks, slices = rows // own_rows, ceil_div(piece.k_tiles, piece.tiles)
    columns, places = piece.column // variant.tile_n, rows + blocks * warps
    plan = Plan(
        variant, piece.m, piece.k, piece.n, slices, piece.tiles, blocks=blocks, capacity=capacity_of(weights),
        slices=slices,
    )  # fmt: skip
    own_places = own_rows + warps if blocks == 1 else own_rows + warps - 1
    place = columns * slices * places + (blocks - 1) * (own_rows + warps)
    sums = np.full((slices * own_places, STRIP_M * variant.tile_n), np.nan, np.float32)
    flags = np.zeros(slices * own_places, np.uint32)
    error = _product(
        plan, piece, 0, weights, buffers, arch, [(columns, blocks - 1, z) for z in range(slices)], rng,
        _beyond(sums, place * sums.shape[1]), _beyond(flags, place),
    )  # fmt: skip
    assert not flags.any(), "a warp left its flag raised"
    return error


def _reduce(variant: Variant, arch: str, rng: np.random.Generator) -> float:
    """The last outputs of seven partial results."""
    outputs, per_block = MAX_INT32 - 3, reduce.THREADS * reduce.OUTPUTS_PER_THREAD
    block = ceil_div(outputs, per_block) - 1
    first = block * per_block
    partials = rng.standard_normal((7, outputs - first)).astype(np.float32)
    out = np.full((1, outputs - first), np.nan, np.float16)
    arguments = (_rows(partials, 0, first, outputs), _beyond(out, first), outputs, 7, 0)
    _run(Launch(variant, (block + 1, 1, 1), arguments, 0), arch, [(block, 0, 0)])
    expected = partials[0]
    for partial in partials[1:]:
        expected = expected + partial  # in the kernel's order, and in float32
    np.testing.assert_array_equal(out[0], expected.astype(np.float16))
    return 0.0


FAMILIES: dict[str, Callable[[Variant, str, np.random.Generator], float]] = {
    "tiled_csl": _split,
    "dense": _split,
    "two_four": _split,
    "csr": _csr,
    "reduce": _reduce,
}
