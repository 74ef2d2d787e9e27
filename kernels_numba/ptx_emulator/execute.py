"""Runs one thread block: which threads execute which instruction next, and what control flow does to them.

All threads that stand at the lowest program position execute together, so threads that diverged meet again where
their paths join. While every thread stands at the same place no bookkeeping is needed; that is the common case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import (  # noqa: F401
    bit_rules,
    convert_rules,
    float_rules,
    integer_rules,
    memory_operations,
    mma,
    move_operations,
    warp_operations,
)
from .counters import Counters
from .errors import PtxError
from .parse import Instruction, Kernel
from .registers import WARP_SIZE, Active, Geometry, integer, sources
from .rules import RULES, Rule
from .scalar_types import TYPES, Array
from .state import BUILDERS, BlockState, Operation

IGNORED = ("fence", "membar", "nanosleep", "prefetch", "prefetchu", "discard", "applypriority", "griddepcontrol")


class Step(NamedTuple):
    """A decoded instruction: ``kind`` is operation, branch, table, exit or barrier.

    ``target`` is the position that a branch or exit leads to, or the number of a barrier.
    """

    kind: str
    guard: Callable[[], Array] | None
    operation: Operation | None
    target: int
    table: tuple[int, ...] = ()
    selector: Callable[[], Array] | None = None


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
        self.steps = [self._decode(instruction) for instruction in kernel.instructions]

    def run(self, block_index: tuple[int, int, int]) -> Counters:
        """Run one block to its end and return its counters."""
        self.block_index = block_index
        self.state.reset(block_index)
        self.issued = [0] * self.end
        self.switched_off = [0] * self.end
        # ``together`` is the common position, or None while threads stand apart at ``at``.
        self.together: int | None = 0
        self.at = np.where(self.everyone.mask, 0, self.end + 2)
        self.blocked = np.zeros(self.at.size, bool)
        with np.errstate(all="ignore"):
            while (next_up := self._schedule()) is not None:
                self._step(*next_up)
        return self._finish()

    def _finish(self) -> Counters:
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
        if position == self.far:
            self._release_barrier()
            return self._schedule()
        if position == self.end:
            if self.blocked.any():
                thread = int(np.argmax(self.blocked))
                error = PtxError("barrier deadlock: other threads of the block have exited", thread=thread)
                raise self._located(error, int(self.at[thread]))
            return None
        return position, Active(waiting == position)

    def _step(self, position: int, group: Active) -> None:
        step = self.steps[position]
        self.state.steps += 1
        if self.state.steps > self.max_steps:
            error = PtxError(f"runaway loop: more than {self.max_steps} steps", thread=int(group.threads[0]))
            raise self._located(error, position)
        self.issued[position] += group.n_warps
        active = group if step.guard is None else self._guarded(step.guard, group)
        if active is not group:
            self.switched_off[position] += group.n_warps - active.n_warps
        try:
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

    def _guarded(self, guard: Callable[[], Array], group: Active) -> Active:
        mask = group.mask & guard()
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
        self.state.shared.barrier()
        self.state.counters.barriers += 1

    def _located(self, error: PtxError, position: int) -> PtxError:
        return error.at(self.kernel.instructions[position].text, position, self.block_index)

    def _decode(self, instruction: Instruction) -> Step:
        try:
            guard = None
            if instruction.guard is not None:
                negated, name = instruction.guard
                guard = self.state.registers.read(("!" if negated else "") + name, TYPES["pred"])
            return self._decode_control(instruction, guard) or Step("operation", guard, self._operation(instruction), 0)
        except PtxError as error:
            raise error.at(instruction.text, instruction.position, (0, 0, 0)) from None

    def _decode_control(self, instruction: Instruction, guard: Callable[[], Array] | None) -> Step | None:
        opcode, words, labels = instruction.opcode, instruction.modifiers, self.kernel.labels
        if opcode == "bra":
            return Step("branch", guard, None, labels[instruction.operands[0]])
        if opcode == "brx":
            table = tuple(labels[name] for name in self.kernel.branch_tables[instruction.operands[1]])
            index = self.state.registers.read(instruction.operands[0], TYPES["u32"])
            return Step("table", guard, None, 0, table, index)
        if opcode in ("ret", "exit"):
            return Step("exit", guard, None, self.end)
        if opcode in ("bar", "barrier") and "warp" not in words:
            if "sync" not in words or "cluster" in words or [o.isdigit() for o in instruction.operands] != [True]:
                raise PtxError(f"unsupported instruction {instruction.name}: only barriers of the whole block")
            return Step("barrier", guard, None, integer(instruction.operands[0]))
        return None

    def _operation(self, instruction: Instruction) -> Operation:
        opcode = "bar.warp" if instruction.name.startswith("bar.warp") else instruction.opcode
        if opcode in BUILDERS:
            return BUILDERS[opcode](instruction, self.state)
        if opcode in RULES:
            return self._element_wise(instruction)
        if opcode in IGNORED:
            return lambda active: None
        if opcode in ("call", "trap", "brkpt"):
            return _refusal(instruction)
        raise PtxError(f"unsupported instruction {instruction.name}")

    def _element_wise(self, instruction: Instruction) -> Operation:
        rule = RULES[instruction.opcode](instruction)
        registers = self.state.registers
        target, _, other = instruction.operands[0].partition("|")
        put = registers.write(target.strip(), rule.result)
        compute, reads = rule.compute, sources(instruction, registers, *rule.sources)
        if other:
            return self._two_results(instruction, rule, (target.strip(), other.strip()))
        if len(reads) == 2:
            left, right = reads
            return lambda active: put(compute(left(), right()), active)
        return lambda active: put(compute(*[read() for read in reads]), active)

    def _two_results(self, instruction: Instruction, rule: Rule, targets: tuple[str, str]) -> Operation:
        if rule.second is None:
            raise PtxError(f"unsupported form of {instruction.name}: two destinations")
        puts = [self.state.registers.write(target, rule.result) for target in targets]
        reads = sources(instruction, self.state.registers, *rule.sources)
        computes = (rule.compute, rule.second)

        def run(active: Active) -> None:
            values = [read() for read in reads]
            for put, result in zip(puts, [compute(*values) for compute in computes], strict=True):
                put(result, active)

        return run


def _refusal(instruction: Instruction) -> Operation:
    """An instruction that is an error only if a thread reaches it."""

    def run(active: Active) -> None:
        raise PtxError(f"unsupported instruction {instruction.name} was reached", thread=int(active.threads[0]))

    return run
