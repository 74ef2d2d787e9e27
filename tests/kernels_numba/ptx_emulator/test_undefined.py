"""What was never given a value: registers, shared and local memory, until it matters."""

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import element, module

MEMORY = ".shared .align 16 .b8 s[1024];"
START = element(0, "%rd0") + "mov.u32 %r1, s; shl.b32 %r2, %r59, 2; add.u32 %r3, %r1, %r2; setp.lt.u32 %p1, %r59, 7;"
STORE = "st.global.u32 [%rd0], %r9;"
DEPOT = ".local .align 8 .b8 depot[16]; "
MMA = (
    "mov.f32 %f0, 0f00000000; mov.u32 %r20, 0; mov.u32 %r21, 0; mov.u32 %r22, 0; mov.u32 %r23, 0; mov.u32 %r24, 0; "
    "mov.u32 %r25, 0; {} mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{%f1,%f2,%f3,%f4}}, "
    "{{%r20,%r21,%r22,%r23}}, {{%r24,%r25}}, {{%f0,%f0,%f0,%f0}}; {} st.global.f32 [%rd0], %f1;"
)


def run(body, block=32):
    out = np.zeros(64, np.uint32)
    launch(module(START + body, "u64", MEMORY), grid=1, block=block, args=[out])
    return out


# name -> (program, the register that the error names)
ERRORS = {
    "never written": (STORE, "%r9"),
    "written by some lanes": ("@%p1 mov.u32 %r9, 1;" + STORE, "%r9"),
    "arithmetic": ("add.u32 %r9, %r8, 1;" + STORE, "%r9"),
    "times zero": ("mul.lo.u32 %r9, %r8, 0;" + STORE, "%r9"),
    "second operand of and": ("and.b32 %r9, %r59, %r8;" + STORE, "%r9"),
    "chosen": ("selp.b32 %r9, %r8, 1, %p1;" + STORE, "%r9"),
    "chosen by what": ("selp.b32 %r9, 2, 1, %p5;" + STORE, "%r9"),
    "packed": ("mov.b32 %r9, {%h1,%h2};" + STORE, "%r9"),
    "unpacked": ("mov.b32 {%h1,%h2}, %r8; cvt.u32.u16 %r9, %h2;" + STORE, "%r9"),
    "permuted": ("prmt.b32 %r9, %r8, %r59, 0x3210;" + STORE, "%r9"),
    "address": ("cvt.u64.u32 %rd1, %r8; add.s64 %rd1, %rd0, %rd1; ld.global.u32 %r5, [%rd1];", "%rd1"),
    "shared address": ("st.shared.u32 [%r8], %r59;", "%r8"),
    "guard": ("setp.eq.u32 %p2, %r8, 1; @%p2 mov.u32 %r9, 1;", "%p2"),
    "branch": ("@!%p2 bra a; a: mov.u32 %r9, 1;", "%p2"),
    "vote": ("vote.sync.any.pred %p3, %p2, -1;", "%p2"),
    "members of a warp": ("bar.warp.sync %r8;", "%r8"),
    "size of a copy": ("cp.async.ca.shared.global [%r3], [%rd0], 4, %r8;", "%r8"),
    "atomic": ("red.global.add.u32 [%rd0], %r8;", "%r8"),
    "shared memory": ("ld.shared.u32 %r9, [%r3];" + STORE, "%r9"),
    "part of what was stored": ("st.shared.u16 [%r3], 1; ld.shared.u32 %r9, [%r3];" + STORE, "%r9"),
    "stored undefined": ("st.shared.u32 [%r3], %r8; ld.shared.u32 %r9, [%r3];" + STORE, "%r9"),
    "atomic on shared memory": ("atom.shared.add.u32 %r9, [%r3], 1;" + STORE, "%r9"),
    "local memory": (DEPOT + "ld.local.u32 %r9, [depot];" + STORE, "%r9"),
    "spilled": (DEPOT + "st.local.v2.u32 [depot], {%r59,%r8}; ld.local.u32 %r9, [depot+4];" + STORE, "%r9"),
    "another lane": (
        "setp.eq.u32 %p2, %r59, 0; @%p2 mov.u32 %r8, 5; shfl.sync.idx.b32 %r9, %r8, 1, 31, -1;" + STORE, "%r9",
    ),
    "matrix in shared memory": (
        "and.b32 %r5, %r59, 7; shl.b32 %r5, %r5, 4; add.u32 %r5, %r5, %r1; setp.gt.u32 %p2, %r59, 1; "
        "@%p2 st.shared.u32 [%r3], 0; bar.sync 0; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r9}, [%r5];" + STORE,
        "%r9",
    ),
    "left factor": (MMA.format("add.u32 %r20, %r8, 1;", ""), "%f1"),
    "right factor": (MMA.format("add.u32 %r24, %r8, 1;", ""), "%f1"),
    "summand": (MMA.format("add.f32 %f0, %f9, %f9;", ""), "%f1"),
}  # fmt: skip

# Undefined values that decide nothing.
FINE = {
    "not used": "add.u32 %r9, %r8, 1; st.global.u32 [%rd0], %r59;",
    "in lanes that store nothing": "@%p1 mov.u32 %r9, 1; @%p1 " + STORE,
    "not chosen": "setp.lt.u32 %p2, %r59, 99; selp.b32 %r9, 1, %r8, %p2;" + STORE,
    "chosen by lane": "@%p1 mov.u32 %r8, 3; selp.b32 %r9, %r8, 1, %p1;" + STORE,
    "and with zero": "and.b32 %r9, %r8, 0;" + STORE,
    "or with ones": "or.b32 %r9, -1, %r8;" + STORE,
    "predicate and false": "setp.gt.u32 %p2, %r59, 99; and.pred %p3, %p2, %p4; @%p3 bra a; a: mov.u32 %r9, 1;",
    "overwritten": "mov.u32 %r9, %r8; mov.u32 %r9, %r59;" + STORE,
    "another lane's": ("setp.eq.u32 %p2, %r59, 0; @%p2 mov.u32 %r8, 5; shfl.sync.idx.b32 %r9, %r8, 0, 31, -1;" + STORE),
    "half of what was spilled": DEPOT + "st.local.v2.u32 [depot], {%r59,%r8}; ld.local.u32 %r9, [depot];" + STORE,
    "shared memory stored over": "st.shared.u32 [%r3], %r8; st.shared.u32 [%r3], 1; ld.shared.u32 %r9, [%r3];" + STORE,
    # Lanes 4 to 31 hold rows 1 to 7: the other rows of the product do not depend on row 0.
    "other rows of a product": MMA.format("setp.lt.u32 %p2, %r59, 4; @%p2 add.u32 %r20, %r8, 1;", "@!%p2"),
    "other columns of a product": MMA.format(
        "setp.lt.u32 %p3, %r59, 4; @%p3 add.u32 %r24, %r8, 1; and.b32 %r5, %r59, 3; setp.eq.u32 %p2, %r5, 0;", "@!%p2"
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_undefined_values_that_matter_are_errors(name):
    body, register = ERRORS[name]
    with pytest.raises(PtxError, match=rf"undefined register {register} used as .*; thread \d+; instruction \d+: "):
        run(body)


@pytest.mark.parametrize("name", FINE)
def test_undefined_values_that_decide_nothing_are_none(name):
    run(FINE[name])


def test_every_block_begins_without_values():
    body = START + "mov.u32 %r4, %ctaid.x; setp.eq.u32 %p2, %r4, 0; @%p2 mov.u32 %r9, 1;" + STORE
    with pytest.raises(PtxError, match=r"undefined register %r9 .* block \(1, 0, 0\)"):
        launch(module(body, "u64", MEMORY), grid=2, block=32, args=[np.zeros(32, np.uint32)])
