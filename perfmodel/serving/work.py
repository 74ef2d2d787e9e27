"""What is an operator of a forward pass: how long does it take, waiting for what, and how much does it do?

FLOP and bytes are those that the operator asks for, counted once: a multiply-add is 2 FLOP, zeros of pruned weights are
multiplied, weights cross the memory as they are stored, inputs and outputs once in 16 bits, the cache in its own bits.
What a kernel pads, reads twice or finds in a cache is in its time and not in these counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import Bound
from perfmodel.serving.transformer import Part

Array = NDArray[np.float64]
Terms = Mapping[Any, Array]  # by `Bound` or `Wait`

ZERO: Array = np.zeros(())
ABSENT: Any = 0.0  # broadcasts as an array would
UNCOUNTED: Any = math.nan  # FLOP of what is no product of matrices: it waits for bytes or launches


class Wait(StrEnum):
    """What operators wait for that are no kernels; beside `Bound`."""

    LINK = "link"
    HOST = "host"
    IDLE = "idle"


@dataclass(frozen=True)
class Work:
    """FLOP of an operator on one GPU, and the bytes that cross its device memory, by what they are."""

    flop: Array = ABSENT
    weight_bytes: Array = ABSENT
    cache_bytes: Array = ABSENT
    activation_bytes: Array = ABSENT

    @property
    def bytes(self) -> Array:
        """All of them."""
        return np.asarray(self.weight_bytes + self.cache_bytes + self.activation_bytes)

    def times(self, factor: Array | float) -> Work:
        """So many of it."""
        return Work(*(np.asarray(factor * getattr(self, field.name)) for field in fields(self)))

    def __add__(self, other: Work) -> Work:
        """Both together; uncounted FLOP add nothing to counted ones."""
        flop = np.where(np.isnan(self.flop), other.flop, self.flop + np.nan_to_num(other.flop))
        weights, cache = self.weight_bytes + other.weight_bytes, self.cache_bytes + other.cache_bytes
        return Work(flop, weights, cache, self.activation_bytes + other.activation_bytes)


NONE = Work(UNCOUNTED)


@dataclass(frozen=True)
class Cost:
    """Seconds of one operator, those that each resource would take alone, and its work."""

    time_s: Array
    terms: Terms
    work: Work


@dataclass(frozen=True)
class Operator:
    """All operators of one name in a pass, on one GPU.

    Attributes
    ----------
    name : str
        A matrix's, or what it does.
    part : Part
        Where its time counts.
    count : float
        How many there are in a pass.
    time_s : ndarray
        Seconds of all of them.
    terms, work : callable
        Seconds that each resource would take alone, and `Work`, of all of them; most runs ask for neither.
    """

    name: str
    part: Part
    count: float
    time_s: Array
    terms: Callable[[], Terms]
    work: Callable[[], Work] = lambda: NONE

    @classmethod
    def of(cls, name: str, part: Part, count: float, cost: Cost) -> Operator:
        """So many operators of the same cost."""
        return cls(
            name, part, count, np.asarray(count * cost.time_s), lambda: summed([(count, cost.terms)]),
            lambda: cost.work.times(count),
        )  # fmt: skip

    @classmethod
    def waiting(cls, name: str, part: Part, time_s: Array, what: Wait | Bound, count: float = 0) -> Operator:
        """Time in which nothing is read or multiplied, by kernels so many."""
        return cls(name, part, count, time_s, lambda: {what: time_s})

    def scaled(self, factor: Array | float) -> Operator:
        """So many passes' share of it."""
        return replace(
            self, count=float(np.max(factor * self.count)), time_s=np.asarray(factor * self.time_s),
            terms=lambda: summed([(factor, self.terms())]), work=lambda: self.work().times(factor),
        )  # fmt: skip

    @property
    def bound(self) -> str:
        """The resource that would take longest alone; of an operator of one size."""
        terms = self.terms()
        return max(terms, key=lambda name: float(terms[name]))


def merged(operators: Iterable[Operator], name: str | None = None, part: Part | None = None) -> Operator:
    """Several operators as one, of the first one's name and part if not of those given."""
    found = list(operators)
    if len(found) == 1 and name is None:
        return found[0]

    return Operator(
        name or found[0].name, part or found[0].part, sum(o.count for o in found),
        total_s(found), lambda: summed((1.0, o.terms()) for o in found), lambda: reduce(add, (o.work() for o in found)),
    )  # fmt: skip


def total_s(operators: Iterable[Operator]) -> Array:
    """Seconds of all of them."""
    return np.asarray(sum((operator.time_s for operator in operators), ZERO))


def by_part(operators: Iterable[Operator]) -> dict[Part, Array]:
    """Seconds of each part."""
    parts = dict.fromkeys(Part, ZERO)
    for operator in operators:
        parts[operator.part] = np.asarray(parts[operator.part] + operator.time_s)
    return parts


def summed(kinds: Iterable[tuple[Array | float, Terms]]) -> Terms:
    """Seconds of each resource, so many times those of each kind."""
    total: dict[str, Array] = {}
    for factor, terms in kinds:
        for resource, seconds in terms.items():
            total[resource] = np.asarray(total.get(resource, ZERO) + factor * seconds)
    return total
