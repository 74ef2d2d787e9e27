"""What is a weight format? A name, a closed form of its bytes, and what it does to the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.arrays import check_points, numbers, sizes
from perfmodel.units import BITS_PER_BYTE

Array = NDArray[np.float64]

LEAST_SIZE = 1e-6  # a matrix may be a share of one; below, bits a weight overflow
BytesOf = Callable[[Array, Array, Array], Array]
Change = Literal["lossless", "rounded", "pruned", "pruned and rounded"]
Activations = Literal["fp16", "fp8", "int8", "fp4", "int4"]


@dataclass(frozen=True)
class WeightFormat:
    """One storage format.

    Attributes
    ----------
    name : str
        What users type.
    title : str
        What figures show.
    bytes_of : callable
        ``(m, k, sparsity) -> bytes`` on float arrays.
    depends_on_sparsity : bool
        False for dense, pattern and quantised formats.
    lossless : bool
        True if every kept weight keeps its 16-bit value.
    source : str
        Where the layout is defined.
    prunes : bool
        True if it drops weights of a dense checkpoint: pattern formats, and always those that depend on sparsity.
    activations : str
        Precision in which the activations enter the multiply.
    """

    name: str
    title: str
    bytes_of: BytesOf
    depends_on_sparsity: bool
    lossless: bool
    source: str
    prunes: bool = False
    activations: Activations = "fp16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prunes", self.prunes or self.depends_on_sparsity)

    @property
    def change(self) -> Change:
        """What becomes of the weights of a dense checkpoint."""
        if self.prunes:
            return "pruned" if self.lossless else "pruned and rounded"
        return "lossless" if self.lossless else "rounded"

    def bytes(self, m: ArrayLike, k: ArrayLike, sparsity: ArrayLike = 0.0) -> Array:
        """Bytes of an ``m`` x ``k`` matrix at ``sparsity`` (fraction of zeros).

        Raises
        ------
        ValueError
            If a size is not positive or a sparsity lies outside [0, 1]; the message names the value.
        """
        rows, columns = sizes("m", m, LEAST_SIZE), sizes("k", k, LEAST_SIZE)
        zeros = check_sparsity(sparsity)
        check_points(rows.shape, columns.shape, zeros.shape)
        return self.bytes_of(rows, columns, zeros)

    def bits_per_weight(self, m: ArrayLike, k: ArrayLike, sparsity: ArrayLike = 0.0) -> Array:
        """Bits a weight takes on average, zeros counted as weights."""
        stored = self.bytes(m, k, sparsity)
        return stored * BITS_PER_BYTE / (numbers("m", m) * numbers("k", k))


def check_sparsity(sparsity: ArrayLike) -> Array:
    """``sparsity`` as a float array.

    Raises
    ------
    ValueError
        If a value lies outside [0, 1]; names it, and the fraction that a percentage may have meant.
    """
    values = numbers("sparsity", sparsity)
    wrong = ~((values >= 0) & (values <= 1))
    if np.any(wrong):
        value = float(values[wrong].flat[0])
        hint = f"; sparsity is a fraction, did you mean {value / 100:g}?" if 2 <= value <= 100 else ""
        raise ValueError(f"sparsity must lie in [0, 1], got {value:.10g}{hint}")
    return values


def at_any_sparsity(size: Callable[[Array, Array], Array]) -> BytesOf:
    """``bytes_of`` of a format whose size ``(m, k) -> bytes`` no zero changes; still of the shape of all three."""
    return lambda m, k, s: size(m, k) + 0 * s
