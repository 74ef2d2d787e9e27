"""Bitmap weights decoded straight into Tensor-Core operands: no dense tile in shared memory.

What bounds the paper's kernel at 80-90 % sparsity is clearing a dense tile and reading it back, which costs the same
however empty it is. Here every lane builds its own mma operands in registers: it knows its 8 positions of a 16 x 16
chunk (one byte of mask) and where its values begin (a running sum of popcounts over the lanes), and loads what is
present. `ring` and `bulk` stream the records.

Cost of decoding, per lane and position: a bit test, a load and a step of the pointer; half a byte permutation and half
a clearing; and about one instruction for the running sums (counted in docs/bitmap.md). The loads of a chunk fall within
``256 * density`` neighbouring halves, so that up to a quarter full they meet hardly any bank conflict.

With a bit per pair of columns (`multiply_strip_of_pairs`) a lane decodes whole registers instead of halves: half the
tests, loads and steps, and no joins, for the bytes of the zeros that have a partner.
"""

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels_numba.gpu import ptx
from kernels_numba.gpu.stages import (
    MAX_PANEL_FRAGMENTS,
    TILE_K,
    WARP_SIZE,
    device_function,
    gather_panels,
    multiply_operand,
)

MASK_BYTES, PAIR_MASK_BYTES = WARP_SIZE * 8, WARP_SIZE * 4  # of one strip
CHUNKS, CHUNKS_PER_WORD = 8, 4


@device_function
def nibble_counts(mask):  # type: ignore[no-untyped-def]
    """Bits set in each nibble of ``mask``, as 8 nibbles."""
    pairs = uint32(mask - (uint32(mask >> 1) & uint32(0x55555555)))
    return uint32((pairs & uint32(0x33333333)) + (uint32(pairs >> 2) & uint32(0x33333333)))


@device_function
def byte_counts(mask):  # type: ignore[no-untyped-def]
    """Bits set in each byte of ``mask``, as 4 bytes."""
    nibbles = nibble_counts(mask)
    return uint32(nibbles + (nibbles >> 4)) & uint32(0x0F0F0F0F)


@device_function
def counts_up_to_lane(counts):  # type: ignore[no-untyped-def]
    """Sum of ``counts`` over this and all lower lanes; its bytes may run over in the last lane, with 8 everywhere."""
    total = uint32(counts)
    for distance in range(5):
        total = uint32(ptx.add_from_lane_below(total, 1 << distance))
    return total


@device_function
def counts_of_lanes_below(counts):  # type: ignore[no-untyped-def]
    """Bytewise sum of ``counts`` over all lower lanes: at most 31 * 8, which a byte holds."""
    return uint32(counts_up_to_lane(counts) - counts)


@device_function
def multiply_strip(accumulators, x_tile, record, lane_word, tile_n):  # type: ignore[no-untyped-def]
    """Add (this warp's strip of 32 x 64 weights) @ (X tile) to its accumulators, decoding on the way.

    ``lane_word`` is four times the lane's number: where its words lie.
    """
    fragments = cuda.local.array(MAX_PANEL_FRAGMENTS, uint32)
    masks = cuda.local.array(2, uint32)
    masks[0], masks[1] = ptx.shared_load_v2(int32(record + lane_word * 2))
    place = int32(record + MASK_BYTES)
    for word in range(2):
        counts = byte_counts(masks[word])
        below = counts_of_lanes_below(counts)
        last_counts = ptx.from_last_lane(counts)
        last_below = ptx.from_last_lane(below)
        gather_panels(fragments, int32(x_tile + lane_word * 4 + word * (TILE_K // 2 * 16)), tile_n)
        for i in range(CHUNKS_PER_WORD):
            two = 2 << 8 * i  # doubles byte i, a number of values, and leaves the others out
            a = ptx.shared_gather_octet(masks[word], ptx.dot_bytes(below, two, place), 1 << 8 * i)
            multiply_operand(accumulators, a, fragments, 4, 2 * (i >> 1), i & 1, tile_n)
            place = int32(ptx.dot_bytes(last_below, two, ptx.dot_bytes(last_counts, two, place)))


@device_function
def multiply_strip_of_pairs(accumulators, x_tile, record, lane_word, tile_n):  # type: ignore[no-untyped-def]
    """As `multiply_strip`, for masks with a bit per pair: nibble c of a lane's word are its registers of chunk c."""
    fragments = cuda.local.array(MAX_PANEL_FRAGMENTS, uint32)
    counts = cuda.local.array(2, uint32)  # a byte per step of 16 columns, of the upper and the lower 16 rows
    below = cuda.local.array(2, uint32)
    totals = cuda.local.array(2, uint32)
    mask = uint32(ptx.shared_load(int32(record + lane_word)))
    nibbles = nibble_counts(mask)
    for half in range(2):
        counts[half] = uint32(nibbles >> 4 * half) & uint32(0x0F0F0F0F)
        up_to_here = counts_up_to_lane(counts[half])  # at most 128, which a byte holds
        below[half] = uint32(up_to_here - counts[half])
        totals[half] = ptx.from_last_lane(up_to_here)
    place = int32(record + PAIR_MASK_BYTES)
    for i in range(CHUNKS):
        half, step = i & 1, i >> 1
        if i & 3 == 0:
            gather_panels(fragments, int32(x_tile + lane_word * 4 + (i >> 2) * (TILE_K // 2 * 16)), tile_n)
        four = 4 << 8 * step  # bytes of a pair, times byte ``step``
        a = ptx.shared_gather_quad(mask, ptx.dot_bytes(below[half], four, place), 1 << 4 * i)
        multiply_operand(accumulators, a, fragments, 4, 2 * (step & 1), half, tile_n)
        place = int32(ptx.dot_bytes(totals[half], four, place))
