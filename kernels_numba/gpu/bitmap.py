"""Bitmap weights decoded straight into Tensor-Core operands: no dense tile in shared memory.

What bounds the paper's kernel at 80-90 % sparsity is clearing a dense tile and reading it back, which costs the same
however empty it is. Here every lane builds its own mma operands in registers: it knows its 8 positions of a 16 x 16
chunk (one byte of mask) and where its values begin (a running sum of popcounts over the lanes), and loads what is
present.

One thread block owns 128 rows x ``tile_n`` columns of the output and ``k_tiles_per_split`` tiles of 64 along k; each of
its 4 warps owns the strips of 32 of these rows (`formats.bitmap`). A ring of `STAGES` buffers, filled by asynchronous
copies, keeps two tiles in flight while a third is decoded and multiplied; one barrier a tile.

Cost of decoding, per lane and position: a bit test, a load and a step of the pointer; half a byte permutation and half
a clearing; and about one instruction for the running sums (counted in docs/bitmap.md). The loads of a chunk fall within
``256 * density`` neighbouring halves, so that up to a quarter full they meet hardly any bank conflict.

With a bit per pair of columns (`multiply_strip_of_pairs`) a lane decodes whole registers instead of halves: half the
tests, loads and steps, and no joins, for the bytes of the zeros that have a partner.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types, uint32

from kernels_numba.gpu import ptx
from kernels_numba.gpu.stages import (
    MAX_FRAGMENTS,
    ROWS_PER_WARP,
    THREADS,
    TILE_K,
    TILE_M,
    WARP_SIZE,
    activation_tile_bytes,
    device_function,
    fetch_activations,
    load_activation_fragments,
    multiply_operand,
    store_tile,
)

STAGES = 3
WARPS = THREADS // WARP_SIZE
MASK_BYTES, PAIR_MASK_BYTES = WARP_SIZE * 8, WARP_SIZE * 4  # of one strip
CHUNKS, CHUNKS_PER_WORD = 8, 4
CAPACITIES = (512, 768, 1280, 2048)  # values that the buffer of a strip holds; 2,048 is a full strip
# With fewer registers the compiler recomputes addresses: 8 % more instructions at 32 columns with 5 blocks.
MOST_BLOCKS = {8: 6, 16: 6, 32: 4, 64: 3}
SIGNATURE = types.void(*[types.int64] * 5, *[types.int32] * 5)


def mask_bytes_of(width: int) -> int:
    """Bytes of a strip's masks, by the positions that a bit stands for."""
    return MASK_BYTES if width == 1 else PAIR_MASK_BYTES


def stage_bytes(tile_n: int, capacity: int, width: int) -> int:
    """Shared memory of one stage: an X tile, and masks and values of 4 strips."""
    return activation_tile_bytes(tile_n) + WARPS * (mask_bytes_of(width) + 2 * capacity)


def shared_bytes(tile_n: int, capacity: int, width: int) -> int:
    """Dynamic shared memory of one block: a ring of stages."""
    return STAGES * stage_bytes(tile_n, capacity, width)


def blocks_per_sm(tile_n: int, capacity: int, width: int) -> int:
    """Blocks that registers must leave room for: those that fit the shared memory of an A100, within `MOST_BLOCKS`."""
    return max(2, min(MOST_BLOCKS[tile_n], 164 * 1024 // (shared_bytes(tile_n, capacity, width) + 1024)))


@device_function
def fetch_strip(place, masks, values, begin, end, lane, capacity, mask_bytes):  # type: ignore[no-untyped-def]
    """Start this warp's copy of a strip: ``mask_bytes`` of masks, and values from unit ``begin`` to ``end``.

    ``place``, ``masks`` and ``values`` point to this lane's first 16 bytes; those of the values belong to unit 0.
    """
    ptx.cp_async_16_if(place, masks, lane < mask_bytes // 16)
    count = int32(end - begin)
    source = values + int64(begin) * 16
    for i in range(capacity // (8 * WARP_SIZE)):
        inside = int32(lane + i * WARP_SIZE) < count
        ptx.cp_async_16_if(place + (mask_bytes + i * WARP_SIZE * 16), source + i * (WARP_SIZE * 16), inside)


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
def counts_of_lanes_below(counts):  # type: ignore[no-untyped-def]
    """Bytewise sum of ``counts`` over all lower lanes: at most 31 * 8, which a byte holds."""
    total = uint32(counts)
    for distance in range(5):
        total = uint32(ptx.add_from_lane_below(total, 1 << distance))
    return uint32(total - counts)


@device_function
def multiply_strip(accumulators, x_tile, buffer, lane, tile_n):  # type: ignore[no-untyped-def]
    """Add (this warp's strip of 32 x 64 weights) @ (X tile) to its accumulators, decoding on the way."""
    fragments = cuda.local.array(MAX_FRAGMENTS, uint32)
    masks = cuda.local.array(2, uint32)
    masks[0], masks[1] = ptx.shared_load_v2(buffer + lane * 8)
    place = int32(buffer + MASK_BYTES)
    for word in range(2):
        counts = byte_counts(masks[word])
        below = counts_of_lanes_below(counts)
        last_counts = ptx.from_last_lane(counts)
        last_below = ptx.from_last_lane(below)
        for i in range(CHUNKS_PER_WORD):
            half = i & 1
            if half == 0:
                load_activation_fragments(fragments, x_tile, word * 2 + (i >> 1), lane, tile_n)
            two = 2 << 8 * i  # doubles byte i, a number of values, and leaves the others out
            a = ptx.shared_gather_octet(masks[word], ptx.dot_bytes(below, two, place), 1 << 8 * i)
            multiply_operand(accumulators, a, fragments, half, tile_n)
            place = int32(ptx.dot_bytes(last_below, two, ptx.dot_bytes(last_counts, two, place)))


@device_function
def multiply_strip_of_pairs(accumulators, x_tile, buffer, lane, tile_n):  # type: ignore[no-untyped-def]
    """As `multiply_strip`, for masks with a bit per pair: nibble c of a lane's word are its registers of chunk c."""
    fragments = cuda.local.array(MAX_FRAGMENTS, uint32)
    counts = cuda.local.array(2, uint32)  # a byte per step of 16 columns, of the upper and the lower 16 rows
    below = cuda.local.array(2, uint32)
    last_counts = cuda.local.array(2, uint32)
    last_below = cuda.local.array(2, uint32)
    mask = uint32(ptx.shared_load(buffer + lane * 4))
    nibbles = nibble_counts(mask)
    for half in range(2):
        counts[half] = uint32(nibbles >> 4 * half) & uint32(0x0F0F0F0F)
        below[half] = counts_of_lanes_below(counts[half])
        last_counts[half] = ptx.from_last_lane(counts[half])
        last_below[half] = ptx.from_last_lane(below[half])
    place = int32(buffer + PAIR_MASK_BYTES)
    for i in range(CHUNKS):
        half, step = i & 1, i >> 1
        if half == 0:
            load_activation_fragments(fragments, x_tile, step, lane, tile_n)
        four = 4 << 8 * step  # bytes of a pair, times byte ``step``
        a = ptx.shared_gather_quad(mask, ptx.dot_bytes(below[half], four, place), 1 << 4 * i)
        multiply_operand(accumulators, a, fragments, half, tile_n)
        place = int32(ptx.dot_bytes(last_below[half], four, ptx.dot_bytes(last_counts[half], four, place)))


def make_bitmap_kernel(tile_n: int, capacity: int, width: int) -> Any:
    """Kernel for ``tile_n`` output columns per block, strips of at most ``capacity`` values, ``width`` values a bit.

    Equivalent to `reference.spmm`. Grid ``(ceil(n / tile_n), ceil(m / 128), split_k)``, block 128 threads; partial sums
    as for `tiled_csl.make_tiled_csl_kernel`. The host has checked: n a multiple of 8, pointers 16-byte aligned, no
    split without a tile, no strip above ``capacity``.
    """
    activation_bytes = activation_tile_bytes(tile_n)
    mask_bytes = mask_bytes_of(width)
    strip_bytes = mask_bytes + 2 * capacity
    bytes_per_stage = stage_bytes(tile_n, capacity, width)
    multiply = multiply_strip if width == 1 else multiply_strip_of_pairs
    ahead = STAGES - 1

    def bitmap_kernel(masks, values, offsets, x, out, m, k, n, k_tiles_per_split, as_fp32):  # type: ignore[no-untyped-def]
        thread = int32(cuda.threadIdx.x)
        warp = int32(thread >> 5)
        lane = int32(thread & 31)
        split = int32(cuda.blockIdx.z)
        first_column = int32(cuda.blockIdx.x * tile_n)
        first_row = int32(cuda.blockIdx.y * TILE_M + warp * ROWS_PER_WARP)
        k_tiles = int32((k + TILE_K - 1) >> 6)
        first = int32(split * k_tiles_per_split)
        last = min(int32(first + k_tiles_per_split), k_tiles)
        # A warp below the matrix works on the last strips instead; `store_tile` drops its result.
        strip_row = min(first_row, int32(m - 1)) >> 5
        strip = int64(strip_row * k_tiles) + first
        masks += strip * mask_bytes + lane * 16
        values += lane * 16
        offsets += strip * 4
        begin = int32(ptx.load_u32(offsets))
        end = int32(ptx.load_u32(offsets + 4))
        ring = int32(ptx.dynamic_shared())
        ring_end = int32(ring + STAGES * bytes_per_stage)
        own = int32(activation_bytes + warp * strip_bytes)  # this warp's part of a stage
        own_place = int32(own + lane * 16)

        accumulators = cuda.local.array(tile_n, float32)
        for i in range(tile_n):
            accumulators[i] = float32(0)

        # Step t multiplies tile t and fetches tile t + 2; the steps before `first` only fetch.
        this_stage = int32(ring + bytes_per_stage)
        next_stage = ring
        for tile in range(int32(first - ahead), last):
            if tile >= first:
                ptx.cp_async_wait_1()
                cuda.syncthreads()  # tile t is complete for all, and nobody reads tile t - 1 any more
            next_tile = int32(tile + ahead)
            if next_tile < last:
                fetch_strip(next_stage + own_place, masks, values, begin, end, lane, capacity, mask_bytes)
                fetch_activations(next_stage, x, next_tile, first_column, k, n, thread, tile_n)
                begin = end
                end = int32(ptx.load_u32(offsets + 8))
                offsets += 4
                masks += mask_bytes
            ptx.cp_async_commit()
            if tile >= first:
                multiply(accumulators, this_stage, this_stage + own, lane, tile_n)
            this_stage = int32(this_stage + bytes_per_stage)
            next_stage = int32(next_stage + bytes_per_stage)
            if this_stage == ring_end:
                this_stage = ring
            if next_stage == ring_end:
                next_stage = ring

        partial = out + int64(split) * m * n * 4
        store_tile(partial, accumulators, first_row, first_column, m, n, lane, tile_n, as_fp32)

    return bitmap_kernel
