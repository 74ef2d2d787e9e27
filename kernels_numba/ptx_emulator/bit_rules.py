"""Shifts, bit counts, bit fields and byte permutations, as the PTX ISA defines them."""

from __future__ import annotations

import numpy as np

from .parse import Instruction
from .rules import U32, Rule, refuse, rule, shift_amount
from .scalar_types import TYPES, UNSIGNED, Array


@rule("shl", "shr")
def _shift(instruction: Instruction) -> Rule:
    kind = instruction.type
    left, arithmetic = instruction.opcode == "shl", kind.kind == "signed"

    def compute(a: Array, n: Array) -> Array:
        amount, over = shift_amount(n, kind.bits, a.dtype)
        shifted = np.left_shift(a, amount) if left else np.right_shift(a, amount)
        # Shifting out every bit leaves copies of the sign for a signed right shift, else zero.
        return shifted if arithmetic and not left else np.where(over, a.dtype.type(0), shifted)

    return Rule(compute, (kind, U32), kind)


@rule("shf")
def _funnel_shift(instruction: Instruction) -> Rule:
    left, clamp = "l" in instruction.modifiers, "clamp" in instruction.modifiers
    word = np.uint64(0xFFFFFFFF)

    def compute(low: Array, high: Array, n: Array) -> Array:
        amount = (np.minimum(n, 32) if clamp else n & 31).astype(np.uint64)
        both = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
        if left:
            return ((high.astype(np.uint64) << amount) | (both >> np.uint64(32) - amount) & word) & word
        return (both >> amount) & word

    return Rule(compute, (U32, U32, U32), TYPES["b32"])


@rule("popc", "clz", "bfind")
def _count_bits(instruction: Instruction) -> Rule:
    kind = instruction.type
    unsigned = TYPES[f"u{kind.bits}"]
    if instruction.opcode == "popc":
        return Rule(np.bitwise_count, (unsigned,), U32)
    if instruction.opcode == "clz":
        return Rule(lambda a: kind.bits - bit_length(a), (unsigned,), U32)

    def find(a: Array) -> Array:
        magnitude = np.where(a < 0, ~a, a).astype(UNSIGNED[kind.bits])
        position = bit_length(magnitude) - 1
        if "shiftamt" in instruction.modifiers:
            return np.where(position < 0, position, kind.bits - 1 - position)
        return position

    return Rule(find, (kind,), U32)


def bit_length(values: Array) -> Array:
    """Number of bits needed for each unsigned integer: 0 for 0, 1 for 1, 2 for 2 and 3."""
    wide = values.astype(np.uint64)
    length = np.zeros(values.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        large = wide >= np.uint64(1) << np.uint64(step)
        length += np.where(large, step, 0)
        wide = np.where(large, wide >> np.uint64(step), wide)
    return length + (wide != 0)


@rule("brev")
def _reverse_bits(instruction: Instruction) -> Rule:
    kind = instruction.type

    def compute(a: Array) -> Array:
        octets = np.ascontiguousarray(a).view(np.uint8).reshape(a.size, -1)
        bits = np.unpackbits(octets, axis=1, bitorder="little")[:, ::-1]
        return np.packbits(bits, axis=1, bitorder="little").view(a.dtype).reshape(-1)

    return Rule(compute, (kind,), kind)


@rule("bfe")
def _extract_field(instruction: Instruction) -> Rule:
    kind = instruction.type
    signed = kind.kind == "signed"

    def compute(a: Array, start: Array, count: Array) -> Array:
        first = (start & 0xFF).astype(np.int64)
        n = np.minimum(count & 0xFF, kind.bits).astype(np.int64)
        bit = np.arange(kind.bits, dtype=np.int64)
        source = np.minimum(first[:, None] + bit, kind.bits - 1)
        inside = (bit < n[:, None]) & (first[:, None] + bit < kind.bits)
        bits = _bit_matrix(a)
        field = np.where(inside, np.take_along_axis(bits, source, axis=1), 0)
        if signed:
            top = np.minimum(first + np.maximum(n, 1) - 1, kind.bits - 1)
            sign = np.take_along_axis(bits, top[:, None], axis=1) * (n[:, None] > 0)
            field = np.where(inside, field, sign)
        return np.packbits(field.astype(np.uint8), axis=1, bitorder="little").view(a.dtype).reshape(-1)

    return Rule(compute, (kind, U32, U32), kind)


def _bit_matrix(values: Array) -> Array:
    """Bits of integers, shape (threads, bits), least significant first."""
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(values.size, -1)
    return np.unpackbits(octets, axis=1, bitorder="little")


@rule("bfi")
def _insert_field(instruction: Instruction) -> Rule:
    kind = instruction.type

    def compute(field: Array, base: Array, start: Array, count: Array) -> Array:
        first, over = shift_amount(start & 0xFF, kind.bits, field.dtype)
        n, whole = shift_amount(count & 0xFF, kind.bits, field.dtype)
        one = field.dtype.type(1)
        low = np.where(whole, ~field.dtype.type(0), (one << n) - one)
        mask = np.where(over, field.dtype.type(0), low << first)
        return (base & ~mask) | ((field << first) & mask)

    return Rule(compute, (kind, kind, U32, U32), kind)


@rule("prmt")
def _permute_bytes(instruction: Instruction) -> Rule:
    refuse(instruction, "f4e", "b4e", "rc8", "ecl", "ecr", "rc16")

    def compute(a: Array, b: Array, selector: Array) -> Array:
        octets = np.stack([a, b], axis=1).view(np.uint8)  # (threads, 8)
        picks = (selector[:, None] >> np.arange(0, 16, 4, dtype=np.uint32)) & np.uint32(0xF)
        chosen = np.take_along_axis(octets, (picks & 7).astype(np.int64), axis=1)
        sign = (chosen.view(np.int8) >> 7).view(np.uint8)
        return np.where(picks & 8, sign, chosen).astype(np.uint8).view(np.uint32).reshape(-1)

    return Rule(compute, (U32, U32, U32), TYPES["b32"])


@rule("lop3")
def _logic_of_three(instruction: Instruction) -> Rule:
    refuse(instruction, "or", "and")

    def compute(a: Array, b: Array, c: Array, table: Array) -> Array:
        result = np.zeros_like(a)
        for case in range(8):
            chosen = np.where(table >> np.uint32(case) & 1, ~np.uint32(0), np.uint32(0)).astype(np.uint32)
            term = (a if case & 4 else ~a) & (b if case & 2 else ~b) & (c if case & 1 else ~c)
            result |= term & chosen
        return result

    return Rule(compute, (U32, U32, U32, U32), TYPES["b32"])
