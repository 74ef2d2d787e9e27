"""Exact counts of the PTX emulator against cases that can be worked out by hand."""

import json

import numpy as np
import pytest

from kernels_numba.ptx_emulator import Counters, SharedTraffic, launch
from tests.kernels_numba.ptx_emulator.programs import element, module

SHARED = ".shared .align 128 .b8 s[16384];"


def shared_access(instruction, offset, block=32):
    """Counters of one shared access; ``offset`` is PTX that turns thread %r59 into a byte offset %r2."""
    body = f"mov.u32 %r59, %tid.x; mov.u32 %r1, s; {offset} add.u32 %r3, %r1, %r2; {instruction}"
    return launch(module(body, "", SHARED), grid=1, block=block, args=[]).counters


STRIDE = "mul.lo.u32 %r2, %r59, {0};"


@pytest.mark.parametrize(
    ("stride_words", "wavefronts"), [(1, 1), (2, 2), (4, 4), (32, 32), (33, 1), (31, 1), (3, 1), (6, 2), (0, 1)]
)
@pytest.mark.parametrize("instruction", ["ld.shared.u32 %r4, [%r3];", "st.shared.u32 [%r3], %r1;"])
def test_strided_words_conflict_as_their_stride_divides_the_banks(instruction, stride_words, wavefronts):
    counters = shared_access(instruction, STRIDE.replace("{0}", str(4 * stride_words)))
    assert counters.shared() == SharedTraffic(requests=1, bytes=128, wavefronts=wavefronts, ideal_wavefronts=1)


@pytest.mark.parametrize(
    ("kind", "bytes_per_lane", "registers", "groups"),
    [
        ("u16", 2, "%h1", 1),
        ("v2.u32", 8, "{%r4,%r5}", 2),
        ("u64", 8, "%rd1", 2),
        ("v4.u32", 16, "{%r4,%r5,%r6,%r7}", 4),
    ],
)
def test_wide_accesses_take_one_wavefront_per_128_bytes(kind, bytes_per_lane, registers, groups):
    counters = shared_access(f"ld.shared.{kind} {registers}, [%r3];", STRIDE.replace("{0}", str(bytes_per_lane)))
    assert counters.shared("load") == SharedTraffic(1, 32 * bytes_per_lane, groups, groups)
    # Everyone on the same place: each group is one broadcast.
    counters = shared_access(f"ld.shared.{kind} {registers}, [%r3];", STRIDE.replace("{0}", "0"))
    assert counters.shared().bank_conflicts == 0


def test_16_byte_accesses_conflict_within_a_quarter_warp():
    # Rows of 64 halves (128 bytes): the 8 lanes of a quarter read one 16-byte column, all on the same 4 banks.
    column = "mul.lo.u32 %r2, %r59, 128;"
    assert shared_access("ld.shared.v4.u32 {%r4,%r5,%r6,%r7}, [%r3];", column).shared().wavefronts == 32
    padded = "mul.lo.u32 %r2, %r59, 144;"  # 16 bytes of padding shift every row by 4 banks
    assert shared_access("ld.shared.v4.u32 {%r4,%r5,%r6,%r7}, [%r3];", padded).shared().wavefronts == 4
    swizzled = "and.b32 %r4, %r59, 7; shl.b32 %r4, %r4, 4; mad.lo.u32 %r2, %r59, 128, %r4;"
    assert shared_access("ld.shared.v4.u32 {%r4,%r5,%r6,%r7}, [%r3];", swizzled).shared().wavefronts == 4


@pytest.mark.parametrize(("pitch", "wavefronts"), [(16, 4), (128, 32), (144, 4), (64, 16), (80, 4)])
def test_ldmatrix_reads_eight_rows_a_phase(pitch, wavefronts):
    counters = shared_access(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4,%r5,%r6,%r7}, [%r3];", STRIDE.replace("{0}", str(pitch))
    )
    assert counters.shared("ldmatrix") == SharedTraffic(1, 512, wavefronts, 4)


def test_halves_of_one_word_merge_and_atomics_do_not():
    pair = "shr.u32 %r4, %r59, 1; and.b32 %r2, %r59, 1; shl.b32 %r2, %r2, 1; mad.lo.u32 %r2, %r4, 128, %r2;"
    assert shared_access("st.shared.u16 [%r3], %h1;", pair).shared() == SharedTraffic(1, 64, 16, 1)
    same = "mov.u32 %r2, 0;"
    assert shared_access("atom.shared.add.u32 %r4, [%r3], 1;", same).shared("atomic") == SharedTraffic(1, 128, 32, 1)


def test_only_active_lanes_count():
    guard = "setp.lt.u32 %p1, %r59, {0};"
    offset = "mul.lo.u32 %r2, %r59, 128;" + guard.replace("{0}", "5")
    counters = shared_access("@%p1 st.shared.u32 [%r3], %r1;", offset, block=96)
    assert counters.shared() == SharedTraffic(requests=1, bytes=20, wavefronts=5, ideal_wavefronts=1)
    assert counters.instructions["st.shared.u32"] == 3
    assert counters.predicated_off["st.shared.u32"] == 2


def global_access(stride, width="u32", register="%r1", guard="", block=64, offset=0):
    body = (
        f"ld.param.u64 %rd0, [p0]; mov.u32 %r59, %tid.x; mul.wide.u32 %rd1, %r59, {stride}; add.s64 %rd0, %rd0, %rd1;"
    )
    body += f"{guard} ld.global.{width} {register}, [%rd0+{offset}];"
    return launch(module(body, "u64"), grid=1, block=block, args=[np.zeros(4096, np.uint32)]).counters


@pytest.mark.parametrize(
    ("stride", "offset", "sectors"),
    [(4, 0, 4), (4, 4, 5), (8, 0, 8), (32, 0, 32), (64, 0, 32), (0, 0, 1), (4, 128, 4), (12, 0, 12)],
)
def test_sectors_of_a_warp(stride, offset, sectors):
    counters = global_access(stride, block=32, offset=offset)
    traffic = counters.by_array("load")[0]
    assert (traffic.requests, traffic.bytes, traffic.sectors) == (1, 128, sectors)
    assert counters.unique_sectors == {(0, "load"): sectors}
    assert counters.by_array("store") == {}


def test_repeated_sectors_are_requested_twice_but_unique_once():
    # Two warps, 16 bytes a lane: 16 sectors each; the second warp of the broadcast asks again for the same sector.
    assert global_access(16, "v4.u32", "{%r1,%r2,%r3,%r4}").by_array("load")[0].sectors == 32
    counters = global_access(0)
    assert counters.by_array("load")[0].sectors == 2
    assert counters.unique_sectors[0, "load"] == 1


def copy_kernel():
    body = (
        element(0, "%rd0")
        + element(1, "%rd1")
        + "setp.lt.u32 %p1, %r59, 40; mov.u32 %r5, s; mad.lo.u32 %r5, %r59, 4, %r5;"
    )
    body += "@%p1 cp.async.ca.shared.global [%r5], [%rd0], 4; cp.async.commit_group; cp.async.commit_group;"
    body += "cp.async.wait_all; bar.sync 0; ld.shared.u32 %r1, [%r5];"
    body += "@%p1 st.global.u32 [%rd1], %r1; red.global.add.u32 [%rd1], 1;"
    return module(body, "u64 u64", SHARED)


def test_counters_of_blocks_add_up_and_name_their_instructions():
    source, target = np.arange(64, dtype=np.uint32), np.zeros(64, np.uint32)
    result = launch(copy_kernel(), grid=3, block=64, args=[source, target])
    one, total = result.block_counters[0, 0, 0], result.counters
    assert (one.blocks, total.blocks) == (1, 3)
    assert (one.barriers, one.cp_async_groups) == (1, 2)
    assert total.by_array("load")[0].bytes == 3 * 40 * 4
    assert total.by_array("store")[1].sectors == 3 * 5
    assert total.by_array("atomic")[1].sectors == 3 * 8
    assert total.unique_sectors == {(0, "load"): 15, (1, "store"): 15, (1, "atomic"): 24}
    # All blocks touch the same sectors: together they need them once.
    assert result.footprint_sectors == one.unique_sectors
    assert total.shared("cp.async") == SharedTraffic(6, 480, 6, 6)
    assert total.instructions["bar.sync"] == 6
    rows = total.by_instruction()
    copy = [row for row in rows if row["text"].startswith("@%p1 cp.async.ca")]
    assert [(row["space"], row["bytes"]) for row in copy] == [("global", 480), ("shared", 480)]
    assert [row["position"] for row in rows] == sorted(row["position"] for row in rows)


def test_counters_survive_json_and_zero_is_neutral():
    counters = launch(copy_kernel(), grid=2, block=64, args=[np.zeros(64, np.uint32)] * 2).counters
    assert json.loads(json.dumps(counters.to_dict())) == counters.to_dict()
    assert counters + Counters() == counters
    assert counters.to_dict()["unique_sectors"][0] == {"array": 0, "kind": "load", "sectors": 10}


def test_copies_read_only_their_source_size():
    body = (
        element(0, "%rd0", 16)
        + "mov.u32 %r5, s; mad.lo.u32 %r5, %r59, 16, %r5; and.b32 %r6, %r59, 1; mul.lo.u32 %r6, %r6, 12;"
    )
    body += "cp.async.cg.shared.global [%r5], [%rd0], 16, %r6; cp.async.wait_all;"
    counters = launch(module(body, "u64", SHARED), grid=1, block=32, args=[np.zeros(128, np.uint32)]).counters
    load = counters.by_array("load")[0]
    assert (load.bytes, load.sectors) == (16 * 12, 16)  # odd threads read 12 bytes, each in its own sector
    assert counters.shared("cp.async") == SharedTraffic(1, 512, 4, 4)
