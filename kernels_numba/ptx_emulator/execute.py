"""Runs one thread block: which threads execute which instruction next, and what control flow does to them.

All threads that stand at the lowest program position execute together, so threads that diverged meet again where
their paths join. While every thread stands at the same place no bookkeeping is needed; that is the common case.

A wait for a phase of a mbarrier gives up once, unless the thread knows already that the phase is complete: others might
have been slower, and a kernel that does not try again is found out. The second time the thread stands still until the
phase is complete, so that its loop starves nobody. Its warp waits for it where all lanes are needed. When no thread can
go on, those whose phase is complete do; if there are none, copies that some wait for are delivered; if that does not
help, the waits give up once more. When all stand still again and no mbarrier has changed since, it is a deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .counters import Counters
from .decode import Step, decode
from .errors import PtxError
from .mbarrier import MBarrier
from .mbarrier_operations import Wait
from .parse import Kernel
from .registers import WARP_SIZE, Active, Geometry
from .scalar_types import Array
from .state import BlockState


class ThreadBlock:
    """Executes blocks of one launch, one after the other."""

    def __init__(self, kernel: Kernel, geometry: Geometry, state: BlockState, max_steps: int) -> None:
        self.kernel, self.state, self.max_steps = kernel, state, max_steps
        self.n_threads = geometry.n_threads
        self.end = len(kernel.instructions)
        self.far = self.end + 1
        exists = np.arange(geometry.padded_threads) < self.n_threads
        self.everyone = Active(exists, full=True)
        self.nobody = Active(np.zeros_like(exists))
        self.steps = [decode(instruction, kernel, state) for instruction in kernel.instructions]

    def run(self, block_index: tuple[int, int, int]) -> Counters:
        """Run one block to its end and return its counters."""
        self.block_index = block_index
        self.state.reset(block_index)
        self.undefined = self.state.registers.undefined.masks
        self.issued = [0] * self.end
        self.switched_off = [0] * self.end
        # ``together`` is the common position, or None while threads stand apart at ``at``.
        self.together: int | None = 0
        self.at = np.where(self.everyone.mask, 0, self.end + 2)
        # Who is ``blocked`` stands at a barrier, is ``held`` by a wait, or is ``gathering``: needs a held lane of its
        # warp. The waits of those who ``tried`` have given up since they last succeeded.
        self.blocked, self.held, self.gathering, self.tried = (np.zeros(self.at.size, bool) for _ in range(4))
        self.any_held = False
        self.changes_at_giving_up = -1
        with np.errstate(all="ignore"):
            while (next_up := self._schedule()) is not None:
                self._step(*next_up)
        return self._finish()

    def _finish(self) -> Counters:
        try:
            self.state.mbarriers.finish()
        except PtxError as error:
            raise self._located(error, self.end - 1) from None
        counters = self.state.finish()
        for instruction, issued, off in zip(self.kernel.instructions, self.issued, self.switched_off, strict=True):
            if issued:
                counters.instructions[instruction.name] += issued
            if off:
                counters.predicated_off[instruction.name] += off
        return counters

    def _schedule(self) -> tuple[int, Active] | None:
        """Position and threads to execute next; None when all have exited."""
        if self.together is not None:
            return (self.together, self.everyone) if self.together < self.end else None
        waiting = np.where(self.blocked, self.far, self.at)
        position = int(waiting.min())
        if position < self.end:
            return position, Active(waiting == position)
        if self.any_held:
            self._help_waits()
        elif position == self.far:
            self._release_barrier()
        elif self.blocked.any():
            thread = int(np.argmax(self.blocked))
            error = PtxError("barrier deadlock: other threads of the block have exited", thread=thread)
            raise self._located(error, int(self.at[thread]))
        else:
            return None
        return self._schedule()

    def _step(self, position: int, group: Active) -> None:
        step = self.steps[position]
        self.state.steps += 1
        if self.state.steps > self.max_steps:
            error = PtxError(f"runaway loop: more than {self.max_steps} steps", thread=int(group.threads[0]))
            raise self._located(error, position)
        if self.any_held and step.gathers and not (group := self._gather(group)).n_warps:
            return
        try:
            active = group if step.guard is None else self._guarded(step, group)
            if not self.undefined.keys().isdisjoint(step.needs):
                self.state.registers.undefined.require(step.needs, active.mask, "an operand")
            if step.wait is not None and active.threads.size:
                group, active = self._hold(step.wait, position, group, active)
            self.issued[position] += group.n_warps
            if active is not group:
                self.switched_off[position] += group.n_warps - active.n_warps
            self._perform(step, position, group, active)
        except PtxError as error:
            raise self._located(error, position) from None

    def _perform(self, step: Step, position: int, group: Active, active: Active) -> None:
        if step.operation is not None:
            if active.threads.size:
                step.operation(active)
            self._advance(position, group, self.nobody, 0)
        elif step.kind == "barrier":
            self._barrier(position, group, active)
        elif step.kind == "table" and step.selector is not None:
            self._jump_by_table(step, position, group, active)
        else:
            self._advance(position, group, active, step.target)

    def _guarded(self, step: Step, group: Active) -> Active:
        assert step.guard is not None
        self.state.registers.undefined.require(step.asks, group.mask, "the guard")
        mask = group.mask & step.guard()
        kept = np.count_nonzero(mask)
        if kept == group.threads.size:
            return group
        return Active(mask) if kept else self.nobody

    def _advance(self, position: int, group: Active, jumping: Active, target: int) -> None:
        """Move ``jumping`` to ``target`` and the rest of ``group`` to the next instruction."""
        if self.together is not None:
            if jumping is self.nobody:
                self.together = position + 1
                return
            if jumping is group:
                self.together = target
                return
            self.together = None
            self.at[: self.n_threads] = position + 1
        else:
            self.at[group.mask] = position + 1
        self.at[jumping.mask] = target
        self._try_to_join()

    def _try_to_join(self) -> None:
        at = self.at[: self.n_threads]
        if not self.blocked.any() and (at == at[0]).all():
            self.together = int(at[0])

    def _jump_by_table(self, step: Step, position: int, group: Active, active: Active) -> None:
        index = step.selector() if step.selector is not None else np.empty(0)
        self.together = None
        self.at[group.mask] = position + 1
        chosen = index[active.threads].astype(np.int64)
        if chosen.size and chosen.max() >= len(step.table):
            raise PtxError(f"branch index {int(chosen.max())} of {len(step.table)} targets")
        self.at[active.threads] = np.array(step.table)[chosen]
        self._try_to_join()

    def _barrier(self, position: int, group: Active, active: Active) -> None:
        """Make whole warps wait; the barrier opens when every thread of the block waits."""
        if active is self.everyone:
            self._pass_barrier()
            self.together = position + 1
            return
        if self.together is not None:
            self.together = None
            self.at[: self.n_threads] = position
        arrived, exist = (mask.reshape(-1, WARP_SIZE) for mask in (active.mask, self.everyone.mask))
        partial = arrived.any(axis=1) & (arrived != exist).any(axis=1)
        if partial.any():
            warp = int(np.argmax(partial))
            thread = int(active.threads[active.threads // WARP_SIZE == warp][0])
            raise PtxError(f"barrier divergence: only some lanes of warp {warp} reach the barrier", thread=thread)
        self.at[group.mask & ~active.mask] = position + 1
        self.blocked |= active.mask

    def _release_barrier(self) -> None:
        """Every thread waits: let all go on behind their barriers, if these are one and the same."""
        positions = np.unique(self.at[self.blocked])
        numbers = {self.steps[int(position)].target for position in positions}
        if len(numbers) > 1:
            error = PtxError(f"barrier deadlock: threads wait at different barriers {sorted(numbers)}", thread=0)
            raise self._located(error, int(positions[0]))
        self._pass_barrier()
        self.at[self.blocked] += 1
        self.blocked[:] = False
        self._try_to_join()

    def _pass_barrier(self) -> None:
        self.state.barrier()
        self.state.counters.barriers += 1

    def _hold(self, wait: Wait, position: int, group: Active, active: Active) -> tuple[Active, Active]:
        """Hold those whose phase is not complete and whose wait has given up before; the others are returned."""
        complete = wait.look(active.threads)
        missed = active.mask & ~(complete & (self.tried | wait.known))
        wait.passed = active.mask & ~missed
        held = missed & self.tried
        self.tried = (self.tried & ~active.mask) | missed
        if not held.any():
            return group, active
        if self.together is not None:
            self.together = None
            self.at[: self.n_threads] = position
        self.blocked |= held
        self.held |= held
        self.any_held = True
        return Active(group.mask & ~held), Active(active.mask & ~held)

    def _held_warps(self) -> Array:
        """Mask of all threads of warps that have a held lane."""
        return np.repeat(self.held.reshape(-1, WARP_SIZE).any(axis=1), WARP_SIZE)

    def _gather(self, group: Active) -> Active:
        """Block those who are about to execute with lanes that are held; the others are returned."""
        late = group.mask & self._held_warps()
        if not late.any():
            return group
        self.blocked |= late
        self.gathering |= late
        return Active(group.mask & ~late)

    def _free(self, threads: Array) -> None:
        """Let held threads (a mask) execute their waits again, and let go on who waited for them."""
        self.held &= ~threads
        gathered = self.gathering & ~self._held_warps()
        self.gathering &= ~gathered
        self.blocked &= ~(threads | gathered)
        self.any_held = bool(self.held.any())

    def _waits(self) -> Iterator[tuple[int, Wait, Array]]:
        """Yield every position where threads are held, its wait, and these threads."""
        for position in np.unique(self.at[self.held]).tolist():
            wait = self.steps[position].wait
            assert wait is not None
            yield position, wait, np.flatnonzero(self.held & (self.at == position))

    def _help_waits(self) -> None:
        """Nobody can go on: whose phase is complete can, or is then; else all give up, or it is a deadlock."""
        if self._wake():
            return
        awaited = {b.offset: (b, p, int(t[0])) for p, w, threads in self._waits() for b, t in w.barriers(threads)}
        for barrier, position, thread in awaited.values():
            self._deliver(barrier, position, thread)
        if self._wake():
            return
        n_changes = self.state.mbarriers.n_changes
        if self.changes_at_giving_up == n_changes:
            barrier, position, thread = next(iter(awaited.values()))
            message = f"deadlock: waits for a phase that nobody completes: {barrier}"
            raise self._located(PtxError(message, thread=thread), position)
        self.changes_at_giving_up = n_changes
        self.tried &= ~self.held
        self._free(self.held.copy())

    def _wake(self) -> bool:
        """Free the threads whose phase is complete; returns whether there are any."""
        before = self.held.copy()
        for position, wait, threads in list(self._waits()):
            try:
                self._free(wait.look(threads))
            except PtxError as error:
                raise self._located(error, position) from None
        return bool((self.held != before).any())

    def _deliver(self, barrier: MBarrier, position: int, thread: int) -> None:
        """Complete the copies that a thread at a position waits for."""
        try:
            self.state.mbarriers.deliver(barrier)
        except PtxError as error:
            error.thread = thread if error.thread is None else error.thread
            raise self._located(error, position) from None

    def _located(self, error: PtxError, position: int) -> PtxError:
        return error.at(self.kernel.instructions[position].text, position, self.block_index)
