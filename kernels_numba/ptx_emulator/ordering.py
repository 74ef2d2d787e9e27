"""Which accesses to shared memory are ordered? Races of a kernel whose threads meet at mbarriers too.

The emulator's own time ``now`` advances with every synchronisation; accesses are stamped with it. ``clock[t, u]``
says up to when thread t has synchronised with thread u: t may rely on what u did at a stamp below it. Barriers of
block and warp, and an arrival at a mbarrier that another thread's wait observes, hand clocks on; so everything that
happened before by any chain of them is known. Columns after the threads stand for all atomics together, ordered by
barriers of the block only, and for the bulk copies that complete on each mbarrier.

Proxies: bulk copies reach shared memory by the asynchronous proxy. What a thread stored by ordinary instructions must
not meet them until that thread has executed a proxy fence and then synchronised with the one that issues the copy.

References
----------
Flanagan, Freund, "FastTrack: efficient and precise dynamic race detection", PLDI 2009.
NVIDIA, "Parallel Thread Execution ISA", sections on the memory consistency model and on mbarriers.
"""

from __future__ import annotations

import numpy as np

from .errors import PtxError
from .races import race
from .scalar_types import Array

WARP_SIZE = 32
SEVERAL = 32  # as a lane: more than one lane of the warp
ALWAYS = np.iinfo(np.int32).max  # a thread is always ordered with itself
NEVER = ALWAYS  # as the stamp of a fence
UNUSED = -1
SLOTS = 16  # columns for mbarriers are added so many at a time


class Ordering:
    """Last write and last reads of ``n_cells`` cells by ``n_threads`` threads (a multiple of 32).

    Of the reads of a warp the latest stamp is kept, and its lane or `SEVERAL`. Methods take cells of shape
    (threads, cells of an item), and the byte offset of each thread's item for the message.
    """

    def __init__(self, n_cells: int, n_threads: int) -> None:
        self.n_threads, self.n_warps = n_threads, n_threads // WARP_SIZE
        self.atomics = n_threads  # column
        self.writer = np.empty(n_cells, np.int32)
        self.written = np.empty(n_cells, np.int32)
        self.fenced = np.empty(n_cells, np.int32)
        self.reader = np.empty((n_cells, self.n_warps), np.int8)
        self.read_at = np.empty((n_cells, self.n_warps), np.int32)

    def reset(self) -> None:
        """Begin a new block."""
        self.now = 0
        self.slots: dict[int, int] = {}
        self.clock: Array = np.zeros((self.n_threads, self.n_threads + 1), np.int32)
        self.arriving: Array = np.zeros((0, self.n_threads + 1), np.int32)
        self.completed = self.arriving
        self.writer.fill(0)
        self.reader.fill(0)
        for stamps in (self.written, self.fenced, self.read_at):
            stamps.fill(UNUSED)
        self._changed()

    def _changed(self) -> None:
        """After clocks have changed: each thread knows itself, and what was derived from clocks is stale."""
        np.fill_diagonal(self.clock[:, : self.n_threads], ALWAYS)
        self._floor: Array | None = None
        self._known_to_warp: Array | None = None

    @property
    def floor(self) -> Array:
        """Up to when each thread has synchronised with every lane of each warp, shape (threads, warps)."""
        if self._floor is None:
            lanes = self.clock[:, : self.n_threads].reshape(self.n_threads, self.n_warps, WARP_SIZE)
            self._floor = lanes.min(axis=2)
        return self._floor

    @property
    def known_to_warp(self) -> Array:
        """Up to when every lane of a warp has synchronised with each column, shape (warps, columns)."""
        if self._known_to_warp is None:
            self._known_to_warp = self.clock.reshape(self.n_warps, WARP_SIZE, -1).min(axis=1)
        return self._known_to_warp

    def barrier(self) -> None:
        """Order everything before against everything after, for all threads."""
        self.now += 1
        self.clock[:] = self.clock.max(axis=0)
        self.clock[:, : self.n_threads + 1] = self.now
        self._changed()

    def warp_barrier(self, warps: Array) -> None:
        """Order accesses of each of these warps among its own lanes, and what they know of others."""
        self.now += 1
        rows = self.clock.reshape(self.n_warps, WARP_SIZE, -1)[warps].max(axis=1)
        lanes = warps[:, None] * WARP_SIZE + np.arange(WARP_SIZE)
        np.put_along_axis(rows, lanes, self.now, axis=1)
        self.clock[lanes] = rows[:, None]
        self._changed()

    def slot(self, offset: int) -> int:
        """Number of the mbarrier at a byte offset; the first use makes columns for it."""
        if offset not in self.slots:
            self.slots[offset] = len(self.slots)
            if len(self.slots) > len(self.arriving):
                self.clock = np.pad(self.clock, ((0, 0), (0, SLOTS)))
                self.arriving, self.completed = (
                    np.pad(clock, ((0, SLOTS), (0, SLOTS))) for clock in (self.arriving, self.completed)
                )
                self._changed()
        return self.slots[offset]

    def arrive(self, slot: int, thread: int) -> None:
        """Hand what ``thread`` did and knows to those who will wait for the phase of the mbarrier."""
        self.now += 1
        known = self.clock[thread].copy()
        known[thread] = self.now
        np.maximum(self.arriving[slot], known, out=self.arriving[slot])

    def complete(self, slot: int) -> None:
        """The phase is complete: what its arrivals handed on, and its copies, can be acquired."""
        self.now += 1
        self.completed[slot] = self.arriving[slot]
        self.completed[slot, self.n_threads + 1 + slot] = self.now

    def knows(self, slot: int, threads: Array) -> Array:
        """Which of ``threads`` have synchronised with the last phase completed."""
        column = self.n_threads + 1 + slot
        known: Array = self.clock[threads, column] >= self.completed[slot, column]
        return known

    def acquire(self, slot: int, threads: Array) -> None:
        """A wait of ``threads`` has succeeded."""
        self.clock[threads] = np.maximum(self.clock[threads], self.completed[slot])
        self._changed()

    def read(self, cells: Array, offsets: Array, threads: Array, *, whole_warp: bool) -> None:
        """Note a read; raises PtxError if it is not ordered after the last write."""
        warps = (threads // WARP_SIZE)[:, None]
        known, who = (self.known_to_warp, warps) if whole_warp else (self.clock, threads[:, None])
        if (bad := self.written[cells] >= known[who, self.writer[cells]]).any():
            raise race("read of an address another thread wrote", bad, offsets, threads)
        old, mine = self.reader[cells, warps], SEVERAL if whole_warp else threads[:, None] % WARP_SIZE
        last = warps * WARP_SIZE + np.minimum(old, WARP_SIZE - 1)
        seen = np.where(old == SEVERAL, self.floor[threads[:, None], warps], self.clock[threads[:, None], last])
        # A read that is ordered before this one need not be remembered: who waits for this one waits for it.
        new = np.where((old == mine) | (self.read_at[cells, warps] < seen), mine, SEVERAL)
        self.reader[cells, warps] = new
        self.read_at[cells, warps] = self.now
        lost = self.reader[cells, warps] != new  # lanes of the warp that read one cell overwrite each other's mark
        self.reader[cells[lost], np.broadcast_to(warps, cells.shape)[lost]] = SEVERAL

    def foreign_write(self, cells: Array, offsets: Array, threads: Array) -> Array | None:
        """Threads that write over a write they are not ordered after (None if none); such a read is an error."""
        if (bad := self._unordered_reads(cells, threads)) is not None:
            raise race("write to an address another thread read", bad, offsets, threads)
        foreign: Array = np.logical_or.reduce(self._unordered_writes(cells, threads), axis=1)
        return foreign if foreign.any() else None

    def _unordered_writes(self, cells: Array, threads: Array) -> Array:
        unordered: Array = self.written[cells] >= self.clock[threads[:, None], self.writer[cells]]
        return unordered

    def _unordered_reads(self, cells: Array, threads: Array) -> Array | None:
        stamps = self.read_at[cells]  # (threads, cells, warps)
        suspect = stamps >= self.floor[threads][:, None]
        if not suspect.any():
            return None
        at, cell, warp = np.nonzero(suspect)
        lane = self.reader[cells[at, cell], warp]
        one = stamps[at, cell, warp] < self.clock[threads[at], warp * WARP_SIZE + np.minimum(lane, WARP_SIZE - 1)]
        bad = np.zeros(cells.shape, bool)
        np.logical_or.at(bad, (at, cell), (lane == SEVERAL) | ~one)
        return bad if bad.any() else None

    def wrote(self, cells: Array, threads: Array) -> None:
        """Note a write by an ordinary instruction, which needs a fence before a bulk copy."""
        self._wrote(cells, threads[:, None], NEVER)

    def _wrote(self, cells: Array, who: Array | int, fenced: int) -> None:
        self.writer[cells] = who
        self.written[cells] = self.now
        self.fenced[cells] = fenced

    def update(self, cells: Array, offsets: Array, threads: Array) -> None:
        """Note an atomic, which may meet other atomics but no plain access."""
        writes = self._unordered_writes(cells, threads) & (self.writer[cells] != self.atomics)
        for clash in (writes, self._unordered_reads(cells, threads)):
            if clash is not None and clash.any():
                raise race("an atomic meets a plain access", clash, offsets, threads)
        self._wrote(cells, self.atomics, NEVER)

    def fence(self, threads: Array, cells: Array | slice = slice(None)) -> None:
        """Proxy fence of ``threads``: what they wrote to ``cells`` before it may meet bulk copies."""
        by_them = np.zeros(self.clock.shape[1], bool)
        by_them[threads] = by_them[self.atomics] = True
        fenced = self.fenced[cells]
        fenced[by_them[self.writer[cells]] & (fenced == NEVER)] = self.now
        self.fenced[cells] = fenced

    def check_copy(self, cells: Array, offset: int, thread: int) -> None:
        """Raise PtxError unless ``thread`` may let a bulk copy write to ``cells``, of shape (cells,)."""
        who, all_cells = np.array([thread]), cells[None]
        if self._unordered_reads(all_cells, who) is not None:
            message = "early reuse: bulk copy to bytes that other threads read without synchronisation since"
            raise PtxError(message, thread=thread, address=offset)
        if self._unordered_writes(all_cells, who).any():
            message = "shared-memory race: bulk copy to bytes that another thread wrote without synchronisation since"
            raise PtxError(message, thread=thread, address=offset)
        if not self.is_fenced(cells, thread):
            message = "no proxy fence: bulk copy to bytes that a thread wrote without fence.proxy.async since"
            raise PtxError(message, thread=thread, address=offset)

    def is_fenced(self, cells: Array, thread: int) -> bool:
        """Whether the writers of ``cells`` executed a fence afterwards, and ``thread`` synchronised with them since."""
        return bool((self.fenced[cells] < self.clock[thread, self.writer[cells]]).all())

    def is_visible(self, cells: Array, threads: Array) -> Array:
        """Which of ``threads`` are ordered after the last writes to all of ``cells``."""
        return np.logical_not(self._unordered_writes(cells[None], threads).any(axis=1))

    def copied(self, cells: Array, slot: int) -> None:
        """Note the data of a bulk copy that completes on a mbarrier: for those who wait for its phase."""
        self._wrote(cells, self.n_threads + 1 + slot, UNUSED)
