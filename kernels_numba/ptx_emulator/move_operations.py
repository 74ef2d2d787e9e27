"""Instructions that move bits: copies, packing and unpacking, parameters, addresses between spaces."""

from __future__ import annotations

import numpy as np

from .errors import PtxError
from .memory import GENERIC_LOCAL, GENERIC_SHARED
from .parse import Instruction
from .registers import Active, integer
from .scalar_types import TYPES, ScalarType, bits_to_values
from .state import BlockState, Operation, builder, space_of


@builder("cvta")
def _convert_address(instruction: Instruction, state: BlockState) -> Operation:
    """Between a generic address and one of a named space (the identity for global, const and param)."""
    kind = TYPES[f"u{instruction.type.bits}"]
    base = {"shared": GENERIC_SHARED, "local": GENERIC_LOCAL}.get(space_of(instruction), 0)
    step = np.array(base, np.uint64).astype(kind.dtype)
    name, _, offset = instruction.operands[1].partition("+")
    source = state.registers.read(name.strip(), kind)
    extra = kind.dtype(integer(offset.strip() or "0"))
    put = state.registers.write(instruction.operands[0], kind)
    to_space = "to" in instruction.modifiers
    return lambda active: put((source() - step if to_space else source() + step) + extra, active)


@builder("mov", carries=(1,))
def _move(instruction: Instruction, state: BlockState) -> Operation:
    """Copy; or pack ``{a, b}`` into one register, the first in the low bits; or unpack."""
    target, source = instruction.operands
    kind, registers = instruction.type, state.registers
    if source.startswith("{"):
        return _carrying(_pack(kind, target, registers.vector(source), state), instruction, state)
    if target.startswith("{"):
        return _carrying(_unpack(kind, registers.vector(target), source, state), instruction, state)
    plain = kind if kind.kind == "predicate" else TYPES[f"b{kind.bits}"]
    if _is_literal(source):
        plain = kind
    get, put = registers.read(source, plain), registers.write(target, plain)
    return _carrying(lambda active: put(get(), active), instruction, state)


def _carrying(operation: Operation, instruction: Instruction, state: BlockState) -> Operation:
    """The copy, undefined in all its parts where one of its sources is."""
    targets, names = (state.registers.named(operand) for operand in instruction.operands)
    return state.registers.undefined.carrying(operation, names, targets)


def _is_literal(operand: str) -> bool:
    """Whether an operand is a literal, which must be read by the type of the instruction."""
    return operand[0].isdigit() or operand[0] == "-"


def _pack(kind: ScalarType, target: str, parts: list[str], state: BlockState) -> Operation:
    piece = TYPES[f"b{kind.bits // len(parts)}"]
    gets = [state.registers.read(part, piece) for part in parts]
    whole = TYPES[f"b{kind.bits}"]
    put = state.registers.write(target, whole)
    return lambda active: put(np.stack([get() for get in gets], axis=1).view(whole.storage).reshape(-1), active)


def _unpack(kind: ScalarType, targets: list[str], source: str, state: BlockState) -> Operation:
    piece = TYPES[f"b{kind.bits // len(targets)}"]
    get = state.registers.read(source, TYPES[f"b{kind.bits}"])
    puts = [state.registers.write(target, piece) for target in targets]

    def run(active: Active) -> None:
        columns = np.ascontiguousarray(get()).view(piece.storage).reshape(-1, len(puts))
        for i, put in enumerate(puts):
            put(columns[:, i], active)

    return run


def load_parameter(instruction: Instruction, state: BlockState) -> Operation:
    """``ld.param``: the same value for every thread."""
    kind = instruction.type
    name, _, offset = instruction.operands[1].strip("[] ").partition("+")
    if name.strip() not in state.parameter_offsets:
        raise PtxError(f"unknown parameter {name.strip()}")
    start = state.parameter_offsets[name.strip()] + integer(offset.strip() or "0")
    targets = state.registers.vector(instruction.operands[0])
    size = kind.bits // 8
    values = np.frombuffer(state.parameters, kind.storage, len(targets), start)
    puts = [state.registers.write(target, kind) for target in targets]
    full = [bits_to_values(np.full(state.registers.n, v, kind.storage), kind) for v in values]
    assert values.nbytes == size * len(targets)

    def run(active: Active) -> None:
        for put, value in zip(puts, full, strict=True):
            put(value, active)

    return run
