"""Would emulator and float64 notice a bug in the kernels that stream records? Plants bugs; every one must be caught.

In the PTX of `ring` with condensed strips and of `bulk` with both formats, in the arguments of their launches, and in
records as an encoder might write them. A bug counts as caught if the emulator raises, if the product is wrong or NaN,
or if a flag stays raised; `record_problems` says on what.

No bug is one whose result is the same: a selector of 1 in ``mma.sp`` (lanes 4 g + 2 and 4 g + 3 load the metadata of
4 g and 4 g + 1), no barrier behind the sums that `share.add_sums` reads (only one thread looks at the flag, and nobody
writes the sums before the next launch), none before `bulk` completes its rows (flags order what they hand on).
"""

import re
from dataclasses import replace as changed

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError
from tests.kernels_numba.ptx_emulator.mutations import move_before, move_behind, replace, shift_parameter
from tests.kernels_numba.ptx_emulator.record_problems import (
    CAPACITY,
    DEPTH,
    ROWS,
    TOLERANCE,
    case,
    check_caught,
    kernel_ptx,
    relative_error,
)

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
    "first copies of the loop a stage too early": (
        replace(r"shl\.b32(\s+%r\d+, %r\d+), 1;(\s+add\.s32\s+%r\d+, %r\d+, %r\d+;\s+mov\.f32)", r"shl.b32\1, 0;\2"),
        "race|cp.async",
    ),
    "last tile of a stretch not fetched": (
        replace(r"(add\.s32\s+(%r\d+), %r\d+, )2;(\s+setp\.ge\.s32\s+%p\d+, \2)", r"\g<1>3;\3"),
        None,
    ),
    "looks for records behind the last": (replace(r"selp\.b64(\s+%rd\d+), 12, -4", r"selp.b64\1, 12, 12"), OUTSIDE),
    "ring goes round a stage early": (replace(r"(mad\.lo\.s32\s+%r\d+, %r\d+, )3,", r"\g<1>2,"), "race|cp.async"),
    "X half a tile too slow": (
        replace(r"(add\.s64\s+%rd\d+, %rd\d+), %rd\d+;(\s+add\.s32\s+%r\d+, %r\d+, -64;)", r"\1, 0;\2"),
        None,
    ),
    "long records not copied to their end": (
        replace(r"setp\.eq(\.s32\s+%p\d+, %r\d+, 0;\s+@%p\d+ bra)", r"setp.ge\1", 2),
        None,
    ),
    "metadata of the wrong lanes": (replace(r"(and\.b32\s+%r\d+, %r\d+, )16;", r"\g<1>32;"), None),
    "sums left at the next block's place": (
        replace(r"(add\.s64\s+(%rd\d+), %rd\d+, %rd\d+;)(\s+shl\.b64\s+%rd\d+, \2, 12;)", r"\1 add.s64 \2, \2, 1;\3"),
        None,
    ),
    "columns beyond the output copied": (replace(r"-1073741824", "1073741824"), OUTSIDE),
    "depth one too large": (shift_parameter(DEPTH, 1), OUTSIDE),
    "depth one too small": (shift_parameter(DEPTH, -1), None),
    "row guard one too large": (shift_parameter(ROWS, 1), OUTSIDE),
    "capacity a unit too small": (shift_parameter(CAPACITY, -128), "race|cp.async"),
    "capacity a unit too large": (shift_parameter(CAPACITY, 128), OUTSIDE),
    "key of a panel of X wrong": (replace(r"(xor\.b32\s+%r\d+, %r\d+, )64;", r"\g<1>32;", 0), None),
    "second gather reads the first rows": (replace(COPY_SUM, r"\1, 16\2", 1), None),
    "first gather reads the second rows": (replace(COPY_SUM, r"\1, 4096\2", 0), None),
    "gather off by 32 rows": (replace(r"(and\.b32\s+%r\d+, %r\d+, )16191;", r"\g<1>7967;"), None),
    "metadata of the other half": (replace(METADATA, r"ld.shared.v4.u32 {\2,\1,\4,\3}"), None),
    "metadata of the other step": (replace(METADATA, r"ld.shared.v4.u32 {\3,\4,\1,\2}"), None),
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
    "sums of the wrong block added": (
        replace(rf"({BARRIER}\s+)(shl\.b64\s+%rd\d+, (%rd\d+), 12;)", r"\1 add.s64 \3, \3, 1; \2"),
        None,
    ),
    "first block of a row not added": (
        replace(
            r"(div\.u32 (%r\d+), [^;]*;)(\s+add\.s32\s+%r\d+, \2, %r\d+;|\s+bra\.uni)",
            r"\1 add.s32 \2, \2, 1;\3",
        ),
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

# Of the ring where one block has all rows of tiles.
ROWS_BUGS = {
    "next row of records a row too early": (replace(r"selp\.b64(\s+%rd\d+), 12, -4", r"selp.b64\1, 8, -4"), None),
    "next row of records a row too late": (replace(r"selp\.b64(\s+%rd\d+), 12, -4", r"selp.b64\1, 16, -4"), None),
    "X not set back at the end of a row": (replace(r"sub\.s64\s+(%rd\d+), \1, %rd\d+;", ""), None),
    "rows of X left not set back": (replace(r"(and\.b32\s+%r\d+, %r\d+, )-64;", r"\1-128;"), None),
    "sums not cleared for the next row": (replace(r"0f00000000;", "0f3F800000;", 1), None),
    "output of the next row": (replace(r"(shl\.b32\s+%r\d+, %r\d+, )7;", r"\g<1>6;"), None),
}

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
    "ring goes round a stage late": (
        "slices",
        replace(
            r"(add\.s32\s+(%r\d+), (%r\d+), %r\d+;\s+setp\.eq\.s32\s+%p\d+, )\2(, %r\d+;\s+add\.s32[^;]*, 8;)",
            r"\1\3\4",
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
    "metadata of the other half": ("pieces", replace(METADATA, r"ld.shared.v4.u32 {\2,\1,\4,\3}"), None),
    "flag not lowered": ("pieces", replace(LOWER, r"\1"), None),
    "release without fence": ("pieces", replace(FENCE, ""), BETWEEN),
    "fence before the sums": ("pieces", move_before(FENCE, STORE_SUMS), BETWEEN),
    "flag raised by a plain store": ("pieces", replace(r"st\.relaxed\.gpu\.global", "st.global"), BETWEEN),
    "flag read by a plain load": ("pieces", replace(r"ld\.acquire\.gpu\.global", "ld.global"), BETWEEN),
    "flag raised before all lanes have stored": ("pieces", replace(SYNC_WARP, "", 2), BETWEEN),
    "flag lowered while lanes look at it": ("pieces", replace(SYNC_WARP, "", 3), SEEN),
}  # fmt: skip


def with_entries(change):
    """Bug of an encoder: ``change`` rewrites the entries of every record in a copy of the weights."""

    def mutate(weights):
        records = weights.records.copy()
        for begin, end in zip(weights.offsets[:-2] * 8, weights.offsets[1:-1] * 8, strict=True):
            change(records[begin:end])
        return changed(weights, records=records)

    return mutate


def swap(record, one, other):
    """Exchange two parts of a record, given as slices."""
    record[one], record[other] = record[other].copy(), record[one].copy()


def tail_of(record):
    """The first tail of a record with bits for registers: from the next 16 bytes behind its values on."""
    registers = int(np.bitwise_count(record[:64:2]).sum())
    return record[-(-(192 + 2 * registers) // 8) * 8 :] if record[1] >> 14 else record[:0]


# name -> what an encoder might write wrongly: masks, columns, metadata, values, tails, as `formats.condensed` has them.
ENCODER_BUGS = {
    "lanes of the masks swapped": with_entries(lambda r: swap(r, slice(0, 16, 2), slice(16, 32, 2))),
    "lowest bits of two columns mixed": with_entries(lambda r: r[1:64:2].__ixor__((r[1:64:2] & 1) * 0x101)),
    "two columns exchanged": with_entries(lambda r: swap(r, slice(1, 2), slice(9, 10))),
    "metadata of the other half": with_entries(lambda r: swap(r, slice(64, 192, 4), slice(66, 192, 4))),
    "metadata of the rows 8 below": with_entries(lambda r: swap(r, slice(64, 192, 2), slice(65, 192, 2))),
    "metadata of the neighbouring groups": with_entries(lambda r: r[64:192].byteswap(inplace=True)),
    "values one place further": with_entries(lambda r: swap(r, slice(192, 208), slice(194, 210))),
    "halves of a register swapped": with_entries(lambda r: swap(r, slice(192, 208, 2), slice(193, 208, 2))),
    "columns of tails in pairs swapped": with_entries(lambda r: tail_of(r)[:8].byteswap(inplace=True)),
    "masks of a tail swapped": with_entries(lambda r: swap(tail_of(r), slice(8, 24), slice(24, 40))),
    "no tails": with_entries(lambda r: r[1:64:2].__iand__(0x3FFF)),
    "offsets a unit too far": lambda weights: changed(weights, offsets=np.maximum(weights.offsets - 1, 0)),
    "records of neighbouring rows swapped": lambda w: changed(w, offsets=np.roll(w.offsets, 7)),
}  # fmt: skip

# name -> (problem, change of the plan), as a launch might be planned wrongly; the block's shared memory stays.
PLAN_BUGS = {
    "slices a tile too short": ("slices", {"k_tiles_per_split": 4}),
    "slices a tile too long": ("slices", {"k_tiles_per_split": 6}),
    "one slice more than there are": ("slices", {"slices": 3}),
    "one slice less": ("slices", {"slices": 1}),
    "more blocks than places for sums": ("pieces", {"blocks": 3}),
    "capacity of the longest record but one unit": ("pieces", {"capacity": -128}),
    "capacity a unit too large": ("slices", {"capacity": 128}),
    "k without its last tile": ("ring", {"k": 384}),
    "m of whole tiles": ("ring", {"m": 256}),
    "n rounded up to tiles": ("ring", {"n_padded": 32}),
}

BUGS = (
    RING_BUGS
    | {f"rows: {name}": bug for name, bug in ROWS_BUGS.items()}
    | {f"streaming: {name}": bug for name, bug in BULK_BUGS.items()}
    | {f"encoder: {name}": bug for name, bug in ENCODER_BUGS.items()}
    | {f"plan: {name}": bug for name, bug in PLAN_BUGS.items()}
)


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


@pytest.mark.parametrize("name", ROWS_BUGS)
def test_bug_between_rows_of_the_ring_is_caught(name):
    mutate, message = ROWS_BUGS[name]
    caught_in("rows", mutate, message)


@pytest.mark.parametrize("name", BULK_BUGS)
def test_bug_in_the_streaming_kernel_is_caught(name):
    caught_in(*BULK_BUGS[name])


def caught_in(name, mutate, message):
    mutated = mutate(kernel_ptx(name))
    assert mutated != kernel_ptx(name), "the kernel's PTX has changed and the mutation no longer applies"
    check_caught(message, name, ptx=mutated)


@pytest.mark.parametrize("name", ENCODER_BUGS)
def test_bug_of_the_encoder_is_caught(name):
    """By the kernel, which shares no code with the encoder, as its inverse does."""
    check_caught(None, "ring", weights=ENCODER_BUGS[name](case("ring").weights))


@pytest.mark.parametrize("name", PLAN_BUGS)
def test_bug_of_the_plan_is_caught(name):
    problem, changes = PLAN_BUGS[name]
    plan = case(problem).plan
    if "capacity" in changes:
        changes = {"capacity": plan.capacity + changes["capacity"]}
    check_caught(None, problem, plan=changed(plan, **changes))


@pytest.mark.parametrize(("name", "block"), [("ring", (0, 1, 0)), ("pieces", (0, 1, 0)), ("slices", (0, 0, 1))])
def test_a_block_that_is_ahead_waits(name, block):
    """Alone, it looks at a flag that nobody raises until its steps are used up; without the loop it goes on."""
    with pytest.raises(PtxError, match=ENDLESS):
        relative_error(name, blocks=[block])
    look = r"(ld\.acquire\.gpu\.global\.u32 %r\d+, \[%rd\d+\];\s+setp\.eq\.s32\s+%p\d+, %r\d+, 0;)\s+@%p\d+ bra\s+\S+;"
    assert relative_error(name, replace(look, r"\1")(kernel_ptx(name)), blocks=[block]) == np.inf
