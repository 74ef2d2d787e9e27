"""The kernel of all formats that are decoded in registers: a ring of asynchronous copies, and blocks that share a list.

A block of 4 warps owns 128 rows x ``tile_n`` columns of the output while it walks along k; warp w owns the strips of
rows 32 w to 32 w + 31, each a *record* that is copied to shared memory as it stands and decoded from there
(`bitmap`, `condensed`). A ring of `STAGES` buffers keeps two tiles in flight while a third is decoded and multiplied;
one barrier a tile. At the end of a row of tiles the block goes on with the next without emptying the ring: `share`
says which tiles are its own and who completes a sum.

What a thread needs in every step is computed once and held (`ptx.hold`); the assembler would compute it again.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types

from kernels_numba.gpu import ptx
from kernels_numba.gpu.decoders import DECODERS
from kernels_numba.gpu.share import add_sums, leave_sums, own_stretch
from kernels_numba.gpu.stages import (
    ROWS_PER_WARP,
    THREADS,
    TILE_K,
    TILE_M,
    WARP_SIZE,
    activation_tile_bytes,
    device_function,
    panel_key,
    store_tile,
)

STAGES = 3
AHEAD = STAGES - 1
COPIES = 4  # of 16 bytes a lane and record, 2 KB; a longer record takes a loop
WARPS = THREADS // WARP_SIZE
SIGNATURE = types.void(*[types.int64] * 6, *[types.int32] * 5)
NEVER = -(1 << 30)  # rows left for a thread whose columns lie beyond the output: it copies zeros


def shared_bytes(tile_n: int, capacity: int) -> int:
    """Dynamic shared memory of one block: a ring of stages of an X tile and 4 records of at most ``capacity`` bytes."""
    return STAGES * (activation_tile_bytes(tile_n) + WARPS * capacity)


@device_function
def fetch_record(place, records, begin, end, lane_word):  # type: ignore[no-untyped-def]
    """Start this warp's copy of a record to ``place``, units of 16 bytes from ``begin`` to ``end``."""
    left = int32(int32(end - begin) * 4 - lane_word)  # counted in words, as ``lane_word`` counts lanes
    source = records + (int64(begin) * 16 + lane_word * 4)
    place = int32(place + lane_word * 4)
    for i in range(COPIES):
        ptx.cp_async_16_if(place + i * (WARP_SIZE * 16), source + i * (WARP_SIZE * 16), left > i * (WARP_SIZE * 4))
    left = int32(left - COPIES * (WARP_SIZE * 4))
    while ptx.any_lane(left > 0) != 0:
        place, source = int32(place + COPIES * (WARP_SIZE * 16)), source + COPIES * (WARP_SIZE * 16)
        for i in range(COPIES):
            ptx.cp_async_16_if(place + i * (WARP_SIZE * 16), source + i * (WARP_SIZE * 16), left > i * (WARP_SIZE * 4))
        left = int32(left - COPIES * (WARP_SIZE * 4))


@device_function
def fetch_panels(place, source, left, n, thread, tile_n):  # type: ignore[no-untyped-def]
    """Start the copy of an X tile, in panels of 8 columns: row r of panel p lies at ``1024 p + 16 (r ^ panel_key(p))``.

    ``place`` and ``source`` belong to this thread's first row and panel, ``left`` says how many rows of X there are
    from its row on; rows beyond become zeros.
    """
    chunks = TILE_K * tile_n // 8
    rows = THREADS * 8 // tile_n  # between a thread's chunks
    for i in range((chunks + THREADS - 1) // THREADS):
        if chunks >= THREADS or thread < chunks:  # the narrowest tile has only 64 chunks
            n_bytes = 16 if left > i * rows else 0
            ptx.cp_async_16(place + i * (rows * 16), source + int64(n * (i * rows)) * 2, n_bytes)


def make_ring_kernel(tile_n: int, decoder: str) -> Any:
    """Kernel for ``tile_n`` output columns per block.

    Equivalent to `reference.spmm`. Grid ``(ceil(n / tile_n), blocks)``, at most a block per tile, block 128 threads.
    The host has checked: n a multiple of 8, pointers 16-byte aligned, k * n and the number of tiles below 2**31, no
    record above ``capacity`` bytes, a multiple of 128; flags all zero. Sums are (grid, 128 * tile_n) float32.

    Parameters
    ----------
    decoder : name in `DECODERS` of the device function ``(accumulators, x_tile, record, lane_word, tile_n)`` that adds
        a strip's product; ``lane_word`` is four times the lane's number.
    """
    multiply = DECODERS[decoder]
    activation_bytes = activation_tile_bytes(tile_n)
    log_panels = {8: 0, 16: 1, 32: 2, 64: 3}[tile_n]

    @device_function
    def fetch(stage, places, cursor, records, k_tiles, n, more):  # type: ignore[no-untyped-def]
        """Start the copies of the tile at ``cursor``; return the cursor of the next one, if there are ``more``."""
        record, lane_word, x_place = places
        offsets, begin, end, source, left, tiles_left = cursor
        fetch_record(int32(stage + record), records, begin, end, lane_word)
        fetch_panels(int32(stage + x_place), source, left, n, int32(cuda.threadIdx.x), tile_n)
        tiles_left = int32(tiles_left - 1)
        source += int64(n) * (TILE_K * 2)
        left = int32(left - TILE_K)
        begin = end
        offsets += 4
        if tiles_left == 0:  # of this row of tiles
            tiles_left = k_tiles
            source -= int64(n) * k_tiles * (TILE_K * 2)
            left = int32(left + k_tiles * TILE_K)
            offsets += int64(k_tiles) * ((WARPS - 1) * 4 if more else -4)  # without more to fetch, anywhere inside
            begin = int32(ptx.load_u32(offsets))
        end = int32(ptx.load_u32(offsets + 4))
        return offsets, begin, end, source, left, tiles_left

    def ring_kernel(records, offsets, x, out, sums, flags, m, k, n, capacity, as_fp32):  # type: ignore[no-untyped-def]
        thread = int32(cuda.threadIdx.x)
        warp = int32(thread >> 5)
        lane = int32(thread & 31)
        first_column = int32(cuda.blockIdx.x * tile_n)
        k_tiles = int32((k + TILE_K - 1) >> 6)
        tile, end_of_tiles = own_stretch(m, k_tiles)
        row_tile = int32(ptx.divide(tile, k_tiles))
        k_tile = int32(tile - row_tile * k_tiles)

        row = int32(thread >> log_panels)
        panel = int32(thread & (tile_n // 8 - 1))
        column = int32(first_column + panel * 8)
        x_place = int32(ptx.hold(panel * (TILE_K * 16) + (row ^ panel_key(panel, tile_n)) * 16))
        x_row = int32(k_tile * TILE_K + row)
        source = x + (int64(x_row) * n + column) * 2
        left = int32(k - x_row) if column < n else int32(NEVER)
        own_record = int32(ptx.hold(activation_bytes + warp * capacity))
        lane_word = int32(ptx.hold(lane * 4))
        offsets += ((int64(row_tile) * WARPS + warp) * k_tiles + k_tile) * 4
        begin = int32(ptx.load_u32(offsets))
        end = int32(ptx.load_u32(offsets + 4))
        # Where the next tile to fetch lies: its offset and units of records, this thread's first row of X and the rows
        # from it on, and the tiles of this row of tiles that are left.
        cursor = (offsets, begin, end, source, left, int32(k_tiles - k_tile))
        places = (own_record, lane_word, x_place)
        ring = int32(ptx.hold(ptx.dynamic_shared()))
        bytes_per_stage = int32(ptx.hold(activation_bytes + WARPS * capacity))
        ring_end = int32(ring + STAGES * bytes_per_stage)

        accumulators = cuda.local.array(tile_n, float32)
        for i in range(tile_n):
            accumulators[i] = float32(0)

        for i in range(AHEAD):
            if int32(tile + i) < end_of_tiles:
                more = int32(tile + i + 1) < end_of_tiles
                cursor = fetch(int32(ring + i * bytes_per_stage), places, cursor, records, k_tiles, n, more)
            ptx.cp_async_commit()
        this_stage = ring
        next_stage = int32(ring + AHEAD * bytes_per_stage)
        while tile < end_of_tiles:
            stop = int32(ptx.hold(min(end_of_tiles, int32(row_tile * k_tiles + k_tiles))))
            while tile < stop:
                ptx.cp_async_wait_1()
                cuda.syncthreads()  # this tile is complete for all, and nobody reads the one before any more
                if int32(tile + AHEAD) < end_of_tiles:
                    more = int32(tile + AHEAD + 1) < end_of_tiles
                    cursor = fetch(next_stage, places, cursor, records, k_tiles, n, more)
                ptx.cp_async_commit()
                multiply(accumulators, this_stage, int32(this_stage + own_record), lane_word, tile_n)
                next_stage = this_stage
                this_stage = int32(this_stage + bytes_per_stage)
                if this_stage == ring_end:
                    this_stage = ring
                tile = int32(tile + 1)
            if stop == int32(row_tile * k_tiles + k_tiles):
                add_sums(sums, flags, accumulators, int32(row_tile * k_tiles), m, k_tiles, THREADS, tile_n)
                first_row = int32(row_tile * TILE_M + warp * ROWS_PER_WARP)
                store_tile(out, accumulators, first_row, first_column, m, n, lane, tile_n, as_fp32)
                for i in range(tile_n):
                    accumulators[i] = float32(0)
                row_tile = int32(row_tile + 1)
            else:
                leave_sums(sums, flags, accumulators, THREADS, tile_n)

    return ring_kernel
