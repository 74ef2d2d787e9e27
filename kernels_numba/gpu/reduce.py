"""Split-K's second half: add up the partial sums of the blocks that shared K.

Why a second kernel? Blocks of one launch finish in any order; adding in a fixed order keeps the result reproducible.
The partial sums are float32, so that splitting costs no accuracy.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, int64, types

from kernels_numba.gpu import ptx

THREADS = 128
OUTPUTS_PER_THREAD = 4
BLOCKS_PER_SM = 8
SIGNATURE = types.void(types.int64, types.int64, types.int64, types.int32, types.int32)


def make_reduce_kernel() -> Any:
    """Kernel that adds ``split_k`` partial results.

    Grid ``ceil(outputs / 512)``, block 128 threads; a thread owns 4 neighbouring outputs. ``outputs`` = m * n is a
    multiple of 4, because n is one of 8.
    """

    def reduce_kernel(partials, out, outputs, split_k, as_fp32):  # type: ignore[no-untyped-def]
        thread = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        first = thread * OUTPUTS_PER_THREAD
        if first < outputs:
            s0 = float32(0)
            s1 = float32(0)
            s2 = float32(0)
            s3 = float32(0)
            for split in range(int32(split_k)):
                p = ptx.load_f32x4(partials + (split * outputs + first) * 4)
                s0 += p[0]
                s1 += p[1]
                s2 += p[2]
                s3 += p[3]
            if as_fp32:
                ptx.store_f32x4(out + first * 4, s0, s1, s2, s3)
            else:
                ptx.store_u32x2(out + first * 2, ptx.pack_f16x2(s1, s0), ptx.pack_f16x2(s3, s2))

    return reduce_kernel
