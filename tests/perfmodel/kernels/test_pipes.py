"""Pipes of an SM: what the traces count, and what a loop needs at least."""

from __future__ import annotations

from perfmodel.catalog import load_trace
from perfmodel.catalog.load import trace_names
from perfmodel.kernels.pipes import PIPE_CYCLES, busiest_cycles, loop_pipes


def test_a_loop_by_hand() -> None:
    """Ten on the ALU at 2 cycles, three population counts at 8, 15 instructions in all: the counts take longest."""
    regions = {"shared_load": {"alu": 6, "fma_heavy": 1, "lsu": 1}, "rest": {"alu": 4, "xu": 3}}
    pipes = loop_pipes({"main_loop_pipes": regions})
    assert pipes == {"issue": 15, "alu": 10, "fma": 1, "xu": 3}
    assert busiest_cycles(pipes) == 24
    assert loop_pipes({"main_loop_pipes": regions}, "rest", "no such") == {"issue": 7, "alu": 4, "fma": 0, "xu": 3}


def test_traces_count_each_instruction_once() -> None:
    """By kind and by pipe the main loop has as many; those with Tensor Cores do no FP32 arithmetic."""
    for name in trace_names():
        for architecture, code in load_trace(name)["architectures"].items():
            pipes = loop_pipes(code)
            assert set(pipes) == set(PIPE_CYCLES)
            assert pipes["issue"] == sum(code["main_loop_instructions"].values()), (name, architecture)
            if "tensor_core" in code["main_loop_instructions"]:
                assert not any("fma" in region for region in code["main_loop_pipes"].values()), (name, architecture)
