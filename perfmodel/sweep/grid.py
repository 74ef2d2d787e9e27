"""Which points does a sweep have, in which order, and how are they cut into pieces?

The points are the product of *dimensions*; a dimension is one axis, or several zipped axes that move together. Rows run
through dimensions that hold a name (GPU, kernel, model, system) first, then through the numbers in the order written,
the last one fastest.

A *block* is a box of that product with at most `BLOCK_POINTS` points: one choice of names, fixed leading numbers, a
slice of the next, all of the rest. The models broadcast over a box, so what depends on two axes is computed for two
axes, and the temporaries stay in the cache. A *chunk* is a run of consecutive blocks: the unit that is stored,
resumed and sent to a worker. Both depend on the grid alone, never on the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Column = tuple[str, ...] | NDArray[np.float64]

BLOCK_POINTS = 1 << 15  # 256 KiB a float64 array: the dozen temporaries of a model stay in the L2 and L3 caches
CHUNK_POINTS = 1 << 20  # large enough that files and scheduling cost little, small enough to lose at a stop


@dataclass(frozen=True)
class Dimension:
    """Axes that move together, by name; columns of equal length."""

    columns: dict[str, Column]

    @property
    def size(self) -> int:
        """Values along the dimension."""
        return len(next(iter(self.columns.values())))

    @property
    def named(self) -> bool:
        """Whether a column holds names: the models take one at a time."""
        return any(isinstance(column, tuple) for column in self.columns.values())


@dataclass(frozen=True)
class Block:
    """A box of the grid.

    Attributes
    ----------
    names : dict
        One name per named axis.
    numbers : dict
        One scalar or array per number axis; together they broadcast to ``shape``.
    shape : tuple of int
        Shape of the box; its points in C order are consecutive rows.
    """

    names: dict[str, str]
    numbers: dict[str, NDArray[np.float64]]
    shape: tuple[int, ...]

    @property
    def points(self) -> int:
        """Points in the box."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Grid:
    """The product of ``dimensions``, in the order of rows; build with `Grid.of`."""

    dimensions: tuple[Dimension, ...]

    @classmethod
    def of(cls, dimensions: list[Dimension]) -> Grid:
        """Sort names before numbers, each in the order given."""
        return cls(tuple(sorted(dimensions, key=lambda dimension: not dimension.named)))

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of all axes, in the order of columns."""
        return tuple(name for dimension in self.dimensions for name in dimension.columns)

    @property
    def points(self) -> int:
        """Number of points."""
        return math.prod(dimension.size for dimension in self.dimensions)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self._blocks // self._blocks_per_chunk)

    def chunk(self, index: int) -> list[Block]:
        """Blocks of chunk ``index``, in the order of rows."""
        if not 0 <= index < self.chunks:
            raise ValueError(f"chunk is {index}, allowed are 0 to {self.chunks - 1}")
        first = index * self._blocks_per_chunk
        return [self._block(i) for i in range(first, min(first + self._blocks_per_chunk, self._blocks))]

    def column(self, axis: str) -> Column:
        """Values along one axis."""
        return next(d.columns[axis] for d in self.dimensions if axis in d.columns)

    @cached_property
    def codes(self) -> dict[str, dict[str, int]]:
        """Of every axis of names: each name once, with its place among them."""
        columns = {axis: self.column(axis) for axis in self.axes}
        return {
            axis: {name: code for code, name in enumerate(dict.fromkeys(column))}
            for axis, column in columns.items()
            if isinstance(column, tuple)
        }

    @cached_property
    def _cut(self) -> int:
        """Index of the dimension that blocks slice: those after it are whole, those before it fixed."""
        cut, inner = len(self.dimensions), 1
        while cut > self._named and inner * self.dimensions[cut - 1].size <= BLOCK_POINTS:
            cut -= 1
            inner *= self.dimensions[cut].size
        return max(cut - 1, self._named)

    @cached_property
    def _named(self) -> int:
        return sum(dimension.named for dimension in self.dimensions)

    @cached_property
    def _cut_size(self) -> int:
        """Values of the cut dimension; one where every dimension holds names, and none is cut."""
        return self.dimensions[self._cut].size if self._cut < len(self.dimensions) else 1

    @cached_property
    def _slice(self) -> int:
        """Values of the cut dimension in one block."""
        inner = math.prod(dimension.size for dimension in self.dimensions[self._cut + 1 :])
        return max(1, BLOCK_POINTS // inner)

    @cached_property
    def _outer(self) -> tuple[int, ...]:
        """Sizes of the index that counts blocks: fixed dimensions, then slices of the cut one."""
        fixed = [dimension.size for dimension in self.dimensions[: self._cut]]
        return (*fixed, -(-self._cut_size // self._slice))

    @property
    def _blocks(self) -> int:
        return math.prod(self._outer)

    @cached_property
    def _blocks_per_chunk(self) -> int:
        inner = math.prod(dimension.size for dimension in self.dimensions[self._cut + 1 :])
        largest = inner * min(self._slice, self._cut_size)
        return max(1, CHUNK_POINTS // largest)

    def _block(self, index: int) -> Block:
        *fixed, part = (int(i) for i in np.unravel_index(index, self._outer))
        start = part * self._slice
        cut = slice(start, start + self._slice)
        slices = [slice(i, i + 1) for i in fixed] + [cut] + [slice(None)] * (len(self.dimensions) - self._cut - 1)
        chosen = [
            {name: column[part] for name, column in dimension.columns.items()}
            for dimension, part in zip(self.dimensions, slices, strict=False)  # no dimension is cut where all are named
        ]
        shape = tuple(len(next(iter(columns.values()))) for columns in chosen)
        names, numbers = {}, {}
        for position, columns in enumerate(chosen):
            for name, column in columns.items():
                if isinstance(column, tuple):
                    names[name] = column[0]
                else:
                    numbers[name] = column.reshape([-1 if i == position else 1 for i in range(len(shape))])
        return Block(names, numbers, shape)
