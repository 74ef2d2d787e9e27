"""What the PTX emulator refuses: wrong accesses, races, partial warps, missing barriers."""

import re

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import element, module


def run_with_shared(body, block=64, **options):
    return launch(
        module(body, "u64", ".shared .align 16 .b8 s[1024];"),
        grid=1,
        block=block,
        args=[np.zeros(64, np.uint32)],
        **options,
    )


START = element(0, "%rd0") + "mov.u32 %r1, s; shl.b32 %r2, %r59, 2; add.u32 %r3, %r1, %r2; xor.b32 %r4, %r3, 128;"
ERRORS = {
    "global access out of bounds": "st.global.u32 [%rd0+4], %r1;",
    "unmapped address": "mov.u64 %rd1, 64; ld.global.u32 %r5, [%rd1];",
    "misaligned global access of 4": "st.global.u32 [%rd0+2], %r1;",
    "misaligned global access of 16": "ld.global.v4.u32 {%r5,%r6,%r7,%r8}, [%rd0];",
    "shared access out of bounds": "st.shared.u32 [%r3+1020], %r1;",
    "misaligned shared access of 8": "st.shared.v2.u32 [%r3], {%r1,%r1};",
    "read of an address another thread wrote": "st.shared.u32 [%r3], %r59; ld.shared.u32 %r5, [%r4];",
    "write to an address another thread read": "ld.shared.u32 %r5, [%r4]; st.shared.u32 [%r3], %r59;",
    "two threads write different values": "st.shared.u32 [s], %r59;",
    "cp.async destination before its thread waited": (
        "cp.async.ca.shared.global [%r3], [%rd0], 4; cp.async.commit_group; bar.sync 0; ld.shared.u32 %r5, [%r3];"
    ),
    "barrier divergence": "setp.lt.u32 %p1, %r59, 8; @%p1 bra a; bar.sync 0; a: mov.u32 %r5, 0;",
    "other threads of the block have exited": "setp.lt.u32 %p1, %r59, 32; @%p1 ret; bar.sync 0;",
    "runaway loop": "forever: bra forever;",
    "threads wait at different barriers [0, 1]": (
        "setp.lt.u32 %p1, %r59, 32; @%p1 bra a; bar.sync 0; bra b; a: bar.sync 1; b: mov.u32 %r5, 0;"
    ),
    "only barriers of the whole block": "bar.sync 0, 32;",
    "lanes point to different spaces": (
        "cvt.u64.u32 %rd1, %r3; cvta.shared.u64 %rd1, %rd1; setp.lt.u32 %p1, %r59, 8;"
        "selp.b64 %rd1, %rd1, %rd0, %p1; ld.u32 %r5, [%rd1];"
    ),
    "executed by 8 of the 32 lanes": (
        "setp.gt.u32 %p1, %r59, 7; @%p1 bra a; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r1]; "
        "a: mov.u32 %r5, 0;"
    ),
    "member mask 0xffffffff executed by lanes 0xff": (
        "setp.gt.u32 %p1, %r59, 7; @!%p1 shfl.sync.idx.b32 %r5, %r1, 0, 31, -1;"
    ),
    "unsupported instruction wmma": "wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 {%r5}, [%r1];",
    "unsupported modifier .rz": "add.rz.f32 %f1, %f2, %f3;",
    "unknown operand": "mov.u32 %r5, %r999;",
    "unknown operand '%globaltimer'": "mov.u64 %rd1, %globaltimer;",
    "unknown operand '%clock64'": "mov.u64 %rd1, %clock64;",
    "unsupported instruction st.async": (
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r3], %r1, [%r1];"
    ),
    "unsupported instruction red.async": (
        "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r3], %r1, [%r1];"
    ),
    "unsupported instruction cp.async.bulk.global.shared::cta.bulk_group": (
        "cp.async.bulk.global.shared::cta.bulk_group [%rd0], [%r1], 16;"
    ),
    "unsupported instruction cp.async.bulk.commit_group": "cp.async.bulk.commit_group;",
    "unsupported instruction cp.async.bulk.wait_group": "cp.async.bulk.wait_group 0;",
    "unsupported instruction cp.async.bulk.tensor": (
        "cp.async.bulk.tensor.1d.shared::cta.global.mbarrier::complete_tx::bytes [%r1], [%rd0, {%r2}], [%r1];"
    ),
    "unsupported instruction cp.reduce.async.bulk": (
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd0], [%r1], 16;"
    ),
    "unsupported instruction createpolicy.range": "createpolicy.range.L2::evict_last.b64 %rd1, [%rd0], 16, 16;",
    "unsupported instruction fence.proxy.tensormap": "fence.proxy.tensormap::generic.release.gpu;",
    "unsupported instruction mbarrier.arrive_drop": "mbarrier.arrive_drop.shared::cta.b64 %rd1, [%r1];",
    "unsupported instruction mbarrier.pending_count": "mbarrier.pending_count.b64 %r5, %rd0;",
    "unsupported instruction mbarrier.arrive.release.cluster.shared::cluster": (
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r1];"
    ),
    "elect.sync with member mask 0xffffffff executed by lanes 0xff": (
        "setp.gt.u32 %p1, %r59, 7; @!%p1 elect.sync %r5|%p2, -1;"
    ),
    "local access": "ld.local.u32 %r5, [0];",
}


@pytest.mark.parametrize("message", ERRORS)
def test_misbehaviour_is_an_error(message):
    with pytest.raises(PtxError, match=re.escape(message)):
        run_with_shared(START + ERRORS[message], max_steps=1000)


def test_errors_name_instruction_thread_address_and_block():
    with pytest.raises(PtxError) as caught:
        run_with_shared(START + "st.global.u32 [%rd0+4], %r1;")
    error = caught.value
    assert error.instruction == "st.global.u32 [%rd0+4], %r1"
    assert (error.thread, error.block) == (63, (0, 0, 0))
    assert error.address is not None
    assert error.address % 2**40 == 256
    assert all(
        part in str(error) for part in ("thread 63", "offset 256 + 4 bytes of the 256 bytes of array 0", "block")
    )


def test_a_wrong_pointer_never_reads_a_neighbour():
    # Element 64 of the first array must not be element 0 of the second one, nor the first one's after it.
    body = element(0, "%rd0") + element(1, "%rd1") + "ld.global.u32 %r1, [%rd0+{0}];"
    for offset in (256, -256, 2**31 - 1 - 3, -(2**31)):
        with pytest.raises(PtxError, match="global access"):
            launch(
                module(body.replace("{0}", str(offset)), "u64 u64"),
                grid=1,
                block=64,
                args=[np.zeros(64, np.uint32)] * 2,
            )


def test_read_only_arrays_cannot_be_written():
    array = np.zeros(64, np.uint32)
    array.flags.writeable = False
    with pytest.raises(PtxError, match="write to the read-only array 0"):
        launch(module(element(0, "%rd0") + "st.global.u32 [%rd0], %r59;", "u64"), grid=1, block=64, args=[array])


ORDERED = {
    "barrier": "st.shared.u32 [%r3], %r59; bar.sync 0; ld.shared.u32 %r5, [%r4];",
    "warp barrier": (
        "xor.b32 %r4, %r3, 4; st.shared.u32 [%r3], %r59; bar.warp.sync -1; ld.shared.u32 %r5, [%r4]; "
        "bar.warp.sync -1; st.shared.u32 [%r3], %r5;"
    ),
    "own data": "st.shared.u32 [%r3], %r59; ld.shared.u32 %r5, [%r3]; st.shared.u32 [%r3], %r5;",
    "same value": "st.shared.u32 [s], %r1; bar.sync 0; ld.shared.u32 %r5, [s];",
    "atomics": "atom.shared.add.u32 %r5, [s], 1; bar.sync 0; ld.shared.u32 %r6, [s];",
    "waited copy": (
        "cp.async.ca.shared.global [%r3], [%rd0], 4; cp.async.wait_all; ld.shared.u32 %r5, [%r3]; "
        "bar.sync 0; ld.shared.u32 %r5, [%r4];"
    ),
}


@pytest.mark.parametrize("name", ORDERED)
def test_ordered_accesses_are_no_race(name):
    run_with_shared(START + ORDERED[name])


RACES = {
    # Every lane reads word 0; the last one then writes it: the other 63 reads are unordered with the write.
    "broadcast read, own write": "ld.shared.u32 %r5, [s]; setp.eq.u32 %p1, %r59, 63; @%p1 st.shared.u32 [s], %r5;",
    "warp barrier does not order two warps": "st.shared.u32 [%r3], %r59; bar.warp.sync -1; ld.shared.u32 %r5, [%r4];",
    "waited copy, other thread, no barrier": (
        "cp.async.ca.shared.global [%r3], [%rd0], 4; cp.async.wait_all; ld.shared.u32 %r5, [%r4];"
    ),
    "atomic and plain read": "atom.shared.add.u32 %r5, [s], 1; ld.shared.u32 %r6, [s];",
    "copy over data being read": "ld.shared.u32 %r5, [%r4]; cp.async.ca.shared.global [%r3], [%rd0], 4;",
    "ldmatrix of fresh data": (
        "st.shared.u32 [%r3], %r59; and.b32 %r5, %r59, 7; shl.b32 %r5, %r5, 4; add.u32 %r5, %r5, %r1; "
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r5];"
    ),
}


@pytest.mark.parametrize("name", RACES)
def test_races_are_found_and_the_check_can_be_switched_off(name):
    with pytest.raises(PtxError, match="race"):
        run_with_shared(START + RACES[name])
    run_with_shared(START + RACES[name], check_races=False)


def test_wait_group_leaves_the_latest_groups_pending():
    copy = "cp.async.ca.shared.global [%r3+{0}], [%rd0], 4; cp.async.commit_group;"
    copies = "".join(copy.replace("{0}", str(256 * i)) for i in range(3))
    run_with_shared(START + copies + "cp.async.wait_group 1; ld.shared.u32 %r5, [%r3]; ld.shared.u32 %r5, [%r3+256];")
    with pytest.raises(PtxError, match="before its thread waited"):
        run_with_shared(START + copies + "cp.async.wait_group 1; ld.shared.u32 %r5, [%r3+512];")
