"""Chunks of 4 x 32 weights as values inside compiled CPU kernels, so that SIMD runs along K.

A chunk is what a kernel holds of the weights in registers: 4 rows of 32 columns, as eight `simd.Vector` of 16 float32.
`unpack` makes one of a bitmap's masks and 16-bit values, `dense_chunk` one of plain rows. `multiply` adds its products
with some tokens to running sums, one vector a row and token, and `add_sums` sums their lanes up at the end. Activations
lie as `packed_index` says, so that every load is a whole vector.

What puts packed values to where the bits of a mask are is the processor's: AVX-512 VBMI2 has an instruction for 32
halves, AVX2 permutes 8 floats by a table of 256 patterns, and anything else lets the compiler write it out, bit by bit.

Values are read a whole vector at a time, up to ``OVERREAD`` entries past the last, which must be there.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels_numba.cpu.simd import BOUNDSCHECK, Vector, address, intrinsic
from kernels_numba.jit import inlined

ROWS, COLUMNS, LANES = 4, 32, 16
HALVES = COLUMNS // LANES
OVERREAD = COLUMNS
AHEAD = 2048  # values that are asked for ahead of their use: 4 KB, a page. Without it a core read half as fast

_FLOAT, _HALF = ir.FloatType(), ir.HalfType()
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOATS, _BIT = ir.VectorType(_FLOAT, LANES), ir.IntType(1)
_EIGHT = 8
Load = Callable[[Any, Any], Any]  # a vector of some type, from a place in the values on
Lanes = tuple[Any, Any]  # the first and the second 16 columns of a row of a chunk


class Expansion(IntEnum):
    """Ways to put packed values where the bits of a mask are."""

    PORTABLE = 0
    AVX2 = 1
    VBMI2 = 2


@cache  # asking the processor takes 0.1 ms
def best_expansion() -> Expansion:
    """The fastest of this processor."""
    features = binding.get_host_cpu_features()
    if features.get("avx512vbmi2") and features.get("avx512bw"):
        return Expansion.VBMI2
    return Expansion.AVX2 if features.get("avx2") and features.get("f16c") else Expansion.PORTABLE


@cache
def column_order(bfloat16: bool) -> NDArray[np.int64]:
    """Column of each lane of a row of a chunk, the first 16 lanes and then the others.

    Pairs of bfloat16 widen in place: one shift makes floats of all even columns, one mask of all odd ones.
    """
    return np.array([*range(0, COLUMNS, 2), *range(1, COLUMNS, 2)] if bfloat16 else range(COLUMNS))


def _literal(argument: Any) -> int | None:
    """Value of a compile-time constant, None for anything else."""
    return argument.literal_value if isinstance(argument, types.IntegerLiteral) else None


def _function(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, list(arguments)), name)


def vector_at(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    """``kind`` loaded from ``array[index]`` on, wherever that lies."""
    place = address(context, builder, array_type, array, index)
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=array_type.dtype.bitwidth // 8)


def prefetch(context: Any, builder: Any, array_type: Any, array: Any, index: Any, row: int) -> None:
    """Ask for what is read ``AHEAD`` values after ``index``, and a line further on for each second ``row``."""
    data = context.make_array(array_type)(context, builder, array).data
    ahead = builder.add(index, ir.Constant(_I64, AHEAD + LANES * row))
    place = builder.bitcast(builder.gep(data, [ahead]), _I8.as_pointer())  # may lie outside: a hint reads nothing
    function = _function(builder, "llvm.prefetch.p0i8", ir.VoidType(), _I8.as_pointer(), _I32, _I32, _I32)
    read, keep, cached = (ir.Constant(_I32, number) for number in (0, 3, 1))
    builder.call(function, [place, read, keep, cached])


def _constant(kind: Any, values: Any) -> Any:
    return ir.Constant(ir.VectorType(kind, len(values)), list(values))


def _parts(builder: Any, vector: Any, width: int) -> list[Any]:
    """A vector cut into pieces of ``width`` lanes."""
    starts = range(0, vector.type.count, width)
    return [builder.shuffle_vector(vector, vector, _constant(_I32, range(i, i + width))) for i in starts]


def _widened(builder: Any, values: Any, bfloat16: bool) -> Any:
    """Float32 of a vector of 16-bit patterns, lane by lane."""
    lanes = values.type.count
    if not bfloat16:
        return builder.fpext(builder.bitcast(values, ir.VectorType(_HALF, lanes)), ir.VectorType(_FLOAT, lanes))
    wide = builder.zext(values, ir.VectorType(_I32, lanes))
    return builder.bitcast(builder.shl(wide, _constant(_I32, [16] * lanes)), ir.VectorType(_FLOAT, lanes))


def _row(builder: Any, values: Any, bfloat16: bool) -> Lanes:
    """32 patterns in place as two vectors of float32, in `column_order`."""
    if not bfloat16:
        first, second = _parts(builder, _widened(builder, values, False), LANES)
        return first, second
    pairs = builder.bitcast(values, ir.VectorType(_I32, LANES))
    even = builder.shl(pairs, _constant(_I32, [16] * LANES))
    odd = builder.and_(pairs, _constant(_I32, [0xFFFF0000] * LANES))
    return builder.bitcast(even, _FLOATS), builder.bitcast(odd, _FLOATS)


def _expand_vbmi2(builder: Any, load: Load, at: Any, mask: Any, bfloat16: bool) -> Lanes:
    return _row(builder, placed_halves(builder, load, at, mask), bfloat16)


def placed_halves(builder: Any, load: Load, at: Any, mask: Any) -> Any:
    """32 patterns where the bits of a mask are, zeros elsewhere, by the instruction of AVX-512 VBMI2."""
    kind, bits = ir.VectorType(_I16, COLUMNS), ir.VectorType(_BIT, COLUMNS)
    expand = _function(builder, "llvm.x86.avx512.mask.expand.v32i16", kind, kind, kind, bits)
    return builder.call(expand, [load(at, kind), _constant(_I16, [0] * COLUMNS), builder.bitcast(mask, bits)])


def _expand_portable(builder: Any, load: Load, at: Any, mask: Any, bfloat16: bool) -> Lanes:
    """Each lane takes the value whose number is the count of bits below its own."""
    placed = ir.Constant(ir.VectorType(_I16, COLUMNS), [0] * COLUMNS)
    for column in range(COLUMNS):
        bit = builder.and_(builder.lshr(mask, ir.Constant(_I32, column)), ir.Constant(_I32, 1))
        value = builder.select(builder.trunc(bit, _BIT), load(at, _I16), ir.Constant(_I16, 0))
        placed = builder.insert_element(placed, value, ir.Constant(_I32, column))
        at = builder.add(at, builder.zext(bit, _I64))
    return _row(builder, placed, bfloat16)


def _patterns(builder: Any) -> Any:
    """Global table: for each byte of a mask, which packed value each of its 8 lanes takes."""
    kind = ir.ArrayType(ir.VectorType(_I32, _EIGHT), 256)
    known = builder.module.globals.get("lscd_lane_patterns")
    if known is not None:
        return known
    table = cgutils.add_global_variable(builder.module, kind, "lscd_lane_patterns")
    counts = [[(byte & ((1 << lane) - 1)).bit_count() for lane in range(_EIGHT)] for byte in range(256)]
    table.initializer = ir.Constant(kind, [_constant(_I32, row) for row in counts])
    table.linkage, table.global_constant = "internal", True
    return table


def _expand_avx2(builder: Any, load: Load, at: Any, mask: Any, bfloat16: bool) -> Lanes:
    """Eight columns at a time; the lanes are then put in `column_order`."""
    kind = ir.VectorType(_FLOAT, _EIGHT)
    permute = _function(builder, "llvm.x86.avx2.permps", kind, kind, ir.VectorType(_I32, _EIGHT))
    zero, parts = ir.Constant(_I32, 0), []
    for byte in range(COLUMNS // _EIGHT):
        bits = builder.trunc(builder.lshr(mask, ir.Constant(_I32, _EIGHT * byte)), _I8)
        place = builder.gep(_patterns(builder), [zero, builder.zext(bits, _I32)], inbounds=True)
        values = _widened(builder, load(at, ir.VectorType(_I16, _EIGHT)), bfloat16)
        moved = builder.call(permute, [values, builder.load(place, align=32)])
        there = builder.bitcast(bits, ir.VectorType(_BIT, _EIGHT))
        parts.append(builder.select(there, moved, ir.Constant(kind, [0.0] * _EIGHT)))
        count = builder.call(_function(builder, "llvm.ctpop.i8", _I8, _I8), [bits])
        at = builder.add(at, builder.zext(count, _I64))
    left, right = (
        builder.shuffle_vector(parts[i], parts[i + 1], _constant(_I32, range(LANES))) for i in range(0, 4, 2)
    )
    if not bfloat16:
        return left, right
    order = column_order(bfloat16).tolist()
    first, second = (builder.shuffle_vector(left, right, _constant(_I32, order[i : i + LANES])) for i in (0, LANES))
    return first, second


_EXPAND = {
    Expansion.PORTABLE: _expand_portable,
    Expansion.AVX2: _expand_avx2,
    Expansion.VBMI2: _expand_vbmi2,
}


@intrinsic
def _zeros(typingctx: Any, count: Any) -> Any:
    if _literal(count) is None:
        return None
    vectors = types.UniTuple(Vector(LANES), _literal(count))
    return vectors(count), lambda context, builder, signature, arguments: context.get_constant_null(vectors)


def each_row(
    context: Any, builder: Any, signature: Any, arguments: Any, use: Callable[[int, Load, Any, Any], None]
) -> Any:
    """Generate the walk over the rows of a chunk, whose masks, values, first mask and first value lead ``arguments``.

    ``use`` is told each row's number, how to load its values, where they start, and its mask. Returns where the values
    of the next chunk start.
    """
    masks, values = signature.args[:2]
    mask_array, array, first, position = arguments[:4]

    def load(where: Any, kind: Any) -> Any:
        return vector_at(context, builder, values, array, where, kind)

    count = _function(builder, "llvm.ctpop.i32", _I32, _I32)
    for row in range(ROWS):
        if row % 2 == 0:  # two rows of half the columns take up a line of the cache
            prefetch(context, builder, values, array, position, row)
        index = builder.add(first, ir.Constant(_I64, row))
        mask = builder.load(address(context, builder, masks, mask_array, index))
        use(row, load, position, mask)
        position = builder.add(position, builder.zext(builder.call(count, [mask]), _I64))
    return position


@intrinsic
def _unpack(typingctx: Any, masks: Any, values: Any, mask_at: Any, at: Any, bfloat16: Any, expansion: Any) -> Any:
    way = _literal(expansion)
    if _literal(bfloat16) is None or way is None:
        return None
    expand, chunk = _EXPAND[Expansion(way)], types.UniTuple(Vector(LANES), HALVES * ROWS)
    result = types.Tuple([types.int64, chunk])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes: list[Any] = []

        def use(row: int, load: Load, at: Any, mask: Any) -> None:
            lanes.extend(expand(builder, load, at, mask, bool(_literal(bfloat16))))

        following = each_row(context, builder, signature, arguments, use)
        return context.make_tuple(builder, result, [following, cgutils.pack_array(builder, lanes)])

    return result(masks, values, types.int64, types.int64, bfloat16, expansion), generate


@intrinsic
def _dense_chunk(typingctx: Any, values: Any, at: Any, stride: Any, bfloat16: Any) -> Any:
    if _literal(bfloat16) is None:
        return None
    chunk = types.UniTuple(Vector(LANES), HALVES * ROWS)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, position, step = arguments[:3]
        lanes: list[Any] = []
        for _ in range(ROWS):
            patterns = vector_at(context, builder, values, array, position, ir.VectorType(_I16, COLUMNS))
            prefetch(context, builder, values, array, position, 0)
            lanes += _row(builder, patterns, bool(_literal(bfloat16)))
            position = builder.add(position, step)
        return cgutils.pack_array(builder, lanes)

    return chunk(values, types.int64, types.int64, bfloat16), generate


@intrinsic
def _multiply(typingctx: Any, chunk: Any, x: Any, at: Any, totals: Any) -> Any:
    tokens = totals.count // ROWS

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = cgutils.unpack_tuple(builder, arguments[0])
        sums = cgutils.unpack_tuple(builder, arguments[3])
        fused = _function(builder, f"llvm.fmuladd.v{LANES}f32", _FLOATS, *[_FLOATS] * 3)
        for token in range(tokens):
            for half in range(HALVES):
                place = builder.add(arguments[2], ir.Constant(_I64, token * COLUMNS + half * LANES))
                shared = vector_at(context, builder, x, arguments[1], place, _FLOATS)
                for row in range(ROWS):
                    total = row * tokens + token
                    sums[total] = builder.call(fused, [lanes[HALVES * row + half], shared, sums[total]])
        return cgutils.pack_array(builder, sums)

    return totals(chunk, x, types.int64, totals), generate


@intrinsic
def _keep(typingctx: Any, chunk: Any, buffer: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for i, lanes in enumerate(cgutils.unpack_tuple(builder, arguments[0])):
            index = builder.add(arguments[2], ir.Constant(_I64, i * LANES))
            place = address(context, builder, buffer, arguments[1], index)
            builder.store(lanes, builder.bitcast(place, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(chunk, buffer, types.int64), generate


@intrinsic
def _kept(typingctx: Any, buffer: Any, at: Any) -> Any:
    chunk = types.UniTuple(Vector(LANES), HALVES * ROWS)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = [builder.add(arguments[1], ir.Constant(_I64, i * LANES)) for i in range(HALVES * ROWS)]
        return cgutils.pack_array(
            builder, [vector_at(context, builder, buffer, arguments[0], place, _FLOATS) for place in places]
        )

    return chunk(buffer, types.int64), generate


def _folded(builder: Any, left: Any, right: Any) -> Any:
    """Sums of neighbouring lanes: those of ``left``, then those of ``right``."""
    even, odd = (builder.shuffle_vector(left, right, _constant(_I32, range(i, 2 * LANES, 2))) for i in (0, 1))
    return builder.fadd(even, odd)


@intrinsic
def _add_sums(typingctx: Any, totals: Any, out: Any, at: Any) -> Any:
    """Four folds turn 16 vectors into one of their 16 sums; fewer vectors fold with themselves."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = cgutils.unpack_tuple(builder, arguments[0])
        for _ in range(LANES.bit_length() - 1):
            pairs = zip(vectors[::2], vectors[1::2], strict=True) if len(vectors) > 1 else [(vectors[0], vectors[0])]
            vectors = [_folded(builder, left, right) for left, right in pairs]
        (sums,) = _parts(builder, vectors[0], totals.count)[:1]
        place = builder.bitcast(address(context, builder, out, arguments[1], arguments[2]), sums.type.as_pointer())
        builder.store(builder.fadd(builder.load(place, align=4), sums), place, align=4)
        return context.get_dummy_value()

    return types.void(totals, out, types.int64), generate


@inlined
def _inside(array: Any, at: Any, count: Any) -> None:
    """Refuse ``array[at : at + count]`` that leaves the array."""
    if at < 0 or at + count > array.size:
        raise IndexError("chunk outside the array")


@inlined
def zeros(count: Any) -> Any:
    """``count`` running sums of 16 lanes; a compile-time constant, at most 16."""
    return _zeros(count)


@inlined
def unpack(masks: Any, values: Any, mask_at: Any, at: Any, bfloat16: Any, expansion: Any) -> Any:
    """The chunk whose four masks start at ``mask_at`` and whose values start at ``at``, and where the next start."""
    if BOUNDSCHECK:
        _inside(masks, mask_at, ROWS)
        _inside(values, at, OVERREAD)
    return _unpack(masks, values, mask_at, at, bfloat16, expansion)


@inlined
def dense_chunk(values: Any, at: Any, stride: Any, bfloat16: Any) -> Any:
    """The chunk of plain rows whose first column starts at ``at``, ``stride`` values from row to row."""
    if BOUNDSCHECK:
        _inside(values, at, (ROWS - 1) * stride + COLUMNS)
    return _dense_chunk(values, at, stride, bfloat16)


@inlined
def multiply(chunk: Any, x: Any, at: Any, totals: Any) -> Any:
    """``totals``, row by row and token by token, plus the chunk times the packed activations from ``at`` on."""
    if BOUNDSCHECK:
        _inside(x, at, len(totals) // ROWS * COLUMNS)
    return _multiply(chunk, x, at, totals)


@inlined
def keep(chunk: Any, buffer: Any, at: Any) -> None:
    """Write a chunk to ``buffer[at : at + 128]``."""
    if BOUNDSCHECK:
        _inside(buffer, at, ROWS * COLUMNS)
    _keep(chunk, buffer, at)


@inlined
def kept(buffer: Any, at: Any) -> Any:
    """The chunk that `keep` wrote at ``at``."""
    return _kept(buffer, at)


@inlined
def add_sums(totals: Any, out: Any, at: Any) -> None:
    """Add the sum of the lanes of each of the totals to ``out`` from ``at`` on."""
    if BOUNDSCHECK:
        _inside(out, at, len(totals))
    _add_sums(totals, out, at)
