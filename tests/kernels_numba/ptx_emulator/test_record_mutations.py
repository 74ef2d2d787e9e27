"""Would emulator and float64 notice a bug in the kernels that stream records? Plants bugs; every one must be caught.

In the PTX of `ring` with condensed strips and of `bulk` with both formats, in the arguments of their launches, and in
records as an encoder might write them. A bug counts as caught if the emulator raises, if the product is wrong or NaN,
or if a flag stays raised. The problems are the smallest in which nothing is idle:

* ring: 200 x 400 weights, 24 columns: 14 tiles for 4 blocks, stretches of 4, 4, 3 and 3; the second block completes one
  row of tiles and begins the next, which three blocks share. Rows, columns and K end inside a tile; strips have a tail.
* pieces: 1,400 x 130 weights, 8 columns: 132 strips for 32 warps in two blocks; rows that a warp has whole and rows of
  two warps, the warps of the second block wait for one of the first; rings go round once.
* slices: 480 x 600 weights, 16 columns: two slices of 75 strips for 16 warps each, rows of two warps in either.
"""

import re
from dataclasses import replace as changed
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from kernels_numba.formats import encode_bitmap, encode_condensed
from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.problems import random_matrix
from tests.kernels_numba.ptx_emulator.mutations import move_before, move_behind, replace, shift_parameter

variants = pytest.importorskip("kernels_numba.gpu.variants", reason="needs numba-cuda", exc_type=ImportError)

TOLERANCE, MAX_STEPS = 1e-6, 12_000
RECORDS, OFFSETS, X, OUT, SUMS, FLAGS, ROWS, DEPTH, COLUMNS, CAPACITY, SLICE_TILES = range(11)  # kernel's parameters


class Case(NamedTuple):
    """A product: its variant, architecture, weights as records, x, the result in float64, and its plan."""

    variant: object
    arch: str
    weights: object
    x: object
    reference: object
    plan: object


@cache
def case(name):
    from kernels_numba.formats.records import most_bytes, pack_bitmap
    from kernels_numba.gpu.launch import CAPACITY_UNIT, Plan, ceil_div

    make, arch, encode, m, k, n, density, blocks, slices = {
        "ring": (variants.records("condensed_pairs", 32), "sm_80", encode_condensed, 200, 400, 24, 0.4, 4, 0),
        "pieces": (variants.streamed("condensed_pairs", 8), "sm_90", encode_condensed, 1400, 130, 8, 0.2, 2, 1),
        "slices": (variants.streamed("bitmap", 16), "sm_90", encode_bitmap, 480, 600, 16, 0.2, 1, 2),
    }[name]
    a, x = random_matrix(m, k, density), random_matrix(k, n, 1.0, 1)
    weights = encode(a)
    weights = pack_bitmap(weights) if encode is encode_bitmap else weights
    capacity = ceil_div(most_bytes(weights.offsets), CAPACITY_UNIT) * CAPACITY_UNIT
    k_tiles = ceil_div(ceil_div(k, 64), max(1, slices))
    plan = Plan(make, m, k, n, max(1, slices), k_tiles, blocks=blocks, capacity=capacity, slices=slices)
    return Case(make, arch, weights, x, a.astype(np.float64) @ x.astype(np.float64), plan)


@cache
def kernel_ptx(name):
    from kernels_numba.gpu.compile import compile_ptx

    return compile_ptx(case(name).variant, case(name).arch)[0]


def relative_error(name, ptx=None, *, weights=None, plan=None, arguments=None, blocks=None):
    """Error of a product that ``ptx``, ``weights``, a plan or changed ``arguments`` give; infinite for NaN or a flag."""
    from kernels_numba.gpu.launch import launches

    one = case(name)
    plan, weights = plan or one.plan, weights or one.weights
    out = np.full(one.reference.shape, np.nan, np.float32)
    sums, flags = np.full(one.plan.workspace_shape, np.nan, np.float32), np.zeros(one.plan.flags, np.uint32)
    (job,) = launches(plan, weights.buffers, one.x, out, sums, flags, as_fp32=True)
    given = [(arguments or {}).get(i, argument) for i, argument in enumerate(job.arguments)]
    launch(
        ptx or kernel_ptx(name), grid=job.grid, block=job.variant.threads, args=given, max_steps=MAX_STEPS,
        dynamic_shared_bytes=one.plan.shared_bytes, blocks=blocks,
    )  # fmt: skip
    error = np.linalg.norm(out - one.reference) / np.linalg.norm(one.reference)
    return error if np.isfinite(error) and not flags.any() else np.inf


def check_caught(message, name, **changes):
    """Raise unless a product with these changes is refused, with ``message`` if there is one, or wrong."""
    if message is not None:
        with pytest.raises(PtxError, match=message):
            relative_error(name, **changes)
        return
    try:
        error = relative_error(name, **changes)
    except PtxError:
        return
    assert error > 1000 * TOLERANCE


BARRIER, SYNC_WARP = r"bar\.sync\s+0;", r"bar\.warp\.sync 0xffffffff;"
FENCE, RAISE = r"fence\.acq_rel\.gpu;", r"st\.relaxed\.gpu\.global\.u32 \[%rd\d+\], %r\d+;"
LOWER, STORE_SUMS = r"(mov\.u32\s+(%r\d+), 0;\s+)st\.global\.u32 \[%rd\d+\], \2;", r"st\.global\.v4\.f32 "
MMA_SP = r"(mma\.sp\S+ \{[^}]*\}), \{([^,}]*),([^,}]*),([^,}]*),([^}]*)\}, \{([^}]*)\}, \{([^}]*)\}, (%r\d+), 0;"
METADATA = r"ld\.shared\.v4\.u32 \{(%r\d+),(%r\d+),(%r\d+),(%r\d+)\}"
TAIL_MMA = r"(mma\.sync\S+ \{[^}]*\}, \{[^}]*\}), \{(%r\d+),(%r\d+)\}"
EXPECT = r"(mbarrier\.arrive\.expect_tx\.shared::cta\.b64 _, \[%r\d+)\], (%r\d+);"
WAIT = r"(mbarrier\.try_wait\.parity\.shared::cta\.b64 done, \[%r\d+)\], (%r\d+); (@!done bra AGAIN;)"
COPY_SUM = r"(dp4a\.u32\.u32 %r\d+, %r\d+), %r\d+(, %r\d+;\s+ldmatrix)"
OUTSIDE, RACE, BETWEEN, EARLY = "out of bounds", "race", "race between blocks", "early reuse"
NOBODY_EXPECTS, DEADLOCK, ENDLESS = "that nobody expects", "a phase that nobody completes", "runaway loop"
SEEN = "flag that another thread may still look at"


def parity_starts_at_1(ptx):
    """Mutation: the register that holds the parity begins with the other one."""
    parity = re.search(WAIT, ptx)[2]
    return re.sub(rf"(mov\.u32\s+{parity}, )0;", r"\g<1>1;", ptx)


# name -> (mutation, what the error must say; None where wrong numbers are as good)
RING_BUGS = {
    "wait for all but two groups": (replace(r"wait_group 1", "wait_group 2"), "cp.async"),
    "wait dropped": (replace(r"cp\.async\.wait_group 1;", ""), "cp.async"),
    "wait behind the barrier": (move_behind(r"cp\.async\.wait_group 1;", BARRIER), "race|cp.async"),
    "commit dropped from the loop": (replace(r"cp\.async\.commit_group;", "", 2), "cp.async"),
    "barrier of the loop dropped": (replace(BARRIER, "", 0), "race|cp.async"),
    "ring goes round a stage late": (replace(r"(mad\.lo\.s32\s+%r\d+, %r\d+, )3,", r"\g<1>4,"), OUTSIDE),
    "ring goes round a stage early": (replace(r"(mad\.lo\.s32\s+%r\d+, %r\d+, )3,", r"\g<1>2,"), "race|cp.async"),
    "first copies of the loop a stage too early": (
        replace(r"shl\.b32(\s+%r\d+, %r\d+), 1;(\s+add\.s32\s+%r\d+, %r\d+, %r\d+;\s+mov\.f32)", r"shl.b32\1, 0;\2"),
        "race|cp.async",
    ),
    "last tile of a stretch not fetched": (
        replace(r"(add\.s32\s+(%r\d+), %r\d+, )2;(\s+setp\.ge\.s32\s+%p\d+, \2)", r"\g<1>3;\3"),
        None,
    ),
    "next row of records a row too early": (replace(r"selp\.b64(\s+%rd\d+), 12, -4", r"selp.b64\1, 8, -4"), None),
    "next row of records a row too late": (replace(r"selp\.b64(\s+%rd\d+), 12, -4", r"selp.b64\1, 16, -4"), None),
    "looks for records behind the last": (replace(r"selp\.b64(\s+%rd\d+), 12, -4", r"selp.b64\1, 12, 12"), OUTSIDE),
    "X not set back at the end of a row": (replace(r"(shl\.b64\s+%rd\d+, %rd\d+, )7;(\s+sub\.s64)", r"\g<1>6;\2"), None),
    "rows of X left not set back": (replace(r"(and\.b32\s+%r\d+, %r\d+, )-64;", r"\1-128;"), None),
    "X two rows a tile too slow": (replace(r"(mul\.wide\.s32\s+%rd\d+, %r\d+, )128;", r"\g<1>124;"), None),
    "columns beyond the output copied": (replace(r"-1073741824", "1073741824"), OUTSIDE),
    "depth one too large": (shift_parameter(DEPTH, 1), OUTSIDE),
    "depth one too small": (shift_parameter(DEPTH, -1), None),
    "row guard one too large": (shift_parameter(ROWS, 1), OUTSIDE),
    "capacity a unit too small": (shift_parameter(CAPACITY, -128), "race|cp.async"),
    "capacity a unit too large": (shift_parameter(CAPACITY, 128), OUTSIDE),
    "long records not copied to their end": (replace(r"(@%p\d+) bra\s+(\S+);(\s+\2:)", r"\3"), None),
    "key of a panel of X wrong": (replace(r"(xor\.b32\s+%r\d+, %r\d+, )64;", r"\g<1>32;", 0), None),
    "second gather reads the first rows": (replace(COPY_SUM, r"\1, 16\2", 1), None),
    "first gather reads the second rows": (replace(COPY_SUM, r"\1, 4096\2", 0), None),
    "gather off by 32 rows": (replace(r"(and\.b32\s+%r\d+, %r\d+, )16191;", r"\g<1>7967;"), None),
    "metadata of the other half": (replace(METADATA, r"ld.shared.v4.u32 {\2,\1,\4,\3}"), None),
    "metadata of the other step": (replace(METADATA, r"ld.shared.v4.u32 {\3,\4,\1,\2}"), None),
    "metadata of the wrong lanes": (
        replace(r"(shl\.b32\s+(%r\d+), %r\d+, 2;\s+and\.b32\s+%r\d+, \2, )16;", r"\g<1>32;"),
        None,
    ),
    "selector of mma.sp": (replace(MMA_SP, r"\1, {\2,\3,\4,\5}, {\6}, {\7}, \8, 1;"), None),
    "registers of mma.sp swapped": (replace(MMA_SP, r"\1, {\2,\4,\3,\5}, {\6}, {\7}, \8, 0;", 2), None),
    "columns of a tail swapped": (replace(TAIL_MMA, r"\1, {\3,\2}"), None),
    "number of a tail's column one place off": (replace(r"(ld\.shared\.u8 %r\d+, \[%r\d+)\]", r"\1+1]"), None),
    "tails ignored": (replace(r"(shr\.u32\s+%r\d+, %r\d+, )30;", r"\g<1>31;"), None),
    "tail not aligned": (replace(r"(and\.b32\s+%r\d+, %r\d+, )-16;", r"\1-8;"), None),
    "last chunk's place": (replace(r"(mov\.u32\s+%r\d+, )67108864;", r"\g<1>33554432;"), None),
    "running sum without 16 lanes": (replace(r"@inside add\.u32 %r\d+, %r\d+, other;", "", 4), None),
    "total without the last lane": (replace(r"(shfl\.sync\.idx\.b32 %r\d+, %r\d+, )31, 31", r"\g<1>30, 31", 0), None),
    "first tile of a stretch": (replace(r"min\.s32", "max.s32", 0), None),
    "stretches a tile too long": (replace(r"(selp\.u32\s+%r\d+, 1), 0(, %p\d+;\s+add)", r"\1, 1\2", 0), None),
    "stretch of the wrong block": (replace(r"mov\.u32 (%r\d+), %ctaid\.y;", r"mov.u32 \1, %ctaid.x;", 0), None),
    "sums left at a wrong place": (
        replace(rf"(shl\.b64\s+%rd\d+, (%rd\d+), 12;(?:(?!shl).)*?{STORE_SUMS})", r"add.s64 \2, \2, 1; \1", 0),
        None,
    ),
    "sums of the wrong block added": (replace(rf"({BARRIER}\s+)(shl\.b64\s+%rd\d+, (%rd\d+), 12;)", r"\1 add.s64 \3, \3, 1; \2"), None),
    "first block of a row not added": (
        replace(rf"(div\.u32 (%r\d+), [^;]*;)(\s+add\.s32\s+%r\d+, \2, %r\d+;|\s+bra\.uni)", r"\1 add.s32 \2, \2, 1;\3"),
        None,
    ),
    "sums not cleared for the next row": (replace(r"0f00000000;", "0f3F800000;", 1), None),
    "flag not lowered": (replace(LOWER, r"\1"), None),
    "flag raised before all sums are stored": (replace(BARRIER, "", 1), BETWEEN),
    "release without fence": (replace(FENCE, ""), BETWEEN),
    "fence before the sums": (move_before(FENCE, STORE_SUMS), BETWEEN),
    "fence of the block only": (replace(FENCE, "fence.acq_rel.cta;"), BETWEEN),
    "flag raised by a plain store": (replace(r"st\.relaxed\.gpu\.global", "st.global"), BETWEEN),
    "flag read by a plain load": (replace(r"ld\.acquire\.gpu\.global", "ld.global"), BETWEEN),
    "flag read without acquiring": (replace(r"ld\.acquire\.gpu", "ld.relaxed.gpu"), BETWEEN),
    "sums read before the flag is seen": (replace(BARRIER, "", 2), BETWEEN),
    "sums read through the read-only cache": (replace(r"ld\.global\.v4\.f32", "ld.global.nc.v4.f32"), "read-only"),
}  # fmt: skip

# Of the streaming kernel, on one of its problems.
BULK_BUGS = {
    "16 bytes too many expected": (
        "slices", replace(EXPECT, r"{ .reg .b32 q; add.u32 q, \2, 16; \1], q; }"), DEADLOCK,
    ),
    "16 bytes too few expected": (
        "slices", replace(EXPECT, r"{ .reg .b32 q; sub.u32 q, \2, 16; \1], q; }"), NOBODY_EXPECTS,
    ),
    "expected on the next stage": ("slices", replace(EXPECT, r"\1+8], \2;"), None),
    "half a record": ("slices", replace(r"(sub\.s32\s+(%r\d+), [^;]*;\s+shl\.b32\s+%r\d+, \2, )4;", r"\g<1>3;"), None),
    "size of the record in other units": (
        "slices", replace(r"(sub\.s32\s+(%r\d+), [^;]*;\s+shl\.b32\s+%r\d+, \2, )4;", r"\g<1>2;"), "bulk copy of|read",
    ),
    "parity never changed": ("slices", replace(r"xor\.b32\s+(%r\d+), \1, %r\d+;", ""), "destination of a bulk copy"),
    "parity starts at 1": ("slices", parity_starts_at_1, "destination of a bulk copy"),
    "refill before all lanes have read": ("slices", replace(SYNC_WARP, "", 1), EARLY),
    "barriers shown without a fence": ("slices", replace(r"fence\.mbarrier_init\S*;", ""), "without a fence"),
    "barriers not handed to the warp": ("slices", replace(SYNC_WARP, "", 0), "without synchronisation"),
    "barriers of warps overlap": ("slices", replace(r"(mad\.lo\.s32\s+%r\d+, %r\d+, )24,", r"\g<1>16,"), None),
    "wait on the next stage's barrier": ("slices", replace(WAIT, r"\1+8], \2; \3"), "destination of a bulk copy"),
    "not waited": ("slices", replace(WAIT, ""), "destination of a bulk copy"),
    "waited once": ("slices", replace(WAIT, r"\1], \2;"), "destination of a bulk copy"),
    "ring goes round a stage early": (
        "slices",
        replace(
            r"(add\.s32\s+(%r\d+), %r\d+, )(%r\d+);(\s+add\.s32\s+(%r\d+), %r\d+, (%r\d+);\s+setp\.eq\.s32\s+%p\d+, \5, \2;)",
            r"\1\3; sub.s32 \2, \2, \6;\4",
        ),
        None,
    ),
    "one record too many asked for": (
        "slices", replace(rf"({SYNC_WARP}\s+setp\.lt\.s32\s+%p\d+, %r\d+, )1;", r"\g<1>0;"), None,
    ),
    "first records asked for twice": ("slices", replace(r"(add\.s32\s+%r\d+, %r\d+, )-3;", r"\1-2;"), None),
    "next row's records begin at the wrong slice": (
        "slices", replace(r"selp\.b64(\s+%rd\d+), %rd\d+, -4, %p\d+;", r"mov.b64\1, -4;"), None,
    ),
    "slice of X: one row too many": ("slices", shift_parameter(DEPTH, 1), OUTSIDE),
    "slice of X: one row too few": ("slices", shift_parameter(DEPTH, -1), None),
    "slice of X not waited for": ("slices", replace(r"cp\.async\.wait_group 0;", ""), "cp.async"),
    "slice of X used before all have copied": ("slices", replace(BARRIER, "", 0), RACE),
    "same tile of X for a whole row": ("slices", replace(r"add\.s32\s+(%r\d+), \1, 2048;", ""), None),
    "slice begins a tile early": (
        "slices",
        replace(r"(mov\.u32\s+(%r\d+), %ctaid\.z;\s+mul\.lo\.s32\s+(%r\d+), \2, %r\d+;)", r"\1 sub.s32 \3, \3, \2;"),
        None,
    ),
    "sliced rows stored at once": (
        "slices", replace(r"setp\.eq(\.s32\s+%p\d+, %r\d+, 1;\s+setp\.eq\.s32)", r"setp.ge\1"), None,
    ),
    "first slice completes": (
        "slices", replace(r"setp\.ne(\.s64\s+%p\d+, %rd\d+, %rd\d+;\s+@%p\d+ bra)", r"setp.eq\1"), ENDLESS,
    ),
    "capacity a unit too small": ("slices", shift_parameter(CAPACITY, -128), None),
    "key of a panel of X wrong": ("slices", replace(r"(xor\.b32\s+%r\d+, %r\d+, )64;", r"\g<1>32;", 0), None),
    "rows that begin before the stretch stored at once": (
        "pieces", replace(r"setp\.eq(\.s32\s+%p\d+, %r\d+, 0;\s+and\.pred)", r"setp.ge\1"), None,
    ),
    "selector of mma.sp": ("pieces", replace(MMA_SP, r"\1, {\2,\3,\4,\5}, {\6}, {\7}, \8, 1;"), None),
    "metadata of the other half": ("pieces", replace(METADATA, r"ld.shared.v4.u32 {\2,\1,\4,\3}"), None),
    "flag not lowered": ("pieces", replace(LOWER, r"\1"), None),
    "release without fence": ("pieces", replace(FENCE, ""), BETWEEN),
    "fence before the sums": ("pieces", move_before(FENCE, STORE_SUMS), BETWEEN),
    "flag raised by a plain store": ("pieces", replace(r"st\.relaxed\.gpu\.global", "st.global"), BETWEEN),
    "flag read by a plain load": ("pieces", replace(r"ld\.acquire\.gpu\.global", "ld.global"), BETWEEN),
    "flag raised before all lanes have stored": ("pieces", replace(SYNC_WARP, "", 2), BETWEEN),
    "flag lowered while lanes look at it": ("pieces", replace(SYNC_WARP, "", 3), SEEN),
}  # fmt: skip

BUGS = RING_BUGS | {f"streaming: {name}": bug for name, bug in BULK_BUGS.items()}


@pytest.mark.parametrize("name", ["ring", "pieces", "slices"])
def test_the_kernels_themselves_are_right(name):
    assert relative_error(name) < TOLERANCE


def test_the_problems_leave_nothing_idle():
    """Tails, records that take the loop of copies, and strips that go round every ring."""
    ring, pieces, slices = (case(name) for name in ("ring", "pieces", "slices"))
    assert ring.weights.tails.any()
    assert np.diff(ring.weights.offsets).max() * 16 > 2048
    for one, warps in ((pieces, 32), (slices, 16)):
        assert -(-one.plan.m // 32) * one.plan.k_tiles_per_split / warps > 3
        assert one.variant.threads * one.plan.blocks == 32 * warps


@pytest.mark.parametrize("name", RING_BUGS)
def test_bug_in_the_ring_is_caught(name):
    mutate, message = RING_BUGS[name]
    caught_in("ring", mutate, message)


@pytest.mark.parametrize("name", BULK_BUGS)
def test_bug_in_the_streaming_kernel_is_caught(name):
    caught_in(*BULK_BUGS[name])


def caught_in(name, mutate, message):
    mutated = mutate(kernel_ptx(name))
    assert mutated != kernel_ptx(name), "the kernel's PTX has changed and the mutation no longer applies"
    check_caught(message, name, ptx=mutated)
