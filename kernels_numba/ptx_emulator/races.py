"""Which threads race for shared memory? Races of a kernel whose threads meet only at barriers of block and warp.

For each cell it is remembered who wrote and who read it since the last barrier. A read of a cell that another thread
wrote, a write to a cell that another thread read, and two writes of different values are races, unless a barrier lies
between them (``bar.sync``; or ``bar.warp.sync`` in a warp). Kernels with mbarriers have `ordering.Ordering` instead.
"""

from __future__ import annotations

import numpy as np

from .errors import PtxError
from .scalar_types import Array

NOBODY = -1
SEVERAL = -2  # readers of more than one warp
ATOMIC = -3


def race(message: str, bad: Array, offsets: Array, threads: Array) -> PtxError:
    """Error of the first thread that is marked in ``bad``, of shape (threads,) or (threads, cells)."""
    at = int(np.argmax(bad.any(axis=1) if bad.ndim == 2 else bad))
    detail = f"shared-memory race: {message} since the last barrier"
    return PtxError(detail, thread=int(threads[at]), address=int(offsets[at]))


class Races:
    """Who used each of ``n_cells`` cells since the last barrier, of ``n_threads`` threads (a multiple of 32).

    Who is a code: ``t`` for thread t, ``synced + w`` for warp w before its last warp barrier, ``many + w`` for
    several lanes of warp w since then. Methods take cells of shape (threads, cells of an item), and the byte offset
    of each thread's item for the message.
    """

    def __init__(self, n_cells: int, n_threads: int) -> None:
        self.n_threads = n_threads
        self.synced = n_threads
        self.many = n_threads + n_threads // 32
        self.writer = np.empty(n_cells, np.int32)
        self.reader = np.empty(n_cells, np.int32)

    def reset(self) -> None:
        """Begin a new block."""
        self.barrier()

    def barrier(self) -> None:
        """Order everything before against everything after, for all threads."""
        self.writer.fill(NOBODY)
        self.reader.fill(NOBODY)

    def warp_barrier(self, warps: Array) -> None:
        """Order accesses of each of these warps among its own lanes."""
        for warp in warps:
            first = warp * 32
            for who in (self.writer, self.reader):
                who[((who >= first) & (who < first + 32)) | (who == self.many + warp)] = self.synced + warp

    def read(self, cells: Array, offsets: Array, threads: Array, *, whole_warp: bool) -> None:
        """Note a read; raises PtxError if it races with a write."""
        self._note_read(cells, offsets, threads, self.many + threads // 32 if whole_warp else threads)

    def wrote(self, cells: Array, threads: Array) -> None:
        """Note a write."""
        self.writer[cells] = threads[:, None]

    def update(self, cells: Array, offsets: Array, threads: Array) -> None:
        """Note an atomic, which may meet other atomics but no plain access."""
        writer = self.writer[cells]
        clash = self._others(writer, threads, threads) & (writer != ATOMIC)
        clash |= self._others(self.reader[cells], threads, threads)
        if clash.any():
            raise race("an atomic meets a plain access", clash, offsets, threads)
        self.writer[cells] = ATOMIC

    def foreign_write(self, cells: Array, offsets: Array, threads: Array) -> Array | None:
        """Threads that write over another thread's write (None if none); a read by others is an error at once."""
        reader = self.reader[cells]
        if (reader != NOBODY).any() and (bad := self._others(reader, threads, threads)).any():
            raise race("write to an address another thread read", bad, offsets, threads)
        writer = self.writer[cells]
        foreign: Array = np.logical_or.reduce(self._others(writer, threads, threads), axis=1)
        return foreign if foreign.any() else None

    def _others(self, who: Array, codes: Array, threads: Array) -> Array:
        """Where ``who`` names anyone but the accessor itself (``codes``), or its own warp before a warp barrier."""
        return (who != NOBODY) & (who != codes[:, None]) & (who != self.synced + (threads // 32)[:, None])

    def _note_read(self, cells: Array, offsets: Array, threads: Array, codes: Array) -> None:
        writer = self.writer[cells]
        if (writer != NOBODY).any() and (bad := self._others(writer, codes, threads)).any():
            raise race("read of an address another thread wrote", bad, offsets, threads)
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
