"""How many threads may be used here, and how is a process told to use so many? Light: NumPy is not imported.

BLAS counts its threads when it is loaded, so that the variables are set for a process that is yet to start, or before
NumPy is imported.
"""

from __future__ import annotations

import os

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_threads(count: int) -> dict[str, str]:
    """Environment of this process for another, whose BLAS and Numba use ``count`` threads."""
    return os.environ | dict.fromkeys((*BLAS_THREADS, "NUMBA_NUM_THREADS"), str(count))
