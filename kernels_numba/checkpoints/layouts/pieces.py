"""Records of a matrix in pieces, and the unpacking that all layouts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.float_values import ELEMENTS, as_float32
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, TensorInfo
from kernels_numba.checkpoints.small_floats import POWERS, values_of

TENSOR, ROW = "tensor", "row"  # grains of a scale, beside columns of a group and blocks as "128x128"
BY_NAME = ("NVFP4", "MXFP4", "MXFP8")  # types whose name says how many weights share a scale
FLOATS = (*ELEMENTS, "F8_E4M3", "F8_E5M2", POWERS)  # what scales are stored in
BLOCK_ELEMENTS = 1 << 22  # decoded at a time, 16 MiB as float32
WORD_BITS = 32
USUAL = 128  # weights along a side that share a scale, where several numbers would do

Rows = Callable[[int, int], NDArray[np.float32]]  # values of rows [first, stop), (stop - first, k)
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Coding:
    """What is stored for each weight.

    bits : of a code; 16 where weights are whole and only zeros are left out.
    grain : what shares a scale: `TENSOR`, `ROW`, so many columns of a row, or a block as "128x128".
    name : of types that are called by more than their bits, e.g. NVFP4.
    pattern : whether two of four weights are zero and not stored.
    """

    bits: int
    floating: bool
    grain: str | int
    zero_points: bool = False
    pattern: bool = False
    name: str = ""

    def __str__(self) -> str:
        kind = self.name or f"{'FP' if self.floating else 'INT'}{self.bits}"
        grain = f"g{self.grain}" if isinstance(self.grain, int) else self.grain
        words = [kind] if kind in BY_NAME else [kind, grain]
        return " ".join([*filter(None, words), *["zp"] * self.zero_points, *["2:4"] * self.pattern])


@dataclass(frozen=True)
class Packed:
    """A weight matrix that a file stores in pieces.

    name : what the matrix is called where it is stored whole.
    layout : e.g. "GPTQ".
    parts : names of its tensors; ``nbytes`` of them all.
    shape : (m, k), None if the pieces do not tell.
    coding : None if the pieces do not tell.
    decoder : opens it; None if we cannot.
    zeros : counts its zeros where places are unknown, but codes are; None if it cannot.
    obstacle : why it is not decoded.
    """

    name: str
    layout: str
    parts: tuple[str, ...]
    nbytes: int
    shape: tuple[int, int] | None = None
    coding: Coding | None = None
    decoder: Callable[[], Rows] | None = None
    zeros: Callable[[], int | None] | None = None
    obstacle: str = ""

    @property
    def what(self) -> str:
        """Layout and coding, e.g. "GPTQ, INT4 g128"; the layout alone where it says both."""
        told = self.coding is None or str(self.coding).lower() in self.layout.lower()
        return self.layout if told else f"{self.layout}, {self.coding}"

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of all its pieces over its weights."""
        return None if self.shape is None else 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def row_blocks(self, multiple: int = 1) -> Iterator[NDArray[np.float32]]:
        """Consecutive rows of its values, blocks of ``multiple`` rows; memory holds the pieces and one block.

        Raises
        ------
        ValueError
            If it cannot be decoded, or its pieces contradict each other; names it.
        """
        if self.decoder is None or self.shape is None:
            raise ValueError(f"matrix {self.name!r} is {self.what}, which is not decoded here: {self.obstacle}")
        m, k = self.shape
        height = multiple * max(1, BLOCK_ELEMENTS // (multiple * k))
        with np.errstate(all="ignore"):  # scales of any size, 0 and NaN included
            rows = self.decoder()
        for first in range(0, m, height):
            with np.errstate(all="ignore"):
                block = rows(first, min(m, first + height))
            yield block

    def values(self) -> NDArray[np.float32]:
        """The whole matrix; errors as `row_blocks`."""
        return np.concatenate(list(self.row_blocks()))


@dataclass(frozen=True)
class Pieces:
    """Tensors whose names have a stem in common, by the role that the rest of the name says."""

    source: Checkpoint
    stem: str
    by_role: Mapping[str, TensorInfo]
    config: Mapping[str, Any]

    @property
    def where(self) -> str:
        """File and matrix, for errors."""
        return f"{self.source.path}: matrix {self.stem!r}"

    def has(self, *roles: str) -> bool:
        """Whether all of these are there."""
        return all(role in self.by_role for role in roles)

    def first(self, *roles: str) -> str | None:
        """The first of these roles that is there."""
        return next((role for role in roles if role in self.by_role), None)

    def is_a(self, role: str, dtypes: tuple[str, ...], rank: int) -> bool:
        """Whether a role is there, in one of these types and with so many dimensions, none of them empty."""
        info = self.by_role.get(role)
        return info is not None and info.dtype in dtypes and len(info.shape) == rank and info.nbytes > 0

    def shape(self, role: str) -> tuple[int, ...]:
        """Shape of a role that is there; () otherwise."""
        info = self.by_role.get(role)
        return () if info is None else info.shape

    def dtype(self, role: str | None) -> str:
        """Type of a role; "" if it is not there."""
        return self.by_role[role].dtype if role is not None and role in self.by_role else ""

    def read(self, role: str) -> NDArray[Any]:
        """A piece as stored."""
        return self.source.read(self.by_role[role].name)

    def words(self, role: str) -> NDArray[np.uint32]:
        """A piece of 32-bit words."""
        return self.read(role).view(np.uint32)

    def floats(self, role: str) -> NDArray[np.float32]:
        """A piece as numbers: 16 and 32 bits as they are, 8 bits by table, bytes as powers of two (E8M0)."""
        info = self.by_role[role]
        if info.dtype in ELEMENTS:
            return as_float32(self.read(role), info.dtype)
        return values_of(POWERS if info.dtype == "U8" else info.dtype)[self.read(role)]

    def packed(self, layout: str, roles: tuple[str, ...], **about: Any) -> Packed:
        """Record of these roles, those that are there, as one matrix."""
        parts = [self.by_role[role] for role in roles if role in self.by_role]
        own = next((info.name for info in parts if info.name in (f"{self.stem}.weight", self.stem)), None)
        name = about.pop("name", None) or own or f"{self.stem}.weight"
        total = sum(info.nbytes for info in parts)
        return Packed(name, layout, tuple(info.name for info in parts), total, **about)


def unpacked(words: NDArray[np.uint32], bits: int) -> Codes:
    """Codes of ``bits`` along the last axis of ``words``, lowest bits first; a code may lie across two words."""
    if WORD_BITS % bits == 0:
        shifts = np.arange(0, WORD_BITS, bits, dtype=np.uint32)
        codes = (words[..., None] >> shifts & np.uint32((1 << bits) - 1)).astype(np.uint8)
        return codes.reshape(*words.shape[:-1], -1)
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    single = stream.reshape(*words.shape[:-1], -1, bits)
    return np.packbits(single, axis=-1, bitorder="little")[..., 0]


def nibbles(bytes_: Codes) -> Codes:
    """Codes of 4 bits along the last axis, low halves first."""
    pair = np.stack([bytes_ & 0xF, bytes_ >> 4], axis=-1)
    return pair.reshape(*bytes_.shape[:-1], 2 * bytes_.shape[-1])


def side_of(size: int, count: int) -> int | None:
    """Side of ``count`` equal parts of ``size``, the last maybe smaller: `USUAL`, what divides, or a power of two."""
    if count in (1, size):
        return size // count
    sides = [USUAL, *(1 << n for n in range(1, 13))]
    if count and size % count == 0:
        sides.insert(1, size // count)
    return next((side for side in sides if -(-size // side) == count), None)


def columns_of(values: NDArray[Any], k: int) -> NDArray[Any]:
    """Values (rows, groups) repeated to (rows, k); of the last group what is left."""
    return np.repeat(values, -(-k // values.shape[1]), axis=1)[:, :k]
