"""Shared memory of a block: its bytes, when they become visible, and which threads race for them.

The memory starts as 0xFF bytes, which is NaN in every float format, so that what was never stored shows in the
result. Bookkeeping is kept for cells of the smallest size the kernel accesses. For each cell it remembers who wrote
and who read it since the last barrier:

* a read of a cell that another thread wrote, a write to a cell that another thread read, and two writes of
  different values are races, unless a barrier lies between them (``bar.sync``; or ``bar.warp.sync`` in a warp);
* the destination of a ``cp.async`` must not be touched until the thread that issued it has waited for its group;
  from then on it counts as written by that thread, so that others still need a barrier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import PtxError
from .memory import items
from .scalar_types import Array

SHARED_BASE = 0x400  # the first kilobyte of the window is the system's on sm_90, and catches null pointers
POISON = 0xFF
NOBODY = -1
SEVERAL = -2  # readers of more than one warp
ATOMIC = -3


@dataclass
class PendingCopy:
    """A ``cp.async`` of several threads that is not complete: group number of each thread, and its bytes."""

    threads: Array
    groups: Array
    offsets: Array
    data: Array  # (threads,) items of ``width`` bytes
    width: int


class SharedMemory:
    """Shared memory of ``size`` bytes for ``n_threads`` threads (a multiple of 32); ``cell`` is in bytes.

    Who used a cell is a code: ``t`` for thread t, ``synced + w`` for warp w before its last warp barrier,
    ``many + w`` for several lanes of warp w since then.
    """

    def __init__(self, size: int, n_threads: int, cell: int, *, check_races: bool) -> None:
        self.size, self.cell, self.check_races = size, cell, check_races
        self.n_threads = n_threads
        self.synced = n_threads
        self.many = n_threads + n_threads // 32
        self.data = np.empty(-(-max(size, 1) // 16) * 16, np.uint8)
        n_cells = self.data.size // cell
        self.writer = np.empty(n_cells, np.int32)
        self.reader = np.empty(n_cells, np.int32)
        self.pending = np.empty(n_cells, np.int32)
        self.commits = np.empty(n_threads, np.int64)
        self.reset()

    def reset(self) -> None:
        """Begin a new block."""
        self.data.fill(POISON)
        self.pending.fill(NOBODY)
        self.commits.fill(0)
        self.copies: list[PendingCopy] = []
        self.barrier()

    def barrier(self) -> None:
        """Order everything before against everything after, for all threads."""
        self.writer.fill(NOBODY)
        self.reader.fill(NOBODY)

    def warp_barrier(self, warp: int) -> None:
        """Order accesses of one warp among its own lanes."""
        first = warp * 32
        for who in (self.writer, self.reader):
            who[((who >= first) & (who < first + 32)) | (who == self.many + warp)] = self.synced + warp

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
        cells = self._cells(offsets, width)
        self._check_pending(cells, offsets, threads, "read")
        if self.check_races:
            self._note_read(cells, offsets, threads, self.many + threads // 32 if whole_warp else threads)
        return items(self.data, width)[offsets // width]

    def store(self, offsets: Array, data: Array, width: int, threads: Array) -> None:
        """Write items of ``width`` bytes, one a thread."""
        cells = self._cells(offsets, width)
        self._check_pending(cells, offsets, threads, "write")
        view = items(self.data, width)
        index = offsets // width
        foreign = self._foreign_write(cells, offsets, threads) if self.check_races else None
        before = view[index] if foreign is not None else None
        view[index] = data
        if self.check_races:
            clash = view[index] != data
            if foreign is not None and before is not None:
                clash |= foreign & (before != data)
            if clash.any():
                self._race("two threads write different values to one address", clash, offsets, threads)
            self.writer[cells] = threads[:, None]

    def update(self, offsets: Array, width: int, threads: Array) -> Array:
        """View of whole memory as items for an atomic, which may meet other atomics but no plain access."""
        cells = self._cells(offsets, width)
        self._check_pending(cells, offsets, threads, "update")
        if self.check_races:
            writer = self.writer[cells]
            clash = self._others(writer, threads, threads) & (writer != ATOMIC)
            clash |= self._others(self.reader[cells], threads, threads)
            if clash.any():
                self._race("an atomic meets a plain access", clash, offsets, threads)
            self.writer[cells] = ATOMIC
        return items(self.data, width)

    def copy_async(self, offsets: Array, data: Array, width: int, threads: Array) -> None:
        """Begin a copy; its destination is poison until ``wait``."""
        cells = self._cells(offsets, width)
        self._check_pending(cells, offsets, threads, "copy to")
        if self.check_races and (foreign := self._foreign_write(cells, offsets, threads)) is not None:
            self._race("cp.async to an address another thread wrote", foreign, offsets, threads)
        items(self.data, width)[offsets // width] = np.void(bytes([POISON]) * width)
        self.pending[cells] = threads[:, None]
        if self.check_races:
            self.writer[cells] = threads[:, None]
        self.copies.append(PendingCopy(threads, self.commits[threads], offsets, data, width))

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
        remaining = []
        for copy in self.copies:
            done = copy.groups < limit[copy.threads]
            if done.any():
                self._complete(copy, done)
            if not done.all():
                keep = ~done
                remaining.append(
                    PendingCopy(copy.threads[keep], copy.groups[keep], copy.offsets[keep], copy.data[keep], copy.width)
                )
        self.copies = remaining

    def _complete(self, copy: PendingCopy, done: Array) -> None:
        offsets, threads = copy.offsets[done], copy.threads[done]
        items(self.data, copy.width)[offsets // copy.width] = copy.data[done]
        cells = self._cells(offsets, copy.width)
        self.pending[cells] = NOBODY
        if self.check_races:
            self.writer[cells] = threads[:, None]

    def _cells(self, offsets: Array, width: int) -> Array:
        return (offsets // self.cell)[:, None] + np.arange(max(1, width // self.cell))

    def _check_pending(self, cells: Array, offsets: Array, threads: Array, what: str) -> None:
        if self.copies and (busy := self.pending[cells] != NOBODY).any():
            at = int(np.argmax(busy.any(axis=1)))
            message = f"{what} of a cp.async destination before its thread waited for the copy"
            raise PtxError(message, thread=int(threads[at]), address=int(offsets[at]))

    def _others(self, who: Array, codes: Array, threads: Array) -> Array:
        """Where ``who`` names anyone but the accessor itself (``codes``), or its own warp before a warp barrier."""
        return (who != NOBODY) & (who != codes[:, None]) & (who != self.synced + (threads // 32)[:, None])

    def _foreign_write(self, cells: Array, offsets: Array, threads: Array) -> Array | None:
        """Threads that write over another thread's write (None if none); a read by others is an error at once."""
        reader = self.reader[cells]
        if (reader != NOBODY).any() and (bad := self._others(reader, threads, threads)).any():
            self._race("write to an address another thread read", bad, offsets, threads)
        writer = self.writer[cells]
        foreign: Array = np.logical_or.reduce(self._others(writer, threads, threads), axis=1)
        return foreign if foreign.any() else None

    def _note_read(self, cells: Array, offsets: Array, threads: Array, codes: Array) -> None:
        writer = self.writer[cells]
        if (writer != NOBODY).any() and (bad := self._others(writer, codes, threads)).any():
            self._race("read of an address another thread wrote", bad, offsets, threads)
        warps = (threads // 32)[:, None]
        mine, several = codes[:, None], self.many + warps
        old = self.reader[cells]
        fresh = (old == NOBODY) | (old == mine) | (old == self.synced + warps)
        same_warp = (old == several) | ((old >= 0) & (old < self.n_threads) & (old // 32 == warps))
        new = np.where(fresh, mine, np.where(same_warp, several, SEVERAL))
        self.reader[cells] = new
        # Lanes that share a cell overwrite each other's mark: merge them, own warp first.
        left = self.reader[cells]
        if (left != new).any():
            lost = left != new
            left_warp = np.where(left >= self.many, left - self.many, left // 32)
            merged = np.where((left != SEVERAL) & (new != SEVERAL) & (left_warp == warps), several, SEVERAL)
            one_warp = lost & (merged != SEVERAL)
            self.reader[cells[one_warp]] = merged[one_warp]
            self.reader[cells[lost & (merged == SEVERAL)]] = SEVERAL

    def _race(self, message: str, bad: Array, offsets: Array, threads: Array) -> None:
        at = int(np.argmax(bad.any(axis=1) if bad.ndim == 2 else bad))
        detail = f"shared-memory race: {message} since the last barrier"
        raise PtxError(detail, thread=int(threads[at]), address=int(offsets[at]))
