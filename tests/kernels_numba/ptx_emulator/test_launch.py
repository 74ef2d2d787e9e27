"""Launches: the geometry that threads see, and what is refused."""

import numpy as np
import pytest

from kernels_numba.ptx_emulator import launch
from tests.kernels_numba.ptx_emulator.programs import module


def test_special_registers_of_a_three_dimensional_launch():
    body = """
        mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y;
        mov.u32 %r6, %ntid.x; mov.u32 %r7, %ntid.y; mov.u32 %r8, %nctaid.x;
        mad.lo.u32 %r9, %r3, %r7, %r2; mad.lo.u32 %r9, %r9, %r6, %r1;
        mad.lo.u32 %r10, %r5, %r8, %r4; mov.u32 %r11, %ntid.z; mul.lo.u32 %r12, %r6, %r7; mul.lo.u32 %r12, %r12, %r11;
        mad.lo.u32 %r13, %r10, %r12, %r9; ld.param.u64 %rd1, [p0]; mul.wide.u32 %rd2, %r13, 4; add.s64 %rd1, %rd1, %rd2;
        mov.u32 %r14, %laneid; mov.u32 %r15, %warpid; mad.lo.u32 %r16, %r15, 32, %r14; st.global.u32 [%rd1], %r16;"""
    out = np.full(6 * 60, 99, np.uint32)
    result = launch(module(body, "u64"), grid=(3, 2), block=(5, 4, 3), args=[out])
    assert out.reshape(6, 60).tolist() == [list(range(60))] * 6
    assert list(result.block_counters) == [(x, y, 0) for y in range(2) for x in range(3)]
    out[:] = 99
    launch(module(body, "u64"), grid=(3, 2), block=(5, 4, 3), args=[out], blocks=[(2, 1)])
    assert (out.reshape(6, 60) == 99).all(axis=1).tolist() == [True] * 5 + [False]


LAUNCH_ERRORS = [
    ({"args": []}, "0 arguments given; kernel k takes 2"),
    ({"args": [np.zeros(4), 2**40]}, "argument 1 is 1099511627776; parameter 1 is .u32 of 4 bytes"),
    ({"args": [np.zeros(4), 1.5]}, "argument 1 is 1.5; parameter 1 is .u32"),
    ({"args": [np.zeros((4, 4))[:, 1], 0]}, "C-contiguous"),
    ({"block": 2000}, "2000 threads in a block; allowed are 1 to 1024"),
    ({"grid": (0, 1)}, r"grid is \(0, 1\); allowed are 1 to 3 positive sizes"),
    ({"kernel": "other"}, r"'other' is not one of the kernels of this PTX: \['k'\]"),
    ({"blocks": [3]}, r"block index 3 lies outside the grid \(1, 1, 1\)"),
    ({"dynamic_shared_bytes": 300_000}, "300000 bytes of shared memory; a block may have at most 232448"),
]


@pytest.mark.parametrize(("change", "message"), LAUNCH_ERRORS)
def test_wrong_launches_are_value_errors(change, message):
    options = {"grid": 1, "block": 32, "args": [np.zeros(4), 0]} | change
    with pytest.raises(ValueError, match=message):
        launch(module("mov.u32 %r1, 0;", "u64 u32"), **options)


def test_thread_limits_of_the_kernel_are_checked():
    text = module("mov.u32 %r1, 0;").replace("k()", "k() .reqntid 64, 1, 1")
    launch(text, grid=1, block=64, args=[])
    with pytest.raises(ValueError, match=r"block is \(32, 1, 1\); kernel k requires \(64, 1, 1\)"):
        launch(text, grid=1, block=32, args=[])
    with pytest.raises(ValueError, match="96 threads in a block; kernel k allows 64"):
        launch(text.replace("reqntid", "maxntid"), grid=1, block=96, args=[])
