"""The paper's kernel: load the weights sparse, compute dense on Tensor Cores, with two levels of overlap.

How can an unstructured-sparse matrix use Tensor Cores, which only multiply dense tiles? The weights cross device
memory as 4-byte words (value and place in the tile), wait in registers, and are scattered into a zeroed dense tile in
shared memory, from where `multiply_tile` reads them as if they had always been dense. Only bytes are saved, not
multiplications: that is what a skinny product needs, because device memory is its bottleneck.

One thread block owns 128 rows x ``tile_n`` columns of the output and ``k_tiles_per_split`` tiles of 64 along k. Two
buffers of shared memory alternate; while the Tensor Cores work on tile t, tile t + 1 is prepared::

    clear A(t+1)   start copy of X(t+1)   |  multiply tile t
    barrier                                  (A(t+1) is zero everywhere, nobody reads tile t any more)
    scatter words(t+1) from registers        start loading words(t+2) into the registers just freed
    barrier                                  (tile t+1 is complete)

Loading starts one stage earlier than in the paper, right after the scatter has freed the registers, so that a block
waits for device memory during the whole multiplication. Rows of 128 instead of the paper's 256 halve the shared memory
of a block: more blocks fit an SM, and they cover each other's waits.

References
----------
Xia et al., "Flash-LLM", PVLDB 17(2), 2023, section 4 (the pipeline, the format and its reordering).
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types, uint32

from kernels_numba.gpu import ptx
from kernels_numba.gpu.stages import (
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

WORDS_PER_VECTOR = 4
SIGNATURE = types.void(*[types.int64] * 4, *[types.int32] * 5)
# Blocks that shared memory lets onto a Hopper SM; registers must allow as many (80, 80, 96, 128 a thread).
BLOCKS_PER_SM = {8: 6, 16: 6, 32: 5, 64: 4}


def shared_bytes(tile_n: int) -> int:
    """Dynamic shared memory of one block: two buffers of an A tile and an X tile."""
    return 2 * (A_TILE_BYTES + activation_tile_bytes(tile_n))


@device_function
def load_sparse_words(held, words, begin, count, thread, vectors):  # type: ignore[no-untyped-def]
    """Start loading a tile's words from device memory into registers, 16 bytes a thread and step.

    ``held`` (4 * vectors,) uint32 per thread; the tile is ``count`` vectors from vector ``begin``. What does not fit is
    left to `scatter_overflow`.
    """
    source = words + (int64(begin) + thread) * 16
    for i in range(vectors):
        vector = ptx.stream_v4_if(source + i * (THREADS * 16), int32(thread + i * THREADS) < count)
        held[4 * i] = vector[0]
        held[4 * i + 1] = vector[1]
        held[4 * i + 2] = vector[2]
        held[4 * i + 3] = vector[3]


@device_function
def clear_tile(a_tile, thread):  # type: ignore[no-untyped-def]
    """Zero the dense A tile, 16 bytes a thread and step."""
    for i in range(A_TILE_BYTES // (16 * THREADS)):
        ptx.shared_zero_16(a_tile + (thread + i * THREADS) * 16)


@device_function
def scatter_words(a_tile, held, count, thread, vectors):  # type: ignore[no-untyped-def]
    """Store every held weight at its place in the zeroed A tile: here the sparse tile becomes dense.

    The encoder has ordered the words so that the 32 lanes of a warp hit different banks.
    """
    for i in range(vectors):
        if int32(thread + i * THREADS) < count:
            for e in range(WORDS_PER_VECTOR):
                ptx.shared_scatter_word(a_tile, held[i * WORDS_PER_VECTOR + e])


@device_function
def scatter_overflow(a_tile, words, begin, count, thread, vectors):  # type: ignore[no-untyped-def]
    """Load and scatter at once what the registers could not hold, so that every density is right."""
    index = int32(thread + vectors * THREADS)
    while index < count:
        vector = ptx.stream_v4(words + (int64(begin) + index) * 16)
        ptx.shared_scatter_word(a_tile, vector[0])
        ptx.shared_scatter_word(a_tile, vector[1])
        ptx.shared_scatter_word(a_tile, vector[2])
        ptx.shared_scatter_word(a_tile, vector[3])
        index = int32(ptx.add_no_unroll(index, THREADS))


def make_tiled_csl_kernel(tile_n: int, vectors: int) -> Any:
    """Kernel for ``tile_n`` output columns per block and ``vectors`` held vectors of 4 words per thread.

    Equivalent to `reference.spmm`. Grid ``(ceil(n / tile_n), ceil(m / 128), split_k)``, block 128 threads. With
    ``split_k > 1`` block z writes its partial sums at ``out + z * m * n`` (as_fp32 = 1) for `reduce` to add up.
    The host has checked: n a multiple of 8, pointers 16-byte aligned, no split without a tile.
    """
    n_held = vectors * WORDS_PER_VECTOR
    buffer_bytes = A_TILE_BYTES + activation_tile_bytes(tile_n)

    def tiled_csl_kernel(  # type: ignore[no-untyped-def]
        words, tile_offsets, x, out, m, k, n, k_tiles_per_split, as_fp32
    ):
        thread = int32(cuda.threadIdx.x)
        warp = int32(thread >> 5)
        lane = int32(thread & 31)
        split = int32(cuda.blockIdx.z)
        first_column = int32(cuda.blockIdx.x * tile_n)
        k_tiles = int32((k + TILE_K - 1) >> 6)
        first = int32(split * k_tiles_per_split)
        last = min(int32(first + k_tiles_per_split), k_tiles)
        offsets = tile_offsets + int64(cuda.blockIdx.y) * k_tiles * 4
        # Two buffers of an A tile followed by an X tile. They swap by name: an address computed from the tile's number
        # would be recomputed at every use, on sm_90 from a slow special register.
        next_buffer = int32(ptx.dynamic_shared())
        this_buffer = int32(next_buffer + buffer_bytes)

        held = cuda.local.array(n_held, uint32)
        accumulators = cuda.local.array(tile_n, float32)
        for i in range(tile_n):
            accumulators[i] = float32(0)

        begin = int32(ptx.load_u32(offsets + first * 4))
        end = int32(ptx.load_u32(offsets + first * 4 + 4))
        after = int32(ptx.load_u32(offsets + first * 4 + 8))
        count = int32(end - begin)
        load_sparse_words(held, words, begin, count, thread, vectors)
        # Step first - 1 only prepares tile `first`; step t multiplies tile t and prepares t + 1.
        for tile in range(int32(first - 1), last):
            next_tile = int32(tile + 1)
            if next_tile < last:
                clear_tile(next_buffer, thread)
                fetch_activations(next_buffer + A_TILE_BYTES, x, next_tile, first_column, k, n, thread, tile_n)
            ptx.cp_async_commit()
            if tile >= first:
                multiply_tile(accumulators, this_buffer, this_buffer + A_TILE_BYTES, warp, lane, tile_n)
            cuda.syncthreads()
            if next_tile < last:
                scatter_words(next_buffer, held, count, thread, vectors)
                scatter_overflow(next_buffer, words, begin, count, thread, vectors)
            if int32(tile + 2) < last:
                begin = end
                end = after
                after = int32(ptx.load_u32(offsets + int64(tile + 4) * 4))
                count = int32(end - begin)
                load_sparse_words(held, words, begin, count, thread, vectors)
            ptx.cp_async_wait_0()
            cuda.syncthreads()
            this_buffer, next_buffer = next_buffer, this_buffer

        partial = out + int64(split) * m * n * 4
        first_row = int32(cuda.blockIdx.y * TILE_M + warp * ROWS_PER_WARP)
        store_tile(partial, accumulators, first_row, first_column, m, n, lane, tile_n, as_fp32)

    return tiled_csl_kernel
