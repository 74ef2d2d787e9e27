"""The one place that holds the options of Numba's CPU compiler, and what keeps its threads from ending a process.

``cache`` keeps machine code on disk between processes, wherever Numba finds a place that it may write, else nowhere;
``nogil`` lets other threads run; ``error_model="numpy"`` turns a division by zero into inf instead of a branch.
Fast-math is off: it would let the compiler assume that no weight is inf or NaN. Every loop whose order of summation
matters states it by hand (`cpu.simd`).

Numba's threads are one team for a process. Its workqueue layer aborts where two threads start loops at once, so one
waits for the other: each has all cores then. GNU OpenMP ends a forked child that starts a loop if its parent had, so
such a child runs the same loops on one thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numba
from numba import njit

_COMMON: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_LOST_BY_FORK = "omp"  # the threading layer whose team a forked child may not use


class _Team:
    """Who may start a parallel loop now: one thread at a time; nobody in a child that was forked from its team."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.lost = False

    def after_fork(self) -> None:
        """In the child: whoever held the turn is not there any more."""
        self.turn = threading.RLock()
        try:
            self.lost = self.lost or numba.threading_layer() == _LOST_BY_FORK
        except ValueError:  # no loop was ever started
            self.lost = False


_TEAM = _Team()
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_TEAM.after_fork)


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile on first use, kept on disk if there is a place for it."""
    compiled: Callable[..., Any]
    try:
        compiled = njit(**_COMMON, cache=True, **options)(function)
    except RuntimeError:  # no folder that may be written: neither beside the package nor in the user's cache
        compiled = njit(**_COMMON, **options)(function)
    return compiled


def serial(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` for one thread."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` and merge it into its callers, so that its vectors stay in registers."""
    return _compiled(function, forceinline=True)


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` with its ``prange`` loops spread over Numba's threads, or one thread if those are lost.

    For Python to call; compiled functions cannot.
    """
    compiled = _compiled(function, parallel=True)

    @wraps(function)
    def in_turn(*arguments: Any) -> Any:
        if _TEAM.lost:
            return _alone(function)(*arguments)
        with _TEAM.turn:
            return compiled(*arguments)

    return in_turn


@cache
def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` for one thread; not kept on disk, where Numba would take it for the parallel one."""
    compiled: Callable[..., Any] = njit(**_COMMON)(function)
    return compiled
