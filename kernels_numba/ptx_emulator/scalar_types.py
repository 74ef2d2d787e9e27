"""PTX scalar types as NumPy types: how register bits become values and values become bits.

A register of n bits is an array of n-bit unsigned integers, one element a thread; a predicate is an array of
booleans. Half-precision values are computed in float64 and rounded once when they are written back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED: dict[int, type[np.signedinteger[Any]]] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOATS: dict[int, Any] = {16: np.float16, 32: np.float32, 64: np.float64}


@dataclass(frozen=True)
class ScalarType:
    """One PTX type: ``kind`` is unsigned, signed, bits, float, bfloat or predicate; x2 types have two ``lanes``."""

    name: str
    kind: str
    bits: int
    lanes: int = 1

    @cached_property
    def storage(self) -> Any:
        """Unsigned NumPy type of the register bits."""
        return np.bool_ if self.kind == "predicate" else UNSIGNED[self.bits]

    @cached_property
    def dtype(self) -> Any:
        """NumPy type of one value as it lies in memory (uint16 for bf16, which NumPy lacks)."""
        if self.kind == "float":
            return FLOATS[self.bits // self.lanes]
        if self.kind == "signed":
            return SIGNED[self.bits]
        return np.uint16 if self.kind == "bfloat" else self.storage

    @cached_property
    def is_float(self) -> bool:
        """Whether arithmetic on it is floating point."""
        return self.kind in ("float", "bfloat")

    @cached_property
    def is_half(self) -> bool:
        """Whether it is a 16-bit float, single or packed."""
        return self.is_float and self.bits // self.lanes == 16


def _all_types() -> dict[str, ScalarType]:
    kinds = {"u": "unsigned", "s": "signed", "b": "bits", "f": "float"}
    names = [f"{k}{bits}" for bits in (8, 16, 32, 64) for k in "usb"] + ["f16", "f32", "f64"]
    types = {name: ScalarType(name, kinds[name[0]], int(name[1:])) for name in names}
    types["pred"] = ScalarType("pred", "predicate", 1)
    types["bf16"] = ScalarType("bf16", "bfloat", 16)
    types["f16x2"] = ScalarType("f16x2", "float", 32, lanes=2)
    types["bf16x2"] = ScalarType("bf16x2", "bfloat", 32, lanes=2)
    types["tf32"] = ScalarType("tf32", "bits", 32)
    return types


TYPES = _all_types()


def bits_to_values(bits: Array, kind: ScalarType) -> Array:
    """Values of register bits: half precision becomes float64, an x2 type gets a second axis of length 2.

    Parameters
    ----------
    bits : array, shape (threads,)
        Unsigned integers of ``kind.bits`` bits, or booleans.
    kind : ScalarType
        How to read them.
    """
    if not kind.is_half:
        return bits.view(kind.dtype)
    words = bits.view(np.uint16)
    values = (words.astype(np.uint32) << 16).view(np.float32) if kind.kind == "bfloat" else words.view(np.float16)
    wide = values.astype(np.float64)
    return wide.reshape(-1, 2) if kind.lanes == 2 else wide


def values_to_bits(values: Array, kind: ScalarType) -> Array:
    """Register bits of values, rounded to nearest even (integers wrap); the inverse of ``bits_to_values``."""
    if kind.kind == "predicate":
        return values
    if kind.kind == "bfloat":
        return np.ascontiguousarray(_round_to_bfloat(values)).reshape(-1).view(kind.storage)
    if values.dtype != kind.dtype or values.ndim != 1 or not values.flags.c_contiguous:
        values = np.ascontiguousarray(values, dtype=kind.dtype).reshape(-1)
    return values.view(kind.storage)


def _round_to_bfloat(values: Array) -> Array:
    single = np.ascontiguousarray(values, dtype=np.float32)
    bits = single.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    return np.where(np.isnan(single), np.uint16(0x7FFF), rounded)


def resize_bits(bits: Array, width: int, *, signed: bool) -> Array:
    """Register bits cut to, or extended to, ``width`` bits; ``signed`` copies the sign bit upwards."""
    have = bits.dtype.itemsize * 8
    if have == width:
        return bits
    if have < width and signed:
        return bits.view(SIGNED[have]).astype(SIGNED[width]).view(UNSIGNED[width])
    return bits.astype(UNSIGNED[width])
