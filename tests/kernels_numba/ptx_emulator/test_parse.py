"""Reading PTX text."""

import numpy as np

from tests.kernels_numba.ptx_emulator.programs import apply


def test_inline_assembly_scopes_keep_their_own_registers_and_labels():
    body = """
        {{ .reg .b32 t; .reg .pred q; mov.u32 t, 0; again: add.u32 t, t, 3; setp.lt.u32 q, t, {limit};
           @q bra again; mov.u32 {out}, t; }}"""
    both = body.format(limit=7, out="%r30") + body.format(limit=20, out="%r31")
    found = apply(both + "add.u32 D, %r30, %r31; add.u32 D, D, A;", np.uint32, np.arange(4, dtype=np.uint32))
    assert found.tolist() == [30, 31, 32, 33]
