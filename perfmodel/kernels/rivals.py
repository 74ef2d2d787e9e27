"""Which kernels compete, what becomes of the weights with each, and when does pruning win?

Everything that ranks (`perfmodel.choice`, `perfmodel.worth`, plans, the explorer, the report) ranks this list, in these
words, and judges by intervals: "yes" or "no" where one side is clearly ahead, "tie" where the intervals leave it open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.names import unknown_name
from perfmodel.formats import FORMATS
from perfmodel.kernels.base import KernelModel
from perfmodel.kernels.fits import unmeasured_kernels
from perfmodel.kernels.registry import GPU_KERNELS, VARIANTS

NOT_MEASURED = "not measured"
WHOLE = ("lossless", "rounded")  # all weights are kept
STANDINGS = (*WHOLE, "pruned", "pruned and rounded", NOT_MEASURED)
EQUAL = 1e-9  # sparsities no further apart are one


class Verdict(StrEnum):
    """Whether a kernel or a system beats the fastest that keeps all weights."""

    YES = "yes"
    NO = "no"
    TIE = "tie"


def verdict_of(ours: tuple[float, float] | None, theirs: tuple[float, float] | None) -> Verdict:
    """Verdict on two intervals, low and high end, of which more is better; None where a side has nothing that fits."""
    if ours is None or theirs is None:
        return Verdict.NO if ours is None else Verdict.YES
    return Verdict.YES if ours[0] > theirs[1] else Verdict.NO if ours[1] < theirs[0] else Verdict.TIE


def standing(model: KernelModel) -> str:
    """What a reader must know first, of `STANDINGS`: "not measured", or what becomes of the weights."""
    return NOT_MEASURED if model.name in unmeasured_kernels() else model.format.change


class Patterned(Protocol):
    """A kernel or a system."""

    @property
    def patterns(self) -> tuple[float, ...]:
        """The sparsities it takes; any if empty."""

    def own_sparsity(self, sparsity: ArrayLike, /) -> NDArray[np.float64]:
        """``sparsity``, or that of its pattern."""


def drops_more(one: Patterned, sparsity: float) -> bool:
    """Whether its pattern has more zeros than ``sparsity``: it takes no part in a comparison there."""
    return bool(one.patterns) and float(one.own_sparsity(sparsity)) > sparsity + EQUAL


def rivals(
    formats: Sequence[str] = (),
    lossless_only: bool = False,
    unmeasured: bool = False,
    among: Mapping[str, KernelModel] = GPU_KERNELS,
) -> list[KernelModel]:
    """Kernel models that compete: of which more than a bound is known, and measured unless asked for otherwise.

    One that nobody measured takes part by ``unmeasured`` or by its format. What a device cannot run is not left out
    here, but for kernels of CPUs where ``among`` is not given.

    Raises
    ------
    ValueError
        If a format is unknown or no kernel model reads it, or nothing is left.
    """
    hidden = () if unmeasured else unmeasured_kernels()
    known = [model for model in among.values() if model.name not in hidden or model.format_name in formats]
    known = [model for model in known if model.name not in VARIANTS]
    readable = list(dict.fromkeys(model.format_name for model in known))
    for name in formats:
        if name in FORMATS and name not in readable:
            raise ValueError(f"no kernel model reads format {name!r}; there are models for {', '.join(readable)}")
        if name not in readable:
            raise ValueError(unknown_name("format", name, readable))
    chosen = [model for model in known if not formats or model.format_name in formats]
    chosen = [model for model in chosen if model.format.lossless or not lossless_only]
    if not chosen:
        raise ValueError(
            f"no lossless format among {', '.join(formats)}; allowed with lossless only: dense, tiled-csl ..."
        )
    return chosen
