"""A CSR kernel for the plain CUDA cores, in the manner of Sputnik: one warp a row, vector loads of X, fp32 sums.

What does unstructured sparsity cost without Tensor Cores? Every non-zero makes a lane read 8 activations (16 bytes)
through L1 and L2, so this kernel is bound by cache traffic, not by device memory. A warp owns one row of the output and
``tile_n`` of its columns: ``tile_n / 8`` lanes lie across the columns, and the others take further non-zeros of the
row; their sums meet by shuffles at the end.

References
----------
Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020, section V. Its row swizzle and its staging of the sparse
row in shared memory are left out.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types

from kernels_numba.gpu import ptx
from kernels_numba.gpu.stages import WARP_SIZE, device_function

THREADS = 128
ROWS_PER_BLOCK = THREADS // WARP_SIZE
COLUMNS_PER_LANE = 8
BLOCKS_PER_SM = 10
SIGNATURE = types.void(*[types.int64] * 5, *[types.int32] * 3)


@device_function
def add_products(sums, value, packed, pair):  # type: ignore[no-untyped-def]
    """Add ``value`` times the two activations in ``packed`` to the sums of column pair ``pair``."""
    sums[2 * pair] += value * ptx.low_half(packed)
    sums[2 * pair + 1] += value * ptx.high_half(packed)


@device_function
def store_row(out, sums, place, as_fp32):  # type: ignore[no-untyped-def]
    """Write 8 neighbouring outputs as float32 or fp16."""
    if as_fp32:
        ptx.store_f32x4(out + place * 4, sums[0], sums[1], sums[2], sums[3])
        ptx.store_f32x4(out + place * 4 + 16, sums[4], sums[5], sums[6], sums[7])
    else:
        ptx.store_u32x2(out + place * 2, ptx.pack_f16x2(sums[1], sums[0]), ptx.pack_f16x2(sums[3], sums[2]))
        ptx.store_u32x2(out + place * 2 + 8, ptx.pack_f16x2(sums[5], sums[4]), ptx.pack_f16x2(sums[7], sums[6]))


def make_csr_kernel(tile_n: int, index_bits: int) -> Any:
    """Kernel for ``tile_n`` output columns per warp and 16- or 32-bit column indices.

    Equivalent to `reference.spmm`. Grid ``(ceil(m / 4), ceil(n / tile_n))``, block 128 threads. The host has checked:
    n a multiple of 8, pointers 16-byte aligned, column indices below k.
    """
    lanes_across = tile_n // COLUMNS_PER_LANE
    nonzeros_at_once = WARP_SIZE // lanes_across
    log_lanes_across = lanes_across.bit_length() - 1
    n_shuffles = nonzeros_at_once.bit_length() - 1
    wide_index = index_bits == 32

    def csr_kernel(row_ptr, col_idx, values, x, out, m, n, as_fp32):  # type: ignore[no-untyped-def]
        lane = int32(cuda.threadIdx.x & 31)
        row = int32(cuda.blockIdx.x * ROWS_PER_BLOCK + (cuda.threadIdx.x >> 5))
        column = int32(cuda.blockIdx.y * tile_n + (lane & (lanes_across - 1)) * COLUMNS_PER_LANE)
        sums = cuda.local.array(COLUMNS_PER_LANE, float32)
        for i in range(COLUMNS_PER_LANE):
            sums[i] = float32(0)
        if row < m:
            start = int32(ptx.load_u32(row_ptr + int64(row) * 4))
            stop = int32(ptx.load_u32(row_ptr + int64(row) * 4 + 4))
            if column >= n:
                stop = start
            for index in range(int32(start + (lane >> log_lanes_across)), stop, nonzeros_at_once):
                if wide_index:
                    x_row = int64(ptx.load_u32(col_idx + int64(index) * 4))
                else:
                    x_row = int64(ptx.load_u16(col_idx + int64(index) * 2))
                value = ptx.low_half(ptx.load_u16(values + int64(index) * 2))
                packed = ptx.load_v4(x + (x_row * n + column) * 2)
                add_products(sums, value, packed[0], 0)
                add_products(sums, value, packed[1], 1)
                add_products(sums, value, packed[2], 2)
                add_products(sums, value, packed[3], 3)
        for i in range(n_shuffles):
            for j in range(COLUMNS_PER_LANE):
                sums[j] += ptx.shuffle_xor(sums[j], lanes_across << i)
        if row < m and column < n and lane < lanes_across:
            store_row(out, sums, int64(row) * n + column, as_fp32)

    return csr_kernel
