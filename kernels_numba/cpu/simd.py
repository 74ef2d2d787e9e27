"""Vectors of float32 as values inside compiled CPU kernels, so that SIMD certainly runs along N.

A kernel holds its running sums in ``Vector`` variables; LLVM maps them to registers of whatever width the
processor has. The compiler's own vectoriser cannot do this: it must assume that the output overlaps the weights,
and so stores and reloads every sum. The widths used are 8, 16 and 32 (``WIDTHS``).

With ``NUMBABOUNDSCHECK=1`` every access is checked, as in ordinary compiled code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic as _intrinsic

from kernels_numba.jit import inlined

WIDTHS = (8, 16, 32)
BOUNDSCHECK = bool(getattr(config, "BOUNDSCHECK"))  # noqa: B009
intrinsic: Any = _intrinsic  # typed as a plain function, it would demand the typing context too


class Vector(types.Type):
    """Numba type of ``width`` float32 lanes."""

    def __init__(self, width: int) -> None:
        super().__init__(name=f"float32x{width}")
        self.width = width


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.FloatType(), fe_type.width))


def address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to ``array[index]``, for code generators."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


@intrinsic
def _zeros(typingctx: Any, width: Any) -> Any:
    """All lanes 0; ``width`` is a constant."""
    if not isinstance(width, types.IntegerLiteral):
        return None
    vector = Vector(width.literal_value)
    return vector(width), lambda context, builder, signature, arguments: context.get_constant_null(vector)


@intrinsic
def _load(typingctx: Any, array: Any, index: Any, like: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = address(context, builder, array, arguments[0], arguments[1])
        lanes = context.get_value_type(like).as_pointer()
        return builder.load(builder.bitcast(place, lanes), align=4)

    return like(array, types.intp, like), generate


@intrinsic
def _store(typingctx: Any, array: Any, index: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = address(context, builder, array, arguments[0], arguments[1])
        lanes = context.get_value_type(vector).as_pointer()
        builder.store(arguments[2], builder.bitcast(place, lanes), align=4)

    return types.void(array, types.intp, vector), generate


@intrinsic
def _peek(typingctx: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(address(context, builder, array, arguments[0], arguments[1]))

    return array.dtype(array, types.intp), generate


@intrinsic
def scaled_add(typingctx: Any, scale: Any, vector: Any, total: Any) -> Any:
    """``scale * vector + total`` in every lane, fused where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = context.get_value_type(vector)
        first = builder.insert_element(cgutils.get_null_value(lanes), arguments[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), [0] * vector.width)
        spread = builder.shuffle_vector(first, first, zeros)
        kind = ir.FunctionType(lanes, [lanes] * 3)
        fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{vector.width}f32")
        return builder.call(fused, [spread, arguments[1], arguments[2]])

    return total(types.float32, vector, total), generate


@intrinsic
def add(typingctx: Any, left: Any, right: Any) -> Any:
    """Sum of two vectors, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return left(left, right), generate


@intrinsic
def _lanes(typingctx: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, vector.width)

    return types.intp(vector), generate


@inlined
def zeros(width: Any) -> Any:
    """Vector of ``width`` zeros; ``width`` is a compile-time constant."""
    return _zeros(width)


@inlined
def load(array: Any, index: Any, like: Any) -> Any:
    """Vector of ``array[index : index + width]``, as wide as ``like``; ``array`` is flat float32."""
    if BOUNDSCHECK and (index < 0 or index + _lanes(like) > array.size):
        raise IndexError("vector load outside the array")
    return _load(array, index, like)


@inlined
def store(array: Any, index: Any, vector: Any) -> None:
    """Write ``vector`` to ``array[index : index + width]``."""
    if BOUNDSCHECK and (index < 0 or index + _lanes(vector) > array.size):
        raise IndexError("vector store outside the array")
    _store(array, index, vector)


@inlined
def peek(array: Any, index: Any) -> Any:
    """Element ``array[index]`` without Python's meaning of negative indices."""
    if BOUNDSCHECK and (index < 0 or index >= array.size):
        raise IndexError("element outside the array")
    return _peek(array, index)


@inlined
def half_to_float(bits: Any) -> Any:
    """Exact float32 of a float16 bit pattern, in integer operations that vectorise.

    The exponent is rebased by a multiplication with 2**112, which also normalises subnormals; infinities and NaNs
    get the largest exponent back, NaN payloads survive.
    """
    magnitude = np.uint32(bits & np.uint16(0x7FFF)) << np.uint32(13)
    rebased = np.float32(np.uint32(magnitude).view(np.float32) * np.float32(2.0**112))
    special = np.uint32(0x7F800000) if magnitude >= np.uint32(0x0F800000) else np.uint32(0)
    sign = np.uint32(bits & np.uint16(0x8000)) << np.uint32(16)
    return np.uint32(np.float32(rebased).view(np.uint32) | special | sign).view(np.float32)
