"""Reads and writes the operands of instructions: registers, immediates, special registers and addresses.

Decoding turns every operand into a small function once; running calls it. Values cover all threads of the block;
what inactive threads compute is discarded when it is written.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import PtxError
from .parse import NAME, Instruction, Kernel
from .scalar_types import FLOATS, TYPES, UNSIGNED, Array, ScalarType, bits_to_values, resize_bits, values_to_bits
from .undefined import Undefined

WARP_SIZE = 32


class Active:
    """Threads that execute an instruction: ``mask`` over all threads, ``threads`` as increasing indices."""

    __slots__ = ("full", "mask", "n_warps", "threads")

    def __init__(self, mask: Array, *, full: bool = False) -> None:
        self.mask = mask
        self.threads = np.flatnonzero(mask)
        self.full = full
        self.n_warps = int(mask.reshape(-1, WARP_SIZE).any(axis=1).sum())

    def whole_warps(self, what: str) -> Array:
        """Indices of the warps, all of whose lanes must be active."""
        lanes = self.mask.reshape(-1, WARP_SIZE).sum(axis=1)
        partial = (lanes != 0) & (lanes != WARP_SIZE)
        if partial.any():
            warp = int(np.argmax(partial))
            message = f"{what} executed by {int(lanes[warp])} of the {WARP_SIZE} lanes of warp {warp}"
            raise PtxError(message, thread=int(self.threads[self.threads // WARP_SIZE == warp][0]))
        return np.flatnonzero(lanes)


@dataclass(frozen=True)
class Geometry:
    """Sizes of grid and block, the number of threads, and that number rounded up to whole warps."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared_bytes: int

    @property
    def n_threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def padded_threads(self) -> int:
        """Threads of a block, rounded up to whole warps."""
        return -(-self.n_threads // WARP_SIZE) * WARP_SIZE


class Registers:
    """Register file of one block, with the special registers and the addresses of named memory."""

    def __init__(self, kernel: Kernel, geometry: Geometry, addresses: dict[str, int]) -> None:
        self.types = kernel.registers
        self.addresses = addresses
        self.n = geometry.padded_threads
        self.geometry = geometry
        self.bits: dict[str, Array] = {}
        self.undefined = Undefined(np.arange(self.n) < geometry.n_threads)
        self.special = self._special_registers()
        # One array for all registers of a type: register arrays are replaced, never changed in place.
        self.garbage: dict[Any, Array] = {t: np.full(self.n, np.iinfo(t).max, t) for t in UNSIGNED.values()}
        self.garbage[np.bool_] = np.zeros(self.n, bool)

    def reset(self, block_index: tuple[int, int, int]) -> None:
        """Begin a block: registers hold garbage, NaN for floats, and are undefined, until they are written."""
        self.bits.update({name: self.garbage[kind.storage] for name, kind in self.types.items()})
        self.undefined.reset(self.types)
        for axis, index in zip("xyz", block_index, strict=True):
            self.special[f"%ctaid.{axis}"] = np.full(self.n, index, np.uint64)

    def _special_registers(self) -> dict[str, Array]:
        thread = np.arange(self.n, dtype=np.uint64)
        bx, by, _ = (np.uint64(b) for b in self.geometry.block)
        lane = thread % np.uint64(WARP_SIZE)
        bit = np.uint64(1) << lane
        special = {
            "%tid.x": thread % bx,
            "%tid.y": thread // bx % by,
            "%tid.z": thread // (bx * by),
            "%laneid": lane,
            "%warpid": thread // np.uint64(WARP_SIZE),
            "%lanemask_eq": bit,
            "%lanemask_lt": bit - np.uint64(1),
            "%lanemask_le": bit * np.uint64(2) - np.uint64(1),
            "%lanemask_gt": np.uint64(0xFFFFFFFF) - (bit * np.uint64(2) - np.uint64(1)),
            "%lanemask_ge": np.uint64(0xFFFFFFFF) - (bit - np.uint64(1)),
        }
        constants = {"WARP_SZ": WARP_SIZE, "%dynamic_smem_size": self.geometry.dynamic_shared_bytes}
        for axis, threads, blocks in zip("xyz", self.geometry.block, self.geometry.grid, strict=True):
            constants |= {f"%ntid.{axis}": threads, f"%nctaid.{axis}": blocks, f"%ctaid.{axis}": 0}
        return special | {name: np.full(self.n, value, np.uint64) for name, value in constants.items()}

    def read(self, operand: str, kind: ScalarType) -> Callable[[], Array]:
        """Decode a source operand: a function that returns its values for all threads."""
        if operand.startswith("!") and kind.kind == "predicate":
            inner = self.read(operand[1:].strip(), kind)
            return lambda: ~inner()
        if operand in self.types:
            return self._read_register(operand, kind)
        if operand in self.special:
            return lambda: bits_to_values(resize_bits(self.special[operand], kind.bits, signed=False), kind)
        if operand in self.addresses:
            address = np.full(self.n, self.addresses[operand], np.uint64)
            values = bits_to_values(resize_bits(address, kind.bits, signed=False), kind)
            return lambda: values
        values = self._immediate(operand, kind)
        return lambda: values

    def _read_register(self, name: str, kind: ScalarType) -> Callable[[], Array]:
        own, bits = self.types[name], self.bits
        if kind.kind == "predicate" or own.kind == "predicate":
            if kind.kind != own.kind:
                raise PtxError(f"operand {name} of type .{own.name} used as .{kind.name}")
            return lambda: bits[name]
        if own.bits < kind.bits:
            raise PtxError(f"operand {name} of {own.bits} bits used as .{kind.name}")
        if own.bits > kind.bits:
            return lambda: bits_to_values(bits[name].astype(kind.storage), kind)
        if kind.is_half:
            return lambda: bits_to_values(bits[name], kind)
        return lambda: bits[name].view(kind.dtype)

    def _immediate(self, text: str, kind: ScalarType) -> Array:
        if match := re.fullmatch(r"0([fFdD])([0-9a-fA-F]+)", text):
            code = ">f" if match[1] in "fF" else ">d"
            value: float = struct.unpack(code, bytes.fromhex(match[2]))[0]
        elif re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?", text):
            number = integer(text)
            if kind.kind == "predicate":
                return np.full(self.n, bool(number))
            if not (kind.is_float and kind.lanes == 1):
                return bits_to_values(np.full(self.n, number & ((1 << kind.bits) - 1), kind.storage), kind)
            value = number
        elif re.fullmatch(r"-?\d+\.\d*(?:[eE][-+]?\d+)?", text):
            value = float(text)
        else:
            raise PtxError(f"unknown operand {text!r}")
        if kind.kind == "bits":
            # A float literal moved by a .b32 or .b64 instruction stands for its bits.
            return np.full(self.n, value, FLOATS[kind.bits]).view(UNSIGNED[kind.bits])
        return np.full(self.n, value, np.float64 if kind.is_half else kind.dtype)

    def write(self, operand: str, kind: ScalarType) -> Callable[[Array, Active], None]:
        """Decode a destination: a function that stores values of type ``kind`` for the active threads."""
        if operand == "_":
            return lambda values, active: None
        if operand not in self.types:
            raise PtxError(f"destination {operand!r} is not a register")
        own, bits = self.types[operand], self.bits
        if (own.kind == "predicate") != (kind.kind == "predicate") or own.bits < kind.bits:
            raise PtxError(f"destination {operand} of type .{own.name} given a .{kind.name}")
        signed, resize, undefined = kind.kind == "signed", own.bits != kind.bits, self.undefined

        def put(values: Array, active: Active) -> None:
            if operand in undefined.masks:
                undefined.define(operand, active.mask)
            new = values_to_bits(values, kind)
            if resize:
                new = resize_bits(new, own.bits, signed=signed)
            bits[operand] = new if active.full else np.where(active.mask, new, bits[operand])

        return put

    def scatter(self, operand: str, kind: ScalarType) -> Callable[[Array, Active], None]:
        """Like ``write``, for values of the active threads only, as memory delivers them."""
        put = self.write(operand, kind)
        storage = TYPES[f"b{kind.bits}"].storage

        def put_active(values: Array, active: Active) -> None:
            spread: Array = np.zeros(self.n, storage)
            spread[active.threads] = np.ascontiguousarray(values).view(storage)
            put(bits_to_values(spread, kind), active)

        return put_active

    def named(self, *operands: str) -> tuple[str, ...]:
        """Registers that stand in operands, with braces, brackets and offsets around them."""
        words = re.findall(rf"{NAME}(?:@\d+)?", " ".join(operands))
        return tuple(word for word in dict.fromkeys(words) if word in self.types)

    def vector(self, operand: str) -> list[str]:
        """Registers of ``{a, b}``, or the operand itself."""
        return [part.strip() for part in operand.strip("{} \n\t").split(",")]

    def address(self, operand: str) -> Callable[[], Array]:
        """Decode ``[base + offset]``: a function that returns addresses (uint64) for all threads."""
        match = re.fullmatch(rf"\[\s*({NAME}(?:@\d+)?|\d+)\s*(?:\+?\s*(-?\w+))?\s*\]", operand)
        if match is None:
            raise PtxError(f"unsupported address {operand}")
        base, offset = match[1], np.uint64(integer(match[2] or "0") & (2**64 - 1))
        if base in self.types:
            width = self.types[base].bits
            get = self.read(base, TYPES[f"u{width}"])
            return lambda: get().astype(np.uint64) + offset if offset else get().astype(np.uint64)
        if base not in self.addresses and not base.isdigit():
            raise PtxError(f"unknown symbol {base} in {operand}")
        start = self.addresses[base] if base in self.addresses else int(base)
        value = np.full(self.n, start, np.uint64) + offset
        return lambda: value


def integer(text: str) -> int:
    """Value of a PTX integer literal: decimal, 0x, 0b or octal with a leading zero; a U suffix is allowed."""
    digits = text.rstrip("U")
    return int(digits, 8) if re.fullmatch(r"-?0[0-7]+", digits) else int(digits, 0)


def sources(instruction: Instruction, registers: Registers, *kinds: ScalarType) -> list[Callable[[], Array]]:
    """Readers of the operands after the first, each with its type; raises PtxError if their number differs."""
    operands = instruction.operands[1:]
    if len(operands) != len(kinds):
        raise PtxError(f"unsupported form: {len(operands)} source operands, expected {len(kinds)}")
    return [registers.read(operand, kind) for operand, kind in zip(operands, kinds, strict=True)]
