"""Values of 8 and 4 bits: codes gathered as `bitmap` and `condensed` gather halves, made fp16 in registers.

A lane's pair of codes becomes one operand register in two to four instructions, the last of which multiplies by the
scale of its row. What is absent is a code of zero, and so exactly zero. A lane holds rows g, g + 8, g + 16, g + 24 of a
strip, whose four scales lie side by side in the record's header; a strip lies in one group of columns.

Condensed strips have a bit for each register: its two codes come with one load, and part in one or two instructions.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32

from kernels_numba.formats import ValueType
from kernels_numba.gpu import ptx
from kernels_numba.gpu.bitmap import CHUNKS_PER_WORD, MASK_BYTES, byte_counts, counts_of_lanes_below
from kernels_numba.gpu.condensed import Values, make_multiply_condensed
from kernels_numba.gpu.stages import MAX_PANEL_FRAGMENTS, TILE_K, device_function, gather_panels, multiply_operand

SCALE_BYTES = 64  # of the 32 rows of a strip
HEADER_BYTES = MASK_BYTES + SCALE_BYTES
SCALED = {
    ValueType.INT8: ptx.scaled_int8,
    ValueType.INT4: ptx.scaled_int4,
    ValueType.E4M3: ptx.scaled_e4m3,
    ValueType.E5M2: ptx.scaled_e5m2,
}


@device_function
def load_scales(header, lane_word):  # type: ignore[no-untyped-def]
    """Scales of rows g, g + 8, g + 16, g + 24, each in both halves; they lie from ``header`` on."""
    by_half = ptx.shared_load_v2(int32(header + ((lane_word >> 1) & -8)))
    upper = ptx.low_twice(by_half[0]), ptx.high_twice(by_half[0])
    return upper[0], upper[1], ptx.low_twice(by_half[1]), ptx.high_twice(by_half[1])


def make_take(value_type: ValueType) -> Any:
    """Device function that makes an operand of codes with a bit for each slot: see `condensed.Values.take`."""
    scaled, nibbles = SCALED[value_type], value_type.bits == 4

    @device_function
    def take(mask, counts, start, one, low, high):  # type: ignore[no-untyped-def]
        if nibbles:
            codes = ptx.shared_gather_nibbles(mask, start, ptx.dot_bytes(counts, one, start), one)
        else:
            codes = ptx.shared_gather_bytes(mask, start, one)
        return scaled(codes[0], low), scaled(codes[1], high), scaled(codes[2], low), scaled(codes[3], high)

    return take


def make_take_pairs(value_type: ValueType) -> Any:
    """The same with a bit for each register of two codes side by side."""
    scaled, nibbles = SCALED[value_type], value_type.bits == 4
    gather = ptx.shared_gather_nibble_pairs if nibbles else ptx.shared_gather_byte_pairs
    spread = ptx.spread_nibbles if nibbles else ptx.spread_bytes

    @device_function
    def take_pairs(mask, counts, start, one, low, high):  # type: ignore[no-untyped-def]
        codes = gather(mask, start, one)
        first = scaled(spread(codes[0]), low), scaled(spread(codes[1]), high)
        return first[0], first[1], scaled(spread(codes[2]), low), scaled(spread(codes[3]), high)

    return take_pairs


def make_multiply_quantised(value_type: ValueType) -> Any:
    """Decoder of bitmap strips with values of a type: see `bitmap.multiply_strip`, whose arguments it has."""
    take, codes_per_byte = make_take(value_type), 8 // value_type.bits

    @device_function
    def multiply_half(accumulators, fragments, scales, mask, x_half, place, tile_n):  # type: ignore[no-untyped-def]
        """Decode 32 rows x 32 columns, multiply them by rows of X from ``x_half`` on; where the next codes begin."""
        counts = byte_counts(mask)
        below = counts_of_lanes_below(counts)
        last_counts = ptx.from_last_lane(counts)
        last_below = ptx.from_last_lane(below)
        gather_panels(fragments, x_half, tile_n)
        for i in range(CHUNKS_PER_WORD):
            one, half = 1 << 8 * i, i & 1
            low, high = scales[2 * half], scales[2 * half + 1]
            a = take(mask, counts, ptx.dot_bytes(below, one, place), one, low, high)
            multiply_operand(accumulators, a, fragments, 4, 2 * (i >> 1), half, tile_n)
            place = int32(ptx.dot_bytes(last_below, one, ptx.dot_bytes(last_counts, one, place)))
        return place

    @device_function
    def multiply_quantised(accumulators, x_tile, record, lane_word, tile_n):  # type: ignore[no-untyped-def]
        fragments = cuda.local.array(MAX_PANEL_FRAGMENTS, uint32)
        scales = cuda.local.array(4, uint32)
        masks = ptx.shared_load_v2(int32(record + lane_word * 2))
        scales[0], scales[1], scales[2], scales[3] = load_scales(record + MASK_BYTES, lane_word)
        x_half = int32(x_tile + lane_word * 4)
        place = int32((record + HEADER_BYTES) * codes_per_byte)
        # Written out, so that the compiler need not decide to unroll.
        place = multiply_half(accumulators, fragments, scales, masks[0], x_half, place, tile_n)
        x_half = int32(x_half + TILE_K // 2 * 16)
        place = multiply_half(accumulators, fragments, scales, masks[1], x_half, place, tile_n)

    return multiply_quantised


def make_multiply_condensed_codes(value_type: ValueType) -> Any:
    """Decoder of condensed strips with values of a type and a bit for each register."""
    take, take_pairs, per_byte = make_take(value_type), make_take_pairs(value_type), 8 // value_type.bits
    return make_multiply_condensed(Values(2, SCALE_BYTES, 2 // per_byte, 1, per_byte, load_scales, take_pairs, take))
