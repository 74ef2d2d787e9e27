"""The kernel of records on Hopper and newer: every warp streams its own strips by bulk copies, X stays where it is.

`ring` copies a tile of X with every tile of weights, four warps wait for each other at every step, and 128 threads
issue the copies. Here one lane of a warp asks for a whole record at a time, into the warp's own ring of `STAGES`
buffers, each with a barrier that counts bytes; the slice of X that all warps of a block read is loaded once. No step
of the main loop waits for another warp.

K is cut into as many slices as make one slice of X fit beside the rings. The strips of a slice stand in one list, row
of strips after row of strips, and each warp of the slice takes an equal stretch. What is not a whole row ends in a
workspace: the sum of row r by warp w at place r + w of its slice, which no other pair has, because from one piece of
the list to the next r or w grows. When all warps of a block are through, those of the last slice complete the rows that
end in their stretches: they add the pieces in the order of k, waiting for lower blocks only, and lower their flags.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types

from kernels_numba.gpu import ptx
from kernels_numba.gpu.decoders import DECODERS
from kernels_numba.gpu.share import first_of, owner_of
from kernels_numba.gpu.stages import TILE_K, WARP_SIZE, activation_tile_bytes, device_function, panel_key, store_tile

STAGES = 3
WARPS = {8: 16, 16: 16, 32: 12, 64: 8}  # of a block, by columns: what their registers leave room for
STRIP_M = 32
SIGNATURE = types.void(*[types.int64] * 6, *[types.int32] * 6)


def shared_bytes(tile_n: int, capacity: int, k_tiles: int) -> int:
    """Dynamic shared memory of one block: barriers, a slice of X of ``k_tiles`` tiles, and the warps' rings."""
    warps = WARPS[tile_n]
    return barrier_bytes(warps) + k_tiles * activation_tile_bytes(tile_n) + warps * STAGES * capacity


def barrier_bytes(warps: int) -> int:
    """Bytes of the barriers, rounded up to what panels of X are aligned to."""
    return -(-warps * STAGES * 8 // 128) * 128


@device_function
def load_slice(x_slice, x, first_tile, tiles, first_column, k, n, thread, threads, tile_n):  # type: ignore[no-untyped-def]
    """Copy a slice of X into panels of 8 columns, tile by tile as `ring.fetch_panels` does, and wait for it."""
    panels = tile_n // 8
    for index in range(int32(thread), int32(tiles * (TILE_K * panels)), threads):
        panel = int32(index & (panels - 1))
        row = int32(index // panels)
        x_row = int32(first_tile * TILE_K + row)
        column = int32(first_column + panel * 8)
        n_bytes = 16 if x_row < k and column < n else 0
        tile = int32(x_slice + (row >> 6) * (TILE_K * tile_n * 2))
        place = int32(tile + panel * (TILE_K * 16) + int32((row & 63) ^ panel_key(panel, tile_n)) * 16)
        ptx.cp_async_16(place, x + (int64(x_row) * n + column) * 2, n_bytes)
    ptx.cp_async_commit()
    ptx.cp_async_wait_0()
    cuda.syncthreads()


@device_function
def request(stage, barrier, records, begin, end, policy):  # type: ignore[no-untyped-def]
    """Let one lane ask for a record, units of 16 bytes from ``begin`` to ``end``, and say how many bytes to expect."""
    if ptx.elected() != 0:
        size = int32(int32(end - begin) * 16)
        ptx.barrier_expect(barrier, size)
        ptx.bulk_copy(stage, records + int64(begin) * 16, size, barrier, policy)


@device_function
def leave_piece(sums, flags, accumulators, place, lane, n_accumulators):  # type: ignore[no-untyped-def]
    """Store a warp's sums at a place of the workspace and raise its flag."""
    at = sums + (int64(place) * (WARP_SIZE * n_accumulators) + lane * 4) * 4
    for i in range(n_accumulators // 4):
        ptx.store_f32x4(
            at + i * (WARP_SIZE * 16),
            accumulators[4 * i], accumulators[4 * i + 1], accumulators[4 * i + 2], accumulators[4 * i + 3],
        )  # fmt: skip
    ptx.sync_warp()
    if lane == 0:
        ptx.release_u32(flags + int64(place) * 4, 1)


@device_function
def add_piece(sums, flags, accumulators, place, lane, n_accumulators):  # type: ignore[no-untyped-def]
    """Wait for the sums at a place, add them, and lower its flag."""
    flag = flags + int64(place) * 4
    while ptx.acquire_u32(flag) == 0:
        pass
    at = sums + (int64(place) * (WARP_SIZE * n_accumulators) + lane * 4) * 4
    for i in range(n_accumulators // 4):
        p = ptx.read_f32x4(at + i * (WARP_SIZE * 16))
        accumulators[4 * i] += p[0]
        accumulators[4 * i + 1] += p[1]
        accumulators[4 * i + 2] += p[2]
        accumulators[4 * i + 3] += p[3]
    ptx.sync_warp()
    if lane == 0:
        ptx.store_u32(flag, 0)


def make_bulk_kernel(tile_n: int, decoder: str) -> Any:
    """Kernel for ``tile_n`` output columns per block.

    Equivalent to `reference.spmm`. Grid ``(ceil(n / tile_n), blocks, slices)``, block ``32 * WARPS[tile_n]`` threads;
    slice z of K has ``tiles_per_slice`` tiles of 64, the last one what is left. The host has checked what it checks for
    `ring.make_ring_kernel`, and that the slice of X and the rings fit. Sums are (columns, slices, strips_m + warps of a
    slice, 32 * tile_n) float32, flags one for each place, all zero.

    Parameters
    ----------
    decoder : as for `ring.make_ring_kernel`.
    """
    multiply, warps = DECODERS[decoder], WARPS[tile_n]
    threads = warps * WARP_SIZE
    tile_bytes = activation_tile_bytes(tile_n)
    x_offset = barrier_bytes(warps)

    def bulk_kernel(  # type: ignore[no-untyped-def]
        records, offsets, x, out, sums, flags, m, k, n, capacity, tiles_per_slice, as_fp32
    ):
        thread = int32(cuda.threadIdx.x)
        lane = int32(thread & 31)
        warp = int32(cuda.blockIdx.y * warps + (thread >> 5))  # of the slice
        n_warps = int32(cuda.gridDim.y * warps)
        first_column = int32(cuda.blockIdx.x * tile_n)
        k_tiles = int32((k + TILE_K - 1) >> 6)
        rows = int32((m + STRIP_M - 1) >> 5)
        first_tile = int32(cuda.blockIdx.z * tiles_per_slice)
        slice_tiles = min(int32(tiles_per_slice), int32(k_tiles - first_tile))
        places = int32(rows + n_warps)
        column_places = int32(cuda.blockIdx.x * cuda.gridDim.z * places)
        sums += int64(column_places) * (STRIP_M * tile_n * 4)
        flags += int64(column_places) * 4

        strips = int32(rows * slice_tiles)
        per_warp = int32(ptx.divide(strips, n_warps))
        extra = int32(strips - per_warp * n_warps)
        first = first_of(warp, per_warp, extra)
        end_of_strips = first_of(int32(warp + 1), per_warp, extra)
        row = int32(ptx.divide(first, slice_tiles))
        tile = int32(first - row * slice_tiles)

        barriers = int32(ptx.dynamic_shared() + (thread >> 5) * (STAGES * 8))
        x_slice = int32(ptx.hold(ptx.dynamic_shared() + x_offset))
        ring = int32(x_slice + tiles_per_slice * tile_bytes + (thread >> 5) * (STAGES * capacity))
        ring_end = int32(ring + STAGES * capacity)
        if lane == 0:
            for i in range(STAGES):
                ptx.barrier_init(int32(barriers + i * 8), 1)
            ptx.barrier_init_visible()
        ptx.sync_warp()

        policy = ptx.evict_first()
        # A warp without strips reads where the list begins: behind its end there is room for no slice but the first.
        offsets += (int64(row) * k_tiles + first_tile + tile) * 4 if first < end_of_strips else int64(0)
        begin = int32(ptx.load_u32(offsets))
        end = int32(ptx.load_u32(offsets + 4))
        to_request = int32(end_of_strips - first)
        tiles_left = int32(slice_tiles - tile)
        for i in range(STAGES):
            if to_request > 0:
                request(int32(ring + i * capacity), int32(barriers + i * 8), records, begin, end, policy)
                offsets, begin, end, tiles_left = next_record(
                    offsets, begin, end, tiles_left, slice_tiles, k_tiles, to_request
                )
            to_request = int32(to_request - 1)
        load_slice(x_slice, x, first_tile, slice_tiles, first_column, k, n, thread, threads, tile_n)

        accumulators = cuda.local.array(tile_n, float32)
        for i in range(tile_n):
            accumulators[i] = float32(0)
        lane_word = int32(ptx.hold(lane * 4))
        stage, barrier, parity = ring, barriers, int32(0)
        strip = first
        while strip < end_of_strips:
            starts_row = tile == 0
            stop = int32(ptx.hold(min(end_of_strips, int32(row * slice_tiles + slice_tiles))))
            x_tile = int32(x_slice + tile * tile_bytes)
            while strip < stop:
                ptx.barrier_wait(barrier, parity)
                multiply(accumulators, x_tile, stage, lane_word, tile_n)
                ptx.sync_warp()  # all lanes have read the record
                if to_request > 0:
                    request(stage, barrier, records, begin, end, policy)
                    offsets, begin, end, tiles_left = next_record(
                        offsets, begin, end, tiles_left, slice_tiles, k_tiles, to_request
                    )
                to_request = int32(to_request - 1)
                x_tile = int32(x_tile + tile_bytes)
                stage = int32(stage + capacity)
                barrier = int32(barrier + 8)
                if stage == ring_end:
                    stage, barrier, parity = ring, barriers, int32(parity ^ 1)
                strip = int32(ptx.add_no_unroll(strip, 1))
            if starts_row and cuda.gridDim.z == 1 and stop == int32(row * slice_tiles + slice_tiles):
                store_tile(out, accumulators, int32(row * STRIP_M), first_column, m, n, lane, tile_n, as_fp32)
            else:
                place = int32(cuda.blockIdx.z * places + row + warp)
                leave_piece(sums, flags, accumulators, place, lane, tile_n)
            for i in range(tile_n):
                accumulators[i] = float32(0)
            row = int32(row + 1)
            tile = int32(0)

        cuda.syncthreads()
        if cuda.blockIdx.z == cuda.gridDim.z - 1:
            row = int32(ptx.divide(first, slice_tiles))
            while int32(row * slice_tiles + slice_tiles) <= end_of_strips and first < end_of_strips:
                if cuda.gridDim.z > 1 or int32(row * slice_tiles) < first:
                    for z in range(cuda.gridDim.z):
                        z_tiles = min(int32(tiles_per_slice), int32(k_tiles - z * tiles_per_slice))
                        z_strips = int32(rows * z_tiles)
                        z_per_warp = int32(ptx.divide(z_strips, n_warps))
                        z_extra = int32(z_strips - z_per_warp * n_warps)
                        piece = owner_of(int32(row * z_tiles), z_per_warp, z_extra)
                        last_piece = owner_of(int32(row * z_tiles + z_tiles - 1), z_per_warp, z_extra)
                        while piece <= last_piece:
                            add_piece(sums, flags, accumulators, int32(z * places + row + piece), lane, tile_n)
                            piece = int32(ptx.add_no_unroll(piece, 1))
                    store_tile(out, accumulators, int32(row * STRIP_M), first_column, m, n, lane, tile_n, as_fp32)
                    for i in range(tile_n):
                        accumulators[i] = float32(0)
                row = int32(ptx.add_no_unroll(row, 1))

    return bulk_kernel


@device_function
def next_record(offsets, begin, end, tiles_left, slice_tiles, k_tiles, to_request):  # type: ignore[no-untyped-def]
    """Where the record after this one of the list lies: the next of its row, or the first of the next row's slice."""
    tiles_left = int32(tiles_left - 1)
    begin = end
    offsets += 4
    if tiles_left == 0:
        tiles_left = slice_tiles
        offsets += int64(k_tiles - slice_tiles) * 4 if to_request > 1 else -int64(4)  # if there is one
        begin = int32(ptx.load_u32(offsets))
    end = int32(ptx.load_u32(offsets + 4))
    return offsets, begin, end, tiles_left
