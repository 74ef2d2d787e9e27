"""Loads, stores, atomics and asynchronous copies in every space."""

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import element, module


def test_local_memory_and_generic_addresses():
    body = (
        ".local .align 8 .b8 depot[32]; mov.u64 %rd20, depot; cvta.local.u64 %rd21, %rd20;"
        + element(0, "%rd0")
        + """st.u32 [%rd21+8], %r59; ld.local.u32 %r1, [%rd20+8];
        mov.u64 %rd22, buffer; cvta.shared.u64 %rd23, %rd22; mul.wide.u32 %rd24, %r59, 4; add.s64 %rd23, %rd23, %rd24;
        st.u32 [%rd23], %r1; ld.u32 %r2, [%rd23]; st.u32 [%rd0], %r2;"""
    )
    out = np.zeros(40, np.uint32)
    launch(module(body, "u64", ".shared .align 4 .b8 buffer[160];"), grid=1, block=40, args=[out])
    assert out.tolist() == list(range(40))


def test_constant_tables_and_atomics():
    body = (
        element(0, "%rd0")
        + """and.b32 %r1, %r59, 3; mul.wide.u32 %rd1, %r1, 4; mov.u64 %rd2, table; add.s64 %rd2, %rd2, %rd1;
        ld.const.u32 %r2, [%rd2]; ld.param.u64 %rd3, [p1]; red.global.add.u32 [%rd3], %r2;
        atom.global.add.u32 %r3, [%rd3+4], 1; st.global.u32 [%rd0], %r3; atom.global.max.u32 %r4, [%rd3+8], %r59;
        cvt.rn.f32.u32 %f1, %r2; red.global.add.f32 [%rd3+12], %f1;"""
    )
    table = ".const .align 4 .u32 table[4] = {5, 6, 0x7, 8};"
    order, sums = np.zeros(64, np.uint32), np.zeros(4, np.uint32)
    launch(module(body, "u64 u64", table), grid=2, block=32, args=[order[:32], sums])
    assert sums[:3].tolist() == [2 * 8 * 26, 64, 31]
    assert sums[3:].view(np.float32)[0] == 2 * 8 * 26
    assert order[:32].tolist() == list(range(32, 64))  # block 1 came second


def test_copies_of_4_bytes_beside_loads_of_16():
    body = (
        element(0, "%rd0")
        + element(1, "%rd1")
        + """mov.u32 %r1, s; mad.lo.u32 %r2, %r59, 4, %r1; setp.lt.u32 %p1, %r59, 18;
        @%p1 cp.async.ca.shared.global [%r2], [%rd0], 4; @!%p1 cp.async.ca.shared.global [%r2], [%rd0], 4;
        cp.async.wait_all; bar.sync 0; and.b32 %r3, %r59, 7; mad.lo.u32 %r3, %r3, 16, %r1;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3]; st.global.u32 [%rd1], %r4;"""
    )
    source, out = np.arange(7, 39, dtype=np.uint32), np.zeros(32, np.uint32)
    launch(module(body, "u64 u64", ".shared .align 16 .b8 s[128];"), grid=1, block=32, args=[source, out])
    assert (out == source).all()


# Block b adds its number to what block b - 1 has left behind, once that one's flag is up.
CHAIN = """
    ld.param.u64 %rd0, [p0]; ld.param.u64 %rd1, [p1]; mov.u32 %r1, %ctaid.x; mov.u32 %r59, %tid.x;
    mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd0, %rd2; add.s64 %rd4, %rd1, %rd2;
    setp.ne.u32 %p1, %r59, 0; @%p1 bra behind; mov.u32 %r2, 0; {first} @%p2 bra behind;
    poll: nanosleep.u32 20; ld.acquire.gpu.global.u32 %r3, [%rd4+{other}]; setp.eq.u32 %p3, %r3, 0; @%p3 bra poll;
    ld.relaxed.gpu.global.u32 %r2, [%rd3+{other}];
    behind: bar.sync 0; @%p1 bra done; add.u32 %r2, %r2, %r1; st.global.u32 [%rd3], %r2; membar.gl; fence.acq_rel.gpu;
    mov.u32 %r4, 1; st.release.gpu.global.u32 [%rd4], %r4;
    atom.acq_rel.gpu.global.add.u32 %r5, [%rd1+{total}], 1; red.release.gpu.global.add.u32 [%rd1+{total}], 10;
    done: mov.u32 %r6, 0;"""


def test_a_block_may_poll_for_one_before_it():
    sums, flags = np.zeros(6, np.uint32), np.zeros(7, np.uint32)
    body = CHAIN.format(first="setp.eq.u32 %p2, %r1, 0;", other=-4, total=24)
    launch(module(body, "u64 u64"), grid=6, block=64, args=[sums, flags])
    assert sums.tolist() == [0, 1, 3, 6, 10, 15]
    assert flags.tolist() == [1] * 6 + [66]


def test_a_block_that_polls_for_one_behind_it_never_ends():
    body = CHAIN.format(first="setp.eq.u32 %p2, %r1, 5;", other=4, total=24)
    with pytest.raises(PtxError, match=r"runaway loop: more than 5000 steps; thread 0; .*block \(0, 0, 0\)"):
        launch(module(body, "u64 u64"), grid=6, block=64, args=[np.zeros(6, "u4"), np.zeros(7, "u4")], max_steps=5000)


def test_what_a_copy_does_not_read_is_zero():
    body = (
        element(0, "%rd0")
        + element(1, "%rd1")
        + """
        mov.u32 %r1, s; shl.b32 %r2, %r59, 4; add.u32 %r3, %r1, %r2; ld.param.u64 %rd2, [p1];
        mul.lo.u32 %r4, %r59, 4;
        cp.async.ca.shared.global [%r3], [%rd2], 16, %r4; cp.async.commit_group; cp.async.wait_group 0;
        ld.shared.v4.f32 {%f1,%f2,%f3,%f4}, [%r3]; ld.param.u64 %rd3, [p0]; mul.wide.u32 %rd4, %r59, 16;
        add.s64 %rd3, %rd3, %rd4; st.global.v4.f32 [%rd3], {%f1,%f2,%f3,%f4};"""
    )
    out, source = np.ones((3, 4), np.float32), np.arange(1, 5, dtype=np.float32)
    launch(module(body, "u64 u64", ".shared .align 16 .b8 s[64];"), grid=1, block=3, args=[out, source])
    assert out.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 0, 0]]
