"""Condensed weights on the Sparse Tensor Cores: half the slots to decode, and the permuted rows of X gathered for free.

A lane decodes only the two of every four columns that ``mma.sp`` takes. What makes them enough is the order of each
strip's columns (`formats.condensed`), and what makes the order free is ``ldmatrix``: each lane gives it the address of
one row of X, and may as well give that of row ``columns[lane]``.

`ring` and `bulk` stream the records; places are found by sums over lanes as in `bitmap`. X lies in *panels* of 8
columns: 64 rows of 16 bytes, so that the 8 rows of an ``ldmatrix`` phase meet 8 different groups of banks whenever
they differ modulo 8, which the order of the columns sees to.

Values are halves, or codes that are made halves on the way (`quantised`): `Values` says how a lane takes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import cuda, int32, uint32

from kernels_numba.gpu import ptx
from kernels_numba.gpu.bitmap import byte_counts, counts_of_lanes_below, counts_up_to_lane, nibble_counts
from kernels_numba.gpu.stages import (
    MAX_FRAGMENTS,
    MAX_PANEL_FRAGMENTS,
    TILE_K,
    WARP_SIZE,
    device_function,
    gather_panels,
    multiply_operand,
    panel_key,
)

TAIL_COLUMNS = 16


@device_function
def multiply_sparse(accumulators, a, fragments, half, metadata, tile_n):  # type: ignore[no-untyped-def]
    """Add (16 x 32 of 2:4 weights) @ (32 x tile_n of X) to the accumulators of 16 rows."""
    for group in range(tile_n // 8):
        i = (half * (tile_n // 8) + group) * 4
        d = ptx.mma_sp_m16n8k32(
            a[0], a[1], a[2], a[3],
            fragments[4 * group], fragments[4 * group + 1], fragments[4 * group + 2], fragments[4 * group + 3],
            accumulators[i], accumulators[i + 1], accumulators[i + 2], accumulators[i + 3], metadata,
        )  # fmt: skip
        accumulators[i] = d[0]
        accumulators[i + 1] = d[1]
        accumulators[i + 2] = d[2]
        accumulators[i + 3] = d[3]


@device_function
def spread_nibbles(nibbles):  # type: ignore[no-untyped-def]
    """The four nibbles of a 16-bit word as the bytes of a word."""
    pairs = uint32(nibbles | uint32(nibbles << 8)) & uint32(0x00FF00FF)
    return uint32(pairs | uint32(pairs << 4)) & uint32(0x0F0F0F0F)


class Values(NamedTuple):
    """How values lie in a record and how a lane takes them.

    width : slots that a bit of the masks stands for.
    header_bytes : before the values, beyond masks, columns and metadata.
    unit : bytes that a set bit of the masks stands for.
    tail_unit, tail_units_per_byte : places that a set bit of a tail's masks stands for, and places in a byte.
    scales : device function of (record, lane_word): what rows g, g + 8, g + 16, g + 24 are multiplied by.
    take, take_from_tail : device functions of (mask, counts, start, one, low scale, high scale): an operand of 16 rows,
        from place ``start`` on, by the bits of ``mask`` from ``one`` on, whose lowest also picks their count.
    """

    width: int
    header_bytes: int
    unit: int
    tail_unit: int
    tail_units_per_byte: int
    scales: Any
    take: Any
    take_from_tail: Any


@device_function
def no_scales(record, lane_word):  # type: ignore[no-untyped-def]
    """Of halves, which are taken as they are."""
    return 0, 0, 0, 0


@device_function
def take_halves(mask, counts, start, one, low, high):  # type: ignore[no-untyped-def]
    """An operand of halves, by a bit for each slot."""
    return ptx.shared_gather_octet(mask, start, one)


@device_function
def take_pairs(mask, counts, start, one, low, high):  # type: ignore[no-untyped-def]
    """An operand of halves, by a bit for each register."""
    return ptx.shared_gather_quad(mask, start, one)


HALVES = Values(1, 0, 2, 2, 1, no_scales, take_halves, take_halves)
PAIRS_OF_HALVES = Values(2, 0, 4, 2, 1, no_scales, take_pairs, take_halves)


def make_multiply_condensed(values: Values) -> Any:
    """Decoder of condensed strips: adds (this warp's 32 x 64 weights) @ (X tile) to its accumulators."""
    width, unit, tail_unit, per_byte = values.width, values.unit, values.tail_unit, values.tail_units_per_byte
    mask_bytes = WARP_SIZE * 4 if width == 2 else WARP_SIZE * 6  # with the columns
    metadata_bytes = WARP_SIZE * 8
    begin = mask_bytes + metadata_bytes + values.header_bytes
    load_scales, take, take_from_tail = values.scales, values.take, values.take_from_tail

    @device_function
    def multiply_chunk(accumulators, fragments, mask, counts, below, place, metadata, chunk, low, high, tile_n):  # type: ignore[no-untyped-def]
        """Decode 16 rows x 8 groups, whose values begin at ``place``, and add their product with 32 rows of X."""
        start = ptx.dot_bytes(below, unit << 8 * chunk, place)
        a = take(mask, counts, start, 1 << 8 // width * chunk, low, high)
        multiply_sparse(accumulators, a, fragments, chunk & 1, metadata, tile_n)

    @device_function
    def next_place(place, last_below, last_counts, chunk):  # type: ignore[no-untyped-def]
        """Where the values of the next chunk begin.

        With a bit for each register ``last_below`` counts the last lane too: 128 at most, which a byte holds.
        """
        size = unit << 8 * chunk
        if width == 1:
            place = int32(ptx.dot_bytes(last_counts, size, place))
        return int32(ptx.dot_bytes(last_below, size, place))

    @device_function
    def multiply_tail(accumulators, x_tile, tail, lane_word, scales, tile_n):  # type: ignore[no-untyped-def]
        """Add (16 columns that fitted no group) @ (their rows of X); return where the tail's values end."""
        fragments = cuda.local.array(MAX_FRAGMENTS, uint32)
        row = x_tile + int32(ptx.shared_load_u8(tail + (lane_word >> 2 & 15))) * 16
        for group in range(tile_n // 8):
            b = ptx.ldmatrix_x2_trans((row ^ panel_key(group, tile_n) * 16) + group * (TILE_K * 16))
            fragments[2 * group], fragments[2 * group + 1] = b[0], b[1]
        mask = uint32(ptx.shared_load_u16(tail + TAIL_COLUMNS + (lane_word >> 1)))
        counts = byte_counts(mask)
        below = counts_of_lanes_below(counts)
        last_counts = ptx.from_last_lane(counts)
        last_below = ptx.from_last_lane(below)
        place = int32((tail + (TAIL_COLUMNS + 2 * WARP_SIZE)) * per_byte)
        a = take_from_tail(mask, counts, ptx.dot_bytes(below, tail_unit, place), 1, scales[0], scales[1])
        multiply_operand(accumulators, a, fragments, 2, 0, 0, tile_n)
        place = int32(ptx.dot_bytes(last_below, tail_unit, ptx.dot_bytes(last_counts, tail_unit, place)))
        size = tail_unit << 8
        a = take_from_tail(mask, counts, ptx.dot_bytes(below, size, place), 1 << 8, scales[2], scales[3])
        multiply_operand(accumulators, a, fragments, 2, 0, 1, tile_n)
        place = int32(ptx.dot_bytes(last_below, size, ptx.dot_bytes(last_counts, size, place)))
        return int32((place + per_byte - 1) // per_byte) if per_byte > 1 else place

    @device_function
    def multiply_condensed(accumulators, x_tile, record, lane_word, tile_n):  # type: ignore[no-untyped-def]
        fragments = cuda.local.array(MAX_PANEL_FRAGMENTS, uint32)
        provider = int32(
            int32(lane_word & -16) * 2 + int32(lane_word & 4) * 4
        )  # mma.sp takes metadata of lanes 4 g and 4 g + 1
        if width == 2:
            word = uint32(ptx.shared_load(record + lane_word))
            mask = uint32(word & uint32(0xFFFF))
            columns = uint32(word >> 16)
            counts = spread_nibbles(nibble_counts(mask))
        else:
            mask = uint32(ptx.shared_load(record + lane_word))
            columns = uint32(ptx.shared_load_u16(record + WARP_SIZE * 4 + (lane_word >> 1)))
            counts = byte_counts(mask)
        metadata = int32(record + mask_bytes + provider)
        place = int32(record + begin)
        scales = load_scales(record + (mask_bytes + metadata_bytes), lane_word)
        m = ptx.shared_load_v4(metadata)
        places = uint32(columns & uint32(0x3F3F))
        up_to_here = counts_up_to_lane(counts)
        below = uint32(up_to_here - counts)
        last_below = ptx.from_last_lane(up_to_here if width == 2 else below)
        last_counts = ptx.from_last_lane(counts) if width == 1 else counts  # used with a bit for each slot only
        # Written out, so that the compiler need not decide to unroll.
        gather_panels(fragments, int32(ptx.dot_bytes(places, 16, x_tile)), tile_n)
        multiply_chunk(accumulators, fragments, mask, counts, below, place, m[0], 0, scales[0], scales[1], tile_n)
        place = next_place(place, last_below, last_counts, 0)
        multiply_chunk(accumulators, fragments, mask, counts, below, place, m[1], 1, scales[2], scales[3], tile_n)
        place = next_place(place, last_below, last_counts, 1)
        gather_panels(fragments, int32(ptx.dot_bytes(places, 16 << 8, x_tile)), tile_n)
        multiply_chunk(accumulators, fragments, mask, counts, below, place, m[2], 2, scales[0], scales[1], tile_n)
        place = next_place(place, last_below, last_counts, 2)
        multiply_chunk(accumulators, fragments, mask, counts, below, place, m[3], 3, scales[2], scales[3], tile_n)
        place = next_place(place, last_below, last_counts, 3)
        tails = int32(columns >> 14)
        while ptx.any_lane(tails) != 0:
            place = multiply_tail(accumulators, x_tile, int32(place + 15) & int32(-16), lane_word, scales, tile_n)
            tails = int32(ptx.add_no_unroll(tails, -1))

    return multiply_condensed


multiply_condensed = make_multiply_condensed(HALVES)
multiply_condensed_pairs = make_multiply_condensed(PAIRS_OF_HALVES)
