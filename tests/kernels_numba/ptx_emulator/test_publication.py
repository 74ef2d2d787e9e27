"""What one block hands to another through global memory: released and acquired, or an error."""

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import module

# Block 0 stores a word a thread and raises a flag; block 1 waits for it and copies what another warp's thread wrote.
START = """
    ld.param.u64 %rd0, [p0]; ld.param.u64 %rd1, [p1]; ld.param.u64 %rd2, [p2]; mov.u32 %r1, %tid.x; mov.u32 %r2, 1;
    mul.wide.u32 %rd4, %r1, 4; add.s64 %rd3, %rd0, %rd4; xor.b32 %r3, %r1, 33; mul.wide.u32 %rd5, %r3, 4;
    add.s64 %rd5, %rd0, %rd5; add.s64 %rd6, %rd2, %rd4; mov.u32 %r4, %ctaid.x; setp.eq.u32 %p1, %r1, 0;
    setp.ne.u32 %p2, %r4, 0; @%p2 bra second;"""
STORE, READ = "st.global.u32 [%rd3], %r3;", "ld.global.u32 %r6, [%rd5]; st.global.u32 [%rd6], %r6;"
RAISE = "fence.acq_rel.gpu; @%p1 st.relaxed.gpu.global.u32 [%rd1], %r2;"
POLL = "POLL: ld.acquire.gpu.global.u32 %r5, [%rd1]; setp.eq.u32 %p3, %r5, 0; @%p3 bra POLL;"
LOWER = "@%p1 st.global.u32 [%rd1], 0;"
BLOCK, WARP = "bar.sync 0;", "bar.warp.sync -1;"
FIRST, SECOND = STORE + BLOCK + RAISE, POLL + READ + BLOCK + LOWER


def run(first, second, n_blocks=2):
    values, flag, out = np.zeros(64, np.uint32), np.zeros(1, np.uint32), np.zeros(64, np.uint32)
    body = f"{START} {first} bra done; second: {second} done: mov.u32 %r9, 0;"
    launch(module(body, "u64 u64 u64"), grid=n_blocks, block=64, args=[values, flag, out], max_steps=2000)
    return out


HANDED_ON = {
    "every thread looks": (FIRST, SECOND),
    "one thread looks for its block": (FIRST, f"@!%p1 bra on; {POLL} on: {BLOCK} {READ}"),
    "a store that releases": (STORE + BLOCK + "@%p1 st.release.gpu.global.u32 [%rd1], %r2;", SECOND),
    "a fence under its older name": (STORE + BLOCK + RAISE.replace("fence.acq_rel.gpu", "membar.gl"), SECOND),
    "a relaxed look and a fence": (
        FIRST,
        POLL.replace("acquire", "relaxed") + "fence.acq_rel.gpu;" + READ,
    ),
    "an atomic for a flag": (
        STORE + BLOCK + "@%p1 fence.acq_rel.gpu; @%p1 red.relaxed.gpu.global.add.u32 [%rd1], 1;",
        "atom.acquire.gpu.global.add.u32 %r5, [%rd1], 0;" + READ,
    ),
}


@pytest.mark.parametrize("name", HANDED_ON)
def test_what_is_released_and_acquired_may_be_read(name):
    np.testing.assert_array_equal(run(*HANDED_ON[name]), np.arange(64))


BETWEEN, LOOK = "race between blocks: read of what another block wrote", "flag that another thread may still look at"
RACES = {
    "no fence": (FIRST.replace("fence.acq_rel.gpu;", ""), SECOND, BETWEEN),
    "a fence of the block only": (FIRST.replace("acq_rel.gpu", "acq_rel.cta"), SECOND, BETWEEN),
    "a fence before the stores": ("fence.acq_rel.gpu;" + FIRST.replace("fence.acq_rel.gpu;", ""), SECOND, BETWEEN),
    "stores after the fence": (RAISE + STORE, SECOND, BETWEEN),
    "a barrier of the warp only": (FIRST.replace(BLOCK, WARP), SECOND, BETWEEN),
    "no barrier before the flag": (STORE + RAISE, SECOND, BETWEEN),
    "a plain store for a flag": (FIRST.replace("relaxed.gpu.", ""), SECOND, BETWEEN),
    "a flag of the block's scope": (FIRST.replace("relaxed.gpu", "relaxed.cta"), SECOND, BETWEEN),
    "a plain look": (FIRST, SECOND.replace("acquire.gpu.", ""), BETWEEN),
    "a relaxed look": (FIRST, SECOND.replace("acquire", "relaxed"), BETWEEN),
    "no look": (FIRST, READ, BETWEEN),
    "read before the look": (FIRST, READ + SECOND, BETWEEN),
    "one thread looks, the others run ahead": (FIRST, f"@!%p1 bra on; {POLL} on: {READ}", BETWEEN),
    "one thread looks for its warp only": (FIRST, f"@!%p1 bra on; {POLL} on: {WARP} {READ}", BETWEEN),
    "read-only cache": (FIRST, SECOND.replace("ld.global.u32 %r6", "ld.global.nc.u32 %r6"), "read-only load"),
    "lowered while others look": (FIRST, SECOND.replace(BLOCK, ""), LOOK),
    "lowered while the other warp looks": (FIRST, SECOND.replace(BLOCK, WARP), LOOK),
}


@pytest.mark.parametrize("name", RACES)
def test_without_them_it_is_a_race(name):
    first, second, message = RACES[name]
    with pytest.raises(PtxError, match=message):
        run(first, second)


def test_a_third_block_relies_on_what_the_second_has_seen():
    """Causality goes on: block 1 acquires from block 0 and raises the flag anew; block 2 reads what block 0 wrote."""
    again = f"setp.gt.u32 %p4, %r4, 1; @%p4 bra third; {POLL} {BLOCK} {RAISE} bra done; third: {POLL} {READ}"
    np.testing.assert_array_equal(run(FIRST, again.replace("POLL", "POLLB", 2), 3), np.arange(64))
