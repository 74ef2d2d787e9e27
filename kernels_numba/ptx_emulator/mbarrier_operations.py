"""Instructions of mbarriers, and the fences that show memory to the asynchronous proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .errors import PtxError
from .mbarrier import ALIGN, SIZE, TOKEN_BITS, MBarrier
from .memory_operations import resolve
from .parse import Instruction
from .registers import Active
from .scalar_types import TYPES, Array
from .state import BlockState, Operation, builder, space_of

U32, B64, PRED = TYPES["u32"], TYPES["b64"], TYPES["pred"]
WAITS = ("try_wait", "test_wait")
SCOPES = {"cta", "cluster", "shared", "shared::cta", "b64"}
ORDERS = {"init": (), "inval": (), "arrive": ("release", "expect_tx"), "expect_tx": ("relaxed",)}


def mbarrier_offsets(
    instruction: Instruction, operand: str, state: BlockState, space: str | None = None
) -> Callable[[Array], Array]:
    """Decode the address of a mbarrier: a function that returns byte offsets in shared memory for some threads."""
    address, space = state.registers.address(operand), space or space_of(instruction)

    def offsets(threads: Array) -> Array:
        found, addresses = resolve(space, address()[threads], threads)
        if found != "shared":
            raise PtxError(f"mbarrier in {found} memory", thread=int(threads[0]))
        return state.shared.offsets(addresses, ALIGN, threads)

    return offsets


@builder("mbarrier")
def _mbarrier(instruction: Instruction, state: BlockState) -> Operation:
    """All but waits, which are control flow."""
    kind, *words = instruction.modifiers
    if kind not in ORDERS or not set(words) <= SCOPES.union(ORDERS[kind]):
        raise PtxError(f"unsupported instruction {instruction.name}")
    if kind == "arrive":
        return _arrive(instruction, state)
    offsets, what = mbarrier_offsets(instruction, instruction.operands[0], state), f"mbarrier.{kind}"
    number = state.registers.read(instruction.operands[1], U32) if len(instruction.operands) > 1 else None
    mbarriers = state.mbarriers

    def run(active: Active) -> None:
        numbers = number() if number is not None else np.zeros(state.registers.n, np.uint32)
        for thread, offset in zip(active.threads.tolist(), offsets(active.threads).tolist(), strict=True):
            if kind == "init":
                mbarriers.init(offset, int(numbers[thread]), thread)
            elif kind == "inval":
                mbarriers.invalidate(offset, thread)
            else:
                mbarriers.expect(mbarriers.at(offset, np.array([thread]), what), int(numbers[thread]), thread)

    return run


def _arrive(instruction: Instruction, state: BlockState) -> Operation:
    """``mbarrier.arrive{.expect_tx} state, [mbarrier] {, count | bytes}``; thread after thread."""
    expects, operands = "expect_tx" in instruction.modifiers, instruction.operands
    put = state.registers.scatter(operands[0], B64)
    offsets = mbarrier_offsets(instruction, operands[1], state)
    if expects and len(operands) != 3:
        raise PtxError(f"unsupported form of {instruction.name}: it needs the bytes to expect")
    number = state.registers.read(operands[2] if len(operands) > 2 else "1", U32)

    def run(active: Active) -> None:
        numbers, tokens = number(), np.zeros(active.threads.size, np.uint64)
        for i, offset in enumerate(offsets(active.threads).tolist()):
            thread = int(active.threads[i])
            barrier, amount = state.mbarriers.at(offset, active.threads[i : i + 1], instruction.name), numbers[thread]
            if expects:
                state.mbarriers.expect(barrier, int(amount), thread)
            tokens[i] = state.mbarriers.arrive(barrier, 1 if expects else int(amount), thread)
        put(tokens, active)

    return run


class Wait:
    """``mbarrier.{try,test}_wait{.parity} p, [mbarrier], state | parity {, time}``.

    Either instruction may wait, or give up, p being false, while the phase is not complete; `execute` decides.
    """

    def __init__(self, instruction: Instruction, state: BlockState) -> None:
        words = set(instruction.modifiers)
        if not words <= SCOPES | {*WAITS, "parity", "acquire"}:
            raise PtxError(f"unsupported instruction {instruction.name}")
        target, address, wanted = instruction.operands[:3]
        self.state, self.name, self.by_parity = state, instruction.name, "parity" in words
        self.offsets = mbarrier_offsets(instruction, address, state)
        self.wanted = state.registers.read(wanted, U32 if self.by_parity else B64)
        self.put = state.registers.write(target, PRED)
        self.known: Array = np.ones(state.registers.n, bool)
        self.passed: Array = self.known

    def barriers(self, threads: Array) -> Iterator[tuple[MBarrier, Array]]:
        """Yield every mbarrier that ``threads`` wait for, with these threads."""
        offsets = self.offsets(threads)
        for offset in np.unique(offsets).tolist():
            chosen = threads[offsets == offset]
            yield self.state.mbarriers.at(offset, chosen, self.name), chosen

    def look(self, threads: Array) -> Array:
        """Mask over all threads: those of ``threads`` whose phase is complete; ``known`` says who knew it before."""
        wanted, ordering = self.wanted(), self.state.shared.ordering
        complete: Array = np.zeros_like(self.known)
        for barrier, chosen in self.barriers(threads):
            test = self._parity_passed if self.by_parity else self._state_passed
            complete[chosen] = test(barrier, wanted[chosen], chosen)
            if ordering is not None:
                self.known[chosen] = ordering.knows(ordering.slot(barrier.offset), chosen)
        return complete

    def _parity_passed(self, barrier: MBarrier, parities: Array, threads: Array) -> Array:
        if (parities > 1).any():
            raise PtxError(
                f"{self.name} with parity {int(parities.max())}; allowed are 0 and 1", thread=int(threads[0])
            )
        return parities != barrier.phase % 2

    def _state_passed(self, barrier: MBarrier, tokens: Array, threads: Array) -> Array:
        phases = tokens.astype(np.int64) - (barrier.offset << TOKEN_BITS)
        if (wrong := (phases != barrier.phase) & (phases != barrier.phase - 1)).any():
            message = f"{self.name} with a state that is not of this or the last phase: {barrier}"
            raise PtxError(message, thread=int(threads[np.argmax(wrong)]), address=barrier.offset)
        return phases < barrier.phase

    def finish(self, active: Active) -> None:
        """Set p to ``passed``, and let these threads rely on what was done for the phase."""
        ordering, threads = self.state.shared.ordering, active.threads[self.passed[active.threads]]
        if ordering is not None and threads.size:
            for barrier, chosen in self.barriers(threads):
                ordering.acquire(ordering.slot(barrier.offset), chosen)
        self.put(self.passed, active)


@builder("fence", "membar")
def _fence(instruction: Instruction, state: BlockState) -> Operation:
    """Fences of the GPU's scope order what other blocks see, those between proxies what bulk copies meet."""
    words, ordering, publication = instruction.modifiers, state.shared.ordering, state.publication
    if "proxy" in words and words[:2] != ("proxy", "async"):
        raise PtxError(f"unsupported instruction {instruction.name}")
    if words[0] not in ("proxy", "mbarrier_init"):
        whole_gpu = publication is not None and {"gpu", "gl", "sys"} & set(words)
        return lambda active: publication.fence(active.threads) if whole_gpu and publication else None
    if ordering is None or words[2:] == ("global",):
        return lambda active: None
    if words[0] == "proxy":
        return lambda active: ordering.fence(active.threads)

    def fence_mbarriers(active: Active) -> None:
        cells = [state.shared.cells_of(offset, SIZE) for offset in state.mbarriers.live]
        if cells:
            ordering.fence(active.threads, np.concatenate(cells))

    return fence_mbarriers
