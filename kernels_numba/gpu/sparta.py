"""A SparTA-type kernel: the 2:4 part of an unstructured matrix on the Sparse Tensor Cores, the rest on the CUDA cores.

What does hardware sparsity give an unstructured matrix? Two of each four weights fit the pattern the Tensor Cores skip
by; what is left over goes to a CSR product. The 2:4 kernel here moves 1.125 bytes a weight at every sparsity and does
half of the dense multiplications; `csr` then makes one more slice of partial sums, and `reduce` adds all slices
in a fixed order. So the result does not depend on timing, and no atomics are needed.

The pipeline is that of `dense`, a ring of asynchronous copies; a tile is half as large, so the ring is one longer.

References
----------
Zheng et al., "SparTA", OSDI 2022 (the split); NVIDIA, "PTX ISA 9.0", section on ``mma.sp`` (fragments and metadata).
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types, uint32

from kernels_numba.formats.two_four_tiles import TILE_BYTES, VALUE_BYTES
from kernels_numba.gpu import ptx
from kernels_numba.gpu.stages import (
    MAX_FRAGMENTS,
    ROWS_PER_WARP,
    THREADS,
    TILE_K,
    TILE_M,
    activation_tile_bytes,
    device_function,
    fetch_activations,
    load_activation_fragments,
    store_tile,
)

STAGES = 4
ROW_BYTES = 64  # 32 kept values
SIGNATURE = types.void(*[types.int64] * 3, *[types.int32] * 5)
# Blocks that shared memory lets onto a Hopper SM; registers must allow as many.
BLOCKS_PER_SM = {8: 5, 16: 5, 32: 4, 64: 3}


def shared_bytes(tile_n: int) -> int:
    """Dynamic shared memory of one block: a ring of packed A tiles and X tiles."""
    return STAGES * (TILE_BYTES + activation_tile_bytes(tile_n))


@device_function
def fetch_packed_tile(a_tile, source, thread):  # type: ignore[no-untyped-def]
    """Start the asynchronous copy of one packed tile, which lies in memory as it will lie in shared memory."""
    chunks = TILE_BYTES // 16
    for i in range((chunks + THREADS - 1) // THREADS):
        index = int32(thread + i * THREADS)
        if index < chunks:
            ptx.cp_async_16(a_tile + index * 16, source + int64(index) * 16, 16)


@device_function
def multiply_sparse_step(accumulators, a_tile, x_tile, step, upper, lower, warp, lane, tile_n):  # type: ignore[no-untyped-def]
    """Add the product of 32 columns of the 2:4 tile; ``upper`` and ``lower`` are the metadata of the 16-row halves."""
    first = cuda.local.array(MAX_FRAGMENTS, uint32)
    second = cuda.local.array(MAX_FRAGMENTS, uint32)
    load_activation_fragments(first, x_tile, 2 * step, lane, tile_n)
    load_activation_fragments(second, x_tile, 2 * step + 1, lane, tile_n)
    row = int32(warp * ROWS_PER_WARP + (lane & 15))
    place = int32(a_tile + row * ROW_BYTES + ((step * 2 + (lane >> 4)) ^ ((row >> 1) & 3)) * 16)
    for half in range(2):
        metadata = upper if half == 0 else lower
        a = ptx.ldmatrix_x4(place + half * (16 * ROW_BYTES))
        for group in range(tile_n // 8):
            i = (half * (tile_n // 8) + group) * 4
            d = ptx.mma_sp_m16n8k32(
                a[0], a[1], a[2], a[3],
                first[2 * group], first[2 * group + 1], second[2 * group], second[2 * group + 1],
                accumulators[i], accumulators[i + 1], accumulators[i + 2], accumulators[i + 3], metadata,
            )  # fmt: skip
            accumulators[i] = d[0]
            accumulators[i + 1] = d[1]
            accumulators[i + 2] = d[2]
            accumulators[i + 3] = d[3]


@device_function
def multiply_two_four(accumulators, a_tile, x_tile, warp, lane, tile_n):  # type: ignore[no-untyped-def]
    """Add (32 rows of the 2:4 tile) @ (X tile) to this warp's accumulators on the Sparse Tensor Cores.

    ``accumulators`` as in `stages.multiply_tile`. ``mma.sp`` reads the metadata of lanes 4 g and 4 g + 1 only; the
    other two of four hold the same words. The steps are written out, so that the compiler need not decide to unroll.
    """
    provider = int32((lane >> 2) * 2 + (lane & 1))
    m = ptx.shared_load_v4(a_tile + VALUE_BYTES + (warp * 16 + provider) * 16)
    multiply_sparse_step(accumulators, a_tile, x_tile, 0, m[0], m[1], warp, lane, tile_n)
    multiply_sparse_step(accumulators, a_tile, x_tile, 1, m[2], m[3], warp, lane, tile_n)


def make_two_four_kernel(tile_n: int) -> Any:
    """Kernel of the 2:4 part for ``tile_n`` output columns per block.

    Equivalent to `reference.spmm` of a weight without residual. Grid ``(ceil(n / tile_n), ceil(m / 128), split_k)``,
    block 128 threads; partial sums and host checks as for `tiled_csl.make_tiled_csl_kernel`.
    """
    stage_bytes = TILE_BYTES + activation_tile_bytes(tile_n)
    ahead = STAGES - 1

    def two_four_kernel(tiles, x, out, m, k, n, k_tiles_per_split, as_fp32):  # type: ignore[no-untyped-def]
        thread = int32(cuda.threadIdx.x)
        warp = int32(thread >> 5)
        lane = int32(thread & 31)
        split = int32(cuda.blockIdx.z)
        first_column = int32(cuda.blockIdx.x * tile_n)
        k_tiles = int32((k + TILE_K - 1) >> 6)
        first = int32(split * k_tiles_per_split)
        last = min(int32(first + k_tiles_per_split), k_tiles)
        source = tiles + (int64(cuda.blockIdx.y) * k_tiles + first) * TILE_BYTES
        ring = int32(ptx.dynamic_shared())
        ring_end = int32(ring + STAGES * stage_bytes)

        accumulators = cuda.local.array(tile_n, float32)
        for i in range(tile_n):
            accumulators[i] = float32(0)

        # Step t multiplies tile t and fetches tile t + 3; the steps before `first` only fetch.
        this_stage = int32(ring + stage_bytes)
        next_stage = ring
        for tile in range(int32(first - ahead), last):
            if tile >= first:
                ptx.cp_async_wait_2()
                cuda.syncthreads()  # tile t is complete for all, and nobody reads tile t - 1 any more
            next_tile = int32(tile + ahead)
            if next_tile < last:
                fetch_packed_tile(next_stage, source, thread)
                fetch_activations(next_stage + TILE_BYTES, x, next_tile, first_column, k, n, thread, tile_n)
            ptx.cp_async_commit()
            source += TILE_BYTES
            if tile >= first:
                multiply_two_four(accumulators, this_stage, this_stage + TILE_BYTES, warp, lane, tile_n)
            this_stage = int32(this_stage + stage_bytes)
            next_stage = int32(next_stage + stage_bytes)
            if this_stage == ring_end:
                this_stage = ring
            if next_stage == ring_end:
                next_stage = ring

        partial = out + int64(split) * m * n * 4
        first_row = int32(cuda.blockIdx.y * TILE_M + warp * ROWS_PER_WARP)
        store_tile(partial, accumulators, first_row, first_column, m, n, lane, tile_n, as_fp32)

    return two_four_kernel
