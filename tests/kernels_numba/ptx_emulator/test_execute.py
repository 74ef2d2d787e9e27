"""Control flow: divergence, joining again, branch tables, barriers."""

import numpy as np

from tests.kernels_numba.ptx_emulator.programs import apply


def collatz(n):
    steps = 0
    while n != 1:
        n = 3 * n + 1 if n % 2 else n // 2
        steps += 1
    return steps


def test_divergent_loops_join_again():
    body = """
        add.u32 %r30, A, 1; mov.u32 D, 0;
        loop: setp.eq.u32 %p1, %r30, 1; @%p1 bra done;
        and.b32 %r31, %r30, 1; setp.eq.u32 %p2, %r31, 0; @%p2 bra even;
        mad.lo.u32 %r30, %r30, 3, 1; bra next;
        even: shr.u32 %r30, %r30, 1;
        next: add.u32 D, D, 1; bra loop;
        done: bar.sync 0;"""
    found = apply(body, np.uint32, np.arange(100, dtype=np.uint32))
    assert found.tolist() == [collatz(i + 1) for i in range(100)]


def test_branch_table():
    body = """
        mov.u32 D, 99; setp.gt.u32 %p1, A, 2; @%p1 bra out;
        targets: .branchtargets zero, one, out;
        brx.idx A, targets;
        zero: mov.u32 D, 10; bra out;
        one: mov.u32 D, 11;
        out: add.u32 D, D, 0;"""
    assert apply(body, np.uint32, np.arange(5, dtype=np.uint32)).tolist() == [10, 11, 99, 99, 99]


def test_warps_may_meet_at_the_same_barrier_in_different_places():
    body = """
        setp.lt.u32 %p1, A, 32; @%p1 bra low; mov.u32 D, 1; bar.sync 0; bra join;
        low: mov.u32 D, 2; bar.sync 0;
        join: add.u32 D, D, 10;"""
    assert apply(body, np.uint32, np.arange(64, dtype=np.uint32)).tolist() == [12] * 32 + [11] * 32
