"""Which weights to zero: magnitude, N:M, random and Wanda, each to an exact count.

A method turns scores (m, k) into a mask of the weights to zero; the smallest scores go, and of equal ones the first.
Existing zeros have the smallest magnitude, so they count towards the sparsity asked for. How many zeros each matrix
gets is said in `allocation`; SparseGPT, which changes the weights it keeps, is in `sparsegpt`.

References
----------
Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (Wanda), ICLR 2024, section 3.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import check

BLOCK_ELEMENTS = 1 << 24  # sorted at a time; an index takes 8 bytes
LOW_BITS = 16

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Method(StrEnum):
    """Ways to choose the weights to zero."""

    MAGNITUDE = "magnitude"
    MAGNITUDE_GLOBAL = "magnitude-global"
    NM = "nm"
    RANDOM = "random"
    ERK = "erk"
    WANDA = "wanda"
    SPARSEGPT = "sparsegpt"


class Allocation(StrEnum):
    """How the zeros are shared out among matrices."""

    UNIFORM = "uniform"
    ERK = "erk"
    OWL = "owl"


PATTERNED = (Method.NM, Method.WANDA, Method.SPARSEGPT)
ALLOCATED = (Method.MAGNITUDE, Method.WANDA, Method.SPARSEGPT)


@dataclass(frozen=True)
class PruningRule:
    """What to prune to.

    sparsity : fraction of zeros wanted, 0 to 1; it follows from a pattern.
    keep, group : non-zeros kept of each aligned group of columns, an N:M pattern; by default 2:4 for ``nm``, no
        pattern for ``wanda`` and ``sparsegpt``.
    seed : of ``random``.
    allocation : of the zeros among matrices; the method ``erk`` is ``magnitude`` with ERK's.
    """

    method: Method
    sparsity: float
    keep: int = 2
    group: int | None = None
    seed: int = 0
    allocation: Allocation = Allocation.UNIFORM

    def __post_init__(self) -> None:
        """Fill in what the method says, and refuse fractions, patterns and combinations that do not exist."""
        if self.method is Method.NM and self.group is None:
            object.__setattr__(self, "group", 4)
        if self.method is Method.ERK:
            check(self.allocation is not Allocation.OWL, "allocation of erk", self.allocation, Allocation.ERK)
            object.__setattr__(self, "allocation", Allocation.ERK)
        check(0 <= self.sparsity <= 1, "sparsity", f"{self.sparsity:.10g}", "a fraction from 0 to 1")
        if self.pattern is not None:
            self._check_pattern(*self.pattern)
        elif self.allocation is not Allocation.UNIFORM:
            allowed = f"{', '.join(ALLOCATED)} with {self.allocation}"
            check(self.method in (*ALLOCATED, Method.ERK), "method", self.method, allowed)

    @property
    def pattern(self) -> tuple[int, int] | None:
        """N and M of an N:M pattern."""
        return None if self.group is None else (self.keep, self.group)

    @property
    def needs_inputs(self) -> bool:
        """Whether weights are judged by what they are multiplied with: by a pass over calibration tokens."""
        return self.method in (Method.WANDA, Method.SPARSEGPT) or self.allocation is Allocation.OWL

    def _check_pattern(self, keep: int, group: int) -> None:
        check(0 <= keep <= group and group >= 1, "n:m", f"{keep}:{group}", "0 <= n <= m")
        check(self.method in PATTERNED, f"method of {keep}:{group}", self.method, ", ".join(PATTERNED))
        wanted = 1 - keep / group
        check(math.isclose(self.sparsity, wanted), "sparsity", f"{self.sparsity:g}", f"{wanted:g} for {keep}:{group}")
        alike = self.allocation is Allocation.UNIFORM
        check(alike, f"allocation of {keep}:{group}", self.allocation, "uniform: the pattern says how many")


@dataclass(frozen=True)
class GlobalThreshold:
    """Threshold of one sparsity over many matrices.

    bits : float32 bit pattern; smaller scores are zeroed.
    ties : scores equal to it that are zeroed too, in the order the matrices come.
    """

    bits: int
    ties: int


def magnitudes(weights: Scores, norms: NDArray[Any] | None = None) -> Scores:
    """Scores ``|w|``, times the norm of each input column if ``norms`` (k,) is given (Wanda).

    Raises
    ------
    ValueError
        If a weight is NaN, or infinite beside ``norms``, or these do not fit, are negative, or too large for float32.
    """
    check(not np.isnan(weights).any(), "weights", "hold NaN", "numbers")
    scores: Scores = np.abs(weights)
    if norms is not None:
        check(norms.shape == weights.shape[1:], "shape of norms", norms.shape, str(weights.shape[1:]))
        good = np.isfinite(norms).all() and (norms >= 0).all()
        check(good, "norms", "negative or not finite", "finite numbers of at least 0")
        check(np.isfinite(scores).all(), "weights", "hold an infinity", "finite numbers where norms judge them")
        largest = float(np.max(scores, initial=0)) * float(np.max(norms, initial=0))
        check(largest <= np.finfo(np.float32).max, "norms", f"up to {np.max(norms):g}", "scores that float32 holds")
        scores *= norms.astype(np.float32)
    return scores


def random_scores(shape: tuple[int, int], seed: int, name: str) -> Scores:
    """Scores independent of the weights; the same for the same seed and name, whatever else is pruned."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).random(shape, dtype=np.float32)


def smallest(scores: Scores, count: int) -> Mask:
    """Mask of the ``count`` smallest scores of the whole matrix."""
    mask = np.zeros(scores.shape, np.bool_)
    if count:
        threshold = np.partition(scores, count - 1, axis=None)[count - 1]
        np.less(scores, threshold, out=mask)
        missing = count - int(mask.sum())
        mask.reshape(-1)[np.flatnonzero(scores == threshold)[:missing]] = True
    return mask


def smallest_of_rows(scores: Scores, count: int) -> Mask:
    """Mask of the ``count`` smallest scores of each row."""
    mask = np.zeros(scores.shape, np.bool_)
    height = max(1, BLOCK_ELEMENTS // scores.shape[1])
    for first in range(0, scores.shape[0], height):
        rows = slice(first, first + height)
        order = np.argsort(scores[rows], axis=1, kind="stable")[:, :count]
        np.put_along_axis(mask[rows], order, True, axis=1)
    return mask


def outside_pattern(scores: Scores, keep: int, group: int) -> Mask:
    """Mask of all but the ``keep`` largest scores of each aligned ``group`` of columns."""
    m, k = scores.shape
    check(k % group == 0, "columns", k, f"a multiple of {group} for an N:{group} pattern")
    return smallest_of_rows(scores.reshape(-1, group), group - keep).reshape(m, k)


def mask_by(rule: PruningRule, scores: Scores, zeros: int) -> Mask:
    """Mask of the weights of one matrix that a rule zeroes, by their scores; of all rules but magnitude-global.

    Parameters
    ----------
    zeros : in the whole matrix; Wanda spreads them evenly over the rows, a pattern knows them itself.
    """
    if rule.pattern is not None:
        return outside_pattern(scores, *rule.pattern)
    if rule.method is Method.WANDA:
        return smallest_of_rows(scores, zeros // scores.shape[0])
    return smallest(scores, zeros)


def global_threshold(passes: Callable[[], Iterable[Scores]], count: int) -> GlobalThreshold:
    """Exact threshold below which ``count`` scores of all matrices lie, without holding more than one.

    A radix selection: non-negative float32 order like their bit patterns, so one pass counts the upper 16 bits and a
    second the lower ones of the bin that holds the threshold.

    Parameters
    ----------
    passes : called twice; each time yields the scores of all matrices in the same order.
    """
    if count == 0:
        return GlobalThreshold(0, 0)
    upper: Any = 0
    for scores in passes():
        upper = upper + _histogram(_bits(scores) >> LOW_BITS)
    high, below = _bin_of(upper, count)
    lower: Any = 0
    for scores in passes():
        bits = _bits(scores)
        lower = lower + _histogram(bits[bits >> LOW_BITS == high] & 0xFFFF)
    low, below_low = _bin_of(lower, count - below)
    return GlobalThreshold(high << LOW_BITS | low, count - below - below_low)


def below_threshold(scores: Scores, threshold: GlobalThreshold) -> tuple[Mask, GlobalThreshold]:
    """Mask of one matrix, and the threshold with the ties it leaves for the next."""
    bits = scores.view(np.uint32)
    mask = bits < threshold.bits
    ties = np.flatnonzero(bits == threshold.bits)[: threshold.ties]
    mask.reshape(-1)[ties] = True
    return mask, GlobalThreshold(threshold.bits, threshold.ties - ties.size)


def _bits(scores: Scores) -> NDArray[np.uint32]:
    return np.ascontiguousarray(scores).reshape(-1).view(np.uint32)


def _histogram(parts: NDArray[Any]) -> NDArray[np.int64]:
    return np.bincount(parts, minlength=1 << LOW_BITS)


def _bin_of(histogram: Any, count: int) -> tuple[int, int]:
    """Bin that holds the ``count``-th smallest entry, and entries below the bin."""
    running = np.cumsum(histogram)
    index = int(np.searchsorted(running, count))
    return index, int(running[index] - histogram[index])
