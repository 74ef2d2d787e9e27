"""Frame of element-wise instructions: a rule says what to compute from which operand types into which type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .errors import PtxError
from .parse import Instruction
from .scalar_types import TYPES, Array, ScalarType

PRED, U32 = TYPES["pred"], TYPES["u32"]


class Rule(NamedTuple):
    """Semantics of one element-wise instruction on the values of all threads.

    ``second`` computes the other destination of ``p|q``, where the instruction has one. ``undefined`` says, of the
    sources' values followed by masks of where they are undefined, where the result is; without it, where any source is.
    """

    compute: Callable[..., Array]
    sources: tuple[ScalarType, ...]
    result: ScalarType
    second: Callable[..., Array] | None = None
    undefined: Callable[..., Array] | None = None


RULES: dict[str, Callable[[Instruction], Rule]] = {}


def rule(*opcodes: str) -> Callable[[Callable[[Instruction], Rule]], Callable[[Instruction], Rule]]:
    """Register a function that makes the rule of these opcodes."""

    def register(make: Callable[[Instruction], Rule]) -> Callable[[Instruction], Rule]:
        RULES.update(dict.fromkeys(opcodes, make))
        return make

    return register


def refuse(instruction: Instruction, *words: str) -> None:
    """Raise PtxError if the instruction carries one of these modifiers, which the emulator does not implement."""
    for word in words:
        if word in instruction.modifiers:
            raise PtxError(f"unsupported modifier .{word} of instruction {instruction.name}")


def flush(values: Array) -> Array:
    """Subnormal float32 values replaced by zeros of the same sign (``.ftz``)."""
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), values), values)


def finish_float(instruction: Instruction, compute: Callable[..., Array], kind: ScalarType) -> Callable[..., Array]:
    """``compute`` with the modifiers that all float instructions share: rounding, ``.ftz``, ``.sat``, ``.relu``."""
    refuse(instruction, "rz", "rm", "rp")
    words = instruction.modifiers
    steps: list[Callable[[Array], Array]] = []
    if "sat" in words:
        steps.append(lambda v: np.where(np.isnan(v), 0, np.clip(v, 0, 1)))
    if "relu" in words:
        steps.append(lambda v: np.where(np.isnan(v), v, np.maximum(v, 0)))
    ftz = "ftz" in words and kind.name == "f32"
    if not steps and not ftz:
        return compute

    def run(*values: Array) -> Array:
        result = compute(*(flush(v) for v in values)) if ftz else compute(*values)
        for step in steps:
            result = step(result)
        return flush(result.astype(np.float32)) if ftz else result

    return run


def shift_amount(amount: Array, bits: int, dtype: Any) -> tuple[Array, Array]:
    """Shift amounts clamped below ``bits`` in the type of the shifted value, and where they were too large."""
    return np.minimum(amount, bits - 1).astype(dtype), amount >= bits
