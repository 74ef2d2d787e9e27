"""Bulk copies through rings of stages: two kernels that are right, and bugs planted in them, each caught by name."""

import re

import numpy as np
import pytest

from kernels_numba.ptx_emulator import GlobalTraffic, PtxError, SharedTraffic, launch
from tests.kernels_numba.ptx_emulator.programs import module

WARPS, STAGES, TILES, TILE_BYTES = 2, 3, 7, 512
BARRIERS = WARPS * STAGES * TILE_BYTES  # byte offset behind the rings
SHARED = f".shared .align 128 .b8 s[{BARRIERS + 128}];"

INDICES = f"""
    mov.u32 %r59, %tid.x; and.b32 %r1, %r59, 31; shr.u32 %r2, %r59, 5; mov.u32 %r3, s; setp.eq.u32 %p1, %r1, 0;
    ld.param.u64 %rd1, [p0]; ld.param.u64 %rd2, [p1]; mul.wide.u32 %rd3, %r59, 4; add.s64 %rd2, %rd2, %rd3;
    createpolicy.fractional.L2::evict_first.b64 %rd9, 1.0;
    mad.lo.u32 %r4, %r2, {STAGES * TILE_BYTES}, %r3; mad.lo.u32 %r5, %r2, {STAGES * 8}, %r3;
    add.u32 %r5, %r5, {BARRIERS};"""
FILL = f"""
    @%p2 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r7], {TILE_BYTES};
    @%p2 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint
        [%r6], [%rd4], {TILE_BYTES}, [%r7], %rd9;
    add.s64 %rd4, %rd4, {TILE_BYTES};"""
WAIT = """{ .reg .pred p; WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%r7], %r9; @!p bra WAIT; }"""
# Each lane adds up the four words that its neighbour's copy would be.
USE = """
    xor.b32 %r10, %r1, 1; mad.lo.u32 %r10, %r10, 16, %r6; ld.shared.v4.u32 {%r11,%r12,%r13,%r14}, [%r10];
    add.u32 %r11, %r11, %r12; add.u32 %r11, %r11, %r13; add.u32 %r11, %r11, %r14;
    st.global.u32 [%rd2], %r11;"""
NEXT = f"""
    add.s64 %rd2, %rd2, {4 * 32 * WARPS}; add.u32 %r8, %r8, 1; add.u32 %r6, %r6, {TILE_BYTES}; add.u32 %r7, %r7, 8;
    sub.u32 %r15, %r7, %r5; setp.eq.u32 %p3, %r15, {8 * STAGES};
    @%p3 mov.u32 %r6, %r4; @%p3 mov.u32 %r7, %r5; @%p3 xor.b32 %r9, %r9, 1;"""

# Every warp streams its own tiles: zeroes the ring first, so that what is not copied would show; lane 0 fills it.
OWN_RING = f"""
    {INDICES}
    mul.wide.u32 %rd4, %r2, {TILES * TILE_BYTES}; add.s64 %rd4, %rd4, %rd1;
    mad.lo.u32 %r6, %r1, 16, %r4; mov.u32 %r16, 0; mov.u32 %r8, 0;
    zero: st.shared.v4.u32 [%r6], {{%r16,%r16,%r16,%r16}}; add.u32 %r6, %r6, {TILE_BYTES}; add.u32 %r8, %r8, 1;
    setp.lt.u32 %p2, %r8, {STAGES}; @%p2 bra zero;
    fence.proxy.async.shared::cta;
    @!%p1 bra begin;
    mbarrier.init.shared::cta.b64 [%r5], 1; mbarrier.init.shared::cta.b64 [%r5+8], 1;
    mbarrier.init.shared::cta.b64 [%r5+16], 1; fence.mbarrier_init.release.cluster;
    begin: bar.warp.sync -1;
    mov.u32 %r6, %r4; mov.u32 %r7, %r5; mov.u32 %r8, 0; mov.pred %p2, %p1;
    fill: {FILL} add.u32 %r6, %r6, {TILE_BYTES}; add.u32 %r7, %r7, 8; add.u32 %r8, %r8, 1;
    setp.lt.u32 %p3, %r8, {STAGES}; @%p3 bra fill;
    mov.u32 %r6, %r4; mov.u32 %r7, %r5; mov.u32 %r8, 0; mov.u32 %r9, 0;
    tile: {WAIT} {USE} bar.warp.sync -1;
    add.u32 %r15, %r8, {STAGES}; setp.lt.and.u32 %p2, %r15, {TILES}, %p1;
    {FILL} {NEXT} setp.lt.u32 %p3, %r8, {TILES}; @%p3 bra tile;"""

# Warp 0 fills one ring for both warps. Behind the mbarriers of full stages lie those of empty ones, on which both warps
# arrive; the parity of an empty stage is the other one.
SHARED_RING = f"""
    {INDICES} mov.u32 %r4, %r3; add.u32 %r5, %r3, {BARRIERS}; mov.u64 %rd4, %rd1;
    setp.ne.u32 %p4, %r59, 0; @%p4 bra begin;
    mov.u32 %r7, %r5; mov.u32 %r8, 0;
    init: mbarrier.init.shared::cta.b64 [%r7], 1; mbarrier.init.shared::cta.b64 [%r7+64], {WARPS};
    add.u32 %r7, %r7, 8; add.u32 %r8, %r8, 1; setp.lt.u32 %p2, %r8, {STAGES}; @%p2 bra init;
    fence.mbarrier_init.release.cluster;
    begin: bar.sync 0;
    mov.u32 %r6, %r4; mov.u32 %r7, %r5; mov.u32 %r8, 0; mov.u32 %r9, 0;
    mov.u32 %r26, %r4; mov.u32 %r27, %r5; mov.u32 %r28, 0; mov.u32 %r29, 1;
    @%p4 bra tile;
    more: setp.ge.u32 %p3, %r28, {TILES}; @%p3 bra tile;
    setp.ge.u32 %p5, %r28, {STAGES}; @%p5 bra tile;
    refill: add.u32 %r17, %r27, 64;
    {{ .reg .pred p; WAIT: mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 p, [%r17], %r29; @!p bra WAIT; }}
    mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %rd8, [%r27], {TILE_BYTES};
    cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r26], [%rd4], {TILE_BYTES}, [%r27];
    add.s64 %rd4, %rd4, {TILE_BYTES}; add.u32 %r28, %r28, 1; add.u32 %r26, %r26, {TILE_BYTES}; add.u32 %r27, %r27, 8;
    sub.u32 %r15, %r27, %r5; setp.eq.u32 %p3, %r15, {8 * STAGES};
    @%p3 mov.u32 %r26, %r4; @%p3 mov.u32 %r27, %r5; @%p3 xor.b32 %r29, %r29, 1;
    setp.le.u32 %p3, %r28, {STAGES}; @%p3 bra more;
    bra used;
    tile: {WAIT} {USE} bar.warp.sync -1; add.u32 %r17, %r7, 64;
    @%p1 mbarrier.arrive.shared::cta.b64 _, [%r17];
    {NEXT}
    setp.lt.and.u32 %p5, %r28, {TILES}, %p1; and.pred %p5, %p5, !%p4; @%p5 bra refill;
    used: setp.lt.u32 %p3, %r8, {TILES}; @%p3 bra tile;"""


def tiles():
    return np.arange(WARPS * TILES * TILE_BYTES // 4, dtype=np.uint32).reshape(-1, 32, 4) * np.uint32(2654435761)


def run(body, **options):
    out = np.zeros((TILES, WARPS, 32), np.uint32)
    body = module(body, "u64 u64", SHARED)
    result = launch(body, grid=1, block=32 * WARPS, args=[tiles(), out], max_steps=20_000, **options)
    return out, result.counters


def neighbours_sums(chosen):
    """(tiles, 32) sums of the four words of the neighbouring lane."""
    return chosen[:, np.arange(32) ^ 1].sum(axis=2, dtype=np.uint32)


def test_every_warp_streams_through_a_ring_of_its_own():
    out, counters = run(OWN_RING)
    assert (out.transpose(1, 0, 2).reshape(-1, 32) == neighbours_sums(tiles())).all()
    n = WARPS * TILES
    assert counters.by_array("load")[0] == GlobalTraffic(n, n * TILE_BYTES, n * TILE_BYTES // 32)
    assert counters.unique_sectors[0, "load"] == n * TILE_BYTES // 32
    wavefronts = n * TILE_BYTES // 128
    assert counters.shared("cp.async.bulk") == SharedTraffic(n, n * TILE_BYTES, wavefronts, wavefronts)
    assert counters.instructions["mbarrier.try_wait.parity.shared::cta.b64"] == 2 * n  # each gives up once


def test_one_warp_fills_a_ring_for_all():
    out, counters = run(SHARED_RING)
    assert (out == neighbours_sums(tiles()[:TILES])[:, None]).all()
    assert counters.by_array("load")[0].bytes == TILES * TILE_BYTES


def test_results_do_not_hang_on_the_checks():
    assert (run(OWN_RING, check_races=False)[0] == run(OWN_RING)[0]).all()


# Warp w copies 64 bytes on mbarrier w, and waits for it before both go on to {body}.
TWO_COPIES = f"""
    {INDICES} mad.lo.u32 %r7, %r2, 8, %r3; add.u32 %r7, %r7, {BARRIERS}; mad.lo.u32 %r6, %r2, 64, %r3; mov.u32 %r9, 0;
    @!%p1 bra begin; mbarrier.init.shared::cta.b64 [%r7], 1; fence.proxy.async;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r7], 64;
    cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r6], [%rd1], 64, [%r7];
    begin: bar.sync 0; {{body}} """


@pytest.mark.parametrize("waits", [f"@!%p1 bra on; {WAIT} on: bar.sync 0;", f"{WAIT} bar.sync 0;"])
def test_a_barrier_hands_on_what_one_thread_has_waited_for(waits):
    run(TWO_COPIES.format(body=waits + "ld.shared.u32 %r5, [s]; ld.shared.u32 %r5, [s+64];"))


def test_a_barrier_of_the_warp_hands_on_what_one_lane_has_waited_for():
    body = f"@!%p1 bra on; {WAIT} on: bar.warp.sync -1; ld.shared.u32 %r5, [%r6];"
    run(TWO_COPIES.format(body=body))
    with pytest.raises(PtxError, match="destination of a bulk copy that nobody has waited for"):
        run(TWO_COPIES.format(body=body.replace("bar.warp.sync -1;", "")))


def test_atomics_need_a_proxy_fence_too():
    atomic = "red.shared.add.u32 [s], 1; fence.proxy.async; bar.sync 0; @!%p1 bra begin;"
    body = TWO_COPIES.format(body=WAIT).replace("@!%p1 bra begin;", atomic)
    run(body)
    with pytest.raises(PtxError, match="no proxy fence"):
        run(body.replace("fence.proxy.async;", "", 1))


def test_data_that_another_warp_has_waited_for_is_not_everybodys():
    body = WAIT + "xor.b32 %r6, %r6, 64; ld.shared.u32 %r5, [%r6];"
    with pytest.raises(PtxError, match="race: read of an address another thread wrote"):
        run(TWO_COPIES.format(body=body))


def replace(old, new, count=-1):
    return lambda body: body.replace(old, new, count)


EXPECT, BYTES = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r7], 512", "[%rd4], 512"
INIT = "mbarrier.init.shared::cta.b64 [%r5], 1;"
# name -> (mutation of OWN_RING, what the error must say)
OWN_RING_BUGS = {
    "expectation dropped": (replace(f"@%p2 {EXPECT};", ""), "brings 512 bytes that nobody expects"),
    "arrival without expectation, before the copy": (
        replace(EXPECT, "mbarrier.arrive.shared::cta.b64 _, [%r7]"),
        "read of the destination of a bulk copy",
    ),
    "expectation without arrival": (
        replace(EXPECT, "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r7], 512"),
        "waits for a phase that nobody completes: .*1 of 1 arrivals pending, 0 bytes still expected",
    ),
    "too few bytes expected": (replace(EXPECT, EXPECT[:-3] + "496"), "brings 512 bytes that nobody expects"),
    "too many bytes expected": (
        replace(EXPECT, EXPECT[:-3] + "528"),
        "waits for a phase that nobody completes: .*0 of 1 arrivals pending, 16 bytes still expected",
    ),
    "expectation on the next stage": (
        replace("_, [%r7], 512", "_, [%r7+8], 512"),
        "on a mbarrier that another thread initialised without synchronisation since",
    ),
    "wrong parity": (replace("%r9, 0;", "%r9, 1;"), "read of the destination of a bulk copy"),
    "parity never flipped": (replace("@%p3 xor.b32 %r9, %r9, 1;", ""), "read of the destination of a bulk copy"),
    "parity flipped every tile": (replace("@%p3 xor.b32 %r9", "xor.b32 %r9"), "read of the destination of a bulk copy"),
    "no barrier before the refill": (replace("bar.warp.sync -1;\n    add.u32 %r15", "add.u32 %r15"), "early reuse"),
    "refill before the use": (
        lambda body: body.replace(FILL, "").replace("tile:", "tile:" + FILL),
        "waits for a phase that nobody completes",
    ),
    "no barrier after the initialisation": (replace("begin: bar.warp.sync -1;", "begin:"), "without synchronisation"),
    "never initialised": (replace(INIT, ""), "on a mbarrier that is not initialised"),
    "initialised twice": (replace(INIT, INIT + INIT), "mbarrier.init over a live mbarrier"),
    "initialised by every lane": (replace("@!%p1 bra begin;", ""), "mbarrier.init over a live mbarrier"),
    "initialised without a fence": (replace("fence.mbarrier_init.release.cluster;", ""), "without a fence since"),
    "initialised after the fence": (
        lambda body: body.replace(INIT, "").replace("release.cluster;", "release.cluster;" + INIT),
        "without a fence since",
    ),
    "no proxy fence": (replace("fence.proxy.async.shared::cta;", ""), "no proxy fence"),
    "a fence of one proxy only": (replace("fence.proxy.async.shared::cta;", "fence.acq_rel.cta;"), "no proxy fence"),
    "proxy fence of global memory": (replace("async.shared::cta;", "async.global;"), "no proxy fence"),
    "proxy fence of one lane": (replace("fence.proxy.async.shared", "@%p1 fence.proxy.async.shared"), "no proxy fence"),
    "fence of mbarriers only": (
        replace("fence.proxy.async.shared::cta;", "fence.mbarrier_init.release.cluster;"),
        "no proxy fence",
    ),
    "proxy fence before the stores": (
        lambda body: body.replace("fence.proxy.async.shared::cta;", "").replace("zero:", "fence.proxy.async; zero:", 1),
        "no proxy fence",
    ),
    "size no multiple of 16": (replace(BYTES, "[%rd4], 504"), "bulk copy of 504 bytes; allowed are multiples of 16"),
    "source misaligned": (replace("[%rd4], 512", "[%rd4+8], 512"), "misaligned global access"),
    "destination misaligned": (replace("[%r6], [%rd4]", "[%r6+8], [%rd4]"), "misaligned shared access of 16"),
    "mbarrier misaligned": (replace("512, [%r7], %rd9", "512, [%r7+4], %rd9"), "misaligned shared access of 8"),
    "source beyond its array": (replace("[%rd4], 512", "[%rd4+3584], 512"), "global access out of bounds"),
    "destination beyond shared memory": (replace("[%r6], [%rd4]", "[%r6+3584], [%rd4]"), "shared access out of bounds"),
    "destination ends beyond shared memory": (
        replace("[%r6], [%rd4]", "[s+3136], [%rd4]"),
        r"shared access out of bounds: offset 3136 \+ 512 bytes of 3200",
    ),
    "destination over the mbarriers": (
        replace("[%r6], [%rd4], 512", "[s+3072], [%rd4], 64"),
        "bulk copy of a mbarrier",
    ),
    "not waited": (replace(WAIT, ""), "read of the destination of a bulk copy"),
    "waited once, without a loop": (replace("@!p bra WAIT;", ""), "read of the destination of a bulk copy"),
    "waited at most twice": (
        replace("WAIT; }", "AGAIN; bra DONE; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%r7], 0; DONE: }"),
        "read of the destination of a bulk copy",
    ),
    "waited on the next stage's mbarrier": (
        replace("p, [%r7], %r9", "p, [%r7+8], %r9"),
        "read of the destination of a bulk copy",
    ),
    "two arrivals a phase": (
        replace("[%r5], 1;", "[%r5], 2;"),
        "waits for a phase that nobody completes: .*1 of 2 arrivals pending, 0 bytes still expected",
    ),
    "count of 0": (replace("[%r5], 1;", "[%r5], 0;"), "count 0; allowed are 1 to 1048575"),
    "too many arrivals": (
        replace("@%p2 mbarrier.arrive", "mbarrier.arrive"),
        "arrival of 1, allowed are 1 to the pending ones",
    ),
    "two copies to one place": (
        replace(
            "add.s64 %rd4, %rd4, 512;",
            "@%p2 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r6], [%rd4], 512, [%r7];",
            1,
        ),
        "bulk copy of the destination of a bulk copy",
    ),
    "mbarrier read as memory": (replace("tile:", "tile: ld.shared.u32 %r40, [%r7+4];"), "read of a mbarrier"),
    "mbarrier written as memory": (replace("tile:", "tile: st.shared.u64 [%r7], %rd9;"), "write of a mbarrier"),
    "atomic on a mbarrier": (replace("tile:", "tile: red.shared.add.u32 [%r7], 1;"), "update of a mbarrier"),
    "copies that nobody waits for": (
        replace("setp.lt.u32 %p3, %r8, 7;", "setp.lt.u32 %p3, %r8, 5;"),
        "the block ends while bulk copies are under way",
    ),
    "copy into the stage of the other warp": (
        replace("[%r6], [%rd4]", "[s], [%rd4]"),
        "bulk copy of the destination of a bulk copy",
    ),
    "inval with copies under way": (replace("tile:", "tile: mbarrier.inval.shared::cta.b64 [%r7];"), "under way"),
}
SHARED_RING_BUGS = {
    "nobody empties": (replace("@%p1 mbarrier.arrive.shared::cta.b64 _, [%r17];", ""), "2 of 2 arrivals pending"),
    "one warp empties": (replace("[%r7+64], 2;", "[%r7+64], 1;"), "in phase 2 with 1 of 1 arrivals pending"),
    "empty waits for a third warp": (replace("[%r7+64], 2;", "[%r7+64], 3;"), "1 of 3 arrivals pending"),
    "refill does not wait": (replace("[%r17], %r29; @!p bra WAIT;", "[%r17], %r29; @!p bra ON; ON:"), "early reuse"),
    "wrong parity of empty": (replace("%r29, 1;", "%r29, 0;", 1), "2 of 2 arrivals pending"),
    "lanes not gathered before they arrive": (replace("bar.warp.sync -1;", ""), "early reuse"),
    "no barrier after the initialisation": (replace("begin: bar.sync 0;", "begin:"), "without synchronisation"),
    "waits for full of the next stage": (
        replace("p, [%r7], %r9", "p, [%r7+8], %r9"),
        "read of the destination of a bulk copy",
    ),
    "only warp 0 waits for full": (
        replace(WAIT, "@%p4 bra on; " + WAIT + " on:"),
        "read of the destination of a bulk copy",
    ),
    "arrival relaxed": (
        replace("arrive.shared", "arrive.relaxed.cta.shared"),
        "unsupported instruction mbarrier.arrive",
    ),
}


@pytest.mark.parametrize("name", OWN_RING_BUGS)
def test_bug_in_a_ring_of_ones_own_is_caught(name):
    caught_by_name(OWN_RING, *OWN_RING_BUGS[name])


@pytest.mark.parametrize("name", SHARED_RING_BUGS)
def test_bug_in_a_shared_ring_is_caught(name):
    caught_by_name(SHARED_RING, *SHARED_RING_BUGS[name])


def caught_by_name(body, mutate, message):
    mutated = mutate(body)
    assert mutated != body
    with pytest.raises(PtxError, match=message) as caught:
        run(mutated)
    assert not re.search("runaway", str(caught.value))
