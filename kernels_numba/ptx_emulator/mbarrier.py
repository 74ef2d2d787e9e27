"""When is a phase of a mbarrier complete, and which asynchronous copies does that wait for?

A mbarrier counts arrivals that are still pending and bytes (``transactions``) that are still expected; when both are
zero its phase is complete and the next one begins with all arrivals pending. Copies that complete on a mbarrier are
delivered as late as possible: when every thread of the block waits and some wait for this mbarrier. Until then their
destination is poison, and any access to it an error.

References
----------
NVIDIA, "Parallel Thread Execution ISA", sections on mbarrier, on cp.async.bulk and on cp.async.mbarrier.arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .errors import PtxError
from .scalar_types import Array
from .shared import BULK, OBJECT, SharedMemory

SIZE = ALIGN = 8
MOST = 2**20 - 1  # arrivals of a phase, and bytes expected at once
TOKEN_BITS = 32  # the state that an arrival returns: offset of the mbarrier above its phase


@dataclass(frozen=True)
class BulkCopy:
    """A bulk copy under way: its destination, a byte offset, and the bytes it will bring."""

    offset: int
    data: Array  # uint8
    position: int  # of its instruction


@dataclass
class MBarrier:
    """One mbarrier: arrivals a phase takes and those pending, bytes expected, phases completed, copies under way.

    ``arrivals`` are those of threads whose ``cp.async`` copies have to complete first: thread and a limit, up to which
    copies in their order count.
    """

    offset: int
    expected: int
    pending: int
    transactions: int = 0
    phase: int = 0
    copies: list[BulkCopy] = field(default_factory=list)
    arrivals: list[tuple[int, int]] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.pending} of {self.expected} arrivals pending, {self.transactions} bytes still expected"
        return f"the mbarrier at offset {self.offset:#x} in phase {self.phase} with {counts}"


class MBarriers:
    """Live mbarriers of a block by byte offset; ``n_changes`` counts everything that happened to any of them."""

    def __init__(self, shared: SharedMemory) -> None:
        self.shared = shared
        self.reset()

    def reset(self) -> None:
        """Begin a new block."""
        self.live: dict[int, MBarrier] = {}
        self.n_changes = 0

    def at(self, offset: int, threads: Array, what: str) -> MBarrier:
        """The mbarrier that ``threads`` use; raises PtxError if there is none that they know of."""
        barrier, ordering = self.live.get(offset), self.shared.ordering
        if barrier is None:
            raise PtxError(f"{what} on a mbarrier that is not initialised", thread=int(threads[0]), address=offset)
        if ordering is None or (visible := ordering.is_visible(self.shared.cells_of(offset, SIZE), threads)).all():
            return barrier
        message = f"{what} on a mbarrier that another thread initialised without synchronisation since"
        raise PtxError(message, thread=int(threads[np.argmin(visible)]), address=offset)

    def init(self, offset: int, count: int, thread: int) -> None:
        """``mbarrier.init``: a mbarrier of ``count`` arrivals a phase, in phase 0."""
        if offset in self.live:
            raise PtxError("mbarrier.init over a live mbarrier", thread=thread, address=offset)
        if not 1 <= count <= MOST:
            raise PtxError(f"mbarrier.init with count {count}; allowed are 1 to {MOST}", thread=thread)
        self.shared.claim(offset, SIZE, thread, OBJECT)
        self.shared.note_write(offset, SIZE, thread)
        self.live[offset] = MBarrier(offset, count, count)
        self.n_changes += 1

    def invalidate(self, offset: int, thread: int) -> None:
        """``mbarrier.inval``: its bytes are ordinary memory again."""
        barrier = self.at(offset, np.array([thread]), "mbarrier.inval")
        if barrier.copies or barrier.arrivals:
            raise PtxError(f"mbarrier.inval with copies under way: {barrier}", thread=thread, address=offset)
        del self.live[offset]
        self.shared.release(offset, SIZE)
        self.shared.note_write(offset, SIZE, thread)
        self.n_changes += 1

    def expect(self, barrier: MBarrier, n_bytes: int, thread: int) -> None:
        """``expect_tx``: the phase waits for ``n_bytes`` more."""
        barrier.transactions += n_bytes
        if abs(barrier.transactions) > MOST:
            message = f"{barrier.transactions} bytes expected at a mbarrier; at most {MOST}"
            raise PtxError(message, thread=thread, address=barrier.offset)
        self.n_changes += 1

    def arrive(self, barrier: MBarrier, count: int, thread: int) -> int:
        """``arrive``: returns the state, which names the phase arrived at."""
        if not 1 <= count <= barrier.pending:
            message = f"arrival of {count}, allowed are 1 to the pending ones: {barrier}"
            raise PtxError(message, thread=thread, address=barrier.offset)
        token = barrier.offset << TOKEN_BITS | barrier.phase
        if (ordering := self.shared.ordering) is not None:
            ordering.arrive(ordering.slot(barrier.offset), thread)
        barrier.pending -= count
        self._advance(barrier, thread)
        return token

    def _advance(self, barrier: MBarrier, thread: int | None = None) -> None:
        """Begin the next phase if this one is complete."""
        self.n_changes += 1
        if barrier.pending or barrier.transactions:
            return
        if barrier.copies:
            n_bytes = sum(copy.data.size for copy in barrier.copies)
            message = f"unarmed mbarrier: its phase completes before the {n_bytes} bytes of bulk copies that use it"
            raise PtxError(f"{message}: {barrier}", thread=thread, address=barrier.offset)
        barrier.phase += 1
        barrier.pending = barrier.expected
        if (ordering := self.shared.ordering) is not None:
            ordering.complete(ordering.slot(barrier.offset))

    def copy(self, barrier: MBarrier, copy: BulkCopy, thread: int) -> None:
        """Begin a bulk copy that completes on ``barrier``; one of no bytes changes nothing."""
        shared, size = self.shared, copy.data.size
        ordering = shared.ordering
        if ordering is not None and not ordering.is_fenced(shared.cells_of(barrier.offset, SIZE), thread):
            message = "bulk copy on a mbarrier initialised without a fence since: fence.mbarrier_init"
            raise PtxError(message, thread=thread, address=barrier.offset)
        if not size:
            return
        shared.claim(copy.offset, size, thread, BULK)
        if ordering is not None:
            ordering.check_copy(shared.cells_of(copy.offset, size), copy.offset, thread)
        barrier.copies.append(copy)
        self.n_changes += 1

    def arrive_after_copies(self, barrier: MBarrier, thread: int, *, extra: bool) -> None:
        """An arrival once the ``cp.async`` copies of ``thread`` so far are complete; ``extra`` makes it one more."""
        barrier.pending += extra
        barrier.arrivals.append((thread, self.shared.n_copies))
        self.n_changes += 1

    def deliver(self, barrier: MBarrier) -> None:
        """Complete every copy that the phase of ``barrier`` waits for."""
        copies, barrier.copies = barrier.copies, []
        for copy in copies:
            self._deliver(barrier, copy)
        arrivals, barrier.arrivals = barrier.arrivals, []
        for thread, limit in arrivals:
            self.shared.complete_up_to(thread, limit)
            self.arrive(barrier, 1, thread)
        if copies:
            self._advance(barrier)

    def _deliver(self, barrier: MBarrier, copy: BulkCopy) -> None:
        shared, size = self.shared, copy.data.size
        if size > barrier.transactions:
            raise PtxError(
                f"bulk copy of instruction {copy.position} brings {size} bytes that nobody expects: {barrier}",
                address=barrier.offset,
            )
        barrier.transactions -= size
        shared.release(copy.offset, size)
        shared.data[copy.offset : copy.offset + size] = copy.data
        shared.undefined[shared.cells_of(copy.offset, size)] = False
        if (ordering := shared.ordering) is not None:
            ordering.copied(shared.cells_of(copy.offset, size), ordering.slot(barrier.offset))

    def finish(self) -> None:
        """Raise PtxError if the block ends while a bulk copy is under way: the memory may be another's by then."""
        for barrier in self.live.values():
            if barrier.copies:
                raise PtxError(f"the block ends while bulk copies are under way: {barrier}", address=barrier.offset)
