"""Vector operations of the CPU kernels."""

import numpy as np

from kernels_numba.cpu import simd
from kernels_numba.jit import serial


def test_widening_is_exact_for_every_half():
    bits = np.arange(65536, dtype=np.uint16)
    wide = np.empty(65536, np.float32)

    @serial
    def widen(source, out):
        for i in range(source.size):
            out[i] = simd.half_to_float(source[i])

    widen(bits, wide)
    np.testing.assert_array_equal(wide.view(np.uint32), bits.view(np.float16).astype(np.float32).view(np.uint32))
