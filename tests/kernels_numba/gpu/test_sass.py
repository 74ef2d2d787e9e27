"""Reading machine code: kinds of instructions, loops, the main loop."""

from __future__ import annotations

import pytest

from kernels_numba.gpu.sass import loops, main_loop, parse

SASS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E R2, [R4.64] ;
.L_x_1:
        /*0020*/                   HMMA.16816.F32 R8, R12, R2, R8 ;
        /*0030*/              @!P0 BRA `(.L_x_1) ;
        /*0040*/                   STS.U16 [R2], R3 ;
        /*0050*/               @P1 BRA `(.L_x_0) ;
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   BRA `(.L_x_2);
"""


def test_sass_parser_finds_loops_and_kinds() -> None:
    instructions = parse(SASS)
    assert [i.kind for i in instructions[:3]] == ["integer", "global_load", "tensor_core"]
    assert [len(body) for body in loops(instructions)] == [2, 5]
    # Both loops hold one mma; the inner one is where it is repeated.
    assert [i.opcode for i in main_loop(instructions)] == ["HMMA.16816.F32", "BRA"]


def test_loops_inside_the_main_loop_are_left_out() -> None:
    """Two mma in the outer loop, one of them in a loop of its own."""
    text = SASS.replace("LDG.E R2, [R4.64]", "HMMA.16816.F32 R8, R12, R2, R8")
    assert [i.opcode for i in main_loop(parse(text))] == ["HMMA.16816.F32", "STS.U16", "BRA"]


def test_code_without_a_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="without a backward branch"):
        main_loop(parse("   MOV R1, R2 ;\n   EXIT ;\n"))
