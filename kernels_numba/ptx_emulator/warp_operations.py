"""Instructions in which lanes of a warp exchange data: shuffles, votes, elections, ``ldmatrix``, ``bar.warp.sync``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import PtxError
from .parse import Instruction
from .registers import WARP_SIZE, Active
from .scalar_types import TYPES, Array
from .state import BlockState, Operation, access_of, builder

U32, B32, PRED = TYPES["u32"], TYPES["b32"], TYPES["pred"]


def check_members(what: str, members: Array, active: Active) -> None:
    """Every lane that executes ``what`` must be in its member mask, and every member must execute it.

    Parameters
    ----------
    what : str
        Name of the instruction, for the message.
    members : array of uint32, shape (threads,)
        Member mask that each thread passes.
    active : Active
        Threads that execute.
    """
    bits = active.mask.reshape(-1, WARP_SIZE) << np.arange(WARP_SIZE, dtype=np.uint64)
    present = np.repeat(bits.sum(axis=1, dtype=np.uint64), WARP_SIZE)
    wrong = active.mask & (present != members)
    if wrong.any():
        thread = int(np.argmax(wrong))
        message = f"{what} with member mask {int(members[thread]):#x} executed by lanes {int(present[thread]):#x}"
        raise PtxError(message, thread=thread)


def _member_check(instruction: Instruction, state: BlockState, operand: str) -> Callable[[Active], None]:
    members = state.registers.read(operand, U32)
    return lambda active: check_members(instruction.name, members(), active)


@builder("shfl", carries=(1,))
def _shuffle(instruction: Instruction, state: BlockState) -> Operation:
    """``shfl.sync.mode.b32 d|p, a, b, c, members``: lane arithmetic as in the PTX ISA's pseudo-code."""
    mode = instruction.modifiers[1]
    target, _, found = instruction.operands[0].partition("|")
    read = state.registers.read
    value, step, clamp = (read(operand, U32) for operand in instruction.operands[1:4])
    check = _member_check(instruction, state, instruction.operands[4])
    put, put_found = state.registers.write(target.strip(), B32), state.registers.write(found.strip() or "_", PRED)
    thread = np.arange(state.registers.n)
    lane, first = thread % WARP_SIZE, thread - thread % WARP_SIZE
    undefined, given = state.registers.undefined, instruction.operands[1]

    def run(active: Active) -> None:
        check(active)
        c = clamp().astype(np.int64)
        source, in_range = _shuffle_source(mode, lane, step().astype(np.int64) & 31, c & 31, (c >> 8) & 31)
        chosen = first + np.where(in_range, source, lane)
        if not active.full and (bad := active.mask & ~active.mask[chosen]).any():
            raise PtxError("shuffle from an inactive lane", thread=int(np.argmax(bad)))
        unknown = undefined.of(given)[chosen] & active.mask
        put(value()[chosen], active)
        undefined.mark(target.strip(), unknown)
        put_found(in_range, active)

    return run


def _shuffle_source(mode: str, lane: Array, b: Array, clamp: Array, segment: Array) -> tuple[Array, Array]:
    """Source lane of each lane, and whether it lies in the lane's segment."""
    limit = (lane & segment) | (clamp & ~segment)
    if mode == "up":
        return lane - b, lane - b >= limit
    source = {"down": lane + b, "bfly": lane ^ b, "idx": (lane & segment) | (b & ~segment)}[mode]
    return source, source <= limit


@builder("vote")
def _vote(instruction: Instruction, state: BlockState) -> Operation:
    """``vote.sync.{all,any,uni,ballot}`` over the active lanes of each warp."""
    mode = instruction.modifiers[1]
    source = state.registers.read(instruction.operands[1], PRED)
    check = _member_check(instruction, state, instruction.operands[2])
    put = state.registers.write(instruction.operands[0], B32 if mode == "ballot" else PRED)

    def run(active: Active) -> None:
        check(active)
        inside = active.mask.reshape(-1, WARP_SIZE)
        vote = source().reshape(-1, WARP_SIZE) & inside
        if mode == "ballot":
            result = (vote << np.arange(WARP_SIZE, dtype=np.uint64)).sum(axis=1, dtype=np.uint64).astype(np.uint32)
        else:
            all_true, any_true = (vote | ~inside).all(axis=1), vote.any(axis=1)
            result = {"all": all_true, "any": any_true, "uni": all_true | ~any_true}[mode]
        put(np.repeat(result, WARP_SIZE), active)

    return run


@builder("activemask")
def _active_mask(instruction: Instruction, state: BlockState) -> Operation:
    put = state.registers.write(instruction.operands[0], B32)

    def run(active: Active) -> None:
        bits = active.mask.reshape(-1, WARP_SIZE) << np.arange(WARP_SIZE, dtype=np.uint64)
        put(np.repeat(bits.sum(axis=1, dtype=np.uint64).astype(np.uint32), WARP_SIZE), active)

    return run


@builder("elect")
def _elect(instruction: Instruction, state: BlockState) -> Operation:
    """``elect.sync d|p, members``: one lane of the warp's members, p is true there.

    PTX does not say which. Here it is the highest, as nobody expects.
    """
    target, _, found = instruction.operands[0].partition("|")
    check = _member_check(instruction, state, instruction.operands[1])
    put = state.registers.write(target.strip(), B32)
    put_found = state.registers.write(found.strip() or "_", PRED)
    lane = np.arange(state.registers.n) % WARP_SIZE

    def run(active: Active) -> None:
        check(active)
        from_above = active.mask.reshape(-1, WARP_SIZE)[:, ::-1]
        leader = np.repeat(WARP_SIZE - 1 - from_above.argmax(axis=1), WARP_SIZE)
        put(leader.astype(np.uint32), active)
        put_found(lane == leader, active)

    return run


@builder("bar.warp")
def _warp_barrier(instruction: Instruction, state: BlockState) -> Operation:
    """Wait for the member lanes, and order their accesses to memory."""
    check = _member_check(instruction, state, instruction.operands[0])

    def run(active: Active) -> None:
        check(active)
        # Only a barrier of the whole warp orders every pair of its lanes.
        state.warp_barrier(np.flatnonzero(active.mask.reshape(-1, WARP_SIZE).all(axis=1)))

    return run


@builder("ldmatrix")
def _load_matrix(instruction: Instruction, state: BlockState) -> Operation:
    """``ldmatrix.sync.aligned.m8n8.xN{.trans}.shared.b16``: lane r of each 8 gives the address of matrix row r.

    Lane 4 g + t receives the elements (g, 2 t) and (g, 2 t + 1), of the transposed matrix with ``.trans``.
    """
    words, registers = instruction.modifiers, state.registers
    if "m8n8" not in words or "b16" not in words:
        raise PtxError(f"unsupported instruction {instruction.name}")
    targets, address = registers.vector(instruction.operands[0]), registers.address(instruction.operands[1])
    n, trans = len(targets), "trans" in words
    if f"x{n}" not in words:
        raise PtxError(f"{instruction.name} with {n} destination registers")
    puts = [registers.write(target, B32) for target in targets]
    access = access_of(instruction, 16)
    n_warps = registers.n // WARP_SIZE

    def run(active: Active) -> None:
        warps = active.whole_warps(instruction.name)
        threads = (warps[:, None] * WARP_SIZE + np.arange(8 * n)).reshape(-1)
        offsets = state.shared.offsets(address()[threads], 16, threads)
        state.count_shared(access, "ldmatrix", offsets, threads)
        rows = state.shared.load(offsets, 16, threads, whole_warp=True).view(np.uint16).reshape(-1, n, 8, 8)
        if (unknown := state.shared.undefined_parts(offsets, 16, 8)) is not None:
            unknown = unknown.reshape(-1, n, 8, 8)
        if trans:
            rows = rows.transpose(0, 1, 3, 2)
            unknown = None if unknown is None else unknown.transpose(0, 1, 3, 2)
        fragments = np.zeros((n, n_warps, WARP_SIZE), np.uint32)
        words32 = np.ascontiguousarray(rows).view(np.uint32).reshape(-1, n, WARP_SIZE)
        fragments[:, warps] = words32.transpose(1, 0, 2)
        for put, fragment in zip(puts, fragments, strict=True):
            put(fragment.reshape(-1), active)
        if unknown is not None:
            spread = np.zeros((n, n_warps, WARP_SIZE), bool)
            spread[:, warps] = np.logical_or.reduce(unknown.reshape(-1, n, WARP_SIZE, 2), axis=3).swapaxes(0, 1)
            for target, mask in zip(targets, spread.reshape(n, -1), strict=True):
                registers.undefined.mark(target, mask)

    return run
