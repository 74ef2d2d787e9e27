"""Conversions, comparisons and selections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import PtxError
from .parse import Instruction
from .rules import PRED, Rule, flush, refuse, rule
from .scalar_types import TYPES, Array, ScalarType

ROUND_TO_INTEGER: dict[str, Callable[[Array], Array]] = {
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
    "rni": np.rint,
}
COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


@rule("cvt")
def _convert(instruction: Instruction) -> Rule:
    """From the last type to the one before it; ``.f16x2.f32`` packs two sources, the first into the upper half."""
    if len(instruction.types) != 2:
        raise PtxError(f"unsupported conversion {instruction.name}")
    target, source = instruction.types
    refuse(instruction, "satfinite", "rs")
    if target.lanes == 2:
        refuse(instruction, "rz")
        return Rule(_pack_halves("relu" in instruction.modifiers), (source, source), target)
    if target.name == "tf32":
        return _convert_to_tf32(instruction, source)
    if source.is_float and not target.is_float:
        return Rule(_float_to_integer(instruction, target), (source,), target)
    return Rule(_convert_value(instruction, source, target), (source,), target)


def _pack_halves(relu: bool) -> Callable[[Array, Array], Array]:
    def compute(upper: Array, lower: Array) -> Array:
        pair = np.stack([lower, upper], axis=1)
        return np.maximum(pair, 0) if relu else pair

    return compute


def _convert_to_tf32(instruction: Instruction, source: ScalarType) -> Rule:
    """Keep 10 of the 23 fraction bits of a float32, rounding half away from zero (.rna) or to even (.rn)."""
    half = np.uint32(0x1000)

    def compute(a: Array) -> Array:
        bits = a.view(np.uint32)
        if "rn" in instruction.modifiers:
            bits = bits + (half - np.uint32(1)) + ((bits >> np.uint32(13)) & np.uint32(1))
        else:
            bits = bits + half
        return np.where(np.isfinite(a), bits & np.uint32(0xFFFFE000), a.view(np.uint32))

    return Rule(compute, (source,), TYPES["tf32"])


def _float_to_integer(instruction: Instruction, target: ScalarType) -> Callable[[Array], Array]:
    """Rounded as the modifier says and clamped to the target's range; NaN becomes 0."""
    rounding = next((ROUND_TO_INTEGER[w] for w in instruction.modifiers if w in ROUND_TO_INTEGER), None)
    if rounding is None:
        raise PtxError(f"unsupported conversion {instruction.name}: it names no rounding to integer")
    limits = np.iinfo(target.dtype)

    def compute(a: Array) -> Array:
        value = rounding(a.astype(np.float64))
        inside = (value > float(limits.min)) & (value < float(limits.max))
        whole: Array = np.where(inside, value, 0).astype(target.dtype)
        whole = np.where(value >= float(limits.max), target.dtype(limits.max), whole)
        return np.where(value <= float(limits.min), target.dtype(limits.min), whole)

    return compute


def _convert_value(instruction: Instruction, source: ScalarType, target: ScalarType) -> Callable[[Array], Array]:
    """Integer to integer, integer to float, float to float; ``.sat`` clamps to the target's range, or to [0, 1]."""
    words = instruction.modifiers
    if target.is_float and not (source.is_float and source.bits <= target.bits):
        refuse(instruction, "rz", "rm", "rp")
    rounding = next((ROUND_TO_INTEGER[w] for w in words if w in ROUND_TO_INTEGER), None)
    saturate, relu = "sat" in words, "relu" in words
    ftz = "ftz" in words

    def compute(a: Array) -> Array:
        if ftz and source.name == "f32":
            a = flush(a)
        if rounding is not None:
            a = rounding(a)
        if relu:
            a = np.maximum(a, 0)
        if saturate:
            low, high = (0, 1) if target.is_float else (np.iinfo(target.dtype).min, np.iinfo(target.dtype).max)
            a = np.where(np.isnan(a), 0, np.clip(a, low, high)) if source.is_float else _clip_integer(a, low, high)
        if target.is_half or not target.is_float:
            return a
        return a.astype(target.dtype)

    return compute


def _clip_integer(values: Array, low: int, high: int) -> Array:
    limits = np.iinfo(values.dtype)
    return np.clip(values, max(low, limits.min), min(high, limits.max))


def _comparison(instruction: Instruction) -> Callable[[Array, Array], Array]:
    """Comparison named by the first modifier; float forms ending in u are true for NaN, ne is false for it."""
    word, kind = instruction.modifiers[0], instruction.type
    if word in ("num", "nan"):
        want_nan = word == "nan"
        return lambda a, b: (np.isnan(a) | np.isnan(b)) == want_nan
    if kind.is_float and word.endswith("u") and word[:-1] in COMPARE:
        ordered = COMPARE[word[:-1]]
        return lambda a, b: ordered(a, b) | np.isnan(a) | np.isnan(b)
    if word not in COMPARE:
        raise PtxError(f"unsupported comparison {instruction.name}")
    if kind.is_float and word == "ne":
        return lambda a, b: (a != b) & ~np.isnan(a) & ~np.isnan(b)
    return COMPARE[word]


@rule("setp", "set")
def _set_predicate(instruction: Instruction) -> Rule:
    """Comparison, combined with a third predicate where the second modifier is and, or, xor."""
    kind = instruction.type
    if kind.lanes == 2:
        raise PtxError(f"unsupported instruction {instruction.name}")
    compare = _comparison(instruction)
    combine = COMBINE.get(instruction.modifiers[1])
    sources = (kind, kind, PRED) if combine else (kind, kind)

    def test(a: Array, b: Array, *other: Array) -> Array:
        result = compare(a, b)
        return combine(result, other[0]) if combine else result

    def opposite(a: Array, b: Array, *other: Array) -> Array:
        result = ~compare(a, b)
        return combine(result, other[0]) if combine else result

    if instruction.opcode == "setp":
        return Rule(test, sources, PRED, opposite)
    target = instruction.types[0]
    true = 1.0 if target.is_float else -1
    return Rule(lambda *v: np.where(test(*v), true, 0).astype(target.dtype), sources, target)


def _undefined_choice(_a: Array, _b: Array, condition: Array, in_a: Array, in_b: Array, unknown: Array) -> Array:
    """Only what is chosen matters."""
    return unknown | np.where(condition, in_a, in_b)


def _choose(first: Array, second: Array, condition: Array) -> Array:
    return np.where(condition, first, second)


@rule("selp")
def _select(instruction: Instruction) -> Rule:
    kind = TYPES[f"b{instruction.type.bits}"]
    return Rule(_choose, (kind, kind, PRED), kind, undefined=_undefined_choice)


@rule("slct")
def _select_by_sign(instruction: Instruction) -> Rule:
    target, source = instruction.types
    kind = TYPES[f"b{target.bits}"]
    return Rule(lambda a, b, c: _choose(a, b, c >= 0), (kind, kind, source), kind)
