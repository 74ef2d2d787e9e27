"""Races between threads that meet at mbarriers too: what is ordered, what is not."""

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import element, module
from tests.kernels_numba.ptx_emulator.test_checks import ORDERED, RACES, START

# Bytes 0-1023 for data, mbarriers from 1024 on; the first is initialised for as many arrivals as {count} says.
BARRIER = "add.u32 %r50, %r1, 1024; setp.eq.u32 %p9, %r59, 0; @%p9 mbarrier.init.shared::cta.b64 [%r50], {count};"
ARRIVE = "mbarrier.arrive.shared::cta.b64 _, [%r50];"
WAIT = "{ .reg .pred p; W: mbarrier.try_wait.parity.shared::cta.b64 p, [%r50], 0; @!p bra W; }"
FIRST_WARP, STORE = "setp.ge.u32 %p5, %r59, 32;", "st.shared.u32 [%r3], %r59;"


def run(body, block=64, **options):
    text = module(body, "u64", ".shared .align 16 .b8 s[1280];")
    return launch(text, grid=1, block=block, args=[np.zeros(64, np.uint32)], **options)


@pytest.mark.parametrize("name", ORDERED)
def test_barriers_of_block_and_warp_order_as_without_mbarriers(name):
    run(START + BARRIER.format(count=1) + ORDERED[name])


@pytest.mark.parametrize("name", RACES)
def test_races_are_found_as_without_mbarriers(name):
    with pytest.raises(PtxError, match="race"):
        run(START + BARRIER.format(count=1) + RACES[name])
    run(START + BARRIER.format(count=1) + RACES[name], check_races=False)


FAR = "xor.b32 %r4, %r3, 128;"  # the same lane of the other warp
SYNCHRONISED = {
    "every thread arrives, every thread waits": (64, STORE + ARRIVE + WAIT + "ld.shared.u32 %r5, [%r4];"),
    "read, then written by another": (64, "ld.shared.u32 %r5, [%r4];" + ARRIVE + WAIT + STORE),
    "one lane arrives for its warp": (
        2,
        STORE + "bar.warp.sync -1; and.b32 %r6, %r59, 31; setp.eq.u32 %p2, %r6, 0;"
        f"@%p2 {ARRIVE} {WAIT} ld.shared.u32 %r5, [%r4];",
    ),
    "one lane waits for its warp": (
        64,
        STORE + ARRIVE + "and.b32 %r6, %r59, 31; setp.ne.u32 %p2, %r6, 5; @%p2 bra on;"
        f"{WAIT} on: bar.warp.sync -1; ld.shared.u32 %r5, [%r4];",
    ),
    "one lane of one warp waits for its block": (
        64,
        STORE + ARRIVE + f"setp.ne.u32 %p2, %r59, 7; @%p2 bra on; {WAIT} on: bar.sync 0; ld.shared.u32 %r5, [%r4];",
    ),
    "atomics, then a barrier of the block": (
        64,
        f"red.shared.add.u32 [s], 1; {ARRIVE} bar.sync 0; ld.shared.u32 %r5, [s];",
    ),
    "atomics of different instructions": (64, "red.shared.add.u32 [s], 1; red.shared.max.u32 [s], %r59;"),
    "matrices": (
        64,
        STORE + ARRIVE + WAIT + "and.b32 %r5, %r59, 7; shl.b32 %r5, %r5, 4; add.u32 %r5, %r5, %r1;"
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r5];",
    ),
    "copies that arrive themselves": (
        64,
        "cp.async.ca.shared.global [%r3], [%rd0], 4; cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r50];"
        + WAIT
        + "ld.shared.u32 %r5, [%r4];",
    ),
}
UNSYNCHRONISED = {
    "nobody waits": (64, STORE + ARRIVE + "ld.shared.u32 %r5, [%r4];", "read of an address another thread wrote"),
    "arrived before the store": (64, ARRIVE + STORE + WAIT + "ld.shared.u32 %r5, [%r4];", "read of an address"),
    "arrived before the read": (64, ARRIVE + "ld.shared.u32 %r5, [%r4];" + WAIT + STORE, "write to an address"),
    "one lane arrives for its warp, the others run ahead": (
        2,
        STORE + f"and.b32 %r6, %r59, 31; setp.eq.u32 %p2, %r6, 0; @%p2 {ARRIVE} {WAIT} ld.shared.u32 %r5, [%r4];",
        "read of an address another thread wrote",
    ),
    "one lane waits, the others run ahead": (
        64,
        STORE + ARRIVE + "and.b32 %r6, %r59, 31; setp.ne.u32 %p2, %r6, 0; @%p2 bra on;"
        f"{WAIT} on: ld.shared.u32 %r5, [%r4];",
        "read of an address another thread wrote",
    ),
    "matrices of others": (
        64,
        STORE + ARRIVE + "and.b32 %r5, %r59, 7; shl.b32 %r5, %r5, 4; add.u32 %r5, %r5, %r1;"
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r5];",
        "read of an address another thread wrote",
    ),
    "copies that another thread's wait for their group does not cover": (
        64,
        "cp.async.ca.shared.global [%r3], [%rd0], 4;" + ARRIVE + WAIT + "cp.async.wait_all; ld.shared.u32 %r5, [%r4];",
        "cp.async destination|read of an address",
    ),
}


OWN_ROW = "mad.lo.u32 %r5, %r59, 16, %r1; st.shared.v4.u32 [%r5], {%r5,%r5,%r5,%r5};"
MATRIX = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r6,%r7,%r8,%r9}, [%r5];"
SYNC = "bar.warp.sync -1;"
# Lanes 30 and 31 read, lane 31 arrives for both; thread 32 waits and writes.
TWO_READERS = f"""
    setp.eq.u32 %p2, %r59, 30; setp.eq.u32 %p3, %r59, 31; setp.eq.u32 %p4, %r59, 32; or.pred %p5, %p2, %p3;
    READS @%p3 {ARRIVE} @!%p4 bra out; {WAIT} st.shared.u32 [s], %r59; out: mov.u32 %r6, 0;"""
READS = {
    "at once": "@%p5 ld.shared.u32 %r5, [s];",
    "one after the other": "@%p2 ld.shared.u32 %r5, [s]; @%p3 ld.shared.u32 %r5, [s];",
    "both, then the one": "@%p5 ld.shared.u32 %r5, [s]; @%p3 ld.shared.u32 %r5, [s];",
    "one before the other": "@%p3 ld.shared.u32 %r5, [s]; @%p2 ld.shared.u32 %r5, [s];",
}
UNSYNCHRONISED |= {
    "row of one's own read by the warp": (64, OWN_ROW + MATRIX, "read of an address another thread wrote"),
    "row of one's own written while the warp reads it": (
        64,
        OWN_ROW + SYNC + MATRIX + OWN_ROW.replace("{%r5,", "{%r6,"),
        "write to an address another thread read",
    ),
} | {
    f"two lanes read {how}, one arrives": (1, TWO_READERS.replace("READS", reads), "write to an address another")
    for how, reads in READS.items()
}
SYNCHRONISED |= {
    "rows of one's own after a barrier of the warp": (64, OWN_ROW + SYNC + MATRIX + SYNC + OWN_ROW),
} | {f"two lanes read {how}, then meet": (1, TWO_READERS.replace("READS", READS[how] + SYNC)) for how in READS}


def program(count, body):
    return START + FAR + BARRIER.format(count=count) + "bar.sync 0;" + body


@pytest.mark.parametrize("name", SYNCHRONISED)
def test_arrivals_and_waits_order(name):
    run(program(*SYNCHRONISED[name]))


@pytest.mark.parametrize("name", UNSYNCHRONISED)
def test_without_them_it_is_a_race(name):
    count, body, message = UNSYNCHRONISED[name]
    with pytest.raises(PtxError, match=message):
        run(program(count, body))


def test_any_number_of_mbarriers():
    others = "".join(f"mbarrier.init.shared::cta.b64 [%r50+{8 * i}], 1;" for i in range(1, 20))
    arrivals = "".join(ARRIVE.replace("%r50", f"%r50+{8 * i}") for i in range(1, 20))
    body = program(64, STORE + f"{ARRIVE} @!%p9 bra on; {others} {arrivals} on: {WAIT} ld.shared.u32 %r5, [%r4];")
    run(body)
    with pytest.raises(PtxError, match="read of an address another thread wrote"):
        run(body.replace(STORE + ARRIVE, ARRIVE + STORE))


def test_order_is_handed_on_through_a_third_thread():
    # Thread 0 stores and arrives; thread 32 waits and arrives elsewhere; thread 64 waits there only, and reads.
    second = WAIT.replace("%r50", "%r51")
    body = f"""
        {element(0, "%rd0")} mov.u32 %r1, s; {BARRIER.format(count=1)} add.u32 %r51, %r50, 8;
        @%p9 mbarrier.init.shared::cta.b64 [%r51], 1; bar.sync 0;
        setp.eq.u32 %p2, %r59, 32; @%p2 bra second; setp.eq.u32 %p3, %r59, 64; @%p3 bra third; @!%p9 bra out;
        st.shared.u32 [s], %r1; {ARRIVE} bra out;
        second: {WAIT} {ARRIVE.replace("%r50", "%r51")} bra out;
        third: {second} ld.shared.u32 %r5, [s];
        out: mov.u32 %r6, 0;"""
    run(body, block=128)
    with pytest.raises(PtxError, match="read of an address another thread wrote"):
        run(body.replace(f"second: {WAIT}", "second: "), block=128)
