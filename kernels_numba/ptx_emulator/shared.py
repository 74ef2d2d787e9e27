"""Shared memory of a block: its bytes, and when they become visible.

The memory starts as 0xFF bytes, which is NaN in every float format, and undefined: a register that is loaded from
what was never stored is undefined too (`undefined`). Bookkeeping is kept for cells of the smallest size the kernel
accesses:

* a read of a cell that another thread wrote, a write to a cell that another thread read, and two writes of
  different values are races, unless the threads have synchronised in between (``races``, ``ordering``);
* the destination of a ``cp.async`` must not be touched until the thread that issued it has waited for its group;
  from then on it counts as written by that thread, so that others still need a barrier;
* nor may that of a bulk copy until its mbarrier's phase is complete, nor a mbarrier while it lives (``mbarrier``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .errors import PtxError
from .memory import items
from .ordering import Ordering
from .races import Races, race
from .scalar_types import Array

SHARED_BASE = 0x400  # the first kilobyte of the window is the system's on sm_90, and catches null pointers
POISON = 0xFF
FREE, OBJECT, BULK = -1, -2, -3  # a cell is not claimed; by a mbarrier; by a bulk copy; else by a thread's cp.async
CLAIMS = {OBJECT: "a mbarrier, which is opaque", BULK: "the destination of a bulk copy that nobody has waited for"}


@dataclass
class PendingCopy:
    """A ``cp.async`` of several threads that is not complete: its number, group of each thread, and its bytes."""

    number: int
    threads: Array
    groups: Array
    offsets: Array
    data: Array  # (threads,) items of ``width`` bytes
    width: int

    def part(self, chosen: Array) -> PendingCopy:
        """Copies of some of the threads."""
        threads, groups, offsets, data = (c[chosen] for c in (self.threads, self.groups, self.offsets, self.data))
        return PendingCopy(self.number, threads, groups, offsets, data, self.width)


class SharedMemory:
    """Shared memory of ``size`` bytes for ``n_threads`` threads (a multiple of 32); ``cell`` is in bytes.

    ``races`` tells races apart by barriers alone, or, if ``mbarriers``, by every synchronisation; None does not check.
    """

    def __init__(self, size: int, n_threads: int, cell: int, *, check_races: bool, mbarriers: bool = False) -> None:
        self.size, self.cell, self.n_threads = size, cell, n_threads
        self.data = np.empty(-(-max(size, 1) // 16) * 16, np.uint8)
        n_cells = self.data.size // cell
        self.ordering = Ordering(n_cells, n_threads) if check_races and mbarriers else None
        self.races = self.ordering or (Races(n_cells, n_threads) if check_races else None)
        self.pending = np.empty(n_cells, np.int32)
        self.undefined = np.empty(n_cells, bool)
        self.commits = np.empty(n_threads, np.int64)
        self.reset()

    def reset(self) -> None:
        """Begin a new block."""
        self.data.fill(POISON)
        self.pending.fill(FREE)
        self.undefined.fill(True)
        self.commits.fill(0)
        self.copies: list[PendingCopy] = []
        self.n_copies = 0
        self.n_claims = 0
        if self.races is not None:
            self.races.reset()

    def barrier(self) -> None:
        """Order everything before against everything after, for all threads."""
        if self.races is not None:
            self.races.barrier()

    def warp_barrier(self, warps: Array) -> None:
        """Order accesses of each of these warps among its own lanes."""
        if self.races is not None:
            self.races.warp_barrier(warps)

    def offsets(self, addresses: Array, width: int, threads: Array) -> Array:
        """Byte offsets of shared-window addresses; raises PtxError out of bounds or misaligned."""
        offsets = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64) - SHARED_BASE
        misaligned = offsets & (width - 1)
        if misaligned.any():
            at = int(np.argmax(misaligned != 0))
            message = f"misaligned shared access of {width} bytes"
            raise PtxError(message, thread=int(threads[at]), address=int(offsets[at]))
        wrong = (offsets < 0) | (offsets > self.size - width)
        if wrong.any():
            at = int(np.argmax(wrong))
            where = f"offset {int(offsets[at])} + {width} bytes of {self.size}"
            raise PtxError(f"shared access out of bounds: {where}", thread=int(threads[at]), address=int(offsets[at]))
        return offsets

    def load(self, offsets: Array, width: int, threads: Array, *, whole_warp: bool = False) -> Array:
        """Items of ``width`` bytes; ``whole_warp`` says that every lane of the warp gets part of each item."""
        cells = self.cells(offsets, width)
        self._check_pending(cells, offsets, threads, "read")
        if self.races is not None:
            self.races.read(cells, offsets, threads, whole_warp=whole_warp)
        return items(self.data, width)[offsets // width]

    def undefined_parts(self, offsets: Array, width: int, parts: int) -> Array | None:
        """Which of the ``parts`` of each item were never stored, shape (threads, parts); None if all were."""
        found = self.undefined[self.cells(offsets, width)]
        if not found.any():
            return None
        if found.shape[1] < parts:
            return np.repeat(found, parts // found.shape[1], axis=1)
        marks: Array = np.logical_or.reduce(found.reshape(len(found), parts, -1), axis=2)
        return marks

    def store(self, offsets: Array, data: Array, width: int, threads: Array, undefined: Array | None = None) -> None:
        """Write items of ``width`` bytes, one a thread.

        ``undefined`` says which of their parts are, shape (threads, parts).
        """
        cells = self.cells(offsets, width)
        self._check_pending(cells, offsets, threads, "write")
        view = items(self.data, width)
        index = offsets // width
        foreign = self.races.foreign_write(cells, offsets, threads) if self.races is not None else None
        before = view[index] if foreign is not None else None
        view[index] = data
        spread = False if undefined is None else np.repeat(undefined, cells.shape[1] // undefined.shape[1], axis=1)
        self.undefined[cells] = spread
        if self.races is not None:
            clash = view[index] != data
            if foreign is not None and before is not None:
                clash |= foreign & (before != data)
            if clash.any():
                raise race("two threads write different values to one address", clash, offsets, threads)
            self.races.wrote(cells, threads)

    def update(self, offsets: Array, width: int, threads: Array) -> Array:
        """View of whole memory as items for an atomic, which may meet other atomics but no plain access."""
        cells = self.cells(offsets, width)
        self._check_pending(cells, offsets, threads, "update")
        if self.races is not None:
            self.races.update(cells, offsets, threads)
        return items(self.data, width)

    def claim(self, offset: int, size: int, thread: int, code: int) -> None:
        """Give bytes to a mbarrier or a bulk copy: poison, and closed to all others until ``release``."""
        cells = self.cells_of(offset, size)
        what = "mbarrier.init" if code == OBJECT else "bulk copy"
        self._check_pending(cells[None], np.array([offset]), np.array([thread]), what)
        self.data[offset : offset + size] = POISON
        self.undefined[cells] = True
        self.pending[cells] = code
        self.n_claims += 1

    def release(self, offset: int, size: int) -> None:
        """Open bytes again."""
        self.pending[self.cells_of(offset, size)] = FREE
        self.n_claims -= 1

    def note_write(self, offset: int, size: int, thread: int) -> None:
        """Note that ``thread`` changed bytes other than by ``store``; raises PtxError if that is a race."""
        if self.races is not None:
            cells, offsets, threads = self.cells_of(offset, size)[None], np.array([offset]), np.array([thread])
            if (foreign := self.races.foreign_write(cells, offsets, threads)) is not None:
                raise race("write to an address another thread wrote", foreign, offsets, threads)
            self.races.wrote(cells, threads)

    def copy_async(self, offsets: Array, data: Array, width: int, threads: Array) -> None:
        """Begin a copy; its destination is poison until ``wait``."""
        cells = self.cells(offsets, width)
        self._check_pending(cells, offsets, threads, "copy to")
        if self.races is not None and (foreign := self.races.foreign_write(cells, offsets, threads)) is not None:
            raise race("cp.async to an address another thread wrote", foreign, offsets, threads)
        items(self.data, width)[offsets // width] = np.void(bytes([POISON]) * width)
        self.pending[cells] = threads[:, None]
        if self.races is not None:
            self.races.wrote(cells, threads)
        self.copies.append(PendingCopy(self.n_copies, threads, self.commits[threads], offsets, data, width))
        self.n_copies += 1

    def commit(self, threads: Array) -> int:
        """Close the open group of each thread; returns the number of warps for which it was not empty."""
        warps = set()
        for copy in self.copies:
            is_open = np.isin(copy.threads, threads) & (copy.groups == self.commits[copy.threads])
            warps.update((copy.threads[is_open] // 32).tolist())
        self.commits[threads] += 1
        return len(warps)

    def wait(self, threads: Array, allowed: int | None) -> None:
        """Complete all but the latest ``allowed`` groups of ``threads``; None completes uncommitted copies too."""
        limit = np.zeros(self.n_threads, np.int64)
        limit[threads] = self.commits[threads] + (1 if allowed is None else -allowed)
        self._complete_where(lambda copy: copy.groups < limit[copy.threads])

    def complete_up_to(self, thread: int, number: int) -> None:
        """Complete the copies of ``thread`` below a number."""
        self._complete_where(lambda copy: (copy.threads == thread) & (copy.number < number))

    def _complete_where(self, is_done: Callable[[PendingCopy], Array]) -> None:
        remaining = []
        for copy in self.copies:
            done = is_done(copy)
            if done.any():
                self._complete(copy.part(done))
            if not done.all():
                remaining.append(copy.part(~done))
        self.copies = remaining

    def _complete(self, copy: PendingCopy) -> None:
        items(self.data, copy.width)[copy.offsets // copy.width] = copy.data
        cells = self.cells(copy.offsets, copy.width)
        self.pending[cells] = FREE
        self.undefined[cells] = False
        if self.races is not None:
            self.races.wrote(cells, copy.threads)

    def cells(self, offsets: Array, width: int) -> Array:
        """Cells of items, shape (threads, cells of an item)."""
        return (offsets // self.cell)[:, None] + np.arange(max(1, width // self.cell))

    def cells_of(self, offset: int, size: int) -> Array:
        """Cells of ``size`` bytes from ``offset``."""
        return np.arange(offset // self.cell, -(-(offset + size) // self.cell))

    def _check_pending(self, cells: Array, offsets: Array, threads: Array, what: str) -> None:
        if not self.copies and not self.n_claims:
            return
        if (busy := self.pending[cells] != FREE).any():
            at = int(np.argmax(busy.any(axis=1)))
            claim = CLAIMS.get(int(self.pending[cells[at]][busy[at]][0]))
            message = f"{what} of " + (claim or "a cp.async destination before its thread waited for the copy")
            raise PtxError(message, thread=int(threads[at]), address=int(offsets[at]))
