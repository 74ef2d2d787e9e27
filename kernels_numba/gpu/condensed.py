"""Condensed weights on the Sparse Tensor Cores: half the slots to decode, and the permuted rows of X gathered for free.

A lane decodes only the two of every four columns that ``mma.sp`` takes. What makes them enough is the order of each
strip's columns (`formats.condensed`), and what makes the order free is ``ldmatrix``: each lane gives it the address of
one row of X, and may as well give that of row ``columns[lane]``.

`ring` and `bulk` stream the records; places are found by sums over lanes as in `bitmap`. X lies in *panels* of 8
columns: 64 rows of 16 bytes, so that the 8 rows of an ``ldmatrix`` phase meet 8 different groups of banks whenever
they differ modulo 8, which the order of the columns sees to.
"""

from __future__ import annotations

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


@device_function
def multiply_chunk(accumulators, fragments, mask, below, values, metadata, chunk, width, tile_n):  # type: ignore[no-untyped-def]
    """Decode 16 rows x 8 groups, whose values begin at ``values``, and add their product with 32 rows of X."""
    place = ptx.dot_bytes(below, chunk_bytes(chunk, width), values)
    if width == 2:
        a = ptx.shared_gather_quad(mask, place, 1 << 4 * chunk)
    else:
        a = ptx.shared_gather_octet(mask, place, 1 << 8 * chunk)
    multiply_sparse(accumulators, a, fragments, chunk & 1, metadata, tile_n)


@device_function
def chunk_bytes(chunk, width):  # type: ignore[no-untyped-def]
    """Word whose dot product with four counts is the bytes of count ``chunk``, of halves or of pairs."""
    return 2 * width << 8 * chunk


@device_function
def next_values(values, last_below, last_counts, chunk, width):  # type: ignore[no-untyped-def]
    """Where the values of the next chunk begin.

    With a bit for each register ``last_below`` counts the last lane too: 128 at most, which a byte holds.
    """
    size = chunk_bytes(chunk, width)
    if width == 1:
        values = int32(ptx.dot_bytes(last_counts, size, values))
    return int32(ptx.dot_bytes(last_below, size, values))


@device_function
def multiply_condensed_of(accumulators, x_tile, record, lane_word, tile_n, width):  # type: ignore[no-untyped-def]
    """Add (this warp's strip of 32 x 64 weights) @ (X tile) to its accumulators, decoding on the way."""
    fragments = cuda.local.array(MAX_PANEL_FRAGMENTS, uint32)
    provider = int32(
        int32(lane_word & -16) * 2 + int32(lane_word & 4) * 4
    )  # mma.sp takes metadata of lanes 4 g and 4 g + 1
    if width == 2:
        word = uint32(ptx.shared_load(record + lane_word))
        mask = uint32(word & uint32(0xFFFF))
        columns = uint32(word >> 16)
        counts = spread_nibbles(nibble_counts(mask))
        metadata = int32(record + 128 + provider)
        values = int32(record + 384)
    else:
        mask = uint32(ptx.shared_load(record + lane_word))
        columns = uint32(ptx.shared_load_u16(record + 128 + (lane_word >> 1)))
        counts = byte_counts(mask)
        metadata = int32(record + 192 + provider)
        values = int32(record + 448)
    m = ptx.shared_load_v4(metadata)
    places = uint32(columns & uint32(0x3F3F))
    up_to_here = counts_up_to_lane(counts)
    below = uint32(up_to_here - counts)
    last_below = ptx.from_last_lane(up_to_here if width == 2 else below)
    last_counts = ptx.from_last_lane(counts) if width == 1 else counts  # used with a bit for each slot only
    # Written out, so that the compiler need not decide to unroll.
    gather_panels(fragments, int32(ptx.dot_bytes(places, 16, x_tile)), tile_n)
    multiply_chunk(accumulators, fragments, mask, below, values, m[0], 0, width, tile_n)
    values = next_values(values, last_below, last_counts, 0, width)
    multiply_chunk(accumulators, fragments, mask, below, values, m[1], 1, width, tile_n)
    values = next_values(values, last_below, last_counts, 1, width)
    gather_panels(fragments, int32(ptx.dot_bytes(places, 16 << 8, x_tile)), tile_n)
    multiply_chunk(accumulators, fragments, mask, below, values, m[2], 2, width, tile_n)
    values = next_values(values, last_below, last_counts, 2, width)
    multiply_chunk(accumulators, fragments, mask, below, values, m[3], 3, width, tile_n)
    values = next_values(values, last_below, last_counts, 3, width)
    tails = int32(columns >> 14)
    while ptx.any_lane(tails) != 0:
        values = multiply_tail(accumulators, x_tile, int32(values + 15) & int32(-16), lane_word, tile_n)
        tails = int32(ptx.add_no_unroll(tails, -1))


@device_function
def multiply_tail(accumulators, x_tile, tail, lane_word, tile_n):  # type: ignore[no-untyped-def]
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
    values = int32(tail + (TAIL_COLUMNS + 2 * WARP_SIZE))
    for half in range(2):
        two = 2 << 8 * half
        a = ptx.shared_gather_octet(mask, ptx.dot_bytes(below, two, values), 1 << 8 * half)
        multiply_operand(accumulators, a, fragments, 2, 0, half, tile_n)
        values = int32(ptx.dot_bytes(last_below, two, ptx.dot_bytes(last_counts, two, values)))
    return values


@device_function
def multiply_condensed(accumulators, x_tile, record, lane_word, tile_n):  # type: ignore[no-untyped-def]
    """`multiply_condensed_of` with a bit for each slot."""
    multiply_condensed_of(accumulators, x_tile, record, lane_word, tile_n, 1)


@device_function
def multiply_condensed_pairs(accumulators, x_tile, record, lane_word, tile_n):  # type: ignore[no-untyped-def]
    """`multiply_condensed_of` with a bit for each register of two slots."""
    multiply_condensed_of(accumulators, x_tile, record, lane_word, tile_n, 2)
