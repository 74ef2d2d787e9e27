"""Integer arithmetic and logic, as the PTX ISA defines them (results wrap to the type)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import PtxError
from .float_rules import float_rule
from .parse import Instruction
from .rules import Rule, refuse, rule
from .scalar_types import TYPES, Array, ScalarType


def _divide(a: Array, b: Array) -> Array:
    """Quotient rounded towards zero; division by zero gives all ones."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = (a - np.fmod(a, safe)) // safe
    return np.where(b == 0, ~np.zeros_like(a), quotient)


def _remainder(a: Array, b: Array) -> Array:
    return np.where(b == 0, a, np.fmod(a, np.where(b == 0, b.dtype.type(1), b)))


INTEGER: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "div": _divide,
    "rem": _remainder,
    "min": np.minimum,
    "max": np.maximum,
}
LOGIC: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


@rule("add", "sub", "div", "rem", "min", "max")
def _arithmetic(instruction: Instruction) -> Rule:
    kind = instruction.type
    if kind.is_float:
        return float_rule(instruction)
    refuse(instruction, "cc", "relu")
    compute = INTEGER[instruction.opcode]
    if "sat" in instruction.modifiers:
        return Rule(lambda a, b: _saturate(compute(a.astype(np.int64), b.astype(np.int64)), kind), (kind, kind), kind)
    return Rule(compute, (kind, kind), kind)


def _saturate(values: Array, kind: ScalarType) -> Array:
    limits = np.iinfo(kind.dtype)
    return np.clip(values, limits.min, limits.max)


@rule("and", "or", "xor")
def _logic(instruction: Instruction) -> Rule:
    kind, opcode = instruction.type, instruction.opcode
    if opcode == "xor":
        return Rule(LOGIC[opcode], (kind, kind), kind)

    def undefined(a: Array, b: Array, in_a: Array, in_b: Array) -> Array:
        """Not where the other operand decides: a zero of ``and``, ones of ``or``."""
        a_open, b_open = (a != 0, b != 0) if opcode == "and" else (~a != 0, ~b != 0)
        return (in_a & (in_b | b_open)) | (in_b & (in_a | a_open))

    return Rule(LOGIC[opcode], (kind, kind), kind, undefined=undefined)


@rule("not", "cnot")
def _not(instruction: Instruction) -> Rule:
    kind = instruction.type
    if instruction.opcode == "cnot":
        return Rule(lambda a: (a == 0).astype(kind.dtype), (kind,), kind)
    return Rule(np.invert, (kind,), kind)


@rule("neg", "abs")
def _sign(instruction: Instruction) -> Rule:
    kind = instruction.type
    if kind.is_float:
        return float_rule(instruction)
    return Rule(np.negative if instruction.opcode == "neg" else np.abs, (kind,), kind)


def multiply_high(a: Array, b: Array) -> Array:
    """Upper half of the product of two integers of the same type."""
    bits = a.dtype.itemsize * 8
    if bits < 64:
        wide = np.int64 if a.dtype.kind == "i" else np.uint64
        return ((a.astype(wide) * b.astype(wide)) >> wide(bits)).astype(a.dtype)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    ua, ub = a.view(np.uint64), b.view(np.uint64)
    a0, a1, b0, b1 = ua & low, ua >> half, ub & low, ub >> half
    middle = a1 * b0 + ((a0 * b0) >> half)
    high = a1 * b1 + (middle >> half) + ((a0 * b1 + (middle & low)) >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, ub, np.uint64(0)) - np.where(b < 0, ua, np.uint64(0))
    return high.view(a.dtype)


def _product(instruction: Instruction) -> tuple[Callable[[Array, Array], Array], ScalarType]:
    """Product function and result type of mul and mad, from .lo, .hi or .wide."""
    kind = instruction.type
    if "wide" in instruction.modifiers:
        result = TYPES[f"{kind.name[0]}{2 * kind.bits}"]
        return (lambda a, b: a.astype(result.dtype) * b.astype(result.dtype)), result
    if "hi" in instruction.modifiers:
        return multiply_high, kind
    return np.multiply, kind


@rule("mul")
def _multiply(instruction: Instruction) -> Rule:
    if instruction.type.is_float:
        return float_rule(instruction)
    compute, result = _product(instruction)
    return Rule(compute, (instruction.type, instruction.type), result)


@rule("mad")
def _multiply_add(instruction: Instruction) -> Rule:
    kind = instruction.type
    if kind.is_float:
        return float_rule(instruction)
    refuse(instruction, "cc", "sat")
    product, result = _product(instruction)
    return Rule(lambda a, b, c: product(a, b) + c, (kind, kind, result), result)


@rule("dp4a")
def _dot_of_bytes(instruction: Instruction) -> Rule:
    """``dp4a.u32.u32``: four products of unsigned bytes, added to the third operand."""
    if instruction.modifiers != ("u32", "u32"):
        raise PtxError(f"unsupported instruction {instruction.name}")

    def compute(a: Array, b: Array, c: Array) -> Array:
        bytes_a, bytes_b = (np.ascontiguousarray(v, np.uint32)[..., None].view(np.uint8) for v in (a, b))
        return c + (bytes_a.astype(np.uint32) * bytes_b).sum(axis=-1, dtype=np.uint32)

    kind = instruction.type
    return Rule(compute, (kind, kind, kind), kind)


@rule("sad")
def _sum_of_absolute_difference(instruction: Instruction) -> Rule:
    kind = instruction.type
    return Rule(lambda a, b, c: c + np.where(a < b, b - a, a - b), (kind, kind, kind), kind)
