"""Loads, stores, atomics and asynchronous copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import PtxError
from .memory import items
from .move_operations import load_parameter
from .parse import Instruction
from .registers import Active, integer
from .scalar_types import TYPES, Array, bits_to_values, values_to_bits
from .state import Access, BlockState, Operation, access_of, builder, generic_space, space_of


def resolve(space: str, addresses: Array, threads: Array) -> tuple[str, Array]:
    """Named space and addresses within it; the lanes of a generic access must agree on the space."""
    if space == "const":
        return "global", addresses
    if space != "generic":
        return space, addresses
    found, base = generic_space(addresses, threads)
    return found, addresses - np.uint64(base)


def load_items(
    state: BlockState, access: Access, addresses: Array, threads: Array, parts: int
) -> tuple[Array, Array | None]:
    """Items of ``access.width`` bytes for the active ``threads``, counted.

    And which of their ``parts`` are undefined, shape (threads, parts), None if none are.
    """
    space, addresses = resolve(access.space, addresses, threads)
    width = access.width
    if space == "shared":
        offsets = state.shared.offsets(addresses, width, threads)
        state.count_shared(access, "load", offsets, threads)
        return state.shared.load(offsets, width, threads), state.shared.undefined_parts(offsets, width, parts)
    if space == "local":
        index = state.local.index(addresses, width, threads)
        unknown: Array = np.logical_or.reduce(state.local.undefined.reshape(-1, parts, width // parts)[index], axis=2)
        return state.local.items(width)[index], unknown
    result = np.empty(threads.size, f"V{width}")
    for span in state.global_memory.spans(addresses, width, threads):
        lanes = threads[span.lanes]
        state.count_global(access, "load", span, lanes, width * lanes.size)
        result[span.lanes] = items(span.array.data, width)[span.offsets // width]
    return result, None


def store_items(
    state: BlockState, access: Access, addresses: Array, threads: Array, data: Array, undefined: Array | None
) -> None:
    """Write items of ``access.width`` bytes, one for each of the active ``threads``, counted.

    ``undefined`` says which of their parts are, shape (threads, parts), for the block's own memories to remember.
    """
    space, addresses = resolve(access.space, addresses, threads)
    width = access.width
    if space == "shared":
        offsets = state.shared.offsets(addresses, width, threads)
        state.count_shared(access, "store", offsets, threads)
        state.shared.store(offsets, data, width, threads, undefined)
    elif space == "local":
        index = state.local.index(addresses, width, threads)
        state.local.items(width)[index] = data
        parts = 1 if undefined is None else undefined.shape[1]
        unknown = state.local.undefined.reshape(-1, parts, width // parts)
        unknown[index] = False if undefined is None else undefined[:, :, None]
    else:
        for span in state.global_memory.spans(addresses, width, threads, write=True):
            lanes = threads[span.lanes]
            state.count_global(access, "store", span, lanes, width * lanes.size)
            items(span.array.data, width)[span.offsets // width] = data[span.lanes]


@builder("ld", "ldu")
def _load(instruction: Instruction, state: BlockState) -> Operation:
    kind = instruction.type
    if space_of(instruction) == "param":
        return load_parameter(instruction, state)
    targets = state.registers.vector(instruction.operands[0])
    puts = [state.registers.scatter(target, kind) for target in targets]
    address = state.registers.address(instruction.operands[1])
    access = access_of(instruction, kind.bits // 8 * len(targets))
    undefined = state.registers.undefined

    def run(active: Active) -> None:
        loaded, unknown = load_items(state, access, address()[active.threads], active.threads, len(puts))
        columns = loaded.view(kind.storage).reshape(-1, len(puts))
        for i, put in enumerate(puts):
            put(columns[:, i], active)
        if unknown is not None:
            for target, part in zip(targets, unknown.T, strict=True):
                undefined.mark_threads(target, active.threads, part)

    return run


@builder("st", carries=(1,))
def _store(instruction: Instruction, state: BlockState) -> Operation:
    bits = TYPES[f"b{instruction.type.bits}"]
    names = state.registers.vector(instruction.operands[1])
    sources = [state.registers.read(name, bits) for name in names]
    address = state.registers.address(instruction.operands[0])
    access = access_of(instruction, bits.bits // 8 * len(sources))
    undefined = state.registers.undefined

    def run(active: Active) -> None:
        columns = [source()[active.threads] for source in sources]
        data = np.stack(columns, axis=1).view(f"V{access.width}").reshape(-1)
        addresses, unknown = address()[active.threads], None
        if not undefined.masks.keys().isdisjoint(names):
            unknown = np.stack([undefined.of(name)[active.threads] for name in names], axis=1)
            if resolve(access.space, addresses, active.threads)[0] == "global":
                undefined.require(names, active.mask, "a value for global memory")
        store_items(state, access, addresses, active.threads, data, unknown)

    return run


UPDATES: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
}


@builder("atom", "red")
def _atomic(instruction: Instruction, state: BlockState) -> Operation:
    """Read, update and write back, lane after lane; ``atom`` returns the old values."""
    kind, returns = instruction.type, instruction.opcode == "atom"
    words = [w for w in instruction.modifiers if w in UPDATES or w == "cas"]
    operands = instruction.operands if returns else ("_", *instruction.operands)
    targets, values = state.registers.vector(operands[0]), state.registers.vector(operands[2])
    if len(words) != 1 or len(values) > 1:
        raise PtxError(f"unsupported instruction {instruction.name}")
    put = state.registers.scatter(targets[0], kind)
    address, source = state.registers.address(operands[1]), state.registers.read(values[0], kind)
    replacement = state.registers.read(operands[3], kind) if words[0] == "cas" else None
    access = access_of(instruction, kind.bits // 8)

    def run(active: Active) -> None:
        value = source()[active.threads]
        swap = replacement()[active.threads] if replacement else None
        old = np.empty(active.threads.size, kind.storage)
        found, unknown = _atomic_targets(state, access, address()[active.threads], active.threads)
        for lanes, memory, index in found:
            view = memory.view(kind.storage)
            for lane, at in zip(np.arange(active.threads.size)[lanes], index, strict=True):
                old[lane] = view[at]
                current = bits_to_values(view[at : at + 1], kind)
                if swap is not None:
                    new = swap[lane : lane + 1] if current == value[lane] else current
                else:
                    new = UPDATES[words[0]](current, value[lane : lane + 1])
                view[at] = values_to_bits(new, kind)[0]
        put(old, active)
        if unknown is not None:
            state.registers.undefined.mark_threads(targets[0], active.threads, unknown[:, 0])

    return run


def _atomic_targets(
    state: BlockState, access: Access, addresses: Array, threads: Array
) -> tuple[list[tuple[slice | Array, Array, Array]], Array | None]:
    """Lanes, memory as items of ``access.width`` bytes, and item indices of an atomic access, counted.

    And which items are undefined, shape (threads, 1), None if none are; they stay so.
    """
    space, addresses = resolve(access.space, addresses, threads)
    width = access.width
    if space == "shared":
        offsets = state.shared.offsets(addresses, width, threads)
        state.count_shared(access, "atomic", offsets, threads)
        unknown = state.shared.undefined_parts(offsets, width, 1)
        return [(slice(None), state.shared.update(offsets, width, threads), offsets // width)], unknown
    if space == "local":
        raise PtxError("atomic on local memory")
    found = []
    for span in state.global_memory.spans(addresses, width, threads, write=True):
        lanes = threads[span.lanes]
        state.count_global(access, "atomic", span, lanes, width * lanes.size)
        found.append((span.lanes, items(span.array.data, width), span.offsets // width))
    return found, None


@builder("cp.async")
def _copy_async(instruction: Instruction, state: BlockState) -> Operation:
    words = instruction.modifiers
    if "commit_group" in words:

        def commit(active: Active) -> None:
            state.counters.cp_async_groups += state.shared.commit(active.threads)

        return commit
    if "wait_group" in words or "wait_all" in words:
        allowed = integer(instruction.operands[0]) if "wait_group" in words else None
        return lambda active: state.shared.wait(active.threads, allowed)
    return _start_copy(instruction, state)


def _start_copy(instruction: Instruction, state: BlockState) -> Operation:
    """``[destination], [source], size {, source size | ignore-source predicate} {, cache policy}``."""
    registers, operands = state.registers, instruction.operands
    destination, source = registers.address(operands[0]), registers.address(operands[1])
    width = integer(operands[2])
    if width not in (4, 8, 16) or ("cg" in instruction.modifiers and width != 16):
        raise PtxError(f"cp.async of {width} bytes; .ca copies 4, 8 or 16 and .cg 16")
    source_bytes = _source_size(instruction, state, width)
    access = access_of(instruction, width)

    def run(active: Active) -> None:
        threads = active.threads
        offsets = state.shared.offsets(destination()[threads], width, threads)
        size = source_bytes()[threads]
        data = np.zeros((threads.size, width), np.uint8)
        if (reads := np.flatnonzero(size)).size:
            addresses = source()[threads[reads]]
            for span in state.global_memory.spans(addresses, width, threads[reads]):
                lanes = reads[span.lanes]
                state.count_global(access, "load", span, threads[lanes], int(size[lanes].sum()))
                loaded = items(span.array.data, width)[span.offsets // width]
                data[lanes] = loaded.view(np.uint8).reshape(-1, width)
            data[np.arange(width) >= size[:, None]] = 0
        state.count_shared(access, "cp.async", offsets, threads)
        state.shared.copy_async(offsets, data.view(f"V{width}").reshape(-1), width, threads)

    return run


def _source_size(instruction: Instruction, state: BlockState, width: int) -> Callable[[], Array]:
    """Bytes each thread reads; the rest of the destination becomes zero."""
    extra = instruction.operands[3:]
    if "L2::cache_hint" in instruction.modifiers:
        extra = extra[:-1]
    if not extra:
        full = np.full(state.registers.n, width, np.int64)
        return lambda: full
    if state.registers.types.get(extra[0].lstrip("!"), TYPES["u32"]).kind == "predicate":
        ignore = state.registers.read(extra[0], TYPES["pred"])
        return lambda: np.where(ignore(), 0, width)
    size = state.registers.read(extra[0], TYPES["u32"])

    def checked() -> Array:
        return np.minimum(size().astype(np.int64), width)

    return checked
