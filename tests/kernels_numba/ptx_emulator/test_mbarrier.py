"""Phases of mbarriers as the PTX ISA defines them: arrivals, bytes, parities and states."""

import re

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import module

START = """
    mov.u32 %r59, %tid.x; mov.u32 %r1, s; ld.param.u64 %rd1, [p0]; ld.param.u64 %rd2, [p1];
    mul.wide.u32 %rd3, %r59, 4; add.s64 %rd2, %rd2, %rd3; setp.ne.u32 %p9, %r59, 0; mov.u32 %r9, 0;
    @%p9 bra begin; mbarrier.init.shared::cta.b64 [s], {count}; fence.proxy.async; begin: bar.sync 0;"""
SHARED = ".shared .align 16 .b8 s[528];"
END = "st.global.u32 [%rd2], %r9;"


def run(body, count=1, block=32, **options):
    """What every thread leaves in %r9."""
    out = np.zeros(block, np.uint32)
    text = module(START.format(count=count) + body + END, "u64 u64", SHARED)
    source = np.arange(128, dtype=np.uint32)
    launch(text, grid=1, block=block, args=[source, out], max_steps=5000, **options)
    return out


def arrive(extra=""):
    return f"mbarrier.arrive.shared::cta.b64 %rd4, [s]{extra};"


def look(parity, bit):
    """Add 2**bit to %r9 where a test for the parity succeeds, tried twice as any test may fail."""
    test = f"mbarrier.test_wait.parity.shared::cta.b64 %p1, [s], {parity};"
    return f"{test} @!%p1 {test} selp.u32 %r8, {1 << bit}, 0, %p1; add.u32 %r9, %r9, %r8;"


def test_parity_of_the_phases():
    # Nothing arrived: the phase before the first one, of parity 1, counts as complete, the first one does not.
    one = f"@!%p9 {arrive()} bar.warp.sync -1;"
    assert set(run(look(0, 0) + look(1, 1))) == {2}
    assert set(run(one + look(0, 0) + look(1, 1))) == {1}
    assert set(run(one + one + look(0, 0) + look(1, 1))) == {2}


def test_who_has_waited_knows():
    once = "mbarrier.test_wait.parity.shared::cta.b64 %p1, [s], 0; selp.u32 %r9, 1, 0, %p1;"
    wait = "again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s], 0; @!%p1 bra again;"
    assert set(run(arrive() + wait + once, 32)) == {1}
    assert set(run(arrive() + f"@%p9 bra on; {wait} on: bar.warp.sync -1;" + once, 32)) == {1}
    assert set(run(arrive() + once, 32)) == {0}  # another lane might have been slower


def test_neighbours_are_different_mbarriers():
    assert set(run("@!%p9 mbarrier.init.shared::cta.b64 [s+8], 1; bar.warp.sync -1;" + arrive() + look(0, 0), 32)) == {
        1
    }


@pytest.mark.parametrize(("count", "extra"), [(32, ""), (64, ", 2"), (96, ", 3")])
def test_a_phase_takes_as_many_arrivals_as_were_announced(count, extra):
    assert set(run(arrive(extra) + look(0, 0), count)) == {1}
    assert set(run(arrive(extra) + arrive(extra) + look(0, 0) + look(1, 1), count)) == {2}
    with pytest.raises(PtxError, match=f"arrival of {count}, allowed are 1 to the pending ones: .* {count - 1} of"):
        run(f"@%p9 bra out; {arrive()} {arrive(f', {count}')} out: mov.u32 %r8, 0;", count)


WAIT_FOR_STATE = "again: mbarrier.try_wait.acquire.cta.shared::cta.b64 %p1, [s], %rd4, 1000; @!%p1 bra again;"


def test_states_name_the_phase_of_their_arrival():
    assert set(run(f"{arrive()} {WAIT_FOR_STATE} mov.u32 %r9, 5;", 32)) == {5}
    with pytest.raises(PtxError, match="a state that is not of this or the last phase"):
        run(f"{arrive()} mov.u64 %rd5, %rd4; {arrive()} {arrive()} mov.u64 %rd4, %rd5; {WAIT_FOR_STATE}", 32)
    with pytest.raises(PtxError, match="deadlock: waits for a phase that nobody completes"):
        run(f"{arrive()} {WAIT_FOR_STATE}", 33)


def test_bytes_may_be_expected_after_the_copy_was_issued():
    copy = "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [s+16], [%rd1], 64, [s];"
    parity = "again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s], 0; @!%p1 bra again; ld.shared.u32 %r9, [s+76];"
    expect = "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [s], 64;"
    body = f"@%p9 bra wait; {copy} {expect} {arrive()} wait: {parity}"
    assert set(run(body)) == {15}
    with pytest.raises(PtxError, match="unarmed mbarrier: its phase completes before the 64 bytes"):
        run(body.replace(expect, ""))
    with pytest.raises(PtxError, match="bulk copy of data of array 0 that this launch has written"):
        run("st.global.u32 [%rd1], %r9;" + body)
    with pytest.raises(PtxError, match=r"2097150 bytes expected at a mbarrier; at most 1048575"):
        run(f"@%p9 bra out; {expect.replace('64;', '1048575;') * 2} out: mov.u32 %r9, 0;")


def test_a_copy_of_no_bytes_completes_like_any_other():
    copy = "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [s+16], [%rd1], 0, [s];"
    wait = "again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s], 0; @!%p1 bra again;"
    body = f"@%p9 bra wait; mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [s], 0; {copy} {arrive()} wait: {wait}"
    assert set(run(body + "mov.u32 %r9, 3;")) == {3}


ASYNC = """
    mul.wide.u32 %rd5, %r59, 4; add.s64 %rd5, %rd5, %rd1; mad.lo.u32 %r2, %r59, 4, %r1;
    cp.async.ca.shared.global [%r2+16], [%rd5], 4; {arrive} [s]; {more}
    again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s], 0; @!%p1 bra again;
    xor.b32 %r3, %r2, 4; ld.shared.u32 %r9, [%r3+16];"""


def test_ordinary_asynchronous_copies_arrive_when_they_are_complete():
    noinc, inc = "cp.async.mbarrier.arrive.noinc.shared::cta.b64", "cp.async.mbarrier.arrive.shared.b64"
    expected = [lane ^ 1 for lane in range(32)]
    assert run(ASYNC.format(arrive=noinc, more=""), 32).tolist() == expected
    # Without noinc the arrival is one more, and the one that was announced is still to come.
    assert run(ASYNC.format(arrive=inc, more=arrive()), 32).tolist() == expected
    with pytest.raises(PtxError, match=r"nobody completes: .* 32 of 32 arrivals pending"):
        run(ASYNC.format(arrive=inc, more=""), 32)
    later = ASYNC.replace("again:", "cp.async.ca.shared.global [%r2+272], [%rd5], 4; again:")
    with pytest.raises(PtxError, match=r"cp\.async destination before its thread waited"):  # begun after the arrival
        run(later.format(arrive=noinc, more="") + "ld.shared.u32 %r8, [%r2+272];", 32)


def test_bytes_of_a_dead_mbarrier_are_ordinary_memory():
    body = "@%p9 bra out; {} mov.u32 %r5, 9; st.shared.u32 [s], %r5; ld.shared.u32 %r9, [s]; out: mov.u32 %r8, 0;"
    assert run(body.format("mbarrier.inval.shared::cta.b64 [s];"))[0] == 9
    again = "mbarrier.inval.shared::cta.b64 [s]; st.shared.u32 [s], %r59; mbarrier.init.shared::cta.b64 [s], 1;"
    again += "mbarrier.inval.shared::cta.b64 [s]; ld.shared.u32 %r9, [s];"
    with pytest.raises(PtxError, match="undefined register %r9"):  # as where nothing was stored
        run(f"@%p9 bra out; {again} out: mov.u32 %r8, 0;")
    with pytest.raises(PtxError, match="write of a mbarrier, which is opaque"):
        run(body.format(""))
    with pytest.raises(PtxError, match=r"mbarrier\.inval on a mbarrier that is not initialised"):
        run(body.format("mbarrier.inval.shared::cta.b64 [s];" * 2))


def test_generic_addresses_must_point_to_shared_memory():
    body = "mov.u64 %rd5, s; cvta.shared.u64 %rd5, %rd5; {} mbarrier.arrive.b64 _, [%rd5]; mov.u32 %r9, 1;"
    assert set(run(body.format(""), 32)) == {1}
    with pytest.raises(PtxError, match="mbarrier in global memory"):
        run(body.format("mov.u64 %rd5, %rd1;"), 32)


def test_waiting_threads_do_not_hold_up_others():
    # The wait comes first in the program; the warp whose arrivals it needs stands behind it.
    body = f"""
        setp.ge.u32 %p2, %r59, 32; @%p2 bra later;
        again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s], 0; @!%p1 bra again; mov.u32 %r9, 1; bra out;
        later: mov.u32 %r8, 0; loop: add.u32 %r8, %r8, 1; setp.lt.u32 %p3, %r8, 100; @%p3 bra loop; {arrive()}
        out: bar.sync 0;"""
    assert run(body, 32, block=64).tolist() == [1] * 32 + [0] * 32
    with pytest.raises(PtxError, match=r"deadlock: waits for a phase .* 1 of 33 arrivals") as caught:
        run(body, 33, block=64)
    assert re.search(r"thread 0; instruction \d+: mbarrier.try_wait", str(caught.value))


def test_who_waits_outlives_who_has_ended():
    body = f"""
        setp.lt.u32 %p2, %r59, 32; @%p2 bra again; {arrive()} ret;
        again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s], 0; @!%p1 bra again; mov.u32 %r9, 1;"""
    assert run(body, 32, block=64).tolist() == [1] * 32 + [0] * 32
    with pytest.raises(PtxError, match="deadlock: waits for a phase that nobody completes"):
        run(body, 33, block=64)


def test_a_warp_waits_for_its_lane_that_waits():
    # Lane 0 waits alone; its warp must not run ahead into instructions that need it.
    body = f"""
        setp.ge.u32 %p2, %r59, 32; @%p2 bra later; @%p9 bra on;
        again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s], 0; @!%p1 bra again; mov.u32 %r9, 7;
        on: shfl.sync.idx.b32 %r9, %r9, 0, 31, -1; bra out;
        later: {arrive()} out: bar.sync 0;"""
    assert run(body, 32, block=64).tolist() == [7] * 32 + [0] * 32


def test_a_thread_may_do_something_else_until_a_phase_is_complete():
    # It arrives itself once it has looked in vain: a test that fails must not be an end.
    body = f"@%p9 bra out; again: mbarrier.test_wait.parity.shared::cta.b64 %p1, [s], 0; @%p1 bra out; {arrive()}"
    assert run(body + "add.u32 %r9, %r9, 1; bra again; out: mov.u32 %r8, 0;", 3)[0] == 3


ERRORS = {
    "parity 2; allowed are 0 and 1": look(2, 0),
    "needs the bytes to expect": "mbarrier.arrive.expect_tx.shared::cta.b64 _, [s];",
    "mbarrier.init with count 1048576": "@!%p9 mbarrier.init.shared::cta.b64 [s+8], 1048576;",
    "misaligned shared access of 8": "mbarrier.arrive.shared::cta.b64 _, [s+4];",
    "out of bounds": "mbarrier.arrive.shared::cta.b64 _, [s+528];",
    "not initialised": "mbarrier.test_wait.parity.shared::cta.b64 %p1, [s+8], 0;",
    "mbarrier.init of a cp.async destination": (
        "cp.async.ca.shared.global [s+16], [%rd1], 16; @!%p9 mbarrier.init.shared::cta.b64 [s+16], 1;"
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_misuse_is_an_error(message):
    with pytest.raises(PtxError, match=message):
        run(ERRORS[message])
