"""Which registers hold no value yet, and for which threads?

A register is undefined until it is written. What is computed from it, loaded from memory that was never stored, or
received from a lane where it is undefined is undefined too; copies, selections, shuffles and stores to the block's own
memories carry that on. It becomes an error where it matters: as an address, a guard, a size or another operand that
decides what an instruction does, or as a value that reaches global memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .errors import PtxError
from .scalar_types import Array


class Undefined:
    """Undefined registers of a block: ``masks`` of the threads, by name; a register that is not there is defined."""

    def __init__(self, exists: Array) -> None:
        self.exists = exists
        self.nowhere: Array = np.zeros_like(exists)
        self.masks: dict[str, Array] = {}

    def reset(self, names: Iterable[str]) -> None:
        """Begin a block, in which no register has been written."""
        self.masks = dict.fromkeys(names, self.exists)

    def define(self, name: str, threads: Array) -> None:
        """Note that threads, a mask, have written a register."""
        left = self.masks[name] & ~threads
        if left.any():
            self.masks[name] = left
        else:
            del self.masks[name]

    def mark(self, name: str, mask: Array) -> None:
        """Make a register undefined for more threads."""
        if name != "_" and mask.any():
            self.masks[name] = self.masks.get(name, self.nowhere) | mask

    def mark_threads(self, name: str, threads: Array, which: Array) -> None:
        """Make a register undefined for ``which`` of some threads, indices."""
        mask = self.nowhere.copy()
        mask[threads] = which
        self.mark(name, mask)

    def of(self, name: str) -> Array:
        """Threads for which an operand is undefined; none for one that is no register."""
        return self.masks.get(name.removeprefix("!"), self.nowhere)

    def of_any(self, names: Iterable[str]) -> Array:
        """Threads for which one of the operands is undefined."""
        return np.logical_or.reduce([self.of(name) for name in names])

    def carrying(
        self,
        operation: Callable[[Any], None],
        names: tuple[str, ...],
        targets: tuple[str, ...],
        where: Callable[[], Array] | None = None,
    ) -> Callable[[Any], None]:
        """The operation, which makes its targets undefined ``where`` it says, or where one of ``names`` is."""

        def run(active: Any) -> None:
            if self.masks.keys().isdisjoint(names):
                operation(active)
                return
            mask = (where() if where else self.of_any(names)) & active.mask
            operation(active)
            for target in targets:
                self.mark(target, mask)

        return run

    def require(self, names: Iterable[str], threads: Array, what: str) -> None:
        """Raise PtxError, naming the register, if one is undefined for one of the threads, a mask."""
        for name in names:
            if name in self.masks and (bad := self.of(name) & threads).any():
                shown = name.partition("@")[0]
                raise PtxError(f"undefined register {shown} used as {what}", thread=int(bad.argmax()))
