"""May a block rely on what another block of the launch wrote to global memory? Release and acquire, followed.

Blocks run one after the other here, so that each finds what lower ones wrote. On a GPU it finds it only if a thread of
the writing block executed a fence of the GPU's scope behind the writes and then changed a flag by a strong access, and
a thread of the reading block saw that flag by an acquiring load, or by a relaxed one and a fence. Barriers of block and
warp hand on what a thread may rely on, at both ends; mbarriers are not followed.

``now`` advances with every barrier and fence; writes are stamped with it, in cells of 4 bytes. A *view* says of each
block, by thread, up to when its writes are known. Narrower accesses are not followed, nor writes over what another
block wrote, nor plain reads of what the block itself wrote.

References
----------
NVIDIA, "Parallel Thread Execution ISA", section on the memory consistency model: release and acquire patterns,
causality order.
"""

from __future__ import annotations

import numpy as np

from .errors import PtxError
from .memory import Span
from .registers import WARP_SIZE
from .scalar_types import Array

CELL = 4  # bytes
NOBODY = -1
STRONG = ("relaxed", "acquire", "release", "acq_rel", "volatile")
READ_ONLY = "nc"
View = dict[int, Array]


def order_of(words: tuple[str, ...], opcode: str) -> str:
    """How a memory instruction orders others: a word of `STRONG` at the GPU's scope, `READ_ONLY`, or nothing."""
    if "volatile" in words or READ_ONLY in words:
        return "volatile" if "volatile" in words else READ_ONLY
    strong = opcode in ("atom", "red") or bool({"gpu", "sys"} & set(words))
    return next((word for word in STRONG if word in words), "relaxed") if strong and "cta" not in words else ""


class Publication:
    """Who wrote which cells of global memory in this launch, and what the threads of the running block know of it."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.warp = np.arange(n_threads) // WARP_SIZE
        self.now, self.block = 0, NOBODY
        self.marks: dict[int | str, tuple[Array, Array]] = {}  # of an array's cells: writers among all threads, stamps
        self.released: dict[tuple[int | str, int], View] = {}  # what who sees a flag may rely on

    def reset(self) -> None:
        """Begin the next block, which knows nothing of others."""
        self.block += 1
        self.now += 1
        self.block_synced = 0
        self.warp_synced = np.zeros(self.n_threads // WARP_SIZE, np.int64)
        self.known: View = {}  # block -> (threads of this block, threads of that)
        self.fenced: dict[int, View] = {}  # thread -> what its last fence releases
        self.seen: dict[int, list[View]] = {}  # thread -> what it has looked at and acquires by a fence
        self.looked: dict[tuple[int | str, int], Array] = {}  # flag -> when each thread looked at it

    def barrier(self) -> None:
        """All threads of the block know what any of them knew."""
        self.now += 1
        self.block_synced = self.now
        for known in self.known.values():
            known[:] = known.max(axis=0)

    def warp_barrier(self, warps: Array) -> None:
        """All lanes of these warps know what any of theirs knew."""
        self.now += 1
        self.warp_synced[warps] = self.now
        for known in self.known.values():
            lanes = known.reshape(-1, WARP_SIZE, self.n_threads)
            lanes[warps] = lanes[warps].max(axis=1, keepdims=True)

    def fence(self, threads: Array) -> None:
        """Fence of the GPU's scope: what ``threads`` have seen is acquired, what they know can be released."""
        self.now += 1
        for thread in threads.tolist():
            for view in self.seen.pop(thread, []):
                self._acquire(thread, view)
            self.fenced[thread] = self._view_of(thread)

    def note(self, kind: str, order: str, span: Span, threads: Array, width: int) -> None:
        """Check a load, store or atomic of ``threads`` in one array, and remember it; raises PtxError if it races."""
        if width < CELL:
            return
        label, cells = span.array.label, (span.offsets // CELL)[:, None] + np.arange(width // CELL)
        if kind == "store":
            self._check_looks(label, cells, threads)
            self._mark(span, cells, threads)
            self._release(label, cells, threads, order)
        elif kind == "load" and order not in STRONG:
            self._check_read(label, cells, threads, order)
        else:
            self._look(label, cells, threads, order)
            if kind == "atomic":
                self._release(label, cells, threads, order)

    def _view_of(self, thread: int) -> View:
        """What a thread knows: of its own block what barriers told it, and of others what it has acquired."""
        own = np.where(self.warp == self.warp[thread], self.warp_synced[self.warp[thread]], 0)
        own = np.maximum(own, self.block_synced)
        own[thread] = self.now
        return {self.block: own} | {block: known[thread].copy() for block, known in self.known.items()}

    def _release(self, label: int | str, cells: Array, threads: Array, order: str) -> None:
        """A strong write shows what its thread's last fence covers; a plain one shows nothing."""
        if order in ("release", "acq_rel"):
            self.fence(threads)
        if order not in STRONG and not self.released:
            return
        for thread, row in zip(threads.tolist(), cells.tolist(), strict=True):
            for cell in row:
                if order in STRONG:
                    self.released[label, cell] = self.fenced.get(thread, {})
                else:
                    self.released.pop((label, cell), None)

    def _look(self, label: int | str, cells: Array, threads: Array, order: str) -> None:
        """A strong load or atomic finds what was released with the flag."""
        for thread, row in zip(threads.tolist(), cells.tolist(), strict=True):
            for cell in row:
                self.looked.setdefault((label, cell), np.full(self.n_threads, NOBODY))[thread] = self.now
                view = self.released.get((label, cell), {})
                if order in ("acquire", "acq_rel"):
                    self._acquire(thread, view)
                else:
                    self.seen.setdefault(thread, []).append(view)

    def _acquire(self, thread: int, view: View) -> None:
        for block, stamps in view.items():
            known = self.known.setdefault(block, np.zeros((self.n_threads, self.n_threads), np.int64))
            np.maximum(known[thread], stamps, out=known[thread])

    def _mark(self, span: Span, cells: Array, threads: Array) -> None:
        n_cells = -(-span.array.data.size // CELL)
        if span.array.label not in self.marks:
            self.marks[span.array.label] = np.full(n_cells, NOBODY, np.int64), np.zeros(n_cells, np.int64)
        writers, written = self.marks[span.array.label]
        writers[cells], written[cells] = self.block * self.n_threads + threads[:, None], self.now

    def _check_read(self, label: int | str, cells: Array, threads: Array, order: str) -> None:
        """Raise PtxError if ``threads`` read what another block wrote and they do not know of."""
        if label not in self.marks:
            return
        writers, written = (marks[cells] for marks in self.marks[label])
        if order == READ_ONLY and (writers != NOBODY).any():
            raise _error("read-only load of data that this launch writes", label, cells, threads, writers != NOBODY)
        blocks, lanes = np.divmod(writers, self.n_threads)
        foreign = (writers != NOBODY) & (blocks != self.block)
        for block in np.unique(blocks[foreign]).tolist():
            those = foreign & (blocks == block)
            known = self.known.get(block)
            bad = those if known is None else those & (written >= known[threads[:, None], lanes])
            if bad.any():
                message = "race between blocks: read of what another block wrote, without release and acquire"
                raise _error(message, label, cells, threads, bad)

    def _check_looks(self, label: int | str, cells: Array, threads: Array) -> None:
        """Raise PtxError if a flag is written while other threads of the block may still look at it."""
        if not self.looked:
            return
        for thread, row in zip(threads.tolist(), cells.tolist(), strict=True):
            for cell in row:
                if (looked := self.looked.get((label, cell))) is None:
                    continue
                own_warp = np.where(self.warp == self.warp[thread], self.warp_synced[self.warp[thread]], 0)
                late = looked >= np.maximum(own_warp, self.block_synced)
                late[thread] = False
                if (late & (looked != NOBODY)).any():
                    who, where = np.array([thread]), np.array([[cell]])
                    message = "race: write to a flag that another thread may still look at"
                    raise _error(message, label, where, who, np.array([[True]]))


def _error(message: str, label: int | str, cells: Array, threads: Array, bad: Array) -> PtxError:
    """Error of the first thread that is marked in ``bad``, of shape (threads, cells)."""
    at, cell = np.argwhere(bad)[0]
    return PtxError(f"{message} (array {label})", thread=int(threads[at]), address=int(cells[at, cell]) * CELL)
