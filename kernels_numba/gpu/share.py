"""Shares of one long list of work: which tiles a thread block multiplies, and how sums that blocks share are completed.

How does a grid of as many blocks as run at once divide a product, with no wave half empty and no second launch? The
tiles of 128 x 64 weights stand in one list, row tile after row tile, each from k = 0 on, and every block takes an equal
stretch of it (Osama et al., "Stream-K", PPoPP 2023). A row of tiles that ends within a stretch is written by that
block; what it lacks, the row's first tiles, lies in the stretches of the blocks before. They leave their sums in a
workspace and raise a flag; the block waits for them in their order and adds in that order, so that the result does not
depend on timing.

A block waits for lower ones only. The blocks that a plan makes by itself all run at once unless other kernels keep SMs
busy; of more than that the lower ones must start first, as GPUs are known to do though CUDA does not promise it. What a
block leaves it releases at the GPU's scope behind a barrier of its threads, and who adds it has acquired the flag, so
that no older line of L1 is read; `ptx_emulator.publication` checks both.

A flag is lowered by the one block that waits for it: flags are zero before and after every launch.
"""

from __future__ import annotations

from numba import cuda, int32, int64

from kernels_numba.gpu import ptx
from kernels_numba.gpu.stages import TILE_M, device_function


@device_function
def first_of(block, per_block, extra):  # type: ignore[no-untyped-def]
    """First tile of a block's stretch: ``per_block`` tiles each, and one more for the first ``extra`` blocks."""
    return int32(block * per_block + min(block, extra))


@device_function
def owner_of(tile, per_block, extra):  # type: ignore[no-untyped-def]
    """Block in whose stretch a tile lies; the inverse of `first_of`."""
    longer = int32(extra * int32(per_block + 1))
    if tile < longer:
        found = int32(ptx.divide(tile, per_block + 1))
    else:
        found = int32(extra + int32(ptx.divide(tile - longer, per_block)))
    return found


@device_function
def stretch(m, k_tiles):  # type: ignore[no-untyped-def]
    """Tiles of every block, and how many blocks have one more; computed anew where asked for, which is rare."""
    tiles = int32(int32((m + TILE_M - 1) >> 7) * k_tiles)
    blocks = int32(ptx.blocks_y())
    per_block = int32(ptx.divide(tiles, blocks))
    return per_block, int32(tiles - per_block * blocks)


@device_function
def own_stretch(m, k_tiles):  # type: ignore[no-untyped-def]
    """First tile of this block's stretch, and the first beyond it."""
    per_block, extra = stretch(m, k_tiles)
    block = int32(ptx.block_y())
    first = first_of(block, per_block, extra)
    return first, int32(first + per_block + (1 if block < extra else 0))


@device_function
def leave_sums(sums, flags, accumulators, threads, n_accumulators):  # type: ignore[no-untyped-def]
    """Store this thread's accumulators in the block's part of the workspace, and raise its flag when all have."""
    thread = int32(ptx.thread_x())
    block = int64(ptx.block_x()) * int64(ptx.blocks_y()) + int64(ptx.block_y())
    place = sums + (block * (threads * n_accumulators) + thread * 4) * 4
    for i in range(n_accumulators // 4):
        ptx.store_f32x4(
            place + i * (threads * 16),
            accumulators[4 * i], accumulators[4 * i + 1], accumulators[4 * i + 2], accumulators[4 * i + 3],
        )  # fmt: skip
    cuda.syncthreads()
    if thread == 0:
        ptx.release_u32(flags + block * 4, 1)


@device_function
def add_sums(sums, flags, accumulators, row_begin, m, k_tiles, threads, n_accumulators):  # type: ignore[no-untyped-def]
    """Add what lower blocks have left of the row of tiles from ``row_begin`` on, in their order; lower their flags."""
    per_block, extra = stretch(m, k_tiles)
    block = int32(ptx.block_y())
    thread = int32(ptx.thread_x())
    if row_begin < first_of(block, per_block, extra):
        columns = int64(ptx.block_x()) * int64(ptx.blocks_y())
        other = owner_of(row_begin, per_block, extra)
        while other < block:
            flag = flags + (columns + other) * 4
            if thread == 0:
                while ptx.acquire_u32(flag) == 0:
                    pass
            cuda.syncthreads()
            place = sums + ((columns + other) * (threads * n_accumulators) + thread * 4) * 4
            for i in range(n_accumulators // 4):
                p = ptx.read_f32x4(place + i * (threads * 16))
                accumulators[4 * i] += p[0]
                accumulators[4 * i + 1] += p[1]
                accumulators[4 * i + 2] += p[2]
                accumulators[4 * i + 3] += p[3]
            cuda.syncthreads()
            if thread == 0:
                ptx.store_u32(flag, 0)
            other = int32(ptx.add_no_unroll(other, 1))
