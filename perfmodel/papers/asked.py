"""A published number as a question: the cells of its row, parsed, and what an answer is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.load import load_kernel_times
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.papers import Paper
from perfmodel.evidence.speedups import boxplot_shapes

Array = NDArray[np.float64]
Times = tuple[Array, Array, Array]  # and the two ends of their interval

_T = TypeVar("_T")
EACH, OWN_AND_BASELINE = ";", "/"
STATISTICS: Mapping[str, Callable[[Array], float]] = {
    "mean": lambda x: float(np.mean(x)),
    "geomean": lambda x: float(np.exp(np.mean(np.log(x)))),
    "median": lambda x: float(np.median(x)),
    "max": lambda x: float(np.max(x)),
    "min": lambda x: float(np.min(x)),
}
SHAPE_TABLES: Mapping[str, Callable[[], Array]] = {
    "flash-llm": lambda: _distinct(load_kernel_times("published/kernel_a100.csv")[["m", "k"]].to_numpy(float)),
    "spinfer": lambda: _distinct(boxplot_shapes().to_numpy(float)),
}


def _distinct(rows: Array) -> Array:
    return np.unique(rows, axis=0)


class UnansweredError(ValueError):
    """Nothing of ours answers this number; the message says which setting or model is missing."""


@dataclass(frozen=True)
class Answer:
    """What we say to a published number, in its unit, with the 90 % interval; without doubt both ends are ``value``."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        """A number that is none answers nothing."""
        if not math.isfinite(self.value):
            raise UnansweredError("our model gives only a bound here")


def over(kernel: Times, baseline: Times) -> Times:
    """Baseline over kernel and the interval of it, the errors of both taken as independent."""
    (own, own_low, own_high), (other, low, high) = kernel, baseline
    ratio = other / own
    slow = np.hypot(np.log(own_high / own), np.log(other / low))
    fast = np.hypot(np.log(own / own_low), np.log(high / other))
    return ratio, ratio * np.exp(-slow), ratio * np.exp(fast)


@dataclass(frozen=True)
class Asked:
    """One row of a paper's numbers.

    Attributes
    ----------
    paper : Paper
        Whose number it is; says how its benchmark calls kernels.
    cells : mapping
        Columns of the row as text (`perfmodel.catalog.papers.NUMBER_COLUMNS`).
    """

    paper: Paper
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell of a column that this quantity cannot do without."""
        if not self.cells[column]:
            raise UnansweredError(f"the source does not say: {column}")
        return self.cells[column]

    def sides(self, column: str, default: str = "") -> tuple[str, str]:
        """Cells ``own/baseline`` as two, or the same twice."""
        own, _, other = (self.cells[column] or default or self.text(column)).partition(OWN_AND_BASELINE)
        return own, other or own

    def numbers(self, column: str, default: float | None = None) -> Array:
        """Numbers of a cell that lists some."""
        cell = self.cells[column]
        if not cell and default is not None:
            return np.array([default])
        return listed(self.text(column))

    @property
    def shapes(self) -> Array:
        """Rows and columns of the weights, a row for each matrix."""
        if name := self.cells["shapes"]:
            return _known("shapes", name, SHAPE_TABLES)()
        return np.stack(np.broadcast_arrays(self.numbers("m"), self.numbers("k")), axis=1)

    def grid(self, *, by_tokens: bool = True, by_sparsity: bool = True) -> tuple[Array, Array, Array, Array]:
        """All products asked for, ``m, k, n, sparsity`` of one length; an axis that is looked for stays 0."""
        tokens = self.numbers("n") if by_tokens else np.zeros(1)
        zeros = self.numbers("sparsity", 0.0) if by_sparsity else np.zeros(1)
        axes = np.meshgrid(np.arange(len(self.shapes)), tokens, zeros, indexing="ij")
        m, k = (self.shapes[axes[0].ravel(), column] for column in (0, 1))
        return m, k, axes[1].ravel(), axes[2].ravel()

    def answer(self, value: Array, low: Array, high: Array) -> Answer:
        """The statistic asked for of all that the row spans, of the numbers and of the ends of their intervals."""
        name = self.cells["statistic"]
        if not name and np.size(value) != 1:
            raise ValueError(f"{self.paper.key}: {np.size(value)} numbers need a statistic: {', '.join(STATISTICS)}")
        take = _known("statistic", name or "mean", STATISTICS)
        return Answer(*(take(np.asarray(part, dtype=np.float64)) for part in (value, low, high)))


def _known(kind: str, name: str, known: Mapping[str, _T]) -> _T:
    if name not in known:
        raise ValueError(unknown_name(kind, name, known))
    return known[name]


def listed(cell: str) -> Array:
    """Numbers that stand in a cell, between semicolons."""
    return np.array([float(part) for part in cell.split(EACH)])
