"""The one place that holds the options of Numba's CPU compiler.

``cache`` keeps machine code on disk between processes, where there is a place to write; ``nogil`` lets other threads
run; ``error_model="numpy"`` turns a division by zero into inf instead of a branch. Fast-math is off: it would let the
compiler assume that no weight is inf or NaN. Every loop whose order of summation matters states it by hand
(`cpu.simd`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from numba import njit

_COMMON: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def serial(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` for one thread."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` and merge it into its callers, so that its vectors stay in registers."""
    return _compiled(function, forceinline=True)


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` with its ``prange`` loops spread over Numba's threads."""
    return _compiled(function, parallel=True)


def _compiled(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """``function``, compiled anew in each process where there is no place to keep machine code."""
    options = _COMMON | how
    try:
        compiled = njit(**options, cache=True)(function)
    except RuntimeError:  # what Numba raises where neither the package nor the user's cache can be written
        compiled = njit(**options)(function)
    return cast("Callable[..., Any]", compiled)
