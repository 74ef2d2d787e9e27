"""Floating-point arithmetic, rounded to nearest even.

float32 and float64 follow IEEE through NumPy; half precision is computed in float64 and rounded once. Two
deviations: ``fma.f32`` rounds the float64 sum of the exact product, which differs from a true fused operation in
about one result in 2**29, and ``fma.f64`` likewise rounds a ``longdouble`` sum; ``.approx`` functions are the
correctly computed ones, more accurate than the GPU's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import PtxError
from .parse import Instruction
from .rules import Rule, finish_float, rule
from .scalar_types import Array


def _minimum(keep_nan: bool) -> Callable[[Array, Array], Array]:
    return np.minimum if keep_nan else np.fmin


def _maximum(keep_nan: bool) -> Callable[[Array, Array], Array]:
    return np.maximum if keep_nan else np.fmax


def _fused(a: Array, b: Array, c: Array) -> Array:
    wide = np.longdouble if a.dtype == np.float64 else np.float64
    return (a.astype(wide) * b.astype(wide) + c).astype(a.dtype)


ARITHMETIC: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "mad": _fused,
    "fma": _fused,
}
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "rcp": lambda a: 1 / a,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}
N_SOURCES = {"neg": 1, "abs": 1, "mad": 3, "fma": 3}


def float_rule(instruction: Instruction) -> Rule:
    """Rule of an arithmetic instruction whose type is a float."""
    kind, opcode = instruction.type, instruction.opcode
    keep_nan = "NaN" in instruction.modifiers
    table = {**ARITHMETIC, "min": _minimum(keep_nan), "max": _maximum(keep_nan)}
    if opcode not in table:
        raise PtxError(f"unsupported instruction {instruction.name}")
    # A sign change keeps the bits of a NaN or subnormal unless .ftz asks otherwise.
    n = N_SOURCES.get(opcode, 2)
    return Rule(finish_float(instruction, table[opcode], kind), (kind,) * n, kind)


@rule("fma")
def _fma(instruction: Instruction) -> Rule:
    return float_rule(instruction)


@rule(*FUNCTIONS)
def _function(instruction: Instruction) -> Rule:
    kind, function = instruction.type, FUNCTIONS[instruction.opcode]

    def compute(a: Array) -> Array:
        return function(a.astype(np.float64))

    return Rule(finish_float(instruction, compute, kind), (kind,), kind)


@rule("copysign")
def _copy_sign(instruction: Instruction) -> Rule:
    kind = instruction.type
    return Rule(lambda sign, value: np.copysign(value, sign), (kind, kind), kind)
