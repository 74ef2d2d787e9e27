"""The compiler's part: right instructions, no spills, planned occupancy, a readable main loop. No GPU needed."""

from __future__ import annotations

import dataclasses
import re

import pytest

from kernels_numba.check import machine_code_faults
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import ARCHITECTURES, check_arch, compile_kernel, compile_ptx
from kernels_numba.gpu.sass import loops, main_loop, parse
from kernels_numba.gpu.stages import STEPS, TILE_K

# Every variant on the paper's GPU, the sparse ones on Hopper too; elsewhere those that need most registers.
EVERYWHERE = ["tiled_csl_n64_v8", "dense_n64"]
CASES = [
    (name, arch)
    for name in variants.all_variants()
    for arch in ARCHITECTURES
    if name in EVERYWHERE
    or (arch == "sm_80" and not (name.startswith(("csr", "bitmap")) and "n8" not in name))
    or (arch == "sm_90" and name.startswith("tiled_csl"))
]


@pytest.mark.parametrize(("name", "arch"), CASES)
def test_machine_code_is_what_was_planned(name: str, arch: str) -> None:
    kernel = compile_kernel(variants.all_variants()[name], arch)
    assert machine_code_faults(kernel) == []


@pytest.mark.parametrize("tile_n", [8, 16, 32, 64])
def test_main_loop_does_exactly_the_work_of_a_tile(tile_n: int) -> None:
    """Per warp and tile: 2 halves x tile_n / 8 groups x 4 steps of mma, 8 loads of A, the copies of X."""
    loop = compile_kernel(variants.tiled_csl(tile_n, 4), "sm_80").main_loop
    assert loop["tensor_core"] == 2 * (tile_n // 8) * STEPS
    assert loop["load_matrix"] == 2 * STEPS + max(1, tile_n // 16) * STEPS
    assert loop["async_copy"] == max(1, TILE_K * tile_n // 8 // 128)
    assert loop["shared_store"] == 8  # zeroes 16 KiB with 128 threads x 16 bytes
    assert loop["scatter"] == 4 * 4 + 4  # held words, and one turn of the overflow loop
    assert loop["barrier"] == 2


def test_dense_needs_one_barrier_a_tile() -> None:
    loop = compile_kernel(variants.dense(16), "sm_80").main_loop
    assert loop["barrier"] == 1
    assert loop["async_copy"] == 8 + 1
    assert loop["scatter"] == loop["shared_store"] == 0


def test_faults_are_found() -> None:
    """A kernel squeezed into too few registers spills, and the check says so."""
    squeezed = dataclasses.replace(variants.tiled_csl(64, 8), blocks_per_sm=8)
    faults = machine_code_faults(compile_kernel(squeezed, "sm_80"))
    assert any("spills" in fault for fault in faults)
    assert any(fault.startswith("has STL") for fault in faults)


def test_missing_instructions_are_found() -> None:
    """A dense kernel that claims to be the sparse one has no scatter and no streaming loads."""
    impostor = dataclasses.replace(variants.dense(8), kernel="tiled_csl", choice="n8_impostor")
    faults = machine_code_faults(compile_kernel(impostor, "sm_80"))
    assert {"no STS.U16", "no LDG.E.NA.128"} <= set(faults)


def test_without_numba_cuda_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels_numba.gpu.compile.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs numba-cuda: pip install 'lscd-lab\[gpu\]'"):
        compile_ptx.__wrapped__(variants.dense(8), "sm_80")


def test_occupancy_by_hand() -> None:
    """34,816 + 1,024 bytes a block: 4 blocks in 164 KiB, 6 in 228 KiB, 2 in 100 KiB."""
    variant = variants.tiled_csl(8, 4)
    assert [compile_kernel(variant, arch).blocks_per_sm for arch in ("sm_80", "sm_90")] == [4, 6]
    assert compile_kernel(variant, "sm_90").occupancy == pytest.approx(6 * 4 / 64)


def test_entry_point_has_the_name_of_the_variant() -> None:
    ptx, entry = compile_ptx(variants.reduce(), "sm_80")
    assert entry == "reduce"
    assert ".visible .entry reduce(" in ptx
    assert ".target sm_80" in ptx


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize(
    "variant", [variants.tiled_csl(8, 4), variants.two_four(8), variants.csr(8, 16)], ids=lambda v: v.name
)
def test_lowering_once_gives_the_code_of_lowering_for_each_architecture(
    variant: variants.Variant, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ptx, _ = compile_ptx(variant, arch)
    monkeypatch.setattr("kernels_numba.gpu.compile._lowered", lambda variant: None)
    public, _ = compile_ptx.__wrapped__(variant, arch)
    named = re.compile(r"^\.common .*NumbaEnv.*$", flags=re.MULTILINE)  # holds the number of the compilation
    assert named.sub("", ptx) == named.sub("", public)


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown architecture 'sm90'.*sm_90"):
        check_arch("sm90")
    with pytest.raises(ValueError, match=r"unknown kernel 'tiled_cls'.*tiled_csl"):
        variants.find_variants("tiled_cls")


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
    # Both loops hold one mma; the outer one also loads from memory.
    assert main_loop(instructions)[0].opcode == "LDG.E"


def test_code_without_a_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="without a backward branch"):
        main_loop(parse("   MOV R1, R2 ;\n   EXIT ;\n"))
