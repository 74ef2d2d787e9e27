"""Our kernels that decode records which bulk copies stream, predicted before any GPU has run them; Hopper and newer.

What changes where every warp streams strips of its own, from a list of a slice of K whose X stays in shared memory? No
step of the loop waits for another warp, no step copies X, and its instructions are fewer (the traces
``data/traces/*_bulk_*.json``). Against that stand the slices: each leaves sums of every row to the last one's blocks,
which add them piece by piece when they are through. All else is that of `register_decode`, the assumptions too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.cpu import Device
from perfmodel.formats import STRIP_M
from perfmodel.kernels.base import FIRST_CALL, Array, Call, Machine, Shape, ceil_div
from perfmodel.kernels.machine import L2_PORT_BYTES_PER_CYCLE, RESERVED_SHARED_BYTES
from perfmodel.kernels.register_decode import (
    PIECE_CYCLES,
    STAGES,
    STRIPS,
    TILE_K,
    WIDTHS,
    CondensedDecode,
    CondensedDecodePairs,
    RegisterDecode,
    RegisterDecodePairs,
    Shares,
    computed_columns,
)
from perfmodel.units import FP16_BYTES, FP32_BYTES

STREAMS = np.array([16, 16, 12, 8])  # warps of a block, by `WIDTHS`
BARRIER_BYTES, BARRIER_UNIT = 8, 128  # of a stage; that all barriers are rounded up to


@dataclass(frozen=True)
class Slicing:
    """How a launch cuts a product; arrays that broadcast, NaN where a block's shared memory holds no tile of X.

    slices : of K, each of ``slice_tiles`` tiles of 64, the last one what is left; blocks : of a slice and tile of
    columns, one on an SM; columns : tiles of columns; streams : warps of a block; rows : of strips.
    pieces : sums that warps leave each other in the workspace, for a tile of columns.
    """

    slices: Array
    slice_tiles: Array
    blocks: Array
    columns: Array
    streams: Array
    rows: Array

    @property
    def strips_per_warp(self) -> Array:
        """Strips of the longest stretch."""
        return ceil_div(self.rows * self.slice_tiles, self.blocks * self.streams)

    @property
    def pieces(self) -> Array:
        """Rows of every slice and one more for each cut inside a row; of a single slice those of cut rows only.

        Where rows and warps have a common divisor, cuts fall between rows that often.
        """
        rows, warps = (np.nan_to_num(x).astype(np.int64) for x in (self.rows, self.blocks * self.streams))
        inside = warps - np.gcd(rows, warps)
        of_slice = np.minimum(rows + inside, self.rows * self.slice_tiles)
        return np.where(self.slices > 1, self.slices * of_slice, np.minimum(2.0 * inside, of_slice))

    @property
    def pieces_per_warp(self) -> Array:
        """Pieces that a warp of the last slice adds, one after the other."""
        return self.pieces / np.minimum(self.blocks * self.streams, self.rows)


class StreamedDecode(RegisterDecode):
    """Bitmap weights that bulk copies stream, each warp for itself, X resident."""

    name = "lscd-bitmap-bulk"
    title = "LSCD bitmap, streamed, unmeasured"
    traced = "bitmap_bulk"
    oldest = 9.0  # bulk copies

    def has_room(self, gpu: Device, n: ArrayLike, sparsity: ArrayLike) -> NDArray[np.bool_]:
        """True where a tile of X fits beside the rings of all warps."""
        width = np.minimum(computed_columns(n), WIDTHS[-1])
        return np.asarray(self.room_tiles(Machine.of(gpu), width, np.asarray(sparsity)) >= 1)

    def ring_bytes(self, streams: Array, sparsity: ArrayLike) -> Array:
        """Shared memory of a block's barriers and of its warps' rings."""
        stages = streams * STAGES
        barriers = ceil_div(stages * BARRIER_BYTES, BARRIER_UNIT) * BARRIER_UNIT
        return barriers + stages * self.capacity_bytes(sparsity)

    def shared_bytes(self, cut: Slicing, width: Array, sparsity: ArrayLike) -> Array:
        """Shared memory of a block, its slice of X included."""
        return self.ring_bytes(cut.streams, sparsity) + cut.slice_tiles * FP16_BYTES * TILE_K * width

    def room_tiles(self, machine: Machine, width: Array, sparsity: ArrayLike) -> Array:
        """Tiles of X, 64 by ``width``, that a block's shared memory holds beside its rings."""
        rings = self.ring_bytes(STREAMS[np.searchsorted(WIDTHS, width)], sparsity)
        left = machine.shared_bytes_per_sm - RESERVED_SHARED_BYTES - rings
        return np.asarray(left // (FP16_BYTES * TILE_K * width))

    def slicing(self, machine: Machine, shape: Shape, width: Array, call: Call = FIRST_CALL) -> Slicing:
        """As the launcher cuts: slices as long as fit, or as many as are asked for; a block on each SM."""
        columns, k_tiles = computed_columns(shape.n) / width, ceil_div(shape.k, TILE_K)
        fitting = self.room_tiles(machine, width, shape.sparsity)
        fitting = np.where(fitting >= 1, fitting, np.nan)
        longest = np.minimum(fitting, np.ceil(k_tiles / call.ways(1.0, k_tiles)))
        slice_tiles = np.ceil(k_tiles / np.ceil(k_tiles / longest))
        slices = np.ceil(k_tiles / slice_tiles)
        blocks = np.maximum(machine.sm_count // (columns * slices), 1)
        return Slicing(
            slices, slice_tiles, blocks, columns, STREAMS[np.searchsorted(WIDTHS, width)], ceil_div(shape.m, STRIP_M)
        )

    def shares(self, machine: Machine, shape: Shape, width: Array, call: Call) -> Shares:
        """A block on each SM, equal stretches for all warps of a slice.

        All blocks read their slice of X at once, while the first records come. The blocks of the last slice add all
        pieces: as fast as the L2 takes and gives them, as their SMs' ports let them in, or as a warp's round trips
        follow each other.
        """
        cut = self.slicing(machine, shape, width, call)
        launched = cut.blocks * cut.slices * cut.columns
        sm_tiles = cut.strips_per_warp * cut.streams / STRIPS * np.ceil(launched / machine.sm_count)
        x_s = launched * cut.slice_tiles * FP16_BYTES * TILE_K * width / machine.l2_bytes_per_s
        sum_bytes = cut.pieces * cut.columns * FP32_BYTES * STRIP_M * width
        adding = np.minimum(cut.blocks * cut.columns, machine.sm_count)
        port_s = sum_bytes / (adding * L2_PORT_BYTES_PER_CYCLE * machine.clock_hz)
        in_turn_s = cut.pieces_per_warp * PIECE_CYCLES / machine.clock_hz
        ends_s = np.maximum(np.maximum(2 * sum_bytes / machine.l2_bytes_per_s, port_s), in_turn_s)
        return Shares(sm_tiles, ends_s, x_s)


class StreamedDecodePairs(StreamedDecode, RegisterDecodePairs):
    """The same with a bit for each pair of columns."""

    name = "lscd-bitmap-pairs-bulk"
    title = "LSCD pairs, streamed, unmeasured"
    traced = "bitmap_pairs_bulk"


class StreamedCondensed(StreamedDecode, CondensedDecode):
    """Condensed strips, streamed, with a bit for each slot."""

    name = "lscd-condensed-bulk"
    title = "LSCD condensed, streamed, unmeasured"
    traced = "condensed_bulk"


class StreamedCondensedPairs(StreamedDecode, CondensedDecodePairs):
    """Condensed strips, streamed, with a bit for each register."""

    name = "lscd-condensed-pairs-bulk"
    title = "LSCD condensed pairs, streamed, unmeasured"
    traced = "condensed_pairs_bulk"
