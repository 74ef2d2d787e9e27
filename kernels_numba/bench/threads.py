"""How many threads may be used here, and how is a process told to use so many? Light: NumPy is not imported.

BLAS counts its threads when it is loaded, so that the variables are set for a process that is yet to start, or before
NumPy is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_threads(count: int) -> dict[str, str]:
    """Environment of this process for another, whose BLAS and Numba use ``count`` threads."""
    return os.environ | dict.fromkeys((*BLAS_THREADS, "NUMBA_NUM_THREADS"), str(count))


def lines_of(module: str, threads: int, *arguments: str) -> Iterator[Any]:
    """What ``python -m MODULE --threads N ARGUMENTS`` prints, a line of JSON at a time, on so many threads.

    Raises
    ------
    RuntimeError
        If it fails; the message ends with its last line.
    """
    command = [sys.executable, "-m", module, "--threads", str(threads), *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=with_threads(threads), **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        yield from map(json.loads, process.stdout)
        errors = process.stderr.read().strip()
    if process.returncode:
        raise RuntimeError(f"measuring with {threads} threads failed: {errors.rpartition(chr(10))[2]}")


def print_lines(values: Iterable[Any]) -> None:
    """Print each as a line of JSON as soon as it is there, for `lines_of` in another process."""
    for value in values:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()
