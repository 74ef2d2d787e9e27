"""Where do the bytes of global, parameter and local memory lie, and which accesses to them are wrong?

Every global array lives alone in a window of 1 TiB of emulated addresses, so that a wrong pointer meets unmapped
addresses and is reported; it can never silently read a neighbour. An array begins aligned as ``cudaMalloc`` would.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .errors import PtxError
from .parse import Kernel, Parameter
from .scalar_types import Array

WINDOW_BITS = 40
GLOBAL_FIRST_WINDOW = 0x10
GENERIC_LOCAL = 0x7D << WINDOW_BITS
GENERIC_SHARED = 0x7E << WINDOW_BITS
MAX_ARRAYS = 0x7D - GLOBAL_FIRST_WINDOW


@dataclass(frozen=True)
class Rows:
    """An argument of which only a few rows exist, in an array that may be larger than any memory.

    array : (rows, entries), C-contiguous; rows lie ``pitch`` bytes apart, the first at byte ``first`` of the argument.
    All else of it is out of bounds: address arithmetic can be checked at the largest problems.
    """

    array: Array
    first: int
    pitch: int


@dataclass(frozen=True)
class GlobalArray:
    """Bytes of one array, and its name: the argument index, or the symbol of a constant table.

    ``rows`` says where they lie if not side by side from the argument's address on.
    """

    label: int | str
    data: Array
    writable: bool
    rows: Rows | None = None

    def places(self, offsets: Array, width: int) -> tuple[Array, Array]:
        """Places in ``data`` of items of ``width`` bytes at ``offsets`` of the argument, and which are not there."""
        if self.rows is None:
            return offsets, offsets > self.data.size - width
        n_bytes = self.rows.array.strides[0]
        row, column = np.divmod(offsets - self.rows.first, self.rows.pitch)
        inside = (row >= 0) & (row < len(self.rows.array)) & (column <= n_bytes - width)
        return row * n_bytes + column, ~inside


@dataclass(frozen=True)
class Span:
    """Part of one access that falls into one array: lanes (a selection of the threads) and places of its data."""

    array: GlobalArray
    lanes: slice | Array
    offsets: Array


class Lanes(NamedTuple):
    """What each active lane of one access asks for: address, its alignment, and ``width`` bytes to read or write."""

    threads: Array
    addresses: Array  # uint64
    offsets: Array  # within the window
    width: int
    align: int
    write: bool

    def chosen(self, lanes: Array) -> Lanes:
        """Part of the lanes."""
        return self._replace(threads=self.threads[lanes], addresses=self.addresses[lanes], offsets=self.offsets[lanes])

    def error(self, message: str, bad: Array | int = 0) -> PtxError:
        """Error of the first bad lane."""
        at = int(np.argmax(bad))
        return PtxError(message, thread=int(self.threads[at]), address=int(self.addresses[at]))


class GlobalMemory:
    """Arrays of a launch, found by address."""

    def __init__(self) -> None:
        self.arrays: list[GlobalArray] = []

    def add(self, argument: Array | Rows, label: int | str) -> int:
        """Map an array (C-contiguous, used in place), or rows of one, and return its address."""
        rows = argument if isinstance(argument, Rows) else None
        array = argument.array if isinstance(argument, Rows) else argument
        if not array.flags.c_contiguous:
            raise ValueError(f"argument {label} has strides {array.strides}; global arrays must be C-contiguous")
        if len(self.arrays) == MAX_ARRAYS:
            raise ValueError(f"{MAX_ARRAYS + 1} arrays; the emulator maps at most {MAX_ARRAYS}")
        data = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
        self.arrays.append(GlobalArray(label, data, array.flags.writeable, rows))
        return (GLOBAL_FIRST_WINDOW + len(self.arrays) - 1) << WINDOW_BITS

    def spans(
        self, addresses: Array, width: int, threads: Array, *, write: bool = False, align: int = 0
    ) -> Iterator[Span]:
        """Yield the arrays that ``addresses`` (uint64, one a thread, each ``width`` bytes) fall into.

        They must be aligned to ``align`` bytes, to their width if that is 0.

        Raises
        ------
        PtxError
            For an unmapped, out-of-bounds or misaligned address, or a write to a read-only array.
        """
        windows = (addresses >> np.uint64(WINDOW_BITS)).astype(np.int64) - GLOBAL_FIRST_WINDOW
        offsets = (addresses & np.uint64((1 << WINDOW_BITS) - 1)).astype(np.int64)
        lanes = Lanes(threads, addresses, offsets, width, align or width, write)
        first = int(windows[0])
        if (windows == first).all():
            yield self._span(first, lanes, slice(None))
            return
        for window in np.unique(windows):
            chosen = np.flatnonzero(windows == window)
            yield self._span(int(window), lanes.chosen(chosen), chosen)

    def _span(self, window: int, lanes: Lanes, chosen: slice | Array) -> Span:
        """Part of the array in a window, after checking that every lane may access it."""
        if not 0 <= window < len(self.arrays):
            raise lanes.error("global access to an unmapped address")
        array, width = self.arrays[window], lanes.width
        misaligned = lanes.offsets & (lanes.align - 1) != 0
        if misaligned.any():
            raise lanes.error(f"misaligned global access of {lanes.align} bytes in array {array.label}", misaligned)
        places, outside = array.places(lanes.offsets, width)
        if outside.any():
            offset = int(lanes.offsets[np.argmax(outside)])
            there = "rows" if array.rows else f"{array.data.size} bytes"
            where = f"offset {offset} + {width} bytes of the {there} of array {array.label}"
            raise lanes.error(f"global access out of bounds: {where}", outside)
        if lanes.write and not array.writable:
            raise lanes.error(f"write to the read-only array {array.label}")
        return Span(array, chosen, places)


def items(data: Array, width: int) -> Array:
    """Bytes seen as whole items of ``width`` bytes (a view; an incomplete last item is cut off)."""
    return data[: data.size // width * width].view(f"V{width}")


class LocalMemory:
    """Private memory of each thread (the local depot), poisoned at the start of every block."""

    def __init__(self, n_threads: int, size: int) -> None:
        self.size = size
        self.data = np.zeros((n_threads, size), np.uint8)
        self.undefined = np.ones(n_threads * size, bool)

    def reset(self) -> None:
        """Forget everything that was stored."""
        self.data.fill(0xFF)
        self.undefined.fill(True)

    def index(self, addresses: Array, width: int, threads: Array) -> Array:
        """Flat item indices of ``addresses``; raises PtxError out of bounds or misaligned."""
        addresses = addresses.astype(np.int64)
        wrong = (addresses > max(self.size - width, -1)) | (addresses & (width - 1) != 0)
        if self.size == 0 or wrong.any():
            at = int(np.argmax(wrong))
            message = f"local access of {width} bytes out of bounds or misaligned ({self.size} bytes a thread)"
            raise PtxError(message, thread=int(threads[at]), address=int(addresses[at]))
        return (threads * self.size + addresses) // width

    def items(self, width: int) -> Array:
        """Memory of all threads as items of ``width`` bytes."""
        return items(self.data.reshape(-1), width)


def pack_parameters(kernel: Kernel, args: Sequence[Any], memory: GlobalMemory) -> tuple[bytes, dict[str, int]]:
    """Parameter space of a launch: its bytes, and the offset of every parameter; arrays are mapped on the way.

    Raises
    ------
    ValueError
        If the number of arguments is wrong, or an argument does not fit its parameter.
    """
    if len(args) != len(kernel.parameters):
        raise ValueError(f"{len(args)} arguments given; kernel {kernel.name} takes {len(kernel.parameters)}")
    space, offsets = bytearray(), {}
    for index, (parameter, arg) in enumerate(zip(kernel.parameters, args, strict=True)):
        space += b"\0" * (-len(space) % parameter.align)
        offsets[parameter.name] = len(space)
        value = memory.add(arg, index) if isinstance(arg, np.ndarray | Rows) else arg
        space += _pack(value, parameter, index)
    return bytes(space), offsets


def _pack(value: Any, parameter: Parameter, index: int) -> bytes:
    size = parameter.size
    allowed = f"parameter {index} is .{parameter.type.name} of {size} bytes"
    if isinstance(value, bytes):
        if len(value) != size:
            raise ValueError(f"argument {index} has {len(value)} bytes; {allowed}")
        return value
    if size not in (1, 2, 4, 8):
        raise ValueError(f"argument {index} is {value!r}; {allowed} and is passed as bytes")
    is_float = isinstance(value, float | np.floating)
    if is_float or parameter.type.is_float:
        if size == 1 or (is_float and parameter.type.kind in ("signed", "unsigned")):
            raise ValueError(f"argument {index} is {value!r}; {allowed}")
        return struct.pack({2: "<e", 4: "<f", 8: "<d"}[size], float(value))
    number = int(value)
    if not -(1 << (8 * size - 1)) <= number < 1 << (8 * size):
        raise ValueError(f"argument {index} is {number}; {allowed}")
    return (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
