"""The matrix unit of a server core (Intel AMX) inside compiled CPU kernels: load as sparse, compute as dense.

Eight tile registers of 16 rows of 64 bytes: one of weights (16 rows x 32 columns of bfloat16), one of activations (32
columns in pairs x 16 tokens), and two sets of up to three of float32 sums (16 rows x 16 tokens). The sets take turns:
a product waits 52 cycles for the one before it on the same sums, and the unit starts one every 16. Products of bfloat16
are exact in float32, so that only the sums are rounded.

References
----------
Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, "Programming with Intel AMX".
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils

from kernels_numba.cpu.lanes import COLUMNS, Expansion, Load, best_expansion, each_row, placed_halves
from kernels_numba.cpu.simd import address, intrinsic
from kernels_numba.jit import inlined

TILE = 16  # rows of weights, and columns of sums
SETS, MOST_SUMS = 2, 3
ROW_BYTES = 64
TILE_VALUES = TILE * COLUMNS
_WEIGHTS, _ACTIVATIONS = 6, 7  # the first six registers hold sums, set by set
_REQUEST_PERMISSION, _TILE_DATA, _ARCH_PRCTL = 0x1023, 18, 158  # Linux, arch/x86/include/uapi/asm/prctl.h
_I8, _I64 = ir.IntType(8), ir.IntType(64)


@cache
def has_tiles() -> bool:
    """Whether this processor has the unit, for bfloat16, and the system lets this process use it."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or best_expansion() is not Expansion.VBMI2:
        return False
    features = binding.get_host_cpu_features()
    known = features.get("amx-tile") and features.get("amx-bf16")
    return bool(known) and ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


@cache
def configuration() -> np.ndarray[Any, Any]:
    """What `configure` reads: all eight registers have 16 rows of 64 bytes."""
    found = np.zeros(64, np.uint8)
    found[0] = 1
    found[16:32].view(np.uint16)[:] = ROW_BYTES
    found[48:56] = TILE
    return found


def _literal(argument: Any) -> int:
    return int(argument.literal_value)


def _call(builder: Any, name: str, *arguments: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


def _bytes_at(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.bitcast(address(context, builder, array_type, array, index), _I8.as_pointer())


@intrinsic
def _configure(typingctx: Any, config: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "ldtilecfg", _bytes_at(context, builder, config, arguments[0], ir.Constant(_I64, 0)))
        return context.get_dummy_value()

    return types.void(config), generate


@intrinsic
def _release(typingctx: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


def _moves(operation: str) -> Any:
    """Intrinsic that moves both sets of ``count`` tiles of sums to or from ``out``, one after the other."""

    @intrinsic
    def move(typingctx: Any, count: Any, out: Any, at: Any) -> Any:
        if not isinstance(count, types.IntegerLiteral):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            for tile in range(SETS * _literal(count)):
                index = builder.add(arguments[2], ir.Constant(_I64, tile * TILE * TILE))
                place = _bytes_at(context, builder, out, arguments[1], index)
                _call(builder, operation, ir.Constant(_I8, tile), place, ir.Constant(_I64, ROW_BYTES))
            return context.get_dummy_value()

        return types.void(count, out, types.int64), generate

    return move


_load_sums, _store_sums = _moves("tileloadd64"), _moves("tilestored64")


@intrinsic
def _multiply(typingctx: Any, count: Any, which: Any, weights: Any, at: Any, x: Any, x_at: Any) -> Any:
    if not isinstance(count, types.IntegerLiteral) or not isinstance(which, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stride = ir.Constant(_I64, ROW_BYTES)
        left, right = ir.Constant(_I8, _WEIGHTS), ir.Constant(_I8, _ACTIVATIONS)
        place = _bytes_at(context, builder, weights, arguments[2], arguments[3])
        _call(builder, "tileloadd64", left, place, stride)
        for tile in range(_literal(count)):
            index = builder.add(arguments[5], ir.Constant(_I64, tile * TILE_VALUES))
            place = _bytes_at(context, builder, x, arguments[4], index)
            _call(builder, "tileloadd64", right, place, stride)
            _call(builder, "tdpbf16ps", ir.Constant(_I8, _literal(which) * _literal(count) + tile), left, right)
        return context.get_dummy_value()

    return types.void(count, which, weights, types.int64, x, types.int64), generate


@intrinsic
def _unpack(typingctx: Any, masks: Any, values: Any, mask_at: Any, at: Any, out: Any, out_at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        buffer, first = arguments[4:]

        def use(row: int, load: Load, at: Any, mask: Any) -> None:
            placed = placed_halves(builder, load, at, mask)
            index = builder.add(first, ir.Constant(_I64, row * COLUMNS))
            place = address(context, builder, out, buffer, index)
            builder.store(placed, builder.bitcast(place, placed.type.as_pointer()), align=2)

        return each_row(context, builder, signature, arguments, use)

    return types.int64(masks, values, types.int64, types.int64, out, types.int64), generate


@inlined
def configure(config: Any) -> None:
    """Set up this thread's tiles; `release` them in the end."""
    _configure(config)


@inlined
def release() -> None:
    """Give this thread's tiles back."""
    _release()


@inlined
def load_sums(count: Any, out: Any, at: Any) -> None:
    """Load two sets of ``count`` tiles of sums from ``out[at:]``; a compile-time constant, at most 3."""
    _load_sums(count, out, at)


@inlined
def store_sums(count: Any, out: Any, at: Any) -> None:
    """Store both sets of ``count`` tiles of sums to ``out[at:]``."""
    _store_sums(count, out, at)


@inlined
def multiply(count: Any, which: Any, weights: Any, at: Any, x: Any, x_at: Any) -> None:
    """Add the weights at ``at`` times each of ``count`` tiles of activations from ``x_at`` on to set ``which``."""
    _multiply(count, which, weights, at, x, x_at)


@inlined
def unpack(masks: Any, values: Any, mask_at: Any, at: Any, out: Any, out_at: Any) -> Any:
    """Write a chunk, 4 rows of 32 bfloat16, to ``out[out_at:]``; where the values of the next start."""
    return _unpack(masks, values, mask_at, at, out, out_at)
