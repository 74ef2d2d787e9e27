"""The fair baseline: a dense Tensor-Core product with the same tiles, the same multiplication and the same epilogue.

What would the paper's kernel cost if nothing were sparse? The weights come as they are, by asynchronous copies; only
`fetch_weights` differs from `tiled_csl`, which has its place taken by clear, load and scatter. A ring of `STAGES`
buffers keeps two tiles in flight while a third is multiplied, so that one barrier a tile is enough.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types

from kernels_numba.gpu import ptx
from kernels_numba.gpu.stages import (
    A_ROW_BYTES,
    A_TILE_BYTES,
    ROWS_PER_WARP,
    THREADS,
    TILE_K,
    TILE_M,
    activation_tile_bytes,
    device_function,
    fetch_activations,
    multiply_tile,
    store_tile,
)

STAGES = 3
SIGNATURE = types.void(*[types.int64] * 3, *[types.int32] * 5)
BLOCKS_PER_SM = {8: 4, 16: 4, 32: 3, 64: 3}


def shared_bytes(tile_n: int) -> int:
    """Dynamic shared memory of one block: a ring of A and X tiles."""
    return STAGES * (A_TILE_BYTES + activation_tile_bytes(tile_n))


@device_function
def fetch_weights(a_tile, a, tile, first_row, m, k, thread):  # type: ignore[no-untyped-def]
    """Start the asynchronous copy of the dense A tile; beyond row ``m`` or column ``k`` it becomes zero."""
    row_in_tile = int32(thread >> 3)
    chunk = int32(thread & 7)
    column = int32(tile * TILE_K + chunk * 8)
    place = int32(a_tile + row_in_tile * A_ROW_BYTES + (chunk ^ (row_in_tile & 7)) * 16)
    source = a + (int64(first_row + row_in_tile) * k + column) * 2
    rows_per_step = THREADS // 8
    for i in range(TILE_M // rows_per_step):
        row = int32(first_row + row_in_tile + i * rows_per_step)
        n_bytes = 16 if row < m and column < k else 0
        ptx.cp_async_16(place + i * (rows_per_step * A_ROW_BYTES), source, n_bytes)
        source += int64(k) * (rows_per_step * 2)


def make_dense_kernel(tile_n: int) -> Any:
    """Kernel for ``tile_n`` output columns per block.

    Equivalent to `reference.spmm`. Grid ``(ceil(n / tile_n), ceil(m / 128), split_k)``, block 128 threads; partial
    sums and host checks as for `tiled_csl.make_tiled_csl_kernel`, and k a multiple of 8.
    """
    activation_bytes = activation_tile_bytes(tile_n)
    stage_bytes = A_TILE_BYTES + activation_bytes
    ahead = STAGES - 1

    def dense_kernel(a, x, out, m, k, n, k_tiles_per_split, as_fp32):  # type: ignore[no-untyped-def]
        thread = int32(cuda.threadIdx.x)
        warp = int32(thread >> 5)
        lane = int32(thread & 31)
        split = int32(cuda.blockIdx.z)
        first_row = int32(cuda.blockIdx.y * TILE_M)
        first_column = int32(cuda.blockIdx.x * tile_n)
        first = int32(split * k_tiles_per_split)
        last = min(int32(first + k_tiles_per_split), int32((k + TILE_K - 1) >> 6))
        ring = int32(ptx.dynamic_shared())
        ring_end = int32(ring + STAGES * stage_bytes)

        accumulators = cuda.local.array(tile_n, float32)
        for i in range(tile_n):
            accumulators[i] = float32(0)

        # Step t multiplies tile t and fetches tile t + 2; the steps before `first` only fetch.
        this_stage = int32(ring + stage_bytes)
        next_stage = ring
        for tile in range(int32(first - ahead), last):
            if tile >= first:
                ptx.cp_async_wait_1()
                cuda.syncthreads()  # tile t is complete for all, and nobody reads tile t - 1 any more
            next_tile = int32(tile + ahead)
            if next_tile < last:
                fetch_weights(next_stage, a, next_tile, first_row, m, k, thread)
                fetch_activations(next_stage + A_TILE_BYTES, x, next_tile, first_column, k, n, thread, tile_n)
            ptx.cp_async_commit()
            if tile >= first:
                multiply_tile(accumulators, this_stage, this_stage + A_TILE_BYTES, warp, lane, tile_n)
            this_stage = int32(this_stage + stage_bytes)
            next_stage = int32(next_stage + stage_bytes)
            if this_stage == ring_end:
                this_stage = ring
            if next_stage == ring_end:
                next_stage = ring

        partial = out + int64(split) * m * n * 4
        row = int32(first_row + warp * ROWS_PER_WARP)
        store_tile(partial, accumulators, row, first_column, m, n, lane, tile_n, as_fp32)

    return dense_kernel
