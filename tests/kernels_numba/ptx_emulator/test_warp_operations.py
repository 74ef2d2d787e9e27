"""Shuffles, votes, masks and ``ldmatrix`` against the PTX ISA's tables, lane by lane."""

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import apply, element, module


@pytest.mark.parametrize("trans", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_ldmatrix_gives_each_lane_two_neighbours_of_a_row(n, trans):
    # Matrix i is stored with its rows in reverse, so that row addresses must be used and not guessed.
    names = ",".join(f"%r{20 + i}" for i in range(n))
    body = (
        element(0, "%rd0", 16)
        + element(1, "%rd1", 4 * n)
        + "ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%rd0]; mov.u32 %r5, s; mad.lo.u32 %r6, %r59, 16, %r5;"
        + "st.shared.v4.u32 [%r6], {%r1,%r2,%r3,%r4}; bar.sync 0; xor.b32 %r7, %r59, 7; mad.lo.u32 %r8, %r7, 16, %r5;"
        + f"ldmatrix.sync.aligned.m8n8.x{n}{'.trans' if trans else ''}.shared.b16 {{{names}}}, [%r8];"
        + "".join(f"st.global.u32 [%rd1+{4 * i}], %r{20 + i};" for i in range(n))
    )
    stored = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    out = np.zeros((32, n), np.uint32)
    shared = ".shared .align 16 .b8 s[512];"
    launch(module(body, "u64 u64", shared), grid=1, block=32, args=[stored, out])
    for lane, (g, t) in enumerate(divmod(lane, 4) for lane in range(32)):
        for i in range(n):
            matrix = stored[i, ::-1]
            pair = (matrix[2 * t, g], matrix[2 * t + 1, g]) if trans else (matrix[g, 2 * t], matrix[g, 2 * t + 1])
            assert out[lane, i] == pair[0] | np.uint32(pair[1]) << 16


SHUFFLES = {
    # mode, b, c -> source lane and whether it is in range, lane by lane
    ("up", 3, 0): lambda lane: (lane - 3, lane >= 3),
    ("down", 5, 31): lambda lane: (lane + 5, lane + 5 <= 31),
    ("bfly", 9, 31): lambda lane: (lane ^ 9, True),
    ("idx", 7, 31): lambda lane: (7, True),
    # Segments of 8 lanes: c = (32 - 8) << 8 | 7 for idx, down; | 0 for up.
    ("idx", 3, 24 << 8 | 7): lambda lane: (lane // 8 * 8 + 3, True),
    ("up", 2, 24 << 8): lambda lane: (lane - 2, lane % 8 >= 2),
    ("down", 6, 24 << 8 | 7): lambda lane: (lane + 6, lane % 8 + 6 <= 7),
}


@pytest.mark.parametrize("case", SHUFFLES, ids=str)
def test_shuffles(case):
    mode, b, c = case
    a = np.arange(64, dtype=np.uint32) * 10
    body = f"shfl.sync.{mode}.b32 %r30|%p1, A, {b}, {c}, -1; selp.u32 %r31, 1000, 0, %p1; add.u32 D, %r30, %r31;"
    expected = []
    for thread in range(64):
        source, in_range = SHUFFLES[case](thread % 32)
        chosen = thread // 32 * 32 + source if in_range else thread
        expected.append(10 * chosen + (1000 if in_range else 0))
    assert apply(body, np.uint32, a).tolist() == expected


@pytest.mark.parametrize("last", [0, 5, 31])
def test_election_of_one_lane(last):
    # Each warp's lanes up to ``last`` elect one, here the highest: 100 in that lane, and its number in all of them.
    members = 2 ** (last + 1) - 1
    body = (
        f"mov.u32 D, 7; and.b32 %r31, %tid.x, 31; setp.gt.u32 %p1, %r31, {last}; @%p1 bra out;"
        f"elect.sync %r30|%p2, {members}; selp.u32 %r32, 100, 0, %p2; add.u32 D, %r30, %r32; out: add.u32 D, D, A;"
    )
    elected = [last] * last + [last + 100] + [7] * (31 - last)
    assert apply(body, np.uint32, np.zeros(64, np.uint32)).tolist() == elected * 2


def test_shuffle_from_a_lane_that_does_not_take_part_is_an_error():
    body = "setp.lt.u32 %p1, A, 16; mov.u32 D, 0; @%p1 shfl.sync.idx.b32 D, A, {0}, 31, 0xFFFF;"
    a = np.arange(32, dtype=np.uint32)
    assert apply(body.replace("{0}", "15"), np.uint32, a).tolist() == [15] * 16 + [0] * 16
    with pytest.raises(PtxError, match="shuffle from an inactive lane"):
        apply(body.replace("{0}", "16"), np.uint32, a)


def test_votes():
    a = np.arange(64, dtype=np.uint32)
    ballot = apply("and.b32 %r30, A, 1; setp.eq.u32 %p1, %r30, 0; vote.sync.ballot.b32 D, %p1, -1;", np.uint32, a)
    assert ballot.tolist() == [0x55555555] * 64
    body = "setp.ge.u32 %p1, A, {0}; vote.sync.{1}.pred %p2, %p1, -1; selp.u32 D, 1, 0, %p2;"

    def by_warp(limit, mode):
        return apply(body.replace("{0}", str(limit)).replace("{1}", mode), np.uint32, a)[[0, 32]].tolist()

    assert [by_warp(32, mode) for mode in ("all", "any", "uni")] == [[0, 1], [0, 1], [1, 1]]
    assert [by_warp(40, mode) for mode in ("all", "any", "uni")] == [[0, 0], [0, 1], [1, 0]]


def test_lane_masks_and_active_mask():
    a = np.arange(32, dtype=np.uint32)
    lane = a.astype(np.uint64)
    for name, expected in (
        ("lt", (1 << lane) - 1),
        ("le", (2 << lane) - 1),
        ("eq", 1 << lane),
        ("ge", 2**32 - (1 << lane)),
        ("gt", 2**32 - (2 << lane)),
    ):
        assert apply(f"mov.u32 D, %lanemask_{name};", np.uint32, a).tolist() == expected.tolist()
    body = "mov.u32 D, 0; setp.gt.u32 %p1, A, 4; @%p1 bra skip; activemask.b32 D; skip: add.u32 D, D, 0;"
    assert apply(body, np.uint32, a).tolist() == [31] * 5 + [0] * 27
