"""The pipes of an SM that a warp's instructions run on, how fast they take them, and how many a compiled loop has.

Every instruction takes an issue slot of its scheduler; integer and logic run on the ALU, multiply-adds on the FMA pipe,
population counts and conversions on the XU.
"""

from __future__ import annotations

from typing import Any

# Cycles in which a scheduler's part of a pipe takes a warp: 32 lanes over a quarter of the results per cycle and SM in
# the CUDA C++ Programming Guide, table on the throughput of arithmetic instructions, compute capabilities 7.x to 9.0:
# 64 for integer and logic, 64 for integer multiply-add, 16 for population counts. Newer ones are taken to be alike.
PIPE_CYCLES = {"issue": 1, "alu": 2, "fma": 2, "xu": 8}
# Names in the traces. FP32 arithmetic (`fma`) counts as other multiply-adds, of which newer cards do half as many: the
# loops on the Tensor Cores have none.
_TRACED = {"alu": ("alu",), "fma": ("fma", "fma_heavy"), "xu": ("xu",)}


def loop_pipes(code: dict[str, Any], *regions: str) -> dict[str, float]:
    """Instructions of a main loop by the pipes of `PIPE_CYCLES`, from a trace's machine ``code`` of one architecture.

    Of some ``regions`` of the loop, by default of all.
    """
    found = code["main_loop_pipes"]
    chosen = [found.get(name, {}) for name in regions] if regions else list(found.values())
    every = sum(count for region in chosen for count in region.values())
    counts = {pipe: sum(region.get(n, 0) for region in chosen for n in names) for pipe, names in _TRACED.items()}
    return {pipe: float(count) for pipe, count in ({"issue": every} | counts).items()}


def busiest_cycles(pipes: dict[str, float]) -> float:
    """Cycles a scheduler needs at least for the instructions of one warp: those of the pipe with most to do."""
    return max(PIPE_CYCLES[pipe] * count for pipe, count in pipes.items())
