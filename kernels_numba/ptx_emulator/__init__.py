"""Executes compiled PTX on the CPU: is the kernel right, and exactly how much work does it do?

``launch`` runs the PTX that Numba, nvcc or Triton really produced, one thread block at a time, vectorised in NumPy
over the threads of the block. It raises ``PtxError`` for everything a GPU would do wrongly in silence: out-of-bounds
and misaligned accesses, races in shared memory, asynchronous copies that are read too early or overwrite what is still
read, mbarriers that complete too early or never, missing proxy fences, data handed from block to block without release
and acquire, warp instructions executed by part of a warp, barriers that not every thread reaches, and values that were
never given, of registers, shared and local memory, as addresses, guards, sizes or outputs. `Rows` are arguments of
which only a part exists, to check addresses at sizes that no memory holds. Its counters are exact: memory sectors by
array, shared-memory wavefronts and bank conflicts by instruction, matrix instructions, instruction mix; a wait for a
mbarrier counts as two tries.

What it does not know: time, caches, clusters, what ptxas does to the PTX, and which arrays hold values at a launch.
Blocks run one after the other: a thread that polls memory sees what blocks of lower index wrote, and for what comes
later it polls until ``max_steps``. What one block reads of another must be released and acquired all the same.
"""

from .counters import Counters, GlobalTraffic, SharedTraffic, Site
from .errors import PtxError
from .launch import LaunchResult, launch
from .memory import Rows

__all__ = ["Counters", "GlobalTraffic", "LaunchResult", "PtxError", "Rows", "SharedTraffic", "Site", "launch"]
