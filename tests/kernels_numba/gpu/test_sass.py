"""Reading machine code: kinds of instructions, loops, the main loop."""

from __future__ import annotations

import pytest

from kernels_numba.gpu.compile import ARCHITECTURES, compile_kernel
from kernels_numba.gpu.sass import Pipe, loops, main_loop, parse, regions
from kernels_numba.gpu.variants import records

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


LOOP = """
.L_x_0:
        /*0000*/                   LOP3.LUT R1, R2, 0x1, RZ, 0xc0, !PT ;
        /*0010*/                   POPC R3, R1 ;
        /*0020*/              @!PT LDS RZ, [RZ] ;
        /*0030*/                   LDS.U16 R4, [R3] ;
        /*0040*/                   IMAD.MOV.U32 R5, RZ, RZ, R4 ;
        /*0050*/                   FFMA R6, R5, R5, R6 ;
        /*0060*/                   HMMA.16816.F32 R8, R12, R2, R8 ;
        /*0070*/                   UIADD3 UR4, UR4, 0x1, URZ ;
        /*0080*/               @P0 BRA `(.L_x_0) ;
"""


def test_instructions_belong_to_the_landmark_they_come_before() -> None:
    """What no lane executes is no instruction."""
    body = main_loop(parse(LOOP))
    assert [i.opcode for i in body if i.kind == "shared_load"] == ["LDS.U16"]
    assert regions(body) == {
        "shared_load": {Pipe.ALU: 1, Pipe.XU: 1, Pipe.LSU: 1},
        "tensor_core": {Pipe.FMA_HEAVY: 1, Pipe.FMA: 1, Pipe.TENSOR: 1},
        "rest": {Pipe.UNIFORM: 1, Pipe.CONTROL: 1},
    }


def test_an_unknown_opcode_is_named() -> None:
    with pytest.raises(ValueError, match="pipe of opcode 'XYZZY' is not known"):
        _ = parse("   XYZZY R1, R2 ;\n")[0].pipe


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_regions_hold_the_whole_loop(arch: str) -> None:
    kernel = compile_kernel(records("bitmap_pairs", 8), arch)
    assert sum(pipes.total() for pipes in kernel.main_loop_regions.values()) == kernel.main_loop.total()
    assert kernel.main_loop_regions["tensor_core"][Pipe.TENSOR] == kernel.main_loop["tensor_core"]
