"""The one place that holds the options of Numba's CPU compiler.

``cache`` keeps machine code on disk between processes; ``nogil`` lets other threads run; ``error_model="numpy"``
turns a division by zero into inf instead of a branch. Fast-math is off: it would let the compiler assume that no
weight is inf or NaN. Every loop whose order of summation matters states it by hand (`cpu.simd`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

_COMMON: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


def serial(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` for one thread."""
    compiled: Callable[..., Any] = njit(**_COMMON)(function)
    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` and merge it into its callers, so that its vectors stay in registers."""
    compiled: Callable[..., Any] = njit(**_COMMON, forceinline=True)(function)
    return compiled


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` with its ``prange`` loops spread over Numba's threads."""
    compiled: Callable[..., Any] = njit(**_COMMON, parallel=True)(function)
    return compiled
